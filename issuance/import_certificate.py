"""One certificate as an import reads it: from its own octets, as old and odd as it may be.

Knows: the fields an import needs, as they stand in the DER (names and serial numbers are not decoded and
encoded again, for CertIDs are hashes of their octets), and verifying a CA's signature.
Does not know: files, and what a certificate may be used for.
Source: RFC 5280 §4.1; RFC 3279, 4055, 5758 (algorithms).
"""

from __future__ import annotations

from typing import NamedTuple

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from certstatus.crl_lint import SERIAL_OCTETS_MAX
from certstatus.der import (
    CONTEXT_CONSTRUCTED,
    GENERALIZED_TIME,
    SEQUENCE,
    check_element,
    expect,
    expect_integer,
    expect_last,
    read_algorithm,
    read_generalized_time,
    read_integer,
    read_signature_bits,
    read_time,
)
from certstatus.errors import DERError
from certstatus.x509_reading import load_certificate

CAPublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey

_RSA_HASHES: dict[str, hashes.HashAlgorithm] = {
    "1.2.840.113549.1.1.5": hashes.SHA1(),
    "1.2.840.113549.1.1.14": hashes.SHA224(),
    "1.2.840.113549.1.1.11": hashes.SHA256(),
    "1.2.840.113549.1.1.12": hashes.SHA384(),
    "1.2.840.113549.1.1.13": hashes.SHA512(),
}
_RSA_PSS = "1.2.840.113549.1.1.10"
_ECDSA_HASHES: dict[str, hashes.HashAlgorithm] = {
    "1.2.840.10045.4.1": hashes.SHA1(),
    "1.2.840.10045.4.3.1": hashes.SHA224(),
    "1.2.840.10045.4.3.2": hashes.SHA256(),
    "1.2.840.10045.4.3.3": hashes.SHA384(),
    "1.2.840.10045.4.3.4": hashes.SHA512(),
}


_EXTENSIONS = CONTEXT_CONSTRUCTED | 3
# 1 to 3; 1 may be written out, for such were issued.
_VERSIONS = (0, 1, 2)


class CertificateFields(NamedTuple):
    """What stands in a certificate: content octets of the serial number, names as DER, POSIX seconds.

    ``extensions_der``: the Extensions element, empty in versions 1 and 2 and where there is none.
    """

    serial: bytes
    issuer_der: bytes
    not_before_s: int
    not_after_s: int
    subject_der: bytes
    spki_der: bytes
    tbs_der: bytes
    algorithm: str
    signature: bytes
    extensions_der: bytes = b""


class FieldError(ValueError):
    """A field is not what it must be; ``field`` names it."""

    def __init__(self, field: str, what: str) -> None:
        super().__init__(what)
        self.field = field


def read_certificate(der: bytes) -> CertificateFields:
    """Return the fields of a certificate.

    A serial number may be zero or negative, for such were issued; a date may be in either form.
    Raises: FieldError — not one DER certificate, or a serial number over 20 octets.
    """
    field = "certificate"
    try:
        pos, end = expect_last(der, 0, len(der), SEQUENCE)
        tbs_start = pos
        pos, tbs_end = expect(der, pos, end, SEQUENCE)
        if pos < tbs_end and der[pos] == CONTEXT_CONSTRUCTED:
            field = "version"
            start, pos = expect(der, pos, tbs_end, CONTEXT_CONSTRUCTED)
            version, start = read_integer(der, start, pos)
            if start != pos or version not in _VERSIONS:
                raise FieldError(field, "none of 1, 2 and 3")
        field = "serial number"
        start, pos = expect_integer(der, pos, tbs_end)
        serial = der[start:pos]
        if len(serial) > SERIAL_OCTETS_MAX:
            raise FieldError(field, f"{len(serial)} octets, at most {SERIAL_OCTETS_MAX}")
        field = "signature algorithm"
        inner, pos = read_algorithm(der, pos, tbs_end)
        field = "issuer"
        issuer_der, pos = _element(der, pos, tbs_end)
        field = "validity"
        start, stop = expect(der, pos, tbs_end, SEQUENCE)
        not_before_s, start = _read_time(der, start, stop)
        not_after_s, start = _read_time(der, start, stop)
        if start != stop:
            raise FieldError(field, "octets after notAfter")
        pos = stop
        field = "subject"
        subject_der, pos = _element(der, pos, tbs_end)
        field = "public key"
        spki_der, pos = _element(der, pos, tbs_end)
        field = "extensions"
        extensions_der = b""
        while pos < tbs_end:
            start, stop = pos, check_element(der, pos, tbs_end)
            if der[pos] == _EXTENSIONS:
                start, _ = expect(der, pos, tbs_end, _EXTENSIONS)
                extensions_der = der[start:stop]
            pos = stop
        field = "signature"
        algorithm, pos = read_algorithm(der, tbs_end, end)
        if algorithm != inner:
            raise FieldError("signature algorithm", "another one inside than outside of what is signed")
        start, pos = read_signature_bits(der, pos, end)
        if pos != end:
            raise FieldError(field, "octets after it")
    except DERError as exc:
        raise FieldError(field, f"not DER: {exc}") from exc
    return CertificateFields(
        serial,
        issuer_der,
        not_before_s,
        not_after_s,
        subject_der,
        spki_der,
        der[tbs_start:tbs_end],
        algorithm,
        der[start:pos],
        extensions_der,
    )


def _element(der: bytes, pos: int, end: int) -> tuple[bytes, int]:
    expect(der, pos, end, SEQUENCE)
    stop = check_element(der, pos, end)
    return der[pos:stop], stop


def _read_time(der: bytes, pos: int, end: int) -> tuple[int, int]:
    # Before RFC 2459 some wrote GeneralizedTime for years that UTCTime can say.
    if pos < end and der[pos] == GENERALIZED_TIME:
        return read_generalized_time(der, pos, end)
    return read_time(der, pos, end)


def is_issued_by(fields: CertificateFields, der: bytes, key: CAPublicKey) -> bool:
    """Say whether the certificate's signature verifies under a CA's key.

    Raises: FieldError — signed by an algorithm that is not known here.
    """
    if fields.algorithm == _RSA_PSS:
        return _is_pss_issued_by(fields, der, key)
    known = _RSA_HASHES if isinstance(key, rsa.RSAPublicKey) else _ECDSA_HASHES
    found = known.get(fields.algorithm)
    if found is None:
        if fields.algorithm in _RSA_HASHES or fields.algorithm in _ECDSA_HASHES:
            return False
        raise FieldError("signature algorithm", f"{fields.algorithm}, which is not known here")
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(fields.signature, fields.tbs_der, padding.PKCS1v15(), found)
        else:
            key.verify(fields.signature, fields.tbs_der, ec.ECDSA(found))
    except InvalidSignature:
        return False
    return True


def _is_pss_issued_by(fields: CertificateFields, der: bytes, key: CAPublicKey) -> bool:
    if not isinstance(key, rsa.RSAPublicKey):
        return False
    try:
        certificate = load_certificate(der)
        parameters = certificate.signature_algorithm_parameters
        found = certificate.signature_hash_algorithm
        assert isinstance(parameters, padding.PSS)
        assert found is not None
        key.verify(fields.signature, fields.tbs_der, parameters, found)
    except InvalidSignature:
        return False
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise FieldError("signature algorithm", f"RSASSA-PSS with parameters not known here: {exc}") from exc
    return True
