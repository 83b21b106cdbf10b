"""Deltas of random change lists against a brute-force reading of RFC 5280 §5.2.4."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from certstatus.changes import ChangeKind
from certstatus.crl_entry import CRLEntry
from certstatus.crl_reason import CRLReason
from issuance.history import RevocationChange
from publisher.crl_entries import Entries, delta_entries, fold

KINDS = (
    ChangeKind.REVOKED,
    ChangeKind.HELD,
    ChangeKind.RELEASED,
    ChangeKind.LAPSED,
    ChangeKind.REASON_CHANGED,
)
_CHANGES = st.lists(
    st.tuples(st.sampled_from(KINDS), st.integers(0, 3), st.sampled_from((None, 0, 1, 4))), max_size=30
)


def _changes(drawn: list[tuple[ChangeKind, int, int | None]]) -> list[RevocationChange]:
    return [
        RevocationChange(seq, kind, bytes([1 + serial]), reason, 1_800_000_000_000 + seq * 5000, 0, 0)
        for seq, (kind, serial, reason) in enumerate(drawn, 1)
    ]


@settings(max_examples=400, deadline=None)
@given(drawn=_CHANGES, base_seq=st.integers(0, 30), cuts=st.sets(st.integers(0, 30), max_size=5))
def test_delta_says_exactly_what_the_rule_asks(
    drawn: list[tuple[ChangeKind, int, int | None]], base_seq: int, cuts: set[int]
) -> None:
    """Listed: whose entry is not what it was throughout; removeFromCRL: gone, and on the base or a later
    CRL; nothing else.  And the delta takes every CRL since the base to the present list."""
    changes = _changes(drawn)
    base_seq = min(base_seq, len(changes))
    shown_at = sorted(cut for cut in cuts if base_seq <= cut <= len(changes))
    base = fold(changes[:base_seq])
    now = fold(changes)
    delta = delta_entries(base, changes[base_seq:], shown_at)
    says = {entry.serial: entry for entry in delta}
    assert len(says) == len(delta)
    shown: set[bytes] = set(base)
    for cut in shown_at:
        shown |= fold(changes[:cut]).keys()
    removed = {serial for serial, entry in says.items() if entry.reason == CRLReason.REMOVE_FROM_CRL}
    assert removed == shown - now.keys()
    listed = says.keys() - removed
    assert all(says[serial] == now[serial] for serial in listed)
    assert listed >= {serial for serial in now if base.get(serial) != now[serial]}
    assert listed <= {change.serial for change in changes[base_seq:]}
    for cut in [base_seq, *shown_at]:
        assert _joined(fold(changes[:cut]), delta) == now


def _joined(base: Entries, delta: list[CRLEntry]) -> Entries:
    joined = dict(base)
    for entry in delta:
        if entry.reason == CRLReason.REMOVE_FROM_CRL:
            joined.pop(entry.serial, None)
        else:
            joined[entry.serial] = entry
    return joined


def test_reason_change_keeps_dates() -> None:
    """A corrected reason leaves revocation and invalidity date; unspecified is written as no reason."""
    serial = b"\x05"
    revoked = RevocationChange(1, ChangeKind.REVOKED, serial, 1, 50_000, 0, 33)
    corrected = RevocationChange(2, ChangeKind.REASON_CHANGED, serial, 0, 90_000, 0, 0)
    assert fold([revoked, corrected]) == {serial: CRLEntry(serial, 50, None, 33)}


def test_held_entry_has_the_hold_reason() -> None:
    """A hold is listed as certificateHold, whatever reason came with it."""
    held = RevocationChange(1, ChangeKind.HELD, b"\x05", None, 50_000, 0, 0)
    assert fold([held])[b"\x05"].reason == 6
