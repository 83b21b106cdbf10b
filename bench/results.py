"""The record of a benchmark run, as it lies in ``bench/results/paths-<commit>.json``::

    {"what": {"command", "commit", "date", "machine", "cpu", "kernel", "versions": {name: version},
              "response_bytes", "unit"},
     "rows": [{"path": "repeated GET", "connections": 64, "yardstick": "nginx static file",
               "must": 1.15, "aim": 1.0,                      (null: for information only)
               "rounds": [{"subject_us", "yardstick_us", "ratio", "subject_busy", "yardstick_busy"}],
               "subject_us": {"median", "min", "max"}, "yardstick_us": {..}, "ratio": {..},
               "requests_per_s": median of the subject,
               "more": {name: number}}]}                      (such as "hit_rate")

Figures are CPU microseconds of the server's processes per request; a ratio belongs to one round;
``busy`` is the share of a processor that the server used (1.0: saturated; null: not a server).
Knows: the form, reading and writing it.  Does not know: how anything is measured.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class What:
    """What was measured where, with what."""

    command: str
    commit: str
    date: str
    machine: str
    cpu: str
    kernel: str
    versions: dict[str, str]
    response_bytes: int
    unit: str


@dataclass(frozen=True, slots=True)
class Round:
    """One round: subject and yardstick in turn."""

    subject_us: float
    yardstick_us: float
    ratio: float
    subject_busy: float | None = None
    yardstick_busy: float | None = None


@dataclass(frozen=True, slots=True)
class Spread:
    """Several rounds in three numbers."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return the spread of *values*, of which there is at least one."""
        return cls(round(statistics.median(values), 4), round(min(values), 4), round(max(values), 4))


@dataclass(frozen=True, slots=True)
class Row:
    """A path against its yardstick.  ``must`` and ``aim`` are bounds of the median ratio; None: no bound."""

    path: str
    connections: int
    yardstick: str
    must: float | None
    aim: float | None
    rounds: tuple[Round, ...]
    subject_us: Spread
    yardstick_us: Spread
    ratio: Spread
    requests_per_s: float
    more: dict[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What tells this row from the others of a record."""
        return f"{self.path}, {self.connections} connections / {self.yardstick}"

    @property
    def verdict(self) -> str:
        """Say what was reached: aim, must, missed; or "-" where nothing is asked."""
        if self.aim is not None and self.ratio.median <= self.aim:
            return "aim"
        if self.must is None:
            return "-"
        return "must" if self.ratio.median <= self.must else "missed"


@dataclass(frozen=True, slots=True)
class Results:
    """A whole record."""

    what: What
    rows: tuple[Row, ...]


def make_row(
    path: str,
    connections: int,
    yardstick: str,
    bounds: tuple[float | None, float | None],
    rounds: Sequence[Round],
    requests_per_s: Sequence[float],
    more: dict[str, float] | None = None,
) -> Row:
    """Return the row of these rounds.  *bounds*: (must, aim); *requests_per_s*: the subject's, by round."""
    return Row(
        path,
        connections,
        yardstick,
        *bounds,
        tuple(rounds),
        Spread.of([item.subject_us for item in rounds]),
        Spread.of([item.yardstick_us for item in rounds]),
        Spread.of([item.ratio for item in rounds]),
        round(statistics.median(requests_per_s), 1),
        more or {},
    )


def write_results(results: Results, file: Path) -> None:
    """Write a record."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(asdict(results), indent=2) + "\n")


def read_results(file: Path) -> Results:
    """Read a record.

    Raises: ValueError — not one; the message names the file.
    """
    try:
        content = json.loads(file.read_text())
        return Results(What(**content["what"]), tuple(_row(row) for row in content["rows"]))
    except (OSError, KeyError, TypeError, ValueError) as exc:
        raise ValueError(f"{file}: not a record of a benchmark run: {exc!r}") from exc


def _row(content: dict[str, Any]) -> Row:
    spreads = {name: Spread(**content[name]) for name in ("subject_us", "yardstick_us", "ratio")}
    rounds = tuple(Round(**item) for item in content["rounds"])
    return Row(**{**content, **spreads, "rounds": rounds})
