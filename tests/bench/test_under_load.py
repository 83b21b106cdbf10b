"""What a demo installation is asked: the national mix, whoever is in it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from bench.national_mix import STATUS_REQUESTS
from bench.population import Generated, Population
from bench.under_load import requests_of


@pytest.fixture(scope="module")
def population() -> Population:
    """More people than the fewest requests there are."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench CA")])
    now = datetime(2026, 1, 1, tzinfo=UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + timedelta(days=1))
    return Population(builder.sign(key, hashes.SHA256()), Generated(60_000, b"k", 10))


def test_the_mix_has_the_nations_shares(population: Population) -> None:
    """A connection ends as often as the mix says, and POST has its share."""
    requests = list(requests_of("mix", population, "h"))
    assert len(requests) == 3 * len(population.members)
    for found, wanted in (
        (
            sum(ends for _, ends in requests),
            sum(shape.share for shape in STATUS_REQUESTS if not shape.form.keeps),
        ),
        (
            sum(request.startswith(b"POST") for request, _ in requests),
            sum(shape.share for shape in STATUS_REQUESTS if shape.form.method == "POST"),
        ),
    ):
        assert found / len(requests) == pytest.approx(wanted, rel=0.05)


def test_nonces_never_come_again(population: Population) -> None:
    """Each answer must be signed; one request over and over is one request."""
    nonces = [request for request, _ in requests_of("nonce", population, "h")]
    assert len(set(nonces)) == len(nonces)
    assert len(list(requests_of("repeated", population, "h"))) == 1
