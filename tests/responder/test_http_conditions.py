"""Conditional requests and ranges, case by case of RFC 9110 §13.2.2 and §14."""

from __future__ import annotations

import time
from http import HTTPStatus

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from responder.http_conditions import Decision, decide, http_date_s

TAG = "ab12"
SIZE = 1000
MODIFIED_S = 784_111_777
MODIFIED = "Sun, 06 Nov 1994 08:49:37 GMT"
EARLIER = "Sun, 06 Nov 1994 08:49:36 GMT"
LATER = "Sun, 06 Nov 1994 08:49:38 GMT"
WHOLE = Decision(HTTPStatus.OK, 0, SIZE)
NOT_MODIFIED = Decision(HTTPStatus.NOT_MODIFIED)
FAILED = Decision(HTTPStatus.PRECONDITION_FAILED)
NOT_THERE = Decision(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)


def part(start: int, end: int) -> Decision:
    """A 206 of [start, end)."""
    return Decision(HTTPStatus.PARTIAL_CONTENT, start, end)


def ask(headers: dict[str, str], method: str = "GET", now_s: int = MODIFIED_S + 100) -> Decision:
    """Decide over the test's representation."""
    return decide(method, headers, TAG, MODIFIED_S, SIZE, now_s)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, WHOLE),
        ({"If-None-Match": '"ab12"'}, NOT_MODIFIED),
        ({"If-None-Match": 'W/"ab12"'}, NOT_MODIFIED),
        ({"If-None-Match": '"x", W/"y" , "ab12"'}, NOT_MODIFIED),
        ({"If-None-Match": "*"}, NOT_MODIFIED),
        ({"If-None-Match": '"x"'}, WHOLE),
        ({"If-None-Match": "ab12"}, WHOLE),
        ({"If-None-Match": '"a,b12", "ab12"'}, NOT_MODIFIED),
        ({"If-Modified-Since": MODIFIED}, NOT_MODIFIED),
        # Taken between the new one's date and its publication, it would be the old one.
        ({"If-Modified-Since": LATER}, WHOLE),
        ({"If-Modified-Since": EARLIER}, WHOLE),
        ({"If-Modified-Since": "Sunday, 06-Nov-94 08:49:37 GMT"}, NOT_MODIFIED),
        ({"If-Modified-Since": "Sun Nov  6 08:49:37 1994"}, NOT_MODIFIED),
        ({"If-Modified-Since": "yesterday"}, WHOLE),
        # If-None-Match decides alone.
        ({"If-None-Match": '"x"', "If-Modified-Since": LATER}, WHOLE),
        ({"If-Match": '"ab12"'}, WHOLE),
        ({"If-Match": "*"}, WHOLE),
        ({"If-Match": '"x"'}, FAILED),
        # Strong comparison.
        ({"If-Match": 'W/"ab12"'}, FAILED),
        ({"If-Match": '"ab12"', "If-None-Match": '"ab12"'}, NOT_MODIFIED),
        ({"If-Unmodified-Since": MODIFIED}, WHOLE),
        ({"If-Unmodified-Since": EARLIER}, FAILED),
        ({"If-Unmodified-Since": "never"}, WHOLE),
        # If-Match decides alone.
        ({"If-Match": '"ab12"', "If-Unmodified-Since": EARLIER}, WHOLE),
    ],
)
def test_preconditions_in_their_order(headers: dict[str, str], expected: Decision) -> None:
    """What fails first decides; a date that is none is ignored."""
    assert ask(headers) == expected
    assert ask(headers, "HEAD") == expected


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        ("bytes=0-99", part(0, 100)),
        ("bytes=900-", part(900, 1000)),
        ("bytes=-100", part(900, 1000)),
        ("bytes=-2000", part(0, 1000)),
        ("bytes=999-5000", part(999, 1000)),
        ("BYTES = 0-0", part(0, 1)),
        ("bytes=1000-", NOT_THERE),
        ("bytes=1000-2000", NOT_THERE),
        ("bytes=-0", NOT_THERE),
        # Not understood or malformed: as if it were absent.
        ("lines=0-99", WHOLE),
        ("bytes=99-0", WHOLE),
        ("bytes=-", WHOLE),
        ("bytes=a-b", WHOLE),
        ("bytes", WHOLE),
        ("bytes=0-99999999999999999999999999", WHOLE),
        # Digits, but not HTTP's: Arabic-Indic, fullwidth.
        ("bytes=\u0661-\u0662", WHOLE),
        ("bytes=-\uff15", WHOLE),
        # Several: the whole, which costs less than many parts.
        ("bytes=0-1,5-6", WHOLE),
        ("bytes=0-1," * 5000 + "5-6", WHOLE),
    ],
)
def test_ranges(ranges: str, expected: Decision) -> None:
    """One range is cut to what is there; everything else means the whole, or nothing of it is there."""
    assert ask({"Range": ranges}) == expected


@pytest.mark.parametrize(
    ("if_range", "holds"),
    [
        ('"ab12"', True),
        (MODIFIED, True),
        ('"x"', False),
        ('W/"ab12"', False),
        (LATER, False),
        (EARLIER, False),
        ("ab12", False),
        ("*", False),
    ],
)
def test_if_range_is_exact_or_the_whole_is_sent(if_range: str, holds: bool) -> None:
    """A resumed download never mixes two CRLs: with another tag or date the whole comes."""
    assert ask({"Range": "bytes=10-19", "If-Range": if_range}) == (part(10, 20) if holds else WHOLE)


def test_a_date_is_no_strong_validator_in_its_own_second() -> None:
    """Two CRLs of one second cannot be told apart by their date."""
    headers = {"Range": "bytes=10-19", "If-Range": MODIFIED}
    assert ask(headers, now_s=MODIFIED_S) == WHOLE
    assert ask(headers, now_s=MODIFIED_S + 1) == part(10, 20)


def test_a_date_that_several_have_had_says_nothing() -> None:
    """After a clock was set back several CRLs carry one date: no 304, no part, and 412 when it matters."""

    def decided(**headers: str) -> Decision:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        now_s = MODIFIED_S + 100
        return decide("GET", named, TAG, MODIFIED_S, SIZE, now_s, is_date_its_own=False)

    assert decided(If_Modified_Since=MODIFIED) == WHOLE
    assert decided(Range="bytes=10-19", If_Range=MODIFIED) == WHOLE
    assert decided(If_Unmodified_Since=MODIFIED) == FAILED
    assert decided(If_Unmodified_Since=LATER) == WHOLE
    assert decided(If_None_Match='"ab12"') == NOT_MODIFIED
    assert decided(Range="bytes=10-19", If_Range='"ab12"') == part(10, 20)


def test_range_means_nothing_for_head_and_less_than_a_precondition() -> None:
    """HEAD has no ranges; 304 and 412 come before 206."""
    assert ask({"Range": "bytes=0-9"}, "HEAD") == WHOLE
    assert ask({"Range": "bytes=0-9", "If-None-Match": '"ab12"'}) == NOT_MODIFIED
    assert ask({"Range": "bytes=0-9", "If-Match": '"x"'}) == FAILED


# The first text drawn on a machine waits for a table of all characters to be made.
@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(
        st.sampled_from(
            ["If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since", "Range", "If-Range"]
        ),
        st.text(max_size=40) | st.sampled_from(['"ab12"', MODIFIED, "bytes=1-2", "bytes=-5", "*"]),
    ),
    st.sampled_from(["GET", "HEAD"]),
)
def test_any_headers_give_a_decision_inside_the_file(headers: dict[str, str], method: str) -> None:
    """Whatever stands in the headers, nothing is raised and no byte outside the file is promised."""
    decision = decide(method, headers, TAG, MODIFIED_S, SIZE, MODIFIED_S)
    if decision.status == HTTPStatus.PARTIAL_CONTENT:
        assert 0 <= decision.start < decision.end <= SIZE
    elif decision.status == HTTPStatus.OK:
        assert (decision.start, decision.end) == (0, SIZE)


@given(st.text(max_size=60))
def test_any_text_is_a_date_or_none(text: str) -> None:
    """Reading a date never raises."""
    result = http_date_s(text)
    assert result is None or isinstance(result, int)


@pytest.mark.parametrize(
    "headers",
    [
        {"If-None-Match": '"x",' + " " * 20_000 + "x"},
        {"If-Match": " " * 20_000 + "x"},
        {"If-None-Match": '"x"' + " " * 20_000 + "x"},
        {"If-None-Match": "W/" * 20_000},
        {"Range": "bytes=" + " " * 20_000 + "x"},
        {"Range": "bytes=1" + " " * 20_000 + "x"},
        {"If-Modified-Since": " " * 20_000 + "x"},
    ],
    ids=["list", "list from the start", "after a tag", "weak marks", "range", "after a digit", "date"],
)
def test_a_field_made_to_take_long_takes_no_time(headers: dict[str, str]) -> None:
    """Blanks are passed over once, not once for each of them."""
    began_s = time.process_time()
    ask(headers)
    # By the square of its length it would be seconds.
    assert time.process_time() - began_s < 0.2
