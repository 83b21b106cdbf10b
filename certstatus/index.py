"""The status index as a worker reads it: a mapped snapshot under an overlay of later changes.

Knows: looking up one certificate, and applying one change.  Look-up is ``bisect`` over the
mapped column, from near where it must be; nothing is copied or unpacked (about 2-3 µs).
Does not know: where the file comes from, nor whether a change may be believed: the follower
asks that before it applies one.

Threads: one writer (the follower) applies changes; any number of readers look up.  A reader
takes ``View`` once per decision and takes it anew to re-check; single dictionary reads and
writes are atomic under the interpreter's lock.
"""

from __future__ import annotations

import mmap
import struct
from bisect import bisect_left
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from certstatus.changes import HASH_BYTES, NO_REASON, Change, ChangeKind
from certstatus.snapshot import (
    GOOD,
    HASH_ROW_BYTES,
    KEY_BYTES,
    REVOKED,
    ROW_BYTES,
    IndexRow,
    SectionPlace,
    SnapshotHead,
    TablePlace,
    apply_change,
    read_head,
)

# What stands in an overlay: (issuer_id, fingerprint) -> (row, seq of the change that made it).
Entry = tuple[tuple[int, bytes], tuple[IndexRow, int]]

# Gone through in about half a millisecond.
_LOT = 2000
# Unmapped in less than that; a multiple of every system's page.
_PIECE_BYTES = 16 << 20

# Six times the square root of how far two of 10^8 are from where they would be if they were spread exactly.
_NEAR = 512
# Below this, halving is as quick.
_MANY = 1 << 22

_split = struct.Struct(">QI").unpack


class _Section(NamedTuple):
    issued_hi: memoryview
    issued_lo: memoryview
    issued_meta: memoryview
    revoked: tuple[memoryview, memoryview, memoryview]
    invalidity: tuple[memoryview, memoryview, memoryview]
    # hi, lo, and the hashes one after another; None where the issuer has none.
    hashes: tuple[memoryview, memoryview, memoryview] | None
    place: SectionPlace


class Snapshot:
    """A snapshot file mapped read-only; all workers of a host share its pages."""

    __slots__ = ("_file_map", "_sections", "head", "path")

    def __init__(self, path: Path) -> None:
        """Map *path*.  Raises: SnapshotError — not a snapshot; OSError — not there."""
        with path.open("rb") as file:
            self._file_map = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        content = memoryview(self._file_map)
        self.path = path
        self.head: SnapshotHead = read_head(content)
        self._sections = {
            place.issuer_id: _Section(
                *_columns(content, place.issued),
                _columns(content, place.revoked),
                _columns(content, place.invalidity),
                _hash_columns(content, place.hashes) if place.hashes.rows else None,
                place,
            )
            for place in self.head.sections
        }

    def look_up(self, issuer_id: int, fingerprint: bytes) -> IndexRow | None:
        """Return the row of a certificate, or None if it was not issued by then."""
        section = self._sections.get(issuer_id)
        if section is None:
            return None
        hi, lo = _split(fingerprint)
        meta = _find(section.issued_hi, section.issued_lo, section.issued_meta, hi, lo)
        if meta is None:
            return None
        hashes = section.hashes
        sha256 = b"" if hashes is None else _find_hash(*hashes, hi, lo)
        state = meta >> 16 & 0xFF
        if state == GOOD:
            return IndexRow(fingerprint, meta & 0xFFFF, GOOD, NO_REASON, 0, 0, sha256)
        revoked_at_s = _find(*section.revoked, hi, lo) or 0
        invalidity_s = _find(*section.invalidity, hi, lo) or 0
        return IndexRow(fingerprint, meta & 0xFFFF, state, meta >> 24, revoked_at_s, invalidity_s, sha256)

    def forget_pages(self, after_piece: Callable[[], None]) -> None:
        """Take the pages out of this process's memory, a few at a time; they stay the system's.

        Before a snapshot is let go of: unmapping gigabytes takes milliseconds in which no other thread runs.
        Whoever still looks something up finds it, more slowly.
        """
        for start in range(0, len(self._file_map), _PIECE_BYTES):
            self._file_map.madvise(mmap.MADV_DONTNEED, start, min(_PIECE_BYTES, len(self._file_map) - start))
            after_piece()

    def events(self) -> dict[int, tuple[int, int]]:
        """Return the CA-key events: issuer_id -> (reason, event_ms)."""
        return {
            number: (section.place.event_reason, section.place.event_ms)
            for number, section in self._sections.items()
            if section.place.event_ms
        }

    def counts(self) -> dict[int, tuple[int, int]]:
        """Return issuer_id -> (issued certificates, certificates not good)."""
        return {
            number: (section.place.issued.rows, section.place.revoked.rows)
            for number, section in self._sections.items()
        }


def _columns(content: memoryview, place: TablePlace) -> tuple[memoryview, memoryview, memoryview]:
    rows, at = place
    return (
        content[at : at + 8 * rows].cast("Q"),
        content[at + 8 * rows : at + KEY_BYTES * rows].cast("I"),
        content[at + KEY_BYTES * rows : at + ROW_BYTES * rows].cast("I"),
    )


def _hash_columns(content: memoryview, place: TablePlace) -> tuple[memoryview, memoryview, memoryview]:
    rows, at = place
    return (
        content[at : at + 8 * rows].cast("Q"),
        content[at + 8 * rows : at + KEY_BYTES * rows].cast("I"),
        content[at + KEY_BYTES * rows : at + HASH_ROW_BYTES * rows],
    )


def _place(his: memoryview, hi: int) -> int:
    """Return the first place of the ascending column *his* whose value is not less than *hi*.

    Fingerprints are spread evenly, so where one stands is known to about the square root of their number,
    and from there to the fourth root; halving the rest touches one page where it would touch twenty.
    However they are spread, what is not found near there is looked for everywhere.
    Cost: 2.0 us against 3.1 by halving alone at 10^8, 2.2 against 2.9 at 10^7, on a slow machine.
    """
    end = len(his)
    if end > _MANY:
        near = hi * end >> 64
        near += (hi - his[near]) * end >> 64
        low, high = near - _NEAR, near + _NEAR
        # Within the column, and nothing at its ends, of which no neighbour says whether it is the first.
        if low >= 0 and high < end:
            at = bisect_left(his, hi, low, high)
            if low < at < high:
                return at
    return bisect_left(his, hi)


def _find(his: memoryview, los: memoryview, values: memoryview, hi: int, lo: int) -> int | None:
    at = _place(his, hi)
    end = len(his)
    while at < end and his[at] == hi:
        if los[at] == lo:
            value: int = values[at]
            return value
        at += 1
    return None


def _find_hash(his: memoryview, los: memoryview, hashes: memoryview, hi: int, lo: int) -> bytes:
    at = _place(his, hi)
    end = len(his)
    while at < end and his[at] == hi:
        if los[at] == lo:
            return hashes[at * HASH_BYTES : (at + 1) * HASH_BYTES].tobytes()
        at += 1
    return b""


class View:
    """The index at one moment of its life: a snapshot (or none) and the changes after it."""

    __slots__ = ("events", "overlay", "snapshot")

    def __init__(self, snapshot: Snapshot | None) -> None:
        self.snapshot = snapshot
        # (issuer_id, fingerprint) -> (row, seq of the change that made it)
        self.overlay: dict[tuple[int, bytes], tuple[IndexRow, int]] = {}
        self.events: dict[int, tuple[int, int]] = {} if snapshot is None else snapshot.events()

    def look_up(self, issuer_id: int, fingerprint: bytes) -> IndexRow | None:
        """Return a certificate's state now, or None if it was never issued by this issuer."""
        row = self._own_row(issuer_id, fingerprint)
        if row is not None and row.state != REVOKED and issuer_id in self.events:
            reason, event_ms = self.events[issuer_id]
            return IndexRow(
                fingerprint, row.not_after_day, REVOKED, reason, event_ms // 1000, 0, row.certificate_sha256
            )
        return row

    def _own_row(self, issuer_id: int, fingerprint: bytes) -> IndexRow | None:
        later = self.overlay.get((issuer_id, fingerprint))
        if later is not None:
            return later[0]
        return None if self.snapshot is None else self.snapshot.look_up(issuer_id, fingerprint)

    def apply(self, change: Change) -> None:
        """Put *change* (the next in the sequence, already believed) over what is there."""
        kind = change.kind
        if kind == ChangeKind.CA_KEY_EVENT:
            self.events[change.issuer_id] = (change.reason, change.recorded_ms)
        elif kind not in (ChangeKind.ENTITLEMENTS, ChangeKind.ISSUERS, ChangeKind.LAPSED):
            before = self._own_row(change.issuer_id, change.fingerprint)
            if kind == ChangeKind.CERTIFICATE_HASH:
                if before is None:
                    # A hash makes no certificate issued.
                    return
                row = before._replace(certificate_sha256=change.certificate_sha256)
            else:
                row = apply_change(change, before)
            self.overlay[change.issuer_id, change.fingerprint] = (row, change.seq)

    def moved_to(self, snapshot: Snapshot, after_lot: Callable[[list[Entry]], None] | None = None) -> View:
        """Return the same state over a later *snapshot*: only changes beyond it stay in the overlay.

        For the writer.  *after_lot* is called with every few entries gone through, for whoever must not
        keep the interpreter to itself for as long as all of them take.
        """
        view = View(snapshot)
        seq = snapshot.head.seq
        entries = iter(self.overlay.items())
        while lot := list(islice(entries, _LOT)):
            view.overlay.update(entry for entry in lot if entry[1][1] > seq)
            if after_lot is not None:
                after_lot(lot)
        view.events |= self.events
        return view
