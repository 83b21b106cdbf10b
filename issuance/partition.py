"""Which CRL scope a certificate gets, beside the unpartitioned one that every certificate is in.

Knows: the schemes and their names: ``m1/13104``, the municipality or ward of issue (SIGN), with ``m1/00000``
for what was issued for none; ``n64/b17``, one of 64 buckets by hash of the serial number (AUTH, whose
certificates must not show where their owner lives); ``dp/1``, the first of the distribution points that a
CA had before it was taken over (``taken_scopes``); ``all``.  The name says the scheme with its parameter, so
that another number of buckets is another set of scopes.
Does not know: the register of scopes: what was chosen once is stored there and never worked out again.
Source: RFC 5280 §5.2.5; Act art. 26 (an authentication certificate carries no personal attribute).
"""

from __future__ import annotations

import hashlib

from certstatus.crl_catalogue import UNPARTITIONED
from certstatus.errors import PolicyViolation
from issuance.issuers import IssuerRecord
from issuance.municipalities import municipalities, municipality_of
from issuance.profiles import AUTH, SIGN

NONE, MUNICIPALITY, HASH = "none", "municipality", "hash"
# The scheme's version stands in the name: should the codes ever be given out anew, they are others.
_MUNICIPAL = "m1"
REST = "00000"
_REST_TITLE = "without a municipality"
_HASHED_OCTETS = 8


def scheme_of(issuer: IssuerRecord) -> str:
    """Return how an issuer's certificates are parted: ``none``, ``municipality`` or ``hash``.

    A CA that was taken over has the CRLs that its earlier certificates name, and no others.
    """
    if issuer.imported is not None:
        return NONE
    if issuer.policy.partition != "by_service":
        return issuer.policy.partition
    return {SIGN: MUNICIPALITY, AUTH: HASH}.get(issuer.service, NONE)


def partition_of(issuer: IssuerRecord, serial: bytes, wanted: str | None) -> str:
    """Return the name of the scope for a certificate that is about to be signed.

    Takes:  ``serial``: content octets; ``wanted``: a municipality's code, None for none.
    Raises: PolicyViolation — no such code, or the issuer's certificates are not parted by municipality.
    """
    scheme = scheme_of(issuer)
    if wanted is not None and scheme != MUNICIPALITY:
        raise PolicyViolation(
            f"{issuer.service} generation {issuer.generation} has no partitions by municipality,"
            f" so there is none called {wanted[:40]!r}"
        )
    if scheme == MUNICIPALITY:
        return f"{_MUNICIPAL}/{REST if wanted is None else municipality_of(wanted).code}"
    if scheme == HASH:
        buckets = issuer.policy.partition_buckets
        hashed = int.from_bytes(hashlib.sha256(serial).digest()[:_HASHED_OCTETS], "big")
        return f"n{buckets}/b{hashed % buckets}"
    return UNPARTITIONED


def title_of(scope: str) -> str:
    """Return what a scope is called for people; empty for one that has no more to say than its name."""
    scheme, _, code = scope.partition("/")
    if scheme != _MUNICIPAL:
        return ""
    if code == REST:
        return _REST_TITLE
    # A restore may find the CRLs of one that was merged before the table was made.
    found = municipalities().get(code)
    return "" if found is None else found.title
