"""The answer path: every rule of what is answered, to whom, from when until when, and how it is counted."""

from __future__ import annotations

import gc
import itertools
import re
import threading
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from email.utils import parsedate_to_datetime
from hashlib import sha256
from pathlib import Path

import pytest
from answer_cases import (
    AGE_MAX_S,
    INTERNAL_ERROR,
    MALFORMED,
    NOW_S,
    STAY,
    TRY_LATER,
    UNAUTHORIZED,
    Scene,
    Somebody,
    body,
    header,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509 import ocsp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from responder_cases import (
    CA,
    SHA1,
    SHA256,
    everybody,
    get_request,
    post_request,
    request_der,
    serial_of,
)

from certstatus import oid
from certstatus.cert_id import encode_cert_id
from certstatus.changes import ChangeKind
from certstatus.clock import jst_day_end_s, jst_day_number
from certstatus.counters import Provision, read_counters
from certstatus.der import explicit, generalized_time, sequence
from certstatus.der import oid as encode_oid
from certstatus.errors import NotAuthoritative, SignerUnavailable
from certstatus.extension import encode_extension
from certstatus.index import View
from certstatus.ocsp_response import parse_response
from certstatus.oid import OCSP_ARCHIVE_CUTOFF
from responder.answer import How
from responder.answers import Answer, Flight
from responder.keys import SignerSet
from responder.signing import LOT
from responder.standing import nothing_believed

# --- what is said ------------------------------------------------------------------------------------


def test_good_revoked_and_unknown(scene: Scene) -> None:
    """Each certificate is told of as it stands in the index; one never issued is unknown, never good."""
    assert [scene.status(n) for n in (1, 2, 3)] == ["GOOD", "REVOKED", "UNKNOWN"]


def test_an_answer_is_signed_by_the_delegate_and_says_when(scene: Scene) -> None:
    """Signature, responder, certificate and times are right, as cryptography reads them."""
    scene.clock.pass_s(10)
    response = scene.ocsp(scene.sign.request(1))
    (certificate,) = response.certificates
    certificate.verify_directly_issued_by(scene.sign.certificate)
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    key.verify(response.signature, response.tbs_response_bytes, ec.ECDSA(hashes.SHA256()))
    assert response.responder_key_hash == x509.SubjectKeyIdentifier.from_public_key(key).digest
    assert response.this_update_utc.timestamp() == NOW_S
    assert response.produced_at_utc.timestamp() == NOW_S + 10
    assert response.next_update_utc is not None
    assert response.next_update_utc.timestamp() == NOW_S + scene.sign.issuer.validity_good_s


def test_the_hash_function_of_the_request_is_echoed(scene: Scene) -> None:
    """Clients look for the CertID they sent; both forms are kept apart in every cache."""
    for alg, name in ((SHA1, "sha1"), (SHA256, "sha256"), (SHA1, "sha1")):
        response = scene.ocsp(scene.sign.request(1, alg=alg))
        assert response.hash_algorithm.name == name
        assert response.serial_number == int.from_bytes(serial_of(1), "big")


@pytest.mark.parametrize(
    ("reason", "said"),
    [(1, "key_compromise"), (5, "cessation_of_operation"), (None, None), (0, None), (8, None)],
)
def test_reasons(scene: Scene, reason: int | None, said: str | None) -> None:
    """A reason is said if there is one that an answer may carry; unspecified is left out."""
    scene.ground.change(ChangeKind.ISSUED, 5)
    scene.ground.change(ChangeKind.REVOKED, 5, reason=reason)
    response = scene.ocsp(scene.sign.request(5))
    found = response.revocation_reason
    assert (None if found is None else found.name) == said
    assert response.revocation_time_utc is not None
    assert response.revocation_time_utc.timestamp() == NOW_S


def test_hold_and_release(scene: Scene) -> None:
    """A held certificate is revoked for certificateHold, with a validity as short as good's."""
    scene.ground.change(ChangeKind.HELD, 1, reason=None)
    response = scene.ocsp(scene.sign.request(1))
    assert response.revocation_reason == x509.ReasonFlags.certificate_hold
    assert response.next_update_utc is not None
    assert response.next_update_utc.timestamp() == NOW_S + scene.sign.issuer.validity_good_s
    scene.ground.change(ChangeKind.RELEASED, 1)
    assert scene.status(1) == "GOOD"


def test_a_ca_key_event_revokes_everything_at_once(scene: Scene) -> None:
    """Cached answers of that issuer fall with it; the other issuer's stay."""
    assert (scene.status(1), scene.status(1, scene.auth)) == ("GOOD", "GOOD")
    scene.ground.change(ChangeKind.CA_KEY_EVENT, 1, reason=2)
    before = scene.desk.signatures
    assert (scene.status(1), scene.status(1, scene.auth)) == ("REVOKED", "GOOD")
    assert scene.desk.signatures == before + 1
    assert scene.status(3) == "UNKNOWN"


def test_validity_is_by_status(scene: Scene) -> None:
    """Each status has its own validity; several certificates share the shortest."""
    issuer = replace(scene.sign.issuer, validity_good_s=500, validity_revoked_s=700, validity_unknown_s=130)
    scene.ground.serve(issuer)

    def validity(*numbers: int) -> int:
        basic = parse_response(body(scene.ask(scene.sign.request(*numbers)))).basic
        assert basic is not None
        (found,) = {(single.next_update_s or 0) - single.this_update_s for single in basic.singles}
        return found

    assert [validity(1), validity(2), validity(3)] == [500, 700, 130]
    assert validity(1, 2) == 500


# --- several certificates ----------------------------------------------------------------------------


def test_several_certificates_of_one_issuer(scene: Scene) -> None:
    """One SingleResponse each, in the order asked, the same one twice if asked twice; each counts."""
    response = scene.ocsp(scene.sign.request(2, 1, 3, 1))
    said = [(item.serial_number & 0xFF, item.certificate_status.name) for item in response.responses]
    assert said == [(2, "REVOKED"), (1, "GOOD"), (3, "UNKNOWN"), (1, "GOOD")]
    assert scene.counted() == {"GOOD": 2, "REVOKED": 1, "UNKNOWN": 1}


def test_a_change_of_any_of_several_certificates_is_seen(scene: Scene) -> None:
    """A cached answer for several falls when one of them changes."""
    request = scene.sign.request(1, 3)
    scene.ask(request)
    scene.ground.change(ChangeKind.ISSUED, 3)
    said = [item.certificate_status.name for item in scene.ocsp(request).responses]
    assert said == ["GOOD", "GOOD"]


def test_certificates_of_several_issuers_are_refused(scene: Scene) -> None:
    """Never one CA's status under another CA's delegate; a foreign issuer beside ours is the same."""
    stranger = CA(9, "OTHER", NOW_S)
    for other in (scene.auth, stranger):
        for pair in ((scene.sign, other), (other, scene.sign)):
            request = request_der([ca.cert_id_der(1) for ca in pair])
            assert body(scene.ask(request)) == UNAUTHORIZED


def test_more_certificates_than_allowed_are_refused(scene: Scene) -> None:
    """The limit itself is answered, one more is not."""
    assert len(list(scene.ocsp(scene.sign.request(*[1] * 20)).responses)) == 20
    assert body(scene.ask(scene.sign.request(*[1] * 21))) == UNAUTHORIZED


def test_a_foreign_issuer_is_refused(scene: Scene) -> None:
    """We hold no record that could answer; the name alone or the key alone is not enough."""
    assert body(scene.ask(CA(9, "OTHER", NOW_S).request(1))) == UNAUTHORIZED
    mine, other = scene.sign.hashes[SHA1], scene.auth.hashes[SHA1]
    mixed = encode_cert_id(SHA1, mine[:20], other[20:], serial_of(1))
    assert body(scene.ask(request_der([mixed]))) == UNAUTHORIZED


# --- nonces ------------------------------------------------------------------------------------------


def test_a_nonce_is_echoed_and_never_cached(scene: Scene) -> None:
    """Each request with a nonce is signed for itself, even the same one twice."""
    nonce = bytes(range(16))
    message = b"a request with a nonce"
    before = scene.desk.signatures
    for _ in range(2):
        answer = scene.ask(scene.sign.request(1, nonce=nonce), How(True, message=message))
        response = ocsp.load_der_ocsp_response(body(answer))
        assert response.extensions.get_extension_for_class(x509.OCSPNonce).value.nonce == nonce
    assert scene.desk.signatures == before + 2
    assert scene.again(message) is None
    assert scene.path.sizes()["answer_entries"] == 0


def test_an_answer_without_a_nonce_has_none(scene: Scene) -> None:
    """What was signed for a nonce is given to nobody else."""
    scene.ask(scene.sign.request(1, nonce=bytes(16)))
    assert len(scene.ocsp(scene.sign.request(1)).extensions) == 0


# --- fresh? ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clock", ["wall", "monotonic", "behind"])
def test_staleness_is_asked_before_any_cache(scene: Scene, clock: str) -> None:
    """An answer that is cached twice over is not given once the index is stale by any clock."""
    message = get_request(scene.sign.request(1))
    for _ in range(2):
        scene.keep(scene.sign.request(1), How(True, message=message))
    assert scene.again(message) is not None
    if clock == "wall":
        scene.clock.ms += AGE_MAX_S * 1000 + 1
    elif clock == "monotonic":
        scene.clock.steady_s += AGE_MAX_S
    else:
        scene.clock.ms -= 5001
    assert scene.again(message) is None
    answer = scene.ask(scene.sign.request(1))
    assert body(answer) == TRY_LATER
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert header(answer, "Retry-After") == "5"
    assert header(answer, "Cache-Control") == "no-store"
    assert scene.counted()["REFUSED_TRY_LATER"] == 1


def test_nothing_is_answered_before_anything_is_believed(scene: Scene) -> None:
    """A worker that has loaded nothing says tryLater, and counts nothing under no epoch."""
    scene.ground.standing = nothing_believed()
    assert body(scene.ask(scene.sign.request(1))) == TRY_LATER
    assert scene.counted() == {}


# --- who is asking, entitled? ------------------------------------------------------------------------


def test_nobody_registered_is_refused(scene: Scene) -> None:
    """An address that no verifier has gets unauthorized, whatever it asks, counted as a refusal."""
    for der in (scene.sign.request(1), b"garbage"):
        assert body(scene.ask(der, peer=Somebody("192.0.2.1"))) == UNAUTHORIZED
    assert scene.cells() == {(0, 0, "REFUSED_UNAUTHORIZED", 2)}


def test_a_grant_is_for_a_service(scene: Scene) -> None:
    """Who may ask about SIGN may not ask about AUTH."""
    scene.ground.grant(everybody(7, services=("SIGN",)))
    assert scene.status(1) == "GOOD"
    assert body(scene.ask(scene.auth.request(1))) == UNAUTHORIZED
    assert scene.cells() == {(7, 1, "GOOD", 1), (7, 2, "REFUSED_UNAUTHORIZED", 1)}


@pytest.mark.parametrize("address", ["::ffff:127.0.0.1", "::FFFF:7f00:1", "127.9.9.9"])
def test_a_mapped_address_is_the_address(scene: Scene, address: str) -> None:
    """An IPv4 verifier that arrives over an IPv6 socket is that verifier."""
    response = scene.ocsp(scene.sign.request(1), Somebody(address))
    assert response.certificate_status.name == "GOOD"


@pytest.mark.parametrize("address", ["", "/a/socket", "::1", "fe80::1%eth0", "not an address"])
def test_addresses_of_nobody(scene: Scene, address: str) -> None:
    """A peer without a registered address is nobody, and no error."""
    assert body(scene.ask(scene.sign.request(1), peer=Somebody(address))) == UNAUTHORIZED


def test_a_suspended_verifier_is_refused_before_any_cache(scene: Scene) -> None:
    """The next request after the entitlements changed is refused, also one that was seen verbatim."""
    message = get_request(scene.sign.request(1))
    scene.keep(scene.sign.request(1), How(True, message=message))
    assert scene.again(message) is not None
    scene.ground.grant()
    assert scene.again(message) is None
    assert body(scene.ask(scene.sign.request(1))) == UNAUTHORIZED
    scene.ground.grant(everybody())
    assert scene.again(message) is None
    assert scene.status(1) == "GOOD"
    assert scene.again(message) is not None


def test_an_agreement_ends_with_its_last_day(scene: Scene) -> None:
    """23:59:59 JST of the last day is inside, the second after is not, for cached answers too."""
    day = jst_day_number(NOW_S)
    scene.ground.grant(everybody(until_day=day))
    message = get_request(scene.sign.request(1))
    scene.clock.ms = jst_day_end_s(day) * 1000 + 999
    scene.ground.beat()
    scene.keep(scene.sign.request(1), How(True, message=message))
    assert scene.again(message) is not None
    scene.clock.ms += 1
    assert scene.again(message) is None
    assert body(scene.ask(scene.sign.request(1))) == UNAUTHORIZED


def test_an_agreement_begins_with_its_first_day(scene: Scene) -> None:
    """The first request of the first day is answered without anything being published."""
    day = jst_day_number(NOW_S)
    scene.ground.grant(everybody(from_day=day + 1))
    scene.clock.ms = jst_day_end_s(day) * 1000 + 999
    scene.ground.beat()
    assert body(scene.ask(scene.sign.request(1))) == UNAUTHORIZED
    scene.clock.ms += 1
    assert scene.status(1) == "GOOD"


def test_everybody_may_ask_a_public_issuer(scene: Scene) -> None:
    """Public answers are for all, counted as nobody's in particular, and caches may share them."""
    scene.ground.serve(replace(scene.sign.issuer, access="public"), scene.auth.issuer)
    stranger = Somebody("192.0.2.1")
    public = scene.ask(scene.sign.request(1), peer=stranger)
    assert "public" in (header(public, "Cache-Control") or "")
    assert body(scene.ask(scene.auth.request(1), peer=stranger)) == UNAUTHORIZED
    scene.ask(scene.sign.request(1))
    private = scene.ask(scene.auth.request(1))
    assert "private" in (header(private, "Cache-Control") or "")
    assert scene.cells() == {
        (0, 1, "GOOD", 2),
        (0, 2, "REFUSED_UNAUTHORIZED", 1),
        (7, 2, "GOOD", 1),
    }


# --- expiry ------------------------------------------------------------------------------------------

DAY = jst_day_number(NOW_S)
LAST_SECOND = jst_day_end_s(DAY)


@pytest.mark.parametrize(
    ("policy", "good_after", "revoked_after"),
    [("unknown", "UNKNOWN", "UNKNOWN"), ("unauthorized", None, None), ("last", "GOOD", "REVOKED")],
)
def test_expiry_is_at_the_end_of_the_jst_day(
    scene: Scene, policy: str, good_after: str | None, revoked_after: str | None
) -> None:
    """At 23:59:59 JST a certificate is still valid, one second later the issuer's policy decides; a cached
    answer does not outlive the boundary."""
    scene.ground.serve(replace(scene.sign.issuer, expired=policy))
    scene.ground.change(ChangeKind.ISSUED, 10, day=DAY)
    scene.ground.change(ChangeKind.ISSUED, 11, day=DAY)
    scene.ground.change(ChangeKind.REVOKED, 11, reason=1, day=DAY)
    for second in (LAST_SECOND - 1, LAST_SECOND):
        scene.clock.ms = second * 1000 + 999
        scene.ground.beat()
        assert [scene.status(n) for n in (10, 11)] == ["GOOD", "REVOKED"]
        assert len(scene.ocsp(scene.sign.request(10)).single_extensions) == 0
        max_age = re.match(r"max-age=(\d+)", header(scene.ask(scene.sign.request(10)), "Cache-Control") or "")
        assert max_age is not None
        assert int(max_age[1]) <= LAST_SECOND + 1 - second
    scene.clock.ms = (LAST_SECOND + 1) * 1000
    for n, after in ((10, good_after), (11, revoked_after)):
        answer = scene.ask(scene.sign.request(n))
        if after is None:
            assert body(answer) == UNAUTHORIZED
        else:
            assert ocsp.load_der_ocsp_response(body(answer)).certificate_status.name == after


def test_the_last_status_carries_the_archive_cutoff(scene: Scene) -> None:
    """Status after expiry says since when it is kept: since the CA began."""
    scene.ground.serve(replace(scene.sign.issuer, expired="last"))
    scene.ground.change(ChangeKind.ISSUED, 10, day=DAY - 1)
    (extension,) = scene.ocsp(scene.sign.request(10)).single_extensions
    assert extension.oid.dotted_string == OCSP_ARCHIVE_CUTOFF
    assert not extension.critical
    assert isinstance(extension.value, x509.UnrecognizedExtension)
    assert extension.value.value == generalized_time(scene.sign.not_before_s)


# --- signers -----------------------------------------------------------------------------------------


def test_nextupdate_never_passes_the_signers_end(scene: Scene) -> None:
    """An answer is not valid for longer than the certificate that signed it."""
    signer = scene.path.signers.signers[0]
    scene.clock.ms = (signer.not_after_s - 100) * 1000
    scene.ground.beat()
    response = scene.ocsp(scene.sign.request(1))
    assert response.next_update_utc is not None
    assert response.next_update_utc.timestamp() == signer.not_after_s


def test_without_a_signer_it_is_trylater(scene: Scene) -> None:
    """No responder certificate valid now: passing trouble of ours, not the asker's."""
    scene.clock.ms = (scene.path.signers.signers[0].not_after_s + 1) * 1000
    scene.ground.beat()
    answer = scene.ask(scene.sign.request(1))
    assert body(answer) == TRY_LATER
    assert header(answer, "Retry-After") == "30"


def test_a_dropped_signer_falls_with_every_answer_it_signed(scene: Scene) -> None:
    """A compromised responder certificate: what it signed is given no more, the next one signs."""
    message = get_request(scene.sign.request(1))
    scene.keep(scene.sign.request(1), How(True, message=message))
    used = scene.path.signers.current(scene.sign.issuer, NOW_S)
    assert used is not None
    scene.sign.install_responder(scene.folder / "keys", NOW_S)
    scene.path.signers = scene.keys.load()
    scene.ground.serve(replace(scene.sign.issuer, dropped=(used.serial,)))
    assert scene.again(message) is None
    (certificate,) = scene.ocsp(scene.sign.request(1)).certificates
    assert certificate.serial_number != int(used.serial, 16)


def test_an_old_answer_holds_while_no_new_one_can_be_signed(scene: Scene) -> None:
    """Past its refresh point an answer is still given if there is no signer, and not past its end."""
    first = scene.ask(scene.sign.request(1))
    scene.path.signers = SignerSet()
    scene.clock.pass_s(600)
    scene.ground.beat()
    second = scene.ask(scene.sign.request(1))
    assert body(second) == body(first)
    assert (header(second, "Cache-Control") or "").startswith("max-age=0,")
    scene.clock.pass_s(300)
    scene.ground.beat()
    assert body(scene.ask(scene.sign.request(1))) == TRY_LATER


@pytest.mark.parametrize("what", ["one", "twenty", "preferred"])
def test_the_caches_take_no_more_memory_than_they_say(scene: Scene, what: str) -> None:
    """Also where a request is long for its answer, which whoever asks may make it."""
    if what == "preferred":
        requests = [preferring_all(scene.sign, n) for n in range(150)]
    else:
        each = 20 if what == "twenty" else 1
        requests = [scene.sign.request(*range(each * n, each * (n + 1))) for n in range(150)]
    messages = [post_request(der) for der in requests]
    scene.keep(scene.sign.request(10_000), How(True, message=b"first"))
    gc.collect()
    tracemalloc.start()
    try:
        said, taken = cached_bytes(scene), tracemalloc.get_traced_memory()[0]
        for der, message in zip(requests, messages, strict=True):
            # A copy, as what comes from a socket.
            scene.keep(der, How(True, message=bytes(bytearray(message))))
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0] - taken
        assert 0.2 < taken / (cached_bytes(scene) - said) < 1
    finally:
        tracemalloc.stop()


def cached_bytes(scene: Scene) -> int:
    """What both caches say of themselves."""
    sizes = scene.path.sizes()
    return sizes["memo_bytes"] + sizes["answer_bytes"]


def preferring_all(ca: CA, n: int) -> bytes:
    """A request that names every algorithm and curve there is, in an order of its own."""
    entries = [
        sequence(sequence(encode_oid(name)), sequence(encode_oid(oid.EC_PUBLIC_KEY), encode_oid(curve)))
        for name in (oid.ECDSA_WITH_SHA256, oid.ECDSA_WITH_SHA384, oid.ECDSA_WITH_SHA512)
        for curve in (oid.SECP256R1, oid.SECP384R1, oid.SECP521R1)
    ]
    orders = itertools.islice(itertools.permutations(entries), n, None)
    extension = encode_extension(oid.OCSP_PREF_SIG_ALGS, sequence(*next(orders)))
    return sequence(sequence(sequence(sequence(ca.cert_id_der(1))), explicit(2, sequence(extension))))


@pytest.mark.parametrize("where", ["say", "read_usual_request"])
def test_a_bug_is_internal_error_and_nothing_else(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """What is not one of our errors becomes internalError in HTTP 200, in a lot or before it."""

    def explode(*_: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(f"responder.answer.{where}", explode)
    answer = scene.ask(scene.sign.request(1))
    assert body(answer) == INTERNAL_ERROR
    assert header(answer, "Retry-After") is None
    monkeypatch.undo()
    assert scene.status(1) == "GOOD"


# --- caches ------------------------------------------------------------------------------------------


def test_the_memo_says_what_the_whole_path_says(scene: Scene) -> None:
    """Byte for byte the same answer, for each status and each way of ending the connection."""
    for n in (1, 2, 3):
        for keep_alive in (True, False):
            message = get_request(scene.sign.request(n)) + bytes([keep_alive])
            how = How(keep_alive, message=message)
            first = scene.keep(scene.sign.request(n), how)
            scene.peer.is_last = False
            assert scene.again(message) == first == scene.keep(scene.sign.request(n), how)
            assert scene.peer.is_last is not keep_alive
            assert (header(first, "Connection") == "close") is not keep_alive


def test_date_and_max_age_are_of_the_moment(scene: Scene) -> None:
    """The same answer later: another Date, a smaller max-age, everything else as it was."""
    message = get_request(scene.sign.request(1))
    first = scene.keep(scene.sign.request(1), How(True, message=message))
    scene.clock.pass_s(7)
    scene.ground.beat()
    second = scene.again(message)
    assert second is not None
    assert second == scene.ask(scene.sign.request(1))

    def age(answer: bytes) -> int:
        found = re.match(r"max-age=(\d+)", header(answer, "Cache-Control") or "")
        assert found is not None
        return int(found[1])

    assert age(second) == age(first) - 7
    assert header(first, "Date") != header(second, "Date")
    for name in ("ETag", "Expires", "Last-Modified", "Content-Length", "Content-Type"):
        assert header(first, name) == header(second, name)
    assert body(first) == body(second)


def test_headers_of_a_successful_answer(scene: Scene) -> None:
    """The headers of RFC 9919, exactly: no parameter on the type, Expires = nextUpdate, a strong tag."""
    answer = scene.ask(scene.sign.request(1))
    response = ocsp.load_der_ocsp_response(body(answer))
    assert header(answer, "Content-Type") == "application/ocsp-response"
    assert header(answer, "Content-Length") == str(len(body(answer)))
    assert header(answer, "ETag") == f'"{sha256(body(answer)).hexdigest()}"'
    expires, modified = header(answer, "Expires"), header(answer, "Last-Modified")
    assert expires is not None
    assert modified is not None
    assert parsedate_to_datetime(expires) == response.next_update_utc
    assert parsedate_to_datetime(modified) == response.produced_at_utc
    cache = header(answer, "Cache-Control") or ""
    assert re.fullmatch(r"max-age=\d+, private, no-transform, must-revalidate", cache)
    assert header(answer, "Pragma") is None


def test_an_answer_is_signed_anew_past_half_its_life(scene: Scene) -> None:
    """Within the first half the same answer, past 60 % of the validity a newer one; max-age ends between."""
    validity_s = scene.sign.issuer.validity_good_s
    first = body(scene.ask(scene.sign.request(1)))
    scene.clock.pass_s(validity_s // 2 - 1)
    scene.ground.beat()
    assert body(scene.ask(scene.sign.request(1))) == first
    scene.clock.pass_s(validity_s // 10 + 1)
    scene.ground.beat()
    response = scene.ocsp(scene.sign.request(1))
    assert response.this_update_utc.timestamp() == scene.clock.ms // 1000


def test_the_memo_is_refreshed_too(scene: Scene) -> None:
    """A verbatim hit past the refresh point goes the whole way."""
    message = get_request(scene.sign.request(1))
    scene.keep(scene.sign.request(1), How(True, message=message))
    scene.clock.pass_s(600)
    scene.ground.beat()
    assert scene.again(message) is None


def test_a_change_is_answered_at_once_and_others_stay_cached(scene: Scene) -> None:
    """The memo and the cache forget exactly the certificate that changed."""
    messages = {n: get_request(scene.sign.request(n)) for n in (1, 3)}
    for n, message in messages.items():
        scene.keep(scene.sign.request(n), How(True, message=message))
    signatures = scene.desk.signatures
    scene.ground.change(ChangeKind.REVOKED, 1, reason=4)
    assert scene.again(messages[1]) is None
    assert scene.again(messages[3]) is not None
    assert scene.status(1) == "REVOKED"
    assert scene.desk.signatures == signatures + 1


def test_an_unknown_certificate_is_good_as_soon_as_it_is_issued(scene: Scene) -> None:
    """A cached unknown falls when the certificate is issued."""
    assert scene.status(30) == "UNKNOWN"
    scene.ground.change(ChangeKind.ISSUED, 30)
    assert scene.status(30) == "GOOD"


def test_a_new_snapshot_costs_no_signature(scene: Scene) -> None:
    """When the overlay is folded into a snapshot, answers are looked up again and stay."""
    message = get_request(scene.sign.request(2))
    scene.keep(scene.sign.request(2), How(True, message=message))
    signatures = scene.desk.signatures
    before = scene.ground.standing
    folded = View(None)
    folded.overlay = dict(before.view.overlay)
    scene.ground.standing = replace(before, view=folded, mark=before.mark + 1, era=before.era + 1)
    assert scene.again(message) is not None
    assert scene.desk.signatures == signatures


def test_another_epoch_with_other_contents_is_believed(scene: Scene) -> None:
    """After a reload answers are true only if the new index says the same."""
    assert scene.status(1) == "GOOD"
    before = scene.ground.standing
    scene.ground.standing = replace(
        before, view=View(None), seq=0, mark=before.mark + 1, era=before.era + 1, epoch=b"f" * 16
    )
    assert scene.status(1) == "UNKNOWN"


# --- while it is signed ------------------------------------------------------------------------------


def test_a_change_while_signing_is_not_missed(scene: Scene) -> None:
    """What became true between look-up and write is what is answered, and what is cached."""
    scene.tamper(lambda: scene.ground.change(ChangeKind.REVOKED, 1, reason=1))
    message = get_request(scene.sign.request(1))
    answer = scene.keep(scene.sign.request(1), How(True, message=message))
    assert ocsp.load_der_ocsp_response(body(answer)).certificate_status.name == "REVOKED"
    again = scene.again(message)
    assert again is not None
    assert body(again) == body(answer)
    assert scene.counted() == {"REVOKED": 4}


def test_another_certificates_change_while_signing_costs_nothing(scene: Scene) -> None:
    """Only this request's certificates are looked up again."""
    scene.tamper(lambda: scene.ground.change(ChangeKind.REVOKED, 9, reason=1))
    before = scene.desk.signatures
    assert scene.status(1) == "GOOD"
    assert scene.desk.signatures == before + 1


def test_a_status_that_never_holds_still_is_trylater(scene: Scene) -> None:
    """Signing again and again has an end."""
    flip = iter([ChangeKind.REVOKED, ChangeKind.ISSUED] * 10)
    scene.tamper(lambda: scene.ground.change(next(flip), 1, reason=1), times=20)
    assert body(scene.ask(scene.sign.request(1))) == TRY_LATER


def test_a_signer_dropped_while_signing_signs_no_answer(scene: Scene) -> None:
    """The issuer is looked at again, not only the certificate."""
    used = scene.path.signers.current(scene.sign.issuer, NOW_S)
    assert used is not None
    scene.sign.install_responder(scene.folder / "keys", NOW_S - 1000)
    scene.path.signers = scene.keys.load()
    scene.tamper(lambda: scene.ground.serve(replace(scene.sign.issuer, dropped=(used.serial,))))
    (certificate,) = scene.ocsp(scene.sign.request(1)).certificates
    assert certificate.serial_number != int(used.serial, 16)


def test_an_entitlement_withdrawn_while_signing_is_withdrawn(scene: Scene) -> None:
    """Who may ask is asked again before the answer is counted and written."""
    scene.tamper(scene.ground.grant)
    assert body(scene.ask(scene.sign.request(1))) == UNAUTHORIZED
    assert scene.counted() == {"REFUSED_UNAUTHORIZED": 1}


def test_staleness_while_signing_is_staleness(scene: Scene) -> None:
    """An index that became doubtful meanwhile answers nothing."""

    def doubt() -> None:
        scene.ground.standing.fresh_until_s = 0.0

    scene.tamper(doubt)
    assert body(scene.ask(scene.sign.request(1))) == TRY_LATER


# --- slow keys and queues ----------------------------------------------------------------------------


@pytest.fixture(params=["rsa2048", "p384"])
def slow(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    """The same with a key that signs on threads."""
    made = Scene(tmp_path)
    for path in (tmp_path / "keys").iterdir():
        path.unlink()
    made.sign.install_responder(tmp_path / "keys", NOW_S, algorithm=request.param)
    made.path.signers = made.keys.load()
    made.ground.change(ChangeKind.ISSUED, 1)
    yield made
    made.close()


def test_slow_keys_sign_right(slow: Scene) -> None:
    """RSA and P-384 sign on threads what cryptography verifies."""
    response = slow.ocsp(slow.sign.request(1))
    key = response.certificates[0].public_key()
    if isinstance(key, rsa.RSAPublicKey):
        key.verify(response.signature, response.tbs_response_bytes, padding.PKCS1v15(), hashes.SHA256())
    else:
        assert isinstance(key, ec.EllipticCurvePublicKey)
        key.verify(response.signature, response.tbs_response_bytes, ec.ECDSA(hashes.SHA384()))


def _flight(scene: Scene, der: bytes) -> Flight:
    reply = scene.path.answer(scene.peer, der, STAY, scene.clock.now_ms(), scene.clock.monotonic_s())
    assert isinstance(reply, Flight)
    return reply


def test_the_same_question_is_signed_once(slow: Scene) -> None:
    """Requests that come while an answer is on its way wait for that one."""
    first, second = _flight(slow, slow.sign.request(1)), _flight(slow, slow.sign.request(1))
    assert first is second
    slow.ask(slow.sign.request(1))
    assert slow.desk.signatures == 1


def test_a_nonce_flies_alone(slow: Scene) -> None:
    """Requests with a nonce share no flight, not even with themselves."""
    request = slow.sign.request(1, nonce=bytes(16))
    assert _flight(slow, request) is not _flight(slow, request)
    assert _flight(slow, slow.sign.request(1)) is not _flight(slow, request)


def test_a_later_request_does_not_join_an_older_flight(slow: Scene) -> None:
    """After a change a new flight begins; the old one looks up again and says the new status too."""
    older = _flight(slow, slow.sign.request(1))
    slow.ground.change(ChangeKind.REVOKED, 1, reason=1)
    newer = _flight(slow, slow.sign.request(1))
    assert newer is not older
    landed: list[Answer] = []
    for flight in (older, newer):
        flight.add(landed.append)  # type: ignore[arg-type]
    slow.run_until(lambda: len(landed) == 2)
    for answer in landed:
        assert ocsp.load_der_ocsp_response(answer.body).certificate_status.name == "REVOKED"
    assert slow.path.sizes()["flights"] == 0


def test_a_full_queue_is_trylater(slow: Scene) -> None:
    """So many signatures wait and no more; whoever comes then is told to come back."""
    flights = [_flight(slow, slow.sign.request(n)) for n in range(1, 11)]
    answer = slow.ask(slow.sign.request(11))
    assert body(answer) == TRY_LATER
    assert header(answer, "Retry-After") == "1"
    landed: list[object] = []
    for flight in flights:
        flight.add(landed.append)
    slow.run_until(lambda: len(landed) == 10)
    assert slow.desk.waiting == 0
    assert slow.status(11) == "UNKNOWN"


def test_what_a_flight_brings_is_asked_about_again(slow: Scene) -> None:
    """Between landing and writing a change or a suspension still counts."""
    landed: list[Answer] = []
    _flight(slow, slow.sign.request(1)).add(landed.append)  # type: ignore[arg-type]
    slow.run_until(lambda: landed)
    slow.ground.change(ChangeKind.REVOKED, 1, reason=1)
    assert slow.provide(landed[0]) is None
    slow.ground.grant()
    landed.clear()
    slow.ground.grant(everybody())
    _flight(slow, slow.sign.request(1)).add(landed.append)  # type: ignore[arg-type]
    slow.run_until(lambda: landed)
    slow.ground.grant()
    refused = slow.provide(landed[0])
    assert refused is not None
    assert body(refused) == UNAUTHORIZED


def test_a_key_that_fails_on_its_thread_is_trylater(slow: Scene) -> None:
    """A token that was pulled out ends in tryLater for everybody who waits, not in silence."""

    def pulled_out() -> None:
        raise OSError("the token is gone")

    slow.tamper(pulled_out)
    assert body(slow.ask(slow.sign.request(1))) == TRY_LATER
    assert slow.status(1) == "GOOD"


def test_fast_signing_has_a_budget_for_each_turn(scene: Scene) -> None:
    """Beyond it answers wait for the loop's next turns; a lot is flown in each all the same, in order."""
    scene.desk.queue_max = 4 * LOT
    scene.desk.budget_s = 0.0
    landed: list[int] = []
    for n in range(100, 100 + 2 * LOT + 3):
        _flight(scene, scene.sign.request(n)).add(lambda _answer, n=n: landed.append(n))  # type: ignore[misc]
    assert (scene.desk.waiting, landed) == (2 * LOT + 3, [])
    for flown in (LOT, 2 * LOT, 2 * LOT + 3):
        scene.turn()
        assert landed == [*range(100, 100 + flown)]
    assert scene.desk.waiting == 0


def test_a_lot_is_so_many_certificates_however_they_are_asked_about(scene: Scene) -> None:
    """Requests about twenty each are dear, so a turn that has no more time than for one lot flies few."""
    scene.desk.queue_max = 4 * LOT
    scene.desk.budget_s = 0.0
    landed: list[object] = []
    for n in range(4):
        assert scene.desk.is_near is (n < 2)
        _flight(scene, scene.sign.request(*range(20 * n, 20 * n + 20))).add(landed.append)
    scene.turn()
    assert len(landed) == 2
    assert not scene.desk.is_near
    scene.turn()
    assert len(landed) == 4
    assert scene.desk.is_near


def test_one_turn_flies_all_that_it_has_time_for(scene: Scene) -> None:
    """Lot after lot while the budget lasts, so that a queue costs one turn of the loop and not many."""
    scene.desk.queue_max = 4 * LOT
    landed: list[object] = []
    for n in range(100, 100 + 3 * LOT):
        _flight(scene, scene.sign.request(n)).add(landed.append)
    scene.turn()
    assert len(landed) == 3 * LOT


def test_in_one_lot_each_is_answered_for_itself(scene: Scene) -> None:
    """One that cannot be answered, one whose status changes while it is signed, and the others."""
    scene.tamper(lambda: scene.ground.change(ChangeKind.REVOKED, 1, reason=1))
    landed: dict[str, object] = {}
    for name, der in (
        ("changed", scene.sign.request(1)),
        ("gone", scene.auth.request(1)),
        ("other", scene.sign.request(3)),
        ("with nonce", scene.sign.request(3, nonce=b"n" * 16)),
    ):
        _flight(scene, der).add(lambda result, name=name: landed.update({name: result}))  # type: ignore[misc]
    scene.ground.serve(scene.sign.issuer)
    scene.turn()
    assert isinstance(landed["gone"], NotAuthoritative)
    said = {}
    for name in ("changed", "other", "with nonce"):
        answer = landed[name]
        assert isinstance(answer, Answer)
        response = ocsp.load_der_ocsp_response(answer.body)
        said[name] = response.certificate_status.name, len(response.extensions)
    assert said == {"changed": ("REVOKED", 0), "other": ("UNKNOWN", 0), "with nonce": ("UNKNOWN", 1)}


def test_a_fast_key_that_fails_is_trylater_for_its_own_answer_alone(scene: Scene) -> None:
    """As on a thread: the others of the lot are signed."""

    def broken() -> None:
        raise OSError("the key is gone")

    scene.tamper(broken)
    landed: list[object] = []
    for n in (1, 3):
        _flight(scene, scene.sign.request(n)).add(landed.append)
    scene.turn()
    assert {type(result) for result in landed} == {SignerUnavailable, Answer}


def test_a_slow_key_in_a_fast_ones_place_signs_on_its_thread(scene: Scene) -> None:
    """Those that wait for the loop to sign are handed on, so that a queue of them stops no turn."""
    landed: list[object] = []
    flights = [_flight(scene, der) for der in (scene.sign.request(1), scene.sign.request(3, nonce=b"n" * 16))]
    for flight in flights:
        flight.add(landed.append)
    for path in (scene.folder / "keys").iterdir():
        path.unlink()
    scene.sign.install_responder(scene.folder / "keys", NOW_S, algorithm="p384")
    signed_on: list[threading.Thread] = []
    scene.path.signers = scene.keys.load()
    scene.tamper(lambda: signed_on.append(threading.current_thread()), times=2)
    scene.desk._turn()
    assert landed == []
    assert _flight(scene, scene.sign.request(1)) is flights[0]
    scene.run_until(lambda: len(landed) == 2)
    assert threading.current_thread() not in signed_on
    assert {type(result) for result in landed} == {Answer}
    assert scene.path.sizes()["flights"] == scene.desk.waiting == 0


def test_what_waits_while_limits_are_lowered_is_given_but_not_kept(scene: Scene) -> None:
    """Who asked before is answered; who asks after that is told that it is too much."""
    request = scene.sign.request(1, 2, 3)
    landed: list[object] = []
    _flight(scene, request).add(landed.append)
    scene.path.limit(scene.limits._replace(certificates_max=2))
    scene.turn()
    given = scene.provide(landed[0])
    assert given is not None
    assert parse_response(body(given)).status == 0
    assert body(scene.ask(request)) == UNAUTHORIZED


def test_an_answer_that_ends_before_it_is_written_is_made_anew(scene: Scene) -> None:
    """Signed in the last second of the day, written in the next, it would say `good` of an expired one."""
    scene.clock.pass_s(jst_day_end_s(jst_day_number(NOW_S)) - NOW_S)
    scene.ground.beat()
    scene.ground.change(ChangeKind.ISSUED, 4, day=jst_day_number(NOW_S))
    landed: list[object] = []
    _flight(scene, scene.sign.request(4)).add(landed.append)
    scene.turn()
    scene.clock.pass_s(1)
    assert scene.provide(landed[0]) is None
    assert scene.status(4) == "UNKNOWN"


def test_an_answer_before_is_given_when_a_newer_one_cannot_be_signed(scene: Scene) -> None:
    """Past its refresh point and while it holds, also when it comes out only with the lot."""
    first = body(scene.ask(scene.sign.request(1)))
    scene.clock.pass_s(600)
    scene.ground.beat()

    def broken() -> None:
        raise OSError("the key is gone")

    scene.tamper(broken)
    assert body(scene.ask(scene.sign.request(1))) == first
    assert scene.path.outcomes["not refreshed: no_signer"] == 1
    assert body(scene.ask(scene.sign.request(1))) != first


def test_hot_answers_past_their_half_do_not_wait_behind_cold_ones(scene: Scene) -> None:
    """With more waiting than one lot the old answer is given at once, and the new one comes later."""
    scene.desk.queue_max = 4 * LOT
    first = scene.ask(scene.sign.request(1))
    scene.clock.pass_s(600)
    scene.ground.beat()
    for n in range(100, 100 + LOT):
        _flight(scene, scene.sign.request(n))
    reply = scene._answer(scene.sign.request(1), STAY, scene.peer)
    assert isinstance(reply, bytes)
    assert body(reply) == body(first)
    scene.turn()
    assert body(scene.ask(scene.sign.request(1))) != body(first)


# --- counting ----------------------------------------------------------------------------------------


def test_every_answer_is_counted_once(scene: Scene) -> None:
    """Signed, cached or repeated: one provision each, by recipient, issuer and status."""
    message = get_request(scene.sign.request(1))
    for _ in range(3):
        scene.ask(scene.sign.request(1), How(True, message=message))
    for _ in range(4):
        assert scene.again(message) is not None
    scene.ask(scene.sign.request(2))
    scene.ask(scene.auth.request(1))
    scene.ask(b"garbage")
    assert scene.cells() == {
        (7, 1, "GOOD", 7),
        (7, 1, "REVOKED", 1),
        (7, 2, "GOOD", 1),
        (7, 0, "REFUSED_MALFORMED", 1),
    }
    assert scene.counting.totals()[Provision.GOOD] == 8


def test_head_and_not_modified_are_kinds_of_their_own(scene: Scene) -> None:
    """Neither gives the answer, so neither is a provision; both are counted."""
    request = scene.sign.request(1)
    whole = scene.ask(request)
    etag = (header(whole, "ETag") or "").strip('"').encode()
    head = scene.ask(request, How(True, head_only=True))
    assert (body(head), head.partition(b"\r\n\r\n")[0]) == (b"", whole.partition(b"\r\n\r\n")[0])
    for how in (
        How(True, if_none_match=frozenset({b"x", etag})),
        How(True, if_none_match=frozenset({b"*"})),
        How(True, head_only=True, if_none_match=frozenset({etag})),
    ):
        answer = scene.ask(request, how)
        assert answer.startswith(b"HTTP/1.1 304 Not Modified\r\n")
        assert body(answer) == b""
        assert header(answer, "ETag") == header(whole, "ETag")
        assert header(answer, "Cache-Control") == header(whole, "Cache-Control")
        assert header(answer, "Expires") == header(whole, "Expires")
        assert header(answer, "Date") is not None
    for how in (How(True, if_none_match=frozenset({b"x"})), How(True)):
        assert scene.ask(request, how) == whole
    assert scene.counted() == {"GOOD": 3, "OCSP_HEAD": 1, "OCSP_NOT_MODIFIED": 3}


def test_what_cannot_be_counted_is_not_answered(scene: Scene) -> None:
    """No room for a counter file: tryLater, from every cache, until there is room again."""
    message = get_request(scene.sign.request(1))
    scene.keep(scene.sign.request(1), How(True, message=message))
    folder = scene.folder / "counters"
    folder.rename(scene.folder / "elsewhere")
    scene.clock.pass_s(3600)
    scene.ground.beat()
    assert scene.again(message) is None
    answer = scene.ask(scene.sign.request(1))
    assert body(answer) == TRY_LATER
    assert header(answer, "Retry-After") == "10"
    (scene.folder / "elsewhere").rename(folder)
    assert scene.status(1) == "GOOD"


def test_each_hour_has_its_own_file(scene: Scene) -> None:
    """The first answer of an hour is counted in the new file, the old one is sealed; nothing is lost."""
    message = get_request(scene.sign.request(1))
    hour_end_s = NOW_S - NOW_S % 3600 + 3600
    scene.clock.ms = hour_end_s * 1000 - 1
    scene.ground.beat()
    scene.keep(scene.sign.request(1), How(True, message=message))
    assert scene.again(message) is not None
    scene.clock.ms += 1
    assert scene.again(message) is None
    scene.keep(scene.sign.request(1), How(True, message=message))
    readings = [read_counters(path) for path in (scene.folder / "counters").glob("*.counters")]
    by_hour = {item.hour_s: (item.sealed, sum(cell.value for cell in item.cells)) for item in readings}
    assert by_hour == {hour_end_s - 3600: (True, 4), hour_end_s: (False, 3)}


def test_a_file_without_room_is_followed_by_another(scene: Scene, tmp_path: Path) -> None:
    """When all rows are taken the next verifier's answer is counted in a new file, without a refusal; other
    connections find their new places by themselves."""
    scene.ground.grant(*[everybody(100 + n, f"10.0.{n}.0/24") for n in range(100)])
    early = Somebody("10.0.0.1")
    message = get_request(scene.sign.request(1))
    scene.keep(scene.sign.request(1), How(True, message=message), early)
    for n in range(100):
        response = scene.ocsp(scene.sign.request(1), Somebody(f"10.0.{n}.9"))
        assert response.certificate_status.name == "GOOD"
    scene.again(message, early)
    scene.keep(scene.sign.request(1), How(True, message=message), early)
    assert scene.again(message, early) is not None
    files = list((tmp_path / "counters").glob("*.counters"))
    assert sorted(read_counters(path).sealed for path in files) == [False, True]
    assert scene.counted()["GOOD"] >= 103
    sealed = next(path for path in files if read_counters(path).sealed)
    before = read_counters(sealed).cells
    scene.ask(scene.sign.request(1), STAY, early)
    assert read_counters(sealed).cells == before


def test_malformed_requests_are_told_so(scene: Scene) -> None:
    """Anything that is no request: malformedRequest in HTTP 200, not to be kept."""
    answer = scene.ask(b"\x30\x00")
    assert body(answer) == MALFORMED
    assert header(answer, "Cache-Control") == "no-store"
    assert header(answer, "Retry-After") is None


def test_no_octet_leads_to_an_internal_error(scene: Scene) -> None:
    """A request with any one octet changed is answered, refused or malformed; never a fault of ours, and
    never with another certificate's status under this one's name."""
    der = scene.sign.request(1)
    for at in range(len(der)):
        for value in {der[at] ^ 1, der[at] ^ 0x80, 0, 0xFF, (der[at] + 1) % 256} - {der[at]}:
            said = body(scene.ask(der[:at] + bytes([value]) + der[at + 1 :]))
            if said in (MALFORMED, UNAUTHORIZED):
                continue
            response = ocsp.load_der_ocsp_response(said)
            if response.certificate_status.name == "GOOD":
                assert response.serial_number == int.from_bytes(serial_of(1), "big")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(der=st.binary(max_size=200))
def test_no_octets_lead_to_an_internal_error(scene: Scene, der: bytes) -> None:
    """Whatever is sent, the answer is one of three errors or a signed answer."""
    assert body(scene.ask(der)) == MALFORMED
