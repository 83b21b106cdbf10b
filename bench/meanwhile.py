"""What goes on beside the status requests of a nation: CRLs are pulled, certificates revoked.

Pulls have connections of their own, as a relying party that keeps a CRL current has, and go on in the
stated share of what is asked in all.  Revocations come at the stated rate from a process of its own
(``revoke_some``), each on record and acknowledged by the worker.
Knows: starting and stopping both.  Does not know: status requests.
"""

from __future__ import annotations

import http.client
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.national_mix import CRL_PULLS, REVOCATIONS_PER_S, Pull
from bench.revoked_meanwhile import RevokedMeanwhile

_LOOK_S = 0.005
_FIRST_REVOCATION_S = 20.0
CRL_PATHS = {"complete": "/crl/auth/g1/all/complete.crl", "delta": "/crl/auth/g1/all/delta.crl"}


def pull(connection: http.client.HTTPConnection, kind: str, etag: str) -> tuple[int, str]:
    """Fetch a CRL unless it is the one with *etag*; return (HTTP status, its ETag)."""
    connection.request("GET", CRL_PATHS[kind], headers={"If-None-Match": etag} if etag else {})
    answer = connection.getresponse()
    answer.read()
    return answer.status, answer.headers["ETag"] or ""


class CRLPulls:
    """Pulls CRLs while the context lasts, in their shares of what *sent* says is asked otherwise."""

    def __init__(self, port: int, sent: Callable[[], int], pulls: Sequence[Pull] = CRL_PULLS) -> None:
        self.pulled = 0
        self.failures: list[str] = []
        self._port = port
        self._sent = sent
        self._pulls = pulls
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._try, name="crl pulls")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _try(self) -> None:
        try:
            self._work()
        except (OSError, http.client.HTTPException) as exc:
            self.failures.append(repr(exc))

    def _work(self) -> None:
        others = 1 - sum(pull.share for pull in self._pulls)
        done = [0] * len(self._pulls)
        etags = [""] * len(self._pulls)
        with closing(http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)) as connection:
            while not self._stop.wait(_LOOK_S):
                sent = self._sent()
                for at, wanted in enumerate(self._pulls):
                    while done[at] < sent * wanted.share / others and not self._stop.is_set():
                        status, etags[at] = pull(connection, wanted.kind, etags[at])
                        if status not in (200, 304):
                            self.failures.append(f"{wanted.name}: HTTP {status}")
                        done[at] += 1
                        self.pulled += 1


class Revocations:
    """Certificates of *population* are revoked while the context lasts; ``log`` says which."""

    def __init__(self, config: Path, service: str, population: Path, log: Path, processor: int) -> None:
        self._file = log
        log.touch()
        self.log = RevokedMeanwhile(log)
        words = ["--config", config, "--service", service, "--population", population, "--log", log]
        words += ["--rate", REVOCATIONS_PER_S]
        self._command = ["taskset", "-c", str(processor), sys.executable, "-m", "bench.revoke_some"]
        self._command += map(str, words)

    def __enter__(self) -> Self:
        before = self.count()
        self._process = subprocess.Popen(self._command)
        until = time.monotonic() + _FIRST_REVOCATION_S
        while self.count() == before:
            if self._process.poll() is not None or time.monotonic() > until:
                self._process.kill()
                raise RuntimeError("nothing is revoked")
            time.sleep(0.02)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait()

    def count(self) -> int:
        """How many revocations have been acknowledged by now."""
        return self._file.read_bytes().count(b"!")
