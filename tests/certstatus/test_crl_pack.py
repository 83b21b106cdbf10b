"""The octets of a pack's index, and of the list of packs: read back as written, or not at all."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certstatus.crl_pack import (
    HEADER_BYTES,
    ROW_BYTES,
    ArchiveMark,
    PackedCRL,
    PackHeader,
    PackLine,
    PackName,
    encode_contents,
    encode_header,
    encode_row,
    parse_pack_name,
    read_archive_mark,
    read_contents,
    read_header,
    read_row,
    read_rows,
    whole_octets,
)
from certstatus.errors import ArchiveDamaged

_NUMBERS = st.integers(0, 2**64 - 1)
_TIMES = st.integers(-(2**63), 2**63 - 1)
_HASHES = st.binary(min_size=32, max_size=32)
ROWS = st.builds(
    PackedCRL,
    path=st.text(st.characters(codec="ascii", exclude_characters="\0"), max_size=64),
    issuer=st.binary(min_size=16, max_size=16),
    number=_NUMBERS,
    seq=_NUMBERS,
    offset=_NUMBERS,
    size=_NUMBERS,
    this_update_s=_TIMES,
    next_update_s=_TIMES,
    published_ms=_TIMES,
    sha256=_HASHES,
)
A_ROW = PackedCRL("sign/g1/all", b"i" * 16, 7, 1, 2, 3, 4, 253_402_300_799, 6, b"h" * 32)


@given(ROWS)
def test_a_row_is_read_as_it_was_written(row: PackedCRL) -> None:
    """Every value that fits, in 192 octets."""
    octets = encode_row(row)
    assert len(octets) == ROW_BYTES
    assert read_row(octets) == row


@given(st.integers(0, ROW_BYTES - 1), st.integers(1, 255))
def test_a_row_with_one_octet_changed_is_none(at: int, change: int) -> None:
    """Its CRC says so, wherever it was."""
    octets = bytearray(encode_row(A_ROW))
    octets[at] ^= change
    assert read_row(bytes(octets)) is None


def test_a_path_that_does_not_fit_is_refused() -> None:
    """Cut off, it would be another scope's."""
    with pytest.raises(ArchiveDamaged):
        encode_row(A_ROW._replace(path="x" * 65))
    assert read_row(encode_row(A_ROW._replace(path="x" * 64))) is not None


@given(st.lists(ROWS, max_size=4), st.integers(0, ROW_BYTES - 1), st.sets(st.integers(0, 3)))
def test_what_is_torn_or_damaged_is_passed_over(rows: list[PackedCRL], torn: int, bad: set[int]) -> None:
    """Each good row counts whatever stands around it; a bad end is written over, a bad middle is not."""
    pieces = [encode_row(row) for row in rows]
    damaged = {at for at in bad if at < len(rows)}
    for at in damaged:
        pieces[at] = bytes(ROW_BYTES)
    octets = b"".join(pieces) + encode_row(A_ROW)[:torn]
    good = [row for at, row in enumerate(rows) if at not in damaged]
    assert read_rows(octets) == good
    last_good = max((at for at in range(len(rows)) if at not in damaged), default=-1)
    assert whole_octets(octets) == (last_good + 1) * ROW_BYTES


@given(
    st.builds(
        PackHeader,
        name=st.builds(PackName, st.integers(0, 2**32 - 1), st.integers(1, 2**32 - 1)),
        sealed=st.booleans(),
        rows=_NUMBERS,
        pack_bytes=_NUMBERS,
        last_next_update_s=_TIMES,
        pack_sha256=_HASHES,
        rows_sha256=_HASHES,
    )
)
def test_a_head_is_read_as_it_was_written(head: PackHeader) -> None:
    """Also with rows behind it; with an octet less, it is none."""
    octets = encode_header(head)
    assert len(octets) == HEADER_BYTES
    assert read_header(octets + b"rows") == head
    with pytest.raises(ArchiveDamaged):
        read_header(octets[:-1])
    with pytest.raises(ArchiveDamaged):
        read_header(b"CSX1" + octets[4:])


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("2026-11-29", PackName(20_786)),
        ("2026-11-29.2", PackName(20_786, 2)),
        ("2026-11-29.1", None),
        ("2026-11-29.02", None),
        ("2026-11-29.", None),
        ("2026-11-31", None),
        ("20261129", None),
        ("../2026-11-29", None),
        ("", None),
    ],
)
def test_a_pack_has_one_name(text: str, name: PackName | None) -> None:
    """The JST day, and a part from the second on; nothing else leads to a file."""
    assert parse_pack_name(text) == name
    if name is not None:
        assert str(name) == text


def test_the_list_of_packs_is_the_one_named_or_none() -> None:
    """By its hash, and each line of it of the right form."""
    lines = [PackLine("2026-11-29", 2, "ab" * 32), PackLine("2026-11-29.2", 0, "cd" * 32)]
    octets = encode_contents(lines)
    assert read_contents(octets, hashlib.sha256(octets).hexdigest()) == lines
    with pytest.raises(ArchiveDamaged):
        read_contents(octets, "ab" * 32)
    for wrong in (
        b"",
        b"{}",
        b'{"format":2,"packs":[]}',
        b'{"format":1,"packs":[{}]}',
        octets.replace(b"11-29.2", b"../../x"),
        octets.replace(b'"rows":2', b'"rows":true'),
        octets.replace(b"abab", b"xyxy"),
    ):
        assert wrong != octets
        with pytest.raises(ArchiveDamaged):
            read_contents(wrong, hashlib.sha256(wrong).hexdigest())


@pytest.mark.parametrize(
    "value",
    [None, [], {}, {"contents": "ab", "growing": []}, {"contents": "ab" * 32, "growing": [{"name": 1}]}],
)
def test_a_mark_is_read_as_it_was_written_or_refused(value: object) -> None:
    """What stands in the catalogue has a form."""
    mark = ArchiveMark("ab" * 32, (PackLine("2026-11-29", 2, "ab" * 32),))
    assert read_archive_mark(mark.as_json()) == mark
    with pytest.raises(ArchiveDamaged):
        read_archive_mark(value)
