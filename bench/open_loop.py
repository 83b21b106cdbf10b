"""Open-loop load by ``open_loop.c``: a fixed rate, each latency counted from when its request was due.

A generator that waits for an answer before it asks again leaves out the very requests that would
have waited longest; this one does not wait (a queue of what is due, one processor of its own).
Knows: building the program, writing its requests, reading what it says.
Does not know: what is asked, or whom.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("open_loop.c")
_HEAD = struct.Struct("<IB")


@dataclass(frozen=True, slots=True)
class Percentiles:
    """In microseconds, each at most 1.6 % too low."""

    p50: float
    p99: float
    p999: float
    max: float


@dataclass(frozen=True, slots=True)
class Seen:
    """What one run of the generator saw.

    failures    answers other than 200, connections that ended, what was not understood
    unanswered  on their way when it ended
    unsent      due by then and never sent: the rate was beyond what the server can do
    latency     from when a request was due until its answer was whole
    late        from when it was due until it was sent: no connection free, or the generator's own fault
    """

    requests: int
    failures: int
    seconds: float
    unanswered: int
    unsent: int
    latency: Percentiles
    late: Percentiles

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.requests / self.seconds


def build(folder: Path) -> Path:
    """Compile the generator into *folder*; return the program."""
    program = folder / "open_loop"
    compiler = os.environ.get("CC") or shutil.which("cc") or "cc"
    subprocess.run([compiler, "-O2", "-o", str(program), str(SOURCE)], check=True)
    return program


def write_requests(file: Path, requests: Iterable[tuple[bytes, bool]]) -> None:
    """Write (HTTP request, whether its connection ends with it) for the generator."""
    with file.open("wb") as stream:
        for request, ends in requests:
            stream.write(_HEAD.pack(len(request), ends) + request)


class Load:
    """A generator at work; ``wait`` for what it has seen."""

    def __init__(
        self,
        program: Path,
        port: int,
        requests: Path,
        *,
        connections: int,
        seconds: float,
        rate: float = 0.0,
        warm_s: float = 1.0,
        processor: int | None = None,
    ) -> None:
        """Begin.  *rate* 0: as fast as the connections allow."""
        pinned = [] if processor is None else ["taskset", "-c", str(processor)]
        words = [str(port), str(requests), str(connections), f"{rate:.3f}", f"{warm_s:g}", f"{seconds:g}"]
        self._process = subprocess.Popen([*pinned, str(program), *words], stdout=subprocess.PIPE, text=True)

    def wait(self) -> Seen:
        """Return what was seen, once it has ended.

        Raises: RuntimeError — it could not do its work (it says why itself).
        """
        said, _ = self._process.communicate()
        if self._process.returncode:
            raise RuntimeError(f"the generator ended with {self._process.returncode}")
        found = json.loads(said)
        return Seen(
            requests=found["requests"],
            failures=found["failures"],
            seconds=found["seconds"],
            unanswered=found["unanswered"],
            unsent=found["unsent"],
            latency=Percentiles(**found["latency_us"]),
            late=Percentiles(**found["late_us"]),
        )

    def stop(self) -> None:
        """End it early."""
        self._process.terminate()
        self._process.wait()
