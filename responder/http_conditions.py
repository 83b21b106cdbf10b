"""Conditional requests and ranges, decided: headers in, what is to be sent out.

Knows: the precedence of RFC 9110 §13.2.2 in full, strong and weak comparison of entity tags,
HTTP dates in their three forms, and byte ranges; a request for several ranges gets the whole.
A date earns a 304 only if it is exactly ours: what is dated earlier may have been published later,
after the reader had taken what was there before.
Does not know: sockets, files, what is being transferred.
Source: RFC 9110 §8.8.3, §13.1, §13.2.2, §14.1-14.2, §5.6.7.

    If-Match, else If-Unmodified-Since     false ──▶ 412
    If-None-Match, else If-Modified-Since  false ──▶ 304
    Range, and If-Range true or absent           ──▶ 206, or 416 when nothing of it is there
    otherwise                                    ──▶ 200
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import NamedTuple

# Possessive throughout: what does not match fails in one pass, however it was made up.
_TAG = re.compile(r'\s*+(?:(W/)?"([\x21\x23-\x7e\x80-\xff]*+)"|(\*))?+\s*+(?:,|\Z)')
# Not \d, which takes the digits of every script.
_RANGE = re.compile(r"\s*+([0-9]*+)\s*+-\s*+([0-9]*+)\s*+")
# A number of more digits is beyond any file and not worth converting.
_DIGITS_MAX = 18


class Decision(NamedTuple):
    """What to send: status, and for 200 and 206 which bytes, [start, end)."""

    status: HTTPStatus
    start: int = 0
    end: int = 0


def decide(
    method: str,
    headers: Mapping[str, str],
    etag: str,
    last_modified_s: int,
    size: int,
    now_s: int,
    *,
    is_date_its_own: bool = True,
) -> Decision:
    """Return what a GET or HEAD of a representation of *size* bytes is answered.

    Takes: *etag* without quotes, strong; header names in any case (a case-insensitive mapping);
    several lines of one header joined by commas; *is_date_its_own*: nothing else under this name has
    had the same date, so that the date says which one a reader has.
    """
    whole = Decision(HTTPStatus.OK, 0, size)
    if _fails(headers, etag, last_modified_s, is_date_its_own):
        return Decision(HTTPStatus.PRECONDITION_FAILED)
    if _has_it(headers, etag, last_modified_s, is_date_its_own):
        return Decision(HTTPStatus.NOT_MODIFIED)
    wanted = headers.get("Range")
    # Range is defined for GET only (§14.2).
    if wanted is None or method != "GET":
        return whole
    if_range = headers.get("If-Range")
    # A date is a strong validator only if it lies a second behind the answer's own (§8.8.2.2).
    is_strong = is_date_its_own and last_modified_s < now_s
    if if_range is not None and not _is_same(if_range, etag, last_modified_s if is_strong else None):
        # Another CRL by now: a part of it would be glued to a part of the old one.
        return whole
    part = _byte_range(wanted, size)
    if part is None:
        return whole
    if part[0] >= part[1]:
        return Decision(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
    return Decision(HTTPStatus.PARTIAL_CONTENT, *part)


def _fails(headers: Mapping[str, str], etag: str, last_modified_s: int, is_date_its_own: bool) -> bool:
    """Say whether If-Match, or in its absence If-Unmodified-Since, is false."""
    match = headers.get("If-Match")
    if match is not None:
        return not _has_tag(match, etag, strong=True)
    date_s = http_date_s(headers.get("If-Unmodified-Since"))
    if date_s is None:
        return False
    return last_modified_s > date_s or (last_modified_s == date_s and not is_date_its_own)


def _has_it(headers: Mapping[str, str], etag: str, last_modified_s: int, is_date_its_own: bool) -> bool:
    """Say whether If-None-Match, or in its absence If-Modified-Since, is false."""
    none_match = headers.get("If-None-Match")
    if none_match is not None:
        return _has_tag(none_match, etag, strong=False)
    # A later date is that of a reader's own clock and says nothing of what it has.
    return is_date_its_own and http_date_s(headers.get("If-Modified-Since")) == last_modified_s


def http_date_s(text: str | None) -> int | None:
    """Return an HTTP date as POSIX seconds; None if it is absent or no date, and then to be ignored."""
    if text is None:
        return None
    try:
        parsed = parsedate_to_datetime(text)
        return int((parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp())
    except (ValueError, TypeError, OverflowError):
        return None


def entity_tags(field: str) -> Iterator[tuple[bool, str | None]]:
    """Yield what a list of entity tags holds: whether it is weak, and the tag without its quotes.

    ``*`` is yielded as None, as it is no tag: ``"*"`` is one.  Ends where the list is malformed.
    """
    at = 0
    while at < len(field):
        found = _TAG.match(field, at)
        if found is None:
            # Not a list of tags from here on; what was read before counts.
            return
        weak, tag, any_tag = found.groups()
        if any_tag or tag is not None:
            yield weak is not None, tag
        at = found.end()


def _has_tag(field: str, etag: str, *, strong: bool) -> bool:
    """Say whether a list of entity tags holds *etag*; ``*`` holds every one."""
    return any(
        tag is None or (tag == etag and not (strong and is_weak)) for is_weak, tag in entity_tags(field)
    )


def _is_same(if_range: str, etag: str, strong_date_s: int | None) -> bool:
    """Say whether If-Range holds: strong comparison of the one tag, or exactly the date (§13.1.5)."""
    text = if_range.strip()
    if text.startswith(('"', "W/")):
        return text == f'"{etag}"'
    return strong_date_s is not None and http_date_s(text) == strong_date_s


def _byte_range(field: str, size: int) -> tuple[int, int] | None:
    """Return the one range asked for as [start, end), empty if it is not there; None: send the whole.

    The whole also for units we do not know, ranges that are malformed, and several of them: a
    multipart answer would cost more than it saves.
    """
    unit, separator, ranges = field.partition("=")
    if not separator or unit.strip().lower() != "bytes" or "," in ranges:
        return None
    found = _RANGE.fullmatch(ranges)
    if found is None:
        return None
    first, last = found.groups()
    if len(first) > _DIGITS_MAX or len(last) > _DIGITS_MAX or not (first or last):
        return None
    if not first:
        # The last so many bytes.
        return max(0, size - int(last)), size
    if last and int(last) < int(first):
        return None
    return int(first), min(int(last) + 1, size) if last else size
