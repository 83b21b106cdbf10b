"""Work of many tasks spread over the turns of their loop: so much in each, the others wait for the next.

Tasks that become ready together (a new CRL that hundreds fetch at once) would else all do their piece in
one and the same turn.  Knows: counting pieces, and whose turn it is: first come, first served.
Does not know: what a piece is, or how long it takes.
"""

from __future__ import annotations

import asyncio
from collections import deque


class Pace:
    """At most *per_turn* pieces in one turn of the running loop; for the tasks of that loop."""

    def __init__(self, per_turn: int) -> None:
        self._per_turn = per_turn
        self._left = per_turn
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._turn_is_due = False

    async def wait(self) -> None:
        """Return when a piece may be done, at once if this turn has room and nobody has waited longer."""
        loop = asyncio.get_running_loop()
        if self._left == 0 or self._waiting:
            place: asyncio.Future[None] = loop.create_future()
            self._waiting.append(place)
            self._expect_turn(loop)
            # Who is woken has a piece of the turn that it is woken for.
            await place
            return
        self._left -= 1
        self._expect_turn(loop)

    def _expect_turn(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._turn_is_due:
            self._turn_is_due = True
            loop.call_soon(self._turn, loop)

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin a new turn with those who wait."""
        self._turn_is_due = False
        self._left = self._per_turn
        while self._waiting and self._left:
            place = self._waiting.popleft()
            # One that was given up takes nobody's place.
            if not place.done():
                place.set_result(None)
                self._left -= 1
        if self._left < self._per_turn:
            # What was given out is taken back with the turn, whether or not it was used.
            self._expect_turn(loop)
