"""The last step before a child process becomes what it is to be.

Run as a file by ``certstatus.processes``: asks the kernel to kill this process when its parent
dies, makes sure the parent had not died already, and executes the command, which keeps the
process id, the open descriptors and the request to the kernel.  So there is no Python code between fork
and exec in the parent, and nothing that the supervisor started outlives it.

Knows: Linux's prctl(2).  Does not know: what is started; it imports nothing of ours.

    python -I -S child.py PARENT_PID COMMAND [ARGUMENT ...]
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Set the parent-death signal and execute the command on the command line."""
    parent_pid, command = int(sys.argv[1]), sys.argv[2:]
    libc = ctypes.CDLL(None, use_errno=True)
    # SIGKILL, because it is certain: counters and feed survive it, an orphan that shares the port must not.
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent_pid:
        # The parent died before the kernel knew; the signal will not come.
        sys.exit("the parent is gone")
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
