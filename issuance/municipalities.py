"""Municipalities by code: cities, towns, villages, special wards, and the wards of designated cities.

Knows: the table that comes with the package, and check digits.
Does not know: what a code is used for; nor municipalities that were merged before the table was made.
Source: codes of local governments (JIS X 0402; 全国地方公共団体コード of the Ministry of Internal Affairs and
Communications, whose rule for the sixth digit is used): 792 cities, 743 towns, 183 villages and 23 special
wards, and beside them 171 wards of the 20 designated cities, as of 2024-01-01.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import NamedTuple

from certstatus.errors import PolicyViolation

_TABLE = "municipalities.csv"
_WEIGHTS = (6, 5, 4, 3, 2)
_DIGITS = len(_WEIGHTS)


class Municipality(NamedTuple):
    """One line of the table; ``code``: five digits, without the check digit."""

    code: str
    prefecture: str
    name: str

    @property
    def title(self) -> str:
        """The full name, prefecture first."""
        return f"{self.prefecture}{self.name}"


def check_digit(code: str) -> str:
    """Return the sixth digit of a five-digit code: 11 less the weighted sum's rest by 11, its last digit."""
    total = sum(int(digit) * weight for digit, weight in zip(code, _WEIGHTS, strict=True))
    return str((11 - total % 11) % 10)


@cache
def municipalities() -> Mapping[str, Municipality]:
    """Return all municipalities by their five digits, in order of codes."""
    text = resources.files("issuance").joinpath(_TABLE).read_text(encoding="utf-8")
    lines = csv.DictReader(text.splitlines())
    found = [Municipality(line["code"][:_DIGITS], line["prefecture"], line["name"]) for line in lines]
    return MappingProxyType({item.code: item for item in found})


def municipality_of(text: str) -> Municipality:
    """Return the municipality of a code, with or without its check digit.

    Raises: PolicyViolation — no such code, or another check digit than the code's.
    """
    code = text[:_DIGITS]
    found = municipalities().get(code) if len(text) in (_DIGITS, _DIGITS + 1) else None
    if found is None:
        raise PolicyViolation(f"no municipality or ward has the code {text[:40]!r}")
    if text[_DIGITS:] not in ("", check_digit(code)):
        raise PolicyViolation(f"{text!r}: the check digit of {code} ({found.title}) is {check_digit(code)}")
    return found
