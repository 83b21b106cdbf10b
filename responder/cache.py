"""A cache bounded in bytes that forgets by generations.

Knows: two generations.  What is put is in the young one; when that is full it becomes the old
one, and the old one goes: an entry stays for one to two generations, and comes back when it is
put again.  A dropped generation
is taken apart a few entries at a time, because freeing a dictionary of a hundred thousand
entries at once would stop the event loop for tens of milliseconds; until then it is beyond the bound.
Does not know: whether an entry is still true; whoever takes one out asks that.
One thread only.  The caller may read ``young`` directly, and calls ``recall`` on a miss.
"""

from __future__ import annotations

from typing import Generic, TypeVar

_K = TypeVar("_K")
_V = TypeVar("_V")

# More than one a put, and more for a large one, which brings the next turn nearer: a dropped generation is
# gone before the next one drops, also where many small entries are followed by few large ones.
_FREED_EACH_PUT = 4
_FREED_FOR_BYTES = 1000
# What an entry costs beside what the caller says: its slot in the dictionary and the key's own overhead.
ENTRY_BYTES = 200


class GenerationCache(Generic[_K, _V]):
    """Key -> value, at most *bytes_max* bytes by the callers' own account of their sizes."""

    __slots__ = ("_dropped", "_old", "_room", "_sizes", "bytes_max", "young")

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.young: dict[_K, _V] = {}
        self._old: dict[_K, _V] = {}
        self._dropped: dict[_K, _V] = {}
        self._room = bytes_max // 2
        self._sizes = (0, 0)

    def __len__(self) -> int:
        return len(self.young) + len(self._old)

    @property
    def size(self) -> int:
        """The bytes of both generations, as accounted."""
        return self.bytes_max // 2 - self._room + self._sizes[1]

    def recall(self, key: _K) -> _V | None:
        """Return the value of *key* from the old generation, without making it young."""
        return self._old.get(key)

    def get(self, key: _K) -> _V | None:
        """Return the value of *key*, None if there is none."""
        value = self.young.get(key)
        return self._old.get(key) if value is None else value

    def put(self, key: _K, value: _V, size: int) -> None:
        """Keep *value* of *size* bytes under *key*, in the young generation; nothing larger than that.

        Putting a key again counts again, which errs on the side of the bound.
        """
        dropped = self._dropped
        for _ in range(min(_FREED_EACH_PUT + size // _FREED_FOR_BYTES, len(dropped))):
            dropped.popitem()
        size += ENTRY_BYTES
        if size > self._room:
            if size > self.bytes_max // 2:
                self.young.pop(key, None)
                self._old.pop(key, None)
                return
            self._turn()
        self._room -= size
        self.young[key] = value

    def _turn(self) -> None:
        half = self.bytes_max // 2
        self._dropped = self._old
        self._sizes = (self._sizes[1], half - self._room)
        self._old = self.young
        self.young = {}
        self._room = half
