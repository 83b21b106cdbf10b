"""Lists of revoked certificates to be measured with: as many as wanted, sorted, as an issuer has them.

Knows: drawing them, a day's changes to them, and writing both as files of rows.
Does not know: what is measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from certstatus.crl_rows import NO_REASON, ROW_BYTES, Keys, Rows, der_lengths, empty_rows, keys
from certstatus.crl_rows_file import RowsFile, RowsHead, write_rows
from certstatus.crl_rows_merge import merged

THIS_UPDATE_S = 1_790_000_000
_FIRST_S = 1_600_000_000
_AT_ONCE = 1 << 16
# Serial numbers are random, 16 octets; their first octet lies between these, so that all have 16.
_LOWEST, _HIGHEST = 0x01 << 56, 0x7F << 56
_REASONS = np.array([1, 3, 4, 5], np.uint8)


class Changes(NamedTuple):
    """What has changed since a list: rows that are new or another, keys that are gone."""

    puts: Rows
    drops: Keys


def draw_rows(count: int, *, mixed: bool = False) -> Iterator[Rows]:
    """Yield so many rows, ascending; *mixed*: every seventh without a reason, every fiftieth with a date."""
    drawn = np.random.default_rng(1)
    for start in range(0, count, _AT_ONCE):
        size = min(_AT_ONCE, count - start)
        rows = empty_rows(size)
        octets = rows.view(np.uint8).reshape(size, ROW_BYTES)
        # Spread over all there are, each stretch sorted by itself: what random numbers are when sorted.
        low, high = (_LOWEST + (_HIGHEST - _LOWEST) * place // count for place in (start, start + size))
        first = np.unique(drawn.integers(low, high, size, dtype=np.uint64))
        while len(first) < size:
            first = np.unique(np.append(first, drawn.integers(low, high, dtype=np.uint64)))
        octets[:, 0] = 0x80
        octets[:, 4:12] = first.astype(">u8").view(np.uint8).reshape(size, 8)
        octets[:, 12:20] = drawn.integers(0, 256, (size, 8), dtype=np.uint8)
        rows["revoked_at"] = drawn.integers(_FIRST_S, THIS_UPDATE_S, size, dtype=np.uint32)
        rows["reason"] = drawn.choice(_REASONS, size)
        rows["serial_octets"] = 16
        if mixed:
            rows["reason"][drawn.random(size) < 1 / 7] = NO_REASON
            dated = drawn.random(size) < 1 / 50
            rows["invalidity"][dated] = rows["revoked_at"][dated] - np.uint32(86_400)
        rows["der_len"] = der_lengths(rows)
        yield rows


def draw_changes(source: RowsFile, count: int) -> Changes:
    """Return so many changes to a list: half are new, a quarter for another reason, a quarter gone."""
    if not count:
        return Changes(empty_rows(), keys(empty_rows()))
    step = max(source.head.rows // count, 1)
    rows = np.concatenate([block[::step].copy() for block in source.blocks(step * 64)])[:count]
    new, other, gone = rows[0::2], rows[1::4].copy(), rows[3::4]
    new = new.copy()
    # Beside one that is there, and so as good as random.
    new.view(np.uint8).reshape(-1, ROW_BYTES)[:, 19] ^= 0x55
    new["revoked_at"] = THIS_UPDATE_S - 1
    other["reason"] = 9
    other["der_len"] = der_lengths(other)
    puts = np.concatenate([new, other])
    return Changes(puts[np.argsort(keys(puts), kind="stable")], keys(gone).copy())


def write_list(path: Path, rows: int, *, mixed: bool = False) -> None:
    """Write a file of so many rows."""
    write_rows(path, RowsHead(bytes(16), 1, 1, 1), draw_rows(rows, mixed=mixed))


def write_next(path: Path, source: Path, count: int) -> None:
    """Write the list that comes of *count* changes to the one at *source*."""
    with RowsFile(source) as file:
        changes = draw_changes(file, count)
        write_rows(path, file.head._replace(seq=2), merged(file.blocks(), *changes))
