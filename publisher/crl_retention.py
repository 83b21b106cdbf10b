"""The time by which packs leave the archive: the clock's, unless it runs ahead of what can have passed.

::

    time = min(clock, time at the last look + 2 * what has passed since by the steady clock)

The last look may have been another process's, as long as the machine has not been restarted since: so it goes
on, too, where nothing runs but ``publish now`` every hour.

A clock set years ahead makes every pack look over, and what is removed does not come back with the clock.
So this time follows the clock, but gains on what has really passed no more than a day each day: while the
clock is wrong, two days of packs go in a day instead of all at once, and an operator has time to see it.
After a machine was off, or restarted, it catches up the same way; meanwhile packs stay longer than they must,
which costs room only.
Entries of certificates that have ended leave the CRLs by the same time, for they do not come back either.
Knows: that, and keeping it from one process to the next.  Does not know: packs, or how long they are kept.
Source: Act arts. 16, 35 (the period for which the files are kept).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from certstatus import clock, processes
from certstatus.crl_archive import CRLArchive
from certstatus.durable import write_durable

log = logging.getLogger(__name__)

GAIN = 2
# In the archive's folder, as text: POSIX seconds, the run of the machine and its steady clock, which are
# missing where an earlier version wrote it.
FILE = ".time"
_KEPT_EVERY_S = 3600
_SAID_FROM_S = clock.DAY_S


class _Look(NamedTuple):
    """The time (POSIX s) at a look, and the steady clock then; ``boot``: of which run of the machine."""

    time_s: float
    steady_s: float
    boot: str


class RetentionTime:
    """The time of *archive*, as one process sees it."""

    def __init__(self, archive: CRLArchive, monotonic_s: Callable[[], float]) -> None:
        self._archive = archive
        self._path = archive.folder / FILE
        self._monotonic_s = monotonic_s
        self._boot = processes.boot_id()
        # The last one, of this process or before; None before the first.
        self._last: _Look | None = None
        self._kept = _Look(0, 0, "")
        self._is_said = False

    def limit(self, now_s: int) -> int:
        """Return the time (POSIX s) where the clock says *now_s*: never later."""
        steady_s = self._monotonic_s()
        if self._last is None:
            self._kept = self._read()
            time_s = self._kept.time_s or now_s
            goes_on = self._kept.boot == self._boot != ""
            self._last = _Look(time_s, self._kept.steady_s if goes_on else steady_s, self._boot)
        passed_s = max(0.0, steady_s - self._last.steady_s)
        self._last = _Look(min(float(now_s), self._last.time_s + GAIN * passed_s), steady_s, self._boot)
        self._say(now_s - self._last.time_s)
        self._keep(self._last)
        return int(self._last.time_s)

    def _read(self) -> _Look:
        """Return the look that was kept, or one at the end of the newest pack's day; 0: nothing is there."""
        with suppress(OSError, ValueError):
            time, *more = self._path.read_text(encoding="ascii").split()
            boot, steady = more or ("", "0")
            return _Look(int(time), float(steady), boot)
        names = self._archive.names()
        return _Look(clock.jst_day_end_s(names[-1].day) if names else 0, 0, "")

    def _keep(self, look: _Look) -> None:
        is_near = abs(look.time_s - self._kept.time_s) < _KEPT_EVERY_S
        if (is_near and self._kept.boot == look.boot) or not self._archive.folder.is_dir():
            return
        # Without it the next start begins from an earlier time, and keeps packs longer.
        with suppress(OSError):
            run = f" {look.boot} {look.steady_s}" if look.boot else ""
            write_durable(self._path, f"{int(look.time_s)}{run}".encode("ascii"))
            self._kept = look

    def _say(self, behind_s: float) -> None:
        is_behind = behind_s >= _SAID_FROM_S
        if is_behind and not self._is_said:
            log.warning(
                "CRL archive: the clock is %.0f days beyond what has passed since the last look;"
                " if it is right, packs are kept that much longer for a while, if not, set it",
                behind_s / clock.DAY_S,
            )
        self._is_said = is_behind
