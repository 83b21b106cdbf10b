"""One measurement: what a request costs the server's processes while the generator keeps them busy.

Knows: warming up, reading both clocks and the generator's count at both ends of a stretch of time,
that a run with failures is none.  Does not know: requests, counters, rounds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from bench.cpu_time import cpu_ns
from bench.generator import Load, Requests, Said, Tls
from bench.server import Server

# Each handshake costs both sides some hundred microseconds, and they come first.
_HANDSHAKE_S = 0.0015
_PATIENCE_S = 20.0


@dataclass(frozen=True, slots=True)
class Timing:
    """How long the generator runs before anything is counted, and how long it is counted."""

    settle_s: float = 0.25
    seconds: float = 1.2


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured.

    us          CPU time of the server per request
    busy        share of a processor that the server had meanwhile; None: it is no server
    per_s       requests a second
    signatures  per request, where that was asked for
    """

    us: float
    busy: float | None = None
    per_s: float = 0.0
    signatures: float | None = None
    more: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ran:
    """A measurement, and what was sent and answered in all, before and after it too."""

    measured: Measured
    sent: int
    said: Said


def run(
    folder: Path,
    server: Server,
    requests: Requests,
    connections: int,
    processor: int,
    timing: Timing,
    tls: Tls | None = None,
    beside: Callable[[Load], AbstractContextManager[object]] = lambda _load: nullcontext(),
) -> Ran:
    """Load *server* from *processor* and measure; what *beside* gives is entered meanwhile.

    Raises: RuntimeError — something failed, or nothing was answered.
    """
    with Load(folder, server.port, requests, connections, processor, tls) as load:
        # More than every connection's first request.
        wait_for_sent(load, connections + 2)
        with beside(load):
            time.sleep(timing.settle_s + (_HANDSHAKE_S * connections if tls else 0.0))
            began = _Clocks.read(server, load)
            time.sleep(timing.seconds)
            # On a machine that has other things to do a short stretch may have seen nothing.
            wait_for_sent(load, began.sent + connections)
            ended = _Clocks.read(server, load)
        said = load.stop()
        sent = load.sent()
    done, passed_s = ended.sent - began.sent, ended.wall_s - began.wall_s
    if said.failures or not said.requests or not done:
        raise RuntimeError(f"{server.name}: {done} requests in {passed_s:.2f} s; in all {said}")
    spent_us = (ended.cpu_ns - began.cpu_ns) / 1000
    return Ran(Measured(spent_us / done, spent_us / 1e6 / passed_s, done / passed_s), sent, said)


class _Clocks(NamedTuple):
    """What is read at one moment."""

    wall_s: float
    cpu_ns: int
    sent: int

    @classmethod
    def read(cls, server: Server, load: Load) -> _Clocks:
        return cls(time.perf_counter(), cpu_ns(*server.pids), load.sent())


def wait_for_sent(load: Load, count: int) -> None:
    """Wait until *count* requests were sent.  Raises: RuntimeError — they were not within 20 s."""
    until = time.perf_counter() + _PATIENCE_S
    while load.sent() < count:
        if time.perf_counter() > until:
            raise RuntimeError(f"only {load.sent()} requests sent in {_PATIENCE_S:.0f} s: {load.stop()}")
        time.sleep(0.01)
