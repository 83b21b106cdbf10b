"""So many signatures for itself alone has each verifier, and what it gets beyond them."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest
from answer_cases import NOW_S, STAY, TRY_LATER, Scene, Somebody, body, header
from cryptography import x509
from cryptography.x509 import ocsp
from hypothesis import given
from hypothesis import strategies as st
from responder_cases import everybody, post_request

from certstatus.changes import ChangeKind
from certstatus.der import bit_string, explicit, sequence
from certstatus.der import oid as encode_oid
from certstatus.oid import ECDSA_WITH_SHA256
from responder.answer import How, Limits
from responder.answers import Flight
from responder.nonce_budget import NonceBudget

_PER_S = 5


class Bucket:
    """The plain twin: tokens that come in evenly, at most a second's worth of them."""

    def __init__(self, per_s: int) -> None:
        self.per_s, self.tokens, self.at = per_s, Fraction(per_s), Fraction(0)

    def take(self, at: Fraction) -> bool:
        """Take a token if there is a whole one."""
        self.tokens = min(Fraction(self.per_s), self.tokens + (at - self.at) * self.per_s)
        self.at = at
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


@given(st.integers(1, 500), st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1500)), max_size=200))
def test_it_is_a_bucket_of_tokens_for_each_verifier(per_s: int, asked: list[tuple[int, int]]) -> None:
    """At any times, for any rate, what is granted is what a bucket of tokens by fractions grants."""
    budget, twins = NonceBudget(), [Bucket(per_s) for _ in range(4)]
    at = Fraction(0)
    for verifier_id, pause in asked:
        at += Fraction(pause, 1024)
        twin = twins[verifier_id]
        assert budget.take(verifier_id, per_s, 1000.0 + float(at)) == twin.take(at)


def test_nought_is_no_bound() -> None:
    """Without a rate everything is granted, and nothing is remembered."""
    budget = NonceBudget()
    assert all(budget.take(7, 0, 5.0) for _ in range(10_000))
    assert budget.take(7, 1, 5.0)
    assert not budget.take(7, 1, 5.0)


@pytest.fixture
def bounded(scene: Scene) -> Scene:
    """Five a second for each verifier; 7 asks from 127/8, 8 from 10/8."""
    scene.path.limits = Limits(20, 1 << 22, _PER_S)
    scene.ground.grant(everybody(), everybody(8, "10.0.0.0/8"))
    return scene


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Scene]:
    """The same with a key that signs on threads."""
    made = Scene(tmp_path)
    for path in (tmp_path / "keys").iterdir():
        path.unlink()
    made.sign.install_responder(tmp_path / "keys", NOW_S, algorithm="p384")
    made.path.signers = made.keys.load()
    made.ground.change(ChangeKind.ISSUED, 1)
    made.path.limits = Limits(20, 1 << 22, _PER_S)
    yield made
    made.close()


def _nonce(answer: bytes) -> bytes | None:
    response = ocsp.load_der_ocsp_response(body(answer))
    assert response.certificate_status is ocsp.OCSPCertStatus.GOOD
    for extension in response.extensions:
        assert isinstance(extension.value, x509.OCSPNonce)
        return extension.value.nonce
    return None


def test_beyond_its_budget_a_verifier_gets_the_shared_answer(bounded: Scene) -> None:
    """Up to the budget each nonce comes back; then one answer without any is signed, once for all."""
    nonces = [bytes([n]) * 16 for n in range(50)]
    answers = [bounded.ask(bounded.sign.request(1, nonce=nonce)) for nonce in nonces]
    assert [_nonce(answer) for answer in answers] == nonces[:_PER_S] + [None] * 45
    assert bounded.desk.signatures == _PER_S + 1
    assert {body(answer) for answer in answers[_PER_S:]} == {body(bounded.ask(bounded.sign.request(1)))}
    assert bounded.path.outcomes["nonce_ignored"] == 45
    assert bounded.counted() == {"GOOD": 51}


def test_one_verifiers_flood_is_not_anothers(bounded: Scene) -> None:
    """Another verifier's nonces come back while the first has none left, from whatever address of its own."""
    for n in range(20):
        bounded.ask(bounded.sign.request(1, nonce=bytes([n]) * 16), peer=Somebody(f"127.0.0.{n}"))
    last = bounded.sign.request(1, nonce=b"n" * 16)
    assert _nonce(bounded.ask(last, peer=Somebody("127.9.9.9"))) is None
    assert _nonce(bounded.ask(last, peer=Somebody("10.0.0.1"))) == b"n" * 16


def test_what_was_given_without_a_nonce_is_not_kept_under_it(bounded: Scene) -> None:
    """The same octets a second later are answered with their nonce, which no memo may prevent."""
    der = bounded.sign.request(1, nonce=b"n" * 16)
    message = post_request(der)
    for _ in range(_PER_S + 5):
        bounded.keep(der, How(True, message=message))
        assert bounded.again(message) is None
    bounded.clock.pass_s(1)
    bounded.ground.beat()
    assert _nonce(bounded.keep(der, How(True, message=message))) == b"n" * 16


def test_a_change_is_seen_beyond_the_budget(bounded: Scene) -> None:
    """The shared answer is looked up again as for everybody."""
    for n in range(_PER_S + 1):
        bounded.ask(bounded.sign.request(1, nonce=bytes([n]) * 16))
    bounded.ground.change(ChangeKind.REVOKED, 1, reason=1)
    response = bounded.ocsp(bounded.sign.request(1, nonce=b"n" * 16))
    assert response.certificate_status is ocsp.OCSPCertStatus.REVOKED
    assert len(response.extensions) == 0


def test_signed_requests_are_of_the_budget_too(bounded: Scene) -> None:
    """They cannot be shared either, so they would be a way around it."""
    request = bounded.sign.request(1)
    signature = sequence(sequence(encode_oid(ECDSA_WITH_SHA256)), bit_string(b"\x30\x00"))
    signed = sequence(request[2:], explicit(0, signature))
    for _ in range(30):
        assert _nonce(bounded.ask(signed)) is None
    assert bounded.desk.signatures == _PER_S + 1


def test_by_policy_it_is_told_to_wait(bounded: Scene) -> None:
    """tryLater with Retry-After, counted as a refusal; what needs no signature of its own is answered."""
    bounded.path.limits = Limits(20, 1 << 22, _PER_S, "try_later")
    der = bounded.sign.request(1, nonce=b"n" * 16)
    for _ in range(_PER_S):
        assert _nonce(bounded.ask(der)) == b"n" * 16
    refused = bounded.ask(der)
    assert (body(refused), header(refused, "Retry-After")) == (TRY_LATER, "1")
    assert _nonce(bounded.ask(bounded.sign.request(1))) is None
    assert bounded.path.outcomes["nonce_budget"] == 1
    assert bounded.counted() == {"GOOD": _PER_S + 1, "REFUSED_TRY_LATER": 1}
    bounded.clock.pass_s(1 / _PER_S)
    assert _nonce(bounded.ask(der)) == b"n" * 16


def test_beyond_the_budget_all_wait_for_one_signature(slow: Scene) -> None:
    """With a slow key what cannot be had for oneself is one flight for all; none of them is kept for its
    octets, and those who asked without a nonce are."""
    for n in range(_PER_S):
        slow.ask(slow.sign.request(1, nonce=bytes([n]) * 16))
    signed = slow.desk.signatures
    given: list[bytes] = []
    messages = [slow.sign.request(1, nonce=bytes([n]) * 16) for n in range(100, 105)] + [slow.sign.request(1)]
    for message in messages:
        how = How(True, message=message)
        flight = slow.path.answer(slow.peer, message, STAY, slow.clock.now_ms(), slow.clock.monotonic_s())
        assert isinstance(flight, Flight)

        def deliver(result: object, how: How = how) -> None:
            answer = slow.provide(result, how)
            assert answer is not None
            given.append(answer)

        flight.add(deliver)
    slow.run_until(lambda: len(given) == len(messages))
    assert slow.desk.signatures == signed + 1
    assert len({body(answer) for answer in given}) == 1
    for message in messages:
        slow.keep(message, How(True, message=message))
    assert [slow.again(message) is not None for message in messages] == [False] * 5 + [True]
