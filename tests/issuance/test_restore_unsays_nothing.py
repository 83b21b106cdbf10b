"""Restore: what was true outside of the backup stays true after it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from ca_cases import found, issue_one, make_issuing
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID
from store_cases import INDEX_KEY, START_MS, Steady

from certstatus import clock
from certstatus.certificate_request import CertificateRequest
from certstatus.errors import IllegalTransition
from certstatus.issuer_table import read_issuer_table
from certstatus.leases import WorkerAck
from certstatus.responder_host import make_host
from issuance.acknowledge import wait_for_workers
from issuance.backup import backup
from issuance.ca_keys import CAKeyFolder
from issuance.issuers import issuer_by_id, issuer_table_document
from issuance.responder_certs import (
    drop_certificate,
    end_host,
    enroll_host,
    responder_certificates,
    sign_request,
)
from issuance.restore import restore
from issuance.revoke import (
    complete_ca_key_event,
    find_certificate,
    hold,
    record_ca_key_event,
    release,
    revoke,
)
from issuance.schema import CertificateState
from issuance.show import show
from issuance.store import DEFAULT_LEASE_MS, Store
from issuance.verifiers import add_verifier, end_verifier, entitlement_document, verifiers

_NOW_S = START_MS // 1000
_LATER_MS = START_MS + 3_600_000


def make_store(state: Path) -> tuple[Store, str]:
    """A state folder with an index key, and a new store in it."""
    (state / "secrets").mkdir(mode=0o700, parents=True)
    (state / "secrets" / "index.key").write_bytes(INDEX_KEY)
    (state / "secrets" / "index.key").chmod(0o600)
    url = f"sqlite:///{state / 'store.db'}"
    return Store.create(url, START_MS), url


def make_backup(store: Store, state: Path) -> Path:
    """A backup beside the state folder."""
    path = state.parent / "backup.tar"
    backup(store, state, path, START_MS)
    return path


def enroll(store: Store, *names: str) -> None:
    """Enroll hosts under fresh keys."""
    for name in names:
        enroll_host(store, name, Ed25519PrivateKey.generate().public_key(), START_MS)


def test_hosts_elsewhere_are_waited_for_after_a_restore(tmp_path: Path) -> None:
    """Enrolled before or after the backup: one lease each; not the ended one, nor the host right here."""
    state = tmp_path / "state"
    store, url = make_store(state)
    enroll(store, "here", "there", "ended")
    end_host(store, "ended", START_MS)
    make_host(state / "host", "here")
    store.beat(START_MS, [WorkerAck("here", 0, "i1", 1), WorkerAck("there", 3, "i2", 1)])
    path = make_backup(store, state)
    enroll(store, "newer")
    # This one goes on for longer than anybody is told at the restore.
    store.beat(_LATER_MS, [WorkerAck("newer", 0, "i3", 1)], lease_ms=90_000)
    store.close()
    report = restore(path, state, url, _LATER_MS, lease_ms=10_000)
    with Store.open(url) as restored:
        ends = restored.state().time_ms + 10_000
        assert [tuple(lease)[:3] for lease in restored.leases()] == [
            ("newer", -1, "before restore"),
            ("there", -1, "before restore"),
        ]
        newer, there = restored.leases()
        assert (there.lease_until_ms, there.applied_seq) == (ends, 0)
        assert newer.lease_until_ms == restored.state().time_ms + 90_000
        waiting = wait_for_workers(restored, report.seq, lambda _: [], 10_000, timeout_s=0.02)
        assert waiting.waiting == (("newer", -1), ("there", -1))
        steady = Steady(step_s=1)
        done = wait_for_workers(restored, report.seq, lambda _: [], 10_000, monotonic_s=steady, timeout_s=20)
        assert done.is_complete
        assert steady.passed_s == pytest.approx(90, abs=2)
        # Its workers come back under their own slots, beside that lease.
        restored.beat(_LATER_MS, [WorkerAck("there", 3, "i4", report.seq)])
        assert [(lease.host, lease.slot) for lease in restored.leases()][1:] == [("there", -1), ("there", 3)]


def test_an_installation_alone_waits_for_nobody_after_a_restore(tmp_path: Path) -> None:
    """The only host is the one whose state folder was locked: the next revocation is not held up."""
    state = tmp_path / "state"
    store, url = make_store(state)
    enroll(store, "here")
    make_host(state / "host", "here")
    store.beat(START_MS, [WorkerAck("here", 0, "i1", 1)])
    path = make_backup(store, state)
    store.close()
    report = restore(path, state, url, _LATER_MS)
    with Store.open(url) as restored:
        assert restored.leases() == []
        assert wait_for_workers(restored, report.seq, lambda _: [], 10_000).waited_s < 1


def test_a_new_machine_waits_for_the_one_it_replaces(tmp_path: Path) -> None:
    """Without a host of its own even a host of the same name is elsewhere, for a whole lease."""
    state = tmp_path / "state"
    store, _ = make_store(state)
    enroll(store, "here")
    path = make_backup(store, state)
    store.close()
    url = f"sqlite:///{tmp_path / 'new' / 'store.db'}"
    restore(path, tmp_path / "new", url, _LATER_MS)
    with Store.open(url) as restored:
        (lease,) = restored.leases()
        assert (lease.host, lease.lease_until_ms) == ("here", _LATER_MS + DEFAULT_LEASE_MS)
    (state / "certstatus.toml").write_text("# 7 s\n")
    with Store.open(f"sqlite:///{state / 'store.db'}") as store:
        path = make_backup(store, state)
    new = tmp_path / "newer"
    url = f"sqlite:///{new / 'store.db'}"
    # Its configuration comes out of the backup, and is there when it is asked.
    told = {"# 7 s\n": 7_000}
    restore(path, new, url, _LATER_MS, lease_ms=lambda: told[(new / "certstatus.toml").read_text()])
    with Store.open(url) as restored:
        assert restored.leases()[0].lease_until_ms == _LATER_MS + 7_000


class Installation:
    """A state folder with CA keys and a store on either database, restored from its one backup."""

    def __init__(self, state: Path, url: str) -> None:
        self.state = state
        self.url = url
        (state / "secrets").mkdir(mode=0o700, parents=True)
        (state / "secrets" / "index.key").write_bytes(INDEX_KEY)
        (state / "secrets" / "index.key").chmod(0o600)
        self.keys = CAKeyFolder(state / "ca", environment={})
        self.keys.make_passphrase()
        self.store = Store.create(url, START_MS)

    def backup(self) -> None:
        """Make the backup."""
        make_backup(self.store, self.state)

    def restore(self) -> Store:
        """Restore the backup over the store as it is, and open it."""
        self.store.close()
        restore(self.state.parent / "backup.tar", self.state, self.url, _LATER_MS)
        self.store = Store.open(self.url)
        return self.store

    def states(self, *serials: bytes) -> list[str]:
        """What the register says of certificates."""
        return [show(self.store, find_certificate(self.store, item), _NOW_S).state for item in serials]


@pytest.fixture
def installation(tmp_path: Path, store_url: str) -> Iterator[Installation]:
    """A new installation."""
    url = store_url if store_url.startswith("postgresql") else f"sqlite:///{tmp_path / 'state' / 'store.db'}"
    made = Installation(tmp_path / "state", url)
    yield made
    made.store.close()


def test_holds_of_the_replaced_store_stand(installation: Installation) -> None:
    """Held after the backup is held after the restore, whether or not the backup knew the certificate."""
    store = installation.store
    issuing = make_issuing(store, installation.keys, "OTHER", hold=True)
    one, two = issue_one(store, issuing), issue_one(store, issuing)
    installation.backup()
    later = issue_one(store, issuing)
    for item in (one, later):
        hold(store, found(issuing, item), START_MS)
    store = installation.restore()
    assert installation.states(one.serial, two.serial, later.serial) == ["held", "valid", "held"]
    release(store, find_certificate(store, one.serial), _LATER_MS)
    # A second time: the release was said in the store that is replaced, so nothing holds it.
    installation.restore()
    assert installation.states(one.serial, later.serial) == ["valid", "held"]


def test_an_older_store_holds_nothing_that_was_released_since(installation: Installation) -> None:
    """A hold in a store from before the backup, released in the backup, does not come back."""
    store = installation.store
    issuing = make_issuing(store, installation.keys, "OTHER", hold=True)
    held = issue_one(store, issuing)
    hold(store, found(issuing, held), START_MS)
    older = installation.state.parent / "older.tar"
    backup(store, installation.state, older, START_MS)
    release(store, found(issuing, held), START_MS)
    installation.backup()
    with store.engine.begin() as connection:
        # The store as it stood at the older backup.
        connection.execute(sa.text("UPDATE certificate SET state = 3, reason = 6"))
        connection.execute(sa.text("UPDATE store_state SET seq = seq - 1"))
    installation.restore()
    assert installation.states(held.serial) == ["valid"]


@pytest.mark.parametrize("is_completed", [False, True])
def test_a_ca_key_event_after_the_backup_stands(installation: Installation, is_completed: bool) -> None:
    """All is revoked and nothing can be issued, even if the single records had not been reached."""
    store = installation.store
    issuing = make_issuing(store, installation.keys)
    other = make_issuing(store, installation.keys, "AUTH")
    spared = issue_one(store, other)
    one, two = issue_one(store, issuing), issue_one(store, issuing)
    installation.backup()
    later = issue_one(store, issuing)
    revoke(store, found(issuing, two), START_MS, reason=1)
    record_ca_key_event(store, issuing.issuer.issuer_id, START_MS + 5_000, "key leaked")
    if is_completed:
        complete_ca_key_event(store, issuing.issuer.issuer_id, START_MS + 6_000)
    for _ in range(2):
        store = installation.restore()
        serials = (one.serial, two.serial, later.serial, spared.serial)
        assert installation.states(*serials) == ["revoked", "revoked", "revoked", "valid"]
        shown = [show(store, find_certificate(store, item), _NOW_S) for item in serials]
        assert [item.reason for item in shown[:3]] == ["cACompromise", "keyCompromise", "cACompromise"]
        # Of no effect since the event, not since the restore.
        assert shown[0].invalidity == shown[2].invalidity == "2027-01-15T08:00:05Z"
        issuer = issuer_by_id(store, issuing.issuer.issuer_id)
        assert issuer.key_event_seq is not None
        table = read_issuer_table(json.loads(issuer_table_document(store)))
        assert [item.ca_key_event_ms for item in table] == [issuer.key_event_ms, None]
        with pytest.raises(IllegalTransition):
            issue_one(store, issuing)
        seq = store.state().seq
        assert {row.state for row in store.issued_rows(1, seq)} == {CertificateState.REVOKED}
        assert {row.state for row in store.issued_rows(2, seq)} == {CertificateState.VALID}


def test_verifiers_ended_and_added_after_the_backup_stay_so(installation: Installation) -> None:
    """An ended one is not entitled again, a shortened one not longer, and no number is given out twice."""
    store = installation.store
    make_issuing(store, installation.keys)
    make = {name: f"192.0.2.{number}/32" for number, name in enumerate(("ended", "shortened", "standing"))}
    for name, network in make.items():
        add_verifier(store, name, [network], {"SIGN": ["ocsp"]}, START_MS, until_day=30_000)
    installation.backup()
    end_verifier(store, 1, START_MS)
    end_verifier(store, 2, START_MS, until_day=25_000)
    add_verifier(store, "added", ["198.51.100.0/24"], {"SIGN": ["ocsp"]}, START_MS)
    add_verifier(store, "short", ["203.0.113.0/24"], {"SIGN": ["ocsp"]}, START_MS)
    end_verifier(store, 5, START_MS)
    make_issuing(store, installation.keys, "AUTH")
    add_verifier(store, "elsewhere", ["203.0.113.0/24"], {"AUTH": ["ocsp"]}, START_MS)
    for _ in range(2):
        store = installation.restore()
        assert [(item.verifier.name, item.verifier.until_day) for item in verifiers(store)] == [
            ("shortened", 25_000),
            ("standing", 30_000),
            ("added", None),
        ]
        document = entitlement_document(store) or b""
        assert b"added" in document
        assert b"192.0.2.0/32" not in document
    assert add_verifier(store, "new", ["192.0.2.0/32"], {"SIGN": ["ocsp"]}, _LATER_MS).verifier_id == 7


def test_dropped_responder_certificates_stay_dropped(installation: Installation) -> None:
    """Dropped after the backup: still in the issuer table's list, also if signed after the backup."""
    store = installation.store
    make_issuing(store, installation.keys)
    host_key = Ed25519PrivateKey.generate()
    enroll_host(store, "host-a", host_key.public_key(), START_MS)

    def sign() -> str:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "host-a")])
        builder = x509.CertificateSigningRequestBuilder().subject_name(name)
        csr = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
        pem = csr.public_bytes(serialization.Encoding.PEM).decode()
        text = CertificateRequest("host-a", 1, pem, START_MS).sign(host_key)
        der = sign_request(store, installation.keys, text, START_MS, 7 * clock.DAY_S)
        (serial,) = [item.serial for item in responder_certificates(store) if item.certificate_der == der]
        return serial

    before, kept = sign(), sign()
    installation.backup()
    after, later = sign(), sign()
    for serial in (before, after):
        drop_certificate(store, 1, serial, START_MS, "key lost")
    for _ in range(2):
        store = installation.restore()
        (issuer,) = read_issuer_table(json.loads(issuer_table_document(store)))
        assert set(issuer.dropped) == {before, after}
        found_now = {item.serial: item.dropped_seq for item in responder_certificates(store)}
        assert found_now.keys() == {before, kept, after, later}
        assert (found_now[kept], found_now[later]) == (None, None)


def test_a_hold_on_a_crl_takes_back_no_revocation(installation: Installation) -> None:
    """The CRL still lists the hold, the replaced store knows of the revocation since: that stands."""
    store = installation.store
    issuing = make_issuing(store, installation.keys, "OTHER", hold=True)
    one = issue_one(store, issuing)
    installation.backup()
    hold(store, found(issuing, one), START_MS)
    entry = (
        x509.RevokedCertificateBuilder()
        .serial_number(int.from_bytes(one.serial, "big"))
        .revocation_date(clock.utc(_NOW_S))
        .add_extension(x509.CRLReason(x509.ReasonFlags.certificate_hold), critical=False)
    )
    crl = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuing.profile.ca_certificate.subject)
        .last_update(clock.utc(_NOW_S + 100))
        .next_update(clock.utc(_NOW_S + 86_400))
        .add_extension(x509.CRLNumber(1), critical=False)
        .add_revoked_certificate(entry.build())
        .sign(issuing.ca_key, hashes.SHA256())
    )
    (installation.state / "crl").mkdir()
    (installation.state / "crl" / "1.crl").write_bytes(crl.public_bytes(serialization.Encoding.DER))
    revoke(store, found(issuing, one), START_MS + 200_000, reason=1)
    installation.restore()
    assert installation.states(one.serial) == ["revoked"]
