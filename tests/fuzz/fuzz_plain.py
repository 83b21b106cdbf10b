"""The recogniser of plain requests beside aiohttp's own parser: nothing is smuggled past it.

Input: octets as they are sent; or after an octet of 1 to 4 the parts of a message, so that most of what
is tried is plain but for one thing: target, header lines, and for a POST the body, line ends between.
Oracles: what is plain is one whole message to aiohttp too, with the same method, target, body and
end, the same word on the connection, and no header that changes what it means; whatever follows a
plain message begins a message of its own; each beginning of a plain message is a part of one; what
is a part is not whole to aiohttp either.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpRequestParser, RawRequestMessage
from aiohttp.streams import EmptyStreamReader, StreamReader

from responder.plain import Partial, Plain, recognise

HEAD_MAX, BODY_MAX = 2048, 512
# Where aiohttp draws the line is not the question here.
_LINE_MAX = 1 << 16
_NEXT = b"GET /next HTTP/1.1\r\nHost: next\r\n\r\n"
# Each of these says something about how far a message reaches, who may see it, or what it is an answer to.
_MEANINGFUL = frozenset(
    {
        *("transfer-encoding", "content-encoding", "content-range", "expect", "upgrade", "te", "trailer"),
        *("authorization", "proxy-authorization", "cookie", "range", "if-range", "http2-settings"),
        *("if-match", "if-none-match", "if-modified-since", "if-unmodified-since"),
    }
)
_LOOP = asyncio.new_event_loop()
_PROTOCOL = BaseProtocol(_LOOP)

WORDS = (
    *(b"GET /ocsp/", b"POST /ocsp", b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", b"\r\n\r\n", b"\r\n", b"\n", b"\r"),
    *(b"Host: x\r\n", b"Content-Length: 3\r\n", b"Content-Length:", b"Transfer-Encoding: chunked\r\n"),
    *(
        b"Connection: close\r\n",
        b"Connection: keep-alive\r\n",
        b"Connection: upgrade\r\n",
        b"Upgrade: h2c\r\n",
    ),
    *(
        b"Content-Type: application/ocsp-request\r\n",
        b"Content-Encoding: gzip\r\n",
        b"Expect: 100-continue\r\n",
    ),
    *(b"0\r\n\r\n", b" ", b"\t", b":", b"\x0b", b"\x0c", b"\x1c", b"\x85", b"\xa0", b"\x00", b"\x7f", b"%2F"),
    *(
        b"Content-Length:\x0b3",
        b"Content_Length: 3\r\n",
        b"X: a\r\n b\r\n",
        b"GET http://x/ocsp/",
        b"?",
        b"#",
    ),
)


def seeds() -> Iterator[tuple[str, bytes]]:
    """Plain messages in every dress, and what only looks like one."""
    get = b"GET /ocsp/MFMwUQ%3D%3D HTTP/1.1\r\nHost: x\r\n\r\n"
    post = b"POST /ocsp HTTP/1.1\r\nHost: x\r\nContent-Type: application/ocsp-request\r\n"
    yield "get", get
    yield "get-10", b"GET /ocsp/MFMwUQ== HTTP/1.0\r\n\r\n"
    yield "get-10-keep-alive", b"GET /ocsp/MFMwUQ== HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
    yield "get-close", get.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    yield "get-keep-alive", get.replace(b"\r\n\r\n", b"\r\nCONNECTION:Keep-Alive \r\n\r\n")
    yield "get-length-0", get.replace(b"\r\n\r\n", b"\r\nContent-Length: 0\r\n\r\n")
    yield "get-many", get.replace(b"\r\n\r\n", b"\r\nUser-Agent: a/b (c)\r\nAccept: */*\r\nX:\r\n\r\n")
    yield "get-above-ascii", get.replace(b"\r\n\r\n", b"\r\nX: \xe3\x81\x82\r\n\r\n")
    yield "get-twice", get + get
    yield "post", post + b"Content-Length: 5\r\n\r\n0\x03\x0a\x01\x01"
    yield "post-slash", (post + b"Content-Length: 1\r\n\r\n0").replace(b"/ocsp ", b"/ocsp/ ")
    yield "post-empty", post + b"Content-Length: 0\r\n\r\n"
    yield "post-10", (post + b"Content-Length: 1\r\n\r\n0").replace(b"1.1", b"1.0")
    yield "post-part", post + b"Content-Length: 9\r\n\r\n0"
    yield "post-and-get", post + b"Content-Length: 1\r\n\r\n0" + get
    yield "post-chunked", post + b"Transfer-Encoding: chunked\r\n\r\n1\r\n0\r\n0\r\n\r\n"
    yield "post-both", post + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    yield "post-two-lengths", post + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n00"
    yield "post-parameter", post.replace(b"request\r", b"request; a=b\r") + b"Content-Length: 1\r\n\r\n0"
    yield "head-part", get[:30]
    yield "parts-get-10", b"\x01MFMw%2B\nAccept: */*\nConnection: keep-alive"
    yield "parts-get", b"\x02MFMw\nUser-Agent: a\nX-Forwarded-For: ::1\nVia: 1.1 x\nConnection: close"
    yield "parts-post-10", b"\x03\nContent-Type: application/ocsp-request\nbody"
    yield "parts-post", b"\x04\nCONTENT-TYPE:application/ocsp-request;a=b \nDNT: 1\nKeep-Alive: 5\nbody"
    yield "folded", get.replace(b"\r\n\r\n", b"\r\nX: a\r\n b\r\n\r\n")
    yield "bare-lf", get.replace(b"\r\nHost", b"\nHost")
    yield "upgrade", get.replace(b"\r\n\r\n", b"\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n")


def _message(data: bytes) -> bytes:
    """Return what is sent: *data*, or a message put together from its parts."""
    if not data or not 1 <= data[0] <= 4:
        return data
    target, *parts = data[1:].split(b"\n")
    version = b" HTTP/1.0\r\n" if data[0] & 1 else b" HTTP/1.1\r\nHost: x\r\n"
    if data[0] > 2:
        body = parts.pop() if parts else b""
        start = b"POST /ocsp" + target + version
        end = b"Content-Length: %d\r\n\r\n" % len(body) + body
    else:
        start, end = b"GET /ocsp/" + (target or b"MAAA") + version, b"\r\n"
    lines = [(part if b":" in part else b"X-Y: " + part) + b"\r\n" for part in parts]
    return start + b"".join(lines) + end


class _Heard:
    """What aiohttp's parser makes of octets that come in one piece."""

    def __init__(self, data: bytes) -> None:
        parser: Any = HttpRequestParser(
            _PROTOCOL, _LOOP, 2**16, max_line_size=_LINE_MAX, max_field_size=_LINE_MAX, auto_decompress=False
        )
        self.messages: list[tuple[RawRequestMessage, StreamReader]]
        self.refused = ""
        self.is_upgraded, self.tail = False, b""
        try:
            self.messages, self.is_upgraded, self.tail = parser.feed_data(data)
        except HttpProcessingError as exc:
            self.messages, self.refused = [], repr(exc)

    def body(self, number: int) -> bytes | None:
        """The body of a message; None if it is not whole."""
        stream: Any = self.messages[number][1]
        if not stream.is_eof():
            return None
        # A message without a body shares an empty stream with all such.
        return b"" if isinstance(stream, EmptyStreamReader) else b"".join(stream._buffer)


def one_input(data: bytes) -> None:
    """Look at a message as a lane does."""
    data = _message(data)
    found = recognise(data, HEAD_MAX, BODY_MAX)
    if isinstance(found, Plain):
        _check_plain(data, found)
        cut = sum(data[:64]) % len(data)
        part = recognise(data[:cut], HEAD_MAX, BODY_MAX)
        assert isinstance(part, Partial), (cut, part)
    elif isinstance(found, Partial):
        _check_part(data, found)


def _check_plain(data: bytes, plain: Plain) -> None:
    # After a last message aiohttp takes nothing more, not even to throw it away.
    heard = _Heard(data + _NEXT if plain.keep_alive else data)
    assert not heard.refused, heard.refused
    assert not heard.is_upgraded
    assert heard.tail == b""
    message = heard.messages[0][0]
    names = [name.lower() for name in message.headers]
    assert not _MEANINGFUL.intersection(names), names
    assert names.count("content-length") <= 1
    assert names.count("host") <= 1
    assert not message.upgrade
    assert not message.chunked
    assert message.compression is None
    assert heard.body(0) == plain.body
    if plain.path is None:
        assert (message.method, message.path.rstrip("/")) == ("POST", "/ocsp")
    else:
        assert (message.method, message.path.encode()) == ("GET", b"/ocsp/" + plain.path)
        assert plain.body == b""
    version = tuple(message.version)
    assert version in ((1, 0), (1, 1))
    # HTTP/1.0 is never kept; otherwise both say the same.
    assert plain.keep_alive is (version == (1, 1) and not message.should_close)
    if plain.keep_alive:
        assert len(heard.messages) == 2, heard.messages
        assert (heard.messages[1][0].method, heard.messages[1][0].path) == ("GET", "/next")


def _check_part(data: bytes, part: Partial) -> None:
    heard = _Heard(data)
    if part is Partial.HEAD:
        # A head that aiohttp finds wrong before its end waits here for that end, and no longer than it may.
        # So does a request of HTTP/0.9, for which a bare line feed is enough to aiohttp.
        assert all(message.version < (1, 0) for message, _ in heard.messages), heard.messages
        assert b"\r\n\r\n" not in data
        assert len(data) < HEAD_MAX
    else:
        assert not heard.refused, heard.refused
        assert len(heard.messages) == 1
        assert heard.body(0) is None
