"""Judging answers: the quick look at the status, and the full verification of a sample."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ocsp
from cryptography.x509.oid import NameOID

from bench.answers import status_of, verify
from bench.revoked_meanwhile import RevokedMeanwhile

NOW = datetime(2026, 1, 1, tzinfo=UTC)
KEY = ec.generate_private_key(ec.SECP256R1())
NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench CA")])
SERIAL = bytes.fromhex("4a00112233445566778899aabbccddee")
STATUSES = {
    "good": ocsp.OCSPCertStatus.GOOD,
    "revoked": ocsp.OCSPCertStatus.REVOKED,
    "unknown": ocsp.OCSPCertStatus.UNKNOWN,
}


def _ca(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    builder = x509.CertificateBuilder().subject_name(NAME).issuer_name(NAME).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(NOW).not_valid_after(NOW + timedelta(days=1))
    return builder.sign(key, hashes.SHA256())


CA = _ca(KEY)


def _answer(status: str) -> bytes:
    revoked = status == "revoked"
    name_hash, key_hash = b"\x01" * 20, b"\x02" * 20
    response = ocsp.OCSPResponseBuilder().add_response_by_hash(
        name_hash,
        key_hash,
        int.from_bytes(SERIAL, "big"),
        hashes.SHA1(),
        STATUSES[status],
        NOW,
        NOW,
        NOW if revoked else None,
        x509.ReasonFlags.key_compromise if revoked else None,
    )
    signed = response.responder_id(ocsp.OCSPResponderEncoding.HASH, CA).sign(KEY, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.DER)


@pytest.mark.parametrize("status", STATUSES)
def test_the_status_is_read_where_it_stands(status: str) -> None:
    """What the quick look finds is what `cryptography` put there."""
    assert status_of(_answer(status), SERIAL) == status


def test_errors_and_foreign_answers_are_named() -> None:
    """An OCSP error is called by its name; an answer about somebody else is no answer."""
    assert status_of(bytes.fromhex("30030a0103"), SERIAL) == "tryLater"
    assert status_of(bytes.fromhex("30030a0106"), SERIAL) == "unauthorized"
    assert status_of(_answer("good"), b"\x4b" + SERIAL[1:]) == "no answer about this serial number"


def test_only_the_issuers_signature_verifies() -> None:
    """The same answer under a CA of the same name and another key is refused."""
    verify(_answer("good"), CA)
    with pytest.raises(ValueError, match="signature is wrong"):
        verify(_answer("good"), _ca(ec.generate_private_key(ec.SECP256R1())))


def test_an_acknowledged_revocation_counts_from_its_time_on(tmp_path: Path) -> None:
    """Between request and acknowledgement both answers are right; after it, good is not."""
    file = tmp_path / "revoked.log"
    log = RevokedMeanwhile(file)
    assert not log.may_be(SERIAL)
    with file.open("a") as stream:
        stream.write(f"? {SERIAL.hex()}\n")
    assert log.may_be(SERIAL)
    assert not log.is_since_before(SERIAL, 1e9)
    with file.open("a") as stream:
        stream.write(f"! {SERIAL.hex()} 12")
    log.read()
    assert not log.is_since_before(SERIAL, 1e9)
    with file.open("a") as stream:
        stream.write("3.5\n")
    log.read()
    assert not log.is_since_before(SERIAL, 123.0)
    assert log.is_since_before(SERIAL, 124.0)
