"""Bringing a snapshot onto this host: once, whole, and only if it is the one a beat names.

Knows: the file ``<epoch hex>-<seq>.idx`` and its manifest beside it; taking the chunks from
Valkey, each checked against the manifest, whose hash stands in a verified beat, the next ones on
their way while these are hashed and written; a lock so that the workers of a host fetch it once
between them.  A file that is there is read and checked whole before it is used (about 1 s per GB):
it may be an older version's leftovers or damaged.  Once between all of them, too (``checked_mark``).
Does not know: when a snapshot is needed, or what is in it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import redis

from certstatus.beat import Pointer
from certstatus.durable import sync_folder, write_durable
from certstatus.errors import SnapshotError
from certstatus.feed_keys import FeedKeys
from certstatus.index import Snapshot
from certstatus.snapshot import CHUNK_BYTES, Manifest, read_manifest
from certstatus.valkey import read_values
from responder.checked_mark import MARK_SUFFIX, identity, is_marked, mark

SUFFIX = ".idx"
_MANIFEST_SUFFIX = ".manifest"
# In one request of Valkey; twice as many are in memory.
_CHUNKS_AT_ONCE = 4


def load_snapshot(
    client: redis.Redis, keys: FeedKeys, epoch: bytes, pointer: Pointer, folder: Path
) -> Snapshot | None:
    """Return the snapshot *pointer* names, mapped from *folder*, fetched if need be; None for none.

    Raises: SnapshotError — what Valkey or the file holds is not what the beat names, or is gone;
            redis.RedisError — Valkey is away; OSError — no space.
    """
    if pointer.generation == 0:
        return None
    path = folder / f"{epoch.hex()}-{pointer.generation}{SUFFIX}"
    with _locked(folder):
        manifest = _manifest(client, keys, pointer, path)
        if (manifest.epoch, manifest.seq) != (epoch.hex(), pointer.generation):
            raise SnapshotError(f"the manifest of {path.name} is of another snapshot")
        if not path.exists():
            _fetch(client, keys, manifest, path, pointer.sha256)
            _drop_older(folder, path)
        elif not _is_whole(path, manifest, pointer.sha256):
            path.unlink(missing_ok=True)
            raise SnapshotError(f"{path.name} differs from its manifest; it was removed")
        # Under the lock: nobody puts another file in its place between looking and mapping.
        snapshot = Snapshot(path)
    if snapshot.head.epoch != epoch or snapshot.head.seq != pointer.generation:
        raise SnapshotError(f"{path.name} says it is another snapshot")
    return snapshot


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder / ".fetch.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _manifest(client: redis.Redis, keys: FeedKeys, pointer: Pointer, path: Path) -> Manifest:
    """Return the manifest from beside the file, or from Valkey, where it may be gone already."""
    beside = path.with_suffix(_MANIFEST_SUFFIX)
    if beside.exists():
        try:
            return read_manifest(beside.read_bytes(), pointer.sha256)
        except SnapshotError:
            # Left by another installation on this host, or damaged: the beat decides, not the file.
            beside.unlink()
            path.unlink(missing_ok=True)
    text = client.get(keys.manifest(pointer.generation))
    if not isinstance(text, bytes):
        raise SnapshotError(f"snapshot {pointer.generation}: no manifest in Valkey")
    manifest = read_manifest(text, pointer.sha256)
    write_durable(beside, text)
    return manifest


def _fetch(
    client: redis.Redis, keys: FeedKeys, manifest: Manifest, path: Path, manifest_sha256: bytes
) -> None:
    neighbour = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with open(neighbour, "wb", opener=_for_us_alone) as file:
            for number, chunk in enumerate(_chunks(client, keys, manifest)):
                if (
                    not isinstance(chunk, bytes)
                    or hashlib.sha256(chunk).hexdigest() != manifest.chunks[number]
                ):
                    raise SnapshotError(f"snapshot {manifest.seq}: chunk {number} is not the manifest's")
                file.write(chunk)
            if file.tell() != manifest.size:
                raise SnapshotError(f"snapshot {manifest.seq}: {file.tell()} bytes, not {manifest.size}")
            file.flush()
            os.fsync(file.fileno())
            neighbour.rename(path)
            mark(path, file.fileno(), manifest_sha256)
    finally:
        neighbour.unlink(missing_ok=True)
    sync_folder(path.parent)


def _for_us_alone(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _chunks(client: redis.Redis, keys: FeedKeys, manifest: Manifest) -> Iterator[object]:
    """Yield the chunks in order, as they come: several in one request, and the next request under way
    while these are looked at, so that neither the network nor this side waits for the other."""
    names = [keys.chunk(manifest.seq, number) for number in range(len(manifest.chunks))]

    def some(start: int) -> list[bytes | None]:
        wanted = names[start : start + _CHUNKS_AT_ONCE]
        found = read_values(client, dict.fromkeys(wanted, CHUNK_BYTES))
        return [found.get(name) for name in wanted]

    with ThreadPoolExecutor(1, "chunks") as ahead:
        coming = ahead.submit(some, 0)
        for start in range(_CHUNKS_AT_ONCE, len(names) + _CHUNKS_AT_ONCE, _CHUNKS_AT_ONCE):
            found = coming.result()
            if start < len(names):
                coming = ahead.submit(some, start)
            yield from found


def _is_whole(path: Path, manifest: Manifest, manifest_sha256: bytes) -> bool:
    """Say whether the file is what the manifest says, by reading it unless that was done already."""
    with path.open("rb") as file:
        descriptor = file.fileno()
        before = identity(descriptor)
        if os.fstat(descriptor).st_size != manifest.size:
            return False
        if is_marked(path, descriptor, manifest_sha256):
            return True
        for chunk in manifest.chunks:
            if hashlib.sha256(file.read(CHUNK_BYTES)).hexdigest() != chunk:
                return False
        if identity(descriptor) != before:
            return False
        mark(path, descriptor, manifest_sha256)
        return True


def _drop_older(folder: Path, path: Path) -> None:
    """Remove snapshots that no worker of this host will open any more; mapped ones live on until unmapped."""
    epoch, _, seq = path.stem.partition("-")
    older = []
    for other in folder.glob(f"*{SUFFIX}"):
        other_epoch, _, other_seq = other.stem.partition("-")
        if other_epoch < epoch:
            older.append((-1, other))
        elif other_epoch == epoch and other_seq.isdigit() and int(other_seq) < int(seq):
            older.append((int(other_seq), other))
    # The newest of the older ones stays: a worker may be about to open it.
    for _, other in sorted(older)[:-1]:
        other.unlink(missing_ok=True)
        other.with_suffix(_MANIFEST_SUFFIX).unlink(missing_ok=True)
        other.with_suffix(MARK_SUFFIX).unlink(missing_ok=True)
