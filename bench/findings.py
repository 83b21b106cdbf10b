"""What one process of a load test has found: counts, wrong answers with their octets, its own cost.

Each process tells the first one its findings as they stand, again and again, so that a report that
is lost or comes twice changes nothing.
Knows: counting, and what this process has cost.  Does not know: locust, or what is right.
Source: proc(5), schedstat: nanoseconds on a processor, and waiting for one.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

# Of how many failed answers each process keeps the octets.
CASES_MAX = 20
_OCTETS_MAX = 4096


@dataclass(slots=True)
class Findings:
    """Of one process, since its run began.

    answers       whole answers to status requests that came
    certificates  certificates asked about in them: what a responder counts as provisions
    crls          CRLs fetched whole; not_modified: those that were not, because they are at hand
    verified      answers and CRLs whose signature was verified
    wrong         answers that said what is not so
    missing       questions without an answer that says anything
    ended         the process will count no more
    """

    answers: int = 0
    certificates: int = 0
    crls: int = 0
    not_modified: int = 0
    verified: int = 0
    wrong: int = 0
    missing: int = 0
    ended: bool = False
    cpu_s: float = 0.0
    waited_s: float = 0.0
    wall_s: float = 0.0
    cases: list[dict[str, str]] = field(default_factory=list)
    _begun: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def begin(self) -> None:
        """Begin to count anew."""
        self.answers = self.certificates = self.crls = self.not_modified = 0
        self.verified = self.wrong = self.missing = 0
        self.ended = False
        self.cases = []
        self._begun = (time.monotonic(), *_spent_s())

    def flaw(self, wrong: bool, scenario: str, what: str, request: bytes = b"", answer: bytes = b"") -> None:
        """Count one failure, and keep the first ones' octets: wrong answers rather than missing ones."""
        if wrong:
            self.wrong += 1
        else:
            self.missing += 1
        if len(self.cases) >= CASES_MAX:
            if not wrong:
                return
            missing = next((case for case in self.cases if case["kind"] == "missing"), None)
            if missing is None:
                return
            self.cases.remove(missing)
        self.cases.append(
            {
                "kind": "wrong" if wrong else "missing",
                "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "scenario": scenario,
                "what": what,
                "request_hex": request[:_OCTETS_MAX].hex(),
                "answer_hex": answer[:_OCTETS_MAX].hex(),
            }
        )

    def as_json(self) -> dict[str, Any]:
        """Return the findings as they stand now."""
        if not self.ended:
            wall_s, cpu_s, waited_s = self._begun
            now_cpu_s, now_waited_s = _spent_s()
            self.wall_s = time.monotonic() - wall_s
            self.cpu_s, self.waited_s = now_cpu_s - cpu_s, now_waited_s - waited_s
        values = asdict(self)
        del values["_begun"]
        return values


@dataclass(frozen=True, slots=True)
class Together:
    """The findings of all processes.

    busy    greatest share of the time that one of them ran or waited for a processor
    cpu_us  processor time per answer of any kind, microseconds
    """

    counts: dict[str, int]
    cases: list[dict[str, str]]
    processes: int
    busy: float
    cpu_us: float


def together(reports: Iterable[dict[str, Any]]) -> Together:
    """Return what all processes' last reports say together."""
    reports = list(reports)
    names = ("answers", "certificates", "crls", "not_modified", "verified", "wrong", "missing")
    counts = {name: sum(int(report[name]) for report in reports) for name in names}
    asked = counts["answers"] + counts["crls"] + counts["not_modified"]
    return Together(
        counts,
        [case for report in reports for case in report["cases"]],
        len(reports),
        max(
            ((item["cpu_s"] + item["waited_s"]) / item["wall_s"] for item in reports if item["wall_s"]),
            default=0.0,
        ),
        1e6 * sum(report["cpu_s"] for report in reports) / asked if asked else 0.0,
    )


def _spent_s() -> tuple[float, float]:
    """Return (on a processor, waiting for one) so far; gevent has it all in one thread."""
    try:
        on_ns, waiting_ns, _ = Path("/proc/self/schedstat").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return time.process_time(), 0.0
    return int(on_ns) / 1e9, int(waiting_ns) / 1e9
