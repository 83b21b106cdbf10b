"""Rows of what policy can add to an answer: P12, P14, P18, P19, P25; Q20 with two keys; Q14 and Q22 with a
budget for nonces."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from demo_service import Service, never_issued, service_of
from installation_watch import OpenWire
from request_octets import (
    NONCE_OID,
    NULL,
    PREFERRED_OID,
    SHA256_OID,
    extension,
    get,
    nonce_of,
    oid,
    post,
    request,
    seq,
    with_extensions,
)
from served_installation import Served, demo_served
from wire_client import Wire

from certstatus import clock
from certstatus.config import load_config
from certstatus.publisher_key import load_index_key
from issuance.ca_keys import CAKeyFolder
from issuance.issue import Issuing, issue
from issuance.issuers import issuer_of
from issuance.store import Store

CONFIG = """
[installation]
state = "."

[responder]
key = "p256"
more_keys = ["rsa2048"]
nonce_signatures_per_s = 3

[[issuer]]
service = "CORP"
access = "public"
not_issued = "revoked"
crl_id = true

[[issuer]]
service = "TWIN"
access = "public"
both_hashes = true
expired = "last"
cert_hash = true
"""
ECDSA_SHA256, RSA_SHA256, RSA_SHA1 = "1.2.840.10045.4.3.2", "1.2.840.113549.1.1.11", "1.2.840.113549.1.1.5"
EXTENDED_REVOKE_OID = "1.3.6.1.5.5.7.48.1.9"
ARCHIVE_CUTOFF_OID = "1.3.6.1.5.5.7.48.1.6"
CERT_HASH_OID = "1.3.36.8.3.13"
CRL_REFERENCE_OID = "1.3.6.1.5.5.7.48.1.3"


@pytest.fixture(scope="module")
def talkative(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """An installation whose answers say more, by keys of two kinds."""
    with demo_served(tmp_path_factory.mktemp("talkative"), CONFIG) as installation:
        yield installation


@pytest.fixture
def corp(talkative: Served) -> Service:
    """The service with extended revoked and references to CRLs."""
    return service_of(talkative.state, "CORP")


@pytest.fixture
def policy_wire(open_wire: OpenWire, talkative: Served) -> Wire:
    """A counting client."""
    return open_wire(talkative)


@pytest.mark.row("P14")
def test_never_issued_may_be_revoked_in_the_extended_sense(policy_wire: Wire, corp: Service) -> None:
    """certificateHold since 1970, said so by an extension that is not critical, and nothing more."""
    reply = policy_wire.ask(post(corp.request(never_issued())))
    said = corp.read(reply)
    single = said.singles[0]
    assert (single.status, single.reason) == ("revoked", "certificate_hold")
    assert single.revoked_at == datetime(1970, 1, 1, tzinfo=UTC)
    assert (said.extensions, single.extensions) == ((EXTENDED_REVOKE_OID,), {})
    assert extension(EXTENDED_REVOKE_OID, NULL) in reply.body
    assert corp.read(policy_wire.ask(post(corp.request()))).word == "good"


@pytest.mark.row("P19")
def test_a_revoked_certificate_names_the_crl_it_is_on(
    policy_wire: Wire, corp: Service, talkative: Served
) -> None:
    """As soon as a complete CRL has it: address, number and time."""
    talkative.run("publish", "now", "--all")
    until = time.monotonic() + 90
    while True:
        single = corp.read(policy_wire.ask(post(corp.request(corp.revoked[0])))).singles[0]
        assert single.status == "revoked"
        if single.extensions:
            break
        assert time.monotonic() < until
        time.sleep(0.2)
    assert list(single.extensions) == [CRL_REFERENCE_OID]
    assert b"http://localhost:8080/crl/corp/g1/all/complete.crl" in single.extensions[CRL_REFERENCE_OID]
    assert corp.read(policy_wire.ask(post(corp.request()))).singles[0].extensions == {}


@pytest.mark.row("P12")
def test_a_question_by_sha_1_may_be_answered_by_both(policy_wire: Wire, talkative: Served) -> None:
    """Each status twice, by SHA-1 as asked and by SHA-256; a question by SHA-256 once."""
    twin = service_of(talkative.state, "TWIN")
    said = twin.read(policy_wire.ask(get(twin.request(twin.revoked[0]))))
    assert said.word == "revoked revoked"
    assert {single.hash_alg for single in said.singles} == {"sha1", "sha256"}
    by_sha256 = twin.asked(algorithm=SHA256_OID)
    other = next(single for single in said.singles if single.hash_alg == "sha256")
    assert (other.name_hash, other.key_hash) == (by_sha256.name_hash, by_sha256.key_hash)
    assert {single.serial for single in said.singles} == {twin.revoked[0]}
    assert twin.read(policy_wire.ask(get(request(by_sha256.one)))).word == "good"


@pytest.mark.row("Q20")
def test_the_signature_is_what_the_client_prefers(policy_wire: Wire, corp: Service) -> None:
    """The first of its list that we have; what is weak or unknown is passed over."""
    for preferred, algorithm in (
        ((RSA_SHA256, ECDSA_SHA256), "sha256_rsa"),
        ((ECDSA_SHA256, RSA_SHA256), "sha256_ecdsa"),
        ((RSA_SHA1, "2.999.1", RSA_SHA256), "sha256_rsa"),
        ((RSA_SHA1,), "sha256_ecdsa"),
    ):
        wanted = extension(PREFERRED_OID, seq(*[seq(seq(oid(name))) for name in preferred]))
        der = corp.request(extensions=with_extensions(wanted))
        said = corp.read(policy_wire.ask(post(der)))
        assert (said.word, said.algorithm) == ("good", algorithm)


@pytest.mark.row("P18")
def test_a_status_beyond_the_end_says_since_when_such_are_kept(policy_wire: Wire, talkative: Served) -> None:
    """A certificate that ended two days ago is answered its last status, with the CA's notBefore."""
    twin = service_of(talkative.state, "TWIN")
    serial = _issued_and_ended(talkative, twin.ca.not_valid_before_utc)
    until = time.monotonic() + 30
    while (
        said := twin.read(policy_wire.ask(post(request(twin.asked(serial, SHA256_OID).one))))
    ).word != "good":
        # It reaches the worker a moment after it was recorded.
        assert time.monotonic() < until, said
        time.sleep(0.05)
    cutoff = f"{twin.ca.not_valid_before_utc:%Y%m%d%H%M%SZ}".encode()
    assert said.singles[0].extensions[ARCHIVE_CUTOFF_OID] == b"\x18\x0f" + cutoff
    living = twin.read(policy_wire.ask(post(request(twin.asked(algorithm=SHA256_OID).one))))
    assert ARCHIVE_CUTOFF_OID not in living.singles[0].extensions


def _issued_and_ended(installation: Served, since: datetime) -> int:
    config = load_config(installation.config)
    store = Store.open(config.store_url)
    issuer = issuer_of(store, "TWIN")
    ca_key = CAKeyFolder(config.state / "ca").private_key(issuer.issuer_id)
    begin_s = int(since.timestamp()) - 9 * clock.DAY_S
    issued = issue(
        store,
        Issuing.of(issuer, ca_key),
        load_index_key(config.state / "secrets" / "index.key"),
        ec.generate_private_key(ec.SECP256R1()).public_key(),
        begin_s * 1000,
        not_after_s=begin_s + 7 * clock.DAY_S,
    )
    store.close()
    return int.from_bytes(issued.serial, "big")


@pytest.mark.row("P25")
def test_an_answer_may_prove_that_the_certificate_is_known(policy_wire: Wire, talkative: Served) -> None:
    """The SHA-256 of the certificate beside good and revoked; nothing beside unknown."""
    twin = service_of(talkative.state, "TWIN")
    for name, serial in (("good", twin.good[0]), ("revoked", twin.revoked[0])):
        certificate = x509.load_pem_x509_certificate((twin.folder / f"{name}.pem").read_bytes())
        assert certificate.serial_number == serial
        said = twin.read(policy_wire.ask(post(request(twin.asked(serial, SHA256_OID).one))))
        assert said.word == name
        value = said.singles[0].extensions[CERT_HASH_OID]
        assert value == seq(
            seq(oid(SHA256_OID), NULL), b"\x04\x20" + certificate.fingerprint(hashes.SHA256())
        )
    said = twin.read(policy_wire.ask(post(request(twin.asked(never_issued(), SHA256_OID).one))))
    assert (said.word, said.singles[0].extensions) == ("unknown", {})


@pytest.mark.row("Q14", "Q22")
def test_a_flood_of_nonces_gets_the_answer_without(policy_wire: Wire, corp: Service) -> None:
    """The first nonces come back; beyond the budget a right answer has none, and says nothing else."""
    nonces = [secrets.token_bytes(16) for _ in range(30)]
    asked = [corp.request(extensions=with_extensions(nonce_of(nonce))) for nonce in nonces]
    said = [corp.read(reply) for reply in policy_wire.talk(*[post(der) for der in asked])]
    assert [one.word for one in said] == ["good"] * 30
    assert (said[0].nonce, said[0].extensions) == (nonces[0], (NONCE_OID,))
    assert all(one.nonce in (None, nonce) for one, nonce in zip(said, nonces, strict=True))
    without = [one for one in said if one.nonce is None]
    assert {one.extensions for one in without} == {()}
    assert len(without) >= 1
