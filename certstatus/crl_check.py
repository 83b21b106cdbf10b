"""What a folder of CRLs says of one certificate, without asking anybody.

::

    certificate ─▶ CA by its key ─▶ CRLs whose scope covers it ─▶ in force? ─▶ delta over complete ─▶ status

Everything is verified again: the folder is believed no more than the CA keys in it.  What cannot be
said is ``unknown``, never ``good``.
Knows: which CRL covers which certificate, and how a delta changes what the complete one says.
Does not know: how the folder came to be (``crl_mirror``).
Source: RFC 5280 §6.3.3 (b) (scope), §5.2.4 (deltas), §5.3 (entries); X.509 §9.5.2.8 (who has expired).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from certstatus import clock
from certstatus.crl_catalogue import COMPLETE, DELTA
from certstatus.crl_entry import read_entries
from certstatus.crl_folder import CRLFolder, KeptCRL
from certstatus.crl_reason import CRLReason
from certstatus.crl_trust import SignedCRL, TrustedCA, check_dates, fits, read_signed_crl
from certstatus.der import integer_content
from certstatus.distribution_point import (
    IssuingDistributionPoint,
    names_of_points,
    parse_issuing_distribution_point,
    point_names,
)
from certstatus.errors import CRLRefused, DERError
from certstatus.x509_reading import UNREADABLE, load_certificate

GOOD = "good"
REVOKED = "revoked"
HELD = "held"
UNKNOWN = "unknown"
# Of what CRLs of one age say, the graver counts.
_WEIGHT = {GOOD: 0, UNKNOWN: 1, HELD: 2, REVOKED: 2}


class _Subject(NamedTuple):
    """What of a certificate decides which CRLs cover it, and what is looked for there.

    ``points``: names of its distribution points; ``serial``: INTEGER content octets; ``until_s``: its end.
    """

    serial: bytes
    is_ca: bool
    points: frozenset[bytes]
    until_s: int


@dataclass(frozen=True, slots=True)
class CheckedStatus:
    """What is known of a certificate; ``why`` explains ``unknown``.  Times in POSIX seconds.

    ``scope``, ``complete``, ``delta``: which CRLs say so, by number; ``delta`` None where none was of use.
    ``this_update_s``: of the newest of the two; ``next_update_s``: of the newest in force.
    ``expired_from_s``: since when both keep whoever has expired, None if one of them does not.
    """

    status: str
    serial: str
    why: str = ""
    scope: str = ""
    complete: int | None = None
    delta: int | None = None
    this_update_s: int | None = None
    next_update_s: int | None = None
    revoked_at_s: int | None = None
    reason: CRLReason | None = None
    invalid_since_s: int | None = None
    expired_from_s: int | None = None

    def keeps(self, certificate: x509.Certificate) -> bool:
        """Say whether the CRLs list it, if it is revoked, although it has expired (X.509 §9.5.2.8)."""
        if self.expired_from_s is None:
            return False
        return certificate.not_valid_after_utc >= clock.utc(self.expired_from_s)


def check_certificate(folder: CRLFolder, content: bytes, name: object, now_s: int) -> CheckedStatus:
    """Return what *folder* says at *now_s* of the certificate in *content*, PEM or DER.

    Raises: CRLRefused — not a certificate (*name* is named), or a file in the folder's ``ca`` is not a CA's.
    """
    try:
        certificate = load_certificate(content)
        extensions = certificate.extensions
    except UNREADABLE as exc:
        raise CRLRefused(f"{name}: not a certificate that can be read: {exc}") from exc
    serial = integer_content(certificate.serial_number)
    unknown = CheckedStatus(UNKNOWN, serial.hex())
    ca = _issuer(folder, certificate, extensions)
    if ca is None:
        return replace(unknown, why="its CA is none of those in the folder")
    try:
        points = _points(extensions)
    except DERError as exc:
        return replace(unknown, why=f"its distribution points cannot be read: {exc}")
    useless: list[str] = []
    until_s = int(certificate.not_valid_after_utc.timestamp())
    subject = _Subject(serial, _is_ca(extensions), points, until_s)
    found = [
        _told_over(_status(unknown, scope, complete, delta, until_s), folder, now_s)
        for scope, complete, delta, until_s in _in_force(folder, ca, subject, now_s, useless)
    ]
    if not found:
        why = "no CRL here covers it" + (f" ({'; '.join(useless)})" if useless else "")
        return replace(unknown, why=why)
    # From a revocation there is no way back, whatever a newer list of another scope says.
    revoked = [item for item in found if item.status == REVOKED]
    newest = max(revoked or found, key=lambda item: (item.this_update_s or 0, _WEIGHT[item.status]))
    if newest.status == GOOD and certificate.not_valid_after_utc < clock.utc(now_s):
        when = f"it expired on {certificate.not_valid_after_utc:%Y-%m-%d}"
        if not newest.keeps(certificate):
            # Lists need not name it any more.
            return replace(newest, status=UNKNOWN, why=_both(when, newest.why))
        return replace(newest, why=_both(f"{when}, and was not revoked by then", newest.why))
    return newest


def _issuer(
    folder: CRLFolder, certificate: x509.Certificate, extensions: x509.Extensions
) -> TrustedCA | None:
    """Return the CA whose key signed the certificate, by the key's name if the certificate has that."""
    try:
        key_id = extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    except x509.ExtensionNotFound:
        key_id = None
    for ca in folder.cas().values():
        if key_id in (None, ca.key_id) and _is_issued_by(certificate, ca):
            return ca
    return None


def _is_issued_by(certificate: x509.Certificate, ca: TrustedCA) -> bool:
    try:
        certificate.verify_directly_issued_by(ca.certificate)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _points(extensions: x509.Extensions) -> frozenset[bytes]:
    """Return all names of the certificate's distribution points."""
    try:
        found = extensions.get_extension_for_class(x509.CRLDistributionPoints)
    except x509.ExtensionNotFound:
        return frozenset()
    return names_of_points(found.value.public_bytes())


def _in_force(
    folder: CRLFolder, ca: TrustedCA, subject: _Subject, now_s: int, useless: list[str]
) -> Iterator[tuple[str, SignedCRL, SignedCRL | None, int]]:
    """Yield (scope, complete CRL, delta that fits it, until when) of the scopes that cover the certificate.

    *useless* gets what is not in force.  Of files that were noted to be of other scopes none is read.
    """
    for scope, kind, path in folder.files():
        noted = folder.noted(scope, kind)
        if kind != COMPLETE or (noted is not None and not _may_cover(noted, ca, subject)):
            continue
        try:
            complete = read_signed_crl(path, ca, subject.serial)
        except (CRLRefused, OSError) as exc:
            if noted is not None:
                useless.append(f"{scope}: {exc}")
            continue
        if complete.base_number is not None or not _covers(complete.point, subject):
            continue
        delta = _delta(folder, scope, ca, subject.serial, complete, now_s)
        # Joined to a delta that is in force, an older complete CRL says what is so now.
        in_force = complete if delta is None or delta.next_update_s <= now_s else delta
        try:
            # Made after the certificate's end: no later one says anything else of it.
            is_last_word = in_force.this_update_s > subject.until_s
            check_dates(in_force, min(now_s, in_force.next_update_s - 1) if is_last_word else now_s)
        except CRLRefused as exc:
            useless.append(f"{scope}: {exc}")
            continue
        yield scope, complete, delta, in_force.next_update_s


def _told_over(found: CheckedStatus, folder: CRLFolder, now_s: int) -> CheckedStatus:
    """Return what was found, with a word about CRLs that are over."""
    if found.next_update_s is None or found.next_update_s > now_s:
        return found
    over = f"the CRL was over at {clock.utc_text(found.next_update_s)}, but made after the certificate's end"
    if (ended := folder.ended.get(found.scope)) is not None:
        over = f"scope {found.scope} has ended: all certificates in it had by {ended}; this is its last CRL"
    return replace(found, why=_both(found.why, over))


def _both(*words: str) -> str:
    return "; ".join(filter(None, words))


def _may_cover(noted: KeptCRL, ca: TrustedCA, subject: _Subject) -> bool:
    """Say whether a file is worth reading, by what was noted of it."""
    if noted.key_id != ca.key_id.hex():
        return False
    try:
        point = None if noted.idp is None else parse_issuing_distribution_point(bytes.fromhex(noted.idp))
        return _covers(point, subject)
    except (DERError, ValueError):
        return True


def _delta(
    folder: CRLFolder, scope: str, ca: TrustedCA, serial: bytes, complete: SignedCRL, now_s: int
) -> SignedCRL | None:
    """Return the scope's delta if it can be joined to *complete*, and is or has been in force.

    One that is over still says what has happened since *complete*: nobody it revoked is good again.
    """
    try:
        delta = read_signed_crl(folder.file(scope, DELTA), ca, serial)
        check_dates(delta, min(now_s, delta.next_update_s - 1))
    except (OSError, CRLRefused):
        return None
    if delta.base_number is None or delta.idp_der != complete.idp_der:
        return None
    return delta if fits(delta.base_number, delta.number, complete.number) else None


def _is_ca(extensions: x509.Extensions) -> bool:
    try:
        return extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _covers(point: IssuingDistributionPoint | None, subject: _Subject) -> bool:
    """Say whether the scope of a complete CRL holds the certificate (RFC 5280 §6.3.3 (b)(2))."""
    if point is None:
        return True
    if point.only_ca_certs if not subject.is_ca else point.only_user_certs:
        return False
    return point.name_der is None or not subject.points.isdisjoint(point_names(point.name_der))


def _status(
    unknown: CheckedStatus, scope: str, complete: SignedCRL, delta: SignedCRL | None, until_s: int
) -> CheckedStatus:
    newest = complete if delta is None else delta
    kept_from_s = [complete.expired_from_s, newest.expired_from_s]
    said = replace(
        unknown,
        scope=scope,
        complete=complete.number,
        delta=None if delta is None else delta.number,
        this_update_s=newest.this_update_s,
        next_update_s=until_s,
        expired_from_s=None if None in kept_from_s else max(from_s or 0 for from_s in kept_from_s),
    )
    entry_der = None if delta is None else delta.entry_der
    if entry_der is None:
        entry_der = complete.entry_der
    if entry_der is None:
        return replace(said, status=GOOD)
    try:
        (entry,), _ = read_entries(entry_der, 0, len(entry_der))
        reason = CRLReason(entry.reason or 0)
    except (DERError, ValueError) as exc:
        return replace(said, why=f"its entry cannot be read: {exc}")
    if reason is CRLReason.REMOVE_FROM_CRL:
        return replace(said, status=GOOD)
    return replace(
        said,
        status=HELD if reason is CRLReason.CERTIFICATE_HOLD else REVOKED,
        revoked_at_s=entry.revoked_at_s,
        reason=reason,
        invalid_since_s=entry.invalidity_at_s,
    )
