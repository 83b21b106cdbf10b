"""What a measurement at one level of load is worth, and what the levels together say of the objective.

A level is a part of a latency record: what was offered, ``open_loop.Seen``, and how long the worker
waited for its processor.  It says nothing of the responder where the generator fell behind, or where
others had the worker's processor, on this machine or on its host; where the responder itself did not
keep up, that is a finding.
Objective: below 70 % of capacity p99 within 3 ms of p50.
Knows: judging.  Does not know: measuring, how a record is shown.
"""

from __future__ import annotations

from typing import Any

OBJECTIVE_BELOW, OBJECTIVE_US = 70, 3000.0
RATE_KEPT = 0.98
# A third of the objective: what the generator adds to the latencies by itself.
OWN_LATE_US_MAX = 1000.0
BUSY_MAX = 0.9
# Of the time, all threads added up; 0.01 to 0.03 where nothing but the rest of the installation runs.
WAITED_MAX = 0.05
# Of the time; what piles up meanwhile waits too, and the longer the busier the worker is.  Half of what
# alone would move a p99.
STOLEN_MAX = 0.005
MET, MISSED, UNKNOWN = "met", "missed", "unknown"


def is_kept(level: dict[str, Any]) -> bool:
    """Say whether as many were answered as were asked."""
    answered: float = level["requests"] / level["seconds"] if level["seconds"] else 0.0
    return answered >= RATE_KEPT * float(level["offered"])


def invalid(level: dict[str, Any]) -> str:
    """Return why *level* says nothing of the responder; empty if it does."""
    reasons = []
    if (late_us := level["own_late"]["p99"]) > OWN_LATE_US_MAX:
        reasons.append(f"the generator was {late_us / 1000:.1f} ms late by itself at p99")
    if level["busy"] > BUSY_MAX and not is_kept(level):
        reasons.append(f"the generator fell behind, busy {level['busy']:.0%} of the time")
    if level["waited"] > WAITED_MAX:
        reasons.append(f"the worker's threads waited for their processor {level['waited']:.0%} of the time")
    if level["stolen"] > STOLEN_MAX * max(1 - level["worker"], 0.1):
        reasons.append(f"the host took the worker's processor away for {level['stolen']:.1%} of the time")
    return "; ".join(reasons)


def missed(level: dict[str, Any]) -> str:
    """Return what the responder did wrong at *level*; empty: nothing."""
    reasons = []
    if not is_kept(level):
        answered = level["requests"] / level["seconds"] if level["seconds"] else 0.0
        reasons.append(f"{answered:.0f}/s answered of {level['offered']}/s")
    reasons += not_answered(level)
    if (spread_us := level["latency"]["p99"] - level["latency"]["p50"]) > OBJECTIVE_US:
        reasons.append(f"p99 {spread_us / 1000:.1f} ms above p50")
    return "; ".join(reasons)


def not_answered(level: dict[str, Any]) -> list[str]:
    """Return what there was instead of successful answers, in words."""
    found = [f"{count} times {name}" for name, count in level["refusals"].items()]
    return found + ([f"{level['failures']} failures"] if level["failures"] else [])


def verdict(record: dict[str, Any]) -> str:
    """Return whether the objective was met, missed, or cannot be known from these levels."""
    concerned = [level for level in record["levels"] if level["percent"] < OBJECTIVE_BELOW]
    valid = [level for level in concerned if not invalid(level)]
    if any(missed(level) for level in valid):
        return MISSED
    return MET if len(valid) == len(concerned) and not record["capacity_invalid"] else UNKNOWN
