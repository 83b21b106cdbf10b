"""``certstatus publish now``: CRLs out of turn, of all scopes or of those that have something to say.

Knows: which scopes are meant (none whose last CRL is out), what is made of each, that deltas over a
list just made follow when all lists are made, that the pointer moves every few seconds of a long run, and
that a scope which fails keeps no other back.  Also that first a lot of entries leaves if a run of lapses has
more to do, and that in the end all scopes are tidied as the builder does, unless some were asked for by their
paths: so entries and packs leave also where ``publish now`` is all that runs, every hour perhaps.
Does not know: how a lot is made (``crl_lot``), how a person is told.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from certstatus import clock
from certstatus.config import Config
from certstatus.crl_catalogue import COMPLETE
from certstatus.errors import CertStatusError, FencedOff, StoreAway, UnknownCertificate
from issuance.ca_keys import CAKeyFolder
from issuance.crl_register import Fence
from issuance.store import Store
from publisher.crl_lot import Order, PublishedCRL
from publisher.crl_plan import Due
from publisher.crl_publish import CRLPublisher, crl_lease
from publisher.crl_run import CRLRun
from publisher.crl_scopes import CRLScope
from publisher.lease import held

# The pointer moves at least so often in a long run, so that what is made is out soon.
POINTER_EVERY_S = 2.0

# (scopes dealt with, scopes in all, path of the one just dealt with)
Told = Callable[[int, int, str], None]


@dataclass(slots=True)
class PublishReport:
    """What was made of how many ``scopes``, of which ``unchanged`` needed nothing.

    ``failed``: path -> what kept its CRLs from being made; ``untidy``: what kept the archive, or files that
    are needed no longer, from being looked after, or a last CRL from being prepared.
    """

    scopes: int = 0
    unchanged: int = 0
    published: list[PublishedCRL] = field(default_factory=list)
    failed: dict[str, Exception] = field(default_factory=dict)
    untidy: Exception | None = None


def publish_now(
    config: Config,
    *,
    service: str | None = None,
    paths: Collection[str] = (),
    everything: bool = False,
    wait_s: float = 30.0,
    now_ms: Callable[[], int] = clock.now_ms,
    monotonic_s: Callable[[], float] = clock.monotonic_s,
    told: Told = lambda _done, _total, _path: None,
) -> PublishReport:
    """Publish now, also while a builder runs.

    Takes:  *service*, *paths* (``sign/g1/all``): only these scopes; *everything*: a complete and a delta
            CRL of each.  Without it: a delta where the list has changed since the last CRL, and what the
            schedule asks for.  *wait_s*: for the lease that another publisher holds; *told*: is called after
            each scope.
    Gives:  what was published.  Where nothing can be a delta's base yet, the delta follows on the complete
            CRL just made, in the next second.
    Raises: LeaseHeld — another publisher was still at it after *wait_s*; UnknownCertificate — no such service
            or scope; PolicyViolation — the last CRLs of all of them are out; FencedOff, StoreAway.  What
            fails of one scope alone is in the report.
    """
    with Store.open(config.store_url) as store, held(lease := crl_lease(store, now_ms), wait_s) as fence:
        keys = CAKeyFolder(config.state / "ca")
        publisher = CRLPublisher(store, keys, config.state, now_ms=now_ms, monotonic_s=monotonic_s)
        if not paths:
            # Who asks for one of thousands waits for that one only.
            publisher.lapses.go_on(fence)
        chosen = publisher.not_over(_chosen(publisher, service, paths))
        if everything:
            work = [(scope, Due(True, True)) for scope in chosen]
        else:
            wanted = CRLRun(publisher, lease, now_ms=now_ms).look_for_news(chosen)
            by_path = {scope.path: scope for scope in chosen}
            # In the schedule's order: first what clients run out of.
            work = [(by_path[path], want) for path, want in wanted.items() if path in by_path]
        report = PublishReport(scopes=len(chosen), unchanged=len(chosen) - len(work))
        _Round(publisher, fence, report, told).make(work)
        if not paths:
            report.untidy = _tidied(publisher, fence)
        return report


def _tidied(publisher: CRLPublisher, fence: Fence) -> Exception | None:
    """Look after all scopes once; return what kept something from being done.

    Raises: FencedOff, StoreAway.
    """
    try:
        publisher.tidy(fence, of_all=True)
    except (FencedOff, StoreAway):
        raise
    except (CertStatusError, OSError) as exc:
        return exc
    return None


def _chosen(publisher: CRLPublisher, service: str | None, paths: Collection[str]) -> list[CRLScope]:
    scopes = publisher.scopes_of(service)
    unknown = set(paths) - {scope.path for scope in scopes}
    if unknown:
        where = "" if service is None else f" of {service}"
        raise UnknownCertificate(f"no CRL scope{where} {', '.join(sorted(unknown))}")
    return [scope for scope in scopes if not paths or scope.path in paths]


class _Round:
    """One pass over the work, its pointer moves and its report."""

    def __init__(self, publisher: CRLPublisher, fence: Fence, report: PublishReport, told: Told) -> None:
        self._publisher = publisher
        self._fence = fence
        self._report = report
        self._told = told
        self._moved_s = time.monotonic()
        # Made, and not out yet.
        self._waiting: list[CRLScope] = []

    def make(self, work: list[Order]) -> None:
        """Make everything of *work*, and the deltas that had no base before."""
        without_delta = []
        done = 0
        try:
            for lot in self._publisher.lots(work):
                for scope, made in self._make_lot(lot):
                    kinds = {item.kind for item in made}
                    if kinds == {COMPLETE}:
                        without_delta.append((scope, Due(False, True)))
                    done += 1
                    self._told(done, len(work), scope.path)
            # Only now: the first of them wait for the clock to show another second, the others do not.
            for lot in self._publisher.lots(without_delta):
                self._make_lot(lot)
        finally:
            self._publisher.finish(self._waiting, self._fence)

    def _make_lot(self, lot: list[Order]) -> list[tuple[CRLScope, list[PublishedCRL]]]:
        """Make a lot; return its scopes with what was made of them, nothing of those that failed."""
        outcomes = self._publisher.make_lot(lot, self._fence)
        found: list[tuple[CRLScope, list[PublishedCRL]]] = []
        for scope, _ in lot:
            outcome = outcomes[scope.path]
            if isinstance(outcome, Exception):
                self._report.failed[scope.path] = outcome
                found.append((scope, []))
                continue
            self._report.published += outcome
            self._waiting.append(scope)
            found.append((scope, outcome))
        if time.monotonic() - self._moved_s >= POINTER_EVERY_S:
            self._publisher.finish(self._waiting, self._fence)
            self._waiting.clear()
            self._moved_s = time.monotonic()
        return found
