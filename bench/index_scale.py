"""What an index costs by its size: building, bringing to a host, looking up, restarting, memory.

    python -m bench.index_scale [--sizes 10000,100000,1000000,10000000] [--folder /tmp] [--out FILE]

For each size an installation as ``national`` makes it (every tenth certificate revoked), then the steps of
``index_steps`` with its file and a Valkey of the bench's own, each in a process of its own, then the
installation is served and a worker killed (-9) again and again.  100 million: ``--sizes 100000000``
needs 12 GB of disk while it is made, and 5 GB of memory for two Valkeys and the page cache.

Knows: the order, what must hold, the record.  Does not know: how the steps are done.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from cryptography.x509 import ocsp

from bench import index_steps
from bench.cpu_time import find_processes
from bench.national import make_national
from bench.own_process import measured, status_mb
from bench.population import Population
from bench.prepared import issuer_part, request_der
from bench.under_load import what, write_record
from certstatus.private_valkey import PrivateValkey
from certstatus.publisher_key import load_index_key
from certstatus.snapshot import SnapshotFile
from certstatus.supervisor import SETTLED_S

SIZES = "10000,100000,1000000,10000000"
REVOKED_EVERY = 10
RESTARTS = 3
SHARING_WORKERS = 2
READY_TIME_S = 300.0
# What must hold, of which sizes: (step, figure, at most or at least, sizes up to).
BOUNDS = (
    ("size", "bytes_per_issued", "<=", 16.0, 10**9),
    ("size", "bytes_per_revoked", "<=", 16.0, 10**9),
    ("look_up", "known_us", "<=", 5.0, 10**9),
    ("look_up", "unknown_us", "<=", 5.0, 10**9),
    ("serve", "restart_s_max", "<=", 2.0, 10**7),
    ("fetch", "mb_per_s", ">=", 200.0, 10**9),
)
# Below this a fetch is a few round trips, and says nothing of a rate.
_RATE_ROWS_MIN = 1_000_000


def measure(size: int, folder: Path) -> dict[str, Any]:
    """Return the figures of one size, by step."""
    state = folder / "state"
    steps: dict[str, dict[str, Any]] = {}

    def note(name: str, figures: dict[str, Any]) -> None:
        steps[name] = {
            key: round(item, 3) if isinstance(item, float) else item for key, item in figures.items()
        }
        print(f"{size} {name}: {steps[name]}", file=sys.stderr, flush=True)

    note("make", measured(_make, state, size))
    (path,) = (state / "index").glob("*.csx")
    people, index_key = state / "population", load_index_key(state / "secrets" / "index.key")
    note("size", _size(path))
    note("write", measured(index_steps.write, path, folder / "written"))
    (folder / "written").unlink()
    note("merge", measured(index_steps.merge, path, folder / "merged", people, index_key))
    (folder / "merged").unlink()
    host = folder / "host"
    host.mkdir()
    with PrivateValkey(folder / "valkey", 256 + path.stat().st_size * 3 // 2_000_000) as valkey:
        assert valkey.process is not None
        pid = valkey.process.pid
        note("upload", measured(index_steps.upload, path, valkey.url, pid))
        note("fetch", measured(index_steps.fetch, path, valkey.url, pid, host))
        note("check", measured(index_steps.check, path, valkey.url, host))
    shutil.rmtree(host)
    note("look_up", measured(index_steps.look_up, path, people, index_key))
    note("swap", measured(index_steps.swap, path))
    note("serve", _serve(state))
    return steps


def _make(state: Path, size: int) -> dict[str, Any]:
    make_national(state, size, REVOKED_EVERY)
    return {}


def _size(path: Path) -> dict[str, Any]:
    """Bytes by what they are for: the tables' rows, and all else as overhead."""
    sections = SnapshotFile(path).head.sections
    issued = sum(place.issued.rows for place in sections)
    revoked = sum(place.revoked.rows for place in sections)
    # Exactly what lies between the beginnings of the tables, padding included.
    issued_bytes = sum(place.revoked.offset - place.issued.offset for place in sections)
    revoked_bytes = sum(place.invalidity.offset - place.revoked.offset for place in sections)
    size = path.stat().st_size
    padding = 64 * len(sections)
    return {
        "issued": issued,
        "revoked": revoked,
        "bytes": size,
        "bytes_per_issued": (issued_bytes - padding) / issued,
        "bytes_per_revoked": (revoked_bytes - padding) / revoked,
        "overhead_bytes": size - issued_bytes - revoked_bytes,
    }


def _serve(state: Path) -> dict[str, Any]:
    """Serve: how long until the first answer, as a new host and as one that has the file; what the workers
    share; how long a killed worker is away."""
    with _Served(state, SHARING_WORKERS) as served:
        new_host_s = served.answered_s
        shares = [_map_of(pid) for pid in served.workers()]
    with _Served(state, 1) as served:
        again_s = served.answered_s
        away_s = []
        for _ in range(RESTARTS):
            # A child that has not stayed up that long is started again after a growing pause.
            time.sleep(SETTLED_S + 1)
            (pid,) = served.workers()
            os.kill(pid, signal.SIGKILL)
            away_s.append(served.wait_for_good())
    return {
        "first_start_s": new_host_s,
        "next_start_s": again_s,
        "restart_s": statistics.median(away_s),
        "restart_s_max": max(away_s),
        "maps": [share["inode"] for share in shares],
        "map_private_mb": max(share["private_mb"] for share in shares),
        "worker_own_mb": max(share["own_mb"] for share in shares),
    }


def _map_of(pid: int) -> dict[str, Any]:
    """Return of a worker's map of the snapshot: which file, and how much of it is not shared."""
    lines = iter(Path(f"/proc/{pid}/smaps").read_text().splitlines())
    found: dict[str, Any] = {"own_mb": status_mb(pid, "RssAnon"), "inode": 0, "private_mb": 0.0}
    inside = False
    for line in lines:
        words = line.split()
        if "-" in words[0] and len(words) >= 5:
            inside = words[-1].endswith(".idx")
            found["inode"] = int(words[4]) if inside else found["inode"]
        elif inside and words[0] in ("Private_Dirty:", "Anonymous:"):
            found["private_mb"] += int(words[1]) * 1024 / 1e6
    return found


class _Served:
    """The installation, served from entering to leaving; ``answered_s``: from its start to an answer."""

    def __init__(self, state: Path, workers: int) -> None:
        self._state = state
        self._output = state / "serve.out"
        self._population = Population.load(state / "population")
        self._workers = workers
        self._url = ""
        self.answered_s = 0.0

    def __enter__(self) -> _Served:
        config = str(self._state / "certstatus.toml")
        command = [sys.executable, "-m", "certstatus.cli", "--config", config, "serve", "--port", "0"]
        began_s = time.monotonic()
        with self._output.open("w") as output:
            self._process = subprocess.Popen(
                [*command, "--workers", str(self._workers)], stdout=output, stderr=output
            )
        try:
            while not (found := re.search(r"^ready (http://\S+)$", self._output.read_text(), re.MULTILINE)):
                self._check_time(began_s)
                time.sleep(0.005)
            self._url = found[1]
            self.wait_for_good()
            self.answered_s = time.monotonic() - began_s
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_exc: object) -> None:
        self._process.send_signal(signal.SIGINT)
        self._process.wait(60)

    def workers(self) -> list[int]:
        """Return the workers' process ids."""
        return find_processes("responder.worker", str(self._state / "run" / "serve.toml"))

    def _check_time(self, began_s: float) -> None:
        if self._process.poll() is not None or time.monotonic() - began_s > READY_TIME_S:
            raise RuntimeError(f"no answer: {self._output.read_text()}")

    def wait_for_good(self) -> float:
        """Ask until the answer is good, and return how long that took."""
        serial, _ = self._population.members.member(1)
        asked = urllib.request.Request(
            f"{self._url}/ocsp",
            request_der(issuer_part(self._population.ca, "sha1"), [serial], b""),
            {"Content-Type": "application/ocsp-request"},
        )
        began_s = time.monotonic()
        while True:
            self._check_time(began_s)
            try:
                with urllib.request.urlopen(asked, timeout=5) as answer:
                    response = ocsp.load_der_ocsp_response(answer.read())
            except OSError:
                time.sleep(0.005)
                continue
            if response.response_status is ocsp.OCSPResponseStatus.SUCCESSFUL:
                if response.certificate_status is not ocsp.OCSPCertStatus.GOOD:
                    raise RuntimeError(f"a good certificate was answered {response.certificate_status}")
                return time.monotonic() - began_s
            time.sleep(0.005)


def missed(size: int, steps: dict[str, dict[str, Any]]) -> list[str]:
    """Return what does not hold that must."""
    found = []
    for step, figure, how, bound, size_max in BOUNDS:
        value = steps[step][figure]
        if size > size_max or (step == "fetch" and size < _RATE_ROWS_MIN):
            continue
        if (value > bound) if how == "<=" else (value < bound):
            found.append(f"{size}: {step} {figure} {value}, must be {how} {bound}")
    return found


def table(sizes: dict[str, dict[str, dict[str, Any]]]) -> str:
    """Return the figures as a Markdown table, sizes across."""
    names = [(step, name) for step, figures in next(iter(sizes.values())).items() for name in figures]
    lines = [f"| | {' | '.join(sizes)} |", "|---" * (len(sizes) + 1) + "|"]
    lines += [
        f"| {step} {name} | {' | '.join(str(steps[step][name]) for steps in sizes.values())} |"
        for step, name in names
        if name != "maps"
    ]
    return "\n".join(lines)


def main() -> int:
    """Measure, write the record after each size, print the table; 1 if something is not as it must be."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--sizes", default=SIZES, help="certificates, with commas between")
    parser.add_argument("--folder", type=Path, default=None, help="where there is room [the system's]")
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    record: dict[str, Any] = {
        "what": what(f"python -m bench.index_scale --sizes {arguments.sizes}"),
        "revoked_every": REVOKED_EVERY,
        "sizes": {},
    }
    wrong: list[str] = []
    for size in map(int, arguments.sizes.split(",")):
        with tempfile.TemporaryDirectory(prefix="certstatus-index-", dir=arguments.folder) as name:
            record["sizes"][str(size)] = steps = measure(size, Path(name))
        wrong += missed(size, steps)
        record["missed"] = wrong
        # After each, so that an hour's figures do not hang on the largest size.
        path = write_record("index", record, arguments.out)
    print(table(record["sizes"]))
    print("\n".join(wrong) or "everything is as it must be")
    print(f"record: {path}")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
