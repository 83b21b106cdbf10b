"""CRLs that keep the entries of certificates which have ended: since when they do, and which bases fit.

::

    policy "keep" ─▶ nothing lapses ─▶ every revoked certificate that ended at D or later is on the lists
                                       D: the last lapse; of a CA that never had one, its beginning

Knows: how D follows from the register.  It is worked out and not asked for: who sets a policy cannot know
what has left the lists, and a date before that would be untrue.  And that complete CRLs and deltas are
joined only where both say the same D, or both nothing: what a list keeps is part of its scope, and a delta
has its base's.  So the first CRL after a change of the policy is a complete one, and later deltas start
from it.
Does not know: the extension's octets (``expired_certs``), nor that nothing lapses (``crl_plan.lapse``).
Source: ITU-T X.509 §9.5.2.8; RFC 5280 §3.3, §5.2.4 (one scope for delta and base).

Of a CA that was taken over, what had ended by then may have left the lists before, so D is not before the
import, nor before the CRL of its own that was read last, whatever that one said.

OCSP's archiveCutoff need not be the same date: answers come from the register, which forgets nothing.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import sqlalchemy as sa

from certstatus.crl_stream_decode import CRLFile
from certstatus.errors import DERError
from certstatus.x509_reading import load_certificate
from issuance import schema
from issuance.crl_register import CRLRecord
from issuance.issuers import IssuerRecord
from issuance.store import Store
from publisher.crl_lapse import last_lapse_s
from publisher.crl_plan import KEEP


def kept_from_s(store: Store, issuer: IssuerRecord) -> int | None:
    """Return since when the issuer's lists keep whoever has ended, POSIX seconds; None: entries lapse.

    Whoever ended at that moment or later is on them, if revoked.
    """
    if issuer.policy.expired_entries != KEEP:
        return None
    # A lapse lets go only what had ended before the thisUpdate of a CRL that was out by then.
    lapsed_s = last_lapse_s(store, issuer.issuer_id) or 0
    return max(lapsed_s, _began_s(store, issuer))


def _began_s(store: Store, issuer: IssuerRecord) -> int:
    """Return a moment before which nothing of this issuer ended, or since which its lists are ours."""
    if issuer.imported is None:
        return min(_not_before_s(der) for der in issuer.certificates_der)
    table = schema.change
    with store.reading() as connection:
        created_ms = connection.execute(
            sa.select(table.c.recorded_ms).where(table.c.seq == issuer.created_seq)
        ).scalar_one()
    # The next whole second: what ended within this one may have left before.
    return max(int(created_ms) // 1000 + 1, issuer.imported.crl_this_update_s or 0)


@lru_cache(maxsize=256)
def _not_before_s(certificate_der: bytes) -> int:
    return int(load_certificate(certificate_der).not_valid_before_utc.timestamp())


def of_same_extent(path: Path, record: CRLRecord, expired_from_s: int | None) -> bool:
    """Say whether a published complete CRL keeps what one made now does, so that it can be a base.

    A file that cannot be read is let through: whoever reads its entries says what is wrong with it.
    """
    try:
        return _extent_of(path, record.sha256) == expired_from_s
    except (OSError, DERError):
        return True


@lru_cache(maxsize=1 << 14)
def _extent_of(path: Path, _sha256: bytes | None) -> int | None:
    with CRLFile(path) as crl:
        return crl.head.expired_certs_from_s
