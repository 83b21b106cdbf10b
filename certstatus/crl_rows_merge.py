"""One list from another and what has changed since, and whether two lists are the same; block by block.

Knows: order, and that both lists are never whole in memory.
Does not know: what the changes mean, or where rows come from.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from certstatus.crl_rows import ROW, ROW_BYTES, Keys, Rows, ascend, keys, last_key
from certstatus.errors import CRLCheckFailed


def merged(old: Iterable[Rows], puts: Rows, drops: Keys) -> Iterator[Rows]:
    """Yield the rows of *old* with *puts* in place of what had their keys, and without those of *drops*.

    Takes:  *puts* ascending; *drops* ascending; a key that is in both is put.
    Raises: CRLCheckFailed — *old* or *puts* do not ascend strictly.
    Cost:   about 3 ns a row of a block that nothing changes in, 8 of another, and 1 µs a change.
    """
    if not ascend(puts):
        raise CRLCheckFailed(["pkix.crl_entries_unsorted"])
    put_keys = keys(puts)
    last: bytes | None = None
    put_at = drop_at = 0
    for rows in old:
        if not len(rows):
            continue
        if not ascend(rows, last):
            raise CRLCheckFailed(["pkix.crl_entries_unsorted"])
        last = last_key(rows)
        until = np.array([last], drops.dtype)
        put_until = int(np.searchsorted(put_keys, until, side="right")[0])
        drop_until = int(np.searchsorted(drops, until, side="right")[0])
        if put_until > put_at or drop_until > drop_at:
            block = _merged_block(rows, puts[put_at:put_until], drops[drop_at:drop_until])
            put_at, drop_at = put_until, drop_until
            if len(block):
                yield block
        else:
            yield rows
    if put_at < len(puts):
        yield puts[put_at:]


def _merged_block(rows: Rows, puts: Rows, drops: Keys) -> Rows:
    there = np.ascontiguousarray(keys(rows))
    # As plain bytes: numpy copies records field by field.
    old, new = (np.ascontiguousarray(some).view(f"V{ROW_BYTES}") for some in (rows, puts))
    changed = np.concatenate([keys(puts), drops])
    order = np.argsort(changed, kind="stable")
    places = np.searchsorted(there, changed)
    hits = there[np.minimum(places, len(there) - 1)] == changed
    pieces = []
    start = 0
    # Where a key is put and dropped, its put comes first, and what it hits is left out once.
    for which, place, hit in zip(order.tolist(), places[order].tolist(), hits[order].tolist(), strict=True):
        if place > start:
            pieces.append(old[start:place])
        if which < len(new):
            pieces.append(new[which : which + 1])
        start = max(start, place + hit)
    pieces.append(old[start:])
    return np.concatenate(pieces).view(ROW)


def same_rows(one: Iterable[Rows], other: Iterable[Rows]) -> bool:
    """Say whether two lists are the same, row by row, however they are divided into blocks.

    Cost: about 2 ns a row.
    """
    first, second = _Words(one), _Words(other)
    while True:
        size = min(first.left(), second.left())
        if not size:
            return first.left() == second.left()
        if not (first.take(size) == second.take(size)).all():
            return False


class _Words:
    """Blocks of rows as words of eight bytes, in pieces of any size."""

    def __init__(self, blocks: Iterable[Rows]) -> None:
        self._blocks = iter(blocks)
        self._words = np.empty(0, np.uint64)

    def left(self) -> int:
        """Return how many words can be taken at once; 0 at the end."""
        while not len(self._words):
            rows = next(self._blocks, None)
            if rows is None:
                return 0
            self._words = np.ascontiguousarray(rows).view(np.uint64)
        return len(self._words)

    def take(self, size: int) -> NDArray[np.uint64]:
        """Return the next *size* words."""
        taken, self._words = self._words[:size], self._words[size:]
        return taken
