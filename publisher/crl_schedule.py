"""Which CRLs are due, of thousands of scopes, and in which order: decisions, no I/O.

Knows: that every scope has its own moment within a period, by its name, so that starts are spread; that
a missed run is due at once; that a delta which nothing has changed waits for half of its life; and in
which order to catch up, so that what clients run out of first is made first.
Does not know: which base a delta gets (``crl_plan``), the store, how CRLs are made.
Source: RFC 5280 §5.1.2.5 (a successor is out by nextUpdate), §5.2.4 (deltas).

Moments: a scope's starts lie on a grid, ``phase + k * period``, and its next start is the last grid
moment within one period of the last thisUpdate.  So whatever moment the first CRLs were made at, all at
once perhaps, from the second on they are spread; and a CRL made out of turn moves nothing for good.

Clock set back: the store's time does not follow (it stands still), so the newest thisUpdate lies ahead
of the clock.  Until the clock has caught up, age is counted by the steady clock, since the CRL was first
seen, and without the grid, on which a time that stands still would always be as near to the next moment:
what is revoked meanwhile does not wait for the clock, and nothing is made over and over.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple, Protocol

from publisher.crl_plan import Due, IssuedCRL, Periods

HALF_LIFE = "half_life"


class SchedulePolicy(Periods, Protocol):
    """What the schedule needs of an issuer's policy, beside the periods."""

    @property
    def delta_unchanged(self) -> str: ...


class ScopeStanding(NamedTuple):
    """Where a scope stands: the newest published CRL of each kind, and the last change that concerns it."""

    path: str
    policy: SchedulePolicy
    complete: IssuedCRL | None
    delta: IssuedCRL | None
    changed_seq: int


class Starts(NamedTuple):
    """When the next of each kind is due, POSIX s; ``quiet_delta_s``: unless something changes before."""

    complete_s: int
    delta_s: int
    quiet_delta_s: int


class DueCRL(NamedTuple):
    """What is to be made of one scope now.

    ``since_s``: when it became due.  ``until_s``: the first nextUpdate of what it replaces; 0: nothing
    is out that it could replace.  Both POSIX s.
    """

    path: str
    want: Due
    since_s: int
    until_s: int


@lru_cache(maxsize=1 << 14)
def phase_s(path: str, period_s: int) -> int:
    """Return the scope's moment within every period: by its name alone, whatever other scopes there are."""
    digest = hashlib.sha256(path.encode()).digest()
    return int.from_bytes(digest[:8], "big") % period_s


def next_starts(
    path: str, policy: SchedulePolicy, complete: IssuedCRL, delta: IssuedCRL | None, *, on_grid: bool = True
) -> Starts:
    """Return when the next complete CRL and the next delta are due, given the newest of each kind.

    A complete CRL is accompanied by a delta.  A delta older than the newest complete CRL is of no use to
    anybody, so another follows as soon as the clock shows a later second.  *on_grid* False: a whole
    period after the last one, whatever the scope's moment.
    """
    phases = [
        phase_s(path, period_s) if on_grid else None
        for period_s in (policy.crl_period_s, policy.delta_period_s)
    ]
    complete_s = _next_start_s(complete, policy.crl_period_s, policy.crl_validity_s, phases[0], 0)
    if delta is None or delta.number < complete.number:
        return Starts(complete_s, complete.this_update_s + 1, complete.this_update_s + 1)
    period_s, validity_s = policy.delta_period_s, policy.delta_validity_s
    delta_s = _next_start_s(delta, period_s, validity_s, phases[1], 0)
    quiet_s = delta_s
    if policy.delta_unchanged == HALF_LIFE:
        half_s = (delta.next_update_s - delta.this_update_s) // 2
        quiet_s = _next_start_s(delta, period_s, validity_s, phases[1], half_s)
    return Starts(complete_s, min(complete_s, delta_s), min(complete_s, quiet_s))


def _next_start_s(last: IssuedCRL, period_s: int, validity_s: int, phase: int | None, at_least_s: int) -> int:
    """Return when a successor is due: on the grid, and with its spare time before nextUpdate.

    The second bound holds when the policy was changed after *last* had promised its successor.
    """
    promised_s = last.next_update_s - last.this_update_s
    spare_s = min(validity_s - period_s, promised_s // 2)
    within_s = last.this_update_s + max(period_s, at_least_s)
    if phase is not None:
        within_s -= (within_s - phase) % period_s
    return min(within_s, last.next_update_s - spare_s)


class CRLSchedule:
    """What is due, tick by tick; remembers when it first saw each newest CRL, for clocks set back."""

    def __init__(self) -> None:
        # (path, delta?) -> (number, since when it is the newest, by the steady clock)
        self._seen: dict[tuple[str, bool], tuple[int, float]] = {}

    def due(self, standings: Iterable[ScopeStanding], now_s: float, steady_s: float) -> list[DueCRL]:
        """Return what is due at *now_s* (POSIX): first what is over or was never made, then by nextUpdate.

        Takes: where the scopes stand that are asked about; *steady_s*: a clock that nobody sets.
        """
        found = []
        for standing in standings:
            complete, delta = standing.complete, standing.delta
            if complete is None:
                found.append(DueCRL(standing.path, Due(True, True), 0, 0))
                continue
            path, policy = standing.path, standing.policy
            complete_now_s = self._now_s(path, complete, False, now_s, steady_s)
            delta_now_s, is_ahead, is_changed = complete_now_s, complete.this_update_s > now_s, True
            starts = next_starts(path, policy, complete, delta, on_grid=not is_ahead)
            complete_s = starts.complete_s
            if delta is not None and delta.number >= complete.number:
                delta_now_s = self._now_s(path, delta, True, now_s, steady_s)
                is_changed = standing.changed_seq > delta.seq
                is_ahead = delta.this_update_s > now_s
            starts = next_starts(path, policy, complete, delta, on_grid=not is_ahead)
            delta_s = starts.delta_s if is_changed else starts.quiet_delta_s
            ends_s = complete.next_update_s if delta is None else delta.next_update_s
            if complete_now_s >= complete_s:
                until_s = min(complete.next_update_s, ends_s)
                found.append(DueCRL(path, Due(True, True), complete_s, until_s))
            elif delta_now_s >= delta_s:
                # Due by a change, it has not waited since the period was over.
                since_s = min(starts.quiet_delta_s, int(delta_now_s)) if is_changed else delta_s
                found.append(DueCRL(path, Due(False, True), since_s, ends_s))
        return sorted(found, key=lambda item: (item.until_s, item.since_s, item.path))

    def _now_s(self, path: str, newest: IssuedCRL, is_delta: bool, now_s: float, steady_s: float) -> float:
        number, since_s = self._seen.get((path, is_delta), (-1, 0.0))
        if number != newest.number:
            since_s = steady_s
            self._seen[path, is_delta] = newest.number, since_s
        if now_s >= newest.this_update_s:
            return now_s
        return newest.this_update_s + steady_s - since_s
