"""The CA that is imported: its certificate (or several over one key) and, if it is given, its key.

Knows: what a CA certificate must be to be answered for, older kinds included (version 1, without a
subject key identifier), and opening its key.
Does not know: the register, and where keys are kept.
Source: RFC 5280 §4.1, §4.2.1.9, §4.2.1.3; RFC 5958.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from certstatus.errors import ImportRefused
from certstatus.key_kinds import CURVE_NAMES
from certstatus.x509_reading import UNREADABLE, load_certificate
from issuance.ca_keys import CAKey
from issuance.import_certificate import CAPublicKey, FieldError, read_certificate
from issuance.import_pem import Piece, read_pieces

_LABELS = ("", "CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE")


@dataclass(frozen=True, slots=True)
class CAToImport:
    """A CA: certificates newest first, all over one key; names and key as they stand in the newest."""

    path: Path
    certificates: tuple[x509.Certificate, ...]
    name_der: bytes
    spki_der: bytes
    public_key: CAPublicKey

    @property
    def key_algorithm(self) -> str:
        """The kind of its key, in the words of the configuration: ``rsa2048``, ``p256``."""
        if isinstance(self.public_key, rsa.RSAPublicKey):
            return f"rsa{self.public_key.key_size}"
        return CURVE_NAMES.get(self.public_key.curve.name, self.public_key.curve.name)


def read_ca(path: Path) -> CAToImport:
    """Return the CA whose certificate, or certificates over one key, are in *path*.

    Raises: ImportRefused — no certificate, not a CA's, several keys, or a key that is neither RSA nor EC.
    """
    pieces = list(read_pieces(path))
    found = [_certificate(path, piece) for piece in pieces]
    found.sort(key=lambda certificate: certificate.not_valid_after_utc, reverse=True)
    newest = found[0]
    fields = read_certificate(newest.public_bytes(serialization.Encoding.DER))
    for piece in pieces:
        if read_certificate(piece.der).spki_der != fields.spki_der:
            raise ImportRefused(
                path,
                piece.line,
                "public key",
                "of another CA: the file may hold several certificates of one key",
            )
    try:
        public_key = newest.public_key()
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise ImportRefused(path, pieces[0].line, "public key", f"cannot be read: {exc}") from exc
    if not isinstance(public_key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
        raise ImportRefused(path, pieces[0].line, "public key", f"{_kind(public_key)}, expected RSA or EC")
    return CAToImport(path, tuple(found), fields.subject_der, fields.spki_der, public_key)


def _certificate(path: Path, piece: Piece) -> x509.Certificate:
    if piece.label not in _LABELS:
        raise ImportRefused(path, piece.line, "PEM", f"{piece.label}, expected CERTIFICATE")
    try:
        read_certificate(piece.der)
        certificate = load_certificate(piece.der)
        extensions = certificate.extensions
    except FieldError as exc:
        raise ImportRefused(path, piece.line, exc.field, str(exc)) from exc
    except (*UNREADABLE, UnsupportedAlgorithm) as exc:
        raise ImportRefused(path, piece.line, "certificate", f"not one that can be read: {exc}") from exc
    try:
        is_ca = extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        # Version 1 knows no extensions; such a one is a CA's because its owner says so.
        is_ca = certificate.version is x509.Version.v1
    if not is_ca:
        raise ImportRefused(path, piece.line, "basic constraints", "not a CA's certificate")
    return certificate


def read_ca_key(path: Path, ca: CAToImport, passphrase: bytes | None) -> CAKey:
    """Return the private key in *path*, PEM or DER, encrypted or not.

    Raises: ImportRefused — cannot be read or opened, another kind, or not the key of *ca*.
    """
    try:
        content = path.read_bytes()
    except OSError as exc:
        raise ImportRefused(path, 0, "file", exc.strerror or str(exc)) from exc
    load = serialization.load_der_private_key
    if b"-----BEGIN" in content:
        load = serialization.load_pem_private_key
    encrypted = b"ENCRYPTED" in content
    if encrypted and passphrase is None:
        raise ImportRefused(path, 0, "key", "encrypted, and no passphrase was given")
    try:
        # Only an encrypted key takes a passphrase; one given for another is not an error.
        key = load(content, passphrase if encrypted or load is serialization.load_der_private_key else None)
    except TypeError:
        try:
            key = load(content, None)
        except (TypeError, ValueError, UnsupportedAlgorithm):
            raise ImportRefused(path, 0, "key", "encrypted, and no passphrase was given") from None
    except (ValueError, UnsupportedAlgorithm):
        # Without the cause: nothing of a key may reach a log.
        what = "the passphrase does not open it, or it is damaged" if encrypted else "not a private key"
        raise ImportRefused(path, 0, "key", what) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise ImportRefused(path, 0, "key", f"{_kind(key)}, expected RSA or EC")
    if key.public_key() != ca.public_key:
        raise ImportRefused(path, 0, "key", f"not the key of the certificate in {ca.path}")
    return key


def _kind(key: object) -> str:
    name = type(key).__name__.lower()
    return next((kind for kind in ("ed25519", "ed448", "dsa", "x25519", "x448") if kind in name), name)
