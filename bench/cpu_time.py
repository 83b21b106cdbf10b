"""CPU time of running processes, where they run, and who goes first.

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


def waited_ns(pid: int) -> int:
    """Return the nanoseconds that the threads of *pid* that there are now have waited for a processor.

    Source: proc(5), the second number of schedstat.
    """
    return sum(
        int((task / "schedstat").read_text().split()[1]) for task in Path(f"/proc/{pid}/task").iterdir()
    )


def stolen_ns(processor: int) -> int:
    """Return the nanoseconds for which a virtual *processor* had something to run and its host ran others.

    To 10 ms; 0 for ever on a machine that is none of many.  Source: proc(5), stat, "steal".
    """
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name == f"cpu{processor}":
            return int(ticks[7]) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    raise OSError(f"no processor {processor} in /proc/stat")


def children(pid: int) -> list[int]:
    """Return the processes that *pid* has started and that have not ended."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += map(int, (task / "children").read_text().split())
    return sorted(found)


def descendants(pid: int) -> list[int]:
    """Return the processes that *pid* has started, and those that they have, and so on."""
    found = children(pid)
    return found + [later for child in found for later in descendants(child)]


def stand_back(pid: int) -> None:
    """Let the threads of *pid* run only while nobody else wants their processor.

    Source: sched(7), SCHED_IDLE.
    """
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setscheduler(int(task.name), os.SCHED_IDLE, os.sched_param(0))


def give_way(pid: int) -> None:
    """Let the threads of *pid* have a sixtieth of a processor that others want, before who stands back.

    Source: sched(7), nice 19.
    """
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.setpriority(os.PRIO_PROCESS, int(task.name), 19)


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
