"""CRL entries read back to rows, many at a time, as strictly as one by one.

::

    octets ─▶ where entries begin ─▶ lines of one length ─▶ one line read by ``crl_entry.read_entries``,
                                                            the others compared with it ─▶ columns ─▶ rows

Of all lines with one length and one length of serial number, the strict reader reads the first.  The
others must agree with it octet by octet, but for serial number, digits of dates and reason, which are checked
for themselves.  Lines that do not agree are read by the strict reader too, so what can be read, and what it
says, does not depend on its neighbours.
Knows: DER of entries as ``crl_entry`` reads it, as far as a row has room for it.
Does not know: the list around them, their order, or what may be wrong with them (``crl_row_facts``).
Source: RFC 5280 §5.1.2.6, §5.3; X.690 §8.3.2.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from certstatus.crl_entry import CRLEntry, encode_entry, read_entries
from certstatus.crl_row_encode import (
    Octets,
    Shape,
    ShapeColumns,
    column,
    line_at_every_octet,
    shape_columns,
)
from certstatus.crl_row_times import TimeDigits, seconds_of
from certstatus.crl_rows import (
    KEY_OCTETS,
    NO_REASON,
    ROW_BYTES,
    SECONDS_MAX,
    YEAR_2050_S,
    Rows,
    der_lengths,
    empty_rows,
    key_of,
)
from certstatus.der import GENERALIZED_TIME, INTEGER, SEQUENCE, UTC_TIME, expect
from certstatus.errors import CRLCheckFailed, DERError

_WORDS = (8, 4, 2, 1)


class RowDecoder:
    """Reads blocks of entries; ``critical`` says whether any extension of ours was critical so far."""

    def __init__(self) -> None:
        self.critical = False

    def decode(self, octets: Octets) -> tuple[Rows, int]:
        """Return the rows of the entries that are whole in *octets*, from its first octet on, and their end.

        Nothing and 0 if the first is not there as a whole, or is none.
        Raises: DERError — an entry that ``read_entries`` does not read, or a row has no room for.
        Cost:   about 22 ns an entry where all have one shape, 70 where several are mixed.
        """
        starts = _even_starts(octets)
        if starts is not None:
            length = int(octets[1]) + 2
            lines = octets[: starts * length].reshape(starts, length)
            if (lines[:, 3] == lines[0, 3]).all():
                return self._read_lines(lines), starts * length
            begins = np.arange(starts) * length
            end = starts * length
        else:
            begins, end = _uneven_starts(octets)
        return self._read_mixed(octets, begins, end), end

    def _read_mixed(self, octets: Octets, begins: NDArray[np.int64], end: int) -> Rows:
        rows = empty_rows(len(begins))
        if not len(begins):
            return rows
        whole_rows = rows.view(f"V{ROW_BYTES}")
        lengths = np.diff(begins, append=end)
        kinds = lengths << 8 | octets[np.minimum(begins + 3, end - 1)]
        for kind in np.unique(kinds):
            at = np.flatnonzero(kinds == kind)
            length = int(kind) >> 8
            lines = line_at_every_octet(octets, length)[begins[at]].view(np.uint8).reshape(len(at), length)
            whole_rows[at] = self._read_lines(lines).view(f"V{ROW_BYTES}")
        return rows

    def _read_lines(self, lines: Octets) -> Rows:
        """Return the rows of entries of one length."""
        first = lines[0].tobytes()
        entry = self._read_entry(first)
        rows = None
        if _is_written_so(entry, first):
            rows = _read_columns(lines, _shape_of(entry))
        return self._read_each(lines) if rows is None else rows

    def _read_each(self, lines: Octets) -> Rows:
        rows = empty_rows(len(lines))
        for at, line in enumerate(lines):
            serial, revoked_at, reason, invalidity = self._read_entry(line.tobytes())
            rows[at] = (
                key_of(serial),
                revoked_at,
                invalidity or 0,
                NO_REASON if reason is None else reason,
                len(serial),
                0,
                0,
            )
        rows["der_len"] = der_lengths(rows)
        return rows

    def _read_entry(self, entry_der: bytes) -> CRLEntry:
        """Read one entry, which must fit in a row."""
        (entry,), critical = read_entries(entry_der, 0, len(entry_der))
        self.critical = self.critical or critical
        if len(entry.serial) > KEY_OCTETS:
            raise DERError(f"CRL entry: serial number of {len(entry.serial)} octets, at most {KEY_OCTETS}")
        if not 0 <= entry.revoked_at_s <= SECONDS_MAX:
            raise DERError("CRL entry: revocationDate outside of 1970 to 2106")
        if entry.invalidity_at_s is not None and not 0 < entry.invalidity_at_s <= SECONDS_MAX:
            raise DERError("CRL entry: invalidityDate outside of 1970 to 2106")
        if entry.reason is not None and not 0 <= entry.reason < NO_REASON:
            raise DERError("CRL entry: reason outside of 0 to 254")
        return entry


def _is_written_so(entry: CRLEntry, entry_der: bytes) -> bool:
    try:
        return encode_entry(entry) == entry_der
    except CRLCheckFailed:
        return False


def _shape_of(entry: CRLEntry) -> Shape:
    return Shape(
        len(entry.serial),
        entry.revoked_at_s >= YEAR_2050_S,
        bool(entry.reason),
        entry.invalidity_at_s is not None,
    )


# Where entries begin -----------------------------------------------------------------------------------


def entry_starts(octets: Octets) -> tuple[NDArray[np.int64], int]:
    """Return where the entries begin that are whole in *octets*, and where the last of them ends.

    Nothing but their headers has been looked at.
    """
    starts = _even_starts(octets)
    if starts is None:
        return _uneven_starts(octets)
    length = int(octets[1]) + 2
    return np.arange(starts) * length, starts * length


def _even_starts(octets: Octets) -> int | None:
    """Return how many entries stand there if all that are whole have the length of the first, else None."""
    if len(octets) < 4 or octets[0] != SEQUENCE or octets[1] >= 0x80:
        return None
    length = int(octets[1]) + 2
    count = len(octets) // length
    if length < 4 or not count:
        return None
    heads = column(octets[: count * length].reshape(count, length), 0, "<u2")
    return count if (heads == heads[0]).all() else None


def _uneven_starts(octets: Octets) -> tuple[NDArray[np.int64], int]:
    """Return where entries of any length begin, and where the last one that is whole ends."""
    begins = _likely_starts(octets)
    # A header by its look may stand inside an entry, but if each ends where the next begins, none does.
    if len(begins) and begins[0] == 0:
        ends = begins + 2 + octets[begins + 1]
        whole = int(np.searchsorted(ends, len(octets), side="right"))
        if whole and (ends[: whole - 1] == begins[1:whole]).all():
            return begins[:whole], int(ends[whole - 1])
    return _walked_starts(octets)


def _likely_starts(octets: Octets) -> NDArray[np.int64]:
    """Return where SEQUENCE of a short length, INTEGER of at most 20 octets and a date follow each other."""
    likely = (octets[:-3] == SEQUENCE) & (octets[2:-1] == INTEGER)
    begins: NDArray[np.int64] = np.flatnonzero(likely)
    serial_octets = octets[begins + 3].astype(np.int64)
    tag = octets[np.minimum(begins + 4 + serial_octets, len(octets) - 1)]
    is_entry = (tag == UTC_TIME) | (tag == GENERALIZED_TIME)
    is_entry &= (serial_octets <= KEY_OCTETS) & (octets[begins + 1] < 0x80)
    found: NDArray[np.int64] = begins[is_entry]
    return found


def _walked_starts(octets: Octets) -> tuple[NDArray[np.int64], int]:
    """Return the same by going from each entry to the next."""
    buf = octets.tobytes()
    begins: list[int] = []
    pos = 0
    while pos < len(buf):
        try:
            _, stop = expect(buf, pos, len(buf), SEQUENCE)
        except DERError:
            break
        begins.append(pos)
        pos = stop
    return np.array(begins, np.int64), pos


# Columns -----------------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def _common_words(shape: Shape) -> tuple[tuple[int, str], ...]:
    """Return (offset, dtype) of words that together are all octets that entries of a shape have in common."""
    columns = shape_columns(shape)
    varies = bytearray(columns.octets)
    varies[columns.serial : columns.serial + shape.serial_octets] = b"\x01" * shape.serial_octets
    _mark_digits(varies, columns.revoked_at, with_century=shape.late)
    if shape.has_reason:
        varies[columns.reason] = 1
    if shape.has_invalidity:
        _mark_digits(varies, columns.invalidity, with_century=True)
    words: list[tuple[int, str]] = []
    at = 0
    while at < len(varies):
        if varies[at]:
            at += 1
            continue
        width = next(
            width for width in _WORDS if at + width <= len(varies) and not any(varies[at : at + width])
        )
        words.append((at, f"<u{width}"))
        at += width
    return tuple(words)


def _mark_digits(varies: bytearray, offset: int, *, with_century: bool) -> None:
    start = offset - 2 if with_century else offset
    varies[start : offset + 12] = b"\x01" * (offset + 12 - start)


def _read_columns(lines: Octets, shape: Shape) -> Rows | None:
    """Return the rows of *lines*, the first of which has *shape*; None if one of them is different."""
    for offset, dtype in _common_words(shape):
        word = column(lines, offset, dtype)
        if not (word == word[0]).all():
            return None
    columns = shape_columns(shape)
    revoked_at = _read_digits(lines, columns.revoked_at, with_century=shape.late)
    if revoked_at is None or (revoked_at.min() < YEAR_2050_S) == shape.late:
        return None
    rows = empty_rows(len(lines))
    rows["revoked_at"] = revoked_at
    if not _read_serials(lines, columns, shape.serial_octets, rows):
        return None
    rows["reason"] = NO_REASON
    if shape.has_reason:
        reason = lines[:, columns.reason]
        # Beyond it is a negative number; 0 has nothing in the length of a row's DER.
        if reason.max() > 0x7F or not reason.all():
            return None
        rows["reason"] = reason
    if shape.has_invalidity:
        invalidity = _read_digits(lines, columns.invalidity, with_century=True)
        if invalidity is None or not invalidity.all():
            return None
        rows["invalidity"] = invalidity
    rows["serial_octets"] = shape.serial_octets
    rows["der_len"] = columns.octets
    return rows


def _read_digits(lines: Octets, offset: int, *, with_century: bool) -> NDArray[np.uint32] | None:
    digits = TimeDigits(column(lines, offset, "<u8").copy(), column(lines, offset + 8, "<u4").copy())
    return seconds_of(digits, column(lines, offset - 2, "<u2").copy() if with_century else None)


def _read_serials(lines: Octets, columns: ShapeColumns, width: int, rows: Rows) -> bool:
    """Put the keys of *lines* into *rows*; say whether all serial numbers were minimal."""
    raw = rows.view(np.uint8).reshape(len(rows), ROW_BYTES)
    column(raw, KEY_OCTETS - width, f"V{width}")[:] = column(lines, columns.serial, f"V{width}")
    first = lines[:, columns.serial]
    if width > 1:
        begins = column(lines, columns.serial, ">u2").astype(np.uint16)
        if begins.min() < 0x80 or begins.max() >= 0xFF80:
            return False
    if first.max() >= 0x80:
        raw[:, : KEY_OCTETS - width] = np.where(first >= 0x80, 0xFF, 0).astype(np.uint8)[:, None]
    raw[:, 0] ^= np.uint8(0x80)
    return True
