"""OCSP requests written octet by octet, right ones and wrong ones, and the HTTP around them.

Knows: DER by hand, so that every part can be spoiled by itself; nothing of the code under test.
"""

from __future__ import annotations

import base64
import hashlib
from typing import NamedTuple
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives import serialization

NULL = b"\x05\x00"
SHA1_OID = "1.3.14.3.2.26"
SHA256_OID = "2.16.840.1.101.3.4.2.1"
SHA384_OID = "2.16.840.1.101.3.4.2.2"
SHA512_OID = "2.16.840.1.101.3.4.2.3"
MD5_OID = "1.2.840.113549.2.5"
NONCE_OID = "1.3.6.1.5.5.7.48.1.2"
CRL_OID = "1.3.6.1.5.5.7.48.1.3"
RESPONSE_OID = "1.3.6.1.5.5.7.48.1.4"
LOCATOR_OID = "1.3.6.1.5.5.7.48.1.7"
PREFERRED_OID = "1.3.6.1.5.5.7.48.1.8"
BASIC_OID = "1.3.6.1.5.5.7.48.1.1"
_HASHES = {SHA1_OID: "sha1", SHA256_OID: "sha256", SHA384_OID: "sha384", SHA512_OID: "sha512", MD5_OID: "md5"}


# --- DER ---------------------------------------------------------------------------------------------


def tlv(tag: int, *parts: bytes) -> bytes:
    """One element with the shortest length."""
    content = b"".join(parts)
    size = len(content)
    if size < 128:
        return bytes((tag, size)) + content
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 128 | len(octets))) + octets + content


def seq(*parts: bytes) -> bytes:
    """A SEQUENCE."""
    return tlv(0x30, *parts)


def octets(content: bytes) -> bytes:
    """An OCTET STRING."""
    return tlv(0x04, content)


def integer(value: int) -> bytes:
    """An INTEGER, minimal."""
    return tlv(0x02, value.to_bytes((value + (value < 0)).bit_length() // 8 + 1, "big", signed=True))


def oid(dotted: str) -> bytes:
    """An OBJECT IDENTIFIER."""
    first, second, *arcs = map(int, dotted.split("."))
    content = b""
    for arc in (40 * first + second, *arcs):
        digits = [arc & 127]
        while arc := arc >> 7:
            digits.append(128 | arc & 127)
        content += bytes(reversed(digits))
    return tlv(0x06, content)


def extension(dotted: str, value: bytes, critical: bytes = b"") -> bytes:
    """An Extension; *critical* is the BOOLEAN as it is to be written."""
    return seq(oid(dotted), critical, octets(value))


CRITICAL = bytes.fromhex("0101ff")


# --- requests ----------------------------------------------------------------------------------------


class Asked(NamedTuple):
    """A CertID taken apart; ``_replace`` spoils one part of it."""

    algorithm: bytes
    name_hash: bytes
    key_hash: bytes
    serial: bytes

    @property
    def der(self) -> bytes:
        """The CertID."""
        return seq(self.algorithm, octets(self.name_hash), octets(self.key_hash), self.serial)

    @property
    def one(self) -> bytes:
        """The Request around it."""
        return seq(self.der)


def cert_id(ca: x509.Certificate, serial: int, algorithm: str = SHA1_OID, parameters: bytes = NULL) -> Asked:
    """Name certificate *serial* of *ca*."""
    key_info = ca.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return Asked(
        seq(oid(algorithm), parameters),
        hashlib.new(_HASHES[algorithm], ca.subject.public_bytes()).digest(),
        hashlib.new(_HASHES[algorithm], _key_bits(key_info)).digest(),
        integer(serial),
    )


def _key_bits(key_info: bytes) -> bytes:
    """The content of the BIT STRING that ends a SubjectPublicKeyInfo, without its unused-bits octet."""
    at = 2 if key_info[1] < 128 else 2 + (key_info[1] & 127)
    at += 2 + key_info[at + 1]
    assert key_info[at] == 0x03
    return key_info[at + (2 if key_info[at + 1] < 128 else 2 + (key_info[at + 1] & 127)) + 1 :]


def request(*ones: bytes, before: bytes = b"", extensions: bytes = b"", after: bytes = b"") -> bytes:
    """An OCSPRequest of *ones*; *before*: version, name; *after*: signature."""
    return seq(seq(before, seq(*ones), extensions), after)


def with_extensions(*extensions: bytes) -> bytes:
    """requestExtensions."""
    return tlv(0xA2, seq(*extensions))


def nonce_of(content: bytes) -> bytes:
    """The nonce extension."""
    return extension(NONCE_OID, octets(content))


# --- HTTP --------------------------------------------------------------------------------------------


def post(
    der: bytes, *lines: str, version: str = "1.1", target: str = "/ocsp", host: str = "ocsp.test"
) -> bytes:
    """A POST of *der* with further header lines."""
    head = [f"POST {target} HTTP/{version}", f"Host: {host}", "Content-Type: application/ocsp-request"]
    return _head(*head, f"Content-Length: {len(der)}", *lines) + der


def get(der: bytes, *lines: str, version: str = "1.1", host: str = "ocsp.test") -> bytes:
    """A GET of *der*, all of its base64 percent-encoded."""
    return get_path(f"/ocsp/{escaped(der)}", *lines, version=version, host=host)


def get_path(
    target: str, *lines: str, version: str = "1.1", host: str = "ocsp.test", method: str = "GET"
) -> bytes:
    """A GET (or *method*) of *target* as it is."""
    return _head(f"{method} {target} HTTP/{version}", f"Host: {host}", *lines)


def base64_of(der: bytes) -> str:
    """The base64 of *der*, raw."""
    return base64.b64encode(der).decode()


def escaped(der: bytes) -> str:
    """The base64 of *der*, percent-encoded."""
    return quote(base64_of(der), safe="")


def _head(*lines: str) -> bytes:
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode("latin-1")
