"""What the newest beat vouches for, for processes that follow no stream: agent and admin pages.

Knows: finding the newest beat of the current epoch, verifying it, and opening the documents it
names.  Does not know: changes; a worker's ``follower`` does that.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import redis
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from certstatus.beat import EPOCH_BYTES, Beat, Pointer, verify_beat
from certstatus.documents import open_document
from certstatus.errors import FeedError
from certstatus.feed_keys import BEAT_FIELD, FeedKeys, epoch_key
from certstatus.issuer_table import Issuer, read_issuer_table

# A beat ends every append, so it is among the last entries but for a stream being built anew.
_LOOKED_THROUGH = 64


class NewestBeat(NamedTuple):
    """A verified beat and the names of its epoch's keys."""

    beat: Beat
    keys: FeedKeys


def read_newest_beat(
    client: redis.Redis, namespace: str, publisher_key: Ed25519PublicKey
) -> NewestBeat | None:
    """Return the newest beat, None if there is none (yet).

    Raises: FeedError — it is forged or of another epoch; redis.RedisError — Valkey is away.
    """
    # redis-py types every answer as "this, or an awaitable of this".
    valkey: Any = client
    text = valkey.get(epoch_key(namespace))
    if text is None:
        return None
    try:
        epoch = bytes.fromhex(text.decode("ascii"))
    except ValueError as exc:
        raise FeedError("the epoch in Valkey is not hexadecimal") from exc
    if len(epoch) != EPOCH_BYTES:
        raise FeedError(f"the epoch in Valkey has {len(epoch)} bytes")
    keys = FeedKeys(namespace, epoch)
    for _, fields in valkey.xrevrange(keys.stream, count=_LOOKED_THROUGH):
        if BEAT_FIELD in fields:
            beat = verify_beat(fields[BEAT_FIELD], publisher_key)
            if beat.epoch != epoch:
                raise FeedError(f"a beat of epoch {beat.epoch.hex()} in the stream of {epoch.hex()}")
            return NewestBeat(beat, keys)
    return None


def read_document(client: redis.Redis, keys: FeedKeys, kind: str, pointer: Pointer) -> dict[str, Any] | None:
    """Return the content of the document *pointer* names, None if there is none or it is not there now.

    Raises: FeedError — what is there is not what the beat names.
    """
    if pointer.generation == 0:
        return None
    text: Any = client.get(keys.document(kind, pointer.generation))
    return None if text is None else open_document(text, pointer)


def read_issuers(client: redis.Redis, newest: NewestBeat) -> list[Issuer]:
    """Return the issuer table the beat names; empty if there is none.

    Raises: FeedError — see ``read_document``.
    """
    content = read_document(client, newest.keys, "issuers", newest.beat.issuers)
    return [] if content is None else read_issuer_table(content)
