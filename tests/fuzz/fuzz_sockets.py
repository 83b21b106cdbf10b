"""The conversations of ``fuzz_lane`` over real sockets and the worker's real loop.

Fewer of them, but with all that a kernel and uvloop do to octets: pieces that run together, resets,
answers on their way while the client closes its side, which it always does at the end.
Input and oracles are those of ``fuzz_lane``; as pieces may run together on either side, either may have
lost what aiohttp drops.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from functools import cache

import fuzz_lane
import uvloop
from fuzz_lane import LIMITS, DelegatedLane, Plan, Said, World, is_excused, lines, read_answers, shown

WORDS = fuzz_lane.WORDS
# Long enough for another thread to read what was sent.
_PAUSE_S = 0.0005
_PATIENCE_S = 60.0
# A busy machine must not run into them; only an error in the middle of a body waits for its deadline.
_LIMITS = LIMITS._replace(body_time_s=3)


class _Served:
    """A worker's answering half in a thread, with a port for the lane and one for aiohttp alone."""

    def __init__(self) -> None:
        self.world: World
        self._loop: asyncio.AbstractEventLoop
        self._ended: asyncio.Event
        started: Future[tuple[int, int]] = Future()
        self._thread = threading.Thread(target=lambda: uvloop.run(self._serve(started)), daemon=True)
        self._thread.start()
        self.port, self.slow_port = started.result(10)
        atexit.register(self._end)

    async def _serve(self, started: Future[tuple[int, int]]) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        self.world = world = World(self._loop, _LIMITS, time.monotonic)
        servers = [
            await self._loop.create_server(world.lanes, "127.0.0.1", 0),
            await self._loop.create_server(lambda: DelegatedLane(world.lanes), "127.0.0.1", 0),
        ]
        port, slow_port = (server.sockets[0].getsockname()[1] for server in servers)
        started.set_result((port, slow_port))
        while not self._ended.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), 0.05)
            world.lanes.sweep()
        for server in servers:
            server.close()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(5)


@cache
def _served() -> _Served:
    return _Served()


def seeds() -> Iterator[tuple[str, bytes]]:
    """Those of ``fuzz_lane``."""
    return fuzz_lane.seeds()


def one_input(data: bytes) -> None:
    """Hold the conversation both ways."""
    served = _served()
    plan = fuzz_lane.read_plan(data)
    stream = b"".join(piece for piece, _ in plan.pieces)
    found = _converse(served.port, plan.pieces, plan.is_slow)
    alone = _converse(served.slow_port, lines(stream), is_slow=False)
    if found.answers != alone.answers:
        excused = is_excused(found, alone) or is_excused(alone._replace(waits_for_head=False), found)
        # What comes behind an Upgrade waits unread in aiohttp, and is lost when the client closes its side.
        shorter = min(len(found.answers), len(alone.answers))
        is_begun = found.answers[:shorter] == alone.answers[:shorter]
        excused = excused or (is_begun and b"upgrade" in stream.lower())
        assert excused, f"\n{Plan(plan.pieces, plan.is_slow, True)}\n{shown(found)}\n{shown(alone)}"
    assert served.world.path.outcomes.get("internal_error", 0) == 0


def _converse(port: int, pieces: list[tuple[bytes, bool]], is_slow: bool) -> Said:
    received = b""
    with socket.create_connection(("127.0.0.1", port), _PATIENCE_S) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # It may be closed in our face; what was said before still counts.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for piece, waits in pieces:
                client.sendall(piece)
                if waits and len(pieces) > 1:
                    time.sleep(_PAUSE_S)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            while octets := client.recv(64 if is_slow else 65_536):
                received += octets
    # A head that was not finished when the client closed its side is passed over by the lane.
    return Said(read_answers(received), [], is_closed=True, waits_for_head=True, is_broken_off=True)
