"""HTTP that is unusual, wrong or hostile, and the answers pinned for each.

Knows: how each message is made for a given service.  Does not know: how it is cut into pieces.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from demo_service import Service
from request_octets import base64_of, escaped, get, get_path, post, seq


class Case(NamedTuple):
    """*said*: for each answer what its OCSP answer says in short, or else its HTTP status.

    closes   whether the connection ends after the last answer although nobody asked for that
    has      a header line that the last answer must have
    """

    row: str
    name: str
    build: Callable[[Service], bytes]
    said: str
    closes: bool = False
    has: tuple[str, str] | None = None


HOST = b"Host: ocsp.test\r\n"
TYPE = b"Content-Type: application/ocsp-request\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
ALLOW = ("Allow", "GET, HEAD, POST")


def _get(*lines: str) -> Callable[[Service], bytes]:
    return lambda auth: get(auth.request(), *lines)


def _path(change: Callable[[str], str]) -> Callable[[Service], bytes]:
    """A GET whose whole target is made from the escaped base64."""
    return lambda auth: get_path(change(escaped(auth.request())))


def _raw_path(change: Callable[[str], str]) -> Callable[[Service], bytes]:
    return lambda auth: get_path(change(base64_of(auth.request())))


def _text(change: Callable[[str], str], *needs: str) -> Callable[[Service], bytes]:
    """A GET of changed base64 that had *needs* in it."""
    return lambda auth: get_path(f"/ocsp/{change(base64_of(asking_with(auth, *needs)))}")


def asking_with(auth: Service, *needs: str) -> bytes:
    """A request for a number that was never issued, whose base64 holds all of *needs*."""
    # A serial's octets in all three places that base64 gives them.
    for shift in range(3):
        filled = b"\x41" * (1 + shift) + b"\xff" * 3 + b"\xfb\xef\xbe" * 2
        der = auth.request(int.from_bytes(filled, "big"))
        if all(need in base64_of(der) for need in needs):
            return der
    raise AssertionError(f"no number gives {needs}")


def _posted(lines: bytes, body: bytes | None = None, version: bytes = b"1.1") -> Callable[[Service], bytes]:
    """A POST with exactly these framing lines; the body is a request unless given."""

    def build(auth: Service) -> bytes:
        content = auth.request() if body is None else body
        return b"POST /ocsp HTTP/" + version + b"\r\n" + HOST + TYPE + lines + b"\r\n" + content

    return build


def _length(extra: int = 0) -> Callable[[Service], bytes]:
    return lambda auth: b"Content-Length: %d\r\n" % (len(auth.request()) + extra)


def _with_length(before: bytes, after: bytes = b"", kind: bytes = TYPE) -> Callable[[Service], bytes]:
    def build(auth: Service) -> bytes:
        der = auth.request()
        length = b"Content-Length: %d\r\n" % len(der)
        return b"POST /ocsp HTTP/1.1\r\n" + HOST + kind + before + length + after + b"\r\n" + der

    return build


def _chunked(size: int, more: bytes = b"", before: bytes = b"") -> Callable[[Service], bytes]:
    """A POST in chunks of *size* octets."""

    def build(auth: Service) -> bytes:
        der = auth.request()
        pieces = [der[at : at + size] for at in range(0, len(der), size)]
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
        head = b"POST /ocsp HTTP/1.1\r\n" + HOST + TYPE + before + CHUNKED + b"\r\n"
        return head + chunks + b"0\r\n\r\n" + more

    return build


def _method(method: str, target: str = "/ocsp") -> Callable[[Service], bytes]:
    return lambda _: get_path(target, "Content-Length: 0", method=method)


def _fixed(message: bytes) -> Callable[[Service], bytes]:
    return lambda _: message


CASES: tuple[Case, ...] = (
    # Paths.
    Case("B-H01", "encoded", _get(), "good"),
    Case("B-H02", "raw", _raw_path(lambda text: f"/ocsp/{text}"), "good"),
    Case("B-H03", "lower-case escapes", _path(lambda text: f"/ocsp/{text.replace('%2F', '%2f')}"), "good"),
    Case("B-H04", "// and + inside", _text(lambda text: text, "//", "+"), "unknown"),
    Case("B-H05", "// made /", _text(lambda text: text.replace("//", "/"), "//"), "o1"),
    Case("B-H06", "+ made %20", _text(lambda text: text.replace("+", "%20"), "+"), "o1"),
    Case("B-H07", "padding gone", lambda auth: get_path(f"/ocsp/{_padded(auth).rstrip('=')}"), "o1"),
    Case(
        "B-H08",
        "alphabet for URLs",
        _text(lambda text: text.replace("+", "-").replace("/", "_"), "+", "/"),
        "o1",
    ),
    Case("B-H09", "encoded twice", lambda auth: get_path(f"/ocsp/{_twice(auth)}"), "o1"),
    Case("B-H10", "@@@@", _fixed(get_path("/ocsp/@@@@")), "o1"),
    Case("B-H11", "%ZZ", _path(lambda text: f"/ocsp/%ZZ{text}"), "o1"),
    Case("B-H12", "%0A inside", _path(lambda text: f"/ocsp/{text[:8]}%0A{text[8:]}"), "o1"),
    Case("B-H13", "%00 inside", _path(lambda text: f"/ocsp/{text[:8]}%00{text[8:]}"), "o1"),
    Case("B-H14", "bare prefix", _fixed(get_path("/ocsp")), "400"),
    Case("B-H14", "bare prefix, slash", _fixed(get_path("/ocsp/")), "400"),
    Case("B-H14", "another path", _fixed(get_path("/other")), "404"),
    Case("B-H14", "root", _fixed(get_path("/")), "404"),
    Case("B-H15", "slash behind", _path(lambda text: f"/ocsp/{text}/"), "good"),
    Case("B-H16", "slash in front", _path(lambda text: f"/ocsp//{text}"), "good"),
    Case("B-H17", "query", _path(lambda text: f"/ocsp/{text}?a=b"), "good"),
    Case("B-H18", "bad DER", lambda auth: get(auth.request()[:-1]), "o1"),
    Case("B-H19", "9 KB target", _fixed(get_path(f"/ocsp/{'A' * 9000}")), "414", closes=True),
    Case("B-H20", "100 KB target", _fixed(get_path(f"/ocsp/{'A' * 100_000}")), "414", closes=True),
    Case("B-H21", "absolute target", _path(lambda text: f"http://elsewhere/ocsp/{text}"), "good"),
    Case("B-H22", "above the root", _path(lambda text: f"/../ocsp/{text}"), "404"),
    Case("B-H22", "out and in again", _path(lambda text: f"/ocsp/../ocsp/{text}"), "o1"),
    # Versions and hosts.
    Case(
        "B-H23",
        "GET 1.0 without Host",
        lambda auth: f"GET /ocsp/{escaped(auth.request())} HTTP/1.0\r\n\r\n".encode(),
        "good",
        closes=True,
    ),
    Case(
        "B-H24",
        "POST 1.0 without Host",
        lambda auth: b"POST /ocsp HTTP/1.0\r\n" + TYPE + _length()(auth) + b"\r\n" + auth.request(),
        "good",
        closes=True,
    ),
    Case(
        "B-H25",
        "1.1 without Host",
        lambda auth: f"GET /ocsp/{escaped(auth.request())} HTTP/1.1\r\n\r\n".encode(),
        "400",
        closes=True,
    ),
    Case("B-H26", "two Hosts", _get("Host: another.test"), "400", closes=True),
    # Methods.
    Case("B-H27", "HEAD", lambda auth: get(auth.request()).replace(b"GET", b"HEAD", 1), "200"),
    Case("B-H27", "HEAD of nonsense", _fixed(get_path("/ocsp/@@@@", method="HEAD")), "200"),
    *[
        Case("B-H28", method, _method(method), "405", has=ALLOW)
        for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE")
    ],
    Case("B-H28", "FOO", _method("FOO"), "400", closes=True),
    # Bodies and their types.
    Case("B-H29", "text/plain", _with_length(b"Content-Type: text/plain\r\n", kind=b""), "415"),
    Case("B-H30", "no type", _with_length(b"", kind=b""), "good"),
    Case(
        "B-H31",
        "type in capitals, parameter",
        _with_length(b"CONTENT-TYPE: Application/OCSP-Request; a=b\r\n", kind=b""),
        "good",
    ),
    Case(
        "B-H32", "form", _with_length(b"Content-Type: application/x-www-form-urlencoded\r\n", kind=b""), "415"
    ),
    Case("B-H33", "gzip", _with_length(b"Content-Encoding: gzip\r\n"), "415"),
    Case("B-H34", "no length", _posted(b"", b""), "411"),
    Case("B-H35", "chunked", _chunked(1000), "good"),
    Case("B-H36", "one octet a chunk", _chunked(1), "good"),
    Case("B-H37", "chunk size zz", _posted(CHUNKED, b"zz\r\n"), "400", closes=True),
    Case("B-H38", "chunk size of 17 F", _posted(CHUNKED, b"F" * 17 + b"\r\n"), "400", closes=True),
    Case(
        "B-H39",
        "chunks without end",
        _posted(
            CHUNKED, b"400\r\n" + bytes(1024) + b"\r\n" + b"".join([b"400\r\n" + bytes(1024) + b"\r\n"] * 20)
        ),
        "413",
        closes=True,
    ),
    Case(
        "B-H40",
        "length and chunks",
        lambda auth: _chunked(1000, before=_length()(auth))(auth),
        "400",
        closes=True,
    ),
    Case("B-H41", "two lengths", _with_length(b"Content-Length: 1\r\n"), "400", closes=True),
    Case(
        "B-H41", "the same length twice", lambda auth: _with_length(_length()(auth))(auth), "400", closes=True
    ),
    Case("B-H42", "length -1", _posted(b"Content-Length: -1\r\n"), "400", closes=True),
    Case(
        "B-H43",
        "length with a plus",
        lambda auth: _posted(b"Content-Length: +%d\r\n" % len(auth.request()))(auth),
        "400",
        closes=True,
    ),
    Case("B-H44", "10 GB", _posted(b"Content-Length: 10000000000\r\n", b""), "413", closes=True),
    Case("B-H45", "1 MB", _posted(b"Content-Length: 1000000\r\n", bytes(1_000_000)), "413", closes=True),
    # Headers.
    Case("B-H46", "64 KB header", _get(f"X: {'a' * 65_536}"), "431", closes=True),
    Case("B-H47", "2,000 headers", _get(*["X: a"] * 2000), "431", closes=True),
    Case("B-H48", "space before the colon", _get("X : a"), "400", closes=True),
    Case("B-H49", "folded line", _get("X: a\r\n b"), "400", closes=True),
    Case(
        "B-H50",
        "bare line feed",
        lambda auth: get(auth.request()).replace(b"\r\nHost", b"\nHost"),
        "400",
        closes=True,
    ),
    Case("B-H51", "NUL", _get("X: a\0b"), "400", closes=True),
    Case(
        "B-H52",
        "HTTP/0.9",
        lambda auth: f"GET /ocsp/{escaped(auth.request())}\r\n\r\n".encode(),
        "505",
        closes=True,
    ),
    Case("B-H53", "HTTP/2 preface", _fixed(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), "400", closes=True),
    Case(
        "B-H54",
        "TLS hello",
        _fixed(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500)),
        "400",
        closes=True,
    ),
    Case("B-H55", "HTTP/9.9", lambda auth: get(auth.request(), version="9.9"), "400", closes=True),
    # Wishes.
    Case("B-H56", "for HTML", _get("Accept: text/html"), "good"),
    Case("B-H57", "compressed", _get("Accept-Encoding: gzip, br"), "good"),
    Case("B-H58", "bogus Expect", _get("Expect: miracles"), "417"),
    Case("B-H59", "Range", _get("Range: bytes=0-9"), "good"),
    Case("B-H60", "GET with a body", lambda auth: get(auth.request(), "Content-Length: 3") + b"abc", "good"),
    Case("B-H61", "Upgrade", _get("Connection: upgrade", "Upgrade: h2c"), "good"),
    Case(
        "B-H61",
        "Upgrade between others",
        lambda auth: get(auth.request()) + _get("Connection: upgrade", "Upgrade: h2c")(auth) + get(seq()),
        "good good o1",
    ),
    Case("B-H62", "Expect: 100-continue", _with_length(b"Expect: 100-continue\r\n"), "good"),
    Case("B-H63", "21 in a row", lambda auth: get(auth.request()) * 21, " ".join(["good"] * 21)),
    Case(
        "B-H63",
        "kinds in a row",
        lambda auth: b"".join(
            (
                get(auth.request()),
                post(auth.request(auth.revoked[0])),
                get_path("/other"),
                post(seq()),
                get(auth.request(7)),
            )
        ),
        "good revoked 404 o1 unknown",
    ),
    Case(
        "B-H66",
        "more than the length",
        lambda auth: post(auth.request()) + b"xyz\r\n\r\n",
        "good 400",
        closes=True,
    ),
    # What follows in one piece never costs the first its answer.
    Case(
        "B-H68",
        "close, keep-alive",
        lambda auth: _get("Connection: close, keep-alive")(auth) * 2,
        "good",
        True,
    ),
    Case("B-H69", "conditional, then nonsense", lambda auth: _other(auth) + b"xyz\r\n\r\n", "good 400", True),
    Case("B-H69", "chunked, then nonsense", _chunked(50, b"xyz\r\n\r\n"), "good 400", True),
    Case(
        "B-H69",
        "large head, then a request",
        lambda auth: _get(f"X: {'a' * 9000}")(auth) + get(auth.request()),
        "431",
        True,
    ),
)


def _other(auth: Service) -> bytes:
    return get(auth.request(), 'If-None-Match: "another"')


def _padded(auth: Service) -> str:
    """Base64 that ends in padding."""
    for octet_count in range(1, 4):
        text = base64_of(auth.request(int.from_bytes(b"\x41" * octet_count, "big")))
        if text.endswith("="):
            return text
    raise AssertionError("one in three has none")


def _twice(auth: Service) -> str:
    return escaped(asking_with(auth, "/")).replace("%", "%25")
