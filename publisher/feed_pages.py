"""The pages of the CRL catalogue in Valkey: those that the root names are there, others go after a while.

All are in one hash, so that one command says which are there, also of those that a publisher before this
one left behind.
Knows: which pages are named, which lie there, and since when one is not named any more: a host may be
reading by an older root.
Does not know: where pages come from, or what stands on them; the feed puts them before the root.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable

import redis

from certstatus import clock
from certstatus.crl_catalogue import read_root
from certstatus.errors import FeedError
from certstatus.feed_keys import FeedKeys

# Far above what a nation's catalogues have named within the time that old pages stay.
PAGES_MAX = 65_536
_PAGES_AT_ONCE = 16


class FeedPages:
    """The pages of one epoch; those no longer named stay for *old_s* seconds."""

    def __init__(self, old_s: float, monotonic_s: Callable[[], float] = clock.monotonic_s) -> None:
        self._old_s = old_s
        self._monotonic_s = monotonic_s
        self._named: frozenset[str] = frozenset()
        self._there: set[str] = set()
        # Page that lies there and is not named -> since when.
        self._unnamed_s: dict[str, float] = {}

    def name(self, pages: Iterable[str]) -> None:
        """Note which pages the root names from now on."""
        self._named = frozenset(pages)

    def see(self, there: set[str]) -> None:
        """Note which pages lie in Valkey."""
        self._there = there

    def missing(self) -> list[str]:
        """Return the named pages that do not lie there."""
        return sorted(self._named - self._there)

    def put(self, valkey: redis.Redis, keys: FeedKeys, pages: dict[str, bytes]) -> None:
        """Put *pages* there, by SHA-256 in hex.  Raises: redis.RedisError."""
        names = sorted(pages)
        for at in range(0, len(names), _PAGES_AT_ONCE):
            some = names[at : at + _PAGES_AT_ONCE]
            valkey.hset(keys.catalogue_pages(), mapping={name: pages[name] for name in some})
            self._there.update(some)

    def tidy(self, valkey: redis.Redis, keys: FeedKeys) -> None:
        """Drop the pages that have not been named for long.  Raises: redis.RedisError."""
        now_s = self._monotonic_s()
        unnamed = self._there - self._named
        self._unnamed_s = {page: self._unnamed_s.get(page, now_s) for page in unnamed}
        old = [page for page, since_s in self._unnamed_s.items() if now_s - since_s >= self._old_s]
        if old:
            valkey.hdel(keys.catalogue_pages(), *old)
            self._there.difference_update(old)


def pages_of(root: bytes) -> tuple[str, ...]:
    """Return the pages that a root names; none of what is no root of this version."""
    try:
        content = json.loads(root)
        return read_root(content).pages if isinstance(content, dict) else ()
    except (ValueError, KeyError, FeedError, RecursionError):
        return ()
