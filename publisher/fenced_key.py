"""A CA key that signs only while its publisher still holds the lease.

Knows: asking the fence again at each signature.  Between a number being given out and the signature
lie encoding and lint, of millions of entries perhaps, and a process can be stopped there for as long as
anybody likes; what another publisher has taken over meanwhile is not to be signed twice.
Does not know: what is signed.  The fence cannot be asked and the signature made in one moment, so the
register still refuses what an outdated publisher has signed: this keeps such a signature from existing
in all cases but that of a stop between two instructions.
Source: RFC 5280 §5.2.3 (one CRL for one number).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from certstatus.signing_key import OnlySigns
from issuance.ca_keys import CAKey


def fenced(key: CAKey, ask: Callable[[], None]) -> CAKey:
    """Return *key* such that *ask* is called right before each signature; what it raises, ``sign`` raises."""
    if isinstance(key, rsa.RSAPrivateKey):
        return _FencedRSAKey(key, ask)
    return _FencedECKey(key, ask)


class _Fenced(OnlySigns):
    refusal = "this key only signs, and only for the publisher that holds the lease"


class _FencedECKey(_Fenced, ec.EllipticCurvePrivateKey):
    def __init__(self, key: ec.EllipticCurvePrivateKey, ask: Callable[[], None]) -> None:
        self._key = key
        self._ask = ask

    def public_key(self) -> ec.EllipticCurvePublicKey:
        """Return the public key."""
        return self._key.public_key()

    @property
    def curve(self) -> ec.EllipticCurve:
        """The curve."""
        return self._key.curve

    @property
    def key_size(self) -> int:
        """Bits."""
        return self._key.key_size

    def sign(self, data: Any, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:  # noqa: ANN401
        """Return the signature over *data*, if the fence still stands."""
        self._ask()
        return self._key.sign(data, signature_algorithm)


class _FencedRSAKey(_Fenced, rsa.RSAPrivateKey):
    def __init__(self, key: rsa.RSAPrivateKey, ask: Callable[[], None]) -> None:
        self._key = key
        self._ask = ask

    def public_key(self) -> rsa.RSAPublicKey:
        """Return the public key."""
        return self._key.public_key()

    @property
    def key_size(self) -> int:
        """Bits."""
        return self._key.key_size

    def sign(
        self,
        data: Any,  # noqa: ANN401
        padding: padding.AsymmetricPadding,
        algorithm: Prehashed | hashes.HashAlgorithm | Any,  # noqa: ANN401
    ) -> bytes:
        """Return the signature over *data*, if the fence still stands."""
        self._ask()
        return self._key.sign(data, padding, algorithm)
