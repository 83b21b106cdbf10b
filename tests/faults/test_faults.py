"""The oracle under faults: every answer equals the store's state at its thisUpdate, whatever is killed.

Askers query several workers all the time while certificates are issued, revoked, held and
released by another process, and at seeded random moments something is killed, flushed, truncated,
paused, filled, cut off, doubled or turned back.  The seed is printed; FAULT_SEED and FAULT_SECONDS set
it and the length.  Many such runs: ``make fault-runs``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_installation import FaultInstallation
from fault_load import Run, authorities, counted_provisions, first_cut_s, histories
from fault_oracle import Checker, Histories, Report
from fault_run import judge, play
from fault_scene import ALONE, KINDS, Prepared, Scene

SEED = int(os.environ.get("FAULT_SEED", str(int(time.time()))))
SECONDS = float(os.environ.get("FAULT_SECONDS", "12"))
# A machine in a bad mood still gives this.
ANSWERS_MIN_PER_S = 60


@pytest.fixture
def installation(tmp_path: Path, prepared: Prepared) -> Iterator[FaultInstallation]:
    """Give an installation that serves, and make sure nothing of it is left."""
    made = FaultInstallation(tmp_path)
    made.adopt(prepared.state(ALONE))
    made.serve()
    made.wait_ready()
    try:
        yield made
    finally:
        made.end()
        print((tmp_path / "serve.log").read_text(errors="replace")[-6000:])


def check(run: Run, epochs: list[tuple[int, Histories]]) -> Report:
    """Put every collected answer before the oracle."""
    report = Checker(run.folder, authorities(run.installation)).check(epochs, run.revoked_ns())
    print(f"seed {SEED}: {report.checked} answers checked, outcomes {dict(report.outcomes)}")
    return report


@pytest.mark.parametrize("kind", KINDS)
def test_every_answer_is_right_whatever_is_done(kind: str, fault_folder: Path, prepared: Prepared) -> None:
    """Thousands of answers under faults of every kind, in random order, some at once."""
    print(f"FAULT_SEED={SEED} FAULT_SECONDS={SECONDS}")
    scene = Scene(kind, fault_folder / kind, prepared)
    run = None
    try:
        run = Run(scene.installation, SEED)
        story = play(scene, run, SEED, SECONDS)
        report, wrong = judge(story)
        print(f"{report.checked} answers checked, outcomes {dict(report.outcomes)}")
        assert wrong == []
        assert report.checked >= ANSWERS_MIN_PER_S * SECONDS
        assert run.revoked_ns()
        # Counted before the bytes leave: nothing given is missing, and nothing is counted that was not
        # at least begun; answers in flight at a kill may be counted and lost.
        counted = counted_provisions(scene.installation, report.checked)
        assert report.checked <= counted <= report.checked + report.lost
        assert scene.installation.stop() == 0
    finally:
        if run is not None:
            run.end()
        scene.end()
        print((scene.folder / "serve.log").read_text(errors="replace")[-6000:])


def test_an_older_backup_takes_no_revocation_back(installation: FaultInstallation) -> None:
    """After a restore of an older backup, what was published as revoked stays so, in a new epoch."""
    run = Run(installation, SEED)
    _wait_for_revocations(run, 20)
    backup = installation.folder / "backup.tar"
    installation.run("backup", str(backup))
    _wait_for_revocations(run, 20)
    run.pause_writing()
    installation.run("publish", "now", "--all")
    before = histories(installation)
    revoked_before = run.revoked_ns()
    assert installation.stop() == 0
    installation.run("restore", str(backup))
    restored = histories(installation)
    installation.serve()
    installation.wait_ready()
    first_s = first_cut_s(installation)
    time.sleep(2)
    run.stop_asking()
    report = check(run, [(0, before), (first_s, restored)])
    assert report.wrong == []
    lost = [key for key in revoked_before if restored.states.get(key, [("UNKNOWN",)])[-1][0] != "REVOKED"]
    assert lost == []
    assert installation.stop() == 0


def _wait_for_revocations(run: Run, more: int) -> None:
    """Wait until so many more have been revoked and heard of."""
    wanted = len(run.revoked_ns()) + more
    until = time.monotonic() + 60
    while len(run.revoked_ns()) < wanted:
        assert time.monotonic() < until, "nothing is revoked"
        time.sleep(0.05)


def test_kill_nine_of_everything_leaves_exactly_one_of_everything(installation: FaultInstallation) -> None:
    """After ``kill -9`` of the supervisor and a new start there is one feed, one builder, three workers."""
    for _ in range(2):
        installation.kill_supervisor()
        installation.wait_ready()
        time.sleep(1)
        found = {role: len(installation.processes(role)) for role in ("feed", "builder", "agent", "worker")}
        assert found == {"feed": 1, "builder": 1, "agent": 1, "worker": 3}
    assert installation.stop() == 0
    assert not any(installation.processes(role) for role in ("feed", "builder", "agent", "worker"))
