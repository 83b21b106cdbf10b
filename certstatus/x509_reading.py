"""Reading X.509 objects that anybody may have made, by way of `cryptography`.

Its loaders say of a version they do not know, alone of all that can be wrong, something that is no
ValueError; who forgets that lets a stranger's file end a process.  Here everything wrong is a ValueError,
and what may come later, when extensions are asked for, has a name.
"""

from collections.abc import Callable
from typing import TypeVar

from cryptography import x509

# What `cryptography` raises for extensions that cannot be read; not all of it is a ValueError.
UNREADABLE = (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType)

_SEQUENCE_TAG = b"\x30"
_T = TypeVar("_T")


def load_certificate(content: bytes) -> x509.Certificate:
    """Return the certificate in *content*, PEM or DER (RFC 5280 §4.1).

    Raises: ValueError — none, or one of a version not known.
    """
    return _loaded(content, x509.load_der_x509_certificate, x509.load_pem_x509_certificate)


def load_crl(content: bytes) -> x509.CertificateRevocationList:
    """Return the CRL in *content*, PEM or DER (RFC 5280 §5.1).

    Raises: ValueError — none, or one of a version not known.
    """
    return _loaded(content, x509.load_der_x509_crl, x509.load_pem_x509_crl)


def load_csr(content: bytes) -> x509.CertificateSigningRequest:
    """Return the certification request in *content*, PEM or DER (RFC 2986 §4).

    Raises: ValueError — none, or one of a version not known.
    """
    return _loaded(content, x509.load_der_x509_csr, x509.load_pem_x509_csr)


def _loaded(content: bytes, from_der: Callable[[bytes], _T], from_pem: Callable[[bytes], _T]) -> _T:
    # Text before the armour belongs to PEM, so only DER can be told by how it begins.
    load = from_der if content.startswith(_SEQUENCE_TAG) else from_pem
    try:
        return load(content)
    except x509.InvalidVersion as exc:
        raise ValueError(str(exc)) from exc
