"""The morning's curve and timetable."""

from __future__ import annotations

import pytest

from bench.morning_peak import MEAN_RATE, PEAK_RATE, Due, questions_until, rate_at


def test_the_morning_goes_from_the_mean_to_the_peak_and_back() -> None:
    """210 a second on average, 620 at the peak, which lasts for a third of the time."""
    assert round(MEAN_RATE) == 208
    assert round(PEAK_RATE) == 623
    assert [rate_at(part) for part in (0.0, 1.0)] == [MEAN_RATE, MEAN_RATE]
    assert [rate_at(part) for part in (1 / 3, 0.5, 2 / 3)] == pytest.approx([PEAK_RATE] * 3)
    assert rate_at(1 / 6) == pytest.approx((MEAN_RATE + PEAK_RATE) / 2)
    assert rate_at(7.0) == rate_at(-1.0) == MEAN_RATE


@pytest.mark.parametrize(("users", "scale"), [(1, 1.0), (64, 1.0), (64, 10.0)])
def test_all_users_together_make_the_rate(users: int, scale: float) -> None:
    """However many they are, they ask as often as the curve says, times the scale."""
    morning_s = 60.0
    asked = sum(
        questions_until(morning_s, Due(morning_s, scale, users, number / users).next_s)
        for number in range(users)
    )
    # A third of the way up, a third at the top, a third down.
    expected = scale * morning_s * (PEAK_RATE / 3 + (MEAN_RATE + PEAK_RATE) / 3)
    assert asked == pytest.approx(expected, rel=0.02)


def test_users_do_not_ask_together() -> None:
    """Their first questions are spread over one period."""
    first = [Due(60.0, 1.0, 4, phase / 4).next_s() for phase in range(4)]
    assert first == sorted(set(first))
    assert first[-1] < 4 / MEAN_RATE
