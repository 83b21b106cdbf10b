"""The register's steps for many CRLs, taken for one: what tests of numbers and states need."""

from __future__ import annotations

from collections.abc import Sequence

from issuance.crl_register import AllocatedCRL, CRLKey, Fence, SignedCRL, WantedCRL
from issuance.store import Now, Store


def allocate_crl_number(
    store: Store, issuer_id: int, scope: str, kinds: Sequence[str], fence: Fence, now: Now
) -> AllocatedCRL:
    (allocated,) = store.allocate_crls([WantedCRL(issuer_id, scope, kinds)], fence, now)
    return allocated


def record_crl(
    store: Store,
    issuer_id: int,
    scope: str,
    number: int,
    kind: str,
    *,
    base_number: int | None,
    next_update_s: int,
    sha256: bytes,
    size: int,
    fence: Fence,
) -> None:
    key = CRLKey(issuer_id, scope, number, kind)
    store.record_crls([SignedCRL(key, base_number, next_update_s, sha256, size)], fence)


def withdraw_crl(store: Store, issuer_id: int, scope: str, number: int, kind: str, fence: Fence) -> None:
    store.withdraw_crls([CRLKey(issuer_id, scope, number, kind)], fence)
