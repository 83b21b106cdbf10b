"""The store of record: sequence, time, cuts, publications, fences; on both databases."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable

import pytest
import sqlalchemy as sa
from crl_steps_by_one import allocate_crl_number, record_crl, withdraw_crl
from store_cases import NOT_AFTER_S, START_MS, add_issuer, mark, number, record_issued

from certstatus import clock
from certstatus.beat import Pointer
from certstatus.changes import ChangeKind, first_chain, next_chain, unpack_change
from certstatus.errors import (
    CommitUnknown,
    FencedOff,
    IllegalTransition,
    LeaseHeld,
    PolicyViolation,
    StoreError,
    UnknownCertificate,
)
from certstatus.leases import WorkerAck
from issuance import schema
from issuance.crl_register import ALLOCATED, PUBLISHED, WITHDRAWN
from issuance.provisions import ProvisionCell, ProvisionSum
from issuance.store import Store
from issuance.waiting import Mark


def test_a_new_store_stands_at_zero_with_the_hash_of_its_epoch(store: Store) -> None:
    """A new store has no change, its epoch begins with its creation time, its chain with the epoch."""
    state = store.state()
    assert (state.base_seq, state.seq, state.time_ms) == (0, 0, START_MS)
    assert len(state.epoch) == 16
    assert int.from_bytes(state.epoch[:8], "big") == START_MS
    assert state.chain == first_chain(state.epoch) == store.chain_at(0)


def test_numbers_are_contiguous_and_the_chain_verifies(store: Store) -> None:
    """Changes of several acts carry 1, 2, 3 ... and each running hash follows from the one before."""
    add_issuer(store)
    for n in range(5):
        with store.writing(START_MS + n) as act:
            record_issued(act, 2 * n)
            record_issued(act, 2 * n + 1)
    changes = store.changes_after(0, 1_000, 1_000)
    assert [change.seq for change in changes] == list(range(1, 12))
    chain = store.chain_at(0)
    for seq, packed, stored in changes:
        chain = next_chain(chain, packed)
        assert stored == chain == store.chain_at(seq)
        assert unpack_change(packed).seq == seq
    assert store.state().chain == chain


def test_a_change_packs_what_was_recorded(store: Store) -> None:
    """The forty bytes of a revocation hold issuer, fingerprint, day, reason, time and invalidity."""
    add_issuer(store, issuer_id=7)
    with store.writing(START_MS) as act:
        record_issued(act, 1, issuer_id=7)
    with store.writing(START_MS + 5_000) as act:
        recorded = act.record(
            ChangeKind.REVOKED, issuer_id=7, serial=number(1), reason=1, invalidity_s=1_700_000_000
        )
    change = unpack_change(store.changes_after(recorded.seq - 1, recorded.seq, 1)[0].packed)
    assert change.kind == ChangeKind.REVOKED
    assert change.issuer_id == 7
    assert change.fingerprint == mark(1)
    assert change.not_after_day == clock.jst_day_number(NOT_AFTER_S)
    assert change.reason == 1
    assert change.recorded_ms == START_MS + 5_000 == recorded.recorded_ms
    assert change.invalidity_s == 1_700_000_000


def test_a_refused_act_leaves_nothing(store: Store) -> None:
    """An act that ends in an error takes back its numbers, rows and time."""
    add_issuer(store)
    before = store.state()

    def interrupted() -> None:
        with store.writing(START_MS + 60_000) as act:
            record_issued(act, 1)
            act.flush()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert store.state() == before
    assert list(store.issued_rows(1, before.seq)) == []


def test_a_commit_that_nobody_knows_the_end_of_is_no_refusal(new_postgres: Callable[[str], str]) -> None:
    """The session ends within its commit: said so; the next act finds out, and is not held up."""
    with Store.create(new_postgres("commit_unknown"), START_MS) as store:
        add_issuer(store)
        with store.engine.begin() as connection:
            connection.execute(
                sa.text(
                    "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS"
                    " $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$"
                )
            )
            connection.execute(
                sa.text(
                    "CREATE CONSTRAINT TRIGGER die AFTER INSERT ON change DEFERRABLE INITIALLY DEFERRED"
                    " FOR EACH ROW EXECUTE FUNCTION die()"
                )
            )
        before = store.state()
        with (
            pytest.raises(CommitUnknown, match="during the commit, and whether it is recorded shows when"),
            store.writing(START_MS + 1) as act,
        ):
            record_issued(act, 1)
        with store.engine.begin() as connection:
            connection.execute(sa.text("DROP TRIGGER die ON change"))
        assert store.state() == before
        with store.writing(START_MS + 2) as act:
            record_issued(act, 1)
        assert store.state().seq == before.seq + 1


def test_time_does_not_go_back_with_the_clock(store: Store) -> None:
    """A change recorded after the clock was set back carries the last time, not the clock's."""
    add_issuer(store)
    with store.writing(START_MS + 10_000) as act:
        assert record_issued(act, 1).recorded_ms == START_MS + 10_000
    with store.writing(START_MS - 3_600_000) as act:
        assert record_issued(act, 2).recorded_ms == START_MS + 10_000
    cut = store.cut(START_MS - 3_600_000)
    assert cut.time_ms == START_MS + 10_001
    with store.writing(START_MS) as act:
        assert record_issued(act, 3).recorded_ms == START_MS + 10_001


def test_each_cut_is_later_than_the_one_before(store: Store) -> None:
    """Cuts at a clock that stands still still rise, and none is earlier than a change before it."""
    add_issuer(store)
    first = store.cut(START_MS)
    second = store.cut(START_MS)
    with store.writing(START_MS) as act:
        recorded = record_issued(act, 1)
    third = store.cut(START_MS)
    assert START_MS < first.time_ms < second.time_ms <= recorded.recorded_ms < third.time_ms
    assert (first.seq, second.seq, third.seq) == (1, 1, 2)
    assert third.chain == store.chain_at(2)


def test_the_clock_is_read_under_the_lock(store: Store) -> None:
    """A writer that waited for its turn records the time at which it got it, not that of asking."""
    add_issuer(store)
    ticks = iter(range(START_MS, START_MS + 10))
    with store.writing(START_MS + 1_000) as act:
        waiting = threading.Thread(target=lambda: store.cut(lambda: next(ticks)))
        waiting.start()
        time.sleep(0.1)
        record_issued(act, 1)
        assert next(ticks) == START_MS
    waiting.join()
    assert next(ticks) == START_MS + 2


def test_the_feed_is_read_in_pieces(store: Store) -> None:
    """changes_after honours both its bounds and continues where the last piece ended."""
    add_issuer(store)
    with store.writing(START_MS) as act:
        for n in range(9):
            record_issued(act, n)
    assert [change.seq for change in store.changes_after(2, 10, 3)] == [3, 4, 5]
    assert [change.seq for change in store.changes_after(5, 6, 3)] == [6]
    assert store.changes_after(10, 10, 3) == []


def test_a_number_that_is_not_there_is_an_error(store: Store) -> None:
    """The running hash of a future number, or of one before the epoch, is refused."""
    for seq in (1, -1):
        with pytest.raises(StoreError, match="no change"):
            store.chain_at(seq)
    with pytest.raises(StoreError, match="begins after 0"):
        store.changes_after(-1, 5, 5)


def test_a_hole_in_the_log_is_an_error(store: Store) -> None:
    """A missing number is never skipped silently."""
    add_issuer(store)
    with store.writing(START_MS) as act:
        for _ in range(4):
            act.record(ChangeKind.ENTITLEMENTS)
    with store.writing(START_MS) as act:
        act.connection.execute(sa.delete(schema.change).where(schema.change.c.seq == 3))
    with pytest.raises(StoreError, match="no change 3"):
        store.changes_after(0, 5, 10)


# --- what one change does to a certificate ---------------------------------------------------------


def test_revoking_twice_says_when_it_was_revoked(store: Store) -> None:
    """The second revocation is refused, and the message names time, reason and number of the first."""
    add_issuer(store)
    with store.writing(START_MS) as act:
        record_issued(act, 1)
        first = act.record(ChangeKind.REVOKED, issuer_id=1, serial=number(1), reason=4)
    pattern = f"already revoked .since 2027-01-15T08:00:00Z, superseded, change {first.seq}"
    with pytest.raises(IllegalTransition, match=pattern), store.writing(START_MS + 9_000) as act:
        act.record(ChangeKind.REVOKED, issuer_id=1, serial=number(1), reason=1)
    assert next(store.issued_rows(1, 99)).reason == 4


def test_a_serial_number_is_used_once_per_name(store: Store) -> None:
    """Two generations of a service share their name, so they share the space of numbers too."""
    add_issuer(store, 1, "SIGN", 1)
    add_issuer(store, 2, "SIGN", 2)
    add_issuer(store, 3, "AUTH", 1)
    with store.writing(START_MS) as act:
        record_issued(act, 1, issuer_id=1)
        record_issued(act, 1, issuer_id=3)
    with (
        pytest.raises(PolicyViolation, match="already in use under this name"),
        store.writing(START_MS) as act,
    ):
        record_issued(act, 1, issuer_id=2)


def test_an_unknown_certificate_or_issuer_is_refused(store: Store) -> None:
    """Nothing is recorded about a certificate or issuer that is not in the register."""
    add_issuer(store)
    with pytest.raises(UnknownCertificate), store.writing(START_MS) as act:
        act.record(ChangeKind.REVOKED, issuer_id=1, serial=number(9), reason=1)
    with pytest.raises(PolicyViolation, match="no issuer 5"), store.writing(START_MS) as act:
        record_issued(act, 1, issuer_id=5)
    assert store.state().seq == 1


# --- waiting ---------------------------------------------------------------------------------------


def test_waiting_ends_when_a_change_commits(store: Store) -> None:
    """A waiter wakes within 100 ms of a commit by another connection."""
    add_issuer(store)
    seen = store.state().seq
    assert not store.wait_for_change(0.0, Mark(seen))
    committed: list[float] = []

    def write_later() -> None:
        time.sleep(0.2)
        with store.writing(START_MS) as act:
            record_issued(act, 1)
        committed.append(time.monotonic())

    writer = threading.Thread(target=write_later)
    writer.start()
    assert store.wait_for_change(10, Mark(seen))
    woken = time.monotonic()
    writer.join()
    assert woken - committed[0] < 0.1


def test_waiting_misses_nothing_recorded_between_two_waits(store: Store) -> None:
    """A change that commits while nobody waits ends the next wait at once."""
    add_issuer(store)
    assert store.wait_for_change(10)
    with store.writing(START_MS) as act:
        record_issued(act, 1)
    started = time.monotonic()
    assert store.wait_for_change(10)
    assert time.monotonic() - started < 1
    assert not store.wait_for_change(0.05)


def test_a_beat_does_not_wake_anybody(store: Store) -> None:
    """Only numbered changes end a wait; the beat that the waiter itself records each second does not."""
    add_issuer(store)
    assert store.wait_for_change(10)
    store.beat(START_MS, [])
    assert not store.wait_for_change(0.1)


def test_a_publication_ends_a_wait_of_those_who_ask_for_it(store: Store) -> None:
    """Under whatever number: the feed must name it, though nothing has changed; others sleep on."""
    add_issuer(store)
    assert store.wait_for_change(10)
    seen = Mark(store.state().seq, 0)
    assert not store.wait_for_change(0.05, seen)
    woken: list[bool] = []
    waiter = threading.Thread(target=lambda: woken.append(store.wait_for_change(10, seen)))
    waiter.start()
    time.sleep(0.2)
    started = time.monotonic()
    store.publish("crls", 1_700_000_000_000, bytes(32), b"x")
    waiter.join()
    assert woken == [True]
    assert time.monotonic() - started < 1
    # Published while nobody waited: told at once, until it is known.
    store.publish("snapshot", 7, bytes(32), b"x")
    assert store.wait_for_change(10, Mark(seen.seq, 1_700_000_000_000))
    assert not store.wait_for_change(0.05, Mark(seen.seq, 1_700_000_000_007))
    assert not store.wait_for_change(0.05)


# --- beats, leases, publications -------------------------------------------------------------------


def test_a_beat_names_what_is_published_at_its_cut(store: Store) -> None:
    """Cut and publications come from one transaction."""
    store.publish("snapshot", 0, b"s" * 32)
    with store.writing(START_MS) as act:
        recorded = act.record(ChangeKind.ENTITLEMENTS)
        act.publish("entitlements", recorded.seq, b"{}")
    basis = store.beat(START_MS + 1_000, [])
    assert basis.cut.seq == recorded.seq
    assert basis.cut.time_ms == START_MS + 1_000
    assert basis.publications == {
        "snapshot": Pointer(0, b"s" * 32),
        "entitlements": Pointer(recorded.seq, hashlib.sha256(b"{}").digest()),
    }


def test_leases_last_from_the_beats_time_and_end_with_a_farewell(store: Store) -> None:
    """A worker's lease counts from the beat that keeps it alive; leaving cleanly ends it."""
    one = WorkerAck("host-a", 0, "11", 5)
    two = WorkerAck("host-a", 1, "22", 6)
    store.beat(START_MS + 1_000, [one, two], lease_ms=65_000)
    store.beat(START_MS + 2_000, [two._replace(incarnation="33", applied_seq=0)], lease_ms=65_000)
    assert [tuple(lease) for lease in store.leases()] == [
        ("host-a", 0, "11", START_MS + 66_000, 5),
        ("host-a", 1, "33", START_MS + 67_000, 0),
    ]
    # A worker that goes on answering for longer than the publisher thinks is waited for as long.
    store.beat(START_MS + 2_500, [one._replace(age_max_s=120)], lease_ms=65_000)
    assert store.leases()[0].lease_until_ms == START_MS + 2_500 + 125_000
    store.beat(START_MS + 3_000, [one._replace(incarnation="")])
    assert [lease.slot for lease in store.leases()] == [1]


def test_a_publication_never_goes_back(store: Store) -> None:
    """An older generation, or the same with other bytes, is refused; the same again is not."""
    store.publish("crls", 5, b"a" * 32, b"five")
    store.publish("crls", 5, b"a" * 32, b"five")
    for generation, digest in ((4, b"b" * 32), (5, b"b" * 32)):
        with pytest.raises(StoreError, match="does not come after 5"):
            store.publish("crls", generation, digest, b"other")
    store.publish("crls", 9, b"c" * 32, b"nine")
    found = store.publication("crls")
    assert found is not None
    assert tuple(found) == (9, b"c" * 32, b"nine")
    assert store.publication("issuers") is None


# --- publishers and CRL numbers --------------------------------------------------------------------


def test_only_one_publisher_at_a_time(store: Store) -> None:
    """A second holder waits for the lease to run out; the same holder may come back at once."""
    first = store.acquire_publisher("builder", 10_000, START_MS, "one")
    with pytest.raises(LeaseHeld, match="publisher builder is one"):
        store.acquire_publisher("builder", 10_000, START_MS + 9_999, "two")
    again = store.acquire_publisher("builder", 10_000, START_MS + 5_000, "one")
    assert again.number == first.number + 1
    assert store.acquire_publisher("builder", 10_000, START_MS + 15_000, "two").number == again.number + 1


def test_an_old_fence_writes_nothing(store: Store) -> None:
    """After a take-over the paused publisher can neither publish nor take or fill a CRL number."""
    add_issuer(store)
    old = store.acquire_publisher("builder", 10_000, START_MS, "one")
    taken = allocate_crl_number(store, 1, "all", ["complete"], old, START_MS)
    new = store.acquire_publisher("builder", 10_000, START_MS, "two", take_over=True)
    with pytest.raises(FencedOff):
        store.publish("crls", 1, bytes(32), b"", fence=old)
    with pytest.raises(FencedOff):
        allocate_crl_number(store, 1, "all", ["complete"], old, START_MS)
    with pytest.raises(FencedOff):
        record_crl(
            store,
            1,
            "all",
            taken.number,
            "complete",
            base_number=None,
            next_update_s=1,
            sha256=b"",
            size=0,
            fence=old,
        )
    with pytest.raises(FencedOff):
        withdraw_crl(store, 1, "all", taken.number, "complete", old)
    with pytest.raises(FencedOff):
        store.renew_publisher(old, 10_000, START_MS)
    store.renew_publisher(new, 10_000, START_MS)
    assert store.publication("crls") is None
    assert [line.state for line in store.crls(1, "all")] == [ALLOCATED]


def test_crl_numbers_rise_with_their_cuts(store: Store) -> None:
    """Each allocation has the next number of its scope and a later time; kinds of one cut share a number."""
    add_issuer(store)
    fence = store.acquire_publisher("builder", 10_000, START_MS, "one")
    first = allocate_crl_number(store, 1, "all", ["complete"], fence, START_MS)
    second = allocate_crl_number(store, 1, "all", ["complete", "delta"], fence, START_MS)
    other = allocate_crl_number(store, 1, "n64/b1", ["complete"], fence, START_MS)
    assert (first.number, second.number, other.number) == (1, 2, 1)
    assert first.time_ms < second.time_ms
    assert first.seq == second.seq == store.state().seq
    assert [(line.number, line.kind) for line in store.crls(1, "all")] == [
        (1, "complete"),
        (2, "complete"),
        (2, "delta"),
    ]


def test_a_crl_goes_from_allocated_to_published_once(store: Store) -> None:
    """The register takes a CRL's hash and size once, and keeps a withdrawn number as used."""
    add_issuer(store)
    fence = store.acquire_publisher("builder", 10_000, START_MS, "one")

    def record(number: int) -> None:
        record_crl(
            store,
            1,
            "all",
            number,
            "complete",
            base_number=None,
            next_update_s=START_MS // 1000 + 60,
            sha256=b"h" * 32,
            size=512,
            fence=fence,
        )

    number = allocate_crl_number(store, 1, "all", ["complete"], fence, START_MS).number
    record(number)
    with pytest.raises(IllegalTransition):
        record(number)
    with pytest.raises(IllegalTransition):
        record(number + 1)
    line = store.crls(1, "all", kind="complete", state=PUBLISHED)[0]
    assert (line.number, line.sha256, line.size) == (1, b"h" * 32, 512)
    assert line.this_update_s == START_MS // 1000
    withdraw_crl(store, 1, "all", number, "complete", fence)
    assert [line.state for line in store.crls(1, "all")] == [WITHDRAWN]
    assert allocate_crl_number(store, 1, "all", ["complete"], fence, START_MS).number == number + 1


# --- provisions ------------------------------------------------------------------------------------


def test_provisions_are_counted_once_however_often_they_are_told(store: Store) -> None:
    """The greatest value of a cell counts; repeats and late older values change nothing."""
    hour = START_MS // 1000 // 3600 * 3600
    cells = [ProvisionCell("file-1", cell, 3, 1, "ocsp_good", hour, 100 + cell) for cell in range(700)]
    store.record_provisions(cells)
    store.record_provisions(cells)
    store.record_provisions([cells[0]._replace(value=5), cells[1]._replace(value=1_000)])
    store.record_provisions([ProvisionCell("file-2", 0, 3, 1, "crl", hour + 3600, 2)])
    good = sum(cell.value for cell in cells) - cells[1].value + 1_000
    assert store.provision_sums() == [ProvisionSum(3, 1, "crl", 2), ProvisionSum(3, 1, "ocsp_good", good)]
    assert store.provision_sums(hour + 3600) == [ProvisionSum(3, 1, "crl", 2)]
    assert store.provision_sums(None, hour + 3600) == [ProvisionSum(3, 1, "ocsp_good", good)]
