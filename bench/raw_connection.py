"""One HTTP connection that sends prepared requests and reads whole answers, as cheaply as Python can.

Under gevent: a plain connection waits for its socket in gevent's loop, reads only when there is
something to read (7 µs of processor per request; ``gevent.socket`` with its timeout takes 17), and
is asked on before anybody knows whether it stands; a TLS connection is gevent's own.  Nobody times
a single request: ``give_up_if_overdue``, called once a second, ends what has waited too long.
Knows: enough HTTP to find where an answer ends (status line, Content-Length, end of connection).
Does not know: OCSP.  Chunked answers are errors: no OCSP server may send them to HTTP/1.0 clients.
Source: RFC 9112 §6.3 (length), §9.3.1 (asking again).
"""

from __future__ import annotations

import _socket
import contextlib
import errno
import os
import ssl
import time
from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple, Protocol, Self

import gevent
from gevent import socket

TIMEOUT_S = 10.0
_RECEIVE_BYTES = 65_536
_HEAD_BYTES_MAX = 65_536
_READ, _WRITE = 1, 2
_NEVER_S = float("inf")
_KIND = _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK | _socket.SOCK_CLOEXEC


class BrokenAnswer(Exception):
    """The connection ended, or did not bring an HTTP answer whose end can be found."""


class _NothingCame(BrokenAnswer):
    """The connection ended without an octet of an answer."""


class Place(NamedTuple):
    """Where a responder is.

    address  (numeric host, port)
    tls      how to speak TLS with it; None: plain
    source   address to come from; empty: as the kernel likes
    """

    host: str
    port: int
    address: tuple[str, int]
    tls: ssl.SSLContext | None = None
    source: str = ""

    @classmethod
    def resolve(cls, host: str, port: int, tls: ssl.SSLContext | None = None, source: str = "") -> Place:
        """Look the name up, once for the whole run.  Raises: OSError — no such name."""
        found = [item[4][:2] for item in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        for address in found[:-1]:
            # Most hosts have one address; of several the first that works is taken.
            with contextlib.suppress(OSError):
                socket.create_connection(address, TIMEOUT_S, (source, 0) if source else None).close()
                return cls(host, port, address, tls, source)
        return cls(host, port, found[-1], tls, source)

    @property
    def host_header(self) -> str:
        """What clients put into ``Host``."""
        usual = 80 if self.tls is None else 443
        name = f"[{self.host}]" if ":" in self.host else self.host
        return name if self.port == usual else f"{name}:{self.port}"


class RawConnection:
    """A connection to *place*, opened when first needed and again after it was closed."""

    __slots__ = (
        "__weakref__",
        "_asked_s",
        "_given_up",
        "_line",
        "_place",
        "_receive",
        "_send",
        "opened",
        "timeout_s",
    )

    def __init__(self, place: Place, timeout_s: float = TIMEOUT_S) -> None:
        self._place = place
        self._line: _Line | None = None
        self._send: Callable[[bytes], None]
        self._receive: Callable[[], bytes]
        self._asked_s = _NEVER_S
        self._given_up = False
        self.timeout_s = timeout_s
        self.opened = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ask(
        self, first: bytes, second: bytes = b"", *, keeps: bool = True, head_only: bool = False
    ) -> tuple[int, bytes, bytes]:
        """Send a request, in one or two segments, and return (HTTP status, head, body).

        *keeps* False: the connection is of no use after the answer.  *head_only*: it has no body.
        Raises: BrokenAnswer, OSError — nothing to be read; the connection is closed then.
        """
        was_open = self._line is not None
        if not was_open:
            self._open()
        self._asked_s = time.perf_counter()
        try:
            self._send(first)
            if second:
                self._send(second)
            status, head, body, ended = self._read(head_only)
        except BaseException as exc:
            self.close()
            if self._given_up and isinstance(exc, BrokenAnswer | OSError):
                raise BrokenAnswer(f"no answer within {self.timeout_s:g} s") from exc
            if was_open and isinstance(exc, _NothingCame | ConnectionResetError | BrokenPipeError):
                # It was closed while nobody used it; whoever keeps connections must expect that.
                return self.ask(first, second, keeps=keeps, head_only=head_only)
            raise
        self._asked_s = _NEVER_S
        if ended or not keeps or b"\r\nConnection: close\r\n" in head:
            self.close()
        return status, head, body

    def give_up_if_overdue(self, now_s: float) -> None:
        """End the connection if an answer has been due for too long."""
        if now_s - self._asked_s > self.timeout_s and self._line is not None:
            self._given_up = True
            with contextlib.suppress(OSError):
                self._line.end()

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        self._asked_s = _NEVER_S
        if self._line is not None:
            self._line.close()
            self._line = None

    def _open(self) -> None:
        place = self._place
        self._given_up = False
        self._line = _Plain(place, self.timeout_s) if place.tls is None else _Tls(place, self.timeout_s)
        self._send, self._receive = self._line.send, self._line.receive
        self.opened += 1

    def _read(self, head_only: bool) -> tuple[int, bytes, bytes, bool]:
        receive = self._receive
        data = receive()
        if not data:
            raise _NothingCame("the connection ended without an answer")
        end = data.find(b"\r\n\r\n")
        while end < 0:
            more = receive()
            if not more:
                raise BrokenAnswer(f"the connection ended after {len(data)} octets")
            if len(data) > _HEAD_BYTES_MAX:
                raise BrokenAnswer("a head without an end")
            data += more
            end = data.find(b"\r\n\r\n")
        end += 4
        head = data[:end]
        size = 0 if head_only else _body_bytes(head)
        if size is None:
            parts = [data[end:]]
            while more := receive():
                parts.append(more)
            return _status(head), head, b"".join(parts), True
        missing = size - (len(data) - end)
        if missing < 0:
            raise BrokenAnswer("more than the answer came")
        if missing:
            parts = [data]
            while missing > 0:
                more = receive()
                if not more:
                    raise BrokenAnswer(f"{missing} octets of the body are missing")
                parts.append(more)
                missing -= len(more)
            if missing < 0:
                raise BrokenAnswer("more than the answer came")
            data = b"".join(parts)
        return _status(head), head, data[end:], False


class _Line(Protocol):
    """Octets to a responder and back."""

    def send(self, data: bytes) -> None: ...
    def receive(self) -> bytes:
        """Return what came; nothing at the end."""
        ...

    def end(self) -> None:
        """Let whoever waits for octets read the end."""

    def close(self) -> None: ...


class _Plain:
    """A socket that does not block, and gevent's loop to wait in; a connection costs half of gevent's own."""

    __slots__ = ("_native", "_readable", "_receive", "_timeout_s", "_wait")

    def __init__(self, place: Place, timeout_s: float) -> None:
        host, port = place.address
        self._timeout_s = timeout_s
        hub = gevent.get_hub()
        native = self._native = _socket.socket(_family(host), _KIND)
        try:
            native.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
            if place.source:
                native.bind((place.source, 0))
            # Nobody waits for the connection: whoever sends first finds out.
            code = native.connect_ex((host, port))
            if code not in (0, errno.EINPROGRESS):
                raise OSError(code, os.strerror(code))
        except BaseException:
            native.close()
            raise
        self._readable = hub.loop.io(native.fileno(), _READ)
        self._wait = hub.wait
        self._receive = native.recv

    def send(self, data: bytes) -> None:
        """Send all of *data*."""
        try:
            # A request is far smaller than a socket's buffer: one call nearly always does.
            sent = self._native.send(data)
        except BlockingIOError:
            sent = 0
        while sent < len(data):
            self._wait_until_writable()
            try:
                sent += self._native.send(data[sent:])
            except BlockingIOError:
                continue

    def receive(self) -> bytes:
        """Return what came; nothing at the end."""
        while True:
            self._wait(self._readable)
            try:
                return self._receive(_RECEIVE_BYTES)
            except BlockingIOError:
                continue

    def end(self) -> None:
        """Let whoever waits for octets read the end."""
        self._native.shutdown(_socket.SHUT_RDWR)

    def close(self) -> None:
        """Close it."""
        self._readable.close()
        self._native.close()

    def _wait_until_writable(self) -> None:
        writable = gevent.get_hub().loop.io(self._native.fileno(), _WRITE)
        try:
            with gevent.Timeout(self._timeout_s, TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))):
                self._wait(writable)
        finally:
            writable.close()
        if code := self._native.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR):
            raise OSError(code, os.strerror(code))


class _Tls:
    """gevent's own TLS."""

    __slots__ = ("_socket",)

    def __init__(self, place: Place, timeout_s: float) -> None:
        assert place.tls is not None
        made = socket.create_connection(place.address, timeout_s, (place.source, 0) if place.source else None)
        try:
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            made = place.tls.wrap_socket(made, server_hostname=place.host)
            made.settimeout(None)
        except BaseException:
            made.close()
            raise
        self._socket = made

    def send(self, data: bytes) -> None:
        """Send all of *data*."""
        self._socket.sendall(data)

    def receive(self) -> bytes:
        """Return what came; nothing at the end."""
        data: bytes = self._socket.recv(_RECEIVE_BYTES)
        return data

    def end(self) -> None:
        """Let whoever waits for octets read the end."""
        self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close it."""
        self._socket.close()


def _family(host: str) -> int:
    return _socket.AF_INET6 if ":" in host else _socket.AF_INET


def _status(head: bytes) -> int:
    try:
        return int(head[9:12])
    except ValueError as exc:
        raise BrokenAnswer(f"not HTTP: {head[:40]!r}") from exc


def _body_bytes(head: bytes) -> int | None:
    """Return how long the body is; None: until the connection ends."""
    at = head.find(b"\r\nContent-Length: ")
    if at < 0:
        if head[9:12] in (b"304", b"204"):
            return 0
        lower = head.lower()
        if b"\r\ntransfer-encoding:" in lower:
            raise BrokenAnswer("a chunked answer")
        at = lower.find(b"\r\ncontent-length:")
        if at < 0:
            return None
    elif head[9:12] == b"304":
        # A length there may be that of what was not sent (RFC 9110 §15.4.5).
        return 0
    try:
        return int(head[at + 17 : head.index(b"\r", at + 2)])
    except ValueError as exc:
        raise BrokenAnswer("a Content-Length that is no number") from exc
