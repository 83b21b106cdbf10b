"""The table of municipalities, by what is known of it independently of its making."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest

import issuance
from certstatus.errors import PolicyViolation
from issuance.municipalities import check_digit, municipalities, municipality_of

_LINES = list(
    csv.DictReader(
        (Path(issuance.__file__).with_name("municipalities.csv")).read_text(encoding="utf-8").splitlines()
    )
)
_TOKYO_WARDS = [f"131{number:02d}" for number in range(1, 24)]


def test_there_is_every_municipality_and_every_ward() -> None:
    """As many of each kind as the nation has, in all 47 prefectures: none is missing, none twice."""
    kinds = Counter(line["name"][-1] for line in _LINES)
    assert kinds == {"市": 792, "町": 743, "村": 183, "区": 23 + 171}
    assert len(municipalities()) == len(_LINES) == 1912
    assert len({line["code"][:2] for line in _LINES}) == len({line["prefecture"] for line in _LINES}) == 47
    assert list(municipalities()) == sorted(municipalities())
    assert [code for code in _TOKYO_WARDS if not municipalities()[code].name.endswith("区")] == []


def test_every_check_digit_is_right() -> None:
    """By the ministry's rule, which detects a wrong digit and two that changed places."""
    assert [line["code"] for line in _LINES if line["code"][5] != check_digit(line["code"][:5])] == []
    # Published examples: Sapporo, Shinjuku, Yokohama, Naha.
    for code in ("011002", "131041", "141003", "472018"):
        assert check_digit(code[:5]) == code[5]


def test_wards_are_those_of_the_twenty_designated_cities() -> None:
    """Each ward outside Tokyo has a city's name before its own, and comes after it."""
    wards = [line for line in _LINES if line["name"].endswith("区") and line["code"][:5] not in _TOKYO_WARDS]
    cities: dict[str, list[str]] = {}
    for ward in wards:
        city = next(
            line
            for line in _LINES
            if line["prefecture"] == ward["prefecture"]
            and line["name"].endswith("市")
            and ward["name"].startswith(line["name"])
        )
        cities.setdefault(city["name"], []).append(ward["code"])
        assert city["code"] < ward["code"]
        assert city["code"][:3] == ward["code"][:3]
    assert len(cities) == 20
    assert {name: len(cities[name]) for name in ("横浜市", "大阪市", "浜松市")} == {
        "横浜市": 18,
        "大阪市": 24,
        "浜松市": 3,
    }


@pytest.mark.parametrize("code", ["13104", "131041"])
def test_a_code_is_found_with_its_check_digit_or_without(code: str) -> None:
    """Both are how codes are written."""
    assert municipality_of(code).title == "東京都新宿区"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("131042", "the check digit of 13104 .* is 1"),
        ("13100", "no municipality"),
        ("1310", "no municipality"),
        ("1310411", "no municipality"),
        ("", "no municipality"),
        ("00000", "no municipality"),
        ("２２１３８", "no municipality"),
    ],
)
def test_a_wrong_code_is_refused(code: str, said: str) -> None:
    """Unknown, a prefecture's, too short, too long, with another check digit, or in other digits."""
    with pytest.raises(PolicyViolation, match=said):
        municipality_of(code)
