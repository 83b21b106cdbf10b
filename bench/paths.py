"""What each path of a status check costs, against its yardstick, in one run: the cost table.

    python -m bench.paths [--only WORDS]... [--rounds 9] [--seconds 1.2] [--quick] [--out FILE]

Whole installations (registered access, everything counted) and their yardsticks are asked in turn, round
by round, each until its processor is full: servers on processor 0, everything else on processor 1.  A
figure is CPU time of the server's processes per request; a ratio belongs to one round, and the median of
the rounds counts.  The first round warms up and is left out.  Wall time is never used.

A station at which something fails costs its own rows alone: the others are measured, written and printed,
and the exit code is 1.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from bench.legs import PER_S_SIGNED, Bench
from bench.machine import what
from bench.measure import Timing
from bench.national_mix import CERTIFICATES
from bench.results import Results, Row, write_results
from bench.rows import RowSoFar
from bench.stations import FEW, Scene
from bench.subject import Processors
from bench.table import Station, as_markdown, chosen

_QUICK = {"rounds": 1, "seconds": 0.3, "certificates": 1_000_000}
_BUSY_ENOUGH = 0.9


def measure_station(station: Station, scene: Scene, rounds: int, warm: int = 1) -> tuple[list[Row], int]:
    """Open a station and measure its rows: *rounds* rounds, and *warm* before them that do not count.

    Returns: the rows, and how many bytes the body of an answer had.
    """
    rows = [RowSoFar(plan) for plan in station.rows]
    needed = set[str]().union(*(row.plan.needs for row in rows))
    with station.open(scene) as legs:
        wanted = {name: leg for name, leg in legs.items() if name in needed}
        if missing := needed - wanted.keys():
            raise KeyError(f"{station.name}: nothing measures {sorted(missing)}")
        for number in range(1 - warm, rounds + 1):
            began_s = time.monotonic()
            measured = {}
            for name, leg in wanted.items():
                try:
                    measured[name] = leg.take()
                except Exception as exc:
                    exc.add_note(f"while measuring {station.name}: {name}")
                    raise
            if number > 0:
                for row in rows:
                    row.add(measured)
            say(f"{station.name}, round {number} of {rounds}: {time.monotonic() - began_s:.0f} s")
    return [row.row() for row in rows], legs.response_bytes


def measure(
    stations: Sequence[Station], scene: Scene, rounds: int, warm: int
) -> tuple[list[Row], list[int], list[str]]:
    """Measure one station after the other; what fails is said, and left out.

    Returns: the rows, how many bytes an answer had at each station, and the names of those left out.
    """
    measured: list[Row] = []
    sizes: list[int] = []
    failed: list[str] = []
    for station in stations:
        try:
            found, size = measure_station(station, scene, rounds, warm)
        except Exception:
            traceback.print_exc()
            failed.append(station.name)
        else:
            measured += found
            sizes.append(size)
    return measured, sizes, failed


def least_busy(row: Row) -> float:
    """Return the median share of a processor that the less busy of both sides had."""
    sides = [
        [share for share in shares if share is not None]
        for shares in zip(*((item.subject_busy, item.yardstick_busy) for item in row.rounds), strict=True)
    ]
    return min((statistics.median(side) for side in sides if side), default=1.0)


def say(text: str) -> None:
    """Tell the person at the terminal how it goes."""
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Measure, write the record, print the table, and say which rows were not at saturation."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--only", action="append", default=[], help="rows whose name holds this; repeatable")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=1.2, help="of each measurement")
    parser.add_argument(
        "--certificates",
        type=int,
        default=CERTIFICATES,
        help="in the nation's index; each round asks about some 400,000 of them anew",
    )
    parser.add_argument("--quick", action="store_true", help="see whether everything runs; no figures")
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--list", action="store_true", help="name the rows and stop")
    arguments = parser.parse_args()
    stations = chosen(arguments.only)
    if arguments.list or not stations:
        print(
            "\n".join(
                f"{station.name}: {row.path}, {row.connections} / {row.yardstick}"
                for station in chosen([])
                for row in station.rows
            )
        )
        return
    if arguments.quick:
        for name, value in _QUICK.items():
            setattr(arguments, name, value)
    processors = Processors.available()
    os.sched_setaffinity(0, {processors.others})
    with tempfile.TemporaryDirectory(prefix="certstatus-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        bench = Bench(folder, processors.others, Timing(seconds=arguments.seconds))
        # Each certificate is asked about once, also in the round that warms up.
        others = bench.enough(PER_S_SIGNED, FEW) * (arguments.rounds + 1)
        scene = Scene(bench, processors, arguments.certificates, others)
        rows, sizes, failed = measure(stations, scene, arguments.rounds, 0 if arguments.quick else 1)
    if not rows:
        sys.exit("nothing was measured")
    record = Results(what("python -m bench.paths " + " ".join(sys.argv[1:]), sizes[0]), tuple(rows))
    if not arguments.quick or arguments.out:
        # By default under a name that is no table's when it has not all rows.
        kind = "part-of-paths" if failed or arguments.only else "paths"
        out = arguments.out or Path("bench/results") / f"{kind}-{record.what.commit}.json"
        write_results(record, out)
        say(f"record: {out}")
    print(as_markdown(rows))
    if idle := [row.name for row in rows if least_busy(row) < _BUSY_ENOUGH]:
        print("\nnot at saturation, so each answer may have cost a wake-up more:", *idle, sep="\n  ")
    if failed:
        sys.exit("not measured: " + ", ".join(failed))


if __name__ == "__main__":
    main()
