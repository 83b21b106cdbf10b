"""What is plain, what may become so, and what must go to the full web server."""

from __future__ import annotations

import base64
import glob
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_twin import recognise_simply, unescape_simply

from bench.real_clients import real_clients
from certstatus.errors import MalformedRequest
from responder import plain
from responder.plain import Partial, Plain, decode_path, recognise

HEAD_MAX, BODY_MAX = 512, 100
# With "+", "/" and "=" in its base64, and "//" inside.
DER = bytes.fromhex("308200fbefbeffffff00")
B64 = base64.b64encode(DER)
GET = b"GET /ocsp/" + quote(B64, safe="").encode() + b" HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /ocsp HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"


def look(buffer: bytes) -> Plain | Partial | None:
    return recognise(buffer, HEAD_MAX, BODY_MAX)


def with_line(line: bytes, message: bytes = GET) -> bytes:
    return message.replace(b"\r\n\r\n", b"\r\n" + line + b"\r\n\r\n", 1)


PLAIN: dict[str, tuple[bytes, bool]] = {
    "GET": (GET, True),
    "POST": (POST, True),
    "POST with slash": (POST.replace(b"/ocsp", b"/ocsp/"), True),
    "POST of nothing": (b"POST /ocsp HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", True),
    "GET 1.0 without Host": (GET.replace(b"1.1", b"1.0").replace(b"Host: x\r\n", b""), False),
    "POST 1.0 with Host": (POST.replace(b"1.1", b"1.0"), False),
    "1.0 keep-alive": (with_line(b"Connection: Keep-Alive", GET.replace(b"1.1", b"1.0")), False),
    "close": (with_line(b"Connection: close"), False),
    "close in capitals": (with_line(b"CONNECTION:CLOSE"), False),
    "keep-alive": (with_line(b"Connection: keep-alive"), True),
    "length 0 on GET": (with_line(b"Content-Length: 0"), True),
    "type with parameter": (with_line(b"Content-Type: Application/OCSP-Request; x=y", POST), True),
    "many others": (with_line(b"Accept: text/html\r\nUser-Agent: a b/c (d)\r\nX-Empty:"), True),
    "IPv6 host": (GET.replace(b"Host: x", b"Host: [::1]:8080"), True),
    "octets above ASCII": (with_line(b"X: \xe3\x81\x82"), True),
}


@pytest.mark.parametrize("name", PLAIN)
def test_plain(name: str) -> None:
    """What most clients send is plain, and how the connection goes on is told."""
    message, keep_alive = PLAIN[name]
    found = look(message)
    assert isinstance(found, Plain)
    assert found.keep_alive is keep_alive
    if message.startswith(b"GET"):
        assert found.path is not None
        assert decode_path(found.path) == DER
    else:
        assert (found.path, found.body) == (None, message.partition(b"\r\n\r\n")[2])


@pytest.mark.parametrize("name", PLAIN)
def test_every_beginning_of_a_plain_message_may_become_plain(name: str) -> None:
    """Cut at any octet it is a part, never plain, never given away."""
    message = PLAIN[name][0]
    head_end = message.index(b"\r\n\r\n") + 4
    for cut in range(len(message)):
        assert look(message[:cut]) is (Partial.BODY if cut >= head_end else Partial.HEAD), cut


NOT_PLAIN = {
    "one octet more": GET + b"x",
    "two messages": GET + GET,
    "body one too long": POST + b"x",
    "GET with body": with_line(b"Content-Length: 3") + b"abc",
    "POST without length": POST.replace(b"Content-Length: 3\r\n", b""),
    "two lengths": with_line(b"Content-Length: 3", POST),
    "length with plus": POST.replace(b": 3", b": +3"),
    "length -1": POST.replace(b": 3", b": -1"),
    "length in hex": POST.replace(b": 3", b": 0x3"),
    "length list": POST.replace(b": 3", b": 3, 3"),
    "length of other digits": POST.replace(b": 3", ": ٣".encode()),
    "length empty": POST.replace(b": 3", b": "),
    "length far too long": POST.replace(b": 3", b": 1000000000000"),
    "body over the limit": POST.replace(b": 3", b": 101"),
    "chunked": with_line(b"Transfer-Encoding: chunked", POST),
    "chunked beside length": with_line(b"transfer-encoding:chunked", POST),
    "gzip": with_line(b"Content-Encoding: gzip", POST),
    "another type": with_line(b"Content-Type: text/plain", POST),
    "two types": with_line(b"Content-Type: application/ocsp-request", with_line(b"Content-Type: a/b", POST)),
    "Expect": with_line(b"Expect: 100-continue", POST),
    "Upgrade": with_line(b"Upgrade: h2c"),
    "Connection: upgrade": with_line(b"Connection: upgrade"),
    "Connection: TE, close": with_line(b"Connection: TE, close"),
    "TE": with_line(b"TE: trailers"),
    "Trailer": with_line(b"Trailer: x"),
    "If-None-Match": with_line(b'If-None-Match: "x"'),
    "If-Modified-Since": with_line(b"If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT"),
    "Authorization": with_line(b"Authorization: Basic eA=="),
    "Cookie": with_line(b"Cookie: a=b"),
    "Range": with_line(b"Range: bytes=0-1"),
    "no Host in 1.1": GET.replace(b"Host: x\r\n", b""),
    "two Hosts": with_line(b"Host: x"),
    "two User-Agents": with_line(b"User-Agent: a", with_line(b"User-Agent: b")),
    "more lines than anybody sends": with_line(b"\r\n".join([b"X:"] * 64)),
    "Max-Forwards": with_line(b"Max-Forwards: 1"),
    "two Hosts in 1.0": with_line(b"Host: x", GET.replace(b"1.1", b"1.0")),
    "empty Host": GET.replace(b"Host: x", b"Host:"),
    "Host with slash": GET.replace(b"Host: x", b"Host: x/y"),
    "space before colon": GET.replace(b"Host:", b"Host :"),
    "folded line": with_line(b"X: a\r\n b"),
    "line without colon": with_line(b"X"),
    "empty name": with_line(b": x"),
    "bare LF": GET.replace(b"\r\nHost", b"\nHost"),
    "bare CR": with_line(b"X: a\rb"),
    "NUL": with_line(b"X: a\0b"),
    "DEL": with_line(b"X: a\x7fb"),
    "HTTP/1.2": GET.replace(b"1.1", b"1.2"),
    "HTTP/2.0": GET.replace(b"1.1", b"2.0"),
    "http/1.1": GET.replace(b"HTTP", b"http"),
    "HTTP/0.9": GET.split(b" HTTP")[0] + b"\r\n\r\n",
    "lower-case method": GET.replace(b"GET", b"get"),
    "HEAD": GET.replace(b"GET", b"HEAD"),
    "PUT": POST.replace(b"POST", b"PUT"),
    "bare prefix": b"GET /ocsp HTTP/1.1\r\nHost: x\r\n\r\n",
    "bare prefix with slash": b"GET /ocsp/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "query": GET.replace(b" HTTP", b"?x HTTP"),
    "fragment": GET.replace(b" HTTP", b"#x HTTP"),
    "absolute form": GET.replace(b"GET ", b"GET http://x"),
    "another path": GET.replace(b"/ocsp", b"/crl"),
    "path that only begins so": GET.replace(b"/ocsp/", b"/ocspx/"),
    "POST on a longer path": POST.replace(b"/ocsp", b"/ocsp/x"),
    "two spaces": GET.replace(b"GET ", b"GET  "),
    "tab": GET.replace(b" HTTP", b"\tHTTP"),
    "octet above ASCII in target": GET.replace(b"/ocsp/", b"/ocsp/\xe3"),
    "quote in target": GET.replace(b"/ocsp/", b'/ocsp/"'),
    "empty line first": b"\r\n" + GET,
    "head over the limit": with_line(b"X: " + b"a" * HEAD_MAX),
    "head without end over the limit": GET[:-2] + b"X: " + b"a" * HEAD_MAX,
    "TLS": b"\x16\x03\x01\x02\x00\x01",
    "PROXY": b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}


@pytest.mark.parametrize("name", NOT_PLAIN)
def test_not_plain(name: str) -> None:
    """Whatever is unusual is given away whole; a part of it may still be waited for, never answered."""
    assert look(NOT_PLAIN[name]) is None


@settings(max_examples=400)
@given(st.sampled_from([GET, POST]), st.integers(0, 200), st.binary(min_size=0, max_size=3))
def test_no_octet_changes_the_meaning_unnoticed(message: bytes, at: int, octets: bytes) -> None:
    """A message changed anywhere either is not plain or says exactly what its octets say."""
    at %= len(message)
    changed = message[:at] + octets + message[at + 1 :]
    found = look(changed)
    if isinstance(found, Plain):
        head, _, body = changed.partition(b"\r\n\r\n")
        request_line = head.split(b"\r\n")[0]
        assert found.body == body
        if found.path is None:
            assert request_line.split(b" ")[1] in (b"/ocsp", b"/ocsp/")
        else:
            assert request_line.split(b" ")[1] == b"/ocsp/" + found.path
        assert b"\n" not in head.replace(b"\r\n", b"")


_LINES = [
    *[b"Host: x", b"host:y:80", b"Host: a b", b"Host:", b"User-Agent: a/1", b"user-agent:", b"Accept: */*"],
    *[b"Content-Length: 3", b"content-length:\t0 ", b"Content-Length: 03", b"Content-Length: 1234567890"],
    *[b"Content-Type: application/ocsp-request", b"Content-Type: text/plain", b"Connection: close"],
    *[b"Connection: Keep-Alive", b"Connection: close, x", b"Cookie: a", b"Expect: 100-continue", b"Range: x"],
    *[b" folded", b"No colon", b"Space : x", b"Control: \x01", b"Octet: \xff", b"X: " + b"v" * 250, b""],
]


@settings(max_examples=600)
@given(
    st.sampled_from([b"GET /ocsp/MAA%3D", b"GET /ocsp/MAA=", b"POST /ocsp", b"POST /ocsp/", b"POST /ocsp/x"]),
    st.sampled_from([b" HTTP/1.1", b" HTTP/1.0", b"", b" HTTP/1.2"]),
    st.lists(st.one_of(st.sampled_from(_LINES[:2]), st.sampled_from(_LINES)), max_size=6),
    st.sampled_from([b"", b"ab", b"abc", b"abcd"]),
    st.integers(0, 3),
)
def test_what_is_remembered_of_lines_changes_nothing(
    target: bytes, version: bytes, lines: list[bytes], body: bytes, cut: int
) -> None:
    """The same is found as by looking at every line anew, whatever was seen before."""
    whole = b"\r\n".join([target + version, *lines]) + b"\r\n\r\n" + body
    buffer = whole[: len(whole) - cut]
    assert look(buffer) == recognise_simply(buffer, HEAD_MAX, BODY_MAX)


def test_lines_are_counted_whatever_they_say() -> None:
    """Beyond 64 header lines a head is the full parser's, which may refuse it."""
    assert isinstance(recognise(with_line(b"\r\n".join([b"Accept: x"] * 63)), 4096, BODY_MAX), Plain)
    assert recognise(with_line(b"\r\n".join([b"Accept: x"] * 64)), 4096, BODY_MAX) is None


_TARGETS = [b"GET /ocsp/MAA%3D", b"GET /ocsp/MAA=", b"POST /ocsp", b"POST /ocsp/"]
_USUAL_LINES = [
    *[b"Host: ocsp.example:80", b"User-Agent: a/1 (b; c)", b"User-Agent: ", b"Accept: */*"],
    *[b"Accept-Encoding: gzip, br", b"Content-Type: application/ocsp-request", b"Content-Length: 3"],
    *[b"Content-type: application/ocsp-request", b"Content-Length: 0", b"Content-Length: 1234567890"],
    *[b"Connection: keep-alive", b"Connection: Close", b"X-Forwarded-For: 192.0.2.7"],
]


@settings(max_examples=800)
@given(
    st.sampled_from(_TARGETS),
    st.sampled_from([b" HTTP/1.1", b" HTTP/1.1", b" HTTP/1.0"]),
    st.sampled_from([[], [b"Host: x"], [b"Host: x"], [b"Host: x"]]),
    st.lists(st.sampled_from(_USUAL_LINES), max_size=7, unique=True),
    st.lists(st.tuples(st.integers(0, 6), st.sampled_from(_LINES + _USUAL_LINES)), max_size=1),
    st.lists(
        st.tuples(st.integers(0, 200), st.sampled_from([b"", b"\r", b"\n", b" ", b"\x7f", b":", b"H"])),
        max_size=1,
    ),
    st.sampled_from([b"", b"", b"abc", b"abcd"]),
    st.sampled_from([0, 0, 0, 1, 3]),
    st.integers(-3, 3),
)
def test_a_usual_head_is_read_as_any_other(
    target: bytes,
    version: bytes,
    host: list[bytes],
    usual: list[bytes],
    more: list[tuple[int, bytes]],
    changes: list[tuple[int, bytes]],
    body: bytes,
    cut: int,
    room: int,
) -> None:
    """Usual lines in any order, once and twice, with another line, other octets, or hardly room."""
    lines = [target + version, *host, *usual]
    for at, line in more:
        lines.insert(1 + at % len(lines), line)
    whole = b"\r\n".join(lines) + b"\r\n\r\n" + body
    for place, octets in changes:
        at = place % len(whole)
        whole = whole[:at] + octets + whole[at + 1 :]
    buffer = whole[: len(whole) - cut]
    head_max = whole.find(b"\r\n\r\n") + room if room else HEAD_MAX
    assert recognise(buffer, head_max, 3) == recognise_simply(buffer, head_max, 3)


def test_what_real_clients_send_is_usual() -> None:
    """Each recorded head, and one a little too long for the pattern, which is plain all the same."""
    for client in real_clients():
        lines = "".join(f"{line}\r\n" for line in (*client.head, ""))
        head = lines.format(host="x", port=80, path="MAA%3D", raw="MAA=", length=2).encode()
        assert plain._USUAL_HEAD.fullmatch(head), client.name
        assert isinstance(recognise(head + b"ab" * (client.method == "POST"), HEAD_MAX, BODY_MAX), Plain)
    long = with_line(b"Accept: " + b"x" * plain._USUAL_OCTETS_MAX)
    assert isinstance(recognise(long, 4096, BODY_MAX), Plain)
    assert recognise(long[:-1], 4096, BODY_MAX) is Partial.HEAD


_PYTHONS = sorted({sys.executable, *glob.glob("/usr/bin/python3.1[1-9]")})


@pytest.mark.parametrize("python", _PYTHONS)
def test_every_python_here_reads_heads_alike(python: str) -> None:
    """The system's own may be an older one than that of the tests, with other faults in ``re``."""
    here = Path(__file__)
    path = os.pathsep.join(map(str, (here.parent, here.parents[2])))
    command = [python, str(here.with_name("oldest_python.py")), "100000"]
    environment = {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@given(
    st.lists(st.sampled_from([b"%", b"2", b"B", b"F", b"3", b"D", b"f", b"+", b"%2F", b"%2B", b"%3D", b"M"]))
)
def test_escapes_are_undone_as_the_library_does(parts: list[bytes]) -> None:
    """The short way through the usual escapes gives what ``urllib`` gives, or refuses what that gives."""
    path = b"M" + b"".join(parts)
    try:
        der = decode_path(path)
    except MalformedRequest:
        der = None
    try:
        expected = decode_path(unescape_simply(path).replace(b"%", b"!"))
    except MalformedRequest:
        expected = None
    assert der == expected


PATHS = {
    "raw": B64,
    "encoded": quote(B64, safe="").encode(),
    "lower case": quote(B64, safe="").replace("%2F", "%2f").replace("%2B", "%2b").encode(),
    "only the slash encoded": B64.replace(b"/", b"%2F"),
    "everything encoded": b"".join(b"%%%02X" % octet for octet in B64),
    "one slash too many in front": b"/" + B64,
    "an encoded slash in front": b"%2F" + B64,
    "one slash too many behind": B64 + b"/",
}


@pytest.mark.parametrize("name", PATHS)
def test_paths_of_clients(name: str) -> None:
    """Clients encode all, some or none of the base64; a plus is a plus and slashes inside stay."""
    assert b"//" in B64
    assert b"+" in B64
    assert decode_path(PATHS[name]) == DER


BAD_PATHS = {
    "slashes collapsed": B64.replace(b"//", b"/"),
    "plus turned into space": B64.replace(b"+", b"%20"),
    "padding gone": B64.rstrip(b"="),
    "url-safe alphabet": base64.urlsafe_b64encode(DER),
    "encoded twice": quote(quote(B64, safe=""), safe="").encode(),
    "no base64": b"@@@@",
    "half an escape": b"%ZZ" + B64,
    "a line feed": B64[:4] + b"%0A" + B64[4:],
    "a NUL": B64[:4] + b"%00" + B64[4:],
    "something behind the padding": B64 + b"AAAA",
    "padding inside": b"AA==" + B64,
    "dots": b"../healthz",
    "two slashes too many": b"//" + B64,
}


@pytest.mark.parametrize("name", BAD_PATHS)
def test_paths_that_are_no_request(name: str) -> None:
    """What is not base64 to the last octet is malformed, never another certificate."""
    try:
        assert decode_path(BAD_PATHS[name]) != DER
        assert name in ("slashes collapsed", "two slashes too many")
    except MalformedRequest:
        pass


def test_padding_where_none_belongs_is_malformed() -> None:
    """Four characters that are whole by themselves take no sign of padding behind them."""
    for path in (b"MAAX=", b"MAAX==", b"MAAX%3D", b"MAAX====", b"MAAXMA==="):
        with pytest.raises(MalformedRequest):
            decode_path(path)


@given(st.binary(min_size=1, max_size=60))
def test_every_der_finds_its_way(der: bytes) -> None:
    """Whatever begins like DER comes back whole from every way of writing it."""
    der = b"\x30" + der
    text = base64.b64encode(der)
    assert decode_path(text) == decode_path(quote(text, safe="").encode()) == decode_path(b"/" + text) == der
