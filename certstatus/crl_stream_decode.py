"""A CRL read from a file block by block: its head and end, its entries as rows, its signature.

::

    file ─▶ head, end ─▶ one CertificateList without entries ─▶ ``crl.parse_certificate_list``
       └──▶ entries ─▶ rows, and meanwhile the digests of the signed part and of the file

Knows: where the parts are in a file of any size, and that each octet is read once for all of it.
Does not know: whether what is read is right.  Nothing is verified but by ``is_signed_by``.
Source: RFC 5280 §5.1; RFC 3279, 4055, 5758 (algorithms).
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from certstatus import oid
from certstatus.crl import ParsedHead, parse_certificate_list
from certstatus.crl_entry import CRLEntry, read_entries
from certstatus.crl_row_decode import RowDecoder
from certstatus.crl_row_encode import Octets
from certstatus.crl_row_facts import RowFacts
from certstatus.crl_row_find import find_entry
from certstatus.crl_rows import Rows
from certstatus.der import GENERALIZED_TIME, INTEGER, SEQUENCE, UTC_TIME, check_element, expect, sequence
from certstatus.errors import DERError

# What stands before the entries, and what after them, has at most so many octets.
HEAD_OCTETS_MAX = TAIL_OCTETS_MAX = 1 << 16
OCTETS_AT_ONCE = 1 << 19
# Five length octets reach a TB; a list of a hundred million entries needs them.
_LENGTH_OCTETS_MAX = 5

_HEAD_FIELDS = tuple(field.name for field in dataclasses.fields(ParsedHead))

_HASHES: dict[str, hashes.SHA256 | hashes.SHA384] = {
    oid.SHA256_WITH_RSA: hashes.SHA256(),
    oid.ECDSA_WITH_SHA256: hashes.SHA256(),
    oid.ECDSA_WITH_SHA384: hashes.SHA384(),
}


class CRLDigests(NamedTuple):
    """Digests of a file: of its signed part by the hash of its signature algorithm (empty if that is none of
    ours), and SHA-256 of all of it."""

    signed: bytes
    whole: bytes


class CRLFile:
    """A CRL file, open for reading.

    size      of the CRL, in octets
    head      what it says besides its entries
    head_der  the same as it stands there: a CertificateList without entries, whose signature is of the whole
    """

    def __init__(self, path: Path, offset: int = 0, size: int | None = None) -> None:
        """Open it and read all but the entries.

        Takes:  where in the file the CRL begins and how many octets it has, if there is more in it.
        Raises: DERError — not one DER CertificateList, as far as that is seen without entries; OSError.
        """
        self.path = path
        self._offset = offset
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            there = max(0, os.fstat(self._descriptor).st_size - offset)
            self.size = there if size is None else min(size, there)
            self._front = self._pread(min(HEAD_OCTETS_MAX, self.size), 0)
            self._places = _find_places(self._front, self.size)
            self._front = self._front[: self._places.entries]
            after = self.size - self._places.entries_end
            if after > TAIL_OCTETS_MAX:
                raise DERError(f"CRL: {after} octets after its entries, at most {TAIL_OCTETS_MAX}")
            self._tail = self._pread(after, self._places.entries_end)
            self.head_der = _without_entries(self._front, self._tail, self._places)
            self.head = _parse_head(self.head_der, self._places)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close it."""
        os.close(self._descriptor)

    def _pread(self, count: int, at: int) -> bytes:
        return os.pread(self._descriptor, count, self._offset + at)

    def read(self) -> bytes:
        """Return all of it, for the few that must have it whole."""
        return self._pread(self.size, 0)

    def rows(self, facts: RowFacts | None = None, octets_at_once: int = OCTETS_AT_ONCE) -> Iterator[Rows]:
        """Yield the entries as rows, in the order in which they stand there, noting them in *facts*.

        Raises: DERError — something else than entries, or one that a row has no room for, or that is longer
                than *octets_at_once*.
        """
        return CRLReading(self, octets_at_once, hashes=False).rows(facts)

    def reading(self, octets_at_once: int = OCTETS_AT_ONCE) -> CRLReading:
        """Return one pass over the file, which gives rows and digests."""
        return CRLReading(self, octets_at_once)

    def digests(self) -> CRLDigests:
        """Return the digests, without looking at entries."""
        reading = self.reading()
        reading.skip()
        return reading.digests()


class FoundEntry(NamedTuple):
    """What a CRL says of one serial number, None if nothing; and SHA-256 of all that was read to find it."""

    entry: CRLEntry | None
    sha256: bytes


def find_in(path: Path, serial: bytes, offset: int = 0, size: int | None = None) -> FoundEntry:
    """Look for the entry of *serial* (INTEGER content octets) in a CRL, which is never whole in memory.

    Takes:  where in the file the CRL is, as ``CRLFile`` does.
    Raises: DERError — not a CRL, or its entry cannot be read; OSError.
    """
    with CRLFile(path, offset, size) as file:
        reading = file.reading()
        entry_der = reading.find(serial)
        sha256 = reading.digests().whole
    if entry_der is None:
        return FoundEntry(None, sha256)
    (entry,), _ = read_entries(entry_der, 0, len(entry_der))
    return FoundEntry(entry, sha256)


class CRLReading:
    """One pass over a CRL file: first all the rows, then the digests of what they were read from."""

    def __init__(self, file: CRLFile, octets_at_once: int, *, hashes: bool = True) -> None:
        """Begin it; without *hashes* it gives rows only."""
        self._file = file
        self._octets_at_once = octets_at_once
        found = _HASHES.get(file.head.signature_algorithm)
        self._signed = hashlib.new(found.name) if hashes and found is not None else None
        self._whole = hashlib.sha256() if hashes else None
        # Of the piece that was given last: all of it, unless the one who took it says otherwise.
        self._used = 0

    def rows(self, facts: RowFacts | None = None) -> Iterator[Rows]:
        """Yield the entries as rows; as ``CRLFile.rows``."""
        decoder = RowDecoder()
        for octets in self.octets():
            rows, self._used = decoder.decode(octets)
            if not self._used:
                buf = octets.tobytes()
                expect(buf, 0, len(buf), SEQUENCE)
            if facts is not None:
                facts.add(rows)
                facts.critical |= decoder.critical
            yield rows

    def skip(self) -> None:
        """Read to the end, without looking at entries."""
        for _ in self.octets():
            pass

    def find(self, serial: bytes) -> bytes | None:
        """Read to the end; return the DER of the first entry of *serial*, INTEGER content octets, or None.

        Of the others nothing is looked at but where they end.
        Raises: DERError — something else than entries.
        """
        found: bytes | None = None
        for octets in self.octets():
            if found is None:
                found, self._used = find_entry(octets, serial)
                if not self._used:
                    buf = octets.tobytes()
                    expect(buf, 0, len(buf), SEQUENCE)
        return found

    def octets(self) -> Iterator[Octets]:
        """Yield the octets of the entries in pieces, each from behind the ``_used`` octets of the last."""
        file = self._file
        places = file._places
        self._note(file._front, file._front[places.tbs :])
        buffer = np.empty(min(self._octets_at_once, places.entries_end - places.entries), np.uint8)
        at, have = places.entries, 0
        while have or at < places.entries_end:
            count = min(len(buffer) - have, places.entries_end - at)
            fresh = buffer[have : have + count]
            if count and os.preadv(file._descriptor, [fresh.data], file._offset + at) != count:
                raise DERError("CRL: the file ended while it was read")
            self._note(fresh.data, fresh.data)
            at, have = at + count, have + count
            self._used = have
            yield buffer[:have]
            left = have - self._used
            buffer[:left] = buffer[self._used : have].copy()
            have = left
        self._note(file._tail, file._tail[: places.tbs_end - places.entries_end])

    def _note(self, octets: bytes | memoryview, signed: bytes | memoryview) -> None:
        """Hash what was read next, and what of it is signed."""
        if self._whole is not None:
            self._whole.update(octets)
        if self._signed is not None:
            self._signed.update(signed)

    def digests(self) -> CRLDigests:
        """Return the digests; only when all has been read."""
        signed, whole = (b"" if hashed is None else hashed.digest() for hashed in (self._signed, self._whole))
        return CRLDigests(signed, whole)


class _Places(NamedTuple):
    """Offsets in a file: of TBSCertList and of its first field, behind the last field before the list, of the
    first entry (or where it would be), behind the last entry, behind TBSCertList."""

    tbs: int
    fields: int
    fields_end: int
    entries: int
    entries_end: int
    tbs_end: int


def _find_places(front: bytes, size: int) -> _Places:
    """Return where the parts are, from the first octets of a file.  Their form is left to ``_parse_head``."""
    tbs, end = _long_expect(front, 0, size)
    if end != size:
        raise DERError(f"CRL: {size - end} octets follow it")
    fields, tbs_end = _long_expect(front, tbs, end)
    pos, limit = fields, min(len(front), tbs_end)
    if pos < limit and front[pos] == INTEGER:
        pos = check_element(front, pos, limit)
    pos = expect(front, pos, limit, SEQUENCE)[1]
    pos = expect(front, pos, limit, SEQUENCE)[1]
    while pos < limit and front[pos] in (UTC_TIME, GENERALIZED_TIME):
        pos = check_element(front, pos, limit)
    if pos >= limit or front[pos] != SEQUENCE:
        return _Places(tbs, fields, pos, pos, pos, tbs_end)
    return _Places(tbs, fields, pos, *_long_expect(front, pos, tbs_end), tbs_end)


def _long_expect(front: bytes, pos: int, end: int) -> tuple[int, int]:
    """Return (content_start, content_end) of the SEQUENCE at *pos*, whose content may go beyond *front*."""
    start = pos + 2
    if start > len(front) or front[pos] != SEQUENCE:
        raise DERError(f"element at {pos}: tag 0x{SEQUENCE:02X} expected")
    length = front[pos + 1]
    if length >= 0x80:
        octets = length & 0x7F
        if not 1 <= octets <= _LENGTH_OCTETS_MAX or start + octets > len(front):
            raise DERError(f"length at {pos + 1}: indefinite, too long or cut off")
        length = int.from_bytes(front[start : start + octets], "big")
        if length < 0x80 or front[start] == 0:
            raise DERError(f"length at {pos + 1}: not minimal")
        start += octets
    if start + length > end:
        raise DERError(f"element at {pos}: {length} octets announced, {end - start} present")
    return start, start + length


def _without_entries(front: bytes, tail: bytes, places: _Places) -> bytes:
    """Return the CertificateList without its entries."""
    fields = front[places.fields : places.fields_end]
    signed = places.tbs_end - places.entries_end
    return sequence(sequence(fields, tail[:signed]), tail[signed:])


def _parse_head(head_der: bytes, places: _Places) -> ParsedHead:
    """Read all but the entries, as a list that has none."""
    parsed = parse_certificate_list(head_der)
    if parsed.entries or parsed.entries_empty:
        raise DERError("CRL: two lists of entries")
    values = {name: getattr(parsed, name) for name in _HEAD_FIELDS}
    values["entries_empty"] = places.fields_end < places.entries == places.entries_end
    return ParsedHead(**values)


def is_signed_by(head: ParsedHead, digest: bytes, spki_der: bytes) -> bool:
    """Say whether a CRL's signature verifies under a public key (SubjectPublicKeyInfo).

    Takes: the digest of the signed part, as ``CRLDigests`` has it.
    """
    key = serialization.load_der_public_key(spki_der)
    found = _HASHES.get(head.signature_algorithm)
    if found is None:
        return False
    try:
        if isinstance(key, rsa.RSAPublicKey) and head.signature_algorithm == oid.SHA256_WITH_RSA:
            key.verify(head.signature, digest, padding.PKCS1v15(), Prehashed(found))
        elif isinstance(key, ec.EllipticCurvePublicKey) and head.signature_algorithm != oid.SHA256_WITH_RSA:
            key.verify(head.signature, digest, ec.ECDSA(Prehashed(found)))
        else:
            return False
    except InvalidSignature:
        return False
    return True
