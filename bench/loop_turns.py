"""The longest single turn of a worker's loop while its world changes, under about half of its load.

One worker on processor 0 under an open loop of the national mix on 64 connections; meanwhile, one
after the other: nothing; 1,000 revocations a second; CRLs published; a snapshot built and swapped;
responder keys renewed.  The worker's own watch (``responder/loop_turns.py``) says how long the
longest turn was: CPU time of the loop's thread, 2 ms too high at most.  Objective: 10 ms.

    python -m bench.loop_turns [--seconds 10] [--people 5000] [--out FILE]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.cpu_time import pin
from bench.open_loop import Load, build, write_requests
from bench.population import GOOD, Population
from bench.under_load import Demo, what, write_record

SERVER_PROCESSOR, GENERATOR_PROCESSOR = 0, 1
CONNECTIONS = 64
OBJECTIVE_MS = 10.0
REVOCATIONS_PER_S = 1000
SNAPSHOT_PERIOD_S = 5

# Snapshots come all the time, beside every phase.
_CONFIG = f"[index]\nsnapshot_period_s = {SNAPSHOT_PERIOD_S}\n"


class _Watch(threading.Thread):
    """Reads the worker's status file as it comes, once a second, and keeps the longest turn."""

    def __init__(self, demo: Demo) -> None:
        super().__init__(daemon=True)
        self.longest_ms = 0.0
        self.files = 0
        self._demo = demo
        self._ended = threading.Event()

    def run(self) -> None:
        seen_ms = self._demo.status()["time_ms"]
        while not self._ended.wait(0.2):
            status = self._demo.status()
            if status["time_ms"] != seen_ms:
                seen_ms = status["time_ms"]
                self.files += 1
                self.longest_ms = max(self.longest_ms, status["turns"]["last_ms"])

    def end(self) -> float:
        """Stop; return the longest turn seen."""
        # What happened last stands in the next file only.
        time.sleep(1.5)
        self._ended.set()
        self.join()
        return self.longest_ms


def measure(seconds: float, people: int) -> dict[str, Any]:
    """Return the record of a whole run, without ``what``."""
    with tempfile.TemporaryDirectory(prefix="certstatus-bench-") as name:
        folder = Path(name)
        program, requests = build(folder), folder / "requests"
        with Demo(folder, people=people, config=_CONFIG) as demo:
            pin(demo.worker_pids[0], SERVER_PROCESSOR)
            write_requests(requests, demo.requests("mix"))

            def load(rate: float, run_s: float) -> Load:
                return Load(
                    program,
                    demo.port,
                    requests,
                    connections=CONNECTIONS,
                    seconds=run_s,
                    rate=rate,
                    processor=GENERATOR_PROCESSOR,
                )

            rate = load(0.0, 3.0).wait().rate / 2
            phases = {}
            acts: dict[str, Callable[[], dict[str, Any]]] = {
                "nothing": lambda: _rest(seconds),
                "revocations": lambda: _revoke(demo, seconds),
                "CRLs published": lambda: _publish(demo, seconds),
                "snapshot swapped": lambda: _snapshots(demo, seconds),
                "keys renewed": lambda: _renew(demo, seconds),
            }
            for phase, act in acts.items():
                # An act may take longer than it was asked to; the load lasts until it is over.
                running = load(rate, 6 * seconds + 60)
                watch = _Watch(demo)
                watch.start()
                try:
                    more = act()
                    longest_ms = watch.end()
                finally:
                    running.stop()
                phases[phase] = {"longest_ms": longest_ms, "files": watch.files, **more}
                print(f"{phase}: {phases[phase]}", file=sys.stderr, flush=True)
    return {"rate": round(rate), "connections": CONNECTIONS, "objective_ms": OBJECTIVE_MS, "phases": phases}


def _rest(seconds: float) -> dict[str, Any]:
    time.sleep(seconds)
    return {}


def _publish(demo: Demo, seconds: float) -> dict[str, Any]:
    until_s, times = time.monotonic() + seconds, 0
    while times == 0 or time.monotonic() < until_s:
        demo.run("publish", "now")
        times += 1
    return {"times": times}


def _revoke(demo: Demo, seconds: float, per_s: int = REVOCATIONS_PER_S) -> dict[str, Any]:
    """Revoke as fast as asked, in this process: a command each would take half a second."""
    from certstatus import clock
    from certstatus.cli.context import Installation
    from certstatus.errors import CertStatusError
    from issuance.revoke import find_certificate, revoke

    installation = Installation(demo.state / "certstatus.toml", as_json=True)
    members = Population.load(demo.state / "demo" / "auth").members
    good = (serial for serial, status in map(members.member, range(len(members))) if status == GOOD)
    begun_s, done = time.monotonic(), 0
    for serial in good:
        now_s = time.monotonic()
        if now_s - begun_s > seconds:
            break
        time.sleep(max(0.0, done / per_s - (now_s - begun_s)))
        found = find_certificate(installation.store, serial, "AUTH")
        try:
            revoke(installation.store, found, clock.now_ms)
        except CertStatusError:
            # By an earlier phase.
            continue
        done += 1
    return {"revoked": done, "per_s": round(done / (time.monotonic() - begun_s))}


def _snapshots(demo: Demo, seconds: float) -> dict[str, Any]:
    """Change something each second, so that a new snapshot is always due, until several were swapped in."""
    before = _mapped(demo)
    _revoke(demo, seconds, per_s=5)
    until_s = time.monotonic() + 5 * SNAPSHOT_PERIOD_S
    while not (swapped := _mapped(demo) - before):
        if time.monotonic() > until_s:
            raise RuntimeError("no snapshot was swapped in")
        time.sleep(0.2)
    return {"last": max(swapped)}


def _mapped(demo: Demo) -> set[str]:
    """The snapshot files that the worker has mapped now."""
    lines = Path(f"/proc/{demo.worker_pids[0]}/maps").read_text().splitlines()
    return {Path(line.split()[-1]).name for line in lines if line.endswith(".idx")}


def _renew(demo: Demo, seconds: float) -> dict[str, Any]:
    """Drop the responder certificates in use, one after another; the agent brings new ones."""
    until_s, times = time.monotonic() + seconds, 0
    while times == 0 or time.monotonic() < until_s:
        for issuer in demo.status()["issuers"]:
            old = issuer["signer_serial"]
            demo.run("responder-cert", "drop", str(issuer["issuer_id"]), old)
            give_up_s = time.monotonic() + 30
            while any(other["signer_serial"] in (old, None) for other in demo.status()["issuers"]):
                if time.monotonic() > give_up_s:
                    raise RuntimeError(f"nothing came in place of responder certificate {old}")
                time.sleep(0.2)
            times += 1
    return {"times": times}


def main() -> int:
    """Measure, write the record; 1 if the objective was missed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=10.0, help="for each phase")
    parser.add_argument("--people", type=int, default=5000)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    command = f"python -m bench.loop_turns --seconds {arguments.seconds:g} --people {arguments.people}"
    record = {"what": what(command), **measure(arguments.seconds, arguments.people)}
    print(f"record: {write_record('loop-turns', record, arguments.out)}")
    return 0 if all(p["longest_ms"] <= OBJECTIVE_MS for p in record["phases"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
