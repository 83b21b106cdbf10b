"""A locust user for status checks: prepared raw requests, every answer checked, counted by the lot.

A user's turn is a lot of requests on one persistent connection (a new one each time where the
form keeps none).  Each answer is held against the population, the nonce and the clock, a sample's
signature against the issuer.  An answer is *wrong* if it says what is not so, *missing* if it says
nothing (an OCSP error, an HTTP status, a lost connection): both are failures, of two kinds.
Knows: asking and judging.  Does not know: which certificates or shapes a scenario wants.
"""

from __future__ import annotations

import random
import time
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import ClassVar, NamedTuple, Protocol

from locust import User

from bench.answers import Said, error_of, said_of, time_octets, verify
from bench.findings import Findings
from bench.lots import Lot
from bench.national_mix import Shape
from bench.population import GOOD, REVOKED, Population
from bench.prepared import Preparer, Question
from bench.raw_connection import BrokenAnswer, Place, RawConnection
from bench.revoked_meanwhile import RevokedMeanwhile

LOT = 64
# Statistics wait for no slow lot.
_FLUSH_S = 0.25
# After a lost connection: a server that is away is not asked as fast as one can fail.
_PAUSE_S = 0.1
# How far the clocks of this machine and the responder may be apart.
SKEW = timedelta(seconds=5)
GOOD_AFTER_ALL = "good although its revocation had been acknowledged before the question"
_NONCE_OID = bytes.fromhex("06092b0601050507300102")
_TYPE = b"\r\nContent-Type: application/ocsp-response\r\n"


class Flaw(NamedTuple):
    """Why an answer is a failure.  ``wrong``: it says what is not so; otherwise it is missing."""

    wrong: bool
    what: str


class Asks(Protocol):
    """Makes requests of one form."""

    issuer: bytes
    keeps: bool

    def question(self, serials: Sequence[bytes]) -> Question:
        """Return a request about *serials*."""
        ...


class Watched(Protocol):
    """Has a connection on which an answer may be overdue."""

    def give_up_if_overdue(self, now_s: float) -> None:
        """End a connection whose answer has been due for too long."""


@dataclass(slots=True)
class Target:
    """What all users of a process share.

    unknown_answer  what a number that was never issued is answered
    nonce_optional  an answer without the nonce is right, too
    verify_one_in   of so many answers one is verified down to its signature
    crls            paths of the CRLs to be kept current
    """

    population: Population
    place: Place
    path: str = "/ocsp"
    revoked: RevokedMeanwhile = field(default_factory=RevokedMeanwhile)
    findings: Findings = field(default_factory=Findings)
    unknown_answer: str = "unknown"
    nonce_optional: bool = False
    verify_one_in: float = 500.0
    crls: tuple[str, ...] = ()
    begun_s: float = 0.0
    latest_this: bytes = b"9"
    earliest_next: bytes = b"0"
    connections: weakref.WeakSet[Watched] = field(default_factory=weakref.WeakSet)

    def tick(self) -> list[bytes]:
        """Take in what happened meanwhile: the time, and revocations.

        Returns: serial numbers that were answered good after the acknowledgement of their revocation.
        """
        now = datetime.now(UTC)
        self.latest_this, self.earliest_next = time_octets(now + SKEW), time_octets(now - SKEW)
        return self.revoked.read()


class StatusUser(User):
    """Asks as its scenario's *shapes* say.  A subclass sets ``shapes``; ``target`` is set for all."""

    abstract = True
    target: ClassVar[Target]
    shapes: ClassVar[Sequence[Shape]] = ()
    expected_error: ClassVar[str | None] = None

    def on_start(self) -> None:
        """Prepare what this user sends."""
        self.chance = random.Random()
        self.scenario = type(self).__name__
        self.members = self.choose()
        self.connection = RawConnection(self.target.place)
        self.target.connections.add(self)
        self.lots: list[Lot] = []
        self.preparers: list[Asks] = []
        self.prepare()
        self.asked = 0

    def prepare(self) -> None:
        """Make a preparer and a lot for each shape."""
        target = self.target
        for shape in self.shapes:
            self.preparers.append(
                Preparer(shape.form, target.population.ca, target.place.host_header, target.path)
            )
            self.lots.append(Lot(shape.form.method, f"{self.scenario}: {shape.name}"))
        self.weights = [shape.share for shape in self.shapes]
        self.certificates = [shape.certificates for shape in self.shapes]

    def on_stop(self) -> None:
        """Leave nothing open and nothing uncounted."""
        self.flush()
        self.connection.close()

    def give_up_if_overdue(self, now_s: float) -> None:
        """End a connection whose answer has been due for too long."""
        self.connection.give_up_if_overdue(now_s)

    def choose(self) -> Iterator[tuple[bytes, str]]:
        """Yield the certificates to ask about; uniformly, unless a subclass says otherwise."""
        return self.target.population.uniform(self.chance)

    def ask_a_lot(self) -> None:
        """Send up to LOT requests, one after the other, and put them into the statistics."""
        until_s = time.perf_counter() + _FLUSH_S
        self.asked = 0
        for at in self.chance.choices(range(len(self.preparers)), self.weights, k=LOT):
            self.asked += 1
            if self.ask(at) > until_s:
                break
        self.flush()

    def flush(self) -> None:
        """Put what has been counted into the statistics."""
        for lot in self.lots:
            lot.flush(self.environment.stats)

    def ask(self, at: int, due_s: float | None = None) -> float:
        """Ask once in the form of shape *at*, judge and count the answer; return the time after it.

        *due_s*: when the question was due, if that was earlier: its response time counts from then.
        """
        preparer, lot, findings = self.preparers[at], self.lots[at], self.target.findings
        members, count = self.members, self.certificates[at]
        asked = [next(members)] if count == 1 else [next(members) for _ in range(count)]
        question = preparer.question([serial for serial, _ in asked])
        first, second, nonce = question
        begun = time.perf_counter()
        try:
            status, head, body = self.connection.ask(first, second, keeps=preparer.keeps)
        except (OSError, BrokenAnswer) as exc:
            now = time.perf_counter()
            lot.add((now - (due_s or begun)) * 1000, 0)
            self._count(lot, lost(exc), first + second)
            time.sleep(_PAUSE_S)
            return now
        now = time.perf_counter()
        lot.add((now - (due_s or begun)) * 1000, len(body))
        findings.answers += 1
        findings.certificates += count
        if status != 200 or len(body) == 5 or self.expected_error:
            flaw = self._no_answer(status, body)
        elif _TYPE not in head and _TYPE.lower() not in head.lower():
            flaw = Flaw(True, "not of type application/ocsp-response")
        else:
            flaw = self._flaw(body, asked, preparer.issuer, nonce, begun)
        if flaw is not None:
            self._count(lot, flaw, first + second, head + body)
        return now

    def _no_answer(self, status: int, body: bytes) -> Flaw | None:
        """Judge what is not a plain answer."""
        error = error_of(body)
        if self.expected_error is not None:
            if error == self.expected_error or status == 403:
                return None
            if status == 200 and error is None:
                return Flaw(True, f"an answer for one who must be told {self.expected_error}")
        if error is not None:
            return Flaw(False, error)
        return Flaw(False, f"HTTP {status}")

    def _flaw(
        self, body: bytes, asked: Sequence[tuple[bytes, str]], issuer: bytes, nonce: bytes, begun: float
    ) -> Flaw | None:
        """Return what is wrong with an answer, or None."""
        target = self.target
        for serial, expected in asked:
            said = said_of(body, issuer, serial)
            status, this_update, next_update = said
            if status != expected and not (
                status == REVOKED and expected == GOOD and target.revoked.may_be(serial)
            ):
                return _status_flaw(said, expected)
            if this_update > target.latest_this:
                return Flaw(True, "its thisUpdate lies in the future")
            if next_update and next_update < target.earliest_next:
                return Flaw(True, "its nextUpdate has passed")
            if status == GOOD:
                if target.revoked.is_since_before(serial, begun):
                    return Flaw(True, GOOD_AFTER_ALL)
                target.revoked.answered_good(serial, begun)
        if nonce and nonce not in body:
            if _NONCE_OID in body:
                return Flaw(True, "with another nonce")
            if not target.nonce_optional:
                return Flaw(False, "without the nonce")
        if self.chance.random() * target.verify_one_in < 1:
            target.findings.verified += 1
            try:
                verify(body, target.population.ca)
            except ValueError as exc:
                return Flaw(True, f"not verified: {exc}")
        return None

    def _count(self, lot: Lot, flaw: Flaw, request: bytes, answer: bytes = b"") -> None:
        self.target.findings.flaw(flaw.wrong, lot.name, flaw.what, request, answer)
        kind = "wrong" if flaw.wrong else "missing"
        self.environment.stats.log_error(lot.method, lot.name, f"{kind}: {flaw.what}")


def lost(exc: OSError | BrokenAnswer) -> Flaw:
    """Return the failure that a lost connection is."""
    return Flaw(False, getattr(exc, "strerror", None) or str(exc))


def _status_flaw(said: Said, expected: str) -> Flaw:
    if not said.this_update:
        return Flaw(True, said.status)
    return Flaw(True, f"{said.status} instead of {expected}")
