"""Recording that entries leave the CRLs: their certificates have ended, and a CRL has said so.

Knows: picking the entries that a rule of ``crl_plan`` lets go, and recording each as a change of
the sequence, in short acts.  An entry revoked only after the CRL that the rule rests on stays, even
if its certificate had ended before: no complete CRL has listed it yet.  Held ones stay too: what
becomes of them is not decided.
Does not know: when a lapse is due.
Source: RFC 5280 §3.3; Act arts. 16, 35 (the file holds what is retained at one time).
"""

from __future__ import annotations

import time

import sqlalchemy as sa

from certstatus.changes import ChangeKind
from issuance import schema
from issuance.schema import IS_LISTED, CertificateState
from issuance.store import Now, Store
from publisher.crl_plan import LapseRule

_ROWS_AT_ONCE = 200
# Between acts, so that others waiting for the lock get their turn.
_PAUSE_S = 0.005
_REMOVALS = (int(ChangeKind.LAPSED), int(ChangeKind.RELEASED))


def record_lapses(store: Store, issuer_id: int, rule: LapseRule, now: Now) -> int:
    """Record the lapse of every entry of the issuer that *rule* lets go; return how many.

    Restartable: what was recorded when it is killed stays recorded.
    Raises: StoreError.
    """
    table, issuers = schema.certificate, schema.issuer
    # A CA-key event lists only what had not ended by then: the others were never in a CRL.
    unlisted = sa.and_(
        table.c.revoked_seq == issuers.c.key_event_seq, table.c.not_after_s < issuers.c.key_event_ms / 1000
    )
    query = (
        sa.select(table.c.serial)
        .join_from(table, issuers)
        .where(
            table.c.issuer_id == issuer_id,
            IS_LISTED,
            table.c.not_after_s < rule.ended_before_s,
            table.c.state == int(CertificateState.REVOKED),
            table.c.revoked_seq <= rule.listed_at_seq,
            sa.or_(issuers.c.key_event_seq.is_(None), sa.not_(unlisted)),
        )
        .order_by(table.c.not_after_s)
        .limit(_ROWS_AT_ONCE)
    )
    total = 0
    while True:
        with store.writing(now) as act:
            serials = act.connection.execute(query).scalars().all()
            for serial in serials:
                act.record(ChangeKind.LAPSED, issuer_id=issuer_id, serial=bytes.fromhex(serial))
                total += 1
                if act.is_full:
                    break
        if not serials:
            return total
        time.sleep(_PAUSE_S)


def last_removal(store: Store, issuer_id: int, upto_seq: int) -> int:
    """Return the number of the last change up to *upto_seq* that took an entry away; 0 if none did."""
    table = schema.change
    with store.reading() as connection:
        found = connection.execute(
            sa.select(sa.func.max(table.c.seq)).where(
                table.c.issuer_id == issuer_id, table.c.kind.in_(_REMOVALS), table.c.seq <= upto_seq
            )
        ).scalar()
    return int(found or 0)


def last_lapse_s(store: Store, issuer_id: int) -> int | None:
    """Return when an entry of the issuer last lapsed, POSIX seconds, or None."""
    table = schema.change
    with store.reading() as connection:
        found = connection.execute(
            sa.select(sa.func.max(table.c.recorded_ms)).where(
                table.c.issuer_id == issuer_id, table.c.kind == int(ChangeKind.LAPSED)
            )
        ).scalar()
    return None if found is None else int(found) // 1000
