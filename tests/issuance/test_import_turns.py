"""Two at once on one CA: imports and followed CRLs take turns, and nothing newer is lost."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from cryptography import x509
from import_cases import NOW_MS, NOW_S, OldCA, run, states, valid_line
from store_cases import INDEX_KEY

from certstatus.errors import ImportRefused, LeaseHeld, PolicyViolation
from issuance import import_run
from issuance.ca_keys import CAKeyFolder
from issuance.import_records import Recorder
from issuance.import_run import follow_crl, import_ca
from issuance.issuers import issuer_of, issuers, set_policy
from issuance.store import Store

HOLD = x509.ReasonFlags.certificate_hold
KEY = x509.ReasonFlags.key_compromise
HELD = 3


@pytest.fixture
def old(tmp_path: Path) -> OldCA:
    """A CA that somebody else had."""
    return OldCA(tmp_path / "old")


def test_an_older_crl_under_way_releases_nothing_that_a_newer_one_holds(
    sqlite_store: Store, keys: CAKeyFolder, old: OldCA, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the older is recorded the newer must come again; then it holds, and the older is refused."""
    first = old.write_crl({}, 7, NOW_S - 5000)
    order = old.order(key_path=None, certificates=(old.write_certificates(1, 2),), crl_paths=(first,))
    issuer = run(sqlite_store, keys, order).issuer
    older = old.crl_der({2: KEY}, 8, NOW_S - 4000)
    newer = old.crl_der({1: HOLD, 2: KEY}, 9, NOW_S - 3000)
    releasable = Recorder._releasable

    def meanwhile(self: Recorder) -> list[bytes]:
        with pytest.raises(LeaseHeld, match="being recorded"):
            follow_crl(sqlite_store, issuer, INDEX_KEY, newer, "newer", keys.folder, NOW_MS)
        return releasable(self)

    with monkeypatch.context() as patched:
        patched.setattr(Recorder, "_releasable", meanwhile)
        follow_crl(sqlite_store, issuer, INDEX_KEY, older, "older", keys.folder, NOW_MS)
    # What the caller knows of the issuer is from before both.
    follow_crl(sqlite_store, issuer, INDEX_KEY, newer, "newer", keys.folder, NOW_MS)
    with pytest.raises(ImportRefused, match="thisUpdate: older than"):
        follow_crl(sqlite_store, issuer, INDEX_KEY, older, "older", keys.folder, NOW_MS)
    assert states(sqlite_store)["01"][0] == HELD


def test_a_crl_followed_during_an_import_is_not_put_behind_it(
    sqlite_store: Store, keys: CAKeyFolder, old: OldCA
) -> None:
    """The poll waits for the import, whose CRL is older; afterwards the newer one is the one that counts."""
    work = keys.folder.parent
    first = old.write_crl({}, 7, NOW_S - 5000)
    order = old.order(key_path=None, certificates=(old.write_certificates(1, 2),), crl_paths=(first,))
    issuer = run(sqlite_store, keys, order).issuer
    newer = old.crl_der({1: KEY, 2: KEY}, 9, NOW_S - 3000)
    refused: list[str] = []

    def told(what: str, _done: int) -> None:
        if what == "recording":
            with pytest.raises(LeaseHeld):
                follow_crl(sqlite_store, issuer, INDEX_KEY, newer, "newer", work, NOW_MS)
            refused.append(what)

    again = dataclasses.replace(order, crl_paths=(), crl_der=old.crl_der({2: KEY}, 8, NOW_S - 4000))
    import_ca(sqlite_store, keys, INDEX_KEY, again, work, NOW_MS, told)
    assert refused
    follow_crl(sqlite_store, issuer, INDEX_KEY, newer, "newer", work, NOW_MS)
    imported = issuer_of(sqlite_store, "OLD").imported
    assert imported is not None
    assert imported.crl_number == 9


def test_two_imports_of_one_ca_do_not_run_at_once(
    sqlite_store: Store, keys: CAKeyFolder, old: OldCA, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second says that another is under way, records nothing, and later finds nothing to do."""
    monkeypatch.setattr(import_run, "_TURN_WAIT_S", 0.1)
    order = old.order(index_txt=old.write_index(*(valid_line(n) for n in range(1, 20))), crl_number=1)

    def told(what: str, _done: int) -> None:
        if what == "recording":
            with pytest.raises(LeaseHeld, match="another import"):
                run(sqlite_store, keys, order)

    import_ca(sqlite_store, keys, INDEX_KEY, order, keys.folder.parent, NOW_MS, told)
    assert run(sqlite_store, keys, order).recorded is None
    assert len(states(sqlite_store)) == 19


def test_two_cas_do_not_get_one_service_at_once(sqlite_store: Store, keys: CAKeyFolder, old: OldCA) -> None:
    """The name that was free while files were read is looked at again when it is taken."""
    other = OldCA(old.folder / "other", common="Other CA")
    first = old.order(index_txt=old.write_index(valid_line(1)), crl_number=1)
    second = other.order(index_txt=other.write_index(valid_line(2)), crl_number=1)

    def told(what: str, _done: int) -> None:
        if what == "reading index.txt":
            run(sqlite_store, keys, first)

    with pytest.raises(PolicyViolation, match="one name belongs to one service"):
        import_ca(sqlite_store, keys, INDEX_KEY, second, keys.folder.parent, NOW_MS, told)
    assert [item.spki_der for item in issuers(sqlite_store)] == [
        run(sqlite_store, keys, first).issuer.spki_der
    ]
    # No key without an issuer is left behind.
    assert len(list(keys.folder.glob("*.key"))) == 1


def test_a_policy_that_is_changed_during_an_import_stays_changed(
    sqlite_store: Store, keys: CAKeyFolder, old: OldCA
) -> None:
    """Only what the import was told to change is another afterwards."""
    order = old.order(index_txt=old.write_index(valid_line(1)), crl_number=1)
    issuer = run(sqlite_store, keys, order).issuer

    def told(what: str, _done: int) -> None:
        if what == "recording":
            narrower = dataclasses.replace(issuer.policy, access="registered")
            set_policy(sqlite_store, issuer.issuer_id, narrower, NOW_MS)

    old.write_index(valid_line(1), valid_line(2))
    more = dataclasses.replace(order, changes={"hold": True})
    import_ca(sqlite_store, keys, INDEX_KEY, more, keys.folder.parent, NOW_MS, told)
    policy = issuer_of(sqlite_store, "OLD").policy
    assert (policy.access, policy.hold) == ("registered", True)
