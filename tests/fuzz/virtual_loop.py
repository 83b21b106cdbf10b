"""An event loop whose time stands still until it is told to pass, and connections without sockets.

Real code runs on it unchanged; only the network and the clock are replaced, so that thousands of
conversations a second can be held, each the same whenever it is repeated.
Does not know: threads, sockets; whoever needs them waits for ever.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from typing import Any

_FOREVER: list[tuple[selectors.SelectorKey, int]] = []


class _Quiet(selectors.SelectSelector):
    """Never waits: where the loop would, it is done for now."""

    def __init__(self) -> None:
        super().__init__()
        self.when_quiet: Callable[[], None] = lambda: None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout > 0:
            self.when_quiet()
        return _FOREVER


class VirtualLoop(asyncio.SelectorEventLoop):
    """The loop.  ``now_s``: its time, which only ``pass_s`` moves."""

    def __init__(self) -> None:
        selector = _Quiet()
        super().__init__(selector)
        selector.when_quiet = self.stop
        self.now_s = 1000.0
        # The oracles see what went wrong in a task.
        self.complaints: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _loop, context: self.complaints.append(context))

    def time(self) -> float:
        """The time that timers go by."""
        return self.now_s

    def settle(self) -> None:
        """Run everything that can run now."""
        self.run_forever()

    def pass_s(self, seconds: float) -> None:
        """Let time pass and run what has become due."""
        self.now_s += seconds
        self.settle()


class MemoryTransport(asyncio.Transport):
    """A connection as its protocol sees it: ``feed`` and ``end`` are the client's side.

    written      what was written to it
    is_closed    whether it is lost to its protocol
    """

    def __init__(self, loop: VirtualLoop, protocol: Any, unread_max: int | None) -> None:
        super().__init__()
        self.written = bytearray()
        self.is_closed = False
        self._loop = loop
        self._protocol = protocol
        # So much lies unread before the protocol is told to pause; None: the client reads at once.
        self._unread_max = unread_max
        self._unread = 0
        self._is_full = False
        self._is_closing = False
        self._is_paused = False
        self._waiting = b""
        self._ended = False

    # --- the client's side ---------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Send *data*; it waits while the protocol does not read."""
        self._waiting += data
        self._deliver()

    def end(self) -> None:
        """Send no more."""
        self._ended = True
        self._deliver()

    def read(self) -> None:
        """Take what was written so far."""
        self._unread = 0
        if self._is_full:
            self._is_full = False
            if not self.is_closed:
                self._protocol.resume_writing()

    def _deliver(self) -> None:
        if self._is_closing or self._is_paused:
            return
        data, self._waiting = self._waiting, b""
        if data:
            self._protocol.data_received(data)
        if self._ended and not self._is_closing and not self._is_paused:
            self._ended = False
            if not self._protocol.eof_received():
                self.close()

    # --- the protocol's side -------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keep *data*; nothing once closed."""
        if self._is_closing:
            return
        self.written += data
        self._unread += len(data)
        if self._unread_max is not None and self._unread > self._unread_max and not self._is_full:
            self._is_full = True
            self._protocol.pause_writing()

    def writelines(self, list_of_data: Any) -> None:
        """Keep all of it."""
        self.write(b"".join(list_of_data))

    def is_closing(self) -> bool:
        """Whether it is closed or about to be."""
        return self._is_closing

    def close(self) -> None:
        """Close; the client has taken all that was written, or takes it yet."""
        if not self._is_closing:
            self._is_closing = True
            self._loop.call_soon(self._lose)

    abort = close

    def _lose(self) -> None:
        self.is_closed = True
        self._protocol.connection_lost(None)

    def pause_reading(self) -> None:
        """Deliver nothing."""
        self._is_paused = True

    def resume_reading(self) -> None:
        """Deliver again, from the loop."""
        if self._is_paused:
            self._is_paused = False
            self._loop.call_soon(self._deliver)

    def is_reading(self) -> bool:
        """Whether anything is delivered."""
        return not (self._is_paused or self._is_closing)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """The peer's address, and nothing else."""
        return ("127.0.0.1", 1) if name == "peername" else default

    def get_write_buffer_size(self) -> int:
        """What lies unread."""
        return self._unread if self._is_full else 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Stays as it is."""

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Speak to another protocol from now on."""
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Whom it speaks to."""
        return self._protocol  # type: ignore[no-any-return]
