"""The changes that concern an issuer's CRLs, read once for all its scopes and divided among them.

::

    store ─▶ changes in (after, upto] of one issuer ─▶ of ``all``: every one
                                                   └▶ of a partition: those of its certificates

Knows: that what was read once is read no more while the epoch lasts, because changes are never rewritten.  A
CA-key event comes as a change of each certificate.
Does not know: what a change does to a list (``crl_entries``), files.
Memory: 60 bytes a change, a row (``crl_change_rows``) and its place in its partition; what lies further back
than anybody asked for is let go of.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from issuance.history import RevocationChange
from issuance.store import Store
from publisher.crl_change_rows import CHANGE, ChangeRows, Changes, row_blocks
from publisher.crl_scopes import CRLScope

# More are kept only if they are needed now.
_KEPT_MAX = 100_000

# Which rows of an array are a partition's, ascending.
Places = NDArray[np.uint32]


class ScopeChanges:
    """The changes of all issuers since a while ago."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._epoch = b""
        self._windows: dict[int, _Window] = {}

    def read(self, issuer_id: int, after_seq: int, upto_seq: int, epoch: bytes) -> None:
        """Have the issuer's changes in (after_seq, upto_seq] at hand.  Raises: StoreError."""
        if epoch != self._epoch:
            self._epoch = epoch
            self._windows.clear()
        window = self._windows.get(issuer_id)
        if window is None or after_seq < window.after_seq or window.is_too_long(after_seq):
            # The old one goes before there is a new one.
            window = None
            self._windows.pop(issuer_id, None)
            window = self._windows[issuer_id] = _Window(after_seq)
        if upto_seq > window.upto_seq:
            window.add(self._store.revocation_changes(issuer_id, window.upto_seq, upto_seq), upto_seq)

    def of(self, scope: CRLScope, after_seq: int, upto_seq: int) -> Changes:
        """Return the changes in (after_seq, upto_seq] that the scope's list must take over, in order.

        They must have been ``read``.
        """
        window = self._windows[scope.issuer.issuer_id]
        if after_seq < window.after_seq or upto_seq > window.upto_seq:
            raise ValueError(f"{scope.path}: changes in ({after_seq}, {upto_seq}] were not read")
        return Changes(window.between(scope.partition_id, after_seq, upto_seq))


class _Window:
    """The changes of one issuer in (after_seq, upto_seq]."""

    def __init__(self, after_seq: int) -> None:
        self.after_seq = self.upto_seq = after_seq
        # With room at its end, for changes come a few at a time.
        self._rows: ChangeRows = np.empty(0, CHANGE)
        self._count = 0
        self._parts: dict[int, Places] = {}

    def __len__(self) -> int:
        return self._count

    def is_too_long(self, after_seq: int) -> bool:
        """Say whether it holds many changes that nobody needs who needs those after *after_seq*."""
        return self._upto(after_seq) > _KEPT_MAX

    def add(self, changes: Iterable[RevocationChange], upto_seq: int) -> None:
        """Take the changes up to *upto_seq*; all of them or, where reading fails, none."""
        first = count = self._count
        for block in row_blocks(changes):
            if count + len(block) > len(self._rows):
                rows = np.empty(max(count + len(block), len(self._rows) * 3 // 2), CHANGE)
                rows[:count] = self._rows[:count]
                self._rows = rows
            self._rows[count : count + len(block)] = block
            count += len(block)
        for scope_id, places in divided(self._rows[first:count]).items():
            before = self._parts.get(scope_id, np.empty(0, np.uint32))
            self._parts[scope_id] = np.concatenate([before, places + np.uint32(first)])
        self._count, self.upto_seq = count, upto_seq

    def between(self, partition_id: int | None, after_seq: int, upto_seq: int) -> ChangeRows:
        """Return the changes in (after_seq, upto_seq], of one partition or (None) all."""
        start, end = self._upto(after_seq), self._upto(upto_seq)
        if partition_id is None:
            return self._rows[start:end]
        places = self._parts.get(partition_id, np.empty(0, np.uint32))
        first, last = np.searchsorted(places, np.array([start, end], np.uint32)).tolist()
        return self._rows[places[first:last]]

    def _upto(self, seq: int) -> int:
        """Return how many have numbers up to *seq*."""
        return bisect_right(self._rows["seq"], seq, 0, self._count)


def divided(rows: ChangeRows) -> dict[int, Places]:
    """Return where the changes of each partition are, by its number, in order."""
    scope_ids = rows["scope_id"]
    order = np.argsort(scope_ids, kind="stable").astype(np.uint32)
    numbers, starts = np.unique(scope_ids[order], return_index=True)
    parts = np.split(order, starts[1:]) if len(numbers) else []
    return {number: places for number, places in zip(numbers.tolist(), parts, strict=True) if number}


def in_pieces(changes: Iterator[RevocationChange], size: int) -> Iterator[Changes]:
    """Yield the changes, at most *size* of them at once."""
    while piece := list(islice(changes, size)):
        yield Changes.of(piece)
