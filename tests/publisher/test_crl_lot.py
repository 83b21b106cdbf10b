"""Lots of scopes: what they cost, that a scope which fails fails alone, and that nothing half-done shows."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from crl_cases import COMPLETE, DELTA, line_maker
from hypothesis import given
from hypothesis import strategies as st
from lot_cases import Partitioned, Statements
from publisher_cases import Clock

from certstatus.changes import ChangeKind
from certstatus.crl import parse_certificate_list
from certstatus.errors import FencedOff, KeyFileError
from issuance.crl_register import Fence
from issuance.issuers import set_policy
from issuance.store import Store
from publisher import crl_lot
from publisher.crl_lot import lots
from publisher.crl_plan import Due
from publisher.crl_publish import crl_lease
from publisher.crl_run import CRLRun
from publisher.crl_write import CRLWork, WrittenCRL

BOTH, COMPLETE_ONLY, DELTA_ONLY = Due(True, True), Due(True, False), Due(False, True)


@pytest.fixture
def make_line(tmp_path: Path, clock: Clock) -> Iterator[Callable[[int], Partitioned]]:
    """Makes an issuer with so many partitions."""
    with line_maker(tmp_path, lambda store, state, count: Partitioned(store, state, clock, count)) as make:
        yield make


def _at_each(line: Partitioned, do: Callable[[CRLWork], object]) -> None:
    """Have something done right before each scope's files are made."""
    write = line.publisher.writer.write

    def noted(work: CRLWork, fence: Fence, *, synced: bool = True) -> list[WrittenCRL]:
        do(work)
        return write(work, fence, synced=synced)

    line.publisher.writer.write = noted  # type: ignore[method-assign]


def _states(line: Partitioned) -> dict[str, list[tuple[int, str, str]]]:
    return {
        scope.path: [(record.number, record.kind, record.state) for record in line.records(scope)]
        for scope in line.publisher.scopes()
    }


# --- what a lot is ---------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 3 * crl_lot.OCTETS_MAX // 2), max_size=200))
def test_lots_are_bounded_and_leave_nothing_out(sizes: list[int]) -> None:
    """In order; never more scopes than allowed, never longer than allowed but for one list that is alone;
    and no two neighbours that would have been one lot."""
    orders: Any = list(enumerate(sizes))
    octets: Any = sizes.__getitem__
    made: Any = list(lots(orders, octets))
    assert [order for lot in made for order in lot] == orders
    for lot in made:
        assert 0 < len(lot) <= crl_lot.SCOPES_MAX
        assert len(lot) == 1 or sum(size for _, size in lot) <= crl_lot.OCTETS_MAX
    for lot, following in pairwise(made):
        total = sum(size for _, size in lot) + following[0][1]
        assert len(lot) == crl_lot.SCOPES_MAX or total > crl_lot.OCTETS_MAX


def test_a_lot_has_one_cut_and_its_numbers_rise_by_one(make_line: Callable[[int], Partitioned]) -> None:
    """All of a lot show the same thisUpdate and number of the sequence, each scope counts by itself; a lot
    within the second of the one before waits once for all of its scopes."""
    line = make_line(4)
    scopes = line.publisher.scopes()
    line.publisher.make_lot([(scopes[0], BOTH)], line.fence)
    assert line.pauses == []
    line.record(ChangeKind.REVOKED, line.serials[line.names[2]][0], 1)
    outcomes = line.make(BOTH)
    assert len(line.pauses) == 1
    assert 0 < line.pauses[0] <= 1
    numbers = {path: [(item.kind, item.number) for item in made] for path, made in outcomes.items()}  # type: ignore[union-attr]
    assert numbers.pop(scopes[0].path) == [(COMPLETE, 2), (DELTA, 2)]
    assert set(map(tuple, numbers.values())) == {((COMPLETE, 1),)}
    newest = [line.records(scope)[-1] for scope in scopes]
    assert len({(record.seq, record.this_update_s) for record in newest}) == 1
    assert newest[0].this_update_s > line.records(scopes[0])[0].this_update_s
    for turn in range(3):
        line.make(DELTA_ONLY)
        assert [line.records(scope)[-1].number for scope in scopes] == [3 + turn] + [2 + turn] * 4
    assert len(line.pauses) == 4
    for scope in scopes:
        shown = [record.this_update_s for record in line.records(scope)]
        by_number = dict(zip([record.number for record in line.records(scope)], shown, strict=True))
        assert len(set(by_number.values())) == len(by_number)


def test_each_list_of_a_lot_has_its_own_entries(
    make_line: Callable[[int], Partitioned], clock: Clock
) -> None:
    """What is revoked in one partition is in its CRLs and in those of ``all``."""
    line = make_line(3)
    line.make(COMPLETE_ONLY)
    clock.pass_s(5)
    line.record(ChangeKind.REVOKED, revoked := line.serials[line.names[1]][0], 1)
    outcomes = line.make(BOTH)
    for path, made in outcomes.items():
        assert not isinstance(made, Exception)
        assert [item.kind for item in made] == [COMPLETE, DELTA]
        is_in = path.endswith((line.names[1], "/all"))
        for item in made:
            parsed = parse_certificate_list(item.file.read_bytes())
            assert [entry.serial for entry in parsed.entries] == [revoked] * is_in


# --- what it costs ---------------------------------------------------------------------------------------


def test_a_lot_costs_as_much_however_many_scopes_it_has(
    make_line: Callable[[int], Partitioned], clock: Clock
) -> None:
    """Outside of the files themselves: as many statements for three scopes as for forty, and two transactions
    under the lock; the same of the catalogue and the archive that follow, and of a tidying."""
    costs = []
    for count in (3, 40):
        line = make_line(count)
        line.make(COMPLETE_ONLY)
        clock.pass_s(5)
        cost = []
        for want in (BOTH, DELTA_ONLY):
            acts = line.store.lock_times.acts
            scopes = [scope for scope, _ in line.orders(want)]
            with Statements(line) as counted:
                outcomes = line.publisher.make_lot(line.orders(want), line.fence)
            assert all(isinstance(made, list) for made in outcomes.values())
            cost.append(counted.count)
            assert line.store.lock_times.acts - acts == 2
            with Statements(line) as counted:
                line.publisher.finish(scopes, line.fence)
            cost.append(counted.count)
            # A cut for its generation, and itself.
            assert line.store.lock_times.acts - acts == 4
            with Statements(line) as counted:
                line.publisher.tidy(line.fence)
            cost.append(counted.count)
            clock.pass_s(5)
        costs.append(cost)
    assert costs[0] == costs[1]
    assert max(costs[0]) <= 45, costs


def test_where_nothing_moves_nothing_is_asked_scope_by_scope(
    make_line: Callable[[int], Partitioned], clock: Clock
) -> None:
    """A tick and a tidying over a hundred scopes cost as many statements as over two, and those few."""
    costs = []
    for count in (2, 99):
        line = make_line(count)
        line.make(COMPLETE_ONLY)
        clock.pass_s(2)
        line.make(DELTA_ONLY)
        run = CRLRun(line.publisher, crl_lease(line.store, clock.now_ms), now_ms=clock.now_ms)
        line.publisher.tidy(line.fence)
        assert run.look() == []
        clock.pass_s(1)
        cost = []
        with Statements(line) as counted:
            run.look()
        cost.append(counted.count)
        with Statements(line) as counted:
            line.publisher.tidy(line.fence)
        cost.append(counted.count)
        costs.append(cost)
    assert costs[0] == costs[1]
    assert max(costs[0]) <= 30, costs


def test_no_statement_walks_over_all_that_was_ever_published(
    make_line: Callable[[int], Partitioned], clock: Clock
) -> None:
    """Of lots (one of them with a scope that fails), catalogue, archive, tidying and last CRLs, on SQLite:
    everything that grows with the years is searched by an index."""
    line = make_line(3)
    policy = replace(line.publisher.scopes()[0].issuer.policy, last_crl_days=1)
    set_policy(line.store, line.issuer_id, policy, clock.now_ms)
    asked: dict[str, Any] = {}

    def note(
        _connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, many: bool
    ) -> None:
        asked.setdefault(statement, parameters[0] if many else parameters)

    def stumble(work: CRLWork) -> None:
        if work.allocated.number == 2 and work.scope.name == line.names[0]:
            raise OSError("disk full")

    sa.event.listen(line.store.engine, "before_cursor_execute", note)
    _at_each(line, stumble)
    for want in (COMPLETE_ONLY, BOTH, DELTA_ONLY, BOTH):
        line.record(ChangeKind.REVOKED, line.issue(line.names[1]), 1)
        line.make(want)
        line.publisher.tidy(line.fence)
        clock.pass_s(2000)
    sa.event.remove(line.store.engine, "before_cursor_execute", note)
    raw = line.store.engine.raw_connection()
    walks = []
    for statement, parameters in asked.items():
        if statement.startswith(("SELECT", "UPDATE")):
            steps = raw.cursor().execute(f"EXPLAIN QUERY PLAN {statement}", parameters).fetchall()
            walks += [
                (step[3], statement)
                for step in steps
                if step[3].startswith("SCAN")
                and step[3].split()[1] in ("crl", "change", "certificate")
                # The few that no catalogue has named yet.
                and "ix_crl_unshown" not in step[3]
            ]
    raw.close()
    assert len(asked) > 40
    assert walks == [], walks


# --- failures --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [OSError("disk full"), ZeroDivisionError("unforeseen")])
def test_the_third_scope_of_a_lot_fails_alone(
    make_line: Callable[[int], Partitioned], clock: Clock, error: Exception
) -> None:
    """The others are out; its number is withdrawn and stays used, and nothing of it is to be seen."""
    line = make_line(5)
    line.make(COMPLETE_ONLY)
    clock.pass_s(5)
    third = line.publisher.scopes()[2]

    def stumble(work: CRLWork) -> None:
        if work.scope == third and work.allocated.number == 2:
            raise error

    _at_each(line, stumble)
    outcomes = line.make(BOTH)
    assert outcomes.pop(third.path) is error
    assert all(isinstance(made, list) and len(made) == 2 for made in outcomes.values())
    assert _states(line)[third.path] == [
        (1, COMPLETE, "published"),
        (2, COMPLETE, "withdrawn"),
        (2, DELTA, "withdrawn"),
    ]
    assert line.files() == sorted(entry.file for entry in line.catalogue())
    assert {entry.number for entry in line.catalogue() if entry.scope == third.name} == {1}
    clock.pass_s(5)
    made = line.make(BOTH)[third.path]
    assert isinstance(made, list)
    assert [(item.kind, item.number) for item in made] == [(COMPLETE, 3), (DELTA, 3)]


def test_a_scope_whose_second_file_cannot_get_its_name_leaves_none(
    make_line: Callable[[int], Partitioned], clock: Clock
) -> None:
    """The complete CRL is under its name already when the delta is refused: neither is published nor left."""
    line = make_line(2)
    line.make(COMPLETE_ONLY)
    clock.pass_s(5)
    scope = line.publisher.scopes()[1]
    # A folder with something in it cannot be renamed over.
    obstacle = line.state / "crl" / scope.file(DELTA, 2)
    (obstacle / "in").mkdir(parents=True)
    outcomes = line.make(BOTH)
    assert isinstance(outcomes[scope.path], OSError)
    assert [made for made in outcomes.values() if isinstance(made, Exception)] == [outcomes[scope.path]]
    assert _states(line)[scope.path][1:] == [(2, COMPLETE, "withdrawn"), (2, DELTA, "withdrawn")]
    assert [name for name in line.files() if name.startswith(scope.path)] == [f"{scope.path}/1.crl"]


def test_without_its_key_an_issuers_scopes_use_up_no_number(make_line: Callable[[int], Partitioned]) -> None:
    """Each says so; nothing is allocated."""
    line = make_line(2)
    (line.state / "ca" / f"{line.issuer_id}.key").unlink()
    line.keys._loaded.clear()
    outcomes = line.publisher.make_lot(line.orders(BOTH), line.fence)
    assert {type(outcome) for outcome in outcomes.values()} == {KeyFileError}
    assert set(map(tuple, _states(line).values())) == {()}


def test_a_clock_set_back_holds_no_lot_up(make_line: Callable[[int], Partitioned], clock: Clock) -> None:
    """The store's time stands still; a lot waits no longer than a second for it, and numbers go on."""
    line = make_line(2)
    line.make(COMPLETE_ONLY)
    clock.pass_s(-500)
    outcomes = line.make(BOTH)
    assert sum(line.pauses) <= crl_lot._LATER_SECOND_S_MAX
    for made in outcomes.values():
        assert not isinstance(made, Exception)
        assert {item.number for item in made} == {2}


def test_a_lost_lease_records_nothing_of_the_lot(
    make_line: Callable[[int], Partitioned], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taken over when all files are in their places: the register refuses the lot as a whole, the next
    publisher withdraws its numbers and gives out the following ones, and what was out stays out."""
    line = make_line(3)
    line.make(COMPLETE_ONLY)
    before = line.catalogue()
    clock.pass_s(5)
    record, old = line.store.record_crls, line.fence

    def late(*arguments: Any) -> None:
        line.take_over()
        record(*arguments)

    monkeypatch.setattr(line.store, "record_crls", late)
    with pytest.raises(FencedOff):
        line.publisher.make_lot(line.orders(BOTH), old)
    monkeypatch.undo()
    for lines in _states(line).values():
        assert lines == [(1, COMPLETE, "published"), (2, COMPLETE, "allocated"), (2, DELTA, "allocated")]
    with pytest.raises(FencedOff):
        line.publisher.make_lot(line.orders(BOTH), old)
    assert line.catalogue() == before
    line.make(BOTH)
    line.publisher.tidy(line.fence)
    for lines in _states(line).values():
        assert {(number, state) for number, _, state in lines} == {
            (1, "published"),
            (2, "withdrawn"),
            (3, "published"),
        }
    assert line.files() == sorted(entry.file for entry in line.catalogue())


def _kill_after(line: Partitioned, count: int) -> bool:
    """Make a lot in a process of its own, which is killed before its *count*-th step; say whether it was."""
    child = os.fork()
    if child == 0:
        try:
            left = [count]

            def counted(call: Callable[..., Any]) -> Callable[..., Any]:
                def wrapped(*arguments: Any, **named: Any) -> Any:
                    if left[0] == 0:
                        os.kill(os.getpid(), signal.SIGKILL)
                    left[0] -= 1
                    return call(*arguments, **named)

                return wrapped

            # A connection of its own: a forked one is the parent's.
            line.store = Store.open(f"sqlite:///{line.state / 'store.db'}")
            line.publisher = line.another()
            line.fence = line.store.acquire_publisher(
                "crl", 1 << 40, line.clock.now_ms, "killed", take_over=True
            )
            for owner, names in (
                (os, ("fsync",)),
                (Path, ("rename",)),
                (line.store, ("withdraw_crls", "allocate_crls", "record_crls", "publish_crls", "cut")),
            ):
                for name in names:
                    setattr(owner, name, counted(getattr(owner, name)))
            line.make(BOTH)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def test_killed_at_each_point_of_a_lot_nothing_half_done_is_out_and_no_number_comes_twice(
    make_line: Callable[[int], Partitioned], clock: Clock
) -> None:
    """`kill -9` before each file, rename, record and pointer: all of the lot is published or nothing, what is
    out is what the register says and on disk, and the next lot's numbers follow."""
    line = make_line(2)
    line.make(COMPLETE_ONLY)
    expected, after, was_killed = 1, 0, True
    seen = set()
    while was_killed:
        clock.pass_s(5)
        before = _states(line)
        was_killed = _kill_after(line, after)
        after += 1
        new = {
            path: [item for item in lines if item not in before[path]]
            for path, lines in _states(line).items()
        }
        # Whatever was left of an earlier lot is withdrawn first.
        states = {state for lines in new.values() for _, _, state in lines} - {"withdrawn"}
        assert len(states) <= 1, "a part of the lot"
        seen |= states
        expected += bool(states)
        line.take_over()
        line.publisher.tidy(line.fence)
        catalogue = line.catalogue()
        assert line.files() == sorted(entry.file for entry in catalogue)
        for entry in catalogue:
            content = (line.state / "crl" / entry.file).read_bytes()
            assert hashlib.sha256(content).hexdigest() == entry.sha256
        for scope in line.publisher.scopes():
            published = {item.number for item in line.records(scope) if item.state == "published"}
            newest = {entry.number for entry in catalogue if entry.scope == scope.name and entry.current}
            assert newest == {max(published)}
            assert line.records(scope)[-1].number == expected
    assert seen == {"allocated", "published"}
    assert after > 15
    line.make(BOTH)
    for scope in line.publisher.scopes():
        numbers = sorted({record.number for record in line.records(scope)})
        assert numbers == list(range(1, expected + 2))
        assert {record.state for record in line.records(scope)} == {"published", "withdrawn"}


def test_two_publishers_that_take_the_lease_from_each_other_share_no_number(
    make_line: Callable[[int], Partitioned],
) -> None:
    """Side by side, each taking over in the middle of the other's lots: every number is one publisher's, of
    each lot all is published or nothing, and no scope's numbers have a gap."""
    line = make_line(3)
    made: list[dict[str, tuple[int, ...]]] = []
    fenced_off: list[int] = []
    troubles: list[BaseException] = []

    def publish(name: str) -> None:
        try:
            with Store.open(f"sqlite:///{line.state / 'store.db'}") as store:
                other = line.another(store)
                for _ in range(12):
                    fence = store.acquire_publisher("crl", 1000, line.clock.now_ms, name, take_over=True)
                    orders = [(scope, BOTH) for scope in other.scopes()]
                    try:
                        outcomes = other.make_lot(orders, fence)
                        made.append(
                            {path: tuple({item.number for item in items}) for path, items in outcomes.items()}  # type: ignore[union-attr]
                        )
                        other.finish([scope for scope, _ in orders], fence)
                    except FencedOff:
                        fenced_off.append(1)
        except BaseException as exc:
            troubles.append(exc)

    threads = [threading.Thread(target=publish, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert troubles == []
    assert fenced_off
    line.take_over()
    line.clock.pass_s(5)
    made.append({path: tuple({item.number for item in items}) for path, items in line.make(BOTH).items()})  # type: ignore[union-attr]
    line.publisher.tidy(line.fence)
    for scope in line.publisher.scopes():
        published = [record for record in line.records(scope) if record.state == "published"]
        numbers = sorted({record.number for record in line.records(scope)})
        assert numbers == list(range(1, len(numbers) + 1))
        assert {record.state for record in line.records(scope)} <= {"published", "withdrawn"}
        told = [number for lot in made for number in lot[scope.path]]
        assert len(told) == len(set(told))
        assert set(told) == {record.number for record in published}
    assert line.files() == sorted(entry.file for entry in line.catalogue())


def test_a_last_crl_that_is_out_concerns_its_scope_alone(
    make_line: Callable[[int], Partitioned], clock: Clock
) -> None:
    """Of a lot it is refused; the others are made."""
    line = make_line(2)
    line.make(COMPLETE_ONLY)
    clock.pass_s(5)
    over = line.publisher.scopes()[1]
    line.publisher.prepare_last(over, line.fence)
    line.publisher.publish_last(over, line.fence)
    clock.pass_s(5)
    outcomes = line.make(BOTH)
    assert "its last CRL is out" in str(outcomes.pop(over.path))
    assert all(isinstance(made, list) for made in outcomes.values())


def test_what_takes_entries_away_between_the_look_and_the_cut_makes_a_complete_crl(
    make_line: Callable[[int], Partitioned], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A delta that was to be made has lost its base by the cut: in the partition that lost an entry, and in
    ``all``, complete CRLs come in its place; the other partitions get their deltas."""
    line = make_line(3)
    serial = line.serials[line.names[0]][0]
    line.record(ChangeKind.REVOKED, serial, 1)
    line.make(COMPLETE_ONLY)
    clock.pass_s(5)
    allocate = line.store.allocate_crls

    def late(*arguments: Any) -> Any:
        monkeypatch.undo()
        line.record(ChangeKind.LAPSED, serial)
        return allocate(*arguments)

    monkeypatch.setattr(line.store, "allocate_crls", late)
    outcomes = line.make(DELTA_ONLY)
    kinds = {}
    for path, made in outcomes.items():
        assert isinstance(made, list)
        kinds[path.removeprefix("sign/g1/")] = [(item.kind, item.number) for item in made]
    assert kinds == {
        "all": [(COMPLETE, 3)],
        line.names[0]: [(COMPLETE, 3)],
        line.names[1]: [(DELTA, 2)],
        line.names[2]: [(DELTA, 2)],
    }


# --- one of many -----------------------------------------------------------------------------------------


def test_one_scope_moves_the_pointer_for_itself_and_for_what_waits(
    make_line: Callable[[int], Partitioned],
) -> None:
    """A publisher that was killed before its pointer moved left a scope registered and in no catalogue:
    whoever publishes another one takes it along, and leaves the lines of all others as they were."""
    line = make_line(5)
    line.make(BOTH)
    _, left, made, *others = line.publisher.scopes()
    for scope in (left, made):
        line.record(ChangeKind.REVOKED, line.serials[scope.name][0], 1)
    line.clock.pass_s(5)
    before = line.catalogue()
    # Registered, and its publisher is gone.
    line.publisher.make_lot([(left, DELTA_ONLY)], line.fence)
    assert line.catalogue() == before
    line.clock.pass_s(5)
    other = line.another()
    other.issue(made, DELTA_ONLY, line.fence)
    after = line.catalogue()
    newest = {entry.scope: entry.number for entry in after if entry.kind == DELTA and entry.current}
    assert (newest[left.name], newest[made.name]) == (2, 2)
    names = {scope.name for scope in others}
    assert [entry for entry in after if entry.scope in names] == [
        entry for entry in before if entry.scope in names
    ]
    # A publisher that looks at all of them finds nothing else to say.
    line.another().publish_catalogue(line.fence)
    assert line.catalogue() == after


def test_one_scope_that_has_nothing_to_show_leaves_the_catalogue(
    make_line: Callable[[int], Partitioned],
) -> None:
    """Its files are gone, say: the pointer moves for it alone, and names none of them."""
    line = make_line(3)
    line.make(BOTH)
    _, lost, *_others = line.publisher.scopes()
    before = line.catalogue()
    for path in (line.state / "crl" / lost.path).iterdir():
        path.unlink()
    line.clock.pass_s(5)
    line.another().publish_catalogue(line.fence, [lost])
    assert line.catalogue() == [entry for entry in before if entry.scope != lost.name]
