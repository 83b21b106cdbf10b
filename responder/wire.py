"""HTTP answers as bytes; the one place where they are rendered, whoever reads the request.

Knows: status lines and headers of everything a worker says.  Most of an OCSP answer's head is
shared with the others of its second; ``Date`` and ``max-age`` are joined in when it is written
and never kept.  OCSP errors travel in HTTP 200, because clients report any other status as a
network error and lose it; they may not be kept by any cache.
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


@lru_cache(maxsize=1024)
def answer_start(body_bytes: int, last_modified_s: int) -> bytes:
    """Return an OCSP answer's head up to its tag, in whose quotation marks the tag follows."""
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/ocsp-response\r\nContent-Length: %d\r\n%b" % (
        body_bytes,
        _validators(last_modified_s),
    )


def not_modified_start(last_modified_s: int) -> bytes:
    """Return the head of the 304 in an answer's place, up to its tag (RFC 9110 §15.4.5)."""
    return b"HTTP/1.1 304 Not Modified\r\n" + _validators(last_modified_s)


def _validators(last_modified_s: int) -> bytes:
    """Return the lines by which a cache recognises an answer, as far as the tag's first quotation mark."""
    return b'Last-Modified: %b\r\nETag: "' % http_date(last_modified_s)


@lru_cache(maxsize=1024)
def tag_end(expires_s: int) -> bytes:
    """Return what stands between an answer's tag and max-age's digits."""
    return b'"\r\nExpires: %b\r\nCache-Control: max-age=' % http_date(expires_s)


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
