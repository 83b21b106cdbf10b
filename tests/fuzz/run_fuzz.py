"""Fuzzes one target after the other, and tells how many inputs each was given.

    python tests/fuzz/run_fuzz.py [--seconds 600] [--seed 0] [--keep] [TARGET ...]

Each target runs under atheris in a process of its own (``fuzz_one``), and its oracles judge every
input.  What a run has learnt is left in ``var/fuzz/<target>``, where the next one begins; an input that
breaks an oracle is written beside it as ``crash-*``, and the exit code is 1.  ``--keep`` adds what
covers more than the corpus in the repository does to that corpus.
"""

from __future__ import annotations

import argparse
import importlib
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).resolve().parent
CORPUS = FOLDER / "corpus"
LEARNT = FOLDER.parents[1] / "var" / "fuzz"
# What takes longer than this for one input is a find as well.
UNIT_S_MAX = 20
KEPT_OCTETS_MAX = 2048


class Share(NamedTuple):
    """How long an input may be, in octets, and the target's share of the time."""

    octets_max: int
    time: int


TARGETS = {
    "der": Share(1024, 2),
    "ocsp_request": Share(1024, 3),
    "plain": Share(1536, 4),
    "get_target": Share(512, 1),
    "conditions": Share(512, 1),
    "crl": Share(1024, 2),
    "config": Share(2048, 1),
    "feed": Share(1024, 2),
    "import": Share(1024, 2),
    "lane": Share(2048, 4),
    "sockets": Share(2048, 1),
}


class Figures(NamedTuple):
    """What a run of one target came to.  ``edges``: of our code, as libFuzzer counts them."""

    target: str
    inputs: int
    seconds: float
    edges: int
    kept: int
    held: bool


def main() -> int:
    """Run; return the exit code."""
    options = argparse.ArgumentParser(description="Fuzz.")
    options.add_argument("--seconds", type=int, default=600, help="for all targets together [600]")
    options.add_argument("--seed", type=int, default=0, help="of the mutations; 0: another each time [0]")
    options.add_argument("--keep", action="store_true", help="add what was learnt to the corpus")
    options.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    given = options.parse_args()
    names = given.targets or list(TARGETS)
    if unknown := set(names) - TARGETS.keys():
        options.error(f"no such target: {', '.join(sorted(unknown))}")
    shares = sum(TARGETS[name].time for name in names)
    print("| target | inputs | seconds | inputs/s | edges | corpus | |\n|---|---:|---:|---:|---:|---:|---|")
    figures = []
    for name in names:
        found = run(name, max(1, given.seconds * TARGETS[name].time // shares), given.seed)
        figures.append(found)
        per_s = found.inputs / max(found.seconds, 0.001)
        word = "held" if found.held else "BROKEN"
        print(
            f"| {name} | {found.inputs:,} | {found.seconds:.0f} | {per_s:,.0f} | {found.edges} "
            f"| {found.kept} | {word} |",
            flush=True,
        )
        if given.keep and found.held:
            keep(name)
    inputs, seconds = sum(item.inputs for item in figures), sum(item.seconds for item in figures)
    print(f"| all | {inputs:,} | {seconds:.0f} | {inputs / max(seconds, 0.001):,.0f} | | | |\n")
    held = sum(item.held for item in figures)
    print(f"{held} passed, {len(figures) - held} failed")
    return 0 if held == len(figures) else 1


def run(name: str, seconds: int, seed: int) -> Figures:
    """Fuzz one target for so long."""
    learnt = LEARNT / name
    learnt.mkdir(parents=True, exist_ok=True)
    target = importlib.import_module(f"fuzz_{name}")
    with tempfile.TemporaryDirectory() as folder:
        words, seeds = Path(folder) / "words", Path(folder) / "seeds"
        lines = ['"' + "".join(f"\\x{octet:02x}" for octet in word) + '"\n' for word in target.WORDS]
        words.write_text("".join(lines))
        seeds.mkdir()
        for title, content in target.seeds():
            (seeds / title).write_bytes(content)
        began_s = time.monotonic()
        done = _fuzz_one(
            name,
            f"-max_total_time={seconds}",
            f"-seed={seed}",
            f"-dict={words}",
            f"-artifact_prefix={LEARNT}/{name}-",
            str(learnt),
            str(CORPUS / name),
            str(seeds),
        )
    said = done.stderr
    if done.returncode:
        # The traceback, and which file holds the input.
        lines = [line for line in said.splitlines() if "Test unit written" in line or "ERROR" in line]
        print(done.stdout[-4000:], *lines, sep="\n", file=sys.stderr)
    units = re.search(r"stat::number_of_executed_units: (\d+)", said)
    progress = re.findall(r"cov: (\d+) ft: \d+ corp: (\d+)/", said)
    executed = (
        int(units[1]) if units else max(map(int, re.findall(r"^#(\d+)", said, re.MULTILINE)), default=0)
    )
    edges, kept = map(int, progress[-1]) if progress else (0, 0)
    return Figures(name, executed, time.monotonic() - began_s, edges, kept, done.returncode == 0)


def keep(name: str) -> None:
    """Add what was learnt and covers more than the corpus does to the corpus, except what is long."""
    with tempfile.TemporaryDirectory() as short:
        for path in (LEARNT / name).iterdir():
            if path.stat().st_size <= KEPT_OCTETS_MAX:
                (Path(short) / path.name).write_bytes(path.read_bytes())
        _fuzz_one(name, "-merge=1", str(CORPUS / name), short)


def _fuzz_one(name: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        str(FOLDER / "fuzz_one.py"),
        name,
        f"-max_len={TARGETS[name].octets_max}",
        f"-timeout={UNIT_S_MAX}",
        "-rss_limit_mb=2048",
        "-print_final_stats=1",
        "-reload=0",
        *words,
    ]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)


if __name__ == "__main__":
    sys.exit(main())
