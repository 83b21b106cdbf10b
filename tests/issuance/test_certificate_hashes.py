"""Certificate hashes: told at issuing where the policy says so, and made up for what was issued before."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import pytest
from ca_cases import found, issue_one, make_issuing
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from import_cases import OldCA, run, valid_line
from store_cases import START_MS, number, record_issued

from certstatus.changes import ChangeKind, unpack_change
from certstatus.errors import StoreError
from issuance.ca_keys import CAKeyFolder
from issuance.certificate_hashes import tell_hashes
from issuance.issuers import set_policy
from issuance.revoke import hold, release, revoke
from issuance.schema import CertificateState
from issuance.show import show
from issuance.store import Store


def _told(store: Store, seq: int) -> tuple[int, bytes]:
    """Return a change's length and the hash it tells."""
    (change,) = store.changes_after(seq - 1, seq, 1)
    return len(change.packed), unpack_change(change.packed).certificate_sha256


def test_the_policy_decides_whether_issuing_tells_the_hash(store: Store, keys: CAKeyFolder) -> None:
    """With cert_hash the ISSUED change is 72 bytes that end in the certificate's SHA-256, without it 40."""
    plain = make_issuing(store, keys, "SIGN")
    hashed = make_issuing(store, keys, "PUBLIC", cert_hash=True)
    assert _told(store, issue_one(store, plain).seq) == (40, b"")
    issued = issue_one(store, hashed)
    assert _told(store, issued.seq) == (72, hashlib.sha256(issued.certificate_der).digest())
    policy = dataclasses.replace(hashed.issuer.policy, cert_hash=False)
    set_policy(store, hashed.issuer.issuer_id, policy, START_MS)
    assert _told(store, issue_one(store, hashed).seq) == (40, b"")


def test_what_was_issued_before_the_policy_is_made_up(store: Store, keys: CAKeyFolder) -> None:
    """Each earlier certificate's hash is told once, whatever its state, and no state moves by it."""
    issuing = make_issuing(store, keys, "PUBLIC", hold=True)
    issuer_id = issuing.issuer.issuer_id
    before = [issue_one(store, issuing) for _ in range(5)]
    revoke(store, found(issuing, before[1]), START_MS, reason=1)
    hold(store, found(issuing, before[2]), START_MS)
    hold(store, found(issuing, before[3]), START_MS)
    release(store, found(issuing, before[3]), START_MS)
    with store.writing(START_MS) as act:
        # One of which the register has no certificate.
        record_issued(act, 7, issuer_id)
    policy = dataclasses.replace(issuing.issuer.policy, cert_hash=True)
    set_policy(store, issuer_id, policy, START_MS)
    after = issue_one(store, issuing)
    seq = store.state().seq
    standing = list(store.issued_rows(issuer_id, seq))
    assert tell_hashes(store, issuer_id, START_MS) == 5
    assert store.state().seq == seq + 5
    assert {_told(store, seq + at + 1) for at in range(5)} == {
        (72, hashlib.sha256(item.certificate_der).digest()) for item in before
    }
    assert tell_hashes(store, issuer_id, START_MS) == 0
    assert store.state().seq == seq + 5
    wanted = [b"", *(hashlib.sha256(item.certificate_der).digest() for item in (*before, after))]
    rows = list(store.issued_rows(issuer_id, seq + 5))
    assert sorted(row.certificate_sha256 for row in rows) == sorted(wanted)
    # As they stood before the hashes were told, and as they stand now: the same but for those.
    assert standing == list(store.issued_rows(issuer_id, seq))
    assert [row._replace(certificate_sha256=b"") for row in rows] == [
        row._replace(certificate_sha256=b"") for row in standing
    ]
    shown = show(store, found(issuing, before[1]), START_MS // 1000)
    assert [change.kind for change in shown.changes] == ["issued", "revoked", "certificate-hash"]
    revoke(store, found(issuing, before[0]), START_MS)
    assert standing == list(store.issued_rows(issuer_id, seq))
    assert [row.state for row in standing].count(CertificateState.VALID) == 5


def test_an_import_tells_the_hashes_of_what_it_brings(
    store: Store, keys: CAKeyFolder, tmp_path: Path
) -> None:
    """At issuing, and when the certificate itself follows one that was known by its number."""
    old = OldCA(tmp_path / "old")
    index = old.write_index(valid_line(1), valid_line(2), valid_line(3))
    order = old.order(
        certificates=(old.write_certificates(1),), index_txt=index, crl_paths=(old.write_crl({3: None}, 41),)
    )
    order = dataclasses.replace(order, policy=dataclasses.replace(order.policy, cert_hash=True))
    issuer_id = run(store, keys, order).issuer.issuer_id
    wanted = [b"", b"", _hash_of(old, 1)]
    assert sorted(row.certificate_sha256 for row in store.issued_rows(issuer_id, _seq(store))) == wanted
    run(store, keys, dataclasses.replace(order, certificates=(old.write_certificates(1, 2),)))
    wanted = [b"", *sorted(_hash_of(old, serial) for serial in (1, 2))]
    assert sorted(row.certificate_sha256 for row in store.issued_rows(issuer_id, _seq(store))) == wanted
    assert tell_hashes(store, issuer_id, START_MS) == 0


def _seq(store: Store) -> int:
    return store.state().seq


def _hash_of(old: OldCA, serial: int) -> bytes:
    path = old.folder / "certificates" / f"{serial:04X}.pem"
    return x509.load_pem_x509_certificate(path.read_bytes()).fingerprint(hashes.SHA256())


def test_no_hash_is_told_without_a_certificate(store: Store, keys: CAKeyFolder) -> None:
    """A hash is made of the certificate itself, never taken on trust: an act without one is refused."""
    issuing = make_issuing(store, keys, "PUBLIC", cert_hash=True)
    issuer_id = issuing.issuer.issuer_id
    with store.writing(START_MS) as act:
        issued = record_issued(act, 7, issuer_id)
    assert _told(store, issued.seq) == (40, b"")
    with pytest.raises(StoreError, match="no hash without"), store.writing(START_MS) as act:
        act.record(ChangeKind.CERTIFICATE_HASH, issuer_id=issuer_id, serial=number(7))
    assert store.state().seq == issued.seq
