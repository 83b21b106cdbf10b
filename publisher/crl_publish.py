"""Publishing CRLs: of one scope or of many, on the schedule, at once, or as the last one.

::

    what is due ─▶ a lot of scopes made, checked and registered (crl_lot) ─▶ catalogue: out from now on
                                                                               │     └─▶ next beat
                                                                               └─▶ archive

Knows: that nobody is given a CRL before the catalogue names it, that the catalogue is published once for many
lots, and that a scope's last CRL ends it.
Does not know: how a lot is made (``crl_lot``), when something is due (``crl_schedule``, ``crl_run``) and over
which base (``crl_plan``), bytes.
Source: RFC 5280 §5.2.3-5.2.4; Act arts. 16, 35.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from certstatus import clock
from certstatus.crl import NO_END_S
from certstatus.crl_catalogue import COMPLETE, UNPARTITIONED
from certstatus.errors import CertStatusError, FencedOff, PolicyViolation, StoreAway, UnknownCertificate
from issuance.ca_keys import CAKeyFolder
from issuance.crl_register import CRLRecord, Fence
from issuance.store import Store
from publisher.catalogue_lines import CatalogueLines
from publisher.crl_catalogue import issued
from publisher.crl_lapse import CRLLapses
from publisher.crl_last import LastCRLs, PreparedCRL
from publisher.crl_lot import OCTETS_MAX, CRLLots, Order, PublishedCRL, lots
from publisher.crl_overview import CRLOverview
from publisher.crl_plan import Due
from publisher.crl_retire import retire_if_over
from publisher.crl_scopes import CRLFolders, CRLScope, ScopeList
from publisher.crl_shelf import CRLShelf
from publisher.crl_tidy import CRLTidy
from publisher.crl_write import CRLWriter
from publisher.lease import SHORT_LEASE_MS, PublisherLease

log = logging.getLogger(__name__)

LEASE_NAME = "crl"


class CRLPublisher:
    """The CRLs of one installation."""

    def __init__(
        self,
        store: Store,
        keys: CAKeyFolder,
        state: Path,
        *,
        now_ms: Callable[[], int] = clock.now_ms,
        monotonic_s: Callable[[], float] = clock.monotonic_s,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._store = store
        self._scopes = ScopeList(store)
        self._shelf = CRLShelf(store, CRLFolders(state), monotonic_s)
        self.writer = CRLWriter(store, keys, state, self._shelf)
        self._last = LastCRLs(store, keys, state, self._shelf, self.writer, now_ms)
        self._now_ms = now_ms
        self.overview = CRLOverview(store)
        passed_s = self._shelf.writer.retention.limit
        self.lapses = CRLLapses(store, self.scopes, now_ms, passed_s)
        self._lots = CRLLots(
            store, keys, self._shelf, self.writer, self.lapses.begin, now_ms=now_ms, pause=pause
        )
        self.catalogue = CatalogueLines(store, self._shelf, self.overview, self.scopes, now_ms)
        self._tidy = CRLTidy(self._shelf, self.catalogue, self._last, self.overview, self.scopes, now_ms)

    # --- of what ---------------------------------------------------------------------------------------

    def scopes(self) -> list[CRLScope]:
        """Return the scopes of the issuers that revoke here, each once its import (if any) has ended."""
        return self._scopes.read()

    def scopes_of(self, service: str | None, generation: int | None = None) -> list[CRLScope]:
        """Return the scopes of one service (None: of all) and key.  Raises: UnknownCertificate — none."""
        found = [
            scope
            for scope in self.scopes()
            if service in (None, scope.issuer.service) and generation in (None, scope.issuer.generation)
        ]
        if not found:
            raise UnknownCertificate("no issuer yet" if service is None else f"no issuer of {service}")
        return found

    def has_file(self, scope: CRLScope, record: CRLRecord) -> bool:
        """Say whether a published CRL's file is there, by its size."""
        return self._shelf.has_file(scope, record)

    # --- issuing ---------------------------------------------------------------------------------------

    def lots(self, orders: Iterable[Order]) -> Iterator[list[Order]]:
        """Yield *orders* in lots for ``make_lot``, by what the overview last saw of the scopes."""
        return lots(orders, self._octets)

    def make_lot(self, lot: Sequence[Order], fence: Fence) -> dict[str, list[PublishedCRL] | Exception]:
        """Make and register the CRLs of many scopes; takes, gives and raises as ``CRLLots.make``.

        Nobody is given them before ``finish``, which serves many lots at once.
        """
        return self._lots.make(lot, fence)

    def make(self, scope: CRLScope, want: Due, fence: Fence) -> list[PublishedCRL]:
        """Make a lot of one scope.

        Raises: KeyFileError — the CA key is not at hand; CRLCheckFailed; IntegrityError — the base's file
                is damaged; PolicyViolation — the last CRL is out; OSError; FencedOff.  What was published
                before stays so.
        """
        (made,) = self.make_lot([(scope, want)], fence).values()
        if isinstance(made, Exception):
            raise made
        return made

    def issue(self, scope: CRLScope, want: Due, fence: Fence) -> list[PublishedCRL]:
        """Make CRLs and move the pointer to them; takes and raises as ``make``."""
        published = self.make(scope, want, fence)
        self.finish([scope], fence)
        return published

    def publish_catalogue(self, fence: Fence, scopes: Sequence[CRLScope] | None = None) -> None:
        """Move the pointer: publish the catalogue of what is registered, if it is not the one out.

        Takes: *scopes*: look anew only at these, and at others whose newest CRLs are in no catalogue yet.
        """
        if scopes is None:
            self.catalogue.publish(fence)
        else:
            self.catalogue.publish_of(scopes, fence)

    def finish(self, scopes: Sequence[CRLScope], fence: Fence) -> None:
        """Move the pointer to what is registered of *scopes*, and archive what is out of them."""
        self.publish_catalogue(fence, scopes)
        for path, trouble in self._tidy.archive(scopes).items():
            # It is out all the same; tidying tries again, and says so for as long as it cannot.
            log.error("CRL %s: not archived yet: %s", path, trouble)

    def tidy(self, fence: Fence, *, of_all: bool = False) -> None:
        """Publish the catalogue if it changed, complete the archive, remove files, prepare last CRLs.

        Takes:  *of_all*: of all scopes; else of thousands only some come in each turn.
        Raises: OSError, IntegrityError — the archive cannot take something; FencedOff; what ``prepare_last``
                raises.
        """
        self.publish_catalogue(fence)
        require_lease = partial(self._store.require_publisher, fence)
        self._prepare_due(self._tidy.turn(require_lease, of_all=of_all), fence)

    def _octets(self, scope: CRLScope) -> int:
        newest = self.overview.newest(scope.key).get(COMPLETE)
        if newest is not None:
            return newest.size or 0
        # Nobody knows yet how long it is: a whole list is as long as can be, a part is not.
        return OCTETS_MAX if scope.name == UNPARTITIONED else 0

    # --- the last one ----------------------------------------------------------------------------------

    def is_over(self, scope: CRLScope) -> bool:
        """Say whether no CRL of the scope follows: its last one is out, or all in it has ended."""
        return self._last.is_over(scope) or scope.is_at_rest(self._now_s())

    def not_over(self, scopes: list[CRLScope]) -> list[CRLScope]:
        """Return those of *scopes* whose last CRL is not out.  Raises: PolicyViolation — all are."""
        self.overview.refresh([scope.key for scope in scopes])
        left = [
            scope
            for scope in scopes
            if not self.overview.is_over(scope.key) and not scope.is_at_rest(self._now_s())
        ]
        if scopes and not left:
            raise PolicyViolation(f"{scopes[0].path}: its last CRL is out, no other follows")
        return left

    def retire_if_over(self, scope: CRLScope, fence: Fence) -> bool:
        """Retire a closed partition whose next complete CRL has fallen due, if nothing in it needs one."""
        if scope.partition is None or scope.partition.closed_seq is None:
            return False
        records = self._shelf.current([scope], self._now_s())[scope.path]
        # What no catalogue has named was never out.
        completes = [
            issued(record)
            for record in records
            if record.kind == COMPLETE and record.published_ms is not None
        ]
        recorded = retire_if_over(
            self._store, scope, max(completes, default=None), self._now_s(), fence, self._now_ms
        )
        if recorded is not None:
            log.info("CRL %s: retired, all in it has ended; change %d", scope.path, recorded.seq)
        return recorded is not None

    def prepare_last(self, scope: CRLScope, fence: Fence) -> PreparedCRL:
        """Make the scope's last CRL as of now, and keep it back; raises as ``LastCRLs.prepare``."""
        self._lots.withdraw_unfinished([scope], fence)
        return self._last.prepare(scope, fence)

    def publish_last(self, scope: CRLScope, fence: Fence, *, although_older: bool = False) -> PublishedCRL:
        """Publish what was prepared as the scope's last CRL; none follows it.

        Takes and raises as ``ready_last``; also OSError, FencedOff.
        """
        (made,) = self.publish_last_lot([scope], fence, although_older=although_older).values()
        if isinstance(made, Exception):
            raise made
        return made

    def publish_last_lot(
        self, scopes: Sequence[CRLScope], fence: Fence, *, although_older: bool = False
    ) -> dict[str, PublishedCRL | Exception]:
        """Publish what was prepared as the last CRLs of a lot of scopes, and move the pointer to all of them.

        Takes:  as ``publish_last``.
        Gives:  by path, in order: what was published, or what ``publish_last`` would have raised.
        Raises: StoreAway, FencedOff — then it is no scope's trouble; what was recorded before is out.
        """
        outcomes: dict[str, PublishedCRL | Exception] = {}
        out: list[CRLScope] = []
        try:
            for scope in scopes:
                try:
                    outcomes[scope.path] = self._publish_last(scope, fence, although_older)
                    out.append(scope)
                except (StoreAway, FencedOff):
                    raise
                except (CertStatusError, OSError) as exc:
                    outcomes[scope.path] = exc
        finally:
            if out:
                self.finish(out, fence)
            for scope in out:
                # Only now: killed before, the prepared one is there still.
                self._last.clear(scope)
                log.warning("CRL %s: the last one is out", scope.path)
        return outcomes

    def _publish_last(self, scope: CRLScope, fence: Fence, although_older: bool) -> PublishedCRL:
        """Record a scope's last CRL; nobody is given it yet."""
        prepared = self.ready_last(scope, although_older=although_older)
        path = self._last.publish(scope, prepared, fence)
        return PublishedCRL(
            scope.path,
            COMPLETE,
            prepared.number,
            None,
            path,
            prepared.this_update_s,
            NO_END_S,
            prepared.entries,
        )

    def ready_last(self, scope: CRLScope, *, although_older: bool = False) -> PreparedCRL:
        """Return what would be published as the scope's last CRL, with all checked that can be.

        Takes:  *although_older*: also if the list has changed since it was cut, and so takes back, for who
                believes CRLs alone, what was published in between.
        Raises: UnknownCertificate — none is prepared; IntegrityError — its file is not what it was;
                CRLCheckFailed — it does not fit what is published;
                PolicyViolation — the last CRL is out, or the list has changed; OSError.
        """
        if self.is_over(scope):
            raise PolicyViolation(f"{scope.path}: its last CRL is out")
        prepared, missing = self._last.found(scope)
        if any((missing.listed_since, missing.changed_since)) and not although_older:
            raise PolicyViolation(
                f"{scope.path}: the CRL prepared at {clock.utc_text(prepared.this_update_s)} lacks"
                f" {missing.listed_since} certificates revoked since, and says otherwise of"
                f" {missing.changed_since}: prepare another while the key is at hand"
            )
        return prepared

    def _prepare_due(self, scopes: Sequence[CRLScope], fence: Fence) -> None:
        """Prepare the last CRLs that the policies ask for; of failures the first is raised at the end."""
        failed: CertStatusError | OSError | None = None
        going_on = [scope for scope in scopes if not scope.is_at_rest(self._now_s())]
        for scope in self._last.due(going_on, self._now_s()):
            try:
                prepared = self.prepare_last(scope, fence)
                log.info("CRL %s: last CRL %d prepared", scope.path, prepared.number)
            except (CertStatusError, OSError) as exc:
                failed = failed or exc
        if failed is not None:
            raise failed

    def _now_s(self) -> int:
        return self._now_ms() // 1000


def crl_lease(store: Store, now_ms: Callable[[], int] = clock.now_ms) -> PublisherLease:
    """Return the lease under which CRLs are published, not held yet."""
    return PublisherLease(store, LEASE_NAME, SHORT_LEASE_MS, now_ms=now_ms)
