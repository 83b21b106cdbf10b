"""``certstatus responder-cert``: certificates of OCSP keys, by hand.

A host with a connection to Valkey sees to its certificates itself.  These commands are for hosts
and CA keys that never meet: request (on the host), issue (at the CA), install (on the host); and adopt,
for certificates and keys that come from outside.
"""

from __future__ import annotations

import ssl
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from certstatus import clock
from certstatus.cli.certificates import serial_octets
from certstatus.cli.context import Installation, pass_installation, table
from certstatus.cli.waiting import report_change, wait_options
from certstatus.config import KEY_ALGORITHMS

if TYPE_CHECKING:
    from certstatus.issuer_table import Issuer
    from responder.keys import Unfit

_FILE = click.Path(dir_okay=False, path_type=Path, allow_dash=True)
_EXISTING = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group("responder-cert")
def responder_cert() -> None:
    """Certificates of OCSP keys."""


@responder_cert.command
@click.argument("issuer_id", type=int)
@click.option("--algorithm", type=click.Choice(KEY_ALGORITHMS), help="Kind of key; default: as configured.")
@click.option("--new", is_flag=True, help="Give a waiting request and its key up, and begin anew.")
@pass_installation
def request(installation: Installation, issuer_id: int, algorithm: str | None, new: bool) -> None:
    """Make a key and print a signed request for issuer ISSUER_ID (on the responder host)."""
    from responder.keys import HostKeys

    keys = HostKeys(installation.config.state / "host")
    kind = algorithm or installation.config.responder.key
    if new:
        keys.forget(issuer_id, kind)
    made = keys.request(issuer_id, kind, clock.now_s(), installation.config.responder.key_uri)
    installation.emit({"request": made.text.decode(), "sha256": made.digest}, made.text.decode())


@responder_cert.command("issue")
@click.argument("request_file", type=_FILE)
@pass_installation
def issue_certificate(installation: Installation, request_file: Path) -> None:
    """Sign the certificate that an enrolled host asks for in REQUEST_FILE; prints it (PEM)."""
    from issuance.responder_certs import sign_request

    certificate_der = sign_request(
        installation.store,
        installation.ca_keys,
        _read(request_file).strip(),
        clock.now_ms,
        installation.config.responder.certificate_life_s,
    )
    pem = ssl.DER_cert_to_PEM_cert(certificate_der)
    installation.emit({"certificate": pem}, pem.rstrip())


@responder_cert.command
@click.argument("certificate_file", type=_FILE)
@click.option(
    "--ca",
    "ca_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    required=True,
    help="The issuer's CA certificate (PEM), which must have signed it.",
)
@click.option("--issuer-id", type=int, required=True)
@pass_installation
def install(installation: Installation, certificate_file: Path, ca_file: Path, issuer_id: int) -> None:
    """Take the certificate in CERTIFICATE_FILE into use (on the responder host); workers: SIGHUP."""
    from responder.keys import HostKeys

    keys = HostKeys(installation.config.state / "host")
    signer = keys.install(
        _issuer_of(ca_file, issuer_id), _certificate_der(_read(certificate_file)), clock.now_s()
    )
    installation.emit(
        {"issuer_id": issuer_id, "serial": signer.serial, "not_after_s": signer.not_after_s},
        f"responder certificate {signer.serial} installed, good until {clock.utc_text(signer.not_after_s)}",
    )


@responder_cert.command
@click.argument("certificate_file", type=_FILE)
@click.argument("key_file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--service", help="Of this installation's issuers: the service whose certificate it is.")
@click.option("--generation", type=int, help="With --service: its generation; default: the newest.")
@click.option("--ca", "ca_file", type=_EXISTING, help="Elsewhere: the issuer's CA certificate (PEM).")
@click.option("--issuer-id", type=int, help="With --ca: the issuer's number.")
@click.option("--passphrase-file", type=_EXISTING, help="File whose first line is the key's passphrase.")
@pass_installation
def adopt(
    installation: Installation,
    certificate_file: Path,
    key_file: Path,
    service: str | None,
    generation: int | None,
    ca_file: Path | None,
    issuer_id: int | None,
    passphrase_file: Path | None,
) -> None:
    """Sign with a key that was made elsewhere (on the responder host): CERTIFICATE_FILE and KEY_FILE.

    For a CA whose own key is not here.  The certificate is an OCSP responder's that the CA has issued, or
    the CA's own.  Name the issuer by --service, or on a host without the store by --ca and --issuer-id.
    Workers take the key into use within a second or two; nobody but its CA can renew the certificate.
    With --service it is recorded, so that it can be dropped as any other.
    """
    from responder.keys import HostKeys, load_signer_key

    if (service is None) == (ca_file is None) or (ca_file is None) != (issuer_id is None):
        raise click.UsageError("name the issuer by --service, or by --ca and --issuer-id")
    if ca_file is not None and issuer_id is not None:
        issuer = _issuer_of(ca_file, issuer_id)
    else:
        issuer = _issuer_on_record(installation, str(service), generation)
    passphrase = None if passphrase_file is None else _read(passphrase_file).split(b"\n")[0].rstrip(b"\r")
    keys = HostKeys(installation.config.state / "host")
    signer = keys.adopt(
        issuer,
        _certificate_der(_read(certificate_file)),
        load_signer_key(key_file, passphrase),
        clock.now_s(),
    )
    if service is not None:
        from issuance.responder_certs import record_adopted

        store = installation.store
        record_adopted(store, issuer.issuer_id, keys.host, signer.certificate_der, clock.now_ms)
    installation.emit(
        {"issuer_id": issuer.issuer_id, "serial": signer.serial, "not_after_s": signer.not_after_s},
        f"responder certificate {signer.serial} adopted, good until {clock.utc_text(signer.not_after_s)}",
    )


@responder_cert.command
@click.option(
    "--issuance", is_flag=True, help="What was signed for all hosts, instead of what this host has."
)
@pass_installation
def status(installation: Installation, issuance: bool) -> None:
    """List responder certificates, whether and until when they are good.

    A pair of files of this host that cannot be used is listed as unfit, and what is wrong with it is said.
    """
    values = _signed(installation) if issuance else _installed(installation)
    rows: list[list[object]] = [
        [item["issuer_id"], item["serial"], item["host"], item["from"], item["until"], item["state"]]
        for item in values
    ]
    installation.emit(values, table(["issuer", "serial", "host", "from", "until", "state"], rows))


@responder_cert.command
@click.argument("issuer_id", type=int)
@click.argument("serial", type=serial_octets)
@click.option("--ground", default="dropped by an operator", show_default=True)
@wait_options
@pass_installation
def drop(
    installation: Installation,
    issuer_id: int,
    serial: bytes,
    ground: str,
    no_wait: bool,
    timeout: float | None,
) -> None:
    """Drop a compromised responder certificate, and every answer that it signed.

    SERIAL is hexadecimal as `responder-cert status`, openssl or a browser shows it.
    """
    from issuance.responder_certs import drop_certificate

    number = serial.hex()
    recorded = drop_certificate(installation.store, issuer_id, number, clock.now_ms, ground)
    report_change(installation, f"responder certificate {number} dropped", recorded, no_wait, timeout)


def _signed(installation: Installation) -> list[dict[str, Any]]:
    from issuance.responder_certs import responder_certificates

    now_s = clock.now_s()
    return [
        {
            "issuer_id": item.issuer_id,
            "serial": item.serial,
            "host": item.host,
            "from": clock.utc_text(item.not_before_s),
            "until": clock.utc_text(item.not_after_s),
            "state": "dropped" if item.dropped_seq else "expired" if item.not_after_s < now_s else "good",
        }
        for item in responder_certificates(installation.store)
    ]


def _installed(installation: Installation) -> list[dict[str, Any]]:
    from responder.keys import HostKeys

    keys = HostKeys(installation.config.state / "host")
    now_s = clock.now_s()
    loaded = keys.load()
    for unfit in loaded.unfit:
        installation.say(unfit.problem)
    good: list[dict[str, Any]] = [
        {
            "issuer_id": item.issuer_id,
            "serial": item.serial,
            "host": keys.host,
            "from": clock.utc_text(item.not_before_s),
            "until": clock.utc_text(item.not_after_s),
            "state": "expired"
            if item.not_after_s < now_s
            else "alarm"
            if now_s >= item.alarm_at_s
            else "good",
            "problem": None,
        }
        for item in loaded.signers
    ]
    return good + [_unfit(item, keys.host) for item in loaded.unfit]


def _unfit(item: Unfit, host: str) -> dict[str, Any]:
    """Return what is known of a pair that cannot be used: what its name says, and what is wrong."""
    issuer_id, _, serial = item.pair.partition("-")
    return {
        "issuer_id": int(issuer_id) if issuer_id.isdecimal() else None,
        "serial": serial.partition("-")[0] or None,
        "host": host,
        "from": None,
        "until": None,
        "state": "unfit",
        "problem": item.problem,
    }


def _issuer_of(ca_file: Path, issuer_id: int) -> Issuer:
    """Return an issuer of which only the CA certificate is known here."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    from certstatus.errors import KeyFileError
    from certstatus.issuer_table import Issuer
    from certstatus.x509_reading import load_certificate

    try:
        certificate = load_certificate(ca_file.read_bytes())
        spki_der = certificate.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise KeyFileError(f"{ca_file}: not a certificate of a key known here") from exc
    return Issuer(
        issuer_id=issuer_id,
        service=f"issuer-{issuer_id}",
        generation=0,
        names_der=(certificate.subject.public_bytes(),),
        spki_der=spki_der,
        key_id=b"",
        certificates_der=(certificate.public_bytes(serialization.Encoding.DER),),
    )


def _issuer_on_record(installation: Installation, service: str, generation: int | None) -> Issuer:
    from issuance.issuers import issuer_of, issuer_table

    record = issuer_of(installation.store, service, generation)
    with installation.store.reading() as connection:
        return next(item for item in issuer_table(connection) if item.issuer_id == record.issuer_id)


def _certificate_der(content: bytes) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    from certstatus.errors import KeyFileError
    from certstatus.x509_reading import load_certificate

    try:
        return load_certificate(content).public_bytes(Encoding.DER)
    except ValueError as exc:
        raise KeyFileError("neither a PEM nor a DER certificate") from exc


def _read(path: Path) -> bytes:
    return sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
