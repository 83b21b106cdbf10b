"""Which entries a CRL has: changes folded to the list as it stands, and to what a delta must say.

Knows: what each change does to an entry, and that a certificate which left the list must be named
in a delta (removeFromCRL) exactly if some CRL since the base has shown it.
Does not know: numbers, dates of issue, bytes.
Source: RFC 5280 §5.2.4 (content of deltas), §5.3.1 (reasons).  No I/O.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence

from certstatus.changes import ChangeKind
from certstatus.crl_entry import CRLEntry
from certstatus.crl_reason import CRLReason
from issuance.history import RevocationChange

# serial -> entry
Entries = dict[bytes, CRLEntry]


def apply_change(entries: Entries, change: RevocationChange) -> None:
    """Do to *entries* what *change* does to the list; a change without memory of what was before it.

    A reason change keeps date and invalidity date, and one of a certificate that has lapsed does nothing.
    """
    serial, kind = change.serial, change.kind
    if kind in (ChangeKind.REVOKED, ChangeKind.HELD):
        reason = CRLReason.CERTIFICATE_HOLD if kind is ChangeKind.HELD else _reason(change.reason)
        entries[serial] = CRLEntry(serial, change.recorded_ms // 1000, reason, change.invalidity_s or None)
    elif kind is ChangeKind.REASON_CHANGED:
        before = entries.get(serial)
        if before is not None:
            entries[serial] = before._replace(reason=_reason(change.reason))
    else:
        entries.pop(serial, None)


def fold(changes: Iterable[RevocationChange], start: Mapping[bytes, CRLEntry] | None = None) -> Entries:
    """Return the list after *changes*, beginning with *start* (default: empty)."""
    entries = dict(start or {})
    for change in changes:
        apply_change(entries, change)
    return entries


def delta_entries(
    base: Mapping[bytes, CRLEntry], changes: Iterable[RevocationChange], shown_at: Sequence[int]
) -> list[CRLEntry]:
    """Return what a delta to *base* says after *changes*.

    Takes:   the base's entries; the changes after it, in order; the numbers of the sequence, rising,
             at which CRLs after the base were made.
    Gives:   the last state of every certificate whose status changed, also when only its reason did;
             removeFromCRL, dated when it left, for what the base or a later CRL has listed.
    """
    entries = dict(base)
    changed: dict[bytes, None] = {}
    entered: dict[bytes, int] = {}
    left: dict[bytes, CRLEntry] = {}
    for change in changes:
        serial = change.serial
        was_listed = serial in entries
        apply_change(entries, change)
        is_listed = serial in entries
        if is_listed:
            changed[serial] = None
            if not was_listed:
                entered[serial] = change.seq
        elif was_listed:
            changed[serial] = None
            since = entered.pop(serial, None)
            if since is None or _was_shown(shown_at, since, change.seq):
                left[serial] = CRLEntry(serial, change.recorded_ms // 1000, CRLReason.REMOVE_FROM_CRL)
    found = [entries.get(serial) or left.get(serial) for serial in changed]
    return [entry for entry in found if entry is not None]


def _was_shown(shown_at: Sequence[int], since: int, until: int) -> bool:
    """Say whether a CRL was made when the entry was in the list: at a number in [since, until)."""
    at = bisect_left(shown_at, since)
    return at < len(shown_at) and shown_at[at] < until


def _reason(reason: int | None) -> int | None:
    return None if reason == CRLReason.UNSPECIFIED else reason
