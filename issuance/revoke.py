"""Ending a certificate's effect, and what else can happen to one after it was issued.

Knows: the Act's grounds for revocation and the CRLReason each becomes, that SIGN and AUTH know
no hold, and the issuer-wide revocation after a CA-key event, with its records made up in pieces.
Does not know: whether workers have heard of it (``acknowledge``); state rules (``transitions``).
Source: Act arts. 9-15, 28-34; RFC 5280 §5.3.1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import sqlalchemy as sa

from certstatus import clock
from certstatus.changes import TIME_MAX_S, ChangeKind
from certstatus.config import STATUTORY_SERVICES
from certstatus.crl_reason import CRLReason
from certstatus.errors import IllegalTransition, PolicyViolation, UnknownCertificate
from issuance import schema
from issuance.act import RecordedChange
from issuance.issuers import issuer_by_id, publish_issuers, require_here
from issuance.profiles import AUTH, SIGN
from issuance.schema import CertificateState
from issuance.store import Now, Store, read_clock

# CRLReason numbers that a revocation may carry (RFC 5280 §5.3.1): not certificateHold, which is a
# hold; not removeFromCRL, which is no reason; 7 is unused.
_REASONS = frozenset({0, 1, 2, 3, 4, 5, 9, 10})
# What may be said of a certificate of the two statutory services.
_STATUTORY_REASONS = frozenset({0, 1, 2, 3, 4, 5})
UNSPECIFIED = 0


@dataclass(frozen=True, slots=True)
class _Ground:
    reason: int | None
    services: tuple[str, ...]
    article: str


class Cause(Enum):
    """The Act's grounds, each with its CRLReason, the services it exists in, and its articles."""

    NO_LONGER_NEEDED = _Ground(5, (SIGN, AUTH), "9, 28: requested, no longer needed")
    RENEWED = _Ground(4, (SIGN, AUTH), "9, 28: requested, renewed or reissued")
    KEY_LEAKED = _Ground(1, (SIGN, AUTH), "10, 29: key leaked, card lost or stolen")
    KEY_DESTROYED = _Ground(5, (SIGN, AUTH), "10, 29: key destroyed, card unusable")
    ATTRIBUTES_CHANGED = _Ground(3, (SIGN,), "12(i): one of the four attributes changed")
    RECORD_DELETED = _Ground(5, (SIGN, AUTH), "12(ii), 31(i): resident record deleted")
    MOVED_OUT = _Ground(5, (AUTH,), "31(ii): no move-in notice in 30 days")
    CERTIFICATE_ERROR = _Ground(3, (SIGN, AUTH), "13, 32: error or omission in the certificate")
    CA_KEY = _Ground(CRLReason.CA_COMPROMISE, (SIGN, AUTH), "14, 33: CA key leaked, lost or damaged")
    DISCARDED = _Ground(None, (SIGN, AUTH), "discarded before hand-over")

    @property
    def reason(self) -> int | None:
        """The CRLReason number, None where RFC 5280 §5.3.1 says to leave it out."""
        return self.value.reason

    @property
    def services(self) -> tuple[str, ...]:
        """The services whose certificates can be revoked for it."""
        return self.value.services

    @property
    def article(self) -> str:
        """The articles and what they say, in short."""
        return self.value.article

    @property
    def label(self) -> str:
        """The cause as the command line and the register write it: ``key-leaked``."""
        return self.name.lower().replace("_", "-")


def cause_of(label: str) -> Cause:
    """Return the cause written *label*.  Raises: PolicyViolation — there is no such cause."""
    for cause in Cause:
        if cause.label == label:
            return cause
    raise PolicyViolation(f"no cause {label!r}; there are: {', '.join(cause.label for cause in Cause)}")


@dataclass(frozen=True, slots=True)
class FoundCertificate:
    """Which certificate a serial number means."""

    issuer_id: int
    service: str
    serial: bytes


def find_certificate(store: Store, serial: bytes, service: str | None = None) -> FoundCertificate:
    """Return the certificate with this number; *service* is needed only if several have it.

    Raises: UnknownCertificate — none has, or more than one.
    """
    table = schema.certificate
    query = sa.select(table.c.issuer_id, table.c.service).where(table.c.serial == serial.hex())
    if service is not None:
        query = query.where(table.c.service == service)
    else:
        # The unique index leads with the service, so name them all instead of walking the table.
        query = query.where(table.c.service.in_(sa.select(schema.issuer.c.service)))
    with store.reading() as connection:
        rows = connection.execute(query).all()
    if not rows:
        raise UnknownCertificate(f"no certificate {serial.hex()}" + (f" of {service}" if service else ""))
    if len(rows) > 1:
        names = ", ".join(sorted(row.service for row in rows))
        raise UnknownCertificate(f"certificate {serial.hex()} exists in {names}: say which service")
    return FoundCertificate(rows[0].issuer_id, rows[0].service, serial)


def revoke(
    store: Store,
    found: FoundCertificate,
    now: Now,
    *,
    cause: Cause | None = None,
    reason: int | None = None,
    invalidity_s: int = 0,
) -> RecordedChange:
    """Revoke one certificate; it is without effect from the moment this returns.

    Takes:   a *cause* of the Act, or a bare CRLReason number (None or 0: none given);
             *invalidity_s*: when the key is known or thought to have become bad, 0 if not.
    Raises:  IllegalTransition — revoked already, the message says since when; PolicyViolation — a
             cause or reason that this service does not have, or an invalidity that no record can
             hold or that is yet to come.
    """
    _check_invalidity(invalidity_s, now)
    if cause is not None:
        if found.service in STATUTORY_SERVICES and found.service not in cause.services:
            raise PolicyViolation(
                f"{found.service}: {cause.label} ({cause.article}) is not one of its grounds"
            )
        reason = cause.reason
    else:
        reason = check_reason(found.service, reason)
    require_here(issuer_by_id(store, found.issuer_id))
    with store.writing(now) as act:
        return act.record(
            ChangeKind.REVOKED,
            issuer_id=found.issuer_id,
            serial=found.serial,
            reason=reason,
            invalidity_s=invalidity_s,
            ground=None if cause is None else cause.label,
        )


def hold(store: Store, found: FoundCertificate, now: Now) -> RecordedChange:
    """Suspend a certificate's effect until it is released or revoked.

    Raises: PolicyViolation — the issuer's policy has no hold, as for SIGN and AUTH.
    """
    _require_hold(store, found)
    with store.writing(now) as act:
        return act.record(ChangeKind.HELD, issuer_id=found.issuer_id, serial=found.serial)


def release(store: Store, found: FoundCertificate, now: Now) -> RecordedChange:
    """Give a held certificate its effect back.

    Raises: PolicyViolation — no hold in the policy; IllegalTransition — not held.
    """
    _require_hold(store, found)
    with store.writing(now) as act:
        return act.record(ChangeKind.RELEASED, issuer_id=found.issuer_id, serial=found.serial)


def change_reason(
    store: Store, found: FoundCertificate, now: Now, *, cause: Cause | None = None, reason: int | None = None
) -> RecordedChange:
    """Correct the reason of a revocation; its date stays.

    Raises: IllegalTransition — not revoked, or revoked with its issuer's key.
    """
    reason = cause.reason if cause is not None else check_reason(found.service, reason)
    require_here(issuer_by_id(store, found.issuer_id))
    with store.writing(now) as act:
        return act.record(
            ChangeKind.REASON_CHANGED,
            issuer_id=found.issuer_id,
            serial=found.serial,
            reason=reason,
            ground=None if cause is None else cause.label,
        )


def record_ca_key_event(store: Store, issuer_id: int, now: Now, ground: str) -> RecordedChange:
    """Revoke everything an issuer ever issued, at one number (Act arts. 14, 33).

    Complete for every verifier once this returns; ``complete_ca_key_event`` then makes up the records
    of the single certificates.
    Raises: IllegalTransition — recorded already.
    """
    with store.writing(now) as act:
        recorded = act.record(ChangeKind.CA_KEY_EVENT, issuer_id=issuer_id, ground=ground)
        publish_issuers(act)
    return recorded


def complete_ca_key_event(
    store: Store, issuer_id: int, now: Now, pause: Callable[[], None] | None = None
) -> int:
    """Write a past CA-key event into the records of the single certificates, in restartable pieces.

    No new numbers: each record takes the event's own number and time.  Gives: how many were written.
    """
    issuer = issuer_by_id(store, issuer_id)
    if issuer.key_event_seq is None:
        raise IllegalTransition(f"issuer {issuer_id} had no CA-key event")
    table = schema.certificate
    total = 0
    last = 0
    while True:
        with store.writing(now) as act:
            found = [
                row.issued_seq
                for row in act.connection.execute(
                    sa.select(table.c.issued_seq)
                    .where(
                        table.c.issuer_id == issuer_id,
                        table.c.issued_seq > last,
                        table.c.issued_seq < issuer.key_event_seq,
                        table.c.state != int(CertificateState.REVOKED),
                    )
                    .order_by(table.c.issued_seq)
                    .limit(200)
                )
            ]
            if found:
                act.connection.execute(
                    sa.update(table)
                    .where(table.c.issued_seq.in_(found))
                    .values(
                        state=int(CertificateState.REVOKED),
                        reason=CRLReason.CA_COMPROMISE,
                        revoked_at_ms=issuer.key_event_ms,
                        revoked_seq=issuer.key_event_seq,
                        changed_seq=issuer.key_event_seq,
                    )
                )
        if not found:
            return total
        total += len(found)
        last = found[-1]
        if pause is not None:
            pause()


def check_reason(service: str, reason: int | None) -> int | None:
    """Return the CRLReason as it is recorded: None instead of unspecified.

    Raises: PolicyViolation — not a reason for a revocation, or not one of this service's.
    """
    if reason is None or reason == UNSPECIFIED:
        return None
    allowed = _STATUTORY_REASONS if service in STATUTORY_SERVICES else _REASONS
    if reason not in allowed:
        raise PolicyViolation(f"{service}: CRLReason {reason} is not one of {sorted(allowed)}")
    return reason


def _check_invalidity(invalidity_s: int, now: Now) -> None:
    """Raises: PolicyViolation — outside of a change's 32 bits, or later than *now* (RFC 5280 §5.3.2)."""
    if not 0 <= invalidity_s <= TIME_MAX_S:
        raise PolicyViolation(f"invalidity {invalidity_s} s lies outside of 1970 to 2106")
    # A key is known to be bad, or thought so, of a time that has been.
    if invalidity_s * 1000 > read_clock(now):
        raise PolicyViolation(f"invalidity {clock.utc_text(invalidity_s)} is in the future")


def _require_hold(store: Store, found: FoundCertificate) -> None:
    if found.service in STATUTORY_SERVICES:
        raise PolicyViolation(f"{found.service}: the Act knows neither hold nor release")
    issuer = issuer_by_id(store, found.issuer_id)
    require_here(issuer)
    if not issuer.policy.hold:
        raise PolicyViolation(f"{found.service}: the issuer's policy has no hold")
