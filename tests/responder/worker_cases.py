"""A real worker in a thread of its own, asked over real sockets with octets written by hand."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import redis
import uvloop
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from responder_cases import CA, INDEX_KEY, NAMESPACE, FeedWriter, everybody

from certstatus import clock
from certstatus.config import Config, parse_config
from responder.lane import Lane
from responder.worker import Worker

_T = TypeVar("_T")


def make_state(folder: Path) -> Path:
    """A state folder with a host in it."""
    host = folder / "state" / "host"
    for needed in (host / "keys", host / "index", host / "counters", host.parent / "run"):
        needed.mkdir(parents=True)
    (host / "host.toml").write_text('name = "h"\n')
    key = host / "index.key"
    key.write_bytes(INDEX_KEY)
    key.chmod(0o600)
    return host.parent


def make_config(state: Path, valkey_url: str, **responder: int) -> Config:
    """The configuration of a small host, with some limits of its own."""
    return parse_config(
        {
            "installation": {"state": str(state)},
            "valkey": {"url": valkey_url, "namespace": NAMESPACE},
            "responder": {"port": 0, "shutdown_s": 3, **responder},
        },
        str(state / "certstatus.toml"),
    )


class DelegatedLane(Lane):
    """A lane to which nothing is plain: what aiohttp alone would answer."""

    def data_received(self, data: bytes) -> None:
        if self._is_idle:
            self._give_away(data, self._host.monotonic_s())
        else:
            super().data_received(data)


def wait_until(holds: Callable[[], object], time_s: float = 5.0) -> None:
    """Wait until *holds*; fail if it never does."""
    until = time.monotonic() + time_s
    while not holds():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.002)


class Host:
    """A publisher, a CA, and one worker that serves on ``port`` (and, through aiohttp only, ``slow_port``).

    Certificates 1 to 9 are issued, 2 is revoked.
    """

    def __init__(self, client: redis.Redis, key: Ed25519PrivateKey, config: Config) -> None:
        now_ms = clock.now_ms()
        self.folder = config.state
        self.ca = CA(1, "SIGN", now_ms // 1000)
        self.other = CA(2, "AUTH", now_ms // 1000)
        for ca in (self.ca, self.other):
            ca.install_responder(self.folder / "host" / "keys", now_ms // 1000)
        self.writer = FeedWriter(client, key, now_ms)
        self.writer.issuers(self.ca.issuer, self.other.issuer)
        self.writer.verifiers(everybody())
        self.writer.issue(*range(1, 10))
        self.writer.revoke(2)
        self.beat()
        self.beating = threading.Lock()
        self.config = config
        self.port = self.slow_port = 0
        self.tls: socket.socket | None = None
        self.worker: Worker
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event

    def beat(self) -> None:
        """A beat of now."""
        self.writer.beat(clock.now_ms())

    def call(self, act: Callable[[], _T]) -> _T:
        """Do *act* in the worker's loop."""
        done: Future[_T] = Future()

        def run() -> None:
            try:
                done.set_result(act())
            except BaseException as exc:
                done.set_exception(exc)

        self._loop.call_soon_threadsafe(run)
        return done.result(10)

    def run(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """Run *coroutine* in the worker's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    def lanes(self) -> list[Lane]:
        """The connections there are."""
        return [item for item in self.worker.lanes.connections if isinstance(item, Lane)]

    def sweep(self) -> None:
        """What the worker does once a second."""
        self.call(self.worker.lanes.sweep)

    @contextmanager
    def serving(self, beat_period_s: float = 1.0) -> Iterator[Host]:
        """Serve in a thread; another one beats, and holds ``beating`` while it does."""
        started: Future[None] = Future()
        thread = threading.Thread(target=lambda: uvloop.run(self._serve(started)), name="worker")
        thread.start()
        try:
            started.result(10)
            wait_until(lambda: self.writer.acked()[1])
            self.beat()
            wait_until(self.worker.is_ready)
            ended = threading.Event()
            beats = threading.Thread(target=self._beat_until, args=(ended, beat_period_s))
            beats.start()
            try:
                yield self
            finally:
                ended.set()
                beats.join()
        finally:
            if not started.done() or started.exception() is None:
                self._loop.call_soon_threadsafe(self._stop.set)
            thread.join(15)
            assert not thread.is_alive()

    def _beat_until(self, ended: threading.Event, period_s: float) -> None:
        while not ended.wait(period_s):
            with self.beating:
                self.beat()

    async def _serve(self, started: Future[None]) -> None:
        try:
            self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
            self.worker = Worker(self.config, 0)
            plain, slow = listening(), listening()
            self.port, self.slow_port = plain.getsockname()[1], slow.getsockname()[1]
            await self.worker.start(plain, self.tls)
            server = await self._loop.create_server(lambda: DelegatedLane(self.worker.lanes), sock=slow)
        except BaseException as exc:
            started.set_exception(exc)
            raise
        started.set_result(None)
        ticking = asyncio.create_task(self._tick())
        await self._stop.wait()
        ticking.cancel()
        server.close()
        await self.worker.stop()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(0.1)
            self.worker.lanes.sweep()


def listening() -> socket.socket:
    """A listening socket on a free port, whose connections have little room for what is not read."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
    made.bind(("127.0.0.1", 0))
    made.listen(128)
    return made


class Client:
    """One connection."""

    def __init__(self, port: int, timeout_s: float = 5.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.socket.close()

    def send(self, *pieces: bytes, pause_s: float = 0.0) -> None:
        """Send *pieces*, each in a segment of its own as far as that can be had."""
        for piece in pieces:
            self.socket.sendall(piece)
            if pause_s:
                time.sleep(pause_s)

    def read_answer(self, head_only: bool = False) -> bytes:
        """One whole HTTP answer by its Content-Length, interim ones passed over; b"" at the end."""
        while b"\r\n\r\n" not in self.buffer:
            if not self._read():
                assert self.buffer == b"", self.buffer
                return b""
        head, _, rest = self.buffer.partition(b"\r\n\r\n")
        if head.startswith(b"HTTP/1.1 1"):
            self.buffer = rest
            return self.read_answer(head_only)
        found = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
        assert found is not None or b" 304 " in head, head
        size = 0 if head_only or found is None else int(found[1])
        whole = len(head) + 4 + size
        while len(self.buffer) < whole:
            assert self._read(), "cut off"
        answer, self.buffer = self.buffer[:whole], self.buffer[whole:]
        return answer

    def _read(self) -> bytes:
        try:
            data = self.socket.recv(65536)
        except ConnectionResetError:
            return b""
        self.buffer += data
        return data

    def is_closed(self, within_s: float = 2.0) -> bool:
        """Whether the other side closes, without another word, in time."""
        self.socket.settimeout(within_s)
        try:
            return self.socket.recv(1) == b""
        except TimeoutError:
            return False
        except ConnectionResetError:
            return True

    def end(self) -> None:
        """Say that nothing more will be sent."""
        self.socket.shutdown(socket.SHUT_WR)


def ask(port: int, message: bytes) -> bytes:
    """One answer on a connection of its own."""
    with Client(port) as client:
        client.send(message)
        return client.read_answer(message.startswith(b"HEAD"))


def talk(port: int, *pieces: bytes) -> list[bytes]:
    """All answers to *pieces* on one connection whose sending side is then closed."""
    head_only = b"".join(pieces).startswith(b"HEAD")
    answers = []
    with Client(port) as client:
        try:
            client.send(*pieces)
            client.end()
        except (BrokenPipeError, ConnectionResetError, OSError):
            # It was closed in our face; what it said before still counts.
            pass
        while answer := client.read_answer(head_only):
            answers.append(answer)
    return answers


def body(answer: bytes) -> bytes:
    """What follows the head."""
    return answer.partition(b"\r\n\r\n")[2]


def status(answer: bytes) -> int:
    """The HTTP status."""
    return int(answer.split(b" ", 2)[1])


def timeless(answer: bytes) -> bytes:
    """The answer without what differs from one second to the next."""
    answer = re.sub(rb"\r\nDate: [^\r]*", b"", answer)
    return re.sub(rb"max-age=\d+", b"max-age=n", answer)
