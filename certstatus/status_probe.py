"""How long it takes until every worker answers a new status, seen from outside.

The workers of a host share one port and the kernel deals connections out to them, so a worker
cannot be chosen; several times as many connections as there are workers reach all of them with
near certainty (32 over 2 workers miss one once in two thousand million times).
All connections are asked at once, each again as soon as it has answered: asked one after the other,
they would wait for one another, and under load that would be most of what is measured.
Knows: asking over and over on every connection, and when each changed its answer.
Does not know: who changes the status, or how.
Source: RFC 6960 §4.2.1 (CertStatus), A.1 (POST).
"""

from __future__ import annotations

import re
import secrets
import selectors
import socket
import time
from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple, Self
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import ocsp

from certstatus.errors import ProbeFailed

_LENGTH = re.compile(rb"(?i)\r\nContent-Length: *(\d{1,7})\r\n")
_END = b"\r\n\r\n"
_NONCE_OCTETS = 16


class Spread(NamedTuple):
    """How a new status spread, in seconds from when it was brought about.

    answered_s  until the last connection was first answered so; holds the time that this answer took
    outdated_s  when anybody was last answered otherwise (0.0: nobody was)
    """

    answered_s: float
    outdated_s: float


class _Connection:
    """A connection and what has come of its answer."""

    def __init__(self, address: tuple[str, int], timeout_s: float) -> None:
        self.socket = socket.create_connection(address, timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""

    def take(self) -> bytes | None:
        """Return the body of the answer once it is whole.  Raises: OSError, ValueError."""
        data = self.socket.recv(65_536)
        if not data:
            raise ConnectionResetError("the connection ended")
        self.buffer += data
        head, found, body = self.buffer.partition(_END)
        if not found:
            return None
        length = _LENGTH.search(head + b"\r\n")
        if length is None:
            raise ValueError("an answer without its length")
        if len(body) < int(length[1]):
            return None
        self.buffer = b""
        return body


class StatusProbe:
    """Connections to one responder, for questions about certificates of one issuer."""

    def __init__(
        self,
        url: str,
        ca: x509.Certificate,
        connections: int,
        timeout_s: float = 10.0,
        *,
        nonces: bool = False,
    ) -> None:
        """*nonces*: one in every question, so that each answer must be signed.

        Raises: ProbeFailed — *url* is not http://HOST[:PORT]/PATH, or nobody listens there.
        """
        try:
            where = urlsplit(url)
            host, port = where.hostname, where.port
        except ValueError as exc:
            raise ProbeFailed(f"{url}: {exc}") from exc
        if where.scheme != "http" or host is None or port == 0:
            raise ProbeFailed(f"{url}: expected http://HOST[:PORT]/PATH")
        self._address = host, port or 80
        self._head = (
            f"POST {where.path or '/'} HTTP/1.1\r\nHost: {where.netloc}\r\n"
            "Content-Type: application/ocsp-request\r\nContent-Length: "
        ).encode("ascii")
        self._ca = ca
        self._timeout_s = timeout_s
        self._nonces = nonces
        self._connections: list[_Connection] = []
        try:
            for _ in range(connections):
                self._connections.append(_Connection(self._address, timeout_s))
        except OSError as exc:
            self._close()
            raise self._failed(exc) from exc

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def watch(
        self, certificate: x509.Certificate, status: ocsp.OCSPCertStatus, act: Callable[[], object]
    ) -> Spread:
        """Ask on every connection, *act*, and ask on until each has answered *status*.

        The time counts from when *act* has returned; it may bring about the status, or nothing.
        Raises: ProbeFailed — a connection never answered so within the time limit, or not at all.
        """
        waiting = set(self._connections)
        answered_s = outdated_s = 0.0
        with selectors.DefaultSelector() as ready:
            try:
                for connection in self._connections:
                    ready.register(connection.socket, selectors.EVENT_READ, connection)
                    self._ask(connection, certificate)
                act()
                begun_s = time.monotonic()
                said = "nothing"
                while len(ready.get_map()):
                    for key, _ in ready.select(0.1):
                        connection = key.data
                        body = connection.take()
                        if body is None:
                            continue
                        said = _status(body)
                        now_s = time.monotonic() - begun_s
                        if said == status.name:
                            # Asked no more: the others have the more of the processor.
                            ready.unregister(connection.socket)
                            waiting.discard(connection)
                            answered_s = max(answered_s, now_s)
                        else:
                            outdated_s = max(outdated_s, now_s)
                            self._ask(connection, certificate)
                    if waiting and time.monotonic() - begun_s > self._timeout_s:
                        raise ProbeFailed(
                            f"still {said} instead of {status.name} after {self._timeout_s:g} s"
                        )
            except (OSError, ValueError) as exc:
                raise self._failed(exc) from exc
        return Spread(answered_s, outdated_s)

    def _ask(self, connection: _Connection, certificate: x509.Certificate) -> None:
        builder = ocsp.OCSPRequestBuilder().add_certificate(certificate, self._ca, hashes.SHA256())
        if self._nonces:
            nonce = x509.OCSPNonce(secrets.token_bytes(_NONCE_OCTETS))
            builder = builder.add_extension(nonce, critical=False)
        body = builder.build().public_bytes(serialization.Encoding.DER)
        connection.socket.sendall(b"%b%d\r\n\r\n%b" % (self._head, len(body), body))

    def _failed(self, exc: Exception) -> ProbeFailed:
        return ProbeFailed(f"no answer from {self._address[0]}:{self._address[1]}: {exc!r}")

    def _close(self) -> None:
        for connection in self._connections:
            connection.socket.close()


def _status(body: bytes) -> str:
    """Return the certificate's status by name, or what the responder says instead.  Raises: ValueError."""
    response = ocsp.load_der_ocsp_response(body)
    if response.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
        return response.response_status.name
    return response.certificate_status.name
