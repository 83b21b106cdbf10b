"""The arithmetic of the cost table: ratios, sums of parts, which rows need what, and what is noise."""

from __future__ import annotations

import random

import pytest

from bench.compare import chance_of_ranks, compare, report
from bench.measure import Measured
from bench.national_mix import CRL_PULLS, STATUS_REQUESTS
from bench.paths import least_busy
from bench.results import Results, Round, Row, What, make_row
from bench.rows import RowPlan, RowSoFar, one_round, yardstick_us
from bench.signature_speed import read_speed
from bench.stations import FEW, TWINS
from bench.table import STATIONS, as_markdown, chosen

MEASURED = {
    "subject": Measured(60.0, 0.99, 16_000.0, signatures=0.5, more={"hit_rate": 0.5}),
    "plain": Measured(60.0, 0.98, 16_000.0),
    "nginx GET": Measured(8.0, 0.9, 100_000.0),
    "nginx POST": Measured(10.0, 0.97, 100_000.0),
    "signature": Measured(20.0),
}
PARTS = {"nginx GET": 0.75, "nginx POST": 0.25}


def test_a_yardstick_is_the_weighed_sum_of_its_parts() -> None:
    """Shares weigh the parts; a signature counts once for a request if nobody counted signatures."""
    assert yardstick_us(RowPlan("", 1, "", "plain", PARTS), MEASURED) == 8.5
    assert yardstick_us(RowPlan("", 1, "", "plain", PARTS, "signature"), MEASURED) == 28.5


def test_signatures_weigh_as_often_as_the_subject_made_them() -> None:
    """With half of the answers from memory, half a signature stands in the yardstick."""
    assert yardstick_us(RowPlan("", 1, "", "subject", PARTS, "signature"), MEASURED) == 18.5


def test_a_round_keeps_both_sides_and_who_was_less_busy() -> None:
    """The ratio is of the same round, and the least busy part of the yardstick is told."""
    found = one_round(RowPlan("", 1, "", "subject", PARTS, "signature"), MEASURED)
    assert (found.subject_us, found.yardstick_us, found.ratio) == (60.0, 18.5, round(60 / 18.5, 4))
    assert (found.subject_busy, found.yardstick_busy) == (0.99, 0.9)


def test_a_row_is_the_median_of_its_rounds_ratios() -> None:
    """Not the ratio of the medians: each ratio belongs to one round."""
    row = RowSoFar(RowPlan("a", 64, "b", "subject", {"nginx GET": 1.0}))
    for subject, yardstick in ((10.0, 10.0), (20.0, 10.0), (30.0, 20.0)):
        row.add({"subject": Measured(subject, 1.0, 5.0), "nginx GET": Measured(yardstick, 1.0)})
    assert row.row().ratio.median == 1.5
    assert row.row().subject_us.median / row.row().yardstick_us.median == 2.0
    assert row.row().verdict == "-"


def test_the_mix_is_held_against_all_its_parts_in_their_shares() -> None:
    """The weights of both yardsticks of the mix add up to one request, each shape with its own share."""
    plans = [row for station in STATIONS for row in station.rows if row.path == "national mix"]
    assert len(plans) == 2
    for plan in plans:
        assert sum(plan.parts.values()) == pytest.approx(1.0)
    alone, yardsticks = plans
    shares = {shape.name: shape.share for shape in STATUS_REQUESTS}
    for name, share in shares.items():
        assert alone.parts[f"cold {name} {FEW}"] == share
    twins = [name for name in shares if TWINS.get(name, name) == "POST"]
    assert yardsticks.parts[f"nginx POST {FEW}"] == pytest.approx(sum(shares[name] for name in twins))
    pulls = sum(pull.share for pull in CRL_PULLS)
    assert yardsticks.parts[f"nginx GET {FEW}"] == pytest.approx(shares["GET"] + pulls)


def test_rows_have_names_of_their_own_and_can_be_chosen() -> None:
    """Two rows of one name could not be told apart in a record; a word chooses rows and their stations."""
    names = [(row.path, row.connections, row.yardstick) for station in STATIONS for row in station.rows]
    assert len(set(names)) == len(names)
    assert {station.name for station in chosen(["P-384"])} == {"P-384"}
    assert [row.path for station in chosen(["two workers: two workers"]) for row in station.rows]
    assert chosen([]) == list(STATIONS)
    assert chosen(["no such row"]) == []


def test_the_table_says_what_was_reached() -> None:
    """A line for each row, with its bounds and the verdict."""
    rounds = [Round(12.0, 10.0, 1.2)]
    rows = [make_row("a path", 64, "nginx", bounds, rounds, [1.0]) for bounds in ((1.15, 1.0), (1.5, 1.2))]
    lines = as_markdown(rows).splitlines()
    assert lines[2] == "| a path | 64 | 12.0 | nginx | 10.0 | 1.20 (1.20-1.20) | 1.15 | 1 | missed |"
    assert lines[3].endswith("| 1.5 | 1.2 | aim |")


SAID = """+DTP:256:sign:ecdsa:1
+R5:46934:256:0.99
+F2:2:2048:3359.000000:60536.000000
+F4:3:256:47408.080808:15186.000000
+F4:4:384:1569.000000:1812.000000
"""


@pytest.mark.parametrize(("algorithm", "us"), [("p256", 21.09), ("p384", 637.35), ("rsa2048", 297.71)])
def test_a_signature_is_read_from_what_openssl_says(algorithm: str, us: float) -> None:
    """Signatures, not verifications, of the right algorithm and size."""
    assert read_speed(SAID, algorithm) == pytest.approx(us, abs=0.01)
    with pytest.raises(RuntimeError, match="rsa3072"):
        read_speed(SAID, "rsa3072")


def test_rounds_of_the_same_program_are_noise() -> None:
    """Samples from one distribution are called different about as rarely as promised."""
    chance = random.Random(7)
    different = sum(
        not compare(
            [chance.gauss(10, 0.5) for _ in range(7)], [chance.gauss(10, 0.5) for _ in range(7)], seed
        ).is_noise
        for seed in range(40)
    )
    assert different <= 5


def test_a_real_difference_is_no_noise() -> None:
    """Five rounds a tenth above five others, none overlapping: dearer, and cheaper the other way round."""
    a, b = [10.0, 10.1, 10.2, 10.3, 10.4], [11.0, 11.1, 11.2, 11.3, 11.4]
    found = compare(a, b)
    assert (found.words, found.is_noise) == ("10% dearer", False)
    assert found.low <= found.change <= found.high
    assert compare(b, a).words == "9% cheaper"
    # Two rounds on each side say nothing, however far apart they are.
    assert compare([10.0, 10.1], [20.0, 20.1]).is_noise
    # Certain, and nobody would act on it.
    assert compare(a, [value * 1.1 / 1.1 + 0.001 for value in a]).is_noise


def test_chance_is_counted_over_all_divisions() -> None:
    """Of the 252 ways to divide ten rounds two are as far apart; equal values tell nothing."""
    chance = random.Random(1)
    assert chance_of_ranks([1, 2, 3, 4, 5], [6, 7, 8, 9, 10], chance) == pytest.approx(2 / 252)
    assert chance_of_ranks([1, 1, 1], [1, 1, 1], chance) == 1.0
    many = chance_of_ranks(range(20), [value + 0.5 for value in range(20)], chance)
    assert 0.5 < many <= 1.0


def _record(*rows: Row) -> Results:
    return Results(What("", "abc", "2026-01-01", "", "", "", {}, 600, "µs"), rows)


def _row(path: str, us: list[float]) -> Row:
    rounds = [Round(value, 10.0, value / 10) for value in us]
    return make_row(path, 64, "nginx", (None, None), rounds, [1.0])


def test_records_are_compared_row_by_row() -> None:
    """Rows of one name are compared, several records of one side together; the others are named."""
    low, high = [10.0, 10.1, 10.2], [12.0, 12.1, 12.2]
    first = [_record(_row("same", low), _row("gone", low)), _record(_row("same", low))]
    second = [_record(_row("same", high)), _record(_row("same", high), _row("new", low))]
    text, is_worse = report(first, second, "ratio")
    lines = text.splitlines()[2:]
    assert is_worse
    assert "20% dearer" in lines[0] or "19% dearer" in lines[0]
    assert [line.split("|")[-2].strip() for line in lines[1:]] == ["only in A", "only in B"]
    assert report(second, first, "ratio")[1] is False
    assert report(first, first, "subject_us", worse_only=True)[0].count("\n") == 1


def test_a_row_that_was_not_at_saturation_is_found() -> None:
    """The less busy side counts, by the median of the rounds; a side that is no server does not."""
    shares = [(0.99, 0.8), (0.98, 0.95), (0.97, 0.7)]
    rounds = [Round(1.0, 1.0, 1.0, *both) for both in shares]
    assert least_busy(make_row("", 1, "", (None, None), rounds, [1.0])) == 0.8
    alone = [Round(1.0, 1.0, 1.0, 0.95, None)]
    assert least_busy(make_row("", 1, "", (None, None), alone, [1.0])) == 0.95
