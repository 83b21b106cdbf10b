"""Rows: to and from entries, their digest, their files, and one list from another."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from row_cases import ENTRIES, SERIALS, ordered, usual_entries

from certstatus import clock, crl_rows, crl_rows_file
from certstatus.crl_entry import CRLEntry, encode_entry
from certstatus.crl_row_facts import RowFacts, facts_of
from certstatus.crl_row_times import TimeDigits, century_digits_of, digits_of, seconds_of
from certstatus.crl_rows import (
    KEY_OCTETS,
    SECONDS_MAX,
    Rows,
    digest_of,
    empty_rows,
    entries_of,
    key_of,
    keys,
    keys_of,
    rows_of,
    serial_of,
)
from certstatus.crl_rows_file import RowsFile, RowsHead, write_rows
from certstatus.crl_rows_merge import merged, same_rows
from certstatus.der import read_time
from certstatus.errors import CRLCheckFailed, DERError, IntegrityError

_HEAD = RowsHead(bytes(range(16)), 3, 4, 5)


def _blocks(rows: Rows, size: int) -> Iterator[Rows]:
    return (rows[start : start + size] for start in range(0, len(rows), size))


# Rows and entries ---------------------------------------------------------------------------------------


@given(ENTRIES)
def test_rows_are_the_entries_in_order(entries: list[CRLEntry]) -> None:
    """Nothing is lost, the order is that of the numbers, and the length is that of the DER."""
    rows = rows_of(entries)
    assert entries_of(rows) == ordered(entries)
    assert rows["der_len"].tolist() == [len(encode_entry(entry)) for entry in ordered(entries)]
    assert crl_rows.ascend(rows)
    assert (rows_of(entries_of(rows)) == rows).all()


@given(SERIALS, SERIALS)
def test_keys_compare_as_the_numbers_do(one: bytes, other: bytes) -> None:
    """Octet by octet, also between negative numbers and numbers of different lengths."""
    first, second = (int.from_bytes(serial, "big", signed=True) for serial in (one, other))
    assert (key_of(one) < key_of(other)) == (first < second)
    assert serial_of(key_of(one), len(one)) == one


@pytest.mark.parametrize(
    ("finding", "entries"),
    [
        ("pkix.crl_serial_duplicate", [CRLEntry(b"\x05", 1), CRLEntry(b"\x06", 1), CRLEntry(b"\x05", 2)]),
        ("pkix.crl_serial_not_minimal", [CRLEntry(b"", 1)]),
        ("pkix.crl_serial_not_minimal", [CRLEntry(b"\x00\x05", 1)]),
        ("pkix.crl_serial_not_minimal", [CRLEntry(b"\xff\x85", 1)]),
        ("pkix.crl_serial_too_long", [CRLEntry(b"\x01" * 21, 1)]),
        ("pkix.crl_reason_unknown", [CRLEntry(b"\x05", 1, 7)]),
        ("pkix.crl_reason_unknown", [CRLEntry(b"\x05", 1, 300)]),
        ("certstatus.crl_row_time_out_of_range", [CRLEntry(b"\x05", -1)]),
        ("certstatus.crl_row_time_out_of_range", [CRLEntry(b"\x05", SECONDS_MAX + 1)]),
        ("certstatus.crl_row_time_out_of_range", [CRLEntry(b"\x05", 1, None, 0)]),
        ("certstatus.crl_row_time_out_of_range", [CRLEntry(b"\x05", 1, None, SECONDS_MAX + 1)]),
    ],
)
def test_entries_that_no_row_can_be_are_refused(finding: str, entries: list[CRLEntry]) -> None:
    """Each by name, and none is changed to fit."""
    with pytest.raises(CRLCheckFailed) as refused:
        rows_of(entries)
    assert refused.value.findings == [finding]


def test_the_certificates_that_no_row_has_room_for_are_named() -> None:
    """Not the others of the list; of very many the first, and how many more."""
    late = [CRLEntry(bytes((serial,)), SECONDS_MAX + 1) for serial in range(1, 10)]
    with pytest.raises(CRLCheckFailed, match=r"time_out_of_range: certificate 04$"):
        rows_of([CRLEntry(b"\x03", 1), late[3], CRLEntry(b"\x05", 1, None, 7)])
    with pytest.raises(CRLCheckFailed, match=r"certificate 0a$"):
        rows_of([CRLEntry(b"\x03", 1), CRLEntry(b"\x0a", 1, None, 0)])
    with pytest.raises(CRLCheckFailed, match=r"certificate 01, 02, 03, 04, 05 and 4 others$"):
        rows_of(late)


@given(ENTRIES, st.integers(1, 30))
def test_facts_of_rows_are_those_of_entries(entries: list[CRLEntry], size: int) -> None:
    """Noted block by block as noted at once."""
    facts = RowFacts()
    for block in _blocks(rows_of(entries), size):
        facts.add(block)
    expected = facts_of(ordered(entries))
    octets = sum(len(encode_entry(entry)) for entry in entries)
    assert facts.der_octets == octets
    for name in ("count", "unsorted", "duplicate", "not_positive", "serial_octets", "reasons"):
        assert getattr(facts, name) == getattr(expected, name), name
    assert facts.latest_revoked_at_s == expected.latest_revoked_at_s
    assert facts.invalid_after_revoked == expected.invalid_after_revoked


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize(
    ("serials", "unsorted", "duplicate"),
    [
        (b"\x01\x02\x03\x04", False, False),
        (b"\x01\x02\x02\x04", False, True),
        (b"\x01\x03\x02\x04", True, False),
        (b"\xff\x01\x01\x00", True, True),
    ],
)
def test_facts_notice_the_order(serials: bytes, unsorted: bool, duplicate: bool, size: int) -> None:
    """Within blocks and from one to the next."""
    rows = np.concatenate([rows_of([CRLEntry(bytes((octet,)), 1)]) for octet in serials])
    facts = RowFacts()
    for block in _blocks(rows, size):
        facts.add(block)
    assert (facts.unsorted, facts.duplicate) == (unsorted, duplicate)
    assert facts.not_positive == (min(serials, key=lambda octet: octet ^ 0x80) ^ 0x80 <= 0x80)


# Times --------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, SECONDS_MAX), max_size=20))
def test_digits_are_those_of_the_clock(seconds: list[int]) -> None:
    """Written as one by one, and read back, with the century and (through 2049) without."""
    moments = np.array(seconds, np.uint32)
    digits, centuries = digits_of(moments), century_digits_of(moments)
    for at, second in enumerate(seconds):
        parts = centuries[at], digits.to_hour[at], digits.to_second[at]
        assert b"".join(part.tobytes() for part in parts) + b"Z" == clock.generalized_time(second)
    back = seconds_of(digits, centuries)
    assert back is not None
    assert back.tolist() == seconds
    early = moments[moments < crl_rows.YEAR_2050_S]
    back = seconds_of(digits_of(early))
    assert back is not None
    assert back.tolist() == early.tolist()


_DIGIT = st.sampled_from(b"0123456789")
_ANY_TWELVE = st.one_of(
    st.binary(min_size=12, max_size=12),
    st.lists(_DIGIT, min_size=12, max_size=12).map(bytes),
    st.tuples(
        st.integers(0, 99),
        st.integers(0, 14),
        st.integers(0, 33),
        st.integers(0, 25),
        st.integers(0, 61),
        st.integers(0, 61),
    ).map(lambda parts: b"%02d%02d%02d%02d%02d%02d" % parts),
)


@given(_ANY_TWELVE, st.sampled_from([None, b"19", b"20", b"21", b"22", b"1:", b"91"]))
def test_no_digits_are_taken_that_are_no_moment(digits: bytes, century: bytes | None) -> None:
    """Whatever the octets, it is a moment to both readers, the same one, or to neither."""
    both = TimeDigits(np.frombuffer(digits[:8], "<u8"), np.frombuffer(digits[8:], "<u4"))
    found = seconds_of(both, None if century is None else np.frombuffer(century, "<u2"))
    text = b"\x17\x0d" + digits + b"Z" if century is None else b"\x18\x0f" + century + digits + b"Z"
    try:
        expected: int | None = read_time(text, 0, len(text))[0]
    except DERError as error:
        # GeneralizedTime for a year that UTCTime can say is a moment all the same.
        if "UTCTime can say" in str(error):
            return
        expected = None
    if expected is not None and not 0 <= expected <= SECONDS_MAX:
        expected = None
    assert (None if found is None else found.tolist()) == (None if expected is None else [expected])


# Digest -------------------------------------------------------------------------------------------------


def test_digest_is_of_a_set() -> None:
    """The order of blocks and rows does not matter, and a row can be taken away again."""
    rows = rows_of(usual_entries(1000, mixed=True))
    whole = digest_of(rows)
    assert whole == sum(digest_of(block) for block in _blocks(rows, 7)) % (1 << 128)
    assert whole == digest_of(rows[np.random.default_rng(1).permutation(len(rows))])
    assert digest_of(rows[1:]) == (whole - digest_of(rows[:1])) % (1 << 128)
    assert digest_of(empty_rows()) == 0
    # Fixed: it stands in files.
    assert digest_of(rows_of([CRLEntry(b"\x05", 1, 1, 1)])) == 35183254406290338365676508325333083686


def test_digest_notices_each_bit_and_each_exchange() -> None:
    """A flipped bit anywhere in what it covers; the same field exchanged between two rows."""
    rows = rows_of(usual_entries(2, mixed=True))
    digest = digest_of(rows)
    seen = {digest}
    for bit in range(30 * 8):
        changed = rows.copy()
        changed.view(np.uint8)[bit // 8] ^= 1 << bit % 8
        seen.add(digest_of(changed))
    assert len(seen) == 1 + 30 * 8
    for octet in range(30):
        changed = rows.copy()
        octets = changed.view(np.uint8).reshape(2, 32)
        octets[:, octet] = octets[::-1, octet].copy()
        assert (digest_of(changed) == digest) == (changed == rows).all()


# Files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_file_gives_its_rows_back(tmp_path: Path, size: int) -> None:
    """Written in blocks of any size, read in blocks of any size, with what its head says of them."""
    rows = rows_of(usual_entries(100, mixed=True))
    head = write_rows(tmp_path / "rows", _HEAD, _blocks(rows, size))
    assert head == _HEAD._replace(rows=100, der_octets=int(rows["der_len"].sum()), digest=digest_of(rows))
    with RowsFile(tmp_path / "rows") as file:
        assert file.head == head
        for at_once in (1, 7, 100, 1000):
            assert (np.concatenate(list(file.checked_blocks(at_once))) == rows).all()
    assert [path.name for path in tmp_path.iterdir()] == ["rows"]


def test_an_empty_list_has_a_file_too(tmp_path: Path) -> None:
    """No rows, and nothing is found in it."""
    head = write_rows(tmp_path / "rows", _HEAD, [])
    assert head == _HEAD
    with RowsFile(tmp_path / "rows") as file:
        assert list(file.checked_blocks()) == []
        assert len(file.look_up(keys_of([b"\x05"]))) == 0


@pytest.mark.parametrize(
    ("finding", "spoil"),
    [
        ("pkix.crl_entries_unsorted", lambda rows: rows[::-1].copy()),
        ("pkix.crl_serial_duplicate", lambda rows: rows[[0, 1, 1, 2]]),
        ("pkix.crl_reason_unknown", lambda rows: _with(rows, "reason", 7)),
        ("certstatus.crl_row_length_wrong", lambda rows: _with(rows, "der_len", 50)),
        ("certstatus.crl_row_length_wrong", lambda rows: _with(rows, "zero", 1)),
    ],
)
def test_wrong_rows_are_not_written(tmp_path: Path, finding: str, spoil: object) -> None:
    """Refused by name, also where the fault is between two blocks; no file is left."""
    rows = spoil(rows_of(usual_entries(3)))  # type: ignore[operator]
    for size in (1, 10):
        with pytest.raises(CRLCheckFailed) as refused:
            write_rows(tmp_path / "rows", _HEAD, _blocks(rows, size))
        assert finding in refused.value.findings
    assert list(tmp_path.iterdir()) == []


def _with(rows: Rows, name: str, value: int) -> Rows:
    rows[name][1] = value
    return rows


def test_a_damaged_file_is_noticed(tmp_path: Path) -> None:
    """Any bit of the head when it is opened, any other length too, any bit of a row when all is read."""
    path = tmp_path / "rows"
    write_rows(path, _HEAD, [rows_of(usual_entries(3))])
    whole = path.read_bytes()
    for octet in range(crl_rows_file.HEAD_BYTES):
        path.write_bytes(whole[:octet] + bytes((whole[octet] ^ 1,)) + whole[octet + 1 :])
        with pytest.raises(IntegrityError):
            RowsFile(path)
    for content in (whole[:100], whole[:-1], whole + b"\x00", b""):
        path.write_bytes(content)
        with pytest.raises(IntegrityError):
            RowsFile(path)
    for row in range(3):
        for octet in range(30):
            at = crl_rows_file.HEAD_BYTES + 32 * row + octet
            path.write_bytes(whole[:at] + bytes((whole[at] ^ 0x40,)) + whole[at + 1 :])
            with RowsFile(path) as file, pytest.raises(IntegrityError):
                list(file.checked_blocks())


def test_a_file_cut_while_it_is_read_is_noticed(tmp_path: Path) -> None:
    """Rather than rows that are not there."""
    path = tmp_path / "rows"
    write_rows(path, _HEAD, [rows_of(usual_entries(10))])
    with RowsFile(path) as file:
        os.truncate(path, path.stat().st_size - 32)
        with pytest.raises(IntegrityError):
            list(file.blocks())


@pytest.mark.parametrize("count", [1, 2, 4095, 4096, 4097, 20_000])
@pytest.mark.parametrize("even", [True, False])
def test_keys_are_looked_up(tmp_path: Path, count: int, even: bool) -> None:
    """Those that are there, and no others, also where the serial numbers lie in heaps."""
    entries = usual_entries(count)
    if not even:
        numbers = random.Random(2)
        values = {1 << numbers.randrange(150) | numbers.getrandbits(20) for _ in range(count)}
        entries = [CRLEntry(value.to_bytes(20, "big").lstrip(b"\x00"), 1, 1) for value in values]
        entries = [entry for entry in entries if entry.serial[0] < 0x80]
    rows = rows_of(entries)
    write_rows(tmp_path / "rows", _HEAD, [rows])
    wanted = keys_of(
        [entry.serial for entry in entries[::37]] + [entry.serial for entry in usual_entries(50, 9)]
    )
    there = np.isin(keys(rows), wanted)
    with RowsFile(tmp_path / "rows") as file:
        for _ in range(2):
            assert (file.look_up(wanted) == rows[there]).all()
            assert file.look_up(wanted).shape == rows[there].shape


# One list from another ----------------------------------------------------------------------------------


@given(ENTRIES, ENTRIES, st.lists(SERIALS, max_size=10), st.integers(1, 10), st.data())
def test_merging_is_what_dictionaries_do(
    old: list[CRLEntry], new: list[CRLEntry], gone: list[bytes], size: int, data: st.DataObject
) -> None:
    """Changes to what is there, and to what is not, in blocks of any size."""
    if old:
        gone = gone + data.draw(st.lists(st.sampled_from([entry.serial for entry in old]), max_size=10))
        again = data.draw(st.lists(st.sampled_from(old), max_size=5, unique_by=lambda entry: entry.serial))
        new = [
            *{entry.serial: entry for entry in (*new, *(item._replace(reason=9) for item in again))}.values()
        ]
    expected = {entry.serial: entry for entry in old}
    for serial in gone:
        expected.pop(serial, None)
    expected |= {entry.serial: entry for entry in new}
    found = list(merged(_blocks(rows_of(old), size), rows_of(new), keys_of(gone)))
    assert [entry for block in found for entry in entries_of(block)] == ordered(list(expected.values()))
    assert all(len(block) for block in found)
    assert same_rows(found, _blocks(rows_of(list(expected.values())), 3))


def test_what_is_not_in_order_is_not_merged() -> None:
    """Neither a list nor changes that do not ascend strictly, nor blocks that do not follow each other."""
    rows = rows_of(usual_entries(4))
    none = keys(empty_rows())
    for old, puts in (
        ([rows[::-1]], empty_rows()),
        ([rows[2:], rows[:2]], empty_rows()),
        ([rows[:2], rows[1:]], empty_rows()),
        ([rows], rows[[1, 0]]),
    ):
        with pytest.raises(CRLCheckFailed):
            list(merged(old, puts, none))


def test_lists_that_differ_are_not_the_same() -> None:
    """In one row, in length, in order; the division into blocks does not matter."""
    rows = rows_of(usual_entries(50))
    assert same_rows(_blocks(rows, 7), _blocks(rows, 11))
    assert same_rows([], [empty_rows()])
    changed = rows.copy()
    changed["revoked_at"][49] ^= 1
    for other in (changed, rows[:-1], rows[1:], rows[::-1]):
        assert not same_rows(_blocks(rows, 7), _blocks(other, 11))
        assert not same_rows(_blocks(other, 7), _blocks(rows, 11))


def test_keys_are_sorted_with_zeros_at_their_end() -> None:
    """numpy leaves out NUL octets at the end of strings; two keys that differ there are two keys."""
    serials = [bytes(11).join((b"\x01", octet)) for octet in (b"\x00", b"\x01")]
    assert len(keys_of(serials)) == 2
    assert keys_of(serials).dtype.itemsize == KEY_OCTETS
    assert [
        entry.serial for entry in entries_of(rows_of([CRLEntry(serial, 1) for serial in serials]))
    ] == serials
