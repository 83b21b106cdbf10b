"""What was published about one certificate at a time in the past, and what the register held then.

Knows: that every certificate stands on its key's whole list, so that this one alone is looked at, that a CRL
was out from the moment the catalogue named it, that of each kind the one with the highest number counts, what
a complete CRL said from its archived octets, and what a delta said from its file while its base is served and
from the change sequence after that.
Does not know: what OCSP answered; who was given which CRL (provisions).
Source: Act arts. 16, 35 (files are kept); RFC 5280 §5.2.3-5.2.4.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from certstatus import clock
from certstatus.crl_archive import ArchivedCRL, CRLArchive
from certstatus.crl_catalogue import COMPLETE, DELTA
from certstatus.crl_entry import CRLEntry
from certstatus.crl_pack import issuer_mark
from certstatus.crl_reason import CRLReason
from certstatus.crl_stream_decode import FoundEntry, find_in
from certstatus.errors import ArchiveDamaged, DERError, PastUnavailable, PolicyViolation
from issuance import schema
from issuance.crl_register import PUBLISHED, CRLRecord
from issuance.history import CertificatePast, certificate_past, standings
from issuance.issuers import IssuerRecord, issuer_by_id
from issuance.revoke import FoundCertificate
from issuance.store import Store
from issuance.transitions import Standing
from publisher.crl_entries import delta_entries, fold
from publisher.crl_scopes import CRLFolders, CRLScope
from publisher.crl_shelf import CRLShelf

# Where it was read what a CRL says.
FILE, ARCHIVE, SEQUENCE = "file", "archive", "sequence"


@dataclass(frozen=True, slots=True)
class PastCRL:
    """A CRL that was out; ``published_ms`` None where nobody wrote it down; ``entry``: what it says."""

    kind: str
    number: int
    base_number: int | None
    this_update_s: int
    next_update_s: int
    published_ms: int | None
    sha256: bytes
    source: str
    entry: CRLEntry | None


@dataclass(frozen=True, slots=True)
class Listing:
    """A CRL that lists a certificate."""

    kind: str
    number: int
    this_update_s: int
    published_ms: int | None


@dataclass(frozen=True, slots=True)
class PastAnswer:
    """What was said of a certificate at ``at_ms``.

    ``standing``: the register's, None before it was issued.  ``listed``: the entry that a reader of the
    complete CRL and the delta had, None if none.  ``first``, ``last``: the CRLs, of all until today, that
    listed it first and last; ``is_listed_now``: the next one will list it as well.
    """

    service: str
    generation: int
    serial: bytes
    at_ms: int
    standing: Standing | None
    complete: PastCRL | None
    delta: PastCRL | None
    listed: CRLEntry | None
    first: Listing | None
    last: Listing | None
    is_listed_now: bool


def published_at(store: Store, state: Path, found: FoundCertificate, at_ms: int, now_ms: int) -> PastAnswer:
    """Return what was published about a certificate at *at_ms* (POSIX ms), from the installation in *state*.

    Raises: PastUnavailable — that time is yet to come, its issuer was not there yet, or the complete CRL of
            then is retained no longer; PolicyViolation — its CA publishes elsewhere; ArchiveDamaged — that
            CRL was kept, and is not what it was.
    """
    issuer = issuer_by_id(store, found.issuer_id)
    _check_time(store, issuer, at_ms, now_ms)
    with store.reading(repeatable=True) as connection:
        past = certificate_past(connection, found.service, found.serial)
        seq = past.seq_at(at_ms)
        standing = standings(connection, [past.issued_seq], seq).get(past.issued_seq)
    reader = _Reader(store, CRLScope(issuer), CRLFolders(state), past, found.serial)
    complete, delta = reader.complete(at_ms), reader.delta(at_ms)
    first, last = reader.first(), reader.last()
    return PastAnswer(
        service=found.service,
        generation=issuer.generation,
        serial=found.serial,
        at_ms=at_ms,
        standing=standing,
        complete=complete,
        delta=delta,
        listed=_listed(complete, delta),
        first=first,
        last=last,
        is_listed_now=found.serial in fold(past.changes),
    )


def _check_time(store: Store, issuer: IssuerRecord, at_ms: int, now_ms: int) -> None:
    which = f"{issuer.service} generation {issuer.generation}"
    if not issuer.revokes_here:
        raise PolicyViolation(f"{which} publishes its CRLs elsewhere")
    if at_ms > max(now_ms, store.state().time_ms):
        raise PastUnavailable(f"{clock.utc_text(at_ms // 1000)} is yet to come")
    table = schema.change
    with store.reading() as connection:
        made_ms = connection.execute(
            sa.select(table.c.recorded_ms).where(table.c.seq == issuer.created_seq)
        ).scalar()
    if made_ms is not None and at_ms < made_ms:
        raise PastUnavailable(f"{which} was not there before {clock.utc_text(made_ms // 1000)}")


def _listed(complete: PastCRL | None, delta: PastCRL | None) -> CRLEntry | None:
    """Return the entry that a reader of both had (RFC 5280 §5.2.4)."""
    if complete is None:
        return None
    fits = (
        delta is not None
        and delta.base_number is not None
        and delta.base_number <= complete.number < delta.number
    )
    if not fits or delta is None or delta.entry is None:
        return complete.entry
    return None if delta.entry.reason == CRLReason.REMOVE_FROM_CRL else delta.entry


class _Reader:
    """The CRLs of one scope, asked about one certificate; *past*: all that happened to it."""

    def __init__(
        self, store: Store, scope: CRLScope, folders: CRLFolders, past: CertificatePast, serial: bytes
    ) -> None:
        self._store = store
        self._scope = scope
        self._shelf = CRLShelf(store, folders)
        self._archive = CRLArchive(folders.archive)
        self._mark = issuer_mark(scope.issuer.spki_der)
        self._past = past
        self._serial = serial

    # --- which were out --------------------------------------------------------------------------------

    def complete(self, at_ms: int) -> PastCRL | None:
        """Return the complete CRL that was out at *at_ms*, if one was."""
        record = self._out(COMPLETE, at_ms)
        out_ms = 0 if record is None else _out_ms(record)
        # After a restore the register lacks what was published since the backup.
        archived = self._archive.newest_out(
            self._scope.path, self._mark, at_ms, clock.jst_day_number(out_ms // 1000)
        )
        if archived is not None and (record is None or archived.crl.number > record.number):
            crl = archived.crl
            return PastCRL(
                COMPLETE,
                crl.number,
                None,
                crl.this_update_s,
                crl.next_update_s,
                crl.published_ms,
                crl.sha256,
                ARCHIVE,
                self._entry_archived(archived),
            )
        if record is None:
            return None
        source, entry = self._said(record)
        return _past_crl(record, source, entry)

    def delta(self, at_ms: int) -> PastCRL | None:
        """Return the newest delta that was out at *at_ms*, if one was."""
        record = self._out(DELTA, at_ms)
        if record is None:
            return None
        found = self._in_file(self._shelf.path(self._scope, record.kind, record.number), record)
        if found is not None:
            return _past_crl(record, FILE, found.entry)
        return _past_crl(record, SEQUENCE, self._entry_by_changes(record))

    def _out(self, kind: str, at_ms: int) -> CRLRecord | None:
        table = schema.crl
        out_ms = sa.func.coalesce(sa.func.nullif(table.c.published_ms, 0), table.c.this_update_s * 1000)
        query = (
            self._published()
            .where(table.c.kind == kind, out_ms <= at_ms)
            .order_by(table.c.number.desc())
            .limit(1)
        )
        return self._one(query)

    def _published(self) -> sa.Select[Any]:
        """All of the scope that ever were out."""
        table = schema.crl
        return sa.select(table).where(
            table.c.issuer_id == self._scope.issuer.issuer_id,
            table.c.scope == self._scope.name,
            table.c.state == PUBLISHED,
            table.c.published_ms.is_not(None),
        )

    def _one(self, query: sa.Select[Any]) -> CRLRecord | None:
        with self._store.reading() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else CRLRecord(*row)

    # --- what they say ---------------------------------------------------------------------------------

    def _said(self, record: CRLRecord) -> tuple[str, CRLEntry | None]:
        """Return whence it is known what a complete CRL said, and its entry.

        Raises: PastUnavailable; ArchiveDamaged.
        """
        found = self._in_file(self._shelf.path(self._scope, record.kind, record.number), record)
        if found is not None:
            return FILE, found.entry
        archived = self._archive.find(self._scope.path, self._mark, record.number)
        if archived is not None:
            if archived.crl.sha256 != record.sha256:
                raise ArchiveDamaged(f"{archived.crl.file}: another CRL than the register's is archived")
            return ARCHIVE, self._entry_archived(archived)
        # As earlier versions kept it.
        single = self._in_file(
            self._shelf.folders.archive / self._scope.file(COMPLETE, record.number), record
        )
        if single is not None:
            return ARCHIVE, single.entry
        raise PastUnavailable(
            f"complete CRL {record.number} of {self._scope.path} was out then, and is retained no longer"
        )

    def _in_file(self, path: Path, record: CRLRecord) -> FoundEntry | None:
        """Return what is found in the file, None if it is not the one that the register names."""
        try:
            found = find_in(path, self._serial)
        except (OSError, DERError):
            return None
        return found if found.sha256 == record.sha256 else None

    def _entry_archived(self, archived: ArchivedCRL) -> CRLEntry | None:
        """Return the entry in an archived CRL.  Raises: ArchiveDamaged — the pack cannot be
        read, or holds other octets there."""
        crl = archived.crl
        try:
            found = find_in(archived.pack, self._serial, crl.offset, crl.size)
        except (OSError, DERError) as exc:
            raise ArchiveDamaged(f"{crl.file}: {archived.pack}: {exc}") from exc
        if found.sha256 != crl.sha256:
            raise ArchiveDamaged(f"{crl.file}: {archived.pack.name} holds other octets than were archived")
        return found.entry

    def _entry_by_changes(self, record: CRLRecord) -> CRLEntry | None:
        """Return what a delta said, by the rules by which it was made."""
        base_number = record.base_number or 0
        base_seq = self._seqs([base_number]).get(base_number, 0)
        before = fold(change for change in self._past.changes if change.seq <= base_seq)
        since = [change for change in self._past.changes if base_seq < change.seq <= record.seq]
        shown_at = self._shelf.cuts_between(self._scope, base_number, record.number)
        return next(iter(delta_entries(before, since, shown_at)), None)

    def _seqs(self, numbers: list[int]) -> dict[int, int]:
        """Return the cuts at which complete CRLs were made."""
        table = schema.crl
        query = self._published().where(table.c.kind == COMPLETE, table.c.number.in_(numbers))
        with self._store.reading() as connection:
            return {row.number: row.seq for row in connection.execute(query)}

    # --- the first and the last --------------------------------------------------------------------------

    def first(self) -> Listing | None:
        """Return the first CRL that listed the certificate.

        The first that was made while the entry stood: a complete one lists all, and a delta whose base is
        from before has it among its changes.
        """
        table = schema.crl
        for entered, left in self._stays():
            query = self._published().where(table.c.seq >= entered)
            if left is not None:
                query = query.where(table.c.seq < left)
            record = self._one(query.order_by(table.c.number, table.c.kind).limit(1))
            if record is not None:
                return _listing(record)
        return None

    def last(self) -> Listing | None:
        """Return the last CRL that listed the certificate."""
        table = schema.crl
        for entered, left in reversed(self._stays()):
            query = self._published().where(table.c.seq >= entered)
            if left is not None:
                query = query.where(table.c.seq < left)
            newest = query.order_by(table.c.number.desc()).limit(1)
            complete = self._one(newest.where(table.c.kind == COMPLETE))
            after = 0 if complete is None else complete.number
            deltas = query.where(table.c.kind == DELTA, table.c.number > after)
            with self._store.reading() as connection:
                rows = connection.execute(deltas.order_by(table.c.number.desc()))
                records = [CRLRecord(*row) for row in rows]
            bases = self._seqs(sorted({record.base_number or 0 for record in records}))
            for record in records:
                base_seq = bases.get(record.base_number or 0, 0)
                if any(base_seq < change.seq <= record.seq for change in self._past.changes):
                    return _listing(record)
            if complete is not None:
                return _listing(complete)
        return None

    def _stays(self) -> list[tuple[int, int | None]]:
        """Return from which number of the sequence on, and until before which, the entry was listed."""
        stays: list[tuple[int, int | None]] = []
        entered: int | None = None
        for at, change in enumerate(self._past.changes):
            is_listed = self._serial in fold(self._past.changes[: at + 1])
            if is_listed and entered is None:
                entered = change.seq
            elif not is_listed and entered is not None:
                stays.append((entered, change.seq))
                entered = None
        return stays if entered is None else [*stays, (entered, None)]


def _out_ms(record: CRLRecord) -> int:
    return record.published_ms or record.this_update_s * 1000


def _past_crl(record: CRLRecord, source: str, entry: CRLEntry | None) -> PastCRL:
    return PastCRL(
        record.kind,
        record.number,
        record.base_number,
        record.this_update_s,
        record.next_update_s or 0,
        record.published_ms or None,
        record.sha256 or b"",
        source,
        entry,
    )


def _listing(record: CRLRecord) -> Listing:
    return Listing(record.kind, record.number, record.this_update_s, record.published_ms or None)
