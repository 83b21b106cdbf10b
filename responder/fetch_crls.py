"""CRL files brought to this host: those that the catalogue names and its folder lacks, through Valkey.

::

    newest beat ─▶ pages ─▶ what is not here ─▶ pieces, asked for ─▶ .parts/<sha256> ─▶ fsync
                                                                         │ whole: SHA-256 of all of it
                  folder/sign/g1/all/42.crl ◀── rename ◀─────────────────┘ wrong: removed, begun anew

A file has its name only once all of it is what the signed catalogue says, so a transfer that was broken off
is never taken for one; what is there of it is gone on from, and the hash over the whole decides.  What
the catalogue names no longer stays for a while, for workers that read an older one.
Knows: those rules, bounds of what is in memory (one request's pieces), one fetcher per folder.
Does not know: the order (``fetch_order``), who serves the files (``crl_files``), and checks them once more.
Source: ``certstatus.crl_chunks`` (what travels).
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import redis
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from certstatus import clock
from certstatus.crl_catalogue import COMPLETE, CatalogueEntry, CatalogueScope, path_of
from certstatus.crl_chunks import (
    CHUNK_BYTES,
    SEAL_BYTES,
    ChunkName,
    ChunkRequest,
    at_once,
    chunk_size,
    chunks_of,
    open_chunk,
)
from certstatus.errors import CertStatusError, FeedError, FolderBusy
from certstatus.feed_keys import FeedKeys
from certstatus.valkey import VALKEY_AWAY, read_values
from responder.catalogue_pages import CataloguePages
from responder.checked_mark import identity
from responder.fetch_order import in_order
from responder.newest_beat import read_newest_beat

log = logging.getLogger(__name__)

# A file that the catalogue names no longer: as long as the feed keeps an older catalogue.
GRACE_S = 600.0
LOOK_S = 1.0
ANSWER_S = 3.0
_PAUSE_FIRST_S = 0.002
_PAUSE_MAX_S = 0.05
_AGAIN_S = 5.0
_WRONG_AGAIN_S = 30.0
_FULL_S = 10.0
_TIDY_S = 60.0
# Requests of hosts that wait for a publisher which is away.
_REQUESTS_KEPT = 256
_REQUESTS_LIVE_S = 60
_PARTS = ".parts"


class FetchStatus(NamedTuple):
    """``awaited``: files that are not here; ``files`` and ``octets`` fetched so far."""

    generation: int = 0
    awaited: int = 0
    files: int = 0
    octets: int = 0
    trouble: str = ""


class _Name(NamedTuple):
    issuer_id: int
    scope: str
    kind: str
    number: int


def _name(entry: CatalogueEntry) -> _Name:
    return _Name(entry.issuer_id, entry.scope, entry.kind, entry.number)


class CRLFetcher:
    """The CRL files of one host, in a *folder* of its own; ``step`` by step, in one thread."""

    def __init__(
        self,
        folder: Path,
        client: redis.Redis,
        namespace: str,
        publisher_key: Ed25519PublicKey,
        host: str,
        *,
        wait: Callable[[float], object],
        monotonic_s: Callable[[], float] = clock.monotonic_s,
    ) -> None:
        """*wait*: waits so many seconds, or until there is an end to everything."""
        self._folder = folder
        # redis-py types every answer as "this, or an awaitable of this".
        self._client: Any = client
        self._namespace = namespace
        self._publisher_key = publisher_key
        self._host = host
        self._wait = wait
        self._monotonic_s = monotonic_s
        self._lock = -1
        self._pages = CataloguePages()
        self._keys: FeedKeys | None = None
        # Epoch and generation of the catalogue gone by; an older one is not gone by any more.
        self._at: tuple[bytes, int] = (b"", -1)
        self._scopes: tuple[CatalogueScope, ...] = ()
        # Scopes all of whose files are here.
        self._whole: dict[str, CatalogueScope] = {}
        # What is not here, in the order of fetching; by issuer, scope, kind and number.
        self._queue: dict[_Name, CatalogueEntry] = {}
        self._again_s: dict[str, float] = {}
        # What was wrong with a file, by its hash, until it is here.
        self._wrong: dict[str, str] = {}
        self._is_silent = False
        # Whether the publisher takes us to be waiting for pieces.
        self._is_waited_for = False
        # File and hash -> which bytes had that hash.
        self._right: dict[tuple[str, str], tuple[int, ...]] = {}
        self._unnamed_s: dict[Path, float] = {}
        self._looked_s = self._tidied_s = float("-inf")
        self._full_until_s = 0.0
        self.status = FetchStatus()

    # --- one step ------------------------------------------------------------------------------------

    def step(self) -> bool:
        """Fetch what one request brings; say whether there is more to be done at once.

        Raises: FeedError, redis.RedisError — nothing to go by, or Valkey is away; OSError — the folder, its
                disk being full for one; FolderBusy.
        """
        self._hold()
        now_s = self._monotonic_s()
        if now_s - self._looked_s >= LOOK_S:
            self._looked_s = now_s
            self._look()
        if now_s - self._tidied_s >= _TIDY_S:
            self._tidy(GRACE_S)
        if now_s < self._full_until_s:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._folder))
        window = self._window(now_s)
        self._is_silent &= bool(self._queue)
        if not window and self._is_waited_for and not self._asks_again(now_s):
            # What was given makes room for others.
            self._request([])
        if window:
            try:
                self._bring(window)
            except OSError as exc:
                if exc.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                    # What is not whole takes room from all who work on this disk.
                    self._drop_parts(set())
                    self._full_until_s = now_s + _FULL_S
                raise
        self.status = self.status._replace(awaited=len(self._queue))
        return bool(window)

    @property
    def trouble(self) -> str:
        """What is wrong with what was asked for lately; empty: nothing."""
        silent = "the publisher gives nothing of what is asked for" if self._is_silent else ""
        return next(iter(self._wrong.values()), silent)

    def note(self, trouble: str) -> None:
        """Note what is wrong; empty: nothing."""
        if trouble != self.status.trouble:
            log.log(logging.WARNING if trouble else logging.INFO, "CRL files: %s", trouble or "well again")
            self.status = self.status._replace(trouble=trouble)

    def close(self) -> None:
        """Let go of the folder."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _hold(self) -> None:
        """Be the only one who fetches into the folder.  Raises: FolderBusy — another process does."""
        (self._folder / _PARTS).mkdir(parents=True, exist_ok=True)
        if self._lock >= 0 and not (self._folder / ".lock").exists():
            # Somebody has taken all of it away.
            os.close(self._lock)
            self._lock = -1
        if self._lock < 0:
            lock = os.open(self._folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as exc:
                os.close(lock)
                raise FolderBusy(f"{self._folder}: another process fetches CRL files into it") from exc
            self._lock = lock

    # --- what is wanted --------------------------------------------------------------------------------

    def _look(self) -> None:
        """Go by the newest catalogue, if it is a newer one.  Raises: FeedError, redis.RedisError."""
        newest = read_newest_beat(self._client, self._namespace, self._publisher_key)
        if newest is None:
            return
        at = newest.beat.epoch, newest.beat.crls.generation
        if at <= self._at:
            return
        read = self._pages.read(self._client, newest.keys, newest.beat.crls)
        self._keys, self._scopes = newest.keys, read.scopes
        self._again_s.clear()
        self._wrong.clear()
        self._plan()
        # Only now: one that could not be planned is not gone by.
        self._at = at
        self.status = self.status._replace(generation=read.generation)

    def _plan(self) -> None:
        """Note what is to be fetched; of thousands of scopes those are looked at that were not whole here."""
        moved = [scope for scope in self._scopes if self._whole.get(scope.path) is not scope]
        self._queue = {_name(entry): entry for entry in in_order(moved, self._is_here)}
        lacking = {path_of(entry) for entry in self._queue.values()}
        self._whole = {scope.path: scope for scope in self._scopes if scope.path not in lacking}
        self.status = self.status._replace(awaited=len(self._queue))

    def _is_here(self, entry: CatalogueEntry) -> bool:
        """Say whether the file is here and right: its bytes are read once."""
        key = entry.file, entry.sha256
        path = self._path(entry)
        try:
            # Before it is opened: what is no file could be waited for.
            if path.stat().st_size != entry.size:
                return False
            with path.open("rb") as file:
                bytes_ = identity(file.fileno())
                if self._right.get(key) != bytes_:
                    if hashlib.file_digest(file, "sha256").hexdigest() != entry.sha256:
                        return False
                    self._right[key] = bytes_
                return True
        except OSError:
            # Whatever keeps it from being read; one such file must not keep the others from coming.
            return False

    def _path(self, entry: CatalogueEntry) -> Path:
        """Return where a file belongs.  Raises: FeedError — outside of the folder."""
        path = Path(entry.file)
        if path.is_absolute() or not path.parts or any(part.startswith(".") for part in path.parts):
            raise FeedError(f"the CRL catalogue names a file {entry.file!r:.100}")
        return self._folder / path

    # --- fetching --------------------------------------------------------------------------------------

    def _window(self, now_s: float) -> list[tuple[CatalogueEntry, ChunkName]]:
        """Return the pieces to be asked for next, in order."""
        found: list[tuple[CatalogueEntry, ChunkName]] = []
        sizes: list[int] = []
        for entry in self._queue.values():
            # A delta is of no use before its base.
            if self._again_s.get(entry.sha256, 0.0) > now_s or self._lacks_base(entry):
                continue
            for number in chunks_of(entry.size, self._have(entry)):
                found.append((entry, ChunkName(entry.sha256, number)))
                sizes.append(chunk_size(entry.size, number))
                count = at_once([name for _, name in found], sizes)
                if count < len(found):
                    return found[:count]
        return found

    def _asks_again(self, now_s: float) -> bool:
        """Say whether something is to be asked for once more.

        What lies there is wrong then: whoever gave it must know that it was for us, or would leave it there.
        """
        return any(until_s > now_s for until_s in self._again_s.values())

    def _lacks_base(self, entry: CatalogueEntry) -> bool:
        return entry.base_number is not None and (
            _Name(entry.issuer_id, entry.scope, COMPLETE, entry.base_number) in self._queue
        )

    def _have(self, entry: CatalogueEntry) -> int:
        """Return how many octets are here of a file on its way: whole pieces only."""
        try:
            size = self._part(entry).stat().st_size
        except FileNotFoundError:
            return 0
        return size // CHUNK_BYTES * CHUNK_BYTES if size < entry.size else 0

    def _part(self, entry: CatalogueEntry) -> Path:
        return self._folder / _PARTS / entry.sha256

    def _bring(self, window: list[tuple[CatalogueEntry, ChunkName]]) -> None:
        """Ask for pieces, and write what comes.  Raises: redis.RedisError, OSError."""
        found = self._ask({name: chunk_size(entry.size, name.number) for entry, name in window})
        self._is_silent = not found
        for entry in dict.fromkeys(entry for entry, _ in window):
            numbers = [name.number for of, name in window if of is entry]
            pieces: list[bytes] = []
            for number in numbers:
                piece = found.get(ChunkName(entry.sha256, number))
                if piece is None or len(piece) != chunk_size(entry.size, number):
                    # Not there, or torn: from here on it is asked for again.
                    self._again_s[entry.sha256] = self._monotonic_s() + (_AGAIN_S if not pieces else 0.0)
                    break
                pieces.append(piece)
            at = numbers[0] * CHUNK_BYTES
            if pieces and self._write(entry, at, pieces) == entry.size:
                self._finish(entry)

    def _write(self, entry: CatalogueEntry, at: int, pieces: list[bytes]) -> int:
        """Write *pieces* from octet *at* on and nothing behind them; return where they end."""
        part = self._part(entry)
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            file.truncate(at)
            file.seek(at)
            file.writelines(pieces)
            file.flush()
            if (end := file.tell()) == entry.size:
                os.fsync(descriptor)
        self.status = self.status._replace(octets=self.status.octets + end - at)
        return end

    def _finish(self, entry: CatalogueEntry) -> None:
        """Give a file that has come whole its name, if it is what it must be."""
        part, path = self._part(entry), self._path(entry)
        with part.open("rb") as file:
            is_right = hashlib.file_digest(file, "sha256").hexdigest() == entry.sha256
        if not is_right:
            part.unlink()
            self._again_s[entry.sha256] = self._monotonic_s() + _WRONG_AGAIN_S
            self._wrong[entry.sha256] = f"{entry.file}: what came is not what the catalogue names; begun anew"
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # A name that power loss takes back is seen to be missing, and the file is fetched again.
            part.rename(path)
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as exc:
            part.unlink()
            self._again_s[entry.sha256] = self._monotonic_s() + _WRONG_AGAIN_S
            self._wrong[entry.sha256] = f"{entry.file}: something is in the way: {exc.strerror}"
            return
        with path.open("rb") as file:
            self._right[entry.file, entry.sha256] = identity(file.fileno())
        del self._queue[_name(entry)]
        self._again_s.pop(entry.sha256, None)
        self._wrong.pop(entry.sha256, None)
        self.status = self.status._replace(files=self.status.files + 1, awaited=len(self._queue))

    def _ask(self, sizes: dict[ChunkName, int]) -> dict[ChunkName, bytes]:
        """Return those of the pieces, of so many octets each, that can be had.  Raises: redis.RedisError."""
        assert self._keys is not None
        found = self._get(self._keys, sizes)
        missing = [name for name in sizes if name not in found]
        if not missing:
            return found
        self._request(missing)
        until_s, pause_s = self._monotonic_s() + ANSWER_S, _PAUSE_FIRST_S
        while missing and self._monotonic_s() < until_s:
            if self._wait(pause_s):
                return {}
            pause_s = min(pause_s * 1.5, _PAUSE_MAX_S)
            found |= self._get(self._keys, {name: sizes[name] for name in missing})
            if len(left := [name for name in missing if name not in found]) < len(missing):
                missing, pause_s = left, _PAUSE_FIRST_S
        return found

    def _request(self, names: list[ChunkName]) -> None:
        """Say for which pieces this host waits.  Raises: redis.RedisError."""
        assert self._keys is not None
        requests = self._keys.crl_requests()
        pipeline = self._client.pipeline(transaction=False)
        pipeline.rpush(requests, ChunkRequest(self._host, tuple(names)).encode())
        pipeline.ltrim(requests, -_REQUESTS_KEPT, -1)
        pipeline.expire(requests, _REQUESTS_LIVE_S)
        pipeline.execute()
        self._is_waited_for = bool(names)

    def _get(self, keys: FeedKeys, sizes: dict[ChunkName, int]) -> dict[ChunkName, bytes]:
        places = {keys.crl_chunk(*name): name for name in sizes}
        values = read_values(
            self._client, {place: SEAL_BYTES + sizes[name] for place, name in places.items()}
        )
        pieces = {places[place]: open_chunk(value) for place, value in values.items()}
        return {name: piece for name, piece in pieces.items() if piece is not None}

    # --- what is of no use any more ----------------------------------------------------------------------

    def _tidy(self, grace_s: float) -> None:
        """Remove files that have not been named for *grace_s*, and transfers that nobody wants."""
        now_s = self._tidied_s = self._monotonic_s()
        if not self._scopes:
            # Nobody has said yet what is named.
            return
        named = {self._folder / entry.file for scope in self._scopes for entry in scope.entries}
        found = {path for path in self._folder.rglob("*") if path.suffix == ".crl" and path.is_file()}
        unnamed = found - named
        self._unnamed_s = {path: self._unnamed_s.get(path, now_s) for path in unnamed}
        for path, since_s in self._unnamed_s.items():
            if now_s - since_s >= grace_s:
                path.unlink(missing_ok=True)
                with suppress(OSError):
                    # Unless others are in it.
                    path.parent.rmdir()
        self._right = {key: found for key, found in self._right.items() if self._folder / key[0] in named}
        if not named <= found | {self._path(entry) for entry in self._queue.values()}:
            # Somebody has taken away what was here.
            self._whole.clear()
            self._plan()
        self._drop_parts({entry.sha256 for entry in self._queue.values()})

    def _drop_parts(self, wanted: set[str]) -> None:
        for path in (self._folder / _PARTS).iterdir():
            if path.name not in wanted:
                path.unlink(missing_ok=True)


class FetchThread(threading.Thread):
    """Runs a fetcher beside the host agent's other work."""

    def __init__(self, make: Callable[[Callable[[float], object]], CRLFetcher]) -> None:
        """*make*: the fetcher, given what it waits by."""
        super().__init__(name="crl files", daemon=True)
        self._stopping = threading.Event()
        self.fetcher = make(self._stopping.wait)

    def run(self) -> None:
        """Fetch until stopped; nothing that is wrong ends this thread."""
        while not self._stopping.is_set():
            more = False
            try:
                more = self.fetcher.step()
                self.fetcher.note(self.fetcher.trouble)
            except (*VALKEY_AWAY, CertStatusError, OSError) as exc:
                self.fetcher.note(f"{type(exc).__name__}: {exc}")
            except Exception as exc:
                log.exception("CRL files")
                self.fetcher.note(repr(exc))
            if not more:
                self._stopping.wait(LOOK_S / 4)
        self.fetcher.close()

    def stop(self, timeout_s: float) -> None:
        """End, within a moment unless the disk hangs."""
        self._stopping.set()
        self.join(timeout_s)
