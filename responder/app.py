"""The full web server's side: everything that is not plain, by aiohttp, with the same answers.

Knows: routes, methods, conditional requests, bodies in pieces and their limits, and how each
thing that is wrong with a request is said.  OCSP answers are the bytes that the lane would
have written; aiohttp parses requests and keeps their order.
Does not know: deadlines of heads and idle connections, which the lane holds.
Source: RFC 9110 §9, §10.1.1, §13, §15; RFC 6960 A.1; RFC 9919 §6.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from aiohttp import hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import HttpVersion10, HttpVersion11
from aiohttp.http_exceptions import LineTooLong
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler

from certstatus import clock
from certstatus.errors import CertStatusError, MalformedRequest
from responder import wire
from responder.answer import AnswerPath, How
from responder.answers import Answer, Flight
from responder.http_conditions import entity_tags
from responder.lane import Lane, LaneLimits
from responder.plain import decode_path, is_ocsp_request_type

log = logging.getLogger(__name__)

# Takes the request, the path below /crl/, and the address it comes from.
ServeCRL = Callable[[Any, str, str], Awaitable[web.StreamResponse]]
# Takes the request and the path below /ca/.
ServeCA = Callable[[Any, str], web.StreamResponse]

_OCSP_METHODS = b"Allow: GET, HEAD, POST\r\n"
_READ_METHODS = b"Allow: GET, HEAD\r\n"
_ABSOLUTE = re.compile(r"https?://[^/?#]*", re.IGNORECASE)
_BODY_WAIT_S = 1.0
_LINES_MAX = 1000


class WireResponse(web.StreamResponse):
    """An answer whose bytes, head and all, are made already."""

    def __init__(self, answer: bytes, keep_alive: bool) -> None:
        super().__init__()
        self._answer = answer
        self._stays = keep_alive

    @property
    def keep_alive(self) -> bool:
        """Whether the connection stays open after it."""
        return self._stays

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Write it, and wait while the client does not read: the next request is not looked at meanwhile."""
        writer = request.writer
        await writer.write(self._answer)
        await writer.drain()
        return writer

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing follows."""


class DelegateHandler(RequestHandler):
    """aiohttp's side of one connection of a lane."""

    __slots__ = ("begun", "body", "lane", "says_upgrade")

    lane: Lane
    # Of the last request whose head has arrived, taken up by aiohttp or not, until it is answered.
    body: StreamReader | None
    # Whether a request may have asked for an upgrade.
    says_upgrade: bool
    # Requests that the application has begun to answer.
    begun: int

    def data_received(self, data: bytes) -> None:
        """Take what has come; a body that turns out to be in error ends at once."""
        self.says_upgrade = self.says_upgrade or b"upgrade" in data.lower()
        if self.says_upgrade:
            # aiohttp's parser stops behind an upgrade, also one it declines, and forgets what is left of
            # the piece; so nothing is left of it.
            *lines, rest = data.split(b"\n", _LINES_MAX)
            for line in lines:
                super().data_received(line + b"\n")
            super().data_received(rest)
        else:
            super().data_received(data)
        for message, its_body in self._messages:
            if isinstance(message, RawRequestMessage):
                self.body = its_body
            else:
                # It may never be answered, and its frames hold this connection.
                _forget_frames(message.exc)
        is_in_error = bool(self._messages) and not isinstance(self._messages[-1][0], RawRequestMessage)
        body = self.body
        if is_in_error and body is not None and not body.is_eof() and body.exception() is None:
            # What is in error is the rest of a body that is still awaited, and its reader is not told.
            body.set_exception(web.RequestPayloadError("not in order"))

    def connection_lost(self, exc: BaseException | None) -> None:
        """Let go of the body, which holds this connection."""
        self.body = None
        super().connection_lost(exc)

    def is_busy(self) -> bool:
        """Whether a request waits or is being answered; true also after the last one."""
        # Before the first message aiohttp's task may not have begun to wait for one.
        return bool(self._messages) or (self._waiter is None and self._request_count > 0)

    def heads(self) -> int:
        """How many heads have arrived whole."""
        return self._request_count

    def awaits_head(self) -> bool:
        """Whether the next octet certainly begins or continues a head, all bodies being complete."""
        if self._messages:
            return self._messages[-1][1].is_eof()
        if self._current_request is not None:
            return self._current_request.content.is_eof()
        # Between two turns of the loop a request may be neither waiting nor begun; then it is not certain.
        return self.begun == self._request_count

    def finish(self) -> bool:
        """The client sends no more: say whether it is still to be answered, and close after that."""
        if not self.is_busy():
            return False
        if not self.awaits_head() and self.begun == self._request_count:
            # The rest of a body will never come.
            return False
        if not self._messages or self._request_count == 1:
            # aiohttp ends after the request at hand.  With more of them, the lane's sweep closes.
            self.close()
        return True

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - what the parser found is not told
    ) -> web.StreamResponse:
        """Say what is wrong in a word, close, and tell the log alone where we are to blame."""
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            log.error("answering %s", request.method, exc_info=exc)
        if exc is not None:
            _forget_frames(exc)
        if isinstance(exc, LineTooLong):
            status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        if request.writer.output_size > 0:
            raise ConnectionError("an answer was begun and cannot be finished")
        answer = wire.plain_answer(HTTPStatus(status), clock.now_s(), close=True)
        return WireResponse(answer, keep_alive=False)


class DelegateRequest(web.BaseRequest):
    """A request whose answers do not say which software made them."""

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        response.headers.popall(hdrs.SERVER, None)


class DelegateServer(web.Server):
    """Makes the handlers that lanes delegate to."""

    def for_lane(self, lane: Lane) -> DelegateHandler:
        """Return the handler for *lane*'s connection."""
        made = DelegateHandler(self, loop=self._loop, **self._kwargs)
        made.lane = lane
        made.begun = 0
        made.body = None
        made.says_upgrade = False
        return made


class Application:
    """Routes a request and answers it; one for all connections of a worker."""

    def __init__(
        self,
        path: AnswerPath,
        limits: LaneLimits,
        is_ready: Callable[[], bool],
        serve_crl: ServeCRL,
        serve_ca: ServeCA,
        now_ms: Callable[[], int] = clock.now_ms,
        monotonic_s: Callable[[], float] = clock.monotonic_s,
    ) -> None:
        self._path = path
        self.limits = limits
        self._is_ready = is_ready
        self._serve_crl = serve_crl
        self._serve_ca = serve_ca
        self._now_ms = now_ms
        self._monotonic_s = monotonic_s
        self.is_stopping = False

    def make_server(self, loop: asyncio.AbstractEventLoop) -> DelegateServer:
        """Return the server that feeds requests to this application."""
        bound = self.limits.header_bytes_max
        return DelegateServer(
            self.handle,
            loop=loop,
            request_factory=lambda message, payload, protocol, writer, task: DelegateRequest(
                message, payload, protocol, writer, task, loop
            ),
            access_log=None,
            # A compressed body could be a thousand times its size; we take none.
            auto_decompress=False,
            max_line_size=bound,
            max_field_size=bound,
            lingering_time=_BODY_WAIT_S,
        )

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        delegate = request.protocol
        assert isinstance(delegate, DelegateHandler)
        lane = delegate.lane
        delegate.begun += 1
        lane.request_begins()
        try:
            return await self._route(request, lane)
        finally:
            if delegate.body is request.content:
                # Nobody reads it any more; what is wrong in its rest would be aiohttp's to complain of.
                delegate.body = None
            lane.request_ends()

    async def _route(self, request: web.BaseRequest, lane: Lane) -> web.StreamResponse:
        if request.version not in (HttpVersion10, HttpVersion11):
            # The parser takes a request line without a version for HTTP/0.9, whose answers have no head.
            return self._say(request, HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, close=True)
        coding = request.headers.get(hdrs.TRANSFER_ENCODING)
        if coding is not None and coding.strip().lower() != "chunked":
            # The body is something else packed up, which we do not unpack (RFC 9112 §6.1).
            return self._say(request, HTTPStatus.NOT_IMPLEMENTED, close=True)
        target = request.raw_path
        if not target.startswith("/"):
            # Absolute form (RFC 9112 §3.2.2); whom it names does not matter here.
            target = _ABSOLUTE.sub("", target, count=1) or "/"
        path = target.partition("?")[0]
        if path == "/ocsp" or path.startswith("/ocsp/"):
            return await self._ocsp(request, lane, path.removeprefix("/ocsp").removeprefix("/"))
        if path.startswith("/crl/"):
            if request.method not in (hdrs.METH_GET, hdrs.METH_HEAD):
                return self._say(request, HTTPStatus.METHOD_NOT_ALLOWED, _READ_METHODS)
            return await self._serve_crl(request, path.removeprefix("/crl/"), lane.address)
        if path.startswith("/ca/"):
            if request.method not in (hdrs.METH_GET, hdrs.METH_HEAD):
                return self._say(request, HTTPStatus.METHOD_NOT_ALLOWED, _READ_METHODS)
            return self._serve_ca(request, path.removeprefix("/ca/"))
        if path in ("/healthz", "/readyz"):
            if request.method not in (hdrs.METH_GET, hdrs.METH_HEAD):
                return self._say(request, HTTPStatus.METHOD_NOT_ALLOWED, _READ_METHODS)
            good = path == "/healthz" or self._is_ready()
            return self._say(request, HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE)
        return self._say(request, HTTPStatus.NOT_FOUND)

    # --- OCSP ----------------------------------------------------------------------------------------

    async def _ocsp(self, request: web.BaseRequest, lane: Lane, rest: str) -> web.StreamResponse:
        headers = request.headers
        method = request.method
        expect = headers.get(hdrs.EXPECT)
        if expect is not None and expect.lower() != "100-continue":
            return self._say(request, HTTPStatus.EXPECTATION_FAILED)
        if method in (hdrs.METH_GET, hdrs.METH_HEAD):
            if not rest:
                return self._say(request, HTTPStatus.BAD_REQUEST)
            how = self._how(request)
            try:
                request_der = decode_path(rest.encode("utf-8", "surrogateescape"))
            except MalformedRequest as exc:
                return WireResponse(self._path.refuse(lane, exc, how, self._now_ms() // 1000), how.keep_alive)
            return await self._answer(lane, request_der, how)
        if method != hdrs.METH_POST:
            return self._say(request, HTTPStatus.METHOD_NOT_ALLOWED, _OCSP_METHODS)
        if rest:
            return self._say(request, HTTPStatus.NOT_FOUND)
        if headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
            return self._say(request, HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
        content_type = headers.get(hdrs.CONTENT_TYPE)
        if content_type is not None and not is_ocsp_request_type(content_type.encode("utf-8", "replace")):
            return self._say(request, HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
        length = request.content_length
        if length is None and hdrs.TRANSFER_ENCODING not in headers:
            return self._say(request, HTTPStatus.LENGTH_REQUIRED)
        if length is not None and length > self.limits.request_bytes_max:
            # Said before a byte of it is read.
            return self._say(request, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, close=True)
        if expect is not None and request.version >= HttpVersion11:
            await request.writer.write(wire.CONTINUE)
            # Not the beginning of the answer.
            request.writer.output_size = 0
        try:
            async with asyncio.timeout(self.limits.body_time_s):
                body = await self._read_body(request)
        except TimeoutError:
            return self._say(request, HTTPStatus.REQUEST_TIMEOUT, close=True)
        except (web.RequestPayloadError, ConnectionError) as exc:
            # Its chunks are in error, or it went away; then nobody reads this.
            _forget_frames(exc)
            # Or aiohttp would wait for the rest, and complain that there is none.
            request.content.feed_eof()
            return self._say(request, HTTPStatus.BAD_REQUEST, close=True)
        if body is None:
            return self._say(request, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, close=True)
        return await self._answer(lane, body, self._how(request))

    async def _read_body(self, request: web.BaseRequest) -> bytes | None:
        """Return the body, None as soon as it is too long."""
        body = b""
        async for piece in request.content.iter_any():
            body += piece
            if len(body) > self.limits.request_bytes_max:
                return None
        return body

    async def _answer(self, lane: Lane, request_der: bytes, how: How) -> web.StreamResponse:
        reply: bytes | Flight | None = None
        while reply is None or isinstance(reply, Flight):
            if reply is None:
                reply = self._path.answer(lane, request_der, how, self._now_ms(), self._monotonic_s())
            else:
                result = await _landing(reply)
                reply = self._path.provide(lane, result, how, self._now_ms(), self._monotonic_s())
        return WireResponse(reply, how.keep_alive)

    def _how(self, request: web.BaseRequest) -> How:
        keep_alive = self._stays(request)
        if request.method == hdrs.METH_POST:
            return How(keep_alive)
        head_only = request.method == hdrs.METH_HEAD
        if_none_match = request.headers.getall(hdrs.IF_NONE_MATCH, None)
        # If-Modified-Since is passed over: within its one second a status may have changed.
        return How(
            keep_alive, head_only, if_none_match=None if if_none_match is None else _etags(if_none_match)
        )

    def _stays(self, request: web.BaseRequest) -> bool:
        """Say whether the connection stays open; HTTP/1.0 never does, as in the lane."""
        return request.keep_alive and request.version >= HttpVersion11 and not self.is_stopping

    # --- everything else -----------------------------------------------------------------------------

    def _say(
        self, request: web.BaseRequest, status: HTTPStatus, headers: bytes = b"", *, close: bool = False
    ) -> web.StreamResponse:
        close = close or not self._stays(request)
        answer = wire.plain_answer(
            status,
            self._now_ms() // 1000,
            headers,
            body=request.method != hdrs.METH_HEAD,
            close=close,
        )
        return WireResponse(answer, keep_alive=not close)


def _forget_frames(exc: BaseException) -> None:
    """Cut an error that aiohttp keeps loose from the frames it passed: they keep it, and make a cycle."""
    left: BaseException | None = exc
    while left is not None:
        left.__traceback__ = None
        left = left.__cause__ or left.__context__


async def _landing(flight: Flight) -> Answer | CertStatusError:
    landed: asyncio.Future[Answer | CertStatusError] = asyncio.get_running_loop().create_future()

    def deliver(result: Answer | CertStatusError) -> None:
        # The connection may be lost while its answer is on the way.
        if not landed.done():
            landed.set_result(result)

    flight.add(deliver)
    return await landed


def _etags(fields: list[str]) -> frozenset[bytes]:
    """Return the tags of If-None-Match without their quotes, ``*`` as itself (RFC 9110 §13.1.2)."""
    # The answer path tells ``*`` from tags by its look, and no answer of ours has ``"*"`` for its tag.
    tags = (tag for _is_weak, tag in entity_tags(",".join(fields)) if tag != "*")
    return frozenset(b"*" if tag is None else tag.encode("utf-8", "replace") for tag in tags)
