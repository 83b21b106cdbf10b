"""CRLs as one who relies on them reads them: nothing in one counts before its CA's signature is verified.

Knows: which CA certificates may vouch for CRLs, and what must hold of a CRL by itself before it is used:
signature, issuer and key, a number, dates, and that all that is critical in it is understood.
Does not know: where CRLs come from or lie, and which certificates one covers (``crl_check``).
Memory: some blocks of the file, however long it is (``crl_signature`` names the exceptions); entries are
looked up as it is read, never listed.
Source: RFC 5280 §5, §6.3.3 (f), (g).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from certstatus import clock, oid
from certstatus.crl_signature import CAPublicKey, is_signed
from certstatus.crl_stream_decode import CRLDigests, CRLFile
from certstatus.distribution_point import IssuingDistributionPoint, parse_issuing_distribution_point
from certstatus.errors import CRLRefused, DERError
from certstatus.expired_certs import read_expired_certs
from certstatus.x509_reading import UNREADABLE, load_certificate, load_crl

# How far a CRL's date may lie ahead of our clock.
CLOCK_SKEW_S = 300

_UNDERSTOOD = frozenset({oid.ISSUING_DISTRIBUTION_POINT, oid.DELTA_CRL_INDICATOR})

_Extensions = dict[str, x509.Extension[x509.ExtensionType]]


@dataclass(frozen=True, slots=True)
class TrustedCA:
    """A CA whose CRLs are believed.  ``key_id``: its SKI, or the SHA-1 of its key's bits if it has none."""

    certificate: x509.Certificate
    public_key: CAPublicKey
    key_id: bytes
    name_der: bytes


@dataclass(frozen=True, slots=True)
class SignedCRL:
    """A CRL whose signature holds.  ``base_number`` is a delta's; times in POSIX seconds.

    ``idp_der`` and ``point``: its issuingDistributionPoint as octets and read, None without one;
    ``size``, ``sha256``: of its file; ``entry_der``: the entry that was looked for, None if there is none.
    ``expired_from_s``: it lists also whoever ended then or later; None: only who has not ended.
    """

    number: int
    base_number: int | None
    this_update_s: int
    next_update_s: int
    idp_der: bytes | None
    point: IssuingDistributionPoint | None
    size: int
    sha256: bytes
    entry_der: bytes | None
    expired_from_s: int | None = None


def read_trusted_ca(content: bytes, name: object) -> TrustedCA:
    """Return the CA in a certificate (PEM or DER) that its holder has decided to trust.

    Raises:  CRLRefused — no certificate, not a CA's, or its key may not sign CRLs; *name* is named.
    Source:  RFC 5280 §6.3.3 (f).
    """
    try:
        certificate = load_certificate(content)
        key = certificate.public_key()
        extensions = certificate.extensions
    except (*UNREADABLE, UnsupportedAlgorithm) as exc:
        raise CRLRefused(f"{name}: not a certificate that can be read: {exc}") from exc
    if not isinstance(key, CAPublicKey):
        raise CRLRefused(f"{name}: the key is of a kind that signs no CRL")
    try:
        is_ca = extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        # Certificates of version 1 cannot say; whoever gives one as a CA's knows what it is.
        is_ca = certificate.version is x509.Version.v1
    if not is_ca:
        raise CRLRefused(f"{name}: not the certificate of a CA")
    try:
        if not extensions.get_extension_for_class(x509.KeyUsage).value.crl_sign:
            raise CRLRefused(f"{name}: the key may not sign CRLs (keyUsage without cRLSign)")
    except x509.ExtensionNotFound:
        pass
    try:
        key_id = extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    except x509.ExtensionNotFound:
        key_id = x509.SubjectKeyIdentifier.from_public_key(key).digest
    return TrustedCA(certificate, key, key_id, certificate.subject.public_bytes())


def read_signed_crl(path: Path, ca: TrustedCA, serial: bytes | None = None) -> SignedCRL:
    """Return what the CRL (DER) in a file says, once its signature by *ca* is verified.

    Takes:   *serial* (INTEGER content octets): look for its entry, among the very octets that are verified.
    Raises:  CRLRefused — not a CRL, not of this CA or key, a signature that does not verify, no number or
             nextUpdate, something critical that is not understood, only some reasons, indirect.  OSError.
    Source:  RFC 5280 §5.1, §5.2, §6.3.3.
    """
    try:
        with CRLFile(path) as file:
            head = load_crl(file.head_der)
            extensions = {extension.oid.dotted_string: extension for extension in head.extensions}
            _check_origin(head, extensions, ca)
            entry_der, digests = _read_all(file, serial)
            if not is_signed(file, digests, ca.public_key):
                raise CRLRefused("the CA's signature does not verify")
            size = file.size
    except (DERError, *UNREADABLE) as exc:
        raise CRLRefused(f"not a CRL that can be read: {exc}") from exc
    for name, extension in extensions.items():
        if extension.critical and name not in _UNDERSTOOD:
            raise CRLRefused(f"extension {name} is critical and not understood")
    if head.next_update_utc is None:
        raise CRLRefused("no nextUpdate")
    idp_der, point = _point(extensions)
    return SignedCRL(
        number=_number(extensions),
        base_number=_base_number(extensions),
        this_update_s=int(head.last_update_utc.timestamp()),
        next_update_s=int(head.next_update_utc.timestamp()),
        idp_der=idp_der,
        point=point,
        size=size,
        sha256=digests.whole,
        entry_der=entry_der,
        expired_from_s=_expired_from_s(extensions),
    )


def _read_all(file: CRLFile, serial: bytes | None) -> tuple[bytes | None, CRLDigests]:
    """Read all of it; return the entry of *serial*, and the digests of what was read."""
    reading = file.reading()
    if serial is None:
        reading.skip()
        return None, reading.digests()
    found = reading.find(serial)
    return found, reading.digests()


def _check_origin(head: x509.CertificateRevocationList, extensions: _Extensions, ca: TrustedCA) -> None:
    """Raises: CRLRefused — it is another CA's, or another key's."""
    if head.issuer.public_bytes() != ca.name_der:
        raise CRLRefused(
            f"of {head.issuer.rfc4514_string()}, not of {ca.certificate.subject.rfc4514_string()}"
        )
    key_id = _key_id(extensions)
    if key_id != ca.key_id:
        found = "a key without a name" if key_id is None else f"key {key_id.hex()}"
        raise CRLRefused(f"of {found}, not of key {ca.key_id.hex()}")


def check_dates(crl: SignedCRL, now_s: int) -> None:
    """Make sure that a CRL is in force.  Raises: CRLRefused — not yet, not any more, or never."""
    if crl.next_update_s <= crl.this_update_s:
        raise CRLRefused("its nextUpdate is not after its thisUpdate")
    if crl.this_update_s > now_s + CLOCK_SKEW_S:
        raise CRLRefused(f"dated {clock.utc_text(crl.this_update_s)}, and here it is {clock.utc_text(now_s)}")
    if crl.next_update_s <= now_s:
        raise CRLRefused(f"expired at {clock.utc_text(crl.next_update_s)}")


def fits(base_number: int, number: int, complete_number: int) -> bool:
    """Say whether a delta can be joined to a complete CRL and says more than it (§5.2.4 (c), (d))."""
    return base_number <= complete_number < number


def _key_id(extensions: _Extensions) -> bytes | None:
    found = extensions.get(oid.AUTHORITY_KEY_IDENTIFIER)
    if found is None or not isinstance(found.value, x509.AuthorityKeyIdentifier):
        return None
    return found.value.key_identifier


def _number(extensions: _Extensions) -> int:
    found = extensions.get(oid.CRL_NUMBER)
    if found is None or not isinstance(found.value, x509.CRLNumber):
        raise CRLRefused("no CRL number")
    return found.value.crl_number


def _base_number(extensions: _Extensions) -> int | None:
    found = extensions.get(oid.DELTA_CRL_INDICATOR)
    if found is None:
        return None
    assert isinstance(found.value, x509.DeltaCRLIndicator)
    return found.value.crl_number


def _expired_from_s(extensions: _Extensions) -> int | None:
    """Return the date of expiredCertsOnCRL (X.509 §9.5.2.8); one that cannot be read promises nothing."""
    found = extensions.get(oid.EXPIRED_CERTS_ON_CRL)
    if found is None:
        return None
    try:
        return read_expired_certs(found.value.public_bytes())
    except DERError:
        return None


def _point(extensions: _Extensions) -> tuple[bytes | None, IssuingDistributionPoint | None]:
    found = extensions.get(oid.ISSUING_DISTRIBUTION_POINT)
    if found is None:
        return None, None
    try:
        idp_der = found.value.public_bytes()
        point = parse_issuing_distribution_point(idp_der)
    except DERError as exc:
        raise CRLRefused(f"its issuingDistributionPoint cannot be read: {exc}") from exc
    if point.only_some_reasons or point.indirect_crl or point.only_attribute_certs:
        raise CRLRefused("for some reasons only, indirect, or of attribute certificates")
    return idp_der, point
