"""The lists of revoked certificates as they stood at the last cuts, kept in files for the next CRLs.

::

    STATE/crl-lists/sign/g1/m1/13104/4711-4802.rows     the list at 4711, and still the same at 4802

    changes after 4802 ─▶ none: the name goes up to the new cut      ─▶ complete CRL
                       └▶ some: rows looked up, changed, merged ─▶ the next file ─▶ complete CRL
                                     └▶ digest of the list now, nothing written ─▶ delta

A cache: whoever deletes it, or a part of it, loses time.  It is in no backup and nobody is served from it.
Kept:     of each scope the newest list, and those of complete CRLs that may still be a delta's base.
Trusted:  what this process has read whole with the digest that its head says, or has written itself, as long
          as the file is the same (device, inode, size, time of writing).  Files are not fsynced.
Rebuilt:  from the register's whole past, in pieces and for many scopes at once, where a file is missing,
          torn, damaged, of another epoch or from after the register's end (a restore), and where a CRL made
          of it turned out not to be what its predecessor and the changes give (``forget``).
Does not know: what is published, how a list becomes a CRL (``crl_write``), how it is built anew
(``crl_list_build``).
Memory:   60 bytes for each change since the oldest list asked for, 32 for each row that they make, a few
          blocks, and what ``crl_list_build`` takes.
Source:   RFC 5280 §5.2.4 (what a list at a number of the sequence must be).
"""

from __future__ import annotations

import logging
import re
from collections import OrderedDict, defaultdict
from collections.abc import Iterable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from certstatus.crl_rows import Keys, Rows, empty_rows, keys, keys_of
from certstatus.crl_rows_file import RowsFile, RowsHead, write_rows
from certstatus.errors import CertStatusError, IntegrityError
from certstatus.file_identity import FileIdentity, identity_of
from issuance.store import Store, StoreState
from publisher.crl_changes import ScopeChanges
from publisher.crl_list_build import built_lists
from publisher.crl_list_changes import MovedList, rows_at
from publisher.crl_scopes import CRLScope, scopes_of

log = logging.getLogger(__name__)

LISTS_FOLDER = "crl-lists"
_NAME = re.compile(r"(0|[1-9][0-9]{0,18})-(0|[1-9][0-9]{0,18})\.rows")
# Files held open to be looked up in, and keys of each whose rows are remembered.
_OPEN_MAX = 16
_ASKED_MAX = 50_000


class ScopeNeed(NamedTuple):
    """A scope whose list is wanted at *seq*, and the changes to it after *after_seq*."""

    scope: CRLScope
    after_seq: int
    seq: int


class _Kept(NamedTuple):
    """A file: the list at every number from that of its head to *upto_seq*."""

    path: Path
    head: RowsHead
    upto_seq: int
    identity: FileIdentity


class _Moved(NamedTuple):
    """A list beyond its file."""

    kept: _Kept
    upto_seq: int
    list: MovedList


class _Asked:
    """A file that is looked up in, and what was found so far: one delta after another asks for the same."""

    def __init__(self, file: RowsFile) -> None:
        self.file = file
        self._keys: Keys = keys_of(())
        self._rows: Rows = empty_rows()

    def look_up(self, wanted: Keys) -> Rows:
        """Return the rows with keys among *wanted*; both ascend."""
        fresh = wanted[~np.isin(wanted, self._keys)]
        if len(self._keys) + len(fresh) > _ASKED_MAX:
            return self.file.look_up(wanted)
        if len(fresh):
            rows = np.concatenate([self._rows, self.file.look_up(fresh)])
            self._rows = rows[np.argsort(keys(rows), kind="stable")]
            self._keys = np.union1d(self._keys, fresh)
        return rows_at(self._rows, wanted)


class CRLLists:
    """The kept lists of one installation."""

    def __init__(self, store: Store, state: Path) -> None:
        self._store = store
        self._folder = state / LISTS_FOLDER
        self.changes = ScopeChanges(store)
        # By scope path: files that are there, the newest last; and the list beyond the newest.
        self._files: dict[str, list[_Kept]] = {}
        self._moved: dict[str, _Moved] = {}
        # Read whole by this process, or written by it.
        self._checked: set[FileIdentity] = set()
        self._open: OrderedDict[FileIdentity, _Asked] = OrderedDict()

    # --- asked for -------------------------------------------------------------------------------------

    def prepare(self, needs: Iterable[ScopeNeed], state: StoreState) -> None:
        """Have lists and changes at hand for many scopes, with one look at each issuer's changes.

        Takes:  *state*: where the store stands, at or after all that is needed.
        Raises: StoreError; OSError — a list cannot be written.
        """
        by_issuer: dict[int, list[ScopeNeed]] = defaultdict(list)
        for need in needs:
            by_issuer[need.scope.issuer.issuer_id].append(need)
        for issuer_id, mine in by_issuer.items():
            missing = [need for need in mine if self._find(need.scope, need.seq, state) is None]
            if missing:
                self._rebuild(missing, state)
            after_seq = min(min(need.after_seq, self._kept(need.scope, need.seq).upto_seq) for need in mine)
            self.changes.read(issuer_id, after_seq, max(need.seq for need in mine), state.epoch)

    def digest_at(self, scope: CRLScope, seq: int) -> int:
        """Return the digest of the list at *seq*, for which it must have been prepared; writes nothing."""
        moved = self._moved_to(scope, seq)
        return self._kept(scope, seq).head.digest if moved is None else moved.list.digest

    def file_at(self, scope: CRLScope, seq: int) -> RowsFile:
        """Return the list at *seq*, for which it must have been prepared, as a file to be read; the caller
        closes it.

        Raises: OSError — it cannot be written; IntegrityError — the old one is damaged.
        """
        kept, moved = self._kept(scope, seq), self._moved_to(scope, seq)
        if moved is None or moved.list.digest == kept.head.digest:
            kept = self._same_until(scope, kept, seq)
        else:
            with RowsFile(kept.path) as old:
                blocks = moved.list.blocks(old.checked_blocks())
                kept = self._write(scope, kept.head._replace(seq=seq), blocks, moved.list.digest)
        return RowsFile(kept.path)

    def rows_of_list(self, scope: CRLScope, digest: int, wanted: Keys) -> Rows | None:
        """Return the rows with keys among *wanted* in the kept list that has *digest*; None: none has."""
        for kept in reversed(list(self._files.get(scope.path, []))):
            if kept.head.digest == digest and self._is_right(scope, kept):
                return self._look_up(kept, wanted)
        return None

    # --- kept no longer --------------------------------------------------------------------------------

    def forget(self, scope: CRLScope) -> None:
        """Remove the scope's lists, so that the next is built from the register's past."""
        log.warning("CRL %s: its kept lists are given up", scope.path)
        self._moved.pop(scope.path, None)
        for kept in self._files.pop(scope.path, []):
            self._remove(kept)
        for path in self._place(scope).glob("*.rows"):
            path.unlink(missing_ok=True)

    def distrust(self, scope: CRLScope) -> None:
        """Read the scope's lists whole again before they are believed."""
        self._moved.pop(scope.path, None)
        for kept in self._files.get(scope.path, []):
            self._checked.discard(kept.identity)

    def tidy(self, scope: CRLScope, oldest_seq: int) -> None:
        """Remove lists from before *oldest_seq*, the cut of the oldest complete CRL that matters, and what
        somebody was killed over.  What cannot be removed stays, and that is said."""
        files = self._files.get(scope.path, [])
        try:
            for kept in [kept for kept in files[:-1] if kept.upto_seq < oldest_seq]:
                files.remove(kept)
                self._remove(kept)
            for path in self._place(scope).glob(".*.new"):
                path.unlink(missing_ok=True)
        except OSError as exc:
            log.error("CRL list: %s", exc)

    def _remove(self, kept: _Kept) -> None:
        kept.path.unlink(missing_ok=True)
        self._checked.discard(kept.identity)
        if (asked := self._open.pop(kept.identity, None)) is not None:
            asked.file.close()

    # --- files -----------------------------------------------------------------------------------------

    def _place(self, scope: CRLScope) -> Path:
        return self._folder / scope.path

    def _find(self, scope: CRLScope, seq: int, state: StoreState) -> _Kept | None:
        """Return the newest list at or before *seq* that is right, and note all that may be asked for."""
        for kept in reversed(list(self._there(scope, state))):
            if kept.head.seq <= seq and self._is_right(scope, kept):
                return kept
        return None

    def _there(self, scope: CRLScope, state: StoreState) -> list[_Kept]:
        """Return the scope's lists, by what their names and heads say; the newest last."""
        known = self._files.get(scope.path)
        if known is None or any(
            kept.head.epoch != state.epoch or _identity(kept.path) != kept.identity for kept in known
        ):
            self._moved.pop(scope.path, None)
            known = self._files[scope.path] = self._read_folder(scope, state)
        return known

    def _kept(self, scope: CRLScope, seq: int) -> _Kept:
        """Return the newest list at or before *seq* of those that were found."""
        return next(kept for kept in reversed(self._files[scope.path]) if kept.head.seq <= seq)

    def _read_folder(self, scope: CRLScope, state: StoreState) -> list[_Kept]:
        """Return what can be right by name and head, the newest last; remove what cannot."""
        found = []
        place = self._place(scope)
        for path in place.iterdir() if place.is_dir() else ():
            name = _NAME.fullmatch(path.name)
            if name is None:
                continue
            kept = _opened(path, int(name[2]))
            if (
                kept is not None
                and kept.head[:4] == (state.epoch, *_numbers(scope), int(name[1]))
                and kept.head.seq <= kept.upto_seq <= state.seq
            ):
                found.append(kept)
            else:
                log.info("%s: not a list of now", path)
                path.unlink(missing_ok=True)
        return sorted(found, key=lambda kept: kept.upto_seq)

    def _is_right(self, scope: CRLScope, kept: _Kept) -> bool:
        """Say whether a file is what its head says; read whole once by this process, and removed if not."""
        if kept.identity in self._checked:
            return True
        try:
            with RowsFile(kept.path) as file:
                for _ in file.checked_blocks():
                    pass
        except (OSError, IntegrityError) as exc:
            log.error("CRL list given up: %s", exc)
            self._files[scope.path].remove(kept)
            self._remove(kept)
            return False
        self._checked.add(kept.identity)
        return True

    def _same_until(self, scope: CRLScope, kept: _Kept, seq: int) -> _Kept:
        """Note in its name that a list is the same at *seq*; a rename, nothing is written."""
        if seq <= kept.upto_seq:
            return kept
        path = kept.path.with_name(f"{kept.head.seq}-{seq}.rows")
        kept.path.rename(path)
        later = kept._replace(path=path, upto_seq=seq)
        files = self._files[scope.path]
        files[files.index(kept)] = later
        self._moved.pop(scope.path, None)
        return later

    def _write(self, scope: CRLScope, head: RowsHead, blocks: Iterable[Rows], digest: int) -> _Kept:
        """Write a list; it is the newest from then on.

        Raises: IntegrityError — it has not *digest*, at which the same changes arrived by look-ups.
        """
        path = self._place(scope) / f"{head.seq}-{head.seq}.rows"
        path.parent.mkdir(parents=True, exist_ok=True)
        head = write_rows(path, head, blocks, durable=False)
        found = _identity(path)
        if found is None or head.digest != digest:
            self.forget(scope)
            path.unlink(missing_ok=True)
            raise IntegrityError(f"{path}: merged and looked up, the list is not the same")
        kept = _Kept(path, head, head.seq, found)
        self._checked.add(found)
        files = [each for each in self._files.get(scope.path, []) if each.path != path]
        self._files[scope.path] = sorted([*files, kept], key=lambda each: each.upto_seq)
        self._moved.pop(scope.path, None)
        return kept

    # --- beyond a file ---------------------------------------------------------------------------------

    def _moved_to(self, scope: CRLScope, seq: int) -> _Moved | None:
        """Return the list at *seq* as what has changed since its file; None: nothing has."""
        kept, moved = self._kept(scope, seq), self._moved.get(scope.path)
        if moved is not None and (moved.kept != kept or moved.upto_seq > seq):
            moved = None
        changes = self.changes.of(scope, kept.upto_seq if moved is None else moved.upto_seq, seq)
        if moved is None and changes:
            moved = _Moved(kept, seq, MovedList(partial(self._look_up, kept), kept.head.digest))
        # What fails half-way is begun anew.
        self._moved.pop(scope.path, None)
        if moved is not None:
            if changes:
                moved.list.apply(changes)
            moved = self._moved[scope.path] = moved._replace(upto_seq=seq)
        return moved

    def _look_up(self, kept: _Kept, wanted: Keys) -> Rows:
        asked = self._open.pop(kept.identity, None) or _Asked(RowsFile(kept.path))
        self._open[kept.identity] = asked
        if len(self._open) > _OPEN_MAX:
            self._open.popitem(last=False)[1].file.close()
        return asked.look_up(wanted)

    # --- from the beginning ----------------------------------------------------------------------------

    def _rebuild(self, needs: list[ScopeNeed], state: StoreState) -> None:
        """Build the lists of scopes of one issuer from its whole past, read once; also those that nobody has
        asked for yet, where there is none, for they would be next.

        Raises: what keeps a list that was asked for from being built; all others are there then.
        """
        seq = min(need.seq for need in needs)
        issuer_id = needs[0].scope.issuer.issuer_id
        scopes = {need.scope.path: need.scope for need in needs}
        for scope in scopes_of(self._store):
            if scope.issuer.issuer_id == issuer_id and not self._there(scope, state):
                scopes.setdefault(scope.path, scope)
        wanted = [(scope.partition_id, self._place(scope)) for scope in scopes.values()]
        troubles: dict[str, CertStatusError | OSError] = {}
        with closing(built_lists(self._store, issuer_id, wanted, seq)) as built:
            for scope, outcome in zip(scopes.values(), built, strict=True):
                if isinstance(outcome, Exception):
                    troubles[scope.path] = outcome
                    continue
                digest, blocks = outcome
                try:
                    self._write(scope, RowsHead(state.epoch, *_numbers(scope), seq), blocks, digest)
                except (CertStatusError, OSError) as exc:
                    troubles[scope.path] = exc
        for path, trouble in troubles.items():
            log.error("CRL list of %s not built: %s", path, trouble)
        for need in needs:
            if need.scope.path in troubles:
                raise troubles[need.scope.path]


def _numbers(scope: CRLScope) -> tuple[int, int]:
    """Return by what a file's head names a scope: its issuer and its partition, 0 for ``all``."""
    return scope.issuer.issuer_id, scope.partition_id or 0


def _opened(path: Path, upto_seq: int) -> _Kept | None:
    """Return a file as far as its head tells; None: it is damaged, or gone."""
    try:
        with RowsFile(path) as file:
            found = _identity(path)
            return None if found is None else _Kept(path, file.head, upto_seq, found)
    except (OSError, IntegrityError):
        return None


def _identity(path: Path) -> FileIdentity | None:
    """Return which file lies at *path*; None: none does."""
    try:
        return identity_of(path)
    except OSError:
        return None
