"""How long the turns of a worker's event loop are: its thread's own CPU time, watched all the time.

A timer that comes every 2 ms takes the CPU time of the loop's thread since it came last.  No turn
that ended in between can have taken more, and the one that kept the timer waiting took at least
that much less 2 ms: so while somebody is connected a figure here is never below the longest turn, and at
most 2 ms above it.  Waiting (for the interpreter's lock, for a processor) is not in it.  Cost: about 1 µs
each time.

While nobody is connected it comes every 50 ms only, because 500 wake-ups a second take the processor from
those who share it.  A figure is then the sum of all turns of such a time, up to 50 ms above the longest;
``long`` counts only what is above 60 ms.  The turn in which the first connection comes is measured in two
parts.

The same timer looks through what was made since, for cycles (automatic collection is off in a
worker).  So soon it is still in a near cache and little: a hundred objects take 2 µs.  Left for a
second, what signing keeps took 3 to 6 ms, 10,000 objects that are in no cache any more; and how many
there are nobody can ask: the collector's own count goes down with every old object that is let go of, so
a worker whose caches are full stands at nothing.
Knows: this.  Does not know: what a turn was busy with, nor who reads the figures.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable

from certstatus import clock

PERIOD_S = 0.002
RESTING_S = 0.050
LONG_S = 0.010
_WINDOW_S = 60.0
# Another thread can make more than this at once (out of a large document), of which none is garbage.
# They are put with what is looked at no more, which takes 1 µs; to look through 50,000 would take 20 ms.
_YOUNG_MAX = 5_000


class LoopTurns:
    """Watches the loop that it was started in.

    lately_s   the longest turn of the last one to two minutes
    long       turns certainly above ``LONG_S`` since the start (at rest: above ``LONG_S + RESTING_S``)

    Takes: *is_idle*: says whether nobody is there whom a long turn would keep waiting; when that changes,
    ``wake`` is to be called.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        cpu_s: Callable[[], float] = clock.thread_cpu_s,
        monotonic_s: Callable[[], float] = clock.monotonic_s,
        is_idle: Callable[[], bool] = lambda: False,
    ) -> None:
        self.long = 0
        self._loop = loop
        self._cpu_s = cpu_s
        self._monotonic_s = monotonic_s
        self._is_idle = is_idle
        self._period_s = PERIOD_S
        self._timer: asyncio.TimerHandle | None = None
        self._last_s = 0.0
        self._since_taken_s = 0.0
        self._window_s = 0.0
        self._before_s = 0.0
        self._window_ends_s = 0.0

    @property
    def lately_s(self) -> float:
        """The longest turn of this minute and the one before."""
        return max(self._window_s, self._before_s)

    def start(self) -> None:
        """Begin to watch; to be called in the loop."""
        self._last_s = self._cpu_s()
        self._window_ends_s = self._monotonic_s() + _WINDOW_S
        self._timer = self._loop.call_later(PERIOD_S, self._look)

    def wake(self) -> None:
        """Look closely from here on: somebody has come."""
        if self._period_s == RESTING_S and self._timer is not None:
            self._timer.cancel()
            self._look()

    def stop(self) -> None:
        """Watch no longer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def take(self) -> float:
        """Return the longest turn since this was called last, in seconds."""
        longest_s, self._since_taken_s = self._since_taken_s, 0.0
        return longest_s

    def turn_windows(self) -> None:
        """Forget what is older than two minutes; called about once a second."""
        now_s = self._monotonic_s()
        if now_s >= self._window_ends_s:
            self._before_s, self._window_s = self._window_s, 0.0
            self._window_ends_s = now_s + _WINDOW_S

    def _look(self) -> None:
        if gc.get_count()[0] > _YOUNG_MAX:
            gc.freeze()
        else:
            gc.collect(0)
        now_s = self._cpu_s()
        turn_s, self._last_s = now_s - self._last_s, now_s
        if turn_s > self._since_taken_s:
            self._since_taken_s = turn_s
            self._window_s = max(self._window_s, turn_s)
        if turn_s > LONG_S + self._period_s:
            # Without the period, which may have been other turns', it is still too long.
            self.long += 1
        self._period_s = RESTING_S if self._is_idle() else PERIOD_S
        self._timer = self._loop.call_later(self._period_s, self._look)
