"""Waiting until every worker that may be answering has heard of a change.

Knows: that a worker is live while its lease in the store of record runs, that the store knows
every worker before it answers, and that a worker which says nothing is waited for until its lease
has run out (by our monotonic clock: ``lease_watch``) or the feed has taken it away for the same
reason: after that it answers nobody.
Does not know: Valkey; the caller says how acknowledgements are read.
Source: ``certstatus.leases``; Act arts. 15(1), 34(1) (effect ends at recording).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from certstatus import clock
from certstatus.errors import StoreError, ValkeyUnavailable
from certstatus.leases import WorkerAck
from issuance.lease_watch import LeaseWatch
from issuance.store import Store, WorkerLease

_POLL_S = 0.005
_STORE_AGAIN_S = 0.1

ReadAcks = Callable[[list[WorkerLease]], Iterable[WorkerAck]]


class WorkerName(NamedTuple):
    """Which worker."""

    host: str
    slot: int


class Acknowledgement(NamedTuple):
    """How the wait for change ``seq`` ended.

    ``acknowledged``: workers that have applied it; ``ran_out``: whose lease ended without a word (they
    answer nobody); ``left``: gone from the store meanwhile, by their own word or because the feed had
    counted their lease to its end; ``waiting``: still live and silent when the time
    was over.  Together everyone who was waited for.
    """

    seq: int
    acknowledged: tuple[WorkerName, ...]
    ran_out: tuple[WorkerName, ...]
    left: tuple[WorkerName, ...]
    waiting: tuple[WorkerName, ...]
    waited_s: float

    @property
    def is_complete(self) -> bool:
        """Say whether nobody can still give an answer from before the change."""
        return not self.waiting


def wait_for_workers(
    store: Store,
    seq: int,
    read_acks: ReadAcks,
    lease_ms: int,
    *,
    monotonic_s: Callable[[], float] = clock.monotonic_s,
    timeout_s: float | None = None,
    on_wait: Callable[[tuple[WorkerName, ...]], None] | None = None,
) -> Acknowledgement:
    """Wait until no live worker is left that has not applied change *seq*.

    Takes:  ``read_acks``: what the given leased workers last said; when it raises ValkeyUnavailable,
            what the store knows counts.  *lease_ms*: how long a lease is at least (index ``age_max_s``
            and the slack).  ``on_wait`` hears whom it waits for, whenever that changes.
            Without *timeout_s* only the leases bound the wait.
    Raises: StoreError — the store cannot be reached, for a whole lease or until *timeout_s*.  The
            change stands; who has applied it is not known.
    """
    started = time.monotonic()
    met: set[WorkerName] = set()
    # With the incarnation: a new one in the same slot begins again from an older state.
    heard: set[tuple[WorkerName, str]] = set()
    told: tuple[WorkerName, ...] = ()
    watch = LeaseWatch(lease_ms, monotonic_s)
    reached = started
    while True:
        try:
            # From the store each time: a worker may have come or gone since.
            leases = store.leases()
            ended = watch.run_out(leases, lambda: store.state().time_ms)
        except StoreError:
            # A database being restarted, say.  The change stands, so giving up would help nobody.
            now = time.monotonic()
            if now - reached >= lease_ms / 1000 or (timeout_s is not None and now - started >= timeout_s):
                raise
            time.sleep(_STORE_AGAIN_S)
            continue
        reached = time.monotonic()
        live = [lease for lease in leases if lease not in ended]
        words = [WorkerAck(item.host, item.slot, item.incarnation, item.applied_seq) for item in leases]
        for word in words + _read(read_acks, live):
            if word.applied_seq >= seq:
                heard.add((WorkerName(word.host, word.slot), word.incarnation))
        standing = {WorkerName(lease.host, lease.slot): lease for lease in leases}
        met |= standing.keys()
        silent = {name for name, lease in standing.items() if (name, lease.incarnation) not in heard}
        waiting = tuple(sorted(silent & {WorkerName(lease.host, lease.slot) for lease in live}))
        if not waiting or (timeout_s is not None and time.monotonic() - started >= timeout_s):
            break
        if on_wait is not None and waiting != told:
            on_wait(waiting)
        told = waiting
        time.sleep(_POLL_S)
    return Acknowledgement(
        seq=seq,
        acknowledged=tuple(sorted(standing.keys() - silent)),
        ran_out=tuple(sorted(silent - set(waiting))),
        left=tuple(sorted(met - standing.keys())),
        waiting=waiting,
        waited_s=time.monotonic() - started,
    )


def _read(read_acks: ReadAcks, live: list[WorkerLease]) -> list[WorkerAck]:
    if not live:
        return []
    try:
        return list(read_acks(live))
    except ValkeyUnavailable:
        return []
