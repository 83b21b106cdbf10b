"""Load on an installation, and what is to be known of it afterwards.

Knows: the processes that ask and the one that writes, all told to stop by files; reading the store's
change log, the CA certificates and the ledger of provisions for the oracle.
Does not know: faults, nor what is right.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import sqlalchemy as sa
from cryptography import x509
from fault_installation import FaultInstallation
from fault_oracle import Histories

from certstatus.config import load_config
from issuance import schema
from issuance.store import Store

ASKERS = 4
# Between two questions of an asker: some hundred answers a second miss nothing that takes milliseconds, and
# leave the processors time for the faults.
PAUSE_MS = 5.0
HERE = Path(__file__).parent


class Run:
    """Askers and a writer at work on an installation."""

    def __init__(
        self, installation: FaultInstallation, seed: int, name: str = "run", pause_ms: float = PAUSE_MS
    ) -> None:
        """*pause_ms*: between two questions of an asker."""
        self.installation = installation
        self.folder = installation.folder / name
        self.folder.mkdir()
        (self.folder / "issuers.json").write_text(json.dumps(installation.issuer_hashes()))
        (self.folder / "issued.log").touch()
        (self.folder / "revoked.log").touch()
        self._seed = seed
        self._writer = self._start_writer()
        self.askers = [
            subprocess.Popen(
                [
                    sys.executable,
                    str(HERE / "fault_asker.py"),
                    str(installation.port),
                    str(self.folder),
                    str(number),
                    str(seed),
                    str(pause_ms),
                ]
            )
            for number in range(ASKERS)
        ]
        self._wait_for_writer()

    def _wait_for_writer(self) -> None:
        """Wait until something has been issued and revoked."""
        until = time.monotonic() + 60
        while not (self.folder / "revoked.log").stat().st_size:
            assert self._writer.poll() is None, "the writer has ended"
            assert time.monotonic() < until, "the writer gets nowhere"
            time.sleep(0.02)

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

    def stop_asking(self) -> None:
        """Let the askers end and wait for them."""
        (self.folder / "stop").touch()
        for asker in self.askers:
            assert asker.wait(60) == 0

    def finish(self) -> None:
        """Stop everybody and wait."""
        self.pause_writing()
        self.stop_asking()

    def end(self) -> None:
        """End what is left, however it went."""
        for process in (self._writer, *self.askers):
            if process.poll() is None:
                process.kill()
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)

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
    change, certificate, scope = schema.change, schema.certificate, schema.crl_scope
    found = Histories()
    with Store.open(load_config(installation.config).store_url) as store, store.reading() as connection:
        rows = connection.execute(
            sa.select(
                change.c.issuer_id,
                certificate.c.serial,
                change.c.kind,
                change.c.reason,
                change.c.recorded_ms,
                scope.c.scope,
            )
            .join(certificate, certificate.c.issued_seq == change.c.certificate_seq)
            .outerjoin(scope, scope.c.scope_id == certificate.c.scope_id)
            .order_by(change.c.seq)
        )
        for issuer_id, serial, kind, reason, recorded_ms, partition in rows:
            found.note(issuer_id, int(serial, 16), kind, reason, recorded_ms)
            if partition is not None:
                found.partitions[issuer_id, int(serial, 16)] = partition
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


def counted_provisions(installation: FaultInstallation, least: int, patience_s: float = 40) -> int:
    """Return what the store has counted, once that is *least* and stands still for as long as a report
    may take, or when the patience is over."""
    until = time.monotonic() + patience_s
    before = -1
    while time.monotonic() < until:
        counted = provisions(installation)
        if counted >= least and counted == before:
            break
        before = counted
        time.sleep(1.5)
    return before


def first_cut_s(installation: FaultInstallation) -> int:
    """Return when the newest epoch began, in POSIX seconds."""
    with Store.open(load_config(installation.config).store_url) as store, store.reading() as connection:
        started = connection.execute(sa.select(sa.func.max(schema.epoch.c.started_ms))).scalar_one()
    return int(started) // 1000
