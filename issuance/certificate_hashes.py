"""Telling the responders which certificates an issuer has issued, where that was not told at issuing.

Knows: that answers carry a certificate's hash where the issuer's policy says so (Common PKI's
CertHash), that a certificate issued under such a policy has its hash in its own ISSUED change, and
how the hashes of all earlier ones follow as changes of their own, in restartable pieces.
Does not know: answers.

Changes, not something a snapshot picks up beside them: so the index stays a function of the
sequence alone, whether it was built from changes, merged, or made from the store.
"""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa

from certstatus.changes import CHANGE_BYTES, ChangeKind
from issuance import schema
from issuance.store import Now, Store

_PIECE_ROWS = 200


def tell_hashes(store: Store, issuer_id: int, now: Now, pause: Callable[[], None] | None = None) -> int:
    """Tell the hash of every certificate of the issuer that is in the issue record and not yet told.

    Gives: how many.  *pause* is called between pieces, outside the lock, so that others get their turn.
    """
    certificates, records, changes = schema.certificate, schema.issue_record, schema.change
    told = sa.exists().where(
        changes.c.certificate_seq == certificates.c.issued_seq,
        sa.func.length(changes.c.packed) > CHANGE_BYTES,
    )
    total = 0
    last = 0
    while True:
        with store.reading() as connection:
            rows = connection.execute(
                sa.select(certificates.c.issued_seq, certificates.c.serial, records.c.certificate_der)
                .join(records, records.c.issued_seq == certificates.c.issued_seq)
                .where(certificates.c.issuer_id == issuer_id, certificates.c.issued_seq > last, ~told)
                .order_by(certificates.c.issued_seq)
                .limit(_PIECE_ROWS)
            ).all()
        if not rows:
            return total
        while rows:
            with store.writing(now) as act:
                done = 0
                for row in rows:
                    act.record(
                        ChangeKind.CERTIFICATE_HASH,
                        issuer_id=issuer_id,
                        serial=bytes.fromhex(row.serial),
                        certificate_der=row.certificate_der,
                    )
                    done += 1
                    if act.is_full:
                        break
            last = rows[done - 1].issued_seq
            rows = rows[done:]
            total += done
            if pause is not None:
                pause()
