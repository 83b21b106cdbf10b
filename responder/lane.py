"""The fast lane: what a worker accepts connections with, in front of the full web server.

::

                 ┌─ seen byte for byte ──▶ AnswerPath.repeat ──▶ write
    data ──▶ idle┼─ plain ──────────────▶ AnswerPath.answer ──▶ write, or wait for a flight
                 ├─ part of a plain one ─▶ kept, within bounds, until it is whole
                 └─ anything else ───────▶ a delegate (aiohttp), for the rest of the connection

A message goes to the delegate whole, before anything was answered from it.  The lane stays
the transport's protocol and forwards data, end, loss and flow control (handing the transport
over loses the last: tried, 64 MB buffered), so that one place holds deadlines and counts for
a connection's whole life; the delegate has no time limit on a head of its own.  On the TLS listener the
transport is a ``tls.TlsConnection``.
Knows: connections, deadlines, bounds.  Does not know: what is answered.
Source: RFC 9112 §9 (connections); RFC 9110 §15.5.9 (408), §15.5.15 (414); RFC 6585 §5 (431).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, NamedTuple, Protocol

from certstatus import clock
from certstatus.errors import CertStatusError, MalformedRequest
from responder import wire
from responder.answer import AnswerPath, How
from responder.answers import Answer, Flight
from responder.asker import Asker
from responder.plain import Partial, Plain, decode_path, recognise

SWEEP_S = 1.0
_NEVER_S = float("inf")
_HEAD_END = b"\r\n\r\n"
# struct linger: on, for no time (socket(7)).
_RESET_AT_CLOSE = struct.pack("ii", 1, 0)


class Delegate(Protocol):
    """What the lane needs of the full web server's side of a connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None: ...
    def connection_lost(self, exc: BaseException | None) -> None: ...
    def data_received(self, data: bytes) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...
    def close(self) -> None: ...
    def is_busy(self) -> bool:
        """Whether a request that has arrived whole in its head is not yet answered to the end."""

    def awaits_head(self) -> bool:
        """Whether the next octet certainly begins or continues a head, all bodies being complete."""

    def heads(self) -> int:
        """How many heads have arrived whole."""

    def finish(self) -> bool:
        """The client sends no more: say whether it is still to be answered, and close after that."""


class Connection(Protocol):
    """What ends when its time is over: a lane, or what is going to be one (``tls``)."""

    deadline_s: float

    def expire(self, now_s: float) -> None:
        """The deadline has passed."""

    def stop(self) -> None:
        """Close if nothing is asked; else answer first."""

    def abort(self) -> None:
        """End at once."""


class LaneLimits(NamedTuple):
    """``[responder]`` of the configuration, as far as it concerns connections."""

    request_bytes_max: int
    header_bytes_max: int
    connections_max: int
    header_time_s: int
    body_time_s: int
    idle_time_s: int
    write_time_s: int


class _Doing:
    """What a connection is at; decides what its deadline means.

    No Enum: looking up a member takes 0.1 µs in Python 3.11, several times a request.
    """

    IDLE = "idle"
    READING_HEAD = "head"
    READING_BODY = "body"
    SIGNING = "signing"
    WRITING = "writing"
    DELEGATED = "delegated"
    CLOSING = "closing"


class Lanes:
    """All connections of a worker, on all its listeners."""

    def __init__(
        self,
        path: AnswerPath,
        limits: LaneLimits,
        make_delegate: Callable[[Lane], Delegate],
        now_ms: Callable[[], int] = clock.now_ms,
        monotonic_s: Callable[[], float] = clock.monotonic_s,
        woken: Callable[[], None] = lambda: None,
    ) -> None:
        """Takes: *woken*: called when there is a connection where there was none."""
        self.path = path
        self.limits = limits
        self.make_delegate = make_delegate
        self.now_ms = now_ms
        self.monotonic_s = monotonic_s
        self._woken = woken
        self.connections: set[Connection] = set()
        self.is_stopping = False
        # Counters.
        self.accepted = 0
        self.refused = 0
        self.timed_out = 0
        self.delegated = 0

    def __call__(self) -> Lane:
        """Return the protocol of a new connection."""
        return Lane(self)

    def admit(self, connection: Connection) -> bool:
        """Count a new connection; False if there are too many, or the worker is about to end."""
        if len(self.connections) >= self.limits.connections_max or self.is_stopping:
            self.refused += 1
            return False
        is_first = not self.connections
        self.connections.add(connection)
        if is_first:
            self._woken()
        return True

    def sweep(self) -> None:
        """End what has passed its deadline; called once a second.  Cost: 0.1 µs a connection."""
        now_s = self.monotonic_s()
        for connection in [item for item in self.connections if item.deadline_s <= now_s]:
            connection.expire(now_s)

    def stop(self) -> None:
        """Close what is idle, and everything else as soon as it is answered."""
        self.is_stopping = True
        for connection in list(self.connections):
            connection.stop()


class Lane(asyncio.Protocol):
    """One connection.  ``address``, ``asker`` and ``is_last`` are the answer path's."""

    __slots__ = (
        "_buffer",
        "_delegate",
        "_doing",
        "_half_closed",
        "_head_bytes",
        "_head_tail",
        "_host",
        "_how",
        "_is_handled",
        "_is_idle",
        "_path",
        "_request_der",
        "_transport",
        "_write_paused",
        "address",
        "asker",
        "deadline_s",
        "is_last",
    )

    def __init__(self, host: Lanes) -> None:
        self.address = ""
        self.asker: Asker | None = None
        self.is_last = False
        self.deadline_s = _NEVER_S
        self._host = host
        self._path = host.path
        self._transport: Any = None
        self._doing = _Doing.IDLE
        # The one thing asked of a connection on which a request is expected; false in every other case.
        self._is_idle = True
        self._buffer = b""
        self._head_bytes = 0
        # Its last octets, in which its end may have begun.
        self._head_tail = b""
        self._delegate: Delegate | None = None
        self._is_handled = False
        self._how: How | None = None
        self._request_der = b""
        self._write_paused = False
        self._half_closed = False

    # --- the transport's calls -----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        host = self._host
        self._transport = transport
        if not host.admit(self):
            self._is_idle = False
            self._doing = _Doing.CLOSING
            self._transport.abort()
            return
        peer = transport.get_extra_info("peername")
        self.address = str(peer[0]) if isinstance(peer, tuple) else ""
        host.accepted += 1
        self.deadline_s = host.monotonic_s() + host.limits.header_time_s

    def data_received(self, data: bytes) -> None:
        if self._is_idle:
            host = self._host
            now_ms, monotonic_s = host.now_ms(), host.monotonic_s()
            answer = self._path.repeat(self, data, now_ms, monotonic_s)
            if answer is not None:
                self.deadline_s = monotonic_s + host.limits.idle_time_s
                self._transport.write(answer)
                if self.is_last:
                    self._close(monotonic_s)
                return
            self._begin(data, now_ms, monotonic_s)
        elif self._delegate is not None:
            self._forward(data)
        elif self._doing != _Doing.CLOSING:
            self._go_on(data)

    def eof_received(self) -> bool:
        self._half_closed = True
        if self._transport.get_extra_info("ssl_object") is not None:
            # ``tls`` closes after this call, whatever is returned: what was asked is answered now or, where a
            # slow key has to sign or the delegate is still at it, not at all.
            if self._doing == _Doing.SIGNING:
                self._path.hurry()
            return False
        # True keeps our side open: whoever has asked may stop sending and still be answered.
        if self._delegate is not None:
            return self._delegate.finish()
        return self._doing in (_Doing.SIGNING, _Doing.WRITING)

    def connection_lost(self, exc: Exception | None) -> None:
        self._host.connections.discard(self)
        self._is_idle = False
        self._doing = _Doing.CLOSING
        # A flight may hold this lane until it lands; what was asked need not wait for that.
        self._buffer = self._request_der = b""
        self._how = None
        delegate, self._delegate = self._delegate, None
        if delegate is not None:
            delegate.connection_lost(exc)

    def pause_writing(self) -> None:
        self._write_paused = True
        host = self._host
        until_s = host.monotonic_s() + host.limits.write_time_s
        if self._delegate is not None:
            self.deadline_s = until_s
            self._delegate.pause_writing()
        elif self._doing != _Doing.CLOSING:
            # Whoever does not read what we say is not asked for more.
            self._is_idle = False
            if self._doing == _Doing.IDLE:
                self._doing = _Doing.WRITING
                self.deadline_s = until_s
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._write_paused = False
        host = self._host
        monotonic_s = host.monotonic_s()
        if self._delegate is not None:
            self.deadline_s = monotonic_s + host.limits.idle_time_s
            self._delegate.resume_writing()
        elif self._doing == _Doing.WRITING:
            self._transport.resume_reading()
            self._answered(monotonic_s)
        elif self._doing != _Doing.CLOSING:
            # TLS has words of its own that can fill a buffer amid a message; its time goes on all the same.
            self._transport.resume_reading()

    # --- a message -----------------------------------------------------------------------------------

    def _begin(self, buffer: bytes, now_ms: int, monotonic_s: float) -> None:
        """Look at *buffer*, all that was received since the last answer."""
        limits = self._host.limits
        found = recognise(buffer, limits.header_bytes_max, limits.request_bytes_max)
        if isinstance(found, Plain):
            self._buffer = b""
            self._answer(found, buffer, now_ms, monotonic_s)
        elif found is None:
            self._buffer = b""
            self._give_away(buffer, monotonic_s)
        else:
            self._is_idle = False
            self._buffer = buffer
            reading = _Doing.READING_HEAD if found is Partial.HEAD else _Doing.READING_BODY
            if reading != self._doing:
                # From the first octet of a head or body on; later octets gain no time.
                time_s = limits.header_time_s if found is Partial.HEAD else limits.body_time_s
                self._doing = reading
                self.deadline_s = monotonic_s + time_s

    def _go_on(self, data: bytes) -> None:
        self._buffer += data
        if self._doing in (_Doing.READING_HEAD, _Doing.READING_BODY):
            self._begin(self._buffer, self._host.now_ms(), self._host.monotonic_s())
        elif len(self._buffer) > self._host.limits.header_bytes_max:
            # Sent ahead while an answer is on its way: it can wait where it is.
            self._transport.pause_reading()

    def _answer(self, plain: Plain, message: bytes, now_ms: int, monotonic_s: float) -> None:
        self._how = how = How(plain.keep_alive and not self._host.is_stopping, False, None, message)
        try:
            request_der = plain.body if plain.path is None else decode_path(plain.path)
        except MalformedRequest as exc:
            self._write(self._path.refuse(self, exc, how, now_ms // 1000), monotonic_s)
            return
        reply = self._path.answer(self, request_der, how, now_ms, monotonic_s)
        if isinstance(reply, Flight):
            self._request_der = request_der
            self._wait_for(reply)
        else:
            self._write(reply, monotonic_s)

    def _wait_for(self, flight: Flight) -> None:
        self._is_idle = False
        self._doing = _Doing.SIGNING
        # Bounded by the length of the queue, not by this connection.
        self.deadline_s = _NEVER_S
        flight.add(self._arrived)

    def _arrived(self, result: Answer | CertStatusError) -> None:
        """Take what a flight brought."""
        how = self._how
        if self._doing != _Doing.SIGNING or how is None:
            return
        host = self._host
        now_ms, monotonic_s = host.now_ms(), host.monotonic_s()
        reply: bytes | Flight | None = self._path.provide(self, result, how, now_ms, monotonic_s)
        if reply is None:
            reply = self._path.answer(self, self._request_der, how, now_ms, monotonic_s)
        if isinstance(reply, Flight):
            self._wait_for(reply)
        else:
            self._write(reply, monotonic_s)

    def _write(self, answer: bytes, monotonic_s: float) -> None:
        how, self._how = self._how, None
        self._request_der = b""
        self._doing = _Doing.IDLE
        self._transport.write(answer)
        if how is None or not how.keep_alive or self._half_closed:
            self._close(monotonic_s)
        elif self._write_paused:
            self._doing = _Doing.WRITING
            self.deadline_s = monotonic_s + self._host.limits.write_time_s
        else:
            self._answered(monotonic_s)

    def _answered(self, monotonic_s: float) -> None:
        """Turn to what was sent ahead, or wait for the next request."""
        self._doing = _Doing.IDLE
        self._is_idle = True
        self.deadline_s = monotonic_s + self._host.limits.idle_time_s
        buffer = self._buffer
        if buffer:
            self._buffer = b""
            self._transport.resume_reading()
            self._begin(buffer, self._host.now_ms(), monotonic_s)

    # --- the delegate --------------------------------------------------------------------------------

    def _give_away(self, buffer: bytes, monotonic_s: float) -> None:
        """Hand the connection and everything received of it to the full web server."""
        host = self._host
        self._is_idle = False
        self._doing = _Doing.DELEGATED
        host.delegated += 1
        self.deadline_s = monotonic_s + host.limits.header_time_s
        self._delegate = delegate = host.make_delegate(self)
        delegate.connection_made(self._transport)
        if self._write_paused:
            delegate.pause_writing()
        self._forward(buffer)

    def _forward(self, data: bytes) -> None:
        delegate = self._delegate
        assert delegate is not None
        if not delegate.awaits_head():
            delegate.data_received(data)
            return
        # aiohttp forgets a message that is whole when what follows it in one piece is in error; one whose
        # head it was given by itself it has begun.
        end = None if delegate.is_busy() else self._head_end(data)
        self._forward_head(delegate, data[:end])
        rest = b"" if end is None else data[end:]
        if not rest or self._doing != _Doing.DELEGATED:
            return
        if delegate.awaits_head():
            self._forward_head(delegate, rest)
        else:
            delegate.data_received(rest)

    def _head_end(self, data: bytes) -> int | None:
        """Return where the head ends that *data* begins or continues, None if that is not in it."""
        before = self._head_tail
        at = (before + data).find(_HEAD_END)
        return None if at < 0 else at + len(_HEAD_END) - len(before)

    def _forward_head(self, delegate: Delegate, data: bytes) -> None:
        """Give the delegate the beginning of a message; a head that does not end is ended here."""
        host = self._host
        if self._head_bytes == 0 and not self._is_handled:
            self.deadline_s = host.monotonic_s() + host.limits.header_time_s
        if not delegate.is_busy():
            bytes_max = host.limits.header_bytes_max
            room = bytes_max - self._head_bytes
            if len(data) > room and not -1 < data.find(b"\r\n\r\n") <= room:
                first_line = data.find(b"\r\n") if self._head_bytes == 0 else 0
                self._end_with(
                    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
                    if 0 <= first_line <= bytes_max
                    else HTTPStatus.REQUEST_URI_TOO_LONG
                )
                return
        heads = delegate.heads()
        delegate.data_received(data)
        is_whole = delegate.heads() > heads
        self._head_bytes = 0 if is_whole else self._head_bytes + len(data)
        self._head_tail = b"" if is_whole else (self._head_tail + data)[1 - len(_HEAD_END) :]

    def request_begins(self) -> None:
        """Called by the delegate when a handler starts: it keeps time itself from here on."""
        self._is_handled = True
        if not self._write_paused:
            self.deadline_s = _NEVER_S

    def request_ends(self) -> None:
        """Called by the delegate when a handler has made its answer."""
        self._is_handled = False
        if self._half_closed and self._delegate is not None:
            # This may be the last one.
            self._delegate.finish()
        if not self._write_paused:
            limits = self._host.limits
            time_s = float(limits.header_time_s if self._head_bytes else limits.idle_time_s)
            self.deadline_s = self._host.monotonic_s() + (SWEEP_S if self._half_closed else time_s)

    # --- ending --------------------------------------------------------------------------------------

    def expire(self, now_s: float) -> None:
        """The deadline has passed."""
        doing, host = self._doing, self._host
        if doing == _Doing.CLOSING or self._write_paused or self._transport.is_closing():
            # It had its time to take what was written.
            host.timed_out += 1
            self.abort()
        elif doing in (_Doing.READING_HEAD, _Doing.READING_BODY):
            host.timed_out += 1
            self._end_with(HTTPStatus.REQUEST_TIMEOUT)
        elif self._delegate is not None:
            if self._delegate.is_busy():
                self.deadline_s = now_s + SWEEP_S
            elif self._head_bytes:
                host.timed_out += 1
                self._end_with(HTTPStatus.REQUEST_TIMEOUT)
            else:
                self._close(now_s)
        else:
            self._close(now_s)

    def stop(self) -> None:
        """Close if nothing is asked; else answer first.  For the end of the worker."""
        if self._delegate is not None and self._delegate.is_busy():
            self._delegate.close()
        elif self._how is not None:
            self._how = self._how._replace(keep_alive=False, message=None)
        else:
            self._close(self._host.monotonic_s())

    def abort(self) -> None:
        """End at once, whatever is still to be written."""
        # Without this the kernel keeps what the client does not take, some megabytes, for minutes more.
        connected = self._transport.get_extra_info("socket")
        if connected is not None:
            with contextlib.suppress(OSError):
                connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
        self._transport.abort()

    def _end_with(self, status: HTTPStatus) -> None:
        """Say *status* and close; nothing of the present message was answered before."""
        self._transport.write(wire.plain_answer(status, self._host.now_ms() // 1000, close=True))
        self._close(self._host.monotonic_s())

    def _close(self, monotonic_s: float) -> None:
        """Close once everything written has gone out, for which there is a time."""
        self._is_idle = False
        self._doing = _Doing.CLOSING
        self.deadline_s = monotonic_s + self._host.limits.write_time_s
        self._transport.close()
