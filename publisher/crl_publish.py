"""Issuing CRLs: numbers, cuts, files, pointers; on the schedule or at once.

::

    lapses recorded ─▶ number + cut (one transaction) ─▶ entries at the cut ─▶ file, checked
      ─▶ rename, archive ─▶ register: published ─▶ catalogue ─▶ next beat

Knows: the order of these steps, that each is done under a short lease with a fence, and that a
CRL which fails anywhere is withdrawn: its number stays used, and what was published stays current.
Does not know: when something is due and over which base (``crl_plan``), or how bytes are made.
Source: RFC 5280 §5.2.3-5.2.4; Act arts. 16, 35.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from certstatus import clock
from certstatus.config import Config
from certstatus.crl import ParsedCRL
from certstatus.crl_catalogue import COMPLETE, DELTA
from certstatus.crl_entry import CRLEntry
from certstatus.durable import sync_folder
from certstatus.errors import UnknownCertificate
from issuance.ca_keys import CAKeyFolder
from issuance.crl_register import ALLOCATED, AllocatedCRL, CRLRecord, Fence
from issuance.issuers import issuers
from issuance.store import Store
from publisher.crl_catalogue import catalogue_entries, issued, publish_catalogue, remove_unlisted
from publisher.crl_entries import Entries, delta_entries, fold
from publisher.crl_lapse import last_lapse_s, last_removal, record_lapses
from publisher.crl_make import CRLHead, make_crl, read_and_check, write_hidden
from publisher.crl_plan import Due, IssuedCRL, choose_base, due, lapse, next_update_s
from publisher.crl_scopes import CRLFolders, CRLScope
from publisher.crl_shelf import CRLShelf
from publisher.lease import SHORT_LEASE_MS, PublisherLease, held

log = logging.getLogger(__name__)

LEASE_NAME = "crl"
_LATER_SECOND_S_MAX = 1.2


class PublishedCRL(NamedTuple):
    """A CRL that was just published."""

    scope: str
    kind: str
    number: int
    base_number: int | None
    file: Path
    this_update_s: int
    next_update_s: int
    entries: int


class CRLPublisher:
    """The CRLs of one installation."""

    def __init__(
        self,
        store: Store,
        keys: CAKeyFolder,
        state: Path,
        *,
        now_ms: Callable[[], int] = clock.now_ms,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._store = store
        self._keys = keys
        self._shelf = CRLShelf(store, CRLFolders(state))
        self._now_ms = now_ms
        self._pause = pause

    # --- what is due -----------------------------------------------------------------------------------

    def scopes(self) -> list[CRLScope]:
        """Return the scopes of the issuers that revoke here, each once its import (if any) has ended."""
        return [
            CRLScope(record)
            for record in issuers(self._store)
            # Half an import would make a CRL that lacks the other half.
            if record.revokes_here and record.is_ready
        ]

    def due(self, scope: CRLScope) -> Due:
        """Return what the schedule asks for now."""
        records = self._shelf.current(scope, self._now_s())
        newest = {
            kind: max((issued(record) for record in records if record.kind == kind), default=None)
            for kind in (COMPLETE, DELTA)
        }
        return due(scope.issuer.policy, self._now_s(), newest[COMPLETE], newest[DELTA])

    # --- issuing ---------------------------------------------------------------------------------------

    def issue_due(self, scope: CRLScope, fence: Fence) -> list[PublishedCRL]:
        """Issue what the schedule asks for now; raises as ``issue``."""
        want = self.due(scope)
        return self.issue(scope, want, fence) if want.complete or want.delta else []

    def issue(self, scope: CRLScope, want: Due, fence: Fence) -> list[PublishedCRL]:
        """Issue a complete CRL, a delta, or both; a complete one also if no base is left for a delta.

        Raises: KeyFileError — the CA key is not at hand; CRLCheckFailed; IntegrityError — the base's file
                is damaged; OSError; FencedOff.  What was published before stays so.
        """
        # Before a number is used up for nothing.
        self._keys.private_key(scope.issuer.issuer_id)
        self._withdraw_unfinished(scope, fence)
        current = self._shelf.current(scope, self._now_s())
        self._wait_for_later_second(current)
        completes = [issued(record) for record in current if record.kind == COMPLETE]
        if want.complete:
            self._lapse(scope, max(completes, default=None))
        has_base = self._base(scope, completes, self._now_s(), None) is not None
        kinds = [COMPLETE] if want.complete or not has_base else []
        kinds += [DELTA] if has_base else []
        allocated = self._store.allocate_crl_number(
            scope.issuer.issuer_id, scope.name, kinds, fence, self._now_ms
        )
        base = self._base(scope, completes, allocated.this_update_s, allocated)
        if base is None and DELTA in kinds:
            # Something took an entry away between the look and the cut.
            self._store.withdraw_crl(scope.issuer.issuer_id, scope.name, allocated.number, DELTA, fence)
            kinds.remove(DELTA)
            if not kinds:
                return self.issue(scope, Due(True, True), fence)
        try:
            made = self._make(scope, kinds, allocated, base, current)
            published = [self._publish(scope, item, allocated, fence) for item in made]
        except BaseException:
            self._withdraw_unfinished(scope, fence)
            raise
        for record in self._shelf.current(scope, self._now_s()):
            self._shelf.archive(scope, record)
        self._publish_catalogue(fence)
        for item in published:
            log.info(
                "CRL %s %s %d%s: %d entries, %d bytes",
                scope.path,
                item.kind,
                item.number,
                "" if item.base_number is None else f" on {item.base_number}",
                item.entries,
                item.file.stat().st_size,
            )
        return published

    def _lapse(self, scope: CRLScope, complete: IssuedCRL | None) -> None:
        issuer_id = scope.issuer.issuer_id
        # A CRL of an earlier epoch may list what the store no longer remembers revoking.
        if complete is not None and complete.seq < self._store.state().base_seq:
            return
        rule = lapse(scope.issuer.policy, self._now_s(), complete, last_lapse_s(self._store, issuer_id))
        if rule is not None:
            count = record_lapses(self._store, issuer_id, rule, self._now_ms)
            if count:
                log.info("CRL %s: %d entries lapsed", scope.path, count)

    def _base(
        self, scope: CRLScope, completes: list[IssuedCRL], this_update_s: int, allocated: AllocatedCRL | None
    ) -> IssuedCRL | None:
        state = self._store.state()
        # After a restore, CRLs may be out that the store knows nothing of: nothing before it is a base.
        cut_off = state.base_seq
        if not scope.issuer.policy.hold:
            upto = state.seq if allocated is None else allocated.seq
            cut_off = max(cut_off, last_removal(self._store, scope.issuer.issuer_id, upto))
        number = 1 << 62 if allocated is None else allocated.number
        return choose_base(completes, this_update_s, number, cut_off)

    def _wait_for_later_second(self, current: list[CRLRecord]) -> None:
        """Let the clock pass the newest thisUpdate, so that two CRLs do not show the same one.

        Bounded: after the wall clock was set back, the store's time stands still for longer.
        """
        newest_s = max((record.this_update_s for record in current), default=0)
        left_s = newest_s + 1 - self._now_ms() / 1000
        if 0 < left_s <= _LATER_SECOND_S_MAX:
            self._pause(left_s)

    def _withdraw_unfinished(self, scope: CRLScope, fence: Fence) -> None:
        """Withdraw what was allocated and never finished, here or by a publisher that was killed."""
        for record in self._store.crls(scope.issuer.issuer_id, scope.name, state=ALLOCATED):
            self._store.withdraw_crl(record.issuer_id, record.scope, record.number, record.kind, fence)
            self._shelf.path(scope, record.kind, record.number).unlink(missing_ok=True)
            log.warning("CRL %s %s %d withdrawn", scope.path, record.kind, record.number)

    # --- files -----------------------------------------------------------------------------------------

    def _make(
        self,
        scope: CRLScope,
        kinds: list[str],
        allocated: AllocatedCRL,
        base: IssuedCRL | None,
        current: list[CRLRecord],
    ) -> list[_Made]:
        """Write the files under hidden names and check them from their bytes, the complete CRL first."""
        issuer_id, seq = scope.issuer.issuer_id, allocated.seq
        completes = [record for record in current if record.kind == COMPLETE]
        base_crl = None
        if base is not None:
            base_crl = self._shelf.read(scope, next(r for r in completes if r.number == base.number))
        if COMPLETE in kinds:
            entries = fold(self._store.revocation_changes(issuer_id, 0, seq))
        else:
            entries = self._entries_at(scope, completes, base_crl, seq)
        made: list[_Made] = []
        try:
            for kind in kinds:
                if kind == COMPLETE:
                    head = self._head(scope, kind, allocated, None, current)
                    made.append(self._make_one(scope, kind, head, entries.values(), entries, None))
                else:
                    assert base is not None
                    assert base_crl is not None
                    head = self._head(scope, kind, allocated, base.number, current)
                    shown_at = self._shelf.cuts_between(scope, base.number, allocated.number)
                    changes = self._store.revocation_changes(issuer_id, base.seq, seq)
                    says = delta_entries(_by_serial(base_crl), changes, shown_at)
                    made.append(self._make_one(scope, kind, head, says, entries, base_crl))
        except BaseException:
            for item in made:
                item.hidden.unlink(missing_ok=True)
            raise
        return made

    def _entries_at(
        self, scope: CRLScope, completes: list[CRLRecord], base_crl: ParsedCRL | None, seq: int
    ) -> Entries:
        """Return the list at *seq* by another way than the delta's, if there is one that is not longer:
        from the newest complete CRL rather than from the base; with only one, from the beginning."""
        issuer_id = scope.issuer.issuer_id
        newest = max(completes, key=lambda record: record.number)
        if base_crl is None or newest.number == base_crl.number:
            return fold(self._store.revocation_changes(issuer_id, 0, seq))
        start = _by_serial(self._shelf.read(scope, newest))
        return fold(self._store.revocation_changes(issuer_id, newest.seq, seq), start)

    def _head(
        self,
        scope: CRLScope,
        kind: str,
        allocated: AllocatedCRL,
        base_number: int | None,
        current: list[CRLRecord],
    ) -> CRLHead:
        policy = scope.issuer.policy
        validity_s = policy.crl_validity_s if kind == COMPLETE else policy.delta_validity_s
        earlier = [issued(record) for record in current if record.kind == kind]
        until_s = next_update_s(allocated.this_update_s, validity_s, earlier)
        return CRLHead(allocated.number, base_number, allocated.this_update_s, until_s)

    def _make_one(
        self,
        scope: CRLScope,
        kind: str,
        head: CRLHead,
        says: Iterable[CRLEntry],
        expected: Mapping[bytes, CRLEntry],
        base_crl: ParsedCRL | None,
    ) -> _Made:
        crl_der = make_crl(scope, head, says, self._keys.private_key(scope.issuer.issuer_id))
        path = self._shelf.path(scope, kind, head.number)
        hidden = write_hidden(path, crl_der)
        try:
            parsed = read_and_check(hidden, scope, head, expected, base_crl)
        except BaseException:
            hidden.unlink(missing_ok=True)
            raise
        return _Made(kind, head, hidden, path, hashlib.sha256(crl_der).digest(), len(parsed.entries))

    def _publish(self, scope: CRLScope, made: _Made, allocated: AllocatedCRL, fence: Fence) -> PublishedCRL:
        size = made.hidden.stat().st_size
        made.hidden.rename(made.path)
        sync_folder(made.path.parent)
        self._store.record_crl(
            scope.issuer.issuer_id,
            scope.name,
            allocated.number,
            made.kind,
            base_number=made.head.base_number,
            next_update_s=made.head.next_update_s,
            sha256=made.sha256,
            size=size,
            fence=fence,
        )
        return PublishedCRL(
            scope.path,
            made.kind,
            made.head.number,
            made.head.base_number,
            made.path,
            made.head.this_update_s,
            made.head.next_update_s,
            made.entries,
        )

    # --- catalogue and old files -----------------------------------------------------------------------

    def _publish_catalogue(self, fence: Fence) -> None:
        entries = [
            entry
            for scope in self.scopes()
            for entry in catalogue_entries(scope, self._shelf.current(scope, self._now_s()))
        ]
        publish_catalogue(self._store, entries, fence, self._now_ms)

    def tidy(self, fence: Fence) -> None:
        """Publish the catalogue if it changed, complete the archive, remove files long over."""
        self._publish_catalogue(fence)
        for scope in self.scopes():
            for record in self._shelf.current(scope, self._now_s()):
                self._shelf.archive(scope, record)
            kept = self._shelf.kept(scope, self._now_s())
            for path in remove_unlisted(self._shelf.folders.crl, scope, kept):
                log.info("%s removed", path)

    def _now_s(self) -> int:
        return self._now_ms() // 1000


class _Made(NamedTuple):
    """A finished file that nobody can see yet."""

    kind: str
    head: CRLHead
    hidden: Path
    path: Path
    sha256: bytes
    entries: int


def crl_lease(store: Store, now_ms: Callable[[], int] = clock.now_ms) -> PublisherLease:
    """Return the lease under which CRLs are published, not held yet."""
    return PublisherLease(store, LEASE_NAME, SHORT_LEASE_MS, now_ms=now_ms)


def publish_now(
    config: Config,
    *,
    service: str | None = None,
    wait_s: float = 30.0,
    now_ms: Callable[[], int] = clock.now_ms,
) -> list[PublishedCRL]:
    """Issue a complete and a delta CRL of every issuer (of *service*) now, also while a builder runs.

    Gives:  what was published.  Where nothing can be the delta's base yet, the delta follows a second
            later on the complete CRL just made.
    Raises: LeaseHeld — another publisher was still at it after *wait_s*; UnknownCertificate — no such
            service; KeyFileError, CRLCheckFailed, OSError: the scopes before the failing one are done.
    """
    with Store.open(config.store_url) as store, held(crl_lease(store, now_ms), wait_s) as fence:
        publisher = CRLPublisher(store, CAKeyFolder(config.state / "ca"), config.state, now_ms=now_ms)
        scopes = [scope for scope in publisher.scopes() if service in (None, scope.issuer.service)]
        if not scopes:
            raise UnknownCertificate("no issuer yet" if service is None else f"no issuer of {service}")
        published: list[PublishedCRL] = []
        for scope in scopes:
            done = publisher.issue(scope, Due(True, True), fence)
            if all(item.kind != DELTA for item in done):
                done += publisher.issue(scope, Due(False, True), fence)
            published += done
        return published


def _by_serial(crl: ParsedCRL) -> Entries:
    return {entry.serial: entry for entry in crl.entries}
