"""What published CRLs say was revoked: the memory that outlives a lost database.

Knows: reading CRL files, telling by signature which issuer made each, and following complete and
delta CRLs in order of their numbers to who is revoked or held at the end of them.
Does not know: the register; ``restore`` compares the two.
Source: RFC 5280 §5.2.3, §5.2.4 (numbers, deltas), §5.3.1 (removeFromCRL, certificateHold).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from certstatus.crl_reason import CRLReason
from certstatus.der import integer_content
from certstatus.x509_reading import load_crl
from issuance.issuers import IssuerRecord


class PublishedEntry(NamedTuple):
    """A revocation or hold as a CRL gives it."""

    reason: int | None
    revoked_at_s: int
    invalidity_s: int
    crl_number: int


class _Later(NamedTuple):
    issuer_id: int
    scope: str
    number: int
    is_delta: bool
    path: Path


@dataclass(slots=True)
class PublishedState:
    """What all CRLs of one issuer together say.

    ``revoked`` and ``held`` by serial (content octets); ``numbers``: the highest number by scope;
    ``this_update_s``: of the newest.
    """

    revoked: dict[bytes, PublishedEntry] = field(default_factory=dict)
    held: dict[bytes, PublishedEntry] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)
    this_update_s: int = 0
    crls: int = 0


def read_published(
    folders: Iterable[Path], issuers: list[IssuerRecord], after_s: int
) -> dict[int, PublishedState]:
    """Return, by issuer_id, what the CRL files under *folders* say.

    Numbers count from every CRL; entries from those made at *after_s* or later, since the register
    holds what was published before.  Files that are no CRL, or not signed by one of *issuers*, are
    passed over.  Memory: one CRL at a time, and what it and the others list.
    """
    states = {issuer.issuer_id: PublishedState() for issuer in issuers}
    later: list[_Later] = []
    for path in _crl_files(folders):
        crl = _read(path)
        issuer = None if crl is None else _issuer_of(crl, issuers)
        if crl is None or issuer is None:
            continue
        scope = _scope(crl, issuer)
        number = crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        this_update_s = int(crl.last_update_utc.timestamp())
        state = states[issuer.issuer_id]
        state.numbers[scope] = max(number, state.numbers.get(scope, 0))
        state.this_update_s = max(state.this_update_s, this_update_s)
        state.crls += 1
        if this_update_s >= after_s:
            # A complete CRL before the delta of the same number: they say the same.
            later.append(_Later(issuer.issuer_id, scope, number, _is_delta(crl), path))
    for item in sorted(later):
        crl = _read(item.path)
        if crl is not None:
            _follow(states[item.issuer_id], crl, item)
    return states


def _crl_files(folders: Iterable[Path]) -> Iterator[Path]:
    for folder in folders:
        yield from sorted(path for path in folder.rglob("*.crl") if path.is_file())


def _read(path: Path) -> x509.CertificateRevocationList | None:
    content = path.read_bytes()
    try:
        crl = load_crl(content)
        crl.extensions.get_extension_for_class(x509.CRLNumber)
    except (ValueError, x509.ExtensionNotFound, UnsupportedAlgorithm):
        return None
    return crl


def _issuer_of(crl: x509.CertificateRevocationList, issuers: list[IssuerRecord]) -> IssuerRecord | None:
    for issuer in issuers:
        key = serialization.load_der_public_key(issuer.spki_der)
        assert isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey)
        if crl.issuer.public_bytes() in issuer.names_der and crl.is_signature_valid(key):
            return issuer
    return None


def _scope(crl: x509.CertificateRevocationList, issuer: IssuerRecord) -> str:
    """Return the scope, from the URI in the CRL's own distribution point."""
    try:
        point = crl.extensions.get_extension_for_class(x509.IssuingDistributionPoint).value
    except x509.ExtensionNotFound:
        return "all"
    before = f"/crl/{issuer.service.lower()}/g{issuer.generation}/"
    for name in point.full_name or ():
        if isinstance(name, x509.UniformResourceIdentifier) and before in name.value:
            return name.value.partition(before)[2].rpartition("/")[0]
    return "all"


def _is_delta(crl: x509.CertificateRevocationList) -> bool:
    try:
        crl.extensions.get_extension_for_class(x509.DeltaCRLIndicator)
    except x509.ExtensionNotFound:
        return False
    return True


def _follow(state: PublishedState, crl: x509.CertificateRevocationList, which: _Later) -> None:
    if not which.is_delta:
        # A complete CRL lists all holds there are; revocations stay whatever later lists say.
        state.held.clear()
    for entry in crl:
        serial = integer_content(entry.serial_number)
        reason = _reason(entry)
        if reason == CRLReason.REMOVE_FROM_CRL:
            state.held.pop(serial, None)
            continue
        revoked_at_s = int(entry.revocation_date_utc.timestamp())
        found = PublishedEntry(reason, revoked_at_s, _invalidity_s(entry), which.number)
        if reason == CRLReason.CERTIFICATE_HOLD:
            state.held[serial] = found
        else:
            state.held.pop(serial, None)
            state.revoked.setdefault(serial, found)


def _reason(entry: x509.RevokedCertificate) -> int | None:
    try:
        flag = entry.extensions.get_extension_for_class(x509.CRLReason).value.reason
    except x509.ExtensionNotFound:
        return None
    reason = CRLReason[flag.name.upper()]
    return None if reason is CRLReason.UNSPECIFIED else reason


def _invalidity_s(entry: x509.RevokedCertificate) -> int:
    try:
        when = entry.extensions.get_extension_for_class(x509.InvalidityDate).value.invalidity_date_utc
    except x509.ExtensionNotFound:
        return 0
    return int(when.timestamp())
