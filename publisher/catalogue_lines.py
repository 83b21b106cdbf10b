"""The catalogue as the register has it, of thousands of scopes: read anew only where something moved.

Knows: that a scope's lines stay while no other number of it has been given out, none of its CRLs ends and its
files are there; and what the catalogue says of the archive.
Does not know: the document's form (``crl_catalogue``), the archive's (``crl_archive``).
Source: RFC 5280 §5.2.4 (a base stays fetchable); Act arts. 16, 35.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import NamedTuple

from certstatus.clock import DAY_S
from certstatus.config import IssuerConfig
from certstatus.crl import NO_END_S
from certstatus.crl_catalogue import CatalogueEntry, EndedScope
from certstatus.crl_pack import ArchiveMark, PackName, issuer_mark
from issuance.crl_register import Fence
from issuance.issuers import issuers
from issuance.store import Store
from publisher.crl_catalogue import CataloguePublisher, catalogue_entries
from publisher.crl_overview import CRLOverview
from publisher.crl_scopes import CRLScope
from publisher.crl_shelf import CRLShelf, is_file_of

log = logging.getLogger(__name__)

# For so long the catalogue says of a scope that it has ended, so that it grows no more with the years.
ENDED_TOLD_S = 400 * DAY_S


class _Kept(NamedTuple):
    """A scope's part of the catalogue, from when it was read to when one of its CRLs ends.

    ``number`` None: while something was being made of it; ``files``: where each is, and its size.
    """

    number: int | None
    scope: CRLScope
    from_s: int
    until_s: int
    files: list[tuple[str, int]]
    entries: list[CatalogueEntry]


class CatalogueLines:
    """The catalogue of one installation."""

    def __init__(
        self,
        store: Store,
        shelf: CRLShelf,
        overview: CRLOverview,
        scopes: Callable[[], list[CRLScope]],
        now_ms: Callable[[], int],
    ) -> None:
        self._store = store
        self._shelf = shelf
        self._overview = overview
        self._scopes = scopes
        self._now_ms = now_ms
        self._catalogue = CataloguePublisher(store)
        self._kept: dict[str, _Kept] = {}
        # Those that the lines were read of last.
        self._of: list[CRLScope] = []
        # The archive's list of packs, and those it leaves out, if the last look found it published already.
        self.settled: tuple[str, list[PackName]] | None = None

    def publish(self, fence: Fence) -> None:
        """Publish the catalogue of what is registered, if it is not the one out.

        Raises: StoreError, FencedOff.
        """
        entries, ended = self.entries(), self._ended()
        titles = {path: kept.scope.title for path, kept in self._kept.items()}
        mark, over = self._archive()
        published = self._catalogue.publish(entries, mark, fence, self._now_ms, titles, ended)
        # What the catalogue had left out before is read by nobody any more.
        self.settled = None if published or mark is None or over is None else (mark.contents, over)

    def publish_of(self, scopes: Iterable[CRLScope], fence: Fence) -> None:
        """Publish the catalogue with the lines of *scopes* as they are now, and those of the others as they
        are out: what one of thousands costs does not depend on the thousands.

        What else is registered and in no catalogue yet (its publisher was killed) is taken along.
        Raises: as ``publish``.
        """
        keys = {scope.key for scope in scopes} | self._store.unshown_crl_scopes()
        concerned = [scope for scope in self._scopes() if scope.key in keys]
        current = self._shelf.current(concerned, self._now_ms() // 1000)
        if not all(current.values()):
            # One that has nothing to show any more leaves the catalogue, which only the whole look can do.
            self.publish(fence)
            return
        entries = [entry for scope in concerned for entry in catalogue_entries(scope, current[scope.path])]
        titles = {scope.path: scope.title for scope in concerned}
        mark, _ = self._archive()
        self.settled = None
        if not self._catalogue.revise(entries, mark, fence, self._now_ms, titles):
            self.publish(fence)

    def _archive(self) -> tuple[ArchiveMark | None, list[PackName] | None]:
        """Return what the catalogue is to say of the archive, and which packs it leaves out, if known."""
        try:
            over = self._over()
            return self._shelf.writer.mark(over), over
        except OSError as exc:
            # Its disk may be another one, and CRLs go out all the same.  What was named stays named.
            log.error("CRL archive: %s", exc)
            return self._catalogue.archive(), None

    def entries(self) -> list[CatalogueEntry]:
        """Return the catalogue's lines as they are now."""
        self._overview.refresh()
        scopes, now_s = self._scopes(), self._now_ms() // 1000
        self._of = scopes
        moved = [scope for scope in scopes if not self._stays(scope, now_s)]
        current = self._shelf.current(moved, now_s)
        for scope in moved:
            records = current[scope.path]
            ends_s = [record.next_update_s or 0 for record in records]
            nothing_s = NO_END_S if scope.is_at_rest(now_s) else now_s
            self._kept[scope.path] = _Kept(
                self._overview.settled_number(scope.key),
                scope,
                now_s,
                min((end_s for end_s in ends_s if end_s > now_s), default=nothing_s),
                [(self._shelf.name(scope, record), record.size or 0) for record in records],
                catalogue_entries(scope, records),
            )
        return [entry for scope in scopes for entry in self._kept[scope.path].entries]

    def _ended(self) -> list[EndedScope]:
        """Return the scopes that none of the lines, which were just read, is of any more, and why."""
        now_s = self._now_ms() // 1000
        return [
            EndedScope(scope.issuer.issuer_id, scope.path, scope.partition.last_end_s)
            for scope in self._of
            if scope.partition is not None
            and scope.partition.last_end_s is not None
            and scope.is_at_rest(now_s)
            and now_s - scope.partition.last_end_s < ENDED_TOLD_S
            and not self._kept[scope.path].entries
        ]

    def _stays(self, scope: CRLScope, now_s: int) -> bool:
        """Say whether the scope's lines are as they were when they were made."""
        kept = self._kept.get(scope.path)
        return (
            kept is not None
            and kept.number is not None
            and kept.number == self._overview.settled_number(scope.key)
            and kept.scope == scope
            and kept.from_s <= now_s < kept.until_s
            and all(is_file_of(path, size) for path, size in kept.files)
        )

    def _over(self) -> list[PackName]:
        """Return the packs of the archive that are retained no longer."""
        days = {
            issuer_mark(record.spki_der): record.policy.crl_archive_days for record in issuers(self._store)
        }
        # Of a key that the register does not know nobody can say how long: as long as any, or the default.
        other_days = max([IssuerConfig().crl_archive_days, *days.values()])
        return self._shelf.writer.over(self._now_ms() // 1000, days, other_days)
