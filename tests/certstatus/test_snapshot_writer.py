"""Writing a snapshot from sorted rows: the same bytes as merging, or nothing at all."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from certstatus.errors import SnapshotError
from certstatus.snapshot import GOOD, HELD, REVOKED, IndexRow, IssuerChanges, pack_meta, write_snapshot
from certstatus.snapshot_writer import IssuerHead, RowBlock, new_snapshot

HEAD = (bytes(16), 7, 1000, bytes(32))
marks = st.builds(
    lambda high, low: bytes(7) + bytes([high]) + bytes(3) + bytes([low]), st.integers(0, 3), st.integers(0, 9)
)
rows_by_issuer = st.dictionaries(
    st.integers(1, 3),
    st.dictionaries(
        marks, st.tuples(st.sampled_from([GOOD, REVOKED, HELD]), st.sampled_from([0, 5]), st.booleans())
    ),
    max_size=3,
)


def _row(mark: bytes, content: tuple[int, int, bool]) -> IndexRow:
    state, invalidity_s, told = content
    return IndexRow(
        mark, 20_000, state, 1, 77 if state else 0, invalidity_s if state else 0, b"h" * 32 if told else b""
    )


def _block(rows: list[IndexRow]) -> RowBlock:
    return RowBlock(
        np.array([int.from_bytes(row.fingerprint[:8], "big") for row in rows], dtype=np.uint64),
        np.array([int.from_bytes(row.fingerprint[8:], "big") for row in rows], dtype=np.uint32),
        np.array([pack_meta(row.not_after_day, row.state, row.reason) for row in rows], dtype=np.uint32),
        np.array([row.revoked_at_s for row in rows], dtype=np.uint32),
        np.array([row.invalidity_s for row in rows], dtype=np.uint32),
        [row.certificate_sha256 for row in rows],
    )


@given(rows_by_issuer, st.integers(1, 5))
def test_same_bytes_as_a_merge_with_nothing(
    content: dict[int, dict[bytes, tuple[int, int, bool]]], rows_at_once: int
) -> None:
    """Whatever the rows and however they are cut into blocks, both writers give one file."""
    changes = {}
    for issuer_id, found in content.items():
        rows = {mark: _row(mark, item) for mark, item in found.items()}
        told = {mark: row.certificate_sha256 for mark, row in rows.items() if row.certificate_sha256}
        changes[issuer_id] = IssuerChanges(rows, told, issuer_id, issuer_id * 5)
    with tempfile.TemporaryDirectory() as name:
        merged, streamed = Path(name, "merged"), Path(name, "streamed")
        write_snapshot(merged, *HEAD, changes)
        heads = [IssuerHead(number, number, number * 5) for number in sorted(changes)]
        with new_snapshot(streamed, *HEAD, heads) as writer:
            for head in heads:
                rows_in_order = [row for _, row in sorted(changes[head.issuer_id].rows.items())]
                for start in range(0, len(rows_in_order), rows_at_once):
                    writer.add(_block(rows_in_order[start : start + rows_at_once]))
                writer.end_issuer()
        assert streamed.read_bytes() == merged.read_bytes()


@pytest.mark.parametrize("blocks", [[[2, 1]], [[1, 1]], [[1, 2], [2, 3]], [[3], [1]]])
def test_rows_out_of_order_are_refused(tmp_path: Path, blocks: list[list[int]]) -> None:
    """A row that is not above the one before it, in its block or the last one, ends the writing."""
    columns = [
        _block([_row(bytes(11) + bytes([low]), (GOOD, 0, False)) for low in block]) for block in blocks
    ]
    with pytest.raises(SnapshotError, match="ascend"):
        _write(tmp_path / "x.idx", columns)
    assert not list(tmp_path.iterdir())


def _write(path: Path, blocks: list[RowBlock]) -> None:
    with new_snapshot(path, *HEAD, [IssuerHead(1)]) as writer:
        for block in blocks:
            writer.add(block)
        writer.end_issuer()


def test_an_issuer_that_is_missing_is_noticed(tmp_path: Path) -> None:
    """A snapshot of two issuers is not written with one."""
    heads = [IssuerHead(1), IssuerHead(2)]
    with (
        pytest.raises(SnapshotError, match="lacks issuers"),
        new_snapshot(tmp_path / "x.idx", *HEAD, heads) as writer,
    ):
        writer.end_issuer()
    assert not list(tmp_path.iterdir())
