"""Issuers with real keys, subjects' keys, and certificates from them."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from store_cases import INDEX_KEY, START_MS

from certstatus.config import IssuerConfig
from issuance.ca_keys import CAKeyFolder
from issuance.issue import IssuedCertificate, Issuing, issue
from issuance.issuers import IssuerRecord, create_issuer
from issuance.revoke import FoundCertificate
from issuance.store import Now, Store


def issuer_config(service: str, **changes: str | int | bool) -> IssuerConfig:
    """A configuration of an issuer with test defaults."""
    base = IssuerConfig(service=service, base_url="http://status.example:8080")
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def make_issuing(
    store: Store, keys: CAKeyFolder, service: str = "SIGN", now: Now = START_MS, **changes: str | int | bool
) -> Issuing:
    """Make the next generation of a service and return its signing tools."""
    record: IssuerRecord = create_issuer(store, keys, issuer_config(service, **changes), now)
    return Issuing.of(record, keys.private_key(record.issuer_id))


def new_key() -> ec.EllipticCurvePublicKey:
    """The public half of a fresh P-256 key."""
    return ec.generate_private_key(ec.SECP256R1()).public_key()


def issue_one(
    store: Store, issuing: Issuing, now: Now = START_MS, not_after_s: int | None = None
) -> IssuedCertificate:
    """Issue a certificate over a fresh key."""
    return issue(store, issuing, INDEX_KEY, new_key(), now, not_after_s=not_after_s)


def found(issuing: Issuing, issued: IssuedCertificate) -> FoundCertificate:
    """The register's name of a certificate."""
    return FoundCertificate(issuing.issuer.issuer_id, issuing.issuer.service, issued.serial)


def openssl(*arguments: str | Path, succeeds: bool = True) -> str:
    """Run the openssl command and return what it says."""
    done = subprocess.run(
        ["openssl", *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode == 0) is succeeds, done.stdout + done.stderr
    return done.stdout + done.stderr


def write_pem(path: Path, certificate_der: bytes) -> Path:
    """Write a certificate as PEM and return where."""
    from cryptography import x509

    certificate = x509.load_der_x509_certificate(certificate_der)
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return path
