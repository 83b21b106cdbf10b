"""Who may publish: leases, and the fence that ends with each of them.

Knows: that every holder gets a higher fence than all before, and that whatever is written under an older
one is refused, in the transaction that writes it.
Does not know: what is published; when a holder is dead (``publisher.lease``); how the lock is taken (the
caller holds it).
"""

from __future__ import annotations

import sqlalchemy as sa

from certstatus.errors import FencedOff, LeaseHeld
from issuance import schema
from issuance.crl_register import Fence
from issuance.database import insert


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
