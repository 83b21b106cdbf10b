"""Which part of a divided CA each certificate on the sheet is in: in one, or in the whole list alone.

::

    certificate given      the part of the point that it names; without such a point: the whole list alone
    a number on a CRL      the part that the CRL is of; on that of all alone: none, if it was revoked before
                           the parts' CRLs were made, which would have it; refused if later
    a number in the index  not known, so neither that nor its certificate: refused until it has ended

Knows: these rules, and that everything they do not decide is refused, all of it named at once: a
certificate that is in two parts, on the CRL of a part that it does not name, or in none that anybody could
tell.  What was decided is stored with the certificate and never worked out again.
Does not know: CRLs and points (``import_scopes``), nor the register.
Source: RFC 5280 §5.2.5, §6.3.3 (b)(2)(i): a CRL speaks for the certificates that name its point.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from certstatus.errors import ImportRefused
from issuance.import_points import points_text
from issuance.import_scopes import Division
from issuance.import_sheet import Sheet

_NAMED_MAX = 5
_ROWS_AT_ONCE = 500
_FIELD = "CRL distribution points"
_UNENDED = "not_after_s >= ?"

Registered = Callable[[Sequence[bytes]], set[bytes]]


def recognise_whole(sheet: Sheet, division: Division) -> Division:
    """Return *division* with the CRL of all certificates recognised, once all certificates are on the sheet.

    It is of a point that every certificate names, while some name another one as well.
    """
    if division.whole is not None or not _in_two(sheet, 1):
        return division
    named_by_all = sheet.query(
        "SELECT part FROM point GROUP BY part"
        " HAVING count(*) = (SELECT count(*) FROM sheet WHERE der IS NOT NULL)"
    )
    known = {part.place for part in division.parts if part.record is not None}
    candidates = [place for (place,) in named_by_all if place not in known]
    if len(candidates) != 1:
        return division
    sheet.query("DELETE FROM point WHERE part = ?", candidates[0])
    return division.with_whole(candidates[0])


def settle(sheet: Sheet, division: Division, now_s: int, registered: Registered) -> None:
    """Give each row of the sheet its part, once all files are on it.

    Takes:  *now_s*: what has ended by then (POSIX) may stay without a part: nobody relies on it any more;
            *registered*: which of some numbers an earlier import recorded, and so decided.
    Raises: ImportRefused — of some certificates it cannot be said.
    """
    texts = {part.place: points_text(part.idp_der) for part in division.parts}
    _refuse(
        _in_two(sheet, _NAMED_MAX + 1),
        lambda: _count(sheet, "SELECT 1 FROM point GROUP BY serial HAVING count(*) > 1"),
        "name the points of two parts, and would be on the CRLs of both",
    )
    sheet.query(
        "UPDATE sheet SET part = (SELECT part FROM point WHERE point.serial = sheet.serial)"
        " WHERE der IS NOT NULL"
    )
    sheet.query(
        "UPDATE sheet SET part = (SELECT part FROM listing WHERE listing.serial = sheet.serial)"
        " WHERE der IS NULL"
    )
    wrong = "FROM sheet JOIN listing USING (serial) WHERE sheet.part IS NOT listing.part"
    found = sheet.query(f"SELECT told_by, line, serial, listing.part {wrong} LIMIT ?", _NAMED_MAX + 1)
    _refuse(
        [row[:3] for row in found],
        lambda: _count(sheet, f"SELECT 1 {wrong}"),
        f"stand on the CRL of {texts[found[0][3]] if found else ''}, which they do not name",
    )
    found = _lost(sheet, now_s, f"{_UNENDED} AND der IS NULL AND index_line IS NOT NULL", registered)
    _refuse(
        found,
        lambda: len(found),
        "are in the index alone, and on the CRL of no part: give them with --certificates, for only they say"
        " which point they name",
    )
    if division.whole is None and division.given:
        uncovered = _lost(sheet, now_s, f"{_UNENDED} AND der IS NOT NULL AND index_line IS NULL", registered)
        _refuse(
            uncovered,
            lambda: len(uncovered),
            "name no point of a CRL that was given, so nothing says whether they are revoked: give the CRL of"
            " their point, or one of all certificates (--crl), or an index that lists them",
        )
    if division.whole is not None and division.parts:
        known_s = min(part.known_s for part in division.parts)
        late = _lost(sheet, known_s, "der IS NULL AND revoked_at_s >= ?", registered)
        _refuse(
            late,
            lambda: len(late),
            "stand on the CRL of all alone, and were revoked since the CRL of a part was made, which may be"
            " theirs: give them with --certificates, or newer CRLs of the parts",
        )


def _lost(sheet: Sheet, at_s: int, which: str, registered: Registered) -> list[tuple[str, int, bytes]]:
    """Return the certificates without a part that are new to the register, where *which* is so."""
    found: list[tuple[str, int, bytes]] = []
    last = b""
    while rows := sheet.query(
        f"SELECT told_by, line, serial FROM sheet WHERE part IS NULL AND {which}"
        " AND serial > ? ORDER BY serial LIMIT ?",
        at_s,
        last,
        _ROWS_AT_ONCE,
    ):
        last = rows[-1][2]
        known = registered([serial for _, _, serial in rows])
        found += [(file, line, serial) for file, line, serial in rows if serial not in known]
    return found


def _in_two(sheet: Sheet, limit: int) -> list[tuple[str, int, bytes]]:
    return sheet.query(
        "SELECT told_by, line, serial FROM sheet WHERE serial IN"
        " (SELECT serial FROM point GROUP BY serial HAVING count(*) > 1) ORDER BY serial LIMIT ?",
        limit,
    )


def _count(sheet: Sheet, statement: str, *values: object) -> int:
    return int(sheet.query(f"SELECT count(*) FROM ({statement})", *values)[0][0])


def _refuse(found: list[tuple[str, int, bytes]], count: Callable[[], int], what: str) -> None:
    """Refuse certificates, a few of them by name: (file, line, serial number)."""
    if not found:
        return
    names = ", ".join(f"{serial.hex()} ({file})" for file, _, serial in found[:_NAMED_MAX])
    total = count() if len(found) > _NAMED_MAX else len(found)
    more = f" and {total - _NAMED_MAX} more" if total > _NAMED_MAX else ""
    file, line, _ = found[0]
    raise ImportRefused(file, line, _FIELD, f"certificates {names}{more} {what}")
