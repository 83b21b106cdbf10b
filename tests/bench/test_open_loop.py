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

# Rates are kept where nothing else wants the processors.
pytestmark = pytest.mark.alone


def http(body: bytes) -> bytes:
    """An answer with this body."""
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


# As much of an OCSPResponse as is looked at: successful, its length in one octet and in two.
ANSWER = http(bytes.fromhex("30060a0100a00101"))
LONG_ANSWER = http(bytes.fromhex("30820384") + bytes.fromhex("0a0100a0820380") + bytes(893))
TRY_LATER = http(bytes.fromhex("30030a0103"))
UNAUTHORIZED = http(bytes.fromhex("30030a0106"))
REQUEST = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n"
LAST = b"GET /b HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"


@contextmanager
def server(answer: bytes, pause_s: float = 0.0, *, rest_at: int = 50) -> Iterator[tuple[int, list[bytes]]]:
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
                        if len(asked) == rest_at:
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
    assert (seen.refusals, seen.unanswered, seen.unsent) == ({}, 0, 0)
    # What came after the end is no answer of this time.
    assert seen.sent - 4 <= seen.requests <= seen.sent
    assert 0 < seen.busy < 1


def test_what_waits_behind_a_pause_is_counted(program: Path, tmp_path: Path) -> None:
    """A rest of 300 ms delays some sixty requests, not only the four that were on their way."""
    with server(ANSWER, 0.3) as (port, _asked):
        seen = run(program, tmp_path, port, 1.5)
    # 300 requests, 60 of them due in the rest: a tenth of all waited 150 ms and more.
    assert seen.latency.p99 > 200_000
    assert seen.latency.max >= 290_000
    assert seen.latency.p50 < 100_000


def test_the_servers_pause_is_not_the_generators_fault(program: Path, tmp_path: Path) -> None:
    """Requests were late because no connection was free, and the generator says so."""
    with server(ANSWER, 1.0) as (port, _asked):
        seen = run(program, tmp_path, port, 1.5)
    # More than half of the requests were due in the pause.
    assert seen.late.p50 > 100_000
    assert seen.own_late.p50 < seen.late.p50 / 2


def test_what_is_never_answered_is_in_the_latencies(program: Path, tmp_path: Path) -> None:
    """A server that stops answering has no quick percentiles: what is due grows old."""
    with server(ANSWER, 60.0, rest_at=1) as (port, _asked):
        seen = run(program, tmp_path, port, 1.0)
    assert (seen.requests, seen.unanswered) == (0, 4)
    assert seen.unsent == pytest.approx(196, abs=2)
    assert seen.latency.p50 == pytest.approx(500_000, rel=0.1)


@pytest.mark.parametrize(
    ("answer", "name"), [(TRY_LATER, "tryLater"), (UNAUTHORIZED, "unauthorized"), (LONG_ANSWER, "")]
)
def test_what_the_responder_says_instead_of_an_answer_is_counted(
    program: Path, tmp_path: Path, answer: bytes, name: str
) -> None:
    """HTTP 200 is not enough; an OCSP error is no failure of the connection, which goes on."""
    with server(answer) as (port, asked):
        seen = run(program, tmp_path, port, 0.3)
    assert seen.failures == 0
    assert len(asked) - 4 <= seen.requests + sum(seen.refusals.values()) <= len(asked)
    assert list(seen.refusals) == ([name] if name else [])
    assert (seen.requests == 0) == bool(name)


def test_it_says_what_it_saw_when_it_is_ended_early(program: Path, tmp_path: Path) -> None:
    """And waits for what is on its way."""
    write_requests(tmp_path / "requests", [(REQUEST, False)])
    with (
        server(ANSWER) as (port, _asked),
        Load(
            program, port, tmp_path / "requests", connections=4, seconds=60.0, rate=200.0, warm_s=0.0
        ) as load,
    ):
        time.sleep(0.5)
        seen = load.end()
    assert 50 < seen.sent - 4 <= seen.requests <= seen.sent
    assert seen.seconds < 5
    assert seen.rate == pytest.approx(200, rel=0.1)


def test_a_connection_that_ends_while_nothing_is_asked_is_no_failure(program: Path, tmp_path: Path) -> None:
    """Servers close what is idle; the next request opens another."""
    listening = socket.create_server(("127.0.0.1", 0))

    def answer_once_each() -> None:
        try:
            while True:
                connection = listening.accept()[0]
                if connection.recv(65536):
                    connection.sendall(ANSWER)
                connection.close()
        except OSError:
            return

    threading.Thread(target=answer_once_each, daemon=True).start()
    write_requests(tmp_path / "requests", [(REQUEST, False)])
    port = listening.getsockname()[1]
    seen = Load(program, port, tmp_path / "requests", connections=1, seconds=1.2, rate=2.0, warm_s=0.0).wait()
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    assert (seen.requests, seen.failures) == (3, 0)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 503 Later\r\nContent-Length: 2\r\n\r\nno",
        b"HTTP/1.1 200 OK\r\n\r\n",
        http(b"ok"),
        http(b""),
        ANSWER + b"x",
    ],
)
def test_any_other_answer_is_a_failure(program: Path, tmp_path: Path, answer: bytes) -> None:
    """Another status, an answer without a length, no OCSP, one that is too long: none counts as an answer."""
    with server(answer) as (port, _asked):
        seen = run(program, tmp_path, port, 0.3)
    assert seen.requests == 0
    assert seen.failures > 10
