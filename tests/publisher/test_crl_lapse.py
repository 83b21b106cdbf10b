"""Entries leave when their certificates have ended and a published CRL has said so, in lots, and not because
a clock says so for a while."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from crl_cases import COMPLETE, CRLLine, short_periods
from publisher_cases import START_MS, Clock

from certstatus.changes import ChangeKind
from certstatus.clock import DAY_S
from certstatus.config import parse_config
from certstatus.errors import FencedOff
from issuance.store import Store
from publisher import crl_lapse
from publisher.crl_plan import Due
from publisher.crl_publish import crl_lease
from publisher.crl_run import CRLRun
from publisher.publish_now import publish_now

LIFE_S = 100 * DAY_S
AHEAD_MS = 200 * DAY_S * 1000


@pytest.fixture
def line(tmp_path: Path, clock: Clock) -> Iterator[CRLLine]:
    """A SIGN issuer with one certificate of a hundred days, which is revoked and on a complete CRL."""
    with Store.create(f"sqlite:///{tmp_path / 'store.db'}", START_MS) as store:
        made = CRLLine(store, tmp_path, clock, short_periods("SIGN"))
        made.record(ChangeKind.REVOKED, made.issue_certificate(LIFE_S), 1)
        made.issue(True)
        clock.pass_s(1001)
        yield made


def _entries(line: CRLLine) -> int:
    return len(line.parsed(max(line.numbers(COMPLETE)), COMPLETE).entries)


def _work(line: CRLLine, steps: int) -> None:
    for _ in range(steps):
        line.issue_due()
        line.clock.pass_s(600)


@pytest.mark.parametrize("steps_ahead", [1, 12])
@pytest.mark.parametrize("is_restarted", [False, True])
def test_a_clock_ahead_for_a_while_takes_nobody_off_the_list(
    line: CRLLine, clock: Clock, steps_ahead: int, is_restarted: bool
) -> None:
    """CRLs made meanwhile say that the certificate has ended; it has not, and stays on every list, then and
    when the clock is right again.  Once it has ended, it leaves."""
    line.issue_due()
    clock.ms += AHEAD_MS
    _work(line, steps_ahead)
    assert line.numbers(COMPLETE)[1:]
    assert _entries(line) == 1
    if is_restarted:
        line.publisher = line.another()
        _work(line, 3)
        assert _entries(line) == 1
    clock.ms -= AHEAD_MS
    _work(line, 12)
    assert _entries(line) == 1
    # The clock catches up with what CRLs of that time said, and goes on.
    clock.pass_s(AHEAD_MS / 1000)
    _work(line, 12)
    assert _entries(line) == 0


# --- many at once ----------------------------------------------------------------------------------------


def _left(line: CRLLine) -> int:
    """How many are on the list by the register."""
    return len(line.list_at(line.store.state().seq))


def _all_may_leave(line: CRLLine) -> None:
    """Nine more with the first, ended, and a complete CRL after that is out."""
    for _ in range(9):
        line.record(ChangeKind.REVOKED, line.issue_certificate(LIFE_S), 1)
    line.issue(True)
    for _ in range(LIFE_S // DAY_S + 2):
        line.clock.pass_s(DAY_S)
        line.publisher.tidy(line.fence)
    line.issue(True)
    assert _left(line) == 10
    line.clock.pass_s(1001)


def test_of_many_a_lot_leaves_at_a_time_and_the_next_pass_goes_on(
    line: CRLLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when whoever began was killed; all CRLs that are made meanwhile fit; and once all have left, what
    ends later waits for its own time."""
    monkeypatch.setattr(crl_lapse, "LOT_ENTRIES", 4)
    _all_may_leave(line)
    assert not line.publisher.lapses.has_more()
    line.issue(True)
    assert _left(line) == _entries(line) == 6
    line.publisher = line.another()
    assert line.publisher.lapses.has_more()
    with pytest.raises(FencedOff):
        line.publisher.lapses.go_on(line.fence._replace(number=line.fence.number - 1))
    assert _left(line) == 6
    # The builder has nothing to make, and goes on all the same.
    line.store.renew_publisher(line.fence, 1, line.clock.now_ms)
    line.clock.pass_s(2)
    lease = crl_lease(line.store, line.clock.now_ms)
    run = CRLRun(line.publisher, lease, now_ms=line.clock.now_ms, monotonic_s=line.clock.monotonic_s)
    run.step()
    assert _left(line) == 2
    run.step()
    assert _left(line) == 0
    assert not line.publisher.lapses.has_more()
    assert not line.another().lapses.has_more()
    last_s = crl_lapse.last_lapse_s(line.store, line.issuer_id)
    assert run.step() == ""
    assert crl_lapse.last_lapse_s(line.store, line.issuer_id) == last_s
    line.fence = line.store.acquire_publisher("crl", 1 << 40, line.clock.now_ms, "test")
    line.clock.pass_s(2)
    line.issue(True)
    assert _entries(line) == 0


def test_who_publishes_one_scope_waits_for_no_lot(line: CRLLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lot takes seconds, and a revocation that is published on request has a fraction of one."""
    monkeypatch.setattr(crl_lapse, "LOT_ENTRIES", 4)
    _all_may_leave(line)
    line.issue(True)
    line.publisher.tidy(line.fence)
    line.store.renew_publisher(line.fence, 1, line.clock.now_ms)
    line.clock.pass_s(2)
    url = {"valkey": {"url": "unix:///nowhere"}}
    config = parse_config({"installation": {"state": str(line.state)}, **url}, "test")
    for paths, left in ([line.path], 6), ((), 2):
        publish_now(config, paths=paths, now_ms=line.clock.now_ms, monotonic_s=line.clock.monotonic_s)
        assert _left(line) == left


def test_a_killed_lot_is_taken_up_again(line: CRLLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was recorded stays so, and the rest does not wait for the next period."""
    _all_may_leave(line)

    def killed(_seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("issuance.act.PIECE_MS", 0.0)
    monkeypatch.setattr("publisher.crl_lapse.time.sleep", killed)
    with pytest.raises(KeyboardInterrupt):
        line.issue(True)
    monkeypatch.undo()
    assert 0 < _left(line) < 10
    line.publisher = line.another()
    assert line.publisher.lapses.has_more()
    line.publisher.lapses.go_on(line.fence)
    assert _left(line) == 0
    assert not line.publisher.lapses.has_more()


def test_what_was_registered_and_never_published_lets_nobody_go(line: CRLLine) -> None:
    """A publisher was killed before the pointer moved: nobody was given the CRL that shows the entry after
    its end, so the next one has it still."""
    for _ in range(LIFE_S // DAY_S + 2):
        line.clock.pass_s(DAY_S)
        line.publisher.tidy(line.fence)
    (made,) = line.publisher.make(line.scope, Due(True, False), line.fence)
    line.publisher = line.another()
    line.clock.pass_s(1001)
    line.issue(True)
    assert line.numbers(COMPLETE)[-1] == made.number + 1
    assert _entries(line) == 1
    line.clock.pass_s(1001)
    line.issue(True)
    assert _entries(line) == 0
