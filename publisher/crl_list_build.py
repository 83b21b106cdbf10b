"""Lists built from the register's whole past, for many scopes of an issuer in one reading.

::

    changes, in pieces ─▶ divided among the scopes ─▶ rows of each ─▶ its list, block by block
                                                        └▶ too many in all: the longest into a file

Knows: how to gather lists that are not whole in memory, and that one which cannot be built keeps no other
from being.
Does not know: where a list is kept in the end (``crl_lists``).
Memory: ``_CHANGES_AT_ONCE`` changes and ``_PENDING_ROWS_MAX`` rows, however long the lists are.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path

from certstatus.crl_rows import Keys, Rows, empty_rows
from certstatus.crl_rows_file import RowsFile, RowsHead, write_rows
from certstatus.errors import CertStatusError, IntegrityError
from issuance.store import Store
from publisher.crl_change_rows import Changes
from publisher.crl_changes import divided, in_pieces
from publisher.crl_list_changes import MovedList

log = logging.getLogger(__name__)

_CHANGES_AT_ONCE = 50_000
# Rows not yet in a file, of all scopes together.
_PENDING_ROWS_MAX = 1_000_000
_NO_HEAD = RowsHead(bytes(16), 0, 0, 0)


def built_lists(
    store: Store, issuer_id: int, wanted: Sequence[tuple[int | None, Path]], seq: int
) -> Generator[tuple[int, Iterator[Rows]] | CertStatusError | OSError]:
    """Yield each of the *wanted* lists at *seq*: its digest, and its blocks, each to be used before the next;
    or what keeps it from being built: OSError — disk full; CRLCheckFailed — an entry that no row has room
    for; IntegrityError — two ways of adding changes have led to two lists.

    Takes:  *wanted*: the number of the scope's partition (None: ``all``), a folder for its unfinished part.
    Raises: StoreError.
    """
    log.info("CRL lists: %d of issuer %d are built from the register", len(wanted), issuer_id)
    growing = [_GrowingList(scope_id, place) for scope_id, place in wanted]
    try:
        for piece in in_pieces(store.revocation_changes(issuer_id, 0, seq), _CHANGES_AT_ONCE):
            parts = divided(piece.rows)
            for each in growing:
                if each.scope_id is None:
                    each.apply(piece)
                elif (places := parts.get(each.scope_id)) is not None:
                    each.apply(Changes(piece.rows[places]))
            _lighten(growing)
        for each in growing:
            yield each.trouble or (each.digest, each.blocks())
    finally:
        for each in growing:
            each.close()


def _lighten(growing: list[_GrowingList]) -> None:
    """Put the longest lists into files where all together are too much."""
    pending = sum(each.pending for each in growing)
    if pending > _PENDING_ROWS_MAX:
        for each in sorted(growing, key=lambda each: -each.pending):
            pending -= each.pending
            each.flush()
            if pending <= _PENDING_ROWS_MAX // 2:
                return


class _GrowingList:
    """A list that is being built: a part in a file, and what has come since."""

    def __init__(self, scope_id: int | None, place: Path) -> None:
        self.scope_id = scope_id
        self._path = place / f".growing.{os.getpid()}.new"
        self._has_file = False
        self._list = MovedList(self._look_up, 0)
        # What keeps it from being built; nothing more is done for it then.
        self.trouble: CertStatusError | OSError | None = None

    @property
    def pending(self) -> int:
        """How many rows are not in the file."""
        return len(self._list.puts) + len(self._list.drops)

    @property
    def digest(self) -> int:
        """The digest of all of it, by what was looked up."""
        return self._list.digest

    def apply(self, changes: Changes) -> None:
        """Take over the next changes."""
        self._try(lambda: self._list.apply(changes))

    def flush(self) -> None:
        """Put all of it into the file."""
        self._try(self._flush)

    def _try(self, step: Callable[[], None]) -> None:
        if self.trouble is None:
            try:
                step()
            except (CertStatusError, OSError) as exc:
                self.trouble = exc
                self._list = MovedList(self._look_up, 0)

    def _flush(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        head = write_rows(self._path, _NO_HEAD, self.blocks(), durable=False)
        if head.digest != self._list.digest:
            raise IntegrityError(f"{self._path}: merged and looked up, the list is not the same")
        self._has_file = True
        self._list = MovedList(self._look_up, head.digest)

    def blocks(self) -> Iterator[Rows]:
        """Yield the list."""
        if not self._has_file:
            yield from self._list.blocks([])
            return
        with RowsFile(self._path) as file:
            yield from self._list.blocks(file.checked_blocks())

    def close(self) -> None:
        """Remove the file."""
        if self._has_file:
            self._path.unlink(missing_ok=True)

    def _look_up(self, wanted: Keys) -> Rows:
        if not self._has_file:
            return empty_rows()
        with RowsFile(self._path) as file:
            return file.look_up(wanted)
