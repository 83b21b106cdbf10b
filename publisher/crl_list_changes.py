"""One list from another by changes, in two ways, so that each can be held against the other.

``MovedList`` looks up what the changes concern and holds the difference beside the old list, whose length
does not matter; what is only revoked or held becomes a row by columns.  ``brought_forward`` looks nothing up:
it goes through the old list once, block by block, and through the changes one by one.

Knows: lists as sorted rows, and how to apply changes to those rows alone that they concern, a piece of them
at a time (``Changes.pieces``).
Does not know: what one change does (``crl_entries``) unless it is the plainest there is; where a list is kept
(``crl_lists``).
Source: RFC 5280 §5.2.4 (what a list at a later time must be).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from certstatus.changes import ChangeKind
from certstatus.crl_reason import CRLReason
from certstatus.crl_rows import (
    DIGEST_END,
    KNOWN_REASONS,
    NO_REASON,
    SECONDS_MAX,
    Keys,
    Rows,
    der_lengths,
    digest_of,
    empty_rows,
    entries_of,
    joined,
    keys,
    keys_of,
    rows_of,
)
from certstatus.crl_rows_merge import merged
from publisher.crl_change_rows import Changes
from publisher.crl_entries import Entries, delta_entries, fold

_PLAIN_REASONS = [*KNOWN_REASONS, int(CRLReason.UNSPECIFIED), NO_REASON]


class MovedList:
    """A list at a later number: the old one, unread, and the rows that are others by now."""

    def __init__(self, look_up: Callable[[Keys], Rows], digest: int) -> None:
        """Begin with an old list, given by its digest and what finds rows in it by their keys."""
        self._look_up = look_up
        self.digest = digest
        # Rows that are new or others, ascending; keys of those that are gone (one that is put again stays).
        self.puts: Rows = empty_rows()
        self.drops: Keys = keys_of(())

    def apply(self, changes: Changes) -> None:
        """Take over the next changes."""
        puts, drops = [], []
        for piece in changes.by_certificate().pieces():
            touched = piece.keys()
            before = self.look_up(touched)
            plain, others = _divided(piece)
            old = before[np.isin(keys(before), others.keys())]
            after = _together(plain, _after(others, old))
            self.digest = (self.digest - digest_of(before) + digest_of(after)) % DIGEST_END
            puts.append(after)
            drops.append(touched[~np.isin(touched, keys(after))])
        gone = np.concatenate([keys_of(()), *drops])
        self.puts = joined(merged([self.puts], joined(puts), gone))
        self.drops = np.union1d(self.drops, gone)

    def look_up(self, wanted: Keys) -> Rows:
        """Return the rows with keys among *wanted* (ascending), in any order."""
        put = rows_at(self.puts, wanted)
        left = wanted[~np.isin(wanted, np.concatenate([keys(put), self.drops]))]
        return np.concatenate([put, self._look_up(left)])

    def blocks(self, old: Iterable[Rows]) -> Iterator[Rows]:
        """Yield the list, given the blocks of the old one."""
        return merged(old, self.puts, self.drops)


def brought_forward(old: Iterable[Rows], changes: Changes) -> Iterator[Rows]:
    """Yield the list that *changes* make of *old*, block by block.

    Raises: CRLCheckFailed — *old* does not ascend strictly.
    """
    waiting = changes.by_certificate().rows
    there = np.ascontiguousarray(keys(waiting))
    done = 0
    for rows in old:
        if not len(rows):
            continue
        upto = int(np.searchsorted(there, keys(rows)[-1:], side="right")[0])
        mine = Changes(waiting[done:upto])
        done = upto
        yield from merged([rows], joined(_each_after(mine, rows)), mine.keys()) if mine else [rows]
    yield from _each_after(Changes(waiting[done:]), empty_rows())


def delta_rows(base: Rows, changes: Changes, shown_at: Sequence[int]) -> Rows:
    """Return what a delta says, as ``crl_entries.delta_entries``.

    Takes:  *base*: the rows that its base has of the certificates concerned (ascending; others do no harm).
    """
    said = []
    for piece in changes.by_certificate().pieces():
        plain, others = _divided(piece)
        entries = delta_entries(by_serial(rows_at(base, others.keys())), others, shown_at)
        said.append(_together(plain, rows_of(entries)))
    return joined(said)


def _divided(changes: Changes) -> tuple[Rows, Changes]:
    """Divide changes ``by_certificate``: those that nearly all are, as the rows which they make, and others.

    Of the first kind is a revocation, or hold, that is all that has happened to its certificate: list and
    delta say then what it says, whatever was there before.  By columns, which counts at a CA-key event.
    """
    rows = changes.rows
    there = np.ascontiguousarray(keys(rows))
    again = there[1:] == there[:-1]
    is_plain = (rows["kind"] == ChangeKind.REVOKED) | (rows["kind"] == ChangeKind.HELD)
    is_plain[1:] &= ~again
    is_plain[:-1] &= ~again
    # What no row can be is refused where its certificate is named.
    is_plain &= np.isin(rows["reason"], _PLAIN_REASONS)
    for seconds in (rows["recorded_ms"] // 1000, rows["invalidity"]):
        is_plain &= (seconds >= 0) & (seconds <= SECONDS_MAX)
    mine = rows[is_plain]
    plain = empty_rows(len(mine))
    for name in ("key", "serial_octets", "invalidity"):
        plain[name] = mine[name]
    plain["revoked_at"] = mine["recorded_ms"] // 1000
    reasons = np.where(mine["reason"] == CRLReason.UNSPECIFIED, NO_REASON, mine["reason"])
    plain["reason"] = np.where(mine["kind"] == ChangeKind.HELD, CRLReason.CERTIFICATE_HOLD, reasons)
    plain["der_len"] = der_lengths(plain)
    return plain, Changes(rows[~is_plain])


def _together(one: Rows, other: Rows) -> Rows:
    """Return rows of two kinds, which have no key in common, as one list."""
    if not len(other):
        return one
    rows = np.concatenate([one, other])
    return rows[np.argsort(keys(rows), kind="stable")]


def _each_after(changes: Changes, before: Rows) -> Iterator[Rows]:
    """Yield, piece by piece, what changes ``by_certificate`` make of those rows that they concern."""
    for piece in changes.pieces():
        yield _after(piece, rows_at(before, piece.keys()))


def _after(changes: Changes, before: Rows) -> Rows:
    return rows_of(fold(changes, by_serial(before)).values())


def rows_at(rows: Rows, wanted: Keys) -> Rows:
    """Return those of *rows* whose keys are among *wanted*; both ascend."""
    if not len(rows) or not len(wanted):
        return empty_rows()
    there = keys(rows)
    places = np.searchsorted(there, wanted)
    places = np.minimum(places, len(there) - 1)
    found: Rows = rows[places[there[places] == wanted]]
    return found


def by_serial(rows: Rows) -> Entries:
    """Return the entries of rows by serial number."""
    return {entry.serial: entry for entry in entries_of(rows)}
