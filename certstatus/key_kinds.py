"""The kinds of keys that sign here: P-256, P-384 and RSA, by the names the configuration gives them.

Knows: making one in memory, its parameters, and the hash that goes with it.
Does not know: where keys are kept.
Source: RFC 5758 §3.2, RFC 4055 §5 (hash by key); CRYPTREC LS-0003 (lengths).
"""

from __future__ import annotations

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa

SigningKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

CURVES: dict[str, ec.EllipticCurve] = {"p256": ec.SECP256R1(), "p384": ec.SECP384R1()}
# How the configuration and everything that is shown call the curves that OpenSSL calls so; keys on the last
# are used, and never made.
CURVE_NAMES = {"secp256r1": "p256", "secp384r1": "p384", "secp521r1": "p521"}
RSA_BITS = {"rsa2048": 2048, "rsa3072": 3072, "rsa4096": 4096}


def generate_key(algorithm: str) -> SigningKey:
    """Return a new private key; *algorithm* is one of ``config.KEY_ALGORITHMS``."""
    if algorithm in CURVES:
        return ec.generate_private_key(CURVES[algorithm])
    return rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS[algorithm])


def signature_hash(key: SigningKey) -> hashes.SHA256 | hashes.SHA384:
    """Return the hash to sign with: SHA-384 for EC keys beyond 256 bits and SHA-256 otherwise."""
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.key_size > 256:
        return hashes.SHA384()
    return hashes.SHA256()
