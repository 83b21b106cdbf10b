"""Pulls of a large CRL: they are what they are said to be, and what a record says of the objective."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from bench import crl_pulls
from bench.levels import MET, MISSED, UNKNOWN
from bench.pullers import verify

FEW = {"p50": 200.0, "p99": 1500.0, "p999": 2500.0, "max": 9000.0}


def a_round(pullers: int, p99_ms: float = 1.0, **more: Any) -> dict[str, Any]:
    """A round in which everything was answered."""
    return {
        "pullers": pullers,
        "offered": 5000,
        "requests": 50_000,
        "seconds": 10.0,
        "refusals": {},
        "failures": 0,
        "latency": {**FEW, "p99": 1000 * p99_ms},
        "own_late": dict.fromkeys(FEW, 1.0),
        "worker": 0.5,
        "turn_ms": 2.0,
        "pulled_mb_per_s": 600.0 if pullers else 0.0,
        "invalid": "",
        **more,
    }


def record_of(*rounds: dict[str, Any]) -> dict[str, Any]:
    """The record of these rounds."""
    sides = {"without": [item for item in rounds if not item["pullers"]]}
    sides["with"] = [item for item in rounds if item["pullers"]]
    return {"rounds": rounds, **{side: crl_pulls.summary(found) for side, found in sides.items()}}


def test_medians_are_compared() -> None:
    """One bad round of three is not held against it; two are."""
    good, bad = [a_round(10, 3.0)], [a_round(10, 30.0)]
    without = [a_round(0)]
    assert crl_pulls.verdict(record_of(*without * 3, *good * 2, *bad)) == MET
    record = record_of(*without * 3, *good, *bad * 2)
    assert crl_pulls.verdict(record) == MISSED
    assert crl_pulls.missed(record) == ["p99 29.0 ms above that without pulls"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"turn_ms": 11.0}, "a turn of 11.0 ms"),
        ({"failures": 2}, "2 failures"),
        ({"refusals": {"tryLater": 3}}, "3 times tryLater"),
        ({"requests": 40_000}, "40000 answers in 10 s"),
        ({"pulled_mb_per_s": 0.0}, "nothing was pulled"),
    ],
)
def test_quick_answers_are_not_enough(more: dict[str, Any], words: str) -> None:
    """All else that must be so while it is pulled."""
    record = record_of(a_round(0), a_round(10, **more))
    assert crl_pulls.missed(record) == [words]
    assert crl_pulls.verdict(record) == MISSED


def test_rounds_in_which_the_generator_was_late_say_nothing() -> None:
    """They are in no median; without any other it cannot be said."""
    seen = {"own_late": {**FEW, "p99": 1500.0}, "seconds": 30.0}
    late: dict[str, Any] = {"invalid": crl_pulls.invalid(seen, 30.0)}
    assert "1.5 ms late by itself" in late["invalid"]
    assert crl_pulls.verdict(record_of(a_round(0), a_round(10, 99.0, **late), a_round(10))) == MET
    assert crl_pulls.verdict(record_of(a_round(0), a_round(10, **late))) == UNKNOWN


def test_rounds_that_were_not_watched_say_nothing() -> None:
    """Who watches may be kept from it, and would take a moment for the whole round."""
    assert crl_pulls.invalid(a_round(10), 8.0) == ""
    assert crl_pulls.invalid(a_round(10), 7.9) == "it was watched for 7.9 s only of 10"


@pytest.mark.alone
def test_a_large_crl_is_pulled_beside_status_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two clients pull two megabytes over and over from a real worker, whole and the right ones."""
    checked: list[tuple[str, int]] = []

    def verify_too(port: int, path: str, size: int, sha256: str) -> None:
        verify(port, path, size, sha256)
        checked.append((path, size))
        with pytest.raises(ValueError, match="or other ones"):
            verify(port, path, size, "00" * 32)

    monkeypatch.setattr(crl_pulls, "verify", verify_too)
    began_s = time.monotonic()
    record = crl_pulls.measure(tmp_path, 2, 2, 1.0, 1, 500.0)
    ((path, size),) = checked
    assert path.startswith("/crl/auth/g1/all/")
    assert 1.9e6 < size < 2.1e6
    without, pulled = record["rounds"]
    assert (without["pullers"], without["pulled_mb_per_s"], without["pulled_whole"]) == (0, 0.0, 0)
    assert pulled["pulled_mb_per_s"] > 1
    assert pulled["pulled_whole"] > 1
    assert without["requests"] > 400
    assert pulled["requests"] > 400
    assert not pulled["failures"]
    assert not pulled["refusals"]
    assert time.monotonic() - began_s < 120
