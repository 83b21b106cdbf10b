"""Entries and rows of every shape, for the tests of what reads and writes them many at a time."""

from __future__ import annotations

import random
from collections.abc import Sequence

from hypothesis import strategies as st

from certstatus import der
from certstatus.crl_entry import CRLEntry
from certstatus.crl_rows import SECONDS_MAX

_SECONDS = st.one_of(
    st.integers(0, SECONDS_MAX),
    # The turns of the century, UTCTime's last second, and the edges of 32 bits.
    st.sampled_from(
        [
            0,
            1,
            946_684_799,
            946_684_800,
            2_524_607_999,
            2_524_608_000,
            4_102_444_799,
            4_102_444_800,
            SECONDS_MAX,
        ]
    ),
)
SERIALS = st.one_of(
    st.integers(-(1 << 159), (1 << 159) - 1),
    st.integers(-300, 300),
    st.sampled_from([0, -1, 127, 128, -128, -129, (1 << 159) - 1, -(1 << 159), 1 << 127, (1 << 127) - 1]),
).map(der.integer_content)
ENTRIES = st.lists(
    st.builds(
        CRLEntry,
        SERIALS,
        _SECONDS,
        st.sampled_from([None, 1, 2, 3, 4, 5, 6, 8, 9, 10]),
        st.none() | st.integers(1, SECONDS_MAX) | _SECONDS.filter(bool),
    ),
    max_size=30,
    unique_by=lambda entry: entry.serial,
)


def ordered(entries: Sequence[CRLEntry]) -> list[CRLEntry]:
    """As they stand in a list, and read back: ascending, and unspecified left out."""
    in_order = sorted(entries, key=lambda entry: int.from_bytes(entry.serial, "big", signed=True))
    return [entry._replace(reason=entry.reason or None) for entry in in_order]


def usual_entries(count: int, seed: int = 1, *, mixed: bool = False) -> list[CRLEntry]:
    """Many entries as an issuer of today has them: 16 octets, a reason; *mixed*: some without, some dated."""
    numbers = random.Random(seed)
    found = {numbers.getrandbits(126) | 1 << 126 for _ in range(count)}
    while len(found) < count:
        found.add(numbers.getrandbits(126) | 1 << 126)
    return [
        CRLEntry(
            der.integer_content(number),
            numbers.randrange(1_600_000_000, 1_750_000_000),
            numbers.choice((None, 1, 4, 5)) if mixed else 1,
            numbers.choice((None, None, 1_500_000_000)) if mixed else None,
        )
        for number in sorted(found)
    ]
