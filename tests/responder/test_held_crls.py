"""What of a catalogue can be served with the files that are here; in which order the others are fetched."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from catalogue_cases import catalogue_line
from hypothesis import given
from hypothesis import strategies as st

from certstatus.crl_catalogue import COMPLETE, DELTA, Catalogue, CatalogueEntry, CatalogueScope
from responder.fetch_order import in_order
from responder.held_crls import HeldCRLs, HeldScope, has_file_in, held

NOW_S = 1_800_000_000


def line(
    number: int, base: int | None = None, *, current: bool = False, until_s: int = 5000
) -> CatalogueEntry:
    """A CRL of scope ``all``."""
    return catalogue_line(
        "sign/g1/all",
        number,
        NOW_S - 100 + number,
        base=base,
        current=current,
        seq=number,
        next_update_s=NOW_S + until_s,
        next_issue_s=NOW_S + 300,
        size=100 + number,
    )


C41, C60, D61 = line(41), line(60, current=True), line(61, 41, current=True)
SCOPE = CatalogueScope(1, "all", "", 1, (C41, C60, D61))


def look(*missing: CatalogueEntry, scope: CatalogueScope = SCOPE, now_s: int = NOW_S) -> HeldScope:
    """What is held of a scope without these files."""
    return held(scope, lambda entry: entry not in missing, now_s)


def catalogue(found: HeldScope) -> Catalogue:
    """Of that scope alone."""
    return Catalogue(found.scope.entries if found.scope else (), found.awaited)


def test_with_all_files_here_it_is_what_is_published() -> None:
    """The very same object, so that nothing is made anew from it."""
    assert look() == (SCOPE, ())
    assert look().scope is SCOPE


def test_while_a_complete_crl_is_awaited_the_one_before_goes_on() -> None:
    """Under the name that all ask for, and for nobody's cache to keep; by number the new one is awaited."""
    found = catalogue(look(C60))
    served = found.find(C60.name)
    assert served is not None
    assert (served.number, served.current) == (41, True)
    assert served.next_issue_s == C60.this_update_s
    assert found.find(C41.file) == served
    assert found.find(D61.name) == D61
    assert found.find(C60.file) is None
    assert found.awaited(C60.file) == replace(C60, current=False)
    assert found.awaited(C60.name) is None
    # What ended does not go on.
    over = catalogue(look(C60, now_s=C41.next_update_s))
    assert over.find(C60.name) is None
    assert over.awaited(C60.name) == C60
    assert over.find(C41.file) == C41


def test_a_delta_is_not_served_without_its_base() -> None:
    """Whatever else is here; it is awaited as long as its base is."""
    found = catalogue(look(C41))
    assert found.find(D61.name) is found.find(D61.file) is None
    assert found.awaited(D61.name) == D61
    assert found.find(C60.name) == C60
    earlier = line(59, 40)
    scope = replace(SCOPE, entries=(line(40), earlier, *SCOPE.entries))
    served = catalogue(look(C41, scope=scope)).find(D61.name)
    assert served is not None
    assert served.number == 59


def test_with_no_file_here_all_names_are_awaited() -> None:
    """Which is not the same as that there are none."""
    found = look(C41, C60, D61)
    assert found.scope is None
    everything = catalogue(found)
    assert everything.entries == ()
    for name in (C60.name, C60.file, C41.file, D61.name, D61.file):
        assert everything.find(name) is None
        assert everything.awaited(name) is not None


@st.composite
def scopes(draw: st.DrawFn) -> CatalogueScope:
    """A scope as the publisher lists them: each delta with its base."""
    completes = sorted(draw(st.sets(st.integers(1, 30), min_size=1, max_size=5)))
    entries = [
        line(number, current=number == completes[-1], until_s=draw(st.integers(-10, 10)))
        for number in completes
    ]
    deltas = sorted(draw(st.sets(st.integers(31, 60), max_size=4)))
    entries += [
        line(number, draw(st.sampled_from(completes)), current=number == deltas[-1]) for number in deltas
    ]
    return CatalogueScope(1, "all", "", 1, tuple(entries))


@given(scopes(), st.data())
def test_whatever_is_missing_only_whole_things_are_served(scope: CatalogueScope, data: st.DataObject) -> None:
    """Never a line without its file, nor a delta without its base; every other path is awaited."""
    here = data.draw(st.sets(st.sampled_from(scope.entries)))
    item = held(scope, lambda entry: entry in here, NOW_S)
    found = catalogue(item)
    here_files = {entry.file for entry in here}
    assert {entry.file for entry in found.entries} <= here_files
    bases = {entry.number for entry in found.entries if entry.kind == COMPLETE}
    assert all(entry.base_number in bases for entry in found.entries if entry.kind == DELTA)
    # What is here and whole is served, too.
    assert {entry.file for entry in here if entry.kind == COMPLETE} <= {e.file for e in found.entries}
    for entry in scope.entries:
        assert (found.find(entry.file) is None) != (found.awaited(entry.file) is None)
    for wanted in (entry for entry in scope.entries if entry.current):
        served = found.find(wanted.name)
        assert (served is None) != (found.awaited(wanted.name) is None)
        if served is None:
            continue
        assert served.current
        usable = [
            e.number
            for e in found.entries
            if e.kind == wanted.kind and (e.next_update_s > NOW_S or e.file == wanted.file)
        ]
        assert served.number == max(usable)


@given(scopes(), st.data())
def test_a_complete_crl_is_fetched_before_any_delta_that_names_it(
    scope: CatalogueScope, data: st.DataObject
) -> None:
    """All that is missing is fetched once; what is current before what is not."""
    here = data.draw(st.sets(st.sampled_from(scope.entries)))
    order = in_order([scope], lambda entry: entry in here)
    assert sorted(map(repr, order)) == sorted(map(repr, set(scope.entries) - here))
    at = {(entry.kind, entry.number): place for place, entry in enumerate(order)}
    for entry in order:
        if entry.kind == DELTA:
            assert at.get((COMPLETE, entry.base_number or 0), -1) < at[DELTA, entry.number]
    places = [place for place, entry in enumerate(order) if entry.current]
    needed = {entry.base_number for entry in order if entry.current}
    others = [place for place, entry in enumerate(order) if not entry.current and entry.number not in needed]
    assert max(places, default=-1) < min(others, default=len(order))


def test_small_deltas_over_what_is_here_go_before_large_lists() -> None:
    """Of all scopes: they are what clients wait for."""
    other = replace(
        SCOPE,
        scope="m1/1",
        entries=tuple(replace(e, scope="m1/1", file=f"x/{e.file}") for e in SCOPE.entries),
    )
    missing = [*SCOPE.entries, other.entries[2]]
    order = in_order([SCOPE, other], lambda entry: entry not in missing)
    assert order == [other.entries[2], C60, C41, D61]


def test_a_file_counts_by_its_size_and_is_not_looked_for_again(tmp_path: Path) -> None:
    """Once all of a scope is here; a file that is too short is not here."""
    folder = tmp_path / "sign/g1/all"
    folder.mkdir(parents=True)
    crls = HeldCRLs(has_file_in(tmp_path))
    for entry in SCOPE.entries:
        (tmp_path / entry.file).write_bytes(bytes(entry.size))
    (tmp_path / C60.file).write_bytes(b"short")
    (found,) = crls.look([SCOPE], NOW_S)
    assert found.awaited == (replace(C60, current=False),)
    (tmp_path / C60.file).write_bytes(bytes(C60.size))
    assert crls.look([SCOPE], NOW_S) == [(SCOPE, ())]
    (tmp_path / C60.file).unlink()
    assert crls.look([SCOPE], NOW_S) == [(SCOPE, ())]
    again = replace(SCOPE, changed=2)
    assert crls.look([again], NOW_S)[0].scope is not again
