"""A snapshot comes onto a host once, whole, and only if it is the one a beat names."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from responder_cases import INDEX_KEY, FeedWriter, serial_of

from certstatus.beat import NOTHING, Pointer
from certstatus.changes import fingerprint
from certstatus.errors import SnapshotError
from certstatus.index import Snapshot
from certstatus.snapshot import (
    CHUNK_BYTES,
    GOOD,
    REVOKED,
    IndexRow,
    IssuerChanges,
    make_manifest,
    write_snapshot,
)
from responder.fetch_snapshot import load_snapshot

NOW_MS = 1_900_000_000_000


@pytest.fixture
def writer(valkey: redis.Redis, publisher_key: Ed25519PrivateKey, tmp_path: Path) -> FeedWriter:
    """A publisher with one snapshot of three certificates, one of them revoked."""
    writer = FeedWriter(valkey, publisher_key, NOW_MS)
    writer.issue(1, 2, 3)
    writer.revoke(2)
    writer.make_snapshot(tmp_path)
    return writer


def load(writer: FeedWriter, folder: Path, pointer: Pointer | None = None) -> Snapshot | None:
    return load_snapshot(writer.client, writer.keys, writer.epoch, pointer or writer.snapshot, folder)


def load_it(writer: FeedWriter, folder: Path, pointer: Pointer | None = None) -> Snapshot:
    snapshot = load(writer, folder, pointer)
    assert snapshot is not None
    return snapshot


def state_of(snapshot: Snapshot, n: int) -> int | None:
    row = snapshot.look_up(1, fingerprint(serial_of(n), INDEX_KEY))
    return None if row is None else row.state


def test_a_snapshot_is_fetched_and_mapped(writer: FeedWriter, tmp_path: Path) -> None:
    """What was published is what can be looked up."""
    snapshot = load_it(writer, tmp_path)
    assert [state_of(snapshot, n) for n in (1, 2, 9)] == [GOOD, REVOKED, None]
    assert snapshot.path == tmp_path / f"{writer.epoch.hex()}-4.idx"


def test_no_snapshot_is_no_error(writer: FeedWriter, tmp_path: Path) -> None:
    """A beat that names none gives none."""
    assert load(writer, tmp_path, NOTHING) is None


def test_a_file_that_is_there_is_not_fetched_again(writer: FeedWriter, tmp_path: Path) -> None:
    """After the first fetch nothing is needed of Valkey any more."""
    load(writer, tmp_path)
    writer.client.flushall()
    assert load_it(writer, tmp_path).head.seq == 4


def test_a_chunk_that_is_not_the_manifests_is_refused(writer: FeedWriter, tmp_path: Path) -> None:
    """One altered octet in Valkey, and nothing of the snapshot is kept."""
    name = writer.keys.chunk(4, 0)
    content = bytearray(writer.client.get(name))
    content[200] ^= 1
    writer.client.set(name, bytes(content))
    with pytest.raises(SnapshotError, match="chunk 0"):
        load(writer, tmp_path)
    assert list(tmp_path.glob(f"{writer.epoch.hex()}*.idx")) == []
    assert list(tmp_path.glob(".*.new")) == []


def test_a_missing_chunk_is_refused(writer: FeedWriter, tmp_path: Path) -> None:
    """A chunk that is gone is like one that is wrong."""
    writer.client.delete(writer.keys.chunk(4, 0))
    with pytest.raises(SnapshotError, match="chunk 0"):
        load(writer, tmp_path)


def test_another_manifest_is_refused(writer: FeedWriter, tmp_path: Path) -> None:
    """The manifest must have the hash that the beat says, whatever it contains."""
    with pytest.raises(SnapshotError, match="hash in the beat"):
        load(writer, tmp_path, Pointer(4, bytes(32)))


def test_a_manifest_of_another_number_is_refused(writer: FeedWriter, tmp_path: Path) -> None:
    """A manifest stands for the number it was made at and no other."""
    text = writer.client.get(writer.keys.manifest(4))
    writer.client.set(writer.keys.manifest(3), text)
    with pytest.raises(SnapshotError, match="another snapshot"):
        load(writer, tmp_path, Pointer(3, hashlib.sha256(text).digest()))


def test_a_damaged_file_is_removed_and_fetched_anew(writer: FeedWriter, tmp_path: Path) -> None:
    """A file on disk is checked whole before it is used."""
    path = load_it(writer, tmp_path).path
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(SnapshotError, match="differs from its manifest"):
        load(writer, tmp_path)
    assert load_it(writer, tmp_path).path.read_bytes() != bytes(content)


def test_a_file_cut_short_is_removed_and_fetched_anew(writer: FeedWriter, tmp_path: Path) -> None:
    """A shorter file never reaches the map."""
    path = load_it(writer, tmp_path).path
    with path.open("r+b") as file:
        file.truncate(100)
    with pytest.raises(SnapshotError):
        load(writer, tmp_path)
    assert load_it(writer, tmp_path).head.seq == 4


def test_many_workers_fetch_once(
    valkey: redis.Redis, publisher_key: Ed25519PrivateKey, tmp_path: Path
) -> None:
    """Workers that start together read each chunk from Valkey once between them."""
    writer = FeedWriter(valkey, publisher_key, NOW_MS)
    rows = {
        print_of: IndexRow(print_of, 30_000, GOOD, 0xFF, 0)
        for print_of in (n.to_bytes(12, "big") for n in range(3 * CHUNK_BYTES // 16))
    }
    path = tmp_path / "big.idx"
    write_snapshot(path, writer.epoch, 7, NOW_MS, bytes(32), {1: IssuerChanges(rows)})
    content = path.read_bytes()
    for number, at in enumerate(range(0, len(content), CHUNK_BYTES)):
        valkey.set(writer.keys.chunk(7, number), content[at : at + CHUNK_BYTES])
    text = make_manifest(path).encode()
    valkey.set(writer.keys.manifest(7), text)
    pointer = Pointer(7, hashlib.sha256(text).digest())
    folder = tmp_path / "host"
    folder.mkdir()
    valkey.config_resetstat()
    with ThreadPoolExecutor(4) as threads:
        loaded = list(threads.map(lambda _: load_it(writer, folder, pointer), range(4)))
    assert [snapshot.head.seq for snapshot in loaded] == [7] * 4
    chunks = -(-len(content) // CHUNK_BYTES)
    assert chunks > 3
    assert writer.client.info("commandstats")["cmdstat_get"]["calls"] == chunks + 1
    assert (folder / f"{writer.epoch.hex()}-7.idx").read_bytes() == content


def test_older_snapshots_do_not_pile_up(writer: FeedWriter, tmp_path: Path) -> None:
    """The one before stays for whoever is about to open it; earlier ones go, mapped or not."""
    folder = tmp_path / "host"
    folder.mkdir()
    first = load_it(writer, folder)
    for n in (10, 11):
        writer.issue(n)
        writer.make_snapshot(tmp_path)
        load(writer, folder)
    assert sorted(int(path.stem.partition("-")[2]) for path in folder.glob("*.idx")) == [5, 6]
    assert state_of(first, 1) == GOOD
