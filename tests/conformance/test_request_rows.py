"""Rows Q: how a request reaches us and what of it is understood."""

from __future__ import annotations

import pytest
from demo_service import Service
from request_octets import base64_of, escaped, get, get_path, post, seq
from wire_client import Wire


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
