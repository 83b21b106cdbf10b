"""The load generator of the status-check benchmark: wrk, with prepared requests.

Knows: how to make wrk send given requests over kept or single connections, and reading what
it says.  Does not know: which server it talks to.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Request:
    """One prepared HTTP request: method, path, body (empty for GET), one connection per request."""

    method: str
    path: str
    body: bytes
    close: bool


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What one run of the generator saw.  ``failures``: answers that were not 2xx, and socket errors."""

    requests: int
    seconds: float
    failures: int


def _lua(request: Request) -> str:
    body = "".join(f"\\{octet:03d}" for octet in request.body)
    lines = [f'wrk.method = "{request.method}"', f'wrk.path = "{request.path}"']
    if request.body:
        lines += [f'wrk.body = "{body}"', 'wrk.headers["Content-Type"] = "application/ocsp-request"']
    if request.close:
        lines.append('wrk.headers["Connection"] = "close"')
    return "\n".join(lines) + "\n"


def run(
    folder: Path, port: int, request: Request, connections: int, seconds: int, processor: int
) -> LoadResult:
    """Send *request* over and over for *seconds* on *connections*, from *processor* alone."""
    script = folder / "request.lua"
    script.write_text(_lua(request))
    command = ["taskset", "-c", str(processor), shutil.which("wrk") or "wrk", "-t1"]
    command += [f"-c{connections}", f"-d{seconds}s", "-s", str(script), f"http://127.0.0.1:{port}"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    done = re.search(r"(\d+) requests in ([\d.]+)(m?s)", said)
    if done is None:
        raise RuntimeError(f"wrk said nothing of use:\n{said}")
    failures = sum(int(number) for number in re.findall(r"Non-2xx or 3xx responses: (\d+)", said))
    for numbers in re.findall(r"connect (\d+), read (\d+), write (\d+), timeout (\d+)", said):
        failures += sum(int(number) for number in numbers)
    return LoadResult(int(done[1]), float(done[2]) / (1000 if done[3] == "ms" else 1), failures)
