"""Backup and restore: nothing lost that was in it, nothing unsaid that was said after it."""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import io
import json
import shutil
import stat
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from archived_octets import read_archived
from ca_cases import found, issue_one, make_issuing
from crl_steps_by_one import allocate_crl_number
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from store_cases import INDEX_KEY, START_MS

from certstatus import clock, oid
from certstatus.changes import ChangeKind, first_chain, next_chain, unpack_change
from certstatus.crl_archive import CRLArchive
from certstatus.crl_pack import PackedCRL, issuer_mark
from certstatus.distribution_point import encode_issuing_distribution_point
from certstatus.errors import EXIT_DATA, BackupDamaged, StoreError
from issuance import profiles, schema
from issuance.backup import backup
from issuance.ca_keys import CAKeyFolder
from issuance.certificate_hashes import tell_hashes
from issuance.crl_register import WITHDRAWN
from issuance.issue import IssuedCertificate, Issuing
from issuance.issuers import issuer_by_id, set_policy
from issuance.provisions import ProvisionCell
from issuance.published_crls import PublishedState, read_published
from issuance.restore import CRL_NUMBER_GAP, SEQ_GAP, restore
from issuance.revoke import FoundCertificate, find_certificate, hold, record_ca_key_event, release, revoke
from issuance.schema import CertificateState
from issuance.show import show
from issuance.store import Store
from issuance.verifiers import add_verifier, entitlement_document
from publisher.crl_archive import ArchiveWriter

_NOW_S = START_MS // 1000
_LATER_MS = START_MS + 3_600_000


class Installation:
    """A state folder with a store, keys, secrets and CRLs, on either database."""

    def __init__(self, state: Path, url: str) -> None:
        self.state = state
        self.url = url
        self.keys = CAKeyFolder(state / "ca", environment={})
        self.keys.make_passphrase()
        (state / "secrets").mkdir(mode=0o700, parents=True)
        for name, content in (("index.key", INDEX_KEY), ("publisher.key", b"secret")):
            (state / "secrets" / name).write_bytes(content)
            (state / "secrets" / name).chmod(0o600)
        (state / "certstatus.toml").write_text("# configuration\n")
        self.store = Store.create(url, START_MS)

    def backup(self, name: str = "backup.tar") -> Path:
        """Make a backup beside the state folder."""
        path = self.state.parent / name
        backup(self.store, self.state, path, START_MS)
        return path

    def reopen(self) -> Store:
        """Open the store anew."""
        self.store.close()
        self.store = Store.open(self.url)
        return self.store


@pytest.fixture
def installation(tmp_path: Path, store_url: str) -> Iterator[Installation]:
    """A new installation."""
    url = store_url if store_url.startswith("postgresql") else f"sqlite:///{tmp_path / 'state' / 'store.db'}"
    made = Installation(tmp_path / "state", url)
    yield made
    made.store.close()


@pytest.fixture
def sqlite_installation(tmp_path: Path) -> Iterator[Installation]:
    """A new installation on SQLite, for what the database makes no difference to."""
    made = Installation(tmp_path / "state", f"sqlite:///{tmp_path / 'state' / 'store.db'}")
    yield made
    made.store.close()


def write_crl(
    folder: Path,
    issuing: Issuing,
    number: int,
    entries: dict[bytes, int | None],
    this_update_s: int,
    base: int | None = None,
    scope: str = "all",
) -> Path:
    """Write a CRL as a publisher would: serial -> CRLReason number, all revoked at *this_update_s* - 60."""
    issuer = issuing.issuer
    directory_name, _ = profiles.crl_names(
        issuing.profile.ca_certificate.subject,
        issuer.service,
        issuer.generation,
        issuer.policy.base_url,
        scope,
    ).complete
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuing.profile.ca_certificate.subject)
        .last_update(clock.utc(this_update_s))
        .next_update(clock.utc(this_update_s + 86_400))
        .add_extension(profiles.authority_key_id(issuing.profile.ca_certificate), critical=False)
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(
            x509.UnrecognizedExtension(
                x509.ObjectIdentifier(oid.ISSUING_DISTRIBUTION_POINT),
                encode_issuing_distribution_point((directory_name, ()), only_user_certs=True),
            ),
            critical=True,
        )
    )
    if base is not None:
        builder = builder.add_extension(x509.DeltaCRLIndicator(base), critical=True)
    flags = {1: "keyCompromise", 2: "cACompromise", 4: "superseded", 5: "cessationOfOperation"}
    flags |= {6: "certificateHold", 8: "removeFromCRL"}
    for serial, reason in entries.items():
        entry = (
            x509.RevokedCertificateBuilder()
            .serial_number(int.from_bytes(serial, "big"))
            .revocation_date(clock.utc(this_update_s - 60))
        )
        if reason is not None:
            entry = entry.add_extension(x509.CRLReason(x509.ReasonFlags(flags[reason])), critical=False)
        builder = builder.add_revoked_certificate(entry.build())
    crl = builder.sign(issuing.ca_key, hashes.SHA256())
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{number}{'' if base is None else '.delta'}.crl"
    path.write_bytes(crl.public_bytes(serialization.Encoding.DER))
    return path


def answers(store: Store, certificates: list[FoundCertificate]) -> list[str]:
    """What OCSP says of each certificate."""
    return [show(store, certificate, _NOW_S).answer for certificate in certificates]


def issue_some(store: Store, issuing: Issuing, count: int) -> list[FoundCertificate]:
    """Issue *count* certificates."""
    return [found(issuing, issue_one(store, issuing)) for _ in range(count)]


def test_a_backup_restores_everywhere(
    installation: Installation, tmp_path: Path, new_postgres: Callable[[str], str]
) -> None:
    """Into an empty installation on either database: rows, keys, secrets, CRLs and configuration are back."""
    store, state = installation.store, installation.state
    issuing = make_issuing(store, installation.keys)
    certificates = issue_some(store, issuing, 5)
    revoke(store, certificates[1], START_MS, reason=1)
    add_verifier(store, "City A", ["192.0.2.0/24"], {"SIGN": ["ocsp"]}, START_MS)
    store.record_provisions([ProvisionCell("f", 0, 1, 1, "ocsp_good", 0, 7)])
    write_crl(state / "crl" / "sign" / "g1" / "all", issuing, 1, {}, _NOW_S)
    before = store.state()
    path = installation.backup()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for name, url in (
        ("one", f"sqlite:///{tmp_path / 'one' / 'store.db'}"),
        ("two", new_postgres("t_restored_elsewhere")),
    ):
        target = tmp_path / name
        report = restore(path, target, url, _LATER_MS)
        with Store.open(url) as restored:
            after = restored.state()
            assert after.epoch == report.epoch > before.epoch
            assert after.base_seq == report.base_seq == before.seq + SEQ_GAP
            assert after.time_ms == _LATER_MS
            assert answers(restored, certificates) == ["good", "revoked", "good", "good", "good"]
            assert show(restored, certificates[0], _NOW_S).certificate_der is not None
            assert restored.provision_sums() == store.provision_sums()
            assert entitlement_document(restored) is not None
            again = Issuing.of(
                issuer_by_id(restored, 1), CAKeyFolder(target / "ca", environment={}).private_key(1)
            )
            issued = issue_one(restored, again)
            assert issued.seq == after.seq + 1
        for file in ("ca/1.key", "ca/passphrase", "secrets/index.key", "secrets/publisher.key"):
            assert (target / file).read_bytes() == (state / file).read_bytes()
            assert stat.S_IMODE((target / file).stat().st_mode) == 0o600
        assert (target / "crl/sign/g1/all/1.crl").is_file()
        assert (target / "certstatus.toml").is_file()
        assert not list(target.glob(".restore-*"))


def test_a_restored_epoch_is_whole_in_itself(installation: Installation) -> None:
    """Its chain begins with its epoch at its base, numbers follow it, and what a feed needs is published."""
    store = installation.store
    issuing = make_issuing(store, installation.keys)
    certificate = issue_some(store, issuing, 1)[0]
    store.publish("snapshot", store.state().seq, bytes(32))
    store.publish("crls", store.state().seq, bytes(32), b"{}")
    path = installation.backup()
    report = restore(path, installation.state, installation.url, _LATER_MS)
    store = installation.reopen()
    state = store.state()
    assert store.chain_at(report.base_seq) == first_chain(report.epoch)
    changes = store.changes_after(report.base_seq, state.seq, 100)
    chain = first_chain(report.epoch)
    for change in changes:
        chain = next_chain(chain, change.packed)
        assert chain == change.chain
    assert [unpack_change(change.packed).kind for change in changes] == [
        ChangeKind.ISSUERS,
        ChangeKind.ENTITLEMENTS,
    ]
    for seq in (report.base_seq - 1, 1):
        with pytest.raises(StoreError):
            store.chain_at(seq)
        with pytest.raises(StoreError, match="begins after"):
            store.changes_after(seq, state.seq, 10)
    basis = store.beat(_LATER_MS, [])
    assert set(basis.publications) == {"issuers", "entitlements"}
    assert all(pointer.generation > report.base_seq for pointer in basis.publications.values())
    # What came before is still there to be shown and listed, under its old numbers.
    assert [change.seq for change in show(store, certificate, _NOW_S).changes] == [2]
    assert [row.state for row in store.issued_rows(1, state.seq)] == [CertificateState.VALID]


def test_told_hashes_outlive_a_restore(installation: Installation) -> None:
    """What was told of certificates before the backup, at issuing or later, is in the new epoch's rows."""
    store = installation.store
    issuing = make_issuing(store, installation.keys, "PUBLIC")
    issuer_id = issuing.issuer.issuer_id
    before = issue_one(store, issuing)
    set_policy(store, issuer_id, dataclasses.replace(issuing.issuer.policy, cert_hash=True), START_MS)
    tell_hashes(store, issuer_id, START_MS)
    certificates = [before, issue_one(store, issuing)]
    restore(installation.backup(), installation.state, installation.url, _LATER_MS)
    store = installation.reopen()
    rows = store.issued_rows(issuer_id, store.state().seq)
    assert {row.certificate_sha256 for row in rows} == {
        hashlib.sha256(item.certificate_der).digest() for item in certificates
    }


def test_revocations_on_published_crls_are_recorded_again(installation: Installation, tmp_path: Path) -> None:
    """Complete and delta CRLs newer than the backup, here and on hosts, also of certificates it never saw."""
    store, state = installation.store, installation.state
    issuing = make_issuing(store, installation.keys)
    known = issue_some(store, issuing, 4)
    revoke(store, known[0], START_MS, reason=4)
    path = installation.backup()
    # After the backup: two more revoked, one of them issued after the backup; the store is then lost.
    lost = issue_one(store, issuing)
    complete = {known[0].serial: 4, known[1].serial: 1, lost.serial: None}
    write_crl(state / "crl" / "sign" / "g1" / "all", issuing, 8, complete, _NOW_S + 100)
    elsewhere = tmp_path / "host"
    write_crl(elsewhere, issuing, 9, {known[2].serial: 5}, _NOW_S + 200, base=8)
    lose(installation)
    report = restore(path, state, installation.url, _LATER_MS, crl_folders=[elsewhere])
    assert (report.recorded_again, report.without_record, report.crls_read) == (3, 1, 2)
    store = installation.reopen()
    assert answers(store, known) == ["revoked", "revoked", "revoked", "good"]
    unseen = find_certificate(store, lost.serial)
    shown = show(store, unseen, _NOW_S)
    assert (shown.answer, shown.reason, shown.origin) == ("revoked", "no reason given", "recovered")
    shown = show(store, known[1], _NOW_S)
    assert shown.reason == "keyCompromise"
    assert shown.revoked_at == "2027-01-15T09:00:00Z"
    # Recorded at the restore; of no effect since the date on the CRL.
    assert shown.invalidity == "2027-01-15T08:00:40Z"
    assert shown.changes[-1].detail is not None
    assert json.loads(shown.changes[-1].detail)["told_by"] == "CRL 8"
    assert show(store, known[0], _NOW_S).changes[-1].ground is None
    assert store.state().seq == report.seq
    changes = store.changes_after(report.base_seq, report.seq, 100)
    assert len(changes) == report.seq - report.base_seq == 3 + 1 + 2


def test_nothing_is_gathered_of_whom_the_backup_has_as_revoked(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list of millions has hardly anybody else, and a revocation stays whatever a list says."""
    store, state = installation.store, installation.state
    issuing = make_issuing(store, installation.keys)
    known = issue_some(store, issuing, 4)
    for certificate in known[:2]:
        revoke(store, certificate, START_MS, reason=4)
    path = installation.backup()
    entries: dict[bytes, int | None] = {known[0].serial: 4, known[1].serial: 6, known[2].serial: 1}
    write_crl(state / "crl" / "sign" / "g1" / "all", issuing, 8, entries, _NOW_S + 100)
    gathered: list[PublishedState] = []

    def noted(*arguments: Any, **named: Any) -> dict[int, PublishedState]:
        found = read_published(*arguments, **named)
        gathered.extend(found.values())
        return found

    monkeypatch.setattr("issuance.restore.read_published", noted)
    lose(installation)
    report = restore(path, state, installation.url, _LATER_MS)
    assert (report.recorded_again, report.without_record) == (1, 0)
    assert [(set(item.revoked), set(item.held)) for item in gathered] == [({known[2].serial}, set())]
    assert answers(installation.reopen(), known) == ["revoked", "revoked", "revoked", "good"]


def lose(installation: Installation) -> None:
    """Lose the store: its file, or all tables of its database."""
    installation.store.close()
    if installation.url.startswith("sqlite"):
        for path in installation.state.glob("store.db*"):
            path.unlink()
        return
    with Store.open(installation.url) as store, store.engine.begin() as connection:
        connection.execute(sa.text("DROP SCHEMA public CASCADE"))
        connection.execute(sa.text("CREATE SCHEMA public"))


def test_numbers_start_above_anything_published(installation: Installation) -> None:
    """Sequence above the last beat told of, CRL numbers above any on a CRL, fences above any held."""
    store, state = installation.store, installation.state
    issuing = make_issuing(store, installation.keys)
    old_fence = store.acquire_publisher("builder", 10_000, START_MS, "one")
    first = allocate_crl_number(store, 1, "all", ["complete"], old_fence, START_MS)
    path = installation.backup()
    write_crl(state / "crl" / "sign" / "g1" / "all", issuing, 41, {}, _NOW_S + 7_200)
    lose(installation)
    report = restore(path, state, installation.url, _LATER_MS, last_seq=5_000_000)
    assert report.base_seq == 5_000_000 + SEQ_GAP
    store = installation.reopen()
    # A CRL from the future of the backup: nothing may carry an earlier time now.
    assert store.state().time_ms == (_NOW_S + 7_200) * 1000
    fence = store.acquire_publisher("builder", 10_000, _LATER_MS, "two")
    assert fence.number > old_fence.number + 1000
    following = allocate_crl_number(store, 1, "all", ["complete"], fence, _LATER_MS)
    assert following.number == 41 + CRL_NUMBER_GAP + 1
    oldest = store.crls(1, "all")[0]
    assert (oldest.number, oldest.state) == (first.number, WITHDRAWN)


def test_every_scope_goes_on_above_its_own_numbers(installation: Installation) -> None:
    """A scope is told by the name in its CRLs, wherever their files lie; none takes another's number."""
    store, state = installation.store, installation.state
    issuing = make_issuing(store, installation.keys)
    path = installation.backup()
    write_crl(state / "crl" / "sign" / "g1" / "all", issuing, 41, {}, _NOW_S)
    write_crl(state / "crl" / "collected", issuing, 7_000, {}, _NOW_S, scope="m1/13104")
    write_crl(
        state / "crl" / "archive" / "sign" / "g1" / "n64" / "b17", issuing, 9, {}, _NOW_S, scope="n64/b17"
    )
    lose(installation)
    restore(path, state, installation.url, _LATER_MS)
    store = installation.reopen()
    fence = store.acquire_publisher("builder", 10_000, _LATER_MS, "two")
    for scope, number in (("all", 41), ("m1/13104", 7_000), ("n64/b17", 9)):
        following = allocate_crl_number(store, 1, scope, ["complete"], fence, _LATER_MS)
        assert following.number == number + CRL_NUMBER_GAP + 1


def test_what_the_replaced_store_still_knows_counts(installation: Installation) -> None:
    """Restoring over a readable store keeps its revocations, provisions and numbers, and the store itself."""
    store = installation.store
    issuing = make_issuing(store, installation.keys)
    known = issue_some(store, issuing, 3)
    path = installation.backup()
    later = issue_one(store, issuing)
    revoke(store, known[1], START_MS, reason=1)
    revoke(store, found(issuing, later), START_MS, reason=5)
    store.record_provisions([ProvisionCell("f", 0, 1, 1, "ocsp_good", 0, 11)])
    fence = store.acquire_publisher("builder", 10_000, START_MS, "one")
    for _ in range(5):
        allocate_crl_number(store, 1, "all", ["complete"], fence, START_MS)
    before = store.state()
    store.close()
    report = restore(path, installation.state, installation.url, START_MS - 1_000)
    assert (report.recorded_again, report.without_record) == (2, 1)
    assert report.base_seq == before.seq + SEQ_GAP
    assert report.epoch > before.epoch
    store = installation.reopen()
    assert store.state().time_ms == before.time_ms
    assert answers(store, known) == ["good", "revoked", "good"]
    assert show(store, find_certificate(store, later.serial), _NOW_S).reason == "cessationOfOperation"
    assert [item.total for item in store.provision_sums()] == [11]
    new_fence = store.acquire_publisher("builder", 10_000, _LATER_MS, "two")
    assert allocate_crl_number(store, 1, "all", ["complete"], new_fence, _LATER_MS).number > 5
    if installation.url.startswith("sqlite"):
        kept = [item for item in installation.state.glob("store.db.before-*") if item.suffix != ".key"]
        assert len(kept) == 1
        with Store.open(f"sqlite:///{kept[0]}") as old:
            assert old.state() == before
    else:
        with store.reading() as connection:
            names = [name for name in sa.inspect(connection).get_schema_names() if "before_restore" in name]
            seq = connection.exec_driver_sql(f'SELECT seq FROM "{names[0]}".store_state').scalar()
            assert seq == before.seq


def test_restoring_twice_is_harmless(installation: Installation) -> None:
    """The second restore begins an epoch of its own, above the first, with the same certificates."""
    store = installation.store
    known = issue_some(store, make_issuing(store, installation.keys), 3)
    revoke(store, known[0], START_MS, reason=1)
    path = installation.backup()
    store.close()
    first = restore(path, installation.state, installation.url, _LATER_MS)
    second = restore(path, installation.state, installation.url, _LATER_MS)
    assert second.epoch > first.epoch
    assert second.base_seq >= first.seq + SEQ_GAP
    assert second.recorded_again == 0
    assert answers(installation.reopen(), known) == ["revoked", "good", "good"]


def test_holds_follow_the_newest_crl(installation: Installation) -> None:
    """Of holds only those that the last CRLs still list come back; a release seen on one is a release."""
    store, state = installation.store, installation.state
    issuing = make_issuing(store, installation.keys, "OTHER", hold=True)
    known = issue_some(store, issuing, 4)
    hold(store, known[3], START_MS)
    path = installation.backup()
    release(store, known[3], START_MS)
    folder = state / "crl" / "other" / "g1" / "all"
    write_crl(folder, issuing, 1, {known[0].serial: 6, known[1].serial: 6}, _NOW_S + 100)
    write_crl(folder, issuing, 2, {known[1].serial: 8, known[2].serial: 6}, _NOW_S + 200, base=1)
    write_crl(folder, issuing, 3, {known[0].serial: 1}, _NOW_S + 300, base=1)
    lose(installation)
    report = restore(path, state, installation.url, _LATER_MS)
    store = installation.reopen()
    assert [show(store, item, _NOW_S).state for item in known[:3]] == ["revoked", "valid", "held"]
    assert report.recorded_again == 2


def test_foreign_and_broken_crls_are_passed_over(installation: Installation, tmp_path: Path) -> None:
    """A CRL signed by another key under the same name revokes nothing and lifts no number."""
    store, state = installation.store, installation.state
    issuing = make_issuing(store, installation.keys)
    known = issue_some(store, issuing, 1)
    path = installation.backup()
    foreign = issuing._replace(ca_key=issuing_elsewhere(tmp_path).ca_key)
    folder = state / "crl" / "sign" / "g1" / "all"
    write_crl(folder, foreign, 77, {known[0].serial: 1}, _NOW_S + 100)
    (folder / "junk.crl").write_bytes(b"junk")
    lose(installation)
    report = restore(path, state, installation.url, _LATER_MS)
    assert (report.recorded_again, report.crls_read) == (0, 0)
    assert answers(installation.reopen(), known) == ["good"]


def issuing_elsewhere(tmp_path: Path) -> Issuing:
    """The tools of an issuer with the same name and another key."""
    other = tmp_path / "elsewhere"
    other.mkdir()
    keys = CAKeyFolder(other / "ca", environment={})
    keys.make_passphrase()
    with Store.create(f"sqlite:///{other / 'store.db'}", START_MS) as store:
        return make_issuing(store, keys)


def test_a_ca_key_event_survives(installation: Installation) -> None:
    """What was revoked at one number before the backup is revoked after the restore, issued or recovered."""
    store, state = installation.store, installation.state
    issuing = make_issuing(store, installation.keys)
    known = issue_some(store, issuing, 2)
    record_ca_key_event(store, 1, START_MS, "key leaked")
    path = installation.backup()
    unseen = b"\x11" * 16
    write_crl(state / "crl" / "sign" / "g1" / "all", issuing, 3, {unseen: 2}, _NOW_S + 100)
    lose(installation)
    restore(path, state, installation.url, _LATER_MS)
    store = installation.reopen()
    assert answers(store, [*known, find_certificate(store, unseen)]) == ["revoked"] * 3
    assert {row.state for row in store.issued_rows(1, store.state().seq)} == {CertificateState.REVOKED}


def test_an_installation_that_is_served_is_not_restored(installation: Installation) -> None:
    """While somebody holds the state folder's lock, restore refuses and touches nothing."""
    path = installation.backup()
    with (installation.state / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(StoreError, match="being served"):
            restore(path, installation.state, installation.url, _LATER_MS)


def rewrite(path: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """Return a copy of a backup with some of its members changed."""
    with tarfile.open(path) as tar:
        members: dict[str, bytes] = {}
        for member in tar.getmembers():
            file = tar.extractfile(member)
            assert file is not None
            members[member.name] = file.read()
    change(members)
    altered = path.with_name("altered.tar")
    with tarfile.open(altered, "w") as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return altered


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda members: members.update({"tables/change.jsonl": b""}), "change.jsonl is not what"),
        (lambda members: members.pop("secrets/index.key"), "secrets/index.key is missing"),
        (lambda members: members.update({"ca/extra.key": b"x"}), "ca/extra.key is not in the manifest"),
    ],
)
def test_a_damaged_backup_is_refused(
    sqlite_installation: Installation, change: Callable[[dict[str, bytes]], None], match: str
) -> None:
    """Anything altered, missing or too much is noticed before anything is touched."""
    installation = sqlite_installation
    make_issuing(installation.store, installation.keys)
    altered = rewrite(installation.backup(), change)
    before = installation.store.state()
    installation.store.close()
    with pytest.raises(BackupDamaged, match=match):
        restore(altered, installation.state, installation.url, _LATER_MS)
    assert installation.reopen().state() == before


def test_what_is_no_backup_is_refused(sqlite_installation: Installation, tmp_path: Path) -> None:
    """A text file, an absent one, and one from another format."""
    state = tmp_path / "empty"
    url = f"sqlite:///{state / 'store.db'}"
    (tmp_path / "text").write_text("hello")
    with pytest.raises(BackupDamaged, match="not a backup"):
        restore(tmp_path / "text", state, url, _LATER_MS)
    with pytest.raises(StoreError, match="not a backup"):
        restore(tmp_path / "absent", state, url, _LATER_MS)
    assert not (state / "store.db").exists()
    made = sqlite_installation.backup()

    def newer(members: dict[str, bytes]) -> None:
        manifest = json.loads(members["manifest.json"])
        members["manifest.json"] = json.dumps(manifest | {"format": 2}).encode()

    with pytest.raises(StoreError, match="backup format 2, this version reads 1"):
        restore(rewrite(made, newer), state, url, _LATER_MS)


def test_a_broken_tar_is_bad_data_and_says_so(sqlite_installation: Installation, tmp_path: Path) -> None:
    """Empty, cut short anywhere, without content, or garbage: exit code 65, and no name of our own making."""
    installation = sqlite_installation
    make_issuing(installation.store, installation.keys)
    whole = installation.backup().read_bytes()
    manifest = json.dumps({"format": 1, "schema_revision": schema.SCHEMA_REVISION}).encode()
    with tarfile.open(tmp_path / "bare.tar", "w") as tar:
        entry = tarfile.TarInfo("manifest.json")
        entry.size = len(manifest)
        tar.addfile(entry, io.BytesIO(manifest))
    with tarfile.open(tmp_path / "outside.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("../../outside"), io.BytesIO())
    cuts = {f"cut at {at}": whole[:at] for at in (100, 512, 700, len(whole) // 2, len(whole) - 20_000)}
    broken = cuts | {
        "empty": b"",
        "zeros": bytes(10_240),
        "garbage": bytes(range(1, 256)) * 200,
        "bare": (tmp_path / "bare.tar").read_bytes(),
        "outside": (tmp_path / "outside.tar").read_bytes(),
    }
    state = tmp_path / "target"
    for name, content in broken.items():
        path = tmp_path / "broken.tar"
        path.write_bytes(content)
        with pytest.raises(BackupDamaged) as caught:
            restore(path, state, f"sqlite:///{state / 'store.db'}", _LATER_MS)
        assert caught.value.exit_code == EXIT_DATA, name
        assert ".restore-" not in str(caught.value), name
        assert str(state) not in str(caught.value), name
        assert {item.name for item in state.iterdir()} == {"lock", "store-use"}, name


def test_a_backup_is_of_one_moment(installation: Installation) -> None:
    """Whatever is recorded while the backup is written is in none of its tables."""
    store = installation.store
    issuing = make_issuing(store, installation.keys)
    issue_some(store, issuing, 3)
    before = store.state()
    written: list[IssuedCertificate] = []

    def write_between(_table: str, _rows: int) -> None:
        written.append(issue_one(store, issuing))

    path = installation.state.parent / "moving.tar"
    report = backup(store, installation.state, path, START_MS, write_between)
    assert len(written) > 5
    assert report.seq == before.seq
    assert (report.rows["certificate"], report.rows["change"]) == (3, before.seq)
    with tarfile.open(path) as tar:
        file = tar.extractfile("tables/issue_record.jsonl")
        assert file is not None
        assert len(file.read().splitlines()) == 3


def test_a_key_that_differs_is_kept_aside(sqlite_installation: Installation, tmp_path: Path) -> None:
    """Restoring over an installation with another CA key keeps that key under another name."""
    installation = sqlite_installation
    make_issuing(installation.store, installation.keys)
    path = installation.backup()
    other = tmp_path / "copy.key"
    shutil.copy(installation.keys.path(1), other)
    installation.keys.path(1).write_bytes(b"another key")
    installation.store.close()
    restore(path, installation.state, installation.url, _LATER_MS)
    assert installation.keys.path(1).read_bytes() == other.read_bytes()
    kept = list((installation.state / "ca").glob("1.key.before-*"))
    assert [item.read_bytes() for item in kept] == [b"another key"]


def test_all_tables_are_in_a_backup(installation: Installation) -> None:
    """A table added to the schema is in the next backup without anybody thinking of it."""
    report = backup(installation.store, installation.state, installation.state.parent / "b.tar", START_MS)
    assert set(report.rows) == set(schema.metadata.tables)


# --- archived CRLs ---------------------------------------------------------------------------------------


def archive_crl(state: Path, issuing: Issuing, path: Path, number: int, this_update_s: int) -> ArchiveWriter:
    """Move a CRL from its file into the archive of the installation."""
    content = path.read_bytes()
    writer = ArchiveWriter(state / "crl" / "archive")
    row = PackedCRL(
        path="sign/g1/all",
        issuer=issuer_mark(issuing.issuer.spki_der),
        number=number,
        seq=1,
        offset=0,
        size=len(content),
        this_update_s=this_update_s,
        next_update_s=this_update_s + 86_400,
        published_ms=this_update_s * 1000 + 1,
        sha256=hashlib.sha256(content).digest(),
    )
    assert writer.add(row, path)
    path.unlink()
    return writer


def archived(state: Path, issuing: Issuing, number: int) -> bytes | None:
    """What the archive gives for a number."""
    found = CRLArchive(state / "crl" / "archive").find(
        "sign/g1/all", issuer_mark(issuing.issuer.spki_der), number
    )
    return None if found is None else read_archived(found)


def test_numbers_and_revocations_come_from_packs_alone(installation: Installation) -> None:
    """Numbers from the indexes, also where a pack is gone; entries only from CRLs after the backup; and
    what is damaged, or signed by another key, revokes nothing."""
    store, state = installation.store, installation.state
    issuing = make_issuing(store, installation.keys)
    known = issue_some(store, issuing, 4)
    path = installation.backup()
    folder = state / "made"
    older = _NOW_S - 3 * 86_400
    days: list[tuple[int, dict[bytes, int | None], int]] = [
        # From before the backup: the register knows what was revoked then.
        (7, {known[0].serial: 1}, older),
        (8, {known[1].serial: 1}, _NOW_S + 100),
        (9, {known[2].serial: 1}, _NOW_S + 86_400),
        (41, {}, _NOW_S + 3 * 86_400),
    ]
    for number, entries, at_s in days:
        writer = archive_crl(state, issuing, write_crl(folder, issuing, number, entries, at_s), number, at_s)
    foreign = issuing._replace(ca_key=issuing_elsewhere(state).ca_key)
    at_s = _NOW_S + 4 * 86_400
    archive_crl(state, issuing, write_crl(folder, foreign, 43, {known[3].serial: 1}, at_s), 43, at_s)
    writer.seal(at_s + 86_400)
    packs = sorted(writer.folder.glob("*.pack"))
    # The pack of number 9, and that of 41, of which nothing but the index is left.
    packs[2].write_bytes(packs[2].read_bytes()[:-1])
    packs[3].unlink()
    lose(installation)
    report = restore(path, state, installation.url, _LATER_MS)
    store = installation.reopen()
    assert report.recorded_again == 1
    assert answers(store, known) == ["good", "revoked", "good", "good"]
    fence = store.acquire_publisher("crl", 10_000, _LATER_MS, "two")
    following = allocate_crl_number(store, 1, "all", ["complete"], fence, _LATER_MS)
    assert following.number == 43 + CRL_NUMBER_GAP + 1


def test_sealed_packs_are_named_and_not_copied(sqlite_installation: Installation, tmp_path: Path) -> None:
    """Of a day that is over, name and hash; of today, the CRLs; with_archive, all of it.  Elsewhere it
    shows what is missing, and no longer once it was brought there."""
    installation = sqlite_installation
    store, state = installation.store, installation.state
    issuing = make_issuing(store, installation.keys)
    contents = {}
    for number, at_s in ((1, _NOW_S - 2 * 86_400), (2, _NOW_S - 86_400), (3, _NOW_S), (4, _NOW_S + 1)):
        made = write_crl(state / "made", issuing, number, {}, at_s)
        contents[number] = made.read_bytes()
        writer = archive_crl(state, issuing, made, number, at_s)
        if number < 4:
            writer.seal(_NOW_S)
    # What a publisher that was killed has left behind the last row.
    with next(writer.folder.glob("2027-01-15.pack")).open("ab") as file:
        file.write(b"torn")
    bare, whole = state.parent / "bare.tar", state.parent / "whole.tar"
    assert backup(store, state, bare, START_MS).packs_named == 2
    assert backup(store, state, whole, START_MS, with_archive=True).packs_named == 0
    with tarfile.open(bare) as tar:
        names = [name for name in tar.getnames() if name.startswith("crl/archive/")]
    assert sorted(names) == ["crl/archive/2027-01-15.idx", "crl/archive/2027-01-15.pack"]
    for name, path, missing in (("one", bare, ("2027-01-13", "2027-01-14")), ("two", whole, ())):
        target = tmp_path / name
        report = restore(path, target, f"sqlite:///{target / 'store.db'}", _LATER_MS)
        assert report.packs_missing == missing
        for number, content in contents.items():
            is_there = number > 2 or not missing
            assert archived(target, issuing, number) == (content if is_there else None)
    # Brought back, but for an octet.
    for file_name in ("2027-01-13.pack", "2027-01-13.idx", "2027-01-14.pack", "2027-01-14.idx"):
        shutil.copy(writer.folder / file_name, tmp_path / "one" / "crl" / "archive")
    cut = tmp_path / "one" / "crl" / "archive" / "2027-01-14.pack"
    cut.write_bytes(cut.read_bytes()[:-1])
    again = restore(bare, tmp_path / "one", f"sqlite:///{tmp_path / 'one' / 'store.db'}", _LATER_MS)
    assert again.packs_missing == ("2027-01-14",)


def test_a_restore_takes_nothing_from_an_archive_that_is_there(sqlite_installation: Installation) -> None:
    """Whatever was archived after the backup stays, in the same pack too."""
    installation = sqlite_installation
    store, state = installation.store, installation.state
    issuing = make_issuing(store, installation.keys)
    made = write_crl(state / "made", issuing, 1, {}, _NOW_S)
    archive_crl(state, issuing, made, 1, _NOW_S)
    path = installation.backup()
    later = write_crl(state / "made", issuing, 2, {}, _NOW_S + 1)
    content = later.read_bytes()
    archive_crl(state, issuing, later, 2, _NOW_S + 1)
    lose(installation)
    restore(path, state, installation.url, _LATER_MS)
    installation.reopen()
    assert archived(state, issuing, 2) == content
