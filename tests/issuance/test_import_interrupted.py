"""Half an import: what ends it, what does not, and what is said of it meanwhile."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from cryptography import x509
from import_cases import NOW_MS, NOW_S, OldCA, revoked_line, run, states, valid_line
from store_cases import INDEX_KEY

from certstatus.errors import PolicyViolation, StoreAway
from issuance.ca_keys import CAKeyFolder
from issuance.import_run import ImportOrder, _sheet, import_ca
from issuance.issuers import issuer_of
from issuance.revoke import find_certificate
from issuance.show import show
from issuance.store import Store

KEY = x509.ReasonFlags.key_compromise


@pytest.fixture
def old(tmp_path: Path) -> OldCA:
    """A CA that somebody else had."""
    return OldCA(tmp_path / "old")


def interrupt(store: Store, keys: CAKeyFolder, order: ImportOrder) -> None:
    """Import until some of it is recorded."""
    pages = 0

    def told(what: str, _done: int) -> None:
        nonlocal pages
        pages += what == "recording"
        if pages == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_ca(store, keys, INDEX_KEY, order, keys.folder.parent, NOW_MS, told)
    assert len(states(store)) > 0
    assert not issuer_of(store, "OLD").is_ready


def half(store: Store, keys: CAKeyFolder, old: OldCA) -> ImportOrder:
    """Half an import of 1,200 lines; the order that would end it."""
    lines = (valid_line(n) for n in range(1, 1201))
    order = old.order(index_txt=old.write_index(*lines), crl_number=1)
    interrupt(store, keys, order)
    return order


def test_half_an_import_does_not_end_without_its_list(
    sqlite_store: Store, keys: CAKeyFolder, old: OldCA
) -> None:
    """`issued_list = complete` is not believed of what happens to be recorded already."""
    order = half(sqlite_store, keys, old)
    for wrong in (
        dataclasses.replace(order, index_txt=None),
        dataclasses.replace(order, index_txt=None, changes={"issued_list": "absent", "unlisted": "good"}),
    ):
        with pytest.raises(PolicyViolation):
            run(sqlite_store, keys, wrong)
        assert not issuer_of(sqlite_store, "OLD").is_ready
    run(sqlite_store, keys, order)
    assert issuer_of(sqlite_store, "OLD").is_ready


def test_half_an_import_does_not_end_with_other_files(
    sqlite_store: Store, keys: CAKeyFolder, old: OldCA
) -> None:
    """What only the first files called valid would be good for ever; listed as revoked it is revoked."""
    order = half(sqlite_store, keys, old)
    stray = min(states(sqlite_store))
    others = [n for n in range(1, 1500) if n != int(stray, 16)]
    old.write_index(*map(valid_line, others))
    with pytest.raises(PolicyViolation, match=f"certificate {stray} was recorded as valid"):
        run(sqlite_store, keys, order)
    assert not issuer_of(sqlite_store, "OLD").is_ready
    old.write_index(*map(valid_line, others), revoked_line(int(stray, 16)))
    run(sqlite_store, keys, order)
    assert states(sqlite_store)[stray][0] == 2


def test_a_list_is_not_complete_by_saying_so(sqlite_store: Store, keys: CAKeyFolder, old: OldCA) -> None:
    """An issuer imported without a list becomes one with a complete list by giving it only."""
    absent = old.order(crl_paths=(old.write_crl({1: KEY}),), changes={"issued_list": "absent"})
    run(sqlite_store, keys, absent)
    complete = {"issued_list": "complete"}
    with pytest.raises(PolicyViolation, match="needs the list"):
        run(sqlite_store, keys, old.order(changes=complete))
    run(sqlite_store, keys, old.order(changes=complete, index_txt=old.write_index(valid_line(2))))
    assert issuer_of(sqlite_store, "OLD").policy.issued_list == "complete"
    run(sqlite_store, keys, old.order(changes=complete))


def test_what_is_shown_is_what_is_answered(sqlite_store: Store, keys: CAKeyFolder, old: OldCA) -> None:
    """Nothing while an import has not ended, nothing beyond the end of the CRL that is followed."""
    order = half(sqlite_store, keys, old)
    found = find_certificate(sqlite_store, bytes.fromhex(min(states(sqlite_store))))
    assert show(sqlite_store, found, NOW_S).answer == "unauthorized"
    run(sqlite_store, keys, order)
    assert show(sqlite_store, found, NOW_S).answer == "good"
    other = OldCA(old.folder / "other", common="Other CA")
    followed = dataclasses.replace(
        other.order(
            key_path=None, certificates=(other.write_certificates(7),), crl_paths=(other.write_crl({}),)
        ),
        service="OTHER",
    )
    run(sqlite_store, keys, followed)
    found = find_certificate(sqlite_store, b"\7", "OTHER")
    answers = [show(sqlite_store, found, NOW_S + after_s).answer for after_s in (98_999, 99_000)]
    assert answers == ["good", "tryLater"]


def test_no_room_for_the_sheet_is_an_error_of_this_system(tmp_path: Path) -> None:
    """A full disk below SQLite comes out as a store that is away, and nothing is left there."""

    def fill() -> None:
        with _sheet(tmp_path) as sheet:
            sheet._database.execute("COMMIT")
            sheet._database.execute("PRAGMA max_page_count = 1")
            sheet._database.execute("CREATE TABLE more (x)")

    with pytest.raises(StoreAway, match=r"no room to import in: .*full"):
        fill()
    assert list(tmp_path.iterdir()) == []
