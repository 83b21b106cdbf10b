"""Making one CRL file, and checking it from its bytes before anybody may see it.

::

    entries ─▶ TBSCertList ─▶ lint ─▶ sign ─▶ hidden file ─▶ read back: signature, fields, entries ─▶ named

Knows: encoding, which algorithm a CA key signs with, and what a finished file must show.  What is
compared comes from the file, never from what was meant to be written into it.
Does not know: numbers given out, schedules, the register of CRLs.
Source: RFC 5280 §5; RFC 3279, 4055, 5758 (algorithms).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from certstatus import oid
from certstatus.crl import (
    ParsedCRL,
    encode_certificate_list,
    encode_tbs_cert_list,
    parse_certificate_list,
)
from certstatus.crl_combine import combine
from certstatus.crl_entry import CRLEntry
from certstatus.crl_lint import lint
from certstatus.errors import CRLCheckFailed
from certstatus.key_kinds import signature_hash
from issuance.ca_keys import CAKey
from publisher.crl_scopes import CRLScope

# Lint looks at a whole CertificateList; before signing, this stands where the signature will be.
_NO_SIGNATURE = bytes(64)


class CRLHead(NamedTuple):
    """What a CRL says of itself; ``base_number`` None for a complete one.  Times in POSIX s."""

    number: int
    base_number: int | None
    this_update_s: int
    next_update_s: int


def make_crl(scope: CRLScope, head: CRLHead, entries: Iterable[CRLEntry], ca_key: CAKey) -> bytes:
    """Return the signed CRL, DER.

    Raises: CRLCheckFailed — lint found something; nothing was signed.
    """
    algorithm_der = signature_algorithm_der(ca_key)
    tbs_der = encode_tbs_cert_list(
        issuer_name_der=scope.issuer.name_der,
        signature_algorithm_der=algorithm_der,
        this_update_s=head.this_update_s,
        next_update_s=head.next_update_s,
        entries=entries,
        crl_number=head.number,
        aki_key_id=scope.issuer.key_id,
        base_crl_number=head.base_number,
        issuing_distribution_point_der=scope.idp_der,
        freshest_crl_der=scope.freshest_der if head.base_number is None else None,
    )
    unsigned = parse_certificate_list(encode_certificate_list(tbs_der, algorithm_der, _NO_SIGNATURE))
    findings = _findings(scope, unsigned)
    if findings:
        raise CRLCheckFailed(findings)
    return encode_certificate_list(tbs_der, algorithm_der, sign(ca_key, tbs_der))


def _findings(scope: CRLScope, parsed: ParsedCRL) -> list[str]:
    findings = lint(parsed, hold_allowed=scope.issuer.policy.hold)
    if scope.issuer.imported is not None:
        # An old CA may have issued under 0 or a negative number; once revoked, that must be listed.
        findings = [code for code in findings if code != "pkix.crl_serial_not_positive"]
    return findings


def signature_algorithm_der(ca_key: CAKey) -> bytes:
    """Return the AlgorithmIdentifier a CA key signs with."""
    if isinstance(ca_key, rsa.RSAPrivateKey):
        return oid.SHA256_WITH_RSA_DER
    strong = isinstance(signature_hash(ca_key), hashes.SHA384)
    return oid.ECDSA_WITH_SHA384_DER if strong else oid.ECDSA_WITH_SHA256_DER


def sign(ca_key: CAKey, tbs_der: bytes) -> bytes:
    """Return the signature over *tbs_der*."""
    if isinstance(ca_key, rsa.RSAPrivateKey):
        return ca_key.sign(tbs_der, padding.PKCS1v15(), signature_hash(ca_key))
    return ca_key.sign(tbs_der, ec.ECDSA(signature_hash(ca_key)))


def write_hidden(path: Path, crl_der: bytes) -> Path:
    """Write *crl_der* durably beside *path* under a name nobody serves; return that name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    hidden = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with hidden.open("wb") as file:
            file.write(crl_der)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        # What a full disk has taken of it must not keep the disk full.
        if hidden.is_file():
            hidden.unlink()
        raise
    return hidden


def read_and_check(
    path: Path, scope: CRLScope, head: CRLHead, expected: Mapping[bytes, CRLEntry], base: ParsedCRL | None
) -> ParsedCRL:
    """Read the file at *path* and check all that it must be.

    Takes:   *expected*: the list as it stands at the CRL's cut; *base*: for a delta, its base as read
             from its own file.
    Raises:  CRLCheckFailed — with every finding; DERError — not a CRL at all.
    """
    parsed = parse_certificate_list(path.read_bytes())
    issuer = scope.issuer
    findings = _findings(scope, parsed)
    if not is_signed_by(parsed, issuer.spki_der):
        findings.append("certstatus.crl_signature_wrong")
    found = CRLHead(parsed.number or 0, parsed.base_number, parsed.this_update_s, parsed.next_update_s or 0)
    if found != head:
        findings.append("certstatus.crl_head_differs")
    if parsed.issuer_der != issuer.name_der:
        findings.append("certstatus.crl_issuer_differs")
    if parsed.aki_key_id != issuer.key_id:
        findings.append("certstatus.crl_aki_differs")
    if parsed.idp_der != scope.idp_der:
        findings.append("certstatus.crl_scope_differs")
    entries = parsed.entries
    if head.base_number is not None:
        if base is None or base.number != head.base_number:
            raise CRLCheckFailed([*findings, "certstatus.crl_base_missing"])
        entries = combine(base, parsed)
    if {entry.serial: entry for entry in entries} != expected:
        findings.append("certstatus.crl_entries_differ")
    if findings:
        raise CRLCheckFailed(findings)
    return parsed


def is_signed_by(parsed: ParsedCRL, spki_der: bytes) -> bool:
    """Say whether the CRL's signature verifies under a public key (SubjectPublicKeyInfo)."""
    key = serialization.load_der_public_key(spki_der)
    try:
        if isinstance(key, rsa.RSAPublicKey):
            if parsed.signature_algorithm != oid.SHA256_WITH_RSA:
                return False
            key.verify(parsed.signature, parsed.tbs_der, padding.PKCS1v15(), hashes.SHA256())
        elif isinstance(key, ec.EllipticCurvePublicKey):
            hash_of = {oid.ECDSA_WITH_SHA256: hashes.SHA256(), oid.ECDSA_WITH_SHA384: hashes.SHA384()}
            found = hash_of.get(parsed.signature_algorithm)
            if found is None:
                return False
            key.verify(parsed.signature, parsed.tbs_der, ec.ECDSA(found))
        else:
            return False
    except InvalidSignature:
        return False
    return True
