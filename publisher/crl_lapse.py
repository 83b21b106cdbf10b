"""Recording that entries leave the CRLs: their certificates have ended, and a CRL has said so.

::

    a complete CRL is due ─▶ a run begins: a lot of entries leaves ─▶ CRLs ─▶ the next lot ─▶ ... ─▶ its end

Knows: picking the entries that a rule of ``crl_plan`` lets go, and recording each as a change of
the sequence, in short acts and in lots, so that of millions which leave at once the lock, memory and the CRLs
that are due meanwhile notice little.  The last change of a run says that it is the last, so whoever comes
after one that was killed knows that there is more to do.  An entry revoked only after the CRL that the rule
rests on stays, even if its certificate had ended before: no complete CRL has listed it yet.  Held ones stay
too: what becomes of them is not decided.  That the rule rests on CRLs which were out, and not on what was
registered and never named by a catalogue.  And that what has left does not come back: a certificate must have
ended by a time, too, that a clock set ahead does not carry along (``crl_retention``), for CRLs made meanwhile
say that it has.
Does not know: the rule (``crl_plan``); what a lapse means for deltas (``crl_removals``).
Source: RFC 5280 §3.3; Act arts. 16, 35 (the file holds what is retained at one time).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import sqlalchemy as sa

from certstatus.changes import ChangeKind
from certstatus.crl_catalogue import COMPLETE
from issuance import schema
from issuance.crl_register import CRLRecord, Fence, ScopeKey
from issuance.issuers import IssuerRecord, issuers
from issuance.publisher_fence import check_fence
from issuance.schema import IS_LISTED, CertificateState
from issuance.store import Now, Store
from publisher.crl_catalogue import issued
from publisher.crl_plan import LapseRule, is_lapse_time, lapse
from publisher.crl_recent import newest_query
from publisher.crl_scopes import CRLScope

log = logging.getLogger(__name__)

# Entries that leave before other things get their turn: a second or two.
LOT_ENTRIES = 5_000
# Between acts, so that others waiting for the lock get their turn.
_PAUSE_S = 0.005
# What the last change of a run says, in its ``detail``.
_RUN_ENDED = '{"run": "ended"}'


class CRLLapses:
    """The runs in which entries of one installation leave its lists."""

    def __init__(
        self,
        store: Store,
        scopes: Callable[[], list[CRLScope]],
        now_ms: Callable[[], int],
        passed_s: Callable[[int], int],
    ) -> None:
        """Takes: *scopes*: those of all issuers, read only if it is time; *passed_s*: the time that has
        certainly come (POSIX s) where the clock says its argument."""
        self._store = store
        self._scopes = scopes
        self._now_ms = now_ms
        self._passed_s = passed_s
        # Issuers whose run has more to do; None before the first look.
        self._going_on: set[int] | None = None

    def begin(self, scopes: Collection[CRLScope], fence: Fence) -> None:
        """Record a lot of what leaves, now that complete CRLs of *scopes* are made: of their issuers whose
        time it is, or whose run has more to do.

        Raises: StoreError, FencedOff.
        """
        for issuer in {scope.issuer.issuer_id: scope.issuer for scope in scopes}.values():
            self._lot(issuer, fence)

    def has_more(self) -> bool:
        """Say whether a run that has begun has more to do.  Raises: StoreError."""
        return bool(self._unfinished())

    def go_on(self, fence: Fence) -> None:
        """Record the next lot of each run that has more to do.  Raises: StoreError, FencedOff."""
        if self.has_more():
            for issuer in issuers(self._store):
                if issuer.issuer_id in self._unfinished():
                    self._lot(issuer, fence)

    def _unfinished(self) -> set[int]:
        if self._going_on is None:
            found = [issuer.issuer_id for issuer in issuers(self._store)]
            self._going_on = {issuer_id for issuer_id in found if self._is_cut_short(issuer_id)}
        return self._going_on

    def _is_cut_short(self, issuer_id: int) -> bool:
        last = _last_lapse(self._store, issuer_id)
        return last is not None and last.detail != _RUN_ENDED

    def _lot(self, issuer: IssuerRecord, fence: Fence) -> None:
        """Record a lot, as far as the lists of all the issuer's scopes allow."""
        unfinished = self._unfinished()
        unfinished.discard(issuer.issuer_id)
        rule = self._rule(issuer)
        if rule is None:
            return
        found = _may_leave(self._store, issuer.issuer_id, rule, LOT_ENTRIES + 1)
        leaving, is_last = found[:LOT_ENTRIES], len(found) <= LOT_ENTRIES
        if leaving:
            # Also if this one breaks off.
            unfinished.add(issuer.issuer_id)
            record_lapses(self._store, issuer.issuer_id, leaving, fence, self._now_ms, is_last=is_last)
            rest = "" if is_last else ", more to come"
            name = f"{issuer.service}/g{issuer.generation}"
            log.info("CRLs of %s: %d entries lapsed%s", name, len(leaving), rest)
        if is_last:
            unfinished.discard(issuer.issuer_id)

    def _rule(self, issuer: IssuerRecord) -> LapseRule | None:
        """Return what may leave now; None: nothing."""
        issuer_id, now_s = issuer.issuer_id, self._now_ms() // 1000
        last = _last_lapse(self._store, issuer_id)
        ended_s = last.recorded_ms // 1000 if last is not None and last.detail == _RUN_ENDED else None
        if not is_lapse_time(issuer.policy, now_s, ended_s):
            return None
        shown = newest_shown(self._store, issuer_id)
        newest = [
            shown.get(scope.key)
            for scope in self._scopes()
            if scope.issuer.issuer_id == issuer_id and not scope.is_at_rest(now_s)
        ]
        base_seq = self._store.state().base_seq
        # A CRL of an earlier epoch may list what the store no longer remembers revoking.
        if any(record is not None and record.seq < base_seq for record in newest):
            return None
        rule = lapse([None if record is None else issued(record) for record in newest])
        if rule is None:
            return None
        return rule._replace(ended_before_s=min(rule.ended_before_s, self._passed_s(now_s)))


def newest_shown(store: Store, issuer_id: int) -> dict[ScopeKey, CRLRecord]:
    """Return the newest complete CRL of each of the issuer's scopes that a catalogue has named."""
    query = newest_query(COMPLETE, lambda crl: crl.c.published_ms.is_not(None))
    query = query.where(schema.crl_scope.c.issuer_id == issuer_id)
    with store.reading() as connection:
        rows = [CRLRecord(*row) for row in connection.execute(query) if row.issuer_id is not None]
    return {(record.issuer_id, record.scope): record for record in rows}


def _may_leave(store: Store, issuer_id: int, rule: LapseRule, limit: int) -> Sequence[str]:
    """Return the serial numbers (hex) of at most *limit* entries that *rule* lets go, first what ended first.

    Read without the lock: none of them comes back but by a restore, which begins an epoch of its own.
    """
    table, issuers_table = schema.certificate, schema.issuer
    query = (
        sa.select(table.c.serial)
        .join_from(table, issuers_table)
        .where(
            table.c.issuer_id == issuer_id,
            IS_LISTED,
            table.c.not_after_s < rule.ended_before_s,
            table.c.state == int(CertificateState.REVOKED),
            table.c.revoked_seq <= rule.listed_at_seq,
            sa.not_(never_listed()),
        )
        .order_by(table.c.not_after_s)
        .limit(limit)
    )
    with store.reading() as connection:
        return connection.execute(query).scalars().all()


def record_lapses(
    store: Store, issuer_id: int, leaving: Sequence[str], fence: Fence, now: Now, *, is_last: bool
) -> None:
    """Record that entries leave, each as a change.

    Takes:  *leaving*: serial numbers (hex); *is_last*: after them nothing is left that may leave.
    Raises: StoreError, FencedOff; what was recorded before stays recorded.
    """
    done = 0
    while done < len(leaving):
        with store.writing(now) as act:
            check_fence(act.connection, fence)
            for serial in leaving[done:]:
                done += 1
                detail = _RUN_ENDED if is_last and done == len(leaving) else None
                act.record(
                    ChangeKind.LAPSED, issuer_id=issuer_id, serial=bytes.fromhex(serial), detail=detail
                )
                if act.is_full:
                    break
        time.sleep(_PAUSE_S)


def never_listed() -> sa.ColumnElement[bool]:
    """Select, of certificates joined with their issuers, those whose revocation was never in a CRL.

    A CA-key event lists only what had not ended by then.
    """
    table, issuers = schema.certificate, schema.issuer
    return sa.and_(
        issuers.c.key_event_seq.is_not(None),
        sa.func.coalesce(table.c.revoked_seq, 0) == issuers.c.key_event_seq,
        table.c.not_after_s < issuers.c.key_event_ms / 1000,
    )


def last_lapse_s(store: Store, issuer_id: int) -> int | None:
    """Return when an entry of the issuer last lapsed, POSIX seconds, or None."""
    last = _last_lapse(store, issuer_id)
    return None if last is None else last.recorded_ms // 1000


class _Lapse(NamedTuple):
    recorded_ms: int
    detail: str | None


def _last_lapse(store: Store, issuer_id: int) -> _Lapse | None:
    """Return the issuer's last lapse."""
    table = schema.change
    with store.reading() as connection:
        row = connection.execute(
            sa.select(table.c.recorded_ms, table.c.detail)
            .where(
                table.c.issuer_id == issuer_id,
                schema.IS_REVOCATION,
                table.c.kind == int(ChangeKind.LAPSED),
            )
            .order_by(table.c.seq.desc())
            .limit(1)
        ).one_or_none()
    return None if row is None else _Lapse(*row)
