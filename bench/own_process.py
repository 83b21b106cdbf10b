"""One step in a process of its own: what it took and how much memory at most; and ending one of others.

Knows: wall and CPU time of the step with the processes it started; the process's peak of resident pages
(``rss_mb_max``, mapped files included) and of those that are its own (``own_mb_max``, looked at every
20 ms).  Does not know: what the step does.  Source: proc(5), status.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_LOOK_EVERY_S = 0.02


def measured(step: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return what *step* returns, and ``wall_s``, ``cpu_s``, ``rss_mb_max``, ``own_mb_max``.

    Raises: RuntimeError — the process ended without a result.
    """
    context = multiprocessing.get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(sending, step, arguments))
    process.start()
    sending.close()
    try:
        found: dict[str, Any] = receiving.recv()
    except EOFError as exc:
        raise RuntimeError(f"{step.__name__} ended without a result") from exc
    finally:
        process.join()
    return found


def _run(sending: Any, step: Callable[..., dict[str, Any]], arguments: tuple[Any, ...]) -> None:  # noqa: ANN401
    peak = _Peak()
    peak.start()
    began_s, began = time.perf_counter(), os.times()
    found = step(*arguments)
    wall_s, ended = time.perf_counter() - began_s, os.times()
    # user, system, and both of the children
    cpu_s = sum(ended[:4]) - sum(began[:4])
    sending.send(
        found
        | {
            "wall_s": round(wall_s, 3),
            "cpu_s": round(cpu_s, 3),
            "rss_mb_max": round(status_mb(os.getpid(), "VmHWM"), 1),
            "own_mb_max": round(peak.stop(), 1),
        }
    )


class _Peak(threading.Thread):
    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._highest_mb = 0.0
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.is_set():
            self._highest_mb = max(self._highest_mb, status_mb(os.getpid(), "RssAnon"))
            self._over.wait(_LOOK_EVERY_S)

    def stop(self) -> float:
        self._over.set()
        self.join()
        return self._highest_mb


def status_mb(pid: int, name: str) -> float:
    """Return a line of /proc/PID/status that is an amount of memory, in MB (10^6)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise KeyError(name)


def put_down(process: subprocess.Popen[str]) -> None:
    """End a process that may have ended, and close what it said."""
    if process.poll() is None:
        process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()
