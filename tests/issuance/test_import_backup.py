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
from issuance.store import Store

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
        crl_path=old.write_crl({1: KEY}, 7, NOW_S - 5000),
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
