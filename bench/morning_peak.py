"""The morning of a national service: how many requests a second, from quiet to the peak and back.

The figures are an estimate for insurance checks at surgeries and pharmacies in Japan, if each caused
one status request: 231.58 million checks in May 2025 if all were made by card, over 31 days of ten
hours, are 210 a second on average; three times that at the peak, 620 a second.  (By card it was
67.85 million: 61 and 180.)  How many there really are has not been published.
Knows: the curve.  Does not know: asking.
"""

from __future__ import annotations

from collections.abc import Callable

CHECKS_A_MONTH = 231_580_000
DAYS, HOURS = 31, 10
PEAK_FACTOR = 3.0
MEAN_RATE = CHECKS_A_MONTH / (DAYS * HOURS * 3600)
PEAK_RATE = MEAN_RATE * PEAK_FACTOR


def rate_at(part: float) -> float:
    """Return requests a second when *part* (0..1) of the morning is over.

    It begins at the mean rate, reaches the peak after a third, stays there for a third, and ends at the mean.
    """
    height = min(1.0, max(0.0, min(part, 1.0 - part) * 3.0))
    return MEAN_RATE + (PEAK_RATE - MEAN_RATE) * height


class Due:
    """When one of *users* asks next, in a morning of *length_s* at *scale* times the rate.

    *phase*, 0..1: where between two questions this one begins, so that users do not ask together.
    """

    def __init__(self, length_s: float, scale: float, users: int, phase: float) -> None:
        self._length_s = length_s
        self._scale = scale / max(1, users)
        self._at_s = phase / (rate_at(0.0) * self._scale)

    def next_s(self) -> float:
        """Return the next moment, in seconds from the beginning."""
        at_s = self._at_s
        self._at_s += 1.0 / (rate_at(at_s / self._length_s) * self._scale)
        return at_s


def questions_until(end_s: float, due: Callable[[], float]) -> int:
    """Return how many questions *due* gives before *end_s*."""
    count = 0
    while due() < end_s:
        count += 1
    return count
