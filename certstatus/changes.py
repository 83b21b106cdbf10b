"""A packed change: what one step of the store's sequence looks like in the feed.

::

    0      1      2            4               8                20             24            32
    +------+------+------------+---------------+----------------+--------------+-------------+-----------+
    | kind |reason| issuer_id  | not_after_day |  fingerprint   | invalidity_s | recorded_ms |   seq     |
    |  u8  |  u8  |    u16     |     u32       |    12 bytes    |     u32      |     u64     |   u64     |
    +------+------+------------+---------------+----------------+--------------+-------------+-----------+
                                            little-endian, 40 bytes

    and where the change tells a certificate's hash, 32 bytes more: SHA-256 over its DER

``recorded_ms`` is when the change was recorded, except for a revocation or hold that another CA had
said before it was imported: there it is the CA's own date, which answers and CRLs must show.

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
HASH_BYTES = 32
HASHED_CHANGE_BYTES = CHANGE_BYTES + HASH_BYTES
FINGERPRINT_BYTES = 12
NO_REASON = 0xFF
NO_FINGERPRINT = bytes(FINGERPRINT_BYTES)
# The last day of notAfter that a row of the index has room for, 2149-06-06.  Certificates may end far
# later (RFC 5280 §4.1.2.5: 9999); here they end on this day.
DAY_MAX = 0xFFFF
# The last second that a change's invalidity date, a row of the index and a row of a CRL have room for,
# 2106-02-07T06:28:15Z; the first is that of 1970.
TIME_MAX_S = (1 << 32) - 1


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
    CERTIFICATE_HASH = 10


# Only these say which certificate it is; every other change finds that said already.
_HASHED_KINDS = frozenset({ChangeKind.ISSUED, ChangeKind.CERTIFICATE_HASH})


class Change(NamedTuple):
    """One change, unpacked.  ``not_after_day`` counts JST days since 1970-01-01.

    ``certificate_sha256`` is empty in a change that tells no hash.
    """

    kind: int
    reason: int
    issuer_id: int
    not_after_day: int
    fingerprint: bytes
    invalidity_s: int
    recorded_ms: int
    seq: int
    certificate_sha256: bytes = b""


def fingerprint(serial: bytes, index_key: bytes) -> bytes:
    """Return the 12-byte keyed fingerprint of a serial number's DER content octets.

    96 bits under a key that Valkey never sees: nobody can look for a second serial number
    that collides with an issued one, nor list the numbers behind the fingerprints.
    """
    return hashlib.blake2b(serial, digest_size=FINGERPRINT_BYTES, key=index_key).digest()


class Fingerprinter:
    """``fingerprint`` under one key, at two thirds of its cost."""

    __slots__ = ("_keyed",)

    def __init__(self, index_key: bytes) -> None:
        self._keyed = hashlib.blake2b(digest_size=FINGERPRINT_BYTES, key=index_key)

    def __call__(self, serial: bytes) -> bytes:
        """Return ``fingerprint(serial, index_key)``."""
        keyed = self._keyed.copy()
        keyed.update(serial)
        return keyed.digest()


def pack_change(
    kind: int,
    issuer_id: int,
    fingerprint: bytes,
    not_after_day: int,
    reason: int | None,
    recorded_ms: int,
    seq: int,
    invalidity_s: int = 0,
    certificate_sha256: bytes = b"",
) -> bytes:
    """Return the 40 bytes of a change, 72 with a certificate's hash.

    *reason* None is stored as 0xFF, invalidity 0 means none.
    """
    packed = _LAYOUT.pack(
        kind,
        NO_REASON if reason is None else reason,
        issuer_id,
        not_after_day,
        fingerprint,
        invalidity_s,
        recorded_ms,
        seq,
    )
    return packed + certificate_sha256


def unpack_change(packed: bytes) -> Change:
    """Return the change in *packed*.

    Raises: FeedError — a kind this version does not know, or another length than its kind has.
    """
    if len(packed) == CHANGE_BYTES:
        change = Change(*_LAYOUT.unpack(packed))
        if not ChangeKind.ISSUED <= change.kind <= ChangeKind.CA_KEY_EVENT:
            raise FeedError(f"change {change.seq} has unknown kind {change.kind}, or lacks its hash")
        return change
    if len(packed) != HASHED_CHANGE_BYTES:
        raise FeedError(f"a change has {CHANGE_BYTES} or {HASHED_CHANGE_BYTES} bytes, found {len(packed)}")
    change = Change(*_LAYOUT.unpack_from(packed))._replace(certificate_sha256=packed[CHANGE_BYTES:])
    if change.kind not in _HASHED_KINDS:
        raise FeedError(f"change {change.seq} of kind {change.kind} tells no certificate's hash")
    return change


def first_chain(epoch: bytes) -> bytes:
    """Return the running hash of an epoch before its first change."""
    return hashlib.sha256(epoch).digest()


def next_chain(chain: bytes, packed: bytes) -> bytes:
    """Return the running hash after *packed*: SHA-256(previous hash || packed change)."""
    return hashlib.sha256(chain + packed).digest()
