"""Pieces of work are spread over the turns of the loop, in order, and nobody is forgotten."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import pytest
import uvloop

from responder.pace import Pace

_RUNS: list[Callable[..., list[int]]] = [asyncio.run, uvloop.run]


async def numbered(turns: list[int]) -> None:
    """Count the turns of the loop."""
    while True:
        turns[0] += 1
        await asyncio.sleep(0)


@pytest.mark.parametrize("run", _RUNS)
def test_no_turn_has_more_than_its_share(run: Callable[..., list[int]]) -> None:
    """Whatever is ready at once, and though everybody comes again; those who came first go first."""

    async def main() -> list[int]:
        pace, turns, done = Pace(4), [0], []
        counting = asyncio.create_task(numbered(turns))

        async def work(number: int) -> None:
            for _ in range(3):
                await pace.wait()
                done.append((turns[0], number))

        await asyncio.gather(*[work(number) for number in range(50)])
        counting.cancel()
        each = Counter(turn for turn, _ in done)
        assert len(done) == 150
        # A turn is numbered within it, so two of ours may fall into one number.
        assert max(each.values()) <= 2 * 4
        assert len(each) >= 150 / 8
        first = [number for _, number in done[:50]]
        assert first == sorted(first)
        return []

    run(main())


def test_who_comes_alone_does_not_wait() -> None:
    """With room in the turn nothing is put off."""

    async def main() -> list[int]:
        pace = Pace(2)
        for _ in range(10):
            task = asyncio.ensure_future(pace.wait())
            await asyncio.sleep(0)
            assert task.done()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        return []

    uvloop.run(main())


def test_who_gives_up_keeps_nobody_waiting() -> None:
    """Connections end while they wait."""

    async def main() -> list[int]:
        pace = Pace(1)
        tasks = [asyncio.ensure_future(pace.wait()) for _ in range(20)]
        await asyncio.sleep(0)
        for task in tasks[1:10]:
            task.cancel()
        ended = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
        assert [isinstance(item, asyncio.CancelledError) for item in ended].count(True) == 9
        await asyncio.wait_for(pace.wait(), 5)
        return []

    uvloop.run(main())
