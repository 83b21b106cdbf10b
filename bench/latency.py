"""Latency against load: an open loop at 10 to 90 % of what one worker can do, measured first in the same run.

The generator has a processor for itself, the worker another; on a machine of two the rest of its
installation runs beside it, while the worker rests.  The rate is fixed, and latency is counted from the
moment a request was due, so that what waits behind a slow one is not left out.  First everything is asked
about once, so that capacity and levels are those of the same, warm responder.  A level that says nothing
of the responder (``levels``) is measured again, and marked if it does not become better.

    python -m bench.latency [--mix repeated|mix|nonce] [--connections 64] [--seconds 10]
                            [--people 2000] [--tries 3] [--out FILE]

Exit code: 0 the objective was met, 1 missed, 2 it cannot be said.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.cpu_time import cpu_ns, pin, stand_back, stolen_ns, waited_ns
from bench.levels import BUSY_MAX, MET, MISSED, UNKNOWN, invalid, missed, verdict
from bench.open_loop import Load, build, write_requests
from bench.processors import divide
from bench.under_load import PEOPLE, Demo, what, write_record

LEVELS = (10, 20, 30, 40, 50, 60, 70, 80, 90)
TRIES = 3
_WARM_S = 1.0
_EXITS = {MET: 0, MISSED: 1, UNKNOWN: 2}

Level = dict[str, Any]


def measure(mix: str, connections: int, seconds: float, people: int, tries: int) -> dict[str, Any]:
    """Return the record of a whole run, without ``what``.

    Takes: *people*: how many are asked about; *tries*: how often a level is measured until it is valid.
    """
    processors = divide()
    with tempfile.TemporaryDirectory(prefix="certstatus-bench-") as name:
        folder = Path(name)
        program, requests = build(folder), folder / "requests"
        with Demo(folder, people=people, processors=processors.others) as demo:
            (worker,) = demo.worker_pids
            pin(worker, processors.worker)
            count = write_requests(requests, demo.requests(mix))

            def seen_ns() -> tuple[int, ...]:
                stolen = stolen_ns(processors.worker)
                return time.monotonic_ns(), cpu_ns(worker), waited_ns(worker), stolen

            def load(rate: float, run_s: float = seconds) -> Level:
                with Load(
                    program,
                    demo.port,
                    requests,
                    connections=connections,
                    seconds=run_s,
                    rate=rate,
                    warm_s=_WARM_S,
                    processor=processors.generator,
                ) as running:
                    time.sleep(_WARM_S)
                    before_ns = seen_ns()
                    seen = running.wait()
                    spans_ns = zip(seen_ns(), before_ns, strict=True)
                passed, used, waited, stolen = (now - then for now, then in spans_ns)
                return {
                    "offered": round(rate),
                    "answered": round(seen.rate),
                    **asdict(seen),
                    "worker": round(used / passed, 3),
                    "waited": round(waited / passed, 3),
                    "stolen": round(stolen / passed, 4),
                }

            sent = 0
            while sent < count:
                sent += load(0.0)["sent"]
            # Not while it is saturated: they would come to nothing then, and the worker's index to grow old.
            saturated = _until_valid(lambda: load(0.0), _capacity_invalid, tries)
            print(f"capacity {saturated['answered']}/s {saturated['invalid']}", file=sys.stderr, flush=True)
            if processors.worker in processors.others:
                for pid in demo.others():
                    stand_back(pid)
            levels = []
            for percent in LEVELS:
                rate = saturated["answered"] * percent / 100
                level = _until_valid(lambda rate=rate: load(rate), invalid, tries)  # type: ignore[misc]
                levels.append({"percent": percent, **level})
                print(line(levels[-1]), file=sys.stderr, flush=True)
    return {
        "mix": mix,
        "people": people,
        "connections": connections,
        "capacity": saturated["answered"],
        "capacity_invalid": saturated["invalid"],
        "saturated": saturated,
        "levels": levels,
    }


def _until_valid(load: Callable[[], Level], why_not: Callable[[Level], str], tries: int) -> Level:
    """Measure until it is worth something, at most so often; say in the level why it is not."""
    for tried in range(1, tries + 1):
        level = load()
        level |= {"tries": tried, "invalid": why_not(level)}
        if not level["invalid"]:
            break
    return level


def _capacity_invalid(level: Level) -> str:
    """Return why the rate at saturation is not the worker's; empty if it is."""
    if level["failures"] or level["refusals"]:
        # Refusing is cheaper than answering.
        return f"not all were answered: {level['refusals']}, {level['failures']} failures"
    if level["worker"] < BUSY_MAX:
        return (
            f"the worker had {level['worker']:.0%} of a processor and waited for it {level['waited']:.0%} "
            f"of the time; the generator was busy {level['busy']:.0%} of the time"
        )
    return ""


def line(level: Level) -> str:
    """Return a level in a line: offered, answered, latency, how late the generator was, what is wrong."""
    latency, own = level["latency"], level["own_late"]
    return (
        f"{level['percent']:3} %: offered {level['offered']}/s, answered {level['answered']}/s, "
        f"p50 {latency['p50'] / 1000:.2f} ms, p99 {latency['p99'] / 1000:.2f} ms; "
        f"generator late by itself p50 {own['p50'] / 1000:.3f} ms, p99 {own['p99'] / 1000:.3f} ms, "
        f"busy {level['busy']:.0%}"
        + (f"  INVALID: {level['invalid']}" if level["invalid"] else "")
        + (f"  missed: {words}" if not level["invalid"] and (words := missed(level)) else "")
    )


def main() -> int:
    """Measure, write the record, say whether the objective was met."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--mix", choices=("repeated", "mix", "nonce"), default="mix")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=10.0, help="for each level")
    parser.add_argument("--people", type=int, default=PEOPLE, help="who are asked about")
    parser.add_argument("--tries", type=int, default=TRIES, help="at each level, until it is valid")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    mix, connections, seconds = arguments.mix, arguments.connections, arguments.seconds
    command = f"python -m bench.latency --mix {mix} --connections {connections} --seconds {seconds:g}"
    record = {
        "what": what(f"{command} --people {arguments.people}"),
        **measure(mix, connections, seconds, arguments.people, arguments.tries),
    }
    print(f"record: {write_record(f'latency-{mix}-{connections}', record, arguments.out)}")
    found = verdict(record)
    print(f"objective: {found}")
    return _EXITS[found]


if __name__ == "__main__":
    sys.exit(main())
