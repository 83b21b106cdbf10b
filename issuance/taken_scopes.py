"""The CRL scopes of a CA that was taken over with its certificates divided: ``dp/1``, ``dp/2``, ...

::

    part of an import ─▶ its scope, opened closed: the point's octets as the old CA had them
    certificates ─▶ recorded in it             CRLs ─▶ numbered on from the old CA's last

Knows: how the scopes are named, that nothing is issued into one (what is issued here stands on the list of
all alone), and that they are opened before anybody is told of the CA.
Does not know: which certificate is in which part (``import_parts``), nor CRLs themselves.
Source: RFC 5280 §5.2.3 (numbers go on rising within a scope), §5.2.5 (identical names in certificate and
CRL).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from itertools import count

import sqlalchemy as sa

from certstatus.changes import ChangeKind
from certstatus.distribution_point import (
    encode_distribution_points,
    encode_named_point,
    parse_issuing_distribution_point,
    read_point_name,
)
from certstatus.errors import PolicyViolation
from issuance import schema
from issuance.act import Act
from issuance.crl_register import LAST_NUMBER_MIN, next_scope_id
from issuance.crl_scopes import ScopeNames, ScopeRecord, partitions
from issuance.import_scopes import Division, Part
from issuance.issuers import IssuerRecord
from issuance.store import Now, Store

SCHEME = "dp"


def names_as_taken(issuer: IssuerRecord, scope: str, idp_der: bytes) -> ScopeNames:
    """Return the names of a scope that an old CA had, by the value of its IssuingDistributionPoint.

    Where its deltas are is for this installation to say; the old name stands beside it, if it can.
    """
    name_der = parse_issuing_distribution_point(idp_der).name_der
    assert name_der is not None
    directory_name, _ = read_point_name(name_der)
    _, places = issuer.partition_names(scope).freshest
    return ScopeNames(
        idp_der, encode_named_point(name_der), encode_distribution_points([(directory_name, places)])
    )


def title_as_taken(idp_der: bytes) -> str:
    """Return what such a scope is called for people: the first address of its point."""
    name_der = parse_issuing_distribution_point(idp_der).name_der
    uris = () if name_der is None else read_point_name(name_der)[1]
    return uris[0] if uris else ""


def taken_scopes(store: Store, issuer: IssuerRecord | None) -> list[ScopeRecord]:
    """Return the scopes that an import of the issuer has opened, in their order."""
    if issuer is None or issuer.imported is None:
        return []
    with store.reading() as connection:
        return partitions(connection).get(issuer.issuer_id, [])


def open_taken(
    store: Store, issuer: IssuerRecord, division: Division, published: Mapping[str, bytes], now: Now
) -> dict[int, int]:
    """Open the scopes of the parts that have none; return the scope_id of every part, by its place.

    Takes:  *published*: by scope, the points of CRLs that this installation published for the CA before its
            register was lost: each keeps its name.
    Restartable: what is open is found again by its point.
    """
    new = [part for part in division.parts if part.record is None]
    ids = {part.place: part.record.scope_id for part in division.parts if part.record is not None}
    if not new:
        return ids
    before = {idp_der: scope for scope, idp_der in published.items()}
    with store.writing(now) as act:
        known = {record.name for record in partitions(act.connection).get(issuer.issuer_id, [])}
        free = (name for number in count(1) if (name := f"{SCHEME}/{number}") not in known)
        names = {part.place: before[part.idp_der] for part in new if part.idp_der in before}
        known |= set(names.values())
        for part in new:
            names.setdefault(part.place, next(free))
            ids[part.place] = _open(act, issuer, part, names[part.place])
        detail = json.dumps({"scopes": sorted(names.values())}, sort_keys=True)
        act.record(
            ChangeKind.ISSUERS, issuer_id=issuer.issuer_id, ground="CRL scopes taken over", detail=detail
        )
    return ids


def _open(act: Act, issuer: IssuerRecord, part: Part, scope: str) -> int:
    table = schema.crl_scope
    seq = act.seq + 1
    values = {
        "last_number": _number(part),
        "title": title_as_taken(part.idp_der),
        "opened_seq": seq,
        "closed_seq": seq,
        **names_as_taken(issuer, scope, part.idp_der)._asdict(),
    }
    return int(
        act.connection.execute(
            sa.insert(table)
            .values(issuer_id=issuer.issuer_id, scope=scope, scope_id=next_scope_id(), **values)
            .returning(table.c.scope_id)
        ).scalar_one()
    )


def lift_taken(act: Act, ids: Mapping[int, int], division: Division, used: Mapping[str, int]) -> None:
    """Put the number of each scope as high as its old CRL's, and as any in *used* (by scope)."""
    table = schema.crl_scope
    for part in division.parts:
        this_scope = table.c.scope_id == ids[part.place]
        row = act.connection.execute(sa.select(table.c.scope, table.c.last_number).where(this_scope)).one()
        last = max(row.last_number, _number(part), used.get(row.scope, 0))
        values = {"last_number": last}
        if part.given is not None:
            values["taken_this_update_s"] = part.given.crl.this_update_s
        act.connection.execute(sa.update(table).where(this_scope).values(values))


def check_numbers(parts: Iterable[Part]) -> None:
    """Refuse numbers that cannot be counted on from.  Raises: PolicyViolation."""
    for part in parts:
        if not 0 <= _number(part) < LAST_NUMBER_MIN:
            raise PolicyViolation(
                f"CRL number {_number(part)}: this installation can count on to {LAST_NUMBER_MIN - 1} only"
            )


def _number(part: Part) -> int:
    return 0 if part.given is None else part.given.crl.number or 0
