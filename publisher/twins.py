"""Two machines under one host name: noticed by incarnations that come back, and refused both.

A worker's incarnation is new with every start, and in its slot it replaces the one before, which its
supervisor had ended first.  So one that was replaced never speaks again, unless two workers share a
host name and slot (a machine was copied, say) and overwrite each other's acknowledgement.  The store can
keep one lease for the slot, so ``revoke`` would wait for one of them only.
Knows: counting such returns.  Does not know: the store, Valkey; the feed gives neither of them a lease.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from certstatus import clock
from certstatus.leases import WorkerAck

# An ended worker's last word, held up on its way or in a replica, makes two; twins make one each other beat.
RETURNS = 4
WITHIN_S = 20.0
_FORMER_MAX = 8

Name = tuple[str, int]


class TwinWatch:
    """Who shares a host name and slot with somebody else, as far as acknowledgements show it."""

    def __init__(self, monotonic_s: Callable[[], float] = clock.monotonic_s) -> None:
        self._monotonic_s = monotonic_s
        self._current: dict[Name, str] = {}
        self._former: dict[Name, deque[str]] = {}
        self._returns: dict[Name, deque[float]] = {}

    def note(self, acks: Iterable[WorkerAck]) -> set[Name]:
        """Take a reading of the acknowledgements; return whom to refuse."""
        now_s = self._monotonic_s()
        for ack in acks:
            if not ack.incarnation:
                continue
            name = (ack.host, ack.slot)
            current = self._current.get(name)
            if current == ack.incarnation:
                continue
            former = self._former.setdefault(name, deque(maxlen=_FORMER_MAX))
            if ack.incarnation in former:
                self._returns.setdefault(name, deque(maxlen=RETURNS)).append(now_s)
            if current is not None and current not in former:
                former.append(current)
            self._current[name] = ack.incarnation
        return {
            name
            for name, returns in self._returns.items()
            if len(returns) == RETURNS
            and now_s - returns[-1] < WITHIN_S
            and returns[-1] - returns[0] < WITHIN_S
        }
