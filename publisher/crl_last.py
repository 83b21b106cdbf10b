"""A scope's last CRL, made ahead: for when its CA key is lost, or known to others.

::

    prepare   cut at S, number beyond all others ─▶ signed ─▶ STATE/crl-last, checked ─▶ register: prepared
    publish   checked again ─▶ copied to where files are served ─▶ register: published, scope over

Knows: that it says what was so at S, complete and without end (nextUpdate 99991231235959Z); that its
number comes from the store's time and lies beyond all that regular CRLs can have, so regular ones made
in between stay lower and no number is given out twice, whatever was restored; and that whoever has
the file can put an end to the belief in all later CRLs: it is for its owner only.
Does not know: the catalogue, nor when one is prepared or published.
Source: RFC 5280 §5.1.2.5 (nextUpdate), §4.1.2.5 (99991231235959Z), §5.2.3; Act arts. 14, 33.

What it cannot say: that everything is revoked as of an event that has yet to come.  A key that is
lost signs nothing after the event; one that others have still signs, and then a last CRL made at the
event is the better one.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from certstatus import clock
from certstatus.crl import NO_END_S
from certstatus.crl_catalogue import COMPLETE
from certstatus.crl_rows import Rows, joined, keys
from certstatus.crl_rows_merge import same_rows
from certstatus.crl_stream_decode import CRLFile
from certstatus.durable import sync_folder
from certstatus.errors import CRLCheckFailed, IntegrityError, UnknownCertificate
from certstatus.snapshot import written_durably
from issuance.ca_keys import CAKeyFolder
from issuance.crl_register import LAST_NUMBER_MIN, PREPARED, CRLKey, CRLRecord, Fence, ScopeKey
from issuance.published_crls import PREPARED_FOLDER
from issuance.store import Store
from publisher.crl_compare import check_last, check_sha256
from publisher.crl_expired import kept_from_s
from publisher.crl_list_changes import brought_forward, rows_at
from publisher.crl_lists import ScopeNeed
from publisher.crl_make import CRLHead, make_crl, read_and_check
from publisher.crl_scopes import CRLScope
from publisher.crl_shelf import CRLShelf, numbered_files
from publisher.crl_write import CRLWork, CRLWriter
from publisher.fenced_key import fenced

_COPIED_AT_ONCE = 1 << 20


@dataclass(frozen=True, slots=True)
class PreparedCRL:
    """A last CRL that lies ready; ``seq`` is S, None where the register that knew it is lost."""

    scope: str
    number: int
    seq: int | None
    this_update_s: int
    entries: int
    sha256: bytes
    file: Path


@dataclass(frozen=True, slots=True)
class Missing:
    """What a prepared CRL lacks by now: listed since S, and listed at S but no more, or otherwise."""

    listed_since: int
    changed_since: int


class LastCRLs:
    """The last CRLs of one installation."""

    def __init__(
        self,
        store: Store,
        keys: CAKeyFolder,
        state: Path,
        shelf: CRLShelf,
        writer: CRLWriter,
        now_ms: Callable[[], int],
    ) -> None:
        self._store = store
        self._keys = keys
        self._folder = state / PREPARED_FOLDER
        self._shelf = shelf
        self._writer = writer
        self._lists = writer.lists
        self._now_ms = now_ms

    # --- making one ------------------------------------------------------------------------------------

    def prepare(self, scope: CRLScope, fence: Fence) -> PreparedCRL:
        """Make the scope's last CRL as of now; one prepared before is withdrawn, and its file removed.

        Raises: PolicyViolation — the last CRL is out; KeyFileError; CRLCheckFailed; OSError; FencedOff.
                What was prepared before stays so.
        """
        issuer_id = scope.issuer.issuer_id
        key = fenced(self._keys.private_key(issuer_id), partial(self._store.require_publisher, fence))
        allocated = self._store.allocate_last_crl(issuer_id, scope.name, fence, self._now_ms)
        expired_from_s = kept_from_s(self._store, scope.issuer)
        head = CRLHead(allocated.number, None, allocated.this_update_s, NO_END_S, expired_from_s)
        current = self._shelf.current([scope], allocated.this_update_s)[scope.path]
        work = CRLWork(scope, [COMPLETE], allocated, None, current, expired_from_s)
        self._writer.prepare([work])
        path = self._path(scope, head.number)
        # The top is closed to others; what is below it needs no closing of its own.
        self._folder.mkdir(mode=0o700, exist_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._writer.doubting(scope), self._lists.file_at(scope, allocated.seq) as listed:
            hidden = make_crl(path, _without_freshest(scope), head, listed, key)
            try:
                hidden.chmod(0o600)
                checked = read_and_check(hidden, _without_freshest(scope), head, listed)
                self._writer.check_list(work, listed)
                size = hidden.stat().st_size
                os.rename(hidden, path)
            except BaseException:
                hidden.unlink(missing_ok=True)
                raise
        sync_folder(path.parent)
        # Looked for before that: whoever takes over has made others since.
        others = [other for other in self._files(scope) if other != path]
        self._store.record_prepared_crl(
            issuer_id,
            scope.name,
            head.number,
            next_update_s=NO_END_S,
            sha256=checked.sha256,
            size=size,
            fence=fence,
        )
        _remove(others)
        return PreparedCRL(
            scope.path, head.number, allocated.seq, head.this_update_s, checked.entries, checked.sha256, path
        )

    def due(self, scopes: Sequence[CRLScope], now_s: int) -> list[CRLScope]:
        """Return those of *scopes* of which the policy wants another one prepared."""
        wanting = [scope for scope in scopes if scope.issuer.policy.last_crl_days]
        if not wanting:
            return []
        numbers = self._store.last_crl_numbers([scope.key for scope in wanting])
        prepared = self._prepared(wanting)
        return [
            scope
            for scope in wanting
            if numbers.get(scope.key, 0) < LAST_NUMBER_MIN
            and prepared.get(scope.key, 0) + scope.issuer.policy.last_crl_days * clock.DAY_S <= now_s
        ]

    def is_over(self, scope: CRLScope) -> bool:
        """Say whether the scope's last CRL is out."""
        return self._store.last_crl_number(scope.issuer.issuer_id, scope.name) >= LAST_NUMBER_MIN

    # --- publishing it ---------------------------------------------------------------------------------

    def found(self, scope: CRLScope) -> tuple[PreparedCRL, Missing]:
        """Return the one prepared last, from its file, with all checked that can be; and what it lacks.

        Raises: UnknownCertificate — there is none; IntegrityError — the file is not the one that was
                prepared; CRLCheckFailed — with the changes since S it is not the list of now, or it does not
                fit the newest complete CRL that is out and what has changed in between.
        """
        number, path, record = self._newest_file(scope)
        if number < LAST_NUMBER_MIN:
            raise IntegrityError(f"{path}: not the number of a last CRL")
        if record is not None:
            check_sha256(path, record.sha256)
        with CRLFile(path) as crl:
            this_update_s = crl.head.this_update_s if record is None else record.this_update_s
            # The policy may be another one by now; what it kept when this was signed, it keeps.
            expired_from_s = crl.head.expired_certs_from_s
        head = CRLHead(number, None, this_update_s, NO_END_S, expired_from_s)
        # Where the register has lost it, its signature vouches for the entries.
        checked = read_and_check(path, _without_freshest(scope), head, None)
        if record is not None:
            check_last(self._store, self._shelf, scope, path, record.seq, self._now_ms() // 1000)
        seq = None if record is None else record.seq
        prepared = PreparedCRL(scope.path, number, seq, this_update_s, checked.entries, checked.sha256, path)
        return prepared, self._missing(scope, prepared)

    def _missing(self, scope: CRLScope, prepared: PreparedCRL) -> Missing:
        """Return what has come to the list, or changed in it, since S; of an S that nobody knows, by
        comparing both lists whole."""
        now = self._store.state()
        since = now.seq if prepared.seq is None else prepared.seq
        self._lists.prepare([ScopeNeed(scope, since, now.seq)], now)
        with (
            self._writer.doubting(scope),
            self._lists.file_at(scope, now.seq) as listed,
            CRLFile(prepared.file) as crl,
        ):
            if prepared.seq is None:
                return _difference(joined(crl.rows()), joined(listed.checked_blocks()))
            changes = self._lists.changes.of(scope, since, now.seq)
            if not same_rows(brought_forward(crl.rows(), changes), listed.checked_blocks()):
                raise CRLCheckFailed(["certstatus.crl_entries_differ"])
            touched = changes.keys()
            before = joined(rows_at(rows, touched) for rows in crl.rows())
            return _difference(before, listed.look_up(touched))

    def _newest_file(self, scope: CRLScope) -> tuple[int, Path, CRLRecord | None]:
        """Return the newest file that is prepared, or that the register does not know at all."""
        for number, path in sorted(numbered_files(self._folder / scope.path).items(), reverse=True):
            record = self._record(scope, number)
            # Another state: whoever prepared it was killed before the register had it.
            if record is None or record.state == PREPARED:
                return number, path, record
        raise UnknownCertificate(f"no last CRL is prepared for {scope.path}")

    def publish(self, scope: CRLScope, prepared: PreparedCRL, fence: Fence) -> Path:
        """Put a prepared CRL that was ``found`` in its place, and end the scope.

        Killed before the register has it, it is prepared as before.
        Raises: OSError; FencedOff; CRLCheckFailed — the copy is not what was found.
        """
        path = self._shelf.path(scope, COMPLETE, prepared.number)
        path.parent.mkdir(parents=True, exist_ok=True)
        hashed, size = hashlib.sha256(), 0
        with prepared.file.open("rb") as kept, written_durably(path) as copy:
            while content := kept.read(_COPIED_AT_ONCE):
                hashed.update(content)
                size += copy.write(content)
            if hashed.digest() != prepared.sha256:
                raise CRLCheckFailed(["certstatus.crl_head_differs"])
        self._store.publish_last_crl(
            scope.issuer.issuer_id,
            scope.name,
            prepared.number,
            this_update_s=prepared.this_update_s,
            next_update_s=NO_END_S,
            sha256=prepared.sha256,
            size=size,
            fence=fence,
        )
        return path

    def clear(self, scope: CRLScope) -> None:
        """Remove what lies prepared for a scope whose last CRL is out."""
        _remove(self._files(scope))

    # --- what there is ---------------------------------------------------------------------------------

    def _path(self, scope: CRLScope, number: int) -> Path:
        return self._folder / scope.file(COMPLETE, number)

    def _prepared(self, scopes: Sequence[CRLScope]) -> dict[ScopeKey, int]:
        """Return the time of the one prepared last of each scope, POSIX s, if its file is there."""
        by_key = {scope.key: scope for scope in scopes}
        found: dict[ScopeKey, int] = {}
        for record in self._store.prepared_crls(list(by_key)):
            key = record.issuer_id, record.scope
            if self._path(by_key[key], record.number).exists():
                found[key] = max(found.get(key, 0), record.this_update_s)
        return found

    def _record(self, scope: CRLScope, number: int) -> CRLRecord | None:
        return self._store.crl(CRLKey(*scope.key, number, COMPLETE))

    def _files(self, scope: CRLScope) -> list[Path]:
        """Return what lies there of the scope, and what somebody was killed over."""
        folder = self._folder / scope.path
        return [*numbered_files(folder).values(), *folder.glob(".*.new")]


def _remove(files: list[Path]) -> None:
    for path in files:
        path.unlink(missing_ok=True)


def _difference(before: Rows, after: Rows) -> Missing:
    """Return in what two lists differ, or two parts of them that have rows of the same certificates."""
    kept, other = rows_at(before, keys(after)), rows_at(after, keys(before))
    same = sum(one.tobytes() == another.tobytes() for one, another in zip(kept, other, strict=True))
    return Missing(len(after) - len(other), len(before) - same)


def _without_freshest(scope: CRLScope) -> CRLScope:
    """Return the scope as its last CRL has it: no delta follows that it could point to."""
    policy = replace(scope.issuer.policy, freshest_crl=False)
    return replace(scope, issuer=replace(scope.issuer, policy=policy))
