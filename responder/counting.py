"""Counting: no answer leaves before it stands in this worker's counter file.

Knows: one file per hour and process, a new one when its rows are used up or the epoch is
another; the sums of what was counted, for the operators.
Does not know: who is entitled; how the cells reach the store (the agent drains the files).
Source: Act arts. 40, 41, 67 (ledger and fees: each provision by recipient and kind).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from certstatus import clock
from certstatus.counters import KINDS_PER_ROW, CounterFile, Provision
from certstatus.errors import CountersUnavailable

_HOUR_S = 3600


class Counting:
    """This worker's counters.  ``until_s``: the POSIX second at which the present file ends."""

    def __init__(self, folder: Path, host: str, slot: int, rows_max: int) -> None:
        self._folder = folder
        self._host = host
        self._slot = slot
        self._rows_max = rows_max
        self._file: CounterFile | None = None
        self._epoch = b""
        self._sealed = [0] * KINDS_PER_ROW
        # Whoever keeps places of the present file must forget them when it is sealed.
        self.when_rolled: list[Callable[[], None]] = []
        self.until_s = 0

    def ensure(self, epoch: bytes, now_s: int) -> memoryview:
        """Return the cells to raise at *now_s*: a new file's if hour or epoch are not the present one's.

        Raises: CountersUnavailable — no new file can be made: then nothing may be answered.
        """
        if self._file is None or epoch != self._epoch or now_s >= self.until_s:
            self.roll(epoch, now_s)
        assert self._file is not None
        return self._file.cells

    def roll(self, epoch: bytes, now_s: int) -> None:
        """Seal the present file and begin another.

        Raises: CountersUnavailable — as ``ensure``; the present file is sealed all the same.
        """
        self.close()
        hour_s = clock.jst_hour_start_s(now_s)
        self._file = CounterFile(self._folder, epoch, self._host, self._slot, hour_s, self._rows_max)
        self._epoch = epoch
        self.until_s = hour_s + _HOUR_S

    def row(self, verifier_id: int, issuer_id: int) -> int:
        """Return the first cell of a row in the present file.

        Raises: CountersUnavailable — there is no file, or all its rows are taken.
        """
        if self._file is None:
            raise CountersUnavailable("there is no counter file")
        return self._file.row(verifier_id, issuer_id)

    def close(self) -> None:
        """Seal the present file: its cells grow no more."""
        if self._file is not None:
            self._sealed = self.totals()
            self._file.seal()
            self._file = None
            self.until_s = 0
            for forget in self.when_rolled:
                forget()

    def totals(self) -> list[int]:
        """Return what this process has counted in all, by ``Provision``; 0.4 µs for each row in use."""
        totals = list(self._sealed)
        if self._file is not None:
            # Most files have room for far more: 65,536 rows would take 25 ms.
            cells = self._file.cells[: self._file.used]
            for kind in range(len(Provision)):
                totals[kind] += sum(cells[kind::KINDS_PER_ROW])
        return totals
