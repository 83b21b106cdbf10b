"""The catalogue of CRLs: its pages, what is found in it, and what that costs."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certstatus.crl_catalogue import (
    COMPLETE,
    DELTA,
    SCOPES_PER_PAGE_MAX,
    Catalogue,
    CatalogueEntry,
    CatalogueRoot,
    CatalogueScope,
    cut_pages,
    encode_page,
    read_page,
    read_root,
    root_content,
    scopes_of_entries,
)
from certstatus.crl_pack import ArchiveMark, PackLine
from certstatus.documents import encode_document
from certstatus.errors import FeedError

ENTRY = CatalogueEntry(
    issuer_id=1,
    scope="all",
    kind=COMPLETE,
    file="sign/g1/all/7.crl",
    name="sign/g1/all/complete.crl",
    current=True,
    number=7,
    base_number=None,
    seq=100,
    this_update_s=1_800_000_000,
    next_update_s=1_800_090_000,
    next_issue_s=1_800_080_000,
    size=1,
    sha256="00" * 32,
)
OLDER = replace(ENTRY, file="sign/g1/all/6.crl", number=6, current=False, this_update_s=1_799_000_000)
DELTA_NOW = replace(ENTRY, kind=DELTA, file="sign/g1/all/8.crl", name="sign/g1/all/delta.crl", number=8)
OTHERS = replace(ENTRY, issuer_id=2, file="auth/g1/all/1.crl", name="auth/g1/all/complete.crl")


def test_a_file_has_two_paths_while_it_is_current() -> None:
    """Its own for as long as it is there, and the one that always leads to the newest."""
    catalogue = Catalogue([OLDER, DELTA_NOW, ENTRY, OTHERS])
    assert catalogue.find(ENTRY.file) is catalogue.find(ENTRY.name) is ENTRY
    assert catalogue.find(OLDER.file) is OLDER
    assert catalogue.find("sign/g1/all/5.crl") is None
    assert catalogue.find("") is None


def test_the_complete_crl_is_the_first_current_one_of_its_issuer() -> None:
    """Neither a delta nor one of the past, whatever stands before it."""
    second = replace(ENTRY, scope="other", file="x", name="y")
    catalogue = Catalogue([OLDER, DELTA_NOW, ENTRY, second, OTHERS])
    assert catalogue.complete(1) is ENTRY
    assert catalogue.complete(2) is OTHERS
    assert catalogue.complete(3) is None
    assert Catalogue([OLDER, DELTA_NOW]).complete(1) is None


def test_a_date_is_a_crls_own_if_no_other_of_its_name_has_it() -> None:
    """A clock set back makes several with one thisUpdate."""
    same = replace(OLDER, this_update_s=ENTRY.this_update_s)
    assert Catalogue([OLDER, DELTA_NOW, ENTRY]).has_date_of_its_own(ENTRY)
    assert not Catalogue([same, DELTA_NOW, ENTRY]).has_date_of_its_own(ENTRY)
    assert Catalogue([same, DELTA_NOW, ENTRY]).has_date_of_its_own(DELTA_NOW)


def test_looking_up_costs_the_same_however_many_there_are() -> None:
    """In a loop that serves: a catalogue of thousands is gone through by its reader, and only there."""
    catalogue = Catalogue(
        [replace(ENTRY, issuer_id=n, file=f"a/{n}.crl", name=f"b/{n}.crl") for n in range(10_000)]
    )
    begun_s = time.thread_time()
    for n in range(1000):
        entry = catalogue.find(f"b/{n}.crl")
        assert entry is not None
        assert catalogue.complete(n) is entry
        assert catalogue.has_date_of_its_own(entry)
    assert time.thread_time() - begun_s < 0.02


# --- pages -------------------------------------------------------------------------------------------


def pages_of(scopes: list[CatalogueScope]) -> dict[str, bytes]:
    """The pages of a catalogue, by SHA-256."""
    return {hashlib.sha256(page).hexdigest(): page for page in map(encode_page, cut_pages(scopes))}


def scopes(count: int, issuer_id: int = 1) -> list[CatalogueScope]:
    """So many scopes of an issuer, with a complete CRL and a delta each."""
    entries = []
    for code in range(count):
        path = f"sign/g{issuer_id}/m1/{code:05}"
        entry = replace(ENTRY, issuer_id=issuer_id, scope=f"m1/{code:05}", file=f"{path}/7.crl")
        entries += [entry, replace(entry, kind=DELTA, file=f"{path}/8.delta.crl", number=8, base_number=7)]
    return scopes_of_entries(entries, {"sign/g1/m1/00001": "市"}, 3)


@st.composite
def catalogues(draw: st.DrawFn) -> list[CatalogueEntry]:
    """Lines of some scopes, in any order."""
    names = draw(
        st.lists(
            st.tuples(st.integers(1, 3), st.from_regex(r"[a-z0-9]{1,3}(/[a-z0-9]{1,3})?", fullmatch=True)),
            unique=True,
            max_size=80,
        )
    )
    entries = []
    for issuer_id, scope in names:
        for number in draw(st.lists(st.integers(1, 9), min_size=1, max_size=3, unique=True)):
            path = f"s/g{issuer_id}/{scope}"
            entries.append(
                replace(
                    ENTRY,
                    issuer_id=issuer_id,
                    scope=scope,
                    number=number,
                    file=f"{path}/{number}.crl",
                    name=f"{path}/complete.crl",
                    current=draw(st.booleans()),
                    size=draw(st.integers(0, 1 << 40)),
                )
            )
    return draw(st.permutations(entries))


@given(catalogues(), st.integers(1, 1 << 50))
def test_pages_say_what_one_document_of_all_lines_said(
    entries: list[CatalogueEntry], generation: int
) -> None:
    """Through root, pages and octets: the same lines, titles and generations, found by the same paths."""
    titles = {f"s/g1/{scope}": f"«{scope}»" for scope in ("a", "b", "c/d")}
    grouped = scopes_of_entries(entries, titles, generation)
    pages = pages_of(grouped)
    content = encode_document(root_content(CatalogueRoot(generation, tuple(pages), None)))
    root = read_root(json.loads(content))
    read = [scope for page in root.pages for scope in read_page(pages[page], page)]
    assert read == grouped
    assert {scope.path: scope.title for scope in read if scope.title}.items() <= titles.items()
    twin = Catalogue(entries)
    found = Catalogue([entry for scope in read for entry in scope.entries])
    assert sorted(map(repr, found.entries)) == sorted(map(repr, twin.entries))
    for entry in entries:
        assert found.find(entry.file) == twin.find(entry.file) == entry


@given(st.integers(1, 300), st.data())
def test_one_changed_scope_is_one_changed_page(count: int, data: st.DataObject) -> None:
    """And a scope that comes or goes leaves all pages as they are but those between two fixed ends."""
    before = scopes(count)
    at = data.draw(st.integers(0, count - 1))
    changed = [replace(scope, changed=9) if number == at else scope for number, scope in enumerate(before)]
    old, new = pages_of(before), pages_of(changed)
    assert len(old) == len(new)
    assert len(new.keys() - old.keys()) == 1
    assert all(len(page) <= SCOPES_PER_PAGE_MAX for page in cut_pages(before))
    without = pages_of(before[:at] + before[at + 1 :])
    assert len(without.keys() - old.keys()) <= 5


def test_a_page_holds_scopes_of_one_issuer() -> None:
    """Whoever is dropped takes no other's page with it."""
    both = [*scopes(40, 1), *scopes(40, 2)]
    assert all(len({scope.issuer_id for scope in page}) == 1 for page in cut_pages(both))
    assert pages_of(both).keys() == pages_of(scopes(40, 1)).keys() | pages_of(scopes(40, 2)).keys()


def test_a_page_is_believed_by_its_hash_alone() -> None:
    """Altered, of another format, or of another form: an error that a reader expects."""
    ((sha256, page),) = pages_of(scopes(1)).items()
    assert len(read_page(page, sha256)) == 1
    with pytest.raises(FeedError, match="differs from its hash"):
        read_page(page.replace(b'"number":7', b'"number":9'), sha256)
    for wrong in (
        page.replace(b'"format":3', b'"format":2'),
        page.replace(b'"size":1', b'"length":1'),
        page.replace(b'"changed":3', b'"changed":"3"'),
        page.replace(b"00000/8.delta", b"00001/8.delta"),
        page.replace(b'"title":"', b'"title":"\\ud800'),
        b"[]",
        b"{",
    ):
        assert wrong != page
        with pytest.raises(FeedError):
            read_page(wrong, hashlib.sha256(wrong).hexdigest())


def test_a_root_of_another_form_is_refused() -> None:
    """An earlier version's one document of all lines among them."""
    archive = ArchiveMark("ab" * 32, (PackLine("2026-11-29", 2, "cd" * 32),))
    root = CatalogueRoot(5, ("ef" * 32,), archive)
    assert read_root(root_content(root)) == root
    for wrong in (
        {"format": 2, "crls": []},
        {"pages": "ef"},
        {"pages": ["ef"]},
        {"pages": [7]},
        {"archive": 1},
    ):
        with pytest.raises(FeedError):
            read_root(root_content(root) | wrong)
