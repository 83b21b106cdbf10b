"""The fast lane over real sockets: equal to aiohttp alone, however messages are cut, and bounded in all."""

from __future__ import annotations

import asyncio
import base64
import gc
import re
import socket
import struct
import time
from collections.abc import Callable
from urllib.parse import quote

import pytest
import redis
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509 import ocsp
from responder_cases import get_request, post_request
from worker_cases import Client, Host, ask, body, make_config, status, talk, timeless, wait_until

from certstatus.config import Config
from responder.lane import Lane, Lanes

MALFORMED = b"\x30\x03\x0a\x01\x01"
HOST = b"Host: x\r\n"


def messages(host: Host) -> dict[str, bytes]:
    """Requests of every kind that a lane or its delegate meets."""
    der = host.ca.request(1)
    b64 = base64.b64encode(der)
    path = quote(b64, safe="").encode()
    get, post = get_request(der), post_request(der)

    def raw(target: bytes, method: bytes = b"GET", version: bytes = b"1.1", lines: bytes = HOST) -> bytes:
        return method + b" " + target + b" HTTP/" + version + b"\r\n" + lines + b"\r\n"

    def posted(lines: bytes, data: bytes = der, version: bytes = b"1.1") -> bytes:
        return b"POST /ocsp HTTP/" + version + b"\r\n" + HOST + lines + b"\r\n" + data

    length = b"Content-Length: %d\r\n" % len(der)
    chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(der), der)
    return {
        "GET": get,
        "GET raw base64": raw(b"/ocsp/" + b64),
        "GET lower-case escapes": raw(b"/ocsp/" + path.replace(b"%2F", b"%2f").replace(b"%3D", b"%3d")),
        "GET with one slash too many": raw(b"/ocsp//" + path),
        "GET with a slash behind": raw(b"/ocsp/" + path + b"/"),
        "GET with query": raw(b"/ocsp/" + path + b"?a=b"),
        "GET of revoked": get_request(host.ca.request(2)),
        "GET of unknown": get_request(host.ca.request(77)),
        "GET of foreign issuer": get_request(der.replace(host.ca.hashes[1][:20], bytes(20))),
        "GET of bad DER": raw(b"/ocsp/" + base64.b64encode(der[:-1] + b"")),
        "GET of no base64": raw(b"/ocsp/@@@@"),
        "GET of bad escape": raw(b"/ocsp/%ZZ"),
        "GET of line feed": raw(b"/ocsp/" + path[:8] + b"%0A" + path[8:]),
        "GET of NUL": raw(b"/ocsp/" + path[:8] + b"%00" + path[8:]),
        "GET of quote": raw(b'/ocsp/"' + path),
        "GET of other octets": raw(b"/ocsp/\xe3\x81\x82"),
        "GET with dots": raw(b"/ocsp/../ocsp/" + path),
        "GET above the root": raw(b"/../ocsp/" + path),
        "GET absolute": raw(b"http://elsewhere/ocsp/" + path),
        "GET 1.0": get_request(der, "1.0", ""),
        "GET 1.0 with Host": get_request(der, "1.0"),
        "GET 1.0 keep-alive": get_request(der, "1.0", "Connection: keep-alive\r\n"),
        "GET close": get_request(der, headers="Host: x\r\nConnection: close\r\n"),
        "GET Close": get_request(der, headers="host: x\r\nCONNECTION:Close\r\n"),
        "GET with length 0": get_request(der, headers="Host: x\r\nContent-Length: 0\r\n"),
        "GET with body": get_request(der, headers="Host: x\r\nContent-Length: 3\r\n") + b"abc",
        "GET without Host": get_request(der, headers=""),
        "GET two Hosts": get_request(der, headers="Host: x\r\nHost: y\r\n"),
        "GET two User-Agents": get_request(der, headers="Host: x\r\nUser-Agent: a\r\nUser-Agent: b\r\n"),
        "GET two ETags": get_request(der, headers='Host: x\r\nETag: "a"\r\nETag: "b"\r\n'),
        "GET for HTML": get_request(der, headers="Host: x\r\nAccept: text/html\r\nAccept-Encoding: gzip\r\n"),
        "GET Range": get_request(der, headers="Host: x\r\nRange: bytes=0-9\r\n"),
        "GET Upgrade": get_request(der, headers="Host: x\r\nConnection: upgrade\r\nUpgrade: h2c\r\n"),
        "GET Expect bogus": get_request(der, headers="Host: x\r\nExpect: miracles\r\n"),
        "GET If-None-Match another": get_request(der, headers='Host: x\r\nIf-None-Match: "x"\r\n'),
        "GET If-None-Match any": get_request(der, headers="Host: x\r\nIf-None-Match: *\r\n"),
        "GET nonce-free twice": get + get,
        "GET prefix": raw(b"/ocsp"),
        "GET prefix with slash": raw(b"/ocsp/"),
        "GET another path": raw(b"/other"),
        "GET root": raw(b"/"),
        "GET healthz": raw(b"/healthz"),
        "GET readyz": raw(b"/readyz"),
        "POST healthz": raw(b"/healthz", b"POST", lines=HOST + b"Content-Length: 0\r\n"),
        "GET CRL of none": raw(b"/crl/sign/g1/all/complete.crl"),
        "HEAD": raw(b"/ocsp/" + path, b"HEAD"),
        "HEAD of bad": raw(b"/ocsp/@@@@", b"HEAD"),
        "HEAD root": raw(b"/", b"HEAD"),
        "PUT": raw(b"/ocsp", b"PUT", lines=HOST + b"Content-Length: 0\r\n"),
        "DELETE": raw(b"/ocsp/" + path, b"DELETE"),
        "OPTIONS": raw(b"/ocsp", b"OPTIONS"),
        "OPTIONS *": raw(b"*", b"OPTIONS"),
        "TRACE": raw(b"/ocsp", b"TRACE"),
        "FOO": raw(b"/ocsp", b"FOO"),
        "POST": post,
        "POST with slash": post.replace(b"/ocsp ", b"/ocsp/ "),
        "POST with query": post.replace(b"/ocsp ", b"/ocsp?x "),
        "POST longer path": post.replace(b"/ocsp ", b"/ocsp/x "),
        "POST 1.0": post_request(der, "1.0", ""),
        "POST close": post_request(der, headers="Host: x\r\nConnection: close\r\n"),
        "POST without type": posted(length),
        "POST type with parameter": posted(length + b"CONTENT-TYPE: Application/OCSP-Request; a=b\r\n"),
        "POST text/plain": posted(length + b"Content-Type: text/plain\r\n"),
        "POST form": posted(length + b"Content-Type: application/x-www-form-urlencoded\r\n"),
        "POST gzip": posted(length + b"Content-Encoding: gzip\r\n"),
        "POST identity": posted(length + b"Content-Encoding: identity\r\n"),
        "POST empty": posted(b"Content-Length: 0\r\n", b""),
        "POST one octet": posted(b"Content-Length: 1\r\n", b"0"),
        "POST garbage": posted(b"Content-Length: 5\r\n", b"hello"),
        "POST trailing NUL": posted(b"Content-Length: %d\r\n" % (len(der) + 1), der + b"\0"),
        "POST without length": posted(b"", b""),
        "POST too long": posted(b"Content-Length: 16385\r\n", bytes(16385)),
        "POST as long as allowed": posted(b"Content-Length: 16384\r\n", bytes(16384)),
        "POST 10 GB": posted(b"Content-Length: 10000000000\r\n", b""),
        "POST length -1": posted(b"Content-Length: -1\r\n"),
        "POST length plus": posted(b"Content-Length: +%d\r\n" % len(der)),
        "POST two lengths": posted(length + b"Content-Length: 1\r\n"),
        "POST length and chunked": posted(length + b"Transfer-Encoding: chunked\r\n", chunked),
        "POST chunked": posted(b"Transfer-Encoding: chunked\r\n", chunked),
        "POST Chunked": posted(b"Transfer-Encoding: Chunked\r\n", chunked),
        "POST gzip in chunks": posted(b"Transfer-Encoding: gzip, chunked\r\n", chunked),
        "POST gzip in chunks, and GET": posted(b"Transfer-Encoding: gzip, chunked\r\n", chunked) + get,
        "POST empty coding and chunked": posted(b"Transfer-Encoding: ,chunked\r\n", chunked),
        "POST in no chunks": posted(b"Transfer-Encoding: gzip\r\n", chunked),
        "POST chunked twice": posted(b"Transfer-Encoding: chunked, chunked\r\n", chunked),
        "GET gzip in chunks": get_request(der, headers="Host: x\r\nTransfer-Encoding: gzip, chunked\r\n")
        + chunked,
        "POST one octet a chunk": posted(
            b"Transfer-Encoding: chunked\r\n",
            b"".join(b"1\r\n%c\r\n" % octet for octet in der) + b"0\r\n\r\n",
        ),
        "POST chunk size zz": posted(b"Transfer-Encoding: chunked\r\n", b"zz\r\n"),
        "POST chunk size huge": posted(b"Transfer-Encoding: chunked\r\n", b"F" * 17 + b"\r\n"),
        "POST chunked too long": posted(
            b"Transfer-Encoding: chunked\r\n", b"8000\r\n" + bytes(0x8000) + b"\r\n0\r\n\r\n"
        ),
        "POST Expect": posted(length + b"Expect: 100-continue\r\n"),
        "POST and GET": post + get,
        "POST more than length": post + b"x",
        "21 pipelined": get * 21,
        "pipelined kinds": get + post + raw(b"/other") + get_request(host.ca.request(2)) + post,
        "pipelined, the first closes": get_request(der, headers="Host: x\r\nConnection: close\r\n") + get,
        "space before colon": get.replace(b"Host:", b"Host :"),
        "folded": get_request(der, headers="Host: x\r\nX: a\r\n b\r\n"),
        "bare LF": get.replace(b"\r\nHost", b"\nHost"),
        "NUL": get_request(der, headers="Host: x\r\nX: a\0b\r\n"),
        "HTTP/9.9": get_request(der, "9.9"),
        "HTTP/0.9": b"GET /ocsp/" + path + b"\r\n\r\n",
        "HTTP/0.9 with a space": b"GET /ocsp/" + path + b" \r\n\r\n",
        "HTTP/0.9 said": get_request(der, "0.9"),
        "HTTP/0.9 and more": b"GET /ocsp/" + path + b"\r\n\r\n" + get,
        "HTTP/0.9 CRL": b"GET /crl/sign/g1/all/complete.crl\r\n\r\n",
        "HTTP/2.0": get_request(der, "2.0"),
        "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        "200 headers": get_request(der, headers="Host: x\r\n" + "X: a\r\n" * 200),
        "64 KB header": get_request(der, headers="Host: x\r\nX: " + "a" * 65_536 + "\r\n"),
        "2000 headers": get_request(der, headers="Host: x\r\n" + "X: a\r\n" * 2000),
        "9 KB target": raw(b"/ocsp/" + b"A" * 9000),
        "100 KB target": raw(b"/ocsp/" + b"A" * 100_000),
    }


# What each must say: HTTP status and, after 200, what the OCSP status is ("-" where there is none).
EXPECTED = {
    "GET of foreign issuer": "200 6",
    "GET of bad DER": "200 1",
    "GET of no base64": "200 1",
    "GET of bad escape": "200 1",
    "GET of line feed": "200 1",
    "GET of NUL": "200 1",
    "GET of quote": "200 1",
    "GET of other octets": "400",
    "GET with dots": "200 1",
    "GET above the root": "404",
    "GET without Host": "400",
    "GET two Hosts": "400",
    "GET two User-Agents": "400",
    "GET two ETags": "400",
    "GET Expect bogus": "417",
    "GET If-None-Match any": "304",
    "GET nonce-free twice": "200 0 200 0",
    "GET prefix": "400",
    "GET prefix with slash": "400",
    "GET another path": "404",
    "GET root": "404",
    "GET healthz": "200 -",
    "GET readyz": "200 -",
    "POST healthz": "405",
    "GET CRL of none": "404",
    "HEAD": "200 -",
    "HEAD of bad": "200 -",
    "HEAD root": "404",
    "PUT": "405",
    "DELETE": "405",
    "OPTIONS": "405",
    "OPTIONS *": "404",
    "TRACE": "405",
    "FOO": "400",
    "POST longer path": "404",
    "POST text/plain": "415",
    "POST form": "415",
    "POST gzip": "415",
    "POST empty": "200 1",
    "POST one octet": "200 1",
    "POST garbage": "200 1",
    "POST trailing NUL": "200 1",
    "POST without length": "411",
    "POST too long": "413",
    "POST as long as allowed": "200 1",
    "POST 10 GB": "413",
    "POST length -1": "400",
    "POST length plus": "400",
    "POST two lengths": "400",
    "POST length and chunked": "400",
    "POST gzip in chunks": "501",
    "POST gzip in chunks, and GET": "501",
    "POST empty coding and chunked": "501",
    "POST in no chunks": "400",
    "POST chunked twice": "400",
    "GET gzip in chunks": "501",
    "POST chunk size zz": "400",
    "POST chunk size huge": "400",
    "POST chunked too long": "413",
    "POST and GET": "200 0 200 0",
    "POST more than length": "200 0 400",
    "21 pipelined": " ".join(["200 0"] * 21),
    "pipelined kinds": "200 0 200 0 404 200 0 200 0",
    "pipelined, the first closes": "200 0",
    "space before colon": "400",
    "folded": "400",
    "bare LF": "400",
    "NUL": "400",
    "HTTP/9.9": "400",
    "HTTP/0.9": "505",
    "HTTP/0.9 with a space": "400",
    "HTTP/0.9 said": "505",
    "HTTP/0.9 and more": "505",
    "HTTP/0.9 CRL": "505",
    "HTTP/2.0": "505",
    "HTTP/2 preface": "400",
    "TLS hello": "400",
    "200 headers": "400",
    "64 KB header": "431",
    "2000 headers": "431",
    "9 KB target": "414",
    "100 KB target": "414",
}


def summary(answers: list[bytes]) -> str:
    words = []
    for answer in answers:
        words.append(str(status(answer)))
        if status(answer) == 200:
            said = body(answer)
            is_ocsp = b"application/ocsp-response" in answer and said != b""
            words.append(str(ocsp.load_der_ocsp_response(said).response_status.value) if is_ocsp else "-")
    return " ".join(words)


def test_the_lane_answers_what_aiohttp_alone_would(host: Host) -> None:
    """For every kind of request: the right answer, the same octets from both, and whoever comes next is
    served."""
    found, alone = {}, {}
    for name, message in messages(host).items():
        answers = talk(host.port, message)
        found[name] = summary(answers)
        for answer in answers:
            _says_nothing_of_ours(answer)
        same = talk(host.slow_port, message)
        if [timeless(item) for item in same] != [timeless(item) for item in answers]:
            alone[name] = (answers, same)
    assert found == {name: EXPECTED.get(name, "200 0") for name in messages(host)}
    assert alone == {}
    assert summary(talk(host.port, get_request(host.ca.request(1)))) == "200 0"


def _says_nothing_of_ours(answer: bytes) -> None:
    """No answer tells which software this is or how it failed; none is chunked or encoded."""
    head = answer.partition(b"\r\n\r\n")[0].lower()
    for word in (
        b"\r\nserver:",
        b"\r\ntransfer-encoding:",
        b"\r\ncontent-encoding:",
        b"aiohttp",
        b"traceback",
    ):
        assert word not in head
        assert word not in body(answer).lower()
    assert b"\r\ndate:" in head
    assert 200 <= status(answer) < 500 or status(answer) in (501, 505)


def test_a_copy_is_known_by_its_tag_and_never_by_a_date(host: Host) -> None:
    """If-None-Match is a list of tags, ``"*"`` one like any other; If-Modified-Since is nothing."""
    der = host.ca.request(1)
    found = re.search(rb'(?i)\r\netag: ("[^"]+")', ask(host.port, get_request(der)))
    assert found is not None
    tag = found[1].decode()
    date = "If-Modified-Since: Fri, 31 Dec 2100 00:00:00 GMT\r\n"
    for lines, expected in {
        f"If-None-Match: {tag}\r\n": 304,
        f'If-None-Match: "x",W/{tag}\r\n': 304,
        f'If-None-Match: "x"\r\nIf-None-Match: {tag}\r\n': 304,
        "If-None-Match: *\r\n": 304,
        'If-None-Match: "*"\r\n': 200,
        'If-None-Match: x", *\r\n': 200,
        "If-None-Match:\r\n": 200,
        date: 200,
        f'{date}If-None-Match: "x"\r\n': 200,
    }.items():
        assert (status(ask(host.port, get_request(der, headers="Host: x\r\n" + lines))), lines) == (
            expected,
            lines,
        )


def test_cut_at_every_octet_it_is_the_same(host: Host) -> None:
    """Two segments, wherever the border: what is plain, and what is not, is answered as if in one."""
    whole = messages(host)
    for name in ("GET", "POST", "POST chunked", "GET If-None-Match another", "pipelined kinds"):
        message = whole[name]
        expected = [timeless(item) for item in talk(host.port, message)]
        step = 1 if name in ("GET", "POST") else 7
        for cut in range(1, len(message), step):
            with Client(host.port) as client:
                client.send(message[:cut])
                # The other half must not arrive in the same read.
                if step == 1:
                    wait_until(lambda cut=cut: _taken(host) == cut)  # type: ignore[misc]
                else:
                    time.sleep(0.003)
                client.send(message[cut:])
                answers = [timeless(client.read_answer()) for _ in expected]
            assert answers == expected, (name, cut)


def _taken(host: Host) -> int:
    """Octets that lanes have read of messages that they wait for the rest of."""
    return host.call(lambda: sum(len(lane._buffer) for lane in host.lanes()))


def test_one_octet_at_a_time(host: Host) -> None:
    """A client that writes each octet by itself is answered like any other."""
    for message in (get_request(host.ca.request(1)), post_request(host.ca.request(1))):
        with Client(host.port) as client:
            client.send(*[message[at : at + 1] for at in range(len(message))], pause_s=0.0005)
            assert timeless(client.read_answer()) == timeless(ask(host.port, message))


def test_a_connection_serves_many_in_both_lanes(host: Host) -> None:
    """Plain, then delegated, then plain ones again on the same connection, each in its turn."""
    get, post = get_request(host.ca.request(1)), post_request(host.ca.request(1))
    other = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    with Client(host.port) as client:
        for message, expected in ((get, 200), (post, 200), (get, 200), (other, 200), (get, 200), (post, 200)):
            client.send(message)
            answer = client.read_answer()
            assert status(answer) == expected
            if message is not other:
                assert ocsp.load_der_ocsp_response(body(answer)).certificate_status.name == "GOOD"


def test_a_known_request_is_answered_from_the_memo(host: Host) -> None:
    """From the fourth time on a request is known byte for byte, closing ones too."""
    for headers in ("Host: x\r\n", "Host: x\r\nConnection: close\r\n"):
        message = get_request(host.ca.request(5), headers=headers)
        for _ in range(3):
            ask(host.port, message)
        before = host.worker.path.repeats
        answers = talk(host.port, message)
        assert len(answers) == 1
        assert host.worker.path.repeats == before + 1
        with Client(host.port) as client:
            client.send(message)
            assert client.read_answer() != b""
            assert client.is_closed(0.1) is (b"close" in message)


def test_expect_continue_is_told_to_go_on(host: Host) -> None:
    """A client that waits for permission gets it before its body is read, and a refusal instead if it is
    too long."""
    der = host.ca.request(1)
    head = b"POST /ocsp HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    with Client(host.port) as client:
        client.send(head % len(der))
        assert client.socket.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(der)
        assert body(client.read_answer())[:2] == b"\x30\x82"
    with Client(host.port) as client:
        client.send(head % 100_000)
        assert status(client.read_answer()) == 413


def test_a_body_that_is_too_long_is_refused_at_once(host: Host) -> None:
    """413 comes by the announced length, before any of it is sent."""
    with Client(host.port) as client:
        client.send(b"POST /ocsp HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000000\r\n\r\n")
        began = time.monotonic()
        answer = client.read_answer()
        assert status(answer) == 413
        assert b"Connection: close" in answer
        assert time.monotonic() - began < 1


def test_an_endless_chunked_body_is_refused(host: Host) -> None:
    """Chunks are taken up to the limit and no further."""
    with Client(host.port) as client:
        client.send(b"POST /ocsp HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            for _ in range(1000):
                client.send(b"400\r\n" + bytes(1024) + b"\r\n")
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            return
        assert status(client.read_answer()) == 413


@pytest.mark.parametrize("turns", range(8))
def test_a_body_in_error_ends_at_once_in_whatever_turn_it_comes(host: Host, turns: int) -> None:
    """Also between the turns of the loop in which the full web server takes it up and begins with it."""
    head = b"POST /ocsp HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"

    async def arrive(lane: Lane) -> None:
        lane.data_received(head)
        for _ in range(turns):
            await asyncio.sleep(0)
        lane.data_received(b"zz\r\n")

    wait_until(lambda: not host.lanes())
    with Client(host.port) as client:
        wait_until(lambda: len(host.lanes()) == 1)
        host.run(arrive(host.lanes()[0]))
        assert status(client.read_answer()) == 400


def test_a_body_in_error_that_nobody_reads_is_no_error_of_ours(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    """It was answered before its body came, which is then read to be let go of."""
    with Client(host.port) as client:
        client.send(b"POST /other HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert status(client.read_answer()) == 404
        client.send(b"zz\r\n")
        wait_until(lambda: not host.lanes())
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


# --- deadlines ---------------------------------------------------------------------------------------

SLOW = {
    "nothing at all": b"",
    "half a head": b"GET /ocsp/MFMw",
    "half a head of something else": b"GET /other HTTP/1.1\r\nHos",
    "half a body": b"POST /ocsp HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\nabc",
    "half a chunked body": b"POST /ocsp HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
    "HTTP/0.9": b"GET /ocsp/MFMw\r\n",
}


@pytest.mark.parametrize("name", SLOW)
def test_whoever_falls_silent_is_let_go(host: Host, name: str) -> None:
    """After the time for a head or body: 408 if something was begun, and the connection ends."""
    with Client(host.port, 6) as client:
        client.send(SLOW[name])
        began = time.monotonic()
        answer = client.read_answer()
        assert 0.5 < time.monotonic() - began < 5
        assert answer == b"" if name == "nothing at all" else status(answer) == 408
        assert client.is_closed()


def test_a_trickle_gains_no_time(host: Host) -> None:
    """Octets that keep coming do not move the deadline of a head, delegated or not."""
    for start in (b"GET /ocsp/", b"GET /other HTTP/1.1\r\nX: "):
        with Client(host.port, 6) as client:
            client.send(start)
            began = time.monotonic()
            try:
                while time.monotonic() - began < 5:
                    client.send(b"A")
                    time.sleep(0.05)
            except (BrokenPipeError, ConnectionResetError):
                pass
            assert time.monotonic() - began < 5


def test_a_second_request_has_its_own_deadline(host: Host) -> None:
    """After an answer the connection may be idle for long, but a head begun then must end in time."""
    get = get_request(host.ca.request(1))
    for first in (get, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"):
        with Client(host.port, 6) as client:
            client.send(first)
            assert status(client.read_answer()) == 200
            time.sleep(1.3)
            client.send(get)
            assert status(client.read_answer()) == 200
            client.send(get[:10])
            assert status(client.read_answer()) == 408


@pytest.mark.parametrize("kind", ["GET", "POST", "delegated"])
def test_a_client_that_never_reads_is_let_go(host: Host, kind: str) -> None:
    """Requests without end from somebody who takes no answer: reading stops, memory stays, the connection
    ends."""
    first = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" if kind == "delegated" else b""
    der = host.ca.request(1)
    message = post_request(der) if kind == "POST" else get_request(der)
    with Client(host.port, 0.5) as client:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.send(first)
        sizes: set[int] = set()
        while not _is_refused(client, message * 20):
            sizes.update(_unsent(host))
        assert max(sizes) < 200_000
    assert summary(talk(host.port, message)) == "200 0"


def _is_refused(client: Client, data: bytes) -> bool:
    """Whether the connection is gone; as much of *data* is sent as can be within the client's time."""
    try:
        client.send(data)
    except TimeoutError:
        return False
    except (BrokenPipeError, ConnectionResetError):
        return True
    return False


def _unsent(host: Host) -> list[int]:
    """Octets that are kept for clients that do not read."""
    return host.call(lambda: [lane._transport.get_write_buffer_size() for lane in host.lanes()])


def test_a_pause_amid_a_message_costs_it_nothing(host: Host) -> None:
    """TLS has words of its own that can fill the buffer then: reading goes on, and so does its time."""
    message = get_request(host.ca.request(1))
    with Client(host.port) as client:
        client.send(message[:20])
        wait_until(lambda: _taken(host) == 20)
        (lane,) = host.lanes()
        deadline_s = lane.deadline_s
        host.call(lane.pause_writing)
        host.call(lane.resume_writing)
        assert lane.deadline_s == deadline_s
        client.send(message[20:])
        assert status(client.read_answer()) == 200


def test_whoever_comes_where_nobody_was_wakes_the_watch(host: Host) -> None:
    """The first, not the second, and the first again after everybody has left."""
    woken: list[int] = []
    of_host = host.worker.lanes
    lanes = Lanes(of_host.path, of_host.limits, of_host.make_delegate, woken=lambda: woken.append(1))
    first, second = lanes(), lanes()
    assert lanes.admit(first)
    assert lanes.admit(second)
    assert len(woken) == 1
    lanes.connections.clear()
    assert lanes.admit(first)
    assert len(woken) == 2


def test_an_idle_connection_ends(
    valkey: redis.Redis, publisher_key: Ed25519PrivateKey, config: Config
) -> None:
    """After idle_time_s without a request the connection is closed without a word."""
    short = make_config(config.state, config.valkey.url, idle_time_s=1)
    with Host(valkey, publisher_key, short).serving() as host:
        for message in (get_request(host.ca.request(1)), b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"):
            with Client(host.port, 6) as client:
                client.send(message)
                assert status(client.read_answer()) == 200
                assert client.is_closed(5)


# --- counts and memory -------------------------------------------------------------------------------


def test_connections_beyond_the_limit_are_refused(
    valkey: redis.Redis, publisher_key: Ed25519PrivateKey, config: Config
) -> None:
    """So many connections and no more; when one ends there is room again."""
    few = make_config(config.state, config.valkey.url, connections_max=16)
    with Host(valkey, publisher_key, few).serving() as host:
        get = get_request(host.ca.request(1))
        clients = [Client(host.port) for _ in range(16)]
        wait_until(lambda: len(host.worker.lanes.connections) == 16)
        with Client(host.port) as one_more:
            assert one_more.is_closed()
        clients.pop().socket.close()
        wait_until(lambda: len(host.worker.lanes.connections) == 15)
        assert summary([ask(host.port, get)]) == "200 0"
        for client in clients:
            client.send(get)
            assert status(client.read_answer()) == 200
            client.socket.close()
        assert host.worker.lanes.refused == 1


def test_nothing_remains_of_a_connection(host: Host) -> None:
    """Connections that ended in every way leave no lane behind, without the garbage collector's help."""
    get = get_request(host.ca.request(1))
    endings: list[Callable[[Client], None]] = [
        lambda client: client.send(get),
        lambda client: client.send(get[:20]),
        lambda client: client.send(get, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"),
        lambda client: client.send(b"GET /other HTTP/1.1\r\n"),
        lambda client: client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)),
    ]
    gc.collect()
    gc.disable()
    try:
        for _ in range(20):
            for ending in endings:
                with Client(host.port) as client:
                    ending(client)
        wait_until(lambda: not host.worker.lanes.connections)
        time.sleep(0.1)
        left = sum(1 for item in gc.get_objects() if isinstance(item, Lane))
    finally:
        gc.enable()
    assert left <= 2


def test_a_half_closed_client_is_answered(host: Host) -> None:
    """Whoever has asked and then says that no more will come still gets all answers, soon."""
    der = host.ca.request(1)
    began = time.monotonic()
    for message in (get_request(der), post_request(der), b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"):
        for port in (host.port, host.slow_port):
            assert len(talk(port, message)) == 1
    assert time.monotonic() - began < 1
