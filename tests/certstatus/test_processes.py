"""Children that cannot outlive us, and processes that are who they are taken for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from certstatus import processes
from certstatus.processes import Identity

_PARENT = """
import sys, time
from certstatus import processes
child = processes.start([sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"])
print(child.pid, flush=True)
time.sleep(60)
"""


def test_a_child_is_killed_with_its_parent() -> None:
    """kill -9 of the parent kills the child, without anybody's help."""
    with subprocess.Popen([sys.executable, "-c", _PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        words = [parent.stdout.readline().strip() for _ in range(2)]
        child = processes.identity_of(int(next(word for word in words if word != "up")))
        assert child is not None
        parent.kill()
        parent.wait()
        assert processes.wait_until_gone(child, 5)


def test_a_child_whose_parent_died_first_does_not_begin() -> None:
    """A child that starts after its parent's death, when no signal can come any more, gives up."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(Path(processes.__file__).with_name("child.py")), "1", "/bin/true"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "the parent is gone" in done.stderr


def test_the_command_itself_runs_under_the_childs_process_id() -> None:
    """Between us and the command no shell or wrapper remains, and descriptors keep their numbers."""
    reading, writing = os.pipe()
    code = f"import os; os.write({writing}, str(os.getpid()).encode())"
    child = processes.start([sys.executable, "-c", code], descriptors=[writing])
    os.close(writing)
    assert child.wait(10) == 0
    assert int(os.read(reading, 100)) == child.pid
    os.close(reading)


def test_a_child_is_not_in_our_process_group() -> None:
    """An interrupt typed at the terminal reaches the supervisor only, which stops children in order."""
    child = processes.start(["/bin/sleep", "60"])
    try:
        assert os.getpgid(child.pid) == child.pid != os.getpgrp()
    finally:
        child.kill()
        child.wait()


def test_a_process_id_used_again_is_not_the_same_process() -> None:
    """Whoever has the id now, but started at another time, is left alone."""
    other = subprocess.Popen(["/bin/sleep", "60"])
    try:
        who = processes.identity_of(other.pid)
        assert who is not None
        assert not processes.end(Identity(who.pid, who.started - 1))
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_end_kills_what_ignores_being_asked() -> None:
    """A process that ignores SIGTERM is killed after its time."""
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as stubborn:
        assert stubborn.stdout is not None
        stubborn.stdout.readline()
        who = processes.identity_of(stubborn.pid)
        assert who is not None
        began = time.monotonic()
        assert processes.end(who, term_time_s=0.2)
        assert stubborn.wait(5) == -signal.SIGKILL
        assert 0.2 <= time.monotonic() - began < 5


def test_a_zombie_is_gone() -> None:
    """A process that has ended and waits to be reaped is no process any more."""
    ended = subprocess.Popen(["/bin/true"])
    deadline = time.monotonic() + 5
    while processes.identity_of(ended.pid) is not None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert ended.wait() == 0
