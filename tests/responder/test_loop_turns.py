"""The watch over the turns of a loop: what it sees, what it does not, and what it costs."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable

import uvloop

from responder.loop_turns import LONG_S, PERIOD_S, LoopTurns


def burn(cpu_s: float) -> None:
    """Use the processor for so long."""
    until_s = time.thread_time() + cpu_s
    while time.thread_time() < until_s:
        pass


def watched(act: Callable[[], object]) -> LoopTurns:
    """A watch that has seen a loop do *act* in one turn, and rest before and after."""

    async def run() -> LoopTurns:
        turns = LoopTurns(asyncio.get_running_loop())
        turns.start()
        await asyncio.sleep(0.02)
        turns.take()
        act()
        await asyncio.sleep(0.02)
        turns.stop()
        return turns

    return uvloop.run(run())


def test_a_long_turn_is_seen() -> None:
    """A turn that takes 30 ms shows as that, give or take the period, and is counted as long."""
    turns = watched(lambda: burn(0.030))
    assert 0.030 <= turns.lately_s <= 0.030 + 2 * PERIOD_S
    assert turns.long == 1
    assert turns.take() == turns.lately_s
    assert turns.take() == 0.0


def test_waiting_is_no_turn() -> None:
    """A turn that only waits takes no CPU time and is not long."""
    assert watched(lambda: time.sleep(0.030)).long == 0


def test_many_short_turns_are_not_one_long_one() -> None:
    """A loop that is busy for 100 ms in turns of 1 ms has no long turn."""

    async def run() -> LoopTurns:
        turns = LoopTurns(asyncio.get_running_loop())
        turns.start()
        for _ in range(100):
            burn(0.001)
            await asyncio.sleep(0)
        turns.stop()
        return turns

    turns = uvloop.run(run())
    assert turns.long == 0
    assert 0.001 <= turns.take() < LONG_S


def test_what_is_older_than_two_windows_is_forgotten() -> None:
    """The figure for operators is that of the last one to two minutes."""
    loop = asyncio.new_event_loop()
    cpu_s, now_s = [0.0], [0.0]
    turns = LoopTurns(loop, lambda: cpu_s[0], lambda: now_s[0])
    try:
        turns.start()
        cpu_s[0] = 0.5
        loop.call_later(2 * PERIOD_S, loop.stop)
        loop.run_forever()
        turns.stop()
    finally:
        loop.close()
    seen = []
    for now_s[0] in (59.0, 61.0, 122.0):
        turns.turn_windows()
        seen.append(turns.lately_s)
    assert seen == [0.5, 0.5, 0.0]


def test_cycles_do_not_pile_up_until_the_next_second() -> None:
    """With automatic collection off, many new cycles are collected by the watch, within its period."""

    class Link:
        """Refers to itself."""

        def __init__(self) -> None:
            self.itself = self

    async def run() -> int:
        turns = LoopTurns(asyncio.get_running_loop())
        turns.start()
        for _ in range(50):
            for _ in range(1000):
                Link()
            await asyncio.sleep(PERIOD_S)
        turns.stop()
        return gc.get_count()[0]

    gc.collect()
    gc.disable()
    try:
        left = uvloop.run(run())
    finally:
        gc.enable()
    assert left < 50_000
