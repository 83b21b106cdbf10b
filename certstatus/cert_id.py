"""CertID: how a request names a certificate, and how an issuer is hashed to be found by it.

Knows: the four hash functions we serve, as small numbers; the concatenation of name hash
and key hash under which an issuer is filed; serial numbers as INTEGER content octets.
Does not know: any issuer.  A hash function or a hash length that fits none of ours is
not an error here; such a CertID carries ``UNKNOWN_HASH`` and matches nobody.
Source: RFC 6960 §4.1.1; RFC 5754 §2 (parameters NULL or absent).
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import NamedTuple

from certstatus import oid
from certstatus.der import (
    INTEGER,
    NULL_DER,
    OCTET_STRING,
    SEQUENCE,
    check_element,
    expect,
    expect_integer,
    expect_last,
    read_oid,
    read_signature_bits,
    sequence,
    tlv,
)
from certstatus.der import oid as encode_oid
from certstatus.errors import DERError

UNKNOWN_HASH = 0
SHA1 = 1
SHA256 = 2
SHA384 = 3
SHA512 = 4

# A serial number has at most 20 octets (RFC 5280 §4.1.2.2).  Longer ones are answered
# unknown, so they are carried, but not without a limit: an answer repeats them.
SERIAL_OCTETS_MAX = 64

_OIDS = {SHA1: oid.SHA1, SHA256: oid.SHA256, SHA384: oid.SHA384, SHA512: oid.SHA512}
_HASH_OCTETS = (-1, 20, 32, 48, 64)
_ALGORITHM_DER = {alg: sequence(encode_oid(name), NULL_DER) for alg, name in _OIDS.items()}
# Content octets of every AlgorithmIdentifier we know, so that the hot path compares, not parses.
_ALGORITHMS = {encode_oid(name) + NULL_DER: alg for alg, name in _OIDS.items()} | {
    encode_oid(name): alg for alg, name in _OIDS.items()
}
_KNOWN_NAMES = frozenset(_OIDS.values())


class CertID(NamedTuple):
    """A certificate as a request names it; equal requests give equal, hashable values.

    hash_alg          SHA1..SHA512, or UNKNOWN_HASH: then no issuer matches
    issuer_name_hash  octets over the DER of the issuer's name
    issuer_key_hash   octets over the contents of the issuer's key BIT STRING
    serial            INTEGER content octets, minimal, 1..SERIAL_OCTETS_MAX; may be zero or negative
    """

    hash_alg: int
    issuer_name_hash: bytes
    issuer_key_hash: bytes
    serial: bytes

    @property
    def issuer_hash(self) -> bytes:
        """Name hash and key hash joined, as ``issuer_hashes`` gives them; empty for UNKNOWN_HASH.

        The length (40, 64, 96 or 128 octets) tells the hash function, so one table serves all.
        """
        return self.issuer_name_hash + self.issuer_key_hash if self.hash_alg else b""


def read_cert_id(buf: bytes, pos: int, end: int) -> tuple[CertID, int]:
    """Return (CertID, element_end) of the CertID at *pos*.

    Raises:  DERError — not DER; parameters of a known hash neither NULL nor absent; serial
             not minimal, or longer than SERIAL_OCTETS_MAX.
    Cost:    about 1.6 µs, five or six headers.
    Source:  RFC 6960 §4.1.1.
    """
    pos, stop = expect(buf, pos, end, SEQUENCE)
    start, pos = expect(buf, pos, stop, SEQUENCE)
    hash_alg = _ALGORITHMS.get(buf[start:pos])
    if hash_alg is None:
        hash_alg = _unknown_hash(buf, start, pos)
    start, pos = expect(buf, pos, stop, OCTET_STRING)
    name_hash = buf[start:pos]
    start, pos = expect(buf, pos, stop, OCTET_STRING)
    key_hash = buf[start:pos]
    start, pos = expect_integer(buf, pos, stop)
    if pos != stop:
        raise DERError(f"CertID: {stop - pos} octets after the serial number")
    if pos - start > SERIAL_OCTETS_MAX:
        raise DERError(f"serial number: {pos - start} octets, at most {SERIAL_OCTETS_MAX}")
    # Both lengths must be the hash's own, or a shifted border between the two would match an issuer.
    octets = _HASH_OCTETS[hash_alg]
    if len(name_hash) != octets or len(key_hash) != octets:
        hash_alg = UNKNOWN_HASH
    return CertID(hash_alg, name_hash, key_hash, buf[start:pos]), stop


def _unknown_hash(buf: bytes, start: int, stop: int) -> int:
    name, after = read_oid(buf, start, stop)
    if name in _KNOWN_NAMES:
        raise DERError(f"hash algorithm {name}: parameters neither NULL nor absent")
    if after != stop and check_element(buf, after, stop) != stop:
        raise DERError(f"hash algorithm {name}: octets after its parameters")
    return UNKNOWN_HASH


def encode_cert_id(hash_alg: int, issuer_name_hash: bytes, issuer_key_hash: bytes, serial: bytes) -> bytes:
    """Return the DER of a CertID with NULL parameters, whatever form the request used.

    Clients compare the hash function and the values, not the form of the parameters, so one
    signed answer serves both.  ``encode_cert_id(*cert_id)`` writes a parsed one.
    Takes:   hash_alg SHA1..SHA512; serial as minimal INTEGER content octets.
    Raises:  DERError — UNKNOWN_HASH or no such number.
    Cost:    about 0.4 µs.
    """
    content = _issuer_der(hash_alg, issuer_name_hash, issuer_key_hash) + tlv(INTEGER, serial)
    return tlv(SEQUENCE, content)


@lru_cache(maxsize=256)
def _issuer_der(hash_alg: int, issuer_name_hash: bytes, issuer_key_hash: bytes) -> bytes:
    """Return a CertID's content up to the serial number."""
    algorithm_der = _ALGORITHM_DER.get(hash_alg)
    if algorithm_der is None:
        raise DERError(f"hash algorithm {hash_alg}: cannot be written")
    return algorithm_der + tlv(OCTET_STRING, issuer_name_hash) + tlv(OCTET_STRING, issuer_key_hash)


def subject_public_key(spki_der: bytes) -> bytes:
    """Return the contents of the BIT STRING in a SubjectPublicKeyInfo: no tag, length, unused-bits octet."""
    start, stop = expect_last(spki_der, 0, len(spki_der), SEQUENCE)
    _, after = expect(spki_der, start, stop, SEQUENCE)
    start, after = read_signature_bits(spki_der, after, stop)
    if after != stop:
        raise DERError(f"SubjectPublicKeyInfo: {stop - after} octets after the key")
    return spki_der[start:after]


def issuer_hashes(name_der: bytes, spki_der: bytes) -> dict[int, bytes]:
    """Return, for each hash function, name hash + key hash: what ``CertID.issuer_hash`` must equal.

    Takes:   the issuer's Name exactly as encoded in its certificates; its SubjectPublicKeyInfo.
    Raises:  DERError — *spki_der* is not a SubjectPublicKeyInfo.
    Source:  RFC 6960 §4.1.1.
    """
    key = subject_public_key(spki_der)
    functions = {SHA1: "sha1", SHA256: "sha256", SHA384: "sha384", SHA512: "sha512"}
    return {
        alg: hashlib.new(name, name_der, usedforsecurity=False).digest()
        + hashlib.new(name, key, usedforsecurity=False).digest()
        for alg, name in functions.items()
    }


def responder_key_hash(spki_der: bytes) -> bytes:
    """Return the byKey ResponderID of a key: SHA-1, 20 octets, whatever hash the CertIDs use.

    Source:  RFC 6960 §4.2.1 (KeyHash).
    """
    return hashlib.sha1(subject_public_key(spki_der), usedforsecurity=False).digest()
