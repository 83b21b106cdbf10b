"""The tables of ``bench/RESULTS.md`` from the newest records; the words around them are people's.

    python -m bench.render [--results bench/results] [--page bench/RESULTS.md] [--plots bench/plots]

A table stands between ``<!-- latency -->`` and ``<!-- /latency -->`` and is written anew each time; what
stands there by hand is lost.  Tables: see ``TABLES``; the plots of that name follow.  Without a record
the page says so.

Knows: what is shown of each kind of record.  Does not know: what the figures mean.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from bench.levels import OBJECTIVE_BELOW, not_answered, verdict
from bench.records import INDEX_FIGURES, by_age, crl_verdicts, index_sizes, newest, read_record
from bench.results import read_results

_NONE_YET = "No record yet."
_MARKED = re.compile(r"<!-- ([a-z-]+) -->\n.*?<!-- /\1 -->", re.DOTALL)
_LEVELS_SHOWN = (30, 50, 60, 70, 90)
_LATENCY_SAID = """

p50 / p99 / p99.9 in milliseconds at so much load, counted from when a request was due.  *invalid*: the
generator was late by itself, or others had the worker's processor; the record says which."""


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(map(_cell, row)) + " |" for row in rows]
    return "\n".join(lines)


def _cell(content: object) -> str:
    """Return *content* as it can be seen in a table: not as a tag, and in one cell."""
    return str(content).replace("<", "&lt;").replace("|", "&#124;")


def _source(*files: Path) -> str:
    lines = []
    for file in dict.fromkeys(files):
        what = read_record(file)["what"]
        lines.append(f"[{file.name}](results/{file.name}), {what['date']}: `{what['command']}`")
    return "\n\n" + "; ".join(lines) + "."


def _number(value: float) -> str:
    """Return *value* to three digits, larger ones as whole numbers with their thousands apart."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _bound(bound: float | None) -> str:
    return "" if bound is None else f"{bound:g}"


def paths(folder: Path) -> str:
    """Cost of each path against its yardstick."""
    file = newest(folder, "paths-*.json")
    if file is None:
        return _NONE_YET
    rows = [
        (
            row.path,
            row.connections,
            row.yardstick,
            _number(row.yardstick_us.median),
            _number(row.subject_us.median),
            f"**{row.ratio.median:.2f}** ({row.ratio.min:.2f}-{row.ratio.max:.2f})",
            _bound(row.must),
            _bound(row.aim),
            row.verdict,
            _number(row.requests_per_s),
            ", ".join(f"{name} {_number(value)}" for name, value in row.more.items()),
        )
        for row in read_results(file).rows
    ]
    columns = "path|connections|yardstick|its µs|our µs|ratio (min-max)|must|aim|reached|requests/s|more"
    return _table(columns.split("|"), rows) + _source(file)


def latency(folder: Path) -> str:
    """Percentiles at some levels of load, of each mix and number of connections."""
    files = _newest_of_each(folder, "latency-*.json", ("mix", "connections"))
    if not files:
        return _NONE_YET
    rows = []
    for file in files:
        record = read_record(file)
        cells = {level["percent"]: _level(level) for level in record["levels"]}
        shown = [cells.get(percent, "") for percent in _LEVELS_SHOWN]
        capacity = f"{record['capacity']:,}" + (" (invalid)" if record["capacity_invalid"] else "")
        people = f"{record['people']:,}"
        rows.append((record["mix"], people, record["connections"], capacity, *shown, verdict(record)))
    columns = ["mix", "people", "connections", "capacity, requests/s"]
    columns += [f"{percent} %" for percent in _LEVELS_SHOWN]
    columns.append(f"p99 within 3 ms of p50 below {OBJECTIVE_BELOW} %")
    return _table(columns, rows) + _LATENCY_SAID + _source(*files)


def _level(level: dict[str, Any]) -> str:
    """Return p50 / p99 / p99.9, and what there was instead of answers."""
    if level["invalid"]:
        return "invalid"
    return ", ".join((_percentiles(level["latency"]), *not_answered(level)))


def _percentiles(latency: dict[str, float]) -> str:
    return " / ".join(f"{latency[name] / 1000:.2f}" for name in ("p50", "p99", "p999"))


def probe(folder: Path) -> str:
    """How soon a revocation is answered by all workers under load."""
    file = newest(folder, "probe-*.json")
    if file is None:
        return _NONE_YET
    record = read_record(file)
    columns = ("load", "rounds", "median", "p99", "longest", "last told good: median", "p99", "longest")
    names = ("median_ms", "p99_ms", "max_ms", "last_good_median_ms", "last_good_p99_ms", "last_good_max_ms")
    rows = [
        (name, case.get("rounds", ""), *[case[field] for field in names])
        for name, case in record["cases"].items()
    ]
    said = (
        f"\n\nMilliseconds from the commit on, {record['workers']} workers, "
        f"{record['connections']} connections; objective: {record['objective_ms']:g} at p99."
    )
    return _table(columns, rows) + said + _source(file)


def loop_turns(folder: Path) -> str:
    """The longest turn of a worker's loop, by what happened meanwhile."""
    file = newest(folder, "loop-turns-*.json")
    if file is None:
        return _NONE_YET
    record = read_record(file)
    rows = [
        (
            phase,
            found["longest_ms"],
            ", ".join(f"{k} {v}" for k, v in found.items() if k not in ("longest_ms", "files", "last")),
        )
        for phase, found in record["phases"].items()
    ]
    said = f"\n\nCPU time, at {record['rate']:,} requests a second; objective: {record['objective_ms']:g} ms."
    return _table(("meanwhile", "longest turn, ms", "how much of it"), rows) + said + _source(file)


def crl(folder: Path) -> str:
    """What must hold of making and checking CRLs, and whether it does."""
    found = crl_verdicts(folder)
    if not found:
        return _NONE_YET
    rows = [
        (
            verdict["figure"],
            f"**{_number(verdict['value'])}**",
            verdict["must"],
            verdict["aim"],
            "aim" if verdict["aim_reached"] else "must" if verdict["held"] else "missed",
        )
        for _, verdict in found
    ]
    return _table(("what", "value", "must", "aim", "reached"), rows) + _source(*[file for file, _ in found])


def pulls(folder: Path) -> str:
    """Status answers without and with clients that pull a large CRL."""
    file = newest(folder, "pulls-*.json")
    if file is None:
        return _NONE_YET
    record = read_record(file)
    names = ("p50_ms", "p99_ms", "p999_ms", "turn_ms", "worker", "pulled_mb_per_s", "own_late_p99_ms")
    clients = max(item["pullers"] for item in record["rounds"])
    rows = [
        (who, *[_number(record[side][name]) if record[side] else "invalid" for name in names])
        for who, side in (("nobody", "without"), (f"{clients} clients", "with"))
    ]
    columns = "who pulls|p50, ms|p99|p99.9|longest turn|worker, processors|pulled, MB/s|generator late, p99"
    objective = record["objective"]
    said = (
        f"\n\nA CRL of {record['megabytes']:,.0f} MB, {record['entries']:,} entries; {record['rate']:,.0f}"
        f" OCSP requests a second on {record['connections']} connections; medians of"
        f" {len(record['rounds']) // 2} rounds each, in turn.  Objective: p99 at most"
        f" {objective['p99_more_ms']:g} ms above that without pulls, no turn above"
        f" {objective['turn_ms']:g} ms, nothing refused or lost: **{record['verdict']}**."
    )
    return _table(columns.split("|"), rows) + said + _source(file)


def index(folder: Path) -> str:
    """What an index of each size costs."""
    sizes = index_sizes(folder)
    if not sizes:
        return _NONE_YET
    rows = [
        (name, *[_number(figures[name]) if name in figures else "" for _, _, figures in sizes])
        for names in INDEX_FIGURES.values()
        for name in names
        if any(name in figures for _, _, figures in sizes)
    ]
    columns = ("certificates", *[f"{size:,}" for size, _, _ in sizes])
    return _table(columns, rows) + _source(*[file for _, file, _ in sizes])


def steps(folder: Path) -> str:
    """The steps of the answer path."""
    file = newest(folder, "steps-*.json")
    if file is None:
        return _NONE_YET
    rows = [(step, f"{us:.2f}") for step, us in read_record(file)["steps"].items()]
    return _table(("step", "µs"), rows) + _source(file)


def profile(folder: Path) -> str:
    """Where a worker's time goes, path by path."""
    files = _newest_of_each(folder, "profile-*.json", ("path",))
    if not files:
        return _NONE_YET
    records = [read_record(file) for file in files]
    groups = list(dict.fromkeys(group for record in records for group in record["code"]))
    rows = [
        (
            record["path"],
            _number(record["cpu_us"]),
            *[f"{record['code'].get(group, 0.0):.0%}" for group in groups],
            ", ".join(f"{module} {share:.0%}" for module, share in list(record["python"].items())[:6]),
            ", ".join(
                f"{name} {count}" for name, count in record["calls_per_request"].items() if count > 0.1
            ),
        )
        for record in records
    ]
    columns = ("path", "µs", *groups, "by Python module, with what it calls", "system calls a request")
    return _table(columns, rows) + _source(*files)


def _newest_of_each(folder: Path, pattern: str, names: tuple[str, ...]) -> list[Path]:
    """Return the newest record for each combination of these of its fields."""
    found: dict[tuple[str, ...], Path] = {}
    for path in by_age(folder, pattern):
        record = read_record(path)
        found[tuple(str(record[name]) for name in names)] = path
    return [found[key] for key in sorted(found)]


TABLES: dict[str, Callable[[Path], str]] = {
    "paths": paths,
    "latency": latency,
    "probe": probe,
    "loop-turns": loop_turns,
    "index": index,
    "crl": crl,
    "pulls": pulls,
    "steps": steps,
    "profile": profile,
}


def _shown(plots: Path, name: str) -> str:
    """Return the lines that show the plots of this name."""
    files = sorted(plots.glob(f"{name}*.svg"))
    return "".join(f"\n\n![{file.stem}]({plots.name}/{file.name})" for file in files)


def render(page: str, results: Path, plots: Path) -> str:
    """Return *page* with its tables as the records in *results* have them, and the plots beside it.

    Raises: ValueError — a mark that no table is known for, or a record that is none.
    """

    def filled(found: re.Match[str]) -> str:
        name = found[1]
        if name not in TABLES:
            raise ValueError(f"<!-- {name} -->: there are {', '.join(TABLES)}")
        return f"<!-- {name} -->\n{TABLES[name](results)}{_shown(plots, name)}\n<!-- /{name} -->"

    return _MARKED.sub(filled, page)


def main() -> None:
    """Write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--results", type=Path, default=Path("bench/results"))
    parser.add_argument("--page", type=Path, default=Path("bench/RESULTS.md"))
    parser.add_argument("--plots", type=Path, default=Path("bench/plots"))
    arguments = parser.parse_args()
    page = render(arguments.page.read_text(), arguments.results, arguments.plots)
    arguments.page.write_text(page)
    print(arguments.page)


if __name__ == "__main__":
    main()
