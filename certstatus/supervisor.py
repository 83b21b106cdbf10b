"""The supervisor: starts every process of an installation, restarts what dies, stops all in order.

::

    order of starting   Valkey (if private) → feed → builder → host agent → workers → admin
    order of stopping   admin, workers → host agent → builder → feed → Valkey

Workers stop first, so that what they counted and how far they had applied is still taken in; the
feed stops late, so that the store hears the workers leave.

It holds the lock on the state folder, so that there is one of it, and all listening sockets, so
that no connection is reset while a worker is replaced (``listeners``).  Its children carry a
parent-death signal; what an earlier run left all the same is ended before anything is started.
Knows: which processes there are and how they are started, replaced and stopped.
Does not know: what they do; it reads no store and no Valkey, and nothing it does can block.
"""

from __future__ import annotations

import errno
import fcntl
import http.client
import json
import os
import resource
import select
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

from certstatus import listeners, private_valkey, processes
from certstatus.config import Config, format_config
from certstatus.durable import write_durable
from certstatus.errors import EXIT_TEMPORARY, AlreadyServed, CertStatusError, ConfigError, ServeFailed
from certstatus.processes import Identity
from issuance.ca_keys import PASSPHRASE_VARIABLE

ALL, PUBLISHER, RESPONDER = "all", "publisher", "responder"

Say = Callable[[str], None]

BACKOFF_S_MIN = 0.1
BACKOFF_S_MAX = 5.0
# Whoever lived so long is started again without delay.
SETTLED_S = 10.0
# A process that ends so often before the installation was ever ready will not come up.
FALSE_STARTS_MAX = 5
STOP_TIME_S = 10.0
LOG_BYTES_MAX = 16 << 20
OPEN_FILES_MAX = 1 << 20
_TICK_S = 0.1
_READY_TIME_S = 0.5
_LOGS_LOOKED_AT_S = 60.0
_ROOM_LOOKED_FOR_S = 1.0
# Keys that open sockets hold on to: a change of them needs a new start.
_BOUND_KEYS = ("bind", "port", "tls_port", "admin_bind", "admin_port", "workers")


@dataclass
class Child:
    """One process that is to run, and how its life went so far."""

    name: str
    command: list[str]
    # Children of the lowest rank stop first, those of one rank together.
    rank: int
    # What tells it of a changed configuration; None: nothing it reads has changed.
    hangup: int | None = signal.SIGHUP
    stop_time_s: float = STOP_TIME_S
    sockets: dict[str, socket.socket] = field(default_factory=dict)
    before_start: Callable[[], object] = lambda: None
    # Variables of our environment that are none of its business: only who signs as the CA opens its keys.
    withheld: tuple[str, ...] = (PASSPHRASE_VARIABLE,)
    process: subprocess.Popen[bytes] | None = None
    started_s: float = 0.0
    start_at_s: float = 0.0
    backoff_s: float = BACKOFF_S_MIN
    false_starts: int = 0


class Supervisor:
    """All processes of the installation whose configuration *load* returns.

    ``run`` returns when it was told to stop (SIGTERM, SIGINT) and everything has ended.  SIGHUP
    loads the configuration again; ports and the number of workers stay as they are.
    *on_ready* is called once, when every worker answers; *say* with a line about what happens.
    *part*: "all", or only the processes of the "publisher" or of the "responder" side.
    """

    def __init__(
        self,
        load: Callable[[], Config],
        say: Say,
        on_ready: Callable[[Config], None],
        verbose: bool = False,
        part: str = ALL,
    ) -> None:
        config = load()
        self._load = load
        self._say = say
        self._on_ready = on_ready
        self._verbose = verbose
        self._part = part
        self._state = config.state.resolve()
        self._run_folder = self._state / "run"
        self._log_folder = self._state / "log"
        # As running: absolute paths, real ports, the private Valkey's URL.
        self.config = self._absolute(config)
        self.children: list[Child] = []
        self._signals: list[int] = []
        self._is_ready = False
        self._logs_due_s = 0.0

    def run(self) -> None:
        """Serve until told to stop.

        Raises: AlreadyServed — another process has the lock; PortTaken; ValkeyUnavailable;
                ServeFailed — a process does not come up, the message tells which and where its log is.
        """
        for folder in (self._run_folder, self._log_folder):
            folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            stack.enter_context(_locked(self._state / "lock"))
            wake = stack.enter_context(self._caught_signals())
            _allow_many_connections()
            self._end_leftovers()
            planned = self._plan(stack)
            if not self._wait_for_room(wake):
                return
            self.children = planned
            self._say(f"starting {', '.join(child.name for child in self.children)}")
            try:
                self._watch(wake)
                self._say("stopping")
            finally:
                self._stop_all(wake)

    # --- preparing ---------------------------------------------------------------------------------

    def _wait_for_room(self, wake: int) -> bool:
        """Write the configuration as running, on a full disk as soon as there is room; False: told to stop.

        Raises: OSError — it cannot be written, for another reason.
        """
        said = False
        while not self._is_told_to_stop():
            try:
                self._write_config()
                return True
            except OSError as exc:
                if exc.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                if not said:
                    self._say(f"{self._config_path}: {exc.strerror}; waiting for room")
                said = True
            self._wait(wake, _ROOM_LOOKED_FOR_S)
        return False

    def _end_leftovers(self) -> None:
        """End what an earlier supervisor started and could not stop."""
        left = [who for who in self._recorded() if processes.end(who)]
        if left:
            self._say(f"ended {len(left)} processes of an earlier run")

    def _plan(self, stack: ExitStack) -> list[Child]:
        """Bind the sockets, write the configuration as running, and list the children."""
        responder = self.config.responder
        count = self.config.worker_count if self._part != PUBLISHER else 0
        plain = self._bind(stack, responder.bind, responder.port, count)
        tls = self._bind(stack, responder.bind, responder.tls_port, count if responder.tls_port else 0)
        admin = self._bind(stack, responder.admin_bind, responder.admin_port, 1 if count else 0)
        is_private = not self.config.valkey.url
        if is_private and self._part == RESPONDER:
            # A private server of its own would be empty for ever: the two sides meet in one.
            expected = "the publisher's server, as --only responder is given"
            raise ConfigError(self.config.file, "valkey.url", expected, "")
        self.config = replace(
            self.config,
            valkey=replace(self.config.valkey, url=private_valkey.valkey_url(self.config)),
            responder=replace(
                responder,
                port=_port(plain, responder.port),
                admin_port=_port(admin, responder.admin_port),
                workers=count,
            ),
        )
        children = [self._valkey_child()] if is_private else []
        if self._part != RESPONDER:
            # Started again instead of told of a change: a second without beats harms nobody.
            children += [
                self._python_child("feed", "publisher.feed_process", rank=3, hangup=signal.SIGTERM),
                self._python_child("builder", "publisher.builder", rank=2, hangup=signal.SIGTERM),
            ]
            children[-1].withheld = ()
        if self._part != PUBLISHER:
            children.append(self._python_child("agent", "responder.host_agent", rank=1))
        for slot in range(count):
            worker = self._python_child(f"worker-{slot}", "responder.worker", str(slot), rank=0)
            # It needs its own time to finish what it has begun, and a little more.
            worker.stop_time_s = responder.shutdown_s + 2.0
            worker.sockets = {listeners.PLAIN: plain[slot]} | ({listeners.TLS: tls[slot]} if tls else {})
            children.append(worker)
        if admin:
            pages = self._python_child("admin", "responder.admin", rank=0)
            pages.sockets = {listeners.ADMIN: admin[0]}
            children.append(pages)
        return children

    def _python_child(
        self, name: str, module: str, *arguments: str, rank: int, hangup: int = signal.SIGHUP
    ) -> Child:
        command = processes.python_command(module, str(self._config_path), *arguments)
        return Child(name, command, rank, hangup=hangup)

    @staticmethod
    def _bind(stack: ExitStack, address: str, port: int, count: int) -> list[socket.socket]:
        bound = listeners.bind(address, port, count) if count else []
        for item in bound:
            stack.enter_context(closing(item))
        return bound

    def _valkey_child(self) -> Child:
        def prepare() -> None:
            ended = private_valkey.prepare(self._state)
            if ended:
                self._say(f"ended a Valkey of an earlier run (process {', '.join(map(str, ended))})")

        command = private_valkey.server_command(self._state, self.config.valkey.memory_mb_max)
        return Child("valkey", command, rank=4, hangup=None, before_start=prepare)

    # --- running -----------------------------------------------------------------------------------

    def _watch(self, wake: int) -> None:
        while not self._is_told_to_stop():
            now_s = time.monotonic()
            self._reap(now_s)
            self._start_due(now_s)
            if not self._is_ready and self._answers_ready():
                self._is_ready = True
                self._on_ready(self.config)
            if now_s >= self._logs_due_s:
                self._logs_due_s = now_s + _LOGS_LOOKED_AT_S
                self._bound_logs()
            self._wait(wake, self._idle_s(now_s))

    def _idle_s(self, now_s: float) -> float:
        """Return how long there is nothing to do unless a signal comes."""
        if not self._is_ready:
            return _TICK_S
        due = [child.start_at_s - now_s for child in self.children if child.process is None]
        return max(0.0, min([self._logs_due_s - now_s, *due]))

    def _is_told_to_stop(self) -> bool:
        numbers, self._signals = self._signals, []
        if signal.SIGHUP in numbers:
            self._reload()
        return signal.SIGTERM in numbers or signal.SIGINT in numbers

    def _reload(self) -> None:
        """Take a changed configuration over; one that is wrong is told of, and the old one stays."""
        try:
            config = self._absolute(self._load())
        except ConfigError as exc:
            self._say(f"configuration not taken over: {exc}")
            return
        running, wanted = self.config.responder, config.responder
        kept = {name: getattr(running, name) for name in _BOUND_KEYS}
        before = self.config
        self.config = replace(
            config,
            installation=before.installation,
            valkey=before.valkey,
            responder=replace(wanted, **kept),
        )
        try:
            self._write_config()
        except OSError as exc:
            self.config = before
            self._say(f"configuration not taken over: {self._config_path}: {exc.strerror}")
            return
        for child in self.children:
            if child.process is not None and child.hangup is not None:
                child.process.send_signal(child.hangup)
        self._say("configuration taken over")

    def _reap(self, now_s: float) -> None:
        """Notice who has ended; a slot is free only once its process has been reaped."""
        for child in self.children:
            if child.process is None or child.process.poll() is None:
                continue
            code = child.process.returncode
            child.process = None
            self._put_off(child, _how_it_ended(code), now_s, passing=code == EXIT_TEMPORARY)

    def _put_off(self, child: Child, how: str, now_s: float, *, passing: bool = False) -> None:
        """Have a child started again after a pause that grows while it does not stay up.

        *passing*: it says itself that what it needs is away just now (a database that comes up later than
        we do, say); then it is tried for ever.
        Raises: ServeFailed — it has never stayed up, nor has the installation been ready.
        """
        if now_s - child.started_s >= SETTLED_S:
            child.backoff_s, child.false_starts = BACKOFF_S_MIN, 0
        child.false_starts += not passing
        if not self._is_ready and child.false_starts >= FALSE_STARTS_MAX:
            raise ServeFailed(f"{child.name} does not stay up: {how}; {self._where_it_says_why(child)}")
        child.start_at_s = now_s + child.backoff_s
        self._say(f"{child.name} {how}; starting it again in {child.backoff_s:.1f} s")
        child.backoff_s = min(child.backoff_s * 2, BACKOFF_S_MAX)

    def _where_it_says_why(self, child: Child) -> str:
        if self._verbose:
            return "see above"
        log = self._log_path(child)
        if not log.exists():
            return "it has no log"
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        return f"{lines[-1] if lines else 'it said nothing'} ({log})"

    def _start_due(self, now_s: float) -> None:
        for child in self.children:
            if child.process is None and child.start_at_s <= now_s:
                self._start(child, now_s)

    def _start(self, child: Child, now_s: float) -> None:
        child.started_s = now_s
        try:
            child.before_start()
            with self._output(child) as output:
                child.process = processes.start(
                    child.command,
                    descriptors=[item.fileno() for item in child.sockets.values()],
                    environment=listeners.environment(child.sockets),
                    withheld=child.withheld,
                    output=output,
                )
        except (OSError, CertStatusError) as exc:
            # A full disk, say: the others go on, and this one is tried again.
            self._put_off(child, f"could not be started: {exc}", now_s)
            return
        self._record()

    def _answers_ready(self) -> bool:
        """Say whether every child runs, every worker is ready, and the public listener says so."""
        if any(child.process is None for child in self.children):
            return False
        workers = [child for child in self.children if listeners.PLAIN in child.sockets]
        if not all(self._worker_is_ready(child) for child in workers):
            return False
        return not workers or is_answering_ready(self.config)

    def _worker_is_ready(self, child: Child) -> bool:
        # Connections go to any worker, so one answer of /readyz speaks for one of them only.
        try:
            status = json.loads((self._run_folder / f"{child.name}.json").read_text())
        except (OSError, ValueError):
            return False
        assert child.process is not None
        return bool(status.get("pid") == child.process.pid and status.get("ready"))

    # --- stopping ----------------------------------------------------------------------------------

    def _stop_all(self, wake: int) -> None:
        """Stop rank by rank; a second SIGTERM or SIGINT stops waiting for anybody."""
        self._signals = []
        for rank in sorted({child.rank for child in self.children}):
            self._stop([child for child in self.children if child.rank == rank], wake)
        if any(child.name == "valkey" for child in self.children):
            private_valkey.clear(self._state)
        self._record()

    def _stop(self, group: list[Child], wake: int) -> None:
        """Ask the children of *group* to end; whoever has not done so in its time is killed."""
        began_s = time.monotonic()
        for child in group:
            if child.process is not None:
                child.process.terminate()
        while left := [child for child in group if child.process is not None]:
            in_a_hurry = signal.SIGINT in self._signals or signal.SIGTERM in self._signals
            for child in left:
                assert child.process is not None
                if child.process.poll() is not None:
                    child.process = None
                elif in_a_hurry or time.monotonic() - began_s >= child.stop_time_s:
                    self._say(f"{child.name} does not stop; killed")
                    child.process.kill()
                    child.process.wait()
                    child.process = None
            times_s = [child.stop_time_s for child in group if child.process is not None]
            if times_s:
                self._wait(wake, max(0.0, began_s + min(times_s) - time.monotonic()))

    # --- signals -----------------------------------------------------------------------------------

    @contextmanager
    def _caught_signals(self) -> Iterator[int]:
        """Give a descriptor that becomes readable at each signal, which ``_signals`` then lists."""
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
        reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        woken = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        before = {
            number: signal.signal(number, lambda caught, _frame: self._signals.append(caught))
            for number in numbers
        }
        try:
            yield reading
        finally:
            signal.set_wakeup_fd(woken)
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(reading)
            os.close(writing)

    @staticmethod
    def _wait(wake: int, timeout_s: float) -> None:
        if select.select([wake], [], [], timeout_s)[0]:
            os.read(wake, 4096)

    # --- files -------------------------------------------------------------------------------------

    def _record(self) -> None:
        """Write down who runs, for the supervisor that finds them should this one be killed."""
        running = [
            [child.name, *who]
            for child in self.children
            if child.process is not None and (who := processes.identity_of(child.process.pid)) is not None
        ]
        try:
            write_durable(self._run_folder / "processes.json", json.dumps(running).encode(), 0o600)
        except OSError as exc:
            # The parent-death signal does the same work; this is the second line only.
            self._say(f"processes.json: {exc.strerror}")

    @property
    def _config_path(self) -> Path:
        return self._run_folder / "serve.toml"

    def _write_config(self) -> None:
        """Write the configuration as running, which the children read."""
        write_durable(self._config_path, format_config(self.config).encode(), 0o600)

    def _absolute(self, config: Config) -> Config:
        return replace(config, installation=replace(config.installation, state=str(self._state)))

    def _recorded(self) -> list[Identity]:
        try:
            lines = json.loads((self._run_folder / "processes.json").read_text())
            return [Identity(int(pid), int(started)) for _, pid, started in lines]
        except (OSError, ValueError, TypeError):
            return []

    def _log_path(self, child: Child) -> Path:
        return self._log_folder / f"{child.name}.log"

    @contextmanager
    def _output(self, child: Child) -> Iterator[IO[bytes] | None]:
        if self._verbose:
            yield None
            return
        with self._log_path(child).open("ab", buffering=0) as output:
            yield output

    def _bound_logs(self) -> None:
        """Keep each log and one predecessor of it below a limit."""
        for path in self._log_folder.glob("*.log"):
            try:
                if path.stat().st_size > LOG_BYTES_MAX:
                    # Its writer has it open for appending, so it goes on at the new end.
                    path.with_suffix(".log.1").write_bytes(path.read_bytes())
                    os.truncate(path, 0)
            except OSError as exc:
                self._say(f"{path.name}: {exc.strerror}")


def is_answering_ready(config: Config) -> bool:
    """Say whether the public listener answers /readyz with 200."""
    host = local_address(config.responder.bind)
    connection = http.client.HTTPConnection(host, config.responder.port, timeout=_READY_TIME_S)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException, ssl.SSLError):
        return False
    finally:
        connection.close()


def _port(sockets: list[socket.socket], wanted: int) -> int:
    return int(sockets[0].getsockname()[1]) if sockets else wanted


def local_address(bound: str) -> str:
    """Return an address at which this machine reaches a socket bound to *bound*."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(bound, bound)


def _allow_many_connections() -> None:
    """Let this process and its children have as many descriptors as the system lets them."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, OPEN_FILES_MAX), hard))


def _how_it_ended(code: int) -> str:
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock on the state folder.

    Raises: AlreadyServed — another process holds it; the message names it.
    """
    # Not inherited by children: the lock is free as soon as the supervisor is gone.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
            raise AlreadyServed(f"{path.parent} is served already, by process {holder or '?'}") from exc
        # Only what a message names its holder by; a full disk may keep it away.
        with suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
