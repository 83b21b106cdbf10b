"""A server that is measured: where it listens, and the processes whose CPU time counts.

Knows: waiting for one that was started, asking it once, stopping it.
Does not know: what it answers.
"""

from __future__ import annotations

import http.client
import random
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

_START_TIME_S = 10.0
# The state of a socket in /proc/net/tcp, proc(5).
_LISTEN = "0A"
_ANSWER_TIME_S = 30.0
_PORTS_TRIED = 100


class Server(Protocol):
    """What a measurement needs to know of a server."""

    @property
    def name(self) -> str: ...

    @property
    def port(self) -> int: ...

    @property
    def pids(self) -> Sequence[int]:
        """The processes that do the work of a request."""


@dataclass(frozen=True, slots=True)
class Place:
    """A server by another port than its usual one."""

    name: str
    port: int
    pids: Sequence[int]


class ServerProcess:
    """A server that is one process of ours."""

    def __init__(self, name: str, port: int, process: subprocess.Popen[bytes]) -> None:
        self.name = name
        self.port = port
        self.pids: Sequence[int] = [process.pid]
        self.process = process
        try:
            wait_for_port(port)
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop it and wait for its end."""
        self.process.terminate()
        self.process.wait(10)


def free_port() -> int:
    """Return a TCP port that nobody listens on just now, and that no connection is given for its own end.

    Making an installation takes seconds, and a generator beside it opens thousands of connections.
    """
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for port in random.sample(range(lowest // 2, lowest), _PORTS_TRIED):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no port is free")


@contextmanager
def nobody_answers(connections: int) -> Iterator[int]:
    """Give a port of 127.0.0.1 whose queue takes *connections* and what they send; nobody accepts them."""
    with socket.create_server(("127.0.0.1", 0), backlog=connections) as listener:
        yield listener.getsockname()[1]


def wait_for_port(port: int) -> None:
    """Wait until somebody listens; nobody is bothered with a connection.

    Raises: RuntimeError — nobody does after 10 s.
    """
    until = time.monotonic() + _START_TIME_S
    while not _is_listened_at(port):
        if time.monotonic() > until:
            raise RuntimeError(f"nobody listens at port {port}")
        time.sleep(0.02)


def _is_listened_at(port: int) -> bool:
    lines = [
        line.split()
        for name in ("tcp", "tcp6")
        if (file := Path("/proc/net", name)).exists()
        for line in file.read_text().splitlines()[1:]
    ]
    return any(line[1].endswith(f":{port:04X}") and line[3] == _LISTEN for line in lines)


def ask(port: int, request: bytes, tls: ssl.SSLContext | None = None) -> tuple[int, bytes]:
    """Send one prepared HTTP request on a connection of its own; return (HTTP status, body).

    Raises: OSError, http.client.HTTPException — no answer, or none that can be read.
    """
    with socket.create_connection(("127.0.0.1", port), _ANSWER_TIME_S) as plain:
        connection = plain if tls is None else tls.wrap_socket(plain, server_hostname="127.0.0.1")
        with connection:
            connection.sendall(request)
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            return answer.status, answer.read()
