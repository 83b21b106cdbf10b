"""TLS below the lane: the lane's transport, and the protocol of the socket's transport.

::

    socket ─▶ data_received ─▶ incoming ─▶ SSLObject.read  ─▶ Lane.data_received
    socket ◀─ write          ◀─ outgoing  ◀─ SSLObject.write ◀─ Lane's answer

All connections of a worker share one pair of BIOs.  What has arrived is read to its end before anything
else is done, and what is to leave is taken out at once, so that neither holds a thing between two calls:
``data_received`` and ``_send`` see to it whatever happens, for what one connection left behind would be read
by the next.  (OpenSSL keeps the beginning of a record itself, with the connection.)  The event loop's own
TLS has a buffer of 256 KB and two BIOs for each connection, which with a thousand of them are in no
near cache when their turn comes.

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


class TlsLanes:
    """Makes the connections of a TLS listener; they share *lanes*' limits, deadlines and counts."""

    def __init__(self, lanes: Lanes, context: ssl.SSLContext) -> None:
        self.lanes = lanes
        self.context = context
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
        "_host",
        "_incoming",
        "_is_closing",
        "_lane",
        "_outgoing",
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
        incoming = self._incoming
        plaintext, is_over = b"", False
        try:
            incoming.write(data)
            if self._lane is None:
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
            # What OpenSSL has to say of it (an alert) is in ``outgoing``.
            is_over = True
            self._is_closing = True
        finally:
            if incoming.pending:
                incoming.read()
            if self._outgoing.pending:
                self._send()
        if plaintext and self._lane is not None:
            self._lane.data_received(plaintext)
        if is_over:
            self._end()

    def eof_received(self) -> bool:
        """The socket's other end is closed, with or without the words for it."""
        self._end()
        # Closed by now, once everything written has gone out.
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_closing = True
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
            self._send()
            self.abort()
        else:
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
        self._socket.pause_reading()

    def resume_reading(self) -> None:
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
