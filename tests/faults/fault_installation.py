"""An installation to be mistreated: real processes, and ways to break each of them.

Knows: starting and stopping ``certstatus serve`` in a state folder, finding the process of each
role, killing it, harming what Valkey holds, and stepping the clock that all of it sees.
Does not know: what is right; that is the oracle's business.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

import redis
from fault_servers import free_port

from certstatus.cert_id import issuer_hashes
from certstatus.config import load_config
from certstatus.issuer_table import Issuer, read_issuer_table
from certstatus.private_valkey import socket_path
from issuance.store import Store

ROLES = {
    "feed": "publisher.feed_process",
    "builder": "publisher.builder",
    "agent": "responder.host_agent",
    "worker": "responder.worker",
}
WORKERS = 3
CONFIG = """
[installation]
state = "{state}"

[store]
url = "{store_url}"

[valkey]
url = "{valkey_url}"

[index]
age_max_s = 5
snapshot_period_s = 4
snapshot_changes_max = 200

[responder]
port = {port}
admin_port = {admin_port}
workers = {workers}

[[issuer]]
service = "SIGN"
validity_good_s = 30
validity_revoked_s = 30
validity_unknown_s = 10
crl_period_s = 20
crl_validity_s = 60
delta_period_s = 5
delta_validity_s = 30
base_url = "http://127.0.0.1:{port}"

[[issuer]]
service = "AUTH"
key = "p256"
validity_good_s = 30
validity_revoked_s = 30
validity_unknown_s = 10
base_url = "http://127.0.0.1:{port}"

[[issuer]]
service = "CORP"
hold = true
access = "public"
validity_good_s = 30
validity_revoked_s = 30
validity_unknown_s = 10
crl_period_s = 20
crl_validity_s = 60
delta_period_s = 5
delta_validity_s = 30
base_url = "http://127.0.0.1:{port}"
"""

# A responder host by itself, without the publisher's folder.
HOST = "osaka-1"
HOST_CONFIG = f"""
[installation]
state = "{{state}}"

[valkey]
url = "{{valkey_url}}"

[index]
age_max_s = 5

[responder]
host = "{HOST}"
port = {{port}}
admin_port = {{admin_port}}
workers = {{workers}}
crl_files = "fetched"
"""


class FaultInstallation:
    """One installation below *folder*; its clock can be stepped."""

    def __init__(
        self,
        folder: Path,
        *,
        store_url: str = "",
        valkey_url: str = "",
        environment: dict[str, str] | None = None,
        config: str = CONFIG,
        workers: int = WORKERS,
    ) -> None:
        """An empty URL: SQLite in the state folder, a private Valkey.  *environment*: for every process;
        *config*: a template of the configuration."""
        self.folder = folder
        self.state = folder / "state"
        self.config = self.state / "certstatus.toml"
        self.port = free_port()
        self._template = config
        self._workers = workers
        self._store_url = store_url
        self._valkey_url = valkey_url
        self._clock_file = folder / "clock"
        self._clock_file.write_bytes(bytes(8))
        self._clock_offset_s = 0
        self.environment = (
            os.environ
            | {
                "PYTHONPATH": os.pathsep.join(
                    [str(Path(__file__).parent / "stepped_clock"), os.environ.get("PYTHONPATH", "")]
                ).rstrip(os.pathsep),
                "CERTSTATUS_TEST_CLOCK": str(self._clock_file),
            }
            | (environment or {})
        )
        self._serve: subprocess.Popen[bytes] | None = None
        self._serve_words: tuple[str, ...] = ()
        self._log = (folder / "serve.log").open("ab")

    # --- life ------------------------------------------------------------------------------------

    def init(self) -> None:
        """Make the installation; nothing runs yet."""
        self.state.mkdir(exist_ok=True)
        self._write_config()
        self.run("init")
        self.run(
            "verifier", "add", "askers", "--network", "127.0.0.0/8", "--grant", "SIGN", "--grant", "AUTH"
        )

    def adopt(self, prepared: Path) -> None:
        """Go on from a copy of the state folder *prepared*, which ``init`` made elsewhere."""
        shutil.copytree(prepared, self.state, dirs_exist_ok=True)
        self._write_config()

    def enroll_at(self, publisher: FaultInstallation) -> None:
        """Make this the responder host ``HOST`` of *publisher*, with what the two share."""
        self.state.mkdir(exist_ok=True)
        self._write_config()
        key = self.folder / "host.pub"
        key.write_text(self.run("host", "make", HOST, "--shared", str(publisher.state / "secrets")))
        publisher.run("host", "enroll", HOST, str(key))

    def _write_config(self) -> None:
        text = self._template.format(
            state=self.state,
            workers=self._workers,
            port=self.port,
            admin_port=free_port(),
            store_url=self._store_url,
            valkey_url=self._valkey_url,
        )
        self.config.write_text(text)

    def run(self, *arguments: str, timeout_s: float = 120) -> str:
        """Run one ``certstatus`` command to its end and return what it printed."""
        done = subprocess.run(
            [*self.command(), *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if done.returncode:
            raise AssertionError(
                f"certstatus {arguments}: exit {done.returncode}: {done.stderr}{done.stdout}"
            )
        return done.stdout

    def command(self) -> list[str]:
        """The beginning of every ``certstatus`` command line here."""
        return [sys.executable, "-m", "certstatus.cli", "--config", str(self.config)]

    def serve(self, *words: str) -> None:
        """Start ``certstatus serve``; does not wait for it."""
        self._serve_words = words
        self._serve = subprocess.Popen(
            [*self.command(), "serve", *words], env=self.environment, stdout=self._log, stderr=self._log
        )

    def said(self) -> str:
        """Return what ``serve`` has said so far."""
        return (self.folder / "serve.log").read_text(errors="replace")

    def stop(self) -> int:
        """Stop ``serve`` as Ctrl-C does; return its exit code."""
        assert self._serve is not None
        self._serve.send_signal(signal.SIGINT)
        code = self._serve.wait(60)
        self._serve = None
        return code

    def end(self) -> None:
        """End whatever is left of it, however the test went."""
        self._log.close()
        if self._serve is not None:
            self._serve.kill()
            self._serve.wait()

    def wait_ready(self, timeout_s: float = 60) -> float:
        """Wait until the public listener says it is ready; return the seconds that took."""
        began = time.monotonic()
        while time.monotonic() - began < timeout_s:
            if self.is_ready():
                return time.monotonic() - began
            time.sleep(0.05)
        raise AssertionError(f"not ready after {timeout_s} s")

    def is_ready(self) -> bool:
        """Ask /readyz once."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=2) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.HTTPError):
            return False

    def wait_all_ready(self, timeout_s: float = 60) -> None:
        """Wait until every worker says of itself that it is ready."""
        until = time.monotonic() + timeout_s
        while not self._workers_are_ready():
            if time.monotonic() >= until:
                raise AssertionError(f"not all workers ready after {timeout_s} s: {self.troubles()}")
            time.sleep(0.05)

    def _workers_are_ready(self) -> bool:
        pids = self.processes("worker")
        try:
            files = [self.state / "run" / f"worker-{slot}.json" for slot in range(self._workers)]
            said = [json.loads(path.read_text()) for path in files]
        except (OSError, ValueError):
            return False
        return all(status["ready"] and status["pid"] in pids for status in said)

    def troubles(self) -> list[str]:
        """Return the last thing each process has written down about itself."""
        return [
            path.read_text(errors="replace")[-600:] for path in sorted((self.state / "run").glob("*.json"))
        ]

    def processes(self, role: str) -> list[int]:
        """Return the pids of a role of this installation."""
        wanted = ROLES[role]
        found = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                try:
                    words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
                except OSError:
                    continue
                if wanted in words and any(word.startswith(str(self.state)) for word in words):
                    found.append(int(folder.name))
        return sorted(found)

    # --- faults ----------------------------------------------------------------------------------

    def kill(self, role: str, which: int = 0) -> None:
        """``kill -9`` one process of *role*, if there is one at this moment."""
        pids = self.processes(role)
        if pids:
            with suppress(ProcessLookupError):
                os.kill(pids[which % len(pids)], signal.SIGKILL)

    def pause(self, role: str, seconds: float) -> None:
        """Stop a process of *role* with SIGSTOP and let it go on after *seconds*."""
        pids = self.processes(role)
        if pids:
            with suppress(ProcessLookupError):
                os.kill(pids[0], signal.SIGSTOP)
                time.sleep(seconds)
                os.kill(pids[0], signal.SIGCONT)

    def kill_supervisor(self) -> None:
        """``kill -9`` the supervisor and start ``serve`` again at once."""
        assert self._serve is not None
        self._serve.kill()
        self._serve.wait()
        self.serve(*self._serve_words)

    def kill_valkey(self) -> None:
        """``kill -9`` the private Valkey; the supervisor starts another, which is empty."""
        with self.valkey() as client:
            pid = int(client.info("server")["process_id"])
        os.kill(pid, signal.SIGKILL)

    def valkey(self) -> redis.Redis:
        """Return a client of the installation's Valkey."""
        if self._valkey_url:
            return redis.Redis.from_url(self._valkey_url, socket_timeout=5)
        return redis.Redis(
            unix_socket_path=str(socket_path(load_config(self.config).state)), socket_timeout=5
        )

    def harm_valkey(self, how: str) -> None:
        """Harm what Valkey holds: flush, truncate, drop_last, drop_documents or drop_chunks."""
        with self.valkey() as client:
            streams = list(client.keys("*:stream"))
            if how == "flush":
                client.flushall()
            elif how == "truncate":
                for key in streams:
                    client.xtrim(key, maxlen=3, approximate=False)
            elif how == "drop_last":
                for key in streams:
                    for entry, _ in client.xrevrange(key, count=4):
                        client.xdel(key, entry)
            elif how == "drop_stream":
                client.delete(*streams)
            else:
                pattern = {"drop_documents": "*:doc:*", "drop_chunks": "*:snap:*"}[how]
                for key in client.keys(pattern):
                    client.delete(key)

    def step_clock(self, by_s: int) -> None:
        """Move the clock that every process of the installation sees by *by_s* from where it stands."""
        self._clock_offset_s += by_s
        with self._clock_file.open("r+b") as file:
            file.write(struct.pack("<q", self._clock_offset_s * 1000))

    def second_publisher(self) -> subprocess.Popen[bytes]:
        """Start another feed process beside the one that runs."""
        return subprocess.Popen(
            [sys.executable, "-m", ROLES["feed"], str(self.config)],
            env=self.environment,
            stdout=self._log,
            stderr=self._log,
        )

    def issuer_hashes(self) -> dict[str, dict[str, str]]:
        """Return, for the askers, issuer_id -> CertID hash number -> name hash + key hash."""
        hashes = {}
        for issuer in self.issuers():
            table = issuer_hashes(issuer.names_der[0], issuer.spki_der)
            hashes[str(issuer.issuer_id)] = {str(alg): value.hex() for alg, value in table.items()}
        return hashes

    def issuers(self) -> list[Issuer]:
        """Return the published issuer table's issuers."""
        with Store.open(load_config(self.config).store_url) as store:
            publication = store.publication("issuers")
            assert publication is not None
            assert publication.body is not None
            return read_issuer_table(json.loads(publication.body))
