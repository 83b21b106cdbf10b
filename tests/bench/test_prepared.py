"""Prepared requests, beside those that `cryptography` builds, and the populations they ask about."""

from __future__ import annotations

import base64
import json
import random
import urllib.parse
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509 import ocsp
from cryptography.x509.oid import NameOID

from bench.population import Population, serial_of, zipf_numbers
from bench.prepared import Form, Preparer

HASHES = {"sha1": hashes.SHA1(), "sha256": hashes.SHA256()}


def _ca(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench CA")])
    now = datetime(2026, 1, 1, tzinfo=UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + timedelta(days=1))
    return builder.sign(key, hashes.SHA256())


CAS = {
    "ec": _ca(ec.generate_private_key(ec.SECP256R1())),
    "rsa": _ca(rsa.generate_private_key(65537, 2048)),
}


@pytest.mark.parametrize("kind", CAS)
@pytest.mark.parametrize("hash_name", HASHES)
@pytest.mark.parametrize("octets", [1, 16, 20])
def test_a_prepared_request_is_what_cryptography_builds(kind: str, hash_name: str, octets: int) -> None:
    """The same certificate asked about by both gives the same octets."""
    ca = CAS[kind]
    serial = b"\x4a" * octets
    twin = ocsp.OCSPRequestBuilder().add_certificate_by_hash(
        *_issuer_hashes(ca, hash_name), int.from_bytes(serial, "big"), HASHES[hash_name]
    )
    prepared = Preparer(Form(hash_name=hash_name), ca, "h").ocsp([serial])
    assert prepared == twin.build().public_bytes(serialization.Encoding.DER)


def _issuer_hashes(ca: x509.Certificate, hash_name: str) -> tuple[bytes, bytes]:
    built = ocsp.OCSPRequestBuilder().add_certificate(ca, ca, HASHES[hash_name]).build()
    return built.issuer_name_hash, built.issuer_key_hash


def test_a_nonce_is_new_each_time_and_read_as_one() -> None:
    """Two requests about one certificate differ by 16 octets of nonce that `cryptography` finds."""
    preparer = Preparer(Form("POST", nonce=True), CAS["ec"], "h")
    nonces = set()
    for _ in range(2):
        request = ocsp.load_der_ocsp_request(preparer.ocsp([b"\x05"]))
        nonces.add(request.extensions.get_extension_for_class(x509.OCSPNonce).value.nonce)
    assert len(nonces) == 2
    assert {len(nonce) for nonce in nonces} == {16}


@pytest.mark.parametrize("close", [False, True])
def test_get_and_post_carry_the_same_request(close: bool) -> None:
    """Decoding the path of the one gives the body of the other."""
    serials = [b"\x7f" + bytes((number,)) * 15 for number in range(1, 4)]
    get = Preparer(Form("GET", close=close), CAS["ec"], "host:80").http(serials)
    post = Preparer(Form("POST", close=close), CAS["ec"], "host:80").http(serials)
    path = get.split(b" ")[1].removeprefix(b"/ocsp/").decode()
    head, _, body = post.partition(b"\r\n\r\n")
    assert base64.b64decode(urllib.parse.unquote(path)) == body
    assert b"Content-Length: %d" % len(body) in head
    for message in (get, post):
        assert (b"\r\nConnection: close\r\n" in message) is close
        assert b"\r\nHost: host:80\r\n" in message


def test_a_generated_population_is_the_same_everywhere(tmp_path: Path) -> None:
    """Serial numbers follow from key and number alone, are positive and minimal, and do not repeat."""
    (tmp_path / "ca.pem").write_bytes(CAS["ec"].public_bytes(serialization.Encoding.PEM))
    content = {"count": 5000, "key": "00112233", "revoked_every": 10}
    (tmp_path / "generated.json").write_text(json.dumps(content))
    members = Population.load(tmp_path).members
    found = [members.member(number) for number in range(len(members))]
    assert len({serial for serial, _ in found}) == 5000
    assert all(len(serial) == 16 and 0x40 <= serial[0] < 0x80 for serial, _ in found)
    assert Counter(status for _, status in found) == {"revoked": 500, "good": 4500}
    assert found[7] == (serial_of(7, bytes.fromhex("00112233")), "good")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("serial,state\n", "line 1"),
        ("serial,status\n0a,good\nzz,good\n", "line 3"),
        ("serial,status\n0a,fine\n", "line 2"),
        ("serial,status\n0a\n", "line 2"),
        ("serial,status\n", "nobody"),
    ],
)
def test_a_wrong_population_file_is_refused_by_its_line(tmp_path: Path, text: str, expected: str) -> None:
    """Nothing is asked about a population that was misread."""
    (tmp_path / "ca.pem").write_bytes(CAS["ec"].public_bytes(serialization.Encoding.PEM))
    (tmp_path / "population.csv").write_text(text)
    with pytest.raises(ValueError, match=expected):
        Population.load(tmp_path)


def test_zipf_prefers_few_and_reaches_many() -> None:
    """The most popular of 1,000 comes about 1/ln(1000) of the time; nobody is out of reach."""
    pick = zipf_numbers(1000, random.Random(7), 1.0)
    seen = Counter(pick() for _ in range(100_000))
    assert all(0 <= number < 1000 for number in seen)
    assert len(seen) > 990
    assert 0.10 < seen.most_common(1)[0][1] / 100_000 < 0.17
