"""The snapshot and the index: equal to a dictionary, whatever happened and however it was merged."""

from __future__ import annotations

import hashlib
import random
import resource
from bisect import bisect_left
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certstatus import index
from certstatus import snapshot as snapshots
from certstatus.changes import NO_FINGERPRINT, Change, ChangeKind, pack_change, unpack_change
from certstatus.errors import SnapshotError
from certstatus.index import Entry, Snapshot, View
from certstatus.snapshot import (
    GOOD,
    HELD,
    REVOKED,
    IndexRow,
    SnapshotFile,
    fold_changes,
    make_manifest,
    read_manifest,
    write_snapshot,
)

# Few, close fingerprints: equal leading 64 bits and neighbours happen all the time.
MARKS = [bytes(7) + bytes([high]) + bytes(3) + bytes([low]) for high in range(3) for low in (0, 1, 255)]
CHANGE_KINDS = [kind for kind in ChangeKind if kind not in (ChangeKind.ENTITLEMENTS, ChangeKind.ISSUERS)]

histories = st.lists(
    st.lists(
        st.tuples(
            st.sampled_from(CHANGE_KINDS),
            st.integers(1, 2),
            st.sampled_from(MARKS),
            st.sampled_from([None, 1, 5]),
            st.sampled_from([0, 77]),
            st.sampled_from([b"", bytes(32), b"h" * 32]),
        ),
        max_size=12,
    ),
    max_size=5,
)

Step = tuple[int, int, bytes, int | None, int, bytes]


def _change(seq: int, step: Step) -> Change:
    kind, issuer_id, mark, reason, invalidity_s, sha256 = step
    if kind == ChangeKind.CA_KEY_EVENT:
        mark = NO_FINGERPRINT
    if kind == ChangeKind.CERTIFICATE_HASH and not sha256:
        sha256 = b"H" * 32
    elif kind not in (ChangeKind.ISSUED, ChangeKind.CERTIFICATE_HASH):
        sha256 = b""
    return unpack_change(
        pack_change(kind, issuer_id, mark, 20_000, reason, seq * 1000, seq, invalidity_s, sha256)
    )


def _issued(number: int, mark: bytes, sha256: bytes = b"") -> Change:
    return _change(number, (ChangeKind.ISSUED, 1, mark, None, 0, sha256))


def _revoked(number: int, mark: bytes) -> Change:
    return _change(number, (ChangeKind.REVOKED, 1, mark, 1, 0, b""))


class _Model:
    """What the index must say, kept in the plainest way."""

    def __init__(self) -> None:
        self.rows: dict[tuple[int, bytes], tuple[int, int, int, int]] = {}
        self.hashes: dict[tuple[int, bytes], bytes] = {}
        self.events: dict[int, tuple[int, int]] = {}

    def apply(self, change: Change) -> None:
        key = (change.issuer_id, change.fingerprint)
        second = change.recorded_ms // 1000
        if change.kind == ChangeKind.CA_KEY_EVENT:
            self.events[change.issuer_id] = (change.reason, second)
        elif change.kind in (ChangeKind.ISSUED, ChangeKind.RELEASED):
            self.rows[key] = (GOOD, 0xFF, 0, 0)
        elif change.kind in (ChangeKind.REVOKED, ChangeKind.HELD):
            state = HELD if change.kind == ChangeKind.HELD else REVOKED
            self.rows[key] = (state, change.reason, second, change.invalidity_s)
        elif change.kind == ChangeKind.REASON_CHANGED:
            before = self.rows.get(key, (GOOD, 0, 0, 0))
            was_good = before[0] == GOOD
            at = second if was_good else before[2]
            invalid_from = change.invalidity_s or (0 if was_good else before[3])
            self.rows[key] = (REVOKED, change.reason, at, invalid_from)
        if change.certificate_sha256:
            self.hashes[key] = change.certificate_sha256

    def look_up(self, issuer_id: int, mark: bytes) -> IndexRow | None:
        row = self.rows.get((issuer_id, mark))
        if row is None:
            return None
        state, reason, at, invalidity_s = row
        if state != REVOKED and issuer_id in self.events:
            state, (reason, at) = REVOKED, self.events[issuer_id]
            invalidity_s = 0
        sha256 = self.hashes.get((issuer_id, mark), b"")
        return IndexRow(mark, 20_000, state, reason, at, invalidity_s, sha256)


@settings(max_examples=150, deadline=None)
@given(history=histories, block_rows=st.sampled_from([1, 2, 3, 1 << 20]))
def test_index_equals_a_dictionary(
    tmp_path_factory: pytest.TempPathFactory,
    history: list[list[Step]],
    block_rows: int,
) -> None:
    """Overlay alone, merged snapshot alone, and snapshot under overlay all equal the model."""
    folder = tmp_path_factory.mktemp("index")
    model, overlay_only, moved = _Model(), View(None), View(None)
    previous: SnapshotFile | None = None
    seq = 0
    kept, snapshots.BLOCK_ROWS = snapshots.BLOCK_ROWS, block_rows
    try:
        for number, batch in enumerate(history):
            batch_changes = []
            for step in batch:
                seq += 1
                change = _change(seq, step)
                if change.kind == ChangeKind.CERTIFICATE_HASH and step[1:3] not in model.rows:
                    # The store tells hashes of what it has issued only.
                    change = change._replace(kind=ChangeKind.ISSUED)
                batch_changes.append(change)
                for view in (model, overlay_only, moved):
                    view.apply(change)
            path = folder / f"{number}.idx"
            write_snapshot(
                path, bytes(16), seq, seq * 1000, bytes(32), fold_changes(batch_changes, previous), previous
            )
            previous = SnapshotFile(path)
            fresh = Snapshot(path)
            moved = moved.moved_to(fresh)
            assert not moved.overlay
            for issuer_id in (1, 2, 3):
                for mark in MARKS:
                    wanted = model.look_up(issuer_id, mark)
                    assert overlay_only.look_up(issuer_id, mark) == wanted
                    assert moved.look_up(issuer_id, mark) == wanted
                    assert View(fresh).look_up(issuer_id, mark) == wanted
    finally:
        snapshots.BLOCK_ROWS = kept


def test_a_row_costs_sixteen_bytes_and_sixteen_more_when_revoked(tmp_path: Path) -> None:
    """The file of 1,000 certificates, 100 revoked, is 1,100 rows of 16 bytes beside its head."""
    changes = [_issued(at + 1, at.to_bytes(12, "big")) for at in range(1000)]
    changes += [_revoked(at + 1001, at.to_bytes(12, "big")) for at in range(100)]
    path = tmp_path / "x.idx"
    write_snapshot(path, bytes(16), 1100, 0, bytes(32), fold_changes(changes, None))
    head = snapshots.HEADER_BYTES + snapshots.SECTION_BYTES
    assert 1100 * 16 + head <= path.stat().st_size <= 1100 * 16 + head + 3 * snapshots.ALIGNMENT
    assert Snapshot(path).counts() == {1: (1000, 100)}
    assert Snapshot(path).head.sections[0].hashes == (0, 0)


def test_a_told_hash_costs_forty_four_bytes(tmp_path: Path) -> None:
    """Of 1,000 certificates 200 with their hash: 200 rows of 44 bytes more, found with each of the 200."""
    marks = [at.to_bytes(12, "big") for at in range(1000)]
    hashes = {mark: hashlib.sha256(mark).digest() for mark in marks[::5]}
    changes = [_issued(at + 1, mark, hashes.get(mark, b"")) for at, mark in enumerate(marks)]
    path = tmp_path / "x.idx"
    write_snapshot(path, bytes(16), 1000, 0, bytes(32), fold_changes(changes, None))
    head = snapshots.HEADER_BYTES + snapshots.SECTION_BYTES
    rows = 1000 * 16 + 200 * 44
    assert rows + head <= path.stat().st_size <= rows + head + 4 * snapshots.ALIGNMENT
    found = Snapshot(path)
    for mark in marks:
        row = found.look_up(1, mark)
        assert row is not None
        assert row.certificate_sha256 == hashes.get(mark, b"")


def test_a_section_without_a_place_for_hashes_is_read(tmp_path: Path) -> None:
    """What a version without hashes wrote, zeros in their place, is looked up and merged further."""
    path = tmp_path / "x.idx"
    write_snapshot(path, bytes(16), 1, 0, bytes(32), fold_changes([_issued(1, MARKS[0])], None))
    content = path.read_bytes()
    spare = snapshots.HEADER_BYTES + 64
    assert content[spare : spare + 32] == bytes(32)
    later = [
        _change(2, (ChangeKind.CERTIFICATE_HASH, 1, MARKS[0], None, 0, b"h" * 32)),
        _issued(3, MARKS[1], b"i" * 32),
    ]
    previous = SnapshotFile(path)
    merged = tmp_path / "y.idx"
    write_snapshot(merged, bytes(16), 3, 0, bytes(32), fold_changes(later, previous), previous)
    rows = [Snapshot(merged).look_up(1, mark) for mark in MARKS[:3]]
    assert [row and row.certificate_sha256 for row in rows] == [b"h" * 32, b"i" * 32, None]


def test_a_hash_alone_makes_nothing_issued() -> None:
    """A hash of a certificate that was never issued leaves it unknown."""
    view = View(None)
    view.apply(_change(1, (ChangeKind.CERTIFICATE_HASH, 1, MARKS[0], None, 0, b"h" * 32)))
    assert view.look_up(1, MARKS[0]) is None


def test_a_moved_view_keeps_only_what_is_later(tmp_path: Path) -> None:
    """Changes the new snapshot already holds leave the overlay; later ones stay and win."""
    first = _issued(1, MARKS[0])
    later = _revoked(2, MARKS[0])
    view = View(None)
    view.apply(first)
    view.apply(later)
    path = tmp_path / "x.idx"
    write_snapshot(path, bytes(16), 1, 1000, bytes(32), fold_changes([first], None))
    moved = view.moved_to(Snapshot(path))
    assert list(moved.overlay) == [(1, MARKS[0])]
    row = moved.look_up(1, MARKS[0])
    assert row is not None
    assert row.state == REVOKED


def test_a_snapshot_without_its_pages_says_the_same(tmp_path: Path) -> None:
    """Whoever still holds one that is on its way out is answered as before."""
    path = tmp_path / "x.idx"
    changes = [_issued(1, MARKS[0]), _issued(2, MARKS[1]), _revoked(3, MARKS[1])]
    write_snapshot(path, bytes(16), 3, 0, bytes(32), fold_changes(changes, None))
    snapshot = Snapshot(path)
    before = [snapshot.look_up(1, mark) for mark in MARKS]
    pieces: list[int] = []
    snapshot.forget_pages(lambda: pieces.append(1))
    assert pieces == [1]
    assert [snapshot.look_up(1, mark) for mark in MARKS] == before
    assert [row.state for row in before if row is not None] == [GOOD, REVOKED]


def test_a_large_overlay_moves_a_few_entries_at_a_time(tmp_path: Path) -> None:
    """Whoever moves it gets a turn after every few entries, each once, and has what they all say."""
    path = tmp_path / "x.idx"
    write_snapshot(path, bytes(16), 3000, 0, bytes(32), fold_changes([_issued(1, MARKS[0])], None))
    view = View(None)
    for seq in range(1, 9001):
        view.apply(_issued(seq, seq.to_bytes(12, "big")))
    turns: list[int] = []
    seen: dict[tuple[int, bytes], object] = {}

    def after(lot: list[Entry]) -> None:
        turns.append(len(lot))
        seen.update(lot)

    moved = view.moved_to(Snapshot(path), after)
    assert sum(turns) == 9000
    assert max(turns) <= 2000
    assert seen == view.overlay
    assert moved.overlay == {key: item for key, item in view.overlay.items() if item[1] > 3000}
    assert len(moved.overlay) == 6000


def test_a_day_that_does_not_fit_is_never_taken_for_a_state(tmp_path: Path) -> None:
    """A notAfter beyond what a row can say is refused; its upper bits would make a good one revoked."""
    change = _issued(1, MARKS[0])._replace(not_after_day=0x1FFFF)
    with pytest.raises(SnapshotError, match="131071"):
        write_snapshot(tmp_path / "x.idx", bytes(16), 1, 0, bytes(32), fold_changes([change], None))
    assert not list(tmp_path.iterdir())


def test_torn_snapshots_are_refused(tmp_path: Path) -> None:
    """A file cut anywhere, or with another magic, is a SnapshotError, never a wrong look-up."""
    changes = [_issued(1, MARKS[0], b"h" * 32)]
    path = tmp_path / "x.idx"
    write_snapshot(path, bytes(16), 1, 0, bytes(32), fold_changes(changes, None))
    whole = path.read_bytes()
    (place,) = SnapshotFile(path).head.sections
    ends = (place.issued.offset + 16, place.hashes.offset + 44)
    assert max(ends) == len(whole)
    for size in (1, 100, snapshots.HEADER_BYTES, snapshots.HEADER_BYTES + 10, *(end - 1 for end in ends)):
        torn = tmp_path / "torn.idx"
        torn.write_bytes(whole[:size])
        with pytest.raises(SnapshotError):
            Snapshot(torn)
    torn.write_bytes(b"XXXX" + whole[4:])
    with pytest.raises(SnapshotError):
        Snapshot(torn)


def test_the_manifest_pins_every_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The manifest opens only under its own hash and lists a hash for each chunk."""
    monkeypatch.setattr(snapshots, "CHUNK_BYTES", 256)
    changes = [_issued(at + 1, mark) for at, mark in enumerate(MARKS)]
    path = tmp_path / "x.idx"
    write_snapshot(path, b"e" * 16, len(MARKS), 0, bytes(32), fold_changes(changes, None))
    manifest = make_manifest(path)
    assert manifest.seq == len(MARKS)
    assert manifest.epoch == (b"e" * 16).hex()
    assert len(manifest.chunks) == -(-path.stat().st_size // 256)
    text = manifest.encode()
    assert read_manifest(text, hashlib.sha256(text).digest()) == manifest
    with pytest.raises(SnapshotError):
        read_manifest(text + b" ", hashlib.sha256(text).digest())


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    """When the disk takes only half of a snapshot, no file stands under its name or beside it."""
    changes = [_issued(at + 1, at.to_bytes(12, "big")) for at in range(1000)]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8000, limits[1]))
    try:
        with pytest.raises(OSError):
            write_snapshot(tmp_path / "x.idx", bytes(16), 1000, 0, bytes(32), fold_changes(changes, None))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


def _column(values: list[int]) -> memoryview:
    return memoryview(b"".join(value.to_bytes(8, "little") for value in sorted(values))).cast("Q")


SPREADS = {
    "evenly": lambda chance: chance.getrandbits(64),
    "at one end": lambda chance: chance.getrandbits(50),
    "at the other": lambda chance: (1 << 64) - 1 - chance.getrandbits(40),
    "in two lumps": lambda chance: (chance.getrandbits(1) << 63) | chance.getrandbits(30),
    "many of one value": lambda chance: chance.getrandbits(8) << 56,
}


@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("rows", [0, 1, 2, 1500, 40_000])
def test_a_place_that_is_guessed_is_that_of_halving(
    spread: str, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For values that are there, their neighbours, and others, however the column is spread."""
    monkeypatch.setattr(index, "_MANY", 0)
    chance = random.Random(f"{spread} {rows}")
    column = _column([SPREADS[spread](chance) for _ in range(rows)])
    end = (1 << 64) - 1
    wanted = {0, 1, end, *(chance.getrandbits(64) for _ in range(500))}
    for value in chance.sample(column.tolist(), min(rows, 2000)) + column.tolist()[:3] + column.tolist()[-3:]:
        wanted |= {value, max(value - 1, 0), min(value + 1, end)}
    for value in wanted:
        assert index._place(column, value) == bisect_left(column, value)


def test_a_guess_finds_what_is_spread_evenly_without_halving_it_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or it would be there for nothing: of evenly spread values next to none is looked for everywhere."""
    monkeypatch.setattr(index, "_MANY", 0)
    chance = random.Random(5)
    column = _column([chance.getrandbits(64) for _ in range(100_000)])
    whole = []

    def counted(his: memoryview, hi: int, low: int = 0, high: int | None = None) -> int:
        whole.extend([hi] if high is None else [])
        return bisect_left(his, hi, low, high)

    monkeypatch.setattr(index, "bisect_left", counted)
    for _ in range(5000):
        index._place(column, chance.getrandbits(64))
    # The ends of the column, 1024 of 100,000 values.
    assert 0 < len(whole) < 150
