"""CRL scopes after a restore: every number above any that was given out, and no partition forgotten.

Knows: the scopes of the backup, of the store that is replaced (if it can be read) and of the CRLs that were
published; and in which partition a certificate was of which only a revocation is known.
Does not know: what was revoked (``restore``), or reading files (``published_crls``).
Source: RFC 5280 §5.2.3 (numbers), §5.2.5 (a partition's CRLs keep their name).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from certstatus.crl_catalogue import UNPARTITIONED
from issuance import schema
from issuance.crl_register import next_scope_id
from issuance.crl_scopes import names_as_published, new_names
from issuance.issuers import IssuerRecord
from issuance.partition import HASH, partition_of, scheme_of, title_of
from issuance.published_crls import PublishedState
from issuance.taken_scopes import names_as_taken, title_as_taken

Key = tuple[int, str]

# Certificates may come back into a partition that was retired, so whether it is over is judged anew.
_UNJUDGED = {"last_end_s": None, "retired_seq": None}


@dataclass(slots=True)
class ScopesBefore:
    """What the replaced store says: its rows by issuer_id and name, and names by number."""

    rows: dict[Key, dict[str, Any]] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)


def read_scopes(connection: sa.Connection) -> ScopesBefore:
    """Return the scopes of a store."""
    found = ScopesBefore()
    for row in connection.execute(sa.select(schema.crl_scope)):
        found.rows[row.issuer_id, row.scope] = dict(row._mapping)
        found.names[row.scope_id] = row.scope
    return found


def lift_scopes(
    connection: sa.Connection,
    issuers: list[IssuerRecord],
    before: ScopesBefore,
    published: Mapping[int, PublishedState],
    gap: int,
) -> None:
    """Put each scope's number *gap* above any that is known, and register the scopes that the backup lacks.

    A partition that was closed after the backup stays closed.
    """
    table = schema.crl_scope
    by_id = {issuer.issuer_id: issuer for issuer in issuers}
    rows = read_scopes(connection).rows
    numbers = {key: row["last_number"] for key, row in rows.items()}
    told = {key: row["last_number"] for key, row in before.rows.items()}
    shown = {
        (issuer_id, scope): number
        for issuer_id, state in published.items()
        for scope, number in state.numbers.items()
    }
    for source in (told, shown):
        for key, number in source.items():
            if key[0] in by_id:
                numbers[key] = max(number, numbers.get(key, 0))
    for key, number in sorted(numbers.items()):
        issuer_id, scope = key
        if key in rows:
            closed_seq = rows[key]["closed_seq"] or before.rows.get(key, {}).get("closed_seq")
            connection.execute(
                sa.update(table)
                .where(table.c.issuer_id == issuer_id, table.c.scope == scope)
                .values(last_number=number + gap, closed_seq=closed_seq, **_UNJUDGED)
            )
            continue
        values = before.rows.get(key) or _as_published(by_id[issuer_id], scope, published)
        connection.execute(
            sa.insert(table).values(
                {
                    **values,
                    **_UNJUDGED,
                    "issuer_id": issuer_id,
                    "scope": scope,
                    "last_number": number + gap,
                    "scope_id": next_scope_id(),
                }
            )
        )


def _as_published(
    issuer: IssuerRecord, scope: str, published: Mapping[int, PublishedState]
) -> dict[str, Any]:
    if scope == UNPARTITIONED:
        return {}
    idp_der = published[issuer.issuer_id].points.get(scope)
    if idp_der is not None and issuer.imported is not None:
        names = names_as_taken(issuer, scope, idp_der)
        return {**names._asdict(), "title": title_as_taken(idp_der), "opened_seq": 0, "closed_seq": 0}
    names = new_names(issuer, scope) if idp_der is None else names_as_published(issuer, scope, idp_der)
    return {**names._asdict(), "title": title_of(scope), "opened_seq": 0}


def partition_id(
    connection: sa.Connection, issuer: IssuerRecord, serial: bytes, told: str | None
) -> int | None:
    """Return the partition of a certificate of which only the revocation is known, None for none.

    Takes: *told*: the partition that it was in, by a CRL or by the replaced store.  Where neither says so:
           by its number, if that is what the policy goes by; else it stands on the CRLs of ``all`` alone.
    """
    if told is None and scheme_of(issuer) == HASH:
        told = partition_of(issuer, serial, None)
    table = schema.crl_scope
    found = connection.execute(
        sa.select(table.c.scope_id).where(
            table.c.issuer_id == issuer.issuer_id, table.c.scope == told, table.c.idp_der.is_not(None)
        )
    ).scalar()
    return None if found is None else int(found)
