"""A process that holds idle connections: ``idle_holder.py HOST PORT COUNT SOURCE``, request on stdin.

Each connection asks once and reads its answer; then ``held COUNT`` is printed.  When a line
comes in, each asks again; ``answered COUNT`` is printed, and all are closed.
"""

from __future__ import annotations

import resource
import socket
import sys


def main() -> None:
    """Hold them."""
    host, port, count, source = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    message = bytes.fromhex(sys.stdin.readline())
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    held = []
    for _ in range(count):
        made = socket.create_connection((host, port), 20, (source, 0))
        made.sendall(message)
        held.append(made)
    print("held", sum(_is_answered(item) for item in held), flush=True)
    sys.stdin.readline()
    for item in held:
        item.sendall(message)
    print("answered", sum(_is_answered(item) for item in held), flush=True)


def _is_answered(item: socket.socket) -> bool:
    return item.recv(65_536).startswith(b"HTTP/1.1 200 ")


main()
