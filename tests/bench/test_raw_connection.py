"""The load test's connection, against servers that end, stall and answer in every way."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import gevent
import pytest

from bench.raw_connection import BrokenAnswer, Place, RawConnection

REQUEST = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@contextmanager
def server(*connections: list[list[bytes]]) -> Iterator[RawConnection]:
    """Accept so many connections; to each request write its segments, after the last one close."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for answers in connections:
                peer, _ = listener.accept()
                with peer:
                    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    for segments in answers:
                        peer.recv(65536)
                        for segment in segments:
                            peer.sendall(segment)

        thread = threading.Thread(target=serve)
        thread.start()
        place = Place.resolve("127.0.0.1", listener.getsockname()[1])
        with RawConnection(place) as connection:
            yield connection
        thread.join(10)
        assert not thread.is_alive()


@pytest.mark.parametrize(
    ("segments", "expected"),
    [
        ([OK], (200, b"ok")),
        ([OK[:5], OK[5:20], OK[20:-1], OK[-1:]], (200, b"ok")),
        ([OK.replace(b"Content-Length", b"content-length")], (200, b"ok")),
        ([b"HTTP/1.0 200 OK\r\n\r\n", b"until ", b"the end"], (200, b"until the end")),
        ([b"HTTP/1.1 304 Not Modified\r\nContent-Length: 900\r\n\r\n"], (304, b"")),
        ([b"HTTP/1.1 304 Not Modified\r\n\r\n"], (304, b"")),
    ],
)
def test_the_end_of_an_answer_is_found(segments: list[bytes], expected: tuple[int, bytes]) -> None:
    """By its length wherever the segments end, or by the end of the connection."""
    with server([segments]) as connection:
        status, head, body = connection.ask(REQUEST)
    assert (status, body) == expected
    assert head.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("segments", "expected"),
    [
        ([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"], "chunked"),
        ([OK + b"more"], "more than the answer"),
        ([OK[:-1]], "1 octets of the body are missing"),
        ([OK[:9]], "ended after 9 octets"),
        ([b"SSH-2.0-nothing of the kind\r\n\r\n"], "not HTTP"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n"], "no number"),
        ([], "without an answer"),
    ],
)
def test_what_is_no_answer_is_told(segments: list[bytes], expected: str) -> None:
    """A connection that breaks off or speaks otherwise is an error with its reason."""
    with server([segments]) as connection, pytest.raises(BrokenAnswer, match=expected):
        connection.ask(REQUEST)


def test_a_connection_that_was_closed_meanwhile_is_opened_anew() -> None:
    """A server may close what nobody uses: the question is asked again, once, on another connection."""
    with server([[OK]], [[OK]]) as connection:
        connection.ask(REQUEST)
        assert connection.ask(REQUEST)[2] == b"ok"
        assert connection.opened == 2


def test_one_connection_serves_many_questions_unless_told_otherwise() -> None:
    """It is kept until the client's form or the server's answer ends it."""
    close = OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    with server([[OK], [close]], [[OK]], [[OK]]) as connection:
        for keeps in (True, True, False, True):
            connection.ask(REQUEST, keeps=keeps)
        assert connection.opened == 3


def test_an_answer_that_does_not_come_is_given_up() -> None:
    """Whoever looks after the connections ends the wait; before its time nothing is ended."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connection = RawConnection(Place.resolve("127.0.0.1", listener.getsockname()[1]))
        gevent.spawn_later(0.05, connection.give_up_if_overdue, 0.0)
        gevent.spawn_later(0.1, connection.give_up_if_overdue, float("inf"))
        with connection, pytest.raises(BrokenAnswer, match="no answer within 10 s"):
            connection.ask(REQUEST)


def test_nobody_listens() -> None:
    """A refused connection is the system's own error."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    connection = RawConnection(Place.resolve("127.0.0.1", port))
    with connection, pytest.raises(ConnectionRefusedError):
        connection.ask(REQUEST)


def test_a_large_request_is_sent_whole() -> None:
    """More than a socket's buffer holds."""
    size = 20_000_000
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            peer, _ = listener.accept()
            with peer:
                left = size
                while left:
                    left -= len(peer.recv(1 << 20))
                peer.sendall(OK)

        thread = threading.Thread(target=serve)
        thread.start()
        with RawConnection(Place.resolve("127.0.0.1", listener.getsockname()[1])) as connection:
            assert connection.ask(b"x" * size)[0] == 200
        thread.join(10)
