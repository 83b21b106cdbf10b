"""The planning of CRLs, without a store: bases, nextUpdate, lapses."""

from __future__ import annotations

from dataclasses import dataclass

from publisher.crl_plan import IssuedCRL, LapseRule, choose_base, is_lapse_time, lapse, next_update_s


@dataclass(frozen=True)
class _Policy:
    crl_period_s: int = 1000
    crl_validity_s: int = 2500
    delta_period_s: int = 100
    delta_validity_s: int = 300
    lapse_period_s: int = 5000
    hold: bool = False
    expired_entries: str = "lapse"


POLICY = _Policy()


def _complete(number: int, this_update_s: int, seq: int = 0) -> IssuedCRL:
    return IssuedCRL(number, seq or number, this_update_s, this_update_s + 2500)


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


def test_next_update_never_falls() -> None:
    """nextUpdate is not before that of an earlier CRL, also when the policy has become shorter."""
    assert next_update_s(1000, 300, []) == 1300
    assert next_update_s(1000, 300, [_complete(1, 0)]) == 2500
    assert next_update_s(3000, 300, [_complete(1, 0)]) == 3300


def test_lapse_rests_on_the_newest_complete_crl() -> None:
    """Entries leave by what a published complete CRL showed, and not more often than the policy says."""
    newest = _complete(4, 8000, seq=77)
    assert lapse([None]) is None
    assert lapse([newest]) == LapseRule(8000, 77)
    assert [is_lapse_time(POLICY, 9000, last_s) for last_s in (None, 4000, 4001)] == [True, True, False]


def test_lapse_rests_on_the_lists_of_all_scopes() -> None:
    """What one list has not shown past its end stays on all of them; without one of them nothing leaves."""
    whole, part = _complete(4, 8000, seq=77), _complete(9, 7500, seq=80)
    assert lapse([whole, part]) == LapseRule(7500, 77)
    assert lapse([whole, None]) is None
    assert lapse([]) is None
