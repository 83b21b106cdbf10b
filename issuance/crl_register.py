"""The register of CRLs: numbers given out, files published, and who may publish.

Knows: that a scope's numbers rise by one and are never given out twice, that complete and delta
CRLs share them, and that a publisher whose fence is old is refused.
Does not know: what a CRL holds or where its file is; how the lock is taken (the caller holds it).
Source: RFC 5280 §5.2.3 (CRLNumber); Act arts. 16, 35.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import sqlalchemy as sa

from certstatus.errors import FencedOff, IllegalTransition, LeaseHeld, PolicyViolation
from issuance import schema
from issuance.database import insert

ALLOCATED = "allocated"
PUBLISHED = "published"
WITHDRAWN = "withdrawn"


class Fence(NamedTuple):
    """The right to publish under *name*; a higher number ends all lower ones."""

    name: str
    number: int


class AllocatedCRL(NamedTuple):
    """A CRL number and the cut it belongs to: everything up to ``seq``, as of ``time_ms``."""

    number: int
    seq: int
    time_ms: int

    @property
    def this_update_s(self) -> int:
        """The CRL's thisUpdate: the cut's time, rounded down."""
        return self.time_ms // 1000


class CRLRecord(NamedTuple):
    """One line of the register; what a CRL is only once signed is None before."""

    issuer_id: int
    scope: str
    number: int
    kind: str
    state: str
    seq: int
    base_number: int | None
    this_update_s: int
    next_update_s: int | None
    sha256: bytes | None
    size: int | None


# --- publishers ------------------------------------------------------------------------------------


def acquire_publisher(
    connection: sa.Connection, name: str, ttl_ms: int, now_ms: int, holder: str, take_over: bool
) -> Fence:
    """Give *holder* the next fence of *name*.  Raises: LeaseHeld."""
    table = schema.publisher_lease
    row = connection.execute(sa.select(table).where(table.c.name == name)).one_or_none()
    if row is not None and not take_over and row.holder != holder and row.until_ms > now_ms:
        raise LeaseHeld(
            f"publisher {name} is {row.holder} for another {(row.until_ms - now_ms + 999) // 1000} s"
        )
    fence = Fence(name, 1 if row is None else row.fence + 1)
    values = {"holder": holder, "fence": fence.number, "until_ms": now_ms + ttl_ms}
    connection.execute(
        insert(connection, table)
        .values(name=name, **values)
        .on_conflict_do_update(index_elements=["name"], set_=values)
    )
    return fence


def renew_publisher(connection: sa.Connection, fence: Fence, ttl_ms: int, now_ms: int) -> None:
    """Move the end of the lease.  Raises: FencedOff."""
    check_fence(connection, fence)
    table = schema.publisher_lease
    connection.execute(sa.update(table).where(table.c.name == fence.name).values(until_ms=now_ms + ttl_ms))


def check_fence(connection: sa.Connection, fence: Fence) -> None:
    """Refuse a fence that is not the newest of its name.

    A lease that has run out unnoticed still counts: nobody else has written since.
    Raises: FencedOff.
    """
    table = schema.publisher_lease
    row = connection.execute(
        sa.select(table.c.fence, table.c.holder).where(table.c.name == fence.name)
    ).one_or_none()
    if row is None or row.fence != fence.number:
        newest = "none" if row is None else f"{row.fence}, held by {row.holder}"
        raise FencedOff(f"publisher {fence.name}: fence {fence.number} is over, the newest is {newest}")


# --- CRLs ------------------------------------------------------------------------------------------


def allocate(
    connection: sa.Connection, issuer_id: int, scope: str, kinds: Sequence[str], seq: int, this_update_s: int
) -> int:
    """Give out the scope's next number for CRLs of *kinds* made at *seq*."""
    known = connection.execute(
        sa.select(schema.issuer.c.issuer_id).where(schema.issuer.c.issuer_id == issuer_id)
    ).first()
    if known is None:
        raise PolicyViolation(f"no issuer {issuer_id}")
    scopes = schema.crl_scope
    number: int = connection.execute(
        insert(connection, scopes)
        .values(issuer_id=issuer_id, scope=scope, last_number=1)
        .on_conflict_do_update(
            index_elements=["issuer_id", "scope"], set_={"last_number": scopes.c.last_number + 1}
        )
        .returning(scopes.c.last_number)
    ).scalar_one()
    connection.execute(
        sa.insert(schema.crl),
        [
            {
                "issuer_id": issuer_id,
                "scope": scope,
                "number": number,
                "kind": kind,
                "state": ALLOCATED,
                "seq": seq,
                "this_update_s": this_update_s,
            }
            for kind in kinds
        ],
    )
    return number


def record(
    connection: sa.Connection,
    issuer_id: int,
    scope: str,
    number: int,
    kind: str,
    base_number: int | None,
    next_update_s: int,
    sha256: bytes,
    size: int,
) -> None:
    """Move a CRL from allocated to published.  Raises: IllegalTransition."""
    moved = connection.execute(
        sa.update(schema.crl)
        .where(_one(issuer_id, scope, number, kind), schema.crl.c.state == ALLOCATED)
        .values(
            state=PUBLISHED,
            base_number=base_number,
            next_update_s=next_update_s,
            sha256=sha256,
            bytes=size,
        )
    )
    if moved.rowcount != 1:
        raise IllegalTransition(f"{kind} CRL {number} of issuer {issuer_id}, scope {scope}, is not allocated")


def withdraw(connection: sa.Connection, issuer_id: int, scope: str, number: int, kind: str) -> None:
    """Move a CRL to withdrawn.  Raises: IllegalTransition — there is none."""
    moved = connection.execute(
        sa.update(schema.crl).where(_one(issuer_id, scope, number, kind)).values(state=WITHDRAWN)
    )
    if moved.rowcount != 1:
        raise IllegalTransition(f"no {kind} CRL {number} of issuer {issuer_id}, scope {scope}")


def crls(
    connection: sa.Connection, issuer_id: int, scope: str, kind: str | None, state: str | None
) -> list[CRLRecord]:
    """Return a scope's lines, by rising number, complete before delta."""
    table = schema.crl
    query = sa.select(table).where(table.c.issuer_id == issuer_id, table.c.scope == scope)
    if kind is not None:
        query = query.where(table.c.kind == kind)
    if state is not None:
        query = query.where(table.c.state == state)
    return [CRLRecord(*row) for row in connection.execute(query.order_by(table.c.number, table.c.kind))]


def _one(issuer_id: int, scope: str, number: int, kind: str) -> sa.ColumnElement[bool]:
    table = schema.crl
    return sa.and_(
        table.c.issuer_id == issuer_id,
        table.c.scope == scope,
        table.c.number == number,
        table.c.kind == kind,
    )
