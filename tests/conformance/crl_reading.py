"""What a CRL says, read by other people's code.

Knows: the shape by asn1crypto, the signature by cryptography.
Does not know: what should have been said.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from asn1crypto import core, crl, parser
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

CRL_NUMBER = "2.5.29.20"
DELTA_INDICATOR = "2.5.29.27"
IDP = "2.5.29.28"
FRESHEST = "2.5.29.46"
AKI = "2.5.29.35"
AIA = "1.3.6.1.5.5.7.1.1"
REASON = "2.5.29.21"
INVALIDITY = "2.5.29.24"
CERTIFICATE_ISSUER = "2.5.29.29"
REASONS = {
    "unspecified": 0,
    "key_compromise": 1,
    "ca_compromise": 2,
    "affiliation_changed": 3,
    "superseded": 4,
    "cessation_of_operation": 5,
    "certificate_hold": 6,
    "remove_from_crl": 8,
    "privilege_withdrawn": 9,
    "aa_compromise": 10,
}


class Ext(NamedTuple):
    """One extension; *value* is the DER in its OCTET STRING."""

    critical: bool
    value: bytes


class Line(NamedTuple):
    """One entry; times in POSIX seconds; *time_tag* is the DER tag of revocationDate."""

    serial: int
    revoked_at_s: int
    time_tag: int
    reason: int | None
    invalidity_at_s: int | None
    extensions: dict[str, Ext]


class ReadCRL(NamedTuple):
    """A whole CRL; *parts* are the elements of TBSCertList, each as its DER, in order."""

    der: bytes
    parts: tuple[bytes, ...]
    issuer: bytes
    this_update_s: int
    next_update_s: int
    lines: tuple[Line, ...]
    extensions: dict[str, Ext]

    @property
    def number(self) -> int:
        """CRLNumber."""
        return int(core.Integer.load(self.extensions[CRL_NUMBER].value, strict=True).native)

    @property
    def base(self) -> int | None:
        """BaseCRLNumber; None in a complete CRL."""
        found = self.extensions.get(DELTA_INDICATOR)
        return None if found is None else int(core.Integer.load(found.value, strict=True).native)

    @property
    def key_id(self) -> bytes:
        """keyIdentifier of the authority key identifier."""
        value: Any = asn1_x509.AuthorityKeyIdentifier.load(self.extensions[AKI].value, strict=True)
        return bytes(value["key_identifier"].native)

    def line(self, serial: int) -> Line | None:
        """What it says of a certificate."""
        return next((line for line in self.lines if line.serial == serial), None)


def read_crl(der: bytes, ca: x509.Certificate) -> ReadCRL:
    """Read *der* to its last octet and verify it under *ca*."""
    loaded = x509.load_der_x509_crl(der)
    key = ca.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey)
    assert loaded.issuer == ca.subject
    assert loaded.is_signature_valid(key)
    listed: Any = crl.CertificateList.load(der, strict=True)
    tbs = listed["tbs_cert_list"]
    return ReadCRL(
        der,
        tuple(elements(elements(der)[0])),
        tbs["issuer"].dump(),
        int(tbs["this_update"].native.timestamp()),
        int(tbs["next_update"].native.timestamp()),
        tuple(_line(item) for item in tbs["revoked_certificates"] or ()),
        _extensions(tbs["crl_extensions"]),
    )


def elements(der: bytes) -> list[bytes]:
    """The DER of each element inside a constructed one."""
    *_, content, _ = parser.parse(der, strict=True)
    found = []
    while content:
        whole = sum(map(len, parser.parse(content)[3:]))
        found.append(content[:whole])
        content = content[whole:]
    return found


def _line(item: Any) -> Line:
    extensions = _extensions(item["crl_entry_extensions"])
    reason = invalidity = None
    if REASON in extensions:
        reason = REASONS[crl.CRLReason.load(extensions[REASON].value, strict=True).native]
    if INVALIDITY in extensions:
        invalidity = core.GeneralizedTime.load(extensions[INVALIDITY].value, strict=True).native
    return Line(
        item["user_certificate"].native,
        int(item["revocation_date"].native.timestamp()),
        item["revocation_date"].chosen.tag,
        reason,
        None if invalidity is None else int(invalidity.timestamp()),
        extensions,
    )


def _extensions(items: Any) -> dict[str, Ext]:
    found = {
        item["extn_id"].dotted: Ext(bool(item["critical"].native), item["extn_value"].contents)
        for item in items or ()
    }
    assert len(found) == len(items or ())
    return found
