"""TLS below the lane: the lane's transport, and the protocol of the socket's transport.

::

    socket ─▶ data_received ─▶ incoming ─▶ SSLObject.read  ─▶ Lane.data_received
    socket ◀─ write          ◀─ outgoing  ◀─ SSLObject.write ◀─ Lane's answer

All connections of a worker share one pair of BIOs.  What has arrived is read to its end before anything
else is done, and what is to leave is taken out at once, so that neither holds a thing between two calls:
``_take`` and ``write`` see to it also where something fails, for what one connection left behind would
be read by the next.  (OpenSSL keeps the beginning of a record itself, with the connection.)  The event
loop's own TLS has a buffer of 256 KB and two BIOs for each connection, which with a thousand of them are
in no near cache when their turn comes.

Whoever sends much is read a little at a time, and whoever sends KeyUpdates without end is left.

A connection counts among the lanes' from the moment it is accepted, and its handshake has a head's time from
then on.
Knows: handshake, records, the end of TLS.  Does not know: what is said.
Source: RFC 8446 §6.1 (closure alerts); Python's documentation of ``ssl``, "Memory BIO Support".
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Iterable
from typing import Any

from responder.lane import Lane, Lanes

# Holds a usual request whole; a record has up to four times as much.
_PIECE = 4096
# So many octets of one connection are deciphered in a turn of the loop.  The dearest are KeyUpdates that ask
# for one in return, 27 octets and 19 µs each: 3 ms (256 KB, which the loop reads at once: 180).
_TURN = 4096
# A record is complete by then; who goes on without a word of plaintext only keeps us busy.
_EMPTY_MAX = 17_000
# What OpenSSL may say of its own accord while the connection lasts: 150 KeyUpdates.
_OWN_MAX = 4096


class TlsLanes:
    """Makes the connections of a TLS listener; they share *lanes*' limits, deadlines and counts."""

    def __init__(self, lanes: Lanes, context: ssl.SSLContext, loop: asyncio.AbstractEventLoop) -> None:
        self.lanes = lanes
        self.context = context
        self.loop = loop
        # Empty whenever no connection is at work.
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()

    def __call__(self) -> TlsConnection:
        """Return the protocol of a new connection."""
        return TlsConnection(self)


class TlsConnection(asyncio.Transport, asyncio.Protocol):
    """One connection: as much of a transport as the lane and aiohttp use.

    ``deadline_s`` is that of the handshake, after which the lane has its own.
    """

    __slots__ = (
        "_empty_octets",
        "_host",
        "_incoming",
        "_is_closing",
        "_is_due",
        "_is_paused",
        "_lane",
        "_outgoing",
        "_own_octets",
        "_rest",
        "_socket",
        "_tls",
        "deadline_s",
    )

    def __init__(self, host: TlsLanes) -> None:
        super().__init__()
        self.deadline_s = 0.0
        self._host = host
        self._incoming = host.incoming
        self._outgoing = host.outgoing
        self._socket: Any = None
        # Set once the handshake is complete.
        self._lane: Lane | None = None
        self._tls: Any = None
        self._is_closing = False
        # What came and is not deciphered yet; whether the loop will call for it; whether the lane has paused.
        self._rest: bytes | memoryview = b""
        self._is_due = False
        self._is_paused = False
        # Octets deciphered since there was plaintext in them, and octets of OpenSSL's own words.
        self._empty_octets = 0
        self._own_octets = 0

    # --- the socket's calls --------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._socket = transport
        host, lanes = self._host, self._host.lanes
        if not lanes.admit(self):
            self.abort()
            return
        self.deadline_s = lanes.monotonic_s() + lanes.limits.header_time_s
        self._tls = host.context.wrap_bio(host.incoming, host.outgoing, server_side=True)

    def data_received(self, data: bytes) -> None:
        if self._is_closing:
            return
        if len(data) > _TURN:
            # The socket's transport has been asked for no more by the time it looks again.
            self._rest = memoryview(data)[_TURN:]
            self._socket.pause_reading()
            self._go_on_soon()
            data = data[:_TURN]
        self._take(data)

    def _go_on_soon(self) -> None:
        if not self._is_due:
            self._is_due = True
            self._host.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        """Take some of what came in a turn before, unless the lane wants no more for now."""
        self._is_due = False
        rest = self._rest
        if self._is_closing or self._is_paused or not rest:
            return
        self._rest = rest[_TURN:]
        self._take(rest[:_TURN])
        if self._rest:
            self._go_on_soon()
        elif not self._is_paused and not self._is_closing:
            self._socket.resume_reading()

    def _take(self, data: bytes | memoryview) -> None:
        """Have a few octets deciphered, and give the lane what they say."""
        incoming, outgoing = self._incoming, self._outgoing
        is_open = self._lane is not None
        plaintext, is_over = b"", False
        try:
            incoming.write(data)
            if not is_open:
                self._tls.do_handshake()
                self._open()
            piece = plaintext = self._tls.read(_PIECE)
            # A full piece may leave the rest of its record inside OpenSSL, where ``pending`` does not see it.
            while incoming.pending or len(piece) == _PIECE:
                piece = self._tls.read(_PIECE)
                plaintext += piece
                if not piece:
                    break
            is_over = not piece
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            # OpenSSL's word for it, an alert, is in ``outgoing``; what came before it is not answered.
            plaintext, is_over, self._is_closing = b"", True, True
        finally:
            try:
                if outgoing.pending:
                    if is_open:
                        self._own_octets += outgoing.pending
                    self._send()
            finally:
                if incoming.pending:
                    incoming.read()
        if plaintext:
            self._empty_octets = 0
            if self._lane is not None:
                self._lane.data_received(plaintext)
        elif is_open:
            self._empty_octets += len(data)
        if is_over or self._empty_octets > _EMPTY_MAX or self._own_octets > _OWN_MAX:
            self._end()

    def eof_received(self) -> bool:
        """The socket's other end is closed, with or without the words for it."""
        self._end()
        # Closed by now, once everything written has gone out.
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_closing = True
        self._rest = b""
        lane, self._lane = self._lane, None
        if lane is None:
            self._host.lanes.connections.discard(self)
        else:
            lane.connection_lost(exc)

    def pause_writing(self) -> None:
        if self._lane is not None:
            self._lane.pause_writing()

    def resume_writing(self) -> None:
        if self._lane is not None:
            self._lane.resume_writing()

    # --- the lane's calls ----------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._is_closing:
            return
        try:
            sent = self._tls.write(data)
            # A record at a time.
            while sent < len(data):
                sent += self._tls.write(memoryview(data)[sent:])
        except ssl.SSLError:
            self.abort()
        except BaseException:
            self.abort()
            raise
        finally:
            # Half an answer must not become the beginning of another connection's.
            self._socket.write(self._outgoing.read())

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    def close(self) -> None:
        """Say that nothing follows, and close once that has gone out; the other's word is not waited for."""
        if self._is_closing:
            return
        self._is_closing = True
        if self._lane is not None:
            with contextlib.suppress(ssl.SSLError):
                self._tls.unwrap()
            self._send()
        self._socket.close()

    def abort(self) -> None:
        self._is_closing = True
        self._socket.abort()

    def is_closing(self) -> bool:
        return self._is_closing or bool(self._socket.is_closing())

    def get_write_buffer_size(self) -> int:
        """Return how many octets of records the socket's transport still keeps."""
        return int(self._socket.get_write_buffer_size())

    def pause_reading(self) -> None:
        self._is_paused = True
        self._socket.pause_reading()

    def resume_reading(self) -> None:
        if self._is_paused:
            self._is_paused = False
            if self._rest:
                self._go_on_soon()
            else:
                self._socket.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: ANN401
        # The lane asks for "ssl_object" (no half-closed connections), aiohttp for "sslcontext" (the scheme of
        # its requests); all else is the socket's.
        if name == "ssl_object":
            return self._tls
        if name == "sslcontext":
            return self._host.context
        return self._socket.get_extra_info(name, default)

    # --- the lanes' calls, before there is a lane ----------------------------------------------------

    def expire(self, _now_s: float) -> None:
        """The handshake took too long."""
        self._host.lanes.timed_out += 1
        self.abort()

    def stop(self) -> None:
        """Nothing was asked yet."""
        self.abort()

    # --- steps ---------------------------------------------------------------------------------------

    def _open(self) -> None:
        """The handshake is complete: from here on the lane is what counts among the connections."""
        lanes = self._host.lanes
        lanes.connections.discard(self)
        self._lane = lane = lanes()
        lane.connection_made(self)

    def _end(self) -> None:
        """The other side sends no more: what it has asked is answered now or never."""
        if self._lane is not None and not self._is_closing:
            self._lane.eof_received()
        self.close()
        if not self._socket.is_closing():
            self._socket.close()

    def _send(self) -> None:
        self._socket.write(self._outgoing.read())
