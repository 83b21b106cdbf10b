"""``certstatus`` commands, each in a process of its own that has everything imported already.

::

    tester ── words, environment, folder; stdin, stdout, stderr, status ──▶ warm process ── fork ──▶ keeper
                                                                                 keeper ── fork ──▶ command
    tester ◀── process id, exit code ── keeper

A command takes some ten milliseconds, and importing what it needs several hundred: most of the time of the
tests that give many.  The warm process does nothing but import and fork, and has no thread, connection or
store of its own, so that a command begins as it does from a shell.  One for each tester; it ends with it.
Not for ``serve``: whose child a process is, and what its command line says, is what it goes by.
"""

from __future__ import annotations

import atexit
import functools
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import NoReturn

_MESSAGE_BYTES_MAX = 200_000
_PACKAGES = ("certstatus", "issuance", "publisher", "responder")
# Scripts, and what only a database's upgrade runs.
_NOT_IMPORTED = ("__main__", "child", "migrations")
_DESCRIPTORS = 4


def run_command(
    words: list[str], *, cwd: Path | None = None, given: str | None = None, timeout_s: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run ``certstatus`` with *words* to its end, in the tester's environment; *given*: what it reads.

    Raises: subprocess.TimeoutExpired — it was killed.
    """
    with (
        tempfile.TemporaryFile() as stdin,
        tempfile.TemporaryFile() as stdout,
        tempfile.TemporaryFile() as stderr,
    ):
        stdin.write((given or "").encode())
        stdin.seek(0)
        reading, writing = os.pipe()
        try:
            try:
                message = json.dumps([words, dict(os.environ), str(cwd or Path.cwd())]).encode()
                files = [stdin.fileno(), stdout.fileno(), stderr.fileno(), writing]
                socket.send_fds(_warm_process(), [message], files)
            finally:
                os.close(writing)
            code = _wait_for_end(reading, words, timeout_s)
        finally:
            os.close(reading)
        said = []
        for file in (stdout, stderr):
            file.seek(0)
            said.append(file.read().decode())
        return subprocess.CompletedProcess(words, code, *said)


def _wait_for_end(status: int, words: list[str], timeout_s: float) -> int:
    """Return the exit code that the keeper tells, less than 0 for a signal, as ``subprocess`` has it."""
    until_s = time.monotonic() + timeout_s
    told = b""
    while told.count(b"\n") < 2:
        if not select.select([status], [], [], max(0.0, until_s - time.monotonic()))[0]:
            os.kill(int(told.split()[0]), signal.SIGKILL)
            raise subprocess.TimeoutExpired(words, timeout_s)
        piece = os.read(status, 100)
        assert piece, "the warm process has ended"
        told += piece
    return int(told.split()[1])


@functools.cache
def _warm_process() -> socket.socket:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


# --- the warm process ----------------------------------------------------------------------------------


def _import_everything() -> None:
    for package in _PACKAGES:
        found = importlib.import_module(package)
        for module in pkgutil.walk_packages(found.__path__, f"{package}."):
            if not set(module.name.split(".")) & set(_NOT_IMPORTED):
                importlib.import_module(module.name)
    # A child writes to no page only because it counts or collects what was there before.
    gc.freeze()


def _serve(channel: socket.socket) -> None:
    """Fork for each message until there is nobody any more who could send one."""
    # Keepers are waited for by nobody.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        message, descriptors, _, _ = socket.recv_fds(channel, _MESSAGE_BYTES_MAX, _DESCRIPTORS)
        if not message:
            return
        if os.fork() == 0:
            channel.close()
            _keep(message, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _keep(message: bytes, descriptors: list[int]) -> NoReturn:
    """Say which process the command is, and how it has ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    *standard, status = descriptors
    child = os.fork()
    if child == 0:
        for number, descriptor in enumerate(standard):
            os.dup2(descriptor, number)
        for descriptor in descriptors:
            os.close(descriptor)
        _be_command(*json.loads(message))
    os.write(status, f"{child}\n".encode())
    _, ended = os.waitpid(child, 0)
    os.write(status, f"{os.waitstatus_to_exitcode(ended)}\n".encode())
    os._exit(0)


def _be_command(words: list[str], environment: dict[str, str], cwd: str) -> NoReturn:
    code: object = 1
    try:
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(cwd)
        sys.argv = ["certstatus", *words]
        from certstatus.cli import main

        main()
    except SystemExit as exc:
        code = exc.code
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


if __name__ == "__main__":
    _import_everything()
    _serve(socket.socket(fileno=int(sys.argv[1])))
