"""Who runs where while latencies are measured: the generator alone, the worker with as few others as can be.

A generator that has to wait for its processor sends late, and that would look like the server's latency;
so on a machine of two the rest of the installation runs where the worker does (and behind it:
``cpu_time.stand_back``).
Knows: dividing the processors that this process may use.  Does not know: what runs on them.
"""

from __future__ import annotations

import os
from typing import NamedTuple


class Processors(NamedTuple):
    """One for the worker, one for the generator, and what is left for the others of the installation.

    others  the worker's own where nothing is left
    """

    worker: int
    others: tuple[int, ...]
    generator: int


def divide() -> Processors:
    """Return how this process's processors are divided.

    Raises: RuntimeError — there is only one: server and generator would wait for each other.
    """
    found = sorted(os.sched_getaffinity(0))
    if len(found) < 2:
        raise RuntimeError("a processor for the worker and one for the generator are needed")
    return Processors(found[0], tuple(found[1:-1]) or (found[0],), found[-1])
