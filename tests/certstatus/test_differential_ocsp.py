"""OCSP answers made at random by our encoder, read by four readers who must agree on every field."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from functools import cache
from typing import NamedTuple

import ocsp_facts
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from ocsp_facts import SingleFacts

from certstatus import cert_id, oid
from certstatus.cert_id import encode_cert_id, responder_key_hash
from certstatus.der import generalized_time, integer_content
from certstatus.extension import encode_extension
from certstatus.ocsp_response import (
    GOOD_DER,
    UNKNOWN_DER,
    SingleResponse,
    encode_basic_response,
    encode_response,
    encode_response_data,
    revoked,
)

_NOW_S = 1_900_000_000
_HASH_OCTETS = {
    cert_id.SHA1: ("sha1", 20),
    cert_id.SHA256: ("sha256", 32),
    cert_id.SHA384: ("sha384", 48),
    cert_id.SHA512: ("sha512", 64),
}
_ALGORITHMS = {
    "RSA-2048": oid.SHA256_WITH_RSA_DER,
    "P-256": oid.ECDSA_WITH_SHA256_DER,
    "P-384": oid.ECDSA_WITH_SHA384_DER,
}


class Responder(NamedTuple):
    """A key, what it is known by, and its certificate."""

    kind: str
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
    key_hash: bytes
    certificate_der: bytes

    def respond(self, tbs: bytes, *, certificate: bool) -> bytes:
        """The signed answer."""
        if isinstance(self.key, rsa.RSAPrivateKey):
            signature = self.key.sign(tbs, padding.PKCS1v15(), hashes.SHA256())
        else:
            digest = hashes.SHA256() if self.kind == "P-256" else hashes.SHA384()
            signature = self.key.sign(tbs, ec.ECDSA(digest))
        certs = (self.certificate_der,) if certificate else ()
        return encode_response(encode_basic_response(tbs, _ALGORITHMS[self.kind], signature, certs))


@cache
def _responder(kind: str) -> Responder:
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
    if kind == "RSA-2048":
        key = rsa.generate_private_key(65537, 2048)
    else:
        key = ec.generate_private_key(ec.SECP256R1() if kind == "P-256" else ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Responder")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(datetime(2026, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2036, 1, 1, tzinfo=UTC))
        .sign(key, hashes.SHA256())
    )
    spki = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return Responder(
        kind, key, responder_key_hash(spki), certificate.public_bytes(serialization.Encoding.DER)
    )


def _single(chance: random.Random) -> tuple[SingleResponse, SingleFacts]:
    """A status at random, and what every reader must make of it."""
    hash_alg = chance.choice(list(_HASH_OCTETS))
    word, octets = _HASH_OCTETS[hash_alg]
    name_hash, key_hash = chance.randbytes(octets), chance.randbytes(octets)
    serial = chance.randint(0, (1 << chance.choice((7, 8, 64, 127, 159))) - 1)
    this_s = _NOW_S + chance.randint(-1_000_000, 1_000_000)
    next_s = this_s + chance.choice((1, 900, 86_400 * 400))
    status = chance.choice(("good", "revoked", "revoked", "unknown"))
    revoked_at_s = reason = None
    if status == "revoked":
        # Also the beginning of time, which the extended definition of `revoked` uses.
        revoked_at_s = chance.choice((0, _NOW_S, 4_000_000_000))
        reason = chance.choice((None, 1, 2, 3, 4, 5, 6, 9, 10))
        status_der = revoked(revoked_at_s, reason)
    else:
        status_der = GOOD_DER if status == "good" else UNKNOWN_DER
    extensions = [
        encode_extension(oid.OCSP_ARCHIVE_CUTOFF, generalized_time(_NOW_S - 1)),
        encode_extension(oid.INVALIDITY_DATE, generalized_time(_NOW_S - 2)),
    ]
    single = SingleResponse(
        encode_cert_id(hash_alg, name_hash, key_hash, integer_content(serial)),
        status_der,
        this_s,
        next_s,
        tuple(chance.sample(extensions, chance.randint(0, 2))),
    )
    facts = SingleFacts(word, name_hash, key_hash, serial, status, revoked_at_s, reason, this_s, next_s)
    return single, facts


@pytest.mark.parametrize("kind", _ALGORITHMS)
@pytest.mark.parametrize("seed", range(16))
def test_readers_agree_on_every_field(kind: str, seed: int) -> None:
    """And all see what was to be said: statuses in order, reasons, times, nonce, signer."""
    chance = random.Random(f"{kind} {seed}")
    responder = _responder(kind)
    made = [_single(chance) for _ in range(chance.choice((1, 1, 1, 2, 20)))]
    nonce = chance.choice((None, chance.randbytes(chance.choice((1, 16, 32, 128)))))
    tbs = encode_response_data(
        responder.key_hash,
        _NOW_S,
        [single for single, _ in made],
        nonce,
        extended_revoke=chance.random() < 0.3,
    )
    facts = ocsp_facts.agreed(responder.respond(tbs, certificate=chance.random() < 0.8))
    assert facts.singles == tuple(expected for _, expected in made)
    assert (facts.key_hash, facts.produced_at_s, facts.nonce) == (responder.key_hash, _NOW_S, nonce)
