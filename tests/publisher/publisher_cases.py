"""What the publisher's tests share: a small registered population, and a reader that believes no more
than a worker may."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import redis
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from certstatus.beat import Beat, verify_beat
from certstatus.changes import ChangeKind, fingerprint, first_chain, next_chain, unpack_change
from certstatus.feed_keys import FeedKeys
from issuance import schema
from issuance.store import Store

START_MS = 1_800_000_000_000
NOT_AFTER_S = 1_900_000_000
INDEX_KEY = bytes(range(32))


class Clock:
    """A clock that stands still until told otherwise; milliseconds, and monotonic seconds beside it."""

    def __init__(self, now_ms: int = START_MS) -> None:
        self.ms = now_ms
        self.steady_s = 100.0

    def now_ms(self) -> int:
        return self.ms

    def monotonic_s(self) -> float:
        return self.steady_s

    def pass_s(self, seconds: float) -> None:
        """Let time pass on both."""
        self.ms += int(seconds * 1000)
        self.steady_s += seconds


def add_bare_issuer(store: Store, issuer_id: int, service: str, now_ms: int = START_MS) -> None:
    """Write an issuer's line without a key behind it: enough for the feed and snapshots."""
    with store.writing(now_ms) as act:
        act.connection.execute(
            sa.insert(schema.issuer).values(
                issuer_id=issuer_id,
                service=service,
                generation=1,
                key_algorithm="p256",
                name_der=service.encode(),
                spki_der=service.encode(),
                key_id=bytes(20),
                policy="{}",
                created_seq=act.seq + 1,
            )
        )
        act.record(ChangeKind.ISSUERS)


def serial_of(n: int) -> bytes:
    """The content octets of test certificate *n*'s serial number."""
    return b"\x01" + n.to_bytes(7, "big")


def issue_many(
    store: Store, numbers: range, issuer_id: int = 1, now_ms: int = START_MS, *, with_record: bool = False
) -> None:
    """Record the test certificates *numbers* as issued, on request with something in the issue record."""
    with store.writing(now_ms) as act:
        for n in numbers:
            serial = serial_of(n)
            act.record(
                ChangeKind.ISSUED,
                issuer_id=issuer_id,
                serial=serial,
                fingerprint=fingerprint(serial, INDEX_KEY),
                not_after_s=NOT_AFTER_S,
                certificate_der=b"certificate " + serial if with_record else None,
            )


def revoke_one(
    store: Store, n: int, reason: int | None = 1, issuer_id: int = 1, now_ms: int = START_MS
) -> int:
    """Record the revocation of test certificate *n*; returns its number in the sequence."""
    with store.writing(now_ms) as act:
        return act.record(ChangeKind.REVOKED, issuer_id=issuer_id, serial=serial_of(n), reason=reason).seq


def set_cert_hash(store: Store, issuer_id: int, cert_hash: bool, now_ms: int = START_MS) -> None:
    """Give a bare issuer a policy that says no more than this."""
    with store.writing(now_ms) as act:
        act.connection.execute(
            sa.update(schema.issuer)
            .where(schema.issuer.c.issuer_id == issuer_id)
            .values(policy=json.dumps({"cert_hash": cert_hash}))
        )
        act.record(ChangeKind.ISSUERS, issuer_id=issuer_id)


class FeedReading(NamedTuple):
    """What a worker starting now would know: numbers applied, the newest beat, and all beats."""

    applied: list[int]
    beat: Beat
    beats: list[Beat]


def follow(
    valkey: redis.Redis,
    epoch: bytes,
    public_key: Ed25519PublicKey,
    after: int = 0,
    chain: bytes | None = None,
) -> FeedReading:
    """Read the whole stream as a worker does that stands at *after*: no gap, every beat verified, and
    the running hash equal at each.  AssertionError: a worker could not have started."""
    client: Any = valkey
    keys = FeedKeys("t", epoch)
    chain = first_chain(epoch) if chain is None else chain
    applied: list[int] = []
    beats: list[Beat] = []
    covered = after
    for entry_id, fields in client.xrange(keys.stream, min=f"({after}-0"):
        if b"c" in fields:
            change = unpack_change(fields[b"c"])
            assert entry_id.decode() == f"{change.seq}-0"
            after += 1
            assert change.seq == after, f"change {change.seq} where {after} was due"
            chain = next_chain(chain, fields[b"c"])
            applied.append(change.seq)
        else:
            beat = verify_beat(fields[b"b"], public_key)
            assert beat.entry_id == entry_id.decode()
            assert (beat.epoch, beat.seq, beat.chain) == (epoch, after, chain)
            beats.append(beat)
            covered = beat.seq
    assert beats, "no beat in the stream"
    assert covered == after, "changes at the end that no beat covers"
    return FeedReading(applied, beats[-1], beats)
