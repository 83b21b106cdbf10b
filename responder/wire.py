"""HTTP answers as bytes; the one place where they are rendered, whoever reads the request.

Knows: status lines and headers of everything a worker says.  An OCSP answer's head is made
once, with the answer; ``Date`` and ``max-age`` are joined in when it is written and never
kept.  OCSP errors travel in HTTP 200, because clients report any other status as a network
error and lose it; they may not be kept by any cache.
Does not know: which answer is right; connections.
Source: RFC 9919 §6, §7.2 and RFC 6960 A.2 (OCSP over HTTP); RFC 9110 §8.8, §15.4.5, §10.2.3.
"""

from __future__ import annotations

import time
from functools import lru_cache
from http import HTTPStatus

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

# What stands between max-age and the date: who may keep an answer, and that no cache may change it.
PUBLIC = b", public, no-transform, must-revalidate\r\nDate: "
PRIVATE = b", private, no-transform, must-revalidate\r\nDate: "
END = b"\r\n\r\n"
CLOSE_END = b"\r\nConnection: close\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
# Ready-made digits for every max-age an answer usually has.
SECONDS = tuple(b"%d" % seconds for seconds in range(4096))


@lru_cache(maxsize=4096)
def http_date(posix_s: int) -> bytes:
    """Return ``Sun, 06 Nov 1994 08:49:37 GMT`` (RFC 9110 §5.6.7), whatever the locale."""
    year, month, day, hour, minute, second, weekday, _, _ = time.gmtime(posix_s)
    text = f"{_DAYS[weekday]}, {day:02} {_MONTHS[month - 1]} {year} {hour:02}:{minute:02}:{second:02} GMT"
    return text.encode("ascii")


def seconds(count: int) -> bytes:
    """Return *count* as digits; negative counts are 0."""
    if 0 <= count < len(SECONDS):
        return SECONDS[count]
    return b"%d" % max(0, count)


def answer_head(body_bytes: int, validators: bytes) -> bytes:
    """Return an OCSP answer's head up to where max-age's digits follow."""
    return (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/ocsp-response\r\nContent-Length: %d\r\n%b"
        b"Cache-Control: max-age=" % (body_bytes, validators)
    )


def not_modified_head(validators: bytes) -> bytes:
    """Return the head of 304 up to max-age's digits (RFC 9110 §15.4.5)."""
    return b"HTTP/1.1 304 Not Modified\r\n%bCache-Control: max-age=" % validators


def validators(last_modified_s: int, etag: bytes, expires_s: int) -> bytes:
    """Return the header lines by which a cache recognises an answer."""
    return b'Last-Modified: %b\r\nETag: "%b"\r\nExpires: %b\r\n' % (
        http_date(last_modified_s),
        etag,
        http_date(expires_s),
    )


def refusal_head(body_bytes: int, retry_after_s: int | None) -> bytes:
    """Return an OCSP error's head up to where the date follows."""
    retry = b"" if retry_after_s is None else b"Retry-After: %d\r\n" % retry_after_s
    return (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/ocsp-response\r\nContent-Length: %d\r\n"
        b"Cache-Control: no-store\r\n%bDate: " % (body_bytes, retry)
    )


def plain_answer(
    status: HTTPStatus, now_s: int, headers: bytes = b"", *, body: bool = True, close: bool = False
) -> bytes:
    """Return a whole answer that says only its status; *headers* are lines with their line ends.

    *body* False: the same headers without the text, for HEAD.
    """
    text = status.phrase.encode("ascii") + b"\n"
    return b"".join(
        (
            b"HTTP/1.1 %d %b\r\nContent-Type: text/plain\r\n" % (status, status.phrase.encode("ascii")),
            b"Content-Length: %d\r\n%bCache-Control: no-store\r\nDate: " % (len(text), headers),
            http_date(now_s),
            CLOSE_END if close else END,
            text if body else b"",
        )
    )
