"""The page of results shows what the newest records say, and leaves the words alone."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from bench.plots import draw_all
from bench.records import crl_verdicts, index_sizes, newest
from bench.render import TABLES, render
from bench.results import Results, Round, What, make_row, write_results

PATHS_WHAT = What("make bench", "abc", "2026-01-02", "here", "a CPU", "Linux", {"python": "3"}, 617, "µs")
SPREAD = {"p50": 200.0, "p99": 1500.0, "p999": 2500.0, "max": 9000.0}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A folder with one record of each kind."""
    folder = tmp_path / "results"
    rounds = [Round(10.0, 8.0, 1.25), Round(9.0, 9.0, 1.0), Round(11.0, 10.0, 1.1)]
    row = make_row("repeated GET", 64, "nginx", (1.15, 1.0), rounds, [100000.0], {"hit_rate": 0.5})
    write_results(Results(PATHS_WHAT, (row,)), folder / "paths-abc.json")
    level = {"requests": 300, "seconds": 1.0, "offered": 300, "latency": SPREAD, "own_late": SPREAD}
    level |= {
        "refusals": {},
        "failures": 0,
        "busy": 0.1,
        "waited": 0.0,
        "stolen": 0.0,
        "worker": 0.5,
        "invalid": "",
    }
    level["own_late"] = dict.fromkeys(SPREAD, 1.0)
    levels = [{**level, "percent": percent} for percent in (30, 60, 70, 90)]
    levels[2] |= {"refusals": {"tryLater": 2}}
    levels[3] |= {"invalid": "the generator fell behind"}
    latency = {"mix": "mix", "people": 2000, "connections": 64, "capacity": 60000, "capacity_invalid": ""}
    put(folder, "latency-mix-64", {**latency, "levels": levels})
    case = {"rounds": 100, "p99_ms": 42.5, "last_good_p99_ms": 17.0}
    case |= dict.fromkeys(("median_ms", "max_ms", "last_good_median_ms", "last_good_max_ms"), 1.0)
    put(folder, "probe", {"workers": 2, "connections": 1000, "objective_ms": 100.0, "cases": {"mix": case}})
    phases = {"keys renewed": {"longest_ms": 7.25, "files": 10, "times": 3}}
    put(folder, "loop-turns", {"rate": 30000, "objective_ms": 10.0, "phases": phases})
    put(folder, "steps", {"steps": {"sign": 25.125}})
    profile: dict[str, Any] = {"path": "repeated", "cpu_us": 5.8, "code": {"kernel": 0.65}}
    profile |= {
        "python": {"responder/lane.py": 0.4, "<string>": 0.2},
        "calls_per_request": {"write": 1.0, "poll": 0.01},
    }
    put(folder, "profile-repeated", profile)
    ratio = {"figure": "complete build_ratio", "value": 1.75, "must": "<= 3", "aim": "<= 1.5"}
    faster = {"figure": "builder times_faster", "value": 70.0, "must": ">= 20", "aim": ">= 50"}
    verdicts = [
        {**ratio, "held": True, "aim_reached": False},
        {**faster, "held": True, "aim_reached": True},
    ]
    put(folder, "crl", {"verdicts": verdicts})
    pulls: dict[str, Any] = {"megabytes": 500.0, "entries": 10204081, "connections": 64, "rate": 5000.0}
    pulls |= {"objective": {"p99_more_ms": 10.0, "turn_ms": 10.0}, "verdict": "met"}
    pulls["rounds"] = [{"pullers": count, "latency": SPREAD, "invalid": ""} for count in (0, 10)]
    side = {"p50_ms": 0.2, "p99_ms": 1.5, "p999_ms": 2.5, "turn_ms": 2.25, "worker": 0.5}
    side |= {"pulled_mb_per_s": 612.0, "own_late_p99_ms": 0.004}
    put(folder, "pulls", {**pulls, "without": {}, "with": side})
    return folder


def put(
    folder: Path, kind: str, figures: dict[str, Any], date: str = "2026-01-02", commit: str = "abc"
) -> Path:
    """Write a record."""
    folder.mkdir(exist_ok=True)
    file = folder / f"{kind}-{commit}.json"
    what = {"command": f"python -m bench.{kind}", "commit": commit, "date": date}
    file.write_text(json.dumps({"what": what, **figures}))
    return file


def page(*names: str) -> str:
    """A page with these marks and a word before each."""
    return "".join(f"About {name}.\n<!-- {name} -->\nof another day\n<!-- /{name} -->\n" for name in names)


def test_a_record_is_shown_where_its_mark_stands(results: Path, tmp_path: Path) -> None:
    """Figures of every kind are there, what stood between the marks is not, and the words are."""
    put(results, "index", {"sizes": {"10000": {"look_up": {"known_us": 2.5}}}})
    shown = render(page(*TABLES), results, tmp_path)
    assert "of another day" not in shown
    for words in (
        "| repeated GET | 64 | nginx | 9 | 10 | **1.10** (1.00-1.25) | 1.15 | 1 | must | 100,000 |",
        "| mix | 2,000 | 64 | 60,000 | 0.20 / 1.50 / 2.50 |  | 0.20 / 1.50 / 2.50 |",
        "| 0.20 / 1.50 / 2.50, 2 times tryLater | invalid | met |",
        "| mix | 100 | 1.0 | 42.5 | 1.0 | 1.0 | 17.0 | 1.0 |",
        "| keys renewed | 7.25 | times 3 |",
        "| certificates | 10,000 |",
        "| look_up known_us | 2.5 |",
        "| sign | 25.12 |",
        "| repeated | 5.8 | 65% | responder/lane.py 40%, &lt;string> 20% | write 1.0 |",
        "| complete build_ratio | **1.75** | &lt;= 3 | &lt;= 1.5 | must |",
        "| builder times_faster | **70** | >= 20 | >= 50 | aim |",
        "| nobody | invalid | invalid | invalid | invalid | invalid | invalid | invalid |",
        "| 10 clients | 0.2 | 1.5 | 2.5 | 2.25 | 0.5 | 612 | 0.004 |",
        "nothing refused or lost: **met**.",
        "About profile.",
    ):
        assert words in shown
    assert render(shown, results, tmp_path) == shown


def test_without_a_record_the_page_says_so(tmp_path: Path) -> None:
    """For every kind, and nothing of an older page stays."""
    shown = render(page(*TABLES), tmp_path, tmp_path)
    assert shown.count("No record yet.") == len(TABLES)
    assert "of another day" not in shown


def test_a_mark_that_nobody_fills_is_refused(tmp_path: Path) -> None:
    """A misspelt one would show old figures for ever."""
    with pytest.raises(ValueError, match="latencies"):
        render(page("latencies"), tmp_path, tmp_path)


def test_the_newest_record_is_the_newest_by_its_own_date(tmp_path: Path) -> None:
    """Files of a checkout are all of one age, or of the wrong one."""
    new = put(tmp_path, "steps", {}, date="2026-02-01 10:00Z", commit="aaa")
    old = put(tmp_path, "steps", {}, date="2026-01-31 10:00Z", commit="bbb")
    os.utime(new, (1, 1))
    os.utime(old, (2, 2))
    assert newest(tmp_path, "steps-*.json") == new


def test_each_size_of_the_index_has_its_newest_figures(tmp_path: Path) -> None:
    """Also when the largest is measured less often; words and truths are no figures."""
    old = {size: {"look_up": {"known_us": 4, "how": "x", "ok": True}} for size in ("100000000", "10000")}
    first = put(tmp_path, "index", {"sizes": old})
    new = {"10000": {"look_up": {"known_us": 2}, "maps": [1, 2]}}
    second = put(tmp_path, "index", {"sizes": new}, date="2026-01-03", commit="b")
    assert index_sizes(tmp_path) == [
        (10**4, second, {"look_up known_us": 2.0}),
        (10**8, first, {"look_up known_us": 4.0}),
    ]


def test_each_judged_figure_of_crls_is_the_newest(tmp_path: Path) -> None:
    """Several programs judge CRLs, each into records of its own."""
    old = [{"figure": name, "value": 1.0} for name in ("build", "nation")]
    first = put(tmp_path, "crl", {"verdicts": old})
    new = [{"figure": "nation", "value": 2.0}]
    second = put(tmp_path, "crl-nation", {"verdicts": new}, date="2026-01-03", commit="b")
    found = [(file, verdict["figure"], verdict["value"]) for file, verdict in crl_verdicts(tmp_path)]
    assert found == [(first, "build", 1.0), (second, "nation", 2.0)]


def test_plots_are_drawn_and_shown(results: Path, tmp_path: Path) -> None:
    """Only what there are records of, and below the table of that name."""
    sizes = {str(10**power): {"look_up": {"known_us": power}} for power in (4, 5, 6)}
    put(results, "index", {"sizes": sizes})
    plots = tmp_path / "plots"
    drawn = {file.name for file in draw_all(results, plots)}
    assert drawn == {"paths.svg", "latency-mix-64.svg", "index.svg", "crl.svg", "pulls.svg"}
    assert "builder times_faster: 70 (must &gt;= 20)" in (plots / "crl.svg").read_text()
    assert "certificates in the index" in (plots / "index.svg").read_text()
    assert "![index](plots/index.svg)\n<!-- /index -->" in render(page("index"), results, plots)
