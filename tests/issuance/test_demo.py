"""The demo population: what is in it, and that a killed run is gone on with."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from ca_cases import make_issuing, openssl
from cryptography import x509
from store_cases import INDEX_KEY, START_MS

from certstatus import clock
from certstatus.config import IssuerConfig
from certstatus.der import integer_content
from issuance import schema
from issuance.ca_keys import CAKeyFolder
from issuance.demo import make_demo
from issuance.issue import Issuing
from issuance.issuers import issuer_of
from issuance.revoke import Cause, find_certificate
from issuance.schema import CertificateState
from issuance.show import show
from issuance.store import Store

_HERE = Path(__file__).parent


@pytest.mark.parametrize("service", ["SIGN", "AUTH"])
def test_the_demo_has_every_ground_and_says_the_truth(
    store: Store, keys: CAKeyFolder, tmp_path: Path, service: str
) -> None:
    """All certificates are listed with their status; each ground of the service has some; files verify."""
    issuing = make_issuing(store, keys, service, now=clock.now_ms)
    folder = tmp_path / "demo"
    told: list[tuple[int, int]] = []
    make_demo(
        store, issuing, INDEX_KEY, folder, clock.now_ms, population=200, progress=lambda *at: told.append(at)
    )
    assert told[0] == (0, 200)
    assert told[-1] == (200, 200)
    header, *lines = (folder / "population.csv").read_text().splitlines()
    assert header == "serial,status"
    assert len(lines) == 200
    for line in lines[:30]:
        serial, status = line.split(",")
        assert show(store, find_certificate(store, bytes.fromhex(serial)), clock.now_s()).answer == status
    causes = [cause for cause in Cause if service in cause.services]
    with store.reading() as connection:
        grounds = connection.execute(
            sa.select(schema.change.c.ground, sa.func.count())
            .where(schema.change.c.kind == int(CertificateState.REVOKED))
            .group_by(schema.change.c.ground)
        ).all()
    assert {ground for ground, _count in grounds} == {cause.label for cause in causes}
    assert len({count for _ground, count in grounds}) == 1
    for name, answer in (("good", "good"), ("revoked", "revoked")):
        path = folder / f"{name}.pem"
        assert "OK" in openssl("verify", "-CAfile", folder / "ca.pem", path)
        number = x509.load_pem_x509_certificate(path.read_bytes()).serial_number
        assert show(store, find_certificate(store, integer_content(number)), clock.now_s()).answer == answer
    state = store.state()
    make_demo(store, issuing, INDEX_KEY, folder, clock.now_ms, population=200)
    assert store.state() == state


def build(url: str, keys_folder: str, demo_folder: str) -> None:
    """Make the demo in a process of its own, saying a word after each lot."""
    with Store.open(url) as store:
        record = issuer_of(store, "SIGN")
        issuing = Issuing.of(record, CAKeyFolder(Path(keys_folder), environment={}).private_key(1))
        make_demo(
            store,
            issuing,
            INDEX_KEY,
            Path(demo_folder),
            clock.now_ms,
            population=600,
            progress=lambda issued, _all: print(issued, flush=True),
        )


def test_a_killed_demo_is_gone_on_with(
    store: Store, store_url: str, keys: CAKeyFolder, tmp_path: Path
) -> None:
    """kill -9 after one, three and five lots: in the end there are exactly as many as asked for."""
    make_issuing(store, keys, now=clock.now_ms)
    folder = tmp_path / "demo"
    environment = {**os.environ, "PYTHONPATH": f"{_HERE.parents[1]}:{_HERE}"}
    arguments = [sys.executable, __file__, store_url, str(keys.folder), str(folder)]
    for lots in (1, 3, 5):
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=environment)
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= lots * 100:
                process.send_signal(signal.SIGKILL)
                break
        process.stdout.close()
        process.wait()
        assert not (folder / "population.csv").exists()
    assert subprocess.run(arguments, env=environment, check=False, capture_output=True).returncode == 0
    rows = list(store.issued_rows(1, store.state().seq))
    assert len(rows) == 600
    assert sum(row.state is CertificateState.REVOKED for row in rows) == 10 * 9
    assert len((folder / "population.csv").read_text().splitlines()) == 601


def test_the_demo_has_a_thousand_by_default(sqlite_store: Store, keys: CAKeyFolder, tmp_path: Path) -> None:
    """A service of another issuer gets all reasons there are."""
    issuing = make_issuing(sqlite_store, keys, "OTHER")
    make_demo(sqlite_store, issuing, INDEX_KEY, tmp_path / "demo", START_MS)
    rows = list(sqlite_store.issued_rows(1, sqlite_store.state().seq))
    assert len(rows) == 1000
    assert {row.reason for row in rows if row.state is CertificateState.REVOKED} == {None, 1, 2, 3, 4, 5}
    assert IssuerConfig().certificate_life_days == issuing.issuer.policy.certificate_life_days


if __name__ == "__main__":
    build(*sys.argv[1:])
