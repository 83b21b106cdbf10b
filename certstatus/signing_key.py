# ruff: noqa: ARG002 - the arguments are those of `cryptography`'s interfaces
"""What a private key of ours refuses that does nothing but sign, behind the interfaces of `cryptography`.

Whoever signs through `cryptography` takes an EC or RSA private key; such a class has to have the methods
that would give the key's value away, or use it otherwise, too.
Knows: how they refuse.  Does not know: where the key is, or why it only signs.
"""

from __future__ import annotations

from typing import Any, ClassVar, NoReturn, Self

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding

from certstatus.errors import KeyFileError


class OnlySigns:
    """A key of either kind but for its public half and ``sign``; to be the first of the bases.

    ``refusal``: what is said to whoever asks for more.
    """

    refusal: ClassVar[str]

    def private_numbers(self) -> NoReturn:
        """Not from here."""
        raise KeyFileError(self.refusal)

    def private_bytes(
        self,
        encoding: serialization.Encoding,
        format: serialization.PrivateFormat,
        encryption_algorithm: serialization.KeySerializationEncryption,
    ) -> NoReturn:
        """Not from here."""
        raise KeyFileError(self.refusal)

    def exchange(self, algorithm: ec.ECDH, peer_public_key: ec.EllipticCurvePublicKey) -> NoReturn:
        """Not with this key."""
        raise KeyFileError(self.refusal)

    def decrypt(self, ciphertext: bytes, padding: padding.AsymmetricPadding) -> NoReturn:
        """Not with this key."""
        raise KeyFileError(self.refusal)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[Any, Any]) -> Self:
        return self
