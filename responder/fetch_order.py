"""In which order a host fetches the CRL files that it lacks.

::

    1  current deltas whose base is here                          small, and the newest that clients can have
    2  scope by scope: the current complete CRL, the base of the current delta, that delta
    3  older complete CRLs, which somebody may still go by, then their deltas

Knows: that a complete CRL comes before any delta which names it.  Does not know: files, or how they come.
Source: RFC 5280 §5.2.4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from certstatus.crl_catalogue import COMPLETE, DELTA, CatalogueEntry, CatalogueScope


def in_order(
    scopes: Iterable[CatalogueScope], is_here: Callable[[CatalogueEntry], bool]
) -> list[CatalogueEntry]:
    """Return the CRLs of *scopes* whose files are not here, what is fetched first at the front."""
    first: list[CatalogueEntry] = []
    next_: list[CatalogueEntry] = []
    last: list[CatalogueEntry] = []
    for scope in scopes:
        lacking = [entry for entry in scope.entries if not is_here(entry)]
        if not lacking:
            continue
        by_number = {entry.number: entry for entry in scope.entries if entry.kind == COMPLETE}
        current = {entry.kind: entry for entry in scope.entries if entry.current}
        delta = current.get(DELTA)
        base = None if delta is None or delta.base_number is None else by_number.get(delta.base_number)
        wanted = (current.get(COMPLETE), base, delta)
        urgent = list(dict.fromkeys(entry for entry in wanted if entry is not None and entry in lacking))
        (first if urgent == [delta] else next_).extend(urgent)
        others = [entry for entry in lacking if entry not in urgent]
        last += sorted(others, key=lambda entry: (entry.kind != COMPLETE, entry.number))
    return [*first, *next_, *last]
