"""A responder host's OCSP keys: asking, installing, choosing, and whom not to believe."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID
from responder_cases import CA

from certstatus import oid
from certstatus.certificate_request import read_request
from certstatus.errors import KeyFileError, NotEntitled
from certstatus.publisher_key import make_ed25519
from responder.keys import HostKeys, SignerSet

NOW_S = int(time.time())
LIFE_S = 7 * 86_400


@pytest.fixture
def host_key(state: Path) -> Ed25519PrivateKey:
    """The host's own key, in its folder."""
    return make_ed25519(state / "host" / "host.key", state / "host" / "host.pub")


@pytest.fixture
def keys(state: Path, host_key: Ed25519PrivateKey) -> HostKeys:
    """The keys of an enrolled host."""
    assert host_key
    return HostKeys(state / "host")


@pytest.fixture
def ca() -> CA:
    """The issuer."""
    return CA(1, "SIGN", NOW_S)


def certify(
    ca: CA,
    csr_pem: str,
    *,
    now_s: int = NOW_S,
    life_s: int = LIFE_S,
    usage: list[x509.ObjectIdentifier] | None = None,
) -> bytes:
    """Sign a responder certificate over the key of a CSR."""
    csr = x509.load_pem_x509_csr(csr_pem.encode())
    builder = ca._builder(csr.subject, csr.public_key(), now_s, now_s + life_s)
    extended = x509.ExtendedKeyUsage(usage or [ExtendedKeyUsageOID.OCSP_SIGNING])
    signed = builder.add_extension(extended, False).sign(ca.key, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.DER)


def csr_of(keys: HostKeys, algorithm: str = "p256") -> str:
    """The CSR of the request that waits for issuer 1."""
    return read_request(keys.request(1, algorithm, NOW_S).text)[0].csr_pem


def test_a_request_is_signed_by_the_host_and_proves_the_new_key(
    keys: HostKeys, host_key: Ed25519PrivateKey
) -> None:
    """The CSR is signed by the OCSP key, all of it by the host's; anybody else's signature fails."""
    request, signature = read_request(keys.request(1, "p256", NOW_S).text)
    assert (request.host, request.issuer_id, request.time_ms) == ("h", 1, NOW_S * 1000)
    assert x509.load_pem_x509_csr(request.csr_pem.encode()).is_signature_valid
    request.verify(signature, host_key.public_key())
    with pytest.raises(NotEntitled, match="not signed by the key enrolled for host h"):
        request.verify(signature, Ed25519PrivateKey.generate().public_key())


def test_asking_twice_is_asking_once(keys: HostKeys) -> None:
    """A request that waits is given again, over the same key; a renewed one only has a later time."""
    first = keys.request(1, "p256", NOW_S)
    assert keys.request(1, "p256", NOW_S + 5) == first
    renewed = keys.renew_request(1, "p256", NOW_S + 100)
    before, after = read_request(first.text)[0], read_request(renewed.text)[0]
    assert after.time_ms - before.time_ms == 100_000
    keys_of = [x509.load_pem_x509_csr(item.csr_pem.encode()).public_key() for item in (before, after)]
    assert keys_of[0] == keys_of[1]


@pytest.mark.parametrize(
    ("algorithm", "algorithm_der"),
    [
        ("p256", oid.ECDSA_WITH_SHA256_DER),
        ("p384", oid.ECDSA_WITH_SHA384_DER),
        ("rsa2048", oid.SHA256_WITH_RSA_DER),
    ],
)
def test_an_installed_key_signs_what_cryptography_verifies(
    keys: HostKeys, ca: CA, algorithm: str, algorithm_der: bytes
) -> None:
    """Each kind of key signs under the algorithm it announces."""
    signer = keys.install(ca.issuer, certify(ca, csr_of(keys, algorithm)), NOW_S)
    assert signer.signature_algorithm_der == algorithm_der
    public = x509.load_der_x509_certificate(signer.certificate_der).public_key()
    signature = signer.sign(b"to be signed")
    if isinstance(public, rsa.RSAPublicKey):
        public.verify(signature, b"to be signed", padding.PKCS1v15(), hashes.SHA256())
    else:
        assert isinstance(public, ec.EllipticCurvePublicKey)
        digest = hashes.SHA384() if algorithm == "p384" else hashes.SHA256()
        public.verify(signature, b"to be signed", ec.ECDSA(digest))
    ski = x509.SubjectKeyIdentifier.from_public_key(public)
    assert signer.responder_key_hash == ski.digest


def test_installing_leaves_a_pair_that_only_its_owner_can_read(keys: HostKeys, ca: CA) -> None:
    """Key and certificate stand under one name, nothing waits any more, a reload finds the same."""
    certificate = certify(ca, csr_of(keys))
    signer = keys.install(ca.issuer, certificate, NOW_S)
    stem = f"1-{signer.serial}"
    assert sorted(path.name for path in keys.keys_folder.iterdir()) == [f"{stem}.crt", f"{stem}.key"]
    assert (keys.keys_folder / f"{stem}.key").stat().st_mode & 0o777 == 0o600
    assert keys.pending(1, "p256") is None
    assert [item.serial for item in keys.load().signers] == [signer.serial]
    # Once more, as after a kill in between.
    assert keys.install(ca.issuer, certificate, NOW_S).serial == signer.serial


def test_a_kill_while_installing_can_be_gone_on_with(keys: HostKeys, ca: CA) -> None:
    """With the key copied and the certificate not yet there, installing again completes it."""
    certificate = certify(ca, csr_of(keys))
    number = x509.load_der_x509_certificate(certificate).serial_number
    serial = number.to_bytes(number.bit_length() // 8 + 1, "big").hex()
    half_done = keys.keys_folder / f"1-{serial}.key"
    half_done.write_bytes((keys.keys_folder / "1-pending-p256.key").read_bytes())
    half_done.chmod(0o600)
    assert keys.load().signers == ()
    assert keys.install(ca.issuer, certificate, NOW_S).serial == serial


def test_what_the_issuers_key_did_not_sign_is_not_installed(keys: HostKeys, ca: CA) -> None:
    """Not another CA's, a namesake's, one for another purpose, an expired one, one over another key."""
    csr = csr_of(keys)
    stranger = CA(2, "AUTH", NOW_S)
    with pytest.raises(KeyFileError, match="is not issued by sign/g1"):
        keys.install(ca.issuer, certify(stranger, csr), NOW_S)
    namesake = CA(1, "SIGN", NOW_S)
    with pytest.raises(KeyFileError, match="is not issued by sign/g1"):
        keys.install(ca.issuer, certify(namesake, csr), NOW_S)
    with pytest.raises(KeyFileError, match="is not for signing OCSP answers"):
        keys.install(ca.issuer, certify(ca, csr, usage=[ExtendedKeyUsageOID.SERVER_AUTH]), NOW_S)
    with pytest.raises(KeyFileError, match="expired at"):
        keys.install(ca.issuer, certify(ca, csr, now_s=NOW_S - 1000, life_s=999), NOW_S)
    other = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    other_csr = x509.CertificateSigningRequestBuilder().subject_name(name).sign(other, hashes.SHA256())
    pem = other_csr.public_bytes(serialization.Encoding.PEM).decode()
    with pytest.raises(KeyFileError, match="is not over the key that waits"):
        keys.install(ca.issuer, certify(ca, pem), NOW_S)
    assert keys.load().signers == ()


def test_a_key_that_others_can_read_is_refused(keys: HostKeys, ca: CA) -> None:
    """An exposed OCSP key is not used, and the message says what is wrong with which file."""
    signer = keys.install(ca.issuer, certify(ca, csr_of(keys)), NOW_S)
    path = keys.keys_folder / f"1-{signer.serial}.key"
    path.chmod(0o640)
    loaded = keys.load()
    assert loaded.current(ca.issuer, NOW_S) is None
    (unfit,) = loaded.unfit
    assert unfit.pair == path.stem
    assert unfit.problem.startswith(f"{path}: mode 640, expected 600")


def _exposed(pair: Path) -> None:
    pair.with_suffix(".key").chmod(0o644)


def _cut(pair: Path) -> None:
    pair.with_suffix(".key").write_bytes(pair.with_suffix(".key").read_bytes()[:60])


def _without_a_key(pair: Path) -> None:
    pair.with_suffix(".key").unlink()


def _no_certificate(pair: Path) -> None:
    pair.write_bytes(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")


def _empty(pair: Path) -> None:
    pair.write_bytes(b"")


def _anothers(pair: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    pair.with_suffix(".key").write_bytes(pem_of(key))


def _weak(pair: Path) -> None:
    pair.with_suffix(".key").write_bytes(pem_of(ec.generate_private_key(ec.SECP224R1())))


def _oddly_named(pair: Path) -> None:
    """Give the certificate a subjectAltName that is an EDIPartyName, which `cryptography` refuses to read."""
    like = x509.load_pem_x509_certificate(pair.read_bytes())
    odd = x509.UnrecognizedExtension(
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME, bytes.fromhex("3007a505a1030c0178")
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(like.subject)
        .issuer_name(like.issuer)
        .public_key(like.public_key())
        .serial_number(like.serial_number)
        .not_valid_before(like.not_valid_before_utc)
        .not_valid_after(like.not_valid_after_utc)
        .add_extension(odd, critical=False)
    )
    signed = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    pair.write_bytes(signed.public_bytes(serialization.Encoding.PEM))


def _no_token(pair: Path) -> None:
    pair.with_suffix(".key").write_text("pkcs11:token=away;object=a?module-path=/none.so&pin-value=1\n")


def pem_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    """As it lies in a key file."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@pytest.mark.parametrize(
    "spoil",
    [_exposed, _cut, _without_a_key, _no_certificate, _empty, _anothers, _weak, _oddly_named, _no_token],
)
def test_one_broken_pair_keeps_no_other_from_being_loaded(
    keys: HostKeys, ca: CA, spoil: Callable[[Path], None]
) -> None:
    """The other issuer goes on, the broken pair is named; what was read of it before stays, else silence."""
    other = CA(2, "AUTH", NOW_S)
    broken = keys.install(ca.issuer, certify(ca, csr_of(keys)), NOW_S)
    csr_pem = read_request(keys.request(2, "p256", NOW_S).text)[0].csr_pem
    sound = keys.install(other.issuer, certify(other, csr_pem), NOW_S)
    before = keys.load()
    pair = keys.keys_folder / f"1-{broken.serial}.crt"
    spoil(pair)

    loaded = keys.load()
    assert loaded.signers == (sound,)
    assert loaded.current(ca.issuer, NOW_S) is None
    assert [item.pair for item in loaded.unfit] == [pair.stem]
    assert pair.stem in loaded.unfit[0].problem

    kept = keys.load(before=before)
    assert kept.current(ca.issuer, NOW_S) == broken
    assert kept.current(other.issuer, NOW_S) == sound
    assert kept.unfit == loaded.unfit

    assert keys.remove_expired(sound.not_after_s + 86_401) == [f"2-{sound.serial}"]
    pair.unlink()
    gone = keys.load(before=kept)
    assert (gone.signers, gone.unfit) == ((), ())


def test_who_may_answer_is_verified_once(keys: HostKeys, ca: CA, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new issuer table makes no new verifications, which would all fall into one turn of the loop."""
    signer = keys.install(ca.issuer, certify(ca, csr_of(keys)), NOW_S)
    keys.load().prepare([ca.issuer])

    def verify(*_args: object) -> bool:
        raise AssertionError("verified again")

    monkeypatch.setattr("responder.keys._is_issued_by", verify)
    later = keys.load()
    assert later.current(replace(ca.issuer, crl_url="http://other/"), NOW_S) == signer
    assert later.current(replace(ca.issuer, dropped=(signer.serial,)), NOW_S) is None


def test_the_newest_valid_signer_is_current_and_the_older_stays_good(keys: HostKeys, ca: CA) -> None:
    """Renewal with overlap: a valid successor signs; if it is dropped, the old one does again."""
    old = keys.install(ca.issuer, certify(ca, csr_of(keys), now_s=NOW_S - 500_000), NOW_S)
    new = keys.install(ca.issuer, certify(ca, csr_of(keys), now_s=NOW_S), NOW_S)
    signers = keys.load()
    issuer = ca.issuer
    assert signers.current(issuer, NOW_S - 1) == old
    assert signers.current(issuer, NOW_S) == new
    assert signers.current(replace(issuer, dropped=(new.serial,)), NOW_S) == old
    assert signers.current(replace(issuer, dropped=(new.serial, old.serial)), NOW_S) is None
    assert signers.current(replace(issuer, dropped=(new.serial,)), old.not_after_s + 1) is None
    assert signers.current(issuer, new.not_after_s) == new
    assert signers.current(issuer, new.not_after_s + 1) is None
    assert signers.current(replace(issuer, issuer_id=2), NOW_S) is None
    assert SignerSet().current(issuer, NOW_S) is None


def test_expired_pairs_are_removed_a_day_later(keys: HostKeys, ca: CA) -> None:
    """Keys of no use any more do not lie around for ever; those of use are left alone."""
    old = keys.install(ca.issuer, certify(ca, csr_of(keys), now_s=NOW_S - 1000, life_s=1010), NOW_S)
    new = keys.install(ca.issuer, certify(ca, csr_of(keys)), NOW_S)
    assert keys.remove_expired(old.not_after_s + 86_400) == []
    assert keys.remove_expired(old.not_after_s + 86_401) == [f"1-{old.serial}"]
    assert [item.serial for item in keys.load().signers] == [new.serial]


def test_what_is_no_pair_is_passed_over_and_what_is_a_broken_one_is_named(keys: HostKeys, ca: CA) -> None:
    """A copy put aside is nobody's; a certificate that cannot be read is an error that says which."""
    signer = keys.install(ca.issuer, certify(ca, csr_of(keys)), NOW_S)
    pair = keys.keys_folder / f"1-{signer.serial}.crt"
    for name in ("old-copy.crt", f"{pair.stem}-2.crt"):
        (keys.keys_folder / name).write_bytes(pair.read_bytes())
    assert [item.serial for item in keys.load().signers] == [signer.serial]
    unreadable = keys.keys_folder / "1-00.crt"
    unreadable.mkdir()
    assert re.search(r"1-00\.crt: Is a directory", problem_of(keys))
    unreadable.rmdir()
    odd = certificate_over_an_unknown_curve(pair)
    unreadable.write_bytes(odd.public_bytes(serialization.Encoding.PEM))
    unreadable.with_suffix(".key").write_bytes(pair.with_suffix(".key").read_bytes())
    unreadable.with_suffix(".key").chmod(0o600)
    assert re.search(r"1-00\.crt: not a certificate of a key known here", problem_of(keys))
    with pytest.raises(KeyFileError, match="cannot be read: Curve"):
        keys.install(ca.issuer, odd.public_bytes(serialization.Encoding.DER), NOW_S)


def problem_of(keys: HostKeys) -> str:
    """What the one unfit pair suffers from."""
    (unfit,) = keys.load().unfit
    return unfit.problem


def certificate_over_an_unknown_curve(like: Path) -> x509.Certificate:
    """The certificate in the file *like*, its key's curve another that nobody has."""
    der = x509.load_pem_x509_certificate(like.read_bytes()).public_bytes(serialization.Encoding.DER)
    curve = bytes.fromhex("06082a8648ce3d030107")
    assert der.count(curve) == 1
    return x509.load_der_x509_certificate(der.replace(curve, curve[:-1] + b"\x7f"))


def test_an_rsa_key_is_tried_when_it_is_loaded_and_its_primes_are_left_alone(keys: HostKeys, ca: CA) -> None:
    """A worker loads an RSA key in far less time than checking it would stop it for; a wrong one is named."""
    signer = keys.install(ca.issuer, certify(ca, csr_of(keys, "rsa3072")), NOW_S)
    begun_s = time.thread_time()
    assert len(keys.load().signers) == 1
    assert time.thread_time() - begun_s < 0.05
    assert isinstance(signer.key, rsa.RSAPrivateKey)
    right = signer.key.private_numbers()
    wrong = rsa.RSAPrivateNumbers(
        p=right.p,
        q=right.q,
        d=right.d + 2,
        dmp1=right.dmp1 + 2,
        dmq1=right.dmq1 + 2,
        iqmp=right.iqmp,
        public_numbers=right.public_numbers,
    ).private_key(unsafe_skip_rsa_key_validation=True)
    (path,) = keys.keys_folder.glob("*.key")
    path.write_bytes(
        wrong.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    assert re.search(r"not the key of|not an unencrypted PEM key", problem_of(keys))


def test_a_folder_that_is_no_host_says_so(tmp_path: Path) -> None:
    """Without host.toml there is no name to speak under."""
    with pytest.raises(KeyFileError, match="this is no responder host yet"):
        _ = HostKeys(tmp_path).host
    (tmp_path / "host.toml").write_text("name = 5")
    with pytest.raises(KeyFileError, match=r'expected name = "\.\.\."'):
        _ = HostKeys(tmp_path).host
