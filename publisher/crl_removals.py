"""Which removals cut off the bases of which scopes: those whose entry some CRL of the scope has shown.

::

    entered ──▶ a CRL of the scope is cut: it shows the entry ──▶ removed     a base from before it would need
                                                                              removeFromCRL in every delta
    entered ──▶ removed                                                       nobody has seen it: no matter

Knows: that a partition's list loses only what was issued into it, and when an entry had come, by a change of
its own or by a CA-key event.
Does not know: for whose policy that matters (``crl_lot``), or when entries leave (``crl_lapse``).
Source: RFC 5280 §5.2.4, §5.3.1 (removeFromCRL).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa

from certstatus.changes import ChangeKind
from issuance import schema
from issuance.crl_register import LAST_NUMBER_MIN, ScopeKey
from issuance.store import Store
from publisher.crl_scopes import CRLScope

_REMOVALS = (int(ChangeKind.LAPSED), int(ChangeKind.RELEASED))
_ENTRIES = (int(ChangeKind.REVOKED), int(ChangeKind.HELD))

_REMOVAL = schema.change.alias("removal")


def last_shown_removals(
    store: Store, scopes: Collection[CRLScope], after_seq: int, upto_seq: int
) -> dict[ScopeKey, int]:
    """Return, by scope, the number of the last change in (after_seq, upto_seq] that took away an entry which
    some CRL of the scope had shown; scopes without one are left out.

    Any delta over a base from before it would have to say removeFromCRL.  What came and went between two
    CRLs of the scope is none of them; a CRL that was begun and withdrawn counts as having shown it.
    Asks:   once for all partitions, and once for each list that is its issuer's whole.
    """
    window = {"after_seq": after_seq, "upto_seq": upto_seq}
    by_id = {scope.partition_id: scope for scope in scopes if scope.partition_id is not None}
    found: dict[ScopeKey, int] = {}
    with store.reading(repeatable=True) as connection:
        if by_id:
            issuer_ids = {scope.issuer.issuer_id for scope in by_id.values()}
            query = _IN_PARTITIONS.where(
                _REMOVAL.c.issuer_id.in_(issuer_ids), schema.certificate.c.scope_id.in_(by_id.keys())
            )
            for row in connection.execute(query, window):
                found[by_id[row.scope_id].key] = row.last_seq
        for scope in scopes:
            if scope.partition_id is None:
                of_whole = window | {"issuer_id": scope.issuer.issuer_id, "scope": scope.name}
                seq = connection.execute(_IN_WHOLE, of_whole).scalar()
                if seq is not None:
                    found[scope.key] = int(seq)
    return found


def _is_shown(scope: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    """Say that the last CRL of *scope* that was cut before the removal had the entry that it took away."""
    removal, issuers = _REMOVAL, schema.issuer
    left_before = schema.change.alias("left_before")
    entry, cut = schema.change.alias("entry"), schema.crl.alias("cut")
    left_seq = (
        sa.select(sa.func.coalesce(sa.func.max(left_before.c.seq), 0))
        .where(
            left_before.c.certificate_seq == removal.c.certificate_seq,
            left_before.c.seq < removal.c.seq,
            left_before.c.kind.in_(_REMOVALS),
        )
        .correlate(removal)
        .scalar_subquery()
    )
    # Held and then revoked: listed since the hold.
    own_seq = (
        sa.select(sa.func.min(entry.c.seq))
        .where(
            entry.c.certificate_seq == removal.c.certificate_seq,
            entry.c.seq < removal.c.seq,
            entry.c.kind.in_(_ENTRIES),
            entry.c.seq > left_seq,
        )
        .correlate(removal)
        .scalar_subquery()
    )
    # What was issued after the event has nothing to do with it.
    is_of_event = sa.and_(
        issuers.c.key_event_seq.is_not(None),
        removal.c.certificate_seq < issuers.c.key_event_seq,
        issuers.c.key_event_seq > left_seq,
    )
    cut_seq = (
        sa.select(cut.c.seq)
        .where(
            cut.c.issuer_id == removal.c.issuer_id,
            cut.c.scope == scope,
            cut.c.seq < removal.c.seq,
            # What is prepared as the last one has shown nothing to anybody, and its number is beyond all.
            cut.c.number < LAST_NUMBER_MIN,
        )
        # Numbers and cuts rise together, and numbers are what the index has.
        .order_by(cut.c.number.desc())
        .limit(1)
        .correlate(removal, schema.crl_scope)
        .scalar_subquery()
    )
    return sa.or_(
        cut_seq >= own_seq,
        sa.and_(is_of_event, cut_seq >= issuers.c.key_event_seq),
        # Nobody knows when it came: as if it had always been there.
        sa.and_(own_seq.is_(None), sa.not_(is_of_event), cut_seq.is_not(None)),
    )


def _removals(*columns: sa.ColumnElement[Any]) -> sa.Select[Any]:
    removal = _REMOVAL
    return sa.select(*columns).where(
        schema.IS_REVOCATION,
        removal.c.kind.in_(_REMOVALS),
        removal.c.seq > sa.bindparam("after_seq"),
        removal.c.seq <= sa.bindparam("upto_seq"),
    )


_IN_PARTITIONS = (
    _removals(schema.certificate.c.scope_id, sa.func.max(_REMOVAL.c.seq).label("last_seq"))
    .select_from(
        _REMOVAL.join(schema.issuer, schema.issuer.c.issuer_id == _REMOVAL.c.issuer_id)
        .join(schema.certificate, schema.certificate.c.issued_seq == _REMOVAL.c.certificate_seq)
        .join(schema.crl_scope, schema.crl_scope.c.scope_id == schema.certificate.c.scope_id)
    )
    .where(_is_shown(schema.crl_scope.c.scope))
    .group_by(schema.certificate.c.scope_id)
)
# From the end, so that it is over with the first that was shown.
_IN_WHOLE = (
    _removals(_REMOVAL.c.seq)
    .select_from(_REMOVAL.join(schema.issuer, schema.issuer.c.issuer_id == _REMOVAL.c.issuer_id))
    .where(
        _REMOVAL.c.issuer_id == sa.bindparam("issuer_id"), _is_shown(sa.bindparam("scope", type_=sa.Text()))
    )
    .order_by(_REMOVAL.c.seq.desc())
    .limit(1)
)
