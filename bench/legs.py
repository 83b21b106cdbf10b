"""The measurements that rows are made of, each ready to be taken once in every round.

Before and after each, some answers are checked; what the subject answered must have been counted.
Knows: putting requests, generator, checks and counters together.
Does not know: which servers, which rows.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from bench.generator import Load, Requests, Tls, write_requests
from bench.meanwhile import CRLPulls, Revocations
from bench.measure import Measured, Timing, run, wait_for_sent
from bench.national_mix import CRL_PULLS
from bench.questions import Questions, WrongAnswer
from bench.server import Server, nobody_answers
from bench.signature_speed import signature_us
from bench.subject import Subject
from bench.tally import Tally, check_counted

# So many times as many requests are prepared as the server could take the last time.
_RESERVE = 2.0
_BESIDE_S = 0.4
# The first time nobody knows: more than there can be of answers from memory, and of signed ones.
PER_S_REPEATED = 100_000.0
PER_S_SIGNED = 25_000.0
PER_S_SIGNED_SLOWLY = 8_000.0
# CRLs are replaced minutes apart, and a measurement of their pulls takes seconds.
_PULLS_TRIED_MAX = 3
# Connections of the generator that waits: as many as in the rows with signatures.
_UNANSWERED = 64

Make = Callable[[Path, int], Requests]


class Leg(Protocol):
    """Something that is measured once in every round."""

    def take(self) -> Measured:
        """Measure.

        Raises: RuntimeError, WrongAnswer, NotCounted — then there is nothing to be measured.
        """


@dataclass(frozen=True, slots=True)
class Bench:
    """What all measurements share: a folder for files, the generator's processor, the timing."""

    folder: Path
    processor: int
    timing: Timing

    def enough(self, per_s: float, connections: int) -> int:
        """Return how many requests to prepare for a server that answers *per_s* a second."""
        timing = self.timing
        return int(per_s * _RESERVE * (timing.settle_s + timing.seconds + _BESIDE_S)) + 2 * connections


@dataclass(slots=True)
class LoadLeg:
    """One kind of request to one server.

    make    writes the requests: (file, how many at least, unless they may be repeated)
    check   asks a few questions and looks at the answers
    """

    bench: Bench
    server: Server
    connections: int
    make: Make
    check: Callable[[], object]
    tally: Tally | None = None
    tls: Tls | None = None
    per_s: float = PER_S_REPEATED

    def take(self) -> Measured:
        """Measure."""
        bench = self.bench
        self.check()
        requests = self.make(bench.folder / "requests", bench.enough(self.per_s, self.connections))
        before = None if self.tally is None else self.tally.read()
        ran = run(
            bench.folder, self.server, requests, self.connections, bench.processor, bench.timing, self.tls
        )
        if self.tally is not None and before is not None:
            check_counted(before, self.tally.read(), requests, ran.sent, ran.said.requests)
        self.check()
        self.per_s = max(ran.measured.per_s, self.per_s / 2)
        return ran.measured


class Replaced(Exception):
    """What was asked for is not what it was when the measurement began."""


@dataclass(frozen=True, slots=True)
class PullsLeg:
    """CRLs pulled by those that have them: again, if one is replaced meanwhile and so sent whole.

    learn   finds out anew what there is
    load    asks for just that; its check raises ``Replaced``
    """

    learn: Callable[[], None]
    load: Leg

    def take(self) -> Measured:
        """Measure.

        Raises: WrongAnswer — CRLs are replaced faster than their pulls can be measured.
        """
        for _ in range(_PULLS_TRIED_MAX):
            self.learn()
            try:
                return self.load.take()
            except Replaced:
                continue
        raise WrongAnswer("a CRL is replaced each time that its pulls are measured")


@dataclass(frozen=True, slots=True)
class BesideLeg:
    """What *alone* measures, with something else on the server's processor."""

    alone: Leg
    other: AbstractContextManager[object]

    def take(self) -> Measured:
        """Measure."""
        with self.other:
            return self.alone.take()


@dataclass(slots=True)
class MixLeg:
    """The national mix, with CRL pulls and revocations beside it; a pull counts as a request."""

    bench: Bench
    subject: Subject
    connections: int
    questions: Questions
    tally: Tally
    revocations: Revocations
    per_s: float = PER_S_SIGNED

    def take(self) -> Measured:
        """Measure."""
        bench, subject = self.bench, self.subject
        self.questions.check(subject.port, revoked=self.revocations.log)
        count = bench.enough(self.per_s, self.connections)
        requests = self.questions.prepare(bench.folder / "requests", count)
        before, signed = self.tally.read(), subject.signatures()
        pulls: list[CRLPulls] = []

        def pulling(load: Load) -> AbstractContextManager[object]:
            pulls.append(CRLPulls(subject.port, load.sent))
            return pulls[-1]

        with self.revocations:
            ran = run(
                bench.folder,
                subject,
                requests,
                self.connections,
                bench.processor,
                bench.timing,
                beside=pulling,
            )
        check_counted(before, self.tally.read(), requests, ran.sent, ran.said.requests)
        signed = subject.signatures() - signed
        self.questions.check(subject.port, revoked=self.revocations.log)
        if pulls[0].failures or not pulls[0].pulled:
            raise RuntimeError(f"{pulls[0].pulled} CRLs were pulled; {pulls[0].failures[:3]}")
        self.per_s = max(ran.measured.per_s, self.per_s / 2)
        others = 1 - sum(pull.share for pull in CRL_PULLS)
        return replace(
            ran.measured,
            us=ran.measured.us * others,
            per_s=ran.measured.per_s / others,
            signatures=signed / ran.said.requests * others,
            more={
                "hit_rate": max(0.0, 1 - signed / ran.said.requests),
                "signatures_per_request": signed / ran.said.requests * others,
                "crl_pulls": float(pulls[0].pulled),
            },
        )


@dataclass(frozen=True, slots=True)
class SignatureLeg:
    """One signature by OpenSSL itself, on *processor*, beside a generator that waits for answers.

    Where processors share a core or their host, whatever runs on the other one slows this one, and servers
    are never measured without the generator: RSA-2048 takes up to half as long again beside it.
    """

    bench: Bench
    algorithm: str
    processor: int

    def take(self) -> Measured:
        """Return the µs of one signature.

        Raises: RuntimeError — openssl did not say, or the generator could not send.
        """
        bench = self.bench
        request = b"GET / HTTP/1.1\r\nHost: nobody\r\n\r\n"
        requests = write_requests(bench.folder / "unanswered", [request], again=True)
        with (
            nobody_answers(_UNANSWERED) as port,
            Load(bench.folder, port, requests, _UNANSWERED, bench.processor) as load,
        ):
            wait_for_sent(load, _UNANSWERED)
            us = signature_us(self.algorithm, self.processor)
        return Measured(us, per_s=1e6 / us)
