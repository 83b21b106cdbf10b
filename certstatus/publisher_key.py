"""The publisher's key (Ed25519, signs beats) and the index key (keys the fingerprints).

Knows: their files, that secret ones are readable by their owner only, and making new ones.
Does not know: CA keys (``issuance.ca_keys``) or responder keys (``responder.keys``).
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from certstatus.durable import write_durable
from certstatus.errors import KeyFileError

INDEX_KEY_BYTES = 32
SECRET_MODE = 0o600


def read_secret(path: Path) -> bytes:
    """Return the content of a secret file.

    Raises: KeyFileError — absent, or readable by group or others.
    """
    try:
        mode = stat.S_IMODE(os.stat(path).st_mode)
        if mode & 0o077:
            raise KeyFileError(f"{path}: mode {mode:o}, expected 600: others can read this secret")
        return path.read_bytes()
    except OSError as exc:
        raise KeyFileError(f"{path}: {exc.strerror}") from exc


def make_ed25519(private_path: Path, public_path: Path) -> Ed25519PrivateKey:
    """Make a key pair in two PEM files, the private one with mode 600; the private key is returned."""
    key = Ed25519PrivateKey.generate()
    write_durable(
        private_path,
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        SECRET_MODE,
    )
    write_durable(
        public_path,
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        ),
    )
    return key


def load_ed25519_private(path: Path) -> Ed25519PrivateKey:
    """Return the private key in *path*.  Raises: KeyFileError — absent, exposed, or another kind."""
    try:
        key = serialization.load_pem_private_key(read_secret(path), None)
    except (ValueError, TypeError) as exc:
        raise KeyFileError(f"{path}: not an unencrypted PKCS#8 key") from exc
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError(f"{path}: expected an Ed25519 key")
    return key


def load_ed25519_public(path: Path) -> Ed25519PublicKey:
    """Return the public key in *path*.  Raises: KeyFileError — absent or another kind."""
    try:
        key = serialization.load_pem_public_key(path.read_bytes())
    except OSError as exc:
        raise KeyFileError(f"{path}: {exc.strerror}") from exc
    except ValueError as exc:
        raise KeyFileError(f"{path}: not a PEM public key") from exc
    if not isinstance(key, Ed25519PublicKey):
        raise KeyFileError(f"{path}: expected an Ed25519 key")
    return key


def make_index_key(path: Path) -> bytes:
    """Make the 32 random octets that key the fingerprints, mode 600."""
    key = secrets.token_bytes(INDEX_KEY_BYTES)
    write_durable(path, key, SECRET_MODE)
    return key


def load_index_key(path: Path) -> bytes:
    """Return the index key.  Raises: KeyFileError — absent, exposed, or not 32 octets."""
    key = read_secret(path)
    if len(key) != INDEX_KEY_BYTES:
        raise KeyFileError(f"{path}: an index key has {INDEX_KEY_BYTES} octets, found {len(key)}")
    return key
