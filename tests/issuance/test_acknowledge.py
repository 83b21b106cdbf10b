"""Waiting for workers: who is waited for, who no longer needs to be."""

from __future__ import annotations

import threading
import time

import pytest
from store_cases import START_MS, Steady

from certstatus.changes import ChangeKind
from certstatus.errors import StoreError, ValkeyUnavailable
from certstatus.leases import WorkerAck
from issuance.acknowledge import WorkerName, wait_for_workers
from issuance.store import Store, WorkerLease

_ONE = WorkerAck("host-a", 0, "i1", 5)
_LEASE_MS = 1_000
_TWO = WorkerAck("host-a", 1, "i2", 5)


class Words:
    """What workers last said, as Valkey would tell it."""

    def __init__(self, *acks: WorkerAck) -> None:
        self.acks = list(acks)

    def __call__(self, leases: list[WorkerLease]) -> list[WorkerAck]:
        """Return the words of the leased workers."""
        names = {(lease.host, lease.slot) for lease in leases}
        return [ack for ack in self.acks if (ack.host, ack.slot) in names]


def test_nobody_there_is_nobody_to_wait_for(store: Store) -> None:
    """Without workers the wait is over at once."""
    done = wait_for_workers(store, 7, Words(), _LEASE_MS, timeout_s=5)
    assert done.is_complete
    assert (done.acknowledged, done.ran_out, done.left, done.waiting) == ((), (), (), ())


def test_it_returns_when_the_last_live_worker_has_said_so(store: Store) -> None:
    """Two workers, one late: the wait ends with the later word and names both."""
    store.beat(START_MS, [_ONE, _TWO])
    words = Words(_ONE._replace(applied_seq=9), _TWO)
    told: list[tuple[WorkerName, ...]] = []
    said: list[float] = []

    def say_later() -> None:
        time.sleep(0.2)
        said.append(time.monotonic())
        words.acks[1] = _TWO._replace(applied_seq=7)

    speaker = threading.Thread(target=say_later)
    speaker.start()
    done = wait_for_workers(store, 7, words, _LEASE_MS, on_wait=told.append)
    returned = time.monotonic()
    speaker.join()
    assert done.acknowledged == (("host-a", 0), ("host-a", 1))
    assert done.is_complete
    assert told == [(("host-a", 1),)]
    assert 0 <= returned - said[0] < 0.1


def test_a_silent_worker_is_waited_for_until_its_lease_runs_out(store: Store) -> None:
    """For a whole lease, counted from when it was first seen to stand still, and not a moment longer."""
    store.beat(START_MS, [_ONE], lease_ms=_LEASE_MS)
    steady = Steady(step_s=0.01)
    done = wait_for_workers(store, 7, Words(), _LEASE_MS, monotonic_s=steady, timeout_s=20)
    assert (done.ran_out, done.waiting) == ((("host-a", 0),), ())
    assert done.is_complete
    assert steady.passed_s == pytest.approx(_LEASE_MS / 1000, abs=0.02)
    steady = Steady(step_s=0.0)
    waiting = wait_for_workers(store, 7, Words(), _LEASE_MS, monotonic_s=steady, timeout_s=0.05)
    assert waiting.waiting == (("host-a", 0),)
    assert not waiting.is_complete


@pytest.mark.parametrize("by_ms", [+86_400_000, -86_400_000])
def test_a_clock_set_forward_or_back_changes_nothing(store: Store, by_ms: int) -> None:
    """With the feed stopped and the machine's clock a day off, a silent worker is waited for exactly as
    long: set forward it may still be answering, set back it is long gone."""
    store.beat(START_MS, [_ONE], lease_ms=_LEASE_MS)
    with store.writing(START_MS + by_ms) as act:
        act.record(ChangeKind.ENTITLEMENTS)
    steady = Steady(step_s=0.01)
    done = wait_for_workers(store, 7, Words(), _LEASE_MS, monotonic_s=steady, timeout_s=20)
    assert done.ran_out == (("host-a", 0),)
    assert steady.passed_s == pytest.approx(_LEASE_MS / 1000, abs=0.02)


def test_a_lease_that_is_renewed_does_not_run_out(store: Store) -> None:
    """A worker that beats keep alive but that says nothing of the change is waited for without end."""
    store.beat(START_MS, [_ONE], lease_ms=_LEASE_MS)
    steady = Steady(step_s=0.01)
    beats: list[float] = []

    def renewing(_leases: list[WorkerLease]) -> list[WorkerAck]:
        if steady.passed_s - (beats[-1] if beats else 0.0) > 0.5:
            beats.append(steady.passed_s)
            store.beat(START_MS + len(beats), [_ONE], lease_ms=_LEASE_MS)
        return []

    done = wait_for_workers(store, 7, renewing, _LEASE_MS, monotonic_s=steady, timeout_s=2)
    assert done.waiting == (("host-a", 0),)
    assert len(beats) > 3


def test_a_longer_lease_is_waited_for_as_long(store: Store) -> None:
    """A worker that goes on for longer than configured here, whose lease says so, gets that time."""
    store.beat(START_MS, [_ONE._replace(age_max_s=2)], lease_ms=_LEASE_MS)
    steady = Steady(step_s=0.05)
    done = wait_for_workers(store, 7, Words(), _LEASE_MS, monotonic_s=steady, timeout_s=20)
    assert done.ran_out == (("host-a", 0),)
    assert steady.passed_s == pytest.approx(7, abs=0.1)


def test_a_worker_that_comes_meanwhile_is_waited_for_too(store: Store) -> None:
    """A lease noted while waiting counts like one from before."""
    store.beat(START_MS, [_ONE])
    words = Words(_ONE, _TWO)
    told: list[tuple[WorkerName, ...]] = []

    def on_wait(names: tuple[WorkerName, ...]) -> None:
        told.append(names)
        if len(told) == 1:
            store.beat(START_MS, [_TWO])
        else:
            words.acks[0] = _ONE._replace(applied_seq=7)

    done = wait_for_workers(store, 7, words, _LEASE_MS, on_wait=on_wait, timeout_s=0.3)
    assert told == [(("host-a", 0),), (("host-a", 0), ("host-a", 1)), (("host-a", 1),)]
    assert done.waiting == (("host-a", 1),)
    assert done.acknowledged == (("host-a", 0),)


def test_another_incarnation_speaks_for_itself_only(store: Store) -> None:
    """What the process before it had applied says nothing of the one that replaced it in its slot."""
    store.beat(START_MS, [_ONE._replace(incarnation="new", applied_seq=0)])
    done = wait_for_workers(store, 7, Words(_ONE._replace(applied_seq=99)), _LEASE_MS, timeout_s=0.05)
    assert done.waiting == (("host-a", 0),)


def test_a_worker_that_left_is_not_waited_for(store: Store) -> None:
    """A farewell that the store has noted ends the wait for that worker."""
    store.beat(START_MS, [_ONE])
    threading.Timer(0.1, lambda: store.beat(START_MS, [_ONE._replace(incarnation="")])).start()
    done = wait_for_workers(store, 7, Words(), _LEASE_MS, timeout_s=5)
    assert done.left == (("host-a", 0),)
    assert done.is_complete


def test_a_lease_that_the_feed_took_away_is_not_waited_for(store: Store) -> None:
    """The feed has counted it to its end; one that was renewed meanwhile stays."""
    store.beat(START_MS, [_ONE, _TWO])
    read = store.leases()
    store.beat(START_MS, [_TWO], run_out=read)
    assert [lease.slot for lease in store.leases()] == [1]
    store.beat(START_MS, [], run_out=read)
    assert [lease.slot for lease in store.leases()] == [1]
    assert not wait_for_workers(store, 7, Words(), _LEASE_MS, timeout_s=0.02).is_complete
    store.beat(START_MS, [], run_out=store.leases())
    assert wait_for_workers(store, 7, Words(), _LEASE_MS, timeout_s=5).is_complete


def test_without_valkey_the_stores_word_counts(store: Store) -> None:
    """When acknowledgements cannot be read, those that came with beats are used."""
    store.beat(START_MS, [_ONE._replace(applied_seq=7), _TWO])

    def away(_leases: list[WorkerLease]) -> list[WorkerAck]:
        raise ValkeyUnavailable("connection refused")

    done = wait_for_workers(store, 7, away, _LEASE_MS, timeout_s=0.05)
    assert done.acknowledged == (("host-a", 0),)
    assert done.waiting == (("host-a", 1),)


class Restarted(Store):
    """A store whose database is away for so many readings, as while it is restarted."""

    away = 0

    def leases(self) -> list[WorkerLease]:
        """Return the leases, or say that the database is away."""
        if self.away > 0:
            self.away -= 1
            raise StoreError("the store's database: the database system is starting up")
        return super().leases()


def test_a_database_that_is_restarted_does_not_end_the_wait(store: Store) -> None:
    """The change stands, so it goes on once the store is back; for a whole lease, then it says so."""
    store.beat(START_MS, [_ONE])
    restarted = Restarted(store.engine)
    restarted.away = 3
    words = Words(_ONE._replace(applied_seq=7))
    done = wait_for_workers(restarted, 7, words, _LEASE_MS, timeout_s=5)
    assert done.acknowledged == (("host-a", 0),)
    assert done.waited_s > 0.2
    restarted.away = 1_000
    with pytest.raises(StoreError, match="starting up"):
        wait_for_workers(restarted, 7, words, 300)
    with pytest.raises(StoreError, match="starting up"):
        wait_for_workers(restarted, 7, words, _LEASE_MS, timeout_s=0.2)


@pytest.mark.parametrize("applied", [7, 8])
def test_having_applied_more_is_enough(store: Store, applied: int) -> None:
    """The number itself or any later one will do."""
    store.beat(START_MS, [_ONE])
    done = wait_for_workers(store, 7, Words(_ONE._replace(applied_seq=applied)), _LEASE_MS)
    assert done.acknowledged == (("host-a", 0),)
