"""The register's part of a scope's last CRL: prepared and kept back, and then the scope's end.

Knows: that its number is made of its cut's time and lies beyond all regular ones, that one is prepared at
a time, and that nothing follows it.
Does not know: regular CRLs (``crl_register``); how the lock is taken (the caller holds it).
Source: RFC 5280 §5.2.3 (CRLNumber); Act arts. 14, 33.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from certstatus.crl_catalogue import COMPLETE
from certstatus.errors import IllegalTransition
from issuance import schema
from issuance.crl_register import (
    ALLOCATED,
    LAST_NUMBER_MIN,
    PREPARED,
    PUBLISHED,
    WITHDRAWN,
    CRLKey,
    CRLRecord,
    ScopeKey,
    insert_allocated,
    is_crl,
    next_scope_id,
    pieces,
    require_open,
)
from issuance.database import insert


def allocate_last(
    connection: sa.Connection, issuer_id: int, scope: str, seq: int, time_ms: int, this_update_s: int
) -> int:
    """Give out the number of a last CRL cut at *time_ms*, which no other cut has.

    Raises: PolicyViolation — the last CRL is out.
    """
    require_open(connection, issuer_id, scope)
    key = CRLKey(issuer_id, scope, LAST_NUMBER_MIN + time_ms, COMPLETE)
    insert_allocated(connection, [key], seq, this_update_s)
    return key.number


def record_prepared(
    connection: sa.Connection,
    issuer_id: int,
    scope: str,
    number: int,
    next_update_s: int,
    sha256: bytes,
    size: int,
) -> None:
    """Move a last CRL from allocated to prepared, and any prepared before to withdrawn.

    Raises: IllegalTransition.
    """
    key = CRLKey(issuer_id, scope, number, COMPLETE)
    _withdraw_prepared(connection, issuer_id, scope)
    moved = connection.execute(
        sa.update(schema.crl)
        .where(is_crl(key), schema.crl.c.state == ALLOCATED)
        .values(state=PREPARED, next_update_s=next_update_s, sha256=sha256, bytes=size)
    )
    if moved.rowcount != 1:
        raise IllegalTransition(f"{key.text} is not allocated")


def publish_last(
    connection: sa.Connection,
    issuer_id: int,
    scope: str,
    number: int,
    seq: int,
    this_update_s: int,
    next_update_s: int,
    sha256: bytes,
    size: int,
) -> None:
    """Record a prepared CRL as published and end its scope.

    Takes:  *seq*: where the sequence stands, for a CRL that a restored register does not know.
    Raises: PolicyViolation — the last CRL is out.
    """
    require_open(connection, issuer_id, scope)
    table, scopes = schema.crl, schema.crl_scope
    key = CRLKey(issuer_id, scope, number, COMPLETE)
    moved = connection.execute(
        sa.update(table).where(is_crl(key), table.c.state == PREPARED).values(state=PUBLISHED)
    )
    if moved.rowcount != 1:
        insert_allocated(connection, [key], seq, this_update_s)
        connection.execute(
            sa.update(table)
            .where(is_crl(key))
            .values(state=PUBLISHED, next_update_s=next_update_s, sha256=sha256, bytes=size)
        )
    _withdraw_prepared(connection, issuer_id, scope)
    connection.execute(
        insert(connection, scopes)
        .values(issuer_id=issuer_id, scope=scope, last_number=number, scope_id=next_scope_id())
        .on_conflict_do_update(index_elements=["issuer_id", "scope"], set_={"last_number": number})
    )


def prepared(connection: sa.Connection, keys: Sequence[ScopeKey]) -> list[CRLRecord]:
    """Return the prepared CRLs of scopes, by rising number."""
    table = schema.crl
    found: list[CRLRecord] = []
    for piece in pieces(keys):
        # By the key of each, which begins so.
        of_each = [
            sa.and_(
                table.c.issuer_id == issuer_id,
                table.c.scope == scope,
                table.c.number >= LAST_NUMBER_MIN,
                table.c.state == PREPARED,
            )
            for issuer_id, scope in piece
        ]
        rows = connection.execute(sa.select(table).where(sa.or_(*of_each)).order_by(table.c.number))
        found += [CRLRecord(*row) for row in rows]
    return found


def _withdraw_prepared(connection: sa.Connection, issuer_id: int, scope: str) -> None:
    table = schema.crl
    connection.execute(
        sa.update(table)
        .where(table.c.issuer_id == issuer_id, table.c.scope == scope, table.c.state == PREPARED)
        .values(state=WITHDRAWN)
    )
