"""Each fault by its name: no wrong answer while it lasts, and everything right again by itself after it.

All faults of one kind of installation are done to the same one, one test after another, each under its
own askers and writer.
"""

from __future__ import annotations

import json
import os
import random
import signal
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from fault_episodes import Story
from fault_installation import FaultInstallation
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
        self.run = Run(scene.installation, 1)
        self._story = Story(scene, self.run, random.Random(1))
        self._checker = Checker(self.run.folder, authorities(scene.installation))
        # Of all tests together.
        self._checked = self._lost = 0
        # When revocations had returned that a test made by hand.
        self.returned_ns: dict[tuple[int, int], int] = {}

    def act(self, fault: str) -> Report:
        """Do *fault*; return what the answers were, once everything must be right again."""
        revoked = len(self.run.revoked_ns())
        self._story.act(fault)
        # Nothing lasting: certificates are issued, revoked and heard of again.
        until = time.monotonic() + 30
        while len(self.run.revoked_ns()) <= revoked + 2:
            assert time.monotonic() < until, "nothing is revoked any more"
            time.sleep(0.05)
        time.sleep(0.5)
        report = self.check()
        assert report.wrong == []
        assert report.checked > 100
        return report

    def check(self) -> Report:
        """Put the answers since the last time before the oracle."""
        # In this order: whatever an answer up to then says has happened by when the store is read.
        upto_ns = time.monotonic_ns()
        revoked_ns = self.run.revoked_ns() | self.returned_ns
        report = self._checker.check([(0, histories(self.scene.installation))], revoked_ns, upto_ns)
        self._checked += report.checked
        self._lost += report.lost
        print(f"{report.checked} answers, outcomes {dict(report.outcomes)}")
        return report

    def end(self) -> None:
        """Stop the load; whatever was given must have been counted."""
        self.scene.mend()
        self.run.finish()
        assert self.check().wrong == []
        counted = counted_provisions(self.scene.installation, self._checked)
        assert self._checked <= counted <= self._checked + self._lost
        assert self.scene.installation.stop() == 0


# One tester has all tests of an installation (--dist loadgroup), so there is one of each, and it ends with
# them.
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


@pytest.mark.xdist_group("alone")
@pytest.mark.parametrize("fault", _ALONE)
def test_one_installation_alone(alone: Stage, fault: str) -> None:
    """No wrong answer, ready again by itself, counted exactly, though its disk is full or slow."""
    alone.act(fault)


@pytest.mark.xdist_group("alone")
def test_serve_waits_for_room_on_a_full_disk(alone: Stage) -> None:
    """Started while its disks are full it does not give up, says what it waits for, and is ready once there
    is room, however slowly that comes back."""
    installation, disks = alone.scene.installation, alone.scene.disks
    assert installation.stop() == 0
    said = len(installation.said())
    for disk in disks.values():
        disk.fill()
    try:
        installation.serve()
        _until(lambda: "No space left on device; waiting for room" in installation.said()[said:])
        disks["store"].free()
        _until(lambda: "starting valkey" in installation.said()[said:])
        # Longer than five false starts take.
        time.sleep(8)
    finally:
        alone.scene.mend()
    installation.wait_ready()
    installation.wait_all_ready()
    assert alone.check().wrong == []


@pytest.mark.xdist_group("apart")
@pytest.mark.parametrize("fault", _APART)
def test_one_installation_whose_servers_are_elsewhere(apart: Stage, fault: str) -> None:
    """No wrong answer, ready again by itself, counted exactly, whatever happens to its servers."""
    apart.act(fault)


@pytest.mark.xdist_group("apart")
def test_serve_waits_for_a_database_that_comes_up_later(apart: Stage) -> None:
    """Started while PostgreSQL is away it does not give up, and is ready once that is back."""
    installation, postgres = apart.scene.installation, apart.scene.postgres
    assert postgres is not None
    assert installation.stop() == 0
    postgres.stop()
    try:
        said = installation.said()
        installation.serve()
        # As often as a process may fail that does not say why.
        until = time.monotonic() + 240
        while installation.said().count("feed ended with exit code 75") < said.count("feed ended") + 5:
            assert time.monotonic() < until, installation.said()
            time.sleep(0.1)
    finally:
        postgres.start()
    installation.wait_ready()
    installation.wait_all_ready()
    assert apart.check().wrong == []


def _a_good_one(run: Run) -> tuple[int, int]:
    """Return (issuer_id, serial) of a certificate that the writer, which must be at rest, did not revoke."""
    told = {tuple(line.split()[:2]) for line in (run.folder / "revoked.log").read_text().splitlines()}
    issued = [tuple(line.split()) for line in (run.folder / "issued.log").read_text().splitlines()]
    # The newest may be held just now; those in the middle were left alone.
    issuer_id, serial = next(item for item in issued[len(issued) // 2 :] if item not in told)
    return int(issuer_id), int(serial, 16)


def _revoke(
    installation: FaultInstallation, certificate: tuple[int, int], *words: str, **environment: str
) -> subprocess.Popen[str]:
    """Start ``certstatus revoke``."""
    issuer_id, serial = certificate
    service = next(item.service for item in installation.issuers() if item.issuer_id == issuer_id)
    return subprocess.Popen(
        [*installation.command(), "revoke", f"{serial:032x}", "--service", service, *words],
        env=installation.environment | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.xdist_group("apart")
def test_revoke_comes_to_an_end_though_valkey_is_away(apart: Stage) -> None:
    """Nobody can acknowledge; when the leases have run out it returns, and nobody is told good after that."""
    installation, valkeys = apart.scene.installation, apart.scene.valkeys
    assert valkeys is not None
    apart.run.pause_writing()
    certificate = _a_good_one(apart.run)
    valkeys.front.is_refusing = True
    valkeys.front.cut()
    try:
        revoking = _revoke(installation, certificate, "--json")
        output, errors = revoking.communicate(timeout=60)
        returned_ns = time.monotonic_ns()
        assert revoking.returncode == 0, errors
        assert json.loads(output)["workers"]["waiting"] == []
    finally:
        valkeys.front.heal()
        apart.run.resume_writing()
    installation.wait_ready()
    time.sleep(1)
    apart.returned_ns[certificate] = returned_ns
    assert apart.check().wrong == []


@pytest.mark.xdist_group("apart")
def test_revoke_says_what_is_known_when_the_database_goes_away(apart: Stage) -> None:
    """Away from the beginning: nothing is recorded, and it says why.  Away while it waits: it says that the
    revocation stands and that nobody can tell who has applied it."""
    installation, valkeys, postgres = apart.scene.installation, apart.scene.valkeys, apart.scene.postgres
    assert valkeys is not None
    assert postgres is not None
    apart.run.pause_writing()
    certificate = _a_good_one(apart.run)
    service = next(item.service for item in installation.issuers() if item.issuer_id == certificate[0])
    try:
        # Frozen, so that no worker acknowledges.
        valkeys.front.is_frozen = True
        waiting = _revoke(installation, certificate, "--timeout", "6")
        # Others see a commit before its own client has heard of it; this says that it has.  It comes when
        # the frozen Valkey has been given up for the first time, seconds before the time is over.
        assert waiting.stderr is not None
        assert waiting.stderr.readline().startswith("waiting for worker ")
        with postgres.connect() as connection:
            assert _is_revoked(connection, certificate[1])
        postgres.stop(signal.SIGQUIT)
        output, errors = waiting.communicate(timeout=60)
        assert waiting.returncode == 75, errors
        assert f"{service} {certificate[1]:032x} revoked" in output
        assert "it stands, but who has applied it is not known: the store's database" in output
        refused = subprocess.run(
            [*installation.command(), "revoke", f"{certificate[1]:032x}", "--service", service],
            env=installation.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert refused.returncode == 75
        assert refused.stderr.startswith("certstatus: the store's database: ")
        assert "Traceback" not in refused.stderr
    finally:
        postgres.start()
        apart.scene.mend()
        apart.run.resume_writing()
    installation.wait_ready()
    time.sleep(1)
    assert apart.check().wrong == []


def _until(condition: Callable[[], bool], patience_s: float = 20) -> None:
    until = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def _is_revoked(connection: psycopg.Connection[tuple[object, ...]], serial: int) -> bool:
    found = connection.execute(
        "SELECT 1 FROM change JOIN certificate ON certificate.issued_seq = change.certificate_seq"
        " WHERE change.kind = 2 AND certificate.serial = %s",
        (f"{serial:032x}",),
    ).fetchone()
    connection.rollback()
    return found is not None


def test_revoke_is_not_fooled_by_a_clock_set_forward(tmp_path: Path, prepared: Prepared) -> None:
    """With the feed stopped and the issuing machine's clock a while ahead, `revoke` returns only when no
    worker tells anybody good any more."""
    installation = FaultInstallation(tmp_path)
    installation.adopt(prepared.state(ALONE))
    installation.serve()
    run = None
    try:
        installation.wait_ready()
        run = Run(installation, 1)
        run.pause_writing()
        certificate = _a_good_one(run)
        (feed,) = installation.processes("feed")
        os.kill(feed, signal.SIGSTOP)
        ahead = tmp_path / "ahead"
        ahead.write_bytes(struct.pack("<q", 100_000))
        began = time.monotonic()
        revoking = _revoke(installation, certificate, "--json", CERTSTATUS_TEST_CLOCK=str(ahead))
        output, errors = revoking.communicate(timeout=60)
        returned_ns = time.monotonic_ns()
        assert revoking.returncode == 0, errors
        assert len(json.loads(output)["workers"]["ran_out"]) == 3
        # age_max_s is 5, and the slack another 5; it may be a busy machine's minute, never the 100,000 s.
        assert 10 <= time.monotonic() - began < 60
        time.sleep(1)
        run.stop_asking()
        revoked = run.revoked_ns() | {certificate: returned_ns}
        checker = Checker(run.folder, authorities(installation))
        report = checker.check([(0, histories(installation))], revoked)
        assert report.wrong == []
        assert report.checked > 100
    finally:
        if run is not None:
            run.end()
        for feed in installation.processes("feed"):
            os.kill(feed, signal.SIGKILL)
        installation.end()
