"""Backup and restore of imported issuers: with a key and without, whole and half."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509
from import_cases import NOW_MS, NOW_S, REVOKED_S, OldCA, run, states
from store_cases import INDEX_KEY

from certstatus.changes import ChangeKind
from certstatus.publisher_key import SECRET_MODE
from issuance.backup import backup
from issuance.ca_keys import CAKeyFolder
from issuance.import_run import follow_crl
from issuance.issuers import issuer_of, issuer_table
from issuance.restore import restore
from issuance.revoke import find_certificate, revoke
from issuance.store import Store
from publisher.crl_plan import Due
from publisher.crl_publish import CRLPublisher, crl_lease
from publisher.lease import held

KEY = x509.ReasonFlags.key_compromise


@pytest.mark.parametrize("followed", [False, True])
def test_an_imported_issuer_comes_back_with_its_dates(tmp_path: Path, followed: bool) -> None:
    """After a restore everything is as it was, and what was imported after the backup keeps its date, too."""
    old = OldCA(tmp_path / "old")
    state = tmp_path / "state"
    state.mkdir()
    keys = CAKeyFolder(state / "ca", environment={})
    keys.make_passphrase()
    (state / "secrets").mkdir()
    (state / "secrets" / "index.key").write_bytes(INDEX_KEY)
    (state / "secrets" / "index.key").chmod(SECRET_MODE)
    url = f"sqlite:///{state / 'store.db'}"
    order = old.order(
        key_path=None if followed else old.key_path,
        certificates=(old.write_certificates(1, 2),),
        crl_paths=(old.write_crl({1: KEY}, 7, NOW_S - 5000),),
    )
    with Store.create(url, NOW_MS) as store:
        issuer = run(store, keys, order).issuer
        backup(store, state, tmp_path / "b.tar", NOW_MS)
        newer = old.crl_der({1: KEY, 2: None, 3: None}, 8, NOW_S - 4000)
        follow_crl(store, issuer, INDEX_KEY, newer, "x.crl", state, NOW_MS)
        before = states(store)
        seq = store.state().seq
    restore(tmp_path / "b.tar", state, url, NOW_MS + 1000)
    with Store.open(url) as store:
        assert states(store) == before
        assert before["02"] == before["03"] == (2, None, REVOKED_S)
        record = issuer_of(store, "OLD")
        assert (record.revokes_here, record.is_ready) == (not followed, True)
        base = store.state().base_seq
        changes = list(store.revocation_changes(record.issuer_id, base, store.state().seq))
        assert {item.recorded_ms for item in changes} == {REVOKED_S * 1000}
        assert all(item.kind is ChangeKind.REVOKED and item.invalidity_s == 0 for item in changes)
        assert base > seq
        with store.reading() as connection:
            (told,) = issuer_table(connection)
        # The dates of the CRL in the backup: the newer one is fetched, or given, once more.
        window = (NOW_S - 5000, NOW_S + 95_000)
        assert told.foreign_crl == (window if followed else None)
        follow_crl(store, record, INDEX_KEY, newer, "x.crl", state, NOW_MS)
        assert states(store) == before


def installation(tmp_path: Path) -> tuple[Path, CAKeyFolder, str]:
    """A state folder with keys; the URL of the store that will be in it."""
    state = tmp_path / "state"
    keys = CAKeyFolder(state / "ca", environment={})
    keys.make_passphrase()
    (state / "secrets").mkdir()
    (state / "secrets" / "index.key").write_bytes(INDEX_KEY)
    (state / "secrets" / "index.key").chmod(SECRET_MODE)
    return state, keys, f"sqlite:///{state / 'store.db'}"


def publish(store: Store, keys: CAKeyFolder, state: Path) -> int:
    """Publish a complete CRL of OLD; return its number."""
    publisher = CRLPublisher(store, keys, state, now_ms=lambda: NOW_MS)
    with held(crl_lease(store, lambda: NOW_MS), 1) as fence:
        (scope,) = publisher.scopes()
        return publisher.issue(scope, Due(True, False), fence)[0].number


def lose(state: Path) -> None:
    """Take the store away."""
    for path in state.glob("store.db*"):
        path.unlink()


@pytest.mark.parametrize("lost", [False, True])
def test_what_was_revoked_here_outlives_a_backup_from_before_the_import(tmp_path: Path, lost: bool) -> None:
    """Imported again from the old files, published CRLs say what was revoked and which number was used."""
    old = OldCA(tmp_path / "old")
    state, keys, url = installation(tmp_path)
    order = old.order(certificates=(old.write_certificates(1, 2),), crl_number=41)
    with Store.create(url, NOW_MS) as store:
        backup(store, state, tmp_path / "b.tar", NOW_MS)
        run(store, keys, order)
        revoke(store, find_certificate(store, b"\1"), NOW_MS, reason=1)
        assert publish(store, keys, state) == 42
        before = states(store)
    if lost:
        lose(state)
    restore(tmp_path / "b.tar", state, url, NOW_MS + 1000)
    with Store.open(url) as store:
        assert states(store) == {}
        run(store, keys, order, NOW_MS + 2000)
        assert states(store) == before
        assert publish(store, keys, state) == 43


def test_a_certificate_that_a_restore_knew_by_its_crl_can_be_imported_again(tmp_path: Path) -> None:
    """Its end is not known then, which is no contradiction to the certificate that has one."""
    old = OldCA(tmp_path / "old")
    state, keys, url = installation(tmp_path)
    with Store.create(url, NOW_MS) as store:
        run(store, keys, old.order(certificates=(old.write_certificates(1),), crl_number=41))
        backup(store, state, tmp_path / "b.tar", NOW_MS)
        again = old.order(certificates=(old.write_certificates(1, 2),))
        run(store, keys, again)
        revoke(store, find_certificate(store, b"\2"), NOW_MS, reason=1)
        publish(store, keys, state)
        before = states(store)
    lose(state)
    restore(tmp_path / "b.tar", state, url, NOW_MS + 1000)
    with Store.open(url) as store:
        assert states(store) == before
        assert run(store, keys, again, NOW_MS + 2000).difference.records == 1
        assert states(store) == before


def test_a_followed_ca_is_silent_after_a_restore_until_a_crl_is_read_again(tmp_path: Path) -> None:
    """With the store lost nobody knows what newer CRLs said; good by the backup's would unsay it."""
    old = OldCA(tmp_path / "old")
    state, keys, url = installation(tmp_path)
    newer = old.crl_der({1: KEY}, 8, NOW_S - 4000)
    order = old.order(
        key_path=None,
        certificates=(old.write_certificates(1, 2),),
        crl_paths=(old.write_crl({}, 7, NOW_S - 5000),),
    )
    with Store.create(url, NOW_MS) as store:
        issuer = run(store, keys, order).issuer
        backup(store, state, tmp_path / "b.tar", NOW_MS)
        follow_crl(store, issuer, INDEX_KEY, newer, "x.crl", state, NOW_MS)
    lose(state)
    restore(tmp_path / "b.tar", state, url, NOW_MS + 1000)
    with Store.open(url) as store:
        with store.reading() as connection:
            assert issuer_table(connection)[0].foreign_crl == (0, 0)
        follow_crl(store, issuer_of(store, "OLD"), INDEX_KEY, newer, "x.crl", state, NOW_MS + 2000)
        with store.reading() as connection:
            assert issuer_table(connection)[0].foreign_crl == (NOW_S - 4000, NOW_S + 96_000)
        assert states(store)["01"][0] == 2
