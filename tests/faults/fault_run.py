"""One seeded run: a fresh installation, load, faults by chance, every answer checked.

    python fault_run.py SEED SECONDS FOLDER PREPARED

Works below FOLDER; PREPARED keeps fresh installations to be copied.  Writes one line of JSON to
FOLDER/result.json: what was done, what was seen.  Ends with 1 when something was wrong.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from fault_crls import check_crls
from fault_episodes import Episode, Story, answers_within, longest_silence_s
from fault_load import Run, authorities, counted_provisions, histories
from fault_oracle import Checker, Report
from fault_scene import KINDS, Prepared, Scene

_RESTORES = 0.25
# Between two questions of each of the four askers: more than the suite asks, for here is the time for it.
_PAUSE_MS = 1.5
# What a service under no fault may need between two answers to anybody.
_SETTLING_S = 1.0


def play(scene: Scene, run: Run, seed: int, seconds: float) -> Story:
    """Do faults for *seconds*; a quarter of the runs end with an older backup restored."""
    dice = random.Random(seed)
    story = Story(scene, run, dice)
    deadline = time.monotonic() + seconds
    restores = dice.random() < _RESTORES
    time.sleep(_SETTLING_S)
    if restores:
        story.back_up()
    while time.monotonic() < deadline:
        story.act()
        time.sleep(dice.uniform(0.2, 1.5))
    if restores:
        story.restore()
        time.sleep(2 * _SETTLING_S)
    scene.mend()
    return story


def judge(story: Story) -> tuple[Report, list[str]]:
    """Stop the load, put every answer and CRL before the oracle; return also all that is not right."""
    run, installation = story.run, story.scene.installation
    run.finish()
    epochs = [*story.past, (story.first_s, histories(installation))]
    report = Checker(run.folder, authorities(installation)).check(epochs, run.revoked_ns())
    report.answered_ns.sort()
    report.crls, wrong_crls = check_crls(installation.state / "crl", authorities(installation), epochs)
    return report, report.wrong + wrong_crls


def summary(story: Story, report: Report, counted: int) -> dict[str, Any]:
    """Return what stands in the line of a run."""
    answered = report.answered_ns
    last_ns = answered[-1] if answered else 0
    ends = [*(episode.began_ns for episode in story.episodes[1:]), last_ns]
    return {
        "scene": story.scene.kind,
        "answers": report.checked,
        "wrong": len(report.wrong),
        "crls": report.crls,
        "outcomes": dict(report.outcomes),
        "revocations_waited_for": len(story.run.revoked_ns()),
        "provisions_given": report.checked,
        "provisions_lost": report.lost,
        "provisions_counted": counted,
        "silence_s": round(longest_silence_s(answered, answered[0], last_ns), 2) if answered else None,
        "episodes": [
            _told(episode, end_ns, answered) for episode, end_ns in zip(story.episodes, ends, strict=True)
        ],
    }


def _told(episode: Episode, end_ns: int, answered: list[int]) -> dict[str, Any]:
    upto_ns = max(end_ns, episode.ready_ns)
    return {
        "faults": episode.names,
        "lasted_s": round((episode.over_ns - episode.began_ns) / 1e9, 2),
        "recovery_s": round(episode.recovery_s(answered, upto_ns), 2),
        "answers": answers_within(answered, episode.began_ns, upto_ns),
        "silence_s": round(longest_silence_s(answered, episode.began_ns, upto_ns), 2),
        "trouble": episode.trouble,
    }


def commit() -> str:
    """Return the commit that runs, with a + when files differ from it."""
    words = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+", "--exclude=*"]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def main() -> int:
    """Play one run and write down how it went."""
    seed, seconds = int(sys.argv[1]), float(sys.argv[2])
    folder, prepared = Path(sys.argv[3]), Prepared(Path(sys.argv[4]))
    began_s = time.monotonic()
    line: dict[str, Any] = {"seed": seed, "commit": commit(), "seconds": seconds}
    scene = Scene(KINDS[seed % len(KINDS)], folder, prepared)
    run = None
    try:
        started_s = time.monotonic() - began_s
        run = Run(scene.installation, seed, pause_ms=_PAUSE_MS)
        story = play(scene, run, seed, seconds)
        report, faults_found = judge(story)
        counted = counted_provisions(scene.installation, report.checked)
        if not report.checked <= counted <= report.checked + report.lost:
            faults_found.append(
                f"provisions: {report.checked} given, {report.lost} lost on the way, {counted} counted"
            )
        if scene.installation.stop() != 0:
            faults_found.append("serve did not end with 0")
        line |= summary(story, report, counted)
        line |= {"start_s": round(started_s, 1), "took_s": round(time.monotonic() - began_s, 1)}
        line["faults_found"] = faults_found
    finally:
        if run is not None:
            run.end()
        scene.end()
    (folder / "result.json").write_text(json.dumps(line) + "\n")
    for text in line["faults_found"]:
        print(text)
    return 1 if line["faults_found"] else 0


if __name__ == "__main__":
    sys.exit(main())
