"""The subject of the measurements: a whole installation, its workers alone on one processor.

Issuance, feed, builder, host agent and Valkey run on the other processor, beside the generator: what
they take is not the worker's.  Access is registered and everything is counted, as installed.
Knows: making it, starting and stopping it, its ports and workers.
Does not know: what is measured.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench.cpu_time import find_processes, pin
from bench.national import SERVICE, make_national
from bench.population import Population
from bench.server import Place, free_port

_REVOKED_EVERY = 10
_START_TIME_S = 120.0
_STOP_TIME_S = 60.0


@dataclass(frozen=True, slots=True)
class Processors:
    """Where the server runs, and where everything else."""

    server: int = 0
    others: int = 1

    @classmethod
    def available(cls) -> Processors:
        """Return the first and the last processor that this process may use.

        Raises: RuntimeError — there is only one: server and generator would wait for each other.
        """
        found = sorted(os.sched_getaffinity(0))
        if len(found) < 2:
            raise RuntimeError("one processor for the server and one for everything else are needed")
        return cls(found[0], found[-1])


@dataclass(frozen=True, slots=True)
class Setting:
    """What differs from one subject to the next.

    certificates  in the index, every tenth revoked
    revocable     certificates besides that can be revoked
    responder     further keys of ``[responder]``
    """

    certificates: int = 100_000
    revocable: int = 20
    workers: int = 1
    responder: dict[str, str | int] = field(default_factory=dict)


class Subject:
    """An installation in *folder*, which is made, and removed in the end."""

    def __init__(self, folder: Path, setting: Setting, processors: Processors) -> None:
        self.name = "certstatus"
        self.port = free_port()
        self.tls_port = free_port()
        self.state = folder
        people = make_national(
            folder, setting.certificates, _REVOKED_EVERY, revocable=setting.revocable, port=self.port
        )
        self.population = Population.load(people)
        self.revocable = folder / "revocable"
        self.config = folder / "certstatus.toml"
        self.config.write_text(self._configuration(self.config.read_text(), setting))
        self._workers = setting.workers
        pinned = ["taskset", "-c", str(processors.others)]
        with (folder / "serve.out").open("wb") as output:
            self._process = subprocess.Popen(
                [*pinned, *self.command("serve", "--workers", str(setting.workers))],
                stdout=output,
                stderr=output,
            )
        try:
            self._wait_ready()
            self.pids: Sequence[int] = find_processes("responder.worker", str(folder / "run" / "serve.toml"))
            for pid in self.pids:
                pin(pid, processors.server)
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop it, wait for its end and remove it."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait(_STOP_TIME_S)
        shutil.rmtree(self.state)

    def command(self, *words: str) -> list[str]:
        """The command line of ``certstatus`` for this installation."""
        return [sys.executable, "-m", "certstatus.cli", "--config", str(self.config), *words]

    @property
    def tls(self) -> Place:
        """The same server by its TLS port."""
        return Place("certstatus, TLS", self.tls_port, self.pids)

    @property
    def service(self) -> str:
        """Whose certificates the population's are."""
        return SERVICE

    @property
    def host(self) -> str:
        """What requests have in their Host line."""
        return f"127.0.0.1:{self.port}"

    @property
    def counters(self) -> Path:
        """The folder of the counter files."""
        return self.state / "host" / "counters"

    def status(self) -> list[dict[str, Any]]:
        """What the workers say of themselves, each a moment after this call."""
        since_ms = time.time_ns() // 1_000_000
        files = [self.state / "run" / f"worker-{slot}.json" for slot in range(self._workers)]
        while True:
            found: list[dict[str, Any]] = [json.loads(file.read_text()) for file in files]
            if all(item["time_ms"] >= since_ms for item in found):
                return found
            time.sleep(0.02)

    def signatures(self) -> int:
        """How many signatures the workers have made by now; takes up to a second."""
        return sum(int(item["signatures"]) for item in self.status())

    def _configuration(self, text: str, setting: Setting) -> str:
        text = re.sub(r"(?m)^admin_port\s*=.*$", "admin_port = 0", text)
        keys = dict(setting.responder)
        if "tls_certificate" in keys:
            keys["tls_port"] = self.tls_port
        lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
        return text.replace("[responder]\n", "[responder]\n" + lines, 1)

    def _wait_ready(self) -> None:
        until = time.monotonic() + _START_TIME_S
        output = self.state / "serve.out"
        while not re.search(r"^ready\b", output.read_text(), re.MULTILINE):
            if self._process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"the installation did not start:\n{output.read_text()}")
            time.sleep(0.05)
        # It is ready to answer tryLater before the host has its first certificates.
        while not all(issuer["signer_serial"] for item in self.status() for issuer in item["issuers"]):
            if time.monotonic() > until:
                raise RuntimeError("the installation has no responder certificates")
