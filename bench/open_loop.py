"""Open-loop load by ``open_loop.c``: a fixed rate, each latency counted from when its request was due.

A generator that waits for an answer before it asks again leaves out the very requests that would
have waited longest; this one does not wait (a queue of what is due, one processor of its own).  It looks
at each answer's OCSP status, and says how late it was itself: what it could not send in time is no
latency of the server's.
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
from types import TracebackType
from typing import Any, Self

from bench.answers import ERRORS
from bench.own_process import put_down

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
    """What one run of the generator saw after it had warmed up.

    requests    successful OCSP answers
    refusals    OCSP answers that say something else, by its name (``tryLater``)
    failures    answers that are none, connections that ended
    sent        requests, those that warmed up included
    unanswered  sent, and still on their way a second after the end
    unsent      due by the end and never sent: the rate was beyond what the server, or the generator, can do
    latency     of successful answers, from when a request was due until its answer was whole; what was
                due and has no answer stands in it as old as it was at the end
    late        from when a request was due until it was sent
    own_late    the part of that in which a connection was free: the generator's own fault
    busy        share of the time in which the generator had something to do, 0..1
    away        share of the time in which it had no processor, 0..1
    """

    requests: int
    refusals: dict[str, int]
    failures: int
    seconds: float
    sent: int
    unanswered: int
    unsent: int
    latency: Percentiles
    late: Percentiles
    own_late: Percentiles
    busy: float
    away: float

    @property
    def rate(self) -> float:
        """Successful answers a second; 0 if it ended before it had warmed up."""
        return self.requests / self.seconds if self.seconds else 0.0


def build(folder: Path) -> Path:
    """Compile the generator into *folder*; return the program."""
    program = folder / "open_loop"
    compiler = os.environ.get("CC") or shutil.which("cc") or "cc"
    subprocess.run([compiler, "-O2", "-o", str(program), str(SOURCE)], check=True)
    return program


def write_requests(file: Path, requests: Iterable[tuple[bytes, bool]]) -> int:
    """Write (HTTP request, whether its connection ends with it) for the generator; return how many."""
    count = 0
    with file.open("wb") as stream:
        for request, ends in requests:
            stream.write(_HEAD.pack(len(request), ends) + request)
            count += 1
    return count


class Load:
    """A generator at work: ``wait`` for what it has seen, or ``end`` it.  Leaving the context stops it."""

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

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        put_down(self._process)

    def end(self) -> Seen:
        """End it early; return what was seen.  Raises: as ``wait``."""
        self._process.terminate()
        return self.wait()

    def wait(self) -> Seen:
        """Return what was seen, once it has ended.

        Raises: RuntimeError — it could not do its work (it says why itself).
        """
        said, _ = self._process.communicate()
        if self._process.returncode:
            raise RuntimeError(f"the generator ended with {self._process.returncode}")
        return _seen(json.loads(said))


def _seen(said: dict[str, Any]) -> Seen:
    named = enumerate(said["statuses"][1:], 1)
    return Seen(
        requests=said["statuses"][0],
        refusals={ERRORS.get(status, f"error {status}"): count for status, count in named if count},
        failures=said["failures"],
        seconds=said["seconds"],
        sent=said["sent"],
        unanswered=said["unanswered"],
        unsent=said["unsent"],
        latency=Percentiles(**said["latency_us"]),
        late=Percentiles(**said["late_us"]),
        own_late=Percentiles(**said["own_late_us"]),
        busy=said["busy"],
        away=said["away"],
    )
