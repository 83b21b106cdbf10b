"""Rows X: the store between publisher and workers is away, emptied, cut short or forged.

While it is so, every answer is the right one or tryLater; when it is well again, so are the answers.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import count
from typing import Any

import pytest
import redis
from demo_service import Service, service_of
from installation_watch import OpenWire
from request_octets import get
from served_installation import Served
from wire_client import Wire

from certstatus.beat import BEAT_BYTES
from certstatus.changes import ChangeKind, pack_change
from certstatus.private_valkey import socket_path

CONFIG = """
[installation]
state = "."

[index]
age_max_s = 3
beat_period_ms = 200
snapshot_changes_max = 100
snapshot_period_s = 1

[[issuer]]
service = "AUTH"
validity_good_s = 10
validity_revoked_s = 10
validity_unknown_s = 10
"""
AGE_MAX_S = 3.0
PATIENCE_S = 40.0
TRY_LATER = "o3"
PIECES = ["*:epoch", "*:stream", "*:doc:issuers:*", "*:doc:entitlements:*", "*:snap:*"]
RIGHT = ("good", "revoked", "unknown")


@pytest.fixture(scope="module")
def ill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """An installation to be mistreated, whose answers live for ten seconds."""
    installation = Served(tmp_path_factory.mktemp("ill"))
    try:
        installation.state.mkdir()
        installation.config.write_text(CONFIG)
        installation.run("init")
        installation.run("demo", "--population", "150")
        yield installation.serve()
    finally:
        installation.clean_up()


@pytest.fixture
def patient(open_wire: OpenWire, ill: Served) -> Patient:
    """It, well and with every piece in its store at the beginning of every test."""
    made = Patient(ill, open_wire(ill, same_workers=False))
    made.wait_well()
    made.wait_rebuilt()
    return made


class Patient:
    """The installation, its Valkey, and what it answers."""

    def __init__(self, served: Served, wire: Wire) -> None:
        self.served = served
        self.wire = wire
        self.auth: Service = service_of(served.state, "AUTH")
        # redis-py types every answer as "this, or an awaitable of this".
        self.valkey: Any = redis.Redis(unix_socket_path=str(socket_path(served.state)), socket_timeout=5)
        self._next = count()

    def ask(self) -> set[str]:
        """Ask about every kind of certificate; each answer is right, or tryLater as it should be said."""
        at = next(self._next)
        # Another good certificate each time, so that what is kept does not hide what is looked up.
        serials = (self.auth.good[at % len(self.auth.good)], self.auth.revoked[0], 7)
        words = set()
        for serial, right in zip(serials, RIGHT, strict=True):
            reply = self.wire.ask(get(self.auth.request(serial)))
            said = self.auth.read(reply)
            assert said.word in (right, TRY_LATER)
            if said.word == TRY_LATER:
                assert reply.header("Cache-Control") == "no-store"
                assert int(reply.header("Retry-After") or 0) > 0
            else:
                single = said.singles[0]
                assert single.serial == serial
                assert single.this_update <= datetime.now(UTC) < single.next_update
            words.add(said.word)
        return words

    def wait_well(self) -> None:
        """Wait until every worker gives the right answers."""
        until = time.monotonic() + PATIENCE_S
        in_a_row = 0
        while in_a_row < 6:
            assert time.monotonic() < until, self.served.logs()
            in_a_row = in_a_row + 1 if self.ask() == set(RIGHT) else 0

    def wait_rebuilt(self) -> None:
        """Wait until Valkey holds everything again."""
        until = time.monotonic() + PATIENCE_S
        while not all(self.valkey.keys(pattern) for pattern in PIECES):
            assert time.monotonic() < until, self.served.logs()
            time.sleep(0.05)

    def wait_try_later(self) -> None:
        """Wait until nothing but tryLater is answered."""
        until = time.monotonic() + PATIENCE_S
        in_a_row = 0
        while in_a_row < 6:
            assert time.monotonic() < until, self.served.logs()
            in_a_row = in_a_row + 1 if self.ask() == {TRY_LATER} else 0

    def watch(self, seconds: float) -> set[str]:
        """Ask for so long."""
        until = time.monotonic() + seconds
        words = set()
        while time.monotonic() < until:
            words |= self.ask()
        return words

    def restart_workers(self) -> None:
        """kill -9 all workers: those that come know nothing but what they are told now."""
        for pid in self.served.running()["worker"]:
            os.kill(pid, signal.SIGKILL)

    @contextmanager
    def stopped(self, role: str) -> Iterator[None]:
        """A process of *role* stands still."""
        pid = self.served.running()[role][0]
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def tamper(self, pattern: str, change: Callable[[bytes], bytes]) -> None:
        """Change the values of all such keys and start new workers, who find them so; then make it well."""
        changed = 0
        for key in self.valkey.keys(pattern):
            value = self.valkey.get(key)
            self.valkey.set(key, change(value))
            changed += change(value) != value
        assert changed
        for path in (self.served.state / "host" / "index").iterdir():
            path.unlink(missing_ok=True)
        self.restart_workers()
        self.watch(1)
        self.valkey.flushall()
        self.wait_well()

    def key(self, pattern: str) -> bytes:
        """The newest key of that kind."""
        found: list[bytes] = sorted(self.valkey.keys(pattern), key=lambda item: (len(item), item))
        return found[-1]


# --- away --------------------------------------------------------------------------------------------


@pytest.mark.row("X1", "P16")
def test_without_news_we_soon_say_try_later(patient: Patient) -> None:
    """Valkey stands still: right answers until they could be outdated, then tryLater, then right again."""
    with patient.stopped("valkey"):
        began = time.monotonic()
        patient.wait_try_later()
        assert time.monotonic() - began < AGE_MAX_S + 5
        assert {TRY_LATER} == patient.watch(0.5)
    patient.wait_well()


@pytest.mark.row("X1", "P16")
def test_a_publisher_that_stands_still_is_no_news_either(patient: Patient) -> None:
    """The feed stands still, Valkey does not: the same."""
    with patient.stopped("feed"):
        patient.wait_try_later()
    patient.wait_well()


@pytest.mark.row("X2")
def test_valkey_may_die_and_come_back_empty(patient: Patient) -> None:
    """kill -9, and another one that knows nothing."""
    patient.served.kill("valkey")
    patient.watch(1)
    patient.wait_well()


@pytest.mark.row("X2")
def test_valkey_may_be_emptied(patient: Patient) -> None:
    """All keys gone under running workers."""
    patient.valkey.flushall()
    patient.watch(0.5)
    patient.wait_well()


# --- pieces gone or cut ------------------------------------------------------------------------------


@pytest.mark.row("X3")
@pytest.mark.parametrize("pattern", PIECES)
def test_a_piece_may_be_gone(patient: Patient, pattern: str) -> None:
    """Under running workers, which must not answer anything wrong; with the store rebuilt all is well."""
    assert patient.valkey.delete(*patient.valkey.keys(pattern))
    patient.watch(0.5)
    patient.valkey.flushall()
    patient.wait_well()


@pytest.mark.row("X3")
@pytest.mark.parametrize("pattern", ["*:doc:*", "*:snap:*"])
def test_new_workers_believe_nothing_that_was_cut_short(patient: Patient, pattern: str) -> None:
    """Half of each document, half of each piece of the snapshots."""
    patient.tamper(pattern, lambda value: value[: len(value) // 2])


# --- forged ------------------------------------------------------------------------------------------


@pytest.mark.row("X4")
def test_new_workers_believe_no_document_of_somebody_else(patient: Patient) -> None:
    """Another issuer's key and policy, another's network: no beat vouches for it."""

    def forge(value: bytes) -> bytes:
        forged = value.replace(b'"registered"', b'"public"').replace(b"127.", b"126.")
        return forged.replace(b'"key_id":"', b'"key_id":"00')

    patient.tamper("*:doc:*", forge)


@pytest.mark.row("X4")
def test_new_workers_believe_no_snapshot_of_somebody_else(patient: Patient) -> None:
    """One octet of each piece is another."""

    def forge(value: bytes) -> bytes:
        return value[:100] + bytes((value[100] ^ 1,)) + value[101:]

    patient.tamper("*:snap:*", forge)


@pytest.mark.row("X5")
@pytest.mark.parametrize("forged", ["beat", "change", "noise"])
def test_whoever_writes_into_the_stream_is_not_believed(patient: Patient, forged: str) -> None:
    """A beat that is not signed, a change that would make a revoked certificate good, and noise."""
    stream = patient.key("*:stream")
    # The publisher stands still, so that what is forged is what comes next.
    with patient.stopped("feed"):
        (last, _), *_ = patient.valkey.xrevrange(stream, count=1)
        seq, time_ms = map(int, last.decode().split("-"))
        if forged == "beat":
            patient.valkey.xadd(stream, {"b": b"CSB1" + bytes(BEAT_BYTES - 4)}, f"{seq}-{time_ms + 1}")
        elif forged == "change":
            packed = pack_change(ChangeKind.RELEASED, 1, bytes(12), 40_000, None, time_ms, seq + 1)
            patient.valkey.xadd(stream, {"c": packed}, f"{seq + 1}-0")
        else:
            patient.valkey.xadd(stream, {"x": os.urandom(50)}, f"{seq}-{time_ms + 1}")
        patient.watch(1)
    patient.valkey.flushall()
    patient.wait_well()


# --- keys and time -----------------------------------------------------------------------------------


@pytest.mark.row("X6")
def test_without_its_key_a_host_says_try_later(patient: Patient) -> None:
    """The OCSP key is gone: no answer is signed by anything else, until the host has got itself another."""
    folder = patient.served.state / "host" / "keys"
    for path in folder.iterdir():
        path.unlink()
    patient.restart_workers()
    patient.watch(1)
    patient.wait_well()
    assert [path for path in folder.iterdir() if path.suffix == ".key"]


@pytest.mark.row("X7", "H6")
def test_no_answer_is_given_beyond_its_life(patient: Patient) -> None:
    """The same question on one connection for longer than an answer lives: always one that is valid now,
    for as long as max-age says."""
    message = get(patient.auth.request(patient.auth.good[1]))
    bodies = set()
    began = time.monotonic()
    with patient.wire.connect() as connection:
        while time.monotonic() - began < 11:
            connection.send(message)
            reply = connection.read()
            assert reply is not None
            single = patient.auth.read(reply).singles[0]
            left_s = single.next_update.timestamp() - time.time()
            assert left_s > 0
            assert (
                0 < int(str(reply.header("Cache-Control")).split(",")[0].removeprefix("max-age=")) <= left_s
            )
            bodies.add(reply.body)
            time.sleep(0.1)
    assert 2 <= len(bodies) <= 6


@pytest.mark.row("P21")
def test_after_the_ca_s_key_was_lost_everything_is_revoked(patient: Patient) -> None:
    """A CA-key event revokes all of it with the next question.  Last: nothing is good after it."""
    wire, auth = patient.wire, patient.auth
    assert auth.read(wire.ask(get(auth.request()))).word == "good"
    patient.served.run("issuer", "key-event", "AUTH", "--generation", "1", "--ground", "lost", "--yes")
    for serial in auth.good[:20]:
        single = auth.read(wire.ask(get(auth.request(serial)))).singles[0]
        assert (single.status, single.reason) == ("revoked", "ca_compromise")
