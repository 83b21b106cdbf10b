"""Recognising a plain request: one whole message that can be answered without a web server.

::

    buffer ──▶ Plain     exactly one GET or POST on the OCSP path that ends where the buffer ends
           ──▶ Partial   the beginning of what may become one
           ──▶ None      anything else: goes, the whole buffer, to the full parser

Recognition is by strict patterns, so that nothing unusual is let through: no folded line, no
space before a colon, no bare line feed, no control octet, no absolute target; and every header
that could change what the message means must be one of few.  What a line means is remembered.
Knows: also how a GET's path is turned back into DER.
Does not know: connections, answers.  Source: RFC 9112 §3, §5, §6; RFC 6960 A.1.
"""

from __future__ import annotations

import binascii
import re
from enum import Enum
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from certstatus.errors import MalformedRequest

PATH = b"/ocsp"
_CONTENT_TYPE = b"application/ocsp-request"
_LENGTH_DIGITS_MAX = 9
# More than any client sends, and fewer than the full parser refuses.
_LINES_MAX = 64
_GET_START = b"GET /ocsp/"
_POST_START = b"POST /ocsp"
_END = b"\r\n\r\n"
# As numbers: looking for an octet takes a sixth of the time that looking for octets does.
_PERCENT, _SLASH = b"%/"

# Possessive throughout: a request that does not match fails in one pass, however it was made up.
_REQUEST_LINE = re.compile(rb"(?:GET /ocsp/([0-9A-Za-z+/=%\-_.~]++)|POST /ocsp/?+) HTTP/1\.([01])\r\n")
# A whole head of what clients and proxies usually send, in any order; every client that was recorded
# (``bench/real_clients.toml``) is among them.  A User-Agent or X-Forwarded-For that nobody has sent before
# then costs no more than another.  ``(?(n)(?!)...)``: not again, if group n has matched.
_USUAL_HEAD = re.compile(
    rb"""
    (?:GET[ ]/ocsp/([0-9A-Za-z+/=%\-_.~]++) | POST[ ]/ocsp/?+) [ ]HTTP/1\.([01])\r\n
    (?:(?: (?:Accept(?:-[A-Za-z]++)? | X-[0-9A-Za-z\-]++):[ ][\x20-\x7e]*+
         | Connection:[ ](?:[Kk]eep-[Aa]live | ([Cc]lose))
         | (?(4)(?!) | (Host:[ ][0-9A-Za-z.\-_:]++))
         | (?(5)(?!) | (User-Agent:[ ][\x20-\x7e]*+))
         | (?(6)(?!) | (Content-[Tt]ype:[ ]application/ocsp-request))
         | (?(7)(?!) | Content-Length:[ ]([0-9]{1,9}+))
       )\r\n){0,12}
    \r\n
    """,
    re.VERBOSE,
)
# An unfinished head is matched anew at every octet that comes, so only within so many.
_USUAL_OCTETS_MAX = 2048
_AGENT = b"User-Agent:"
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++")
# What a value consists of: everything but control octets, the tab excepted.
_VALUE_OCTETS = b"\t" + bytes(range(0x20, 0x7F)) + bytes(range(0x80, 0x100))
# Headers that change what a message means, or say who sends it.
_NEVER_PLAIN = frozenset(
    {
        b"transfer-encoding",
        b"content-encoding",
        b"content-range",
        b"expect",
        b"upgrade",
        b"te",
        b"trailer",
        b"http2-settings",
        b"authorization",
        b"proxy-authorization",
        b"cookie",
        b"if-match",
        b"if-none-match",
        b"if-modified-since",
        b"if-unmodified-since",
        b"if-range",
        b"range",
        # No client sends these; two of one of them are in error (RFC 9110 §5.3).
        b"content-location",
        b"etag",
        b"max-forwards",
        b"server",
    }
)
_LOOKED_AT = (
    frozenset({b"host", b"user-agent", b"connection", b"content-length", b"content-type"}) | _NEVER_PLAIN
)
_HOST = re.compile(rb"[0-9A-Za-z.\-_:\[\]]+")


# Clients send the same few header lines over and over, most of them in the same few blocks; longer ones
# are not worth remembering.
_KNOWN_LINES_MAX = 1024
_KNOWN_LINE_OCTETS_MAX = 200
_KNOWN_BLOCKS_MAX = 512
_KNOWN_BLOCK_OCTETS_MAX = 500


# What a header line means for its message; a Content-Length means its number.  Plain numbers, because
# looking up a member of an Enum takes 0.1 µs in Python 3.11.
_NOTHING, _NOT_PLAIN, _IS_HOST, _IS_AGENT, _IS_TYPE, _IS_CLOSE = range(-6, 0)


class Partial(Enum):
    """What is still missing of a message that may become plain."""

    HEAD = "head"
    BODY = "body"


class Plain(NamedTuple):
    """A plain request.

    path         what follows ``/ocsp/`` in a GET; None for a POST, whose DER is *body*
    keep_alive   False for HTTP/1.0 whatever it asks for, and after ``Connection: close``
    """

    path: bytes | None
    body: bytes
    keep_alive: bool


def recognise(buffer: bytes, head_bytes_max: int, body_bytes_max: int) -> Plain | Partial | None:
    """Return what *buffer*, all that a connection has sent since its last answer, begins with.

    Takes:   limits in bytes; a head or body beyond them is not plain.
    Cost:    1.1 µs for a usual head, whatever a client says of itself in it (2.5 µs line by line); of others
             1.6 µs with headers that came together before, 0.5 µs more with six that came before, 1 µs more
             for each that did not.
    """
    usual = _USUAL_HEAD.match(buffer, 0, _USUAL_OCTETS_MAX)
    if usual is not None and usual.end() <= head_bytes_max:
        path, minor, close, host, _, _, digits = usual.groups()
        is_1_1 = minor == b"1"
        if is_1_1 and host is None:
            return None
        length = None if digits is None else int(digits)
        keep_alive, body_at = is_1_1 and close is None, usual.end()
    else:
        head_end = buffer.find(_END)
        if head_end < 0:
            return Partial.HEAD if len(buffer) < head_bytes_max and _may_become_plain(buffer) else None
        if head_end > head_bytes_max:
            return None
        match = _REQUEST_LINE.match(buffer)
        if match is None:
            return None
        path, minor = match.groups()
        block = buffer[match.end() : head_end]
        framing = (_known_headers if len(block) <= _KNOWN_BLOCK_OCTETS_MAX else _read_headers)(
            block, minor == b"1"
        )
        if framing is None:
            return None
        length, keep_alive = framing
        body_at = head_end + len(_END)
    if path is not None:
        if length or len(buffer) != body_at:
            return None
        return Plain(path, b"", keep_alive)
    if length is None or length > body_bytes_max:
        return None
    missing = body_at + length - len(buffer)
    if missing > 0:
        return Partial.BODY
    return Plain(None, buffer[body_at:], keep_alive) if missing == 0 else None


def _may_become_plain(buffer: bytes) -> bool:
    return buffer.startswith((_GET_START, _POST_START)) or (
        len(buffer) < len(_POST_START) and (_GET_START.startswith(buffer) or _POST_START.startswith(buffer))
    )


def _read_headers(block: bytes, is_1_1: bool) -> tuple[int | None, bool] | None:
    """Return (Content-Length, keep alive?) if every header is one that a plain request may have."""
    hosts = agents = types = 0
    length: int | None = None
    keep_alive = is_1_1
    lines = block.split(b"\r\n") if block else ()
    if len(lines) > _LINES_MAX:
        return None
    for line in lines:
        # What clients say of themselves differs most, and is read in as little time as it is recalled.
        if len(line) > _KNOWN_LINE_OCTETS_MAX or line.startswith(_AGENT):
            means = _read_line(line)
        else:
            means = _known_line(line)
        if means == _NOTHING:
            continue
        if means == _NOT_PLAIN:
            return None
        if means == _IS_HOST:
            hosts += 1
        elif means == _IS_AGENT:
            agents += 1
        elif means == _IS_TYPE:
            types += 1
        elif means == _IS_CLOSE:
            keep_alive = False
        elif length is None:
            length = means
        else:
            return None
    # Two of any of these are in error, for which the full parser has the words.
    if hosts > 1 or agents > 1 or types > 1 or (is_1_1 and hosts == 0):
        return None
    return length, keep_alive


def _read_line(line: bytes) -> int:
    """Return what one header line means."""
    name, colon, value = line.partition(b":")
    # Taking octets out costs a third of matching them.
    if not colon or value.translate(None, _VALUE_OCTETS):
        return _NOT_PLAIN
    if line.startswith(_AGENT):
        return _IS_AGENT
    if _NAME.fullmatch(name) is None:
        return _NOT_PLAIN
    name = name.lower()
    if name not in _LOOKED_AT:
        return _NOTHING
    if name in _NEVER_PLAIN:
        return _NOT_PLAIN
    value = value.strip(b" \t")
    if name == b"host":
        return _IS_HOST if _HOST.fullmatch(value) else _NOT_PLAIN
    if name == b"user-agent":
        return _IS_AGENT
    if name == b"content-type":
        return _IS_TYPE if is_ocsp_request_type(value) else _NOT_PLAIN
    if name == b"content-length":
        return int(value) if value.isdigit() and len(value) <= _LENGTH_DIGITS_MAX else _NOT_PLAIN
    if name == b"connection":
        token = value.lower()
        if token == b"close":
            return _IS_CLOSE
        return _NOTHING if token == b"keep-alive" else _NOT_PLAIN
    raise AssertionError(f"{name!r} is looked at, but not understood")


_known_line = lru_cache(_KNOWN_LINES_MAX)(_read_line)
_known_headers = lru_cache(_KNOWN_BLOCKS_MAX)(_read_headers)


def is_ocsp_request_type(value: bytes) -> bool:
    """Say whether a Content-Type is that of an OCSP request, in any case and with any parameters."""
    return value.partition(b";")[0].strip(b" \t").lower() == _CONTENT_TYPE


def decode_path(path: bytes) -> bytes:
    """Return the DER in what follows ``/ocsp/`` in a GET's path.

    Base64 in the standard alphabet, any of it percent-encoded or not; ``+`` is a plus.  One
    slash too many in front (an address that ends in one, joined with another) or behind is
    passed over; slashes inside belong to the base64.
    Raises: MalformedRequest — not base64 to the last octet.
    Source: RFC 6960 A.1; RFC 4648 §4.
    """
    text = path
    if _PERCENT in text:
        # What base64 has to escape, as nearly every client writes it; whatever else, if there is more.
        text = text.replace(b"%2F", b"/").replace(b"%2B", b"+").replace(b"%3D", b"=")
        if _PERCENT in text:
            text = unquote_to_bytes(text)
    # DER begins with 30, its base64 with "M", so a leading slash is never part of it.
    if text and text[0] == _SLASH:
        text = text[1:]
    odd = len(text) % 4
    if odd == 1 and text.endswith(b"/"):
        text, odd = text[:-1], 0
    if odd or text.endswith(b"==="):
        # Python's decoder lets padding pass behind what needs none.
        raise MalformedRequest("path: not base64: not a multiple of four characters, or padded in vain")
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error as exc:
        raise MalformedRequest(f"path: not base64: {exc}") from exc
