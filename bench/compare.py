"""Two records of the cost table side by side: which differences are more than noise.

    python -m bench.compare A.json B.json [--of ratio|subject_us] [--worse-only]

For every row that both have, the rounds of A and of B are two samples.  Rounds are drawn from each again
and again, with replacement, and the ratio of the medians is taken: the interval that holds 95 % of
those ratios is how far off the ratio may be.  If 1 is inside, the difference can be noise.  Beside
it stands how often a difference in rank as large as this comes about by chance (Mann-Whitney, exact).

Knows: the arithmetic.  Does not know: whether the machine was the same and as quiet; read the heads.
Source: Efron's percentile bootstrap; Mann and Whitney 1947.
"""

from __future__ import annotations

import argparse
import itertools
import random
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.results import Results, Row, read_results

_DRAWS = 4000
_INSIDE = 0.95
# Beyond so many ways to divide the rounds, chance is estimated from random ones.
_WAYS_MAX = 20_000
# A difference that nobody would act on, whatever its certainty.
_TRIFLE = 0.02


@dataclass(frozen=True, slots=True)
class Difference:
    """B against A.

    change      median of B / median of A
    low, high   within which 95 % of redrawn ratios lie
    chance      how often chance alone ranks the rounds as far apart as this, 0..1
    """

    change: float
    low: float
    high: float
    chance: float

    @property
    def is_noise(self) -> bool:
        """Whether the difference can be chance: the interval holds 1, or the ranks say so, or it is tiny."""
        return self.low <= 1 <= self.high or self.chance > 1 - _INSIDE or abs(self.change - 1) < _TRIFLE

    @property
    def words(self) -> str:
        """Say it in words."""
        if self.is_noise:
            return "noise"
        return f"{abs(self.change - 1):.0%} {'dearer' if self.change > 1 else 'cheaper'}"


def compare(a: Sequence[float], b: Sequence[float], seed: int = 1) -> Difference:
    """Return how *b* differs from *a*; the same samples always give the same answer.

    Raises: ValueError — a sample is empty.
    """
    if not a or not b:
        raise ValueError("a sample without values")
    chance = random.Random(seed)
    drawn = sorted(
        statistics.median(chance.choices(b, k=len(b))) / statistics.median(chance.choices(a, k=len(a)))
        for _ in range(_DRAWS)
    )
    outside = int(_DRAWS * (1 - _INSIDE) / 2)
    return Difference(
        statistics.median(b) / statistics.median(a),
        drawn[outside],
        drawn[-1 - outside],
        chance_of_ranks(a, b, chance),
    )


def chance_of_ranks(a: Sequence[float], b: Sequence[float], chance: random.Random) -> float:
    """Return how often a random division of all values puts the two samples as far apart in rank."""
    values = [*a, *b]
    ranks = _ranks(values)
    middle = len(a) * (len(values) + 1) / 2
    found = abs(sum(ranks[: len(a)]) - middle)
    ways = itertools.combinations(range(len(values)), len(a))
    divisions = list(itertools.islice(ways, _WAYS_MAX + 1))
    if len(divisions) > _WAYS_MAX:
        places = range(len(values))
        divisions = [tuple(chance.sample(places, len(a))) for _ in range(_WAYS_MAX)]
    far = sum(abs(sum(ranks[at] for at in division) - middle) >= found - 1e-9 for division in divisions)
    return far / len(divisions)


def _ranks(values: Sequence[float]) -> list[float]:
    """Return the rank of each value, 1 the least; equal ones share the mean of theirs."""
    return [
        sum(other < value for other in values) + (sum(other == value for other in values) + 1) / 2
        for value in values
    ]


def pool(records: Sequence[Results]) -> dict[str, list[Row]]:
    """Return the rows of all records by name."""
    found: dict[str, list[Row]] = {}
    for record in records:
        for row in record.rows:
            found.setdefault(row.name, []).append(row)
    return found


def samples(rows: Sequence[Row], of: str) -> list[float]:
    """Return one figure of all rounds of *rows*."""
    return [getattr(item, of) for row in rows for item in row.rounds]


def report(a: Sequence[Results], b: Sequence[Results], of: str, worse_only: bool = False) -> tuple[str, bool]:
    """Return the comparison as Markdown, and whether anything has become dearer."""
    rows_a, rows_b = pool(a), pool(b)
    lines = [
        f"| row ({of}) | A | B | B / A (95 %) | by chance | |",
        "|---|---|---|---|---|---|",
    ]
    is_worse = False
    for name in (name for name in rows_a if name in rows_b):
        first, second = samples(rows_a[name], of), samples(rows_b[name], of)
        found = compare(first, second)
        worse = not found.is_noise and found.change > 1
        is_worse |= worse
        if worse or not worse_only:
            lines.append(
                f"| {name} | {statistics.median(first):.2f} | {statistics.median(second):.2f} "
                f"| {found.change:.2f} ({found.low:.2f}-{found.high:.2f}) "
                f"| {found.chance:.1%} | {found.words} |"
            )
    for words, names in (("only in A", rows_a.keys() - rows_b), ("only in B", rows_b.keys() - rows_a)):
        lines += [f"| {name} | | | | | {words} |" for name in sorted(names)]
    return "\n".join(lines), is_worse


def main() -> None:
    """Print the comparison; exit code 1 if a row has become dearer."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("a", help="a record, or several joined by commas")
    parser.add_argument("b", help="a record, or several joined by commas")
    parser.add_argument("--of", choices=("ratio", "subject_us", "yardstick_us"), default="ratio")
    parser.add_argument("--worse-only", action="store_true", help="only rows that have become dearer")
    arguments = parser.parse_args()
    try:
        both = [[read_results(Path(name)) for name in text.split(",")] for text in (arguments.a, arguments.b)]
    except ValueError as exc:
        raise SystemExit(str(exc)) from exc
    for letter, records in zip("AB", both, strict=True):
        for record in records:
            print(
                f"{letter}: {record.what.commit}, {record.what.date}, {record.what.cpu}, {record.what.kernel}"
            )
    text, is_worse = report(both[0], both[1], arguments.of, arguments.worse_only)
    print(f"\n{text}\n")
    print(
        "noise: rounds of one and the same program can differ as much.  "
        "Otherwise 95 of 100 such intervals hold the true ratio."
    )
    sys.exit(1 if is_worse else 0)


if __name__ == "__main__":
    main()
