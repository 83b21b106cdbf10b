"""Rows P and T: what is in an answer, who signed it, and when."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtensionOID
from demo_service import Service, never_issued
from ocsp_reading import Said
from request_octets import get, post, seq
from served_installation import Served
from wire_client import Wire


def said_of(wire: Wire, auth: Service, *serials: int) -> tuple[Said, bytes]:
    """What is answered about *serials*, and its octets."""
    reply = wire.ask(post(auth.request(*serials)))
    return auth.read(reply), reply.body


@pytest.mark.row("P1", "P24")
def test_everything_definitive_is_basic_and_signed(wire: Wire, auth: Service, served: Served) -> None:
    """Each of the three statuses verifies, by our reader and by openssl."""
    for serial, word in ((auth.good[0], "good"), (auth.revoked[0], "revoked"), (never_issued(), "unknown")):
        said, _ = said_of(wire, auth, serial)
        assert (said.word, said.algorithm) == (word, "sha256_ecdsa")
    assert (served.ask("good"), served.ask("revoked")) == ("good", "revoked")


@pytest.mark.row("P2")
def test_only_a_successful_answer_has_octets(wire: Wire, auth: Service) -> None:
    """Errors are an ENUMERATED and nothing more."""
    for der, code in ((seq(), 1), (auth.request().replace(auth.asked().key_hash, bytes(20)), 6)):
        assert wire.ask(post(der)).body == bytes((0x30, 3, 0x0A, 1, code))
    assert wire.ask(post(auth.request())).body[4:9] == bytes.fromhex("0a0100a082")


@pytest.mark.row("P3", "P4", "P5", "P6", "P7")
def test_the_signer_is_a_delegate_of_the_ca_and_nothing_else(wire: Wire, auth: Service) -> None:
    """Issued by the CA's own key, sent along alone, for OCSP only, without status of its own, short-lived."""
    said, _ = said_of(wire, auth)
    signer = said.signer
    assert signer is not None
    assert signer.issuer.public_bytes() == auth.ca.subject.public_bytes()
    usage = signer.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.digital_signature
    assert not any((usage.value.key_cert_sign, usage.value.crl_sign, usage.value.content_commitment))
    nocheck = signer.extensions.get_extension_for_oid(ExtensionOID.OCSP_NO_CHECK)
    assert not nocheck.critical
    assert bytes.fromhex("06092b0601050507300105") + b"\x04\x02\x05\x00" in signer.public_bytes(
        serialization.Encoding.DER
    )
    names = {item.oid for item in signer.extensions}
    assert not names & {
        ExtensionOID.CRL_DISTRIBUTION_POINTS,
        ExtensionOID.FRESHEST_CRL,
        ExtensionOID.AUTHORITY_INFORMATION_ACCESS,
    }
    assert signer.not_valid_after_utc - signer.not_valid_before_utc <= timedelta(days=8)
    # The reader has checked already: signature by the CA, EKU, the id by the key's SHA-1, producedAt.
    assert said.produced_at is not None


@pytest.mark.row("P8", "P9", "P10", "H8", "T1")
def test_times_are_there_in_order_and_in_the_one_form(wire: Wire, auth: Service) -> None:
    """thisUpdate is not after now, nextUpdate is there and later, all in whole seconds with a Z."""
    lives = {}
    for serial in (auth.good[0], auth.revoked[0], never_issued()):
        said, body = said_of(wire, auth, serial)
        single = said.singles[0]
        assert said.produced_at is not None
        assert single.this_update <= said.produced_at < single.next_update
        now = datetime.now(UTC)
        assert single.this_update <= now
        assert now - single.this_update < timedelta(seconds=900)
        lives[single.status] = (single.next_update - single.this_update).total_seconds()
        data = body[: body.index(b"\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02")]
        times = re.findall(rb"\x18\x0f(\d{14}Z)", data)
        assert len(times) == data.count(b"\x18\x0f") == (4 if single.status == "revoked" else 3)
    assert lives == {"good": 900.0, "revoked": 3600.0, "unknown": 120.0}


@pytest.mark.row("P13")
def test_a_number_that_was_never_issued_is_not_good(wire: Wire, auth: Service) -> None:
    """Neighbours of real numbers, small ones, large ones: unknown."""
    for serial in (auth.good[0] + 1, auth.good[0] - 1, 1, 2**150, -auth.good[0], auth.good[0] + 2**128):
        assert said_of(wire, auth, serial)[0].word == "unknown"


@pytest.mark.row("P15")
def test_of_whom_we_have_no_record_we_say_nothing(wire: Wire, auth: Service) -> None:
    """Another CA's certificate is unauthorized, unsigned, and not to be kept."""
    reply = wire.ask(post(auth.request().replace(auth.asked().name_hash, bytes(20))))
    assert reply.body.hex() == "30030a0106"
    assert reply.header("Cache-Control") == "no-store"


@pytest.mark.row("P17")
def test_reasons_are_those_that_may_be_named(wire: Wire, auth: Service) -> None:
    """Each revoked certificate has its time; unspecified is left out."""
    reasons = set()
    for serial in auth.revoked:
        single = said_of(wire, auth, serial)[0].singles[0]
        assert single.status == "revoked"
        assert single.revoked_at is not None
        assert single.revoked_at <= single.this_update
        assert "2.5.29.21" not in single.extensions
        reasons.add(single.reason)
    assert reasons <= {
        None,
        "key_compromise",
        "ca_compromise",
        "affiliation_changed",
        "superseded",
        "cessation_of_operation",
    }
    assert len(reasons) > 2


@pytest.mark.row("P20", "P22", "P23")
def test_nothing_is_said_that_nobody_asked_for(wire: Wire, auth: Service) -> None:
    """No version, no extensions of the answer, none of a certificate, and so none that is critical."""
    for serial in (auth.good[0], auth.revoked[0], never_issued()):
        said, body = said_of(wire, auth, serial)
        assert said.extensions == ()
        assert said.singles[0].extensions == {}
        # ResponseData begins with [2], the responder's key hash: no [0] version before it.
        at = body.index(b"\x2b\x06\x01\x05\x05\x07\x30\x01\x01") + 9
        assert re.match(rb"\x04\x82..\x30\x82..\x30\x81.\xa2\x16\x04\x14", body[at:], re.DOTALL)


# --- timing ------------------------------------------------------------------------------------------


@pytest.mark.row("T2", "T3")
def test_issued_is_good_and_revoked_is_revoked_with_the_next_question(
    wire: Wire, auth: Service, served: Served, tmp_path: Path
) -> None:
    """On every worker: unknown, issued, good, revoked, revoked, without a pause in between."""
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    given = tmp_path / "key.pem"
    given.write_bytes(
        key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    made = served.run("issue", str(given), "--service", "AUTH").stdout
    serial = x509.load_pem_x509_certificate(made.encode()).serial_number
    der = auth.request(serial)
    until = time.monotonic() + 5
    # Issuing does not wait for workers, as revoking does.
    while {auth.read(wire.ask(post(der))).word for _ in range(8)} != {"good"}:
        assert time.monotonic() < until
    served.run("revoke", f"{serial:x}", "--cause", "key-leaked")
    for _ in range(20):
        for message in (post(der), get(der)):
            single = auth.read(wire.ask(message)).singles[0]
            assert (single.status, single.reason) == ("revoked", "key_compromise")


@pytest.mark.row("T4")
def test_an_answer_takes_no_ten_seconds(wire: Wire, auth: Service) -> None:
    """A certificate nobody asked about before is answered in a fraction of a second."""
    began = time.monotonic()
    for serial in auth.good[20:40]:
        assert said_of(wire, auth, serial)[0].word == "good"
    assert (time.monotonic() - began) / 20 < 0.5
