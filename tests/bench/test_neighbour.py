"""A stranger on the processor is there while it is to be, works as it is to, and is missed if it ends."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from bench.cpu_time import cpu_ns
from bench.neighbour import INTERPRETER, MEMORY, Neighbour, interpret, overwriting
from bench.subject import Processors


@pytest.mark.parametrize("kind", [MEMORY, INTERPRETER])
def test_it_wakes_again_and_again_on_its_processor(kind: str) -> None:
    processor = Processors.available().server
    with Neighbour(kind, processor) as neighbour:
        # taskset becomes it.
        pid = neighbour.process.pid
        assert os.sched_getaffinity(pid) == {processor}
        before, switches = cpu_ns(pid), times_waited(pid)
        time.sleep(1.0)
        used_s, woken = (cpu_ns(pid) - before) / 1e9, times_waited(pid) - switches
    # Some 500 times in a second in which nobody else has the processor.
    assert 20 < woken < 700
    assert 0.001 < used_s < 0.5
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_one_that_ends_meanwhile_is_missed() -> None:
    def measure() -> None:
        with Neighbour(MEMORY, Processors.available().server) as neighbour:
            neighbour.process.kill()
            neighbour.process.wait()

    with pytest.raises(RuntimeError, match="ended meanwhile, with exit code -9"):
        measure()


def test_one_that_does_not_come_up_is_told_of() -> None:
    with pytest.raises(RuntimeError, match="did not come up"), Neighbour("noise", 0):
        pass


def test_what_they_do_takes_its_time_and_no_more() -> None:
    began_s = time.thread_time()
    interpret()
    assert time.thread_time() - began_s < 0.02
    overwrite = overwriting()
    overwrite()
    began_s = time.thread_time()
    overwrite()
    assert time.thread_time() - began_s < 0.02


def times_waited(pid: int) -> int:
    """How often a process went to sleep of itself (proc(5), status)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))
