"""Judging answers: the quick look at the status, and the full verification of a sample."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ocsp
from cryptography.x509.oid import NameOID

from bench.answers import Said, error_of, said_of, time_octets, verify
from bench.prepared import issuer_part
from bench.revoked_meanwhile import RevokedMeanwhile, acknowledged_line, asked_line, this_boot

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


def _answer(status: str, *, until: bool = True) -> bytes:
    revoked = status == "revoked"
    request = ocsp.OCSPRequestBuilder().add_certificate(CA, CA, hashes.SHA1()).build()
    response = ocsp.OCSPResponseBuilder().add_response_by_hash(
        request.issuer_name_hash,
        request.issuer_key_hash,
        int.from_bytes(SERIAL, "big"),
        hashes.SHA1(),
        STATUSES[status],
        NOW,
        NOW + timedelta(hours=1) if until else None,
        NOW if revoked else None,
        x509.ReasonFlags.key_compromise if revoked else None,
    )
    signed = response.responder_id(ocsp.OCSPResponderEncoding.HASH, CA).sign(KEY, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.DER)


@pytest.mark.parametrize("until", [True, False])
@pytest.mark.parametrize("status", STATUSES)
def test_what_an_answer_says_is_read_where_it_stands(status: str, until: bool) -> None:
    """Status and times are those that `cryptography` put there."""
    said = said_of(_answer(status, until=until), issuer_part(CA, "sha1"), SERIAL)
    end = time_octets(NOW + timedelta(hours=1)) if until else b""
    assert said == Said(status, b"20260101000000Z", end)


def test_a_certid_written_otherwise_is_the_same() -> None:
    """Asked without the hash's parameters, answered with them: the certificate that was asked about."""
    issuer = issuer_part(CA, "sha1", parameters=False)
    assert said_of(_answer("good"), issuer, SERIAL).status == "good"


def test_answers_about_others_are_no_answers() -> None:
    """Another serial number, another issuer's key, another hash: nothing is said of the one asked about."""
    other = _ca(ec.generate_private_key(ec.SECP256R1()))
    for issuer, serial in (
        (issuer_part(CA, "sha1"), b"\x4b" + SERIAL[1:]),
        (issuer_part(other, "sha1"), SERIAL),
        (issuer_part(CA, "sha256"), SERIAL),
    ):
        said = said_of(_answer("good"), issuer, serial)
        assert said == Said("no answer about the CertID that was asked for")


def test_errors_and_rubbish_are_named() -> None:
    """An OCSP error is called by its name; what cannot be read is not an answer."""
    assert error_of(bytes.fromhex("30030a0103")) == "tryLater"
    assert error_of(bytes.fromhex("30030a0106")) == "unauthorized"
    assert error_of(_answer("good")) is None
    assert not said_of(_answer("good")[:-9], b"\x30", SERIAL).this_update


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
        stream.write(asked_line(SERIAL))
    assert log.may_be(SERIAL)
    assert not log.is_since_before(SERIAL, 1e9)
    with file.open("a") as stream:
        stream.write(f"! {SERIAL.hex()} 12")
    log.read()
    assert not log.is_since_before(SERIAL, 1e9)
    with file.open("a") as stream:
        stream.write(f"3.5 {this_boot()}\n")
    log.read()
    assert not log.is_since_before(SERIAL, 123.0)
    assert log.is_since_before(SERIAL, 124.0)


def test_good_just_after_the_acknowledgement_is_found_later(tmp_path: Path) -> None:
    """An answer that came before the file was read again is judged when it has been."""
    file = tmp_path / "revoked.log"
    log = RevokedMeanwhile(file)
    file.write_text(f"? {SERIAL.hex()}\n")
    assert log.read() == []
    log.answered_good(SERIAL, 10.0)
    assert log.read() == []
    with file.open("a") as stream:
        stream.write(f"! {SERIAL.hex()} 9.5 {this_boot()}\n")
    assert log.read() == [SERIAL]
    assert log.read() == []


def test_another_machines_clock_is_not_compared(tmp_path: Path) -> None:
    """A log that was written elsewhere counts from the moment it is read."""
    file = tmp_path / "revoked.log"
    file.write_text(f"! {SERIAL.hex()} 0.5 another-boot\n")
    log = RevokedMeanwhile(file)
    before = time.perf_counter()
    log.read()
    assert log.acknowledged[SERIAL] >= before
    assert acknowledged_line(SERIAL).endswith(f" {this_boot()}\n")


def test_a_line_that_is_none_is_named(tmp_path: Path) -> None:
    """A wrong file is not taken for "nothing revoked"."""
    file = tmp_path / "revoked.log"
    file.write_text("serial,status\n")
    with pytest.raises(ValueError, match="serial,status"):
        RevokedMeanwhile(file).read()
