"""Load tests of the status-check path, for us and for operators; ``bench/README.md`` explains them.

    python -m locust -f bench/locustfile.py --host http://responder:8080 --population DIR NationalMix

Each class below is one scenario; name those to run, or none for the national mix.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import gevent
from locust import User, constant_throughput, events, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.exception import StopUser

from bench.lots import Lot
from bench.national_mix import STATUS_REQUESTS, Shape
from bench.objectives import Objectives, judge
from bench.population import Population
from bench.prepared import Form
from bench.raw_connection import BrokenAnswer, RawConnection
from bench.raw_user import StatusUser, Target, WrongAnswer
from bench.revoked_meanwhile import RevokedMeanwhile

_GET = Form("GET")
_NONCE = Form("POST", nonce=True)


@events.init_command_line_parser.add_listener
def _arguments(parser: LocustArgumentParser) -> None:
    parser.add_argument("--population", default="var/dev/demo/auth", help="folder of the population")
    parser.add_argument("--revoked-log", default="", help="file that a revoking process appends to")
    parser.add_argument("--p99-ms", type=float, default=50.0, help="objective: p99 of the response times")
    parser.add_argument("--failures-max", type=int, default=0, help="objective: wrong or missing answers")
    parser.add_argument("--rate-min", type=float, default=0.0, help="objective: requests a second at least")
    parser.add_argument("--rate", type=float, default=0.0, help="requests a second of MorningPeak at its top")


@events.init.add_listener
def _load(environment: Environment, **_: Any) -> None:  # noqa: ANN401
    options = environment.parsed_options
    if options is None or not environment.host:
        raise SystemExit("say whom to load: --host http://HOST:PORT")
    where = urlsplit(environment.host)
    if where.scheme != "http" or where.hostname is None:
        raise SystemExit(f"--host {environment.host}: expected http://HOST[:PORT]")
    try:
        population = Population.load(Path(options.population))
    except ValueError as exc:
        raise SystemExit(str(exc)) from exc
    log = RevokedMeanwhile(Path(options.revoked_log) if options.revoked_log else None)
    StatusUser.target = Target(population, where.hostname, where.port or 80, log)
    gevent.spawn(_follow, log)
    if not options.user_classes:
        environment.user_classes = [NationalMix]


def _follow(log: RevokedMeanwhile) -> None:
    while True:
        log.read()
        gevent.sleep(0.05)


@events.quitting.add_listener
def _summary(environment: Environment, **_: Any) -> None:  # noqa: ANN401
    options = environment.parsed_options
    if options is None or getattr(options, "worker", False):
        return
    verdict = judge(environment.stats, Objectives(options.p99_ms, options.failures_max, options.rate_min))
    print(verdict.text)
    environment.process_exit_code = 0 if verdict.passed else 1


class NationalMix(StatusUser):
    """Any certificate as likely as any other: what a national service sees."""

    shapes = STATUS_REQUESTS

    @task
    def turn(self) -> None:
        """Ask a lot."""
        self.ask_a_lot()


class ZipfMix(StatusUser):
    """The same shapes, a few certificates asked for most: flatters every cache; beside the mix only."""

    shapes = STATUS_REQUESTS

    def choose(self) -> Iterator[tuple[bytes, str]]:
        """Few certificates most of the time."""
        return self.target.population.zipf(self.chance)

    @task
    def turn(self) -> None:
        """Ask a lot."""
        self.ask_a_lot()


class Repeated(StatusUser):
    """One certificate, GET, over and over: the cheapest path, and how fast the generator is."""

    shapes = (Shape("GET, one certificate", 1.0, _GET),)

    def choose(self) -> Iterator[tuple[bytes, str]]:
        """The first certificate for ever."""
        return itertools.repeat(self.target.population.members.member(0))

    @task
    def turn(self) -> None:
        """Ask a lot."""
        self.ask_a_lot()


class Cold(StatusUser):
    """Every request with a nonce: each answer is signed."""

    shapes = (Shape("nonce", 1.0, _NONCE),)

    @task
    def turn(self) -> None:
        """Ask a lot."""
        self.ask_a_lot()


class NotEntitled(StatusUser):
    """An asker that is not registered, or suspended: every answer must be unauthorized."""

    shapes = STATUS_REQUESTS[:2]
    expected_error = "unauthorized"

    @task
    def turn(self) -> None:
        """Ask a lot."""
        self.ask_a_lot()


class MorningPeak(StatusUser):
    """A given rate, spread over users: ``--rate`` a second in all, or 10 a second for each user."""

    shapes = STATUS_REQUESTS
    wait_time = constant_throughput(10)

    @task
    def one(self) -> None:
        """Ask once."""
        self._ask(self.chance.choices(range(len(self.shapes)), self.weights)[0])
        self._flush()


class CRLPull(User):
    """A relying party that keeps complete and delta CRL current by conditional requests."""

    wait_time = constant_throughput(1)
    paths = tuple(
        os.environ.get("BENCH_CRLS", "/crl/auth/g1/all/complete.crl /crl/auth/g1/all/delta.crl").split()
    )

    def on_start(self) -> None:
        """Know nothing yet."""
        self.chance = random.Random()
        target = StatusUser.target
        self.host_line = f"Host: {target.host}:{target.port}\r\n".encode("ascii")
        self.connection = RawConnection(target.host, target.port)
        self.etags: dict[str, bytes] = {}
        self.lots = {200: Lot("GET", "CRL"), 304: Lot("GET", "CRL, not modified")}

    def on_stop(self) -> None:
        """Leave nothing open."""
        self.connection.close()

    @task
    def pull(self) -> None:
        """Fetch each CRL, unless it is the one at hand."""
        for path in self.paths:
            self._pull(path)
        for lot in self.lots.values():
            lot.flush(self.environment.stats)

    def _pull(self, path: str) -> None:
        etag = self.etags.get(path)
        condition = b"" if etag is None else b"If-None-Match: " + etag + b"\r\n"
        request = b"GET %b HTTP/1.1\r\n%b%b\r\n" % (path.encode("ascii"), self.host_line, condition)
        begun = gevent.get_hub().loop.now()
        try:
            status, head, body = self.connection.ask(request)
        except (OSError, BrokenAnswer) as exc:
            self._fail(path, exc)
            gevent.sleep(0.5)
            return
        if status not in self.lots:
            self._fail(path, WrongAnswer(f"HTTP {status}"))
            if status in (401, 403):
                raise StopUser
            return
        self.lots[status].add((gevent.get_hub().loop.now() - begun) * 1000, len(body))
        at = head.find(b"\r\nETag: ")
        if status == 200 and at >= 0:
            self.etags[path] = head[at + 8 : head.index(b"\r", at + 8)]

    def _fail(self, path: str, exc: Exception) -> None:
        self.environment.events.request.fire(
            request_type="GET",
            name=f"{path}: FAILED",
            response_time=0,
            response_length=0,
            exception=exc,
            context={},
        )
