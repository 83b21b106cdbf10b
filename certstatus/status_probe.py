"""How long it takes until every worker answers a new status, seen from outside.

The workers of a host share one port and the kernel deals connections out to them, so a worker
cannot be chosen; several times as many connections as there are workers reach all of them with
near certainty (32 over 2 workers miss one once in two thousand million times).
Knows: asking over and over on every connection, and when the last one changed its answer.
Does not know: who changes the status, or how.
Source: RFC 6960 §4.2.1 (CertStatus), A.1 (POST).
"""

from __future__ import annotations

import http.client
import time
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import ocsp

from certstatus.errors import ProbeFailed

_HEADERS = {"Content-Type": "application/ocsp-request"}


class StatusProbe:
    """Connections to one responder, for questions about certificates of one issuer."""

    def __init__(self, url: str, ca: x509.Certificate, connections: int, timeout_s: float = 10.0) -> None:
        """Raises: ProbeFailed — *url* is not http://HOST[:PORT]/PATH."""
        try:
            where = urlsplit(url)
            host, port = where.hostname, where.port
        except ValueError as exc:
            raise ProbeFailed(f"{url}: {exc}") from exc
        if where.scheme != "http" or host is None or port == 0:
            raise ProbeFailed(f"{url}: expected http://HOST[:PORT]/PATH")
        self._path = where.path or "/"
        self._ca = ca
        self._timeout_s = timeout_s
        self._connections = [
            http.client.HTTPConnection(host, port or 80, timeout=timeout_s) for _ in range(connections)
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        for connection in self._connections:
            connection.close()

    def wait_for(self, certificate: x509.Certificate, status: ocsp.OCSPCertStatus) -> float:
        """Ask until every connection has answered *status*; return the seconds that took.

        A connection that has answered so is not asked again.
        Raises: ProbeFailed — one never did within the time limit, or did not answer at all.
        """
        request = ocsp.OCSPRequestBuilder().add_certificate(certificate, self._ca, hashes.SHA256()).build()
        body = request.public_bytes(serialization.Encoding.DER)
        begun = time.monotonic()
        waiting = list(self._connections)
        said = ""
        while waiting:
            still = []
            for connection in waiting:
                said = self._ask(connection, body)
                if said != status.name:
                    still.append(connection)
            waiting = still
            if waiting and time.monotonic() - begun > self._timeout_s:
                raise ProbeFailed(f"still {said} instead of {status.name} after {self._timeout_s:g} s")
        return time.monotonic() - begun

    def _ask(self, connection: http.client.HTTPConnection, body: bytes) -> str:
        try:
            connection.request("POST", self._path, body, _HEADERS)
            answer = connection.getresponse().read()
            response = ocsp.load_der_ocsp_response(answer)
            if response.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
                return response.response_status.name
            return response.certificate_status.name
        except (OSError, http.client.HTTPException, ValueError) as exc:
            raise ProbeFailed(f"no answer from {connection.host}:{connection.port}: {exc!r}") from exc
