"""Bringing a snapshot onto this host: once, whole, and only if it is the one a beat names.

Knows: the file ``<epoch hex>-<seq>.idx`` and its manifest beside it; taking the chunks from
Valkey one by one, each checked against the manifest, whose hash stands in a verified beat;
a lock so that the workers of a host fetch it once between them.  A file that is there is
read and checked whole before it is used (about 1 s per GB): it may be an older version's
leftovers or damaged, and the pages are needed anyway.
Does not know: when a snapshot is needed, or what is in it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from certstatus.beat import Pointer
from certstatus.durable import sync_folder, write_durable
from certstatus.errors import SnapshotError
from certstatus.feed_keys import FeedKeys
from certstatus.index import Snapshot
from certstatus.snapshot import CHUNK_BYTES, Manifest, read_manifest

SUFFIX = ".idx"
_MANIFEST_SUFFIX = ".manifest"


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
            _fetch(client, keys, manifest, path)
            _drop_older(folder, path)
    if not _is_whole(path, manifest):
        path.unlink(missing_ok=True)
        raise SnapshotError(f"{path.name} differs from its manifest; it was removed")
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


def _fetch(client: redis.Redis, keys: FeedKeys, manifest: Manifest, path: Path) -> None:
    neighbour = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with neighbour.open("wb") as file:
            for number, sha256 in enumerate(manifest.chunks):
                chunk = client.get(keys.chunk(manifest.seq, number))
                if not isinstance(chunk, bytes) or hashlib.sha256(chunk).hexdigest() != sha256:
                    raise SnapshotError(f"snapshot {manifest.seq}: chunk {number} is not the manifest's")
                file.write(chunk)
            if file.tell() != manifest.size:
                raise SnapshotError(f"snapshot {manifest.seq}: {file.tell()} bytes, not {manifest.size}")
            file.flush()
            os.fsync(file.fileno())
        neighbour.rename(path)
    finally:
        neighbour.unlink(missing_ok=True)
    sync_folder(path.parent)


def _is_whole(path: Path, manifest: Manifest) -> bool:
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size != manifest.size:
            return False
        return all(hashlib.sha256(file.read(CHUNK_BYTES)).hexdigest() == chunk for chunk in manifest.chunks)


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
