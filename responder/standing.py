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

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from certstatus import oid
from certstatus.beat import NOTHING, Pointer
from certstatus.cert_id import SHA1, SHA256, CertID, issuer_hashes
from certstatus.config import STATUTORY_SERVICES
from certstatus.crl_catalogue import Catalogue
from certstatus.crl_pack import ArchiveMark
from certstatus.der import integer_content
from certstatus.entitlements import Entitlements
from certstatus.errors import FeedError
from certstatus.index import View
from certstatus.issuer_table import Issuer
from certstatus.ocsp_request import PreferredAlgorithm
from certstatus.x509_reading import load_certificate
from responder.crl_fragments import NOTHING_LISTED, ListedScopes


@dataclass(frozen=True, slots=True)
class ServedIssuer:
    """An issuer with what every answer about it needs; two are equal when they answer alike.

    since_s             its first notBefore
    siblings            issuer_ids of the other keys of its name
    says_never_issued   whether `revoked` may mean "never issued": the policy says so, and complete
                        lists of all keys of the name stand behind it
    beside_register     serials (content octets) of what its key signed that the index does not list
    crl_algorithms      what the CA signs its CRLs with, so far as its key tells; empty if no answer can be
    sha256_of           SHA-1 name hash + key hash -> the same by SHA-256, for every encoding of the name
    """

    issuer: Issuer
    since_s: int
    siblings: tuple[int, ...]
    says_never_issued: bool
    beside_register: frozenset[bytes]
    crl_algorithms: tuple[PreferredAlgorithm, ...]
    sha256_of: Mapping[bytes, bytes]

    def sha256_twin(self, cert_id: CertID) -> CertID:
        """Return the CertID of the same certificate by SHA-256; *cert_id* names this issuer by SHA-1."""
        both = self.sha256_of[cert_id.issuer_hash]
        half = len(both) // 2
        return CertID(SHA256, both[:half], both[half:], cert_id.serial)


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
                every_hash = [issuer_hashes(name_der, issuer.spki_der) for name_der in issuer.names_der]
                served = _serve(issuer, issuers, {item[SHA1]: item[SHA256] for item in every_hash})
            except ValueError as exc:
                raise FeedError(f"issuer {issuer.issuer_id}: its certificate cannot be read") from exc
            for item in every_hash:
                for issuer_hash in item.values():
                    self.by_hash[issuer_hash] = served
            self.by_id[issuer.issuer_id] = served


def _serve(issuer: Issuer, issuers: list[Issuer], sha256_of: Mapping[bytes, bytes]) -> ServedIssuer:
    certificates = [load_certificate(der) for der in issuer.certificates_der]
    same_name = [item for item in issuers if _is_one_ca(item, issuer)]
    return ServedIssuer(
        issuer=issuer,
        since_s=min((int(item.not_valid_before_utc.timestamp()) for item in certificates), default=0),
        siblings=tuple([item.issuer_id for item in same_name if item.issuer_id != issuer.issuer_id]),
        # The table has been checked where it was made; it is checked again where it would do harm.
        says_never_issued=issuer.not_issued == "revoked"
        and all(
            item.issued_list == "complete"
            # Whoever revokes elsewhere issues elsewhere, too.
            and item.foreign_crl is None
            and item.service not in STATUTORY_SERVICES
            for item in same_name
        ),
        beside_register=frozenset(
            [
                *[integer_content(item.serial_number) for item in certificates],
                *[bytes.fromhex(serial) for serial in issuer.beside_register],
            ]
        ),
        crl_algorithms=_crl_algorithms(issuer),
        sha256_of=sha256_of,
    )


def _crl_algorithms(issuer: Issuer) -> tuple[PreferredAlgorithm, ...]:
    try:
        key = serialization.load_der_public_key(issuer.spki_der)
    except UnsupportedAlgorithm:
        return ()
    if isinstance(key, rsa.RSAPublicKey):
        return (PreferredAlgorithm(oid.SHA256_WITH_RSA),)
    if isinstance(key, ec.EllipticCurvePublicKey):
        strong = key.curve.key_size > 256
        return (PreferredAlgorithm(oid.ECDSA_WITH_SHA384 if strong else oid.ECDSA_WITH_SHA256),)
    return ()


def _is_one_ca(one: Issuer, other: Issuer) -> bool:
    return one.service == other.service or not set(one.names_der).isdisjoint(other.names_der)


@dataclass(slots=True)
class Standing:
    """One moment's belief.

    seq, time_ms             of the last verified beat; an answer's thisUpdate comes from time_ms
    fresh_until_s            monotonic; set anew only by an acknowledgement that was written
    wall_from_ms, wall_until_ms  the wall clock must be inside, both ends included
    catalogue                what this host serves; with listed and archive put in place as it changes
    listed                   the scopes of ``catalogue``, ready to be listed
    """

    epoch: bytes
    seq: int
    time_ms: int
    mark: int
    era: int
    view: View
    access: Access
    catalogue: Catalogue
    fresh_until_s: float
    wall_from_ms: int
    wall_until_ms: int
    snapshot: Pointer = NOTHING
    listed: ListedScopes = NOTHING_LISTED
    archive: ArchiveMark | None = None

    def is_fresh(self, now_ms: int, monotonic_s: float) -> bool:
        """Say whether anything may be answered from this; asked before any cache."""
        return monotonic_s < self.fresh_until_s and self.wall_from_ms <= now_ms <= self.wall_until_ms


class Follows(Protocol):
    """What the paths need of the follower: what the worker believes now."""

    @property
    def standing(self) -> Standing: ...


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
        catalogue=Catalogue(is_known=False),
        fresh_until_s=0.0,
        wall_from_ms=0,
        wall_until_ms=-1,
    )
