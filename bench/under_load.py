"""A demo installation to be loaded: started for a benchmark, asked for in several ways, removed after it.

Knows: starting and stopping it, its workers, the requests about its people, what a record says of
where and when.  Does not know: what is measured.
"""

from __future__ import annotations

import json
import platform
import random
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench.cpu_time import descendants, find_processes
from bench.national_mix import STATUS_REQUESTS, Shape
from bench.population import Population
from bench.prepared import Form, Preparer
from bench.server import free_port

PEOPLE = 2000
_REQUESTS_MIN = 50_000
# So many requests for each of the people, or some of them would never be asked about.
_REQUESTS_EACH = 3
_READY_S = 60.0
_NONCES = (Shape("nonce", 1.0, Form("POST", nonce=True)),)


class Demo:
    """A demo below *folder* with so many workers and people.

    config      a table of its configuration, name and lines, that is added to what stands there
    processors  on which all its processes run; empty: on any
    """

    def __init__(
        self,
        folder: Path,
        workers: int = 1,
        people: int = PEOPLE,
        config: str = "",
        processors: Sequence[int] = (),
    ) -> None:
        self.state = folder / "state"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.run("init", "--port", str(self.port))
        file = self.state / "certstatus.toml"
        file.write_text(_with_table(file.read_text(), config))
        self.run("demo", "--population", str(people))
        self._said = folder / "serve.log"
        pinned = ["taskset", "-c", ",".join(map(str, processors))] if processors else []
        with self._said.open("wb") as said:
            self._process = subprocess.Popen(
                [*pinned, *self.command("serve", "--workers", str(workers))], stdout=said, stderr=said
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

    def others(self) -> list[int]:
        """The installation's processes that are no workers."""
        pid = self._process.pid
        return [found for found in (pid, *descendants(pid)) if found not in self.worker_pids]

    def fetch(self, path: str) -> bytes:
        """Return what is answered to a GET of *path*.  Raises: OSError — it is refused."""
        with urllib.request.urlopen(f"{self.url}{path}", timeout=30) as answer:
            content: bytes = answer.read()
            return content

    def status(self, slot: int = 0) -> dict[str, Any]:
        """What the worker says of itself, once a second anew."""
        found: dict[str, Any] = json.loads((self.state / "run" / f"worker-{slot}.json").read_text())
        return found

    def requests(self, mix: str, service: str = "auth") -> Iterator[tuple[bytes, bool]]:
        """Yield prepared requests about the people of *service*, as ``requests_of`` does."""
        population = Population.load(self.state / "demo" / service)
        return requests_of(mix, population, f"127.0.0.1:{self.port}")

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


def requests_of(mix: str, population: Population, host: str) -> Iterator[tuple[bytes, bool]]:
    """Yield prepared requests (with: whether the connection ends): ``repeated``, ``mix`` or ``nonce``.

    A mix has the status requests of the national mix in their shares, in random order; each of the
    people is as likely as any other.
    """
    chance = random.Random(1)
    if mix == "repeated":
        yield Preparer(Form("GET"), population.ca, host).http([population.members.member(0)[0]]), False
        return
    shapes = _NONCES if mix == "nonce" else STATUS_REQUESTS
    preparers = [(Preparer(shape.form, population.ca, host), shape.certificates) for shape in shapes]
    members = population.uniform(chance)
    count = max(_REQUESTS_MIN, _REQUESTS_EACH * len(population.members))
    for preparer, certificates in chance.choices(preparers, [shape.share for shape in shapes], k=count):
        people = [next(members)[0] for _ in range(certificates)]
        yield preparer.http(people), not preparer.keeps


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
