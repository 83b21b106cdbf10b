"""Whether a CRL file is signed by a key, whatever the algorithm.

Those we sign with, RSA and ECDSA with SHA-256 or SHA-384, are verified by the digest that reading the file
gives.  Of the others some (Ed25519) need the octets themselves, so a file signed by one of them is read
whole, and must not be long.
Knows: which way, and that the algorithm inside and outside the signed part is the same (RFC 5280 §5.1.1.2).
Does not know: whose key it should be.
"""

from __future__ import annotations

import hashlib

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from certstatus.crl_stream_decode import CRLDigests, CRLFile, is_signed_by
from certstatus.errors import CRLRefused
from certstatus.x509_reading import load_crl

WHOLE_OCTETS_MAX = 64 << 20

CAPublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey | ed448.Ed448PublicKey


def is_signed(file: CRLFile, digests: CRLDigests, key: CAPublicKey) -> bool:
    """Say whether the signature of *file*, of which these are the digests, verifies under *key*.

    Raises: CRLRefused — it cannot be verified: an algorithm that we do not know, or one that needs all of
            a CRL of over 64 MiB.
    """
    head = file.head
    if head.signature_algorithm_der != head.outer_algorithm_der:
        return False
    if digests.signed:
        spki_der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return is_signed_by(head, digests.signed, spki_der)
    if file.size > WHOLE_OCTETS_MAX:
        raise CRLRefused(
            f"signed by {head.signature_algorithm}, and with {file.size} bytes too long to be verified"
            f" (at most {WHOLE_OCTETS_MAX}, unless signed by RSA or ECDSA with SHA-256 or SHA-384)"
        )
    content = file.read()
    try:
        is_valid = load_crl(content).is_signature_valid(key)
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        raise CRLRefused(f"signed in a way that cannot be verified: {exc}") from exc
    # And these are the octets that everything else was read from.
    return is_valid and hashlib.sha256(content).digest() == digests.whole
