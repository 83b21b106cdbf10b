"""The oracle under faults: every answer equals the store's state at its thisUpdate, whatever is killed.

Askers query several workers all the time while certificates are issued, revoked, held and
released by another process, and at seeded random moments something is killed, flushed, truncated,
paused, doubled or turned back.  The seed is printed; FAULT_SEED and FAULT_SECONDS set it and the length.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from cryptography import x509
from fault_installation import FaultInstallation
from fault_oracle import Checker, Histories, Report

from certstatus.config import load_config
from issuance import schema
from issuance.store import Store

SEED = int(os.environ.get("FAULT_SEED", str(int(time.time()))))
SECONDS = float(os.environ.get("FAULT_SECONDS", "150"))
ASKERS = 4
ANSWERS_MIN = 100_000
HERE = Path(__file__).parent


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[FaultInstallation]:
    """Give an installation that serves, and make sure nothing of it is left."""
    made = FaultInstallation(tmp_path)
    made.init()
    made.serve()
    made.wait_ready()
    try:
        yield made
    finally:
        made.end()
        print((tmp_path / "serve.log").read_text(errors="replace")[-6000:])


class Run:
    """Askers and a writer at work on an installation."""

    def __init__(self, installation: FaultInstallation, seed: int, name: str = "run") -> None:
        self.installation = installation
        self.folder = installation.folder / name
        self.folder.mkdir()
        (self.folder / "issuers.json").write_text(json.dumps(installation.issuer_hashes()))
        (self.folder / "issued.log").touch()
        (self.folder / "revoked.log").touch()
        self._seed = seed
        self._writer = self._start_writer()
        self._askers = [
            subprocess.Popen(
                [
                    sys.executable,
                    str(HERE / "fault_asker.py"),
                    str(installation.port),
                    str(self.folder),
                    str(number),
                    str(seed),
                ]
            )
            for number in range(ASKERS)
        ]

    def _start_writer(self) -> subprocess.Popen[bytes]:
        (self.folder / "stop-writing").unlink(missing_ok=True)
        return subprocess.Popen(
            [
                sys.executable,
                str(HERE / "fault_writer.py"),
                str(self.installation.config),
                str(self.folder),
                str(self._seed),
            ],
            env=self.installation.environment,
        )

    def pause_writing(self) -> None:
        """Let the writer finish what it has begun."""
        (self.folder / "stop-writing").touch()
        assert self._writer.wait(120) == 0

    def resume_writing(self) -> None:
        """Start the writer again."""
        self._writer = self._start_writer()

    def finish(self) -> None:
        """Stop everybody and wait."""
        self.pause_writing()
        (self.folder / "stop").touch()
        for asker in self._askers:
            assert asker.wait(60) == 0

    def revoked_ns(self) -> dict[tuple[int, int], int]:
        """Return when the wait for each revocation had ended, completely."""
        returned = {}
        for line in (self.folder / "revoked.log").read_text().splitlines():
            issuer_id, serial, _, at_ns, _, complete = line.split()
            if complete == "1":
                returned[int(issuer_id), int(serial, 16)] = int(at_ns)
        return returned


def histories(installation: FaultInstallation) -> Histories:
    """Return the store's change log as the oracle reads it."""
    change, certificate = schema.change, schema.certificate
    found = Histories()
    with Store.open(load_config(installation.config).store_url) as store, store.reading() as connection:
        rows = connection.execute(
            sa.select(
                change.c.issuer_id,
                certificate.c.serial,
                change.c.kind,
                change.c.reason,
                change.c.recorded_ms,
            )
            .join(certificate, certificate.c.issued_seq == change.c.certificate_seq)
            .order_by(change.c.seq)
        )
        for issuer_id, serial, kind, reason, recorded_ms in rows:
            found.note(issuer_id, int(serial, 16), kind, reason, recorded_ms)
    return found


def authorities(installation: FaultInstallation) -> dict[int, x509.Certificate]:
    """Return the CA certificate of each issuer."""
    return {
        issuer.issuer_id: x509.load_der_x509_certificate(issuer.certificates_der[0])
        for issuer in installation.issuers()
    }


def provisions(installation: FaultInstallation) -> int:
    """Return how many answers the store has counted as given, over all verifiers."""
    with Store.open(load_config(installation.config).store_url) as store:
        return sum(
            item.total for item in store.provision_sums() if item.kind in ("good", "revoked", "unknown")
        )


def check(run: Run, epochs: list[tuple[int, Histories]]) -> Report:
    """Put every collected answer before the oracle."""
    report = Checker(authorities(run.installation), epochs).check_folder(run.folder, run.revoked_ns())
    print(f"seed {SEED}: {report.checked} answers checked, outcomes {dict(report.outcomes)}")
    return report


def test_every_answer_is_right_whatever_is_killed(installation: FaultInstallation) -> None:
    """100,000 answers and more under kills, flushes, pauses, clock steps and a second publisher."""
    print(f"FAULT_SEED={SEED} FAULT_SECONDS={SECONDS}")
    dice = random.Random(SEED)
    run = Run(installation, SEED)
    faults: dict[str, Callable[[], object]] = {
        "kill worker": lambda: installation.kill("worker", dice.randrange(3)),
        "kill feed": lambda: installation.kill("feed"),
        "kill builder": lambda: installation.kill("builder"),
        "kill agent": lambda: installation.kill("agent"),
        "kill valkey": installation.kill_valkey,
        "kill supervisor": installation.kill_supervisor,
        "flush": lambda: installation.harm_valkey("flush"),
        "truncate": lambda: installation.harm_valkey("truncate"),
        "drop last": lambda: installation.harm_valkey("drop_last"),
        "drop stream": lambda: installation.harm_valkey("drop_stream"),
        "drop documents": lambda: installation.harm_valkey("drop_documents"),
        "drop chunks": lambda: installation.harm_valkey("drop_chunks"),
        "pause feed": lambda: installation.pause("feed", 3),
        "pause worker": lambda: installation.pause("worker", 3),
        "clock forward": lambda: installation.step_clock(+40),
        "clock back": lambda: installation.step_clock(-20),
        "second publisher": lambda: _second_publisher(installation),
    }
    deadline = time.monotonic() + SECONDS
    order: list[str] = []
    recovered: list[float] = []
    while time.monotonic() < deadline:
        if not order:
            order = list(faults)
            dice.shuffle(order)
        name = order.pop()
        print(f"{time.monotonic():.1f} {name}", flush=True)
        try:
            faults[name]()
        except OSError as exc:  # Valkey is down at this moment: a fault on top of another
            print(f"  {exc!r}")
        time.sleep(dice.uniform(0.3, 3.0))
        recovered.append(installation.wait_ready(60))
    run.finish()
    print(f"faults: {len(recovered)}, back after at most {max(recovered):.1f} s")
    time.sleep(4)  # the agent drains once a second
    counted = provisions(installation)
    report = check(run, [(0, histories(installation))])
    assert report.wrong == []
    assert report.checked >= ANSWERS_MIN * min(1.0, SECONDS / 150)
    assert len(run.revoked_ns()) > SECONDS / 2
    # Counted before the bytes leave: nothing given is missing, and nothing is counted that was not at
    # least begun; answers in flight at a kill may be counted and lost.
    assert report.checked <= counted <= report.checked + report.lost
    assert installation.stop() == 0


def _second_publisher(installation: FaultInstallation) -> None:
    other = installation.second_publisher()
    time.sleep(4)
    other.kill()
    other.wait()


def test_an_older_backup_takes_no_revocation_back(installation: FaultInstallation) -> None:
    """After a restore of an older backup, what was published as revoked stays so, in a new epoch."""
    run = Run(installation, SEED)
    time.sleep(6)
    backup = installation.folder / "backup.tar"
    installation.run("backup", str(backup))
    time.sleep(8)
    run.pause_writing()
    installation.run("publish", "now")
    before = histories(installation)
    revoked_before = run.revoked_ns()
    assert installation.stop() == 0
    installation.run("restore", str(backup))
    restored = histories(installation)
    installation.serve()
    installation.wait_ready()
    first_s = _first_cut_s(installation)
    time.sleep(5)
    (run.folder / "stop").touch()
    for asker in run._askers:
        assert asker.wait(60) == 0
    report = check(run, [(0, before), (first_s, restored)])
    assert report.wrong == []
    lost = [key for key in revoked_before if restored.states.get(key, [("UNKNOWN",)])[-1][0] != "REVOKED"]
    assert lost == []
    assert installation.stop() == 0


def _first_cut_s(installation: FaultInstallation) -> int:
    with Store.open(load_config(installation.config).store_url) as store, store.reading() as connection:
        started = connection.execute(sa.select(sa.func.max(schema.epoch.c.started_ms))).scalar_one()
    return int(started) // 1000


def test_kill_nine_of_everything_leaves_exactly_one_of_everything(installation: FaultInstallation) -> None:
    """After ``kill -9`` of the supervisor and a new start there is one feed, one builder, three workers."""
    for _ in range(3):
        installation.kill_supervisor()
        installation.wait_ready()
        time.sleep(1)
        found = {role: len(installation.processes(role)) for role in ("feed", "builder", "agent", "worker")}
        assert found == {"feed": 1, "builder": 1, "agent": 1, "worker": 3}
    assert installation.stop() == 0
    assert not any(installation.processes(role) for role in ("feed", "builder", "agent", "worker"))
