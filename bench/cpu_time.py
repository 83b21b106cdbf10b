"""CPU time of running processes, and where they run.

Knows: the scheduler's own account of each thread in nanoseconds, which does not suffer from
the 10 ms ticks of ``ps`` and ``times``.
Does not know: what the processes do meanwhile.  Source: proc(5), schedstat.
"""

from __future__ import annotations

import os
from pathlib import Path


def cpu_ns(pid: int) -> int:
    """Return the nanoseconds that all threads of *pid* have spent on a processor so far."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            total += int((task / "schedstat").read_text().split()[0])
        except FileNotFoundError:  # the thread ended between listing and reading
            continue
    return total


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
