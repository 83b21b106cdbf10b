"""What a worker says of itself: which worker it is and how far it has applied the feed.

Knows: the text under an ack key.  A worker is *live* until ``lease_until_ms``, which the
store of record keeps; it answers nobody before the store knows its incarnation.
Does not know: who reads it.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from certstatus.errors import FeedError

# What the store of record holds in a number.
_NUMBER_MAX = (1 << 63) - 1
_DIGITS_MAX = 19
# Of processes on one host, and of seconds that a configuration may say: far above both.
_SLOT_MAX = 0xFFFF
_AGE_MAX_S = 86_400
# Added to the index's greatest age when the store notes a lease: clocks of hosts may differ so much.
LEASE_SLACK_MS = 5000


class WorkerAck(NamedTuple):
    """A worker's word: it is *incarnation* in *slot* of *host* and has applied up to *applied_seq*.

    An empty incarnation says the worker has left and answers no more.  ``age_max_s``: how long after a
    beat it goes on answering; its lease lasts at least as long, whatever the publisher is configured to.
    """

    host: str
    slot: int
    incarnation: str
    applied_seq: int
    age_max_s: int = 0

    def encode(self) -> bytes:
        """Return the text kept under the ack key."""
        return json.dumps(list(self)).encode()


def read_ack(text: bytes) -> WorkerAck:
    """Return the acknowledgement in *text*.

    Raises: FeedError — not a list of host, slot, incarnation, number, seconds, or one that no
            store of record could keep.
    """
    try:
        host, slot, incarnation, applied, age_max_s = json.loads(text)
    except (ValueError, TypeError, RecursionError) as exc:
        raise FeedError("an acknowledgement is not a list of five") from exc
    if not (_is_text(host) and _is_number(slot, _SLOT_MAX) and _is_text(incarnation)):
        raise FeedError("an acknowledgement names no worker")
    if not (_is_number(applied, _NUMBER_MAX) and _is_number(age_max_s, _AGE_MAX_S)):
        raise FeedError("an acknowledgement names no number")
    return WorkerAck(host, slot, incarnation, applied, age_max_s)


def _is_text(value: object) -> bool:
    """Say whether *value* is text without controls and halves of characters, which no database takes."""
    return isinstance(value, str) and value.isprintable()


def _is_number(value: object, most: int) -> bool:
    # bool is an int in Python, so the exact type decides.
    return type(value) is int and 0 <= value <= most


def encode_seen(incarnation: str, noted_seq: int) -> str:
    """Return what stands under a ``seen`` key: the incarnation, and the cut its lease was noted at."""
    return f"{incarnation} {noted_seq}"


def read_seen(text: bytes | None) -> tuple[str, int]:
    """Return the incarnation the store knows and the cut at which it learnt of it; ("", 0) for none.

    A worker may answer only once it has applied that cut: whoever revoked before the store knew of
    the worker could not wait for it.
    """
    incarnation, _, noted = (text or b"").decode(errors="replace").rpartition(" ")
    known = bool(incarnation) and noted.isdecimal() and len(noted) <= _DIGITS_MAX
    return (incarnation, int(noted)) if known else ("", 0)
