"""Where a worker's time goes under full load, for one path: kernel, event loop, OpenSSL, interpreter, ours.

    python -m bench.profile_worker [--path repeated|never-seen|signed] [--connections 64] [--seconds 4]

One worker on processor 0, the generator on processor 1, as fast as the connections allow.  One after
the other, because each disturbs what the next one sees: nothing but the scheduler's account (what
counts); ``perf`` (which machine code runs); ``py-spy`` (which Python function it runs for, with all that
it calls in C and in the kernel); ``strace`` (system calls, counted against the worker's own counters).

    repeated    one request over and over
    never-seen  one certificate, other header lines each time
    signed      another certificate each time, more of them than the caches hold

Needs root, or leave to trace.  Knows: the three tools, what they print.  Does not know: what is right.
Source: proc(5), perf-report(1), strace(1).
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from bench.cpu_time import cpu_ns, pin
from bench.open_loop import Load, build, write_requests
from bench.population import GOOD, Population
from bench.prepared import Form, Preparer
from bench.tally import Tally
from bench.under_load import Demo, what, write_record

SERVER_PROCESSOR, GENERATOR_PROCESSOR = 0, 1
PATHS = ("repeated", "never-seen", "signed")
_PEOPLE = 10_000
_NEVER_SEEN = 40_000
# So small that none of those above is still known when its turn comes again: some thousand answers.
_CONFIG = "[responder]\ncache_bytes_max = 8388608\n"
_WARM_S = 2.0
# Hertz; primes, so that nothing that happens so often is always met, or never.
_PERF_HZ, _SPY_HZ = 997, 199
_TOP = 15

KERNEL, LOOP, OPENSSL, INTERPRETER, OTHER = "kernel", "uvloop and libuv", "OpenSSL", "interpreter", "other"
# What the name of a file of machine code begins with.  cryptography has OpenSSL and its Rust in one file.
_FILES = (
    (KERNEL, ("[kernel", "[vdso", "[hypervisor")),
    (LOOP, ("loop.cpython", "loop.abi3")),
    (OPENSSL, ("_rust.", "libcrypto", "libssl", "_hashlib.", "_ssl.", "_blake2.", "_sha")),
    (INTERPRETER, ("libpython", "python", "_", "libc.", "libc-", "libm.", "ld-linux")),
)
_FRAME = re.compile(r"(?P<function>.+) \((?P<file>[^()]*?)(?::\d+)?\)")


def group_of(file: str) -> str:
    """Return the group of a file of machine code, by its name as ``perf`` says it."""
    return next((group for group, starts in _FILES if file.startswith(starts)), OTHER)


def read_perf(said: Iterable[str]) -> dict[tuple[str, str], float]:
    """Return (file, function) -> share, from the lines of ``perf report -F overhead,dso,sym -t '|'``."""
    shares: dict[tuple[str, str], float] = {}
    for line in said:
        words = line.split("|")
        if len(words) == 3 and words[0].strip().endswith("%"):
            # A mark of whether it is the kernel's or ours stands before the name.
            key = words[1].strip(), words[2].strip().removeprefix("[k]").removeprefix("[.]").strip()
            shares[key] = shares.get(key, 0.0) + float(words[0].strip().rstrip("%")) / 100
    return shares


def read_spy(said: Iterable[str], pid: int) -> dict[tuple[str, str], float]:
    """Return (module, function) -> share of the loop's samples in which it was innermost, from raw stacks.

    Other threads wait nearly always, and not in a way that ``py-spy`` can tell from working.
    """
    counts: Counter[tuple[str, str]] = Counter()
    for line in said:
        stack, _, count = line.rpartition(" ")
        thread, _, frames = stack.partition(";")
        frame = _FRAME.fullmatch(frames.rpartition(";")[2])
        # The first thread bears the number of its process.
        if thread.startswith(f"thread ({pid})") and frame is not None:
            counts[frame["file"], frame["function"]] += int(count)
    total = counts.total()
    return {key: count / total for key, count in counts.items()}


def read_strace(said: Iterable[str]) -> dict[str, int]:
    """Return system call -> how often, from the table of ``strace -c``."""
    calls = {}
    for line in said:
        words = line.split()
        if len(words) in (5, 6) and words[3].isdigit() and words[-1] != "total":
            calls[words[-1]] = int(words[3])
    return calls


def read_stat(line: str) -> tuple[float, float]:
    """Return (user, system) seconds from ``/proc/PID/stat``."""
    # The name of the process may hold spaces and parentheses.
    words = line.rpartition(")")[2].split()
    ticks_per_s = os.sysconf("SC_CLK_TCK")
    return int(words[11]) / ticks_per_s, int(words[12]) / ticks_per_s


def sums(shares: dict[tuple[str, str], float], group: Callable[[str], str]) -> dict[str, float]:
    """Return the shares added up by group of their files, the largest first."""
    added: Counter[str] = Counter()
    for (file, _), share in shares.items():
        added[group(file)] += share  # type: ignore[assignment] # a Counter may count by fractions
    return {name: round(share, 4) for name, share in added.most_common()}


def _top(shares: dict[tuple[str, str], float]) -> dict[str, float]:
    largest = sorted(shares.items(), key=lambda item: -item[1])[:_TOP]
    return {f"{function} ({file})": round(share, 4) for (file, function), share in largest}


class _Worker:
    """The worker that is looked at.  *tally*: what it has counted."""

    def __init__(self, pid: int, tally: Tally) -> None:
        self.pid = pid
        self._tally = tally

    def answered(self) -> int:
        """How many answers it has counted so far; to the last one, unlike its status file.

        Also when a new hour has begun, and the host has removed the counter file of the last.
        """
        return self._tally.read().given

    def account(self, seconds: float) -> dict[str, float]:
        """Look at the scheduler's account over some time."""
        stat = Path(f"/proc/{self.pid}/stat")
        before, answered, spent_ns = read_stat(stat.read_text()), self.answered(), cpu_ns(self.pid)
        begun_s = time.monotonic()
        time.sleep(seconds)
        spent_ns = cpu_ns(self.pid) - spent_ns
        passed_s, answered = time.monotonic() - begun_s, self.answered() - answered
        user_s, system_s = (now - then for now, then in zip(read_stat(stat.read_text()), before, strict=True))
        return {
            "requests_per_s": round(answered / passed_s),
            "cpu_us": round(spent_ns / answered / 1000, 2),
            "busy": round(spent_ns / 1e9 / passed_s, 3),
            "system_share": round(system_s / (user_s + system_s), 3),
        }

    def perf(self, seconds: float, folder: Path) -> dict[tuple[str, str], float]:
        """Which machine code runs.  By the clock: not every machine lets its guests count cycles."""
        data = str(folder / "perf.data")
        words = ["perf", "record", "-q", "-e", "cpu-clock", "-F", str(_PERF_HZ), "-o", data]
        _run([*words, "-p", str(self.pid), "--", "sleep", f"{seconds:g}"])
        words = ["perf", "report", "-i", data, "--stdio", "--no-children"]
        return read_perf(_run([*words, "-F", "overhead,dso,sym", "-t", "|"]).splitlines())

    def spy(self, seconds: float, folder: Path) -> dict[tuple[str, str], float]:
        """Which Python function it runs for."""
        file = folder / "stacks"
        program = Path(sys.executable).with_name("py-spy")
        words = [str(program) if program.exists() else "py-spy", "record", "--pid", str(self.pid)]
        words += ["--threads", "--function", "--format", "raw", "--output", str(file)]
        _run([*words, "--rate", str(_SPY_HZ), "--duration", str(max(1, round(seconds)))])
        return read_spy(file.read_text().splitlines(), self.pid)

    def calls_per_request(self, seconds: float, folder: Path) -> dict[str, float]:
        """System calls of one request, those that come at least once in a thousand requests."""
        table = folder / "calls"
        words = ["strace", "-c", "-f", "-o", str(table), "-p", str(self.pid)]
        tracer = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
        assert tracer.stderr is not None
        # From here on everything is counted, and slow.
        if "attached" not in (said := tracer.stderr.readline()):
            raise RuntimeError(f"strace: {said.strip()}")
        answered = self.answered()
        time.sleep(seconds)
        answered = self.answered() - answered
        tracer.send_signal(signal.SIGINT)
        tracer.communicate()
        calls = read_strace(table.read_text().splitlines())
        per_request = {name: round(count / answered, 3) for name, count in calls.items()}
        return {name: count for name, count in per_request.items() if count >= 0.001}


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def requests_of(path: str, population: Population, host: str) -> Iterator[tuple[bytes, bool]]:
    """Yield the prepared requests of a path, to be sent in a circle; none ends its connection."""
    members = population.members
    good = (serial for serial, status in map(members.member, range(len(members))) if status == GOOD)
    if path == "signed":
        preparer = Preparer(Form("GET"), population.ca, host)
        yield from ((preparer.http([serial]), False) for serial in good)
        return
    serial = next(good)
    for number in range(_NEVER_SEEN if path == "never-seen" else 1):
        form = Form("GET", headers=b"X-Request: %d\r\n" % number)
        yield Preparer(form, population.ca, host).http([serial]), False


def measure(path: str, connections: int, seconds: float) -> dict[str, Any]:
    """Return the record of a whole run, without ``what``."""
    people = _PEOPLE if path == "signed" else 100
    with tempfile.TemporaryDirectory(prefix="certstatus-bench-") as name:
        folder = Path(name)
        program, requests = build(folder), folder / "requests"
        with ExitStack() as stack:
            demo = stack.enter_context(Demo(folder, people=people, config=_CONFIG))
            (pid,) = demo.worker_pids
            worker = _Worker(pid, stack.enter_context(closing(Tally(demo.state / "host" / "counters"))))
            pin(pid, SERVER_PROCESSOR)
            population = Population.load(demo.state / "demo" / "auth")
            write_requests(requests, requests_of(path, population, f"127.0.0.1:{demo.port}"))
            with Load(
                program,
                demo.port,
                requests,
                connections=connections,
                seconds=10 * seconds + 60,
                processor=GENERATOR_PROCESSOR,
            ) as load:
                time.sleep(_WARM_S)
                outcomes = demo.status()["outcomes"]
                account = worker.account(seconds)
                code, python = worker.perf(seconds, folder), worker.spy(seconds, folder)
                calls = worker.calls_per_request(seconds, folder)
                time.sleep(1.0)
                after = demo.status()["outcomes"]
                seen = load.end()
    return {
        "path": path,
        "connections": connections,
        **account,
        "not_answered": {**seen.refusals, "failures": seen.failures},
        "outcomes": {name: count - outcomes.get(name, 0) for name, count in after.items()},
        "code": sums(code, group_of),
        "code_files": dict(itertools.islice(sums(code, str).items(), _TOP)),
        "code_functions": _top(code),
        "python": dict(itertools.islice(sums(python, str).items(), _TOP)),
        "python_functions": _top(python),
        "calls_per_request": calls,
    }


def table(record: dict[str, Any]) -> str:
    """Return the record as lines to be read."""
    lines = [
        f"{record['path']}, {record['connections']} connections: {record['cpu_us']} µs a request, "
        f"{record['system_share']:.0%} of it in the kernel; {record['requests_per_s']}/s"
    ]
    for title, part in (("machine code", "code"), ("Python, with all it calls", "python")):
        lines.append(f"{title}: " + ", ".join(f"{name} {share:.0%}" for name, share in record[part].items()))
    calls = record["calls_per_request"]
    lines.append("calls a request: " + ", ".join(f"{name} {count}" for name, count in calls.items()))
    return "\n".join(lines)


def main() -> None:
    """Look, write the record, print it in short."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--path", choices=PATHS, default="repeated")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=4.0, help="for each tool")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    for program in ("perf", "strace"):
        if shutil.which(program) is None:
            parser.error(f"{program} is missing; on Debian: scripts/debian perf linux-perf strace strace")
    command = f"python -m bench.profile_worker --path {arguments.path} --connections {arguments.connections}"
    record = {
        "what": what(f"{command} --seconds {arguments.seconds:g}"),
        **measure(arguments.path, arguments.connections, arguments.seconds),
    }
    print(table(record))
    print(f"record: {write_record(f'profile-{arguments.path}', record, arguments.out)}")


if __name__ == "__main__":
    main()
