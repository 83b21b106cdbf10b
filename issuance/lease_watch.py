"""When a worker's lease has run out, told by a monotonic clock alone.

The end written in the store is a wall-clock time.  Set the issuing machine's clock forward and a lease
looks run out although its worker still answers; set it back and a worker long dead is waited for.
So whoever asks counts for itself: a lease has run out when its row has not changed for the length of
a whole lease since it was first seen to stand still.

Why that is enough: a row is written before the beat that keeps its worker answering goes out, and the
worker's right ends ``age_max_s`` after it received that beat, by its own monotonic clock; a lease is
longer than that.  A beat that is received late is bounded by its own time against the worker's wall
clock.  The count is never too short, and at the longest one lease too long.
Knows: counting.  Does not know: the store, who acknowledged what.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from certstatus import clock
from issuance.store import WorkerLease


class _Standing(NamedTuple):
    """A row that stands still: as it was seen first, when, and when it will have run out."""

    incarnation: str
    lease_until_ms: int
    over_s: float


class LeaseWatch:
    """Counts, for each lease it is shown again and again, how long it has stood still."""

    def __init__(self, lease_ms: int, monotonic_s: Callable[[], float] = clock.monotonic_s) -> None:
        """*lease_ms*: the least length of a lease here, index ``age_max_s`` and the slack."""
        self._lease_ms = lease_ms
        self._monotonic_s = monotonic_s
        self._standing: dict[tuple[str, int], _Standing] = {}

    def run_out(self, leases: Iterable[WorkerLease], time_ms: Callable[[], int]) -> list[WorkerLease]:
        """Return those of *leases* that have run out; a lease that is not among them is forgotten.

        *time_ms*: the store's own time, asked only about a lease not seen before.  A worker that was
        given longer than *lease_ms* (its own configuration says so, or a restore) is recognised by how
        far its end lies ahead of that time, which never runs ahead of the end.
        """
        now_s = self._monotonic_s()
        before, self._standing = self._standing, {}
        found = []
        for lease in leases:
            name = (lease.host, lease.slot)
            kept = before.get(name)
            if kept is None or kept[:2] != (lease.incarnation, lease.lease_until_ms):
                length_ms = max(self._lease_ms, lease.lease_until_ms - time_ms())
                kept = _Standing(lease.incarnation, lease.lease_until_ms, now_s + length_ms / 1000)
            self._standing[name] = kept
            if now_s >= kept.over_s:
                found.append(lease)
        return found
