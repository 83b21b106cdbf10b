"""The load generator of the cost table: wrk on one processor, sending prepared requests.

wrk asks a Lua script for every request.  The script walks over a file of prepared ones, mapped into
memory, and counts in eight bytes that are mapped here too: so any stretch of time can be measured
while wrk is at work, after connecting, handshakes and warming up.  It never sleeps (``generator.c``).
Knows: wrk, the file of requests, what wrk says of failures.
Does not know: what is asked, or whom.  Source: wrk's SCRIPTING, LuaJIT's ffi.
"""

from __future__ import annotations

import mmap
import os
import re
import shutil
import signal
import struct
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.own_process import put_down

SCRIPT = Path(__file__).with_name("generator.lua")
LIBRARY = Path(__file__).with_name("generator.c")
_LENGTH = struct.Struct("<I")
_COUNTER_BYTES = 4096
# How long it may take to end, and how often it is told.
_INTERRUPT_S, _INTERRUPTS_MAX = 2.0, 15


@dataclass(frozen=True, slots=True)
class Requests:
    """A file of prepared HTTP requests.

    again         start over at its end; else whoever sends more than there are measures something else
    certificates  how many the first n requests ask about: item n; None: each asks about one
    """

    file: Path
    count: int
    again: bool
    certificates: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Tls:
    """wrk over TLS, with a certificate of its own or without."""

    certificate: Path | None = None
    key: Path | None = None

    def environment(self) -> dict[str, str]:
        """Return the variables that wrk needs for that."""
        if self.certificate is None:
            return {}
        return {"CLIENT_CERTIFICATE": str(self.certificate), "CLIENT_KEY": str(self.key)}


def write_requests(
    file: Path, requests: Iterable[bytes], *, again: bool = False, certificates: Iterable[int] | None = None
) -> Requests:
    """Write prepared requests; *certificates*: how many each asks about."""
    count = 0
    with file.open("wb") as stream:
        for request in requests:
            stream.write(_LENGTH.pack(len(request)) + request)
            count += 1
    sums = None
    if certificates is not None:
        total, found = 0, [0]
        for number in certificates:
            total += number
            found.append(total)
        sums = tuple(found)
    return Requests(file, count, again, sums)


def build_library(folder: Path) -> Path:
    """Compile what is loaded into wrk, unless *folder* has it already."""
    library = folder / "generator.so"
    if not library.exists():
        compiler = os.environ.get("CC") or shutil.which("cc") or "cc"
        subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", library, LIBRARY], check=True)
    return library


@dataclass(frozen=True, slots=True)
class Said:
    """What wrk said in the end.  ``failures``: answers of 400 and above, and socket errors."""

    requests: int
    failures: int


class Load:
    """wrk at work, from entering until leaving the context."""

    def __init__(
        self,
        folder: Path,
        port: int,
        requests: Requests,
        connections: int,
        processor: int,
        tls: Tls | None = None,
    ) -> None:
        self._requests = requests
        counter = folder / "sent"
        counter.write_bytes(bytes(_COUNTER_BYTES))
        with counter.open("r+b") as stream:
            self._map = mmap.mmap(stream.fileno(), _COUNTER_BYTES)
        scheme = "http" if tls is None else "https"
        size = requests.file.stat().st_size
        command = ["taskset", "-c", str(processor), shutil.which("wrk") or "wrk", "-t1", f"-c{connections}"]
        command += ["-d3600s", "--timeout", "30s", "-s", str(SCRIPT)]
        self._process = subprocess.Popen(
            [*command, f"{scheme}://127.0.0.1:{port}", "--", str(counter), str(requests.file), str(size)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ
            | {"LD_PRELOAD": str(build_library(folder))}
            | ({} if tls is None else tls.environment()),
        )
        self.said: Said | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        put_down(self._process)

    def sent(self) -> int:
        """Return how many requests wrk has asked the script for so far."""
        number: int = struct.unpack_from("<Q", self._map)[0]
        return number

    def stop(self) -> Said:
        """Stop wrk.

        Raises: RuntimeError — it failed, does not end, or came to the end of requests that were to be sent
                once.
        """
        self.said = read_said(self._interrupt())
        if not self._requests.again and self.sent() > self._requests.count:
            raise RuntimeError(f"{self.sent()} requests were sent, only {self._requests.count} prepared")
        return self.said

    def _interrupt(self) -> str:
        """Return what wrk says when it is interrupted."""
        for _ in range(_INTERRUPTS_MAX):
            self._process.send_signal(signal.SIGINT)
            try:
                return self._process.communicate(timeout=_INTERRUPT_S)[0]
            except subprocess.TimeoutExpired:
                # One that comes before it has begun to sleep does not end its sleep.
                continue
        raise RuntimeError("wrk does not end")


def read_said(text: str) -> Said:
    """Read what wrk prints at its end.

    Raises: RuntimeError — it is not that.
    """
    done = re.search(r"(\d+) requests in ", text)
    if done is None:
        raise RuntimeError(f"wrk said nothing of use:\n{text}")
    failures = sum(int(number) for number in re.findall(r"Non-2xx or 3xx responses: (\d+)", text))
    for numbers in re.findall(r"connect (\d+), read (\d+), write (\d+), timeout (\d+)", text):
        failures += sum(int(number) for number in numbers)
    return Said(int(done[1]), failures)
