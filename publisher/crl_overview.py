"""Where all scopes stand, read from the register in a few statements however many scopes there are.

Knows: the newest published CRL of each kind of every scope, the last change that concerns each
scope's list, and whose last CRL is out.  What was read of a scope is kept until another number of it
has been given out; while that number is not settled (allocated, neither published nor withdrawn), the
scope is read again.
Does not know: files, what is due.
"""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa

from certstatus.crl_catalogue import KINDS, UNPARTITIONED
from issuance import schema
from issuance.crl_register import (
    ALLOCATED,
    LAST_NUMBER_MIN,
    CRLRecord,
    ScopeKey,
    is_one_of,
)
from issuance.store import Store
from publisher.crl_recent import newest_query

Newest = dict[str, CRLRecord]

# Scopes named in one statement; where more have moved (a start, a catch-up), all are read.
_SCOPES_AT_ONCE = 200


class CRLOverview:
    """The newest CRLs of one installation, kept up to date by ``refresh``."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._newest: dict[ScopeKey, Newest] = {}
        # The last number given out, for scopes of which it is settled.
        self._settled: dict[ScopeKey, int] = {}
        self._numbers: dict[ScopeKey, int] = {}
        # The last change of each issuer; of each partition since the first look, before which every change
        # of the issuer counts as one of the partition's; up to where changes have been looked at.
        self._changed: dict[int, int] = {}
        self._changed_part: dict[ScopeKey, int] = {}
        self._changed_before: dict[int, int] = {}
        self._looked_at_seq: int | None = None
        # How many statements the last refresh took, for those who measure.
        self.statements = 0

    def newest(self, key: ScopeKey) -> Newest:
        """Return the newest published CRL of each kind, as far as there is one; by kind."""
        return self._newest.get(key, {})

    def settled_number(self, key: ScopeKey) -> int | None:
        """Return the scope's last number; None while something is being made of it."""
        return self._settled.get(key)

    def is_over(self, key: ScopeKey) -> bool:
        """Say whether the scope's last CRL is out, so that nothing of it is ever due."""
        return self._numbers.get(key, 0) >= LAST_NUMBER_MIN

    def changed_seq(self, key: ScopeKey) -> int:
        """Return the number of the last change that may concern the scope's list, 0 if there is none."""
        issuer_id, name = key
        if name == UNPARTITIONED:
            return self._changed.get(issuer_id, 0)
        return max(self._changed_before.get(issuer_id, 0), self._changed_part.get(key, 0))

    def refresh(self, only: Collection[ScopeKey] | None = None) -> None:
        """Read what has moved since the last time.

        Takes:  *only*: the newest CRLs of these scopes alone; of the others they are read next time.
        Raises: StoreError.
        """
        scopes = schema.crl_scope
        with self._store.reading(repeatable=True) as connection:
            self.statements = 2
            changes = connection.execute(_LAST_CHANGES).all()
            self._changed = {row.issuer_id: row.last_seq for row in changes}
            rows = connection.execute(
                sa.select(scopes.c.issuer_id, scopes.c.scope, scopes.c.last_number, scopes.c.scope_id)
            ).all()
            numbers = {(row.issuer_id, row.scope): row.last_number for row in rows}
            self._note_changes(connection, {row.scope_id: (row.issuer_id, row.scope) for row in rows})
            self._numbers = numbers
            looked_at = numbers if only is None else [key for key in only if key in numbers]
            moved = [key for key in looked_at if self._settled.get(key) != numbers[key]]
            if moved:
                self._read(connection, moved if len(moved) <= _SCOPES_AT_ONCE else None, numbers)

    def _note_changes(self, connection: sa.Connection, by_id: dict[int, ScopeKey]) -> None:
        """Note which partitions the changes since the last look were in."""
        newest_seq = max(self._changed.values(), default=0)
        if self._looked_at_seq is None:
            self._changed_before = dict(self._changed)
        elif newest_seq > self._looked_at_seq:
            self.statements += 1
            after_seq = self._looked_at_seq
            concerned = [issuer_id for issuer_id, seq in self._changed.items() if seq > after_seq]
            values = {"issuer_ids": concerned, "after_seq": after_seq}
            rows = connection.execute(_CHANGES_BY_PARTITION, values).all()
            for row in rows:
                if row.is_event:
                    # Of the key, so of all that it has issued.
                    self._changed_before[row.issuer_id] = row.last_seq
                elif row.scope_id in by_id:
                    self._changed_part[by_id[row.scope_id]] = row.last_seq
        self._looked_at_seq = max(newest_seq, self._looked_at_seq or 0)

    def _read(
        self, connection: sa.Connection, moved: list[ScopeKey] | None, numbers: dict[ScopeKey, int]
    ) -> None:
        """Read the scopes *moved*, or all of them."""
        self.statements += 3
        only = sa.true() if moved is None else is_one_of(moved)
        for key in numbers if moved is None else moved:
            self._newest[key] = {}
        for kind in KINDS:
            for row in connection.execute(newest_query(kind).where(only)):
                if row.issuer_id is not None:
                    self._newest[row.issuer_id, row.scope][kind] = CRLRecord(*row)
        unsettled = {(issuer_id, scope) for issuer_id, scope in connection.execute(_UNSETTLED.where(only))}
        for key in numbers if moved is None else moved:
            if key in unsettled:
                self._settled.pop(key, None)
            else:
                self._settled[key] = numbers[key]


_UNSETTLED = sa.select(schema.crl_scope.c.issuer_id, schema.crl_scope.c.scope).where(
    sa.exists().where(
        schema.crl.c.issuer_id == schema.crl_scope.c.issuer_id,
        schema.crl.c.scope == schema.crl_scope.c.scope,
        schema.crl.c.number == schema.crl_scope.c.last_number,
        schema.crl.c.state == ALLOCATED,
    )
)

_LAST_CHANGES = sa.select(
    schema.issuer.c.issuer_id,
    sa.func.coalesce(
        sa.select(schema.change.c.seq)
        .where(schema.change.c.issuer_id == schema.issuer.c.issuer_id, schema.IS_REVOCATION)
        .order_by(schema.change.c.seq.desc())
        .limit(1)
        .correlate(schema.issuer)
        .scalar_subquery(),
        0,
    ).label("last_seq"),
)

_IS_EVENT = schema.change.c.certificate_seq.is_(None)
_CHANGES_BY_PARTITION = (
    sa.select(
        schema.change.c.issuer_id,
        schema.certificate.c.scope_id,
        _IS_EVENT.label("is_event"),
        sa.func.max(schema.change.c.seq).label("last_seq"),
    )
    .select_from(
        schema.change.outerjoin(
            schema.certificate, schema.certificate.c.issued_seq == schema.change.c.certificate_seq
        )
    )
    .where(
        # By issuer, as the index has them: else SQLite walks over every revocation there ever was.
        schema.change.c.issuer_id.in_(sa.bindparam("issuer_ids", expanding=True)),
        schema.change.c.seq > sa.bindparam("after_seq"),
        schema.IS_REVOCATION,
    )
    .group_by(schema.change.c.issuer_id, schema.certificate.c.scope_id, _IS_EVENT)
)
