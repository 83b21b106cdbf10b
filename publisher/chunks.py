"""A snapshot's chunks in Valkey: putting them there, seeing whether they are, dropping old ones.

Knows: that the manifest is written last, so that where it stands the chunks stood too.
Does not know: how a snapshot is made or which one is current.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import redis

from certstatus.errors import SnapshotError
from certstatus.feed_keys import FeedKeys
from certstatus.snapshot import CHUNK_BYTES, Manifest

OLD_EPOCH_S = 600
_NAMES_AT_ONCE = 1000


def put_chunks(valkey: redis.Redis, keys: FeedKeys, path: Path, manifest: Manifest) -> None:
    """Write the chunks of the snapshot at *path*, then its manifest.

    Raises: SnapshotError — the file is not what the manifest says; the manifest is not written then.
            redis.RedisError — gone, or out of memory; then the chunks are taken back, because beats
            need room too.
    """
    valkey.delete(keys.manifest(manifest.seq))
    written: list[str] = []
    try:
        with path.open("rb") as file:
            for number, sha256 in enumerate(manifest.chunks):
                chunk = file.read(CHUNK_BYTES)
                if hashlib.sha256(chunk).hexdigest() != sha256:
                    raise SnapshotError(f"{path}: chunk {number} has another SHA-256 than its manifest says")
                valkey.set(keys.chunk(manifest.seq, number), chunk)
                written.append(keys.chunk(manifest.seq, number))
        valkey.set(keys.manifest(manifest.seq), manifest.encode())
    except redis.ResponseError:
        for start in range(0, len(written), _NAMES_AT_ONCE):
            valkey.unlink(*written[start : start + _NAMES_AT_ONCE])
        raise


def has_chunks(valkey: redis.Redis, keys: FeedKeys, manifest: Manifest) -> bool:
    """Say whether the manifest and every chunk is in Valkey; their content is the hosts' to check."""
    client: Any = valkey
    if client.get(keys.manifest(manifest.seq)) != manifest.encode():
        return False
    names = [keys.chunk(manifest.seq, number) for number in range(len(manifest.chunks))]
    return all(
        client.exists(*names[start : start + _NAMES_AT_ONCE]) == len(names[start : start + _NAMES_AT_ONCE])
        for start in range(0, len(names), _NAMES_AT_ONCE)
    )


def drop_chunks_but(valkey: redis.Redis, keys: FeedKeys, kept_seqs: set[int]) -> int:
    """Drop the chunks and manifests of this epoch's other snapshots; return how many keys went."""
    client: Any = valkey
    prefix = keys.manifest(0).removesuffix("0:manifest")
    kept = {str(seq) for seq in kept_seqs}
    dropped = 0
    for name in client.scan_iter(match=f"{prefix}*", count=_NAMES_AT_ONCE):
        # Hosts give their own keys names too.
        if name.decode(errors="replace").removeprefix(prefix).partition(":")[0] not in kept:
            dropped += client.unlink(name)
    return dropped


def expire_older_epochs(valkey: redis.Redis, namespace: str, epoch: bytes) -> int:
    """Let everything of earlier epochs expire; return how many keys were marked.

    Not dropped at once: a worker may still be reading the epoch that has just ended.
    """
    client: Any = valkey
    prefix = f"{{{namespace}}}:"
    marked = 0
    for name in client.scan_iter(match=f"{prefix}*:*", count=_NAMES_AT_ONCE):
        found = name.decode(errors="replace").removeprefix(prefix).partition(":")[0]
        if len(found) == 2 * len(epoch) and found < epoch.hex():
            marked += client.expire(name, OLD_EPOCH_S, nx=True)
    return marked
