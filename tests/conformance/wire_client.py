"""Octets to a running installation and what comes back, every one of them counted.

Knows: sockets, whole HTTP answers by their Content-Length, the end of a connection.
Does not know: which answer is right; how a request is written (that is the test's business).
"""

from __future__ import annotations

import re
import socket
import time
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import urlsplit

PIECE = 65_536


class Reply(NamedTuple):
    """One HTTP answer; *headers* has names in lower case, in the order written."""

    raw: bytes
    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        """The value of a header, None where it is absent; one that is there twice is an error."""
        found = [value for key, value in self.headers if key == name.lower()]
        assert len(found) <= 1, f"{name} is there {len(found)} times"
        return found[0] if found else None

    @property
    def head(self) -> bytes:
        """Status line and headers, with the empty line."""
        return self.raw[: len(self.raw) - len(self.body)]


class Wire:
    """A client of one running installation.

    sent, received   octets exchanged by all its connections
    replies          every answer that was read
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        self.host = parts.hostname
        self.port = parts.port
        self.sent = 0
        self.received = 0
        self.replies: list[Reply] = []

    @property
    def exchanged(self) -> bool:
        """Whether octets went both ways."""
        return self.sent > 0 and self.received > 0

    def connect(
        self, timeout_s: float = 30.0, *, source: str | None = None, receive_bytes: int | None = None
    ) -> Connection:
        """Open a connection, from another local address or with a small window if so wished."""
        return Connection(self, timeout_s, source, receive_bytes)

    def ask(self, message: bytes) -> Reply:
        """The one answer to *message* on a connection of its own."""
        with self.connect() as connection:
            connection.send(message)
            reply = connection.read(head_only=message.startswith(b"HEAD "))
            assert reply is not None, "closed without an answer"
            return reply

    def talk(self, *pieces: bytes) -> list[Reply]:
        """All answers to *pieces* on one connection, whose sending side is closed after them."""
        head_only = b"".join(pieces[:1]).startswith(b"HEAD ")
        replies = []
        with self.connect() as connection:
            # Whoever closes in our face may still have said something before.
            with suppress(BrokenPipeError, ConnectionResetError, OSError):
                connection.send(*pieces)
                connection.end()
            while (reply := connection.read(head_only=head_only)) is not None:
                replies.append(reply)
        return replies

    def get(self, path: str, *lines: str, method: str = "GET") -> Reply:
        """Ask for *path* with further header *lines*."""
        head = [f"{method} {path} HTTP/1.1", f"Host: {self.host}:{self.port}", *lines, "Connection: close"]
        return self.ask("".join(f"{line}\r\n" for line in (*head, "")).encode("latin-1"))


class Connection:
    """One connection; a context manager that closes it."""

    def __init__(self, wire: Wire, timeout_s: float, source: str | None, receive_bytes: int | None) -> None:
        self._wire = wire
        self.socket = socket.socket()
        if receive_bytes is not None:
            # Before the connection is made, or the window has been offered already.
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        if source is not None:
            self.socket.bind((source, 0))
        self.socket.settimeout(timeout_s)
        self.socket.connect((wire.host, wire.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.socket.close()

    def send(self, *pieces: bytes, pause_s: float = 0.0) -> None:
        """Send each piece by itself, as far as that can be had."""
        for piece in pieces:
            self.socket.sendall(piece)
            self._wire.sent += len(piece)
            if pause_s:
                time.sleep(pause_s)

    def end(self) -> None:
        """Say that nothing more will be sent."""
        self.socket.shutdown(socket.SHUT_WR)

    def read(self, *, head_only: bool = False) -> Reply | None:
        """The next final answer; None where the connection ended instead of one.

        Interim answers (1xx) are passed over; *head_only* for what answers a HEAD.
        """
        while True:
            while b"\r\n\r\n" not in self.buffer:
                if not self.receive():
                    assert self.buffer == b"", f"ended within a head: {self.buffer!r}"
                    return None
            head, _, rest = self.buffer.partition(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 1"):
                break
            self.buffer = rest
        status, headers = read_head(head)
        length = dict(headers).get("content-length")
        assert length is not None or status == 304, f"no Content-Length: {head!r}"
        whole = len(head) + 4 + (0 if head_only or length is None or status == 304 else int(length))
        while len(self.buffer) < whole:
            assert self.receive(), f"ended within a body: {len(self.buffer)} of {whole} octets"
        raw, self.buffer = self.buffer[:whole], self.buffer[whole:]
        reply = Reply(raw, status, headers, raw[len(head) + 4 :])
        self._wire.replies.append(reply)
        return reply

    def rest(self) -> bytes:
        """Everything up to the end of the connection, as it is."""
        while self.receive():
            pass
        rest, self.buffer = self.buffer, b""
        return rest

    def is_closed(self, within_s: float) -> bool:
        """Whether the other side closes in time, without a further word."""
        self.socket.settimeout(within_s)
        try:
            return not self.receive() and not self.buffer
        except TimeoutError:
            return False

    def receive(self) -> int:
        """Take what has come; return how many octets, 0 at the end."""
        try:
            data = self.socket.recv(PIECE)
        except ConnectionResetError:
            return 0
        self._wire.received += len(data)
        self.buffer += data
        return len(data)


def read_head(head: bytes) -> tuple[int, tuple[tuple[str, str], ...]]:
    """Return (status, headers) of an answer's head; one that is not as it must be is an error."""
    first, *lines = head.decode("latin-1").split("\r\n")
    found = re.fullmatch(r"HTTP/1\.[01] (\d{3}) [ -~]*", first)
    assert found is not None, first
    headers = []
    for line in lines:
        name, colon, value = line.partition(":")
        assert colon, line
        assert re.fullmatch(r"[A-Za-z0-9-]+", name), line
        headers.append((name.lower(), value.strip()))
    return int(found[1]), tuple(headers)
