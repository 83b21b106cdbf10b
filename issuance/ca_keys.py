"""CA private keys: encrypted PKCS#8 files that only their owner may read, or PKCS#11 URIs in their place.

Knows: making a key by the name of its algorithm, keeping it under ``STATE/ca``, where the
passphrase comes from (environment, else a file beside the keys).
Does not know: what is signed; keys never leave this package and never reach SQL or Valkey.
Source: RFC 5958 (PKCS#8); RFC 5758, RFC 4055 (hash by key).
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from certstatus.durable import sync_folder, write_durable
from certstatus.errors import KeyFileError
from certstatus.key_kinds import SigningKey
from certstatus.pkcs11_key import make_key, open_key
from certstatus.pkcs11_uri import PKCS11URI, SCHEME, parse_uri
from certstatus.publisher_key import SECRET_MODE, read_secret

CAKey = SigningKey

PASSPHRASE_VARIABLE = "CERTSTATUS_CA_PASSPHRASE"


class CAKeyFolder:
    """The keys of one installation, ``<issuer_id>.key`` each, decrypted when first asked for."""

    def __init__(self, folder: Path, environment: Mapping[str, str] = os.environ) -> None:
        self.folder = folder
        self._environment = environment
        self._loaded: dict[int, CAKey] = {}

    @property
    def passphrase_path(self) -> Path:
        """Where the passphrase is when the environment does not give it."""
        return self.folder / "passphrase"

    def path(self, issuer_id: int) -> Path:
        """Where the key of an issuer is."""
        return self.folder / f"{issuer_id}.key"

    def passphrase(self) -> bytes:
        """Return the passphrase of all keys here.

        Raises: KeyFileError — neither the environment nor the file has one, or others can read the file.
        """
        given = self._environment.get(PASSPHRASE_VARIABLE)
        if given:
            return given.encode()
        if not self.passphrase_path.exists():
            raise KeyFileError(
                f"{self.passphrase_path}: not there, and {PASSPHRASE_VARIABLE} is not set; one of them opens"
                " the CA keys"
            )
        found = read_secret(self.passphrase_path).strip()
        if not found:
            raise KeyFileError(f"{self.passphrase_path}: empty")
        return found

    def make_passphrase(self) -> None:
        """Make a random passphrase file, unless there is a passphrase already."""
        self._make_folder()
        if not self._environment.get(PASSPHRASE_VARIABLE) and not self.passphrase_path.exists():
            write_durable(self.passphrase_path, secrets.token_urlsafe(32).encode() + b"\n", SECRET_MODE)

    def private_key(self, issuer_id: int) -> CAKey:
        """Return the key of an issuer.

        Raises: KeyFileError — absent, readable by others, encrypted otherwise, or not a CA key.
        """
        key = self._loaded.get(issuer_id)
        if key is None:
            key = self._loaded[issuer_id] = load_key(self.path(issuer_id), self.passphrase)
        return key

    def make_in_token(self, uri: PKCS11URI, service: str, algorithm: str) -> tuple[CAKey, Path]:
        """Make a key for *service* in the token at *uri*; like ``write_new``, what is written is its URI.

        Raises: KeyFileError — the token refuses.
        """
        self._make_folder()
        mark = secrets.token_hex(8)
        named = uri.named(f"{service.lower()}-ca-{mark}")
        key = make_key(named, algorithm)
        path = self.folder / f"new-{mark}.key"
        write_durable(path, f"{named}\n".encode(), SECRET_MODE)
        return key, path

    def write_new(self, key: CAKey) -> Path:
        """Write a key that has no number yet; durable when this returns.

        Gives: its present path, for ``adopt``.
        """
        self._make_folder()
        path = self.folder / f"new-{secrets.token_hex(8)}.key"
        # BestAvailable: PBES2 with AES-256; what it costs to open is paid once per process.
        encrypted = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(self.passphrase()),
        )
        write_durable(path, encrypted, SECRET_MODE)
        return path

    def adopt(self, new_path: Path, issuer_id: int) -> None:
        """Give the key at *new_path* its number.

        A file already there belongs to no issuer (creating one was interrupted, or an older backup
        was restored): it is kept under another name, never overwritten.
        """
        target = self.path(issuer_id)
        if target.exists():
            target.rename(self.folder / f"{issuer_id}.unused-{secrets.token_hex(4)}.key")
        new_path.rename(target)
        sync_folder(self.folder)
        self._loaded.pop(issuer_id, None)

    def _make_folder(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def load_key(path: Path, passphrase: Callable[[], bytes]) -> CAKey:
    """Return the private key in the encrypted PKCS#8 file *path*, or the one that the URI in it names.

    Takes:  *passphrase*: asked for only where a file needs one.
    Raises: KeyFileError — absent, readable by others, not encrypted, another passphrase, or of no use.
    """
    content = read_secret(path)
    if content.startswith(SCHEME.encode()):
        try:
            return open_key(parse_uri(content.decode()))
        except (KeyFileError, UnicodeDecodeError) as exc:
            raise KeyFileError(f"{path}: {exc}") from exc
    if b"ENCRYPTED PRIVATE KEY" not in content:
        raise KeyFileError(f"{path}: expected an encrypted PKCS#8 key")
    try:
        key = serialization.load_pem_private_key(content, passphrase())
    except (ValueError, TypeError) as exc:
        raise KeyFileError(f"{path}: the passphrase does not open it, or it is damaged") from exc
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise KeyFileError(f"{path}: expected an EC or RSA key")
    return key
