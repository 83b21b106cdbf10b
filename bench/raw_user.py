"""A locust user for status checks: prepared raw requests, every answer checked, counted by the lot.

A user's turn is a lot of requests on one persistent connection (a new one each time where the
form says ``close``).  Each answer's status is held against the population, a sample's signature
against the issuer; an answer that is wrong is a failure with its own name, never a mere number.
Knows: asking and judging.  Does not know: which certificates or shapes a scenario wants.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from locust import User

from bench.answers import status_of, verify
from bench.lots import Lot
from bench.national_mix import Shape
from bench.population import GOOD, REVOKED, Population
from bench.prepared import Preparer
from bench.raw_connection import BrokenAnswer, RawConnection
from bench.revoked_meanwhile import RevokedMeanwhile

LOT = 64
# Of how many answers one is verified down to the signature: about 150 µs each.
VERIFY_ONE_IN = 500


class WrongAnswer(Exception):
    """An answer that was not the right one: the reason why this tool checks at all."""


@dataclass(slots=True)
class Target:
    """What all users of a process share: the population and what was revoked since it was written."""

    population: Population
    host: str
    port: int
    revoked: RevokedMeanwhile = field(default_factory=RevokedMeanwhile)


class StatusUser(User):
    """Asks as its scenario's *shapes* say.  A subclass sets ``target`` and ``shapes``."""

    abstract = True
    target: Target
    shapes: Sequence[Shape] = ()
    expected_error: str | None = None

    def on_start(self) -> None:
        """Prepare what this user sends."""
        self.chance = random.Random()
        self.members = self.choose()
        host = f"{self.target.host}:{self.target.port}"
        self.preparers = [Preparer(shape.form, self.target.population.ca, host) for shape in self.shapes]
        self.lots = [Lot(shape.form.method, shape.name) for shape in self.shapes]
        self.weights = [shape.share for shape in self.shapes]
        self.connection = RawConnection(self.target.host, self.target.port)

    def on_stop(self) -> None:
        """Leave nothing open and nothing uncounted."""
        self._flush()
        self.connection.close()

    def choose(self) -> Iterator[tuple[bytes, str]]:
        """Yield the certificates to ask about; uniformly, unless a subclass says otherwise."""
        return self.target.population.uniform(self.chance)

    def ask_a_lot(self) -> None:
        """Send LOT requests, one after the other, and put them into the statistics."""
        for at in self.chance.choices(range(len(self.shapes)), self.weights, k=LOT):
            self._ask(at)
        self._flush()

    def _flush(self) -> None:
        for lot in self.lots:
            lot.flush(self.environment.stats)

    def _ask(self, at: int) -> None:
        shape = self.shapes[at]
        asked = [next(self.members) for _ in range(shape.certificates)]
        request = self.preparers[at].http([serial for serial, _ in asked])
        begun = time.perf_counter()
        try:
            status, _, body = self.connection.ask(request)
        except (OSError, BrokenAnswer) as exc:
            self._fail(at, exc, begun)
            # A server that is away is not asked as fast as one can fail.
            time.sleep(0.1)
            return
        self.lots[at].add((time.perf_counter() - begun) * 1000, len(body))
        if status != 200:
            self._fail(at, WrongAnswer(f"HTTP {status}"), begun)
        elif (wrong := self._wrong(body, asked, begun)) is not None:
            self._fail(at, WrongAnswer(wrong), begun)

    def _wrong(self, body: bytes, asked: Sequence[tuple[bytes, str]], begun: float) -> str | None:
        """Return what is wrong with an answer, or None."""
        for serial, expected in asked:
            status = status_of(body, serial)
            if status == (self.expected_error or expected):
                continue
            if status == REVOKED and expected == GOOD and self.target.revoked.may_be(serial):
                continue
            return f"{status} instead of {self.expected_error or expected}"
        for serial, _ in asked:
            if self.target.revoked.is_since_before(serial, begun) and status_of(body, serial) == GOOD:
                return "good although its revocation was acknowledged before the question"
        if self.expected_error is None and self.chance.random() * VERIFY_ONE_IN < 1:
            try:
                verify(body, self.target.population.ca)
            except ValueError as exc:
                return f"not verified: {exc}"
        return None

    def _fail(self, at: int, exc: Exception, begun: float) -> None:
        self.environment.events.request.fire(
            request_type=self.shapes[at].form.method,
            name=f"{self.shapes[at].name}: FAILED",
            response_time=(time.perf_counter() - begun) * 1000,
            response_length=0,
            exception=exc,
            context={},
        )
