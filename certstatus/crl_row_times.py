"""The digits of times in CRL entries, many at a time: from POSIX seconds, and back.

A time is ``YYMMDDHH`` in one word of eight octets and ``MMSS`` in one of four, so that a column of times is
written, read and compared as two columns of numbers; before them a word of two octets for the century,
where one is written.
Knows: the times that 32 bits hold, 1970-01-01 to 2106-02-07.
Does not know: tags and lengths, single times (``der``).
Source: RFC 5280 §4.1.2.5; X.690 §11.7, §11.8.
"""

from __future__ import annotations

from datetime import date
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from certstatus import clock

_HOUR_S = 3600
_CHUNK_HOURS = 1 << 16
_CENTURY_STARTS_S = (946_684_800, 4_102_444_800)
_CENTURIES = np.array([int.from_bytes(digits, "little") for digits in (b"19", b"20", b"21")], np.uint16)
# The first century of UTCTime's years: 50..99 are 19xx, 00..49 are 20xx.
_PIVOT = 50

_ZEROS_8, _ZEROS_4 = np.uint64(0x3030_3030_3030_3030), np.uint32(0x3030_3030)
_BEYOND_9_8, _BEYOND_9_4 = np.uint64(0x7676_7676_7676_7676), np.uint32(0x7676_7676)
_HIGH_8, _HIGH_4 = 0x8080_8080_8080_8080, 0x8080_8080
_EVERY_SECOND_8, _EVERY_SECOND_4 = np.uint64(0x00FF_00FF_00FF_00FF), np.uint32(0x00FF_00FF)
# Year, month, day and hour then stand in 16 bits each, the year lowest.  With this added, the highest of
# the 16 is set where month, day or hour is above 12, 31 or 23; the same for minute and second above 59.
_TO_HIGH_8 = np.uint64(0x7FFF - 99 | (0x7FFF - 12) << 16 | (0x7FFF - 31) << 32 | (0x7FFF - 23) << 48)
_TO_HIGH_4 = np.uint32((0x7FFF - 59) * 0x1_0001)
_HIGH_OF_EVERY_SECOND_8, _HIGH_OF_EVERY_SECOND_4 = 0x8000_8000_8000_8000, 0x8000_8000
# The highest 16 bits of the product with this are year * 416 + month * 32 + day, different for every day.
_DAY_PLACE = np.uint64(1 << 16 | 32 << 32 | 416 << 48)
_PLACES = 1 << 16
_NO_DAY = 0xFFFF


class TimeDigits(NamedTuple):
    """Digits of times as little-endian words of ASCII: ``YYMMDDHH`` and ``MMSS``."""

    to_hour: NDArray[np.uint64]
    to_second: NDArray[np.uint32]


def digits_of(seconds: NDArray[np.uint32]) -> TimeDigits:
    """Return the digits of POSIX seconds, the year by its last two.  Cost: about 6 ns each."""
    hours = seconds // np.uint32(_HOUR_S)
    within = seconds - hours * np.uint32(_HOUR_S)
    if not len(hours):
        return TimeDigits(np.empty(0, np.uint64), np.empty(0, np.uint32))
    first, last = int(hours.min()) // _CHUNK_HOURS, int(hours.max()) // _CHUNK_HOURS
    hours -= np.uint32(first * _CHUNK_HOURS)
    return TimeDigits(_hour_digits(first, last)[hours], _second_digits()[within])


def century_digits_of(seconds: NDArray[np.uint32]) -> NDArray[np.uint16]:
    """Return the first two digits of each time's year, as a little-endian word of ASCII."""
    return _CENTURIES[np.searchsorted(_CENTURY_STARTS_S, seconds, side="right")]


def seconds_of(digits: TimeDigits, centuries: NDArray[np.uint16] | None = None) -> NDArray[np.uint32] | None:
    """Return the POSIX seconds of times, or None if one of them is not a moment that 32 bits hold.

    Takes:  the century's digits of each, or None for UTCTime, where the year says it (1950..2049).
    Cost:   about 8 ns each.
    """
    big, small = digits.to_hour ^ _ZEROS_8, digits.to_second ^ _ZEROS_4
    if not len(big):
        return np.empty(0, np.uint32)
    if not (_are_digits(big, _BEYOND_9_8, _HIGH_8) and _are_digits(small, _BEYOND_9_4, _HIGH_4)):
        return None
    # The first of two digits is the lower octet: ten times it, and the next one beside it.
    big = (big * np.uint64(10) + (big >> np.uint64(8))) & _EVERY_SECOND_8
    small = (small * np.uint32(10) + (small >> np.uint32(8))) & _EVERY_SECOND_4
    if _reaches(big + _TO_HIGH_8, _HIGH_OF_EVERY_SECOND_8) or _reaches(
        small + _TO_HIGH_4, _HIGH_OF_EVERY_SECOND_4
    ):
        return None
    hour = big >> np.uint64(48)
    minute, second = small & np.uint32(0xFF), small >> np.uint32(16)
    place = (big * _DAY_PLACE) >> np.uint64(48)
    if centuries is None:
        days = _utc_days()[place]
    else:
        nineteen, twenty, twenty_one = (centuries == digits for digits in _CENTURIES)
        if not (nineteen | twenty | twenty_one).all():
            return None
        place += (twenty + np.uint64(2) * twenty_one) * np.uint64(_PLACES)
        days = _days_by_century()[place]
    if int(days.max()) == _NO_DAY:
        return None
    seconds = (days * np.uint64(24) + hour) * np.uint64(_HOUR_S) + (minute * np.uint32(60) + second)
    return seconds.astype(np.uint32) if int(seconds.max()) < 1 << 32 else None


def _are_digits(words: NDArray[np.uint64 | np.uint32], beyond_9: np.integer, high: int) -> bool:
    """Say whether every octet is 0..9.  A carry comes only from an octet that is found by itself."""
    return not _reaches((words + beyond_9) | words, high)


def _reaches(words: NDArray[np.uint64 | np.uint32], bits: int) -> bool:
    """Say whether any of *bits* is set in any of *words*."""
    return bool(int(np.bitwise_or.reduce(words)) & bits)


# Tables ------------------------------------------------------------------------------------------------


@lru_cache(maxsize=16)
def _hour_digits(first_chunk: int, last_chunk: int) -> NDArray[np.uint64]:
    """Return ``YYMMDDHH`` of the hours of these chunks (7.5 years, half a MB each)."""
    hours = np.arange(first_chunk * _CHUNK_HOURS, (last_chunk + 1) * _CHUNK_HOURS, dtype=np.int64)
    days = np.arange(hours[0] // 24, hours[-1] // 24 + 1)
    texts = [clock.generalized_time(int(day) * clock.DAY_S)[2:8] + b"00" for day in days]
    table: NDArray[np.uint64] = np.frombuffer(b"".join(texts), "<u8")[hours // 24 - days[0]]
    return table ^ (_two_digits(hours % 24).astype(np.uint64) ^ np.uint64(0x3030)) << np.uint64(48)


@lru_cache(maxsize=1)
def _second_digits() -> NDArray[np.uint32]:
    """Return ``MMSS`` of the seconds of an hour."""
    seconds = np.arange(_HOUR_S)
    high = _two_digits(seconds % 60).astype(np.uint32) << np.uint32(16)
    return _two_digits(seconds // 60).astype(np.uint32) | high


def _two_digits(numbers: NDArray[np.int64]) -> NDArray[np.uint16]:
    return (0x3030 + numbers // 10 + (numbers % 10 << 8)).astype(np.uint16)


@lru_cache(maxsize=1)
def _utc_days() -> NDArray[np.uint64]:
    return _days({year % 100: year for year in range(1900 + _PIVOT, 2000 + _PIVOT)})


@lru_cache(maxsize=1)
def _days_by_century() -> NDArray[np.uint64]:
    years = ({year: 100 * century + year for year in range(100)} for century in (19, 20, 21))
    return np.concatenate([_days(century) for century in years])


def _days(years: dict[int, int]) -> NDArray[np.uint64]:
    """Return the day since 1970-01-01 by its place, for two digits of a year the year they are."""
    table = np.full(_PLACES, _NO_DAY, np.uint64)
    epoch = date(1970, 1, 1)
    for digits, year in years.items():
        for month in range(1, 13):
            first = (date(year, month, 1) - epoch).days
            after = (date(year + month // 12, month % 12 + 1, 1) - epoch).days
            if first >= 0:
                place = digits * 416 + month * 32 + 1
                table[place : place + after - first] = np.arange(first, after)
    return table
