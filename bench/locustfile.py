"""Load tests of the status-check path, for us and for operators; ``bench/README.md`` explains them.

    python -m locust -f bench/locustfile.py --host http://responder:8080 --population DIR NationalMix

Each class below is one scenario; name those to run, or none for the national mix.
Knows: the scenarios.  Does not know: options, start and end of a run (``load_run``).
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import ClassVar

from locust import User, constant_throughput, task

from bench.crl_keeper import CRLKeeper
from bench.load_run import listen
from bench.lots import Lot
from bench.morning_peak import Due
from bench.national_mix import CRL_PULLS, STATUS_REQUESTS, Shape
from bench.prepared import Form
from bench.raw_user import StatusUser, Target
from bench.real_clients import ClientPreparer, real_clients

_GET = Form("GET")
_NONCE = Form("POST", nonce=True)


class NationalMix(StatusUser):
    """Any certificate as likely as any other, in stated shares: what a national service sees."""

    shapes = STATUS_REQUESTS

    def prepare(self) -> None:
        """The CRLs are pulled on the side."""
        super().prepare()
        self.keeper = CRLKeeper(self.target, self.scenario, self.environment.stats)
        paths = self.target.crls
        self.pulls = [next((path for path in paths if pull.kind in path), None) for pull in CRL_PULLS]
        self.pull_shares = [pull.share for pull in CRL_PULLS]

    @task
    def turn(self) -> None:
        """Ask a lot, and now and then for a CRL."""
        self.ask_a_lot()
        for path, share in zip(self.pulls, self.pull_shares, strict=True):
            if path is not None and self.chance.random() < share * self.asked:
                self.keeper.pull(path)
        self.keeper.flush()

    def give_up_if_overdue(self, now_s: float) -> None:
        """Both connections."""
        super().give_up_if_overdue(now_s)
        self.keeper.connection.give_up_if_overdue(now_s)

    def on_stop(self) -> None:
        """Both connections."""
        super().on_stop()
        self.keeper.flush()
        self.keeper.connection.close()


class ZipfMix(NationalMix):
    """The same shapes, a few certificates asked for most: flatters every cache; beside the mix only."""

    def choose(self) -> Iterator[tuple[bytes, str]]:
        """Few certificates most of the time."""
        return self.target.population.zipf(self.chance)


class RealClients(StatusUser):
    """Octet for octet what openssl, the JDK, NSS, nginx and others send, each as often as any other."""

    def prepare(self) -> None:
        """Each recorded way to ask is a shape."""
        target = self.target
        for client in real_clients():
            place = target.place
            self.preparers.append(
                ClientPreparer(client, target.population.ca, place.host, place.port, target.path)
            )
            self.lots.append(Lot(client.method, f"{self.scenario}: {client.name}"))
        self.weights = [1.0] * len(self.lots)
        self.certificates = [1] * len(self.lots)

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


class Unknown(StatusUser):
    """Serial numbers that were never issued, always new ones: as somebody sends who floods caches."""

    shapes = STATUS_REQUESTS[:2]

    def choose(self) -> Iterator[tuple[bytes, str]]:
        """Random numbers, with a length and a first octet that no issued one has."""
        expected, chance = self.target.unknown_answer, self.chance
        return ((b"\x01" + chance.randbytes(14), expected) for _ in itertools.repeat(None))

    @task
    def turn(self) -> None:
        """Ask a lot."""
        self.ask_a_lot()


class NotEntitled(StatusUser):
    """An asker that is not registered, or not any more (``--source``): every answer must be unauthorized."""

    shapes = STATUS_REQUESTS[:2]
    expected_error: ClassVar[str | None] = "unauthorized"

    @task
    def turn(self) -> None:
        """Ask a lot."""
        self.ask_a_lot()


class MorningPeak(StatusUser):
    """From the mean to the peak of a nation's morning and back, each answer signed for its nonce.

    A question is asked when it is due, however slow the answers are, and its time counts from then.
    """

    shapes = (Shape("nonce", 1.0, _NONCE),)

    def prepare(self) -> None:
        """Make the timetable."""
        super().prepare()
        options = self.environment.parsed_options
        users = max(1, options.peak_users // len(self.environment.user_classes))
        self.due = Due(options.peak_seconds, options.peak_scale, users, self.chance.random())
        self.flushed_s = 0.0

    @task
    def one(self) -> None:
        """Wait until a question is due, and ask it."""
        due_s = self.target.begun_s + self.due.next_s()
        if (ahead_s := due_s - time.perf_counter()) > 0:
            time.sleep(ahead_s)
        now_s = self.ask(0, due_s)
        if now_s - self.flushed_s > 0.25:
            self.flushed_s = now_s
            self.flush()


class CRLPull(User):
    """A relying party that keeps complete and delta CRL current by conditional requests, every second."""

    target: ClassVar[Target]
    wait_time = constant_throughput(1)

    def on_start(self) -> None:
        """Know nothing yet."""
        self.target = StatusUser.target  # type: ignore[misc]
        self.keeper = CRLKeeper(self.target, type(self).__name__, self.environment.stats)
        self.target.connections.add(self.keeper.connection)

    def on_stop(self) -> None:
        """Leave nothing open."""
        self.keeper.flush()
        self.keeper.connection.close()

    @task
    def pull(self) -> None:
        """Fetch each CRL, unless it is the one at hand."""
        for path in self.target.crls:
            self.keeper.pull(path)
        self.keeper.flush()


listen(NationalMix, NotEntitled, CRLPull)
