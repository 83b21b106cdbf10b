"""A whole installation in a folder, run by the real command line in processes of its own.

Knows: init, demo, serve, asking openssl, and finding or killing each process.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from warm_commands import run_command

from certstatus import processes
from certstatus.private_valkey import clear, socket_path

READY_TIME_S = 60.0
MODULES = {
    "feed": "publisher.feed_process",
    "builder": "publisher.builder",
    "agent": "responder.host_agent",
    "worker": "responder.worker",
    "admin": "responder.admin",
}


class Served:
    """One installation below *folder*; ``serve`` starts it, ``stop`` ends it."""

    def __init__(self, folder: Path) -> None:
        self.state = folder / "state"
        self.config = self.state / "certstatus.toml"
        self.supervisor: subprocess.Popen[str] | None = None
        self.url = ""
        self._output = folder / "serve.out"

    # --- commands ----------------------------------------------------------------------------------

    def command(self, *words: str) -> list[str]:
        """The command line of ``certstatus`` for this installation."""
        return [sys.executable, "-m", "certstatus.cli", "--config", str(self.config), *words]

    def run(self, *words: str, expect: int = 0, given: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, which must be with exit code *expect*."""
        done = self._done(*words, given=given)
        assert done.returncode == expect, f"{words}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def _done(self, *words: str, given: str | None) -> subprocess.CompletedProcess[str]:
        if words[0] != "serve":
            return run_command(["--config", str(self.config), *words], given=given)
        return subprocess.run(
            self.command(*words), capture_output=True, text=True, timeout=120, check=False, input=given
        )

    def json(self, *words: str) -> Any:
        """Run a command with --json and return what it printed."""
        return json.loads(self.run(*words, "--json").stdout)

    # --- serving -----------------------------------------------------------------------------------

    def serve(self, *words: str, workers: int = 2) -> Served:
        """Start ``serve`` on free ports and wait until it says that it is ready."""
        self._output.unlink(missing_ok=True)
        with self._output.open("w") as output:
            self.supervisor = subprocess.Popen(
                self.command("serve", "--port", "0", "--workers", str(workers), *words),
                stdout=output,
                stderr=output,
                text=True,
            )
        until = time.monotonic() + READY_TIME_S
        while not re.search(r"^ready\b", self.output, re.MULTILINE):
            assert self.supervisor.poll() is None, self.output
            assert time.monotonic() < until, self.output + self.logs()
            time.sleep(0.05)
        if found := re.search(r"^ready (http://\S+)$", self.output, re.MULTILINE):
            self.url = found[1]
        return self

    @property
    def admin_url(self) -> str:
        """Where the operators' pages are; said in a line of its own, which may come after ``ready``."""
        found = re.search(r"operators' pages: (http://\S+)/", self.output)
        assert found is not None, self.output
        return found[1]

    @property
    def output(self) -> str:
        """What ``serve`` has printed so far."""
        return self._output.read_text()

    def wait_for(self, text: str) -> None:
        """Wait until ``serve`` has printed this."""
        until = time.monotonic() + 10
        while text not in self.output:
            assert time.monotonic() < until, self.output
            time.sleep(0.05)

    def logs(self) -> str:
        """The last words of every process."""
        folder = self.state / "log"
        return "\n".join(
            f"--- {path.name}\n{path.read_text()[-1500:]}" for path in sorted(folder.glob("*.log"))
        )

    def stop(self, number: int = signal.SIGINT) -> int:
        """Stop ``serve`` by a signal; return its exit code."""
        assert self.supervisor is not None
        self.supervisor.send_signal(number)
        code = self.supervisor.wait(60)
        self.supervisor = None
        return code

    def clean_up(self) -> None:
        """End whatever is left, whatever the test did."""
        if self.supervisor is not None:
            self.supervisor.kill()
            self.supervisor.wait()
        for pids in self.running().values():
            for pid in pids:
                if (who := processes.identity_of(pid)) is not None:
                    processes.wait_until_gone(who, 5)
        clear(self.state)

    def get(self, path: str, *, admin: bool = False) -> bytes:
        """Return what a GET is answered; anything but 2xx is an error."""
        with urllib.request.urlopen(f"{self.admin_url if admin else self.url}{path}", timeout=10) as answer:
            content: bytes = answer.read()
            return content

    # --- processes ---------------------------------------------------------------------------------

    def running(self) -> dict[str, list[int]]:
        """Return the process ids of each role of this installation."""
        found: dict[str, list[int]] = {name: [] for name in (*MODULES, "valkey")}
        config = str(self.state / "run" / "serve.toml")
        path = str(socket_path(self.state))
        for pid in processes.own_pids():
            words = processes.command_line(pid)
            if processes.identity_of(pid) is None:
                continue
            for name, module in MODULES.items():
                if module in words and config in words:
                    found[name].append(pid)
            if words and "valkey-server" in words[0] and path in " ".join(words):
                found["valkey"].append(pid)
        return found

    def counts(self) -> dict[str, int]:
        """Return how many processes of each role run."""
        return {name: len(pids) for name, pids in self.running().items()}

    def wait_for_one_of_each(self, workers: int = 2) -> None:
        """Wait until every role runs exactly as often as it should."""
        wanted = dict.fromkeys((*MODULES, "valkey"), 1) | {"worker": workers}
        until = time.monotonic() + 20
        while self.counts() != wanted:
            assert time.monotonic() < until, self.counts()
            time.sleep(0.05)

    def kill(self, role: str) -> int:
        """kill -9 a process of *role*; return its id."""
        pid = self.running()[role][0]
        os.kill(pid, signal.SIGKILL)
        return pid

    def wait_ready(self) -> None:
        """Wait until every worker says that it is ready."""
        until = time.monotonic() + READY_TIME_S
        while not all(self._is_ready(pid) for pid in self.running()["worker"] or [0]):
            assert time.monotonic() < until, self.logs()
            time.sleep(0.05)

    def _is_ready(self, pid: int) -> bool:
        for path in (self.state / "run").glob("worker-*.json"):
            status = json.loads(path.read_text())
            if status["pid"] == pid:
                return bool(status["ready"])
        return False

    # --- asking ------------------------------------------------------------------------------------

    def ask(self, name: str, service: str = "auth") -> str:
        """Ask openssl about a demo certificate ("good", "revoked"); return the verified status."""
        folder = self.state / "demo" / service
        return self.ask_file(folder / f"{name}.pem", folder / "ca.pem")

    def ask_file(self, certificate: Path, ca: Path) -> str:
        """Ask openssl about a certificate; the answer must verify."""
        said = self.openssl_ocsp(certificate, ca)
        assert "Response verify OK" in said, said
        found = re.search(rf"{re.escape(str(certificate))}: (\w+)", said)
        assert found is not None, said
        return found[1]

    def openssl_ocsp(self, certificate: Path, ca: Path) -> str:
        """Ask openssl about a certificate; return all that it says."""
        files = f"-issuer {ca} -CAfile {ca} -cert {certificate}"
        return openssl(f"ocsp {files} -url {self.url}/ocsp")

    def signer_serial(self, certificate: Path, ca: Path) -> int:
        """Return the serial number of the first certificate in the answer about *certificate*."""
        said = openssl(f"ocsp -issuer {ca} -CAfile {ca} -cert {certificate} -url {self.url}/ocsp -resp_text")
        found = re.findall(r"Serial Number:\s+(?:\d+ \(0x([0-9a-f]+)\)|([0-9a-f:]+)\n)", said)
        return int((found[-1][0] or found[-1][1]).replace(":", ""), 16) if found else 0

    def serial(self, name: str, service: str = "auth") -> str:
        """Return the serial number of a demo certificate in hex."""
        path = self.state / "demo" / service / f"{name}.pem"
        return openssl(f"x509 -in {path} -noout -serial").strip().removeprefix("serial=")


@contextmanager
def demo_served(folder: Path, config: str) -> Iterator[Served]:
    """An installation of this configuration with a small demo, served by one worker."""
    installation = Served(folder)
    try:
        installation.state.mkdir()
        installation.config.write_text(config)
        installation.run("init")
        installation.run("demo", "--population", "20")
        yield installation.serve(workers=1)
    finally:
        installation.clean_up()


def openssl(words: str) -> str:
    """Run openssl and return all that it says, on both channels."""
    done = subprocess.run(
        ["openssl", *shlex.split(words)], capture_output=True, text=True, timeout=60, check=False
    )
    return done.stdout + done.stderr
