"""Published CRLs as they stand in the register and on disk.

Knows: which of a scope's CRLs still matter, that one whose file is gone or damaged is as if it had
never been, and that every complete CRL that was out belongs into the archive.
Does not know: how a CRL is made, or when.
Source: Act arts. 16, 35 (the files are kept); RFC 5280 §5.2.4 (a base stays fetchable).
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import sqlalchemy as sa

from certstatus import clock
from certstatus.clock import DAY_S
from certstatus.crl_catalogue import COMPLETE
from certstatus.crl_pack import PackedCRL, issuer_mark
from certstatus.errors import IntegrityError
from issuance import schema
from issuance.crl_register import PUBLISHED, CRLRecord, ScopeKey
from issuance.store import Store
from publisher.crl_archive import ArchiveWriter
from publisher.crl_catalogue import listed
from publisher.crl_recent import deltas_over, recent
from publisher.crl_scopes import CRLFolders, CRLScope

log = logging.getLogger(__name__)

# An expired file stays this long: a host may hold an older catalogue for a moment.
EXPIRED_FILE_S = 3600


class CRLShelf:
    """The published CRLs of one installation."""

    def __init__(
        self, store: Store, folders: CRLFolders, monotonic_s: Callable[[], float] = clock.monotonic_s
    ) -> None:
        self._store = store
        self.folders = folders
        self._crl = str(folders.crl)
        self.writer = ArchiveWriter(folders.archive, monotonic_s)

    def path(self, scope: CRLScope, kind: str, number: int) -> Path:
        """Where the file of a CRL is, or is to be."""
        return self.folders.crl / scope.file(kind, number)

    def name(self, scope: CRLScope, record: CRLRecord) -> str:
        """Where a published CRL's file is, as a plain string: thousands are looked for in each tick."""
        return f"{self._crl}/{scope.file(record.kind, record.number)}"

    def has_file(self, scope: CRLScope, record: CRLRecord) -> bool:
        """Say whether a published CRL's file is there, by its size."""
        return record.size is not None and is_file_of(self.name(scope, record), record.size)

    def files(self, scope: CRLScope) -> list[Path]:
        """Return all files where the scope's are; a folder among them is nothing of ours."""
        place = self.folders.crl / scope.path
        return [path for path in place.iterdir() if not path.is_dir()] if place.is_dir() else []

    def current(self, scopes: Collection[CRLScope], now_s: int) -> dict[str, list[CRLRecord]]:
        """Return, by the scope's path, the CRLs that are to be served and whose files are there, by rising
        number."""
        published = self._published(scopes, now_s)
        return {
            scope.path: listed(
                [record for record in published[scope.key] if self.has_file(scope, record)],
                now_s,
                at_rest=scope.is_at_rest(now_s),
            )
            for scope in scopes
        }

    def kept(self, scopes: Collection[CRLScope], now_s: int) -> dict[str, list[CRLRecord]]:
        """Return, by path, the CRLs whose files must stay for now: deltas as long as their base."""
        published = self._published(scopes, now_s)
        at_rest = {scope.key: scope.is_at_rest(now_s) for scope in scopes}
        kept = {
            key: listed(records, now_s - EXPIRED_FILE_S, at_rest=at_rest[key])
            for key, records in published.items()
        }
        bases = {
            key: {
                record.number
                for record in listed(records, now_s, at_rest=at_rest[key])
                if record.kind == COMPLETE
            }
            for key, records in published.items()
        }
        for record in deltas_over(self._store, bases):
            kept[record.issuer_id, record.scope].append(record)
        return {scope.path: list(dict.fromkeys(kept[scope.key])) for scope in scopes}

    def archive(self, crls: Sequence[tuple[CRLScope, CRLRecord]], now_s: int) -> dict[str, Exception]:
        """Put the complete ones of these CRLs that were out into the archive, unless they are there.

        Copies and not second names: what happens to a served file does not happen to these.
        Gives: by the scope's path, OSError, or IntegrityError where a served file is damaged.
        """
        limit_s = self.writer.retention.limit(now_s)
        due = [(scope, record) for scope, record in crls if _is_retained(scope, record, limit_s)]
        outcomes = self.writer.add_all(
            [(packed(scope, record), self.path(scope, record.kind, record.number)) for scope, record in due]
        )
        return {
            scope.path: outcome
            for (scope, _), outcome in zip(due, outcomes, strict=True)
            if isinstance(outcome, Exception)
        }

    def archive_leftovers(self, scope: CRLScope, kept: list[CRLRecord], now_s: int) -> None:
        """Archive what was out, is about to be removed, and may have missed the archive so far.

        So after a publisher was killed right after it had moved the pointer, and stayed away for long.
        Raises: OSError.
        """
        numbers = numbered_files(self.folders.crl / scope.path).keys()
        for number in sorted(numbers - {record.number for record in kept if record.kind == COMPLETE}):
            record = self.published(scope, number)
            for trouble in self.archive([(scope, record)] if record else [], now_s).values():
                if not isinstance(trouble, IntegrityError):
                    raise trouble
                log.error("%s", trouble)

    def published(self, scope: CRLScope, number: int) -> CRLRecord | None:
        """Return the register's line of a complete CRL that was published, if there is one."""
        table = schema.crl
        with self._store.reading() as connection:
            row = connection.execute(
                sa.select(table).where(
                    table.c.issuer_id == scope.issuer.issuer_id,
                    table.c.scope == scope.name,
                    table.c.number == number,
                    table.c.kind == COMPLETE,
                    table.c.state == PUBLISHED,
                )
            ).one_or_none()
        return None if row is None else CRLRecord(*row)

    def cuts_between(self, scope: CRLScope, base_number: int, number: int) -> list[int]:
        """Return the numbers of the sequence at which CRLs after the base and before *number* were
        made, also of those that were withdrawn: better one removeFromCRL too many than one too few."""
        table = schema.crl
        with self._store.reading() as connection:
            rows = connection.execute(
                sa.select(table.c.seq)
                .where(
                    table.c.issuer_id == scope.issuer.issuer_id,
                    table.c.scope == scope.name,
                    table.c.number > base_number,
                    table.c.number < number,
                )
                .order_by(table.c.seq)
            )
            return list(rows.scalars())

    def _published(self, scopes: Collection[CRLScope], now_s: int) -> dict[ScopeKey, list[CRLRecord]]:
        """Return published CRLs: the newest of each kind, those not over for long, and their bases."""
        return recent(self._store, [scope.key for scope in scopes], now_s - 2 * EXPIRED_FILE_S)


def _is_retained(scope: CRLScope, record: CRLRecord, now_s: int) -> bool:
    """Say whether a published CRL belongs into the archive: it is complete, was out, and not for too long."""
    if record.kind != COMPLETE or record.published_ms is None:
        return False
    # Else the newest one of an issuer that publishes no more: out, and retained no longer.
    return (record.next_update_s or 0) + scope.issuer.policy.crl_archive_days * DAY_S >= now_s


def is_file_of(path: str, size: int) -> bool:
    """Say whether there is a file of so many octets."""
    try:
        return os.stat(path).st_size == size
    except OSError:
        return False


def numbered_files(folder: Path) -> dict[int, Path]:
    """Return the files in *folder* whose names are those of complete CRLs, by number."""
    paths = folder.iterdir() if folder.is_dir() else ()
    return {int(path.stem): path for path in paths if re.fullmatch(r"[1-9][0-9]{0,18}\.crl", path.name)}


def packed(scope: CRLScope, record: CRLRecord) -> PackedCRL:
    """Return the archive's row of a complete CRL, without its place."""
    return PackedCRL(
        path=scope.path,
        issuer=issuer_mark(scope.issuer.spki_der),
        number=record.number,
        seq=record.seq,
        offset=0,
        size=record.size or 0,
        this_update_s=record.this_update_s,
        next_update_s=record.next_update_s or 0,
        published_ms=record.published_ms or 0,
        sha256=record.sha256 or b"",
    )
