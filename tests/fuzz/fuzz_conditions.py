"""Conditional and range headers: any text gives a decision inside the file that the rules allow.

Input: the six headers, one a line in the order of ``_HEADERS``; an empty line is a header that is not
there.  Oracles: nothing is raised; a list of tags is read as a literal reading of RFC 9110 §8.8.3 reads
it as far as it is well-formed; each status only where its header is there and can have led to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from email.utils import formatdate
from http import HTTPStatus

from responder.http_conditions import Decision, decide, entity_tags, http_date_s

_HEADERS = ("Range", "If-None-Match", "If-Match", "If-Range", "If-Modified-Since", "If-Unmodified-Since")
_TAG, _MODIFIED_S, _SIZE, _NOW_S = "ab12", 784_111_777, 1000, 784_200_000
_DATE = formatdate(_MODIFIED_S, usegmt=True)
_WELL_FORMED = re.compile(r'(W/)?"[\x21\x23-\x7e\x80-\xff]*"')

WORDS = (
    *(b'"ab12"', b'W/"ab12"', b"*", b'"', b",", b"W/", b"bytes=", b"bytes=0-", b"bytes=-1", b"-", b"\n"),
    *(_DATE.encode(), b"GMT", b"Sun, ", b" Nov ", b"1994", b"08:49:37", b"+0000", b"999999999999"),
)


def seeds() -> Iterator[tuple[str, bytes]]:
    """Each header right, and some wrong."""
    yield "none", b"\n\n\n\n\n"
    yield "range", b"bytes=10-19\n\n\n\n\n"
    yield "range-open", b"bytes=900-\n\n\n\n\n"
    yield "range-last", b"bytes=-5\n\n\n\n\n"
    yield "range-beyond", b"bytes=1000-\n\n\n\n\n"
    yield "ranges", b"bytes=0-1,3-4\n\n\n\n\n"
    yield "none-match", b'\n"x", W/"ab12"\n\n\n\n'
    yield "none-match-any", b"\n*\n\n\n\n"
    yield "match", b'\n\n"ab12"\n\n\n'
    yield "if-range", b'bytes=0-9\n\n\n"ab12"\n\n'
    yield "if-range-date", f"bytes=0-9\n\n\n{_DATE}\n\n".encode()
    yield "dates", f"\n\n\n\n{_DATE}\n{_DATE}".encode()
    yield "old-dates", b"\n\n\n\nSunday, 06-Nov-94 08:49:37 GMT\nSun Nov  6 08:49:37 1994"
    yield "all", f'bytes=0-9\n"x"\n"ab12"\n"ab12"\n{_DATE}\n{_DATE}'.encode()


def one_input(data: bytes) -> None:
    """Decide over *data*'s headers, for GET and for HEAD."""
    lines = data.decode("latin-1").split("\n", len(_HEADERS) - 1)
    headers = {name: line for name, line in zip(_HEADERS, lines, strict=False) if line}
    decision = decide("GET", headers, _TAG, _MODIFIED_S, _SIZE, _NOW_S)
    _check(decision, headers)
    head = decide("HEAD", headers, _TAG, _MODIFIED_S, _SIZE, _NOW_S)
    whole = Decision(HTTPStatus.OK, 0, _SIZE)
    partial = decision.status in (HTTPStatus.PARTIAL_CONTENT, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
    assert head == (whole if partial else decision)
    for name in ("If-None-Match", "If-Match"):
        if name in headers:
            _check_tags(headers[name])
    for name in ("If-Modified-Since", "If-Unmodified-Since", "If-Range"):
        date_s = http_date_s(headers.get(name))
        assert date_s is None or isinstance(date_s, int)


def _check(decision: Decision, headers: dict[str, str]) -> None:
    status, start, end = decision
    if status == HTTPStatus.OK:
        assert (start, end) == (0, _SIZE)
    elif status == HTTPStatus.PARTIAL_CONTENT:
        assert 0 <= start < end <= _SIZE
        assert "bytes" in headers["Range"].lower()
        _check_same(headers)
    elif status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        assert "Range" in headers
        _check_same(headers)
    elif status == HTTPStatus.NOT_MODIFIED:
        field = headers.get("If-None-Match")
        assert _holds(field) if field is not None else "If-Modified-Since" in headers
    else:
        assert status == HTTPStatus.PRECONDITION_FAILED
        assert "If-Match" in headers or "If-Unmodified-Since" in headers


def _check_same(headers: dict[str, str]) -> None:
    """A part is sent only to whoever has the rest of the same file."""
    if_range = headers.get("If-Range")
    assert if_range is None or if_range.strip() == f'"{_TAG}"' or http_date_s(if_range) == _MODIFIED_S


def _holds(field: str) -> bool:
    return "*" in field or f'"{_TAG}"' in field


def _check_tags(field: str) -> None:
    """Read the list element by element, at commas outside quotes, until the first that is none."""
    expected: list[tuple[bool, str | None]] = []
    rest = field
    while rest:
        rest = rest.lstrip()
        found = _WELL_FORMED.match(rest)
        element: list[tuple[bool, str | None]] = []
        if found:
            element = [(found[1] is not None, found[0].removeprefix("W/")[1:-1])]
            rest = rest[found.end() :]
        elif rest.startswith("*"):
            element = [(False, None)]
            rest = rest[1:]
        rest = rest.lstrip()
        if rest and not rest.startswith(","):
            break
        expected += element
        rest = rest[1:]
    read = list(entity_tags(field))
    assert read == expected, (read, expected)
