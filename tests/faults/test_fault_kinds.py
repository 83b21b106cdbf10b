"""Each fault by its name: no wrong answer while it lasts, and everything right again by itself after it.

All faults of one kind of installation are done to the same one, one test after another, each under its
own askers and writer.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import pytest
from fault_episodes import Story
from fault_load import Run, authorities, counted_provisions, histories
from fault_oracle import Checker, Report
from fault_scene import ALONE, APART, Prepared, Scene, new_folder

# What the process harness has done all along is done at random in test_faults; here is what came later.
_ALONE = ["disk full: store", "disk full: index", "disk full: host", "disk full: crl"]
_ALONE += ["slow disk: each sync 0.15 s", "slow disk: each sync 2.5 s"]
_APART = [
    "Valkey slow: 80 ms each way",
    "Valkey slow: 0.7 s each way",
    "Valkey slow: 4 kB/s",
    "Valkey frozen",
]
_APART += ["Valkey unreachable", "replica promoted behind its master", "master killed, replica promoted"]
_APART += ["split: old and new master both in use", "PostgreSQL restarted", "PostgreSQL killed"]
_APART += ["PostgreSQL backend killed", "PostgreSQL away", "PostgreSQL slow: 60 ms", "PostgreSQL frozen"]
_APART += ["DNS gone"]


class Stage:
    """A scene under load that serves many tests."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.run = Run(scene.installation, 1, pause_ms=1.5)
        self._story = Story(scene, self.run, random.Random(1))

    def act(self, fault: str) -> Report:
        """Do *fault*; return what the answers since it began were, once everything must be right again."""
        revoked = len(self.run.revoked_ns())
        episode = self._story.act(fault)
        # Nothing lasting: certificates are issued, revoked and heard of again.
        until = time.monotonic() + 30
        while len(self.run.revoked_ns()) <= revoked + 2:
            assert time.monotonic() < until, "nothing is revoked any more"
            time.sleep(0.05)
        time.sleep(0.5)
        report = self.check(episode.began_ns)
        assert report.wrong == []
        assert report.checked > 100
        return report

    def check(self, from_ns: int = 0) -> Report:
        """Put the answers since *from_ns* before the oracle."""
        installation = self.scene.installation
        # In this order: whatever an answer up to then says has happened by when the store is read.
        upto_ns = time.monotonic_ns()
        revoked_ns = self.run.revoked_ns()
        answers = Checker(authorities(installation), [(0, histories(installation))])
        report = answers.check_folder(self.run.folder, revoked_ns, from_ns, upto_ns)
        print(f"{report.checked} answers, outcomes {dict(report.outcomes)}")
        return report

    def end(self) -> None:
        """Stop the load; whatever was given must have been counted."""
        self.scene.mend()
        self.run.finish()
        report = self.check()
        counted = counted_provisions(self.scene.installation, report.checked)
        assert report.wrong == []
        assert report.checked <= counted <= report.checked + report.lost
        assert self.scene.installation.stop() == 0


@pytest.fixture(scope="module")
def alone(prepared: Prepared) -> Iterator[Stage]:
    """SQLite and a private Valkey on small disks."""
    yield from _staged(ALONE, prepared)


@pytest.fixture(scope="module")
def apart(prepared: Prepared) -> Iterator[Stage]:
    """PostgreSQL and a Valkey with a replica, elsewhere."""
    yield from _staged(APART, prepared)


def _staged(kind: str, prepared: Prepared) -> Iterator[Stage]:
    with new_folder() as folder:
        scene = Scene(kind, folder, prepared)
        try:
            stage = Stage(scene)
            try:
                yield stage
                stage.end()
            finally:
                stage.run.end()
        finally:
            scene.end()
            print((folder / "serve.log").read_text(errors="replace")[-4000:])


@pytest.mark.parametrize("fault", _ALONE)
def test_one_installation_alone(alone: Stage, fault: str) -> None:
    """No wrong answer, ready again by itself, counted exactly, though its disk is full or slow."""
    alone.act(fault)


@pytest.mark.parametrize("fault", _APART)
def test_one_installation_whose_servers_are_elsewhere(apart: Stage, fault: str) -> None:
    """No wrong answer, ready again by itself, counted exactly, whatever happens to its servers."""
    apart.act(fault)
