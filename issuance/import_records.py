"""Recording what the sheet says: only what is new, in short acts, each certificate whole.

Knows: which changes take a certificate from where the register has it to where the CA's files have it.
A certificate and its revocation are recorded in one act, so nobody sees the one without the other; a
revocation is never taken back; a hold only when it came from an import and the CA's newer complete CRL
lists it no more.
Does not know: files; the issuer's own record.
Source: RFC 5280 §5.3.1; Act arts. 15(1), 34(1).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from certstatus import clock
from certstatus.changes import DAY_MAX, ChangeKind, fingerprint
from certstatus.errors import ImportRefused
from issuance import schema
from issuance.act import IMPORTED, RECOVERED, Act
from issuance.import_sheet import Sheet, SheetRow
from issuance.schema import CertificateState
from issuance.store import Now, Store

GROUND = "import"
# Of a certificate of which only its revocation is known: it stays revoked for as long as can be said.
UNKNOWN_END_S = clock.jst_day_end_s(DAY_MAX)
_PAGE_ROWS = 500
# Looked up at once under the lock; small, so that an act ends in time.
_LOT_ROWS = 50
# Between acts, so that others waiting for the lock get their turn.
_PAUSE_S = 0.002

Told = Callable[[int], None]


@dataclass(slots=True)
class Difference:
    """How much the register lacks (or was given): certificates, and changes to ones it had."""

    issued: int = 0
    revoked: int = 0
    held: int = 0
    released: int = 0
    reasons: int = 0
    records: int = 0

    @property
    def total(self) -> int:
        """All of it together; 0 means that the register says what the files say."""
        return self.issued + self.revoked + self.held + self.released + self.reasons + self.records


@dataclass(frozen=True, slots=True)
class PartsHere:
    """How a divided CA is divided in the register.

    ``scope_ids``: by the part's number on the sheet, its scope, as far as there is one; ``listed``: the parts
    whose CRLs were read; ``has_whole``: that of all certificates was; ``now_s``: POSIX.
    """

    scope_ids: Mapping[int, int]
    listed: frozenset[int]
    has_whole: bool
    now_s: int

    def scope_id(self, part: int | None) -> int | None:
        """Return the scope that a part's certificates are recorded in."""
        return None if part is None else self.scope_ids[part]

    def differs(self, part: int | None, scope_id: int | None, not_after_s: int) -> str:
        """Return how the scope of a recorded certificate is another one than its part's; empty: it is not.

        One that has ended may have been recorded without a part, when the CRL of its point was not there.
        """
        wanted = None if part is None else self.scope_ids.get(part, 0)
        if wanted == scope_id or (scope_id is None and not_after_s < self.now_s):
            return ""
        return "is on the CRLs of another distribution point in the register"

    def is_listed(self) -> sa.ColumnElement[bool]:
        """Select the certificates of which a CRL that was read would say that they are on hold."""
        if self.has_whole:
            return sa.true()
        ids = [scope_id for part, scope_id in self.scope_ids.items() if part in self.listed]
        return schema.certificate.c.scope_id.in_(ids)


class Recorder:
    """Compares one sheet with one issuer's part of the register, and records what is missing.

    ``is_followed``: the CA revokes elsewhere, so its newer reason for a revocation stands; ``crl_s``: the
    thisUpdate of the complete CRL that was read, POSIX s, None without one; what it does not list is not on
    hold, unless its certificate had ended by then and so may have left the list (RFC 5280 §3.3);
    ``cert_hash``: the policy has it; ``parts``: of a divided CA, how it is divided in the register.
    """

    def __init__(
        self,
        store: Store,
        sheet: Sheet,
        issuer_id: int,
        service: str,
        index_key: bytes,
        *,
        is_followed: bool,
        crl_s: int | None,
        cert_hash: bool = False,
        parts: PartsHere | None = None,
    ) -> None:
        self._store = store
        self._sheet = sheet
        self._issuer_id = issuer_id
        self._service = service
        self._index_key = index_key
        self._is_followed = is_followed
        self._crl_s = crl_s
        self._cert_hash = cert_hash
        self._parts = parts

    # --- before anything is recorded -----------------------------------------------------------------

    def compare(self, told: Told | None = None) -> Difference:
        """Return what is missing in the register; records nothing.

        Raises: ImportRefused — the register has another certificate under a number.
        """
        difference = Difference()
        done = 0
        for page in self._sheet.pages(_PAGE_ROWS):
            with self._store.reading() as connection:
                there = self._there(connection, page, with_der=True)
            for row in page:
                self._check(row, there.get(row.serial.hex()))
                self._apply(None, row, there.get(row.serial.hex()), difference)
            done += len(page)
            if told is not None:
                told(done)
        difference.released += sum(1 for _ in self._releasable())
        return difference

    def _check(self, row: SheetRow, there: Any) -> None:  # noqa: ANN401 — a row
        if there is None:
            return
        what = ""
        if there.issuer_id != self._issuer_id:
            what = "is a certificate of another generation in the register"
        elif row.der is not None and there.certificate_der not in (None, row.der):
            what = "is another certificate in the register"
        elif (
            row.not_after_s is not None
            and there.not_after_s not in (row.not_after_s, UNKNOWN_END_S)
            # A restore that had nothing but a CRL's entry took the CA's own end for it.
            and there.origin != RECOVERED
        ):
            what = "ends at another time in the register"
        elif self._parts is not None and (row.der is not None or row.part is not None):
            what = self._parts.differs(row.part, there.scope_id, there.not_after_s)
        if what:
            raise ImportRefused(row.told_by, row.line, "serial number", f"{row.serial.hex()} {what}")

    def stray(self) -> bytes | None:
        """Return a certificate that the register has as valid and no file mentions, or None."""
        table = schema.certificate
        last = 0
        while True:
            with self._store.reading() as connection:
                rows = connection.execute(
                    sa.select(table.c.issued_seq, table.c.serial)
                    .where(
                        table.c.issuer_id == self._issuer_id,
                        table.c.issued_seq > last,
                        table.c.state == int(CertificateState.VALID),
                    )
                    .order_by(table.c.issued_seq)
                    .limit(_PAGE_ROWS)
                ).all()
            for row in rows:
                serial = bytes.fromhex(row.serial)
                if self._sheet.get(serial) is None:
                    return serial
            if not rows:
                return None
            last = rows[-1].issued_seq

    # --- recording -----------------------------------------------------------------------------------

    def record(self, now: Now, told: Told | None = None) -> Difference:
        """Record what is missing, in pieces; a killed call has recorded whole certificates."""
        difference = Difference()
        done = 0
        for page in self._sheet.pages(_PAGE_ROWS):
            # Outside the lock, so that what is recorded already costs nobody anything.
            with self._store.reading() as connection:
                there = self._there(connection, page)
            new = Difference()
            left = [row for row in page if self._apply(None, row, there.get(row.serial.hex()), new)]
            while left:
                with self._store.writing(now) as act:
                    while left and not act.is_full:
                        lot, left = left[:_LOT_ROWS], left[_LOT_ROWS:]
                        # Again, for only under the lock nobody else changes them.
                        there = self._there(act.connection, lot)
                        for at, row in enumerate(lot):
                            self._apply(act, row, there.get(row.serial.hex()), difference)
                            if act.is_full:
                                left = lot[at + 1 :] + left
                                break
                time.sleep(_PAUSE_S)
            done += len(page)
            if told is not None:
                told(done)
        for serial in list(self._releasable()):
            with self._store.writing(now) as act:
                if self._held_by_import(act.connection, serial) is not None:
                    act.record(ChangeKind.RELEASED, issuer_id=self._issuer_id, serial=serial, ground=GROUND)
                    difference.released += 1
            time.sleep(_PAUSE_S)
        return difference

    def _there(
        self, connection: sa.Connection, rows: list[SheetRow], *, with_der: bool = False
    ) -> dict[str, Any]:
        """Return the register's rows of these serial numbers, by serial in hex."""
        table, records = schema.certificate, schema.issue_record
        columns: list[Any] = [
            table.c.serial,
            table.c.issuer_id,
            table.c.issued_seq,
            table.c.scope_id,
            table.c.not_after_s,
            table.c.origin,
            table.c.state,
            table.c.reason,
            records.c.issued_seq.label("record_seq"),
        ]
        if with_der:
            columns.append(records.c.certificate_der)
        found = connection.execute(
            sa.select(*columns)
            .select_from(table.outerjoin(records, records.c.issued_seq == table.c.issued_seq))
            .where(table.c.service == self._service, table.c.serial.in_([row.serial.hex() for row in rows]))
        )
        return {row.serial: row for row in found}

    def _apply(self, act: Act | None, row: SheetRow, there: Any, difference: Difference) -> bool:  # noqa: ANN401
        """Record (with *act*) what takes *there* to *row*; say whether anything does."""
        before = difference.total
        state = CertificateState.VALID
        if there is None:
            difference.issued += 1
            if act is not None:
                self._issue(act, row)
        else:
            state = CertificateState(there.state)
            if row.der is not None and there.record_seq is None:
                # Known by its number so far; now there is the certificate itself.
                difference.records += 1
                if act is not None:
                    act.connection.execute(
                        sa.insert(schema.issue_record).values(
                            issued_seq=there.issued_seq, certificate_der=row.der
                        )
                    )
                    if self._cert_hash:
                        act.record(
                            ChangeKind.CERTIFICATE_HASH,
                            issuer_id=self._issuer_id,
                            serial=row.serial,
                            certificate_der=row.der,
                            ground=GROUND,
                        )
        if row.revoked_at_s is not None:
            kind = self._kind(row, state, None if there is None else there.reason)
            if kind is ChangeKind.HELD:
                difference.held += 1
            elif kind is ChangeKind.REVOKED:
                difference.revoked += 1
            elif kind is ChangeKind.REASON_CHANGED:
                difference.reasons += 1
            if kind is not None and act is not None:
                act.record(
                    kind,
                    issuer_id=self._issuer_id,
                    serial=row.serial,
                    reason=row.reason,
                    invalidity_s=row.invalidity_s if kind is ChangeKind.REVOKED else 0,
                    ground=GROUND,
                    revoked_ms=None if kind is ChangeKind.REASON_CHANGED else row.revoked_at_s * 1000,
                )
        return difference.total != before

    def _kind(self, row: SheetRow, state: CertificateState, reason: int | None) -> ChangeKind | None:
        """Return the change that takes a certificate in *state* to what *row* says of it."""
        if row.is_held:
            return ChangeKind.HELD if state is CertificateState.VALID else None
        if state is not CertificateState.REVOKED:
            return ChangeKind.REVOKED
        return ChangeKind.REASON_CHANGED if self._is_followed and reason != row.reason else None

    def _issue(self, act: Act, row: SheetRow) -> None:
        act.record(
            ChangeKind.ISSUED,
            issuer_id=self._issuer_id,
            serial=row.serial,
            fingerprint=fingerprint(row.serial, self._index_key),
            not_before_s=row.not_before_s,
            not_after_s=UNKNOWN_END_S if row.not_after_s is None else row.not_after_s,
            # Not the key's hash: an old CA may have certified one key twice.
            certificate_der=row.der,
            ground=GROUND,
            origin=IMPORTED,
            scope_id=None if self._parts is None else self._parts.scope_id(row.part),
        )

    # --- holds that ended ----------------------------------------------------------------------------

    def _releasable(self) -> list[bytes]:
        """Return what an import put on hold and the CRL does not list any more."""
        if self._crl_s is None:
            return []
        table = schema.certificate
        with self._store.reading() as connection:
            serials = connection.execute(
                sa.select(table.c.serial).where(
                    table.c.issuer_id == self._issuer_id,
                    table.c.state == int(CertificateState.HELD),
                    table.c.not_after_s >= self._crl_s,
                    *([] if self._parts is None else [self._parts.is_listed()]),
                )
            ).scalars()
            found = []
            for text in serials.all():
                serial = bytes.fromhex(text)
                row = self._sheet.get(serial)
                listed = row is not None and row.revoked_at_s is not None
                if not listed and self._held_by_import(connection, serial) is not None:
                    found.append(serial)
        return found

    def _held_by_import(self, connection: sa.Connection, serial: bytes) -> int | None:
        """Return the number of the hold if the certificate is on hold by an import's word, else None."""
        table, changes = schema.certificate, schema.change
        row = connection.execute(
            sa.select(changes.c.seq)
            .join(table, table.c.revoked_seq == changes.c.seq)
            .where(
                table.c.issuer_id == self._issuer_id,
                table.c.service == self._service,
                table.c.serial == serial.hex(),
                table.c.state == int(CertificateState.HELD),
                changes.c.ground == GROUND,
            )
        ).scalar()
        return None if row is None else int(row)
