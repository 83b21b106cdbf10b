"""Rows L: the fast lane and aiohttp alone give the same answers to the same octets.

One worker in this process serves on two ports: on one as it always does, on the other
everything goes through the full web server.  What differs from second to second (Date,
max-age) is left out; of an answer that is signed for one client alone, the signature is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import der_corpus
import http_corpus
import pytest
from client_corpus import CLIENTS
from demo_service import Service
from request_octets import get, get_path, post
from responder_cases import serial_of
from wire_client import Reply, Wire
from worker_cases import Host, make_config, make_state

from certstatus.private_valkey import PrivateValkey
from certstatus.publisher_key import make_ed25519
from certstatus.valkey import connect

_PATH_MAX = 4000


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A worker with both kinds of ports."""
    folder = tmp_path_factory.mktemp("lanes")
    state = make_state(folder)
    key = make_ed25519(folder / "publisher.key", state / "host" / "publisher.pub")
    with PrivateValkey(state) as server:
        client = connect(server.url)
        with Host(client, key, make_config(state, server.url)).serving() as serving:
            yield serving
        client.close()


@pytest.fixture
def sign(host: Host) -> Service:
    """The service it answers for: certificates 1 to 9 are issued, 2 is revoked."""
    good = tuple(int.from_bytes(serial_of(n), "big") for n in (1, 3, 4, 5, 6, 7, 8, 9))
    revoked = (int.from_bytes(serial_of(2), "big"),)
    return Service("SIGN", host.folder, host.ca.certificate, good, revoked)


@pytest.fixture
def lanes(host: Host, wires: list[Wire]) -> tuple[Wire, Wire]:
    """The fast one, and aiohttp alone."""
    wires += [Wire(f"http://127.0.0.1:{port}") for port in (host.port, host.slow_port)]
    return wires[0], wires[1]


def timeless(reply: Reply) -> bytes:
    """The octets without what differs from second to second."""
    return re.sub(rb"max-age=\d+", b"max-age=n", re.sub(rb"\r\nDate: [^\r]*", b"", reply.raw))


def alike(service: Service, reply: Reply) -> tuple[bytes, int, str, bytes | None, list[int]]:
    """What must be the same of an answer that is signed anew each time: all but signature and times."""
    said = service.read(reply)
    fields = rb"\r\n(?:Date|ETag|Expires|Last-Modified|Content-Length|Cache-Control): [^\r]*"
    head = re.sub(fields, b"", reply.head)
    return head, said.status, said.word, said.nonce, [single.serial for single in said.singles]


def same(service: Service, lanes: tuple[Wire, Wire], *pieces: bytes, is_own: bool = False) -> list[Reply]:
    """Ask both; their answers must be the same.  *is_own*: each is signed for this client alone."""
    fast, alone = lanes[0].talk(*pieces), lanes[1].talk(*pieces)
    if is_own:
        assert [alike(service, reply) for reply in fast] == [alike(service, reply) for reply in alone]
    else:
        assert list(map(timeless, fast)) == list(map(timeless, alone))
    return fast


def is_own(case: der_corpus.Case) -> bool:
    """Whether nobody else may be given its answer: it has a nonce of the whole request, or is signed."""
    if case.said != "good":
        return False
    return case.row in ("B-D57", "B-D60") or case.row in ("B-D52", "B-D53", "B-D54", "B-D55")


@pytest.mark.row("L1")
def test_the_same_der_is_answered_the_same(sign: Service, lanes: tuple[Wire, Wire]) -> None:
    """The whole DER corpus, by POST and by GET."""
    for case in der_corpus.CASES:
        der = case.build(sign)
        for message in [post(der)] + [get(der)] * (0 < len(der) < _PATH_MAX):
            assert len(same(sign, lanes, message, is_own=is_own(case))) == 1, case.name


@pytest.mark.row("L1")
def test_the_same_http_is_answered_the_same(sign: Service, lanes: tuple[Wire, Wire]) -> None:
    """The whole HTTP corpus: as many answers, octet for octet."""
    for case in http_corpus.CASES:
        assert len(same(sign, lanes, case.build(sign))) == len(case.said.split()), case.name


@pytest.mark.row("L1")
def test_real_clients_are_answered_the_same(sign: Service, lanes: tuple[Wire, Wire]) -> None:
    """What real clients send, about each kind of certificate."""
    for client in CLIENTS:
        for serial in (sign.good[0], sign.revoked[0], 7):
            message = client.message(sign, serial, b"\x5a" * client.nonce_octets)
            assert len(same(sign, lanes, message, is_own=client.nonce_octets > 0)) == 1, client.name


@pytest.mark.row("L2")
def test_everything_in_a_row_is_answered_in_order(sign: Service, lanes: tuple[Wire, Wire]) -> None:
    """All messages after which a connection goes on, in one piece: every answer, as if each came alone."""
    # Answers to HEAD cannot be told from what follows.  Upgrades (B-H61) have a case in a row of their own:
    # with more than 32 requests waiting, aiohttp keeps the rest in one piece and forgets it behind them.
    apart = ("B-H27", "B-H61")
    cases = [case for case in http_corpus.CASES if not case.closes and case.row not in apart]
    alone = [timeless(reply) for case in cases for reply in same(sign, lanes, case.build(sign))]
    for order in (1, -1):
        together = b"".join(case.build(sign) for case in cases[::order])
        replies = same(sign, lanes, together)
        assert sorted(map(timeless, replies)) == sorted(alone)
        assert order < 0 or list(map(timeless, replies)) == alone


@pytest.mark.row("L2")
def test_wherever_a_message_is_cut_it_is_the_same(sign: Service, lanes: tuple[Wire, Wire]) -> None:
    """In two pieces, cut after every octet; what is read in one piece and in two has one answer."""
    der = sign.request()
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (der[:30], der[30:]))
    for message in (
        get(der),
        post(der),
        b"POST /ocsp HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n",
        get(der, "Connection: close") + get(der),
        b"POST /ocsp HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        get_path("/other") + post(der),
    ):
        whole = list(map(timeless, same(sign, lanes, message)))
        for at in range(1, len(message)):
            for lane in lanes:
                assert list(map(timeless, lane.talk(message[:at], message[at:]))) == whole, at
