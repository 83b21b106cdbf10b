"""What certificates look like: CA, end entity, and OCSP responder.

Knows: extensions, their order of importance and criticality, the names of CRL distribution
points, and how long each kind may live.  Dates end with a legal day: 23:59:59 in Japan.
Does not know: the register, keys on disk, or whether something may be issued.
Source: RFC 5280 §4.2; RFC 6960 §4.2.2.2 (delegated responder), §4.2.2.2.1 (no check);
Act arts. 7, 26 (contents: an authentication certificate carries no personal attribute).

The policy identifiers lie under the arc kept for documentation (RFC 5612), so that nothing
made here can pass for a certificate of the real service.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import date
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import (
    AuthorityInformationAccessOID,
    ExtendedKeyUsageOID,
    NameOID,
    ObjectIdentifier,
)

from certstatus import clock, oid
from certstatus.crl_catalogue import UNPARTITIONED
from certstatus.distribution_point import PointName, encode_distribution_points, encode_named_point
from certstatus.errors import PolicyViolation
from certstatus.key_kinds import signature_hash
from issuance.ca_keys import CAKey

SIGN = "SIGN"
AUTH = "AUTH"

CA_YEARS = 10
RESPONDER_LIFE_S_MAX = 30 * clock.DAY_S
_SERIAL_OCTETS = 16
_POLICY_ARC = "1.3.6.1.4.1.32473.1"
_POLICIES = {SIGN: f"{_POLICY_ARC}.1", AUTH: f"{_POLICY_ARC}.2"}
# In the directory names of distribution points, before the generation and the scope.
_POINTS_UNIT = "CRL Distribution Points"
_UNITS = {SIGN: "for digital signature", AUTH: "for user authentication"}

SubjectKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey


def new_serial() -> int:
    """Return 16 random octets as a positive number whose DER has exactly 16 content octets.

    RFC 5280 §4.1.2.2 allows 20; random, because sequential numbers can be counted through (Act art. 63).
    """
    first = 1 + secrets.randbelow(0x7F)
    return int.from_bytes(bytes([first]) + secrets.token_bytes(_SERIAL_OCTETS - 1), "big")


def ca_name(service: str, organization: str, unit: str) -> x509.Name:
    """Return the issuer's name; all generations of a service share it byte for byte."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "JP"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit or _UNITS.get(service, service)),
        ]
    )


def day_after_years(posix_s: int, years: int) -> int:
    """Return the last second of the JST day *years* after that of *posix_s*.

    29 February ends on 28 February in a common year.
    """
    day = clock.jst_day(posix_s)
    try:
        end = day.replace(year=day.year + years)
    except ValueError:
        end = day.replace(year=day.year + years, day=28)
    return clock.jst_day_end_s((end - date(1970, 1, 1)).days)


def day_after_days(posix_s: int, days: int) -> int:
    """Return the last second of the JST day *days* after that of *posix_s*."""
    return clock.jst_day_end_s(clock.jst_day_number(posix_s) + days)


# --- where a certificate's CRLs are ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CRLNames:
    """The names of one CRL scope, as they stand in certificates and, identically, in its CRLs.

    ``complete`` goes into cRLDistributionPoints, its directory name also into the
    IssuingDistributionPoint of complete and delta CRLs alike; ``freshest`` into freshestCRL of
    certificates and complete CRLs.
    ``kept_der``: of a CA that was taken over, the DistributionPointName in its CRLs, which stays: what is
    issued here must name the same (§5.2.5), with the place of ``complete`` as one more way there.
    """

    complete: PointName
    freshest: PointName
    kept_der: bytes | None = None

    @property
    def points_der(self) -> bytes:
        """The value of cRLDistributionPoints in a certificate that is in no partition."""
        if self.kept_der is None:
            return encode_distribution_points([self.complete])
        return encode_named_point(self.kept_der, self.complete[1])

    @property
    def freshest_der(self) -> bytes:
        """The value of freshestCRL."""
        return encode_distribution_points([self.freshest])

    def points_of(self, partition: CRLNames) -> bytes:
        """The value of cRLDistributionPoints in a certificate of *partition*; these are the names of ``all``.

        Two points, because the CRLs of each scope must name one of the certificate's (§6.3.3 (b)(2)(i)).
        That of ``all`` by its directory name only: who follows addresses fetches the partition.
        """
        return encode_distribution_points([partition.complete, (self.complete[0], ())])


def crl_names(
    ca: x509.Name, service: str, generation: int, base_url: str, scope: str = UNPARTITIONED
) -> CRLNames:
    """Return the names of a scope (``all``, ``m1/13104``): each carries the key's generation and the scope.

    Clients match a CRL by issuer name and distribution point, and generations share the issuer
    name; http and never https, which a client would need a CRL for (RFC 5280 §8).
    """
    kept = [
        attribute for attribute in ca if attribute.oid in (NameOID.COUNTRY_NAME, NameOID.ORGANIZATION_NAME)
    ]
    *scheme, partition = scope.split("/")
    units = [_POINTS_UNIT, f"g{generation}", *scheme]
    directory_name = x509.Name(
        [
            *kept,
            *(x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit) for unit in units),
            x509.NameAttribute(NameOID.COMMON_NAME, partition),
        ]
    ).public_bytes()
    place = f"{base_url.rstrip('/')}/crl/{service.lower()}/g{generation}/{scope}"
    return CRLNames(
        complete=(directory_name, (f"{place}/complete.crl",)),
        freshest=(directory_name, (f"{place}/delta.crl",)),
    )


def scope_of_point(directory_name: x509.Name) -> tuple[int, str] | None:
    """Return the generation and scope that a point's directory name carries; None: no name of ours.

    The inverse of ``crl_names``: what stands behind the generation is the scope, part by part.
    """
    attributes = list(directory_name)
    values = [str(attribute.value) for attribute in attributes]
    # Without the common name at its end it is a part of one, of a scheme and no partition.
    if _POINTS_UNIT not in values or attributes[-1].oid != NameOID.COMMON_NAME:
        return None
    generation, *scope = values[values.index(_POINTS_UNIT) + 1 :] or [""]
    if not generation.startswith("g") or not generation[1:].isdecimal() or not scope:
        return None
    return int(generation[1:]), "/".join(scope)


# --- certificates ------------------------------------------------------------------------------------


def sign_ca_certificate(key: CAKey, name: x509.Name, now_s: int) -> x509.Certificate:
    """Return a self-signed CA certificate for *key*, good for ten years."""
    public = key.public_key()
    return (
        x509.CertificateBuilder()
        .serial_number(new_serial())
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .not_valid_before(clock.utc(now_s))
        .not_valid_after(clock.utc(day_after_years(now_s, CA_YEARS)))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(key, signature_hash(key))
    )


class CertificatePoints(NamedTuple):
    """Where a certificate says that its CRLs are: the values of cRLDistributionPoints and freshestCRL."""

    points_der: bytes
    freshest_der: bytes


@dataclass(frozen=True, slots=True)
class EndEntityProfile:
    """What all end-entity certificates of one issuer share.

    ``ca_certificate`` lends its name and SKI; ``ca_url``: where it can be fetched; ``freshest``: put
    freshestCRL in, which binds the delta service for the life of the certificate.
    """

    service: str
    ca_certificate: x509.Certificate
    crl_names: CRLNames
    ocsp_url: str
    ca_url: str
    freshest: bool

    def sign(
        self,
        ca_key: CAKey,
        subject: x509.Name,
        public_key: SubjectKey,
        not_before_s: int,
        not_after_s: int,
        *,
        serial: int | None = None,
        points: CertificatePoints | None = None,
    ) -> x509.Certificate:
        """Return the certificate over *public_key*.

        Takes: ``serial``: by default a new random one; ``points``: those of its partition, default none.
        """
        if points is None:
            points = CertificatePoints(self.crl_names.points_der, self.crl_names.freshest_der)
        builder = (
            x509.CertificateBuilder()
            .serial_number(new_serial() if serial is None else serial)
            .subject_name(subject)
            .issuer_name(self.ca_certificate.subject)
            .public_key(public_key)
            .not_valid_before(clock.utc(not_before_s))
            .not_valid_after(clock.utc(not_after_s))
            .add_extension(authority_key_id(self.ca_certificate), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(
                _key_usage(digital_signature=True, content_commitment=self.service == SIGN), critical=True
            )
            .add_extension(
                x509.CertificatePolicies(
                    [x509.PolicyInformation(ObjectIdentifier(policy_id(self.service)), None)]
                ),
                critical=True,
            )
            .add_extension(
                x509.AuthorityInformationAccess(
                    [
                        x509.AccessDescription(
                            AuthorityInformationAccessOID.OCSP,
                            x509.UniformResourceIdentifier(self.ocsp_url),
                        ),
                        x509.AccessDescription(
                            AuthorityInformationAccessOID.CA_ISSUERS,
                            x509.UniformResourceIdentifier(self.ca_url),
                        ),
                    ]
                ),
                critical=False,
            )
            .add_extension(_points(oid.CRL_DISTRIBUTION_POINTS, points.points_der), critical=False)
        )
        if self.freshest:
            builder = builder.add_extension(_points(oid.FRESHEST_CRL, points.freshest_der), critical=False)
        return builder.sign(ca_key, signature_hash(ca_key))


def sign_responder_certificate(
    ca_key: CAKey,
    ca_certificate: x509.Certificate,
    host: str,
    public_key: SubjectKey | ed25519.Ed25519PublicKey,
    now_s: int,
    life_s: int,
) -> x509.Certificate:
    """Return a delegated OCSP responder's certificate (RFC 6960 §4.2.2.2).

    It says itself that nobody need check it (``0500``, not critical), so it is short-lived, and has
    neither AIA nor CRL distribution point.  Takes: ``life_s`` at most 30 days.
    Raises: PolicyViolation — longer, or beyond the CA certificate's end.
    """
    if not 0 < life_s <= RESPONDER_LIFE_S_MAX:
        raise PolicyViolation(
            f"a responder certificate lives 1..{RESPONDER_LIFE_S_MAX} s, asked for {life_s}"
        )
    if clock.utc(now_s + life_s) > ca_certificate.not_valid_after_utc:
        raise PolicyViolation("the responder certificate would outlive the CA certificate")
    kept = [attribute for attribute in ca_certificate.subject if attribute.oid != NameOID.COMMON_NAME]
    subject = x509.Name([*kept, x509.NameAttribute(NameOID.COMMON_NAME, f"OCSP responder {host}"[:64])])
    return (
        x509.CertificateBuilder()
        .serial_number(new_serial())
        .subject_name(subject)
        .issuer_name(ca_certificate.subject)
        .public_key(public_key)
        .not_valid_before(clock.utc(now_s))
        .not_valid_after(clock.utc(now_s + life_s))
        .add_extension(authority_key_id(ca_certificate), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(_key_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING]), critical=False)
        .add_extension(x509.OCSPNoCheck(), critical=False)
        .sign(ca_key, signature_hash(ca_key))
    )


def authority_key_id(ca_certificate: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """Return the AKI of what a CA issues: its SKI copied, however that was made.

    Of a CA certificate without one (older CAs): the SHA-1 of the key's bits (RFC 5280 §4.2.1.2 (1)).
    """
    try:
        ski = ca_certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        ski = x509.SubjectKeyIdentifier.from_public_key(ca_certificate.public_key())
    return x509.AuthorityKeyIdentifier(ski.digest, None, None)


def policy_id(service: str) -> str:
    """Return the certificate policy of a service, dotted."""
    return _POLICIES.get(service, f"{_POLICY_ARC}.3")


def _points(extension_id: str, value_der: bytes) -> x509.UnrecognizedExtension:
    # The CRL encoder's own bytes: the name in a CRL must be the identical one (RFC 5280 §5.2.5).
    return x509.UnrecognizedExtension(ObjectIdentifier(extension_id), value_der)


def _key_usage(
    *,
    digital_signature: bool = False,
    content_commitment: bool = False,
    key_cert_sign: bool = False,
    crl_sign: bool = False,
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=content_commitment,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )
