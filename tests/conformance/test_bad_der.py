"""Rows B-D: every request of the DER corpus, by GET as well as by POST."""

from __future__ import annotations

import socket

import pytest
from demo_service import Service
from der_corpus import CASES, MALFORMED, TOO_LARGE, Case, locator
from request_octets import NONCE_OID, get, post, request, seq, tlv
from wire_client import Wire

_PATH_MAX = 8000


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=pytest.mark.row(case.row), id=f"{case.row} {case.name}") for case in CASES],
)
def test_each_case_has_one_answer(wire: Wire, auth: Service, case: Case) -> None:
    """The pinned answer by POST, the same octets by GET where it fits, and never another certificate's."""
    der = case.build(auth)
    if case.said == TOO_LARGE:
        reply = wire.ask(post(der))
        assert (reply.status, reply.header("Connection")) == (413, "close")
        return
    messages = [post(der)]
    if 0 < len(der) < _PATH_MAX // 2:
        messages.append(get(der))
    # On one connection, so that one worker answers both.
    replies = wire.talk(*messages)
    assert len(replies) == len(messages)
    for reply in replies:
        said = auth.read(reply)
        assert said.word == case.said
        if said.status:
            assert reply.header("Cache-Control") == "no-store"
        for single in said.singles:
            by_status = {"good": auth.good[:1], "revoked": auth.revoked[:1]}.get(single.status)
            assert by_status is None or single.serial in by_status
        assert said.algorithm in ("", "sha256_ecdsa")


@pytest.mark.row("B-D57", "B-D60")
def test_a_nonce_comes_back_as_it_was(wire: Wire, auth: Service) -> None:
    """Octet for octet, wherever it is echoed, critical or not; a nonce of one Request is not."""
    for case in CASES:
        if case.row in ("B-D57", "B-D60", "B-D61") and case.said == "good":
            der = case.build(auth)
            said = auth.read(wire.ask(post(der)))
            assert (said.nonce is not None) == (case.row != "B-D61"), case.name
            assert said.nonce is None or tlv(0x04, said.nonce) in der
            assert said.extensions == (() if said.nonce is None else (NONCE_OID,))


@pytest.mark.row("B-D73")
def test_a_locator_is_followed_nowhere(wire: Wire, auth: Service) -> None:
    """Nobody connects to the address that a service locator names."""
    with socket.create_server(("127.0.0.1", 0)) as bait:
        address = f"http://127.0.0.1:{bait.getsockname()[1]}/"
        der = request(seq(auth.asked().der, tlv(0xA0, seq(locator(address)))))
        assert auth.read(wire.ask(post(der))).word == "good"
        bait.settimeout(0.3)
        with pytest.raises(TimeoutError):
            bait.accept()


@pytest.mark.row("B-H67")
def test_no_single_wrong_octet_gives_another_certificate_s_status(wire: Wire, auth: Service) -> None:
    """Each octet of a request changed in turn: malformed, unauthorized, or unknown."""
    der = auth.request()
    changed = [
        der[:at] + bytes((der[at] ^ flip,)) + der[at + 1 :] for at in range(len(der)) for flip in (0x01, 0x80)
    ]
    with wire.connect() as connection:
        for mutant in changed:
            connection.send(post(mutant))
            reply = connection.read()
            assert reply is not None
            said = auth.read(reply)
            if said.status:
                assert said.word in (MALFORMED, "o6")
            else:
                asked = auth.asked()
                single = said.singles[0]
                assert (single.name_hash, single.key_hash) == (asked.name_hash, asked.key_hash)
                assert single.serial != auth.good[0]
                assert single.status == "unknown"
