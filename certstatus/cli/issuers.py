"""``certstatus issuer``: issuers, their generations and policies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from certstatus.cli.context import Installation, pass_installation, table
from certstatus.cli.waiting import report_change, wait_options

if TYPE_CHECKING:
    from certstatus.config import IssuerConfig
    from issuance.issuers import IssuerRecord


@click.group
def issuer() -> None:
    """Issuers: CA keys, generations, policies."""


@issuer.command("list")
@pass_installation
def list_issuers(installation: Installation) -> None:
    """List all issuers, a line for each CA key."""
    from issuance.issuers import issuers

    found = issuers(installation.store)
    values = [
        {
            "issuer_id": item.issuer_id,
            "service": item.service,
            "generation": item.generation,
            "key": item.key_algorithm,
            "access": item.policy.access,
            "until": f"{item.ca_certificate.not_valid_after_utc:%Y-%m-%d}",
            "key_event_seq": item.key_event_seq,
            "revocations": _revocations(item),
        }
        for item in found
    ]
    rows: list[list[object]] = [list(item.values()) for item in values]
    headings = ["id", "service", "generation", "key", "access", "CA until", "key event", "revocations"]
    installation.emit(values, table(headings, rows))


def _revocations(item: IssuerRecord) -> str:
    if not item.is_ready:
        return "import not ended"
    return "here" if item.revokes_here else "elsewhere"


@issuer.command
@click.argument("service")
@pass_installation
def add(installation: Installation, service: str) -> None:
    """Make the next generation of SERVICE (a new CA key) as its [[issuer]] in the configuration says."""
    from certstatus import clock
    from issuance.issuers import create_issuer

    made = create_issuer(
        installation.store, installation.ca_keys, _configured(installation, service), clock.now_ms
    )
    values = {"issuer_id": made.issuer_id, "service": service, "generation": made.generation}
    installation.emit(values, f"issuer {made.issuer_id}: {service} generation {made.generation}")


@issuer.command
@click.argument("service")
@click.option("--generation", type=click.IntRange(1), help="CA key generation [the newest].")
@pass_installation
def policy(installation: Installation, service: str, generation: int | None) -> None:
    """Give an issuer the policy that its [[issuer]] in the configuration has now.

    Where that has cert_hash, the hashes of certificates issued before are told to the responders.
    """
    from certstatus import clock
    from issuance.certificate_hashes import tell_hashes
    from issuance.issuers import IssuerPolicy, issuer_of, set_policy

    found = issuer_of(installation.store, service, generation)
    wanted = IssuerPolicy.from_config(_configured(installation, service))
    set_policy(installation.store, found.issuer_id, wanted, clock.now_ms)
    told = tell_hashes(installation.store, found.issuer_id, clock.now_ms) if wanted.cert_hash else 0
    installation.emit(
        {"issuer_id": found.issuer_id, "hashes_told": told},
        f"issuer {found.issuer_id}: policy as in {installation.config_path}"
        + (f", {told} certificate hashes told" if told else ""),
    )


@issuer.command("add-certificate")
@click.argument("service")
@click.argument("certificate_file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--generation", type=click.IntRange(1), help="CA key generation [the newest].")
@pass_installation
def add_certificate(
    installation: Installation, service: str, certificate_file: Path, generation: int | None
) -> None:
    """Add a renewed CA certificate, on the same name and key, to an issuer of SERVICE (PEM or DER)."""
    from certstatus import clock
    from issuance.issuers import add_ca_certificate, issuer_of

    found = issuer_of(installation.store, service, generation)
    certificate_der = _certificate_der(certificate_file)
    add_ca_certificate(installation.store, found.issuer_id, certificate_der, clock.now_ms)
    values = {"issuer_id": found.issuer_id, "certificates": len(found.certificates_der) + 1}
    installation.emit(values, f"issuer {found.issuer_id}: {values['certificates']} CA certificates")


@issuer.command("close-partition")
@click.argument("service")
@click.argument("partition")
@click.option("--generation", type=click.IntRange(1), help="CA key generation [the newest].")
@pass_installation
def close_partition(installation: Installation, service: str, partition: str, generation: int | None) -> None:
    """Issue nothing into a CRL PARTITION of SERVICE any more, e.g. m1/13104: its municipality was merged.

    What was issued into it stays there, and its CRLs go on until all of it has ended and left them.
    """
    from certstatus import clock
    from issuance.crl_scopes import close_scope
    from issuance.issuers import issuer_of

    found = issuer_of(installation.store, service, generation)
    recorded = close_scope(installation.store, found.issuer_id, partition, clock.now_ms)
    values = {"issuer_id": found.issuer_id, "partition": partition, "seq": recorded.seq}
    installation.emit(values, f"{service} {partition}: closed, change {recorded.seq}")


def _certificate_der(file: Path) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    from certstatus.errors import MalformedRequest
    from certstatus.x509_reading import load_certificate

    try:
        return load_certificate(file.read_bytes()).public_bytes(Encoding.DER)
    except ValueError as exc:
        raise MalformedRequest(f"{file}: expected a certificate, PEM or DER: {exc}") from exc


@issuer.command("key-event")
@click.argument("service")
@click.option(
    "--generation", type=click.IntRange(1), required=True, help="The CA key that is lost or leaked."
)
@click.option("--ground", required=True, help="What happened, for the record.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@wait_options
@pass_installation
def key_event(
    installation: Installation,
    service: str,
    generation: int,
    ground: str,
    yes: bool,
    no_wait: bool,
    timeout: float | None,
) -> None:
    """Revoke EVERY certificate of a CA key at once, because that key was lost or leaked."""
    from certstatus import clock
    from issuance.issuers import issuer_of
    from issuance.revoke import complete_ca_key_event, record_ca_key_event

    found = issuer_of(installation.store, service, generation)
    if not yes:
        click.confirm(f"revoke every certificate of {service} generation {generation}, for good?", abort=True)
    recorded = record_ca_key_event(installation.store, found.issuer_id, clock.now_ms, ground)
    report_change(installation, f"{service} generation {generation}: all revoked", recorded, no_wait, timeout)
    complete_ca_key_event(installation.store, found.issuer_id, clock.now_ms)


def _configured(installation: Installation, service: str) -> IssuerConfig:
    from certstatus.errors import ConfigError

    for item in installation.config.issuer:
        if item.service == service:
            return item
    raise ConfigError(str(installation.config_path), "issuer", f"an [[issuer]] of service {service}", "none")
