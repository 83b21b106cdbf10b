"""The index of a pack of archived CRLs, and the list of all packs: their octets.

::

    PACK.pack    complete CRLs, DER, one after another; nothing else
    PACK.idx     header, 128 octets, and a row of 192 octets for each of them
    header       CSP1 | row octets u16 | sealed u16 | day u32 | part u32 | rows u64 | pack octets u64
                 | last nextUpdate i64 | SHA-256 of the pack 32 | SHA-256 of the rows 32 | zeros 20 | CRC-32
    row          scope path 64 | issuer 16 | number u64 | seq u64 | offset u64 | size u64 | thisUpdate i64
                 | nextUpdate i64 | published i64, ms | SHA-256 of the CRL 32 | zeros 20 | CRC-32

    PACK is the JST day of publication, 2026-11-29; a later part of the same day is 2026-11-29.2
    everything little-endian; times POSIX; issuer: the first 16 octets of SHA-256 of its SubjectPublicKeyInfo

An open pack grows by a row at a time, and its header stays as it was made.  A sealed one's rows are
in order of path and number, and its header says what they and the pack must be.
Knows: these layouts, and that a row counts only whole and with its CRC: so a torn tail is no row.
Does not know: files (``crl_archive``), or who writes them.
Source: Act arts. 16, 35 (revocation information files are kept); RFC 5280 §5.2.3 (numbers per scope).
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from typing import Any, NamedTuple

from certstatus.errors import ArchiveDamaged

MAGIC = b"CSP1"
HEADER_BYTES = 128
ROW_BYTES = 192
PATH_BYTES = 64
ISSUER_BYTES = 16
CONTENTS_FORMAT = 1

_HEADER = struct.Struct("<4sHHIIQQq32s32s20x")
_ROW = struct.Struct("<64s16sQQQQqqq32s20x")
_KEY_BYTES = PATH_BYTES + ISSUER_BYTES + 8
_CRC = struct.Struct("<I")
_DAY_0 = date(1970, 1, 1)


class PackName(NamedTuple):
    """What a pack is called: the JST day as days since 1970-01-01, and which of that day's it is, from 1."""

    day: int
    part: int = 1

    def __str__(self) -> str:
        day = (_DAY_0 + timedelta(days=self.day)).isoformat()
        return day if self.part == 1 else f"{day}.{self.part}"


def parse_pack_name(text: str) -> PackName | None:
    """Return the name written *text*, or None if it is none."""
    written, _, part = text.partition(".")
    try:
        day = (date.fromisoformat(written) - _DAY_0).days
        name = PackName(day, int(part) if part else 1)
    except ValueError:
        return None
    return name if str(name) == text else None


class PackedCRL(NamedTuple):
    """One archived CRL: what it is, and where in its pack its octets are.

    ``path``: the scope's, ``sign/g1/all``; ``seq``: the cut it was made at, 0 where nobody knows;
    ``published_ms``: when the catalogue first named it, 0 where nobody wrote that down.
    """

    path: str
    issuer: bytes
    number: int
    seq: int
    offset: int
    size: int
    this_update_s: int
    next_update_s: int
    published_ms: int
    sha256: bytes

    @property
    def file(self) -> str:
        """The name it is served under, below ``/crl/``."""
        return f"{self.path}/{self.number}.crl"


class PackHeader(NamedTuple):
    """The head of an index; of an open one only ``name`` says something."""

    name: PackName
    sealed: bool = False
    rows: int = 0
    pack_bytes: int = 0
    last_next_update_s: int = 0
    pack_sha256: bytes = bytes(32)
    rows_sha256: bytes = bytes(32)


def issuer_mark(spki_der: bytes) -> bytes:
    """Return what stands for an issuer in a row: numbers of the register may mean another after a restore."""
    return hashlib.sha256(spki_der).digest()[:ISSUER_BYTES]


def encode_row(crl: PackedCRL) -> bytes:
    """Return one row.  Raises: ArchiveDamaged — a scope's path of more than 64 octets."""
    path = crl.path.encode()
    if len(path) > PATH_BYTES or b"\0" in path:
        raise ArchiveDamaged(f"the scope's path {crl.path!r} has more than {PATH_BYTES} octets")
    return _with_crc(_ROW.pack(path, *crl[1:]))


def read_row(octets: bytes) -> PackedCRL | None:
    """Return the row, or None if these are not the octets of one."""
    if len(octets) != ROW_BYTES or not _has_crc(octets):
        return None
    path, *rest = _ROW.unpack(octets[: _ROW.size])
    try:
        return PackedCRL(path.rstrip(b"\0").decode(), *rest)
    except ValueError:
        return None


def encode_header(head: PackHeader) -> bytes:
    """Return the head of an index."""
    return _with_crc(
        _HEADER.pack(MAGIC, ROW_BYTES, int(head.sealed), head.name.day, head.name.part, head.rows, *head[3:])
    )


def read_header(octets: bytes) -> PackHeader:
    """Return what the head of an index says.  Raises: ArchiveDamaged."""
    if len(octets) < HEADER_BYTES or not _has_crc(octets[:HEADER_BYTES]):
        raise ArchiveDamaged("the index of a pack has no head")
    magic, row_bytes, sealed, day, part, *rest = _HEADER.unpack(octets[: _HEADER.size])
    if magic != MAGIC or row_bytes != ROW_BYTES:
        raise ArchiveDamaged("the index of a pack has another form")
    return PackHeader(PackName(day, part), bool(sealed), *rest)


def read_rows(octets: bytes) -> list[PackedCRL]:
    """Return the rows in what stands behind the head; what is torn or damaged is passed over."""
    rows = (read_row(octets[at : at + ROW_BYTES]) for at in range(0, len(octets), ROW_BYTES))
    return [row for row in rows if row is not None]


def key_of(crl: PackedCRL) -> bytes:
    """Return the octets that a row begins with, which say what CRL it is: scope's path, issuer, number.

    Of a path too long for a row they are those of no row.
    """
    return crl.path.encode().ljust(PATH_BYTES, b"\0") + crl.issuer + crl.number.to_bytes(8, "little")


def read_keys(octets: bytes) -> frozenset[bytes]:
    """Return the keys of the rows in what stands behind the head, as ``key_of`` makes them.

    Without reading the rows: whoever publishes one CRL need not take thousands of others apart.
    """
    rows = (octets[at : at + ROW_BYTES] for at in range(0, len(octets), ROW_BYTES))
    return frozenset(row[:_KEY_BYTES] for row in rows if len(row) == ROW_BYTES and _has_crc(row))


def whole_octets(octets: bytes) -> int:
    """Return how many of the octets behind the head are kept when the next row is written.

    Damaged rows at the very end are a torn write and go; those with good ones after them stay.
    """
    end = len(octets) - len(octets) % ROW_BYTES
    while end and read_row(octets[end - ROW_BYTES : end]) is None:
        end -= ROW_BYTES
    return end


def _with_crc(octets: bytes) -> bytes:
    return octets + _CRC.pack(zlib.crc32(octets))


def _has_crc(octets: bytes) -> bool:
    return _CRC.pack(zlib.crc32(octets[: -_CRC.size])) == octets[-_CRC.size :]


# --- the list of packs -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PackLine:
    """One pack as whoever reads it must find it: so many rows, which have this hash (hex)."""

    name: str
    rows: int
    rows_sha256: str


@dataclass(frozen=True, slots=True)
class ArchiveMark:
    """What the CRL catalogue says of the archive, and so what a beat vouches for.

    ``contents``: the SHA-256 (hex) of the list of sealed packs; ``growing``: the open ones.
    """

    contents: str
    growing: tuple[PackLine, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the same as plain JSON values."""
        return {"contents": self.contents, "growing": [asdict(line) for line in self.growing]}


def read_archive_mark(value: object) -> ArchiveMark:
    """Return what ``ArchiveMark.as_json`` gave.  Raises: ArchiveDamaged — something else."""
    try:
        if not isinstance(value, dict):
            raise TypeError("no object")
        growing = tuple(_read_line(item) for item in value["growing"])
        return ArchiveMark(_hex(value["contents"]), growing)
    except (KeyError, TypeError, ValueError) as exc:
        raise ArchiveDamaged(f"what the catalogue says of the archive: {exc!r}") from exc


def contents_file(sha256: str) -> str:
    """Return the name of the file that holds the list with this hash."""
    return f"contents-{sha256[:16]}.json"


def encode_contents(lines: Iterable[PackLine]) -> bytes:
    """Return the list of sealed packs, canonical JSON."""
    content = {"format": CONTENTS_FORMAT, "packs": [asdict(line) for line in lines]}
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def read_contents(octets: bytes, sha256: str) -> list[PackLine]:
    """Return the list of sealed packs.  Raises: ArchiveDamaged — another hash, or no such list."""
    if hashlib.sha256(octets).hexdigest() != sha256:
        raise ArchiveDamaged("the archive's list of packs is not the one named")
    try:
        content = json.loads(octets)
        if content["format"] != CONTENTS_FORMAT:
            raise ArchiveDamaged(f"the archive's list of packs has format {content['format']!r}")
        return [_read_line(item) for item in content["packs"]]
    except (KeyError, TypeError, ValueError, RecursionError) as exc:
        raise ArchiveDamaged(f"the archive's list of packs: {exc!r}") from exc


def _read_line(value: Any) -> PackLine:  # noqa: ANN401 — whatever JSON holds
    line = PackLine(**value)
    if not isinstance(line.name, str) or parse_pack_name(line.name) is None:
        raise ValueError(f"no pack's name: {line.name!r}")
    if type(line.rows) is not int or line.rows < 0:
        raise ValueError(f"no number of rows: {line.rows!r}")
    _hex(line.rows_sha256)
    return line


def _hex(value: Any) -> str:  # noqa: ANN401 — whatever JSON holds
    if not isinstance(value, str) or len(bytes.fromhex(value)) != hashlib.sha256().digest_size:
        raise ValueError(f"no SHA-256: {value!r}")
    return value
