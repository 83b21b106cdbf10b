"""A list against the one that is published: a last CRL before it goes out, and why a CRL is withheld.

::

    newest published complete CRL ─▶ its entries, the changes since ─▶ the list that must be
                                                                        │ compared with
                                      the register's own ◀── or ──▶ that of a last CRL

Knows: these comparisons of lists as of now, and in which certificates two lists differ.  It changes nothing:
no number is used, no file is touched.  The register's list is built block by block, like a kept one, beside
the installation: in the system's folder for temporary files.
Does not know: which of the two is right; regular CRLs, which are compared as they are made
(``crl_predecessor``).
Memory: what ``crl_list_build`` takes, the changes since the published CRL, and the differences.
Source: RFC 5280 §5.2.4 (what a list at a later time must be).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np

from certstatus.crl_catalogue import COMPLETE
from certstatus.crl_entry import CRLEntry, serial_value
from certstatus.crl_rows import Rows, empty_rows, keys, last_key
from certstatus.crl_rows_merge import same_rows
from certstatus.crl_stream_decode import CRLFile
from certstatus.errors import CRLCheckFailed, IntegrityError, UnknownCertificate
from issuance.crl_register import CRLRecord
from issuance.store import Store
from publisher.crl_change_rows import Changes
from publisher.crl_list_build import built_lists
from publisher.crl_list_changes import brought_forward, by_serial
from publisher.crl_predecessor import FINDING, predecessor
from publisher.crl_scopes import CRLFolders, CRLScope, scopes_of
from publisher.crl_shelf import CRLShelf


class Difference(NamedTuple):
    """A certificate of which two lists say different things; None: it is not on the list.

    ``published``: by the published CRL and the changes since; ``register``: by all changes there are.
    """

    serial: bytes
    published: CRLEntry | None
    register: CRLEntry | None


class Comparison(NamedTuple):
    """What a scope's list is compared with: the published complete CRL and its file, None without one.

    ``entries``: of the register's list.
    """

    scope: str
    predecessor: CRLRecord | None
    file: Path | None
    entries: int
    differences: list[Difference]


def compare(store: Store, state: Path, path: str, now_s: int) -> Comparison:
    """Compare the register's list of a scope (``sign/g1/all``) with the published one and what came since.

    Raises: UnknownCertificate — no such scope; IntegrityError — the published file has other octets than
            those registered, so it is no evidence of anything; CRLCheckFailed — an entry that no CRL has room
            for; OSError — no room for temporary files.
    """
    scope = next((scope for scope in scopes_of(store) if scope.path == path), None)
    if scope is None:
        raise UnknownCertificate(f"no CRL scope {path} that this installation publishes")
    shelf = CRLShelf(store, CRLFolders(state))
    out = newest_out(store, shelf, scope, now_s)
    # After that look, for one that is published meanwhile must not lie beyond.
    seq = store.state().seq
    with (
        TemporaryDirectory(prefix="certstatus-") as folder,
        closing(
            built_lists(store, scope.issuer.issuer_id, [(scope.partition_id, Path(folder))], seq)
        ) as built,
    ):
        outcome = next(built)
        if isinstance(outcome, Exception):
            raise outcome
        _, blocks = outcome
        register = _Counted(blocks)
        if out is None:
            for _ in register:
                pass
            return Comparison(path, None, None, register.count, [])
        file = shelf.path(scope, COMPLETE, out.number)
        check_sha256(file, out.sha256)
        changes = Changes.of(scope.changes(store, out.seq, seq))
        with CRLFile(file) as crl:
            found = list(differences(brought_forward(crl.rows(), changes), register))
        return Comparison(path, out, file, register.count, found)


class _Counted:
    """Blocks of rows that are counted as they are taken."""

    def __init__(self, blocks: Iterator[Rows]) -> None:
        self._blocks = blocks
        self.count = 0

    def __iter__(self) -> Iterator[Rows]:
        return self

    def __next__(self) -> Rows:
        rows = next(self._blocks)
        self.count += len(rows)
        return rows


def differences(published: Iterable[Rows], register: Iterable[Rows]) -> Iterator[Difference]:
    """Yield in what two lists differ, by rising serial number; both are read to their ends."""
    one, other = _Ahead(published), _Ahead(register)
    while True:
        left, right = one.rows(), other.rows()
        if not len(left) and not len(right):
            return
        upto = min(last_key(rows) for rows in (left, right) if len(rows))
        ours, theirs = one.take(upto), other.take(upto)
        if ours.tobytes() != theirs.tobytes():
            said, registered = by_serial(ours), by_serial(theirs)
            for serial in sorted(said.keys() | registered.keys(), key=_as_number):
                if said.get(serial) != registered.get(serial):
                    yield Difference(serial, said.get(serial), registered.get(serial))


class _Ahead:
    """Blocks of rows, of which a part is taken at a time."""

    def __init__(self, blocks: Iterable[Rows]) -> None:
        self._blocks = iter(blocks)
        self._rows = empty_rows()

    def rows(self) -> Rows:
        """Return what comes next, nothing at the end."""
        while not len(self._rows):
            rows = next(self._blocks, None)
            if rows is None:
                break
            self._rows = rows
        return self._rows

    def take(self, upto: bytes) -> Rows:
        """Return those that come next, up to the key *upto*."""
        there = keys(self._rows)
        end = int(np.searchsorted(there, np.array([upto], there.dtype), side="right")[0])
        taken, self._rows = self._rows[:end], self._rows[end:]
        return taken


def _as_number(serial: bytes) -> int:
    return serial_value(CRLEntry(serial, 0))


def check_last(store: Store, shelf: CRLShelf, scope: CRLScope, path: Path, seq: int, now_s: int) -> None:
    """Check the last CRL in the file *path*, cut at *seq*, against the newest complete CRL that is out.

    The earlier of the two and the changes between them give the later one, whichever that is.
    Raises: CRLCheckFailed — they do not; IntegrityError — the published file is damaged.
    """
    out = newest_out(store, shelf, scope, now_s)
    if out is None or seq < store.state().base_seq:
        return
    published = shelf.path(scope, COMPLETE, out.number)
    check_sha256(published, out.sha256)
    before, after = (published, path) if out.seq <= seq else (path, published)
    changes = Changes.of(scope.changes(store, *sorted((out.seq, seq))))
    with CRLFile(before) as earlier, CRLFile(after) as later:
        if not same_rows(brought_forward(earlier.rows(), changes), later.rows()):
            raise CRLCheckFailed([FINDING])


def check_sha256(path: Path, sha256: bytes | None) -> None:
    """Check that a file has the octets that are registered.  Raises: IntegrityError, OSError."""
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").digest() != sha256:
            raise IntegrityError(f"{path}: another SHA-256 than the register's")


def newest_out(store: Store, shelf: CRLShelf, scope: CRLScope, now_s: int) -> CRLRecord | None:
    """Return the published complete CRL that others are compared with, None if there is none."""
    completes = [record for record in shelf.current([scope], now_s)[scope.path] if record.kind == COMPLETE]
    return predecessor(completes, store.state().base_seq)
