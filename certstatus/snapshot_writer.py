"""A snapshot written from rows that come in order, block by block, however many there are.

``snapshot.write_snapshot`` merges changes into a file that is there; this is for when there is none,
and gives the same bytes.

::

    rows, ascending ──▶ a spool per column ──▶ the columns one after another, issuer by issuer

The columns of a table lie one behind the other in the file, so where the second begins is known only
when the last row has come: hence spools, which have no name and vanish with the process.
Knows: the order rows must have, refusing any other (a row out of place would never be found, and its
certificate be called unknown).  Does not know: where rows come from.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from certstatus.errors import SnapshotError
from certstatus.snapshot import (
    NOWHERE,
    SectionPlace,
    TablePlace,
    begin_table,
    pack_head,
    reserve_head,
    written_durably,
)

_COPY_BYTES = 1 << 20


@dataclass(slots=True)
class RowBlock:
    """Rows of one issuer as columns of one length, ascending by (hi, lo), no two the same.

    hi, lo       the fingerprint, big-endian number split 8 + 4
    meta         as the issued table's values: ``snapshot.pack_meta``
    revoked_at   POSIX s, for rows whose state in *meta* is not good
    invalidity   POSIX s, 0 for none
    hashes       SHA-256 of the certificate or empty, one per row; None if no row has one
    """

    hi: NDArray[np.uint64]
    lo: NDArray[np.uint32]
    meta: NDArray[np.uint32]
    revoked_at: NDArray[np.uint32]
    invalidity: NDArray[np.uint32]
    hashes: Sequence[bytes] | None = None


class IssuerHead(NamedTuple):
    """An issuer with a section in the snapshot; ``event_ms`` is its CA-key event, 0 for none."""

    issuer_id: int
    event_reason: int = 0
    event_ms: int = 0


def _nameless_file(folder: Path) -> IO[bytes]:
    return tempfile.TemporaryFile(dir=folder)


class _Spools:
    """The columns of one table while its rows are still coming."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.rows = 0
        self._files = [stack.enter_context(_nameless_file(folder)) for _ in range(3)]

    def add(self, hi: NDArray[Any], lo: NDArray[Any], values: NDArray[Any] | bytes) -> None:
        for file, column in zip(self._files, (hi, lo, values), strict=True):
            file.write(column if isinstance(column, bytes) else column.tobytes())
        self.rows += len(hi)

    def move_to(self, file: BinaryIO) -> TablePlace:
        """Write the table to the end of *file* and be empty again."""
        place = begin_table(file, self.rows)
        for spool in self._files:
            spool.seek(0)
            shutil.copyfileobj(spool, file, _COPY_BYTES)
            spool.seek(0)
            spool.truncate()
        self.rows = 0
        return place


class SnapshotWriter:
    """Takes the rows of issuer after issuer; made by ``new_snapshot``."""

    def __init__(self, file: BinaryIO, issuers: Sequence[IssuerHead], folder: Path, stack: ExitStack) -> None:
        self.sections: list[SectionPlace] = []
        self._file = file
        self._coming = list(issuers)
        self._tables = [_Spools(folder, stack) for _ in range(4)]
        self._last: tuple[int, int] | None = None

    def add(self, block: RowBlock) -> None:
        """Take the next rows of the issuer whose turn it is.

        Raises: SnapshotError — rows that do not ascend; OSError — no room for the spools.
        """
        if not len(block.hi):
            return
        self._check_order(block)
        meta = block.meta
        issued, revoked, invalidity, hashes = self._tables
        issued.add(block.hi, block.lo, meta)
        not_good = (meta >> np.uint32(16) & np.uint32(0xFF)) != 0
        revoked.add(block.hi[not_good], block.lo[not_good], block.revoked_at[not_good])
        dated = block.invalidity != 0
        invalidity.add(block.hi[dated], block.lo[dated], block.invalidity[dated])
        if block.hashes is not None:
            told = np.fromiter(map(bool, block.hashes), dtype=bool, count=len(block.hashes))
            hashes.add(block.hi[told], block.lo[told], b"".join(block.hashes))

    def _check_order(self, block: RowBlock) -> None:
        hi, lo = block.hi, block.lo
        ascends = (hi[1:] > hi[:-1]) | ((hi[1:] == hi[:-1]) & (lo[1:] > lo[:-1]))
        first = int(hi[0]), int(lo[0])
        if not ascends.all() or (self._last is not None and first <= self._last):
            raise SnapshotError("rows of a snapshot must ascend by fingerprint, and these do not")
        self._last = int(hi[-1]), int(lo[-1])

    def end_issuer(self) -> None:
        """Say that the issuer whose turn it is has no more rows."""
        issuer = self._coming.pop(0)
        tables = [table.move_to(self._file) for table in self._tables[:3]]
        tables.append(self._tables[3].move_to(self._file) if self._tables[3].rows else NOWHERE)
        self.sections.append(SectionPlace(*issuer, *tables))
        self._last = None

    @property
    def is_complete(self) -> bool:
        """Say whether every issuer has had its turn."""
        return not self._coming


@contextmanager
def new_snapshot(
    path: Path, epoch: bytes, seq: int, time_ms: int, chain: bytes, issuers: Sequence[IssuerHead]
) -> Iterator[SnapshotWriter]:
    """Give a writer whose rows are, on leaving, the snapshot at *path*, durably.

    Takes: *issuers* ascending by issuer_id; for each, any number of ``add`` and one ``end_issuer``.
    Raises: OSError — disk full; SnapshotError — an issuer is missing.  Nothing is left then.
    Memory: one block.  Disk: the file twice, while it is put together.
    """
    with ExitStack() as stack, written_durably(path) as file:
        reserve_head(file, len(issuers))
        writer = SnapshotWriter(file, issuers, path.parent, stack)
        yield writer
        if not writer.is_complete:
            raise SnapshotError("a snapshot lacks issuers that it was to have")
        file.seek(0)
        file.write(pack_head(epoch, seq, time_ms, chain, writer.sections))
