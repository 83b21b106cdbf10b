"""What was provided to whom, as the workers counted it.

Knows: that a counter cell only grows, so the greatest value told of (file, cell) is the right
one, however often and in whatever order it is told.
Does not know: what the cells mean beyond verifier, issuer, kind and hour; nor tariffs.
Source: Act arts. 40, 41, 67 (ledger, report, fees).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import sqlalchemy as sa

from issuance import schema
from issuance.database import insert

_PIECE_CELLS = 500


class ProvisionCell(NamedTuple):
    """One cell of one counter file.  ``jst_hour_s``: first second of the hour; ``value`` >= 0."""

    file_uuid: str
    cell: int
    verifier_id: int
    issuer_id: int
    kind: str
    jst_hour_s: int
    value: int


class ProvisionSum(NamedTuple):
    """How much of *kind* about an issuer's certificates a verifier was given."""

    verifier_id: int
    issuer_id: int
    kind: str
    total: int


def record(connection: sa.Connection, cells: list[ProvisionCell]) -> None:
    """Write *cells*, keeping the greatest value of each (file, cell)."""
    table = schema.provision
    statement = insert(connection, table)
    told = statement.excluded.value
    greatest = sa.case((told > table.c.value, told), else_=table.c.value)
    connection.execute(
        statement.on_conflict_do_update(index_elements=["file_uuid", "cell"], set_={"value": greatest}),
        [cell._asdict() for cell in cells],
    )


def sums(connection: sa.Connection, from_hour_s: int | None, until_hour_s: int | None) -> list[ProvisionSum]:
    """Return the counts over hours in [from, until), by verifier, issuer and kind."""
    table = schema.provision
    by = (table.c.verifier_id, table.c.issuer_id, table.c.kind)
    query = sa.select(*by, sa.func.sum(table.c.value)).group_by(*by).order_by(*by)
    if from_hour_s is not None:
        query = query.where(table.c.jst_hour_s >= from_hour_s)
    if until_hour_s is not None:
        query = query.where(table.c.jst_hour_s < until_hour_s)
    return [ProvisionSum(row[0], row[1], row[2], int(row[3])) for row in connection.execute(query)]


def pieces(cells: Iterable[ProvisionCell]) -> Iterator[list[ProvisionCell]]:
    """Cut *cells* into lists short enough for one transaction."""
    piece: list[ProvisionCell] = []
    for cell in cells:
        piece.append(cell)
        if len(piece) == _PIECE_CELLS:
            yield piece
            piece = []
    if piece:
        yield piece
