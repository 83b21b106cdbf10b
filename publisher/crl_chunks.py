"""CRL files for hosts that have not the publisher's folder: pieces of them in Valkey, on request.

::

    request ─▶ SHA-256 in the published catalogue? ─▶ room? ─▶ read, SET ... EX ─▶ forgotten after a minute
                  no: passed over                        no: waits for its turn

Knows: which pieces lie in Valkey by its doing and who waits for which, so that together they never take more
than ``BYTES_MAX``: a piece goes when all who asked for it have asked for something else, or after some
seconds if room is needed.
Does not know: what a CRL is, or who may have it: hosts are ours.  What comes of a file is the host's to
check, whole.
Source: ``certstatus.crl_chunks`` (the form).
"""

from __future__ import annotations

import logging
import os
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis

from certstatus import clock
from certstatus.crl_catalogue import CatalogueEntry, CatalogueScope
from certstatus.crl_chunks import (
    CHUNK_BYTES,
    REQUEST_BYTES_MAX,
    ChunkName,
    ChunkRequest,
    chunk_size,
    read_chunk_request,
    seal_chunk,
)
from certstatus.errors import FeedError
from certstatus.feed_keys import TAKE, WRONG_TYPE, FeedKeys
from issuance.store import CRL_CATALOGUE, Store
from publisher.crl_catalogue import read_published

log = logging.getLogger(__name__)

BYTES_MAX = 64 << 20
CHUNKS_MAX = 4096
LIFE_S = 60
# Who has not fetched a piece by then has given up, or asks again.
_LINGER_S = 5.0
_WAITING_MAX = 256
_LOT = 256
# Of one piece, by name; that somebody else waits for it, too, changes nothing.
_HOSTS_MAX = 1024
_WAIT_S = 1.0
_ROOM_S = 0.02
_CATALOGUE_AGE_S = 1.0


@dataclass(slots=True)
class _Out:
    """A piece that lies in Valkey."""

    size: int
    asked_s: float = 0.0
    hosts: set[str] = field(default_factory=set)


class CRLChunks:
    """The pieces that one publisher gives out of the files in *folder*."""

    def __init__(
        self,
        store: Store,
        valkey: redis.Redis,
        namespace: str,
        folder: Path,
        *,
        monotonic_s: Callable[[], float] = clock.monotonic_s,
        bytes_max: int = BYTES_MAX,
    ) -> None:
        self._store = store
        # redis-py types every answer as "this, or an awaitable of this".
        self._valkey: Any = valkey
        self._namespace = namespace
        self._folder = folder
        self._monotonic_s = monotonic_s
        self._bytes_max = bytes_max
        self._epoch = b""
        self._waiting: deque[ChunkRequest] = deque()
        # Who was answered last got nothing.
        self._lacks_room = False
        # Asked for longest ago first.
        self._out: OrderedDict[ChunkName, _Out] = OrderedDict()
        self._bytes_out = 0
        self._entries: dict[str, CatalogueEntry] = {}
        self._pages: dict[str, tuple[CatalogueScope, ...]] = {}
        self._root_sha256 = b""
        self._looked_s = float("-inf")
        self.octets = 0

    def step(self, wait_s: float = _WAIT_S) -> bool:
        """Answer the next request, waiting for one up to *wait_s*; say whether there was one to answer.

        Raises: redis.RedisError, StoreError.
        """
        keys = self._keys()
        room_s = _ROOM_S if self._lacks_room else 0.0
        self._take(keys, room_s if self._waiting else wait_s)
        self._forget_old()
        if not self._waiting:
            return False
        request = self._waiting.popleft()
        # What a host was given and asks for again was lost or torn.
        again = {name for name in request.chunks if request.host in self._hosts_of(name)}
        for out in self._out.values():
            out.hosts.discard(request.host)
        self._lacks_room = not self._give(keys, request, again)
        if self._lacks_room:
            # Behind the others: they may want what is there.
            self._waiting.append(request)
        return True

    # --- requests ------------------------------------------------------------------------------------

    def _keys(self) -> FeedKeys:
        epoch = self._store.state().epoch
        if epoch != self._epoch:
            self._epoch = epoch
            self._waiting.clear()
            self._out.clear()
            self._bytes_out = 0
            self._looked_s = float("-inf")
        return FeedKeys(self._namespace, epoch)

    def _take(self, keys: FeedKeys, wait_s: float) -> None:
        """Take over what hosts ask for; a newer request of a host replaces the one before.

        At most a lot of them, so that a flood of requests keeps nobody from an answer.
        """
        if len(self._waiting) >= _WAITING_MAX:
            # The others wait where they are.
            time.sleep(wait_s)
            return
        try:
            too_long, lot = self._valkey.eval(TAKE, 1, keys.crl_requests(), _LOT, REQUEST_BYTES_MAX)
            if not lot and not too_long and wait_s > 0:
                # Of one that comes just now nobody can be told how long it is.
                found = self._valkey.blpop([keys.crl_requests()], timeout=wait_s)
                lot = [] if found is None else [found[1]]
        except redis.ResponseError as exc:
            if WRONG_TYPE in str(exc):
                # Every host may write it; left there, it would end the requests of all.
                self._valkey.delete(keys.crl_requests())
            raise
        if too_long:
            log.warning("%d requests for CRL files of over %d bytes", too_long, REQUEST_BYTES_MAX)
        if len(lot) + too_long >= _LOT:
            # As hosts do when they ask.
            self._valkey.ltrim(keys.crl_requests(), -_WAITING_MAX, -1)
        wrong: list[FeedError] = []
        for octets in lot:
            try:
                request = read_chunk_request(octets)
            except FeedError as exc:
                wrong.append(exc)
                continue
            for old in [item for item in self._waiting if item.host == request.host]:
                self._waiting.remove(old)
            if len(self._waiting) < _WAITING_MAX:
                self._waiting.append(request)
        if wrong:
            log.warning("%s%s", wrong[0], f", and {len(wrong) - 1} more like it" if wrong[1:] else "")

    # --- answers -------------------------------------------------------------------------------------

    def _hosts_of(self, name: ChunkName) -> set[str]:
        out = self._out.get(name)
        return set() if out is None else out.hosts

    def _give(self, keys: FeedKeys, request: ChunkRequest, again: set[ChunkName]) -> bool:
        """Put what is asked for into Valkey, all of it or, for want of room, nothing; say which."""
        self._drop(keys, sorted(again))
        names = list(dict.fromkeys(request.chunks))
        pipeline = self._valkey.pipeline(transaction=False)
        for name in names:
            # Also says whether it is there: what somebody flushed is not.  What others put there is none.
            pipeline.expire(keys.crl_chunk(*name), LIFE_S)
        lacking = []
        for name, is_there in zip(names, pipeline.execute(), strict=True):
            if is_there and name in self._out:
                self._note(name, self._size_of(name) or CHUNK_BYTES, request.host)
            else:
                self._forget([name])
                if size := self._size_of(name):
                    lacking.append((name, size))
        if lacking and not self._make_room(keys, sum(size for _, size in lacking), len(lacking)):
            return False
        for name, size in lacking:
            content = self._read(name, size)
            if content is not None:
                self._put(keys, name, content)
                self._note(name, size, request.host)
        return True

    def _put(self, keys: FeedKeys, name: ChunkName, content: bytes) -> None:
        try:
            self._valkey.set(keys.crl_chunk(*name), seal_chunk(content), ex=LIFE_S)
        except redis.ResponseError:
            # Out of memory: beats need room too.
            self._drop(keys, list(self._out))
            raise
        self.octets += len(content)

    def _note(self, name: ChunkName, size: int, host: str) -> None:
        """Note that a piece lies there and who waits for it."""
        out = self._out.get(name)
        if out is None:
            out = self._out[name] = _Out(size)
            self._bytes_out += size
        out.asked_s = self._monotonic_s()
        if len(out.hosts) < _HOSTS_MAX:
            out.hosts.add(host)
        self._out.move_to_end(name)

    def _forget(self, names: list[ChunkName]) -> None:
        for name in names:
            out = self._out.pop(name, None)
            self._bytes_out -= 0 if out is None else out.size

    def _make_room(self, keys: FeedKeys, size: int, count: int) -> bool:
        """Say whether so many octets and pieces more may lie in Valkey, taking away what nobody waits for."""
        lack = self._bytes_out + size - self._bytes_max
        late_s = self._monotonic_s() - _LINGER_S
        going: list[ChunkName] = []
        for name, out in self._out.items():
            if lack <= 0 and len(self._out) - len(going) + count <= CHUNKS_MAX:
                break
            if not out.hosts or out.asked_s <= late_s:
                going.append(name)
                lack -= out.size
        self._drop(keys, going)
        return lack <= 0 and len(self._out) + count <= CHUNKS_MAX

    def _drop(self, keys: FeedKeys, names: list[ChunkName]) -> None:
        if names:
            self._forget(names)
            self._valkey.unlink(*[keys.crl_chunk(*name) for name in names])

    def _forget_old(self) -> None:
        """Forget what Valkey has forgotten."""
        old_s = self._monotonic_s() - LIFE_S
        self._forget([name for name, out in self._out.items() if out.asked_s <= old_s])

    # --- files ---------------------------------------------------------------------------------------

    def _size_of(self, name: ChunkName) -> int:
        """Return how many octets a piece has, 0 if the catalogue names no such file or piece."""
        entry = self._find(name.sha256)
        return 0 if entry is None else max(0, chunk_size(entry.size, name.number))

    def _read(self, name: ChunkName, size: int) -> bytes | None:
        """Return a piece, None if its file cannot be read."""
        entry = self._entries.get(name.sha256)
        if entry is None:
            return None
        try:
            descriptor = os.open(self._folder / entry.file, os.O_RDONLY | os.O_CLOEXEC)
            try:
                content = os.pread(descriptor, size, name.number * CHUNK_BYTES)
            finally:
                os.close(descriptor)
        except OSError as exc:
            log.warning("CRL %s for a host: %s", entry.file, exc.strerror)
            return None
        if len(content) != size:
            log.warning("CRL %s for a host: shorter than the catalogue says", entry.file)
            return None
        return content

    def _find(self, sha256: str) -> CatalogueEntry | None:
        """Return what the published catalogue names by this hash."""
        now_s = self._monotonic_s()
        # A host may have heard of a new catalogue before this does.
        age_s = _CATALOGUE_AGE_S if sha256 in self._entries else _CATALOGUE_AGE_S / 20
        if now_s - self._looked_s >= age_s:
            self._looked_s = now_s
            found = self._store.publication(CRL_CATALOGUE)
            if found is None:
                self._entries = {}
            elif found.sha256 != self._root_sha256:
                # Overtaken by a newer one: that is read next time.
                with suppress(FeedError):
                    published = read_published(self._store, found, self._pages)
                    self._pages, self._root_sha256 = published.pages, found.sha256
                    self._entries = {
                        entry.sha256: entry for scope in published.scopes for entry in scope.entries
                    }
        return self._entries.get(sha256)
