"""Plots of recorded figures, and of nothing else: ``bench/plots/*.svg`` from ``bench/results/*.json``.

    python -m bench.plots [--results bench/results] [--out bench/plots]

Cost of each path against its yardstick, with what must be reached and what is aimed at; latency
against load; cost against the size of the index.  Of several records of a kind the newest is drawn.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt

from bench.records import INDEX_FIGURES, index_sizes, newest, read_record
from bench.results import Results, read_results

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
    axes.set_yticks(range(len(rows)), [f"{row.path}, {row.connections}" for row in rows], fontsize=8)
    axes.set_xlabel("CPU time per request, ratio to the yardstick (red: must, green: aim)")
    axes.set_title(f"Cost per path, {results.what.commit}", fontsize=10)
    _save(figure, file)


def draw_latency(record: dict[str, Any], file: Path) -> None:
    """Draw percentiles of latency against the part of capacity that was asked for."""
    figure, axes = plt.subplots(figsize=(7, 4))
    percent = [level["percent"] for level in record["levels"]]
    for name in ("p50", "p99", "p999"):
        values = [max(_LOWEST_MS, level["latency"][name] / 1000) for level in record["levels"]]
        axes.plot(percent, values, marker="o", label=name)
    axes.axvline(70, color="grey", linestyle=":")
    axes.set_yscale("log")
    axes.set_xlabel(f"load, % of capacity ({record['capacity']} requests a second)")
    axes.set_ylabel("ms from when it was due")
    axes.set_title(
        f"Latency, {record['mix']}, {record['connections']} connections, {record['what']['commit']}",
        fontsize=10,
    )
    axes.legend()
    _save(figure, file)


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
