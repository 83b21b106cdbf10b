"""OCSP responses: signed with real keys, read back by `cryptography`, asn1crypto, OpenSSL and ourselves."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from asn1crypto import ocsp as asn1_ocsp
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509 import ocsp
from hypothesis import given
from hypothesis import strategies as st

from certstatus import cert_id, der, ocsp_response, oid
from certstatus.cert_id import CertID, encode_cert_id, issuer_hashes, responder_key_hash
from certstatus.errors import DERError
from certstatus.extension import Extension, encode_extension
from certstatus.ocsp_response import (
    GOOD,
    GOOD_DER,
    REVOKED,
    UNKNOWN,
    UNKNOWN_DER,
    ParsedResponse,
    ParsedSingle,
    ResponseDataFrame,
    ResponseFrame,
    SingleResponse,
    encode_basic_response,
    encode_response,
    encode_response_data,
    encode_response_start,
    encode_updates,
    error_response,
    join_response_data,
    join_single_response,
    parse_response,
    revoked,
)

_Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
_NOW_S = int(datetime(2026, 7, 1, 12, 0, tzinfo=UTC).timestamp())
_REVOKED_S = _NOW_S - 86_400
_SERIAL = bytes.fromhex("1a2b3c4d5e6f708192a3b4c5d6e7f809")


def _spki(key: _Key) -> bytes:
    return key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


@dataclass(frozen=True)
class Signer:
    """A CA with this key, and a responder certificate it issued for another key of the same kind."""

    authority: x509.Certificate
    certificate: x509.Certificate
    key: _Key
    algorithm_der: bytes
    algorithm: str

    @property
    def certificate_der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def key_hash(self) -> bytes:
        return responder_key_hash(_spki(self.key))

    def cert_id(self, hash_alg: int = cert_id.SHA1, serial: bytes = _SERIAL) -> CertID:
        spki = self.authority.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        hashed = issuer_hashes(self.authority.subject.public_bytes(), spki)[hash_alg]
        return CertID(hash_alg, hashed[: len(hashed) // 2], hashed[len(hashed) // 2 :], serial)

    def sign(self, tbs: bytes) -> bytes:
        if isinstance(self.key, rsa.RSAPrivateKey):
            return self.key.sign(tbs, padding.PKCS1v15(), hashes.SHA256())
        if isinstance(self.key, ed25519.Ed25519PrivateKey):
            return self.key.sign(tbs)
        p256 = isinstance(self.key.curve, ec.SECP256R1)
        return self.key.sign(tbs, ec.ECDSA(hashes.SHA256() if p256 else hashes.SHA384()))

    def respond(self, tbs: bytes, certs_der: tuple[bytes, ...] | None = None) -> bytes:
        certs = (self.certificate_der,) if certs_der is None else certs_der
        return encode_response(encode_basic_response(tbs, self.algorithm_der, self.sign(tbs), certs))

    def verify(self, tbs: bytes, signature: bytes) -> None:
        public = self.certificate.public_key()
        if isinstance(public, rsa.RSAPublicKey):
            public.verify(signature, tbs, padding.PKCS1v15(), hashes.SHA256())
        elif isinstance(public, ed25519.Ed25519PublicKey):
            public.verify(signature, tbs)
        elif isinstance(public, ec.EllipticCurvePublicKey):
            p256 = isinstance(public.curve, ec.SECP256R1)
            public.verify(signature, tbs, ec.ECDSA(hashes.SHA256() if p256 else hashes.SHA384()))
        else:
            raise AssertionError(public)


def _certificate(
    subject: str, key: _Key, issuer: str, issuer_key: _Key, *, authority: bool
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(datetime(2026, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2036, 1, 1, tzinfo=UTC))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    if not authority:
        builder = builder.add_extension(
            x509.ExtendedKeyUsage([x509.ObjectIdentifier(oid.OCSP_SIGNING)]), critical=False
        )
    hash_function = None if isinstance(issuer_key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(issuer_key, hash_function)


def _key(kind: str) -> _Key:
    if kind == "RSA-2048":
        return rsa.generate_private_key(65537, 2048)
    if kind == "Ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    return ec.generate_private_key(ec.SECP256R1() if kind == "P-256" else ec.SECP384R1())


_ALGORITHMS = {
    "P-256": (oid.ECDSA_WITH_SHA256_DER, oid.ECDSA_WITH_SHA256),
    "P-384": (oid.ECDSA_WITH_SHA384_DER, oid.ECDSA_WITH_SHA384),
    "RSA-2048": (oid.SHA256_WITH_RSA_DER, oid.SHA256_WITH_RSA),
    "Ed25519": (oid.ED25519_DER, oid.ED25519),
}


def _signer(kind: str) -> Signer:
    authority_key, key = _key(kind), _key(kind)
    return Signer(
        authority=_certificate("CA", authority_key, "CA", authority_key, authority=True),
        certificate=_certificate("Responder", key, "CA", authority_key, authority=False),
        key=key,
        algorithm_der=_ALGORITHMS[kind][0],
        algorithm=_ALGORITHMS[kind][1],
    )


@pytest.fixture(scope="module", params=_ALGORITHMS)
def signer(request: pytest.FixtureRequest) -> Signer:
    """A CA and its responder, once for each kind of key."""
    return _signer(request.param)


@pytest.fixture(scope="module")
def p256() -> Signer:
    """The responder with the usual kind of key."""
    return _signer("P-256")


def _single(
    signer: Signer, status_der: bytes, *extensions: bytes, hash_alg: int = cert_id.SHA1
) -> SingleResponse:
    return SingleResponse(
        encode_cert_id(*signer.cert_id(hash_alg)), status_der, _NOW_S, _NOW_S + 900, extensions
    )


def _utc(posix_s: int) -> datetime:
    return datetime.fromtimestamp(posix_s, UTC)


_STATUSES: dict[str, tuple[bytes, int, int | None, int | None]] = {
    "good": (GOOD_DER, GOOD, None, None),
    "unknown": (UNKNOWN_DER, UNKNOWN, None, None),
    "revoked": (revoked(_REVOKED_S), REVOKED, _REVOKED_S, None),
    "revoked, unspecified": (revoked(_REVOKED_S, 0), REVOKED, _REVOKED_S, None),
    **{
        f"revoked, reason {reason}": (revoked(_REVOKED_S, reason), REVOKED, _REVOKED_S, reason)
        for reason in (1, 2, 3, 4, 5, 6, 9, 10)
    },
}
_FOREIGN_STATUS = {
    GOOD: ocsp.OCSPCertStatus.GOOD,
    REVOKED: ocsp.OCSPCertStatus.REVOKED,
    UNKNOWN: ocsp.OCSPCertStatus.UNKNOWN,
}
_REASON_NAMES = [
    "unspecified",
    "key_compromise",
    "ca_compromise",
    "affiliation_changed",
    "superseded",
    "cessation_of_operation",
    "certificate_hold",
    "",
    "remove_from_crl",
    "privilege_withdrawn",
    "aa_compromise",
]


@pytest.mark.parametrize("name", _STATUSES)
@pytest.mark.parametrize("nonce", [None, b"n", bytes(range(128))])
def test_three_readers_see_the_same_fields(signer: Signer, name: str, nonce: bytes | None) -> None:
    """Each status, under each kind of key, is verified and read alike by all three, field by field."""
    status_der, status, revocation_time_s, reason = _STATUSES[name]
    tbs = encode_response_data(signer.key_hash, _NOW_S + 1, [_single(signer, status_der)], nonce)
    response_der = signer.respond(tbs)

    theirs = ocsp.load_der_ocsp_response(response_der)
    assert theirs.response_status == ocsp.OCSPResponseStatus.SUCCESSFUL
    assert theirs.tbs_response_bytes == tbs
    signer.verify(theirs.tbs_response_bytes, theirs.signature)
    assert theirs.signature_algorithm_oid.dotted_string == signer.algorithm
    assert theirs.responder_key_hash == signer.key_hash
    assert theirs.responder_name is None
    assert theirs.produced_at_utc == _utc(_NOW_S + 1)
    assert theirs.certificate_status == _FOREIGN_STATUS[status]
    assert theirs.this_update_utc == _utc(_NOW_S)
    assert theirs.next_update_utc == _utc(_NOW_S + 900)
    assert theirs.revocation_time_utc == (None if revocation_time_s is None else _utc(revocation_time_s))
    assert (theirs.revocation_reason is None) == (reason is None)
    assert theirs.serial_number == int.from_bytes(_SERIAL, "big")
    assert theirs.certificates == [signer.certificate]
    assert [extension.value for extension in theirs.extensions] == ([x509.OCSPNonce(nonce)] if nonce else [])

    other = asn1_ocsp.OCSPResponse.load(response_der, strict=True)
    assert other["response_status"].native == "successful"
    data = other.response_data
    assert data["version"].native == "v1"
    assert data["responder_id"].name == "by_key"
    assert data["responder_id"].native == signer.key_hash
    assert data["produced_at"].native == _utc(_NOW_S + 1)
    (single,) = data["responses"]
    assert single["cert_status"].name == ("good", "revoked", "unknown")[status]
    assert single["this_update"].native == _utc(_NOW_S)
    assert single["next_update"].native == _utc(_NOW_S + 900)
    if status == REVOKED:
        info = single["cert_status"].chosen
        assert info["revocation_time"].native == _utc(_REVOKED_S)
        assert info["revocation_reason"].native == (None if reason is None else _REASON_NAMES[reason])
    assert (None if other.nonce_value is None else other.nonce_value.native) == nonce

    ours = parse_response(response_der)
    assert ours.status == 0
    basic = ours.basic
    assert basic is not None
    assert basic.tbs_der == tbs
    signer.verify(basic.tbs_der, basic.signature)
    assert basic.signature_algorithm == signer.algorithm
    assert (basic.responder_key_hash, basic.responder_name_der) == (signer.key_hash, None)
    assert basic.produced_at_s == _NOW_S + 1
    assert basic.nonce == nonce
    assert not basic.extended_revoke
    assert basic.certs_der == (signer.certificate_der,)
    asked = signer.cert_id()
    expected = ParsedSingle(
        asked, encode_cert_id(*asked), status, _NOW_S, _NOW_S + 900, revocation_time_s, reason, ()
    )
    assert basic.singles == (expected,)


@pytest.mark.parametrize("hash_alg", [cert_id.SHA1, cert_id.SHA256, cert_id.SHA384, cert_id.SHA512])
def test_answer_repeats_the_hash_function_asked_with(p256: Signer, hash_alg: int) -> None:
    """The CertID of an answer is that of the request, in every hash function."""
    tbs = encode_response_data(p256.key_hash, _NOW_S, [_single(p256, GOOD_DER, hash_alg=hash_alg)])
    theirs = ocsp.load_der_ocsp_response(p256.respond(tbs))
    asked = p256.cert_id(hash_alg)
    assert theirs.hash_algorithm.digest_size == len(asked.issuer_key_hash)
    assert theirs.issuer_name_hash == asked.issuer_name_hash
    assert theirs.issuer_key_hash == asked.issuer_key_hash
    (single,) = parse_response(p256.respond(tbs)).basic.singles  # type: ignore[union-attr]
    assert single.cert_id == asked


def test_several_certificates_are_answered_in_order(p256: Signer) -> None:
    """One response says good, revoked and unknown about three certificates in the order given."""
    serials = [b"\x01", b"\x00\xff", b"\x03"]
    singles = [
        SingleResponse(encode_cert_id(*p256.cert_id(serial=serial)), status, _NOW_S, _NOW_S + 60)
        for serial, status in zip(serials, [GOOD_DER, revoked(_REVOKED_S, 4), UNKNOWN_DER], strict=True)
    ]
    response_der = p256.respond(encode_response_data(p256.key_hash, _NOW_S, singles, b"nonce"))
    theirs = list(ocsp.load_der_ocsp_response(response_der).responses)
    assert [(single.serial_number, single.certificate_status) for single in theirs] == [
        (1, ocsp.OCSPCertStatus.GOOD),
        (255, ocsp.OCSPCertStatus.REVOKED),
        (3, ocsp.OCSPCertStatus.UNKNOWN),
    ]
    basic = parse_response(response_der).basic
    assert basic is not None
    assert [(single.cert_id.serial, single.status) for single in basic.singles] == [
        (b"\x01", GOOD),
        (b"\x00\xff", REVOKED),
        (b"\x03", UNKNOWN),
    ]
    assert [
        single["cert_status"].name
        for single in asn1_ocsp.OCSPResponse.load(response_der).response_data["responses"]
    ] == [
        "good",
        "revoked",
        "unknown",
    ]


def test_single_extensions_are_carried(p256: Signer) -> None:
    """An archive cutoff is a single extension, not critical, and all readers find it there."""
    cutoff = encode_extension(oid.OCSP_ARCHIVE_CUTOFF, der.generalized_time(_REVOKED_S))
    tbs = encode_response_data(p256.key_hash, _NOW_S, [_single(p256, GOOD_DER, cutoff)])
    response_der = p256.respond(tbs)
    (theirs,) = ocsp.load_der_ocsp_response(response_der).single_extensions
    assert (theirs.oid.dotted_string, theirs.critical) == (oid.OCSP_ARCHIVE_CUTOFF, False)
    (single,) = asn1_ocsp.OCSPResponse.load(response_der, strict=True).response_data["responses"]
    assert single.archive_cutoff_value.native == _utc(_REVOKED_S)
    basic = parse_response(response_der).basic
    assert basic is not None
    assert basic.singles[0].extensions == (
        Extension(oid.OCSP_ARCHIVE_CUTOFF, False, der.generalized_time(_REVOKED_S)),
    )


@pytest.mark.parametrize("nonce", [None, b"nonce"])
def test_extended_revoke_is_a_response_extension_and_not_critical(p256: Signer, nonce: bytes | None) -> None:
    """The extension is announced once for the whole response, beside the nonce, with NULL in it."""
    tbs = encode_response_data(
        p256.key_hash, _NOW_S, [_single(p256, revoked(0, 6))], nonce, extended_revoke=True
    )
    response_der = p256.respond(tbs)
    theirs = {
        extension.oid.dotted_string: extension.critical
        for extension in ocsp.load_der_ocsp_response(response_der).extensions
    }
    assert theirs == {oid.OCSP_EXTENDED_REVOKE: False} | ({oid.OCSP_NONCE: False} if nonce else {})
    basic = parse_response(response_der).basic
    assert basic is not None
    assert basic.extended_revoke
    assert basic.nonce == nonce
    assert Extension(oid.OCSP_EXTENDED_REVOKE, False, der.NULL_DER) in basic.extensions
    assert basic.singles[0].revocation_time_s == 0


def test_certificates_are_left_out_when_there_are_none(p256: Signer) -> None:
    """Without certificates there is no field at all, rather than an empty list."""
    tbs = encode_response_data(p256.key_hash, _NOW_S, [_single(p256, GOOD_DER)])
    without = p256.respond(tbs, ())
    assert ocsp.load_der_ocsp_response(without).certificates == []
    assert asn1_ocsp.OCSPResponse.load(without, strict=True).basic_ocsp_response["certs"].native is None
    two = p256.respond(tbs, (p256.certificate_der, p256.authority.public_bytes(serialization.Encoding.DER)))
    assert ocsp.load_der_ocsp_response(two).certificates == [p256.certificate, p256.authority]
    assert len(parse_response(two).basic.certs_der) == 2  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", ["P-256", "P-384", "RSA-2048"])
@pytest.mark.parametrize(
    ("status_der", "said"),
    [(GOOD_DER, "good"), (revoked(_REVOKED_S, 1), "revoked"), (UNKNOWN_DER, "unknown")],
)
def test_openssl_verifies_the_answer(tmp_path: Path, kind: str, status_der: bytes, said: str) -> None:
    """`openssl ocsp` checks chain, signature and times, and prints the status."""
    signer = _signer(kind)
    now_s = int(datetime.now(UTC).timestamp()) - 5
    single = SingleResponse(encode_cert_id(*signer.cert_id()), status_der, now_s, now_s + 3600)
    answer, authority = tmp_path / "response.der", tmp_path / "ca.pem"
    answer.write_bytes(signer.respond(encode_response_data(signer.key_hash, now_s, [single])))
    authority.write_bytes(signer.authority.public_bytes(serialization.Encoding.PEM))
    command: list[str | Path] = [
        "openssl",
        "ocsp",
        "-respin",
        answer,
        "-issuer",
        authority,
        "-CAfile",
        authority,
    ]
    command += ["-serial", "0x" + _SERIAL.hex(), "-no_nonce"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "Response verify OK" in done.stderr
    assert f"0x{_SERIAL.hex()}: {said}" in done.stdout


@pytest.mark.parametrize("status", [1, 2, 3, 5, 6])
def test_error_is_five_octets(status: int) -> None:
    """An unsigned error is exactly status and nothing else, and reads back."""
    encoded = error_response(status)
    assert encoded.hex() == f"30030a01{status:02x}"
    assert parse_response(encoded) == ParsedResponse(status)
    assert ocsp.load_der_ocsp_response(encoded).response_status.value == status


@pytest.mark.parametrize("status", [-1, 0, 4, 7, 256])
def test_error_that_does_not_exist_is_refused(status: int) -> None:
    """Successful needs an answer, 4 is not used, and there are no others."""
    with pytest.raises(DERError):
        error_response(status)


@pytest.mark.parametrize("reason", [-1, 7, 8, 11])
def test_reason_an_answer_must_not_carry_is_refused(reason: int) -> None:
    """removeFromCRL belongs to delta CRLs, and the others do not exist."""
    with pytest.raises(DERError):
        revoked(_REVOKED_S, reason)


# Reading ------------------------------------------------------------------------------------------------

_CERT_ID_DER = encode_cert_id(cert_id.SHA1, b"n" * 20, b"k" * 20, _SERIAL)
_TIME = der.generalized_time(_NOW_S)
_KEY_HASH = der.explicit(2, der.octet_string(b"r" * 20))


def _built(
    *,
    responder: bytes = _KEY_HASH,
    produced_at: bytes = _TIME,
    cert_id_der: bytes = _CERT_ID_DER,
    status: bytes = GOOD_DER,
    this_update: bytes = _TIME,
    rest: bytes = b"",
    extensions: bytes = b"",
    signature: bytes = der.bit_string(b"sig"),
    certs: bytes = b"",
    kind: str = oid.OCSP_BASIC,
    response_status: bytes = b"\x0a\x01\x00",
) -> bytes:
    single = der.sequence(cert_id_der, status, this_update, rest)
    tbs = der.sequence(responder, produced_at, der.sequence(single), extensions)
    basic = der.sequence(tbs, oid.ECDSA_WITH_SHA256_DER, signature, certs)
    return der.sequence(
        response_status, der.explicit(0, der.sequence(der.oid(kind), der.octet_string(basic)))
    )


def test_foreign_forms_are_read() -> None:
    """Other responders may name themselves by name and leave out nextUpdate."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Responder")]).public_bytes()
    basic = parse_response(_built(responder=der.explicit(1, name))).basic
    assert basic is not None
    assert (basic.responder_key_hash, basic.responder_name_der) == (None, name)
    assert basic.singles[0].next_update_s is None


_FALSE = der.sequence(der.oid("1.2.3"), der.boolean(False), der.octet_string(b""))
_WRONG: dict[str, tuple[bytes, str]] = {
    "error with response bytes": (_built(response_status=b"\x0a\x01\x03"), "present"),
    "success without response bytes": (der.sequence(b"\x0a\x01\x00"), "missing"),
    "status 4": (der.sequence(b"\x0a\x01\x04"), "does not exist"),
    "status INTEGER": (der.sequence(b"\x02\x01\x03"), "0x0A expected"),
    "trailing octets": (error_response(3) + b"\x00", "follow"),
    "another response type": (_built(kind="1.2.3"), "not basic"),
    "version written out": (
        _built(responder=der.explicit(0, der.integer(0)) + _KEY_HASH),
        "responder: tag 0xA0",
    ),
    "key hash of 19 octets": (_built(responder=der.explicit(2, der.octet_string(b"r" * 19))), "19 found"),
    "producedAt UTCTime": (_built(produced_at=der.utc_or_generalized_time(_NOW_S)), "0x18 expected"),
    "good with content": (_built(status=b"\x80\x01\x00"), "none expected"),
    "good constructed": (_built(status=b"\xa0\x00"), "certificate status"),
    "status of no kind": (_built(status=b"\x83\x00"), "certificate status"),
    "revoked without time": (_built(status=b"\xa1\x00"), "0x18 expected"),
    "reason 7": (_built(status=der.explicit(1, _TIME + der.explicit(0, der.enumerated(7)))), "reason 7"),
    "two reasons": (
        _built(status=der.explicit(1, _TIME + der.explicit(0, der.enumerated(1) + der.enumerated(1)))),
        "octets follow",
    ),
    "nextUpdate twice": (_built(rest=der.explicit(0, _TIME + _TIME)), "nextUpdate"),
    "single extensions twice": (_built(rest=der.explicit(1, der.sequence()) * 2), "follow"),
    "single extension FALSE": (_built(rest=der.explicit(1, der.sequence(_FALSE))), "FALSE written out"),
    "extensions out of place": (_built(extensions=der.explicit(0, der.sequence())), "0xA1 expected"),
    "signature of broken octets": (_built(signature=b"\x03\x02\x04\xf0"), "whole octets"),
    "certificates that are none": (
        _built(certs=der.explicit(0, der.sequence(der.NULL_DER))),
        "0x30 expected",
    ),
    "CertID without serial number": (_built(cert_id_der=der.sequence(_CERT_ID_DER[2:57])), "expected"),
}


@pytest.mark.parametrize("name", _WRONG)
def test_wrong_response_is_refused(name: str) -> None:
    """What is no DER OCSPResponse, or says what cannot be, is refused for its own reason."""
    response_der, reason = _WRONG[name]
    with pytest.raises(DERError, match=reason):
        parse_response(response_der)


def test_beginning_or_prolongation_of_a_response_is_refused(p256: Signer) -> None:
    """A response is read to its last octet, neither less nor more."""
    response_der = p256.respond(encode_response_data(p256.key_hash, _NOW_S, [_single(p256, GOOD_DER)], b"n"))
    for cut in range(len(response_der)):
        with pytest.raises(DERError):
            parse_response(response_der[:cut])
    for octet in range(256):
        with pytest.raises(DERError):
            parse_response(response_der + bytes((octet,)))


def test_every_mutated_response_is_read_or_refused() -> None:
    """Change any octet to any other: a value or the one error; and the signed octets tell the change."""
    original = _built(rest=der.explicit(0, _TIME), certs=der.explicit(0, der.sequence(der.sequence())))
    value = parse_response(original)
    for position in range(len(original)):
        for octet in range(256):
            mutated = original[:position] + bytes((octet,)) + original[position + 1 :]
            try:
                assert (parse_response(mutated) == value) == (mutated == original)
            except DERError:
                continue


@given(st.binary(max_size=120))
def test_any_octets_raise_only_the_one_error(octets: bytes) -> None:
    """Any octets give a value or DERError."""
    for candidate in (
        octets,
        der.sequence(octets),
        _built(responder=octets),
        _built(status=octets),
        _built(rest=octets),
    ):
        try:
            parse_response(candidate)
        except DERError:
            continue


_CERT_IDS = st.builds(
    lambda pair, name, key, serial: CertID(
        pair[0], name[: pair[1]], key[: pair[1]], der.integer_content(serial)
    ),
    st.sampled_from([(1, 20), (2, 32), (3, 48), (4, 64)]),
    st.binary(min_size=64, max_size=64),
    st.binary(min_size=64, max_size=64),
    st.integers(0, (1 << 159) - 1),
)
_SECONDS = st.integers(0, 4_000_000_000)


@given(
    produced_at_s=_SECONDS,
    parts=st.lists(
        st.tuples(
            _CERT_IDS,
            st.sampled_from([GOOD, REVOKED, UNKNOWN]),
            _SECONDS,
            _SECONDS,
            _SECONDS,
            st.sampled_from([None, 1, 2, 3, 4, 5, 6, 9, 10]),
        ),
        min_size=1,
        max_size=4,
    ),
    nonce=st.none() | st.binary(min_size=1, max_size=128),
    extended_revoke=st.booleans(),
    certs=st.lists(
        st.binary(max_size=300).map(lambda octets: der.sequence(der.octet_string(octets))), max_size=2
    ),
)
def test_responses_round_trip(
    produced_at_s: int,
    parts: list[tuple[CertID, int, int, int, int, int | None]],
    nonce: bytes | None,
    extended_revoke: bool,
    certs: list[bytes],
) -> None:
    """Whatever is encoded is read back, and encodes to the same octets again."""

    def encode(singles: list[tuple[CertID, int, int, int, int | None, int | None]]) -> bytes:
        encoded = []
        for asked, status, this_s, next_s, revocation_s, reason in singles:
            status_der = {GOOD: GOOD_DER, UNKNOWN: UNKNOWN_DER}.get(status) or revoked(
                revocation_s or 0, reason
            )
            encoded.append(SingleResponse(encode_cert_id(*asked), status_der, this_s, next_s))
        tbs = encode_response_data(b"r" * 20, produced_at_s, encoded, nonce, extended_revoke=extended_revoke)
        return encode_response(encode_basic_response(tbs, oid.ED25519_DER, b"signature", certs))

    response_der = encode(list(parts))
    basic = parse_response(response_der).basic
    assert basic is not None
    assert (basic.produced_at_s, basic.nonce, basic.extended_revoke) == (
        produced_at_s,
        nonce,
        extended_revoke,
    )
    assert basic.certs_der == tuple(certs)
    assert basic.signature == b"signature"
    read_back = [
        (
            single.cert_id,
            single.status,
            single.this_update_s,
            single.next_update_s or 0,
            single.revocation_time_s,
            single.reason,
        )
        for single in basic.singles
    ]
    expected = [
        (asked, status, this_s, next_s, revocation_s, reason)
        if status == REVOKED
        else (asked, status, this_s, next_s, None, None)
        for asked, status, this_s, next_s, revocation_s, reason in parts
    ]
    assert read_back == expected
    assert encode(read_back) == response_der


@given(
    st.lists(st.binary(min_size=1, max_size=700), min_size=1, max_size=6),
    st.binary(min_size=1, max_size=400),
    st.lists(st.binary(max_size=300), max_size=2),
)
def test_a_frame_gives_what_the_plain_encoder_gives(
    every_tbs: list[bytes], signature: bytes, certs_der: list[bytes]
) -> None:
    """Whatever the lengths, and in whatever order they come, header for header."""
    algorithm_der = der.sequence(der.oid(oid.ECDSA_WITH_SHA256))
    frame = ResponseFrame(algorithm_der, certs_der)
    for tbs in [*every_tbs, *every_tbs]:
        basic_der = encode_basic_response(tbs, algorithm_der, signature, certs_der)
        assert frame(tbs, signature) == encode_response(basic_der)


@given(
    st.lists(st.tuples(st.binary(min_size=1, max_size=200), st.none() | st.binary(max_size=128)), max_size=6),
    st.sampled_from([GOOD_DER, UNKNOWN_DER, revoked(1_700_000_000), revoked(1_700_000_000, 1)]),
    st.integers(0, 4_000_000_000),
)
def test_a_frame_of_response_data_gives_what_the_plain_encoder_gives(
    asked: list[tuple[bytes, bytes | None]], status_der: bytes, produced_at_s: int
) -> None:
    """Whatever the lengths of CertID and nonce, and in whatever order they come."""
    start_der = encode_response_start(b"k" * 20, produced_at_s)
    updates_der = encode_updates(produced_at_s, produced_at_s + 900)
    frame = ResponseDataFrame(start_der, status_der, updates_der)
    for cert_id_der, nonce in [*asked, *asked]:
        single_der = join_single_response(cert_id_der, status_der, updates_der, ())
        assert frame(cert_id_der, nonce) == join_response_data(start_der, single_der, nonce)


def test_a_frame_of_response_data_does_not_grow_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """As that of responses."""
    monkeypatch.setattr(ocsp_response, "_FRAMES_MAX", 4)
    frame = ResponseDataFrame(b"start", GOOD_DER, encode_updates(0, 1))
    for octets in range(1, 20):
        single_der = join_single_response(b"c" * octets, GOOD_DER, encode_updates(0, 1), ())
        assert frame(b"c" * octets) == join_response_data(b"start", single_der)
        assert len(frame._made) <= 4


def test_a_frame_does_not_grow_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers of ever other lengths begin it anew, and are right."""
    monkeypatch.setattr(ocsp_response, "_FRAMES_MAX", 4)
    frame = ResponseFrame(b"\x30\x00")
    for octets in range(1, 20):
        basic_der = encode_basic_response(b"t" * octets, b"\x30\x00", b"s" * 70)
        assert frame(b"t" * octets, b"s" * 70) == encode_response(basic_der)
        assert len(frame._made) <= 4
