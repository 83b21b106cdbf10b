"""Published CRLs as they stand in the register and on disk.

Knows: which of a scope's CRLs still matter, that one whose file is gone or damaged is as if it had
never been, and copying every complete CRL into the archive.
Does not know: how a CRL is made, or when.
Source: Act arts. 16, 35 (the files are kept); RFC 5280 §5.2.4 (a base stays fetchable).
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import sqlalchemy as sa

from certstatus.crl import ParsedCRL, parse_certificate_list
from certstatus.crl_catalogue import COMPLETE, DELTA
from certstatus.durable import write_durable
from certstatus.errors import IntegrityError
from issuance import schema
from issuance.crl_register import PUBLISHED, CRLRecord
from issuance.store import Store
from publisher.crl_catalogue import listed
from publisher.crl_scopes import CRLFolders, CRLScope

# An expired file stays this long: a host may hold an older catalogue for a moment.
EXPIRED_FILE_S = 3600


class CRLShelf:
    """The published CRLs of one installation."""

    def __init__(self, store: Store, folders: CRLFolders) -> None:
        self._store = store
        self.folders = folders

    def path(self, scope: CRLScope, kind: str, number: int) -> Path:
        """Where the file of a CRL is, or is to be."""
        return self.folders.crl / scope.file(kind, number)

    def current(self, scope: CRLScope, now_s: int) -> list[CRLRecord]:
        """Return the CRLs that are to be served and whose files are there, by rising number."""
        there = [
            record
            for record in self._published(scope, now_s)
            if _has_size(self.path(scope, record.kind, record.number), record.size)
        ]
        return listed(there, now_s)

    def kept(self, scope: CRLScope, now_s: int) -> list[CRLRecord]:
        """Return the CRLs whose files must not be removed yet."""
        return listed(self._published(scope, now_s), now_s - EXPIRED_FILE_S)

    def read(self, scope: CRLScope, record: CRLRecord) -> ParsedCRL:
        """Read a published CRL from its file.

        Raises: IntegrityError — the file has not the registered bytes, or is of a scope of another name
                (an earlier version's); it is put out of the way, so that the next attempt does without it.
        """
        path = self.path(scope, record.kind, record.number)
        content = path.read_bytes()
        if hashlib.sha256(content).digest() != record.sha256:
            path.rename(path.with_name(f".{path.name}.damaged"))
            raise IntegrityError(f"{path}: another SHA-256 than the register's")
        parsed = parse_certificate_list(content)
        if parsed.idp_der != scope.idp_der:
            # No base for a delta, whose scope must be the same (RFC 5280 §5.2.4).
            path.rename(path.with_name(f".{path.name}.other-scope"))
            raise IntegrityError(f"{path}: another issuing distribution point than its scope's")
        return parsed

    def archive(self, scope: CRLScope, record: CRLRecord) -> None:
        """Copy a complete CRL into the archive, unless it is there.

        A copy and not a second name: what happens to the served file does not happen to this one.
        Raises: OSError; IntegrityError — the served file is damaged.
        """
        target = self.folders.archive / scope.file(record.kind, record.number)
        if record.kind != COMPLETE or _has_size(target, record.size):
            return
        content = self.path(scope, record.kind, record.number).read_bytes()
        if hashlib.sha256(content).digest() != record.sha256:
            raise IntegrityError(f"{target.name}: the served file has another SHA-256 than the register's")
        target.parent.mkdir(parents=True, exist_ok=True)
        write_durable(target, content)

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

    def _published(self, scope: CRLScope, now_s: int) -> list[CRLRecord]:
        """Return published CRLs: the newest of each kind, those not over for long, and their bases."""
        table = schema.crl
        mine = sa.and_(
            table.c.issuer_id == scope.issuer.issuer_id,
            table.c.scope == scope.name,
            table.c.state == PUBLISHED,
        )
        query = sa.select(table).where(mine)
        newest = query.order_by(table.c.number.desc()).limit(1)
        with self._store.reading(repeatable=True) as connection:
            rows = [
                *connection.execute(query.where(table.c.next_update_s > now_s - 2 * EXPIRED_FILE_S)),
                *connection.execute(newest.where(table.c.kind == COMPLETE)),
                *connection.execute(newest.where(table.c.kind == DELTA)),
            ]
            bases = {row.base_number for row in rows if row.base_number is not None}
            rows += connection.execute(query.where(table.c.kind == COMPLETE, table.c.number.in_(bases)))
        records = {(row.number, row.kind): CRLRecord(*row) for row in rows}
        return [records[key] for key in sorted(records)]


def _has_size(path: Path, size: int | None) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False
