"""From a revocation's commit to the last worker that answers it, with the service at its limit.

Two workers, 1,000 connections that each ask again at once; ``certstatus probe`` measures beside them,
first under the national mix, then when every request bears a nonce and must be signed, its own too.
``p99_ms`` includes the time that the probe's own answer takes, which at this load is mostly waiting
in line; ``last_good_p99_ms`` is when anybody was last told good.  Objective: 100 ms at p99.

    python -m bench.probe_under_load [--rounds 100] [--connections 1000] [--workers 2] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.open_loop import Load, build, write_requests
from bench.under_load import Demo, what, write_record

OBJECTIVE_MS = 100.0
# Of one round, at the very most; the load is ended when the probe has.
_ROUND_S = 5.0
CASES = {"mix": (), "nonce": ("--nonces",)}


def measure(rounds: int, connections: int, workers: int) -> dict[str, Any]:
    """Return the record of a whole run, without ``what``."""
    cases = {}
    with tempfile.TemporaryDirectory(prefix="certstatus-bench-") as name:
        folder = Path(name)
        program, requests = build(folder), folder / "requests"
        with Demo(folder, workers=workers) as demo:
            for mix, words in CASES.items():
                write_requests(requests, demo.requests(mix))
                run_s = rounds * _ROUND_S
                with Load(program, demo.port, requests, connections=connections, seconds=run_s) as load:
                    before = _answered(demo, workers)
                    said = demo.run("probe", "--service", "AUTH", "--rounds", str(rounds), *words, "--json")
                    answered = [
                        now - then for now, then in zip(_answered(demo, workers), before, strict=True)
                    ]
                    seen = load.end()
                load_saw = {"answered_per_s": round(seen.rate), **seen.refusals, "failures": seen.failures}
                cases[mix] = {**json.loads(said), "answered_by_worker": answered, "load": load_saw}
                print(f"{mix}: {cases[mix]}", file=sys.stderr, flush=True)
    return {"connections": connections, "workers": workers, "objective_ms": OBJECTIVE_MS, "cases": cases}


def _answered(demo: Demo, workers: int) -> list[int]:
    """How many requests each worker has answered, however."""
    return [sum(demo.status(slot)["outcomes"].values()) for slot in range(workers)]


def main() -> int:
    """Measure, write the record; 1 if somebody was told good too late."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    command = f"python -m bench.probe_under_load --rounds {arguments.rounds}"
    command += f" --connections {arguments.connections} --workers {arguments.workers}"
    record = {
        "what": what(command),
        **measure(arguments.rounds, arguments.connections, arguments.workers),
    }
    print(f"record: {write_record('probe', record, arguments.out)}")
    return 0 if all(case["last_good_p99_ms"] <= OBJECTIVE_MS for case in record["cases"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
