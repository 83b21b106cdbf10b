"""The feed's stream as its writer sees it: what is in it, and whether that is still so.

Knows: calling the append script, the last ID and the number of entries that must be there,
trimming, and dropping beats that newer ones have replaced.  The last ID alone would not show
entries taken away by somebody else (XTRIM and XDEL leave it as it is), so their number is
compared too: together they show any loss.
Does not know: what changes or beats say, nor when one is due.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import redis

from certstatus.errors import FeedError
from certstatus.feed_keys import APPEND, FeedKeys
from issuance.store import PackedChange

# Beats older than this many are of use to nobody; idle days would otherwise fill the stream with them.
BEATS_KEPT = 64
_BEATS_DROPPED_AT_ONCE = 32


class StreamAhead(FeedError):
    """The stream has already gone further than what was to be written: another publisher is ahead."""


class Stream:
    """One epoch's stream; ``last_id`` and ``length`` are what the last append left."""

    def __init__(self, valkey: redis.Redis, keys: FeedKeys) -> None:
        # redis-py types every answer as "this, or an awaitable of this".
        self._valkey: Any = valkey
        self._key = keys.stream
        self.last_id = ""
        self.length = -1
        self._floor = 0
        self._beats: deque[str] = deque()

    def forget(self) -> None:
        """Believe nothing of the stream any more: it must be started anew."""
        self.last_id = ""
        self.length = -1

    def is_known(self) -> bool:
        """Say whether this writer has written the stream and not lost track of it."""
        return self.last_id != ""

    def append(self, changes: list[PackedChange], beat_id: str, beat: bytes) -> bool:
        """Append *changes* and, unless its ID is empty, a beat, if the stream is as it was left.

        Gives:   whether it was; if not, nothing was appended and the stream is forgotten.
        Raises:  redis.RedisError — unknown whether it was; the stream is forgotten.
        """
        expected = self.last_id
        self.last_id = ""
        meant = self._call("append", expected, changes, beat_id, beat)
        if meant is None:
            self.forget()
            return False
        self.last_id = meant
        self.length += len(changes) + bool(beat_id)
        self._note_beat(beat_id)
        return True

    def restart(
        self, changes: list[PackedChange], beat_id: str, beat: bytes, goal_id: str, floor: int
    ) -> None:
        """Start the stream anew after *floor* with a first piece; *goal_id* is the beat to be reached.

        Raises:  StreamAhead — what is there has reached *goal_id* already; it is left as it is.
        """
        self.forget()
        meant = self._call("restart", goal_id, changes, beat_id, beat)
        if meant is None:
            raise StreamAhead(f"{self._key} is at {self._found} already, past {goal_id}")
        self.last_id = meant
        self.length = len(changes) + bool(beat_id)
        self._floor = floor
        self._beats.clear()
        self._note_beat(beat_id)

    def trim(self, floor: int) -> None:
        """Drop changes up to *floor*; beats at it and everything after stay."""
        if floor > self._floor:
            # Entries below <floor>-1: the change of that number itself, and all before it.
            self.length -= self._valkey.xtrim(self._key, minid=f"{floor}-1", approximate=False)
            self._floor = floor

    def bound(self, changes_max: int) -> None:
        """Drop the oldest changes of a stream that has grown beyond its bound.

        Workers that follow have applied them long since; one that starts waits for the next snapshot.
        """
        seq = int(self.last_id.partition("-")[0])
        # Not at every change: trimming one entry costs as much as trimming a thousand.
        if seq - self._floor > changes_max + changes_max // 10:
            self.trim(seq - changes_max)

    def drop_beats(self) -> None:
        """Drop beats that newer ones have replaced, many at a time; never the newest."""
        if len(self._beats) >= BEATS_KEPT + _BEATS_DROPPED_AT_ONCE:
            old = [self._beats.popleft() for _ in range(_BEATS_DROPPED_AT_ONCE)]
            self.length -= self._valkey.xdel(self._key, *old)

    def _note_beat(self, beat_id: str) -> None:
        if beat_id:
            self._beats.append(beat_id)

    def _call(
        self, mode: str, expected: str, changes: list[PackedChange], beat_id: str, beat: bytes
    ) -> str | None:
        """Return the ID that was meant if the stream ends there now, else None."""
        arguments: list[str | int | bytes] = [mode, expected, len(changes)]
        for change in changes:
            arguments += (f"{change.seq}-0", change.packed)
        answer = self._valkey.eval(APPEND, 1, self._key, *arguments, beat_id, beat)
        self._found = answer.decode() if isinstance(answer, bytes) else str(answer)
        meant = beat_id or f"{changes[-1].seq}-0"
        return meant if self._found == meant else None
