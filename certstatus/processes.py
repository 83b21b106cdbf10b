"""Starting processes that cannot outlive us, and recognising those that outlived somebody else.

Knows: starting by exec through ``child.py`` (parent-death signal), what identifies a process
(its id and the tick it started at, because ids are used again), ending one for certain.
Does not know: what the processes are for.

Call ``start`` from a thread that lives as long as the process: Linux sends the parent-death
signal when the *thread* that forked ends.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

_CHILD = str(Path(__file__).with_name("child.py"))
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
TERM_TIME_S = 3.0


def boot_id() -> str:
    """Return which run of the machine this is, empty where the system does not say.

    Within one, all processes have the same steady clock.
    """
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""


class Identity(NamedTuple):
    """A process for good: its id, and when it started in clock ticks since boot."""

    pid: int
    started: int


def start(
    command: Sequence[str],
    *,
    descriptors: Sequence[int] = (),
    environment: Mapping[str, str] | None = None,
    withheld: Collection[str] = (),
    output: int | IO[bytes] | None = None,
) -> subprocess.Popen[bytes]:
    """Start *command* (an absolute path and its arguments); it is killed when this process ends.

    Takes: descriptors it inherits under the same numbers; variables added to the environment, and
    those of ours that it does not get; where its standard output and error go (ours by default).
    It has a process group of its own: an interrupt typed at the terminal is for us, and we
    decide in which order the others stop.
    Raises: OSError — no more processes, or no such interpreter.
    """
    inherited = {name: value for name, value in os.environ.items() if name not in withheld}
    wrapped = [sys.executable, "-I", "-S", _CHILD, str(os.getpid()), *command]
    return subprocess.Popen(
        wrapped,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT if output is not None else None,
        pass_fds=tuple(descriptors),
        env={**inherited, **(environment or {})},
        process_group=0,
    )


def python_command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs *module* with this interpreter."""
    return [sys.executable, "-m", module, *arguments]


def identity_of(pid: int) -> Identity | None:
    """Return the identity of the process that has *pid* now; None if there is none (or a zombie)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    # The command's name stands in parentheses and may hold anything, so count from the last one.
    fields = text.rpartition(")")[2].split()
    if fields[0] in "ZX":
        return None
    return Identity(pid, int(fields[19]))


def command_line(pid: int) -> list[str]:
    """Return the arguments of a process of ours; empty if it is gone or somebody else's."""
    folder = Path(f"/proc/{pid}")
    try:
        if folder.stat().st_uid != os.geteuid():
            return []
        return folder.joinpath("cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0")
    except OSError:
        return []


def own_pids() -> list[int]:
    """Return the ids of all processes of this user that can be seen."""
    user = os.geteuid()
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and folder.stat().st_uid == user:
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def end(who: Identity, term_time_s: float = TERM_TIME_S) -> bool:
    """End a process that is not our child: asked first, killed after *term_time_s*.

    Returns: was it there.  Raises: PermissionError — somebody else's.
    """
    try:
        # The descriptor stays with this very process, however often its id is used again.
        descriptor = os.pidfd_open(who.pid)
    except ProcessLookupError:
        return False
    try:
        if identity_of(who.pid) != who:
            return False
        for number, patience_s in ((signal.SIGTERM, term_time_s), (signal.SIGKILL, 10.0)):
            try:
                signal.pidfd_send_signal(descriptor, number)
            except ProcessLookupError:
                return True
            if select.select([descriptor], [], [], patience_s)[0]:
                return True
        return True
    finally:
        os.close(descriptor)


def wait_until_gone(who: Identity, patience_s: float) -> bool:
    """Wait for the end of a process that is not our child; say whether it came."""
    until = time.monotonic() + patience_s
    while identity_of(who.pid) == who:
        if time.monotonic() >= until:
            return False
        time.sleep(0.01)
    return True
