"""Whether a load test met its objectives: a few lines and a yes or no.

Knows: reading locust's statistics.  Does not know: how the load was made.
"""

from __future__ import annotations

from typing import NamedTuple

from locust.stats import RequestStats


class Objectives(NamedTuple):
    """What must hold over the whole run.

    p99_ms        response time that 99 of 100 requests stay within
    failures_max  wrong or missing answers
    rate_min      requests a second on average
    """

    p99_ms: float
    failures_max: int
    rate_min: float


class Verdict(NamedTuple):
    """``text``: one line per objective, for people and logs."""

    passed: bool
    text: str


def judge(stats: RequestStats, objectives: Objectives) -> Verdict:
    """Return the verdict over everything that was asked."""
    total = stats.total
    p99_ms = float(total.get_response_time_percentile(0.99) or 0.0)
    checks = [
        ("requests", total.num_requests > 0, f"{total.num_requests}"),
        (
            "wrong or missing answers",
            total.num_failures <= objectives.failures_max,
            f"{total.num_failures}, at most {objectives.failures_max}",
        ),
        ("p99", p99_ms <= objectives.p99_ms, f"{p99_ms:g} ms, at most {objectives.p99_ms:g} ms"),
        (
            "rate",
            total.total_rps >= objectives.rate_min,
            f"{total.total_rps:.0f}/s, at least {objectives.rate_min:.0f}/s",
        ),
    ]
    passed = all(met for _, met, _ in checks)
    lines = [f"{'pass' if met else 'FAIL'}  {name}: {found}" for name, met, found in checks]
    return Verdict(passed, "\n".join([*lines, "objectives met" if passed else "OBJECTIVES NOT MET"]))
