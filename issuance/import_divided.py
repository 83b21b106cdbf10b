"""An import of a CA whose certificates may be divided: what the steps of ``import_run`` need to know of that.

Knows: whether they are divided, what several CRLs are together, and that a point for which this installation
has published CRLs is not forgotten with its register.
Does not know: the order of the steps (``import_run``), the rules (``import_scopes``, ``import_parts``).
Source: RFC 5280 §5.2.3, §5.2.5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from certstatus.crl_entry import CRLEntry
from certstatus.errors import PolicyViolation
from issuance import schema
from issuance.import_crl import ForeignCRL
from issuance.import_points import points_text
from issuance.import_records import PartsHere
from issuance.import_scopes import Division, GivenCRL, divide
from issuance.import_sheet import Sheet
from issuance.issuers import IssuerRecord
from issuance.published_crls import PublishedState
from issuance.store import Store
from issuance.taken_scopes import check_numbers, taken_scopes


def division_of(
    store: Store, existing: IssuerRecord | None, given: list[GivenCRL], *, has_key: bool
) -> Division | None:
    """Return how the CA's certificates are divided, None if they are not.

    Raises: PolicyViolation — and it is to be followed; as ``divide``.
    """
    division = divide(given, taken_scopes(store, existing), None if existing is None else existing.imported)
    if division is not None:
        if not has_key and (existing is None or not existing.revokes_here):
            raise PolicyViolation(
                "a CA with several CRLs can be taken over (--key), and not be followed: give the one CRL of"
                " all its certificates, if there is one"
            )
        check_numbers(division.parts)
    return division


def as_one_crl(
    given: list[GivenCRL], division: Division | None, existing: IssuerRecord | None
) -> tuple[ForeignCRL | None, str]:
    """Return the CA's CRL, of several what they are together, and what it is called in messages."""
    if division is not None:
        return division.together(None if existing is None else existing.imported), "CRLs"
    return (given[0].crl, given[0].source) if given else (None, "")


def newest_s(crl: ForeignCRL | None, division: Division | None) -> int | None:
    """Return since when no list that was read may have let an entry go: the newest one's thisUpdate."""
    if division is None or not division.given:
        return None if crl is None else crl.this_update_s
    return max(item.crl.this_update_s for item in division.given)


def parts_here(division: Division, scope_ids: Mapping[int, int], now_s: int) -> PartsHere:
    """Return how the parts stand in the register, where they have these scopes."""
    listed = frozenset(part.place for part in division.parts if part.given is not None)
    return PartsHere(scope_ids, listed, division.whole is not None, now_s)


def registered(store: Store, existing: IssuerRecord | None, serials: Sequence[bytes]) -> set[bytes]:
    """Return those of *serials* that an import which has ended recorded."""
    if existing is None or not existing.is_ready:
        return set()
    table = schema.certificate
    with store.reading() as connection:
        found = connection.execute(
            sa.select(table.c.serial).where(
                table.c.service == existing.service,
                table.c.issuer_id == existing.issuer_id,
                table.c.serial.in_([serial.hex() for serial in serials]),
            )
        ).scalars()
        return {bytes.fromhex(text) for text in found}


def check_published(division: Division | None, published: PublishedState) -> None:
    """Refuse an import that leaves out a point whose CRLs this installation published before its register was
    lost: certificates name it, and clients would wait for its next CRL for ever.

    Raises: PolicyViolation.
    """
    known = set() if division is None else {part.idp_der for part in division.parts}
    for idp_der in published.points.values():
        if idp_der not in known:
            raise PolicyViolation(
                f"this installation has published CRLs of {points_text(idp_der)} for the CA: give the CRL"
                " that the CA had of it (--crl), as in the import before"
            )


def add_published(sheet: Sheet, published: PublishedState, division: Division | None) -> None:
    """Put what this installation's own CRLs say onto the sheet, and in which part each number was."""
    for entries in (published.revoked, published.held):
        for serial, item in entries.items():
            entry = CRLEntry(serial, item.revoked_at_s, item.reason, item.invalidity_s or None)
            sheet.add_crl_entry(entry, f"CRL {item.crl_number} of this installation")
            scope = published.partitions.get(serial, "")
            if division is not None and scope in published.points:
                part = division.place_of(published.points[scope])
                if part is not None:
                    sheet.add_listing(serial, part)
