"""Tidying: what is out is in the archive, what nobody needs is gone, last CRLs are prepared in time.

Knows: that of thousands of scopes a hundred are looked after in each turn, and that a scope of which nothing
has moved and nothing has ended since it was last looked after is left alone, so that it costs nothing.  And
that who is stopped in the middle of it may have lost the lease when it goes on: so only those files go that
were there before the lease was held last, and nothing that another publisher has made since.
Does not know: which CRLs are kept (``crl_shelf``), how the archive is written, when anybody calls.
Source: Act arts. 16, 35 (complete CRLs are kept); RFC 5280 §5.2.4 (deltas stay as long as their base).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from issuance.crl_register import LAST_NUMBER_MIN, CRLRecord
from publisher.catalogue_lines import CatalogueLines
from publisher.crl_archive_singles import SingleFiles
from publisher.crl_catalogue import remove_unlisted
from publisher.crl_last import LastCRLs
from publisher.crl_overview import CRLOverview
from publisher.crl_scopes import CRLScope
from publisher.crl_shelf import EXPIRED_FILE_S, CRLShelf

log = logging.getLogger(__name__)

_AT_ONCE = 100


class _Tidied(NamedTuple):
    """A scope when it was last looked after: its last number, and when the next of its files may go."""

    number: int
    scope: CRLScope
    from_s: int
    until_s: int


class CRLTidy:
    """What has to be looked after in one installation's CRLs."""

    def __init__(
        self,
        shelf: CRLShelf,
        catalogue: CatalogueLines,
        last: LastCRLs,
        overview: CRLOverview,
        scopes: Callable[[], list[CRLScope]],
        now_ms: Callable[[], int],
    ) -> None:
        self._shelf = shelf
        self._catalogue = catalogue
        self._last = last
        self._overview = overview
        self._scopes = scopes
        self._now_ms = now_ms
        self._singles = SingleFiles(shelf)
        self._next = 0
        self._tidied: dict[str, _Tidied] = {}

    def archive(self, scopes: Sequence[CRLScope]) -> dict[str, Exception]:
        """Archive what is out of *scopes*; return, by path, what kept a complete CRL from being archived.

        Takes: scopes, any of them more than once, as it was made something of.
        """
        scopes = list({scope.path: scope for scope in scopes}.values())
        now_s = self._now_ms() // 1000
        current = self._shelf.current(scopes, now_s)
        return self._shelf.archive(
            [(scope, record) for scope in scopes for record in current[scope.path]], now_s
        )

    def turn(self, require_lease: Callable[[], None], *, of_all: bool = False) -> list[CRLScope]:
        """Look after the scopes whose turn it is, once the catalogue is published; return them.

        Takes:  *require_lease*: raises FencedOff if it is another's; *of_all*: it is everybody's turn, for
                who comes once and not every few seconds.
        Raises: OSError, IntegrityError — the archive cannot take something; the rest was done.  FencedOff.
        """
        # As the catalogue has just found it: what has moved since is looked after next time.
        settled, now_s = self._catalogue.settled, self._now_ms() // 1000
        scopes = self._scopes() if of_all else self._in_turn()
        moved = [scope for scope in scopes if not self._is_tidy(scope, now_s)]
        troubles = self.archive(moved) if moved else {}
        lists = self._shelf.writer.lists()
        there = {scope.path: self._shelf.files(scope) for scope in moved}
        kept = self._shelf.kept(moved, now_s) if moved else {}
        require_lease()
        for scope in moved:
            is_archived = scope.path not in troubles
            self._look_after(scope, there[scope.path], kept[scope.path], now_s, is_archived)
        for name in self._shelf.writer.seal(now_s):
            log.info("CRL archive: %s sealed", name)
        if settled is not None:
            contents, over = settled
            if over:
                log.info("CRL archive: %s retained no longer", ", ".join(map(str, over)))
            self._shelf.writer.remove(over)
            self._shelf.writer.remove_lists(lists, contents)
        if troubles:
            raise next(iter(troubles.values()))
        return scopes

    def _look_after(
        self, scope: CRLScope, there: list[Path], kept: list[CRLRecord], now_s: int, is_archived: bool
    ) -> None:
        number = self._overview.settled_number(scope.key)
        self._shelf.archive_leftovers(scope, kept, now_s)
        if any(record.number >= LAST_NUMBER_MIN for record in kept):
            self._last.clear(scope)
        for path in remove_unlisted(there, scope, kept):
            log.info("%s removed", path)
        if packed := self._singles.pack(scope, now_s):
            log.info("CRL archive: %d files of %s moved into packs", packed, scope.path)
        self._tidied.pop(scope.path, None)
        if number is not None and is_archived and not packed:
            # A file goes when its CRL is over for long; deltas go once their base is over.
            ends_s = [
                (record.next_update_s or 0) + later_s for record in kept for later_s in (0, EXPIRED_FILE_S)
            ]
            until_s = min((end_s for end_s in ends_s if end_s > now_s), default=now_s)
            self._tidied[scope.path] = _Tidied(number, scope, now_s, until_s)

    def _is_tidy(self, scope: CRLScope, now_s: int) -> bool:
        before = self._tidied.get(scope.path)
        return (
            before is not None
            and before.number == self._overview.settled_number(scope.key)
            and before.scope == scope
            and before.from_s <= now_s < before.until_s
        )

    def _in_turn(self) -> list[CRLScope]:
        """Return the scopes whose turn it is: all, or of thousands the next hundred."""
        scopes = self._scopes()
        first = self._next if self._next < len(scopes) else 0
        self._next = first + _AT_ONCE
        return scopes[first : first + _AT_ONCE]
