"""The open-loop generator: what it sends, and that a pause of the server is in the latencies."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.open_loop import Load, Seen, build, write_requests

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
REQUEST = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n"
LAST = b"GET /b HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"


@contextmanager
def server(answer: bytes, pause_s: float = 0.0) -> Iterator[tuple[int, list[bytes]]]:
    """A server that answers every request so, and once, in the middle, rests for *pause_s*."""
    listening = socket.create_server(("127.0.0.1", 0))
    asked: list[bytes] = []
    rested = threading.Lock()

    def talk(connection: socket.socket) -> None:
        with connection:
            try:
                while request := connection.recv(65536):
                    asked.append(request)
                    with rested:
                        if len(asked) == 50:
                            time.sleep(pause_s)
                    connection.sendall(answer)
            except OSError:
                return

    def accept() -> None:
        try:
            while True:
                threading.Thread(target=talk, args=(listening.accept()[0],), daemon=True).start()
        except OSError:
            return

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listening.getsockname()[1], asked
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The generator, compiled."""
    assert shutil.which("cc"), "a C compiler is needed"
    return build(tmp_path_factory.mktemp("program"))


def run(program: Path, folder: Path, port: int, seconds: float, connections: int = 4) -> Seen:
    """Two kinds of request in turn, 200 a second."""
    write_requests(folder / "requests", [(REQUEST, False), (LAST, True)])
    load = Load(
        program,
        port,
        folder / "requests",
        connections=connections,
        seconds=seconds,
        rate=200.0,
        warm_s=0.0,
    )
    return load.wait()


def test_it_keeps_its_rate_and_sends_what_it_was_given(program: Path, tmp_path: Path) -> None:
    """The requests go out in turn, as many as the rate says, and those that end a connection end it."""
    with server(ANSWER) as (port, asked):
        seen = run(program, tmp_path, port, 1.0)
    assert seen.failures == 0
    assert 195 <= seen.requests <= 201
    assert set(asked) == {REQUEST, LAST}
    assert abs(asked.count(REQUEST) - asked.count(LAST)) <= 2
    assert 0 < seen.latency.p50 <= seen.latency.p99 <= seen.latency.max


def test_what_waits_behind_a_pause_is_counted(program: Path, tmp_path: Path) -> None:
    """A rest of 300 ms delays some sixty requests, not only the four that were on their way."""
    with server(ANSWER, 0.3) as (port, _asked):
        seen = run(program, tmp_path, port, 1.5)
    # 300 requests, 60 of them due in the rest: a tenth of all waited 150 ms and more.
    assert seen.latency.p99 > 200_000
    assert seen.latency.max >= 290_000
    assert seen.latency.p50 < 100_000


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 503 Later\r\nContent-Length: 2\r\n\r\nno", b"HTTP/1.1 200 OK\r\n\r\n", ANSWER + b"x"],
)
def test_any_other_answer_is_a_failure(program: Path, tmp_path: Path, answer: bytes) -> None:
    """Another status, an answer without a length, one that is too long: none counts as an answer."""
    with server(answer) as (port, _asked):
        seen = run(program, tmp_path, port, 0.3)
    assert seen.requests == 0
    assert seen.failures > 10
