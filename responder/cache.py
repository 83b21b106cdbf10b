"""A cache bounded in bytes that forgets by generations.

Knows: a young generation and older ones.  What is put is in the young one; when that has its half of the
bytes it becomes an old one, and what is then too much goes, oldest first: an entry stays for one to two
halves, and comes back when it is put again.  Nothing here is done for many entries in one go, which
would stop the event loop: a generation also ends before its dictionary has to grow again, where all
entries would be moved (measured: 87,000 take 2.5 ms, 350,000 take 55), and a dropped one is taken apart
a few entries at a time; until then it is beyond the bound.
Does not know: whether an entry is still true; whoever takes one out asks that.
One thread only.  The caller may read ``young`` directly, and calls ``recall`` on a miss.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

_K = TypeVar("_K")
_V = TypeVar("_V")

# More than one a put, and more for a large one, which brings the next turn nearer: a dropped generation is
# gone before the next one drops, also where many small entries are followed by few large ones.
_FREED_EACH_PUT = 4
_FREED_FOR_BYTES = 1000
# What an entry costs beside what the caller says: its slot in the dictionary and the key's own overhead.
ENTRY_BYTES = 200
# A dictionary with one more grows to 2**18 places (two thirds of 2**17 are in use by then).
ENTRIES_MAX = 87_381


class GenerationCache(Generic[_K, _V]):
    """Key -> value, at most *bytes_max* bytes by the callers' own account of their sizes."""

    __slots__ = ("_dropped", "_old", "_old_size", "_room", "bytes_max", "young")

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.young: dict[_K, _V] = {}
        # Each with its bytes, youngest first; more than one only where generations end by their number.
        self._old: deque[tuple[dict[_K, _V], int]] = deque()
        self._old_size = 0
        self._dropped: list[dict[_K, _V]] = []
        self._room = bytes_max // 2

    def __len__(self) -> int:
        return len(self.young) + sum([len(entries) for entries, _ in self._old])

    @property
    def size(self) -> int:
        """The bytes of all generations, as accounted."""
        return self.bytes_max // 2 - self._room + self._old_size

    @property
    def left(self) -> int:
        """How many dropped entries have not been let go of yet."""
        return sum([len(entries) for entries in self._dropped])

    def recall(self, key: _K) -> _V | None:
        """Return the value of *key* from an old generation, without making it young."""
        for entries, _ in self._old:
            value = entries.get(key)
            if value is not None:
                return value
        return None

    def get(self, key: _K) -> _V | None:
        """Return the value of *key*, None if there is none."""
        value = self.young.get(key)
        return self.recall(key) if value is None else value

    def put(self, key: _K, value: _V, size: int) -> None:
        """Keep *value* of *size* bytes under *key*, in the young generation; nothing larger than that.

        Putting a key again counts again, which errs on the side of the bound.
        """
        if self._dropped:
            self._free(_FREED_EACH_PUT + size // _FREED_FOR_BYTES)
        size += ENTRY_BYTES
        if size > self._room or len(self.young) >= ENTRIES_MAX:
            if size > self.bytes_max // 2:
                self.young.pop(key, None)
                for entries, _ in self._old:
                    entries.pop(key, None)
                return
            self._turn()
        self._room -= size
        self.young[key] = value

    def forget(self) -> None:
        """Have nothing any more; what there was is let go of a few entries at a time, as a generation is."""
        self._dropped += [self.young, *[entries for entries, _ in self._old]]
        self.young = {}
        self._old.clear()
        self._old_size = 0
        self._room = self.bytes_max // 2

    def _free(self, count: int) -> None:
        """Let go of at most *count* dropped entries."""
        dropped = self._dropped[-1]
        for _ in range(min(count, len(dropped))):
            dropped.popitem()
        if not dropped:
            self._dropped.pop()

    def _turn(self) -> None:
        """Begin a young generation; of the old ones keep what fits into the other half of the bytes."""
        half = self.bytes_max // 2
        size = half - self._room
        self._old.appendleft((self.young, size))
        self._old_size += size
        while self._old_size > half:
            entries, size = self._old.pop()
            self._old_size -= size
            self._dropped.append(entries)
        self.young = {}
        self._room = half
