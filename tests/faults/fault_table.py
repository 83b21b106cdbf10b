"""What many runs have shown, as a page: RESULTS.md out of the runs' lines.

    python fault_table.py RESULTS_FILE ... > RESULTS.md

Knows: adding up.  Does not know: how a run is made (``fault_run``).
"""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NOTES = Path(__file__).with_name("RESULTS-notes.md")


@dataclass(slots=True)
class Seen:
    """What was seen of one fault in all runs."""

    times: int = 0
    beside: int = 0
    answers: int = 0
    silences_s: list[float] = field(default_factory=list)
    recoveries_s: list[float] = field(default_factory=list)
    scenes: set[str] = field(default_factory=set)


def seen_by_fault(lines: list[dict[str, Any]]) -> dict[str, Seen]:
    """Add the episodes of all runs up, by fault; one with two faults counts for both."""
    found: dict[str, Seen] = {}
    for line in lines:
        for episode in line["episodes"]:
            for name in episode["faults"]:
                seen = found.setdefault(name, Seen())
                seen.times += 1
                seen.answers += episode["answers"]
                seen.scenes.add(line["scene"])
                if len(episode["faults"]) > 1:
                    # How long it was quiet is then as much the other's doing.
                    seen.beside += 1
                else:
                    seen.silences_s.append(episode["silence_s"])
                    seen.recoveries_s.append(episode["recovery_s"])
    return found


PAGE = """\
# Load with faults: what was done, what was seen

{runs} seeded runs (seeds {seeds}), {answers:,} answers checked, **{wrong} wrong**.
Made by `make fault-runs` (SECONDS={seconds}) on {machine}.
Commits: {commits}.

Each run is a fresh installation under four askers and a writer that issues, revokes, holds and releases;
faults come one after another by seeded chance, three in ten times two at once. *alone*: SQLite and a
private Valkey, the parts of the state folder on small disks. *apart*: PostgreSQL and a Valkey with a
replica, all real, behind proxies, found by host names. A quarter of the runs end with an older backup
restored.

What must hold in every run, or it counts as failed: every answer equals the store's state at its thisUpdate,
read and verified by another library than ours; nobody who asks after `revoke` has returned is told good; what
cannot be vouched for is answered tryLater; within 60 s of the end of each fault all workers are ready,
without anybody's hand; what was given is counted exactly (given <= counted <= given + lost on the way);
`serve` then stops with 0.

| | |
|---|---|
| good / revoked / unknown | {good:,} / {revoked:,} / {unknown:,} |
| tryLater | {later:,} |
| connections lost with a question on the way | {lost:,} |
| other answers | {others} |
| revocations waited for to the end | {waited:,} |
| CRLs and delta CRLs checked, since the oracle looks at them | {crls:,} |
| provisions given, counted | {given:,}, {counted:,} |
| longest silence in a run: median, greatest | {silence} s |
{failed}
Silence: the longest time in which nobody got an answer other than tryLater, from the beginning of the fault
to that of the next. Recovery: from the end of the fault until every worker was ready and answers came without
a gap of 0.3 s. Both as median, greatest, in seconds, of the times when the fault came without another.

| fault | installation | times | beside another | answers checked | wrong | silence | recovery |
|---|---|--:|--:|--:|--:|--:|--:|
{rows}

{notes}"""


def page(lines: list[dict[str, Any]], failed: list[dict[str, Any]]) -> str:
    """Return the whole page."""
    outcomes: Counter[str] = Counter()
    for line in lines:
        outcomes.update(line["outcomes"])
    commits = Counter(line["commit"] for line in lines)
    seeds = [line["seed"] for line in lines]
    rows = [
        f"| {name} | {', '.join(sorted(seen.scenes))} | {seen.times} | {seen.beside} | {seen.answers:,} | 0 |"
        f" {_of(seen.silences_s)} | {_of(seen.recoveries_s)} |"
        for name, seen in sorted(seen_by_fault(lines).items(), key=lambda item: item[0].lower())
    ]

    def total(key: str) -> int:
        return sum(line[key] for line in lines)

    return PAGE.format(
        runs=len(lines),
        seeds=_spans(sorted(seeds)),
        answers=total("answers"),
        wrong=total("wrong"),
        seconds=" or ".join(sorted({f"{line['seconds']:.0f}" for line in lines})),
        machine=_machine(),
        commits=", ".join(f"{name} ({count} runs)" for name, count in commits.items()),
        good=outcomes["GOOD"],
        revoked=outcomes["REVOKED"],
        unknown=outcomes["UNKNOWN"],
        later=outcomes["STATUS3"],
        lost=outcomes["LOST"],
        others=_others(outcomes),
        waited=total("revocations_waited_for"),
        crls=sum(line.get("crls", 0) for line in lines),
        given=total("provisions_given"),
        counted=total("provisions_counted"),
        silence=_of([line["silence_s"] for line in lines]),
        failed=f"\nSeeds that failed: {', '.join(str(line['seed']) for line in failed)}.\n" if failed else "",
        rows="\n".join(rows),
        notes=NOTES.read_text() if NOTES.exists() else "",
    )


def _spans(numbers: list[int]) -> str:
    """Return ascending numbers as spans: 1 to 5, 9."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(f"{first} to {last}" if first < last else str(first) for first, last in spans)


def _others(outcomes: Counter[str]) -> str:
    rest = {
        name: count for name, count in outcomes.items() if name.startswith("STATUS") and name != "STATUS3"
    }
    return ", ".join(f"{name} {count:,}" for name, count in sorted(rest.items())) or "none"


def _median(values: list[float]) -> str:
    ordered = sorted(values)
    return f"{ordered[len(ordered) // 2]:.1f}"


def _of(values: list[float]) -> str:
    return f"{_median(values)}, {max(values):.1f}" if values else "-"


def _machine() -> str:
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    name = found[1] if found else platform.machine()
    linux, python = platform.release().split("-")[0], platform.python_version()
    return f"{os.cpu_count()} x {name}, Linux {linux}, Python {python}"


def main() -> None:
    """Print the page; runs that failed and were made again after a mend are named, not added."""
    lines = [json.loads(line) for name in sys.argv[1:] for line in Path(name).read_text().splitlines()]
    good = {line["seed"]: line for line in lines if "answers" in line and not line["faults_found"]}
    failed = [line for line in lines if line["seed"] not in good]
    print(page(list(good.values()), failed), end="")


if __name__ == "__main__":
    main()
