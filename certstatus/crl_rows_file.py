"""A sorted file of rows: a list of revoked certificates at one number of the sequence, kept for the next CRL.

::

    128 bytes   CSE1, bytes a row 4, epoch 16, issuer_id 4, scope_id 4, seq 8, rows 8, der_octets 8,
                digest 16, zeros, CRC-32 of what stands before it 4
    32 a row    ``crl_rows``, ascending strictly

Little-endian.  Written once, under its name only when whole; read with pread, never mapped, because mapped
pages count as the process's memory.
Knows: the file, its checks, looking keys up in it.  Does not know: how one list follows from another
(``crl_rows_merge``).
"""

from __future__ import annotations

import os
import struct
import zlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple, Self

import numpy as np

from certstatus.crl_row_facts import RowFacts
from certstatus.crl_rows import (
    DIGEST_END,
    KEY_OCTETS,
    KNOWN_REASONS,
    ROW,
    ROW_BYTES,
    Keys,
    Rows,
    der_lengths,
    digest_of,
)
from certstatus.errors import CRLCheckFailed, IntegrityError
from certstatus.snapshot import written_durably

MAGIC = b"CSE1"
HEAD_BYTES = 128
ROWS_AT_ONCE = 16_384

_HEAD = struct.Struct("<4sI16sIIQQQ16s")
_CRC = struct.Struct("<I")
# A key is looked for among the rows between two whose keys are kept; first where it would stand if keys were
# spread evenly between them, as serial numbers drawn at random are.
_STEP = 4096
_NEAR = 96


class RowsHead(NamedTuple):
    """Which list a file holds.  The last three are filled in by ``write_rows``."""

    epoch: bytes
    issuer_id: int
    scope_id: int
    seq: int
    rows: int = 0
    der_octets: int = 0
    digest: int = 0


def write_rows(path: Path, head: RowsHead, blocks: Iterable[Rows], *, durable: bool = True) -> RowsHead:
    """Write the file of *blocks*, under its name only when whole; return its head.

    Takes:  *durable*: so that it is whole after a power cut, too.  Without, it costs no fsync, and after one
            must be read whole before it is believed (``checked_blocks``).
    Raises: CRLCheckFailed — rows that do not ascend strictly, a reason that does not exist, a ``der_len``
            that is not the entry's; OSError — disk full.  Nothing is left then.
    Memory: one block.
    """
    facts = RowFacts()
    digest = 0
    with written_durably(path) if durable else _written_whole(path) as file:
        file.write(bytes(HEAD_BYTES))
        for rows in blocks:
            facts.add(rows)
            findings = _findings(rows, facts)
            if findings:
                raise CRLCheckFailed(findings)
            digest = (digest + digest_of(rows)) % DIGEST_END
            file.write(np.ascontiguousarray(rows).view(np.uint8).data)
        head = head._replace(rows=facts.count, der_octets=facts.der_octets, digest=digest)
        file.seek(0)
        file.write(_pack(head))
    return head


@contextmanager
def _written_whole(path: Path) -> Iterator[BinaryIO]:
    neighbour = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with neighbour.open("wb") as file:
            yield file
        neighbour.rename(path)
    except BaseException:
        neighbour.unlink(missing_ok=True)
        raise


def _findings(rows: Rows, facts: RowFacts) -> list[str]:
    findings: list[str] = []
    if facts.unsorted:
        findings.append("pkix.crl_entries_unsorted")
    if facts.duplicate:
        findings.append("pkix.crl_serial_duplicate")
    if not facts.reasons <= KNOWN_REASONS:
        findings.append("pkix.crl_reason_unknown")
    if not (rows["der_len"] == der_lengths(rows)).all() or rows["zero"].any():
        findings.append("certstatus.crl_row_length_wrong")
    return findings


def _pack(head: RowsHead) -> bytes:
    packed = _HEAD.pack(
        MAGIC,
        ROW_BYTES,
        head.epoch,
        head.issuer_id,
        head.scope_id,
        head.seq,
        head.rows,
        head.der_octets,
        head.digest.to_bytes(16, "little"),
    ).ljust(HEAD_BYTES - _CRC.size, b"\x00")
    return packed + _CRC.pack(zlib.crc32(packed))


def _unpack(packed: bytes, path: Path) -> RowsHead:
    if len(packed) < HEAD_BYTES:
        raise IntegrityError(f"{path}: {len(packed)} bytes, a head has {HEAD_BYTES}")
    magic, row_bytes, epoch, issuer_id, scope_id, seq, rows, der_octets, digest = _HEAD.unpack_from(packed)
    if magic != MAGIC or row_bytes != ROW_BYTES:
        raise IntegrityError(f"{path}: no file of rows of this version")
    if zlib.crc32(packed[: HEAD_BYTES - _CRC.size]) != _CRC.unpack_from(packed, HEAD_BYTES - _CRC.size)[0]:
        raise IntegrityError(f"{path}: its head has another CRC")
    return RowsHead(epoch, issuer_id, scope_id, seq, rows, der_octets, int.from_bytes(digest, "little"))


class RowsFile:
    """A file of rows, open for reading."""

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises: IntegrityError — head damaged or of another version, longer or shorter than it says; OSError.
        """
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.head = _unpack(os.pread(self._descriptor, HEAD_BYTES, 0), path)
            size = os.fstat(self._descriptor).st_size
            expected = HEAD_BYTES + ROW_BYTES * self.head.rows
            if size != expected:
                raise IntegrityError(f"{path}: {size} bytes, its head says {expected}")
        except BaseException:
            os.close(self._descriptor)
            raise
        self._marks: list[bytes] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close it."""
        os.close(self._descriptor)

    def blocks(self, rows_at_once: int = ROWS_AT_ONCE) -> Iterator[Rows]:
        """Yield the rows, in order.

        Raises: IntegrityError — the file has become shorter.
        """
        for start in range(0, self.head.rows, rows_at_once):
            yield self._read(start, min(rows_at_once, self.head.rows - start))

    def checked_blocks(self, rows_at_once: int = ROWS_AT_ONCE) -> Iterator[Rows]:
        """Yield the rows like ``blocks``, and at the end see to it that they are those that were written.

        Raises: IntegrityError — the digest is not the head's.
        """
        digest = 0
        for rows in self.blocks(rows_at_once):
            digest = (digest + digest_of(rows)) % DIGEST_END
            yield rows
        if digest != self.head.digest:
            raise IntegrityError(f"{self.path}: its rows have another digest than its head says")

    def look_up(self, wanted: Keys) -> Rows:
        """Return those rows whose keys are among *wanted*, in the order of *wanted*.

        Cost: about 5 µs a key after the first call, which reads every 4096th key.
        """
        found = []
        if self.head.rows and len(wanted):
            self._mark()
            raw = np.ascontiguousarray(wanted).tobytes()
            for at in range(0, len(raw), KEY_OCTETS):
                row = self._find(raw[at : at + KEY_OCTETS])
                if row is not None:
                    found.append(row)
        return np.frombuffer(b"".join(found), ROW)

    def _mark(self) -> None:
        if not self._marks:
            starts = range(0, self.head.rows, _STEP)
            self._marks = [
                os.pread(self._descriptor, KEY_OCTETS, HEAD_BYTES + ROW_BYTES * at) for at in starts
            ]
            last = HEAD_BYTES + ROW_BYTES * (self.head.rows - 1)
            self._marks.append(os.pread(self._descriptor, KEY_OCTETS, last))

    def _find(self, key: bytes) -> bytes | None:
        page = max(bisect_right(self._marks, key, hi=len(self._marks) - 1) - 1, 0)
        first = page * _STEP
        count = min(_STEP, self.head.rows - first)
        low, value, high = (
            int.from_bytes(part, "big") for part in (self._marks[page], key, self._marks[page + 1])
        )
        if not low <= value <= high:
            return None
        near = (value - low) * count // (high - low) if high > low else 0
        start = max(near - _NEAR, 0)
        stop = min(near + _NEAR, count)
        window = self._pread(first + start, stop - start)
        begins_before = start == 0 or window[:KEY_OCTETS] <= key
        ends_after = stop == count or window[-ROW_BYTES : KEY_OCTETS - ROW_BYTES] >= key
        if not (begins_before and ends_after):
            window = self._pread(first, count)
        at = window.find(key)
        while at % ROW_BYTES and at >= 0:
            at = window.find(key, at + 1)
        return None if at < 0 else window[at : at + ROW_BYTES]

    def _pread(self, start: int, count: int) -> bytes:
        return os.pread(self._descriptor, ROW_BYTES * count, HEAD_BYTES + ROW_BYTES * start)

    def _read(self, start: int, count: int) -> Rows:
        rows = np.empty(count, ROW)
        if (
            os.preadv(self._descriptor, [rows.view(np.uint8).data], HEAD_BYTES + ROW_BYTES * start)
            != rows.nbytes
        ):
            raise IntegrityError(f"{self.path}: it ended while it was read")
        return rows
