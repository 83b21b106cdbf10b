"""Keys of a snapshot's chunks in Valkey: which go, whatever else lies there."""

from __future__ import annotations

from typing import Any

import redis

from certstatus.feed_keys import FeedKeys
from publisher.chunks import OLD_EPOCH_S, drop_chunks_but, expire_older_epochs

EPOCH = bytes.fromhex("02" * 16)


def test_keys_whose_names_are_no_text_are_keys_like_others(valkey: redis.Redis) -> None:
    """A host gives its own keys their names, and such a name must not end the builder's work."""
    client: Any = valkey
    keys, older = FeedKeys("t", EPOCH), FeedKeys("t", bytes(16))
    client.set(keys.chunk(4, 0), b"x")
    client.set(keys.chunk(3, 0), b"x")
    foreign = keys.chunk(3, 0).encode() + b"\xff"
    client.set(foreign, b"x")
    assert drop_chunks_but(client, keys, {4}) == 2
    assert client.keys() == [keys.chunk(4, 0).encode()]
    client.set(older.ack("", 0).encode() + b"\xff\xfe", b"x")
    client.set(b"{t}:\xff\xfe:ack", b"x")
    assert expire_older_epochs(client, "t", EPOCH) == 1
    assert 0 < client.ttl(older.ack("", 0).encode() + b"\xff\xfe") <= OLD_EPOCH_S
    assert client.ttl(b"{t}:\xff\xfe:ack") == -1
