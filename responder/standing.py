"""What a worker believes at one moment: the index, who may ask, for whom it answers, how fresh.

A ``Standing`` is made by the follower's thread and swapped as a whole; the event loop reads
it once per request.  Two numbers spare the loop any registry of cached answers: ``mark``
moves with every change, so an answer checked under the present mark needs no look-up;
``era`` moves when a single certificate's overlay entry does not tell the whole story (a new
snapshot or issuer table, a CA-key event, a reload).
Does not know: how it came to be believed (``feed_state``), or what is answered (``answer``).
Source: RFC 6960 §4.1.1 for the hashes an issuer is found by.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography import x509

from certstatus.beat import NOTHING, Pointer
from certstatus.cert_id import issuer_hashes
from certstatus.crl_catalogue import CatalogueEntry
from certstatus.entitlements import Entitlements
from certstatus.errors import FeedError
from certstatus.index import View
from certstatus.issuer_table import Issuer


@dataclass(frozen=True, slots=True)
class ServedIssuer:
    """An issuer with what every answer about it needs.  ``since_s``: its first notBefore."""

    issuer: Issuer
    since_s: int


class Access:
    """Entitlements and issuer table of one moment; immutable, compared by identity.

    ``by_hash``: name hash + key hash (every function, every encoding of the name) -> issuer.
    """

    __slots__ = ("by_hash", "by_id", "entitlements")

    def __init__(self, entitlements: Entitlements, issuers: list[Issuer]) -> None:
        """Raises: FeedError — an issuer's key or certificate cannot be read."""
        self.entitlements = entitlements
        self.by_id: dict[int, ServedIssuer] = {}
        self.by_hash: dict[bytes, ServedIssuer] = {}
        for issuer in issuers:
            try:
                served = ServedIssuer(issuer, _since_s(issuer))
                for name_der in issuer.names_der:
                    for issuer_hash in issuer_hashes(name_der, issuer.spki_der).values():
                        self.by_hash[issuer_hash] = served
            except ValueError as exc:
                raise FeedError(f"issuer {issuer.issuer_id}: its certificate cannot be read") from exc
            self.by_id[issuer.issuer_id] = served


def _since_s(issuer: Issuer) -> int:
    certificates = [x509.load_der_x509_certificate(der) for der in issuer.certificates_der]
    return min((int(item.not_valid_before_utc.timestamp()) for item in certificates), default=0)


@dataclass(slots=True)
class Standing:
    """One moment's belief.

    seq, time_ms             of the last verified beat; an answer's thisUpdate comes from time_ms
    fresh_until_s            monotonic; set anew only by an acknowledgement that was written
    wall_from_ms, wall_until_ms  the wall clock must be inside, both ends included
    """

    epoch: bytes
    seq: int
    time_ms: int
    mark: int
    era: int
    view: View
    access: Access
    catalogue: tuple[CatalogueEntry, ...]
    fresh_until_s: float
    wall_from_ms: int
    wall_until_ms: int
    snapshot: Pointer = NOTHING

    def is_fresh(self, now_ms: int, monotonic_s: float) -> bool:
        """Say whether anything may be answered from this; asked before any cache."""
        return monotonic_s < self.fresh_until_s and self.wall_from_ms <= now_ms <= self.wall_until_ms


def nothing_believed() -> Standing:
    """Return the standing of a worker that has loaded nothing; never fresh."""
    return Standing(
        epoch=b"",
        seq=0,
        time_ms=0,
        mark=0,
        era=0,
        view=View(None),
        access=Access(Entitlements(0, [], 0), []),
        catalogue=(),
        fresh_until_s=0.0,
        wall_from_ms=0,
        wall_until_ms=-1,
    )
