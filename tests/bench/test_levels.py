"""What a level of a latency record says, and whose fault it is when it says nothing."""

from __future__ import annotations

from typing import Any

import pytest

from bench.levels import MET, MISSED, UNKNOWN, invalid, missed, verdict

QUICK = {"p50": 200.0, "p99": 900.0}


def level(percent: int = 50, **other: Any) -> dict[str, Any]:
    """A level at which all is well, but for what is said."""
    found: dict[str, Any] = {"percent": percent, "offered": 1000, "requests": 1000, "seconds": 1.0}
    found |= {"refusals": {}, "failures": 0, "latency": QUICK, "own_late": {"p50": 0.1, "p99": 5.0}}
    return found | {"busy": 0.5, "waited": 0.01, "stolen": 0.0, "worker": 0.6} | other


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"own_late": {"p50": 1.0, "p99": 4000.0}}, "the generator was 4.0 ms late by itself at p99"),
        ({"busy": 0.99, "requests": 900}, "the generator fell behind, busy 99% of the time"),
        ({"waited": 0.4}, "the worker's threads waited for their processor 40% of the time"),
        ({"stolen": 0.004}, "the host took the worker's processor away for 0.4% of the time"),
        ({"stolen": 0.004, "worker": 0.1}, ""),
        ({"busy": 0.99}, ""),
        ({"requests": 900}, ""),
        ({}, ""),
    ],
)
def test_a_level_is_invalid_by_the_generators_or_the_machines_fault(
    other: dict[str, Any], words: str
) -> None:
    """A generator that is busy and keeps its rate does its work; a responder that lags is a finding."""
    assert invalid(level(**other)) == words


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"requests": 900}, "900/s answered of 1000/s"),
        ({"requests": 0, "seconds": 0.0}, "0/s answered of 1000/s"),
        ({"refusals": {"tryLater": 3}}, "3 times tryLater"),
        ({"failures": 2}, "2 failures"),
        ({"latency": {"p50": 100.0, "p99": 3200.0}}, "p99 3.1 ms above p50"),
        ({}, ""),
    ],
)
def test_what_the_responder_did_wrong_is_said(other: dict[str, Any], words: str) -> None:
    """Rate, refusals, failures, latency."""
    assert missed(level(**other)) == words


@pytest.mark.parametrize(
    ("levels", "found"),
    [
        ([level(50), level(60), level(70, requests=100)], MET),
        ([level(50), level(60, requests=100)], MISSED),
        ([level(50), level(60, waited=0.5)], UNKNOWN),
        ([level(50, waited=0.5, requests=1), level(60, requests=100)], MISSED),
        ([level(50), level(90, waited=0.5)], MET),
    ],
)
def test_the_objective_is_about_the_levels_below_its_bound(levels: list[dict[str, Any]], found: str) -> None:
    """One valid level that misses is enough; without all of them nothing is met."""
    assert verdict({"levels": levels, "capacity_invalid": ""}) == found


def test_of_an_unknown_capacity_nothing_is_a_part() -> None:
    """The percentages are of something else then."""
    assert verdict({"levels": [level(50)], "capacity_invalid": "others had the processor"}) == UNKNOWN
