"""The rules of the stream, held against a plain dictionary."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from certstatus.beat import NOTHING, Beat, sign_beat
from certstatus.changes import ChangeKind, first_chain, next_chain, pack_change, unpack_change
from certstatus.errors import FeedError
from certstatus.index import View
from certstatus.snapshot import GOOD, REVOKED
from responder.feed_state import FeedState

EPOCH = bytes(range(16))
KEY = Ed25519PrivateKey.generate()
OTHER_KEY = Ed25519PrivateKey.generate()

Entry = tuple[bytes, dict[bytes, bytes]]


def print_of(n: int) -> bytes:
    return n.to_bytes(12, "big")


def change(seq: int, n: int, kind: ChangeKind = ChangeKind.ISSUED) -> bytes:
    return pack_change(kind, 1, print_of(n), 30_000, 1, seq * 1000, seq)


def change_entry(packed: bytes) -> Entry:
    return b"%d-0" % unpack_change(packed).seq, {b"c": packed}


def beat_entry(
    seq: int, time_ms: int, chain: bytes, epoch: bytes = EPOCH, key: Ed25519PrivateKey = KEY
) -> Entry:
    beat = Beat(epoch, seq, time_ms, chain, NOTHING, NOTHING, NOTHING, NOTHING)
    return beat.entry_id.encode(), {b"b": sign_beat(beat, key)}


def new_state(pending_max: int = 1000) -> FeedState:
    return FeedState(EPOCH, 0, first_chain(EPOCH), KEY.public_key(), pending_max)


def chain_over(*packed: bytes) -> bytes:
    chain = first_chain(EPOCH)
    for item in packed:
        chain = next_chain(chain, item)
    return chain


def test_changes_count_only_under_a_beat() -> None:
    """A change alone makes nothing believable; the beat that covers it does, in order."""
    one, two = change(1, 1), change(2, 2)
    state = new_state()
    assert state.take(*change_entry(one)) is None
    assert state.take(*change_entry(two)) is None
    assert state.seq == 0
    believed = state.take(*beat_entry(2, 5, chain_over(one, two)))
    assert believed is not None
    assert [item.seq for item in believed.changes] == [1, 2]
    assert (state.seq, state.chain, state.time_ms) == (2, chain_over(one, two), 5)


def test_a_beat_may_cover_what_dropped_beats_covered() -> None:
    """Old beats are taken out of the stream; a later one covers all changes since."""
    one, two = change(1, 1), change(2, 2)
    state = new_state()
    state.take(*beat_entry(0, 1, chain_over()))
    for entry in (change_entry(one), change_entry(two)):
        state.take(*entry)
    believed = state.take(*beat_entry(2, 9, chain_over(one, two)))
    assert believed is not None
    assert len(believed.changes) == 2


ONE, TWO, THREE = change(1, 1), change(2, 2), change(3, 3)
BAD: dict[str, list[Entry]] = {
    "gap": [change_entry(TWO)],
    "gap after a change": [change_entry(ONE), change_entry(THREE)],
    "same change twice": [change_entry(ONE), change_entry(ONE)],
    "change under another id": [(b"1-1", {b"c": ONE})],
    "change of unknown kind": [(b"1-0", {b"c": b"\x63" + ONE[1:]})],
    "change cut short": [(b"1-0", {b"c": ONE[:-1]})],
    "two fields": [(b"1-0", {b"c": ONE, b"b": ONE})],
    "no field": [(b"1-0", {})],
    "another field": [(b"1-0", {b"x": ONE})],
    "beat ahead of the changes": [beat_entry(1, 5, chain_over(ONE))],
    "beat behind the changes": [change_entry(ONE), change_entry(TWO), beat_entry(1, 5, chain_over(ONE))],
    "wrong chain": [change_entry(ONE), beat_entry(1, 5, chain_over(TWO))],
    "foreign epoch": [beat_entry(0, 5, chain_over(), epoch=bytes(16))],
    "forged": [beat_entry(0, 5, chain_over(), key=OTHER_KEY)],
    "under another id": [(b"0-6", beat_entry(0, 5, chain_over())[1])],
    "earlier than the last": [beat_entry(0, 5, chain_over()), beat_entry(0, 4, chain_over())],
    "same time as the last": [beat_entry(0, 5, chain_over()), beat_entry(0, 5, chain_over())],
}


@pytest.mark.parametrize("name", BAD)
def test_anything_else_is_an_error(name: str) -> None:
    """Whatever is not exactly what must come next is refused, at its last entry and not before."""
    *first, last = BAD[name]
    state = new_state()
    for entry in first:
        state.take(*entry)
    with pytest.raises(FeedError):
        state.take(*last)


def test_every_bit_of_a_beat_is_signed() -> None:
    """No octet of a beat can be changed unnoticed."""
    entry_id, fields = beat_entry(0, 5, chain_over())
    signed = fields[b"b"]
    for at in range(len(signed)):
        forged = signed[:at] + bytes([signed[at] ^ 1]) + signed[at + 1 :]
        with pytest.raises(FeedError):
            new_state().take(entry_id, {b"b": forged})


def test_uncovered_changes_are_bounded() -> None:
    """Changes that no beat covers do not pile up without limit."""
    state = new_state(pending_max=2)
    state.take(*change_entry(ONE))
    state.take(*change_entry(TWO))
    with pytest.raises(FeedError):
        state.take(*change_entry(THREE))


def replay(packed: list[bytes]) -> dict[int, int]:
    """The simplest index: a dictionary of the last state of each certificate."""
    rows = {}
    for item in map(unpack_change, packed):
        n = int.from_bytes(item.fingerprint, "big")
        rows[n] = GOOD if item.kind == ChangeKind.ISSUED else REVOKED
    return rows


_STEPS = st.one_of(
    st.tuples(st.sampled_from([ChangeKind.ISSUED, ChangeKind.REVOKED]), st.integers(1, 6)),
    st.tuples(st.sampled_from(["beat", "beat", "lose", "repeat", "swap"]), st.just(0)),
)


@settings(deadline=None, max_examples=200)
@given(st.lists(_STEPS, max_size=40))
def test_the_view_is_the_dictionary_at_the_last_good_beat(steps: list[tuple[ChangeKind | str, int]]) -> None:
    """However the stream goes on, and wherever it is damaged, the view equals the dictionary at the number
    believed; nothing after the damage is believed, and without damage everything is."""
    packed: list[bytes] = []
    stream: list[Entry] = []
    damaged = False
    for time_ms, (kind, n) in enumerate(steps, 1):
        if isinstance(kind, ChangeKind):
            packed.append(change(len(packed) + 1, n, kind))
            stream.append(change_entry(packed[-1]))
        elif kind == "beat":
            stream.append(beat_entry(len(packed), time_ms, chain_over(*packed)))
        elif stream:
            # A lost beat does no harm by itself; everything else does, unless nothing follows it.
            damaged = damaged or kind != "lose" or b"c" in stream[-1][1]
            last = stream.pop()
            if kind == "repeat":
                stream += [last, last]
            elif kind == "swap" and stream:
                stream.insert(-1, last)
    state, view = new_state(), View(None)
    try:
        for entry in stream:
            believed = state.take(*entry)
            for item in believed.changes if believed is not None else ():
                view.apply(item)
    except FeedError:
        assert damaged
    beats = [int(entry_id.split(b"-")[0]) for entry_id, fields in stream if b"b" in fields]
    if not damaged:
        assert state.seq == (beats[-1] if beats else 0)
    rows = replay(packed[: state.seq])
    for n in range(1, 7):
        row = view.look_up(1, print_of(n))
        assert (None if row is None else row.state) == rows.get(n)
