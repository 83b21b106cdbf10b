"""How long status answers take while a nation's CRL is pulled: OCSP p99 without and with ten clients at it.

One worker under an open loop of the national mix at a fixed moderate rate, in rounds that alternate: nobody
pulls; ten clients pull a CRL of 500 MB over and over, as fast as it comes.  The generator has a processor for
itself, the worker another; on a machine of two the rest of the installation runs behind the worker, and the
pullers behind that, only while all others rest: so the worker decides how fast they get it.

Objective: with pulls p99 is at most 10 ms above p99 without (medians of the rounds), no turn of the loop is
longer than 10 ms, and nothing is refused or lost.  10 ms is what one turn of a worker's loop may take
anywhere else (``loop_turns``): whoever asks for a status waits for one turn of somebody's transfer, never
for the transfer.

    python -m bench.crl_pulls [--megabytes 500] [--pullers 10] [--seconds 30] [--rounds 3] [--rate 5000]
                              [--folder DIR] [--out FILE]

Exit code: 0 the objective was met, 1 missed, 2 it cannot be said.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.cpu_time import cpu_ns, give_way, pin
from bench.large_crl import LargeCRL, large_crl
from bench.levels import MET, MISSED, OWN_LATE_US_MAX, UNKNOWN, is_kept, not_answered
from bench.loop_turns import Watch
from bench.open_loop import Load, build, write_requests
from bench.processors import divide
from bench.pullers import Pullers, verify
from bench.under_load import Demo, what, write_record
from certstatus.cli.context import Installation

MEGABYTES, PULLERS, SECONDS, ROUNDS, RATE = 500, 10, 30.0, 3, 5000.0
CONNECTIONS = 64
P99_MORE_MS, TURN_MS = 10.0, 10.0
_WARM_S = 1.0
# Who watches has no processor of its own, and may be late.
_WATCHED_MIN = 0.8
_EXITS = {MET: 0, MISSED: 1, UNKNOWN: 2}

Round = dict[str, Any]


class Scene:
    """A demo with its large CRL, and the generator's program and requests."""

    def __init__(self, stack: ExitStack, folder: Path, megabytes: int) -> None:
        self.processors = divide()
        self.program, self.requests = build(folder), folder / "requests"
        self.demo = stack.enter_context(Demo(folder, processors=self.processors.others))
        (self.worker,) = self.demo.worker_pids
        pin(self.worker, self.processors.worker)
        self.count = write_requests(self.requests, self.demo.requests("mix"))
        installation = Installation(self.demo.state / "certstatus.toml", as_json=True)
        stack.enter_context(closing(installation))
        self.crl: LargeCRL = stack.enter_context(large_crl(installation, self.demo.port, megabytes))
        verify(self.demo.port, self.crl.path, self.crl.size, self.crl.sha256)
        if self.processors.worker in self.processors.others:
            for pid in self.demo.others():
                # Before the pullers: whoever gets no processor at all lets the worker's index grow old.
                give_way(pid)

    def load(self, rate: float, seconds: float) -> Load:
        """Begin to ask."""
        return Load(
            self.program,
            self.demo.port,
            self.requests,
            connections=CONNECTIONS,
            seconds=seconds,
            rate=rate,
            warm_s=_WARM_S,
            processor=self.processors.generator,
        )

    def warm(self) -> None:
        """Ask about everything once."""
        sent = 0
        while sent < self.count:
            sent += self.load(0.0, _WARM_S).wait().sent


def measure(folder: Path, megabytes: int, pullers: int, seconds: float, rounds: int, rate: float) -> Round:
    """Return the record of a whole run, without ``what``."""
    with ExitStack() as stack:
        scene = Scene(stack, folder, megabytes)
        scene.warm()
        found = []
        for number in range(rounds):
            for count in (0, pullers):
                found.append(_round(scene, count, seconds, rate))
                print(f"round {number + 1}: {line(found[-1])}", file=sys.stderr, flush=True)
    return {
        "megabytes": round(scene.crl.size / 1e6, 1),
        "entries": scene.crl.entries,
        "connections": CONNECTIONS,
        "rate": rate,
        "objective": {"p99_more_ms": P99_MORE_MS, "turn_ms": TURN_MS},
        "rounds": found,
        "without": summary([item for item in found if not item["pullers"]]),
        "with": summary([item for item in found if item["pullers"]]),
    }


def _round(scene: Scene, pullers: int, seconds: float, rate: float) -> Round:
    """Return what was seen at *rate* while so many pull."""
    crl, worker = scene.crl, scene.worker
    with Pullers(scene.demo.port, crl.path, crl.size, pullers, scene.processors.others) as pulls:
        while not all(pulls.octets()):
            # All have begun before anything is measured.
            time.sleep(0.1)
            pulls.check()
        watch = Watch(scene.demo)
        with scene.load(rate, seconds) as running:
            time.sleep(_WARM_S)
            watch.start()
            before_ns, octets, used_ns = time.monotonic_ns(), sum(pulls.octets()), cpu_ns(worker)
            seen = running.wait()
            passed_ns = time.monotonic_ns() - before_ns
            octets, used_ns = sum(pulls.octets()) - octets, cpu_ns(worker) - used_ns
        longest_ms = watch.end()
        pulls.check()
        whole = pulls.whole()
    passed_s = passed_ns / 1e9
    return {
        "pullers": pullers,
        "offered": round(rate),
        **asdict(seen),
        "watched_s": round(passed_s, 1),
        "worker": round(used_ns / passed_ns, 3),
        "turn_ms": longest_ms,
        "pulled_mb_per_s": round(octets * 1e3 / passed_ns, 1),
        "pulled_whole": sum(whole),
        "invalid": invalid(asdict(seen), passed_s),
    }


def invalid(seen: Round, watched_s: float) -> str:
    """Return why a round says nothing of the responder; empty if it does.

    Takes: *watched_s*: how long the worker, its turns and the pulls were watched.
    """
    if watched_s < _WATCHED_MIN * seen["seconds"]:
        return f"it was watched for {watched_s:.1f} s only of {seen['seconds']:.0f}"
    late_us: float = seen["own_late"]["p99"]
    if late_us > OWN_LATE_US_MAX:
        return f"the generator was {late_us / 1000:.1f} ms late by itself at p99"
    return ""


def summary(rounds: Sequence[Round]) -> dict[str, float]:
    """Return the medians of the valid rounds, and the longest turn of all; empty if none is valid."""
    valid = [item for item in rounds if not item["invalid"]]
    if not valid:
        return {}

    def median(values: list[float]) -> float:
        return round(statistics.median(values), 3)

    return {
        **{
            f"{name}_ms": median([r["latency"][name] / 1000 for r in valid])
            for name in ("p50", "p99", "p999")
        },
        "own_late_p99_ms": median([r["own_late"]["p99"] / 1000 for r in valid]),
        "worker": median([r["worker"] for r in valid]),
        "pulled_mb_per_s": median([r["pulled_mb_per_s"] for r in valid]),
        "turn_ms": max(r["turn_ms"] for r in rounds),
    }


def missed(record: Round) -> list[str]:
    """Return in what the objective was missed, in words; for a record with valid rounds of both kinds."""
    reasons = []
    more_ms = record["with"]["p99_ms"] - record["without"]["p99_ms"]
    if more_ms > P99_MORE_MS:
        reasons.append(f"p99 {more_ms:.1f} ms above that without pulls")
    if record["with"]["turn_ms"] > TURN_MS:
        reasons.append(f"a turn of {record['with']['turn_ms']:.1f} ms")
    for item in record["rounds"]:
        if item["pullers"] and not item["invalid"]:
            reasons += not_answered(item)
            if not is_kept(item):
                reasons.append(f"{item['requests']} answers in {item['seconds']:.0f} s")
            if not item["pulled_mb_per_s"]:
                reasons.append("nothing was pulled")
    return reasons


def verdict(record: Round) -> str:
    """Return whether the objective was met, missed, or cannot be known."""
    if not record["with"] or not record["without"]:
        return UNKNOWN
    return MISSED if missed(record) else MET


def line(seen: Round) -> str:
    """Return a round in a line."""
    latency, own = seen["latency"], seen["own_late"]
    return (
        f"{seen['pullers']} pull {seen['pulled_mb_per_s']} MB/s: "
        f"p50 {latency['p50'] / 1000:.2f} ms, p99 {latency['p99'] / 1000:.2f} ms, "
        f"longest turn {seen['turn_ms']} ms, worker {seen['worker']:.0%}; "
        f"generator late by itself p99 {own['p99'] / 1000:.3f} ms"
        + "".join(f"  {words}" for words in not_answered(seen))
        + (f"  INVALID: {seen['invalid']}" if seen["invalid"] else "")
    )


def main() -> int:
    """Measure, write the record, say whether the objective was met."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--megabytes", type=int, default=MEGABYTES, help="size of the CRL, 10^6 octets")
    parser.add_argument("--pullers", type=int, default=PULLERS)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for each round")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="without and with pulls, each")
    parser.add_argument("--rate", type=float, default=RATE, help="OCSP requests a second")
    parser.add_argument("--folder", type=Path, help="where it is made: 1.7 times the CRL [/tmp]")
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    command = (
        f"python -m bench.crl_pulls --megabytes {chosen.megabytes} --pullers {chosen.pullers} "
        f"--seconds {chosen.seconds:g} --rounds {chosen.rounds} --rate {chosen.rate:g}"
    )
    with tempfile.TemporaryDirectory(prefix="certstatus-bench-", dir=chosen.folder) as folder:
        figures = measure(
            Path(folder), chosen.megabytes, chosen.pullers, chosen.seconds, chosen.rounds, chosen.rate
        )
    record = {"what": what(command), **figures}
    found = verdict(record)
    record["verdict"] = found
    print(f"record: {write_record('pulls', record, chosen.out)}")
    reasons = f": {'; '.join(missed(record))}" if found == MISSED else ""
    print(f"objective: {found}{reasons}")
    return _EXITS[found]


if __name__ == "__main__":
    sys.exit(main())
