"""Whether an answer is right: its status for every one, its signature for a sample.

The status is read where it stands, right behind the serial number that was asked about, so that
looking at every answer costs about a microsecond; a sample is parsed and verified by
``cryptography`` under the issuer's certificate.
Does not know: how the answer was fetched.
Source: RFC 6960 §4.2.1 (CertStatus tags), §4.2.2.2 (who may sign).
"""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

from bench.population import GOOD, REVOKED, UNKNOWN

_STATUS_TAGS = {0x80: GOOD, 0xA1: REVOKED, 0x82: UNKNOWN}
_ERRORS = {1: "malformedRequest", 2: "internalError", 3: "tryLater", 5: "sigRequired", 6: "unauthorized"}


def status_of(body: bytes, serial: bytes) -> str:
    """Return the status *body* gives for *serial*, or the name of the OCSP error that it is."""
    if len(body) == 5 and body.startswith(b"\x30\x03\x0a\x01"):
        return _ERRORS.get(body[4], f"error {body[4]}")
    # The CertID ends with the serial number, and the status follows it.
    at = body.find(bytes((2, len(serial))) + serial)
    if at < 0:
        return "no answer about this serial number"
    at += 2 + len(serial)
    return _STATUS_TAGS.get(body[at] if at < len(body) else 0, "not understood")


def verify(body: bytes, ca: x509.Certificate) -> None:
    """Check the signature of *body* and that its signer may answer for *ca*.

    Raises: ValueError — not a successful response; signed by nobody who may.
    """
    response = ocsp.load_der_ocsp_response(body)
    if response.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
        raise ValueError(response.response_status.name)
    certificate = response.certificates[0] if response.certificates else ca
    if certificate != ca:
        certificate.verify_directly_issued_by(ca)
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        if ExtendedKeyUsageOID.OCSP_SIGNING not in usage:
            raise ValueError("the signer's certificate is not for signing OCSP answers")
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
