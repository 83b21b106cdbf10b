"""One HTTP connection that sends prepared requests and reads whole answers, as cheaply as Python can.

Works on whatever ``socket`` module it is given: the standard one, or gevent's under locust.
Knows: enough HTTP to find where an answer ends (status line, Content-Length, Connection: close).
Does not know: OCSP.  Chunked answers are errors: no OCSP server may send them to HTTP/1.0 clients.
Source: RFC 9112 §6.3.
"""

from __future__ import annotations

import socket
from types import TracebackType
from typing import Self

_RECEIVE_BYTES = 65_536
_HEAD_BYTES_MAX = 65_536


class BrokenAnswer(Exception):
    """The connection ended, or did not bring an HTTP answer with a Content-Length."""


class RawConnection:
    """A connection to (host, port), opened when first needed and again after it was closed."""

    __slots__ = ("_address", "_socket", "opened", "timeout_s")

    def __init__(self, host: str, port: int, timeout_s: float = 10.0) -> None:
        self._address = (host, port)
        self._socket: socket.socket | None = None
        self.timeout_s = timeout_s
        self.opened = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ask(self, request: bytes, *, head_only: bool = False) -> tuple[int, bytes, bytes]:
        """Send *request* and return (HTTP status, head with its empty line, body).

        Raises: BrokenAnswer, OSError — nothing to be read; the connection is closed then.
        """
        connection = self._socket
        if connection is None:
            connection = self._socket = socket.create_connection(self._address, self.timeout_s)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.opened += 1
        try:
            # A request is far smaller than a socket's buffer, so sendall's loop is rarely needed.
            sent = connection.send(request)
            if sent != len(request):
                connection.sendall(request[sent:])
            data = connection.recv(_RECEIVE_BYTES)
            end = data.find(b"\r\n\r\n")
            while end < 0:
                more = connection.recv(_RECEIVE_BYTES)
                if not more or len(data) > _HEAD_BYTES_MAX:
                    raise BrokenAnswer("no head")
                data += more
                end = data.find(b"\r\n\r\n")
            head = data[: end + 4]
            missing = (0 if head_only else _body_bytes(head)) - (len(data) - end - 4)
            if missing > 0:
                parts = [data]
                while missing > 0:
                    more = connection.recv(_RECEIVE_BYTES)
                    if not more:
                        raise BrokenAnswer(f"{missing} bytes of the body missing")
                    parts.append(more)
                    missing -= len(more)
                data = b"".join(parts)
            if missing < 0:
                raise BrokenAnswer("more than the answer came")
        except BaseException:
            self.close()
            raise
        if b"\r\nConnection: close\r\n" in head:
            self.close()
        return int(head[9:12]), head, data[end + 4 :]

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _body_bytes(head: bytes) -> int:
    at = head.find(b"Content-Length: ")
    if at < 0:
        if head.startswith((b"HTTP/1.1 304", b"HTTP/1.1 204")):
            return 0
        at = head.lower().find(b"\r\ncontent-length:")
        if at < 0:
            raise BrokenAnswer("an answer without Content-Length")
        at += 1
    return int(head[head.index(b":", at) + 1 : head.index(b"\r", at)])
