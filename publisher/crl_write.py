"""The files of one scope's CRLs, written and checked under hidden names: a complete one, a delta, or both.

::

    list kept for the last CRL + changes ─▶ list at S ─▶ complete CRL ─▶ its bytes are the list at S
                                              │             └─▶ predecessor's bytes + changes are it, too
    base's list, looked up + changes ─▶ delta ┴─▶ base's bytes, without what it speaks of,
                                                    with what it says, are the list at S

What is compared was arrived at in different ways, so each check catches something else:

* complete CRL, decoded, against the list: a mistake of the encoder, the key, the disk.
* predecessor's bytes, gone through with the changes, against the list, which was looked up and merged from
  the kept one: a kept file or a published one that is not what it was, and a mistake in either way of
  applying changes.  Where the list was just built from the register's whole past: a register that has
  lost or altered something that a published CRL says.
* delta and base against the list, by digests: a delta that says too little, too much or something else, a
  mistake in going from the base's cut or from the newest kept list's.  Of the base only the digest of its
  bytes is taken, noted when it was published or when this process first needed it
  (``crl_published_bytes``); its file must be there, and the same.  What the base says is looked up in the
  kept list that has this digest and was read whole with it.  A fault of looking up itself, which both
  sides have in common where base and newest list are one, shows with the next complete CRL.

Where lists do not fit together, those of the scope are given up and the next attempt goes by the register.
Knows: these steps, for scopes that were ``prepare``d together.
Does not know: numbers, transactions, what is due, where files go after that (``crl_lot``).
Source: RFC 5280 §5.2.3-5.2.4.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from certstatus.crl_catalogue import COMPLETE, DELTA
from certstatus.crl_rows import Keys, Rows, empty_rows, joined
from certstatus.crl_rows_file import RowsFile
from certstatus.errors import CRLCheckFailed, DERError, IntegrityError
from issuance.ca_keys import CAKey, CAKeyFolder
from issuance.crl_register import AllocatedCRL, CRLRecord, Fence
from issuance.store import Store
from publisher.crl_catalogue import issued
from publisher.crl_list_changes import delta_rows, rows_at
from publisher.crl_lists import CRLLists, ScopeNeed
from publisher.crl_make import CRLHead, Joining, make_crl, read_and_check
from publisher.crl_plan import IssuedCRL, next_update_s
from publisher.crl_predecessor import FINDING, check_against, predecessor
from publisher.crl_published_bytes import PublishedBytes
from publisher.crl_scopes import CRLScope
from publisher.crl_shelf import CRLShelf
from publisher.fenced_key import fenced

# What may lie at the kept list, and is gone when it is built anew.
_LIST_FINDINGS = {FINDING, "certstatus.crl_entries_differ", "certstatus.crl_rows_differ_from_head"}


class CRLWork(NamedTuple):
    """CRLs to be made of one scope: their kinds, number and cut; the delta's base; what is published; since
    when entries of ended certificates are kept (POSIX s; None: they lapse)."""

    scope: CRLScope
    kinds: list[str]
    allocated: AllocatedCRL
    base: IssuedCRL | None
    current: list[CRLRecord]
    expired_from_s: int | None

    @property
    def completes(self) -> list[CRLRecord]:
        """The complete ones of those that are published."""
        return [record for record in self.current if record.kind == COMPLETE]


class WrittenCRL(NamedTuple):
    """A finished file that nobody can see yet, and the name that it is to have."""

    kind: str
    head: CRLHead
    hidden: Path
    path: Path
    sha256: bytes
    entries: int


class CRLWriter:
    """Makes the files of one installation's CRLs."""

    def __init__(self, store: Store, keys: CAKeyFolder, state: Path, shelf: CRLShelf) -> None:
        self._store = store
        self._keys = keys
        self._shelf = shelf
        self._bytes = PublishedBytes(shelf)
        self.lists = CRLLists(store, state)
        # Where the epoch began, as of the last ``prepare``.
        self._base_seq = 0

    def prepare(self, works: Iterable[CRLWork]) -> None:
        """Read what has changed for many scopes, once for all of an issuer; before each ``write``.

        Raises: StoreError; OSError, IntegrityError — a list that was to be built anew could not be.
        """
        state = self._store.state()
        self._base_seq = state.base_seq
        needs = [ScopeNeed(work.scope, self._after(work), work.allocated.seq) for work in works]
        self.lists.prepare(needs, state)

    def write(self, work: CRLWork, fence: Fence, *, synced: bool = True) -> list[WrittenCRL]:
        """Write the files under hidden names and check them from their bytes, the complete CRL first.

        Takes:  *synced*: they are on the disk then; without, that is left to the caller, who may have many to
                sync at once (``sync_all``).
        Raises: CRLCheckFailed, IntegrityError, OSError, KeyFileError, FencedOff.  No file is left then.
        """
        key = fenced(
            self._keys.private_key(work.scope.issuer.issuer_id),
            partial(self._store.require_publisher, fence),
        )
        written: list[WrittenCRL] = []
        try:
            with self.doubting(work.scope):
                for kind in work.kinds:
                    write = self._complete if kind == COMPLETE else self._delta
                    written.append(write(work, key, synced))
        except BaseException:
            for item in written:
                item.hidden.unlink(missing_ok=True)
            raise
        return written

    def check_list(self, work: CRLWork, listed: RowsFile) -> None:
        """Check a list that was just read whole against the predecessor.  Raises: CRLCheckFailed."""
        before = predecessor(work.completes, self._base_seq)
        if before is not None:
            changes = self.lists.changes.of(work.scope, before.seq, work.allocated.seq)
            check_against(self._bytes.rows(work.scope, before), changes, listed.blocks())

    @contextmanager
    def doubting(self, scope: CRLScope) -> Iterator[None]:
        """Give the scope's lists up, or have them and its published files read whole again, if what happens
        within says that they may be wrong."""
        try:
            yield
        except CRLCheckFailed as exc:
            self._bytes.distrust(scope)
            if not _LIST_FINDINGS.isdisjoint(exc.findings):
                self.lists.forget(scope)
            raise
        except (IntegrityError, DERError):
            self._bytes.distrust(scope)
            self.lists.distrust(scope)
            raise

    def tidy(self, work: CRLWork) -> None:
        """Keep of the scope what the CRLs that are published now need."""
        numbers = {record.number for record in work.completes}
        self._bytes.forget_others(work.scope, {*numbers, work.allocated.number})
        self.lists.tidy(
            work.scope, min((record.seq for record in work.completes), default=work.allocated.seq)
        )

    def _after(self, work: CRLWork) -> int:
        """Return the number of the oldest CRL that the changes must lead on from."""
        before = predecessor(work.completes, self._base_seq) if COMPLETE in work.kinds else None
        return min(item.seq for item in (work.allocated, work.base, before) if item is not None)

    # --- one file --------------------------------------------------------------------------------------

    def _complete(self, work: CRLWork, key: CAKey, synced: bool) -> WrittenCRL:
        scope, seq = work.scope, work.allocated.seq
        head, path = (
            self._head(work, COMPLETE, None),
            self._shelf.path(scope, COMPLETE, work.allocated.number),
        )
        with self.lists.file_at(scope, seq) as listed:
            hidden = make_crl(path, scope, head, listed, key, synced=synced)
            try:
                checked = read_and_check(hidden, scope, head, listed)
                self.check_list(work, listed)
                self._bytes.note(scope, head.number, hidden, checked)
            except BaseException:
                hidden.unlink(missing_ok=True)
                raise
        return WrittenCRL(COMPLETE, head, hidden, path, checked.sha256, checked.entries)

    def _delta(self, work: CRLWork, key: CAKey, synced: bool) -> WrittenCRL:
        scope, seq, base = work.scope, work.allocated.seq, work.base
        if base is None:
            raise ValueError(f"{scope.path}: a delta without a base")
        head, path = (
            self._head(work, DELTA, base.number),
            self._shelf.path(scope, DELTA, work.allocated.number),
        )
        record = next(record for record in work.completes if record.number == base.number)
        base_digest = self._bytes.digest(scope, record)
        changes = self.lists.changes.of(scope, base.seq, seq)
        before = self._rows_of_base(scope, record, base_digest, changes.keys())
        shown_at = self._shelf.cuts_between(scope, base.number, head.number)
        says = delta_rows(before, changes, shown_at)
        base_path = self._shelf.path(scope, COMPLETE, base.number)
        joins = Joining(base_path, base_digest, before, self.lists.digest_at(scope, seq))
        hidden = make_crl(path, scope, head, says, key, synced=synced)
        try:
            checked = read_and_check(hidden, scope, head, says, joins)
        except BaseException:
            hidden.unlink(missing_ok=True)
            raise
        return WrittenCRL(DELTA, head, hidden, path, checked.sha256, checked.entries)

    def _rows_of_base(self, scope: CRLScope, base: CRLRecord, digest: int, wanted: Keys) -> Rows:
        """Return what a base says of certificates, ascending: looked up in the list kept for it, or where
        that is gone, read from its file once more."""
        if not len(wanted):
            return empty_rows()
        found = self.lists.rows_of_list(scope, digest, wanted)
        if found is None:
            found = joined(rows_at(rows, wanted) for rows in self._bytes.rows(scope, base))
        return found

    def _head(self, work: CRLWork, kind: str, base_number: int | None) -> CRLHead:
        policy, allocated = work.scope.issuer.policy, work.allocated
        validity_s = policy.crl_validity_s if kind == COMPLETE else policy.delta_validity_s
        earlier = [issued(record) for record in work.current if record.kind == kind]
        until_s = next_update_s(allocated.this_update_s, validity_s, earlier)
        return CRLHead(allocated.number, base_number, allocated.this_update_s, until_s, work.expired_from_s)
