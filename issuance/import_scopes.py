"""A CA whose certificates' distribution points divide them: which CRL is of which part of them.

::

    CRLs given ─▶ newest of each point ─▶ parts, whose points have no name in common ─┐
    parts in the register ────────────────────────────────────────────────────────────┴▶ Division
    certificates read ─▶ a point that all of them name beside another one: the CRL of it is of the whole

Knows: which CRLs are of one point or of none, which contradict each other, and that parts have no name in
common.  IssuingDistributionPoints are compared and kept octet by octet.
Does not know: which certificate is in which part (``import_sheet``), or the register (``taken_scopes``).
Source: RFC 5280 §4.2.1.13, §5.2.3 (numbers count within a scope), §5.2.5, §6.3.3 (b)(2)(i).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from certstatus.errors import ImportRefused, PolicyViolation, printable
from issuance.crl_scopes import ScopeRecord
from issuance.import_crl import ForeignCRL
from issuance.import_points import FIELD, crl_points, points_text
from issuance.import_register import ImportedIssuer


class GivenCRL(NamedTuple):
    """A checked CRL and where it was read."""

    crl: ForeignCRL
    source: str


@dataclass(frozen=True, slots=True)
class Part:
    """The certificates that name one point.  ``place``: its number on the sheet.

    ``given``: its CRL, None if none was given this time; ``record``: its scope, once there is one.
    """

    place: int
    idp_der: bytes
    given: GivenCRL | None = None
    record: ScopeRecord | None = None

    @property
    def known_s(self) -> int:
        """Up to when its revocations are known: the thisUpdate of its newest CRL, 0 if there was none."""
        taken_s = (None if self.record is None else self.record.taken_this_update_s) or 0
        return max(taken_s, 0 if self.given is None else self.given.crl.this_update_s)


@dataclass(frozen=True, slots=True)
class Division:
    """The parts, and the CRL of all certificates if one was given; ``whole_idp_der``: what that is of."""

    parts: tuple[Part, ...]
    whole: GivenCRL | None = None
    whole_idp_der: bytes | None = None
    _by_name: dict[bytes, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Note which part each name is of.  Raises: ImportRefused — one is of two parts."""
        by_name: dict[bytes, int] = {}
        texts = {part.place: points_text(part.idp_der) for part in self.parts}
        for part in self.parts:
            for name in crl_points(part.idp_der):
                other = by_name.setdefault(name, part.place)
                if other != part.place:
                    raise ImportRefused(
                        part.given.source if part.given else "the register",
                        0,
                        FIELD,
                        f"{texts[part.place]} has a name in common with {texts[other]}, and is not the same:"
                        " a certificate that names it would be in two parts",
                    )
        object.__setattr__(self, "_by_name", by_name)

    def places_of(self, points: Iterable[bytes]) -> set[int]:
        """Return the parts that a certificate with these names of points is in."""
        return {self._by_name[name] for name in points if name in self._by_name}

    def place_of(self, idp_der: bytes | None) -> int | None:
        """Return the part whose CRLs have this IssuingDistributionPoint, octet for octet."""
        return next((part.place for part in self.parts if part.idp_der == idp_der), None)

    def with_whole(self, place: int) -> Division:
        """Return it with one of the parts known as the whole."""
        whole = next(part for part in self.parts if part.place == place)
        rest = tuple(part for part in self.parts if part.place != place)
        return replace(self, parts=rest, whole=whole.given, whole_idp_der=whole.idp_der)

    @property
    def given(self) -> list[GivenCRL]:
        """The CRLs: that of the whole first, then those of the parts, the oldest first."""
        parts = [part.given for part in self.parts if part.given is not None]
        parts.sort(key=lambda item: item.crl.this_update_s)
        return parts if self.whole is None else [self.whole, *parts]

    def together(self, taken: ImportedIssuer | None) -> ForeignCRL | None:
        """Return what all of them together are to ``imported_issuer``; None: none was given.

        Its number is as high as any, so that the CRLs of the whole, should there have been none, begin above
        all; its thisUpdate is the oldest's, but not before what was noted of an earlier import.
        """
        crls = [item.crl for item in self.given]
        if not crls:
            return None
        before_s = 0 if taken is None else taken.crl_this_update_s or 0
        ends = [crl.next_update_s for crl in crls]
        numbers = [crl.number for crl in crls] + [None if taken is None else taken.crl_number]
        return ForeignCRL(
            number=max((number for number in numbers if number is not None), default=None),
            this_update_s=max(before_s, min(crl.this_update_s for crl in crls)),
            next_update_s=None if None in ends else min(end or 0 for end in ends),
            idp_der=self.whole_idp_der,
            sha256=hashlib.sha256(b"".join(sorted(crl.sha256 for crl in crls))).digest(),
            entries=[],
        )


def newest_of_each(given: Iterable[GivenCRL]) -> list[GivenCRL]:
    """Return, of CRLs of the same point, the newest; those of no point count as of one.

    Raises: ImportRefused — two that contradict each other.
    """
    newest: dict[bytes, GivenCRL] = {}
    for item in given:
        # Without a name, flags alone: of all certificates, as far as they are taken at all.
        key = item.crl.idp_der or b""
        key = key if crl_points(key or None) else b""
        before = newest.get(key)
        newest[key] = item if before is None else _newer(before, item)
    return list(newest.values())


def _newer(one: GivenCRL, other: GivenCRL) -> GivenCRL:
    if one.crl.idp_der != other.crl.idp_der:
        raise ImportRefused(
            other.source,
            0,
            FIELD,
            f"of all certificates, as the CRL in {printable(one.source)} is in other words; give one of them",
        )
    if one.crl.sha256 == other.crl.sha256:
        return one
    older, newer = sorted((one, other), key=lambda item: (item.crl.number or -1, item.crl.this_update_s))
    if older.crl.number == newer.crl.number or older.crl.this_update_s > newer.crl.this_update_s:
        raise ImportRefused(
            newer.source,
            0,
            "CRL number",
            f"of the same point as the CRL in {printable(older.source)}, and neither is the newer one:"
            f" numbers {older.crl.number} and {newer.crl.number}",
        )
    return newer


def divide(
    newest: Sequence[GivenCRL],
    records: Sequence[ScopeRecord],
    taken: ImportedIssuer | None,
) -> Division | None:
    """Return how the CA's certificates are divided; None: they are not, and at most one CRL is given.

    Takes:  *newest*: one CRL of each point; *records*: the issuer's parts in the register; *taken*: what an
            import before has left, None of a CA that is new.
    Raises: ImportRefused — an older CRL than was read before, one without a number, points that overlap;
            PolicyViolation — the register knows no such part, or the import that was interrupted had more.
    """
    if not records and len(newest) <= 1:
        return None
    ended = taken is not None and taken.is_ready
    if ended and not records:
        raise PolicyViolation(
            "the CA was imported with one list for all its certificates, and which of them are in which part"
            " was not recorded; it cannot be divided any more"
        )
    whole_idp_der = None if taken is None else taken.crl_idp_der
    whole: GivenCRL | None = None
    parts = {
        record.names.idp_der: Part(place, record.names.idp_der, None, record)
        for place, record in enumerate(records)
    }
    for item in newest:
        idp_der = item.crl.idp_der
        if not crl_points(idp_der) or (ended and idp_der == whole_idp_der):
            whole, whole_idp_der = item, idp_der
            continue
        assert idp_der is not None
        if item.crl.number is None:
            raise ImportRefused(item.source, 0, "CRL number", "missing: the CRLs of a part are numbered on")
        before = parts.get(idp_der)
        if before is None and ended:
            raise PolicyViolation(
                f"{printable(item.source)}: the CA was imported without a CRL of {points_text(idp_der)}"
            )
        if before is None:
            parts[idp_der] = Part(len(parts), idp_der, item)
            continue
        record = before.record
        assert record is not None
        if (record.taken_this_update_s or 0) > item.crl.this_update_s:
            raise ImportRefused(item.source, 0, "thisUpdate", "older than the CRL that was taken over last")
        parts[idp_der] = replace(before, given=item)
    missing = [part for part in parts.values() if part.given is None]
    if missing and not ended:
        raise PolicyViolation(
            f"the import that was interrupted had a CRL of {points_text(missing[0].idp_der)}, and these files"
            " have none: give the same, or newer ones"
        )
    # In an order of their own, so that the same files make the same scopes.
    found = sorted(parts.values(), key=lambda part: (part.record is None, part.idp_der))
    return Division(
        tuple(replace(part, place=place) for place, part in enumerate(found)), whole, whole_idp_der
    )
