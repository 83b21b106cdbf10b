"""The one place that asks the system what time it is.

Knows: POSIX time in UTC (seconds and milliseconds), monotonic time, and the legal
day, which is the date in Japan (JST, UTC+9, no daylight saving).
Does not know: what the times are for; every other module takes time as a parameter.
Source: RFC 5280 §4.1.2.5 for the form on the wire; the Act counts whole JST days.
"""

from __future__ import annotations

import time
from datetime import UTC, date, datetime, timedelta

JST_OFFSET_S = 9 * 3600
DAY_S = 86_400
_EPOCH_DAY = date(1970, 1, 1)


def now_s() -> int:
    """Return the wall clock in whole POSIX seconds, rounded down."""
    return int(time.time())


def now_ms() -> int:
    """Return the wall clock in POSIX milliseconds, rounded down."""
    return time.time_ns() // 1_000_000


def monotonic_s() -> float:
    """Return seconds since an arbitrary start; never goes back."""
    return time.monotonic()


def thread_cpu_s() -> float:
    """Return the seconds that the calling thread has spent on a processor (CLOCK_THREAD_CPUTIME_ID)."""
    return time.thread_time()


def jst_day_number(posix_s: int) -> int:
    """Return the JST day of *posix_s* as days since 1970-01-01 (range 0..65535 in the index)."""
    return (posix_s + JST_OFFSET_S) // DAY_S


def jst_day(posix_s: int) -> date:
    """Return the legal day (JST date) that *posix_s* falls on."""
    return _EPOCH_DAY + timedelta(days=jst_day_number(posix_s))


def jst_day_end_s(day_number: int) -> int:
    """Return the last second of JST day *day_number*: 23:59:59 JST, 14:59:59 UTC."""
    return (day_number + 1) * DAY_S - JST_OFFSET_S - 1


def jst_hour_start_s(posix_s: int) -> int:
    """Return the first second of the (JST) hour of *posix_s*; hours coincide with UTC hours."""
    return posix_s - posix_s % 3600


def utc(posix_s: int) -> datetime:
    """Return *posix_s* as an aware datetime in UTC."""
    return datetime.fromtimestamp(posix_s, UTC)


def utc_text(posix_s: int) -> str:
    """Return a time as people read it in messages: ``2026-11-24T05:29:23Z``."""
    return f"{utc(posix_s):%Y-%m-%dT%H:%M:%SZ}"


def generalized_time(posix_s: int) -> bytes:
    """Return ``YYYYMMDDHHMMSSZ`` (RFC 5280 §4.1.2.5.2): seconds present, no fraction."""
    return time.strftime("%Y%m%d%H%M%SZ", time.gmtime(posix_s)).encode("ascii")
