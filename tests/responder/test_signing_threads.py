"""Threads that sign: every job comes back once, whatever happens to the others."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections import Counter

import pytest

from responder.signing_threads import SigningThreads


def _signature(tbs: bytes) -> bytes:
    if tbs.endswith(b"7"):
        raise ValueError("a key that does not sign this")
    return hashlib.sha256(tbs).digest()


def test_every_job_comes_back_once_and_in_the_loop() -> None:
    """Thousands of jobs on four threads, some of which fail, and some of whose askers do."""
    jobs = [b"%d" % number for number in range(5000)]
    delivered: Counter[tuple[bytes, bytes | None]] = Counter()
    loop_thread = threading.get_ident()

    async def run() -> None:
        over = asyncio.Event()
        threads = SigningThreads(asyncio.get_running_loop(), 4)

        def done(tbs: bytes, signature: bytes | None) -> None:
            assert threading.get_ident() == loop_thread
            delivered[tbs, signature] += 1
            if delivered.total() == len(jobs):
                over.set()
            if tbs.endswith(b"3"):
                raise RuntimeError("whoever asked is in trouble")

        for number, tbs in enumerate(jobs):
            threads.submit(_signature, tbs, lambda signature, tbs=tbs: done(tbs, signature))  # type: ignore[misc]
            if number % 100 == 0:
                await asyncio.sleep(0)
        await asyncio.wait_for(over.wait(), 30)
        threads.close()

    asyncio.run(run())
    assert delivered == Counter(
        (tbs, None if tbs.endswith(b"7") else hashlib.sha256(tbs).digest()) for tbs in jobs
    )


def test_no_more_threads_than_said_and_none_after_the_end() -> None:
    """They begin with the first job, are as many as said, and end when closed; what waits is forgotten."""
    busy, most = 0, 0
    lock = threading.Lock()
    go = threading.Event()

    def sign(tbs: bytes) -> bytes:
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
        go.wait(10)
        with lock:
            busy -= 1
        return tbs

    async def run() -> int:
        delivered: list[bytes | None] = []
        threads = SigningThreads(asyncio.get_running_loop(), 2)
        assert threads._threads == []
        for _ in range(20):
            threads.submit(sign, b"x", delivered.append)
        while most < 2:
            await asyncio.sleep(0.005)
        threads.close()
        go.set()
        for thread in threads._threads:
            await asyncio.to_thread(thread.join, 10)
            assert not thread.is_alive()
        await asyncio.sleep(0)
        return len(delivered)

    assert asyncio.run(run()) == 2
    assert most == 2


@pytest.mark.parametrize(
    ("took_s", "told_after"),
    [(0.0003, [6, 12, 18, 20]), (0.0009, [2, 4, 6, 8, 10, 12, 14, 16, 18, 20]), (0.003, list(range(1, 21)))],
    ids=["quick", "slower", "too slow to wait for"],
)
def test_signatures_come_several_at_a_time_and_none_waits_long(took_s: float, told_after: list[int]) -> None:
    """The loop is told of what was signed within two milliseconds, and of the last one at once."""
    now_s, signed = 0.0, 0
    told: list[int] = []
    go = threading.Event()

    def sign(tbs: bytes) -> bytes:
        nonlocal now_s, signed
        go.wait(10)
        now_s += took_s
        signed += 1
        return tbs

    async def run() -> None:
        over = asyncio.Event()
        delivered: list[bytes | None] = []

        def done(signature: bytes | None) -> None:
            delivered.append(signature)
            if len(delivered) == 20:
                over.set()

        threads = SigningThreads(asyncio.get_running_loop(), 1, lambda: now_s)
        tell = threads._tell

        def note() -> None:
            told.append(signed)
            tell()

        threads._tell = note  # type: ignore[method-assign]
        for _ in range(20):
            threads.submit(sign, b"x", done)
        go.set()
        await asyncio.wait_for(over.wait(), 10)
        threads.close()

    asyncio.run(run())
    assert told == told_after
