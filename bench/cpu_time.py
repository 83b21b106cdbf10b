"""CPU time of running processes, and where they run.

Knows: the processor clock of a process in nanoseconds, which counts all its threads, also those
that have ended, up to this very moment; it has not the 10 ms ticks of ``ps`` and ``times``.
Does not know: what the processes do meanwhile.  Source: clock_getcpuclockid(3).
"""

from __future__ import annotations

import os
import time
from pathlib import Path

# CPUCLOCK_SCHED: what the scheduler has accounted, of which process stands in the other bits.
_SCHEDULED = 2


def cpu_ns(*pids: int) -> int:
    """Return the nanoseconds that all threads of *pids* have spent on a processor so far.

    Raises: OSError — one of them is gone.
    """
    return sum(time.clock_gettime_ns(~pid << 3 | _SCHEDULED) for pid in pids)


def children(pid: int) -> list[int]:
    """Return the processes that *pid* has started and that have not ended."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += map(int, (task / "children").read_text().split())
    return sorted(found)


def pin(pid: int, processor: int) -> None:
    """Let all threads of *pid* run on *processor* only."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), {processor})


def find_processes(*words: str) -> list[int]:
    """Return the pids whose command line holds every one of *words* as an argument."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                arguments = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            if all(word in arguments for word in words):
                found.append(int(folder.name))
    return sorted(found)
