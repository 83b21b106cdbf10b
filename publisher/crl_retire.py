"""Partitions that need no CRLs any more: closed, every certificate in them ended, every entry left.

::

    closed ─▶ last certificate ends ─▶ a complete CRL after that, entries lapse ─▶ the next one falls due:
      retired instead, a change on record ─▶ what is out stays until its nextUpdate, then leaves the catalogue

Knows: what must be so, each by what cannot be set back: the end of the last certificate by the thisUpdate
of a CRL that was out for its whole period, the entries by the sequence; and that the wall clock must agree,
then and ever after (``CRLScope.is_at_rest``): set back before that end, the partition has CRLs again.
Does not know: when a CRL falls due (``crl_schedule``).  Whoever records a certificate into a closed
partition, an import or a restore, undoes all of it (``Act``); nobody issues into one.
Source: RFC 5280 §3.3 (an entry stays until a CRL after the end), §5.2.5; Act arts. 16, 35 (archived files).

Cost: certificates are in no order of partitions, so the ends of the last ones are looked for once, in a walk
over all certificates without any lock, and written down.
"""

from __future__ import annotations

import json

import sqlalchemy as sa

from certstatus.changes import ChangeKind
from issuance import schema
from issuance.act import RecordedChange
from issuance.crl_register import Fence
from issuance.import_records import UNKNOWN_END_S
from issuance.issuers import publish_issuers
from issuance.publisher_fence import check_fence
from issuance.schema import IS_LISTED
from issuance.store import Now, Store
from publisher.crl_lapse import never_listed
from publisher.crl_plan import IssuedCRL, is_over
from publisher.crl_scopes import CRLScope

GROUND = "CRL partition retired"


def retire_if_over(
    store: Store, scope: CRLScope, complete: IssuedCRL | None, now_s: int, fence: Fence, now: Now
) -> RecordedChange | None:
    """Retire a partition whose next complete CRL has fallen due, if nothing in it needs one.

    Takes:  *complete*: the newest that is out, None if there is none; *now_s*: the clock on the wall.
    Raises: FencedOff, StoreError.
    """
    partition = scope.partition
    if partition is None or partition.closed_seq is None or partition.retired_seq is not None:
        return None
    last_end_s = partition.last_end_s
    if last_end_s is None:
        last_end_s = _find_last_end(store, partition.scope_id, fence, now)
    if not is_over(last_end_s, complete, now_s):
        return None
    seq = store.state().seq
    if _has_entry(store, scope.issuer.issuer_id, partition.scope_id):
        return None
    table = schema.crl_scope
    with store.writing(now) as act:
        check_fence(act.connection, fence)
        current = act.connection.execute(
            sa.select(table.c.last_end_s).where(table.c.scope_id == partition.scope_id)
        ).scalar()
        if current != last_end_s or _has_changed(act.connection, partition.scope_id, seq):
            return None
        recorded = act.record(
            ChangeKind.ISSUERS,
            issuer_id=scope.issuer.issuer_id,
            ground=GROUND,
            detail=json.dumps({"scope": partition.name}, sort_keys=True),
        )
        act.connection.execute(
            sa.update(table).where(table.c.scope_id == partition.scope_id).values(retired_seq=recorded.seq)
        )
        publish_issuers(act)
    return recorded


def _find_last_end(store: Store, scope_id: int, fence: Fence, now: Now) -> int | None:
    """Find when the last certificate of a closed partition ends, and note it; None: others came meanwhile.

    Of all closed ones at once, for there may be thousands.  Of one known by CRLs alone nobody can say.
    """
    table, scopes = schema.certificate, schema.crl_scope
    with store.reading(repeatable=True) as connection:
        closed = sa.select(scopes.c.scope_id, scopes.c.last_end_s).where(scopes.c.closed_seq.is_not(None))
        known = {row.scope_id: row.last_end_s for row in connection.execute(closed)}
        if known.get(scope_id) is not None:
            return int(known[scope_id])
        seq = connection.execute(sa.select(schema.store_state.c.seq)).scalar_one()
        unknown = sa.select(scopes.c.scope_id).where(
            scopes.c.closed_seq.is_not(None), scopes.c.last_end_s.is_(None)
        )
        ends = {
            row.scope_id: int(row.last_end_s)
            for row in connection.execute(
                sa.select(table.c.scope_id, sa.func.max(table.c.not_after_s).label("last_end_s"))
                .where(table.c.scope_id.in_(unknown))
                .group_by(table.c.scope_id)
            )
        }
    with store.writing(now) as act:
        check_fence(act.connection, fence)
        later = set(
            act.connection.execute(
                sa.select(table.c.scope_id).where(table.c.issued_seq > seq, table.c.scope_id.is_not(None))
            ).scalars()
        )
        found = {
            each: ends.get(each, UNKNOWN_END_S)
            for each, last_end_s in known.items()
            if last_end_s is None and each not in later
        }
        for each, last_end_s in found.items():
            act.connection.execute(
                sa.update(scopes).where(scopes.c.scope_id == each).values(last_end_s=last_end_s)
            )
    return found.get(scope_id)


def _has_entry(store: Store, issuer_id: int, scope_id: int) -> bool:
    """Say whether anything in the partition is on its CRLs, or will be with the next one."""
    table, issuers = schema.certificate, schema.issuer
    with store.reading() as connection:
        found = connection.execute(
            sa.select(table.c.issued_seq)
            .join_from(table, issuers)
            .where(
                table.c.issuer_id == issuer_id,
                IS_LISTED,
                table.c.scope_id == scope_id,
                sa.not_(never_listed()),
            )
            .limit(1)
        ).first()
    return found is not None


def _has_changed(connection: sa.Connection, scope_id: int, after_seq: int) -> bool:
    """Say whether something happened to a certificate of the partition after a number, or to its key."""
    table, certificates = schema.change, schema.certificate
    found = connection.execute(
        sa.select(table.c.seq)
        .select_from(table.outerjoin(certificates, certificates.c.issued_seq == table.c.certificate_seq))
        .where(
            table.c.seq > after_seq,
            sa.or_(certificates.c.scope_id == scope_id, table.c.kind == int(ChangeKind.CA_KEY_EVENT)),
        )
        .limit(1)
    ).first()
    return found is not None
