"""Workers' acknowledgements: read from Valkey, noted in the store, confirmed back in Valkey.

A worker answers nobody before its incarnation stands under its ``seen`` key, and it stands there
only after the store of record has noted the worker's lease.  So no worker is alive that the store
does not know, whatever Valkey loses.  A worker that says nothing for long (its acknowledgement is
gone, or still names a number that a beat went beyond a while ago) gets no new lease and must be
seen anew: otherwise a worker that died without a word would keep its lease for ever.
Knows: the keys and their order.  Does not know: how long a lease is, nor who waits for it.
"""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import redis

from certstatus.errors import FeedError
from certstatus.feed_keys import VALUES, FeedKeys
from certstatus.leases import WorkerAck, encode_seen, read_ack, read_seen

log = logging.getLogger(__name__)

# Of workers that are alive or were since the set was begun anew, and of octets in the name of an ack key and
# in what stands under it: all far above what is right.
ACKS_MAX = 4096
ACK_KEY_BYTES_MAX = 1024
_ACK_BYTES_MAX = 4096


class AckReading(NamedTuple):
    """Acknowledgements to be noted, and what the ``seen`` keys must become (None: be gone)."""

    acks: list[WorkerAck]
    seen: dict[str, str | None]


def read_acks(valkey: redis.Redis, keys: FeedKeys, members: set[bytes], must_have_seq: int) -> AckReading:
    """Return what the workers under the ack keys *members* say, and which ``seen`` keys differ from it.

    Takes:   *must_have_seq*: who has not applied so far by now counts as silent.
    An acknowledgement that is malformed or stands under another worker's key is passed over: a host
    may write its own keys only, so the key's name decides who is speaking.
    """
    client: Any = valkey
    prefix, seen_prefix = keys.ack("", 0)[: -len(":0")], keys.seen("", 0)[: -len(":0")]
    # Whatever else somebody put into the set is nobody's acknowledgement.
    names = sorted(name for name in map(_text, members) if name.startswith(prefix))
    if not names:
        return AckReading([], {})
    seen_names = [seen_prefix + name.removeprefix(prefix) for name in names]
    values = client.eval(VALUES, 2 * len(names), *names, *seen_names, _ACK_BYTES_MAX)
    acks: list[WorkerAck] = []
    wrong: list[str] = []
    seen: dict[str, str | None] = {}
    for name, seen_name, text, kept in zip(
        names, seen_names, values[: len(names)], values[len(names) :], strict=True
    ):
        incarnation: str | None = None
        if text is not None:
            try:
                ack = read_ack(text)
                if keys.ack(ack.host, ack.slot) != name:
                    raise FeedError(f"it speaks for {ack.host}:{ack.slot}")
            except FeedError as exc:
                wrong.append(f"{name}: {exc}")
                continue
            if not ack.incarnation or ack.applied_seq >= must_have_seq:
                acks.append(ack)
                incarnation = ack.incarnation or None
        if kept is None and incarnation is None:
            continue
        if kept is None or incarnation is None or read_seen(kept)[0] != incarnation:
            seen[seen_name] = incarnation
    if wrong:
        log.warning("%s%s", wrong[0], f", and {len(wrong) - 1} more like it" if wrong[1:] else "")
    return AckReading(acks, seen)


def without(reading: AckReading, keys: FeedKeys, names: set[tuple[str, int]]) -> AckReading:
    """Return *reading* as if the workers *names* were silent: no lease, and not seen any more."""
    if not names:
        return reading
    acks = [ack for ack in reading.acks if (ack.host, ack.slot) not in names]
    unseen: dict[str, str | None] = {keys.seen(host, slot): None for host, slot in names}
    return AckReading(acks, reading.seen | unseen)


def _text(name: bytes) -> str:
    return name.decode(errors="replace")


def confirm(valkey: redis.Redis, seen: dict[str, str | None], noted_seq: int) -> None:
    """Set the ``seen`` keys; only after the store has noted the leases, at the cut *noted_seq*."""
    if not seen:
        return
    pipeline: Any = valkey.pipeline(transaction=False)
    for name, incarnation in seen.items():
        if incarnation is None:
            pipeline.delete(name)
        else:
            pipeline.set(name, encode_seen(incarnation, noted_seq))
    pipeline.execute()
