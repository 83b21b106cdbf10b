"""The past of the register: every certificate's state at any number of the sequence.

Knows: that a row of ``certificate`` whose last change lies after the number asked for is built
again from the change log, that a CA-key event moves all certificates of an issuer at its own
number whether or not their rows have been reached, and how to walk over all of it in pages, each
its own short transaction.
Does not know: snapshots, CRLs, or any file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import sqlalchemy as sa

from certstatus.changes import CHANGE_BYTES, ChangeKind, unpack_change
from certstatus.crl_reason import CRLReason
from certstatus.errors import StoreError
from issuance import schema
from issuance.schema import CertificateState
from issuance.transitions import VALID, Standing, standing_after

if TYPE_CHECKING:
    from issuance.store import Store

# Since when a revocation counts: when it was recorded, unless it was said elsewhere before.
SHOWN_MS = sa.func.coalesce(schema.change.c.revoked_ms, schema.change.c.recorded_ms).label("recorded_ms")

# Bound parameters of one IN list; SQLite and PostgreSQL both take many more.
_IN_LIST_MAX = 500


class IssuedRow(NamedTuple):
    """One certificate at one number.  ``revoked_at_s`` is 0 while the state is VALID.

    ``certificate_sha256`` is empty unless a change has told it by then.
    """

    fingerprint: bytes
    not_after_day: int
    state: CertificateState
    reason: int | None
    revoked_at_s: int
    invalidity_s: int
    certificate_sha256: bytes = b""


class RevocationChange(NamedTuple):
    """One step in the life of a CRL entry; ``serial`` are the INTEGER's content octets.

    ``scope_id``: the CRL partition that the certificate was issued into, if what is read tells it.
    """

    seq: int
    kind: ChangeKind
    serial: bytes
    reason: int | None
    recorded_ms: int
    not_after_s: int
    invalidity_s: int
    scope_id: int | None = None


class _KeyEvent(NamedTuple):
    seq: int
    recorded_ms: int


def issued_rows(store: Store, issuer_id: int, upto_seq: int, page_rows: int) -> Iterator[IssuedRow]:
    """Yield every certificate of *issuer_id* as it stood at *upto_seq*, by rising fingerprint."""
    table = schema.certificate
    last = b""
    with store.reading() as connection:
        hashed = _tells_hashes(connection, issuer_id)
    while True:
        with store.reading() as connection:
            event = _key_event(connection, issuer_id, upto_seq)
            rows = connection.execute(
                sa.select(
                    table.c.issued_seq,
                    table.c.fingerprint,
                    table.c.not_after_day,
                    table.c.state,
                    table.c.reason,
                    table.c.revoked_at_ms,
                    table.c.invalidity_s,
                    table.c.changed_seq,
                )
                .where(table.c.issuer_id == issuer_id, table.c.fingerprint > last)
                .order_by(table.c.fingerprint)
                .limit(page_rows)
            ).all()
            changed = [
                row.issued_seq for row in rows if row.changed_seq > upto_seq and row.issued_seq <= upto_seq
            ]
            replayed = standings(connection, changed, upto_seq)
            hashes = _hashes(connection, [row.issued_seq for row in rows], upto_seq) if hashed else {}
        # The transaction is over: however slowly the caller reads, it holds nothing up.
        for row in rows:
            if row.issued_seq > upto_seq:
                continue
            standing = replayed.get(row.issued_seq)
            if standing is None:
                standing = _after_event(
                    Standing(CertificateState(row.state), row.reason, row.revoked_at_ms, row.invalidity_s),
                    _concerning(event, row.issued_seq),
                )
            yield IssuedRow(
                row.fingerprint,
                row.not_after_day,
                standing.state,
                standing.reason,
                (standing.revoked_at_ms or 0) // 1000,
                standing.invalidity_s,
                hashes.get(row.issued_seq, b""),
            )
        if len(rows) < page_rows:
            return
        last = rows[-1].fingerprint


def _tells_hashes(connection: sa.Connection, issuer_id: int) -> bool:
    """Say whether any change ever told the hash of a certificate of this issuer.

    Walks the change log once, so that issuers without hashes are not asked for each certificate.
    """
    table = schema.change
    hashed = sa.select(table.c.seq).where(
        table.c.issuer_id == issuer_id, sa.func.length(table.c.packed) > CHANGE_BYTES
    )
    return connection.execute(hashed.limit(1)).first() is not None


def _hashes(connection: sa.Connection, certificate_seqs: Sequence[int], upto_seq: int) -> dict[int, bytes]:
    """Return the hashes told by *upto_seq*, by the certificates' issuing numbers."""
    table = schema.change
    found: dict[int, bytes] = {}
    for start in range(0, len(certificate_seqs), _IN_LIST_MAX):
        for row in connection.execute(
            sa.select(table.c.certificate_seq, table.c.packed)
            .where(
                table.c.certificate_seq.in_(certificate_seqs[start : start + _IN_LIST_MAX]),
                sa.func.length(table.c.packed) > CHANGE_BYTES,
                table.c.seq <= upto_seq,
            )
            .order_by(table.c.seq)
        ):
            found[row.certificate_seq] = unpack_change(row.packed).certificate_sha256
    return found


def standings(
    connection: sa.Connection, certificate_seqs: Sequence[int], upto_seq: int
) -> dict[int, Standing]:
    """Build states at *upto_seq* again from the change log, which is never rewritten.

    Takes: certificates by their issuing numbers.
    """
    table = schema.change
    found: dict[int, Standing] = {}
    events: dict[int, _KeyEvent | None] = {}
    concerned: dict[int, _KeyEvent | None] = {}
    for start in range(0, len(certificate_seqs), _IN_LIST_MAX):
        wanted = certificate_seqs[start : start + _IN_LIST_MAX]
        for row in connection.execute(
            sa.select(
                table.c.certificate_seq,
                table.c.issuer_id,
                table.c.seq,
                table.c.kind,
                table.c.reason,
                SHOWN_MS,
                table.c.invalidity_s,
            )
            .where(table.c.certificate_seq.in_(wanted), table.c.seq <= upto_seq)
            .order_by(table.c.certificate_seq, table.c.seq)
        ):
            if row.kind == ChangeKind.ISSUED:
                if row.issuer_id not in events:
                    events[row.issuer_id] = _key_event(connection, row.issuer_id, upto_seq)
                found[row.certificate_seq] = VALID
                concerned[row.certificate_seq] = _concerning(events[row.issuer_id], row.certificate_seq)
                continue
            standing = found[row.certificate_seq]
            event = concerned[row.certificate_seq]
            if event is not None and event.seq < row.seq:
                standing = _after_event(standing, event)
            found[row.certificate_seq] = standing_after(
                standing, row.kind, row.reason, row.recorded_ms, row.invalidity_s
            )
    return {seq: _after_event(standing, concerned[seq]) for seq, standing in found.items()}


def _concerning(event: _KeyEvent | None, issued_seq: int) -> _KeyEvent | None:
    """Return *event* if the certificate was there when it happened.

    Later ones are only those that a restore found on a CRL, and they have changes of their own.
    """
    return event if event is not None and issued_seq < event.seq else None


def _after_event(standing: Standing, event: _KeyEvent | None) -> Standing:
    if event is None:
        return standing
    return standing_after(standing, ChangeKind.CA_KEY_EVENT, None, event.recorded_ms)


def _key_event(connection: sa.Connection, issuer_id: int, upto_seq: int) -> _KeyEvent | None:
    table = schema.issuer
    row = connection.execute(
        sa.select(table.c.key_event_seq, table.c.key_event_ms).where(table.c.issuer_id == issuer_id)
    ).one_or_none()
    if row is None:
        raise StoreError(f"no issuer {issuer_id}")
    if row.key_event_seq is None or row.key_event_seq > upto_seq:
        return None
    return _KeyEvent(row.key_event_seq, row.key_event_ms)


class CertificatePast(NamedTuple):
    """A certificate's whole life: ``issued_ms`` when it was recorded as issued; ``changes``: what concerns
    its CRL entry, a CA-key event as the REVOKED that it was; ``recorded_ms`` of each, in the same order
    (of an imported one, the change itself has the old CA's date)."""

    issued_seq: int
    issued_ms: int
    changes: list[RevocationChange]
    recorded_ms: list[int]

    def seq_at(self, at_ms: int) -> int:
        """Return the number of its last change that was recorded by *at_ms*; 0 before it was issued."""
        if at_ms < self.issued_ms:
            return 0
        told = zip(self.changes, self.recorded_ms, strict=True)
        return max([self.issued_seq, *(change.seq for change, ms in told if ms <= at_ms)])


def certificate_past(connection: sa.Connection, service: str, serial: bytes) -> CertificatePast:
    """Return the life of one certificate, which must be there."""
    table, certificates, issuers = schema.change, schema.certificate, schema.issuer
    row = connection.execute(
        sa.select(
            certificates.c.issued_seq,
            certificates.c.not_after_s,
            issuers.c.key_event_seq,
            issuers.c.key_event_ms,
        )
        .join_from(certificates, issuers)
        .where(certificates.c.service == service, certificates.c.serial == serial.hex())
    ).one()
    issued_ms = 0
    found: list[tuple[int, RevocationChange]] = []
    for change in connection.execute(
        sa.select(
            table.c.seq,
            table.c.kind,
            table.c.reason,
            table.c.recorded_ms.label("noted_ms"),
            SHOWN_MS,
            table.c.invalidity_s,
        )
        .where(table.c.certificate_seq == row.issued_seq)
        .order_by(table.c.seq)
    ):
        if change.kind == ChangeKind.ISSUED:
            issued_ms = change.noted_ms
        elif change.kind != ChangeKind.CERTIFICATE_HASH:
            told = RevocationChange(
                change.seq,
                ChangeKind(change.kind),
                serial,
                change.reason,
                change.recorded_ms,
                row.not_after_s,
                change.invalidity_s,
            )
            found.append((change.noted_ms, told))
    event_seq, event_ms = row.key_event_seq, row.key_event_ms
    if event_seq is not None and row.issued_seq < event_seq and row.not_after_s >= event_ms // 1000:
        before = [told for _, told in found if told.seq < event_seq]
        if not any(told.kind is ChangeKind.REVOKED for told in before):
            told = RevocationChange(
                event_seq,
                ChangeKind.REVOKED,
                serial,
                CRLReason.CA_COMPROMISE,
                event_ms,
                row.not_after_s,
                0,
            )
            found = sorted([*found, (event_ms, told)], key=lambda item: item[1].seq)
    return CertificatePast(
        row.issued_seq, issued_ms, [told for _, told in found], [noted_ms for noted_ms, _ in found]
    )


def revocation_changes(
    store: Store,
    issuer_id: int,
    after_seq: int,
    upto_seq: int,
    page_rows: int,
    scope_id: int | None = None,
) -> Iterator[RevocationChange]:
    """Yield the changes in (after_seq, upto_seq] that concern the issuer's CRLs, in order.

    Takes: *scope_id*: only those of the certificates that were issued into this CRL partition.
    """
    table, certificates = schema.change, schema.certificate
    concerned: list[sa.ColumnElement[bool] | sa.TextClause] = [
        table.c.issuer_id == issuer_id,
        schema.IS_REVOCATION,
        table.c.seq <= upto_seq,
    ]
    if scope_id is not None:
        # A CA-key event is no certificate's.
        concerned.append(sa.or_(certificates.c.scope_id == scope_id, table.c.certificate_seq.is_(None)))
    last = after_seq
    while True:
        with store.reading() as connection:
            rows = connection.execute(
                sa.select(
                    table.c.seq,
                    table.c.kind,
                    certificates.c.serial,
                    table.c.reason,
                    SHOWN_MS,
                    certificates.c.not_after_s,
                    table.c.invalidity_s,
                    certificates.c.scope_id,
                )
                .select_from(
                    table.outerjoin(certificates, certificates.c.issued_seq == table.c.certificate_seq)
                )
                .where(*concerned, table.c.seq > last)
                .order_by(table.c.seq)
                .limit(page_rows)
            ).all()
        for seq, kind, serial, reason, recorded_ms, not_after_s, invalidity_s, part in rows:
            if kind == ChangeKind.CA_KEY_EVENT:
                yield from _revoked_by_event(store, issuer_id, seq, recorded_ms, page_rows, scope_id)
            else:
                yield RevocationChange(
                    seq,
                    ChangeKind(kind),
                    bytes.fromhex(serial),
                    reason,
                    recorded_ms,
                    not_after_s,
                    invalidity_s,
                    part,
                )
        if len(rows) < page_rows:
            return
        last = rows[-1].seq


def _revoked_by_event(
    store: Store, issuer_id: int, event_seq: int, event_ms: int, page_rows: int, scope_id: int | None
) -> Iterator[RevocationChange]:
    """Yield one REVOKED for each unexpired certificate that the CA-key event found not revoked."""
    table = schema.certificate
    scope = [] if scope_id is None else [table.c.scope_id == scope_id]
    last = 0
    while True:
        with store.reading() as connection:
            rows = connection.execute(
                sa.select(table.c.issued_seq, table.c.serial, table.c.not_after_s, table.c.scope_id)
                .where(
                    # No bare column: by its index every page would sort all that the issuer has.
                    table.c.issuer_id + 0 == issuer_id,
                    table.c.issued_seq > last,
                    table.c.issued_seq < event_seq,
                    # Either its own row says so already, or nothing has happened to it since.
                    sa.or_(table.c.revoked_seq == event_seq, table.c.state != int(CertificateState.REVOKED)),
                    table.c.not_after_s >= event_ms // 1000,
                    *scope,
                )
                .order_by(table.c.issued_seq)
                .limit(page_rows)
            ).all()
        for row in rows:
            yield RevocationChange(
                event_seq,
                ChangeKind.REVOKED,
                bytes.fromhex(row.serial),
                CRLReason.CA_COMPROMISE,
                event_ms,
                row.not_after_s,
                0,
                row.scope_id,
            )
        if len(rows) < page_rows:
            return
        last = rows[-1].issued_seq
