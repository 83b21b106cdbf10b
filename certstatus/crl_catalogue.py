"""The CRL catalogue: which CRL files are current, and what each must be.

::

    beat ─▶ root: {format, generation, pages: [SHA-256, ...], archive}
              └▶ page: {format, issuer_id, scopes: [{scope, title, changed, crls: [...]}, ...]}

A page is named by its hash, so it never changes: of a catalogue in which one scope of thousands has
moved, a host fetches the root and one page.  Pages are cut where a scope's path says so, by its CRC, and
not by counting: a new scope alters the page that it comes into and no other.
A host serves a file only if its size and SHA-256 are those that a verified beat vouches for, and only
once the cut ``seq`` it was made at is applied.
Knows: the shapes of root and pages, of which ``archive`` names what older complete CRLs there are
(``crl_pack``), and where in a catalogue a path or an issuer is found.
Does not know: how CRLs are made or transferred, or where pages are kept.
Source: document kind ``crls``; RFC 5280 §5.2.3-5.2.4 (numbers and bases).
"""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from certstatus.crl_pack import ArchiveMark, read_archive_mark
from certstatus.errors import ArchiveDamaged, FeedError

FORMAT = 3
COMPLETE = "complete"
DELTA = "delta"
KINDS = (COMPLETE, DELTA)
# The scope that has every certificate of its issuer's key.
UNPARTITIONED = "all"
SCOPES_PER_PAGE_MAX = 64
# A page ends behind a scope in so many, as chance has it.
_ENDS_A_PAGE = 32
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """One CRL file.

    ``file``: path below the CRL folder, e.g. ``sign/g1/all/12.crl``.  ``name``: the URL path
    below ``/crl/`` under which the newest of its kind is served (``sign/g1/all/complete.crl``);
    every file is also served under its own ``file`` path.  ``current``: is it that newest one.
    ``next_issue_s``: when the schedule has its successor made at the earliest; nextUpdate for one that has
    a successor.
    """

    issuer_id: int
    scope: str
    kind: str
    file: str
    name: str
    current: bool
    number: int
    base_number: int | None
    seq: int
    this_update_s: int
    next_update_s: int
    next_issue_s: int
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class CatalogueScope:
    """The CRLs of one scope, at least one.

    ``title``: what people call it, "" if no more than ``scope``.  ``changed``: the generation of the first
    catalogue that had these lines.
    """

    issuer_id: int
    scope: str
    title: str
    changed: int
    entries: tuple[CatalogueEntry, ...]

    @property
    def path(self) -> str:
        """Where its files lie and what its URLs begin with: ``sign/g1/all``."""
        return path_of(self.entries[0])


class EndedScope(NamedTuple):
    """A scope that has no CRLs any more, nor ever will: all in it has ended, the last at ``ended_s``."""

    issuer_id: int
    path: str
    ended_s: int


class CatalogueRoot(NamedTuple):
    """What a beat vouches for.  ``pages``: their SHA-256 in hex, in the order of their scopes.

    ``ended``: by path, those that ended not long ago.
    """

    generation: int
    pages: tuple[str, ...]
    archive: ArchiveMark | None
    ended: tuple[EndedScope, ...] = ()


class Catalogue:
    """All CRLs that a host serves, to be looked up in; immutable, compared by identity.

    Made by whoever reads the pages: 10,000 entries take some milliseconds, a look-up none.
    ``is_known``: False while no catalogue has come yet, so that of no name it can be said that it is none.
    """

    __slots__ = ("_awaited", "_by_path", "_complete", "_dated", "entries", "is_known")

    def __init__(
        self,
        entries: Iterable[CatalogueEntry] = (),
        awaited: Iterable[CatalogueEntry] = (),
        *,
        is_known: bool = True,
    ) -> None:
        """*awaited*: CRLs that are published, and whose files have not come to this host yet."""
        self.entries = tuple(entries)
        self.is_known = is_known
        self._by_path = _paths(self.entries)
        self._awaited = _paths(awaited)
        self._complete = {
            entry.issuer_id: entry
            for entry in self.entries
            if entry.current and entry.kind == COMPLETE and entry.scope == UNPARTITIONED
        }
        # How many CRLs, current or not, a name has had with the same thisUpdate.
        self._dated = Counter((entry.name, entry.this_update_s) for entry in self.entries)

    def find(self, path: str) -> CatalogueEntry | None:
        """Return the CRL that is served under *path*, None if there is none."""
        return self._by_path.get(path)

    def awaited(self, path: str) -> CatalogueEntry | None:
        """Return the CRL that will be served under *path* once its file is here, None if there is none."""
        return self._awaited.get(path)

    @property
    def awaited_count(self) -> int:
        """How many names lead to CRLs whose files have not come yet."""
        return len(self._awaited)

    def complete(self, issuer_id: int) -> CatalogueEntry | None:
        """Return the current complete CRL of all that an issuer's key signed, None if there is none."""
        return self._complete.get(issuer_id)

    def has_date_of_its_own(self, entry: CatalogueEntry) -> bool:
        """Say whether no other CRL of its name has its thisUpdate."""
        return self._dated[entry.name, entry.this_update_s] == 1


def _paths(entries: Iterable[CatalogueEntry]) -> dict[str, CatalogueEntry]:
    found = {}
    for entry in entries:
        found[entry.file] = entry
        if entry.current:
            found[entry.name] = entry
    return found


def path_of(entry: CatalogueEntry) -> str:
    """Return the path of the scope that a CRL is of: ``sign/g1/all``."""
    return entry.file.rpartition("/")[0]


def scopes_of_entries(
    entries: Iterable[CatalogueEntry], titles: Mapping[str, str], changed: int
) -> list[CatalogueScope]:
    """Return the scopes of *entries*, in the order of pages: by issuer, then path.

    Takes:  *titles*: by path, of those that have one; *changed*: the generation for all of them.
    """
    lines: dict[tuple[int, str], list[CatalogueEntry]] = {}
    for entry in entries:
        lines.setdefault((entry.issuer_id, path_of(entry)), []).append(entry)
    return [
        CatalogueScope(issuer_id, found[0].scope, titles.get(path, ""), changed, tuple(found))
        for (issuer_id, path), found in sorted(lines.items())
    ]


# --- pages -----------------------------------------------------------------------------------------------


# What a line says; the other two stand above it.
_LINE = [field.name for field in fields(CatalogueEntry) if field.name not in ("issuer_id", "scope")]


def cut_pages(scopes: Iterable[CatalogueScope]) -> Iterator[tuple[CatalogueScope, ...]]:
    """Yield the pages of *scopes*, which come in the order of ``scopes_of_entries``.

    Which scopes stand on a page follows from their paths alone.
    """
    page: list[CatalogueScope] = []
    for scope in scopes:
        if page and (page[0].issuer_id != scope.issuer_id or len(page) == SCOPES_PER_PAGE_MAX):
            yield tuple(page)
            page = []
        page.append(scope)
        if zlib.crc32(scope.path.encode()) % _ENDS_A_PAGE == 0:
            yield tuple(page)
            page = []
    if page:
        yield tuple(page)


def encode_page(scopes: tuple[CatalogueScope, ...]) -> bytes:
    """Return the octets of a page, canonical JSON as of a document."""
    content = {
        "format": FORMAT,
        "issuer_id": scopes[0].issuer_id,
        "scopes": [
            {
                "scope": scope.scope,
                "title": scope.title,
                "changed": scope.changed,
                "crls": [_line(entry) for entry in scope.entries],
            }
            for scope in scopes
        ],
    }
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _line(entry: CatalogueEntry) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in _LINE}


def may_have(body: bytes, path: str) -> bool:
    """Say whether a page may have a scope's lines, without reading it; where it has them, it says so."""
    return json.dumps(f"{path}/", ensure_ascii=False)[:-1].encode() in body


def read_page(body: bytes, sha256: str) -> tuple[CatalogueScope, ...]:
    """Return the scopes of the page that is called *sha256* (hex).

    Raises: FeedError — it is another page, or of another format or form.
    """
    if hashlib.sha256(body).hexdigest() != sha256:
        raise FeedError(f"page {sha256:.16} of the CRL catalogue differs from its hash")
    try:
        content = json.loads(body)
        if b"\\u" in body:
            # Half of a surrogate pair is no character, and could not be written again.
            json.dumps(content, ensure_ascii=False).encode()
        if content["format"] != FORMAT:
            raise FeedError(f"CRL catalogue page format {content['format']!r}, this version reads {FORMAT}")
        return tuple(_scope(content["issuer_id"], item) for item in content["scopes"])
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as exc:
        raise FeedError(f"page {sha256:.16} of the CRL catalogue: {exc!r:.200}") from exc


def _scope(issuer_id: int, item: dict[str, Any]) -> CatalogueScope:
    scope, title, changed = item["scope"], item["title"], item["changed"]
    if type(changed) is not int or not isinstance(title, str):
        raise TypeError(f"title {title!r:.60}, changed {changed!r:.60}")
    entries = tuple(CatalogueEntry(issuer_id=issuer_id, scope=scope, **line) for line in item["crls"])
    if len({path_of(entry) for entry in entries}) != 1:
        raise ValueError(f"scope {scope!r:.60}: not one folder")
    return CatalogueScope(issuer_id, scope, title, changed, entries)


# --- the root --------------------------------------------------------------------------------------------


def root_content(root: CatalogueRoot) -> dict[str, Any]:
    """Return the document content of the root, to be encoded by ``documents``."""
    content: dict[str, Any] = {"format": FORMAT, "generation": root.generation, "pages": list(root.pages)}
    if root.ended:
        content["ended"] = [list(scope) for scope in root.ended]
    return content if root.archive is None else content | {"archive": root.archive.as_json()}


def read_root(content: dict[str, Any]) -> CatalogueRoot:
    """Return the root from an opened document.

    Raises: FeedError — another format, or a member missing or of the wrong form.
    """
    if content.get("format") != FORMAT:
        raise FeedError(f"CRL catalogue format {content.get('format')!r}, this version reads {FORMAT}")
    pages = content.get("pages")
    if not isinstance(pages, list) or not all(
        isinstance(page, str) and _SHA256.fullmatch(page) for page in pages
    ):
        raise FeedError("CRL catalogue: pages are named by SHA-256")
    return CatalogueRoot(content["generation"], tuple(pages), read_archive(content), _read_ended(content))


def _read_ended(content: dict[str, Any]) -> tuple[EndedScope, ...]:
    try:
        found = tuple(EndedScope(*item) for item in content.get("ended", ()))
    except TypeError as exc:
        raise FeedError(f"CRL catalogue: scopes that have ended: {exc}") from exc
    if not all(
        type(issuer_id) is int and isinstance(path, str) and type(ended_s) is int
        for issuer_id, path, ended_s in found
    ):
        raise FeedError("CRL catalogue: scopes that have ended: issuer, path, and when")
    return found


def read_archive(content: dict[str, Any]) -> ArchiveMark | None:
    """Return what an opened document says of the archive; None: nothing.  Raises: FeedError."""
    if "archive" not in content:
        return None
    try:
        return read_archive_mark(content["archive"])
    except ArchiveDamaged as exc:
        raise FeedError(f"CRL catalogue: {exc}") from exc
