"""The index rows of generated certificates, in the order in which a snapshot wants them.

A fingerprint is a keyed hash, so certificate *i* may lie anywhere in the index.  The rows are dealt out
into piles by the leading bits of their fingerprints and each pile is sorted by itself: memory for one
pile, however many certificates.

Knows: making rows from numbers, on all processors.  Does not know: installations.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.population import SERIAL_OCTETS, Generated
from certstatus.changes import FINGERPRINT_BYTES, NO_REASON
from certstatus.snapshot import GOOD, REVOKED, pack_meta
from certstatus.snapshot_writer import RowBlock

Rows = NDArray[Any]
ROW_TYPE = np.dtype([("hi", "<u8"), ("lo", "<u4"), ("meta", "<u4"), ("revoked_at", "<u4"), ("date", "<u4")])
_LOT = 500_000
# Rows in one pile, about: 24 bytes each, sorted in memory.
_PILE_ROWS = 1_000_000
_PILES_MAX = 256
_SUPERSEDED = 4


def sorted_blocks(
    people: Generated,
    index_key: bytes,
    not_after_day: int,
    revoked_s: int,
    others: Iterable[RowBlock],
    folder: Path,
) -> Iterator[RowBlock]:
    """Yield the rows of all generated *people* and of *others*, ascending.

    Takes:   *revoked_s*: when those that are revoked were; *folder*: room for 24 bytes a row.
    """
    piles = min(_PILES_MAX, max(1, people.count // _PILE_ROWS))
    with ExitStack() as stack:
        files = [stack.enter_context(TemporaryFile(dir=folder)) for _ in range(piles)]
        made = _generated(people, index_key, not_after_day, revoked_s)
        for rows in chain(map(_as_rows, others), made):
            _deal(rows, files)
        for file in files:
            size = file.tell()
            file.seek(0)
            rows = np.frombuffer(file.read(size), dtype=ROW_TYPE)
            rows = rows[np.lexsort((rows["lo"], rows["hi"]))]
            hi, lo, meta, revoked_at, date = (
                np.ascontiguousarray(rows[name]) for name in ROW_TYPE.names or ()
            )
            yield RowBlock(hi, lo, meta, revoked_at, date)


def _deal(rows: Rows, files: list[Any]) -> None:
    pile = ((rows["hi"] >> np.uint64(32)) * np.uint64(len(files))) >> np.uint64(32)
    for number, file in enumerate(files):
        file.write(rows[pile == number].tobytes())


def _as_rows(block: RowBlock) -> Rows:
    if block.hashes is not None:
        raise ValueError("certificates whose hashes are told cannot be mixed with generated ones")
    rows = np.empty(len(block.hi), dtype=ROW_TYPE)
    columns = (block.hi, block.lo, block.meta, block.revoked_at, block.invalidity)
    for name, column in zip(ROW_TYPE.names or (), columns, strict=True):
        rows[name] = column
    return rows


def _generated(people: Generated, index_key: bytes, not_after_day: int, revoked_s: int) -> Iterator[Rows]:
    good = pack_meta(not_after_day, GOOD, NO_REASON)
    revoked = pack_meta(not_after_day, REVOKED, _SUPERSEDED)
    starts = range(0, people.count, _LOT)
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        # A few at a time, or the results of all would wait in memory.
        waiting = [
            (start, pool.submit(_fingerprints, start, min(start + _LOT, people.count), people.key, index_key))
            for start in starts[:4]
        ]
        coming = iter(starts[4:])
        while waiting:
            start, future = waiting.pop(0)
            marks = np.frombuffer(future.result(), dtype=np.dtype([("hi", ">u8"), ("lo", ">u4")]))
            for later in coming:
                end = min(later + _LOT, people.count)
                waiting.append((later, pool.submit(_fingerprints, later, end, people.key, index_key)))
                break
            rows = np.zeros(len(marks), dtype=ROW_TYPE)
            rows["hi"], rows["lo"], rows["meta"] = marks["hi"], marks["lo"], good
            if people.revoked_every:
                numbers = np.arange(start, start + len(marks))
                chosen = numbers % people.revoked_every == 0
                rows["meta"][chosen] = revoked
                rows["revoked_at"][chosen] = revoked_s
            yield rows


def _fingerprints(start: int, end: int, key: bytes, index_key: bytes) -> bytes:
    """Return the fingerprints of generated certificates, one after another: ``population.serial_of``
    and ``changes.fingerprint`` in one loop, because calling them takes longer than what they do."""
    numbered, marked = (
        blake2b(digest_size=SERIAL_OCTETS, key=key),
        blake2b(digest_size=FINGERPRINT_BYTES, key=index_key),
    )
    found = []
    for number in range(start, end):
        one = numbered.copy()
        one.update(number.to_bytes(8, "big"))
        octets = one.digest()
        other = marked.copy()
        other.update(bytes((octets[0] & 0x3F | 0x40,)) + octets[1:])
        found.append(other.digest())
    return b"".join(found)
