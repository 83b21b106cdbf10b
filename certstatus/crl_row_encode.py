"""CRL entries in DER, written a block of rows at a time.

Entries differ in shape (how long the serial number, UTCTime or GeneralizedTime, which extensions); all of
one shape have the same length and most octets in common.  So a block is written shape by shape: a table
with the common octets filled in, the others copied in by columns, and the table's lines put where they
belong.  Mostly there is one shape, and its table is the block.
Knows: the octets of entries.  Gives what ``crl_entry.encode_entry`` gives, entry by entry.
Does not know: the list around them, order, or which rows may be on it (``crl_row_facts``).
Source: RFC 5280 §5.1.2.6, §5.3.1, §5.3.2.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from certstatus.crl_entry import CRLEntry, encode_entry
from certstatus.crl_reason import CRLReason
from certstatus.crl_row_times import century_digits_of, digits_of
from certstatus.crl_rows import KEY_OCTETS, NO_REASON, ROW, ROW_BYTES, YEAR_2050_S, Rows
from certstatus.errors import CRLCheckFailed

Octets = NDArray[np.uint8]

# The longest entry: serial number of 20 octets, a date from 2050 on, reason and invalidity date.
DER_OCTETS_MAX = 81
_TABLES_KEPT = 8


class Shape(NamedTuple):
    """What the length of an entry depends on."""

    serial_octets: int
    late: bool
    has_reason: bool
    has_invalidity: bool


class ShapeColumns(NamedTuple):
    """Where what differs between entries of one shape stands, and an entry with all that does not.

    The offsets of the digits of a date are those of its year's last two.
    """

    template: bytes
    serial: int
    revoked_at: int
    reason: int
    invalidity: int

    @property
    def octets(self) -> int:
        """The length of every entry of the shape."""
        return len(self.template)


@lru_cache(maxsize=256)
def shape_columns(shape: Shape) -> ShapeColumns:
    """Return the columns of a shape, found in entries that differ in one thing each."""
    serial = b"\x01" * shape.serial_octets
    revoked_at = YEAR_2050_S if shape.late else 0
    reason = CRLReason.KEY_COMPROMISE if shape.has_reason else None
    invalidity = 1 if shape.has_invalidity else None
    plain = CRLEntry(serial, revoked_at, reason, invalidity)
    template = encode_entry(plain)

    def place(other: CRLEntry) -> int:
        """Return the offset of the first octet in which *other* differs."""
        return next(at for at, octet in enumerate(encode_entry(other)) if octet != template[at])

    day = 86_400 * 365
    # By two years from 1971, so that it is the second digit of the year that differs.
    return ShapeColumns(
        template,
        place(plain._replace(serial=b"\x02" * shape.serial_octets)),
        place(plain._replace(revoked_at_s=revoked_at + 2 * day)) - 1,
        place(plain._replace(reason=CRLReason.SUPERSEDED)) if shape.has_reason else 0,
        place(plain._replace(invalidity_at_s=1 + 2 * day)) - 1 if shape.has_invalidity else 0,
    )


class RowEncoder:
    """Writes blocks of at most *rows_at_once* rows, into memory that it keeps."""

    def __init__(self, rows_at_once: int = 8192) -> None:
        self.rows_at_once = rows_at_once
        self._tables: dict[Shape, Octets] = {}
        self._block = np.empty(0, np.uint8)

    def encode(self, rows: Rows) -> Octets:
        """Return the entries of *rows* one after another.  The next call writes over them.

        Raises: CRLCheckFailed — a row whose ``der_len`` is not that of its entry.
        Cost:   about 12 ns a row where all have one shape, 60 where several are mixed.
        """
        count = len(rows)
        if not count:
            return self._block[:0]
        rows = np.ascontiguousarray(rows)
        lengths, octets = rows["der_len"], rows["serial_octets"]
        if (lengths == lengths[0]).all() and (octets == octets[0]).all():
            return self._encode_shape(_shape_of(rows), rows).reshape(-1)
        places = np.cumsum(lengths, dtype=np.int64)
        total = int(places[-1])
        places -= lengths
        if len(self._block) < total:
            self._block = np.empty(max(total, self.rows_at_once * DER_OCTETS_MAX), np.uint8)
        found = octets.astype(np.uint16) << np.uint16(8) | lengths
        # As plain bytes: numpy copies records field by field.
        whole_rows = rows.view(f"V{ROW_BYTES}")
        for kind in np.unique(found):
            at = np.flatnonzero(found == kind)
            some = whole_rows[at].view(ROW)
            lines = self._encode_shape(_shape_of(some), some)
            line_at_every_octet(self._block, lines.shape[1])[places[at]] = _as_lines(lines)
        return self._block[:total]

    def _encode_shape(self, shape: Shape, rows: Rows) -> Octets:
        """Return a table of one line per row, all of which must have *shape*."""
        count = len(rows)
        columns = shape_columns(shape)
        _check_shape(shape, columns.octets, rows)
        table = self._tables.get(shape)
        if table is None or len(table) < count:
            if sum(map(len, self._tables.values())) > _TABLES_KEPT * self.rows_at_once:
                # There are 160 shapes, and a list may have a stretch of each.
                self._tables.clear()
            lines = max(count, min(self.rows_at_once, 2 * count))
            table = np.tile(np.frombuffer(columns.template, np.uint8), (lines, 1))
            self._tables[shape] = table
        table = table[:count]
        width = shape.serial_octets
        raw = rows.view(np.uint8).reshape(count, ROW_BYTES)
        column(table, columns.serial, f"V{width}")[:] = column(raw, KEY_OCTETS - width, f"V{width}")
        if width == KEY_OCTETS:
            table[:, columns.serial] ^= np.uint8(0x80)
        _put_digits(table, columns.revoked_at, rows["revoked_at"], with_century=shape.late)
        if shape.has_reason:
            table[:, columns.reason] = rows["reason"]
        if shape.has_invalidity:
            _put_digits(table, columns.invalidity, rows["invalidity"], with_century=True)
        return table


def column(table: Octets, offset: int, dtype: str) -> NDArray[Any]:
    """Return what stands at *offset* in every line of a table as one column, not copied."""
    return np.ndarray(len(table), dtype, table, offset, table.strides[:1])


def line_at_every_octet(block: Octets, octets: int) -> NDArray[np.void]:
    """Return *block* as overlapping pieces of *octets* octets, one from every octet on, not copied."""
    return np.ndarray(max(len(block) - octets + 1, 0), f"V{octets}", block, strides=(1,))


def _as_lines(table: Octets) -> NDArray[np.void]:
    lines: NDArray[np.void] = table.view(f"V{table.shape[1]}").reshape(-1)
    return lines


def _put_digits(table: Octets, offset: int, seconds: NDArray[np.uint32], *, with_century: bool) -> None:
    digits = digits_of(seconds)
    column(table, offset, "<u8")[:] = digits.to_hour
    column(table, offset + 8, "<u4")[:] = digits.to_second
    if with_century:
        column(table, offset - 2, "<u2")[:] = century_digits_of(seconds)


def _shape_of(rows: Rows) -> Shape:
    """Return the shape of the first row."""
    row = rows[0]
    return Shape(
        int(row["serial_octets"]),
        bool(row["revoked_at"] >= YEAR_2050_S),
        bool(row["reason"] != NO_REASON),
        bool(row["invalidity"] != 0),
    )


def _check_shape(shape: Shape, octets: int, rows: Rows) -> None:
    """Refuse rows of one length that are not of one shape, or not of this length."""
    revoked_at, reason, invalidity = rows["revoked_at"], rows["reason"], rows["invalidity"]
    same = (
        1 <= shape.serial_octets <= KEY_OCTETS
        and octets == rows["der_len"][0]
        and (revoked_at.min() >= YEAR_2050_S if shape.late else revoked_at.max() < YEAR_2050_S)
        and (reason.max() < NO_REASON if shape.has_reason else reason.min() == NO_REASON)
        and (invalidity.min() > 0 if shape.has_invalidity else not invalidity.any())
    )
    if not same:
        raise CRLCheckFailed(["certstatus.crl_row_length_wrong"])
