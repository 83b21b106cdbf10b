"""The builder's CRL run: what is due of all scopes, lot by lot, each failure its own scope's.

Knows: asking at once where all scopes stand (again once the lease is held, for others may have published
meanwhile), the order of the schedule, that a scope which fails is left alone for a growing while and holds up
no other, that a step ends after a while so that the builder's other tasks get their turn, and what operators
are told: sums by issuer and a few names.
Does not know: how a lot is made (``crl_lot``), or why one is due (``crl_schedule``).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

from certstatus import clock
from certstatus.crl_catalogue import COMPLETE, DELTA
from certstatus.errors import LeaseHeld
from issuance.crl_register import Fence
from publisher.crl_catalogue import issued
from publisher.crl_lot import Order, PublishedCRL
from publisher.crl_plan import Due
from publisher.crl_publish import CRLPublisher
from publisher.crl_schedule import CRLSchedule, DueCRL, ScopeStanding
from publisher.crl_scopes import CRLScope
from publisher.lease import PublisherLease, held
from publisher.task import PAUSE_FIRST_S, PAUSE_S_MAX

log = logging.getLogger(__name__)

# A step makes CRLs for so long before others get their turn.
STEP_S = 2.0
# So many scopes are named in the status, those in the worst trouble first.
NAMES_MAX = 20


@dataclass(slots=True)
class Failure:
    """A scope that failed when it was last tried."""

    error: str
    since_ms: int
    times: int
    not_before_s: float


class CRLRun:
    """The CRLs of one builder process."""

    def __init__(
        self,
        publisher: CRLPublisher,
        lease: PublisherLease,
        *,
        now_ms: Callable[[], int] = clock.now_ms,
        monotonic_s: Callable[[], float] = clock.monotonic_s,
    ) -> None:
        self._publisher = publisher
        self._lease = lease
        self._now_ms = now_ms
        self._monotonic_s = monotonic_s
        self.overview = publisher.overview
        self._schedule = CRLSchedule()
        self._scopes: dict[str, CRLScope] = {}
        self._due: dict[str, DueCRL] = {}
        # Since when each of them is known to be due, by the steady clock.
        self._noticed_s: dict[str, float] = {}
        self.failures: dict[str, Failure] = {}
        self.has_more = False

    # --- making ----------------------------------------------------------------------------------------

    def step(self) -> str:
        """Make what is due, for at most ``STEP_S`` and one lot more; say what was made.

        Raises: StoreError — the store cannot be reached; nothing else that concerns one scope alone.
        """
        self.has_more = False
        if not self._to_be_tried() and not self._publisher.lapses.has_more():
            return ""
        try:
            with held(self._lease, wait_s=0) as fence:
                self._publisher.lapses.go_on(fence)
                # Looked at anew, for somebody may have published between that look and the lease.
                published = self._make(self._to_be_tried(), fence)
        except LeaseHeld:
            # Somebody publishes by hand just now; the schedule goes by what that left.
            return ""
        return _word(published)

    def _to_be_tried(self) -> list[DueCRL]:
        return [item for item in self.look() if not self._is_pausing(item.path)]

    def look(self) -> list[DueCRL]:
        """Return what is due now, first things first."""
        return self._found_due(self._standings())

    def look_for_news(self, only: Collection[CRLScope] | None = None) -> dict[str, Due]:
        """Return, by path, what is due now, and a delta of every scope whose list has changed since its
        last CRL; whoever asks for it does not wait for the delta period.

        Takes: *only*: of these scopes; what is due of others, or failed, is forgotten then.
        """
        standings = self._standings(only)
        wanted = {item.path: item.want for item in self._found_due(standings)}
        for standing in standings:
            cuts = [crl.seq for crl in (standing.complete, standing.delta) if crl is not None]
            if cuts and standing.changed_seq > max(cuts):
                wanted.setdefault(standing.path, Due(False, True))
        return wanted

    def _found_due(self, standings: list[ScopeStanding]) -> list[DueCRL]:
        steady_s = self._monotonic_s()
        found = self._schedule.due(standings, self._now_ms() / 1000, steady_s)
        self._due = {item.path: item for item in found}
        self._noticed_s = {path: self._noticed_s.get(path, steady_s) for path in self._due}
        # What is due no more was made by somebody else.
        self.failures = {path: failure for path, failure in self.failures.items() if path in self._due}
        return found

    def _standings(self, only: Collection[CRLScope] | None = None) -> list[ScopeStanding]:
        self.overview.refresh(None if only is None else [scope.key for scope in only])
        scopes = self._publisher.scopes() if only is None else only
        self._scopes = {scope.path: scope for scope in scopes}
        return [
            self._standing(scope)
            for scope in self._scopes.values()
            if not self.overview.is_over(scope.key) and not scope.is_at_rest(self._now_ms() // 1000)
        ]

    def _standing(self, scope: CRLScope) -> ScopeStanding:
        # A CRL whose file is gone is as if it had never been.
        newest = {
            kind: issued(record)
            for kind, record in self.overview.newest(scope.key).items()
            if self._publisher.has_file(scope, record)
        }
        return ScopeStanding(
            scope.path,
            scope.issuer.policy,
            newest.get(COMPLETE),
            newest.get(DELTA),
            self.overview.changed_seq(scope.key),
        )

    def _is_pausing(self, path: str) -> bool:
        failure = self.failures.get(path)
        return failure is not None and self._monotonic_s() < failure.not_before_s

    def _make(self, work: list[DueCRL], fence: Fence) -> list[PublishedCRL]:
        published: list[PublishedCRL] = []
        touched: list[CRLScope] = []
        until_s = self._monotonic_s() + STEP_S
        try:
            for lot in self._publisher.lots(self._orders(work, fence)):
                if self._monotonic_s() >= until_s:
                    self.has_more = True
                    break
                outcomes = self._publisher.make_lot(lot, fence)
                for scope, _ in lot:
                    if made := self._took(scope.path, outcomes[scope.path]):
                        published += made
                        touched.append(scope)
        finally:
            if touched:
                self._publisher.finish(touched, fence)
        return published

    def _orders(self, work: list[DueCRL], fence: Fence) -> Iterator[Order]:
        """Yield what is to be made, without the partitions that are retired instead."""
        for item in work:
            scope = self._scopes[item.path]
            if item.want.complete and self._publisher.retire_if_over(scope, fence):
                self._due.pop(item.path, None)
            else:
                yield scope, item.want

    def _took(self, path: str, outcome: list[PublishedCRL] | Exception) -> list[PublishedCRL]:
        """Note what became of a scope; return what was made of it."""
        if isinstance(outcome, Exception):
            self._fail(path, f"{type(outcome).__name__}: {outcome}")
            return []
        self._due.pop(path, None)
        if self.failures.pop(path, None) is not None:
            log.info("CRL %s: works again", path)
        return outcome

    def _fail(self, path: str, error: str) -> None:
        before = self.failures.get(path)
        if before is None or before.error != error:
            log.error("CRL %s: %s", path, error)
        times = 1 if before is None else before.times + 1
        since_ms = self._now_ms() if before is None else before.since_ms
        pause_s = min(PAUSE_FIRST_S * 2 ** min(times - 1, 16), PAUSE_S_MAX)
        self.failures[path] = Failure(error, since_ms, times, self._monotonic_s() + pause_s)

    # --- telling ---------------------------------------------------------------------------------------

    def overdue_s(self, path: str) -> float:
        """Return for how long a CRL of the scope has been due without being made; 0 if none is."""
        item = self._due.get(path)
        if item is None:
            return 0.0
        noticed_s = self._monotonic_s() - self._noticed_s.get(path, self._monotonic_s())
        return max(noticed_s, self._now_ms() / 1000 - item.since_s if item.since_s else 0.0)

    def status(self) -> dict[str, Any]:
        """Return what the status file says of CRLs: sums by issuer, and at most ``NAMES_MAX`` names.

        Form: ``{issuers: [{service, generation, scopes, due, failing, overdue_s}],
        troubles: [{scope, error, since_ms, overdue_s}], troubles_total}``.  Called from another thread.
        """
        scopes, due, failures = dict(self._scopes), dict(self._due), dict(self.failures)
        overdue = {path: self.overdue_s(path) for path in due}
        sums: dict[tuple[str, int], dict[str, Any]] = {}
        for path, scope in scopes.items():
            issuer = scope.issuer
            found = sums.setdefault(
                (issuer.service, issuer.generation),
                {
                    "service": issuer.service,
                    "generation": issuer.generation,
                    **{"scopes": 0, "due": 0, "failing": 0, "overdue_s": 0.0},
                },
            )
            found["scopes"] += 1
            found["due"] += path in due
            found["failing"] += path in failures
            found["overdue_s"] = round(max(found["overdue_s"], overdue.get(path, 0.0)), 1)
        worst = sorted(failures, key=lambda path: (-overdue.get(path, 0.0), path))
        return {
            "issuers": list(sums.values()),
            "troubles": [
                {
                    "scope": path,
                    "error": failures[path].error,
                    "since_ms": failures[path].since_ms,
                    "overdue_s": round(overdue.get(path, 0.0), 1),
                }
                for path in worst[:NAMES_MAX]
            ],
            "troubles_total": len(worst),
        }


def _word(published: list[PublishedCRL]) -> str:
    """Return a line for the operators' page: what was made, or how many where that is too much."""
    if len(published) <= 4:
        return ", ".join(f"{item.scope} {item.kind} {item.number}" for item in published)
    return f"{len(published)} CRLs of {len({item.scope for item in published})} scopes"
