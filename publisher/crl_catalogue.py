"""The catalogue from the register of CRLs: which files the hosts serve.

Knows: that a CRL is listed while it is the newest of its kind or inside its nextUpdate, and that
a complete one also while a listed delta names it as base; published anew only when that changed, with
the generation at each scope since which its lines are what they are.
Does not know: what the files contain; they were checked before the register called them published.
Source: RFC 5280 §5.2.4 (a base stays fetchable); ``certstatus.crl_catalogue``.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from certstatus.crl_catalogue import (
    COMPLETE,
    DELTA,
    KINDS,
    CatalogueEntry,
    CatalogueRoot,
    CatalogueScope,
    EndedScope,
    cut_pages,
    encode_page,
    may_have,
    read_page,
    read_root,
    root_content,
    scopes_of_entries,
)
from certstatus.crl_pack import ArchiveMark
from certstatus.documents import encode_document
from certstatus.errors import FeedError
from issuance.crl_register import LAST_NUMBER_MIN, CRLKey, CRLRecord, Fence
from issuance.store import CRL_CATALOGUE, Now, Publication, Store
from publisher.crl_plan import IssuedCRL
from publisher.crl_schedule import next_starts
from publisher.crl_scopes import CRLScope

log = logging.getLogger(__name__)


def listed(records: Iterable[CRLRecord], now_s: int, *, at_rest: bool = False) -> list[CRLRecord]:
    """Return, of published CRLs of one scope, those that must be served at *now_s*.

    Takes: *at_rest*: no other follows, so the newest ones are of use until their end and no longer.
    """
    published = list(records)
    newest = {kind: max((r.number for r in published if r.kind == kind), default=None) for kind in KINDS}
    if (newest[COMPLETE] or 0) >= LAST_NUMBER_MIN:
        # No delta follows, so the newest one is of use until its end and no longer.
        newest[DELTA] = None
    if at_rest:
        newest = dict.fromkeys(KINDS)
    kept = [
        record
        for record in published
        if record.number == newest[record.kind] or (record.next_update_s or 0) > now_s
    ]
    bases = {record.base_number for record in kept if record.base_number is not None}
    also = [
        record
        for record in published
        if record.kind == COMPLETE and record.number in bases and record not in kept
    ]
    return sorted(kept + also, key=lambda record: (record.number, record.kind))


def catalogue_entries(scope: CRLScope, records: list[CRLRecord]) -> list[CatalogueEntry]:
    """Return the catalogue's lines for a scope's listed CRLs."""
    newest: dict[str, CRLRecord | None] = {
        kind: max((r for r in records if r.kind == kind), key=lambda record: record.number, default=None)
        for kind in KINDS
    }
    next_s = _next_issue_s(scope, newest)
    return [
        CatalogueEntry(
            issuer_id=record.issuer_id,
            scope=record.scope,
            kind=record.kind,
            file=scope.file(record.kind, record.number),
            name=scope.url_name(record.kind),
            current=record is newest[record.kind],
            number=record.number,
            base_number=record.base_number,
            seq=record.seq,
            this_update_s=record.this_update_s,
            next_update_s=record.next_update_s or 0,
            next_issue_s=next_s[record.kind] if record is newest[record.kind] else record.next_update_s or 0,
            size=record.size or 0,
            sha256=(record.sha256 or b"").hex(),
        )
        for record in records
    ]


def _next_issue_s(scope: CRLScope, newest: dict[str, CRLRecord | None]) -> dict[str, int]:
    """Return, by kind, when the newest one's successor is due at the earliest."""
    complete, delta = newest[COMPLETE], newest[DELTA]
    if complete is None:
        # Then one is due at once, and a delta with it.
        return dict.fromkeys(KINDS, 0)
    if complete.number >= LAST_NUMBER_MIN:
        return {COMPLETE: complete.next_update_s or 0, DELTA: 0}
    if scope.is_retired:
        # None follows.
        return {kind: record.next_update_s or 0 if record else 0 for kind, record in newest.items()}
    # A delta may come at the earlier of its two moments: whether something changes nobody knows yet.
    starts = next_starts(
        scope.path, scope.issuer.policy, issued(complete), None if delta is None else issued(delta)
    )
    return {COMPLETE: starts.complete_s, DELTA: starts.delta_s}


def issued(record: CRLRecord) -> IssuedCRL:
    """Return a published CRL as the plan sees it."""
    return IssuedCRL(record.number, record.seq, record.this_update_s, record.next_update_s or 0)


class PublishedCatalogue(NamedTuple):
    """A catalogue as the store has it; ``pages``: what stands on each, by its SHA-256 (hex)."""

    root: CatalogueRoot
    pages: dict[str, tuple[CatalogueScope, ...]]

    @property
    def scopes(self) -> Iterator[CatalogueScope]:
        """All scopes, by issuer, then path."""
        return (scope for page in self.root.pages for scope in self.pages[page])


def read_published(
    store: Store, found: Publication, known: Mapping[str, tuple[CatalogueScope, ...]] | None = None
) -> PublishedCatalogue:
    """Return the catalogue that *found* is the root of.

    Takes:  *known*: pages that were read before, which are not read again.
    Raises: FeedError — it is not one of this version, or its pages have gone with a newer one.
    """
    root = _read_root(found)
    pages = {page: scopes for page, scopes in (known or {}).items() if page in root.pages}
    bodies = store.catalogue_pages(page for page in root.pages if page not in pages)
    pages |= {page: read_page(body, page) for page, body in bodies.items()}
    if len(pages) < len(set(root.pages)):
        raise FeedError("pages of the published CRL catalogue are not there")
    return PublishedCatalogue(root, pages)


def _read_root(found: Publication) -> CatalogueRoot:
    try:
        content = json.loads(found.body or b"")
    except ValueError as exc:
        raise FeedError("the published CRL catalogue is not JSON") from exc
    return read_root(content if isinstance(content, dict) else {})


class CataloguePublisher:
    """Publishes the catalogue of one store, and remembers what of it has stayed as it was."""

    def __init__(self, store: Store) -> None:
        self._store = store
        # Of what was published when last looked at.
        self._sha256 = b""
        self._archive: ArchiveMark | None = None
        self._ended: tuple[EndedScope, ...] = ()
        self._scopes: dict[str, CatalogueScope] = {}
        self._pages: dict[tuple[int, str], _Page] = {}

    def publish(
        self,
        entries: Iterable[CatalogueEntry],
        archive: ArchiveMark | None,
        fence: Fence,
        now: Now,
        titles: Mapping[str, str] | None = None,
        ended: Iterable[EndedScope] = (),
    ) -> bool:
        """Publish the catalogue if it differs from the published one; say whether it did.

        That a pack has grown is no difference: what was just archived is still listed by itself, and the
        next catalogue says so.  Its generation is the time of a cut of its own, later than that of every
        CRL in it.
        Takes:  *entries*: all there are; *archive*: what is said of it (None: nothing); *titles*: what people
                call a scope, by its path; *ended*: scopes that have no CRLs any more.
        Raises: StoreError, FencedOff.
        """
        ended = tuple(sorted(ended, key=lambda scope: scope.path))
        is_ours = self._look()
        scopes = [self._known(scope) for scope in scopes_of_entries(entries, titles or {}, 0)]
        have_all = all(scope.changed for scope in scopes) and len(scopes) == len(self._scopes)
        if have_all:
            # With the lines as they came, which are most likely those that come next time.
            self._scopes = {scope.path: scope for scope in scopes}
        if is_ours and have_all and ended == self._ended and _contents(archive) == _contents(self._archive):
            return False
        generation = self._store.cut(now).time_ms
        scopes = [scope if scope.changed else replace(scope, changed=generation) for scope in scopes]
        pages = self._encode(scopes)
        sha256 = self._put(generation, list(pages.values()), archive, ended, fence, now)
        new = sum(self._pages.get(name) is not page for name, page in pages.items())
        self._sha256, self._archive, self._ended, self._pages = sha256, archive, ended, pages
        self._scopes = {scope.path: scope for scope in scopes}
        files = sum(len(scope.entries) for scope in scopes)
        log.info("CRL catalogue %d: %d files, %d of %d pages new", generation, files, new, len(pages))
        return True

    def revise(
        self,
        entries: Iterable[CatalogueEntry],
        archive: ArchiveMark | None,
        fence: Fence,
        now: Now,
        titles: Mapping[str, str] | None = None,
    ) -> bool:
        """Publish the catalogue with other lines for the scopes of *entries*, if they are not those that are
        out; all other scopes keep theirs.  Only pages that these scopes stand on are read.

        Takes:  as ``publish``, *entries* of these scopes alone.
        Gives:  False if nothing was published because there is no catalogue that can be read, or a scope is
                not in it: for that ``publish`` must know all of them.
        """
        found = self._store.publication(CRL_CATALOGUE)
        if found is None:
            return False
        awaited = {scope.path: scope for scope in scopes_of_entries(entries, titles or {}, 0)}
        try:
            root = _read_root(found)
            bodies = self._store.catalogue_pages(root.pages)
            pages = [_taken_over(bodies[page], page, awaited) for page in root.pages]
        except (FeedError, KeyError) as exc:
            log.warning("CRL catalogue: %s", exc)
            return False
        if awaited:
            return False
        if all(page.body for page in pages) and _contents(archive) == _contents(root.archive):
            return True
        generation = self._store.cut(now).time_ms
        pages = [page if page.body else _encoded(page.scopes, generation) for page in pages]
        self._put(generation, pages, archive, root.ended, fence, now)
        log.info("CRL catalogue %d: revised", generation)
        return True

    def _put(
        self,
        generation: int,
        pages: Sequence[_Page],
        archive: ArchiveMark | None,
        ended: tuple[EndedScope, ...],
        fence: Fence,
        now: Now,
    ) -> bytes:
        """Make *pages* the catalogue; what stands on those that were read is out from now on.

        Gives: the SHA-256 of the root.
        """
        root = CatalogueRoot(generation, tuple(page.sha256 for page in pages), archive, ended)
        body = encode_document(root_content(root))
        sha256 = hashlib.sha256(body).digest()
        shown = {
            CRLKey(entry.issuer_id, entry.scope, entry.number, entry.kind)
            for page in pages
            for scope in page.scopes
            for entry in scope.entries
        }
        texts = {page.sha256: page.body for page in pages}
        self._store.publish_crls(generation, sha256, body, shown, fence, now, texts)
        return sha256

    def archive(self) -> ArchiveMark | None:
        """Return what the published catalogue says of the archive, if there is one."""
        self._look()
        return self._archive

    def _look(self) -> bool:
        """Read what is published unless it is what was read last; say whether it is a catalogue of ours."""
        found = self._store.publication(CRL_CATALOGUE)
        if found is not None and found.sha256 == self._sha256:
            return True
        pages = self._pages
        self._sha256, self._archive, self._ended, self._scopes, self._pages = b"", None, (), {}, {}
        if found is None:
            return False
        try:
            known = {page.sha256: page.scopes for page in pages.values()}
            published = read_published(self._store, found, known)
        except FeedError as exc:
            # Then all is new, and its readers fetch all of it once.
            log.warning("%s", exc)
            return False
        self._sha256, self._archive = found.sha256, published.root.archive
        self._pages = {name: page for name, page in pages.items() if page.sha256 in published.pages}
        self._ended = published.root.ended
        self._scopes = {scope.path: scope for scope in published.scopes}
        return True

    def _known(self, scope: CatalogueScope) -> CatalogueScope:
        """Return the scope with the generation since which it is so, if it was published as it is now."""
        old = self._scopes.get(scope.path)
        if (
            old is not None
            and old.entries == scope.entries
            and (old.issuer_id, old.title) == (scope.issuer_id, scope.title)
        ):
            return replace(scope, changed=old.changed)
        return scope

    def _encode(self, scopes: list[CatalogueScope]) -> dict[tuple[int, str], _Page]:
        pages: dict[tuple[int, str], _Page] = {}
        for cut in cut_pages(scopes):
            name = cut[0].issuer_id, cut[0].path
            old = self._pages.get(name)
            if old is not None and old.scopes == cut:
                pages[name] = old
            else:
                body = encode_page(cut)
                pages[name] = _Page(cut, body, hashlib.sha256(body).hexdigest())
        return pages


class _Page(NamedTuple):
    """A page; ``scopes``: what stands on it, empty where it is taken over unread."""

    scopes: tuple[CatalogueScope, ...]
    body: bytes
    sha256: str


def _taken_over(body: bytes, sha256: str, awaited: dict[str, CatalogueScope]) -> _Page:
    """Return a page with the lines of those *awaited* that stand on it, which are awaited no longer.

    Gives:  ``body`` empty if any line is another now, and ``changed`` of its scope 0; of a page that was not
            read, no ``scopes``.
    Raises: FeedError.
    """
    if not any(may_have(body, path) for path in awaited):
        return _Page((), body, sha256)
    before = read_page(body, sha256)
    after = tuple(_unless_same(scope, awaited.pop(scope.path, scope)) for scope in before)
    return _Page(after, body if after == before else b"", sha256)


def _unless_same(before: CatalogueScope, after: CatalogueScope) -> CatalogueScope:
    return before if after == replace(before, changed=after.changed) else after


def _encoded(scopes: tuple[CatalogueScope, ...], generation: int) -> _Page:
    scopes = tuple(scope if scope.changed else replace(scope, changed=generation) for scope in scopes)
    body = encode_page(scopes)
    return _Page(scopes, body, hashlib.sha256(body).hexdigest())


def _contents(archive: ArchiveMark | None) -> str | None:
    return None if archive is None else archive.contents


def remove_unlisted(there: Iterable[Path], scope: CRLScope, kept: Iterable[CRLRecord]) -> list[Path]:
    """Remove those of the scope's files *there* that are not among *kept*; return which.

    So go expired CRLs (the archive has the complete ones), and what a killed publisher left.
    """
    names = {Path(scope.file(record.kind, record.number)).name for record in kept}
    removed = [path for path in sorted(there) if path.name not in names]
    for path in removed:
        path.unlink(missing_ok=True)
    return removed
