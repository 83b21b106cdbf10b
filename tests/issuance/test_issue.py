"""Issuing: what certificates hold, which keys are refused, and that each is recorded once."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa
from ca_cases import found, issue_one, make_issuing, new_key, openssl, write_pem
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID
from store_cases import INDEX_KEY, START_MS

from certstatus import clock, oid
from certstatus.changes import ChangeKind, fingerprint, unpack_change
from certstatus.der import integer_content
from certstatus.distribution_point import parse_distribution_points
from certstatus.errors import IllegalTransition, PolicyViolation
from issuance import profiles, schema
from issuance.ca_keys import CAKeyFolder
from issuance.issue import issue, read_subject_key, record_many, sign
from issuance.revoke import record_ca_key_event
from issuance.show import show
from issuance.store import Store


@pytest.mark.parametrize(
    ("service", "key", "usage", "policy"),
    [
        ("SIGN", "p256", "Digital Signature, Non Repudiation", "1.3.6.1.4.1.32473.1.1"),
        ("AUTH", "rsa2048", "Digital Signature", "1.3.6.1.4.1.32473.1.2"),
    ],
)
def test_a_certificate_is_what_the_profile_says(
    sqlite_store: Store, keys: CAKeyFolder, tmp_path: Path, service: str, key: str, usage: str, policy: str
) -> None:
    """openssl verifies the certificate and reads each extension as the service's profile has it."""
    issuing = make_issuing(sqlite_store, keys, service, key=key)
    issued = issue_one(sqlite_store, issuing)
    ca = write_pem(tmp_path / "ca.pem", issuing.issuer.certificates_der[0])
    path = write_pem(tmp_path / "ee.pem", issued.certificate_der)
    assert openssl("verify", "-x509_strict", "-attime", str(START_MS // 1000 + 1), "-CAfile", ca, path)
    text = openssl("x509", "-in", path, "-noout", "-text")
    assert f"X509v3 Key Usage: critical\n                {usage}\n" in text
    assert f"X509v3 Certificate Policies: critical\n                Policy: {policy}\n" in text
    assert "OCSP - URI:http://status.example:8080/ocsp" in text
    place = f"http://status.example:8080/crl/{service.lower()}/g1/{issued.scope}"
    assert re.findall(r"URI:(\S+\.crl)\n", text) == [f"{place}/complete.crl", f"{place}/delta.crl"]
    assert "X509v3 Freshest CRL" in text
    # The partition's two points, and that of the whole list.
    scheme, partition = issued.scope.split("/")
    unit = "DirName:C = JP, O = certstatus TEST, OU = CRL Distribution Points, OU = g1"
    assert text.count(f"{unit}, OU = {scheme}, CN = {partition}\n") == 2
    assert text.count(f"{unit}, CN = all\n") == 1
    assert "Basic Constraints" not in text
    certificate = x509.load_der_x509_certificate(issued.certificate_der)
    aki = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert aki.key_identifier == issuing.issuer.key_id
    assert not certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).critical
    assert certificate.not_valid_after_utc.strftime("%H:%M:%S") == "14:59:59"
    assert int(certificate.not_valid_after_utc.timestamp()) == issued.not_after_s
    critical = {item.oid.dotted_string for item in certificate.extensions if item.critical}
    assert critical == {"2.5.29.15", "2.5.29.32"}


def test_a_linter_finds_nothing_in_any_profile(
    sqlite_store: Store, keys: CAKeyFolder, tmp_path: Path
) -> None:
    """CA, both end-entity profiles and the responder's pass pkilint's RFC 5280 rules without a notice."""
    sign, auth = (
        make_issuing(sqlite_store, keys, "SIGN"),
        make_issuing(sqlite_store, keys, "AUTH", key="p384"),
    )
    responder = profiles.sign_responder_certificate(
        sign.ca_key, sign.profile.ca_certificate, "host-a", new_key(), START_MS // 1000, 7 * clock.DAY_S
    )
    linter = Path(sys.executable).with_name("lint_pkix_cert")
    for number, der in enumerate(
        (
            sign.issuer.certificates_der[0],
            issue_one(sqlite_store, sign).certificate_der,
            issue_one(sqlite_store, auth).certificate_der,
            responder.public_bytes(serialization.Encoding.DER),
        )
    ):
        path = write_pem(tmp_path / f"{number}.pem", der)
        done = subprocess.run(
            [linter, "lint", "-s", "NOTICE", path], capture_output=True, text=True, check=False, timeout=60
        )
        assert (done.returncode, done.stdout.strip()) == (0, "")


def test_certificate_and_crl_will_carry_the_identical_name(sqlite_store: Store, keys: CAKeyFolder) -> None:
    """The distribution point's octets are those of the CRL encoder, and read back as they were given."""
    issuing = make_issuing(sqlite_store, keys)
    certificate = x509.load_der_x509_certificate(issue_one(sqlite_store, issuing).certificate_der)
    value = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints)
    own, whole = parse_distribution_points(value.value.public_bytes())
    assert own == issuing.issuer.partition_names("m1/00000").complete
    assert whole == (issuing.issuer.crl_names.complete[0], ())
    assert value.oid.dotted_string == oid.CRL_DISTRIBUTION_POINTS


def test_generations_have_distribution_points_of_their_own(sqlite_store: Store, keys: CAKeyFolder) -> None:
    """Directory name and URI both name the key's generation, because the issuer name does not."""
    first, second = make_issuing(sqlite_store, keys), make_issuing(sqlite_store, keys)
    assert first.issuer.name_der == second.issuer.name_der
    one, two = first.issuer.crl_names, second.issuer.crl_names
    assert one.complete[0] != two.complete[0]
    assert "/g1/" in one.complete[1][0]
    assert "/g2/" in two.complete[1][0]


def test_freshest_crl_is_a_switch(sqlite_store: Store, keys: CAKeyFolder) -> None:
    """An issuer that does not bind its delta service for years leaves the extension out."""
    issuing = make_issuing(sqlite_store, keys, freshest_crl=False)
    certificate = x509.load_der_x509_certificate(issue_one(sqlite_store, issuing).certificate_der)
    assert oid.FRESHEST_CRL not in [item.oid.dotted_string for item in certificate.extensions]


def test_an_authentication_certificate_says_nothing_of_its_holder(
    sqlite_store: Store, keys: CAKeyFolder
) -> None:
    """Its subject is a country and a random code."""
    issued = issue_one(sqlite_store, make_issuing(sqlite_store, keys, "AUTH"))
    subject = x509.load_der_x509_certificate(issued.certificate_der).subject.rfc4514_string()
    assert re.fullmatch(r"CN=[0-9A-F]{24},C=JP", subject)


def test_serial_numbers_are_sixteen_random_octets(sqlite_store: Store, keys: CAKeyFolder) -> None:
    """Positive, 16 content octets, no two alike, no order in them."""
    serials = [integer_content(profiles.new_serial()) for _ in range(2000)]
    assert {len(serial) for serial in serials} == {16}
    assert all(1 <= serial[0] <= 0x7F for serial in serials)
    assert len(set(serials)) == 2000
    assert len({serial[0] for serial in serials}) > 100
    issued = issue_one(sqlite_store, make_issuing(sqlite_store, keys))
    assert len(issued.serial) == 16


def test_what_is_recorded_is_what_was_signed(store: Store, keys: CAKeyFolder) -> None:
    """The record holds the certificate, the change its fingerprint and last day, the register all of it."""
    issuing = make_issuing(store, keys)
    issued = issue_one(store, issuing, START_MS + 1_234)
    change = unpack_change(store.changes_after(issued.seq - 1, issued.seq, 1)[0].packed)
    assert change.kind == ChangeKind.ISSUED
    assert change.fingerprint == fingerprint(issued.serial, INDEX_KEY)
    assert change.not_after_day == clock.jst_day_number(issued.not_after_s)
    assert change.recorded_ms == issued.recorded_ms == START_MS + 1_234
    shown = show(store, found(issuing, issued), START_MS // 1000)
    assert shown.certificate_der == issued.certificate_der
    assert shown.serial == issued.serial.hex()
    certificate = x509.load_der_x509_certificate(issued.certificate_der)
    assert integer_content(certificate.serial_number) == issued.serial
    assert int(certificate.not_valid_before_utc.timestamp()) == START_MS // 1000 + 1


def test_the_end_lies_within_the_cas(sqlite_store: Store, keys: CAKeyFolder) -> None:
    """A certificate can neither outlive the CA certificate nor be over before it begins."""
    issuing = make_issuing(sqlite_store, keys)
    ends = int(issuing.profile.ca_certificate.not_valid_after_utc.timestamp())
    assert issue_one(sqlite_store, issuing, not_after_s=ends).not_after_s == ends
    for not_after_s in (ends + 1, START_MS // 1000):
        with pytest.raises(PolicyViolation, match="notAfter must lie"):
            issue_one(sqlite_store, issuing, not_after_s=not_after_s)


# --- keys --------------------------------------------------------------------------------------------


def pem(key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey) -> bytes:
    """A public key in PEM."""
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def csr(key: ec.EllipticCurvePrivateKey, name: str = "somebody") -> x509.CertificateSigningRequest:
    """A certificate request over *key*."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    return x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())


def test_one_key_is_certified_once_in_either_service(store: Store, keys: CAKeyFolder) -> None:
    """The same public key again is refused, by the same issuer and by another; no number is drawn."""
    sign, auth = make_issuing(store, keys, "SIGN"), make_issuing(store, keys, "AUTH")
    key = new_key()
    first = issue(store, sign, INDEX_KEY, key, START_MS)
    before = store.state()
    for issuing in (sign, auth):
        with pytest.raises(PolicyViolation, match=f"already in SIGN certificate {first.serial.hex()}"):
            issue(store, issuing, INDEX_KEY, key, START_MS)
    with pytest.raises(PolicyViolation, match="that of an issuer"):
        issue(store, sign, INDEX_KEY, auth.ca_key.public_key(), START_MS)
    assert store.state() == before


def test_one_key_asked_for_many_times_at_once_is_certified_once(store: Store, keys: CAKeyFolder) -> None:
    """Eight threads with one key: one certificate, seven refusals."""
    issuing = make_issuing(store, keys)
    key = new_key()
    outcomes: list[str] = []
    gate = threading.Barrier(8)

    def ask() -> None:
        gate.wait()
        try:
            issue(store, issuing, INDEX_KEY, key, START_MS)
            outcomes.append("issued")
        except PolicyViolation as exc:
            outcomes.append(str(exc))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count("issued") == 1
    assert all("public key is already in" in text for text in outcomes if text != "issued")
    with store.reading() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(schema.certificate)).scalar() == 1
        assert connection.execute(sa.select(sa.func.count()).select_from(schema.issue_record)).scalar() == 1


def test_public_keys_and_requests_are_read_in_pem_and_der() -> None:
    """A bare key brings no subject, a request brings its own."""
    private = ec.generate_private_key(ec.SECP384R1())
    public = private.public_key()
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert read_subject_key(pem(public)) == (public, None)
    assert read_subject_key(der) == (public, None)
    request = csr(private)
    for encoding in (serialization.Encoding.PEM, serialization.Encoding.DER):
        assert read_subject_key(request.public_bytes(encoding)) == (public, request.subject)
    empty = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(private, hashes.SHA256())
    assert read_subject_key(empty.public_bytes(serialization.Encoding.DER)) == (public, None)


def test_a_request_must_prove_possession() -> None:
    """A request whose signature was made by another key, or that was altered, is refused."""
    der = bytearray(csr(ec.generate_private_key(ec.SECP256R1())).public_bytes(serialization.Encoding.DER))
    at = der.index(b"somebody")
    der[at] ^= 1
    with pytest.raises(PolicyViolation, match="does not prove possession"):
        read_subject_key(bytes(der))


def test_a_private_key_is_refused_and_not_repeated() -> None:
    """PEM or DER, the message says what was given and nothing of it."""
    private = ec.generate_private_key(ec.SECP256R1())
    for encoding in (serialization.Encoding.PEM, serialization.Encoding.DER):
        content = private.private_bytes(
            encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        with pytest.raises(PolicyViolation, match=r"^a private key was given; only its") as caught:
            read_subject_key(content)
        assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "content", [b"", b"junk", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"]
)
def test_what_is_no_key_is_refused(content: bytes) -> None:
    """Empty, random and broken input get the one error."""
    with pytest.raises(PolicyViolation, match="neither a certificate request nor a public key"):
        read_subject_key(content)


def test_weak_keys_are_refused() -> None:
    """Short RSA, small exponent, a curve or kind that verifiers need not know."""
    for key, message in (
        (rsa.generate_private_key(65537, 1024).public_key(), "2048..8192 bits, found 1024"),
        (rsa.generate_private_key(3, 2048).public_key(), "at least 65537, found 3"),
        (ec.generate_private_key(ec.SECP521R1()).public_key(), "P-256 or P-384, found secp521r1"),
        (ec.generate_private_key(ec.SECP256K1()).public_key(), "found secp256k1"),
    ):
        with pytest.raises(PolicyViolation, match=message):
            read_subject_key(pem(key))
    with pytest.raises(PolicyViolation, match="neither RSA nor EC"):
        read_subject_key(pem(ed25519.Ed25519PrivateKey.generate().public_key()))
    read_subject_key(pem(rsa.generate_private_key(65537, 2048).public_key()))


# --- many at once ------------------------------------------------------------------------------------


def test_many_certificates_are_recorded_in_pieces(store: Store, keys: CAKeyFolder) -> None:
    """A lot goes in by several short acts, in order, and tells how far it has got."""
    issuing = make_issuing(store, keys)
    signed = [sign(issuing, new_key(), START_MS // 1000) for _ in range(700)]
    told: list[int] = []
    acts = store.lock_times.acts
    issued = record_many(store, issuing, INDEX_KEY, signed, START_MS, told.append)
    assert [item.serial for item in issued] == [item.serial for item in signed]
    assert [item.seq for item in issued] == list(range(2, 702))
    assert store.lock_times.acts - acts == len(told) > 1
    assert told[-1] == 700
    assert sum(1 for _ in store.issued_rows(1, 701)) == 700


def test_a_lost_ca_key_stops_issuing_at_once(store: Store, keys: CAKeyFolder) -> None:
    """Tools made before the event sign, but what they sign is not recorded, hence not issued."""
    issuing = make_issuing(store, keys)
    record_ca_key_event(store, 1, START_MS, "key leaked")
    with pytest.raises(IllegalTransition, match="issues nothing since change 2"):
        issue_one(store, issuing)
    assert list(store.issued_rows(1, store.state().seq)) == []
