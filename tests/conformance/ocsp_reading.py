"""What an OCSP answer says, read by other people's code, and only after its signature was verified.

Knows: the shape by asn1crypto, signatures and certificates by cryptography.
Does not know: what should have been said.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any, NamedTuple

from asn1crypto import core, ocsp
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

_HASHES: dict[str, hashes.HashAlgorithm] = {
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
STATUSES = {
    "successful": 0,
    "malformed_request": 1,
    "internal_error": 2,
    "try_later": 3,
    "sign_required": 5,
    "unauthorized": 6,
}


class Single(NamedTuple):
    """One SingleResponse.  *status*: good, revoked, unknown."""

    hash_alg: str
    name_hash: bytes
    key_hash: bytes
    serial: int
    status: str
    revoked_at: datetime | None
    reason: str | None
    this_update: datetime
    next_update: datetime
    extensions: dict[str, bytes]


class Said(NamedTuple):
    """A whole answer.  *status* is the number of the OCSPResponseStatus; the rest only where it is 0."""

    status: int
    singles: tuple[Single, ...] = ()
    nonce: bytes | None = None
    produced_at: datetime | None = None
    signer: x509.Certificate | None = None
    algorithm: str = ""
    extensions: tuple[str, ...] = ()

    @property
    def word(self) -> str:
        """All of it in short: ``good``, ``good revoked``, ``o6``."""
        return " ".join(single.status for single in self.singles) if self.status == 0 else f"o{self.status}"


def read_answer(der: bytes, ca: x509.Certificate) -> Said:
    """Read *der* and verify it under *ca*; whatever is not in order is an AssertionError."""
    response: Any = ocsp.OCSPResponse.load(der, strict=True)
    status = STATUSES[response["response_status"].native]
    if status:
        assert der == bytes.fromhex("30030a01") + bytes([status])
        return Said(status)
    assert response["response_bytes"]["response_type"].native == "basic_ocsp_response"
    basic: Any = response["response_bytes"]["response"].parsed
    data: Any = basic["tbs_response_data"]
    assert len(basic["certs"]) == 1
    signer = x509.load_der_x509_certificate(basic["certs"][0].dump())
    _verify(basic, data.dump(), signer, ca)
    produced_at = data["produced_at"].native
    assert signer.not_valid_before_utc <= produced_at <= signer.not_valid_after_utc
    extensions = {item["extn_id"].dotted: item["extn_value"] for item in data["response_extensions"] or ()}
    nonce = extensions.get("1.3.6.1.5.5.7.48.1.2")
    return Said(
        status,
        tuple(_single(item) for item in data["responses"]),
        None if nonce is None else core.OctetString.load(nonce.contents, strict=True).native,
        produced_at,
        signer,
        basic["signature_algorithm"]["algorithm"].native,
        tuple(extensions),
    )


def _verify(basic: Any, tbs: bytes, signer: x509.Certificate, ca: x509.Certificate) -> None:
    """Signature by *signer*, who was appointed by *ca* and is who the answer says."""
    signer.verify_directly_issued_by(ca)
    usage = signer.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.OCSP_SIGNING]
    key = signer.public_key()
    bits = key.public_bytes(
        serialization.Encoding.X962
        if isinstance(key, ec.EllipticCurvePublicKey)
        else serialization.Encoding.DER,
        serialization.PublicFormat.UncompressedPoint
        if isinstance(key, ec.EllipticCurvePublicKey)
        else serialization.PublicFormat.PKCS1,
    )
    who = basic["tbs_response_data"]["responder_id"]
    assert who.name == "by_key"
    assert who.chosen.native == hashlib.sha1(bits).digest()
    hash_alg = _HASHES[basic["signature_algorithm"].hash_algo]
    signature = basic["signature"].native
    if isinstance(key, ec.EllipticCurvePublicKey):
        key.verify(signature, tbs, ec.ECDSA(hash_alg))
    else:
        assert isinstance(key, rsa.RSAPublicKey)
        key.verify(signature, tbs, padding.PKCS1v15(), hash_alg)


def _single(item: Any) -> Single:
    named, state = item["cert_id"], item["cert_status"]
    revoked_at = reason = None
    if state.name == "revoked":
        revoked_at = state.chosen["revocation_time"].native
        reason = state.chosen["revocation_reason"].native
    return Single(
        named["hash_algorithm"]["algorithm"].native,
        named["issuer_name_hash"].native,
        named["issuer_key_hash"].native,
        named["serial_number"].native,
        state.name,
        revoked_at,
        reason,
        item["this_update"].native,
        item["next_update"].native,
        {one["extn_id"].dotted: one["extn_value"].contents for one in item["single_extensions"] or ()},
    )
