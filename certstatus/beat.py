"""A beat: the publisher's signed word on where the index stands.

::

    0      4       20     28       36      68                 108                              228
    +------+-------+------+--------+-------+------------------+--------------------------------+---------+
    | CSB1 | epoch | seq  | time_ms| chain | snapshot seq u64 | 3 x (generation u64, SHA-256): | Ed25519 |
    |      |  16   | u64  |  u64   |  32   | + manifest hash  | entitlements, issuers, crls    |   64    |
    +------+-------+------+--------+-------+------------------+--------------------------------+---------+
                                     little-endian, 292 bytes

Knows: the layout, signing and verifying.  Whoever can write to Valkey can stop a worker, but
cannot make it believe a change, a document or a snapshot that no beat vouches for.
Does not know: where beats are kept or how old one may be.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from certstatus.errors import FeedError

_MAGIC = b"CSB1"
_BODY = struct.Struct("<4s16sQQ32sQ32sQ32sQ32sQ32s")
_SIGNATURE_BYTES = 64
BEAT_BYTES = _BODY.size + _SIGNATURE_BYTES
EPOCH_BYTES = 16
NO_HASH = bytes(32)


class Pointer(NamedTuple):
    """The generation (a sequence number, 0 for none) and SHA-256 of something published."""

    generation: int
    sha256: bytes


NOTHING = Pointer(0, NO_HASH)


class Beat(NamedTuple):
    """One beat: "at time_ms the sequence stood at seq, and these were current"."""

    epoch: bytes
    seq: int
    time_ms: int
    chain: bytes
    snapshot: Pointer
    entitlements: Pointer
    issuers: Pointer
    crls: Pointer

    @property
    def entry_id(self) -> str:
        """The beat's ID in the stream; the server refuses one that is not later than the last."""
        return f"{self.seq}-{self.time_ms}"


def sign_beat(beat: Beat, publisher_key: Ed25519PrivateKey) -> bytes:
    """Return the bytes of *beat* with the publisher's signature at the end."""
    body = _BODY.pack(
        _MAGIC,
        beat.epoch,
        beat.seq,
        beat.time_ms,
        beat.chain,
        *beat.snapshot,
        *beat.entitlements,
        *beat.issuers,
        *beat.crls,
    )
    return body + publisher_key.sign(body)


def verify_beat(signed: bytes, publisher_key: Ed25519PublicKey) -> Beat:
    """Return the beat in *signed* if the publisher signed exactly these bytes.

    Raises: FeedError — wrong length, wrong magic, or a signature that does not verify.
    """
    if len(signed) != BEAT_BYTES:
        raise FeedError(f"a beat has {BEAT_BYTES} bytes, found {len(signed)}")
    body = signed[: _BODY.size]
    try:
        publisher_key.verify(signed[_BODY.size :], body)
    except InvalidSignature as exc:
        raise FeedError("a beat's signature does not verify under the publisher's key") from exc
    magic, epoch, seq, time_ms, chain, *pointers = _BODY.unpack(body)
    if magic != _MAGIC:
        raise FeedError(f"a beat begins with {_MAGIC!r}, found {magic!r}")
    pairs = [Pointer(pointers[at], pointers[at + 1]) for at in range(0, 8, 2)]
    return Beat(epoch, seq, time_ms, chain, *pairs)
