"""Changes to a list as rows of fixed width: a CA-key event is one of them for every certificate there is.

::

    row, 56 bytes: key and serial_octets as ``crl_rows``, seq, recorded_ms, invalidity, scope_id, kind, reason

Knows: the row, to and from changes, and dividing them into pieces of whole certificates, so that what is made
of one piece at a time is what would be made of all at once: no change concerns another certificate's entry.
Does not know: what a change does to a list (``crl_entries``), the store.
Memory: 56 bytes a change, and as changes (700 bytes each) no more than a piece of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from certstatus.changes import ChangeKind
from certstatus.crl_rows import KEY_OCTETS, NO_REASON, Keys, keys, put_keys, serial_of
from issuance.history import RevocationChange

CHANGE = np.dtype(
    [
        ("key", f"V{KEY_OCTETS}"),
        # 0: in no partition.
        ("scope_id", "<u4"),
        ("seq", "<i8"),
        ("recorded_ms", "<i8"),
        # POSIX seconds, wider than a row of a list: what that has no room for is named when it gets there.
        ("invalidity", "<i8"),
        ("kind", "u1"),
        ("reason", "u1"),
        ("serial_octets", "u1"),
        ("zero", "V5"),
    ]
)
# Arrays of CHANGE.
ChangeRows = NDArray[np.void]

_AT_ONCE = 20_000
_KINDS = {int(kind): kind for kind in ChangeKind}


class Changes:
    """Changes of certificates, in the order in which they were recorded.

    ``not_after_s`` is no longer known of them: no list depends on it.
    """

    def __init__(self, rows: ChangeRows) -> None:
        self.rows = rows

    @classmethod
    def of(cls, changes: Iterable[RevocationChange]) -> Changes:
        """Take over changes.  Raises: CRLCheckFailed — a serial number that no CRL can have."""
        return cls(np.concatenate([np.empty(0, CHANGE), *row_blocks(changes)]))

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[RevocationChange]:
        for start in range(0, len(self.rows), _AT_ONCE):
            yield from _changes_of(self.rows[start : start + _AT_ONCE])

    def keys(self) -> Keys:
        """Return the keys of the certificates that they concern, ascending, each once."""
        return np.unique(keys(self.rows))

    def by_certificate(self) -> Changes:
        """Return them by rising key, those of one certificate in their order."""
        return Changes(self.rows[np.argsort(keys(self.rows), kind="stable")])

    def pieces(self) -> Iterator[Changes]:
        """Yield changes ``by_certificate`` in pieces, none of which breaks off within a certificate."""
        # In one piece, for else it would be copied whenever it is searched.
        there = np.ascontiguousarray(keys(self.rows))
        start = 0
        while start < len(there):
            last = min(start + _AT_ONCE, len(there)) - 1
            end = start + int(np.searchsorted(there[start:], there[last : last + 1], side="right")[0])
            yield Changes(self.rows[start:end])
            start = end


def row_blocks(changes: Iterable[RevocationChange]) -> Iterator[ChangeRows]:
    """Yield the rows of changes, block by block, in their order; raises as ``Changes.of``."""
    left = iter(changes)
    while piece := list(islice(left, _AT_ONCE)):
        rows = np.zeros(len(piece), CHANGE)
        seqs, kinds, serials, reasons, recorded_ms, _, invalidity_s, scope_ids = zip(*piece, strict=True)
        put_keys(rows, serials)
        rows["seq"], rows["kind"], rows["recorded_ms"] = seqs, kinds, recorded_ms
        rows["invalidity"] = invalidity_s
        rows["reason"] = [NO_REASON if reason is None else reason for reason in reasons]
        rows["scope_id"] = [scope_id or 0 for scope_id in scope_ids]
        yield rows


def _changes_of(rows: ChangeRows) -> Iterator[RevocationChange]:
    raw, size = rows.tobytes(), CHANGE.itemsize
    for at, seq, kind, octets, reason, recorded_ms, invalidity_s, scope_id in zip(
        range(0, len(raw), size),
        *(
            rows[name].tolist()
            for name in ("seq", "kind", "serial_octets", "reason", "recorded_ms", "invalidity", "scope_id")
        ),
        strict=True,
    ):
        yield RevocationChange(
            seq,
            _KINDS[kind],
            serial_of(raw[at : at + KEY_OCTETS], octets),
            None if reason == NO_REASON else reason,
            recorded_ms,
            0,
            invalidity_s,
            scope_id or None,
        )
