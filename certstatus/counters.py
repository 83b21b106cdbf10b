"""The counter file: how many provisions a worker has made, in cells that survive ``kill -9``.

::

    header, 128 bytes   CSC1 | rows_max u32 | uuid 16 | epoch 16 | hour_s u64 | slot u32 | sealed u32
                        | rows used u32 | host name 64 (UTF-8, zero-padded)
    row names           rows_max * (verifier_id u32, issuer_id u32)
    cells               rows_max * 16 * u64, little-endian; a cell only ever grows

One file belongs to one process incarnation and one hour.  The cell is raised before the
bytes leave, in memory shared with the kernel, so that a killed worker loses nothing; a file
is deleted only after the store of record has acknowledged exactly its last values.  Values
are cumulative, so a cell may be reported any number of times: the store keeps the greatest.

Knows: layout, kinds, making and reading.  Does not know: who is entitled, where cells go.
Source: Act arts. 40, 41, 67 (ledger, report, fees: each provision by recipient and kind).
"""

from __future__ import annotations

import mmap
import os
import struct
import uuid
from contextlib import suppress
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

from certstatus.errors import CountersUnavailable, IntegrityError

MAGIC = b"CSC1"
_HEADER = struct.Struct("<4sI16s16sQIII64s4x")
HEADER_BYTES = _HEADER.size
_SEALED_AT = 4 + 4 + 16 + 16 + 8 + 4
_USED_AT = _SEALED_AT + 4
_NAME = struct.Struct("<II")
KINDS_PER_ROW = 16
SUFFIX = ".counters"


class Provision(IntEnum):
    """The columns of a row.  Up to CRL_ABORTED they count what was given, then refusals."""

    GOOD = 0
    REVOKED = 1
    UNKNOWN = 2
    CRL_COMPLETE = 3
    CRL_DELTA = 4
    CRL_PARTIAL = 5
    CRL_NOT_MODIFIED = 6
    CRL_HEAD = 7
    CRL_ABORTED = 8
    OCSP_NOT_MODIFIED = 9
    OCSP_HEAD = 10
    REFUSED_UNAUTHORIZED = 11
    REFUSED_TRY_LATER = 12
    REFUSED_MALFORMED = 13
    REFUSED_CRL = 14


class Cell(NamedTuple):
    """One value on its way to the store: (file, row name, kind, hour) -> value so far."""

    file_uuid: str
    cell: int
    verifier_id: int
    issuer_id: int
    kind: int
    hour_s: int
    value: int


class CounterFile:
    """A counter file that this process writes.

    ``cells`` is the array to raise: ``cells[row(...) + Provision.GOOD] += 1``.
    """

    __slots__ = ("_free", "_map", "_names", "_rows", "cells", "hour_s", "path", "rows_max")

    def __init__(self, folder: Path, epoch: bytes, host: str, slot: int, hour_s: int, rows_max: int) -> None:
        """Make a new file in *folder*, its blocks reserved.

        Raises: CountersUnavailable — no space or no permission: then nothing may be answered.
        """
        identity = uuid.uuid4()
        self.path = folder / f"{identity}{SUFFIX}"
        self.hour_s = hour_s
        self.rows_max = rows_max
        cells_at = HEADER_BYTES + rows_max * _NAME.size
        size = cells_at + rows_max * KINDS_PER_ROW * 8
        neighbour = folder / f".{identity}.new"
        try:
            descriptor = os.open(neighbour, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                # Reserved now: a full disk must refuse here, not kill the process at a page fault.
                os.posix_fallocate(descriptor, 0, size)
                self._map = mmap.mmap(descriptor, size)
            finally:
                os.close(descriptor)
            header = _HEADER.pack(
                MAGIC, rows_max, identity.bytes, epoch, hour_s, slot, 0, 0, host.encode()[:64]
            )
            self._map[:HEADER_BYTES] = header
            neighbour.rename(self.path)
        except OSError as exc:
            # Where the folder is none, or the disk is broken, this may fail as well.
            with suppress(OSError):
                neighbour.unlink()
            raise CountersUnavailable(f"{folder}: no counter file: {exc.strerror}") from exc
        content = memoryview(self._map)
        self._names = content[HEADER_BYTES:cells_at]
        self.cells = content[cells_at:].cast("Q")
        self._rows: dict[tuple[int, int], int] = {}
        self._free = 0

    def row(self, verifier_id: int, issuer_id: int) -> int:
        """Return the first cell of the row for *verifier_id* and *issuer_id*, made if need be.

        Raises: CountersUnavailable — all rows are taken; a new file is needed.
        """
        at = self._rows.get((verifier_id, issuer_id))
        if at is None:
            if self._free == self.rows_max:
                raise CountersUnavailable(f"{self.path.name}: all {self.rows_max} rows are taken")
            _NAME.pack_into(self._names, self._free * _NAME.size, verifier_id, issuer_id)
            # The name is in place before the row counts as used, whoever reads in between.
            struct.pack_into("<I", self._map, _USED_AT, self._free + 1)
            at = self._free * KINDS_PER_ROW
            self._rows[verifier_id, issuer_id] = at
            self._free += 1
        return at

    @property
    def used(self) -> int:
        """How many cells, from the first on, belong to rows that have a name."""
        return self._free * KINDS_PER_ROW

    def seal(self) -> None:
        """Say that no cell will grow any more."""
        struct.pack_into("<I", self._map, _SEALED_AT, 1)


class CounterReading(NamedTuple):
    """What was read from a counter file: is it sealed, and its cells that are not zero."""

    file_uuid: str
    epoch: bytes
    host: str
    slot: int
    hour_s: int
    sealed: bool
    cells: tuple[Cell, ...]


def read_counters(path: Path) -> CounterReading:
    """Read a counter file, also while its owner raises its cells.

    Raises: IntegrityError — not a counter file; OSError — gone.
    """
    # ``sealed`` is read before the cells: once it is set, the cells are final.
    content = path.read_bytes()
    if len(content) < HEADER_BYTES:
        raise IntegrityError(f"{path.name}: {len(content)} bytes are no counter file")
    magic, rows_max, identity, epoch, hour_s, slot, sealed, used, host = _HEADER.unpack_from(content)
    cells_at = HEADER_BYTES + rows_max * _NAME.size
    if magic != MAGIC or len(content) != cells_at + rows_max * KINDS_PER_ROW * 8 or used > rows_max:
        raise IntegrityError(f"{path.name}: not a counter file, or a torn one")
    values = memoryview(content)[cells_at:].cast("Q")
    name = str(uuid.UUID(bytes=identity))
    cells = []
    for row in range(used):
        verifier_id, issuer_id = _NAME.unpack_from(content, HEADER_BYTES + row * _NAME.size)
        for kind in range(KINDS_PER_ROW):
            cell = row * KINDS_PER_ROW + kind
            if values[cell]:
                cells.append(Cell(name, cell, verifier_id, issuer_id, kind, hour_s, values[cell]))
    host_name = host.rstrip(b"\0").decode()
    return CounterReading(name, epoch, host_name, slot, hour_s, bool(sealed), tuple(cells))
