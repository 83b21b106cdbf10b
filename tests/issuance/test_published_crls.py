"""What published CRLs say, read back for a restore."""

from __future__ import annotations

from pathlib import Path

import pytest
from ca_cases import make_issuing
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from store_cases import START_MS

from certstatus import oid
from certstatus.crl import encode_certificate_list, encode_tbs_cert_list
from certstatus.crl_entry import CRLEntry
from certstatus.der import integer_content
from issuance.ca_keys import CAKeyFolder
from issuance.issuers import issuer_by_id, key_id
from issuance.published_crls import read_published
from issuance.store import Store

_NOW_S = START_MS // 1000


@pytest.mark.parametrize("number", [1, 0x80, (1 << 159) - 1, -1, -128, -32768])
def test_a_serial_number_is_read_as_it_stands(
    sqlite_store: Store, keys: CAKeyFolder, tmp_path: Path, number: int
) -> None:
    """Whatever its sign, as imported CAs may have them: by other octets a restore would not find it."""
    issuing = make_issuing(sqlite_store, keys, "OTHER")
    serial = integer_content(number)
    tbs_der = encode_tbs_cert_list(
        issuer_name_der=issuing.issuer.names_der[0],
        signature_algorithm_der=oid.ECDSA_WITH_SHA256_DER,
        this_update_s=_NOW_S,
        next_update_s=_NOW_S + 86_400,
        entries=[CRLEntry(serial, _NOW_S - 60, 1)],
        crl_number=1,
        aki_key_id=key_id(issuing.profile.ca_certificate),
    )
    assert isinstance(issuing.ca_key, ec.EllipticCurvePrivateKey)
    signature = issuing.ca_key.sign(tbs_der, ec.ECDSA(hashes.SHA256()))
    (tmp_path / "1.crl").write_bytes(encode_certificate_list(tbs_der, oid.ECDSA_WITH_SHA256_DER, signature))
    state = read_published([tmp_path], [issuer_by_id(sqlite_store, 1)], 0)[1]
    assert state.crls == 1
    assert set(state.revoked) == {serial}
