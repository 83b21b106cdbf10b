"""The issuer table: for whom this system answers, under which policy.

An issuer is a (name, key) pair.  Several generations share one name; each has its own
key, its own section of the index and its own responder certificates.
Knows: the document's shape and the hashes by which a CertID finds an issuer.
Does not know: how issuers are made, nor any private key.
Source: RFC 6960 §4.1.1 (issuerNameHash, issuerKeyHash); document kind ``issuers``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from certstatus.errors import FeedError

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Issuer:
    """One issuer as the responders see it.

    ``names_der``: every encoding of the name seen in issued certificates, the CA
    certificate's own first.  ``spki_der``: SubjectPublicKeyInfo.  ``key_id``: the CA's SKI
    octets (AKI of what it issues).  ``certificates_der``: its CA certificates, newest first.
    ``foreign_crl``: (thisUpdate, nextUpdate) in POSIX seconds of the newest CRL taken over from a CA
    that revokes elsewhere: nothing is known beyond it; None where revocations are recorded here.
    ``crl_url``: where its certificates say that their complete CRL is.
    ``beside_register``: serials (hex) of certificates that its key signed and the index does not list,
    told only where a number that was never issued is called revoked.
    ``dropped``: serials (hex) of responder certificates that must not sign any more.
    ``ca_key_event_ms``: when all its certificates were revoked at once (Act arts. 14, 33), or None.
    """

    issuer_id: int
    service: str
    generation: int
    names_der: tuple[bytes, ...]
    spki_der: bytes
    key_id: bytes
    certificates_der: tuple[bytes, ...]
    access: str = "registered"
    hold: bool = False
    expired: str = "unknown"
    archive_cutoff_days: int = 0
    not_issued: str = "unknown"
    issued_list: str = "complete"
    unlisted: str = "unknown"
    invalidity_date: bool = False
    crl_id: bool = False
    cert_hash: bool = False
    both_hashes: bool = False
    validity_good_s: int = 900
    validity_revoked_s: int = 3600
    validity_unknown_s: int = 120
    ca_key_event_ms: int | None = None
    foreign_crl: tuple[int, int] | None = None
    crl_url: str = ""
    beside_register: tuple[str, ...] = ()
    dropped: tuple[str, ...] = field(default=())

    @property
    def path(self) -> str:
        """The part of CRL names and folders that tells this issuer: ``sign/g1``."""
        return f"{self.service.lower()}/g{self.generation}"

    def as_json(self) -> dict[str, Any]:
        """Return the issuer as it stands in the document; bytes in hex."""
        return {
            "issuer_id": self.issuer_id,
            "service": self.service,
            "generation": self.generation,
            "names": [name.hex() for name in self.names_der],
            "spki": self.spki_der.hex(),
            "key_id": self.key_id.hex(),
            "certificates": [certificate.hex() for certificate in self.certificates_der],
            "access": self.access,
            "hold": self.hold,
            "expired": self.expired,
            "archive_cutoff_days": self.archive_cutoff_days,
            "not_issued": self.not_issued,
            "issued_list": self.issued_list,
            "unlisted": self.unlisted,
            "invalidity_date": self.invalidity_date,
            "crl_id": self.crl_id,
            "cert_hash": self.cert_hash,
            "both_hashes": self.both_hashes,
            "validity_good_s": self.validity_good_s,
            "validity_revoked_s": self.validity_revoked_s,
            "validity_unknown_s": self.validity_unknown_s,
            "ca_key_event_ms": self.ca_key_event_ms,
            "foreign_crl": None if self.foreign_crl is None else list(self.foreign_crl),
            "crl_url": self.crl_url,
            "beside_register": list(self.beside_register),
            "dropped": list(self.dropped),
        }


def issuer_table_content(generation: int, issuers: list[Issuer]) -> dict[str, Any]:
    """Return the document content for *issuers*, to be encoded by ``documents``."""
    ordered = sorted(issuers, key=lambda issuer: issuer.issuer_id)
    return {"format": FORMAT, "generation": generation, "issuers": [item.as_json() for item in ordered]}


def read_issuer_table(content: dict[str, Any]) -> list[Issuer]:
    """Return the issuers of an opened document, by issuer_id.

    Raises: FeedError — another format, or a member missing or of the wrong form.
    """
    if content.get("format") != FORMAT:
        raise FeedError(f"issuer table format {content.get('format')!r}, this version reads {FORMAT}")
    try:
        return [_read_issuer(item) for item in content["issuers"]]
    except (KeyError, TypeError, ValueError, OverflowError) as exc:
        raise FeedError(f"issuer table: {exc!r}") from exc


def _read_issuer(item: dict[str, Any]) -> Issuer:
    plain = dict(item)
    foreign_crl = plain.pop("foreign_crl", None)
    if foreign_crl is not None:
        this_update_s, next_update_s = foreign_crl
        foreign_crl = (int(this_update_s), int(next_update_s))
    return Issuer(
        names_der=tuple(bytes.fromhex(name) for name in plain.pop("names")),
        spki_der=bytes.fromhex(plain.pop("spki")),
        key_id=bytes.fromhex(plain.pop("key_id")),
        certificates_der=tuple(bytes.fromhex(item) for item in plain.pop("certificates")),
        beside_register=tuple(plain.pop("beside_register", ())),
        dropped=tuple(plain.pop("dropped")),
        foreign_crl=foreign_crl,
        **plain,
    )
