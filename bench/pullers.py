"""Clients that pull one file over and over, as fast as it comes, each in a process of its own.

They run where they are told to, and only while nobody else wants that processor (``stand_back``): what
they take is not the server's.  What arrives is counted and thrown away in the kernel (MSG_TRUNC, tcp(7)), so
ten of them cost little more than the network itself.  Whether the octets are right is looked at once,
by ``verify``, and not at full speed.
Knows: pulling, counting, noticing what is no whole answer.  Does not know: what is pulled.
"""

from __future__ import annotations

import hashlib
import http.client
import multiprocessing
import os
import socket
from collections.abc import Sequence
from contextlib import closing
from types import TracebackType
from typing import Any, Self

from bench.cpu_time import stand_back

_AT_ONCE = 1 << 20
_HEAD_MAX = 1 << 16
_WAIT_S = 60.0


class Pullers:
    """*count* of them at work, from entering until leaving the context.

    processors  where they run
    """

    def __init__(self, port: int, path: str, size: int, count: int, processors: Sequence[int]) -> None:
        context = multiprocessing.get_context("spawn")
        # One slot each, so nobody waits for a lock.
        self._octets = context.RawArray("Q", count)
        self._whole = context.RawArray("Q", count)
        self._processes = [
            context.Process(
                target=_pull,
                args=(port, path, size, self._octets, self._whole, at, tuple(processors)),
                daemon=True,
            )
            for at in range(count)
        ]

    def __enter__(self) -> Self:
        for process in self._processes:
            process.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()

    def octets(self) -> list[int]:
        """Return how many octets of bodies each has received so far."""
        return list(self._octets)

    def whole(self) -> list[int]:
        """Return how many whole answers each has received so far."""
        return list(self._whole)

    def check(self) -> None:
        """Raises: RuntimeError — one has ended, because its answer was not whole; it said why."""
        ended = [process.exitcode for process in self._processes if process.exitcode is not None]
        if ended:
            raise RuntimeError(f"{len(ended)} of {len(self._processes)} pullers ended")


def _pull(
    port: int,
    path: str,
    size: int,
    octets: Any,  # noqa: ANN401 - a shared array has no type to be named
    whole: Any,  # noqa: ANN401
    at: int,
    processors: tuple[int, ...],
) -> None:
    os.sched_setaffinity(0, processors)
    stand_back(os.getpid())
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode("ascii")
    buffer = bytearray(_AT_ONCE)
    with socket.create_connection(("127.0.0.1", port), _WAIT_S) as connection:
        while True:
            connection.sendall(request)
            left = size - _head(connection, size)
            octets[at] += size - left
            while left:
                # Never beyond this answer, so the next one's head is not thrown away.
                count = connection.recv_into(buffer, min(left, _AT_ONCE), socket.MSG_TRUNC)
                if not count:
                    raise ConnectionError(f"{path}: {left} octets did not come")
                left -= count
                octets[at] += count
            whole[at] += 1


def _head(connection: socket.socket, size: int) -> int:
    """Read the head of an answer; return how many octets of its body came with it.

    Raises: ConnectionError — not an answer of 200 with *size* octets.
    """
    head = b""
    while b"\r\n\r\n" not in head:
        piece = connection.recv(_HEAD_MAX)
        if not piece or len(head) > _HEAD_MAX:
            raise ConnectionError(f"no answer: {head[:200]!r}")
        head += piece
    lines, _, body = head.partition(b"\r\n\r\n")
    length = b"\r\ncontent-length: %d" % size
    if not lines.startswith(b"HTTP/1.1 200 ") or length not in lines.lower():
        raise ConnectionError(f"not the file: {lines[:400]!r}")
    return len(body)


def verify(port: int, path: str, size: int, sha256: str) -> None:
    """Pull it once; see to it that its octets are the right ones.  Raises: ValueError — they are not."""
    digest, got = hashlib.sha256(), 0
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=_WAIT_S)) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        while block := answer.read(_AT_ONCE):
            digest.update(block)
            got += len(block)
    if (answer.status, got, digest.hexdigest()) != (200, size, sha256):
        raise ValueError(f"{path}: HTTP {answer.status}, {got} octets of {size}, or other ones")
