"""A demo installation to be loaded: started for a benchmark, asked for in several ways, removed after it.

Knows: starting and stopping it, its workers, the requests about its people, what a record says of
where and when.  Does not know: what is measured.
"""

from __future__ import annotations

import json
import platform
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench.cpu_time import find_processes
from bench.population import Population
from bench.prepared import Form, Preparer

REQUESTS = 50_000
_READY_S = 60.0
# The national mix of ``locustfile.py`` (share, form, certificates), without importing locust.
_SHARES = (
    (0.50, Form("GET"), 1),
    (0.25, Form("POST"), 1),
    (0.10, Form("POST", nonce=True), 1),
    (0.06, Form("GET", close=True), 1),
    (0.06, Form("POST", close=True), 1),
    (0.03, Form("POST"), 5),
)


class Demo:
    """A demo below *folder* with so many workers and people.

    *config*: a table of its configuration, name and lines, that is added to what stands there.
    """

    def __init__(self, folder: Path, workers: int = 1, people: int = 2000, config: str = "") -> None:
        self.state = folder / "state"
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.run("init", "--port", str(self.port))
        file = self.state / "certstatus.toml"
        file.write_text(_with_table(file.read_text(), config))
        self.run("demo", "--population", str(people))
        self._said = folder / "serve.log"
        with self._said.open("wb") as said:
            self._process = subprocess.Popen(
                self.command("serve", "--workers", str(workers)), stdout=said, stderr=said
            )
        self._workers = workers
        try:
            self._wait_ready()
        except BaseException:
            self.stop()
            raise
        self.worker_pids = find_processes("responder.worker", str(self.state / "run" / "serve.toml"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop it and wait for its end."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait(60)

    def command(self, *words: str) -> list[str]:
        """The command line of ``certstatus`` for this installation."""
        config = str(self.state / "certstatus.toml")
        return [sys.executable, "-m", "certstatus.cli", "--config", config, *words]

    def run(self, *words: str) -> str:
        """Run a command to its end; return what it printed."""
        return subprocess.run(self.command(*words), check=True, stdout=subprocess.PIPE, text=True).stdout

    def status(self, slot: int = 0) -> dict[str, Any]:
        """What the worker says of itself, once a second anew."""
        found: dict[str, Any] = json.loads((self.state / "run" / f"worker-{slot}.json").read_text())
        return found

    def requests(self, mix: str, service: str = "auth") -> Iterator[tuple[bytes, bool]]:
        """Yield prepared requests (with: whether the connection ends): ``repeated``, ``mix`` or ``nonce``.

        A mix is made of the national mix's shares over the demo's people, in random order.
        """
        population = Population.load(self.state / "demo" / service)
        chance = random.Random(1)
        host = f"127.0.0.1:{self.port}"
        if mix == "repeated":
            yield Preparer(Form("GET"), population.ca, host).http([population.members.member(0)[0]]), False
            return
        shares = ((1.0, Form("POST", nonce=True), 1),) if mix == "nonce" else _SHARES
        preparers = [(Preparer(form, population.ca, host), form.close, count) for _, form, count in shares]
        members = population.uniform(chance)
        for preparer, close, count in chance.choices(preparers, [share[0] for share in shares], k=REQUESTS):
            yield preparer.http([next(members)[0] for _ in range(count)]), close

    def _wait_ready(self) -> None:
        begun_s = time.monotonic()
        while time.monotonic() - begun_s < _READY_S:
            try:
                with urllib.request.urlopen(f"{self.url}/readyz", timeout=1):
                    if all(self.status(slot)["ready"] for slot in range(self._workers)):
                        return
            except (OSError, ValueError):
                pass
            if self._process.poll() is not None:
                break
            time.sleep(0.1)
        said = self._said.read_text(errors="replace")[-2000:]
        raise RuntimeError(
            f"the installation was not ready after {time.monotonic() - begun_s:.0f} s:\n{said}"
        )


def _with_table(text: str, table: str) -> str:
    """Return a configuration with the lines of *table*, in the table of that name if there is one."""
    name = table.partition("\n")[0] + "\n"
    return text.replace(f"\n{name}", f"\n{table}", 1) if table and f"\n{name}" in text else text + table


def what(command: str) -> dict[str, Any]:
    """Return where and when a record is made: machine, commit, versions."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if "model name" in line), "")
    return {
        "command": command,
        "commit": commit.stdout.strip(),
        "date": time.strftime("%Y-%m-%d %H:%MZ", time.gmtime()),
        "machine": f"{model}, {platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in ("uvloop", "aiohttp", "cryptography")},
    }


def write_record(kind: str, record: dict[str, Any], out: Path | None) -> Path:
    """Write a record to *out*, or to its place among the results; return where."""
    path = out or Path("bench/results") / f"{kind}-{record['what']['commit']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=2) + "\n")
    return path


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
