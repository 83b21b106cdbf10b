"""The rows of the cost table: which measurement against which, and what must be reached.

A measurement has a name; a row's yardstick is a sum of measurements of the same round, each with its
weight, and of so many signatures as the subject made for a request.
Knows: the arithmetic of a row.  Does not know: how anything is measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bench.measure import Measured
from bench.results import Round, Row, make_row


@dataclass(frozen=True, slots=True)
class RowPlan:
    """A row that is to be measured.

    parts      measurements of the yardstick: name -> weight
    signature  the measurement of one signature, weighed by the signatures the subject made for a
               request (one, if they were not counted); empty: the yardstick signs nothing
    must, aim  bounds of the ratio; None: for information
    """

    path: str
    connections: int
    yardstick: str
    subject: str
    parts: Mapping[str, float]
    signature: str = ""
    must: float | None = None
    aim: float | None = None

    @property
    def needs(self) -> set[str]:
        """The names of the measurements this row is made of."""
        return {self.subject, *self.parts} | ({self.signature} if self.signature else set())


def yardstick_us(plan: RowPlan, measured: Mapping[str, Measured]) -> float:
    """Return what the yardstick comes to in a round."""
    total = sum(weight * measured[name].us for name, weight in plan.parts.items())
    if plan.signature:
        signatures = measured[plan.subject].signatures
        total += (1.0 if signatures is None else signatures) * measured[plan.signature].us
    return total


def one_round(plan: RowPlan, measured: Mapping[str, Measured]) -> Round:
    """Return a row's round from what was measured in it."""
    subject, yardstick = measured[plan.subject], yardstick_us(plan, measured)
    busy = [measured[name].busy for name in plan.parts]
    known = [share for share in busy if share is not None]
    return Round(
        round(subject.us, 4),
        round(yardstick, 4),
        round(subject.us / yardstick, 4),
        None if subject.busy is None else round(subject.busy, 3),
        round(min(known), 3) if known else None,
    )


@dataclass(slots=True)
class RowSoFar:
    """A row while it is measured."""

    plan: RowPlan
    rounds: list[Round] = field(default_factory=list)
    subjects: list[Measured] = field(default_factory=list)

    def add(self, measured: Mapping[str, Measured]) -> None:
        """Take a round in."""
        self.rounds.append(one_round(self.plan, measured))
        self.subjects.append(measured[self.plan.subject])

    def row(self) -> Row:
        """Return the row as it stands in the record."""
        plan, names = self.plan, sorted({name for item in self.subjects for name in item.more})
        more = {
            name: round(sum(item.more[name] for item in self.subjects) / len(self.subjects), 4)
            for name in names
        }
        rates: Sequence[float] = [item.per_s for item in self.subjects]
        return make_row(
            plan.path, plan.connections, plan.yardstick, (plan.must, plan.aim), self.rounds, rates, more
        )
