"""``certstatus host``: responder hosts, on their own side (make) and on issuance's (enroll, end, list)."""

from __future__ import annotations

from pathlib import Path

import click

from certstatus.cli.context import Installation, pass_installation, table


@click.group
def host() -> None:
    """Responder hosts and their enrolment."""


@host.command
@click.argument("name")
@click.option(
    "--shared",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    required=True,
    help="Folder with publisher.pub and index.key, brought from the issuance side.",
)
@pass_installation
def make(installation: Installation, name: str, shared: Path) -> None:
    """Make this machine the responder host NAME (run there); prints the public key to enroll."""
    from cryptography.hazmat.primitives import serialization

    from certstatus.responder_host import copy_shared_keys, make_host

    folder = installation.config.state / "host"
    key = make_host(folder, name)
    copy_shared_keys(shared, folder)
    pem = key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    ).decode()
    installation.emit({"host": name, "public_key": pem}, pem.rstrip())


@host.command
@click.argument("name")
@click.argument("public_key", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@pass_installation
def enroll(installation: Installation, name: str, public_key: Path) -> None:
    """Enroll the host NAME with the PUBLIC_KEY (PEM) that `host make` printed there."""
    from certstatus import clock
    from certstatus.publisher_key import load_ed25519_public
    from issuance.responder_certs import enroll_host

    enroll_host(installation.store, name, load_ed25519_public(public_key), clock.now_ms)
    installation.emit({"host": name, "enrolled": True}, f"host {name} is enrolled")


@host.command
@click.argument("name")
@pass_installation
def end(installation: Installation, name: str) -> None:
    """End the enrolment of the host NAME: it gets no further responder certificates."""
    from certstatus import clock
    from issuance.responder_certs import end_host

    end_host(installation.store, name, clock.now_ms)
    installation.emit({"host": name, "enrolled": False}, f"host {name} gets no further certificates")


@host.command("list")
@pass_installation
def list_hosts(installation: Installation) -> None:
    """List all hosts that were ever enrolled."""
    from certstatus import clock
    from issuance.responder_certs import hosts

    found = hosts(installation.store)
    values = [
        {
            "host": item.host,
            "public_key": item.public_key.hex(),
            "enrolled_at": clock.utc_text(item.enrolled_ms // 1000),
            "ended_at": clock.utc_text(item.ended_ms // 1000) if item.ended_ms else None,
        }
        for item in found
    ]
    rows: list[list[object]] = [[item["host"], item["enrolled_at"], item["ended_at"]] for item in values]
    installation.emit(values, table(["host", "enrolled at", "ended at"], rows))
