"""Whether an answer is right: what it says for every one, its signature for a sample.

What it says is read where it stands, right behind the CertID that was asked about, so that
looking at every answer costs two microseconds; an answer in any other form is parsed by
``cryptography``, and so is the sample, whose signature is verified under the issuer's certificate.
Does not know: how the answer was fetched, what it should say.
Source: RFC 6960 §4.2.1 (SingleResponse), §4.2.2.1 (time), §4.2.2.2 (who may sign).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

from bench.population import GOOD, REVOKED, UNKNOWN

_STATUS_TAGS = {0x80: GOOD, 0xA1: REVOKED, 0x82: UNKNOWN}
_STATUSES = {
    ocsp.OCSPCertStatus.GOOD: GOOD,
    ocsp.OCSPCertStatus.REVOKED: REVOKED,
    ocsp.OCSPCertStatus.UNKNOWN: UNKNOWN,
}
ERRORS = {1: "malformedRequest", 2: "internalError", 3: "tryLater", 5: "sigRequired", 6: "unauthorized"}


class Said(NamedTuple):
    """What an answer says of one certificate.

    status                    good, revoked or unknown; anything else is in words why there is none
    this_update, next_update  YYYYMMDDHHMMSSZ; next_update is empty where the answer has none
    """

    status: str
    this_update: bytes = b""
    next_update: bytes = b""


def error_of(body: bytes) -> str | None:
    """Return the name of the OCSP error that *body* is, or None."""
    if len(body) == 5 and body.startswith(b"\x30\x03\x0a\x01"):
        return ERRORS.get(body[4], f"error {body[4]}")
    return None


def said_of(body: bytes, issuer: bytes, serial: bytes) -> Said:
    """Return what *body* says of the certificate *serial* (content octets).

    issuer  what stands before the serial number in the CertID that was asked for
    """
    at = body.find(issuer + bytes((2, len(serial))) + serial)
    if at < 0:
        return _said_slowly(body, issuer, serial)
    at += len(issuer) + 2 + len(serial)
    try:
        status = _STATUS_TAGS[body[at]]
        at += 2 + body[at + 1]
        if body[at : at + 2] != b"\x18\x0f":
            return _said_slowly(body, issuer, serial)
        this_update = body[at + 2 : at + 17]
        if body[at + 17 : at + 21] == b"\xa0\x11\x18\x0f":
            return Said(status, this_update, body[at + 21 : at + 36])
        return Said(status, this_update)
    except (IndexError, KeyError):
        return _said_slowly(body, issuer, serial)


def _said_slowly(body: bytes, issuer: bytes, serial: bytes) -> Said:
    try:
        response = ocsp.load_der_ocsp_response(body)
        if response.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
            return Said(response.response_status.name)
        number = int.from_bytes(serial, "big", signed=True)
        for single in response.responses:
            # The hashes' octets are those that were asked with, however the algorithm is written.
            ends = issuer.endswith(b"\x04" + bytes((len(single.issuer_key_hash),)) + single.issuer_key_hash)
            if single.serial_number == number and ends and single.issuer_name_hash in issuer:
                until = single.next_update_utc
                return Said(
                    _STATUSES[single.certificate_status],
                    time_octets(single.this_update_utc),
                    b"" if until is None else time_octets(until),
                )
    except ValueError as exc:
        return Said(f"cannot be read: {exc}")
    return Said("no answer about the CertID that was asked for")


def time_octets(when: datetime) -> bytes:
    """Return a time as GeneralizedTime has it, which sorts like time itself."""
    return when.strftime("%Y%m%d%H%M%SZ").encode("ascii")


def verify(body: bytes, ca: x509.Certificate, now: datetime | None = None) -> None:
    """Check the signature of *body*, that its signer may answer for *ca*, and that now is its time.

    Raises: ValueError — not a successful response; signed by nobody who may.
    """
    now = now or datetime.now(UTC)
    response = ocsp.load_der_ocsp_response(body)
    if response.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
        raise ValueError(response.response_status.name)
    certificate = response.certificates[0] if response.certificates else ca
    if certificate != ca:
        _check_delegate(certificate, ca, now)
    key, algorithm = certificate.public_key(), response.signature_hash_algorithm
    if algorithm is None:
        raise ValueError("signed without a hash")
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(response.signature, response.tbs_response_bytes, ec.ECDSA(algorithm))
        elif isinstance(key, rsa.RSAPublicKey):
            key.verify(response.signature, response.tbs_response_bytes, padding.PKCS1v15(), algorithm)
        else:
            raise ValueError("signed with a key of another kind")
    except InvalidSignature as exc:
        raise ValueError("the signature is wrong") from exc


def _check_delegate(certificate: x509.Certificate, ca: x509.Certificate, now: datetime) -> None:
    try:
        certificate.verify_directly_issued_by(ca)
    except (InvalidSignature, TypeError, ValueError) as exc:
        raise ValueError("the signer's certificate was not issued by this CA") from exc
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound as exc:
        raise ValueError("the signer's certificate is not for signing OCSP answers") from exc
    if ExtendedKeyUsageOID.OCSP_SIGNING not in usage:
        raise ValueError("the signer's certificate is not for signing OCSP answers")
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise ValueError("the signer's certificate is not valid now")
