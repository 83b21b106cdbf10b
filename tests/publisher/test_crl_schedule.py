"""The schedule of thousands of scopes, without a store: spread, promptness, order, half lives, set clocks."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from publisher.crl_plan import Due, IssuedCRL
from publisher.crl_schedule import CRLSchedule, DueCRL, ScopeStanding, next_starts, phase_s

START_S = 1_800_000_000


@dataclass(frozen=True)
class _Policy:
    crl_period_s: int = 86_400
    crl_validity_s: int = 172_800
    delta_period_s: int = 900
    delta_validity_s: int = 3600
    delta_unchanged: str = "half_life"
    lapse_period_s: int = 604_800
    hold: bool = False
    expired_entries: str = "lapse"


POLICY = _Policy()
NAMES = [f"sign/g2/m1/{number:05}" for number in range(1101, 3101)]


@dataclass
class _World:
    """Scopes whose CRLs are made whenever the schedule says so; no more than *per_tick* at a time."""

    paths: list[str]
    policy: _Policy = POLICY
    per_tick: int = 1_000_000
    now_s: float = float(START_S)
    steady_s: float = 50.0
    store_s: float = 0.0
    seq: int = 1
    number: int = 0
    completes: dict[str, IssuedCRL] = field(default_factory=dict)
    deltas: dict[str, IssuedCRL] = field(default_factory=dict)
    changed: dict[str, int] = field(default_factory=dict)
    # (steady time, path, kind)
    made: list[tuple[float, str, str]] = field(default_factory=list)
    schedule: CRLSchedule = field(default_factory=CRLSchedule)

    def due(self) -> list[DueCRL]:
        standings = [
            ScopeStanding(
                path,
                self.policy,
                self.completes.get(path),
                self.deltas.get(path),
                self.changed.get(path, 0),
            )
            for path in self.paths
        ]
        return self.schedule.due(standings, self.now_s, self.steady_s)

    def change(self, path: str) -> None:
        self.seq += 1
        self.changed[path] = self.seq

    def tick(self, seconds: float = 0.0, *, working: bool = True) -> list[DueCRL]:
        """Let time pass, then make what is due."""
        self.now_s += seconds
        self.steady_s += seconds
        if not working:
            return []
        work = self.due()[: self.per_tick]
        for item in work:
            self.make(item.path, item.want)
        return work

    def make(self, path: str, want: Due) -> None:
        self.store_s = max(self.store_s, self.now_s)
        self.number += 1
        at_s = int(self.store_s)
        has_base = path in self.completes
        if want.complete:
            self.completes[path] = IssuedCRL(self.number, self.seq, at_s, at_s + self.policy.crl_validity_s)
            self.made.append((self.steady_s, path, "complete"))
        if has_base:
            self.deltas[path] = IssuedCRL(self.number, self.seq, at_s, at_s + self.policy.delta_validity_s)
            self.made.append((self.steady_s, path, "delta"))


# --- spread --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "period_s"), [("complete", 86_400), ("delta", 900)])
def test_starts_are_spread_over_the_period(kind: str, period_s: int) -> None:
    """2,000 scopes that were all made in one second: from the second round on no twentieth of the period
    holds more than its share and a third, and none is empty."""
    world = _World(NAMES, replace(POLICY, delta_unchanged="period"))
    world.tick()
    world.tick(1)
    starts = []
    for path in world.paths:
        found = next_starts(path, world.policy, world.completes[path], world.deltas[path])
        starts.append(found.complete_s if kind == "complete" else found.delta_s)
    shares = Counter(int((at_s - START_S) * 20 // (period_s + 2)) for at_s in starts)
    assert set(shares) == set(range(20))
    assert max(shares.values()) <= len(NAMES) / 20 * 4 / 3


def test_a_phase_is_of_the_name_alone() -> None:
    """New scopes move nobody, and a start out of turn moves nothing for good."""
    assert [phase_s(path, 86_400) for path in NAMES[:5]] == [phase_s(path, 86_400) for path in NAMES[:5] * 1]
    assert len({phase_s(path, 86_400) for path in NAMES}) > 1900
    world = _World(NAMES[:1])
    world.tick()
    planned_s = next_starts(NAMES[0], POLICY, world.completes[NAMES[0]], None).complete_s
    world.tick(3000)
    world.make(NAMES[0], Due(True, True))
    assert next_starts(NAMES[0], POLICY, world.completes[NAMES[0]], None).complete_s == planned_s


# --- never late ----------------------------------------------------------------------------------------

_PERIODS = st.tuples(st.integers(2, 100_000), st.integers(1, 200_000))


@settings(max_examples=400, deadline=None)
@given(
    path=st.text(max_size=20),
    complete=_PERIODS,
    delta=_PERIODS,
    unchanged=st.sampled_from(["half_life", "period"]),
    at_s=st.integers(0, 2**33),
    promised_s=st.integers(2, 400_000),
)
def test_a_successor_is_due_within_its_period_and_before_next_update(
    path: str,
    complete: tuple[int, int],
    delta: tuple[int, int],
    unchanged: str,
    at_s: int,
    promised_s: int,
) -> None:
    """Whatever the periods, the name, and what was promised under an earlier policy."""
    policy = _Policy(
        crl_period_s=complete[0],
        crl_validity_s=complete[0] + complete[1],
        delta_period_s=delta[0],
        delta_validity_s=delta[0] + delta[1],
        delta_unchanged=unchanged,
    )
    last = IssuedCRL(7, 7, at_s, at_s + promised_s)
    starts = next_starts(path, policy, last, last)
    assert at_s < starts.complete_s < last.next_update_s
    assert starts.complete_s <= at_s + policy.crl_period_s
    assert at_s < starts.delta_s <= starts.quiet_delta_s < last.next_update_s
    assert starts.delta_s <= at_s + policy.delta_period_s
    if unchanged == "period":
        assert starts.quiet_delta_s == starts.delta_s
    else:
        assert starts.quiet_delta_s <= at_s + max(policy.delta_period_s, promised_s // 2)


@pytest.mark.parametrize("seed", range(6))
def test_nothing_is_ever_beyond_its_next_update(seed: int) -> None:
    """Days of changes at random, and outages shorter than what the validity leaves: whenever the
    publisher works, every list that clients may hold is inside its nextUpdate."""
    numbers = random.Random(seed)
    world = _World(NAMES[:60], replace(POLICY, delta_unchanged=numbers.choice(["half_life", "period"])))
    world.tick()
    world.tick(1)
    down_s = 0.0
    for _ in range(1500):
        for path in numbers.sample(world.paths, numbers.randrange(4)):
            world.change(path)
        working = down_s <= 0
        world.tick(numbers.choice((5, 60, 200)), working=working)
        down_s = numbers.choice((0, 0, 0, 0, 0, 0, 0, 1700)) if working else down_s - 60
        if working:
            for lists in (world.completes, world.deltas):
                assert all(crl.next_update_s > world.now_s for crl in lists.values())
            # A delta goes with the complete CRL that is out, or is a second away.
            assert all(world.deltas[p].number >= world.completes[p].number for p in world.paths)


def test_a_missed_run_is_caught_up_at_once() -> None:
    """After three days nothing waits for its moment: all that was missed is due in the first step, once."""
    world = _World(NAMES[:50])
    world.tick()
    world.tick(1)
    world.tick(3 * 86_400, working=False)
    work = world.tick()
    assert sorted(item.path for item in work) == world.paths
    assert all(item.want.complete for item in work)
    assert world.tick(1) == []


def test_catching_up_goes_by_what_clients_run_out_of() -> None:
    """First what nobody has a list of, then what is over, by nextUpdate, then what is still valid."""
    world = _World(NAMES[:40])
    world.tick()
    world.tick(1)
    numbers = random.Random(5)
    for _ in range(300):
        world.change(numbers.choice(world.paths))
        world.tick(60)
    world.paths = [*world.paths, "auth/g1/new"]
    world.tick(3000, working=False)
    for path in world.paths[:20]:
        world.change(path)
    work = world.due()
    assert work[0].path == "auth/g1/new"
    over = [item.until_s <= world.now_s for item in work]
    assert over == sorted(over, reverse=True)
    assert set(over) == {True, False}
    assert [item.until_s for item in work] == sorted(item.until_s for item in work)
    # However few fit into a step, the order is kept to the end.
    world.per_tick = 7
    done: list[str] = []
    while len(done) < len(work):
        done += [item.path for item in world.tick()]
    assert done == [item.path for item in work]


# --- deltas --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("unchanged", "expected"), [("half_life", 1800), ("period", 900)])
def test_what_nothing_has_changed_is_signed_anew_at_half_its_life(unchanged: str, expected: int) -> None:
    """Half a day without a change: a delta every half life, or every period where the policy says so."""
    policy = replace(POLICY, delta_unchanged=unchanged)
    world = _World([NAMES[0]], policy)
    world.tick()
    for _ in range(20):
        world.tick(60)
    begun_s, before = world.steady_s, len(world.made)
    while world.steady_s < begun_s + 43_200:
        world.tick(60)
    deltas = [at_s for at_s, _, kind in world.made[before:] if kind == "delta"]
    assert abs(len(deltas) - 43_200 / expected) <= 2


def test_a_change_is_on_a_delta_within_the_period() -> None:
    """Whenever it happens; at once if the last delta is older than that, and in no other scope."""
    world = _World(NAMES[:2])
    numbers = random.Random(3)
    world.tick()
    world.tick(1)
    waits = []
    for _ in range(120):
        for _ in range(numbers.randrange(200)):
            world.tick(20)
        before = len(world.made)
        world.change(NAMES[0])
        at_s = world.steady_s
        while world.deltas[NAMES[0]].seq < world.seq:
            world.tick(5)
        waits.append(world.steady_s - at_s)
        assert waits[-1] <= POLICY.delta_period_s + 5
        early = [path for made_s, path, _ in world.made[before:] if made_s == world.steady_s]
        assert NAMES[0] in early
    assert min(waits) <= 5
    assert max(waits) > 300


def test_a_new_complete_crl_gets_its_delta_in_the_next_second() -> None:
    """Also where it was made alone, because nothing before it could be a base."""
    complete = IssuedCRL(3, 3, START_S, START_S + 172_800)
    for delta in (None, IssuedCRL(2, 2, START_S - 50, START_S + 3550)):
        standing = ScopeStanding("p", POLICY, complete, delta, 0)
        assert CRLSchedule().due([standing], START_S, 0) == []
        (found,) = CRLSchedule().due([standing], START_S + 1, 0)
        assert found.want == Due(False, True)


def test_a_change_does_not_count_as_waiting_since_the_period_was_over() -> None:
    """What became due by a change just now is not overdue; what time has made due is, since then."""
    complete = IssuedCRL(1, 1, START_S, START_S + 172_800)
    delta = IssuedCRL(2, 5, START_S + 1, START_S + 3601)
    starts = next_starts("p", POLICY, complete, delta)
    at_s = starts.quiet_delta_s - 1
    assert starts.delta_s < at_s
    (changed,) = CRLSchedule().due([ScopeStanding("p", POLICY, complete, delta, 6)], at_s, 0)
    assert changed.since_s == at_s
    (late,) = CRLSchedule().due([ScopeStanding("p", POLICY, complete, delta, 5)], at_s + 500, 0)
    assert late.since_s == starts.quiet_delta_s


# --- a clock that is set -------------------------------------------------------------------------------


@pytest.mark.parametrize("back_s", [60, 3600, 90_000])
def test_a_clock_set_back_holds_up_no_change_and_makes_nothing_over_and_over(back_s: int) -> None:
    """The store's time stands still meanwhile, so every CRL made then bears the same time."""
    world = _World(NAMES[:5])
    world.tick()
    for _ in range(30):
        world.tick(60)
    world.now_s -= back_s
    before, begun_s = len(world.made), world.steady_s
    while world.steady_s < begun_s + back_s + 7200:
        world.change(NAMES[0])
        at_s, seq = world.steady_s, world.seq
        while world.deltas[NAMES[0]].seq < seq:
            world.tick(10)
            # When the clock catches up, it may count the period once more.
            assert world.steady_s - at_s <= 2 * POLICY.delta_period_s + 10
    passed_s = world.steady_s - begun_s
    made = Counter(path for _, path, _ in world.made[before:])
    assert made[NAMES[0]] <= passed_s / POLICY.delta_period_s * 2 + 4
    for path in NAMES[1:5]:
        assert 1 <= made[path] <= passed_s / 1800 * 2 + 4


def test_a_clock_set_forward_makes_everything_due_once() -> None:
    """Then it is as after an outage."""
    world = _World(NAMES[:5])
    world.tick()
    world.tick(1)
    world.now_s += 200_000
    assert len(world.tick(1)) == 5
    assert world.tick(1) == []
