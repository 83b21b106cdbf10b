"""A packed change: what one step of the store's sequence looks like in the feed.

::

    0      1      2            4               8                20             24            32
    +------+------+------------+---------------+----------------+--------------+-------------+-----------+
    | kind |reason| issuer_id  | not_after_day |  fingerprint   | invalidity_s | recorded_ms |   seq     |
    |  u8  |  u8  |    u16     |     u32       |    12 bytes    |     u32      |     u64     |   u64     |
    +------+------+------------+---------------+----------------+--------------+-------------+-----------+
                                            little-endian, 40 bytes

Knows: the layout, the kinds, and the running hash (chain) over all changes of an epoch.
Does not know: the serial numbers; only keyed fingerprints of them travel, so that nobody who
reads the feed can build a list of issue numbers (Act art. 63).
"""

from __future__ import annotations

import hashlib
import struct
from enum import IntEnum
from typing import NamedTuple

from certstatus.errors import FeedError

_LAYOUT = struct.Struct("<BBHI12sIQQ")
CHANGE_BYTES = _LAYOUT.size
FINGERPRINT_BYTES = 12
NO_REASON = 0xFF
NO_FINGERPRINT = bytes(FINGERPRINT_BYTES)


class ChangeKind(IntEnum):
    """What happened at one number of the sequence."""

    ISSUED = 1
    REVOKED = 2
    HELD = 3
    RELEASED = 4
    LAPSED = 5
    REASON_CHANGED = 6
    ENTITLEMENTS = 7
    ISSUERS = 8
    CA_KEY_EVENT = 9


class Change(NamedTuple):
    """One change, unpacked.  ``not_after_day`` counts JST days since 1970-01-01."""

    kind: int
    reason: int
    issuer_id: int
    not_after_day: int
    fingerprint: bytes
    invalidity_s: int
    recorded_ms: int
    seq: int


def fingerprint(serial: bytes, index_key: bytes) -> bytes:
    """Return the 12-byte keyed fingerprint of a serial number's DER content octets.

    96 bits under a key that Valkey never sees: nobody can look for a second serial number
    that collides with an issued one, nor list the numbers behind the fingerprints.
    """
    return hashlib.blake2b(serial, digest_size=FINGERPRINT_BYTES, key=index_key).digest()


def pack_change(
    kind: int,
    issuer_id: int,
    fingerprint: bytes,
    not_after_day: int,
    reason: int | None,
    recorded_ms: int,
    seq: int,
    invalidity_s: int = 0,
) -> bytes:
    """Return the 40 bytes of a change; *reason* None is stored as 0xFF, invalidity 0 means none."""
    return _LAYOUT.pack(
        kind,
        NO_REASON if reason is None else reason,
        issuer_id,
        not_after_day,
        fingerprint,
        invalidity_s,
        recorded_ms,
        seq,
    )


def unpack_change(packed: bytes) -> Change:
    """Return the change in *packed*.

    Raises: FeedError — not exactly 40 bytes, or a kind this version does not know.
    """
    if len(packed) != CHANGE_BYTES:
        raise FeedError(f"a change has {CHANGE_BYTES} bytes, found {len(packed)}")
    change = Change(*_LAYOUT.unpack(packed))
    if not ChangeKind.ISSUED <= change.kind <= ChangeKind.CA_KEY_EVENT:
        raise FeedError(f"change {change.seq} has unknown kind {change.kind}")
    return change


def first_chain(epoch: bytes) -> bytes:
    """Return the running hash of an epoch before its first change."""
    return hashlib.sha256(epoch).digest()


def next_chain(chain: bytes, packed: bytes) -> bytes:
    """Return the running hash after *packed*: SHA-256(previous hash || packed change)."""
    return hashlib.sha256(chain + packed).digest()
