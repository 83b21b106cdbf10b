"""The planning of CRLs, without a store: bases, schedules, nextUpdate, lapses."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from publisher.crl_plan import Due, IssuedCRL, LapseRule, choose_base, due, lapse, next_issue_s, next_update_s


@dataclass(frozen=True)
class _Policy:
    crl_period_s: int = 1000
    crl_validity_s: int = 2500
    delta_period_s: int = 100
    delta_validity_s: int = 300
    lapse_period_s: int = 5000
    hold: bool = False


POLICY = _Policy()


def _complete(number: int, this_update_s: int, seq: int = 0) -> IssuedCRL:
    return IssuedCRL(number, seq or number, this_update_s, this_update_s + 2500)


def _delta(number: int, this_update_s: int) -> IssuedCRL:
    return IssuedCRL(number, number, this_update_s, this_update_s + 300)


def test_base_is_the_oldest_inside_its_next_update() -> None:
    """Clients that hold any complete CRL still valid can use the delta, so the oldest of them is its base."""
    completes = [_complete(1, 0), _complete(5, 1000), _complete(9, 2000)]
    assert choose_base(completes, 2499, 12, 0) == completes[0]
    assert choose_base(completes, 2500, 12, 0) == completes[1]
    assert choose_base(completes, 9999, 12, 0) is None


def test_base_is_never_cut_off_nor_the_delta_itself() -> None:
    """What was made before entries left, and the complete CRL of the same number, are no base."""
    completes = [_complete(1, 0, seq=10), _complete(5, 1000, seq=20), _complete(9, 2000, seq=30)]
    assert choose_base(completes, 2100, 12, 11) == completes[1]
    assert choose_base(completes, 2100, 12, 20) == completes[1]
    assert choose_base(completes, 2100, 12, 31) is None
    assert choose_base(completes, 2100, 9, 21) is None


@pytest.mark.parametrize(
    ("now_s", "complete", "delta", "expected"),
    [
        (0, None, None, Due(True, True)),
        (5, _complete(1, 5), None, Due(False, False)),
        (6, _complete(1, 5), None, Due(False, True)),
        (99, _complete(1, 0), _delta(2, 1), Due(False, False)),
        (101, _complete(1, 0), _delta(2, 1), Due(False, True)),
        (999, _complete(1, 0), _delta(2, 950), Due(False, False)),
        (1000, _complete(1, 0), _delta(2, 950), Due(True, True)),
        (1001, _complete(3, 1000), _delta(3, 1000), Due(False, False)),
        (1001, _complete(3, 1000), _delta(2, 950), Due(False, True)),
        # Promised under an earlier policy: a successor after half of what was promised, at the latest.
        (51, IssuedCRL(1, 1, 0, 100), _delta(2, 1), Due(True, True)),
        (49, IssuedCRL(1, 1, 0, 100), _delta(2, 1), Due(False, False)),
    ],
)
def test_schedule(now_s: int, complete: IssuedCRL | None, delta: IssuedCRL | None, expected: Due) -> None:
    """Each kind follows its period, a delta older than the newest complete CRL is replaced at once."""
    assert due(POLICY, now_s, complete, delta) == expected


@pytest.mark.parametrize(
    ("complete", "delta", "expected"),
    [
        (_complete(1, 0), _delta(2, 950), (1000, 1000)),
        (_complete(1, 0), _delta(2, 500), (1000, 600)),
        (_complete(3, 1000), _delta(2, 950), (2000, 1001)),
        (_complete(3, 1000), None, (2000, 1001)),
        (IssuedCRL(1, 1, 0, 100), _delta(2, 1), (50, 50)),
    ],
)
def test_the_next_issue_is_when_the_schedule_asks_for_it(
    complete: IssuedCRL, delta: IssuedCRL | None, expected: tuple[int, int]
) -> None:
    """Until then and no longer a copy may be kept: the schedule asks for nothing a second before."""
    assert next_issue_s(POLICY, complete, delta) == expected
    complete_s, delta_s = expected
    assert due(POLICY, complete_s, complete, delta).complete
    assert due(POLICY, delta_s, complete, delta).delta
    before_s = min(expected) - 1
    assert due(POLICY, before_s, complete, delta) == Due(False, False)


def test_next_update_never_falls() -> None:
    """nextUpdate is not before that of an earlier CRL, also when the policy has become shorter."""
    assert next_update_s(1000, 300, []) == 1300
    assert next_update_s(1000, 300, [_complete(1, 0)]) == 2500
    assert next_update_s(3000, 300, [_complete(1, 0)]) == 3300


def test_lapse_rests_on_the_newest_complete_crl() -> None:
    """Entries leave by what a published complete CRL showed, and not more often than the policy says."""
    assert lapse(POLICY, 9000, None, None) is None
    assert lapse(POLICY, 9000, _complete(4, 8000, seq=77), None) == LapseRule(8000, 77)
    assert lapse(POLICY, 9000, _complete(4, 8000, seq=77), 4001) is None
    assert lapse(POLICY, 9000, _complete(4, 8000, seq=77), 4000) == LapseRule(8000, 77)
