"""The listening sockets: bound by the supervisor, used by the processes it starts.

Each worker slot has a socket of its own on the same port (SO_REUSEPORT; the kernel spreads
connections over them).  The supervisor keeps them all open.  When a worker is killed, the connections
that wait in its socket's queue stay there for the worker that replaces it; were the socket the
worker's own, the kernel would reset every one of them.

Knows: binding, and how a descriptor is handed on (an environment variable names it).
Does not know: what is spoken on a socket.
"""

from __future__ import annotations

import os
import socket

from certstatus.errors import PortTaken

PLAIN = "plain"
TLS = "tls"
ADMIN = "admin"
# Bounded by net.core.somaxconn.  Whoever serves an inherited socket must give this to listen()
# again, because every call of it sets the length anew.
BACKLOG = 4096


def bind(address: str, port: int, count: int) -> list[socket.socket]:
    """Return *count* listening sockets on one port (a free one if *port* is 0).

    Raises: PortTaken — somebody listens there, or the address is not ours.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sockets: list[socket.socket] = []
    try:
        # SO_REUSEPORT would let us share the port with an installation that runs already.
        with _socket(family) as alone:
            alone.bind((address, port))
            port = alone.getsockname()[1]
        for _ in range(count):
            sockets.append(_socket(family))
            sockets[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sockets[-1].bind((address, port))
        for item in sockets:
            item.listen(BACKLOG)
    except OSError as exc:
        for item in sockets:
            item.close()
        raise PortTaken(f"{address} port {port}: {exc.strerror}") from exc
    return sockets


def _socket(family: socket.AddressFamily) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    # Connections of an earlier run that still linger must not keep the port.
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        # "::" means every address, IPv4 too.
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    return made


def environment(sockets: dict[str, socket.socket]) -> dict[str, str]:
    """Return the variables that tell a child which descriptors it inherits."""
    return {_variable(name): str(item.fileno()) for name, item in sockets.items()}


def inherited(name: str) -> socket.socket | None:
    """Return the socket handed on as *name* ("plain", "tls", "admin"), None if there is none."""
    number = os.environ.get(_variable(name))
    return None if number is None else socket.socket(fileno=int(number))


def _variable(name: str) -> str:
    return f"CERTSTATUS_{name.upper()}_FD"
