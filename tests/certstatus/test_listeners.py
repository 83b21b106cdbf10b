"""Listening sockets that a killed worker does not take with it."""

from __future__ import annotations

import selectors
import signal
import socket
import subprocess
import sys
import time

import pytest

from certstatus import listeners, processes
from certstatus.errors import PortTaken

# Answers every connection with its own name and closes it.
_WORKER = """
import sys
from certstatus import listeners
listening = listeners.inherited("plain")
print("up", flush=True)
while True:
    connection, _ = listening.accept()
    connection.sendall(sys.argv[1].encode())
    connection.close()
"""


def _start_worker(name: str, listening: socket.socket) -> subprocess.Popen[bytes]:
    return processes.start(
        [sys.executable, "-c", _WORKER, name],
        descriptors=[listening.fileno()],
        environment=listeners.environment({listeners.PLAIN: listening}),
        output=subprocess.PIPE,
    )


def _wait_up(worker: subprocess.Popen[bytes]) -> None:
    assert worker.stdout is not None
    assert worker.stdout.readline() == b"up\n"


def _end(*workers: subprocess.Popen[bytes]) -> None:
    for worker in workers:
        worker.kill()
        worker.wait()
        assert worker.stdout is not None
        worker.stdout.close()


def _read_all(clients: list[socket.socket], patience_s: float) -> tuple[list[bytes], int]:
    """Return what the clients were told, and how many connections were reset."""
    told, resets = [], 0
    with selectors.DefaultSelector() as selector:
        for client in clients:
            selector.register(client, selectors.EVENT_READ)
        until = time.monotonic() + patience_s
        while selector.get_map() and time.monotonic() < until:
            for key, _ in selector.select(0.1):
                readable = key.fileobj
                assert isinstance(readable, socket.socket)
                try:
                    told.append(readable.recv(100))
                except ConnectionResetError:
                    resets += 1
                selector.unregister(readable)
                readable.close()
    return told, resets


def test_no_waiting_connection_is_reset_when_a_worker_is_killed() -> None:
    """Connections in the queue of a worker killed with -9 are answered by the one that replaces it."""
    sockets = listeners.bind("127.0.0.1", 0, 2)
    port = sockets[0].getsockname()[1]
    first, second = (_start_worker(f"old-{at}", item) for at, item in enumerate(sockets))
    try:
        _wait_up(first)
        _wait_up(second)
        first.send_signal(signal.SIGSTOP)
        clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(200)]
        time.sleep(0.2)
        first.kill()
        first.wait()
        replacement = _start_worker("new-0", sockets[0])
        told, resets = _read_all(clients, 10)
        assert resets == 0
        assert len(told) == 200
        # Otherwise nothing waited in the killed worker's queue and nothing was tried.
        assert told.count(b"new-0") > 20
        assert told.count(b"old-1") > 20
        _end(replacement)
    finally:
        _end(first, second)
        for item in sockets:
            item.close()


def test_a_port_in_use_is_refused_although_it_could_be_shared() -> None:
    """SO_REUSEPORT would let a second installation share the port unnoticed; it is refused."""
    sockets = listeners.bind("127.0.0.1", 0, 2)
    port = sockets[0].getsockname()[1]
    with pytest.raises(PortTaken, match=rf"127\.0\.0\.1 port {port}: Address already in use"):
        listeners.bind("127.0.0.1", port, 1)
    for item in sockets:
        item.close()
    again = listeners.bind("127.0.0.1", port, 1)
    again[0].close()


def test_an_address_that_is_not_ours_is_refused() -> None:
    """The message names the address."""
    with pytest.raises(PortTaken, match=r"203\.0\.113\.7 port 0"):
        listeners.bind("203.0.113.7", 0, 1)


def test_the_address_for_everything_takes_both_families() -> None:
    """A socket on "::" is reached over IPv4 and IPv6."""
    (listening,) = listeners.bind("::", 0, 1)
    port = listening.getsockname()[1]
    for address in ("127.0.0.1", "::1"):
        client = socket.create_connection((address, port), timeout=5)
        accepted, _ = listening.accept()
        accepted.close()
        client.close()
    listening.close()


def test_nothing_is_inherited_where_nothing_was_handed_on() -> None:
    """A process started by hand finds no socket and binds its own."""
    assert listeners.inherited("tls") is None
