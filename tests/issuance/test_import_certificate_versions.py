"""Which versions a certificate that is imported may have."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from issuance.import_certificate import FieldError, read_certificate

VERSION_3 = b"\xa0\x03\x02\x01\x02"


def test_a_version_that_nobody_else_can_read_is_refused() -> None:
    """1 (written out too), 2 and 3 are read; what would be stored and then open nowhere is not."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "TEST CA")])
    der = (
        x509.CertificateBuilder(name, name, key.public_key(), 5)
        .not_valid_before(datetime(2030, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2031, 1, 1, tzinfo=UTC))
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.DER)
    )
    assert VERSION_3 in der
    for version in (0, 1, 2):
        assert read_certificate(der.replace(VERSION_3, VERSION_3[:4] + bytes((version,)))).serial == b"\x05"
    for wrong in (b"\xa0\x03\x02\x01\x03", b"\xa0\x03\x02\x01\xff", b"\xa0\x03\x0a\x01\x02"):
        with pytest.raises(FieldError):
            read_certificate(der.replace(VERSION_3, wrong))
