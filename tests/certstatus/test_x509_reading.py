"""Whatever a stranger sends as X.509 is read or is a ValueError, in DER and in PEM."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from certstatus.x509_reading import load_certificate, load_crl, load_csr

_KEY = ec.generate_private_key(ec.SECP256R1())
_NAME = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "reading")])
_FROM = datetime(2026, 1, 1, tzinfo=UTC)
_UNTIL = _FROM + timedelta(days=1)

_CERTIFICATE = x509.CertificateBuilder(_NAME, _NAME, _KEY.public_key(), 5, _FROM, _UNTIL).sign(
    _KEY, hashes.SHA256()
)
_CRL = x509.CertificateRevocationListBuilder(_NAME, _FROM, _UNTIL).sign(_KEY, hashes.SHA256())
_CSR = x509.CertificateSigningRequestBuilder(_NAME).sign(_KEY, hashes.SHA256())

_Object = x509.Certificate | x509.CertificateRevocationList | x509.CertificateSigningRequest
_KINDS: dict[str, tuple[Callable[[bytes], _Object], _Object, bytes]] = {
    # What is read, by what, and how its version stands in it.
    "certificate": (load_certificate, _CERTIFICATE, bytes.fromhex("a003020102")),
    "crl": (load_crl, _CRL, bytes.fromhex("020101")),
    "csr": (load_csr, _CSR, bytes.fromhex("020100")),
}


@pytest.mark.parametrize("kind", _KINDS)
def test_both_encodings_are_read(kind: str) -> None:
    """DER, PEM, and PEM behind a text that describes it give the same object."""
    load, whole, _ = _KINDS[kind]
    pem = whole.public_bytes(Encoding.PEM)
    assert (
        load(whole.public_bytes(Encoding.DER)) == load(pem) == load(b"Data:\n  Version: 3\n" + pem) == whole
    )


@pytest.mark.parametrize("kind", _KINDS)
def test_unknown_version_is_a_value_error(kind: str) -> None:
    """A version of 46 is refused as everything else that cannot be read."""
    load, whole, version = _KINDS[kind]
    content = whole.public_bytes(Encoding.DER)
    assert content.count(version, 0, 40) == 1
    with pytest.raises(ValueError, match="46"):
        load(content.replace(version, version[:-1] + b"\x2e", 1))


@pytest.mark.parametrize("kind", _KINDS)
@pytest.mark.parametrize(
    "content", [b"", b"\x30", b"\x30\x03abc", b"text", b"-----BEGIN X-----\nAAAA\n-----END X-----\n"]
)
def test_nothing_to_read_is_a_value_error(kind: str, content: bytes) -> None:
    """Neither DER nor PEM of what is asked for."""
    with pytest.raises(ValueError, match=r"."):
        _KINDS[kind][0](content)
