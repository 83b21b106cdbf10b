"""Responder hosts and their certificates."""

from __future__ import annotations

import hashlib
import json

import pytest
from ca_cases import issue_one, make_issuing
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from store_cases import START_MS

from certstatus import clock
from certstatus.certificate_request import CertificateRequest
from certstatus.changes import ChangeKind
from certstatus.der import integer_content
from certstatus.errors import (
    IllegalTransition,
    MalformedRequest,
    NotEntitled,
    PolicyViolation,
    UnknownCertificate,
)
from certstatus.issuer_table import Issuer, read_issuer_table
from issuance.ca_keys import CAKeyFolder
from issuance.import_register import ELSEWHERE, HERE, ImportedIssuer, write_imported
from issuance.issuers import issuer_table_document, publish_issuers
from issuance.profiles import RESPONDER_LIFE_S_MAX, sign_responder_certificate
from issuance.responder_certs import (
    REQUEST_AGE_MAX_S,
    drop_certificate,
    end_host,
    enroll_host,
    hosts,
    record_adopted,
    responder_certificates,
    sign_request,
)
from issuance.store import Store

_WEEK_S = 7 * clock.DAY_S
_NOW_S = START_MS // 1000

OCSPKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def request_for(
    host_key: Ed25519PrivateKey, ocsp_key: OCSPKey, issuer_id: int = 1, host: str = "host-a"
) -> bytes:
    """A host's signed request over *ocsp_key*, made at START_MS."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(ocsp_key, hashes.SHA256())
    pem = csr.public_bytes(serialization.Encoding.PEM).decode()
    return CertificateRequest(host, issuer_id, pem, START_MS).sign(host_key)


@pytest.fixture
def host_key(store: Store, keys: CAKeyFolder) -> Ed25519PrivateKey:
    """The key of the enrolled host-a; issuer 1 exists."""
    make_issuing(store, keys)
    key = Ed25519PrivateKey.generate()
    enroll_host(store, "host-a", key.public_key(), START_MS)
    return key


def test_a_responder_certificate_is_what_the_profile_says(
    store: Store, keys: CAKeyFolder, host_key: Ed25519PrivateKey
) -> None:
    """Only for signing OCSP answers, checked by nobody (0500, not critical), a week long, no pointers."""
    ocsp_key = ec.generate_private_key(ec.SECP256R1())
    der = sign_request(store, keys, request_for(host_key, ocsp_key), START_MS, _WEEK_S)
    certificate = x509.load_der_x509_certificate(der)
    ca = x509.load_der_x509_certificate(read_table(store)[0].certificates_der[0])
    certificate.verify_directly_issued_by(ca)
    assert certificate.public_key() == ocsp_key.public_key()
    extensions = certificate.extensions
    usage = extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.digital_signature
    assert not usage.value.content_commitment
    eku = extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    assert list(eku.value) == [ExtendedKeyUsageOID.OCSP_SIGNING]
    nocheck = extensions.get_extension_for_class(x509.OCSPNoCheck)
    assert not nocheck.critical
    # id-pkix-ocsp-nocheck 1.3.6.1.5.5.7.48.1.5, then OCTET STRING of 0500, with no BOOLEAN between.
    assert bytes.fromhex("06092b0601050507300105" + "0402" + "0500") in der
    aki = extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert aki.key_identifier == ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    assert extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    assert len(extensions) == 5
    assert int(certificate.not_valid_before_utc.timestamp()) == _NOW_S
    assert int(certificate.not_valid_after_utc.timestamp()) == _NOW_S + _WEEK_S


def test_the_same_request_gets_the_same_certificate(
    store: Store, keys: CAKeyFolder, host_key: Ed25519PrivateKey
) -> None:
    """A lost answer can be asked for again, also later; there is one certificate in the register."""
    text = request_for(host_key, ec.generate_private_key(ec.SECP256R1()))
    first = sign_request(store, keys, text, START_MS, _WEEK_S)
    assert sign_request(store, keys, text, START_MS + 86_400_000, _WEEK_S) == first
    lines = responder_certificates(store, 1)
    assert [line.certificate_der for line in lines] == [first]
    assert lines[0].host == "host-a"
    assert responder_certificates(store, 2) == []


def test_only_enrolled_hosts_get_certificates(
    store: Store, keys: CAKeyFolder, host_key: Ed25519PrivateKey
) -> None:
    """Unknown host, another's key, altered request, ended enrolment: refused."""
    ocsp_key = ec.generate_private_key(ec.SECP256R1())
    with pytest.raises(NotEntitled, match="host host-b is not enrolled"):
        sign_request(store, keys, request_for(host_key, ocsp_key, host="host-b"), START_MS, _WEEK_S)
    stranger = Ed25519PrivateKey.generate()
    with pytest.raises(NotEntitled, match="not signed by the key enrolled"):
        sign_request(store, keys, request_for(stranger, ocsp_key), START_MS, _WEEK_S)
    good = request_for(host_key, ocsp_key)
    with pytest.raises(NotEntitled, match="not signed by the key enrolled"):
        sign_request(store, keys, good.replace(b'"issuer_id":1', b'"issuer_id":2'), START_MS, _WEEK_S)
    with pytest.raises(MalformedRequest):
        sign_request(store, keys, b"{}", START_MS, _WEEK_S)
    end_host(store, "host-a", START_MS)
    with pytest.raises(NotEntitled, match="host host-a is not enrolled"):
        sign_request(store, keys, good, START_MS, _WEEK_S)
    assert responder_certificates(store) == []


def test_a_request_is_for_now(store: Store, keys: CAKeyFolder, host_key: Ed25519PrivateKey) -> None:
    """One that is an hour old, or from the future, is refused."""
    text = request_for(host_key, ec.generate_private_key(ec.SECP256R1()))
    for off_s in (REQUEST_AGE_MAX_S + 1, -301):
        with pytest.raises(NotEntitled, match="s old"):
            sign_request(store, keys, text, START_MS + off_s * 1000, _WEEK_S)
    assert sign_request(store, keys, text, START_MS + REQUEST_AGE_MAX_S * 1000, _WEEK_S)


def test_lives_keys_and_issuers_out_of_bounds_are_refused(
    store: Store, keys: CAKeyFolder, host_key: Ed25519PrivateKey
) -> None:
    """Over 30 days, a weak key, the CA's own key, an issuer that does not exist."""
    text = request_for(host_key, ec.generate_private_key(ec.SECP256R1()))
    for life_s in (0, RESPONDER_LIFE_S_MAX + 1):
        with pytest.raises(PolicyViolation, match="a responder certificate lives"):
            sign_request(store, keys, text, START_MS, life_s)
    weak = request_for(host_key, rsa.generate_private_key(65537, 1024))
    with pytest.raises(PolicyViolation, match="2048"):
        sign_request(store, keys, weak, START_MS, _WEEK_S)
    with pytest.raises(PolicyViolation, match="issuer's own key"):
        sign_request(store, keys, request_for(host_key, keys.private_key(1)), START_MS, _WEEK_S)
    with pytest.raises(UnknownCertificate, match="no issuer 9"):
        sign_request(
            store, keys, request_for(host_key, ec.generate_private_key(ec.SECP256R1()), 9), START_MS, _WEEK_S
        )
    assert responder_certificates(store) == []


def read_table(store: Store) -> list[Issuer]:
    """The issuer table that is published now."""
    return read_issuer_table(json.loads(issuer_table_document(store)))


def test_a_dropped_certificate_stands_in_the_issuer_table(
    store: Store, keys: CAKeyFolder, host_key: Ed25519PrivateKey
) -> None:
    """Dropping is a change with a table of its own that lists the serial number; it happens once."""
    text = request_for(host_key, ec.generate_private_key(ec.SECP256R1()))
    sign_request(store, keys, text, START_MS, _WEEK_S)
    serial = responder_certificates(store)[0].serial
    assert read_table(store)[0].dropped == ()
    recorded = drop_certificate(store, 1, serial, START_MS, "host stolen")
    publication = store.publication("issuers")
    assert publication is not None
    assert publication.generation == recorded.seq == store.state().seq
    assert publication.sha256 == hashlib.sha256(issuer_table_document(store)).digest()
    assert read_table(store)[0].dropped == (serial,)
    assert responder_certificates(store)[0].dropped_seq == recorded.seq
    with pytest.raises(IllegalTransition, match=f"dropped before, in change {recorded.seq}"):
        drop_certificate(store, 1, serial, START_MS, "again")
    with pytest.raises(UnknownCertificate):
        drop_certificate(store, 1, "00ff", START_MS, "none")


def test_hosts_are_enrolled_rekeyed_and_ended(sqlite_store: Store) -> None:
    """The register has one line per host; a new key replaces the old one, an end can be taken back."""
    one, two = Ed25519PrivateKey.generate().public_key(), Ed25519PrivateKey.generate().public_key()
    enroll_host(sqlite_store, "host-a", one, START_MS)
    enroll_host(sqlite_store, "host-a", two, START_MS + 5)
    assert [(line.host, line.public_key, line.ended_ms) for line in hosts(sqlite_store)] == [
        ("host-a", two.public_bytes_raw(), None)
    ]
    end_host(sqlite_store, "host-a", START_MS + 10)
    assert hosts(sqlite_store)[0].ended_ms == START_MS + 10
    with pytest.raises(UnknownCertificate, match="not enrolled"):
        end_host(sqlite_store, "host-a", START_MS)
    enroll_host(sqlite_store, "host-a", one, START_MS + 20)
    assert hosts(sqlite_store)[0].ended_ms is None
    for name in ("", "a b", "-a", "x" * 65, "a/b"):
        with pytest.raises(PolicyViolation, match="letters, digits, dots, dashes"):
            enroll_host(sqlite_store, name, one, START_MS)


def test_its_number_is_told_where_never_issued_means_revoked(
    store: Store, keys: CAKeyFolder, host_key: Ed25519PrivateKey
) -> None:
    """Such an issuer's table lists what its key signed beside the register, from the signing on."""
    lab = make_issuing(store, keys, service="LAB", not_issued="revoked").issuer
    before = store.state().seq
    text = request_for(host_key, ec.generate_private_key(ec.SECP256R1()), lab.issuer_id)
    certificate = x509.load_der_x509_certificate(sign_request(store, keys, text, START_MS, _WEEK_S))
    assert store.state().seq == before + 1
    told = {item.issuer_id: item.beside_register for item in read_table(store)}
    assert told == {1: (), lab.issuer_id: (integer_content(certificate.serial_number).hex(),)}
    sign_request(store, keys, text, START_MS, _WEEK_S)
    assert store.state().seq == before + 1


def test_the_table_says_where_certificates_find_their_crl(store: Store, keys: CAKeyFolder) -> None:
    """The URL is the one that stands in what the issuer signs."""
    issued = issue_one(store, make_issuing(store, keys, service="LAB"))
    certificate = x509.load_der_x509_certificate(issued.certificate_der)
    (point,) = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    assert point.full_name is not None
    urls = [name.value for name in point.full_name if isinstance(name, x509.UniformResourceIdentifier)]
    assert urls == [read_table(store)[0].crl_url]


def test_an_adopted_certificate_is_recorded_once_and_can_be_dropped(
    store: Store, keys: CAKeyFolder, host_key: Ed25519PrivateKey
) -> None:
    """What a CA gave out elsewhere is on record here from its adoption on."""
    assert host_key
    lab = make_issuing(store, keys, service="LAB", not_issued="revoked").issuer
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = sign_responder_certificate(
        keys.private_key(lab.issuer_id), lab.ca_certificate, "old", key.public_key(), _NOW_S, _WEEK_S
    )
    der = certificate.public_bytes(serialization.Encoding.DER)
    before = store.state().seq
    for _ in range(2):
        record_adopted(store, lab.issuer_id, "host-a", der, START_MS)
    assert store.state().seq == before + 1
    (recorded,) = responder_certificates(store, lab.issuer_id)
    assert (recorded.host, recorded.certificate_der) == ("host-a", der)
    assert read_table(store)[1].beside_register == (recorded.serial,)
    drop_certificate(store, lab.issuer_id, recorded.serial, START_MS, "stolen")
    assert read_table(store)[1].dropped == (recorded.serial,)


@pytest.mark.parametrize("is_ready", [False, True])
def test_of_an_imported_key_what_must_not_be_said_is_not_told(
    store: Store, keys: CAKeyFolder, is_ready: bool
) -> None:
    """Never issued: not while another key's list is half here.  CRLs: its certificates name others."""
    lab = make_issuing(store, keys, service="LAB", not_issued="revoked").issuer
    second = make_issuing(store, keys, service="LAB", not_issued="revoked").issuer
    with store.writing(START_MS) as act:
        write_imported(act.connection, second.issuer_id, ImportedIssuer(HERE, is_ready=is_ready))
        act.record(ChangeKind.ISSUERS, issuer_id=second.issuer_id, ground="imported")
        publish_issuers(act)
    told = {item.issuer_id: (item.not_issued, item.crl_url != "") for item in read_table(store)}
    if is_ready:
        assert told == {lab.issuer_id: ("revoked", True), second.issuer_id: ("revoked", False)}
    else:
        assert told == {lab.issuer_id: ("unknown", True)}


def test_a_followed_ca_without_a_crl_is_silent(store: Store, keys: CAKeyFolder) -> None:
    """Nothing is known of what is revoked elsewhere before its first CRL."""
    lab = make_issuing(store, keys, service="LAB").issuer
    with store.writing(START_MS) as act:
        write_imported(act.connection, lab.issuer_id, ImportedIssuer(ELSEWHERE, is_ready=True))
        act.record(ChangeKind.ISSUERS, issuer_id=lab.issuer_id, ground="imported")
        publish_issuers(act)
    (told,) = read_table(store)
    assert told.foreign_crl == (0, 0)
