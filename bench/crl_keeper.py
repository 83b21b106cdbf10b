"""A relying party that keeps CRLs current by conditional requests, and looks at what it gets.

Each CRL that comes is verified once per process: signature, time, a number that never falls.  304
is right only about the CRL at hand, and only while that may still be used.
Knows: pulling and judging.  Does not know: when.
Source: RFC 5280 §5.2.3 (number), §5.1.2.5 (nextUpdate); RFC 9110 §13.1.2 (If-None-Match).
"""

from __future__ import annotations

import hashlib
import time
from datetime import UTC, datetime
from typing import NamedTuple

from cryptography import x509
from locust.stats import RequestStats

from bench.lots import Lot
from bench.raw_connection import BrokenAnswer, RawConnection
from bench.raw_user import SKEW, Flaw, Target, lost

_PAUSE_S = 0.5


class _Facts(NamedTuple):
    number: int
    next_update: datetime | None


class _AtHand(NamedTuple):
    etag: bytes
    facts: _Facts


# What this process has verified, by the SHA-256 of the file: many users get the same one.
_verified: dict[bytes, _Facts] = {}


class CRLKeeper:
    """The CRLs of one relying party, and its connection."""

    def __init__(self, target: Target, scenario: str, stats: RequestStats) -> None:
        self._target = target
        self._scenario = scenario
        self._stats = stats
        self._at_hand: dict[str, _AtHand] = {}
        self._lots: dict[str, Lot] = {}
        self.connection = RawConnection(target.place)

    def pull(self, path: str) -> None:
        """Fetch the CRL at *path*, unless it is the one at hand."""
        target, known = self._target, self._at_hand.get(path)
        condition = b"" if known is None else b"If-None-Match: " + known.etag + b"\r\n"
        request = f"GET {path} HTTP/1.1\r\nHost: {target.place.host_header}\r\n".encode("ascii")
        request += condition + b"\r\n"
        begun = time.perf_counter()
        try:
            status, head, body = self.connection.ask(request)
        except (OSError, BrokenAnswer) as exc:
            self._count(path, lost(exc), begun, 0, request)
            time.sleep(_PAUSE_S)
            return
        if status == 304:
            flaw = self._not_modified(known)
            target.findings.not_modified += 1
        elif status == 200:
            flaw = self._take(path, known, head, body)
            target.findings.crls += 1
        else:
            flaw = Flaw(False, f"HTTP {status}")
        name = f"{path}, not modified" if status == 304 else path
        self._count(name, flaw, begun, len(body), request, head)

    def flush(self) -> None:
        """Put what has been counted into the statistics."""
        for lot in self._lots.values():
            lot.flush(self._stats)

    def _not_modified(self, known: _AtHand | None) -> Flaw | None:
        if known is None:
            return Flaw(True, "304 for one who has nothing")
        until = known.facts.next_update
        if until is not None and until < datetime.now(UTC) - SKEW:
            return Flaw(True, "304 although the CRL at hand is past its nextUpdate")
        return None

    def _take(self, path: str, known: _AtHand | None, head: bytes, body: bytes) -> Flaw | None:
        digest = hashlib.sha256(body).digest()
        facts = _verified.get(digest)
        if facts is None:
            try:
                facts = _verified[digest] = _facts_of(body, self._target.population.ca)
            except ValueError as exc:
                return Flaw(True, f"not verified: {exc}")
            self._target.findings.verified += 1
        if facts.next_update is not None and facts.next_update < datetime.now(UTC) - SKEW:
            return Flaw(True, "its nextUpdate has passed")
        if known is not None and facts.number < known.facts.number:
            return Flaw(True, "its number is lower than that of the one before")
        at = head.find(b"\r\nETag: ")
        if at >= 0:
            self._at_hand[path] = _AtHand(head[at + 8 : head.index(b"\r", at + 8)], facts)
        return None

    def _count(
        self, name: str, flaw: Flaw | None, begun: float, size: int, request: bytes, answer: bytes = b""
    ) -> None:
        name = f"{self._scenario}: {name}"
        lot = self._lots.setdefault(name, Lot("GET", name))
        lot.add((time.perf_counter() - begun) * 1000, size)
        if flaw is not None:
            self._target.findings.flaw(flaw.wrong, name, flaw.what, request, answer)
            self._stats.log_error("GET", name, f"{'wrong' if flaw.wrong else 'missing'}: {flaw.what}")


def _facts_of(body: bytes, ca: x509.Certificate) -> _Facts:
    """Verify a CRL.  Raises: ValueError — not one of this CA's."""
    crl = x509.load_der_x509_crl(body)
    if crl.issuer != ca.subject:
        raise ValueError("a CRL of another issuer")
    if not crl.is_signature_valid(ca.public_key()):  # type: ignore[arg-type]
        raise ValueError("the signature is wrong")
    if crl.last_update_utc > datetime.now(UTC) + SKEW:
        raise ValueError("its thisUpdate lies in the future")
    try:
        number = crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    except x509.ExtensionNotFound as exc:
        raise ValueError("a CRL without a number") from exc
    return _Facts(number, crl.next_update_utc)
