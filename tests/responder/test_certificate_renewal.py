"""A host's responder certificates: asked for in time, asked again when lost, never from strangers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from responder_cases import CA

from certstatus.certificate_request import read_request, request_digest
from certstatus.errors import KeyFileError
from certstatus.feed_keys import FeedKeys
from certstatus.publisher_key import make_ed25519
from responder.certificate_renewal import REQUEST_LIFE_S, CertificateRenewal
from responder.keys import HostKeys

KEYS = FeedKeys("t", bytes(16))
NOW_S = 1_800_000_000
LIFE_S = 6000


@pytest.fixture
def ca() -> CA:
    """The issuer."""
    return CA(1, "SIGN", NOW_S)


@pytest.fixture
def renewal(state: Path) -> CertificateRenewal:
    """The renewal of an enrolled host."""
    make_ed25519(state / "host" / "host.key", state / "host" / "host.pub")
    return CertificateRenewal(HostKeys(state / "host"), ["p256"])


def waiting_request(valkey: Any, algorithm: str = "p256") -> bytes | None:
    """What the host asks for issuer 1."""
    text: bytes | None = valkey.hget(KEYS.certificate_requests(), f"h:1:{algorithm}")
    return text


def answer(valkey: Any, ca: CA, now_s: int, algorithm: str = "p256") -> None:
    """Sign what is asked for, as the publisher does."""
    text = waiting_request(valkey, algorithm)
    assert text is not None
    csr = x509.load_pem_x509_csr(read_request(text)[0].csr_pem.encode())
    builder = ca._builder(csr.subject, csr.public_key(), now_s, now_s + LIFE_S)
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING])
    der = (
        builder.add_extension(usage, False)
        .sign(ca.key, hashes.SHA256())
        .public_bytes(serialization.Encoding.DER)
    )
    valkey.hset(KEYS.responder_certificates("h"), request_digest(text), der)
    valkey.hdel(KEYS.certificate_requests(), f"h:1:{algorithm}")


def test_from_nothing_to_a_signer_and_on_to_its_successor(
    valkey: Any, renewal: CertificateRenewal, ca: CA
) -> None:
    """Missing, asked, installed; at two thirds of its life a successor is asked for while it still signs."""
    (standing,) = renewal.step(valkey, KEYS, [ca.issuer], NOW_S)
    assert (standing.state, standing.signer) == ("missing", None)
    answer(valkey, ca, NOW_S)
    (standing,) = renewal.step(valkey, KEYS, [ca.issuer], NOW_S + 1)
    assert standing.state == "ok"
    first = standing.signer
    assert first is not None
    renewal.step(valkey, KEYS, [ca.issuer], first.renew_at_s - 1)
    assert waiting_request(valkey) is None
    (standing,) = renewal.step(valkey, KEYS, [ca.issuer], first.renew_at_s)
    assert (standing.state, standing.signer) == ("renewing", first)
    answer(valkey, ca, first.renew_at_s)
    (standing,) = renewal.step(valkey, KEYS, [ca.issuer], first.renew_at_s + 1)
    assert standing.state == "ok"
    assert standing.signer is not None
    assert standing.signer.serial != first.serial


def test_a_question_that_valkey_lost_is_asked_again(valkey: Any, renewal: CertificateRenewal, ca: CA) -> None:
    """An emptied Valkey costs one round."""
    renewal.step(valkey, KEYS, [ca.issuer], NOW_S)
    asked = waiting_request(valkey)
    valkey.flushall()
    renewal.step(valkey, KEYS, [ca.issuer], NOW_S + 1)
    assert waiting_request(valkey) == asked


def test_a_question_too_old_to_be_taken_is_signed_anew(
    valkey: Any, renewal: CertificateRenewal, ca: CA
) -> None:
    """The same key is asked for under a new time, whichever way the clock went."""
    made_s = NOW_S
    renewal.step(valkey, KEYS, [ca.issuer], made_s)
    first = waiting_request(valkey)
    for later_s in (made_s + REQUEST_LIFE_S + 1, made_s - 10 * REQUEST_LIFE_S):
        renewal.step(valkey, KEYS, [ca.issuer], later_s)
        text = waiting_request(valkey)
        assert text is not None
        assert text != first
        assert read_request(text)[0].time_ms == later_s * 1000


def test_a_strangers_certificate_is_refused_and_another_key_asked_for(
    valkey: Any, renewal: CertificateRenewal, ca: CA
) -> None:
    """Whoever can write to Valkey cannot make this host sign under another CA."""
    renewal.step(valkey, KEYS, [ca.issuer], NOW_S)
    before = waiting_request(valkey)
    answer(valkey, CA(1, "SIGN", NOW_S), NOW_S)
    (standing,) = renewal.step(valkey, KEYS, [ca.issuer], NOW_S + 1)
    assert (standing.state, standing.signer) == ("alarm", None)
    assert "is not issued by sign/g1" in standing.problem
    renewal.step(valkey, KEYS, [ca.issuer], NOW_S + 2)
    assert waiting_request(valkey) not in (None, before)


def test_a_refusal_is_shown_and_the_question_stays(valkey: Any, renewal: CertificateRenewal, ca: CA) -> None:
    """A host that is not enrolled learns why, and has its certificate as soon as it is."""
    renewal.step(valkey, KEYS, [ca.issuer], NOW_S)
    text = waiting_request(valkey)
    assert text is not None
    valkey.hset(KEYS.responder_certificates("h"), request_digest(text), b"error: host h is not enrolled")
    (standing,) = renewal.step(valkey, KEYS, [ca.issuer], NOW_S + 1)
    assert (standing.state, standing.problem) == ("alarm", "error: host h is not enrolled")
    answer(valkey, ca, NOW_S)
    (standing,) = renewal.step(valkey, KEYS, [ca.issuer], NOW_S + 2)
    assert (standing.state, standing.problem) == ("ok", "")


def test_the_end_of_the_last_signer_without_a_successor_is_an_alarm(
    valkey: Any, renewal: CertificateRenewal, ca: CA
) -> None:
    """Before answers stop, somebody hears of it."""
    renewal.step(valkey, KEYS, [ca.issuer], NOW_S)
    answer(valkey, ca, NOW_S)
    (standing,) = renewal.step(valkey, KEYS, [ca.issuer], NOW_S + 1)
    signer = standing.signer
    assert signer is not None
    (standing,) = renewal.step(valkey, KEYS, [ca.issuer], signer.alarm_at_s)
    assert (standing.state, standing.signer) == ("alarm", signer)
    assert (
        standing.problem == f"expires in {signer.not_after_s - signer.alarm_at_s} s and there is no successor"
    )


def test_a_dropped_signer_is_replaced_at_once(valkey: Any, renewal: CertificateRenewal, ca: CA) -> None:
    """Dropping a compromised responder certificate makes the host ask for another."""
    from dataclasses import replace

    renewal.step(valkey, KEYS, [ca.issuer], NOW_S)
    answer(valkey, ca, NOW_S)
    (standing,) = renewal.step(valkey, KEYS, [ca.issuer], NOW_S + 1)
    assert standing.signer is not None
    dropped = replace(ca.issuer, dropped=(standing.signer.serial,))
    (standing,) = renewal.step(valkey, KEYS, [dropped], NOW_S + 2)
    assert (standing.state, standing.signer) == ("missing", None)
    assert waiting_request(valkey) is not None


# --- several algorithms, and certificates from elsewhere ---------------------------------------------


def test_each_algorithm_has_a_key_of_its_own(valkey: Any, state: Path, ca: CA) -> None:
    """All are asked for side by side; the standing is that of the worst, the signer the default's."""
    make_ed25519(state / "host" / "host.key", state / "host" / "host.pub")
    renewal = CertificateRenewal(HostKeys(state / "host"), ["p256", "rsa2048"])
    renewal.step(valkey, KEYS, [ca.issuer], NOW_S)
    names = sorted(name.decode() for name in valkey.hkeys(KEYS.certificate_requests()))
    assert names == ["h:1:p256", "h:1:rsa2048"]
    answer(valkey, ca, NOW_S)
    (standing,) = renewal.step(valkey, KEYS, [ca.issuer], NOW_S + 1)
    assert standing.state == "missing"
    assert standing.signer is not None
    assert standing.signer.key_algorithm == "p256"
    answer(valkey, ca, NOW_S, "rsa2048")
    (standing,) = renewal.step(valkey, KEYS, [ca.issuer], NOW_S + 2)
    assert standing.state == "ok"
    assert standing.signer is not None
    assert standing.signer.key_algorithm == "p256"
    loaded = HostKeys(state / "host").load("rsa2048")
    assert sorted(item.key_algorithm for item in loaded.signers) == ["p256", "rsa2048"]
    renewal.step(valkey, KEYS, [ca.issuer], standing.signer.renew_at_s)
    assert waiting_request(valkey) is not None


def test_where_one_was_adopted_nobody_is_asked(
    valkey: Any, renewal: CertificateRenewal, state: Path, ca: CA
) -> None:
    """Its CA is elsewhere; it is noticed without being told of it, and its end is an alarm."""
    (standing,) = renewal.step(valkey, KEYS, [ca.issuer], NOW_S)
    assert standing.state == "missing"
    valkey.delete(KEYS.certificate_requests())
    key = ec.generate_private_key(ec.SECP384R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "old responder")])
    certificate = (
        ca._builder(subject, key.public_key(), NOW_S - 10, NOW_S + LIFE_S)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING]), False)
        .sign(ca.key, hashes.SHA256())
    )
    der = certificate.public_bytes(serialization.Encoding.DER)
    adopted = HostKeys(state / "host").adopt(ca.issuer, der, key, NOW_S)
    for now_s, state_then in ((NOW_S, "ok"), (adopted.renew_at_s, "ok"), (adopted.alarm_at_s, "alarm")):
        (standing,) = renewal.step(valkey, KEYS, [ca.issuer], now_s)
        assert (standing.state, standing.signer) == (state_then, adopted)
    assert valkey.hkeys(KEYS.certificate_requests()) == []


def test_one_issuers_unfit_files_keep_no_other_waiting(
    valkey: Any, renewal: CertificateRenewal, ca: CA, state: Path
) -> None:
    """What is wrong is said, but only after everybody else has been seen to."""
    other = CA(2, "AUTH", NOW_S)
    keys = HostKeys(state / "host")
    keys.request(1, "p256", NOW_S)
    (keys.keys_folder / "1-pending-p256.req").unlink()
    exposed = keys.keys_folder / "1-pending-p256.key"
    exposed.chmod(0o644)
    with pytest.raises(KeyFileError, match=f"{exposed}: mode 644"):
        renewal.step(valkey, KEYS, [ca.issuer, other.issuer], NOW_S)
    assert valkey.hget(KEYS.certificate_requests(), "h:2:p256") is not None


def test_a_pair_that_cannot_be_read_for_a_while_is_not_replaced(
    valkey: Any, renewal: CertificateRenewal, ca: CA, state: Path
) -> None:
    """Its token may be away: what was read before counts, and it is named until it can be read again."""
    ca.install_responder(state / "host" / "keys", NOW_S)
    (standing,) = renewal.step(valkey, KEYS, [ca.issuer], NOW_S)
    assert (standing.state, renewal.unfit) == ("ok", ())
    (key,) = (state / "host" / "keys").glob("1-*.key")
    aside = key.rename(key.with_suffix(".aside"))
    renewal.reload()
    (standing,) = renewal.step(valkey, KEYS, [ca.issuer], NOW_S)
    assert standing.state == "ok"
    assert [item.pair for item in renewal.unfit] == [key.stem]
    assert waiting_request(valkey) is None
    aside.rename(key)
    renewal.step(valkey, KEYS, [ca.issuer], NOW_S)
    renewal.step(valkey, KEYS, [ca.issuer], NOW_S)
    assert renewal.unfit == ()
