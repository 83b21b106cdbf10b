"""Fetching a CRL over http or https: bounded in time and size, and only if it is a new one.

Knows: conditional GET, and that nothing but these two schemes is followed, redirects included.
Does not know: what is fetched; that is checked by signature afterwards.
Source: RFC 9110 §13 (conditional requests); RFC 5280 §8 (https to fetch a CRL is the operator's choice).
"""

from __future__ import annotations

import http.client
import socket
import threading
import urllib.error
import urllib.request
from contextlib import suppress
from types import TracebackType
from typing import NamedTuple, Self
from urllib.parse import urlsplit

from certstatus.errors import ImportRefused

_ANSWER_S = 10.0
_TOTAL_S = 60.0
BYTES_MAX = 256 << 20
_BLOCK = 1 << 16
_NOT_MODIFIED = 304


class Fetched(NamedTuple):
    """A fetched CRL, and what to show the server next time (empty if it gave nothing)."""

    content: bytes
    etag: str
    last_modified: str


def fetch_crl(url: str, before: Fetched | None = None) -> Fetched | None:
    """Return what is at *url*, or None if it is what *before* was.

    Raises: ImportRefused — another scheme, no answer in time, an error, or more than ``BYTES_MAX``.
    """
    try:
        parts = urlsplit(url)
    except ValueError as exc:
        raise ImportRefused(url, 0, "URL", str(exc)) from exc
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ImportRefused(url, 0, "URL", "http or https expected")
    headers = {"User-Agent": "certstatus", "Accept": "application/pkix-crl, */*"}
    if before is not None and before.etag:
        headers["If-None-Match"] = before.etag
    if before is not None and before.last_modified:
        headers["If-Modified-Since"] = before.last_modified
    try:
        with (
            _Deadline(_TOTAL_S) as deadline,
            _opener(deadline).open(urllib.request.Request(url, headers=headers), timeout=_ANSWER_S) as answer,
        ):
            content = _read(answer, url, deadline)
            return Fetched(content, answer.headers.get("ETag", ""), answer.headers.get("Last-Modified", ""))
    except urllib.error.HTTPError as exc:
        with exc:
            if exc.code == _NOT_MODIFIED and before is not None:
                return None
            raise ImportRefused(url, 0, "answer", f"HTTP {exc.code}") from exc
    except (OSError, http.client.HTTPException) as exc:
        # urllib's own errors are OSErrors.
        raise ImportRefused(url, 0, "answer", str(exc) or type(exc).__name__) from exc


class _Deadline:
    """The end of one fetch: then its connections are cut off, wherever it is.

    A timeout of the socket does not do, for each octet that comes begins it anew.
    """

    def __init__(self, total_s: float) -> None:
        self.is_over = False
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._timer = threading.Timer(total_s, self._cut)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _exc: BaseException | None, _tb: TracebackType | None
    ) -> None:
        self._timer.cancel()

    def watch(self, connection: socket.socket) -> None:
        """Cut *connection* off, too.  Raises: TimeoutError — it is over."""
        with self._lock:
            if self.is_over:
                connection.close()
                raise TimeoutError("the time is over")
            self._sockets.append(connection)

    def _cut(self) -> None:
        with self._lock:
            self.is_over = True
            for connection in self._sockets:
                with suppress(OSError):
                    # Of the socket below TLS: the reader sees the end of it, and nothing is torn from it.
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)


def _opener(deadline: _Deadline) -> urllib.request.OpenerDirector:
    """Return an opener that knows http and https only: no files, no ftp, no proxies from the environment."""

    class Plain(http.client.HTTPConnection):
        def connect(self) -> None:
            super().connect()
            deadline.watch(self.sock)

    class Secure(http.client.HTTPSConnection):
        def connect(self) -> None:
            super().connect()
            deadline.watch(self.sock)

    class PlainHandler(urllib.request.HTTPHandler):
        def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(Plain, req)

    class SecureHandler(urllib.request.HTTPSHandler):
        def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(Secure, req)

    opener = urllib.request.OpenerDirector()
    for handler in (
        PlainHandler(),
        SecureHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener


def _read(answer: http.client.HTTPResponse, url: str, deadline: _Deadline) -> bytes:
    blocks: list[bytes] = []
    size = 0
    while block := answer.read1(_BLOCK):
        size += len(block)
        if size > BYTES_MAX:
            raise ImportRefused(url, 0, "answer", f"over {BYTES_MAX} bytes")
        blocks.append(block)
    if deadline.is_over:
        # Cut off, it looks like an answer that has ended.
        raise ImportRefused(url, 0, "answer", f"not complete after {_TOTAL_S:.0f} s")
    if answer.length:
        raise ImportRefused(url, 0, "answer", f"cut off, {answer.length} bytes are missing")
    return b"".join(blocks)
