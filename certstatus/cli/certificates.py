"""``certstatus issue | revoke | hold | release | show``: one certificate's life."""

from __future__ import annotations

import ssl
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from certstatus.cli.context import Installation, pass_installation, table
from certstatus.cli.waiting import report_change, wait_options
from certstatus.crl_reason import CRLReason
from certstatus.der import integer_content
from certstatus.errors import UnknownCertificate

if TYPE_CHECKING:
    from datetime import datetime

    from issuance.revoke import FoundCertificate

# A hold is a command of its own, and removeFromCRL is no reason to revoke.
_REASONS = {
    reason.label: int(reason)
    for reason in CRLReason
    if reason not in (CRLReason.CERTIFICATE_HOLD, CRLReason.REMOVE_FROM_CRL)
}


def serial_octets(text: str) -> bytes:
    """Return the INTEGER's content octets of a serial number in hex, as other programs print it."""
    try:
        number = int(text.replace(":", "").replace(" ", ""), 16)
    except ValueError as exc:
        raise click.BadParameter(f"{text!r} is not a hexadecimal number") from exc
    return integer_content(number)


service_option = click.option("--service", help="SIGN, AUTH or another service's name.")


@click.command
@click.argument("request", type=click.Path(dir_okay=False, path_type=Path, allow_dash=True))
@click.option("--service", required=True, help="SIGN, AUTH or another service's name.")
@click.option("--generation", type=click.IntRange(1), help="CA key generation [the newest].")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the certificate here.")
@click.option(
    "--partition",
    metavar="CODE",
    help="Municipality or ward of issue, e.g. 13104 or 131041, whose CRL the certificate is to be on"
    " [that of certificates without one].",
)
@pass_installation
def issue(
    installation: Installation,
    request: Path,
    service: str,
    generation: int | None,
    out: Path | None,
    partition: str | None,
) -> None:
    """Issue a certificate for REQUEST: a CSR or a public key, PEM or DER ("-" is standard input).

    Prints the certificate (PEM), or writes it to --out and prints its serial number.
    """
    from cryptography.hazmat.primitives.serialization import Encoding

    from certstatus import clock
    from certstatus.durable import write_durable
    from certstatus.x509_reading import load_certificate
    from issuance.issue import Issuing, read_subject_key
    from issuance.issue import issue as issue_certificate
    from issuance.issuers import issuer_of

    content = sys.stdin.buffer.read() if str(request) == "-" else request.read_bytes()
    public_key, subject = read_subject_key(content)
    issuer = issuer_of(installation.store, service, generation)
    issuing = Issuing.of(issuer, installation.ca_keys.private_key(issuer.issuer_id))
    issued = issue_certificate(
        installation.store,
        issuing,
        installation.index_key,
        public_key,
        clock.now_ms,
        subject=subject,
        partition=partition,
    )
    pem = load_certificate(issued.certificate_der).public_bytes(Encoding.PEM).decode()
    if out is not None:
        write_durable(out, pem.encode())
    values = {
        "service": service,
        "serial": issued.serial.hex(),
        "seq": issued.seq,
        "scope": issued.scope,
        "certificate": pem,
        "file": str(out) if out else None,
    }
    installation.emit(
        values, f"{issued.serial.hex()}  {service}, change {issued.seq}, {out}" if out else pem.rstrip()
    )


@click.command
@click.argument("serial", type=serial_octets)
@service_option
@click.option("--cause", help="The Act's cause, e.g. key-leaked; an unknown one lists them all.")
@click.option("--reason", type=click.Choice(list(_REASONS), case_sensitive=False), help="A bare CRLReason.")
@click.option(
    "--invalidity",
    type=click.DateTime(["%Y-%m-%dT%H:%M:%SZ"]),
    help="Since when the key is thought to be bad (UTC).",
)
@wait_options
@pass_installation
def revoke(
    installation: Installation,
    serial: bytes,
    service: str | None,
    cause: str | None,
    reason: str | None,
    invalidity: datetime | None,
    no_wait: bool,
    timeout: float | None,
) -> None:
    """Revoke the certificate with number SERIAL, for good.

    It is without effect at once.  The command returns when every worker that may be answering has
    applied the revocation, or can answer no more; it says whom it waited for.
    """
    from datetime import UTC

    from certstatus import clock
    from issuance.revoke import cause_of
    from issuance.revoke import revoke as revoke_certificate

    if cause is not None and reason is not None:
        raise click.UsageError("--cause and --reason exclude each other: a cause has its reason")
    found = _find(installation, serial, service)
    recorded = revoke_certificate(
        installation.store,
        found,
        clock.now_ms,
        cause=None if cause is None else cause_of(cause),
        reason=None if reason is None else _REASONS[reason],
        invalidity_s=int(invalidity.replace(tzinfo=UTC).timestamp()) if invalidity else 0,
    )
    report_change(installation, f"{found.service} {serial.hex()} revoked", recorded, no_wait, timeout)


@click.command("change-reason")
@click.argument("serial", type=serial_octets)
@service_option
@click.option("--cause", help="The Act's cause, e.g. key-leaked; an unknown one lists them all.")
@click.option("--reason", type=click.Choice(list(_REASONS), case_sensitive=False), help="A bare CRLReason.")
@wait_options
@pass_installation
def change_reason(
    installation: Installation,
    serial: bytes,
    service: str | None,
    cause: str | None,
    reason: str | None,
    no_wait: bool,
    timeout: float | None,
) -> None:
    """Correct the reason for which the certificate with number SERIAL was revoked; its date stays."""
    from certstatus import clock
    from issuance.revoke import cause_of
    from issuance.revoke import change_reason as change_recorded_reason

    if (cause is None) == (reason is None):
        raise click.UsageError("give --cause or --reason, and not both: a cause has its reason")
    found = _find(installation, serial, service)
    recorded = change_recorded_reason(
        installation.store,
        found,
        clock.now_ms,
        cause=None if cause is None else cause_of(cause),
        reason=None if reason is None else _REASONS[reason],
    )
    report_change(installation, f"{found.service} {serial.hex()} reason changed", recorded, no_wait, timeout)


@click.command
@click.argument("serial", type=serial_octets)
@service_option
@wait_options
@pass_installation
def hold(
    installation: Installation, serial: bytes, service: str | None, no_wait: bool, timeout: float | None
) -> None:
    """Suspend the effect of the certificate with number SERIAL (SIGN and AUTH know no hold)."""
    from certstatus import clock
    from issuance.revoke import hold as hold_certificate

    found = _find(installation, serial, service)
    recorded = hold_certificate(installation.store, found, clock.now_ms)
    report_change(installation, f"{found.service} {serial.hex()} held", recorded, no_wait, timeout)


@click.command
@click.argument("serial", type=serial_octets)
@service_option
@wait_options
@pass_installation
def release(
    installation: Installation, serial: bytes, service: str | None, no_wait: bool, timeout: float | None
) -> None:
    """Give the held certificate with number SERIAL its effect back."""
    from certstatus import clock
    from issuance.revoke import release as release_certificate

    found = _find(installation, serial, service)
    recorded = release_certificate(installation.store, found, clock.now_ms)
    report_change(installation, f"{found.service} {serial.hex()} released", recorded, no_wait, timeout)


@click.command
@click.argument("serial", type=serial_octets)
@service_option
@click.option("--pem", is_flag=True, help="Print the certificate itself.")
@pass_installation
def show(installation: Installation, serial: bytes, service: str | None, pem: bool) -> None:
    """Show the certificate with number SERIAL, its changes, and what OCSP answers now and why."""
    from certstatus import clock
    from issuance.show import show as show_certificate

    shown = show_certificate(installation.store, _find(installation, serial, service), clock.now_s())
    if pem:
        installation.emit({"certificate": _pem(shown.certificate_der)}, _pem(shown.certificate_der))
        return
    facts = [
        ("certificate", f"{shown.service} {shown.serial} (generation {shown.generation})"),
        ("state", f"{shown.state}{f' since {shown.revoked_at}' if shown.revoked_at else ''}"),
        ("reason", shown.reason),
        ("invalid since", shown.invalidity),
        ("valid", f"{shown.not_before or '?'} to {shown.not_after}"),
        ("origin", shown.origin),
        ("on CRLs", shown.scope if shown.scope == "all" else f"{shown.scope}, all"),
        ("OCSP answers", f"{shown.answer}: {shown.why}"),
    ]
    lines = [f"{name:<14}{value}" for name, value in facts if value]
    rows: list[list[object]] = [
        [
            change.seq,
            change.recorded_at,
            change.kind,
            *_optional((change.reason, change.ground, change.detail)),
        ]
        for change in shown.changes
    ]
    lines += ["", table(["change", "recorded at", "what", "reason", "ground", "detail"], rows)]
    installation.emit(shown.as_json(), "\n".join(lines))


def _optional(values: Iterable[str | None]) -> list[str]:
    return [value or "" for value in values]


def _pem(certificate_der: bytes | None) -> str:
    if certificate_der is None:
        raise UnknownCertificate("this certificate is known by its number only")
    return ssl.DER_cert_to_PEM_cert(certificate_der).rstrip()


def _find(installation: Installation, serial: bytes, service: str | None) -> FoundCertificate:
    from issuance.revoke import find_certificate

    return find_certificate(installation.store, serial, service)
