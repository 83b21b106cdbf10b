"""CertIDs: hashes as other implementations compute them, and serial numbers of every kind."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from asn1crypto import ocsp as asn1_ocsp
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509 import ocsp
from hypothesis import given
from hypothesis import strategies as st

from certstatus import cert_id, der, oid
from certstatus.cert_id import CertID, encode_cert_id, issuer_hashes, read_cert_id
from certstatus.errors import DERError

_HASHES: dict[int, hashes.HashAlgorithm] = {
    cert_id.SHA1: hashes.SHA1(),
    cert_id.SHA256: hashes.SHA256(),
    cert_id.SHA384: hashes.SHA384(),
    cert_id.SHA512: hashes.SHA512(),
}


def _authority(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "認証局 CA")])
    start = datetime(2026, 1, 1, tzinfo=UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(0x1234)
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=3650))
        .sign(key, hashes.SHA256())
    )


@pytest.fixture(scope="module", params=["P-256", "RSA-2048"])
def authority(request: pytest.FixtureRequest) -> x509.Certificate:
    """A self-signed CA certificate."""
    if request.param == "P-256":
        return _authority(ec.generate_private_key(ec.SECP256R1()))
    return _authority(rsa.generate_private_key(65537, 2048))


def _spki(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _cert_id_of(request_der: bytes) -> tuple[CertID, bytes]:
    """Walk down the four sequences of a request by hand."""
    pos, end = 0, len(request_der)
    for _ in range(4):
        pos, end = der.expect(request_der, pos, end, der.SEQUENCE)
    found, stop = read_cert_id(request_der, pos, end)
    return found, request_der[pos:stop]


@pytest.mark.parametrize("hash_alg", _HASHES)
def test_issuer_hashes_are_those_of_cryptography(authority: x509.Certificate, hash_alg: int) -> None:
    """A CertID built by cryptography names the issuer by exactly our hashes, and re-encodes to itself."""
    request = ocsp.OCSPRequestBuilder().add_certificate(authority, authority, _HASHES[hash_alg]).build()
    found, found_der = _cert_id_of(request.public_bytes(serialization.Encoding.DER))
    hashed = issuer_hashes(authority.subject.public_bytes(), _spki(authority))
    assert sorted(hashed) == sorted(_HASHES)
    assert found.hash_alg == hash_alg
    assert found.issuer_hash == hashed[hash_alg]
    assert (found.issuer_name_hash, found.issuer_key_hash) == (
        request.issuer_name_hash,
        request.issuer_key_hash,
    )
    assert found.serial == b"\x12\x34"
    assert encode_cert_id(*found) == found_der


def test_lengths_of_issuer_hashes_tell_the_algorithms_apart(authority: x509.Certificate) -> None:
    """One table can hold the hashes of all algorithms, because no two have the same length."""
    hashed = issuer_hashes(authority.subject.public_bytes(), _spki(authority))
    assert {alg: len(value) for alg, value in hashed.items()} == {1: 40, 2: 64, 3: 96, 4: 128}


def test_responder_key_hash_is_the_subject_key_identifier(authority: x509.Certificate) -> None:
    """The byKey hash is method 1 of RFC 5280 §4.2.1.2, which cryptography computes on its own."""
    assert (
        cert_id.responder_key_hash(_spki(authority))
        == x509.SubjectKeyIdentifier.from_public_key(authority.public_key()).digest
    )


@pytest.mark.parametrize("octets", [b"", b"\x30\x00", b"\x30\x04\x30\x00\x05\x00", b"junk"])
def test_wrong_public_key_is_refused(octets: bytes) -> None:
    """Octets that are no SubjectPublicKeyInfo have no hash."""
    with pytest.raises(DERError):
        issuer_hashes(b"\x30\x00", octets)


def test_public_key_with_trailing_octets_is_refused(authority: x509.Certificate) -> None:
    """A SubjectPublicKeyInfo is read to its last octet, inside and outside."""
    spki = _spki(authority)
    start, _ = der.expect(spki, 0, len(spki), der.SEQUENCE)
    with pytest.raises(DERError):
        cert_id.subject_public_key(spki + b"\x00")
    with pytest.raises(DERError):
        cert_id.subject_public_key(der.sequence(spki[start:], der.NULL_DER))


def _raw(
    algorithm: bytes,
    name_hash: bytes = b"n" * 20,
    key_hash: bytes = b"k" * 20,
    serial: bytes = b"\x02\x01\x07",
) -> bytes:
    return der.sequence(algorithm, der.octet_string(name_hash), der.octet_string(key_hash), serial)


_SHA1_NULL = der.sequence(der.oid(oid.SHA1), der.NULL_DER)


def _read(encoded: bytes) -> CertID:
    found, stop = read_cert_id(encoded, 0, len(encoded))
    assert stop == len(encoded)
    return found


def test_parameters_null_and_absent_mean_the_same() -> None:
    """Both forms give one value, and it is written with NULL."""
    with_null = _raw(_SHA1_NULL)
    absent = _raw(der.sequence(der.oid(oid.SHA1)))
    assert _read(with_null) == _read(absent)
    assert encode_cert_id(*_read(absent)) == with_null


@pytest.mark.parametrize(
    "algorithm",
    [
        der.sequence(der.oid(oid.SHA1), der.integer(1)),
        der.sequence(der.oid(oid.SHA1), b"\x05\x01\x00"),
        der.sequence(der.oid(oid.SHA256), der.NULL_DER, der.NULL_DER),
        der.sequence(der.oid("1.2.3"), der.NULL_DER, der.NULL_DER),
        der.sequence(der.oid("1.2.3"), b"\x30\x80\x00\x00"),
        der.sequence(),
        der.oid(oid.SHA1),
    ],
)
def test_wrong_algorithm_identifiers_are_refused(algorithm: bytes) -> None:
    """Parameters that are neither NULL nor absent, or not DER, are a syntax error."""
    with pytest.raises(DERError):
        _read(_raw(algorithm))


@pytest.mark.parametrize(
    "algorithm",
    [
        der.sequence(der.oid("1.2.840.113549.2.5"), der.NULL_DER),
        der.sequence(der.oid("1.2.3.4.5")),
        der.sequence(der.oid("1.2.3.4.5"), der.sequence(der.integer(1))),
    ],
)
def test_unknown_hash_function_matches_nobody(algorithm: bytes) -> None:
    """An algorithm we do not serve is no syntax error, but has no issuer hash."""
    found = _read(_raw(algorithm))
    assert found.hash_alg == cert_id.UNKNOWN_HASH
    assert found.issuer_hash == b""
    with pytest.raises(DERError):
        encode_cert_id(*found)


@pytest.mark.parametrize(
    ("name_octets", "key_octets"), [(19, 21), (21, 19), (19, 20), (20, 32), (0, 40), (0, 0)]
)
def test_hash_of_another_length_matches_nobody(name_octets: int, key_octets: int) -> None:
    """Hashes cut at another place must not join to an issuer's hash, even if the octets are the same."""
    joined = bytes(range(40)) + b"\x00" * 20
    found = _read(_raw(_SHA1_NULL, joined[:name_octets], joined[name_octets : name_octets + key_octets]))
    assert found.hash_alg == cert_id.UNKNOWN_HASH
    assert found.issuer_hash == b""


@pytest.mark.parametrize(
    "serial", [b"\x00", b"\xff", b"\x80", b"\x7f" * 20, b"\x00" + b"\xff" * 20, b"\x7f" * 64]
)
def test_unusual_serial_numbers_are_carried(serial: bytes) -> None:
    """Zero, negative and overlong serial numbers are read, so that they can be answered unknown."""
    assert _read(_raw(_SHA1_NULL, serial=der.tlv(der.INTEGER, serial))).serial == serial


@pytest.mark.parametrize(
    "serial",
    [b"\x02\x00", b"\x02\x02\x00\x01", b"\x02\x02\xff\xff", b"\x04\x01\x01", b"\x02\x41" + b"\x01" * 65, b""],
)
def test_wrong_serial_numbers_are_refused(serial: bytes) -> None:
    """Empty, padded, mistyped and boundless serial numbers are syntax errors."""
    with pytest.raises(DERError):
        _read(_raw(_SHA1_NULL, serial=serial))


def test_fields_after_the_serial_number_are_refused() -> None:
    """A CertID has four fields and ends there."""
    with pytest.raises(DERError):
        _read(_raw(_SHA1_NULL, serial=b"\x02\x01\x07\x05\x00"))


@given(
    hash_alg=st.sampled_from([(1, 20), (2, 32), (3, 48), (4, 64)]),
    data=st.data(),
    serial=st.integers(-(1 << 159), (1 << 159) - 1),
)
def test_cert_ids_round_trip(hash_alg: tuple[int, int], data: st.DataObject, serial: int) -> None:
    """Every CertID reads back as it was, and asn1crypto reads the same fields."""
    alg, octets = hash_alg
    original = CertID(
        alg,
        data.draw(st.binary(min_size=octets, max_size=octets)),
        data.draw(st.binary(min_size=octets, max_size=octets)),
        der.integer_content(serial),
    )
    encoded = encode_cert_id(*original)
    assert _read(encoded) == original
    assert hash(_read(encoded)) == hash(original)
    foreign = asn1_ocsp.CertId.load(encoded, strict=True)
    assert (
        foreign["hash_algorithm"]["algorithm"].native
        == {1: "sha1", 2: "sha256", 3: "sha384", 4: "sha512"}[alg]
    )
    assert foreign["issuer_name_hash"].native == original.issuer_name_hash
    assert foreign["issuer_key_hash"].native == original.issuer_key_hash
    assert foreign["serial_number"].native == serial


@given(st.binary(max_size=80))
def test_any_octets_raise_only_the_one_error(octets: bytes) -> None:
    """Any octets give a CertID or DERError."""
    for candidate in (octets, der.sequence(octets), _raw(octets), _raw(_SHA1_NULL, serial=octets)):
        try:
            read_cert_id(candidate, 0, len(candidate))
        except DERError:
            continue
