"""Plots of recorded figures, and of nothing else: ``bench/plots/*.svg`` from ``bench/results/*.json``.

    python -m bench.plots [--results bench/results] [--out bench/plots]

Cost of each path against its yardstick, with what must be reached and what is aimed at; latency
against load; cost against the size of the index; what must hold of CRLs; status answers while a large CRL is
pulled.  Of several records of a kind the newest is drawn.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt

from bench.records import INDEX_FIGURES, Record, crl_verdicts, index_sizes, newest, read_record
from bench.results import Results, Row, read_results

_LOWEST_MS = 0.01


def draw_paths(results: Results, file: Path) -> None:
    """Draw the ratio of each path as a bar, with the marks that it is held against."""
    rows = list(reversed(results.rows))
    figure, axes = plt.subplots(figsize=(8, 1.2 + 0.32 * len(rows)))
    for at, row in enumerate(rows):
        spread = [[row.ratio.median - row.ratio.min], [row.ratio.max - row.ratio.median]]
        axes.barh(at, row.ratio.median, color="tab:blue", xerr=spread, height=0.6)
        for bound, color in ((row.must, "tab:red"), (row.aim, "tab:green")):
            if bound is not None:
                axes.plot([bound, bound], [at - 0.4, at + 0.4], color=color)
    axes.set_yticks(range(len(rows)), _labels(rows), fontsize=8)
    axes.set_xlabel("CPU time per request, ratio to the yardstick (red: must, green: aim)")
    axes.set_title(f"Cost per path, {results.what.commit}", fontsize=10)
    _save(figure, file)


def _labels(rows: Sequence[Row]) -> list[str]:
    """Return a name for each row, with its yardstick where it is not the only one of its path."""
    short = [f"{row.path}, {row.connections}" for row in rows]
    return [
        f"{name} / {row.yardstick}" if short.count(name) > 1 else name
        for name, row in zip(short, rows, strict=True)
    ]


def draw_latency(record: dict[str, Any], file: Path) -> None:
    """Draw percentiles of latency against the part of capacity that was asked for."""
    figure, axes = plt.subplots(figsize=(7, 4))
    valid = [level for level in record["levels"] if not level["invalid"]]
    invalid = [level for level in record["levels"] if level["invalid"]]
    for name in ("p50", "p99", "p999"):
        values = [_milliseconds(level, name) for level in valid]
        axes.plot([level["percent"] for level in valid], values, marker="o", label=name)
    if invalid:
        values = [_milliseconds(level, "p99") for level in invalid]
        percent = [level["percent"] for level in invalid]
        axes.plot(percent, values, "x", color="grey", label="p99, invalid")
    axes.axvline(70, color="grey", linestyle=":")
    axes.set_yscale("log")
    axes.set_xlabel(f"load, % of capacity ({record['capacity']} requests a second)")
    axes.set_ylabel("ms from when it was due")
    axes.set_title(
        f"Latency, {record['mix']}, {record['connections']} connections, {record['what']['commit']}",
        fontsize=10,
    )
    # Beside the lines: where they leave room is different each time.
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    _save(figure, file)


def _milliseconds(level: dict[str, Any], name: str) -> float:
    return max(_LOWEST_MS, float(level["latency"][name]) / 1000)


def draw_index(sizes: list[tuple[int, Path, dict[str, float]]], file: Path) -> None:
    """Draw what an index costs against its size, a panel for each unit."""
    panels: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for title, names in INDEX_FIGURES.items():
        for name in names:
            # Nothing that took no time has a place on these axes.
            points = [(size, figures[name]) for size, _, figures in sizes if figures.get(name, 0) > 0]
            if points:
                panels.setdefault(title, {})[name] = points
    count = max(1, len(panels))
    figure, rows = plt.subplots(count, squeeze=False, sharex=True, figsize=(7, 2.5 * count))
    for axes, (title, lines) in zip(rows[:, 0], panels.items(), strict=False):
        for name, points in lines.items():
            axes.plot(*zip(*points, strict=True), marker="o", label=name)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_ylabel(title)
        axes.legend(fontsize=7)
    rows[-1, 0].set_xlabel("certificates in the index")
    rows[0, 0].set_title("Cost against the size of the index", fontsize=10)
    _save(figure, file)


def draw_crl(verdicts: Sequence[Record], file: Path) -> None:
    """Draw each judged figure of CRLs as a part of what it must not exceed, with the mark aimed at."""
    rows = list(reversed(verdicts))
    figure, axes = plt.subplots(figsize=(8, 1.2 + 0.4 * len(rows)))
    for at, row in enumerate(rows):
        must, aim = (float(row[bound].split()[1]) for bound in ("must", "aim"))
        # So that less is better of all of them.
        part, aimed = row["value"] / must, aim / must
        if row["must"].startswith(">="):
            part, aimed = 1 / part, 1 / aimed
        axes.barh(at, part, color="tab:blue", height=0.6)
        axes.plot([aimed, aimed], [at - 0.4, at + 0.4], color="tab:green")
    axes.axvline(1.0, color="tab:red")
    labels = [f"{row['figure']}: {row['value']:.3g} (must {row['must']})" for row in rows]
    axes.set_yticks(range(len(rows)), labels, fontsize=8)
    axes.set_xlabel("part of what it may be (red: must, green: aim)")
    axes.set_title("CRLs of a nation's size", fontsize=10)
    _save(figure, file)


def draw_pulls(record: Record, file: Path) -> None:
    """Draw latencies of status answers without and with clients that pull a large CRL, of valid rounds."""
    figure, axes = plt.subplots(figsize=(7, 4))
    names = ("p50", "p99", "p999")
    clients = max(item["pullers"] for item in record["rounds"])
    for beside, (label, side) in enumerate((("no pulls", "without"), (f"{clients} pull", "with"))):
        valid = [
            item["latency"]
            for item in record["rounds"]
            if not item["invalid"] and bool(item["pullers"]) == (side == "with")
        ]
        if not valid or not record[side]:
            continue
        medians = [record[side][f"{name}_ms"] for name in names]
        lowest, highest = (
            [pick(item[name] for item in valid) / 1000 for name in names] for pick in (min, max)
        )
        spread = [
            [max(0.0, median - low) for median, low in zip(medians, lowest, strict=True)],
            [max(0.0, high - median) for median, high in zip(medians, highest, strict=True)],
        ]
        places = [at + 0.4 * beside - 0.2 for at in range(len(names))]
        axes.bar(places, medians, width=0.38, yerr=spread, label=label)
    if record["without"]:
        bound_ms = record["without"]["p99_ms"] + record["objective"]["p99_more_ms"]
        axes.plot([0.8, 1.4], [bound_ms, bound_ms], color="tab:red", label="p99 must")
    axes.set_xticks(range(len(names)), names)
    axes.set_ylabel("ms from when it was due")
    axes.set_title(
        f"OCSP at {record['rate']:.0f}/s, a CRL of {record['megabytes']:.0f} MB, {record['what']['commit']}",
        fontsize=10,
    )
    axes.legend(loc="upper left")
    _save(figure, file)


def _save(figure: Any, file: Path) -> None:  # noqa: ANN401 - matplotlib tells no types here
    file.parent.mkdir(parents=True, exist_ok=True)
    # No date: the same figures make the same file.
    figure.savefig(file, bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)


def draw_all(results: Path, out: Path) -> list[Path]:
    """Draw what there are records of; return the files written."""
    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "certstatus"
    made = []
    if (paths := newest(results, "paths-*.json")) is not None:
        draw_paths(read_results(paths), out / "paths.svg")
        made.append(out / "paths.svg")
    for mix in ("repeated", "mix", "nonce"):
        for connections in (64, 1000):
            kind = f"latency-{mix}-{connections}"
            if (latency := newest(results, f"{kind}-*.json")) is not None:
                draw_latency(read_record(latency), out / f"{kind}.svg")
                made.append(out / f"{kind}.svg")
    if sizes := index_sizes(results):
        draw_index(sizes, out / "index.svg")
        made.append(out / "index.svg")
    if judged := crl_verdicts(results):
        draw_crl([verdict for _, verdict in judged], out / "crl.svg")
        made.append(out / "crl.svg")
    if (pulls := newest(results, "pulls-*.json")) is not None:
        draw_pulls(read_record(pulls), out / "pulls.svg")
        made.append(out / "pulls.svg")
    return made


def main() -> None:
    """Draw, and say what was drawn."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--results", type=Path, default=Path("bench/results"))
    parser.add_argument("--out", type=Path, default=Path("bench/plots"))
    arguments = parser.parse_args()
    for file in draw_all(arguments.results, arguments.out):
        print(file)


if __name__ == "__main__":
    main()
