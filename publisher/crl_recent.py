"""The published CRLs that still matter, of many scopes in a few statements.

Knows: how to find them from the end of each scope's numbers, without a walk over all that was ever
published: within a kind nextUpdate never goes back (``crl_plan.next_update_s``), so what is not over lies
behind the newest one that is.
Does not know: files; which of them are served (``crl_catalogue``).
Source: RFC 5280 §5.2.4 (a base stays fetchable).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

import sqlalchemy as sa

from certstatus.crl_catalogue import COMPLETE, DELTA, KINDS
from issuance import schema
from issuance.crl_register import PUBLISHED, CRLKey, CRLRecord, ScopeKey, is_crl, is_one_of, pieces
from issuance.store import Store

# What is looked for in one statement by a condition for each.
_CONDITIONS_AT_ONCE = 100

Also = Callable[[sa.FromClause], sa.ColumnElement[bool]]


def recent(store: Store, keys: Collection[ScopeKey], ended_s: int) -> dict[ScopeKey, list[CRLRecord]]:
    """Return the published CRLs of each scope that matter, by rising number, complete before delta.

    Takes:  *ended_s*: POSIX s.
    Gives:  the newest of each kind, those whose nextUpdate is later than *ended_s*, and their bases.
    """
    found: dict[ScopeKey, dict[CRLKey, CRLRecord]] = {key: {} for key in keys}
    with store.reading(repeatable=True) as connection:
        for kind in KINDS:
            for record in _of_kind(connection, list(keys), kind, ended_s):
                found[record.issuer_id, record.scope][record.key] = record
        for record in _bases(connection, found.values()):
            found[record.issuer_id, record.scope][record.key] = record
    return {key: [records[each] for each in sorted(records)] for key, records in found.items()}


def _of_kind(connection: sa.Connection, keys: list[ScopeKey], kind: str, ended_s: int) -> Iterable[CRLRecord]:
    for piece in pieces(keys):
        records: dict[ScopeKey, list[CRLRecord]] = {}
        for row in connection.execute(_RECENT[kind].where(is_one_of(piece)), {"ended_s": ended_s}):
            if row.issuer_id is not None:
                records.setdefault((row.issuer_id, row.scope), []).append(CRLRecord(*row))
        for mine in records.values():
            newest = max(record.number for record in mine)
            # The newest one that is over came along where there are newer ones.
            yield from (item for item in mine if item.number == newest or (item.next_update_s or 0) > ended_s)


def _bases(connection: sa.Connection, found: Iterable[Mapping[CRLKey, CRLRecord]]) -> Iterable[CRLRecord]:
    """Yield the bases of the deltas *found* that are not among them."""
    missing = {
        base
        for records in found
        for record in records.values()
        if record.base_number is not None
        if (base := record.key._replace(number=record.base_number, kind=COMPLETE)) not in records
    }
    conditions = [sa.and_(is_crl(key), schema.crl.c.state == PUBLISHED) for key in sorted(missing)]
    yield from _any_of(connection, conditions)


def deltas_over(store: Store, bases: Mapping[ScopeKey, Collection[int]]) -> list[CRLRecord]:
    """Return all published deltas over the given complete CRLs.

    Takes: the numbers of the bases, by scope.
    """
    table = schema.crl
    conditions = [
        sa.and_(
            table.c.issuer_id == issuer_id,
            table.c.scope == scope,
            # By the key, which begins so; bases are in no index.
            table.c.number > min(numbers),
            table.c.kind == DELTA,
            table.c.state == PUBLISHED,
            table.c.base_number.in_(numbers),
        )
        for (issuer_id, scope), numbers in bases.items()
        if numbers
    ]
    with store.reading() as connection:
        return list(_any_of(connection, conditions))


def _any_of(connection: sa.Connection, conditions: list[sa.ColumnElement[bool]]) -> Iterator[CRLRecord]:
    """Yield the lines of which any of *conditions* holds, each of which the key serves."""
    for start in range(0, len(conditions), _CONDITIONS_AT_ONCE):
        some = sa.or_(*conditions[start : start + _CONDITIONS_AT_ONCE])
        yield from [CRLRecord(*row) for row in connection.execute(sa.select(schema.crl).where(some))]


def newest_query(kind: str, also: Also | None = None) -> sa.Select[Any]:
    """Select, per scope, the newest published CRL of *kind*, or NULLs.

    Not a walk over all that was ever published; an outer join, because that is how SQLite is made to begin
    with the scopes.  Takes: *also*: what else must be so of the CRL.
    """
    scopes, table = schema.crl_scope, schema.crl
    return sa.select(table).select_from(
        scopes.outerjoin(
            table,
            sa.and_(
                table.c.issuer_id == scopes.c.issuer_id,
                table.c.scope == scopes.c.scope,
                table.c.kind == kind,
                table.c.number == _newest_number(kind, also),
            ),
        )
    )


def _newest_number(kind: str, also: Also | None) -> sa.ScalarSelect[Any]:
    """Select the highest number of the published CRLs of *kind* of a scope, NULL if there is none.

    A few steps back from the end of the scope's numbers; the statement around it says which scope.
    Takes: *also*: what else must be so of the CRL.
    """
    scopes, inner = schema.crl_scope, schema.crl.alias("newer")
    return (
        sa.select(inner.c.number)
        .where(
            inner.c.issuer_id == scopes.c.issuer_id,
            inner.c.scope == scopes.c.scope,
            inner.c.kind == kind,
            inner.c.state == PUBLISHED,
            sa.true() if also is None else also(inner),
        )
        .order_by(inner.c.number.desc())
        .limit(1)
        .correlate(scopes)
        .scalar_subquery()
    )


def _recent_query(kind: str) -> sa.Select[Any]:
    """Select the published CRLs of *kind* that are not over at ``ended_s``, and the newest that is.

    An outer join, because that is how SQLite is made to begin with the scopes.
    """
    scopes, table = schema.crl_scope, schema.crl
    over = _newest_number(kind, lambda crl: crl.c.next_update_s <= sa.bindparam("ended_s"))
    return sa.select(table).select_from(
        scopes.outerjoin(
            table,
            sa.and_(
                table.c.issuer_id == scopes.c.issuer_id,
                table.c.scope == scopes.c.scope,
                table.c.number >= sa.func.coalesce(over, 0),
                table.c.kind == kind,
                table.c.state == PUBLISHED,
            ),
        )
    )


_RECENT = {kind: _recent_query(kind) for kind in KINDS}
