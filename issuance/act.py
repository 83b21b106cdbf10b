"""One act: a transaction that holds the store's lock and gives out numbers of its sequence.

Knows: how a change gets its number, time and place in the running hash, and which row of
``certificate`` it moves, so that the current state and the history never disagree.  Rows are
collected and written together, because what counts under the lock is the number of round trips.
Does not know: who may act or why; nor how the lock is taken (``store``).
Source: Act arts. 11-15, 30-34 (loss of effect happens at recording).
"""

from __future__ import annotations

import hashlib
import json
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa

from certstatus import clock
from certstatus.changes import (
    DAY_MAX,
    NO_FINGERPRINT,
    TIME_MAX_S,
    ChangeKind,
    next_chain,
    pack_change,
)
from certstatus.crl_reason import CRLReason, reason_text
from certstatus.errors import IllegalTransition, PolicyViolation, StoreError, UnknownCertificate
from issuance import schema
from issuance.database import insert
from issuance.schema import CertificateState
from issuance.transitions import Standing, standing_after

if TYPE_CHECKING:
    from issuance.crl_scopes import ScopeRecord

# A piecewise job ends its transaction after this long, so that with the commit it stays below 50 ms.
PIECE_MS = 15
# Rows are written in lots of this size: large enough that round trips do not count, small enough
# that what is not written yet does not make ``is_full`` look young.
_LOT_ROWS = 64

ISSUED = "issued"
RECOVERED = "recovered"
IMPORTED = "imported"

# Changes whose reason follows from what they are.
_FIXED_REASONS: dict[ChangeKind, int | None] = {
    ChangeKind.HELD: CRLReason.CERTIFICATE_HOLD,
    ChangeKind.CA_KEY_EVENT: CRLReason.CA_COMPROMISE,
}


class RecordedChange(NamedTuple):
    """The number and time a change was recorded under."""

    seq: int
    recorded_ms: int


class _Issuer(NamedTuple):
    service: str
    key_event_seq: int | None
    key_event_ms: int | None
    cert_hash: bool


class Act:
    """The writing end of the store, alive within ``Store.writing``.

    ``connection`` is in the act's transaction: what else belongs to the act is written there.
    """

    # Given by the store under the lock, moved on by each change.
    seq: int
    time_ms: int
    chain: bytes

    def __init__(self, connection: sa.Connection, seq: int, time_ms: int, chain: bytes) -> None:
        self.connection = connection
        self.seq = seq
        self.time_ms = time_ms
        self.chain = chain
        self._started = time.monotonic()
        # Not yet written.
        self._certificates: list[dict[str, Any]] = []
        self._issue_records: list[dict[str, Any]] = []
        self._changes: list[dict[str, Any]] = []
        # Read once per act.
        self._issuers: dict[int, _Issuer] = {}
        # The same, by issuer and name, for ``crl_scopes``.
        self.scopes: dict[tuple[int, str], ScopeRecord] = {}
        # Partitions that have been noted to have got a certificate otherwise than by issuing.
        self._reopened: set[int] = set()

    @property
    def is_full(self) -> bool:
        """Say whether a piecewise job should end this act now and go on in the next."""
        return (time.monotonic() - self._started) * 1000 >= PIECE_MS

    def record(
        self,
        kind: ChangeKind,
        *,
        issuer_id: int = 0,
        serial: bytes = b"",
        fingerprint: bytes = NO_FINGERPRINT,
        not_after_s: int = 0,
        reason: int | None = None,
        invalidity_s: int = 0,
        ground: str | None = None,
        detail: str | None = None,
        not_before_s: int | None = None,
        spki_sha256: bytes | None = None,
        certificate_der: bytes | None = None,
        origin: str = ISSUED,
        revoked_ms: int | None = None,
        scope_id: int | None = None,
    ) -> RecordedChange:
        """Give the next number to a change and move the certificate it is about.

        Takes:   ISSUED: ``issuer_id``, ``serial`` (content octets), ``fingerprint`` (12 bytes) and
                 ``not_after_s``, and what else is known; with ``certificate_der`` the change tells its
                 hash where the issuer's policy is to answer with it.  CERTIFICATE_HASH: tells it later,
                 also with ``certificate_der``.  Other changes of one certificate:
                 ``issuer_id`` and either ``serial`` or ``fingerprint``; ``reason`` is a CRLReason
                 number or None, ``ground`` the Act's ground or an operator's word, ``detail`` JSON.
                 CA_KEY_EVENT: ``issuer_id``.  ENTITLEMENTS, ISSUERS: nothing.
                 ``revoked_ms`` of REVOKED and HELD: since when, if that was said elsewhere before it is
                 recorded here; this is what answers and CRLs show.
                 ``scope_id`` of ISSUED: the CRL partition it is in, None for none.
        Gives:   number and time; final only once the act's transaction has committed.
        Raises:  UnknownCertificate, IllegalTransition; PolicyViolation — a serial number or a
                 public key that is already there (may come as late as the end of the act), or a time
                 that index and CRLs have no room for (before 1970 or after 2106).
        """
        shown_ms = self.time_ms if revoked_ms is None else revoked_ms
        _require_time("time", shown_ms // 1000, serial)
        _require_time("invalidity date", invalidity_s, serial)
        certificate_seq: int | None = None
        not_after_day = 0
        sha256 = b""
        reason = _FIXED_REASONS.get(kind, reason)
        if kind is ChangeKind.ISSUED:
            not_after_day = min(max(clock.jst_day_number(not_after_s), 0), DAY_MAX)
            certificate_seq = self.seq + 1
            self._issue(
                issuer_id,
                serial,
                fingerprint,
                not_before_s,
                not_after_s,
                not_after_day,
                spki_sha256,
                certificate_der,
                origin,
                scope_id,
            )
            if certificate_der is not None and self._issuer(issuer_id).cert_hash:
                sha256 = hashlib.sha256(certificate_der).digest()
        elif kind is ChangeKind.CA_KEY_EVENT:
            self._revoke_issuer(issuer_id)
        elif kind not in (ChangeKind.ENTITLEMENTS, ChangeKind.ISSUERS):
            row = self._move(kind, issuer_id, serial, fingerprint, reason, invalidity_s, revoked_ms)
            certificate_seq, fingerprint, not_after_day = row.issued_seq, row.fingerprint, row.not_after_day
            if kind is ChangeKind.CERTIFICATE_HASH:
                if certificate_der is None:
                    raise StoreError(f"issuer {issuer_id}: no hash without certificate {row.serial}")
                sha256 = hashlib.sha256(certificate_der).digest()
        self.seq += 1
        packed = pack_change(
            kind, issuer_id, fingerprint, not_after_day, reason, shown_ms, self.seq, invalidity_s, sha256
        )
        self.chain = next_chain(self.chain, packed)
        self._changes.append(
            {
                "seq": self.seq,
                "kind": int(kind),
                "issuer_id": issuer_id or None,
                "certificate_seq": certificate_seq,
                "reason": reason,
                "recorded_ms": self.time_ms,
                "invalidity_s": invalidity_s,
                "ground": ground,
                "detail": detail,
                "packed": packed,
                "chain": self.chain,
                "revoked_ms": revoked_ms,
            }
        )
        if len(self._changes) >= _LOT_ROWS:
            self.flush()
        return RecordedChange(self.seq, self.time_ms)

    def publish(self, kind: str, generation: int, body: bytes | None, sha256: bytes | None = None) -> None:
        """Make *body* the current document or snapshot of *kind*, within this act.

        So a change and the document that follows from it become visible at one number.
        Raises: StoreError — *generation* is older than what is published, or the same with other bytes.
        """
        if sha256 is None:
            if body is None:
                raise StoreError(f"publication {kind} {generation}: neither bytes nor their SHA-256")
            sha256 = hashlib.sha256(body).digest()
        publish(self.connection, kind, generation, sha256, body)

    def flush(self) -> None:
        """Write the rows collected so far; the store does so at the end of the act."""
        try:
            for table, rows in (
                (schema.certificate, self._certificates),
                (schema.issue_record, self._issue_records),
                (schema.change, self._changes),
            ):
                if rows:
                    self.connection.execute(sa.insert(table), rows)
        except sa.exc.IntegrityError as exc:
            raise _refusal(exc) from exc
        # New lists: the driver may still hold the old ones.
        self._certificates, self._issue_records, self._changes = [], [], []

    # --- what a change does to a certificate -----------------------------------------------------

    def _issue(
        self,
        issuer_id: int,
        serial: bytes,
        fingerprint: bytes,
        not_before_s: int | None,
        not_after_s: int,
        not_after_day: int,
        spki_sha256: bytes | None,
        certificate_der: bytes | None,
        origin: str,
        scope_id: int | None,
    ) -> None:
        issuer = self._issuer(issuer_id)
        if not serial or fingerprint == NO_FINGERPRINT:
            raise PolicyViolation("a certificate is issued under a serial number and its fingerprint")
        if issuer.key_event_seq is not None and origin != RECOVERED:
            raise IllegalTransition(
                f"issuer {issuer_id} issues nothing since change {issuer.key_event_seq}, its CA-key event"
            )
        if scope_id is not None and origin != ISSUED:
            self._reopen(scope_id)
        seq = self.seq + 1
        self._certificates.append(
            {
                "issued_seq": seq,
                "issuer_id": issuer_id,
                "service": issuer.service,
                "serial": serial.hex(),
                "fingerprint": fingerprint,
                "spki_sha256": spki_sha256,
                "not_before_s": not_before_s,
                "not_after_s": not_after_s,
                "not_after_day": not_after_day,
                "origin": origin,
                "state": int(CertificateState.VALID),
                "reason": None,
                "revoked_at_ms": None,
                "revoked_seq": None,
                "invalidity_s": 0,
                "lapsed_seq": None,
                "changed_seq": seq,
                "scope_id": scope_id,
            }
        )
        if certificate_der is not None:
            self._issue_records.append({"issued_seq": seq, "certificate_der": certificate_der})

    def _reopen(self, scope_id: int) -> None:
        """Note that a partition, closed perhaps, has got a certificate that was not issued just now."""
        if scope_id not in self._reopened:
            table = schema.crl_scope
            self.connection.execute(
                sa.update(table).where(table.c.scope_id == scope_id).values(last_end_s=None, retired_seq=None)
            )
            self._reopened.add(scope_id)

    def _move(
        self,
        kind: ChangeKind,
        issuer_id: int,
        serial: bytes,
        fingerprint: bytes,
        reason: int | None,
        invalidity_s: int,
        revoked_ms: int | None,
    ) -> Any:  # noqa: ANN401 — a row, or what is about to be one
        table = schema.certificate
        issuer = self._issuer(issuer_id)
        pending = self._pending(issuer_id, serial)
        if self._certificates and pending is None:
            self.flush()
        which: sa.ColumnElement[bool] = table.c.fingerprint == fingerprint
        if serial:
            # With the service: that is the index's first column, and by the issuer alone SQLite walks over
            # everything that it has ever issued.
            which = sa.and_(table.c.service == issuer.service, table.c.serial == serial.hex())
        row: Any = SimpleNamespace(**pending) if pending is not None else None
        if pending is None:
            row = self.connection.execute(
                sa.select(table).where(table.c.issuer_id == issuer_id, which)
            ).one_or_none()
        if row is None:
            raise UnknownCertificate(
                f"{issuer.service}: no certificate {serial.hex() or fingerprint.hex()} of issuer {issuer_id}"
            )
        if kind is ChangeKind.CERTIFICATE_HASH:
            # Says which certificate it is, of whatever state: nothing of the row moves.
            return row
        standing = Standing(CertificateState(row.state), row.reason, row.revoked_at_ms, row.invalidity_s)
        revoked_seq = row.revoked_seq
        event_seq = issuer.key_event_seq
        by_event = event_seq is not None and row.issued_seq < event_seq
        if by_event and standing.state is not CertificateState.REVOKED:
            # The issuer-wide change has revoked this one; its own row has only not been reached yet.
            standing = standing_after(standing, ChangeKind.CA_KEY_EVENT, None, issuer.key_event_ms or 0)
            revoked_seq = event_seq
        if kind is ChangeKind.REASON_CHANGED and by_event and revoked_seq == event_seq:
            # The index gives every certificate of such an issuer the event's reason and time.
            raise IllegalTransition(
                f"{issuer.service} certificate {row.serial} was revoked with its issuer's key, change"
                f" {revoked_seq}; that reason stands"
            )
        try:
            after = standing_after(
                standing, kind, reason, self.time_ms if revoked_ms is None else revoked_ms, invalidity_s
            )
        except IllegalTransition as exc:
            raise IllegalTransition(
                f"{issuer.service} certificate {row.serial} {exc}{_since(standing, revoked_seq)}"
            ) from exc
        if kind is ChangeKind.LAPSED and row.lapsed_seq is not None:
            raise IllegalTransition(
                f"{issuer.service} certificate {row.serial} has lapsed already, in change {row.lapsed_seq}"
            )
        seq = self.seq + 1
        if kind in (ChangeKind.REVOKED, ChangeKind.HELD):
            revoked_seq = seq
        elif kind is ChangeKind.RELEASED:
            revoked_seq = None
        values = {
            "state": int(after.state),
            "reason": after.reason,
            "revoked_at_ms": after.revoked_at_ms,
            "revoked_seq": revoked_seq,
            "invalidity_s": after.invalidity_s,
            "lapsed_seq": seq if kind is ChangeKind.LAPSED else row.lapsed_seq,
            "changed_seq": seq,
        }
        if pending is not None:
            pending.update(values)
        else:
            self.connection.execute(
                sa.update(table).where(table.c.issued_seq == row.issued_seq).values(values)
            )
        return row

    def _pending(self, issuer_id: int, serial: bytes) -> dict[str, Any] | None:
        """Return the row of the certificate issued last, if it is this one and not written yet.

        An import records most revocations right behind their certificates, hundreds of thousands of them.
        """
        last = self._certificates[-1] if self._certificates else None
        if last is not None and serial and (last["issuer_id"], last["serial"]) == (issuer_id, serial.hex()):
            return last
        return None

    def _revoke_issuer(self, issuer_id: int) -> None:
        issuer = self._issuer(issuer_id)
        if issuer.key_event_seq is not None:
            raise IllegalTransition(
                f"issuer {issuer_id} had its CA-key event already, in change {issuer.key_event_seq}"
            )
        self.connection.execute(
            sa.update(schema.issuer)
            .where(schema.issuer.c.issuer_id == issuer_id)
            .values(key_event_seq=self.seq + 1, key_event_ms=self.time_ms)
        )
        self._issuers[issuer_id] = issuer._replace(key_event_seq=self.seq + 1, key_event_ms=self.time_ms)

    def _issuer(self, issuer_id: int) -> _Issuer:
        found = self._issuers.get(issuer_id)
        if found is None:
            table = schema.issuer
            row = self.connection.execute(
                sa.select(table.c.service, table.c.key_event_seq, table.c.key_event_ms, table.c.policy).where(
                    table.c.issuer_id == issuer_id
                )
            ).one_or_none()
            if row is None:
                raise PolicyViolation(f"no issuer {issuer_id}")
            # A policy from before there was this key does not say it.
            cert_hash = bool(json.loads(row.policy).get("cert_hash", False))
            found = self._issuers[issuer_id] = _Issuer(
                row.service, row.key_event_seq, row.key_event_ms, cert_hash
            )
        return found


def publish(connection: sa.Connection, kind: str, generation: int, sha256: bytes, body: bytes | None) -> None:
    """Move the pointer of *kind* forward; the caller's transaction holds the store's lock.

    Raises: StoreError — *generation* is older than what is published, or the same with other bytes.
    """
    table = schema.publication
    now = connection.execute(
        sa.select(table.c.generation, table.c.sha256).where(table.c.kind == kind)
    ).one_or_none()
    if now is not None and (now.generation > generation or now.generation == generation):
        if now.generation == generation and now.sha256 == sha256:
            return
        raise StoreError(
            f"publication {kind}: generation {generation} does not come after {now.generation}, which is out"
        )
    values = {"generation": generation, "sha256": sha256, "body": body}
    connection.execute(
        insert(connection, table)
        .values(kind=kind, **values)
        .on_conflict_do_update(index_elements=["kind"], set_=values)
    )


def _require_time(what: str, posix_s: int, serial: bytes) -> None:
    """Raises: PolicyViolation — a time that no row of a CRL has room for, and which would keep the CRLs of a
    whole scope from being made."""
    if not 0 <= posix_s <= TIME_MAX_S:
        which = f"certificate {serial.hex()}: " if serial else ""
        raise PolicyViolation(f"{which}its {what}, {posix_s} s, lies outside of 1970 to 2106")


def _since(standing: Standing, revoked_seq: int | None) -> str:
    if standing.revoked_at_ms is None:
        return ""
    since = clock.utc_text(standing.revoked_at_ms // 1000)
    return f" (since {since}, {reason_text(standing.reason)}, change {revoked_seq})"


def _refusal(exc: sa.exc.IntegrityError) -> Exception:
    """Say which rule a unique constraint held up."""
    text = str(exc.orig)
    if "spki_sha256" in text:
        return PolicyViolation("the public key is already in another certificate")
    if "serial" in text or "fingerprint" in text:
        return PolicyViolation("the serial number is already in use under this name")
    return StoreError(f"the store refuses: {text}")
