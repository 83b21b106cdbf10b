"""Latency against load: an open loop at 10 to 90 % of what one worker can do, measured first in the same run.

The worker has processor 0 for itself, the generator processor 1; the rate is fixed, and latency is
counted from the moment a request was due, so that what waits behind a slow one is not left out.
Objective: below 70 % of capacity p99 within 3 ms of p50.

    python -m bench.latency [--mix repeated|mix|nonce] [--connections 64] [--seconds 10] [--out FILE]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.cpu_time import pin
from bench.open_loop import Load, Seen, build, write_requests
from bench.under_load import Demo, what, write_record

SERVER_PROCESSOR, GENERATOR_PROCESSOR = 0, 1
LEVELS = (10, 20, 30, 40, 50, 60, 70, 80, 90)
OBJECTIVE_BELOW, OBJECTIVE_US = 70, 3000.0


def measure(mix: str, connections: int, seconds: float) -> dict[str, Any]:
    """Return the record of a whole run, without ``what``."""
    with tempfile.TemporaryDirectory(prefix="certstatus-bench-") as name:
        folder = Path(name)
        program, requests = build(folder), folder / "requests"
        with Demo(folder) as demo:
            pin(demo.worker_pids[0], SERVER_PROCESSOR)
            write_requests(requests, demo.requests(mix))

            def load(rate: float) -> Seen:
                seen = Load(
                    program,
                    demo.port,
                    requests,
                    connections=connections,
                    seconds=seconds,
                    rate=rate,
                    processor=GENERATOR_PROCESSOR,
                ).wait()
                if seen.failures:
                    raise RuntimeError(f"{seen.failures} failures at {rate:.0f} a second")
                return seen

            capacity = load(0.0).rate
            levels = []
            for level in LEVELS:
                seen = load(capacity * level / 100)
                levels.append({"percent": level, "intended": round(capacity * level / 100), **asdict(seen)})
                print(f"{level} %: {seen.rate:.0f}/s {seen.latency}", file=sys.stderr, flush=True)
    return {"mix": mix, "connections": connections, "capacity": round(capacity), "levels": levels}


def is_met(record: dict[str, Any]) -> bool:
    """Say whether p99 stayed near p50 at every level that the objective is about, and its rate was kept.

    Of what was due and never sent there is no latency, so a level that lagged behind tells too little.
    """
    return all(
        level["requests"] / level["seconds"] >= 0.98 * level["intended"]
        and level["latency"]["p99"] - level["latency"]["p50"] <= OBJECTIVE_US
        for level in record["levels"]
        if level["percent"] < OBJECTIVE_BELOW
    )


def main() -> int:
    """Measure, write the record; 1 if the objective was missed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--mix", choices=("repeated", "mix", "nonce"), default="mix")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=10.0, help="for each level")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    command = f"python -m bench.latency --mix {arguments.mix} --connections {arguments.connections}"
    record = {
        "what": what(f"{command} --seconds {arguments.seconds:g}"),
        **measure(arguments.mix, arguments.connections, arguments.seconds),
    }
    kind = f"latency-{arguments.mix}-{arguments.connections}"
    print(f"record: {write_record(kind, record, arguments.out)}")
    return 0 if is_met(record) else 1


if __name__ == "__main__":
    sys.exit(main())
