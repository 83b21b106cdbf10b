"""The builder's CRL run over many scopes: what it asks the store, in which turns, whose failures count."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import sqlalchemy as sa
from crl_cases import COMPLETE, DELTA, line_maker, published_entries, short_periods
from crl_steps_by_one import allocate_crl_number, record_crl, withdraw_crl
from publisher_cases import INDEX_KEY, START_MS, Clock

from certstatus.changes import ChangeKind, fingerprint
from issuance.ca_keys import CAKeyFolder
from issuance.crl_register import Fence
from issuance.crl_scopes import ScopeRecord, ensure_scope, new_names
from issuance.issuers import create_issuer, issuer_by_id, set_policy
from issuance.store import Store
from publisher import crl_lot
from publisher.crl_overview import _LAST_CHANGES, CRLOverview
from publisher.crl_plan import Due
from publisher.crl_publish import CRLPublisher, crl_lease
from publisher.crl_recent import newest_query
from publisher.crl_run import NAMES_MAX, STEP_S, CRLRun
from publisher.crl_schedule import DueCRL
from publisher.crl_scopes import CRLScope
from publisher.crl_write import CRLWork, WrittenCRL
from publisher.lease import held


class _Part(CRLScope):
    """A partition by its name, with the issuer's whole list."""

    @property
    def partition_id(self) -> int | None:
        """None, as of ``all``: everything is in it."""
        return None


class _ChangedTogether(CRLOverview):
    """Where a change of the issuer is one of each of its scopes."""

    def changed_seq(self, key: tuple[int, str]) -> int:
        """The issuer's last change."""
        return super().changed_seq((key[0], "all"))


class _ManyScopes(CRLPublisher):
    """One issuer's list under many scopes, as if each were a part of it."""

    count = 1
    made: list[str]
    at_each: Callable[[], object] = staticmethod(lambda: None)

    def scopes(self) -> list[CRLScope]:
        (whole,) = super().scopes()
        names = [f"n64/b{number:02}" for number in range(self.count)]
        return [
            _Part(
                whole.issuer,
                ScopeRecord(0, whole.issuer.issuer_id, name, "", new_names(whole.issuer, name), 0, None),
            )
            for name in names
        ]

    def note_each(self) -> None:
        """Have it noted, and something done, before each scope's files are made."""
        write = self.writer.write

        def noted(work: CRLWork, fence: Fence, *, synced: bool = True) -> list[WrittenCRL]:
            self.made.append(work.scope.path)
            self.at_each()
            return write(work, fence, synced=synced)

        self.writer.write = noted  # type: ignore[method-assign]


class _Line:
    """A store with one issuer and its run."""

    def __init__(self, store: Store, state: Path, clock: Clock, count: int) -> None:
        self.store, self.state, self.clock = store, state, clock
        keys = CAKeyFolder(state / "ca")
        keys.make_passphrase()
        self.issuer_id = create_issuer(store, keys, short_periods("SIGN"), clock.now_ms).issuer_id
        self.publisher = _ManyScopes(
            store, keys, state, now_ms=clock.now_ms, monotonic_s=clock.monotonic_s, pause=clock.pass_s
        )
        self.publisher.count, self.publisher.made = count, []
        self.publisher.overview = _ChangedTogether(store)
        self.publisher.note_each()
        self.lease = crl_lease(store, clock.now_ms)
        self.run = CRLRun(self.publisher, self.lease, now_ms=clock.now_ms, monotonic_s=clock.monotonic_s)

    def settle(self) -> None:
        """Make all that is due, deltas on the first complete CRLs included."""
        for _ in range(3):
            while self.run.step():
                pass
            self.clock.pass_s(1)

    def revoke(self) -> int:
        number = self.store.state().seq
        serial = b"\x01" + number.to_bytes(7, "big")
        with self.store.writing(self.clock.now_ms) as act:
            act.record(
                ChangeKind.ISSUED,
                issuer_id=self.issuer_id,
                serial=serial,
                fingerprint=fingerprint(serial, INDEX_KEY),
                not_after_s=self.clock.ms // 1000 + 10_000_000,
            )
            return act.record(ChangeKind.REVOKED, issuer_id=self.issuer_id, serial=serial, reason=1).seq


@pytest.fixture
def make_line(tmp_path: Path, clock: Clock) -> Iterator[Callable[[int], _Line]]:
    """Makes a line with so many scopes."""
    with line_maker(tmp_path, lambda store, state, count: _Line(store, state, clock, count)) as make:
        yield make


class _Counted:
    """Counts the statements that a store executes within the block."""

    def __init__(self, store: Store) -> None:
        self._engine = store.engine
        self.count = 0

    def _note(self, *_arguments: object) -> None:
        self.count += 1

    def __enter__(self) -> _Counted:
        sa.event.listen(self._engine, "before_cursor_execute", self._note)
        return self

    def __exit__(self, *_exc: object) -> None:
        sa.event.remove(self._engine, "before_cursor_execute", self._note)


def _published(line: _Line, scope: str) -> list[tuple[str, int]]:
    return [(crl.kind, crl.number) for crl in line.store.crls(line.issuer_id, scope, state="published")]


# --- what is asked -------------------------------------------------------------------------------------


def test_a_step_asks_the_store_as_often_whatever_the_number_of_scopes(
    make_line: Callable[[int], _Line],
) -> None:
    """With nothing due, three scopes and forty cost the same few statements."""
    counts = []
    for scopes in (3, 40):
        line = make_line(scopes)
        line.settle()
        with _Counted(line.store) as counted:
            assert line.run.step() == ""
        counts.append(counted.count)
    assert counts[0] == counts[1] <= 10


def test_what_a_step_asks_is_answered_from_indexes(make_line: Callable[[int], _Line]) -> None:
    """Neither the changes nor the CRLs are walked over."""
    line = make_line(2)
    line.settle()
    with line.store.reading() as connection:
        for query in (_LAST_CHANGES, newest_query(COMPLETE), newest_query(DELTA)):
            text = str(query.compile(line.store.engine, compile_kwargs={"literal_binds": True}))
            steps = connection.execute(sa.text(f"EXPLAIN QUERY PLAN {text}")).all()
            walks = [step.detail for step in steps if step.detail.startswith("SCAN")]
            assert all(walk.split()[1] in ("issuer", "crl_scope") for walk in walks), walks


def test_the_overview_follows_whoever_publishes(make_line: Callable[[int], _Line], clock: Clock) -> None:
    """A number that another process has given out is looked at again until it is settled, and then once."""
    line = make_line(2)
    line.settle()
    key = line.issuer_id, "n64/b00"
    overview = CRLOverview(line.store)
    overview.refresh()
    before = overview.newest(key)
    assert {kind: record.number for kind, record in before.items()} == {COMPLETE: 1, DELTA: 2}
    fence = line.store.acquire_publisher("crl", 1000, clock.now_ms, "other", take_over=True)
    allocate_crl_number(line.store, *key, [DELTA], fence, clock.now_ms)
    overview.refresh()
    assert overview.settled_number(key) is None
    assert overview.newest(key) == before
    record_crl(
        line.store, *key, 3, DELTA, base_number=1, next_update_s=9, sha256=bytes(32), size=5, fence=fence
    )
    overview.refresh()
    assert overview.newest(key)[DELTA].number == 3
    assert overview.settled_number(key) == 3
    assert overview.settled_number((line.issuer_id, "n64/b01")) == 2
    overview.refresh()
    assert overview.statements == 2
    allocate_crl_number(line.store, *key, [COMPLETE, DELTA], fence, clock.now_ms)
    overview.refresh()
    for kind in (COMPLETE, DELTA):
        withdraw_crl(line.store, *key, 4, kind, fence)
    overview.refresh()
    assert {kind: record.number for kind, record in overview.newest(key).items()} == {COMPLETE: 1, DELTA: 3}
    assert overview.settled_number(key) == 4


def test_the_overview_is_what_the_register_says(store_url: str, tmp_path: Path, clock: Clock) -> None:
    """On both databases, for few moved scopes and for more than are named in one statement."""
    with Store.create(store_url, START_MS) as store:
        keys = CAKeyFolder(tmp_path / "ca")
        keys.make_passphrase()
        issuer_id = create_issuer(store, keys, short_periods("SIGN"), clock.now_ms).issuer_id
        other_id = create_issuer(store, keys, short_periods("AUTH"), clock.now_ms).issuer_id
        fence = store.acquire_publisher("crl", 1 << 40, clock.now_ms, "test")

        def publish(scope: str, kind: str) -> None:
            number = allocate_crl_number(store, issuer_id, scope, [kind], fence, clock.now_ms).number
            record_crl(
                store,
                issuer_id,
                scope,
                number,
                kind,
                base_number=None,
                next_update_s=number,
                sha256=bytes(32),
                size=number,
                fence=fence,
            )

        overview = CRLOverview(store)
        names = [f"s{number}" for number in range(210)]
        for scopes, kinds in ((names, COMPLETE), (names[:3], DELTA), (names[1:3], COMPLETE)):
            for scope in scopes:
                publish(scope, kinds)
            overview.refresh()
            for scope in (*names[:5], names[-1], "absent"):
                expected = {record.kind: record for record in store.crls(issuer_id, scope, state="published")}
                assert overview.newest((issuer_id, scope)) == expected
        assert overview.changed_seq((issuer_id, "s1")) == 0
        serial = b"\x05"
        with store.writing(clock.now_ms) as act:
            act.record(
                ChangeKind.ISSUED,
                issuer_id=issuer_id,
                serial=serial,
                fingerprint=fingerprint(serial, INDEX_KEY),
                not_after_s=clock.ms // 1000 + 1000,
            )
            revoked = act.record(ChangeKind.REVOKED, issuer_id=issuer_id, serial=serial, reason=1)
        overview.refresh()
        assert overview.changed_seq((issuer_id, "all")) == revoked.seq
        assert overview.changed_seq((other_id, "all")) == 0


def test_the_catalogue_of_many_scopes_is_made_from_what_moved(make_line: Callable[[int], _Line]) -> None:
    """With nothing new it costs the same few statements for three scopes as for forty."""
    counts = []
    for scopes in (3, 40):
        line = make_line(scopes)
        line.settle()
        fence = line.store.acquire_publisher("crl", 1000, line.clock.now_ms, "test", take_over=True)
        line.publisher.publish_catalogue(fence)
        with _Counted(line.store) as counted:
            line.publisher.publish_catalogue(fence)
        counts.append(counted.count)
    assert counts[0] == counts[1] <= 23


def test_the_catalogue_is_the_same_kept_or_made_anew(make_line: Callable[[int], _Line], clock: Clock) -> None:
    """Over a history with lost files and CRLs that end, what is out is what a new publisher would say."""
    line = make_line(3)
    numbers = random.Random(4)
    seen = set()
    for _ in range(90):
        clock.pass_s(numbers.choice((1, 30, 90, 250)))
        if numbers.random() < 0.3:
            line.revoke()
        line.run.step()
        files = sorted((line.state / "crl" / "sign").rglob("*.crl"))
        if numbers.random() < 0.1:
            numbers.choice(files).unlink()
        if numbers.random() < 0.2:
            clock.ms -= 20_000
        fence = line.store.acquire_publisher("crl", 0, clock.now_ms, "test", take_over=True)
        line.publisher.publish_catalogue(fence)
        found = line.store.publication("crls")
        assert found is not None
        assert found.body is not None
        entries = published_entries(line.store)
        anew = _ManyScopes(line.store, CAKeyFolder(line.state / "ca"), line.state, now_ms=clock.now_ms)
        anew.count = 3
        expected = anew.catalogue.entries()
        assert sorted(map(repr, entries)) == sorted(map(repr, expected))
        seen.add(found.generation)
    assert len(seen) > 20


# --- turns ---------------------------------------------------------------------------------------------


def test_a_change_makes_deltas_and_nothing_makes_none(
    make_line: Callable[[int], _Line], clock: Clock
) -> None:
    """A scope whose list has not changed waits for half of its delta's life."""
    line = make_line(3)
    slow = replace(
        line.publisher.scopes()[0].issuer.policy,
        crl_period_s=100_000,
        crl_validity_s=200_000,
        delta_validity_s=2000,
    )
    set_policy(line.store, line.issuer_id, slow, clock.now_ms)
    line.settle()
    for _ in range(80):
        clock.pass_s(10)
        assert line.run.step() == ""
    line.revoke()
    assert line.run.step().count("delta") == 3
    for _ in range(80):
        clock.pass_s(10)
        assert line.run.step() == ""
    clock.pass_s(200)
    assert line.run.step().count("delta") == 3


def test_a_lost_file_is_replaced(make_line: Callable[[int], _Line]) -> None:
    """A delta whose file is gone is made anew at once, and nothing else is."""
    line = make_line(2)
    line.settle()
    (line.state / "crl" / "sign/g1/n64/b01/2.delta.crl").unlink()
    assert line.run.step() == "sign/g1/n64/b01 delta 3"
    assert line.run.step() == ""


def test_a_step_ends_after_a_while_and_the_next_goes_on(
    make_line: Callable[[int], _Line], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends with the lot that it is at.  What is left keeps its order; the pointer moves once per step, to
    all that the step has made."""
    monkeypatch.setattr(crl_lot, "SCOPES_MAX", 2)
    line = make_line(7)
    line.publisher.at_each = lambda: line.clock.pass_s(0.7)
    expected = sorted(scope.path for scope in line.publisher.scopes())
    sizes: list[int] = []
    generations: set[int] = set()
    for _ in range(3):
        assert line.run.step()
        assert line.run.has_more
        sizes.append(len(line.publisher.made))
        publication = line.store.publication("crls")
        assert publication is not None
        generations.add(publication.generation)
    assert sizes == [4, 8, 12]
    # Then the deltas over the first ones, which have no list yet that says what changed.
    assert line.publisher.made[:7] == expected
    assert line.publisher.made[7:] == expected[:5]
    assert len(generations) == 3
    assert STEP_S == 2.0


def test_a_lease_lost_in_the_middle_ends_the_step_and_is_no_scopes_failure(
    make_line: Callable[[int], _Line],
) -> None:
    """Another has taken over after the second scope: the third is not signed, nothing of the lot is out, and
    nobody is blamed; the numbers stay used."""
    line = make_line(5)

    def take_over() -> None:
        if len(line.publisher.made) == 3:
            line.store.acquire_publisher("crl", 0, line.clock.now_ms, "other", take_over=True)

    line.publisher.at_each = take_over
    with pytest.raises(Exception, match="fence 1 is over"):
        line.run.step()
    assert len(line.publisher.made) == 3
    assert line.run.failures == {}
    assert line.run.status()["issuers"][0]["failing"] == 0
    names = [f"n64/b{number:02}" for number in range(5)]
    assert [_published(line, name) for name in names] == [[]] * 5
    assert line.store.publication("crls") is None
    while line.run.step():
        pass
    assert [_published(line, name)[0] for name in names] == [(COMPLETE, 2)] * 5
    assert {line.store.crls(line.issuer_id, name)[0].state for name in names} == {"withdrawn"}


def test_while_somebody_publishes_by_hand_the_run_waits(make_line: Callable[[int], _Line]) -> None:
    """Nothing is made, nothing fails, and afterwards it goes on."""
    line = make_line(1)
    fence = line.store.acquire_publisher("crl", 60_000, line.clock.now_ms, "by hand")
    assert line.run.step() == ""
    assert line.run.failures == {}
    line.store.renew_publisher(fence, 0, line.clock.now_ms)
    assert line.run.step() == "sign/g1/n64/b00 complete 1"


# --- failures ------------------------------------------------------------------------------------------


def _spoil(line: _Line, number: int) -> Path:
    """Put a file where the scope's folder is to be: as good as a full disk, also for root."""
    place = line.state / "crl" / f"sign/g1/n64/b{number:02}"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("")
    return place


def test_a_failing_scope_holds_up_no_other_and_comes_back(
    make_line: Callable[[int], _Line], clock: Clock
) -> None:
    """It is tried again after growing pauses; meanwhile it is overdue, and then it is forgotten."""
    line = make_line(3)
    place = _spoil(line, 1)
    assert line.run.step() == "sign/g1/n64/b00 complete 1, sign/g1/n64/b02 complete 1"
    (trouble,) = line.run.status()["troubles"]
    assert trouble["scope"] == "sign/g1/n64/b01"
    assert "Error" in trouble["error"]
    tried = []
    for _ in range(40):
        before = line.publisher.made.count("sign/g1/n64/b01")
        line.run.step()
        if line.publisher.made.count("sign/g1/n64/b01") > before:
            tried.append(clock.steady_s)
        clock.pass_s(0.5)
    assert [round(later - earlier) for earlier, later in pairwise(tried)] == [2, 4, 8]
    status = line.run.status()
    assert status["issuers"][0]["failing"] == 1
    assert 19 <= status["issuers"][0]["overdue_s"] <= 21
    place.unlink()
    clock.pass_s(60)
    assert "sign/g1/n64/b01 complete" in line.run.step()
    status = line.run.status()
    assert (status["issuers"][0]["failing"], status["troubles"], status["troubles_total"]) == (0, [], 0)
    assert status["issuers"][0]["overdue_s"] == 0


def test_what_somebody_else_has_made_is_no_failure_any_more(make_line: Callable[[int], _Line]) -> None:
    """A scope that failed and was then published by hand is neither failing nor overdue."""
    line = make_line(2)
    place = _spoil(line, 1)
    line.run.step()
    place.unlink()
    scope = line.publisher.scopes()[1]
    with held(line.lease, wait_s=0) as fence:
        line.publisher.issue(scope, Due(True, True), fence)
    line.run.step()
    assert line.run.failures == {}
    assert line.run.overdue_s(scope.path) == 0


def test_what_somebody_made_just_before_the_lease_is_not_made_again(
    make_line: Callable[[int], _Line],
) -> None:
    """What is due is looked at once more under the lease."""
    line = make_line(1)
    (scope,) = line.publisher.scopes()
    real, looks = line.run.look, []

    def look() -> list[DueCRL]:
        found = real()
        looks.append(len(found))
        if len(looks) == 1:
            # Another process, right after the first look.
            other = crl_lease(line.store, line.clock.now_ms)
            with held(other, wait_s=0) as fence:
                line.publisher.issue(scope, Due(True, True), fence)
        return found

    line.run.look = look  # type: ignore[method-assign]
    assert line.run.step() == ""
    assert looks == [1, 0]
    assert _published(line, scope.name) == [(COMPLETE, 1)]


def test_many_failing_scopes_are_counted_and_few_are_named(make_line: Callable[[int], _Line]) -> None:
    """The status stays small however many fail."""
    line = make_line(30)
    for number in range(3, 30):
        _spoil(line, number)
    line.run.step()
    status = line.run.status()
    (sums,) = status["issuers"]
    assert (sums["service"], sums["generation"], sums["scopes"]) == ("SIGN", 1, 30)
    assert (sums["failing"], sums["due"]) == (27, 27)
    assert len(status["troubles"]) == NAMES_MAX == 20
    assert status["troubles_total"] == 27


def test_a_bug_that_one_scope_shows_leaves_the_others(make_line: Callable[[int], _Line]) -> None:
    """An error that nobody foresaw counts as that scope's, too."""
    line = make_line(3)

    def stumble() -> None:
        if line.publisher.made[-1].endswith("b01"):
            raise ZeroDivisionError("unforeseen")

    line.publisher.at_each = stumble
    assert line.run.step() == "sign/g1/n64/b00 complete 1, sign/g1/n64/b02 complete 1"
    assert line.run.failures["sign/g1/n64/b01"].error == "ZeroDivisionError: unforeseen"


def test_overdue_counts_from_when_it_was_due(make_line: Callable[[int], _Line], clock: Clock) -> None:
    """A run that was missed by an outage is overdue since its moment, whenever this process began."""
    line = make_line(1)
    line.settle()
    clock.pass_s(5000)
    again = CRLRun(line.publisher, line.lease, now_ms=clock.now_ms, monotonic_s=clock.monotonic_s)
    (item,) = again.look()
    assert item.want.complete
    assert 4000 <= again.overdue_s(item.path) == clock.ms / 1000 - item.since_s
    assert again.overdue_s("sign/g1/all") == 0


def test_a_change_concerns_the_partition_it_is_in_and_the_whole_list(
    make_line: Callable[[int], _Line], clock: Clock
) -> None:
    """Before the first look all partitions may have changed; then the one of the certificate; a key event
    is all of them."""
    line = make_line(0)
    store = line.store
    issuer = issuer_by_id(store, line.issuer_id)

    def issue(serial: bytes, scope: str) -> None:
        with store.writing(clock.now_ms) as act:
            partition = ensure_scope(act, issuer.issuer_id, scope, new_names(issuer, scope))
            act.record(
                ChangeKind.ISSUED,
                issuer_id=issuer.issuer_id,
                serial=serial,
                fingerprint=fingerprint(serial, INDEX_KEY),
                not_after_s=clock.ms // 1000 + 10_000_000,
                scope_id=partition.scope_id,
            )

    def revoke(serial: bytes) -> int:
        with store.writing(clock.now_ms) as act:
            return act.record(ChangeKind.REVOKED, issuer_id=issuer.issuer_id, serial=serial, reason=1).seq

    names = ("all", "m1/13104", "m1/13105")
    for number, scope in enumerate(names[1:], 1):
        issue(bytes([number]), scope)
        issue(bytes([number + 10]), scope)
    overview = CRLOverview(store)

    def changed() -> list[int]:
        overview.refresh()
        return [overview.changed_seq((issuer.issuer_id, name)) for name in names]

    first = revoke(b"\x01")
    assert changed() == [first] * 3
    second = revoke(b"\x02")
    assert changed() == [second, first, second]
    third = revoke(b"\x0b")
    assert changed() == [third, third, second]
    assert changed() == [third, third, second]
    with store.writing(clock.now_ms) as act:
        event = act.record(ChangeKind.CA_KEY_EVENT, issuer_id=issuer.issuer_id, reason=2).seq
    assert changed() == [event] * 3
