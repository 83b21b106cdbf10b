"""The snapshot file: the whole index at one number of the sequence, and how it is made.

::

    header, 128 bytes     CSX1 | sections u32 | epoch 16 | seq u64 | time_ms u64 | chain 32 | zeros
    section, 96 bytes     issuer_id u32 | event reason u32 | event_ms u64 (0: none)
      per issuer          | 4 x (rows u64, offset u64): issued, revoked, invalidity, hashes | zeros
    table                 hi u64 * rows | lo u32 * rows | value u32 * rows        (16 bytes a row)
      hashes              hi u64 * rows | lo u32 * rows | value 32 bytes * rows   (44 bytes a row)

    hi, lo: the 12-byte fingerprint, big-endian number split 8 + 4; rows ascend by (hi, lo).
    issued.value     = not_after_day u16 | state u8 << 16 | reason u8 << 24
    revoked.value    = revocation time, POSIX s        (a row for each certificate not good)
    invalidity.value = invalidity date, POSIX s        (a row only where one is known)
    hashes.value     = SHA-256 of the certificate      (a row only where a change told it; an
                       issuer without any has no table: zeros, as files had before there was one)
    everything little-endian; tables start at multiples of 64

Knows: the layout; writing it from rows; merging a previous file with later changes block by
block, in bounded memory.  Does not know: SQL, Valkey, nor how a snapshot is looked up
(``index``).
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from certstatus.changes import DAY_MAX, HASH_BYTES, NO_REASON, Change, ChangeKind
from certstatus.durable import sync_folder
from certstatus.errors import SnapshotError

MAGIC = b"CSX1"
HEADER = struct.Struct("<4sI16sQQ32s56x")
SECTION = struct.Struct("<IIQQQQQQQQQ16x")
HEADER_BYTES = 128
SECTION_BYTES = 96
KEY_BYTES = 12
ROW_BYTES = KEY_BYTES + 4
HASH_ROW_BYTES = KEY_BYTES + HASH_BYTES
# In the order in which a section names its tables.
_ROWS_BYTES = (ROW_BYTES, ROW_BYTES, ROW_BYTES, HASH_ROW_BYTES)
ALIGNMENT = 64
CHUNK_BYTES = 1 << 20
BLOCK_ROWS = 1 << 20
MANIFEST_FORMAT = 1

_VALUE_TYPE: np.dtype[Any] = np.dtype(np.uint32)
_HASH_TYPE: np.dtype[Any] = np.dtype((np.void, HASH_BYTES))

GOOD = 0
REVOKED = 1
HELD = 2


class IndexRow(NamedTuple):
    """One issued certificate's state; ``revoked_at_s`` is 0 while good, ``reason`` 0xFF for none.

    ``certificate_sha256`` is empty where no change told it.
    """

    fingerprint: bytes
    not_after_day: int
    state: int
    reason: int
    revoked_at_s: int
    invalidity_s: int = 0
    certificate_sha256: bytes = b""


class TablePlace(NamedTuple):
    """Where a table lies in the file."""

    rows: int
    offset: int


NOWHERE = TablePlace(0, 0)


class SectionPlace(NamedTuple):
    """One issuer's part of the file; ``event_ms`` is the CA-key event, 0 for none."""

    issuer_id: int
    event_reason: int
    event_ms: int
    issued: TablePlace
    revoked: TablePlace
    invalidity: TablePlace
    hashes: TablePlace = NOWHERE


class SnapshotHead(NamedTuple):
    """The cut a snapshot was made at, and its sections."""

    epoch: bytes
    seq: int
    time_ms: int
    chain: bytes
    sections: tuple[SectionPlace, ...]


@dataclass(slots=True)
class Table:
    """Rows of one table as sorted columns (shapes: all the same length).

    ``value``: u32, or 32 octets each in the table of hashes.
    """

    hi: NDArray[np.uint64]
    lo: NDArray[np.uint32]
    value: NDArray[Any]

    @classmethod
    def from_rows(cls, rows: dict[bytes, int]) -> Table:
        """Return the table of *rows* (fingerprint -> value), sorted."""
        return cls._sorted(rows, np.fromiter(rows.values(), dtype=np.uint32, count=len(rows)))

    @classmethod
    def from_hashes(cls, hashes: dict[bytes, bytes]) -> Table:
        """Return the table of *hashes* (fingerprint -> 32 octets), sorted."""
        return cls._sorted(hashes, np.frombuffer(b"".join(hashes.values()), dtype=_HASH_TYPE))

    @classmethod
    def _sorted(cls, fingerprints: Iterable[bytes], value: NDArray[Any]) -> Table:
        both = np.frombuffer(b"".join(fingerprints), dtype=np.dtype([("hi", ">u8"), ("lo", ">u4")]))
        hi = both["hi"].astype(np.uint64)
        lo = both["lo"].astype(np.uint32)
        order = np.lexsort((lo, hi))
        return cls(hi[order], lo[order], value[order])


_EMPTY = Table.from_rows({})


@dataclass(slots=True)
class IssuerChanges:
    """What happened to one issuer's certificates since a snapshot, folded to the last word.

    ``hashes``: by fingerprint.  Apart from the rows, because what a certificate's hash is does not
    depend on what happens to it, so neither need be known for the other.
    """

    rows: dict[bytes, IndexRow] = field(default_factory=dict)
    hashes: dict[bytes, bytes] = field(default_factory=dict)
    event_reason: int = 0
    event_ms: int = 0


def pack_meta(not_after_day: int, state: int, reason: int) -> int:
    """Return the issued table's value for a certificate.

    Raises: SnapshotError — a day after 2149-06-06, whose upper bits would be read as a state.
    """
    if not 0 <= not_after_day <= DAY_MAX:
        raise SnapshotError(
            f"day {not_after_day} of notAfter does not fit into a row, which takes 0..{DAY_MAX}"
        )
    return not_after_day | state << 16 | reason << 24


class SnapshotFile:
    """A snapshot file opened for merging: columns as arrays over a map of the file."""

    def __init__(self, path: Path) -> None:
        self._map = np.memmap(path, dtype=np.uint8, mode="r")
        self.head = read_head(memoryview(self._map))  # type: ignore[arg-type]

    def table(self, place: TablePlace, value_type: np.dtype[Any] = _VALUE_TYPE) -> Table:
        """Return the columns at *place*, not copied."""
        rows, at = place
        columns = self._map
        values_at = at + KEY_BYTES * rows
        return Table(
            columns[at : at + 8 * rows].view(np.uint64),
            columns[at + 8 * rows : values_at].view(np.uint32),
            columns[values_at : values_at + value_type.itemsize * rows].view(value_type),
        )

    def section(self, issuer_id: int) -> SectionPlace | None:
        """Return the place of an issuer's section, or None."""
        return next((place for place in self.head.sections if place.issuer_id == issuer_id), None)


def read_head(content: memoryview) -> SnapshotHead:
    """Return the header and section table at the start of *content*, checked against its length.

    Raises: SnapshotError — too short, wrong magic, or a table that reaches beyond the end.
    """
    size = len(content)
    if size < HEADER_BYTES:
        raise SnapshotError(f"a snapshot has at least {HEADER_BYTES} bytes, found {size}")
    magic, count, epoch, seq, time_ms, chain = HEADER.unpack_from(content, 0)
    if magic != MAGIC:
        raise SnapshotError(f"a snapshot begins with {MAGIC!r}, found {magic!r}")
    if HEADER_BYTES + count * SECTION_BYTES > size:
        raise SnapshotError(f"{count} sections do not fit into {size} bytes")
    sections = []
    for number in range(count):
        numbers = SECTION.unpack_from(content, HEADER_BYTES + number * SECTION_BYTES)
        tables = [TablePlace(numbers[at], numbers[at + 1]) for at in (3, 5, 7, 9)]
        for (rows, offset), row_bytes in zip(tables, _ROWS_BYTES, strict=True):
            if offset % ALIGNMENT or offset + rows * row_bytes > size:
                raise SnapshotError(f"a table of {rows} rows at {offset} does not fit into {size} bytes")
        sections.append(SectionPlace(numbers[0], numbers[1], numbers[2], *tables))
    return SnapshotHead(epoch, seq, time_ms, chain, tuple(sections))


def fold_changes(changes: Iterable[Change], previous: SnapshotFile | None) -> dict[int, IssuerChanges]:
    """Return, per issuer, the last state of every certificate that *changes* touch.

    Takes: changes in order of seq.  A reason change keeps the revocation time it had.
    """
    folded: dict[int, IssuerChanges] = {}
    for change in changes:
        kind = change.kind
        if kind in (ChangeKind.ENTITLEMENTS, ChangeKind.ISSUERS, ChangeKind.LAPSED):
            continue
        mine = folded.setdefault(change.issuer_id, IssuerChanges())
        if kind == ChangeKind.CA_KEY_EVENT:
            mine.event_reason, mine.event_ms = change.reason, change.recorded_ms
            continue
        if change.certificate_sha256:
            mine.hashes[change.fingerprint] = change.certificate_sha256
        if kind == ChangeKind.CERTIFICATE_HASH:
            continue
        before = mine.rows.get(change.fingerprint)
        if before is None and kind == ChangeKind.REASON_CHANGED and previous is not None:
            before = find_row(previous, change.issuer_id, change.fingerprint)
        mine.rows[change.fingerprint] = apply_change(change, before)
    return folded


def apply_change(change: Change, before: IndexRow | None) -> IndexRow:
    """Return a certificate's row after *change*; the one place that says what a change means."""
    kind = change.kind
    # Which certificate it is never changes, so what was told of that once stands.
    sha256 = change.certificate_sha256 or (b"" if before is None else before.certificate_sha256)
    if kind in (ChangeKind.ISSUED, ChangeKind.RELEASED):
        return IndexRow(change.fingerprint, change.not_after_day, GOOD, NO_REASON, 0, 0, sha256)
    revoked_at_s, invalidity_s = change.recorded_ms // 1000, change.invalidity_s
    if kind == ChangeKind.REASON_CHANGED and before is not None and before.state != GOOD:
        # Only the reason is another; when it was revoked, and since when it was invalid, stands.
        revoked_at_s = before.revoked_at_s
        invalidity_s = invalidity_s or before.invalidity_s
    state = HELD if kind == ChangeKind.HELD else REVOKED
    return IndexRow(
        change.fingerprint, change.not_after_day, state, change.reason, revoked_at_s, invalidity_s, sha256
    )


def find_row(snapshot: SnapshotFile, issuer_id: int, fingerprint: bytes) -> IndexRow | None:
    """Return a certificate's row from the file, or None if it was not issued then."""
    place = snapshot.section(issuer_id)
    if place is None:
        return None
    meta = _find(snapshot.table(place.issued), fingerprint)
    if meta is None:
        return None
    revoked_at_s = _find(snapshot.table(place.revoked), fingerprint) or 0
    invalidity_s = _find(snapshot.table(place.invalidity), fingerprint) or 0
    return IndexRow(fingerprint, meta & 0xFFFF, meta >> 16 & 0xFF, meta >> 24, revoked_at_s, invalidity_s)


def _find(table: Table, fingerprint: bytes) -> int | None:
    hi = np.uint64(int.from_bytes(fingerprint[:8], "big"))
    lo = int.from_bytes(fingerprint[8:], "big")
    at = int(np.searchsorted(table.hi, hi))
    while at < len(table.hi) and table.hi[at] == hi:
        if int(table.lo[at]) == lo:
            return int(table.value[at])
        at += 1
    return None


def write_snapshot(
    path: Path,
    epoch: bytes,
    seq: int,
    time_ms: int,
    chain: bytes,
    changes: dict[int, IssuerChanges],
    previous: SnapshotFile | None = None,
) -> None:
    """Write the snapshot at *seq*: *previous* merged with folded *changes*, durably.

    Takes: changes in (previous.seq, seq], or since the beginning when there is no previous.
    Raises: OSError — disk full; nothing is left under *path* then.
    Cost: one pass over each column, memory for one block of 2^20 rows and the changes.
    """
    places = {} if previous is None else {place.issuer_id: place for place in previous.head.sections}
    issuer_ids = sorted(places.keys() | changes.keys())
    with written_durably(path) as file:
        reserve_head(file, len(issuer_ids))
        sections = []
        for issuer_id in issuer_ids:
            mine = changes.get(issuer_id, IssuerChanges())
            place = places.get(issuer_id)
            tables = [
                _write_table(file, old, *upserts)
                for old, upserts in zip(_old_tables(previous, place), _upserts(mine), strict=True)
            ]
            tables.append(_write_hashes(file, mine.hashes, previous, place))
            reason, event_ms = mine.event_reason, mine.event_ms
            if event_ms == 0 and place is not None:
                reason, event_ms = place.event_reason, place.event_ms
            sections.append(SectionPlace(issuer_id, reason, event_ms, *tables))
        file.seek(0)
        file.write(pack_head(epoch, seq, time_ms, chain, sections))


@contextmanager
def written_durably(path: Path) -> Iterator[BinaryIO]:
    """Give a new file that is durably at *path* on leaving, and nowhere if that fails."""
    neighbour = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with neighbour.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        neighbour.rename(path)
    except BaseException:
        neighbour.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def reserve_head(file: BinaryIO, sections: int) -> None:
    """Write zeros where header and section table will be."""
    file.write(bytes(_aligned(HEADER_BYTES + sections * SECTION_BYTES)))


def pack_head(epoch: bytes, seq: int, time_ms: int, chain: bytes, sections: list[SectionPlace]) -> bytes:
    """Return header and section table, for the beginning of the file."""
    parts = [HEADER.pack(MAGIC, len(sections), epoch, seq, time_ms, chain)]
    for section in sections:
        numbers = (*section.issued, *section.revoked, *section.invalidity, *section.hashes)
        parts.append(SECTION.pack(section.issuer_id, section.event_reason, section.event_ms, *numbers))
    return b"".join(parts)


def begin_table(file: BinaryIO, rows: int) -> TablePlace:
    """Go to where the next table begins, behind all that is written; its columns come there."""
    offset = _aligned(file.seek(0, os.SEEK_END))
    file.truncate(offset)
    file.seek(offset)
    return TablePlace(rows, offset)


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _old_tables(previous: SnapshotFile | None, place: SectionPlace | None) -> list[Table]:
    if previous is None or place is None:
        return [_EMPTY, _EMPTY, _EMPTY]
    return [previous.table(item) for item in (place.issued, place.revoked, place.invalidity)]


def _upserts(mine: IssuerChanges) -> list[tuple[Table, Table]]:
    """Return for each of the three tables (rows to set, rows to drop)."""
    issued: dict[bytes, int] = {}
    revoked: dict[bytes, int] = {}
    invalidity: dict[bytes, int] = {}
    good: dict[bytes, int] = {}
    plain: dict[bytes, int] = {}
    for row in mine.rows.values():
        issued[row.fingerprint] = pack_meta(row.not_after_day, row.state, row.reason)
        (revoked if row.state != GOOD else good)[row.fingerprint] = row.revoked_at_s
        (invalidity if row.invalidity_s else plain)[row.fingerprint] = row.invalidity_s
    return [
        (Table.from_rows(issued), _EMPTY),
        (Table.from_rows(revoked), Table.from_rows(good)),
        (Table.from_rows(invalidity), Table.from_rows(plain)),
    ]


def _write_hashes(
    file: BinaryIO, told: dict[bytes, bytes], previous: SnapshotFile | None, place: SectionPlace | None
) -> TablePlace:
    old = Table.from_hashes({})
    if previous is not None and place is not None and place.hashes.rows:
        old = previous.table(place.hashes, _HASH_TYPE)
    if not told and not len(old.hi):
        return NOWHERE
    return _write_table(file, old, Table.from_hashes(told), _EMPTY)


def _write_table(file: BinaryIO, old: Table, sets: Table, drops: Table) -> TablePlace:
    """Write *old* with *sets* put in (over equal rows) and *drops* taken out, column by column."""
    removed = np.union1d(_positions(old, sets, equal=True), _positions(old, drops, equal=True))
    inserted = _positions(old, sets, equal=False)
    rows = len(old.hi) - len(removed) + len(sets.hi)
    place = begin_table(file, rows)
    for name in ("hi", "lo", "value"):
        blocks = _merged(getattr(old, name), removed, inserted, getattr(sets, name))
        file.writelines(block.tobytes() for block in blocks)
    return place


def _positions(old: Table, new: Table, equal: bool) -> NDArray[np.int64]:
    """Return where rows of *new* stand in *old*.

    equal=True: positions of the old rows with the same fingerprint (only those that exist).
    equal=False: for every new row the position before which it belongs (any length of *old*).
    """
    at = np.searchsorted(old.hi, new.hi).astype(np.int64)
    found = np.zeros(len(at), dtype=bool)
    # Equal leading 64 bits are rare (a run of them is one or two rows), so this loop ends at once.
    pending = np.arange(len(at))
    while len(pending):
        inside = pending[at[pending] < len(old.hi)]
        here = at[inside]
        same_hi = old.hi[here] == new.hi[inside]
        found[inside[same_hi & (old.lo[here] == new.lo[inside])]] = True
        onward = inside[same_hi & (old.lo[here] < new.lo[inside])]
        at[onward] += 1
        pending = onward
    return at[found] if equal else at


def _merged(
    old: NDArray[Any], removed: NDArray[np.int64], inserted: NDArray[np.int64], values: NDArray[Any]
) -> Iterator[NDArray[Any]]:
    """Yield *old* without the rows at *removed* and with *values* put before *inserted*, in blocks."""
    for start in range(0, len(old) + 1, BLOCK_ROWS):
        end = min(start + BLOCK_ROWS, len(old))
        last = end == len(old)
        first_in, last_in = np.searchsorted(inserted, [start, end + 1 if last else end])
        first_out, last_out = np.searchsorted(removed, [start, end])
        block = np.asarray(old[start:end])
        kept = np.ones(len(block), dtype=bool)
        kept[removed[first_out:last_out] - start] = False
        # Positions count old rows; taking rows out first would shift them, so count what is kept.
        before = np.concatenate(([0], np.cumsum(kept)))
        yield np.insert(block[kept], before[inserted[first_in:last_in] - start], values[first_in:last_in])
        if last:
            return


class Manifest(NamedTuple):
    """What a snapshot consists of; its bytes' SHA-256 stands in the beat."""

    epoch: str
    seq: int
    size: int
    chunks: tuple[str, ...]

    def encode(self) -> bytes:
        """Return the canonical JSON of the manifest."""
        content = {
            "format": MANIFEST_FORMAT,
            "epoch": self.epoch,
            "seq": self.seq,
            "size": self.size,
            "chunk_bytes": CHUNK_BYTES,
            "chunks": list(self.chunks),
        }
        return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def make_manifest(path: Path) -> Manifest:
    """Return the manifest of the snapshot file at *path*: size and SHA-256 of each 1 MiB chunk."""
    chunks = []
    with path.open("rb") as file:
        magic_epoch = file.read(HEADER_BYTES)
        _, _, epoch, seq, _, _ = HEADER.unpack(magic_epoch)
        file.seek(0)
        while chunk := file.read(CHUNK_BYTES):
            chunks.append(hashlib.sha256(chunk).hexdigest())
        size = file.tell()
    return Manifest(epoch.hex(), seq, size, tuple(chunks))


def read_manifest(text: bytes, sha256: bytes) -> Manifest:
    """Return the manifest in *text* if it is the one with this SHA-256.

    Raises: SnapshotError — another hash, another format, a member missing or of the wrong kind, or
            chunks that do not add up to the size.
    """
    if hashlib.sha256(text).digest() != sha256:
        raise SnapshotError("a manifest differs from the hash in the beat")
    try:
        return _read_manifest(json.loads(text))
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError) as exc:
        raise SnapshotError(f"a manifest: {exc!r}") from exc


def _read_manifest(content: dict[str, Any]) -> Manifest:
    if content.get("format") != MANIFEST_FORMAT or content.get("chunk_bytes") != CHUNK_BYTES:
        raise SnapshotError(
            f"manifest format {content.get('format')!r}, this version reads {MANIFEST_FORMAT}"
        )
    manifest = Manifest(content["epoch"], content["seq"], content["size"], tuple(content["chunks"]))
    if -(-manifest.size // CHUNK_BYTES) != len(manifest.chunks):
        raise SnapshotError(f"{len(manifest.chunks)} chunks do not make {manifest.size} bytes")
    return manifest
