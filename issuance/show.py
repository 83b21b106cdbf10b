"""What the register holds about one certificate, and what a verifier is told now.

Knows: the certificate, its changes by number, and deriving the OCSP answer from the state, the
issuer's CA-key event and its policies on expired certificates and on numbers that are on no list.
Does not know: what any worker has actually answered.
Source: RFC 6960 §2.2, §4.4.4; Act arts. 15, 34 (loss of effect), 18, 37 (what is provided).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa

from certstatus import clock
from certstatus.changes import DAY_MAX, ChangeKind
from certstatus.crl_catalogue import UNPARTITIONED
from certstatus.crl_reason import reason_text
from issuance import history, schema
from issuance.issuers import IssuerRecord, read_issuers
from issuance.revoke import FoundCertificate
from issuance.schema import CertificateState
from issuance.store import Store
from issuance.transitions import Standing


@dataclass(frozen=True, slots=True)
class ShownChange:
    """One change in a certificate's life; ``reason`` by its RFC 5280 name or None."""

    seq: int
    kind: str
    recorded_at: str
    reason: str | None
    ground: str | None
    detail: str | None


@dataclass(frozen=True, slots=True)
class ShownCertificate:
    """All there is to say about one certificate.

    ``scope``: the CRL partition it is in, "all" for none.  ``answer``: what OCSP says now, "good",
    "revoked", "unknown", "unauthorized" or "tryLater"; ``why`` in a sentence.
    """

    service: str
    generation: int
    issuer_id: int
    serial: str
    state: str
    not_before: str | None
    not_after: str
    revoked_at: str | None
    reason: str | None
    invalidity: str | None
    origin: str
    scope: str
    changes: tuple[ShownChange, ...]
    answer: str
    why: str
    certificate_der: bytes | None

    def as_json(self) -> dict[str, Any]:
        """Return the same as plain JSON values; the certificate in hex."""
        values = asdict(self)
        der = values.pop("certificate_der")
        values["certificate"] = None if der is None else der.hex()
        return json.loads(json.dumps(values))  # type: ignore[no-any-return]


def show(store: Store, found: FoundCertificate, now_s: int) -> ShownCertificate:
    """Return what the register holds about a certificate, as of one moment."""
    table, records, scopes = schema.certificate, schema.issue_record, schema.crl_scope
    with store.reading(repeatable=True) as connection:
        row = connection.execute(
            sa.select(table, records.c.certificate_der, scopes.c.scope)
            .select_from(
                table.outerjoin(records, records.c.issued_seq == table.c.issued_seq).outerjoin(
                    scopes, scopes.c.scope_id == table.c.scope_id
                )
            )
            .where(table.c.service == found.service, table.c.serial == found.serial.hex())
        ).one()
        state = connection.execute(sa.select(schema.store_state)).one()
        standing = history.standings(connection, [row.issued_seq], state.seq)[row.issued_seq]
        issuer = next(item for item in read_issuers(connection) if item.issuer_id == row.issuer_id)
        changes = [
            _shown(change)
            for change in connection.execute(
                sa.select(schema.change)
                .where(
                    sa.or_(
                        schema.change.c.certificate_seq == row.issued_seq,
                        schema.change.c.seq == issuer.key_event_seq,
                    )
                )
                .order_by(schema.change.c.seq)
            )
        ]
    answer, why = answer_for(issuer, standing, row.not_after_day, max(now_s, state.time_ms // 1000))
    revoked = standing.state is not CertificateState.VALID
    revoked_at_ms = standing.revoked_at_ms
    return ShownCertificate(
        service=row.service,
        generation=issuer.generation,
        issuer_id=row.issuer_id,
        serial=row.serial,
        state=standing.state.name.lower(),
        not_before=None if row.not_before_s is None else clock.utc_text(row.not_before_s),
        not_after=clock.utc_text(row.not_after_s),
        revoked_at=clock.utc_text(revoked_at_ms // 1000) if revoked and revoked_at_ms else None,
        reason=reason_text(standing.reason) if revoked else None,
        invalidity=clock.utc_text(standing.invalidity_s) if standing.invalidity_s else None,
        origin=row.origin,
        scope=row.scope or UNPARTITIONED,
        changes=tuple(changes),
        answer=answer,
        why=why,
        certificate_der=row.certificate_der,
    )


def answer_for(issuer: IssuerRecord, standing: Standing, not_after_day: int, now_s: int) -> tuple[str, str]:
    """Return what an entitled verifier is told about a certificate at *now_s*, and why.

    What responders say is decided in ``responder/status.py``; this is the same from the register.
    """
    imported = issuer.imported
    if not issuer.is_ready:
        return "unauthorized", "the import of its issuer has not ended"
    if imported is not None and not issuer.revokes_here and now_s >= (imported.crl_next_update_s or 0):
        return "tryLater", "the newest CRL taken over from its issuer has run out"
    policy = issuer.policy
    if (
        standing.state is CertificateState.VALID
        and not_after_day == DAY_MAX
        and policy.issued_list != "complete"
    ):
        return policy.unlisted, f"on no list any more, and the policy for that is {policy.unlisted}"
    last_second_s = clock.jst_day_end_s(not_after_day)
    if now_s > last_second_s:
        ended = f"its last day was {clock.jst_day(last_second_s).isoformat()}"
        kept_s = policy.archive_cutoff_days * clock.DAY_S
        if policy.expired != "last":
            return policy.expired, f"expired: {ended}, and the policy for that is {policy.expired}"
        if kept_s and last_second_s < now_s - kept_s:
            days = policy.archive_cutoff_days
            return "unknown", f"expired: {ended}; the policy is to repeat the last status for {days} days"
        if standing.state is CertificateState.VALID:
            return "good", f"expired: {ended}; the policy is to repeat the last status"
    if standing.state is CertificateState.VALID:
        return "good", "issued, and nothing was recorded against it"
    since = clock.utc_text((standing.revoked_at_ms or 0) // 1000)
    if standing.state is CertificateState.HELD:
        return "revoked", f"on hold since {since}"
    return "revoked", f"revoked since {since} ({reason_text(standing.reason)})"


def _shown(row: sa.Row[Any]) -> ShownChange:
    return ShownChange(
        seq=row.seq,
        kind=ChangeKind(row.kind).name.lower().replace("_", "-"),
        recorded_at=clock.utc_text(row.recorded_ms // 1000),
        reason=None if row.reason is None else reason_text(row.reason),
        ground=row.ground,
        detail=row.detail,
    )
