"""The watch over the turns of a loop: what it sees, what it does not, and what it costs."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvloop

from responder.loop_turns import LONG_S, PERIOD_S, RESTING_S, LoopTurns


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


def test_a_watch_rests_while_nobody_is_there() -> None:
    """Few wake-ups then; a long turn is seen all the same, and whoever comes has a close watch at once."""

    async def run() -> None:
        is_idle = [True]
        looks: list[float] = []

        def cpu_s() -> float:
            looks.append(time.monotonic())
            return time.thread_time()

        turns = LoopTurns(asyncio.get_running_loop(), cpu_s, is_idle=lambda: is_idle[0])
        turns.start()
        await asyncio.sleep(0.3)
        assert len(looks) <= 10
        turns.take()
        burn(0.030)
        await asyncio.sleep(2 * RESTING_S)
        assert turns.take() >= 0.030
        # As long a time of short turns looks like one: below LONG_S + RESTING_S nothing is called long.
        assert turns.long == 0
        burn(LONG_S + RESTING_S + 0.005)
        await asyncio.sleep(2 * RESTING_S)
        assert turns.long == 1
        is_idle[0] = False
        turns.wake()
        # Now, and not once more for one who comes where others are.
        before = len(looks)
        turns.wake()
        assert len(looks) == before
        burn(0.001)
        await asyncio.sleep(0.02)
        assert len(looks) > before + 2
        turns.stop()

    uvloop.run(run())


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


class Link:
    """Refers to itself, so that only a collection ends it."""

    def __init__(self) -> None:
        self.itself = self


@contextmanager
def no_automatic_collection() -> Iterator[None]:
    """As in a worker."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.enable()


async def watched_while(act: Callable[[], object], times: int) -> None:
    """Do *act* so many times under a watch, a period and more between them."""
    turns = LoopTurns(asyncio.get_running_loop())
    turns.start()
    for _ in range(times):
        act()
        await asyncio.sleep(2 * PERIOD_S)
    turns.stop()


def test_cycles_do_not_pile_up_where_old_objects_are_let_go() -> None:
    """The collector's count goes down with every old object that ends, and yet new cycles are found."""
    with no_automatic_collection():
        old = [[number] for number in range(50_000)]
        gc.collect()
        made: list[weakref.ref[Link]] = []

        def replace() -> None:
            made.extend(weakref.ref(Link()) for _ in range(100))
            del old[-1000:]

        uvloop.run(watched_while(replace, 20))
        assert len(made) == 2000
        assert not any(link() for link in made)


def test_what_is_kept_is_looked_through_once_and_soon() -> None:
    """Objects that stay are young for a period, not for a second: looking at all of them would take long."""
    with no_automatic_collection():
        kept: list[list[int]] = []
        young: list[int] = []

        def keep() -> None:
            kept.extend([number] for number in range(1000))
            young.append(len(gc.get_objects(0)))

        uvloop.run(watched_while(keep, 30))
        assert max(young) < 5000


def test_a_great_many_at_once_are_not_looked_through() -> None:
    """Out of a large document, say: that would be the one long turn."""
    looked_at: list[int] = []

    def note(phase: str, _info: dict[str, int]) -> None:
        if phase == "start":
            looked_at.append(len(gc.get_objects(0)))

    with no_automatic_collection():
        kept: list[list[int]] = []
        gc.callbacks.append(note)
        try:
            uvloop.run(watched_while(lambda: kept.extend([number] for number in range(100_000)), 2))
        finally:
            gc.callbacks.remove(note)
        assert gc.get_freeze_count() >= 200_000
    # None, where the machine had time for no other look.
    assert max(looked_at, default=0) < 10_000
