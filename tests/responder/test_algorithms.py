"""Which key signs: the client's preference, the CA's own algorithm, the default; and keys from elsewhere."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from answer_cases import NOW_S, Scene, body
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from responder_cases import CA, SHA1, get_request, request_der, serial_of

from certstatus import oid
from certstatus.cert_id import encode_cert_id, issuer_hashes
from certstatus.der import explicit, sequence
from certstatus.der import oid as encode_oid
from certstatus.errors import KeyFileError
from certstatus.extension import encode_extension
from responder.answer import How
from responder.keys import HostKeys, load_signer_key

SHA1_WITH_ECDSA = "1.2.840.10045.4.1"
MD5_WITH_RSA = "1.2.840.113549.1.1.4"
RSA_PSS = "1.2.840.113549.1.1.10"
KEYS = ("p256", "p384", "rsa2048")

SignerKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def asking(ca: CA, *wanted: str, n: int = 1, curve: str = "") -> bytes:
    """A request that prefers these algorithms, in this order."""
    key = sequence(encode_oid(oid.EC_PUBLIC_KEY), encode_oid(curve)) if curve else b""
    entries = [sequence(sequence(encode_oid(name)), key) for name in wanted]
    extension = encode_extension(oid.OCSP_PREF_SIG_ALGS, sequence(*entries))
    plain = sequence(sequence(ca.cert_id_der(n)))
    return sequence(sequence(plain, explicit(2, sequence(extension))))


def verify(response: ocsp.OCSPResponse) -> str:
    """Check an answer's signature by the key in it; return the algorithm, dotted."""
    key = response.certificates[0].public_key()
    digest = response.signature_hash_algorithm
    assert digest is not None
    if isinstance(key, rsa.RSAPublicKey):
        key.verify(response.signature, response.tbs_response_bytes, padding.PKCS1v15(), digest)
    else:
        assert isinstance(key, ec.EllipticCurvePublicKey)
        key.verify(response.signature, response.tbs_response_bytes, ec.ECDSA(digest))
    return response.signature_algorithm_oid.dotted_string


@pytest.fixture
def many(scene: Scene) -> Scene:
    """A host with a P-256 key, which is its default, and newer ones of other kinds."""
    for algorithm in KEYS[1:]:
        scene.sign.install_responder(scene.folder / "keys", NOW_S + 30, algorithm=algorithm)
    scene.path.signers = scene.keys.load("p256")
    return scene


def by(scene: Scene, request: bytes) -> str:
    """The algorithm that signs the answer to *request*."""
    return verify(scene.ocsp(request))


@pytest.mark.parametrize(
    ("wanted", "curve", "signed_by"),
    [
        ([oid.SHA256_WITH_RSA], "", oid.SHA256_WITH_RSA),
        ([oid.SHA512_WITH_RSA, oid.ECDSA_WITH_SHA256], "", oid.SHA512_WITH_RSA),
        ([oid.SHA384_WITH_RSA], "", oid.SHA384_WITH_RSA),
        ([oid.ECDSA_WITH_SHA384], oid.SECP384R1, oid.ECDSA_WITH_SHA384),
        ([oid.ECDSA_WITH_SHA256], oid.SECP384R1, oid.ECDSA_WITH_SHA256),
        ([RSA_PSS, oid.ED25519, oid.SHA256_WITH_RSA], "", oid.SHA256_WITH_RSA),
        ([SHA1_WITH_ECDSA, MD5_WITH_RSA, oid.SHA1_WITH_RSA], "", oid.ECDSA_WITH_SHA256),
        ([oid.ECDSA_WITH_SHA512], oid.SECP521R1, oid.ECDSA_WITH_SHA256),
        ([], "", oid.ECDSA_WITH_SHA256),
    ],
    ids=str,
)
def test_the_clients_first_that_can_be_had_signs(
    many: Scene, wanted: list[str], curve: str, signed_by: str
) -> None:
    """In its order; what we have not, and what is weak, is passed over."""
    response = many.ocsp(asking(many.sign, *wanted, curve=curve))
    assert verify(response) == signed_by
    key = response.certificates[0].public_key()
    if curve == oid.SECP384R1:
        assert isinstance(key, ec.EllipticCurvePublicKey)
        assert key.curve.name == "secp384r1"


def test_without_a_preference_the_default_signs(many: Scene) -> None:
    """However new other keys are; without a key of the default algorithm the newest does."""
    assert by(many, many.sign.request(1)) == oid.ECDSA_WITH_SHA256
    many.path.signers = many.keys.load("rsa2048")
    assert by(many, many.sign.request(2)) == oid.SHA256_WITH_RSA
    many.path.signers = many.keys.load("p521")
    many.clock.pass_s(30)
    many.ground.beat()
    assert by(many, many.sign.request(3)) in (oid.SHA256_WITH_RSA, oid.ECDSA_WITH_SHA384)


def test_a_list_of_nothing_we_have_leads_to_what_the_ca_signs_with(many: Scene) -> None:
    """Whoever checks the certificate can read the CA's algorithm; our default may be another."""
    many.path.signers = many.keys.load("rsa2048")
    assert by(many, asking(many.sign, oid.ED25519)) == oid.ECDSA_WITH_SHA256
    assert by(many, many.sign.request(1)) == oid.SHA256_WITH_RSA


def test_a_dropped_or_expired_key_is_no_choice(many: Scene) -> None:
    """The preference is no way around a dropped certificate."""
    request = asking(many.sign, oid.SHA256_WITH_RSA)
    assert by(many, request) == oid.SHA256_WITH_RSA
    dropped = next(item.serial for item in many.path.signers.signers if item.key_algorithm == "rsa2048")
    many.ground.serve(replace(many.sign.issuer, dropped=(dropped,)))
    assert by(many, request) == oid.ECDSA_WITH_SHA256


def test_preferences_are_kept_apart_in_every_cache(many: Scene) -> None:
    """Nobody is given an answer that was signed for somebody else's preference."""
    plain = many.sign.request(1)
    requests = {
        oid.SHA256_WITH_RSA: asking(many.sign, oid.SHA256_WITH_RSA),
        oid.ECDSA_WITH_SHA384: asking(many.sign, oid.ECDSA_WITH_SHA384, curve=oid.SECP384R1),
        oid.ECDSA_WITH_SHA256: plain,
    }
    for _ in range(2):
        for algorithm, request in requests.items():
            message = get_request(request)
            answer = many.keep(request, How(True, message=message))
            assert verify(ocsp.load_der_ocsp_response(body(answer))) == algorithm
            assert body(many.again(message) or b"") == body(answer)
    assert many.desk.signatures == 3


def test_flights_for_preferences_are_kept_apart(many: Scene) -> None:
    """Two slow signatures for one certificate are two when they are by different algorithms."""
    flights = [
        many.path.answer(many.peer, request, How(True), many.clock.now_ms(), many.clock.monotonic_s())
        for request in (
            asking(many.sign, oid.SHA256_WITH_RSA),
            asking(many.sign, oid.SHA512_WITH_RSA),
            asking(many.sign, oid.SHA256_WITH_RSA),
        )
    ]
    assert flights[0] is flights[2]
    assert flights[0] is not flights[1]


def test_the_signature_of_one_key_by_several_hashes_is_one_certificate(many: Scene) -> None:
    """The default answer and the one by another hash carry the same responder certificate."""
    one = many.ocsp(asking(many.sign, oid.ECDSA_WITH_SHA256))
    other = many.ocsp(asking(many.sign, oid.ECDSA_WITH_SHA512, curve=oid.SECP256R1))
    assert verify(other) == oid.ECDSA_WITH_SHA512
    assert one.certificates == other.certificates


# --- from elsewhere ----------------------------------------------------------------------------------


class OutsideCA(CA):
    """A CA that made its responder's key itself."""

    def __init__(self, key: SignerKey) -> None:
        super().__init__(1, "OUTSIDE", NOW_S)
        self.outer_key = key
        self.certificate = (
            self._builder(self.name, key.public_key(), self.not_before_s, NOW_S + 86_400 * 3000)
            .add_extension(x509.BasicConstraints(True, 0), True)
            .sign(key, hashes.SHA256())
        )
        self.spki_der = key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self.issuer = replace(
            self.issuer, spki_der=self.spki_der, certificates_der=(der_of(self.certificate),), access="public"
        )

    def delegate(
        self, key: SignerKey, *, purpose: bool = True, life_s: int = 86_400, serial: int | None = None
    ) -> x509.Certificate:
        """A certificate for *key*."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "old responder")])
        builder = self._builder(subject, key.public_key(), NOW_S - 1000, NOW_S + life_s, serial)
        if purpose:
            usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING])
            builder = builder.add_extension(usage, False)
        return builder.sign(self.outer_key, hashes.SHA256())


def der_of(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def new_key(kind: str) -> SignerKey:
    if kind == "rsa":
        return rsa.generate_private_key(65537, 2048)
    return ec.generate_private_key(ec.SECP384R1() if kind == "p384" else ec.SECP256R1())


@pytest.mark.parametrize("kind", ["p256", "p384", "rsa"])
@pytest.mark.parametrize("by_ca", [False, True], ids=["delegate", "CA itself"])
def test_a_key_from_elsewhere_signs_what_openssl_verifies(scene: Scene, kind: str, by_ca: bool) -> None:
    """A delegate's or the CA's own; its certificate goes with the answer, and the responder is its key."""
    for path in (scene.folder / "keys").iterdir():
        path.unlink()
    ca = OutsideCA(new_key(kind))
    key = ca.outer_key if by_ca else new_key(kind)
    certificate = ca.certificate if by_ca else ca.delegate(key)
    signer = scene.keys.adopt(ca.issuer, der_of(certificate), key, NOW_S)
    scene.path.signers = scene.keys.load("p256")
    assert scene.path.signers.signers == (signer,)
    assert scene.path.signers.adopted(ca.issuer, NOW_S) == signer
    scene.ground.serve(ca.issuer)
    request = outside_request(ca, 1)
    der = body(scene.ask(request))
    response = ocsp.load_der_ocsp_response(der)
    verify(response)
    assert response.certificates == [certificate]
    assert response.responder_key_hash == x509.SubjectKeyIdentifier.from_public_key(key.public_key()).digest
    (scene.folder / "answer.der").write_bytes(der)
    (scene.folder / "ca.pem").write_bytes(ca.certificate.public_bytes(serialization.Encoding.PEM))
    done = subprocess.run(
        [
            *("openssl", "ocsp", "-respin", scene.folder / "answer.der", "-CAfile", scene.folder / "ca.pem"),
            *("-attime", str(NOW_S)),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "Response verify OK" in done.stdout + done.stderr


def outside_request(ca: OutsideCA, n: int) -> bytes:
    """A request about test certificate *n* of a CA with another key than the test CA's."""
    both = issuer_hashes(ca.name_der, ca.spki_der)[SHA1]
    return request_der([encode_cert_id(SHA1, both[:20], both[20:], serial_of(n))])


def test_what_may_not_answer_is_not_adopted(tmp_path: Path) -> None:
    """Another CA's, one for no such purpose, an expired one, another key's, a weak or odd key."""
    keys = HostKeys(tmp_path)
    key = new_key("p256")
    ca, other = OutsideCA(new_key("p256")), OutsideCA(new_key("p256"))
    for certificate, message in (
        (other.delegate(key), "is not issued by outside/g1"),
        (other.certificate, "is not issued by outside/g1"),
        (ca.delegate(key, purpose=False), "is not for signing OCSP answers"),
        (ca.delegate(key, life_s=-10), "expired at"),
        (ca.delegate(new_key("p256")), "is not over this key"),
        (ca.certificate, "is not over this key"),
    ):
        with pytest.raises(KeyFileError, match=message):
            keys.adopt(ca.issuer, der_of(certificate), key, NOW_S)
    weak = rsa.generate_private_key(65537, 1024)
    with pytest.raises(KeyFileError, match="1024 bits, at least 2048"):
        keys.adopt(ca.issuer, der_of(ca.delegate(weak)), weak, NOW_S)
    odd = ec.generate_private_key(ec.SECP256K1())
    with pytest.raises(KeyFileError, match="P-256, P-384 or P-521"):
        keys.adopt(ca.issuer, der_of(ca.delegate(odd)), odd, NOW_S)
    assert keys.load().signers == ()


def test_a_ca_certificate_needs_key_and_name_and_purpose(tmp_path: Path) -> None:
    """A certificate over the CA's key that is no CA's is taken for nothing but what it says."""
    ca = OutsideCA(new_key("p256"))
    no_ca = ca._builder(ca.name, ca.outer_key.public_key(), NOW_S - 10, NOW_S + 1000).sign(
        ca.outer_key, hashes.SHA256()
    )
    with pytest.raises(KeyFileError, match="is not for signing OCSP answers"):
        HostKeys(tmp_path).adopt(ca.issuer, der_of(no_ca), ca.outer_key, NOW_S)


def test_an_expired_adopted_pair_is_removed(tmp_path: Path) -> None:
    """As any other, a day later, by the name it has."""
    keys = HostKeys(tmp_path)
    ca, key = OutsideCA(new_key("p256")), new_key("p256")
    signer = keys.adopt(ca.issuer, der_of(ca.delegate(key, life_s=100)), key, NOW_S)
    assert keys.remove_expired(signer.not_after_s + 86_401) == [f"1-{signer.serial}-adopted"]
    assert list(keys.keys_folder.iterdir()) == []


def test_a_key_adopted_under_a_mistaken_number_signs_for_nobody(scene: Scene) -> None:
    """Brought here as another issuer's, its own goes on; nor does it sign for a later key of the name."""
    key = new_key("p256")
    mistaken = scene.keys.adopt(
        replace(scene.sign.issuer, issuer_id=2), delegate_of(scene.sign, key), key, NOW_S
    )
    scene.path.signers = scene.keys.load("p256")
    assert mistaken in scene.path.signers.signers
    for wanted in ((), (oid.ECDSA_WITH_SHA256,), (oid.ECDSA_WITH_SHA384,)):
        (certificate,) = scene.ocsp(asking(scene.auth, *wanted)).certificates
        certificate.verify_directly_issued_by(scene.auth.certificate)
    assert scene.path.signers.adopted(scene.auth.issuer, NOW_S) is None
    generation_2 = replace(scene.auth.issuer, names_der=scene.sign.issuer.names_der)
    assert scene.path.signers.adopted(generation_2, NOW_S) is None
    assert scene.path.signers.adopted(replace(scene.sign.issuer, issuer_id=2), NOW_S) == mistaken


def delegate_of(ca: CA, key: SignerKey) -> bytes:
    """A certificate for *key*, newer than the delegate that the CA has already."""
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING])
    builder = ca._builder(ca.name, key.public_key(), NOW_S - 10, NOW_S + 1000)
    return der_of(builder.add_extension(usage, False).sign(ca.key, hashes.SHA256()))


def test_numbers_that_begin_alike_are_two_pairs(tmp_path: Path) -> None:
    """A CA that counts gives its delegates numbers that differ in their last octet only."""
    keys, ca = HostKeys(tmp_path), OutsideCA(new_key("p256"))
    adopted = []
    for last in (1, 2):
        key = new_key("p256")
        certificate = ca.delegate(key, serial=(0x61 << 152) + last)
        adopted.append(keys.adopt(ca.issuer, der_of(certificate), key, NOW_S).serial)
    assert sorted(signer.serial for signer in keys.load().signers) == adopted


def test_a_key_file_may_be_encrypted(tmp_path: Path) -> None:
    """With the right passphrase, and only so; on the host it is kept as its other keys are."""
    key = new_key("p256")
    path = tmp_path / "old.key"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.BestAvailableEncryption(b"word"),
        )
    )
    path.chmod(0o600)
    assert load_signer_key(path, b"word").private_numbers() == key.private_numbers()
    for passphrase in (None, b"other"):
        with pytest.raises(KeyFileError, match=r"passphrase|unencrypted"):
            load_signer_key(path, passphrase)


def test_a_key_on_a_curve_that_nobody_knows_is_an_error_of_the_file(tmp_path: Path) -> None:
    """OpenSSL makes keys that `cryptography` has no words for."""
    path = tmp_path / "odd.key"
    words = ["openssl", "ecparam", "-name", "secp112r1", "-genkey", "-noout", "-out", str(path)]
    subprocess.run(words, check=True, capture_output=True, timeout=60)
    path.chmod(0o600)
    with pytest.raises(KeyFileError, match=rf"{path}: not an unencrypted PEM key"):
        load_signer_key(path)
