"""Requests that are unusual, wrong or hostile in their DER, and the one answer pinned for each.

Knows: how each is made for a given service.  Does not know: how it is sent.
"""

from __future__ import annotations

import base64
import hashlib
import random
from collections.abc import Callable
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from demo_service import Service
from request_octets import (
    BASIC_OID,
    CRITICAL,
    LOCATOR_OID,
    MD5_OID,
    NULL,
    PREFERRED_OID,
    RESPONSE_OID,
    SHA1_OID,
    SHA256_OID,
    SHA384_OID,
    SHA512_OID,
    cert_id,
    extension,
    integer,
    nonce_of,
    octets,
    oid,
    request,
    seq,
    tlv,
    with_extensions,
)

MALFORMED, UNAUTHORIZED, TOO_LARGE = "o1", "o6", "413"
ODD_OID = "1.3.6.1.4.1.99999.1"
ECDSA_SHA256 = seq(oid("1.2.840.10045.4.3.2"))
_KEY = ec.derive_private_key(0x5EED, ec.SECP256R1())
_NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "somebody")]).public_bytes()
_PREFERS = "1.2.840.113549.1.1.5", "1.2.840.113549.1.1.4"


class Case(NamedTuple):
    """*said*: what an answer says in short, or an HTTP status of its own."""

    row: str
    name: str
    build: Callable[[Service], bytes]
    said: str


def _plain(auth: Service) -> bytes:
    return request(auth.asked().one)


def _with(*extensions: bytes) -> Callable[[Service], bytes]:
    return lambda auth: request(auth.asked().one, extensions=with_extensions(*extensions))


def _single(*extensions: bytes) -> Callable[[Service], bytes]:
    return lambda auth: request(seq(auth.asked().der, tlv(0xA0, seq(*extensions))))


def _before(*parts: bytes) -> Callable[[Service], bytes]:
    return lambda auth: request(auth.asked().one, before=b"".join(parts))


def _one(**changed: bytes) -> Callable[[Service], bytes]:
    """A request whose CertID is changed in some part."""
    return lambda auth: request(auth.asked()._replace(**changed).one)


def _fixed(content: bytes) -> Callable[[Service], bytes]:
    return lambda _: content


def _cut(share: float) -> Callable[[Service], bytes]:
    return lambda auth: _plain(auth)[: int(len(_plain(auth)) * share)]


def _nested(depth: int, whole: bool) -> bytes:
    if not whole:
        return b"\x30\x80" * depth
    made = b""
    for _ in range(depth):
        made = seq(made)
    return made


def _long_form(octet_count: int) -> Callable[[Service], bytes]:
    """The outer length in more octets than it needs."""

    def build(auth: Service) -> bytes:
        content = seq(seq(auth.asked().one))
        return bytes((0x30, 128 | octet_count)) + len(content).to_bytes(octet_count, "big") + content

    return build


def _indefinite(auth: Service) -> bytes:
    return b"\x30\x80" + seq(seq(auth.asked().one)) + b"\x00\x00"


def _constructed(auth: Service) -> bytes:
    asked = auth.asked()
    whole = tlv(0x24, octets(asked.name_hash[:10]), octets(asked.name_hash[10:]))
    return request(seq(seq(asked.algorithm, whole, octets(asked.key_hash), asked.serial)))


def _huge_length(octet_count: int, value: int) -> Callable[[Service], bytes]:
    return _fixed(bytes((0x30, 128 | octet_count)) + value.to_bytes(octet_count, "big") + bytes(40))


def _two(second: Callable[[Service], bytes]) -> Callable[[Service], bytes]:
    return lambda auth: request(auth.asked().one, second(auth))


def _many(count: int) -> Callable[[Service], bytes]:
    return lambda auth: request(*[auth.asked().one] * count)


def _foreign(auth: Service) -> bytes:
    return auth.asked()._replace(name_hash=bytes(20), key_hash=bytes(20)).one


def _half_right(part: str) -> Callable[[Service], bytes]:
    """Only one of the two hashes is ours; the other one is of the same length."""
    return lambda auth: request(auth.asked()._replace(**{part: hashlib.sha1(b"another").digest()}).one)


def _hash_octets(count: int) -> Callable[[Service], bytes]:
    def build(auth: Service) -> bytes:
        asked = auth.asked()
        name_hash = (asked.name_hash + asked.key_hash)[:count]
        return request(asked._replace(name_hash=name_hash).one)

    return build


def _moved_border(auth: Service) -> bytes:
    """The right 40 octets, but cut after 19."""
    asked = auth.asked()
    both = asked.name_hash + asked.key_hash
    return request(asked._replace(name_hash=both[:19], key_hash=both[19:]).one)


def _hashed_by(dotted: str, parameters: bytes = NULL) -> Callable[[Service], bytes]:
    return lambda auth: request(cert_id(auth.ca, auth.good[0], dotted, parameters).one)


def _sha1_called(dotted: str) -> Callable[[Service], bytes]:
    return lambda auth: request(auth.asked()._replace(algorithm=seq(oid(dotted), NULL)).one)


def _out_of_order(auth: Service) -> bytes:
    asked = auth.asked()
    return request(seq(seq(asked.algorithm, octets(asked.key_hash), asked.serial, octets(asked.name_hash))))


def signed_request(
    auth: Service, *, name: bytes = tlv(0xA1, tlv(0xA4, _NAME)), broken: bool = False
) -> bytes:
    """A request signed by somebody's key."""
    tbs = seq(name, seq(auth.asked().one))
    signature = _KEY.sign(tbs + (b"x" if broken else b""), ec.ECDSA(hashes.SHA256()))
    return seq(tbs, tlv(0xA0, seq(ECDSA_SHA256, tlv(0x03, b"\0", signature))))


def _signed_with(algorithm: bytes, signature: bytes) -> Callable[[Service], bytes]:
    return lambda auth: request(
        auth.asked().one,
        before=tlv(0xA1, tlv(0xA4, _NAME)),
        after=tlv(0xA0, seq(algorithm, tlv(0x03, b"\0", signature))),
    )


def _certificate(auth: Service) -> bytes:
    return auth.ca.public_bytes(serialization.Encoding.DER)


def _pem(auth: Service) -> bytes:
    return (
        b"-----BEGIN OCSP REQUEST-----\n" + base64.encodebytes(_plain(auth)) + b"-----END OCSP REQUEST-----\n"
    )


def locator(url: str) -> bytes:
    """A service locator that points to *url*."""
    access = seq(oid("1.3.6.1.5.5.7.48.1"), tlv(0x86, url.encode()))
    return extension(LOCATOR_OID, seq(_NAME, seq(access)))


def _serial_octets(content: bytes) -> Callable[[Service], bytes]:
    return _one(serial=tlv(0x02, content))


CASES: tuple[Case, ...] = (
    # In order.
    Case("B-D01", "no parameters", _hashed_by(SHA1_OID, b""), "good"),
    Case("B-D02", "SHA-256", _hashed_by(SHA256_OID), "good"),
    Case("B-D02", "SHA-256, no parameters", _hashed_by(SHA256_OID, b""), "good"),
    Case("B-D03", "SHA-384", _hashed_by(SHA384_OID), "good"),
    Case("B-D03", "SHA-512", _hashed_by(SHA512_OID), "good"),
    Case("B-D04", "plain", _plain, "good"),
    # Cut, padded, doubled.
    Case("B-D05", "empty", _fixed(b""), MALFORMED),
    Case("B-D06", "one octet", _fixed(b"\x30"), MALFORMED),
    Case("B-D07", "a quarter", _cut(0.25), MALFORMED),
    Case("B-D08", "last octet missing", lambda auth: _plain(auth)[:-1], MALFORMED),
    Case("B-D09", "NUL behind", lambda auth: _plain(auth) + b"\0", MALFORMED),
    Case("B-D10", "two in a row", lambda auth: _plain(auth) * 2, MALFORMED),
    Case("B-D11", "junk inside", lambda auth: request(auth.asked().one, extensions=b"\x04\x01x"), MALFORMED),
    # Lengths.
    Case("B-D12", "indefinite length", _indefinite, MALFORMED),
    Case("B-D13", "length 81 xx", _long_form(1), MALFORMED),
    Case("B-D14", "length 82 00 xx", _long_form(2), MALFORMED),
    Case("B-D15", "2 GiB", _huge_length(4, 0x7FFFFFFF), MALFORMED),
    Case("B-D16", "2^63", _huge_length(8, 1 << 63), MALFORMED),
    Case("B-D17", "length FF", _fixed(b"\x30\xff" + bytes(200)), MALFORMED),
    Case("B-D18", "300 deep", _fixed(_nested(300, whole=True)), MALFORMED),
    Case("B-D18", "300 deep, without ends", _fixed(_nested(300, whole=False)), MALFORMED),
    Case("B-D19", "20,000 deep", _fixed(_nested(20_000, whole=False)), TOO_LARGE),
    Case("B-D19", "as deep as fits", _fixed(_nested(8_000, whole=False)), MALFORMED),
    # Something else.
    Case("B-D20", "a SET outside", lambda auth: b"\x31" + _plain(auth)[1:], MALFORMED),
    Case("B-D21", "a SET inside", lambda auth: seq(tlv(0x31, seq(auth.asked().one))), MALFORMED),
    Case("B-D22", "nobody asked about", _fixed(seq(seq(seq()))), MALFORMED),
    # Several.
    Case("B-D23", "known and unknown", _two(lambda auth: auth.asked(7).one), "good unknown"),
    Case("B-D23", "good and revoked", _two(lambda auth: auth.asked(auth.revoked[0]).one), "good revoked"),
    Case("B-D24", "one twice", _two(lambda auth: auth.asked().one), "good good"),
    Case("B-D25", "known and foreign", _two(_foreign), UNAUTHORIZED),
    Case("B-D26", "20", _many(20), " ".join(["good"] * 20)),
    Case("B-D26", "100", _many(100), UNAUTHORIZED),
    Case("B-D27", "10,000", _many(10_000), TOO_LARGE),
    # Serial numbers.
    Case("B-D28", "serial 0", _one(serial=integer(0)), "unknown"),
    Case("B-D29", "serial -1", _one(serial=integer(-1)), "unknown"),
    Case("B-D30", "serial of 20 octets", _serial_octets(b"\x7f" * 20), "unknown"),
    Case("B-D31", "serial of 21 octets", _serial_octets(b"\x7f" * 21), "unknown"),
    Case("B-D32", "serial of 64 KiB", _serial_octets(b"\x7f" * 65_536), TOO_LARGE),
    Case("B-D32", "serial of 65 octets", _serial_octets(b"\x7f" * 65), MALFORMED),
    Case(
        "B-D33",
        "serial not minimal",
        lambda auth: request(auth.asked()._replace(serial=tlv(0x02, b"\0\0", auth.asked().serial[2:])).one),
        MALFORMED,
    ),
    Case("B-D34", "empty serial", _serial_octets(b""), MALFORMED),
    Case("B-D35", "serial as OCTET STRING", _one(serial=octets(b"\x01\x02")), MALFORMED),
    # Issuer hashes.
    Case("B-D36", "unknown hash function", _sha1_called(ODD_OID), UNAUTHORIZED),
    Case("B-D37", "MD5", _hashed_by(MD5_OID), UNAUTHORIZED),
    Case("B-D38", "hash of 19 octets", _hash_octets(19), UNAUTHORIZED),
    Case("B-D38", "border moved by one", _moved_border, UNAUTHORIZED),
    Case("B-D39", "hash of 32 octets", _hash_octets(32), UNAUTHORIZED),
    Case("B-D40", "empty hash", _hash_octets(0), UNAUTHORIZED),
    Case("B-D41", "only the name's hash", _half_right("key_hash"), UNAUTHORIZED),
    Case("B-D42", "only the key's hash", _half_right("name_hash"), UNAUTHORIZED),
    Case("B-D43", "INTEGER parameters", _hashed_by(SHA1_OID, integer(0)), MALFORMED),
    Case("B-D44", "constructed OCTET STRING", _constructed, MALFORMED),
    # Version and name.
    Case("B-D45", "version 0 said", _before(tlv(0xA0, integer(0))), MALFORMED),
    Case("B-D46", "version 1", _before(tlv(0xA0, integer(1))), MALFORMED),
    Case("B-D47", "version -1", _before(tlv(0xA0, integer(-1))), MALFORMED),
    Case("B-D48", "version 2^64", _before(tlv(0xA0, integer(1 << 64))), MALFORMED),
    Case("B-D49", "requestor: name", _before(tlv(0xA1, tlv(0xA4, _NAME))), "good"),
    Case("B-D50", "requestor: e-mail", _before(tlv(0xA1, tlv(0x81, b"a@example.test"))), "good"),
    Case("B-D51", "requestor: no GeneralName", _before(tlv(0xA1, tlv(0x8F, b"x"))), MALFORMED),
    # Signatures.
    Case("B-D52", "signed", signed_request, "good"),
    Case("B-D53", "signature broken", lambda auth: signed_request(auth, broken=True), "good"),
    Case("B-D54", "signed, no name", lambda auth: signed_request(auth, name=b""), "good"),
    Case("B-D55", "signed, unknown algorithm", _signed_with(seq(oid(ODD_OID)), b"x" * 64), "good"),
    Case(
        "B-D56",
        "empty Signature",
        lambda auth: request(auth.asked().one, after=tlv(0xA0, seq())),
        MALFORMED,
    ),
    # Nonces.
    *[
        Case("B-D57", f"nonce of {count}", _with(nonce_of(bytes(range(256))[:count])), "good")
        for count in (1, 15, 16, 23, 32, 33, 128)
    ],
    *[
        Case("B-D57", f"nonce of {count}", _with(nonce_of(b"\x55" * count)), MALFORMED)
        for count in (0, 129, 4096)
    ],
    Case("B-D58", "nonce not wrapped", _with(extension("1.3.6.1.5.5.7.48.1.2", b"\x55" * 16)), MALFORMED),
    Case("B-D59", "two nonces", _with(nonce_of(b"\x01" * 16), nonce_of(b"\x02" * 16)), MALFORMED),
    Case(
        "B-D60",
        "critical nonce",
        _with(extension("1.3.6.1.5.5.7.48.1.2", octets(b"\x55" * 16), CRITICAL)),
        "good",
    ),
    Case("B-D61", "nonce as single extension", _single(nonce_of(b"\x55" * 16)), "good"),
    # Extensions.
    Case("B-D62", "unknown", _with(extension(ODD_OID, b"x")), "good"),
    Case("B-D62", "unknown single", _single(extension(ODD_OID, b"x")), "good"),
    Case("B-D63", "unknown critical", _with(extension(ODD_OID, b"x", CRITICAL)), MALFORMED),
    Case("B-D64", "unknown critical single", _single(extension(ODD_OID, b"x", CRITICAL)), MALFORMED),
    Case("B-D65", "empty list", _with(), "good"),
    Case("B-D66", "the same twice", _with(extension(ODD_OID, b"x"), extension(ODD_OID, b"x")), MALFORMED),
    Case("B-D67", "TRUE written 01", _with(extension(ODD_OID, b"x", b"\x01\x01\x01")), MALFORMED),
    Case("B-D68", "FALSE written", _with(extension(ODD_OID, b"x", b"\x01\x01\x00")), MALFORMED),
    Case("B-D69", "basic wanted", _with(extension(RESPONSE_OID, seq(oid(BASIC_OID)))), "good"),
    Case("B-D69", "basic too", _with(extension(RESPONSE_OID, seq(oid(ODD_OID), oid(BASIC_OID)))), "good"),
    Case("B-D70", "basic not wanted", _with(extension(RESPONSE_OID, seq(oid(ODD_OID)))), "good"),
    Case(
        "B-D71",
        "unknown algorithm preferred",
        _with(extension(PREFERRED_OID, seq(seq(seq(oid(ODD_OID)))))),
        "good",
    ),
    Case(
        "B-D72",
        "weak algorithms preferred",
        _with(extension(PREFERRED_OID, seq(*[seq(seq(oid(name), NULL)) for name in _PREFERS]))),
        "good",
    ),
    Case("B-D73", "locator of the own machine", _single(locator("http://169.254.169.254/latest")), "good"),
    Case("B-D74", "fields out of order", _out_of_order, MALFORMED),
    # Something else altogether.
    Case(
        "B-D75",
        "a response",
        _fixed(seq(tlv(0x0A, b"\0"), tlv(0xA0, seq(oid(BASIC_OID), octets(b"x"))))),
        MALFORMED,
    ),
    Case("B-D76", "a certificate", _certificate, MALFORMED),
    Case("B-D77", "PEM", _pem, MALFORMED),
    Case("B-D78", "base64", lambda auth: base64.b64encode(_plain(auth)), MALFORMED),
    Case("B-D79", "JSON", _fixed(b'{"serial": 1}'), MALFORMED),
    Case("B-D80", "noise", _fixed(random.Random(80).randbytes(500)), MALFORMED),
    Case("B-D81", "zeros", _fixed(bytes(500)), MALFORMED),
)
