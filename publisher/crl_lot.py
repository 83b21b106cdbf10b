"""A lot of scopes: their CRLs are made at one cut, numbered together and recorded together.

::

    unfinished ones withdrawn ─▶ what is out ─▶ lapses recorded ─▶ numbers of all + one cut (one transaction)
      ─▶ scope by scope: files made and checked (crl_write) ─▶ all on disk at once, under their names
      ─▶ register: all that went well published (one transaction), the numbers of the others withdrawn

So a transaction is paid for by many, and an unchanged scope costs its signature and its files.  A lot is no
larger than that: ``SCOPES_MAX`` numbers are given out within a few milliseconds under the store's lock, and
nothing of a lot is out before all of it is made; ``OCTETS_MAX`` of lists are a second or two of work, so much
older than its signature the cut of the last scope may be.  A longer list is a lot of its own.

Knows: the order of these steps; that a scope which fails takes no other with it, and its number stays used;
that whoever has lost the lease records nothing of the lot; that two CRLs of a scope do not show the same
thisUpdate.
Does not know: how files are made, what is due, the catalogue.
Source: RFC 5280 §5.2.3-5.2.4; Act arts. 16, 35.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from certstatus.crl_catalogue import COMPLETE, DELTA
from certstatus.durable import sync_all
from certstatus.errors import CertStatusError, FencedOff, PolicyViolation, StoreAway
from issuance.ca_keys import CAKeyFolder
from issuance.crl_register import (
    LAST_NUMBER_MIN,
    AllocatedCRL,
    CRLKey,
    CRLRecord,
    Fence,
    ScopeKey,
    SignedCRL,
    WantedCRL,
)
from issuance.store import Store
from publisher.crl_catalogue import issued
from publisher.crl_expired import kept_from_s, of_same_extent
from publisher.crl_plan import Due, IssuedCRL, choose_base
from publisher.crl_removals import last_shown_removals
from publisher.crl_scopes import CRLScope
from publisher.crl_shelf import CRLShelf
from publisher.crl_write import CRLWork, CRLWriter, WrittenCRL

log = logging.getLogger(__name__)

SCOPES_MAX = 64
OCTETS_MAX = 32 << 20
_LATER_SECOND_S_MAX = 1.2

# A scope, and what is to be made of it.
Order = tuple[CRLScope, Due]
_T = TypeVar("_T")


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


class _InPlace(NamedTuple):
    """A file under its own name, not recorded yet."""

    written: WrittenCRL
    size: int


def lots(orders: Iterable[Order], octets: Callable[[CRLScope], int]) -> Iterator[list[Order]]:
    """Yield *orders* in lots, in their order.

    Takes: *octets*: how long a scope's list is, as far as anybody knows.
    """
    lot: list[Order] = []
    total = 0
    for order in orders:
        own = octets(order[0])
        if lot and (len(lot) == SCOPES_MAX or total + own > OCTETS_MAX):
            yield lot
            lot, total = [], 0
        lot.append(order)
        total += own
    if lot:
        yield lot


class CRLLots:
    """Makes the lots of one installation."""

    def __init__(
        self,
        store: Store,
        keys: CAKeyFolder,
        shelf: CRLShelf,
        writer: CRLWriter,
        lapse: Callable[[Collection[CRLScope], Fence], None],
        *,
        now_ms: Callable[[], int],
        pause: Callable[[float], None],
    ) -> None:
        self._store = store
        self._keys = keys
        self._shelf = shelf
        self._writer = writer
        self._lapse = lapse
        self._now_ms = now_ms
        self._pause = pause

    def make(self, lot: Sequence[Order], fence: Fence) -> dict[str, list[PublishedCRL] | Exception]:
        """Make a complete CRL, a delta, or both of each scope and register them; a complete one also where no
        base is left for a delta.

        Takes:  each scope once.
        Gives:  by path, in the order of *lot*: what was made, or what kept this scope's CRLs from being made.
        Raises: StoreAway, FencedOff — then it is no scope's trouble, and nothing of the lot is published.
        """
        outcomes: dict[str, list[PublishedCRL] | Exception] = {scope.path: [] for scope, _ in lot}
        ready = []
        for (scope, want), trouble in zip(lot, self._troubles(lot), strict=True):
            if trouble is None:
                ready.append((scope, want))
            else:
                outcomes[scope.path] = trouble
        if not ready:
            return outcomes
        scopes = [scope for scope, _ in ready]
        self.withdraw_unfinished(scopes, fence)
        current = self._shelf.current(scopes, self._now_ms() // 1000)
        self._wait_for_later_second(current.values())
        self._lapse([scope for scope, want in ready if want.complete], fence)
        try:
            works, again = self._allocated(ready, current, fence)
            outcomes |= self._published(works, fence)
        except BaseException:
            # Of what cannot be withdrawn now, whoever comes next makes sure.
            with suppress(CertStatusError, OSError):
                self.withdraw_unfinished(scopes, fence)
            raise
        if again:
            outcomes |= self.make(again, fence)
        return outcomes

    def withdraw_unfinished(self, scopes: Collection[CRLScope], fence: Fence) -> None:
        """Withdraw what was allocated and never finished, here or by a publisher that was killed."""
        by_key = {scope.key: scope for scope in scopes}
        records = self._store.unfinished_crls(list(by_key))
        self._withdraw([(by_key[record.issuer_id, record.scope], record.key) for record in records], fence)

    def _withdraw(self, crls: Collection[tuple[CRLScope, CRLKey]], fence: Fence) -> None:
        if not crls:
            return
        self._store.withdraw_crls([key for _, key in crls], fence)
        # Only now: what the register may still call published keeps its file.
        for scope, key in crls:
            try:
                self._shelf.path(scope, key.kind, key.number).unlink(missing_ok=True)
            except OSError as exc:
                # It is in no catalogue, and tidying removes what is in none.
                log.error("CRL %s: %s", scope.path, exc)
            log.warning("CRL %s %s %d withdrawn", scope.path, key.kind, key.number)

    # --- before numbers are given out ------------------------------------------------------------------

    def _troubles(self, lot: Sequence[Order]) -> Iterator[Exception | None]:
        """Yield, scope by scope, what must not use up a number for nothing."""
        numbers = self._store.last_crl_numbers([scope.key for scope, _ in lot])
        for scope, _ in lot:
            is_at_rest = scope.is_at_rest(self._now_ms() // 1000)
            if is_at_rest or numbers.get(scope.key, 0) >= LAST_NUMBER_MIN:
                yield PolicyViolation(f"{scope.path}: its last CRL is out, no other follows")
                continue
            try:
                self._keys.private_key(scope.issuer.issuer_id)
            except (CertStatusError, OSError) as exc:
                yield exc
            else:
                yield None

    def _wait_for_later_second(self, current: Iterable[list[CRLRecord]]) -> None:
        """Let the clock pass the newest thisUpdate of each scope, once for all of them.

        Bounded: after the wall clock was set back, the store's time stands still for longer.
        """
        now_s = self._now_ms() / 1000
        left_s = [max((record.this_update_s for record in mine), default=0) + 1 - now_s for mine in current]
        pause_s = max((each for each in left_s if 0 < each <= _LATER_SECOND_S_MAX), default=0.0)
        if pause_s:
            self._pause(pause_s)

    # --- numbers, the cut, and bases -------------------------------------------------------------------

    def _allocated(
        self, ready: Sequence[Order], current: dict[str, list[CRLRecord]], fence: Fence
    ) -> tuple[list[CRLWork], list[Order]]:
        """Give out numbers; return what is to be made under them, and what has to be tried again."""
        issuers = {scope.issuer.issuer_id: scope.issuer for scope, _ in ready}
        kept_from = {number: kept_from_s(self._store, issuer) for number, issuer in issuers.items()}
        completes = {
            scope.path: [
                issued(record)
                for record in current[scope.path]
                if record.kind == COMPLETE
                and of_same_extent(
                    self._shelf.path(scope, COMPLETE, record.number),
                    record,
                    kept_from[scope.issuer.issuer_id],
                )
            ]
            for scope, _ in ready
        }
        now_s, state = self._now_ms() // 1000, self._store.state()
        # After a restore, CRLs may be out that the store knows nothing of: nothing before it is a base.
        cut_offs = {scope.key: state.base_seq for scope, _ in ready}
        oldest = min((each.seq for mine in completes.values() for each in mine), default=state.seq)
        self._move_cut_offs(cut_offs, ready, oldest, state.seq)
        wanted = []
        for scope, want in ready:
            base = choose_base(completes[scope.path], now_s, LAST_NUMBER_MIN, cut_offs[scope.key])
            kinds = [COMPLETE] if want.complete or base is None else []
            wanted.append(WantedCRL(*scope.key, kinds if base is None else [*kinds, DELTA]))
        allocated = self._store.allocate_crls(wanted, fence, self._now_ms)
        # Something may have taken an entry away between the look and the cut.
        self._move_cut_offs(cut_offs, ready, state.seq, allocated[0].seq)
        works, again, lost = [], [], []
        for (scope, _), asked, given in zip(ready, wanted, allocated, strict=True):
            base = _base(completes[scope.path], given, cut_offs[scope.key])
            kinds = [kind for kind in asked.kinds if kind == COMPLETE or base is not None]
            if len(kinds) < len(asked.kinds):
                lost.append((scope, CRLKey(*scope.key, given.number, DELTA)))
            if kinds:
                from_s = kept_from[scope.issuer.issuer_id]
                works.append(CRLWork(scope, kinds, given, base, current[scope.path], from_s))
            else:
                again.append((scope, Due(True, True)))
        self._withdraw(lost, fence)
        return works, again

    def _move_cut_offs(
        self, cut_offs: dict[ScopeKey, int], ready: Sequence[Order], after_seq: int, upto_seq: int
    ) -> None:
        """Move, where no delta may say removeFromCRL, the cut-offs to the last removal that was shown."""
        scopes = [scope for scope, _ in ready if not scope.issuer.policy.hold]
        if scopes and upto_seq > after_seq:
            removals = last_shown_removals(self._store, scopes, after_seq, upto_seq)
            cut_offs |= {key: max(cut_offs[key], seq) for key, seq in removals.items()}

    # --- files and the register ------------------------------------------------------------------------

    def _published(self, works: Sequence[CRLWork], fence: Fence) -> dict[str, list[PublishedCRL] | Exception]:
        """Make the files of all, put them into their places, and record those that went well."""
        together = _tried("lot", partial(self._writer.prepare, works))
        outcomes: dict[str, list[PublishedCRL] | Exception] = {}
        made: dict[str, list[_InPlace]] = {}
        signed: list[SignedCRL] = []
        failed: list[tuple[CRLScope, CRLKey]] = []
        for work, files in zip(works, self._in_place(works, together is not None, fence), strict=True):
            scope = work.scope
            if isinstance(files, Exception):
                outcomes[scope.path] = files
                failed += [(scope, CRLKey(*scope.key, work.allocated.number, kind)) for kind in work.kinds]
                continue
            made[scope.path] = files
            signed += [_signed(scope, file) for file in files]
        self._store.record_crls(signed, fence)
        for work in works:
            if work.scope.path in made:
                outcomes[work.scope.path] = [_told(work.scope, file) for file in made[work.scope.path]]
                trouble = _tried(work.scope.path, partial(self._writer.tidy, work))
                if trouble is not None:
                    log.error("CRL %s: %s", work.scope.path, trouble)
        self._withdraw(failed, fence)
        return outcomes

    def _in_place(
        self, works: Sequence[CRLWork], alone: bool, fence: Fence
    ) -> list[list[_InPlace] | Exception]:
        """Make the files of each; on return they are durable under their names, and nobody is given them.

        All are synced at once, before they get their names, and so are the names.
        Takes: *alone*: what the lot needs could not be had for all at once, so each tells its own trouble.
        """
        made: list[list[_InPlace] | Exception] = []
        try:
            made.extend(_tried(work.scope.path, partial(self._made, work, alone, fence)) for work in works)
            made = _synced(made, lambda file: file.written.hidden)
            made = [
                files if isinstance(files, Exception) else _tried(work.scope.path, partial(_renamed, files))
                for work, files in zip(works, made, strict=True)
            ]
            made = _synced(made, lambda file: file.written.path.parent)
        except BaseException:
            for files in made:
                _remove_hidden(files)
            raise
        return made

    def _made(self, work: CRLWork, alone: bool, fence: Fence) -> list[_InPlace]:
        if alone:
            self._writer.prepare([work])
        written = self._writer.write(work, fence, synced=False)
        return [_InPlace(each, each.hidden.stat().st_size) for each in written]


def _synced(
    made: list[list[_InPlace] | Exception], place: Callable[[_InPlace], Path]
) -> list[list[_InPlace] | Exception]:
    """Sync a place of each file, and return what was made, or what kept it from that."""
    places = {place(file) for files in made if not isinstance(files, Exception) for file in files}
    troubles = sync_all(places)
    if not troubles:
        return made
    outcomes: list[list[_InPlace] | Exception] = []
    for files in made:
        own = [] if isinstance(files, Exception) else [troubles.get(place(file)) for file in files]
        trouble = next((each for each in own if each is not None), None)
        if trouble is not None:
            _remove_hidden(files)
        outcomes.append(files if trouble is None else trouble)
    return outcomes


def _renamed(files: list[_InPlace]) -> list[_InPlace]:
    try:
        for file in files:
            file.written.hidden.rename(file.written.path)
    except BaseException:
        _remove_hidden(files)
        raise
    return files


def _remove_hidden(files: list[_InPlace] | Exception) -> None:
    if not isinstance(files, Exception):
        for file in files:
            file.written.hidden.unlink(missing_ok=True)


def _base(completes: Sequence[IssuedCRL], given: AllocatedCRL, cut_off_seq: int) -> IssuedCRL | None:
    return choose_base(completes, given.this_update_s, given.number, cut_off_seq)


def _tried(what: str, step: Callable[[], _T]) -> _T | Exception:
    """Return what *step* gives, or what kept it from that, so that other scopes go on.

    Raises: StoreAway, FencedOff — then it is no scope's trouble.
    """
    try:
        return step()
    except (StoreAway, FencedOff):
        raise
    except (CertStatusError, OSError) as exc:
        return exc
    except Exception as exc:
        # A bug that one scope shows is no reason for the others to stop; it is loud in the log.
        log.exception("CRL %s", what)
        return exc


def _signed(scope: CRLScope, file: _InPlace) -> SignedCRL:
    written, head = file.written, file.written.head
    key = CRLKey(*scope.key, head.number, written.kind)
    return SignedCRL(key, head.base_number, head.next_update_s, written.sha256, file.size)


def _told(scope: CRLScope, file: _InPlace) -> PublishedCRL:
    written, head = file.written, file.written.head
    log.info(
        "CRL %s %s %d%s: %d entries, %d bytes",
        scope.path,
        written.kind,
        head.number,
        "" if head.base_number is None else f" on {head.base_number}",
        written.entries,
        file.size,
    )
    return PublishedCRL(
        scope.path,
        written.kind,
        head.number,
        head.base_number,
        written.path,
        head.this_update_s,
        head.next_update_s,
        written.entries,
    )
