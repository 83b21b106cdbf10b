"""A snapshot comes onto a host once, whole, and only if it is the one a beat names."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import redis
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from responder_cases import INDEX_KEY, FeedWriter, serial_of

from certstatus.beat import NOTHING, Pointer
from certstatus.changes import fingerprint
from certstatus.errors import SnapshotError
from certstatus.index import Snapshot
from certstatus.snapshot import CHUNK_BYTES, GOOD, REVOKED, make_manifest, pack_meta
from certstatus.snapshot_writer import IssuerHead, RowBlock, new_snapshot
from responder.checked_mark import identity
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


def test_a_chunk_beyond_its_length_is_not_brought(writer: FeedWriter, tmp_path: Path) -> None:
    """A value may have 512 MB; no more of it is read than a chunk may have."""
    writer.client.setrange(writer.keys.chunk(4, 0), 8 << 20, b"x")
    sent = writer.client.info("stats")["total_net_output_bytes"]
    with pytest.raises(SnapshotError, match="chunk 0"):
        load(writer, tmp_path)
    assert writer.client.info("stats")["total_net_output_bytes"] - sent < 3 << 19


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


@pytest.fixture
def big(valkey: redis.Redis, publisher_key: Ed25519PrivateKey, tmp_path: Path) -> FeedWriter:
    """A publisher with a snapshot of several chunks."""
    writer = FeedWriter(valkey, publisher_key, NOW_MS)
    rows = 10 * CHUNK_BYTES // 16
    none = np.zeros(rows, dtype=np.uint32)
    path = tmp_path / "big.idx"
    with new_snapshot(path, writer.epoch, 7, NOW_MS, bytes(32), [IssuerHead(1)]) as table:
        table.add(
            RowBlock(np.arange(rows, dtype=np.uint64), none, none + pack_meta(30_000, GOOD, 0xFF), none, none)
        )
        table.end_issuer()
    content = path.read_bytes()
    for number, at in enumerate(range(0, len(content), CHUNK_BYTES)):
        valkey.set(writer.keys.chunk(7, number), content[at : at + CHUNK_BYTES])
    text = make_manifest(path).encode()
    valkey.set(writer.keys.manifest(7), text)
    writer.snapshot = Pointer(7, hashlib.sha256(text).digest())
    return writer


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """Where the host keeps its snapshots."""
    folder = tmp_path / "host"
    folder.mkdir()
    return folder


def test_many_workers_fetch_once(big: FeedWriter, tmp_path: Path, host: Path) -> None:
    """Workers that start together read each chunk from Valkey once between them."""
    content = (tmp_path / "big.idx").read_bytes()
    big.client.config_resetstat()
    with ThreadPoolExecutor(4) as threads:
        loaded = list(threads.map(lambda _: load_it(big, host), range(4)))
    assert [snapshot.head.seq for snapshot in loaded] == [7] * 4
    chunks = -(-len(content) // CHUNK_BYTES)
    assert chunks > 8
    assert big.client.info("stats")["keyspace_hits"] == chunks + 1
    assert (host / f"{big.epoch.hex()}-7.idx").read_bytes() == content


@pytest.mark.parametrize("missing", [0, 3, 4, 9, 10])
def test_any_chunk_may_be_missing(big: FeedWriter, host: Path, missing: int) -> None:
    """Whichever chunk is gone, of whichever request, nothing is kept and the next attempt succeeds."""
    name = big.keys.chunk(7, missing)
    chunk = big.client.get(name)
    assert chunk
    big.client.delete(name)
    with pytest.raises(SnapshotError, match=f"chunk {missing} "):
        load(big, host)
    assert not [path for path in host.iterdir() if ".idx" in path.name]
    big.client.set(name, chunk)
    assert load_it(big, host).head.seq == 7


# --- whole once is whole --------------------------------------------------------------------------------


def _octets_read(act: Callable[[], object]) -> int:
    """How much this process reads from files and sockets while *act* runs."""

    def so_far() -> int:
        return int(Path("/proc/self/io").read_text().split("rchar:")[1].split()[0])

    before = so_far()
    act()
    return so_far() - before


def test_a_file_is_read_once_however_many_workers_open_it(big: FeedWriter, host: Path) -> None:
    """What was hashed on its way here is not read again; what was found here is read by the first one."""
    size = load_it(big, host).path.stat().st_size
    assert _octets_read(lambda: load_it(big, host)) < size // 10
    (mark,) = host.glob("*.checked")
    mark.unlink()
    assert _octets_read(lambda: load_it(big, host)) >= size
    assert _octets_read(lambda: load_it(big, host)) < size // 10


def _write_one_octet(path: Path) -> None:
    found = path.stat()
    with path.open("r+b") as file:
        file.seek(5000)
        octet = file.read(1)
        file.seek(5000)
        file.write(bytes([octet[0] ^ 1]))
    # As a restored or copied file has them: only the ctime gives it away.
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def test_a_file_written_to_since_is_not_believed(big: FeedWriter, host: Path) -> None:
    """One altered octet, size and mtime as before: it is read again, found out and removed."""
    path = load_it(big, host).path
    _write_one_octet(path)
    with pytest.raises(SnapshotError, match="differs from its manifest"):
        load(big, host)
    assert not path.exists()


def test_another_file_in_its_place_is_not_believed(big: FeedWriter, host: Path) -> None:
    """The mark is of one file, not of a name."""
    path = load_it(big, host).path
    content = bytearray(path.read_bytes())
    content[5000] ^= 1
    other = path.with_suffix(".other")
    other.write_bytes(content)
    other.rename(path)
    with pytest.raises(SnapshotError, match="differs from its manifest"):
        load(big, host)


@pytest.mark.parametrize("wrong", ["boot", "manifest", "file", "mode", "link", "nothing"])
def test_a_mark_that_does_not_fit_is_not_believed(big: FeedWriter, host: Path, wrong: str) -> None:
    """From before the machine's restart, of another manifest or file, or one that others could write."""
    path = load_it(big, host).path
    _write_one_octet(path)
    (found,) = host.glob("*.checked")
    content = json.loads(found.read_bytes())
    with path.open("rb") as file:
        # Right in every way but one: what would be believed if that were right, too.
        content["file"] = list(identity(file.fileno()))
    found.write_text(json.dumps(content))
    assert load(big, host)
    if wrong in ("boot", "manifest"):
        content[wrong] = "0" * len(content[wrong])
    elif wrong == "file":
        content["file"][4] -= 1
    found.write_text("" if wrong == "nothing" else json.dumps(content))
    if wrong == "mode":
        found.chmod(0o666)
    elif wrong == "link":
        found.rename(host / "elsewhere")
        found.symlink_to(host / "elsewhere")
    with pytest.raises(SnapshotError, match="differs from its manifest"):
        load(big, host)


def test_a_file_that_others_may_write_is_read_each_time(big: FeedWriter, host: Path) -> None:
    """No mark helps a file with such a mode."""
    path = load_it(big, host).path
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o620)
    size = path.stat().st_size
    assert _octets_read(lambda: load_it(big, host)) >= size
    assert _octets_read(lambda: load_it(big, host)) >= size


def test_older_snapshots_do_not_pile_up(writer: FeedWriter, tmp_path: Path) -> None:
    """The one before stays for whoever is about to open it; earlier ones go, mapped or not."""
    folder = tmp_path / "host"
    folder.mkdir()
    first = load_it(writer, folder)
    for n in (10, 11):
        writer.issue(n)
        writer.make_snapshot(tmp_path)
        load(writer, folder)
    for suffix in ("idx", "manifest", "checked"):
        assert sorted(int(path.stem.partition("-")[2]) for path in folder.glob(f"*.{suffix}")) == [5, 6]
    assert state_of(first, 1) == GOOD
