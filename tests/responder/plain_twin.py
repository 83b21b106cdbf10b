"""The plain twin of ``responder.plain.recognise``: each line looked at anew, by its name and value alone."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from responder.plain import Partial, Plain

_LINE = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t -~\x80-\xff]*")
_TARGET = re.compile(rb"GET /ocsp/[0-9A-Za-z+/=%\-_.~]+|POST /ocsp/?")
_NEVER = {
    *(b"transfer-encoding content-encoding content-range expect upgrade te trailer http2-settings").split(),
    *(b"authorization proxy-authorization cookie if-match if-none-match if-modified-since").split(),
    *(b"if-unmodified-since if-range range content-location etag max-forwards server").split(),
}


def recognise_simply(buffer: bytes, head_bytes_max: int, body_bytes_max: int) -> Plain | Partial | None:
    """What ``recognise`` must return."""
    head, end, body = buffer.partition(b"\r\n\r\n")
    if not end:
        wanted = (b"GET /ocsp/", b"POST /ocsp")
        begins = any(buffer.startswith(item) or item.startswith(buffer) for item in wanted)
        return Partial.HEAD if begins and len(buffer) < head_bytes_max else None
    if len(head) > head_bytes_max:
        return None
    request_line, *lines = head.split(b"\r\n")
    target, space, version = request_line.rpartition(b" ")
    if not space or not _TARGET.fullmatch(target) or version not in (b"HTTP/1.0", b"HTTP/1.1"):
        return None
    if len(lines) > 64 or not all(map(_LINE.fullmatch, lines)):
        return None
    headers = [
        (name.lower(), value.strip(b" \t")) for name, _, value in (line.partition(b":") for line in lines)
    ]
    if any(name in _NEVER for name, _ in headers):
        return None
    of = {
        name: [value for other, value in headers if other == name]
        for name in (b"host", b"user-agent", b"content-type", b"content-length", b"connection")
    }
    once = (b"host", b"user-agent", b"content-type", b"content-length")
    if any(len(of[name]) > 1 for name in once) or (version == b"HTTP/1.1" and not of[b"host"]):
        return None
    if not all(re.fullmatch(rb"[0-9A-Za-z.\-_:\[\]]+", value) for value in of[b"host"]):
        return None
    if any(
        value.split(b";")[0].strip(b" \t").lower() != b"application/ocsp-request"
        for value in of[b"content-type"]
    ):
        return None
    if not all(re.fullmatch(rb"[0-9]{1,9}", value) for value in of[b"content-length"]):
        return None
    tokens = {value.lower() for value in of[b"connection"]}
    if tokens - {b"close", b"keep-alive"}:
        return None
    keep_alive = version == b"HTTP/1.1" and b"close" not in tokens
    length = int(of[b"content-length"][0]) if of[b"content-length"] else None
    if target.startswith(b"GET"):
        return None if length or body else Plain(target.removeprefix(b"GET /ocsp/"), b"", keep_alive)
    if length is None or length > body_bytes_max or len(body) > length:
        return None
    return Plain(None, body, keep_alive) if len(body) == length else Partial.BODY


def unescape_simply(path: bytes) -> bytes:
    """A GET's path with its escapes undone."""
    return unquote_to_bytes(path)
