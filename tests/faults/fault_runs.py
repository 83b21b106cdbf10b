"""Many seeded runs, one after another or a few at a time, each on a fresh installation.

    python fault_runs.py --runs 200 --seconds 20 --results FILE
        [--first-seed N] [--at-a-time N] [--load-max X]

Appends one line of JSON per run to FILE (see ``fault_run``); seeds that FILE already has are not run
again, so the same command goes on where it was stopped.  The first run that finds anything wrong
ends it with 1; its folder and its output are kept and named.
Knows: starting runs and collecting their lines.  Does not know: what a run does.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from fault_run import commit

HERE = Path(__file__).parent
# A run that takes so long hangs.
_PATIENCE_S = 420.0


@dataclass(slots=True)
class Going:
    """One run under way."""

    seed: int
    folder: Path
    process: subprocess.Popen[bytes]
    began_s: float


class Runs:
    """Runs at work below a folder of their own."""

    def __init__(self, seconds: float, results: Path) -> None:
        self._seconds = seconds
        self._results = results
        # PostgreSQL runs as a user of its own and must get at its folders.
        self._base = Path(tempfile.mkdtemp(prefix="certstatus-faults-"))
        self._base.chmod(0o755)
        self.going: list[Going] = []
        self.failed: list[str] = []

    def start(self, seed: int) -> None:
        """Start the run of *seed*."""
        folder = self._base / f"seed-{seed}"
        # Of this very code: another version's store may look different.
        prepared = self._base / f"prepared-{commit()}"
        words = [str(HERE / "fault_run.py"), str(seed), str(self._seconds), str(folder), str(prepared)]
        with (self._base / f"seed-{seed}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, *words], stdout=log, stderr=log, start_new_session=True
            )
        self.going.append(Going(seed, folder, process, time.monotonic()))

    def collect(self) -> None:
        """Take the lines of runs that have ended."""
        for run in list(self.going):
            code = run.process.poll()
            if code is None and time.monotonic() - run.began_s > _PATIENCE_S:
                run.process.terminate()
                code = run.process.wait()
            if code is None:
                continue
            self.going.remove(run)
            self._take(run, code)

    def _take(self, run: Going, code: int) -> None:
        result = run.folder / "result.json"
        if result.exists():
            line = json.loads(result.read_text())
        else:
            line = {"seed": run.seed, "commit": commit(), "failed": f"exit {code}"}
        with self._results.open("a") as results:
            results.write(json.dumps(line) + "\n")
        log = self._base / f"seed-{run.seed}.log"
        if code == 0:
            shutil.rmtree(run.folder, ignore_errors=True)
            log.unlink()
            print(
                f"seed {run.seed}: {line['answers']} answers, {len(line['episodes'])} faults,"
                f" longest silence {line['silence_s']} s, {line['took_s']} s",
                flush=True,
            )
        else:
            self.failed.append(
                f"seed {run.seed}: {line.get('faults_found', line.get('failed'))}; see {log}, {run.folder}"
            )

    def end(self) -> None:
        """Remove what good runs left."""
        if not self.failed:
            shutil.rmtree(self._base, ignore_errors=True)


def main() -> int:
    """Run until all seeds are done or one has failed."""
    parser = argparse.ArgumentParser(description="many seeded runs under faults")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--at-a-time", type=int, default=1)
    # More than one only while the machine has time for them, with this load average at most.
    parser.add_argument("--load-max", type=float, default=1e9)
    parser.add_argument("--results", type=Path, required=True)
    given = parser.parse_args()
    given.results.parent.mkdir(parents=True, exist_ok=True)
    done = set()
    if given.results.exists():
        lines = [json.loads(line) for line in given.results.read_text().splitlines()]
        done = {line["seed"] for line in lines if "answers" in line and not line["faults_found"]}
    seeds = [seed for seed in range(given.first_seed, given.first_seed + given.runs) if seed not in done]
    runs = Runs(given.seconds, given.results)
    stop: list[int] = []
    # The first Ctrl-C lets what is under way come to its end.
    signal.signal(signal.SIGINT, lambda number, _frame: stop.append(number))
    while (seeds and not runs.failed and not stop) or runs.going:
        while seeds and not runs.failed and not stop and len(runs.going) < given.at_a_time:
            if runs.going and os.getloadavg()[0] > given.load_max:
                break
            runs.start(seeds.pop(0))
        runs.collect()
        time.sleep(0.2)
    runs.end()
    for text in runs.failed:
        print(text)
    return 1 if runs.failed else 0


if __name__ == "__main__":
    sys.exit(main())
