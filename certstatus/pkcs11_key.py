"""Private keys that live in a PKCS#11 token, behind the interfaces of `cryptography`.

The classes below are what `cryptography` calls an EC or an RSA private key, so certificates,
CRLs and OCSP answers are signed with them by the same code as with keys from files; what
would need the key's value raises.  The token is opened when it is first needed, and once more after
the device lost the session; a module that cannot open it is begun anew itself, for one that has seen its
token vanish may never find it again.  One call at a time goes to it from this process: the binding starts
modules without telling them of threads, and several at once were seen to hang SoftHSM.
Knows: finding, making and using a key; the signature forms of both worlds.
Does not know: what is signed.  Needs the extra ``hsm`` (python-pkcs11).
Source: PKCS #11 3.0 §2.3.6 (ECDSA), §2.1.8 (RSA PKCS #1); RFC 8017 §9.2 (DigestInfo).
"""

from __future__ import annotations

import functools
import hashlib
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature

from certstatus.errors import KeyFileError
from certstatus.key_kinds import CURVES, RSA_BITS
from certstatus.pkcs11_uri import PKCS11URI
from certstatus.publisher_key import read_secret
from certstatus.signing_key import OnlySigns

# DigestInfo up to the digest, RFC 8017 §9.2 note 1.
_DIGEST_INFO = {
    "sha256": bytes.fromhex("3031300d060960864801650304020105000420"),
    "sha384": bytes.fromhex("3041300d060960864801650304020205000430"),
    "sha512": bytes.fromhex("3051300d060960864801650304020305000440"),
}
_NAME_BY_OCTETS = {32: "sha256", 48: "sha384", 64: "sha512"}
_one_call = threading.RLock()
# How often each module was ended, under ``_one_call``.  Numbers of sessions and keys begin again with it, so
# one from before could be another key's.
_endings: Counter[Path] = Counter()


@functools.cache
def open_key(uri: PKCS11URI) -> TokenECKey | TokenRSAKey:
    """Return the private key that *uri* names; asked again, the same one with its session.

    Raises: KeyFileError — no such module, token or key, a wrong PIN, or a key that is neither EC nor RSA.
    """
    token = _Token(uri)
    with _one_call:
        public_key = token.public_key()
    if isinstance(public_key, ec.EllipticCurvePublicKey):
        return TokenECKey(token, public_key)
    return TokenRSAKey(token, public_key)


def make_key(uri: PKCS11URI, algorithm: str) -> TokenECKey | TokenRSAKey:
    """Make a key pair in the token under *uri*'s label; *algorithm* is one of ``config.KEY_ALGORITHMS``.

    The private key cannot be taken out.
    Raises: KeyFileError — as ``open_key``; the label is taken, or missing.
    """
    if not uri.label:
        raise KeyFileError("PKCS#11 URI: object (the label of the new key) is missing")
    with _one_call:
        _Token(uri).generate(algorithm)
    return open_key(uri)


class _Token:
    """A session with the token, used under ``_one_call``."""

    def __init__(self, uri: PKCS11URI) -> None:
        self.uri = uri
        self._open_session: Any = None
        self._key: Any = None
        self._public_key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey | None = None
        self._endings = 0

    def sign(self, mechanism: str, data: bytes) -> bytes:
        """Return the raw signature over *data* by a mechanism of this name."""
        import pkcs11

        with _one_call:
            try:
                return self._sign(mechanism, data)
            except pkcs11.PKCS11Error:
                # The device was restarted, or closed the session: begin anew, once.
                self._open_session = self._key = None
            try:
                return self._sign(mechanism, data)
            except pkcs11.PKCS11Error as exc:
                raise KeyFileError(f"{self.uri}: {_reason(exc)}") from exc

    def _sign(self, mechanism: str, data: bytes) -> bytes:
        import pkcs11

        signature: bytes = self._private_key().sign(data, mechanism=pkcs11.Mechanism[mechanism])
        return signature

    def public_key(self) -> ec.EllipticCurvePublicKey | rsa.RSAPublicKey:
        """Return the public key beside the private one, which must be there too."""
        import pkcs11

        try:
            public_key = self._read_public_key()
            self._private_key()
        except pkcs11.PKCS11Error as exc:
            raise KeyFileError(f"{self.uri}: {_reason(exc)}") from exc
        except ValueError as exc:
            raise KeyFileError(f"{self.uri}: its public key cannot be read: {exc}") from exc
        if not isinstance(public_key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
            raise KeyFileError(f"{self.uri}: expected an EC or RSA key")
        self._public_key = public_key
        return public_key

    def generate(self, algorithm: str) -> None:
        """Make the key pair."""
        import pkcs11
        from pkcs11.util.ec import encode_named_curve_parameters

        session = self._session()
        try:
            if list(session.get_objects({pkcs11.Attribute.LABEL: self.uri.label})):
                raise KeyFileError(f"{self.uri}: the token has an object of this label already")
            if algorithm in CURVES:
                curve = CURVES[algorithm].name
                parameters = session.create_domain_parameters(
                    pkcs11.KeyType.EC,
                    {pkcs11.Attribute.EC_PARAMS: encode_named_curve_parameters(curve)},
                    local=True,
                )
                parameters.generate_keypair(label=self.uri.label, store=True)
            else:
                session.generate_keypair(
                    pkcs11.KeyType.RSA, RSA_BITS[algorithm], label=self.uri.label, store=True
                )
        except pkcs11.PKCS11Error as exc:
            raise KeyFileError(f"{self.uri}: {_reason(exc)}") from exc

    def _private_key(self) -> Any:  # noqa: ANN401 — python-pkcs11 declares no common type
        import pkcs11

        # First, for it may be that the key is one of a module that has ended.
        self._session()
        if self._key is None:
            found = self._find(pkcs11.ObjectClass.PRIVATE_KEY)
            if self._public_key is not None and self._read_public_key() != self._public_key:
                # It has the label; certificates are over the one that had it before.
                raise KeyFileError(f"{self.uri}: another key than before")
            self._key = found
        return self._key

    def _read_public_key(self) -> PublicKeyTypes:
        import pkcs11
        from pkcs11.util.ec import encode_ec_public_key
        from pkcs11.util.rsa import encode_rsa_public_key

        found = self._find(pkcs11.ObjectClass.PUBLIC_KEY)
        encode = encode_ec_public_key if found.key_type is pkcs11.KeyType.EC else encode_rsa_public_key
        return serialization.load_der_public_key(encode(found))

    def _find(self, kind: Any) -> Any:  # noqa: ANN401
        return self._session().get_key(
            object_class=kind, label=self.uri.label or None, id=self.uri.key_id or None
        )

    def _session(self) -> Any:  # noqa: ANN401
        if self._open_session is None or self._endings != _endings[self.uri.module]:
            self._open_session = self._key = None
            self._open_session = self._open()
            self._endings = _endings[self.uri.module]
        return self._open_session

    def _open(self) -> Any:  # noqa: ANN401
        try:
            import pkcs11
        except ModuleNotFoundError as exc:
            raise KeyFileError(
                "keys in a PKCS#11 token need the extra: pip install 'certstatus[hsm]'"
            ) from exc
        try:
            pin = read_secret(self.uri.pin_source).decode().strip()
        except UnicodeDecodeError as exc:
            raise KeyFileError(f"{self.uri.pin_source}: a PIN is text in UTF-8") from exc
        wanted: dict[str, Any] = {}
        if self.uri.token:
            wanted["token_label"] = self.uri.token
        if self.uri.serial:
            wanted["token_serial"] = self.uri.serial.encode()
        try:
            token = pkcs11.lib(str(self.uri.module)).get_token(**wanted)
            return token.open(rw=True, user_pin=pin)
        except pkcs11.UserAlreadyLoggedIn:
            # Logging in concerns the whole process; another key's session has done it.
            return token.open(rw=True)
        except (pkcs11.PKCS11Error, RuntimeError) as exc:
            if not isinstance(exc, pkcs11.PinIncorrect | pkcs11.PinLocked):
                self._end_module()
            raise KeyFileError(f"{self.uri}: {_reason(exc)}") from exc

    def _end_module(self) -> None:
        """Let the next call begin the module anew; sessions of all its keys are over."""
        import pkcs11

        with suppress(pkcs11.PKCS11Error, RuntimeError):
            module = pkcs11.lib(str(self.uri.module))
            _endings[self.uri.module] += 1
            module.finalize()


class _InToken(OnlySigns):
    refusal = "a key in a PKCS#11 token cannot be taken out, and only signs"


class TokenECKey(_InToken, ec.EllipticCurvePrivateKey):
    """An EC key in a token; ``uri`` says where."""

    def __init__(self, token: _Token, public_key: ec.EllipticCurvePublicKey) -> None:
        self.uri = token.uri
        self._token = token
        self._public_key = public_key

    def public_key(self) -> ec.EllipticCurvePublicKey:
        """Return the public key."""
        return self._public_key

    @property
    def curve(self) -> ec.EllipticCurve:
        """The curve."""
        return self._public_key.curve

    @property
    def key_size(self) -> int:
        """Bits."""
        return self._public_key.key_size

    def sign(self, data: Any, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:  # noqa: ANN401
        """Return the ECDSA signature over *data* (or over a digest, where it is Prehashed), DER."""
        if not isinstance(signature_algorithm, ec.ECDSA):
            raise TypeError("expected ECDSA")
        raw = self._token.sign("ECDSA", _digest(data, signature_algorithm.algorithm)[1])
        half = len(raw) // 2
        return encode_dss_signature(int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big"))


class TokenRSAKey(_InToken, rsa.RSAPrivateKey):
    """An RSA key in a token, signing with PKCS #1 v1.5; ``uri`` says where."""

    def __init__(self, token: _Token, public_key: rsa.RSAPublicKey) -> None:
        self.uri = token.uri
        self._token = token
        self._public_key = public_key

    def public_key(self) -> rsa.RSAPublicKey:
        """Return the public key."""
        return self._public_key

    @property
    def key_size(self) -> int:
        """Bits."""
        return self._public_key.key_size

    def sign(
        self,
        data: Any,  # noqa: ANN401
        padding: padding.AsymmetricPadding,
        algorithm: Prehashed | hashes.HashAlgorithm | Any,  # noqa: ANN401
    ) -> bytes:
        """Return the PKCS #1 v1.5 signature over *data* (or over a digest, where it is Prehashed)."""
        if padding.name != "EMSA-PKCS1-v1_5":
            raise TypeError(f"expected PKCS #1 v1.5, found {padding.name}")
        name, digest = _digest(data, algorithm)
        return self._token.sign("RSA_PKCS", _DIGEST_INFO[name] + digest)


def _digest(data: Any, algorithm: Any) -> tuple[str, bytes]:  # noqa: ANN401
    """Return the hash's name and the digest that is to be signed."""
    if isinstance(algorithm, Prehashed):
        digest = bytes(data)
        return _NAME_BY_OCTETS[len(digest)], digest
    return algorithm.name, hashlib.new(algorithm.name, bytes(data)).digest()


def _reason(exc: Exception) -> str:
    return str(exc) or type(exc).__name__
