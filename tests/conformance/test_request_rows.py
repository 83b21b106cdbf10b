"""Rows Q: how a request reaches us and what of it is understood."""

from __future__ import annotations

import secrets

import pytest
from demo_service import Service, never_issued
from der_corpus import locator, signed_request
from request_octets import (
    BASIC_OID,
    CRITICAL,
    CRL_OID,
    PREFERRED_OID,
    RESPONSE_OID,
    SHA1_OID,
    SHA256_OID,
    SHA384_OID,
    SHA512_OID,
    base64_of,
    escaped,
    extension,
    get,
    get_path,
    nonce_of,
    oid,
    post,
    request,
    seq,
    tlv,
    with_extensions,
)
from wire_client import Wire

HASH_NAMES = {SHA1_OID: "sha1", SHA256_OID: "sha256", SHA384_OID: "sha384", SHA512_OID: "sha512"}


@pytest.mark.row("Q1", "Q2")
def test_get_and_post_are_the_same_question(wire: Wire, auth: Service) -> None:
    """Both methods, both kinds of answer, the same octets."""
    for serial, word in ((auth.good[0], "good"), (auth.revoked[0], "revoked")):
        der = auth.request(serial)
        # One connection is one worker; another one signs its own answer.
        by_get, by_post = wire.talk(get(der), post(der))
        assert auth.read(by_get).word == auth.read(by_post).word == word
        assert by_get.body == by_post.body


@pytest.mark.row("Q3")
def test_every_way_to_write_base64_into_a_path(wire: Wire, auth: Service) -> None:
    """Raw, encoded in either case, with a plus that is a plus."""
    serials = {}
    for serial in auth.good + auth.revoked:
        text = base64_of(auth.request(serial))
        serials.update({char: serial for char in "+/=" if char in text})
    assert set(serials) >= {"+", "/"}
    for serial in serials.values():
        der = auth.request(serial)
        whole, raw = escaped(der), base64_of(der)
        lower = whole.replace("%2F", "%2f").replace("%2B", "%2b").replace("%3D", "%3d")
        replies = wire.talk(*[get_path(f"/ocsp/{path}") for path in (whole, raw, lower)])
        assert len({reply.body for reply in replies}) == 1
        assert auth.read(wire.ask(get(der))).singles[0].serial == serial


@pytest.mark.row("Q4")
def test_slashes_belong_to_the_base64(wire: Wire, auth: Service) -> None:
    """Two slashes in a row are kept; one too many in front is passed over."""
    der, serial = _with_two_slashes(auth)
    assert "//" in base64_of(der)
    said = auth.read(wire.ask(get_path(f"/ocsp/{base64_of(der)}")))
    assert (said.word, said.singles[0].serial) == ("unknown", serial)
    assert auth.read(wire.ask(get_path(f"/ocsp//{base64_of(der)}"))).singles[0].serial == serial


def _with_two_slashes(auth: Service) -> tuple[bytes, int]:
    for shift in range(3):
        serial = int.from_bytes(b"\x41" * (10 + shift) + b"\xff\xff\xff\xff", "big")
        der = auth.request(serial)
        if "//" in base64_of(der):
            return der, serial
    raise AssertionError("three shifts cover every alignment")


@pytest.mark.row("Q5", "Q6")
def test_what_is_no_request_is_malformed_in_five_octets(wire: Wire) -> None:
    """The unsigned error is exactly the five octets of the standard, in HTTP 200."""
    reply = wire.ask(post(seq()))
    assert (reply.status, reply.body.hex()) == (200, "30030a0101")


@pytest.mark.row("Q7")
def test_one_status_for_each_certificate_in_order(wire: Wire, auth: Service) -> None:
    """Every CertID asked about comes back with its status, and no other."""
    serials = (auth.revoked[0], auth.good[1], never_issued(), auth.good[0])
    said = auth.read(wire.ask(post(auth.request(*serials))))
    assert tuple(single.serial for single in said.singles) == serials
    assert said.word == "revoked good unknown good"


@pytest.mark.row("Q8")
def test_a_certificate_is_its_issuer_and_its_number(wire: Wire, auth: Service, sign: Service) -> None:
    """A number of another service is not known here; the two halves of two issuers are nobody."""
    assert auth.read(wire.ask(post(auth.request(sign.good[0])))).word == "unknown"
    mixed = auth.asked()._replace(key_hash=sign.asked().key_hash)
    assert auth.read(wire.ask(post(request(mixed.one)))).word == "o6"
    assert sign.read(wire.ask(post(sign.request()))).word == "good"


@pytest.mark.row("Q9", "Q10", "P11")
@pytest.mark.parametrize("algorithm", [SHA1_OID, SHA256_OID, SHA384_OID, SHA512_OID])
def test_the_answer_hashes_as_the_question_does(wire: Wire, auth: Service, algorithm: str) -> None:
    """The same function and the same values come back, whether parameters were NULL or absent."""
    asked = auth.asked(algorithm=algorithm)
    bare = asked._replace(algorithm=seq(oid(algorithm)))
    for one in (asked, bare):
        single = auth.read(wire.ask(post(request(one.one)))).singles[0]
        assert (single.name_hash, single.key_hash) == (asked.name_hash, asked.key_hash)
        assert single.hash_alg == HASH_NAMES[algorithm]
        assert single.status == "good"


@pytest.mark.row("Q11", "Q12", "Q14")
def test_what_changes_nothing_changes_nothing(wire: Wire, auth: Service) -> None:
    """A name, a signature, an extension that we do not have: the plain status, as complete as it gets."""
    ours = auth.asked().one
    for der in (
        request(ours, before=tlv(0xA1, tlv(0x82, b"somebody.test"))),
        signed_request(auth),
        signed_request(auth, broken=True),
        request(ours, extensions=with_extensions(extension(CRL_OID, seq()))),
    ):
        assert auth.read(wire.ask(post(der))).word == "good"


@pytest.mark.row("Q13")
def test_only_what_must_be_understood_stops_us(wire: Wire, auth: Service) -> None:
    """An unknown extension is passed over, an unknown critical one is malformedRequest."""
    for critical, word in ((b"", "good"), (CRITICAL, "o1")):
        extensions = with_extensions(extension("2.999.1", b"x", critical))
        assert auth.read(wire.ask(post(auth.request(extensions=extensions)))).word == word


@pytest.mark.row("Q15", "Q16", "Q17")
def test_nonces_within_bounds_are_echoed(wire: Wire, auth: Service) -> None:
    """1 to 128 octets come back in their two wrappings; 0 and more than 128 are malformed."""
    for size in (0, 1, 15, 16, 23, 32, 33, 128, 129):
        nonce = secrets.token_bytes(size)
        reply = wire.ask(post(auth.request(extensions=with_extensions(nonce_of(nonce)))))
        said = auth.read(reply)
        if 1 <= size <= 128:
            assert (said.word, said.nonce) == ("good", nonce)
            assert nonce_of(nonce) in reply.body
        else:
            assert said.word == "o1"


@pytest.mark.row("Q17")
def test_an_answer_with_a_nonce_is_nobody_else_s(wire: Wire, auth: Service) -> None:
    """The same question without a nonce, or with another one, is not given it, on one worker."""
    plain = auth.request()
    nonces = [secrets.token_bytes(16) for _ in range(2)]
    asked = [auth.request(extensions=with_extensions(nonce_of(nonce))) for nonce in nonces]
    replies = wire.talk(post(asked[0]), post(plain), post(asked[1]), post(asked[0]), post(plain))
    assert [auth.read(reply).nonce for reply in replies] == [nonces[0], None, nonces[1], nonces[0], None]


@pytest.mark.row("Q18")
def test_basic_is_always_to_be_had(wire: Wire, auth: Service) -> None:
    """Whatever a list of acceptable responses has in it, also if it has not basic."""
    for types, word in (((BASIC_OID,), "good"), (("2.999.1", BASIC_OID), "good"), (("2.999.1",), "good")):
        wanted = with_extensions(extension(RESPONSE_OID, seq(*map(oid, types))))
        assert auth.read(wire.ask(post(auth.request(extensions=wanted)))).word == word


@pytest.mark.row("Q19")
def test_a_service_locator_routes_nothing(wire: Wire, auth: Service) -> None:
    """Whatever a locator says, the answer is ours."""
    der = request(seq(auth.asked().der, tlv(0xA0, seq(locator("http://127.0.0.1:1/")))))
    assert auth.read(wire.ask(post(der))).word == "good"


@pytest.mark.row("Q21")
def test_no_weak_algorithm_is_ever_signed_with(wire: Wire, auth: Service) -> None:
    """Whoever prefers RSA with SHA-1 or MD5 is answered by what we have, which is neither."""
    for weak in ("1.2.840.113549.1.1.5", "1.2.840.113549.1.1.4", "1.2.840.10045.4.1"):
        preferred = with_extensions(extension(PREFERRED_OID, seq(seq(seq(oid(weak))))))
        said = auth.read(wire.ask(post(auth.request(extensions=preferred))))
        assert (said.word, said.algorithm) == ("good", "sha256_ecdsa")
