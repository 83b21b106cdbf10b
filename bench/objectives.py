"""Whether a load test met its objectives: a few lines for people, the same for programs, a yes or no.

A wrong answer fails every run.  That the generator was the bottleneck fails none, but is said: the
figures are then its own.
Knows: reading locust's statistics and the processes' findings.  Does not know: how the load was made.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from locust.stats import RequestStats

from bench.findings import Together

BUSY_MAX = 0.90
_CASES_SHOWN = 5


class Objectives(NamedTuple):
    """What must hold over the whole run.

    p99_ms        response time that 99 of 100 requests stay within
    failures_max  missing answers; wrong ones are never allowed
    rate_min      requests a second on average
    """

    p99_ms: float
    failures_max: int
    rate_min: float


@dataclass(frozen=True, slots=True)
class Check:
    """One objective, and what came of it."""

    name: str
    passed: bool
    found: str
    wanted: str


@dataclass(frozen=True, slots=True)
class Summary:
    """All of them."""

    checks: tuple[Check, ...]
    warnings: tuple[str, ...]
    figures: dict[str, Any]
    cases: list[dict[str, str]]

    @property
    def passed(self) -> bool:
        """Whether every objective was met."""
        return all(check.passed for check in self.checks)

    def text(self) -> str:
        """Return the lines for people and logs."""
        figures = self.figures
        lines = [f"{'pass' if item.passed else 'FAIL'}  {item.name}: {item.found}" for item in self.checks]
        lines = [f"{line}, wanted: {item.wanted}" for line, item in zip(lines, self.checks, strict=True)]
        lines.append(
            f"      {figures['certificates']} statuses and {figures['crls']} CRLs were given, all counted as"
            " provisions;"
            f" {figures['not_modified']} CRLs were at hand; {figures['verified']} signatures verified"
        )
        lines.append(
            f"      generator: {figures['processes']} processes, {figures['cpu_us']:.0f} µs of processor a"
            f" request, {figures['busy']:.0%} busy"
        )
        lines += [f"WARN  {warning}" for warning in self.warnings]
        # Wrong ones first: they are why the octets are kept.
        for case in sorted(self.cases, key=lambda case: case["kind"] != "wrong")[:_CASES_SHOWN]:
            lines.append(f"      {case['kind']} at {case['at']}, {case['scenario']}: {case['what']}")
            lines.append(f"        asked    {case['request_hex']}")
            lines.append(f"        answered {case['answer_hex'] or 'nothing'}")
        lines.append("objectives met" if self.passed else "OBJECTIVES NOT MET")
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """Return the same for programs."""
        return {
            "passed": self.passed,
            "checks": [asdict(check) for check in self.checks],
            "warnings": list(self.warnings),
            **self.figures,
            "failed_answers": self.cases,
        }


def judge(
    stats: RequestStats,
    found: Together,
    objectives: Objectives,
    *,
    unreported: int = 0,
    exceptions: int = 0,
    stopped: bool = False,
) -> Summary:
    """Return the summary of everything that was asked.

    unreported  processes whose last report did not come
    exceptions  mistakes of the generator itself
    stopped     the run was given up because too much failed
    """
    total, counts = stats.total, found.counts
    p99_ms = float(total.get_response_time_percentile(0.99) or 0.0)
    rate = float(total.total_rps or 0.0)
    checks = [
        Check("requests", total.num_requests > 0, f"{total.num_requests}", "at least 1"),
        Check("wrong answers", counts["wrong"] == 0, f"{counts['wrong']}", "none"),
        Check(
            "missing answers",
            counts["missing"] <= objectives.failures_max,
            f"{counts['missing']}",
            f"at most {objectives.failures_max}",
        ),
        Check("p99", p99_ms <= objectives.p99_ms, f"{p99_ms:g} ms", f"at most {objectives.p99_ms:g} ms"),
        Check("rate", rate >= objectives.rate_min, f"{rate:.0f}/s", f"at least {objectives.rate_min:.0f}/s"),
    ]
    if unreported or not found.processes:
        checks.append(Check("reports", False, f"{unreported} processes' last ones are missing", "all"))
    if exceptions:
        checks.append(Check("generator", False, f"{exceptions} exceptions in its own code", "none"))
    if stopped:
        checks.append(Check("end", False, "given up because too much failed", "the whole run"))
    warnings = []
    if found.busy > BUSY_MAX:
        warnings.append(
            f"the generator was the bottleneck ({found.busy:.0%} busy): rate and times are its own, not the"
            " responder's; take --processes, or another machine"
        )
    figures = {
        "requests": total.num_requests,
        "rate": round(rate, 1),
        "p50_ms": float(total.get_response_time_percentile(0.50) or 0.0),
        "p99_ms": p99_ms,
        "max_ms": round(float(total.max_response_time), 3),
        "processes": found.processes,
        "busy": round(found.busy, 3),
        "cpu_us": round(found.cpu_us, 1),
        **counts,
        "by_name": [
            {
                "name": entry.name,
                "requests": entry.num_requests,
                "failures": entry.num_failures,
                "p50_ms": float(entry.get_response_time_percentile(0.50) or 0.0),
                "p99_ms": float(entry.get_response_time_percentile(0.99) or 0.0),
            }
            for _, entry in sorted(stats.entries.items())
        ],
        "causes": [
            {"name": error.name, "cause": str(error.error), "count": error.occurrences}
            for error in stats.errors.values()
        ],
    }
    return Summary(tuple(checks), tuple(warnings), figures, found.cases)
