"""What of a catalogue this host can serve: the CRLs whose files are here.

::

    scope in the catalogue     41 complete   60 complete, current   61 delta on 41, current
    60 is not here yet         41 complete, current in its place    61 delta on 41, current
    nor is 41                  nothing, and 503 for the names of all three

A file that is awaited takes nothing from who relies on the one before it: of each kind the newest that is
here and not over is the current one, and a delta stands only beside its base.
Knows: that, by the names and sizes of files.  Does not know: whether they are what they must be; that is
looked at before they are served (``checked_crls``), or how they come here.
Source: RFC 5280 §5.2.4 (a delta is of use with its base).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from certstatus.crl_catalogue import COMPLETE, KINDS, CatalogueEntry, CatalogueScope

HasFile = Callable[[CatalogueEntry], bool]


class HeldScope(NamedTuple):
    """What can be served of a scope (None: nothing), and what of it is awaited."""

    scope: CatalogueScope | None
    awaited: tuple[CatalogueEntry, ...]


def has_file_in(folder: Path) -> HasFile:
    """Return what says whether a CRL's file is in *folder*, by its size."""

    def has_file(entry: CatalogueEntry) -> bool:
        try:
            return (folder / entry.file).stat().st_size == entry.size
        except OSError:
            return False

    return has_file


def held(scope: CatalogueScope, has_file: HasFile, now_s: int) -> HeldScope:
    """Return what of *scope* can be served; the same object if that is all of it."""
    here = [entry for entry in scope.entries if has_file(entry)]
    if len(here) == len(scope.entries):
        return HeldScope(scope, ())
    bases = {entry.number for entry in here if entry.kind == COMPLETE}
    here = [entry for entry in here if entry.kind == COMPLETE or entry.base_number in bases]
    current = {
        kind: _current([entry for entry in scope.entries if entry.kind == kind], here, now_s)
        for kind in KINDS
    }
    # ``_current`` gives the line itself, or a copy of an older one.
    chosen = {entry.file: entry for entry in current.values() if entry is not None}
    shown = tuple(chosen.get(entry.file) or _past(entry) for entry in here)
    files = {entry.file for entry in shown}
    awaited = [entry for entry in scope.entries if entry.file not in files]
    # The name is served, if by an older one: only its own file is awaited then.
    awaited = [entry if current[entry.kind] is None else _past(entry) for entry in awaited]
    return HeldScope(replace(scope, entries=shown) if shown else None, tuple(awaited))


def _current(
    of_kind: Iterable[CatalogueEntry], here: Iterable[CatalogueEntry], now_s: int
) -> CatalogueEntry | None:
    """Return which of a kind is served under its name."""
    wanted = next((entry for entry in of_kind if entry.current), None)
    if wanted is None or wanted in here:
        return wanted
    others = [entry for entry in here if entry.kind == wanted.kind and entry.next_update_s > now_s]
    newest = max(others, key=lambda entry: entry.number, default=None)
    # Its successor is out, and may be here at any moment.
    return None if newest is None else replace(newest, current=True, next_issue_s=wanted.this_update_s)


def _past(entry: CatalogueEntry) -> CatalogueEntry:
    return replace(entry, current=False) if entry.current else entry


class HeldCRLs:
    """One worker's view of a folder; what is here whole is not looked at again.

    A file that goes later is found missing by who serves it.
    """

    def __init__(self, has_file: HasFile) -> None:
        self._has_file = has_file
        self._whole: dict[str, CatalogueScope] = {}

    def look(self, scopes: Iterable[CatalogueScope], now_s: int) -> list[HeldScope]:
        """Return what can be served of each scope now."""
        found, whole = [], {}
        for scope in scopes:
            item = (
                HeldScope(scope, ())
                if self._whole.get(scope.path) is scope
                else held(scope, self._has_file, now_s)
            )
            if not item.awaited:
                whole[scope.path] = scope
            found.append(item)
        self._whole = whole
        return found
