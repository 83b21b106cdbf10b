"""The record of a benchmark run: the same after writing and reading, and its verdicts."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.results import Results, Round, What, make_row, read_results, write_results

WHAT = What("make bench", "abc", "2026-01-01", "here", "a CPU", "Linux", {"python": "3"}, 617, "µs")
ROUNDS = [Round(10.0, 8.0, 1.25, 0.99, 0.98), Round(9.0, 9.0, 1.0), Round(11.0, 10.0, 1.1)]


def test_a_record_reads_back_as_it_was_written(tmp_path: Path) -> None:
    """Every field of rows, rounds and machine survives the file."""
    row = make_row("repeated GET", 64, "nginx", (1.15, 1.0), ROUNDS, [3.0, 1.0, 2.0], {"hit_rate": 0.5})
    written = Results(WHAT, (row,))
    write_results(written, tmp_path / "folder" / "paths.json")
    assert read_results(tmp_path / "folder" / "paths.json") == written
    assert (row.ratio.median, row.ratio.min, row.ratio.max) == (1.1, 1.0, 1.25)
    assert row.subject_us.median == 10.0
    assert row.requests_per_s == 2.0


@pytest.mark.parametrize(
    ("must", "aim", "verdict"),
    [(1.15, 1.0, "must"), (1.15, 1.1, "aim"), (1.05, 1.0, "missed"), (None, None, "-")],
)
def test_a_verdict_is_about_the_median_of_the_ratios(must: float, aim: float, verdict: str) -> None:
    """A bound that is reached exactly is reached."""
    assert make_row("x", 1, "y", (must, aim), ROUNDS, [1.0]).verdict == verdict


def test_what_is_no_record_is_refused_by_its_name(tmp_path: Path) -> None:
    """The message says which file it was."""
    file = tmp_path / "other.json"
    file.write_text('{"what": {}}')
    with pytest.raises(ValueError, match=r"other\.json"):
        read_results(file)
