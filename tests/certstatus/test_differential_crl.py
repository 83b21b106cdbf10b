"""CRLs made at random by our encoder, read by four readers who must agree on every field."""

from __future__ import annotations

import random
from functools import cache

import crl_facts
import pytest
from crl_facts import EntryFacts
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from certstatus import oid
from certstatus.crl import encode_certificate_list, encode_tbs_cert_list
from certstatus.crl_entry import CRLEntry
from certstatus.der import integer_content
from certstatus.distribution_point import encode_distribution_points, encode_issuing_distribution_point

_YEAR_S = 31_556_952
_2050_S = 2_524_608_000
_NAME = x509.Name(
    [
        x509.NameAttribute(x509.NameOID.COUNTRY_NAME, "JP"),
        x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "試験 TEST"),
        x509.NameAttribute(x509.NameOID.ORGANIZATIONAL_UNIT_NAME, "CRL"),
    ]
)
_ALGORITHMS = {
    "RSA-2048": oid.SHA256_WITH_RSA_DER,
    "P-256": oid.ECDSA_WITH_SHA256_DER,
    "P-384": oid.ECDSA_WITH_SHA384_DER,
}


@cache
def _key(kind: str) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey:
    if kind == "RSA-2048":
        return rsa.generate_private_key(65537, 2048)
    return ec.generate_private_key(ec.SECP256R1() if kind == "P-256" else ec.SECP384R1())


def _signature(kind: str, tbs: bytes) -> bytes:
    key = _key(kind)
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(tbs, padding.PKCS1v15(), hashes.SHA256())
    return key.sign(tbs, ec.ECDSA(hashes.SHA256() if kind == "P-256" else hashes.SHA384()))


def _entries(chance: random.Random, count: int, *, delta: bool) -> list[CRLEntry]:
    """Entries with serial numbers of 1 to 20 octets, all reasons, dates on both sides of 2050."""
    reasons = [None, 0, 1, 2, 3, 4, 5, 6, 9, 10] + [8] * delta
    serials = {chance.randint(1, (1 << chance.choice((7, 8, 63, 64, 127, 159))) - 1) for _ in range(count)}
    return [
        CRLEntry(
            integer_content(serial),
            _2050_S + chance.randint(-40 * _YEAR_S, 40 * _YEAR_S),
            chance.choice(reasons),
            _2050_S + chance.randint(-99 * _YEAR_S, 99 * _YEAR_S) if chance.random() < 0.3 else None,
        )
        for serial in serials
    ]


@pytest.mark.parametrize("kind", _ALGORITHMS)
@pytest.mark.parametrize("seed", range(12))
def test_readers_agree_on_every_field(kind: str, seed: int) -> None:
    """And all see what was to be said: nothing lost, nothing added, in ascending order."""
    chance = random.Random(f"{kind} {seed}")
    delta = chance.random() < 0.5
    entries = _entries(chance, chance.choice((0, 1, 2, 30, 300)), delta=delta)
    number = chance.choice((1, 127, 128, 1 << 62, (1 << 159) - 1))
    base = chance.randrange(number) if delta else None
    this_s = _2050_S + chance.choice((-1, -_YEAR_S, 0, _YEAR_S))
    uris = tuple(f"http://crl.example.jp/{at}.crl" for at in range(chance.randint(1, 2)))
    idp = encode_issuing_distribution_point(
        chance.choice((None, (None, uris))),
        **chance.choice(({"only_user_certs": True}, {"only_ca_certs": True})),
    )
    freshest = encode_distribution_points([(None, uris)])
    key_id = chance.randbytes(20)
    tbs = encode_tbs_cert_list(
        issuer_name_der=_NAME.public_bytes(),
        signature_algorithm_der=_ALGORITHMS[kind],
        this_update_s=this_s,
        next_update_s=this_s + 2,
        entries=entries,
        crl_number=number,
        aki_key_id=key_id,
        base_crl_number=base,
        issuing_distribution_point_der=idp if chance.random() < 0.7 else None,
        freshest_crl_der=freshest if not delta and chance.random() < 0.7 else None,
    )
    facts = crl_facts.agreed(encode_certificate_list(tbs, _ALGORITHMS[kind], _signature(kind, tbs)))
    assert (facts.this_update_s, facts.next_update_s) == (this_s, this_s + 2)
    assert (facts.number, facts.base, facts.key_id) == (number, base, key_id)
    assert list(facts.entries) == sorted(
        EntryFacts(int.from_bytes(e.serial, "big"), e.revoked_at_s, e.reason or None, e.invalidity_at_s)
        for e in entries
    )


def test_readers_agree_on_thousands_of_entries() -> None:
    """A long list with serial numbers of 20 octets."""
    chance = random.Random(5)
    entries = [
        CRLEntry(
            integer_content(chance.randint(1 << 152, (1 << 159) - 1)), _2050_S + at, chance.choice((None, 1))
        )
        for at in range(-2000, 2000)
    ]
    tbs = encode_tbs_cert_list(
        issuer_name_der=_NAME.public_bytes(),
        signature_algorithm_der=_ALGORITHMS["P-256"],
        this_update_s=_2050_S,
        next_update_s=_2050_S + 10,
        entries=entries,
        crl_number=7,
        aki_key_id=bytes(20),
    )
    facts = crl_facts.agreed(encode_certificate_list(tbs, _ALGORITHMS["P-256"], _signature("P-256", tbs)))
    assert len(facts.entries) == len(entries)


def test_a_reader_that_differs_is_noticed() -> None:
    """The comparison itself: another algorithm outside the signed part is read by some and not by others."""
    tbs = encode_tbs_cert_list(
        issuer_name_der=_NAME.public_bytes(),
        signature_algorithm_der=_ALGORITHMS["P-256"],
        this_update_s=0,
        next_update_s=1,
        entries=[],
        crl_number=7,
        aki_key_id=bytes(20),
    )
    spoiled = encode_certificate_list(tbs, _ALGORITHMS["P-384"], _signature("P-256", tbs))
    with pytest.raises((AssertionError, ValueError)):
        crl_facts.agreed(spoiled)
