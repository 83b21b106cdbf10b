"""Threads that make slow signatures for the event loop, and hand them back many at a time.

Knows: jobs go in by a queue and come back by another; the loop is woken once for all that are done by
the time it looks, because on a full processor each waking costs a change of threads and a system call
(a ThreadPoolExecutor's futures cost as much again).  While more waits, a thread that has signed goes on
for a moment before it wakes the loop, so that several answers go out, and the next requests come in, at a
time.
Does not know: what is signed, or how many jobs are too many.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread
from typing import NamedTuple

from certstatus import clock

log = logging.getLogger(__name__)

# A signature waits no longer than this for others to come with it; one that takes longer itself is told at
# once, and so is the last one there is.
_HELD_S = 0.002


class _Job(NamedTuple):
    sign: Callable[[bytes], bytes]
    tbs: bytes
    done: Callable[[bytes | None], None]


class SigningThreads:
    """*count* threads, which begin with the first job.  ``submit`` and ``close``: from the loop's thread."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        count: int,
        monotonic_s: Callable[[], float] = clock.monotonic_s,
    ) -> None:
        self._loop = loop
        self._monotonic_s = monotonic_s
        self._count = count
        self._threads: list[Thread] = []
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._signed: deque[tuple[_Job, bytes | None]] = deque()
        self._is_loop_told = False

    def submit(
        self, sign: Callable[[bytes], bytes], tbs: bytes, done: Callable[[bytes | None], None]
    ) -> None:
        """Have *tbs* signed, then call *done* in the loop with the signature; None if there was an error."""
        if not self._threads:
            self._threads = [
                Thread(target=self._work, name=f"sign-{number}", daemon=True) for number in range(self._count)
            ]
            for thread in self._threads:
                thread.start()
        self._jobs.put(_Job(sign, tbs, done))

    def close(self) -> None:
        """Forget what waits, and let the threads end."""
        with suppress(Empty):
            while True:
                self._jobs.get_nowait()
        for _ in self._threads:
            self._jobs.put(None)

    def _work(self) -> None:
        job = self._jobs.get()
        told_s = self._monotonic_s()
        while job is not None:
            began_s = self._monotonic_s()
            try:
                signature: bytes | None = job.sign(job.tbs)
            except Exception as exc:
                log.warning("a key did not sign: %s: %s", type(exc).__name__, exc)
                signature = None
            self._signed.append((job, signature))
            ended_s = self._monotonic_s()
            try:
                job = self._jobs.get_nowait()
            except Empty:
                self._tell()
                job = self._jobs.get()
                told_s = self._monotonic_s()
            else:
                # The next one will take about as long.
                if ended_s - told_s + ended_s - began_s > _HELD_S:
                    self._tell()
                    told_s = ended_s

    def _tell(self) -> None:
        # Appended before the word is looked at, which the loop takes back before it drains: none is left.
        if not self._is_loop_told:
            self._is_loop_told = True
            # A loop that is closed has nobody left to tell.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._is_loop_told = False
        while self._signed:
            job, signature = self._signed.popleft()
            try:
                job.done(signature)
            except Exception:
                # One answer's trouble must not keep the others waiting.
                log.exception("a signature could not be delivered")
