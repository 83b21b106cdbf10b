"""Snapshots: the whole index at one number of the sequence, made, put into Valkey, and named.

::

    previous file ─┐
                   ├─ merge ─▶ new file ─▶ manifest ─▶ chunks in Valkey ─▶ store.publish ─▶ next beat
    (S0, S] ───────┘                                                       (the pointer)

Knows: when one is due, that the previous file is merged with the changes since (the store's
rows are read only when there is no good previous file), and what may be thrown away: everything
before the snapshot before the current one, because hosts may still be fetching that one.
Does not know: the stream; the feed trims it once a beat names the new snapshot.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import redis

from certstatus import clock
from certstatus.changes import Change, ChangeKind, next_chain, unpack_change
from certstatus.config import Config
from certstatus.errors import FeedError, SnapshotError
from certstatus.feed_keys import FeedKeys
from certstatus.snapshot import (
    Manifest,
    SnapshotFile,
    fold_changes,
    make_manifest,
    read_manifest,
    write_snapshot,
)
from issuance.crl_register import Fence
from issuance.store import Cut, Store, StoreState
from publisher.chunks import drop_chunks_but, expire_older_epochs, has_chunks, put_chunks
from publisher.store_rows import ROWS_AT_ONCE, Progress, write_from_store

log = logging.getLogger(__name__)

KIND = "snapshot"
SUFFIX = ".csx"
# Changes that are in memory at once while a snapshot is merged, and that one page of them holds.
CHANGES_AT_ONCE = 500_000
_PAGE_CHANGES = 5_000


class Current(NamedTuple):
    """The snapshot that is published in this epoch; ``path`` is None if its file is gone or damaged."""

    manifest: Manifest
    path: Path | None


class Snapshots:
    """The snapshots of one installation, in *folder* and in Valkey."""

    def __init__(
        self,
        store: Store,
        valkey: redis.Redis,
        config: Config,
        *,
        monotonic_s: Callable[[], float] = clock.monotonic_s,
        changes_at_once: int = CHANGES_AT_ONCE,
        page_rows: int = ROWS_AT_ONCE,
    ) -> None:
        self._store = store
        self._valkey = valkey
        self._index = config.index
        self._namespace = config.valkey.namespace
        self._monotonic_s = monotonic_s
        self._changes_at_once = changes_at_once
        self._page_rows = page_rows
        # Of a build from the store's rows, for the operators' page; None while there is none.
        self.progress: Progress | None = None
        self.folder = config.state / "index"
        self._made_s = monotonic_s()

    # --- when ----------------------------------------------------------------------------------------

    def is_due(self) -> bool:
        """Say whether enough has changed, or enough time has passed with a change, for a new one."""
        state = self._store.state()
        current = self._published(state)
        if current is None:
            # After a restore the stream cannot begin at all without one.
            return state.seq > 0
        new = state.seq - current.seq
        waited_s = self._monotonic_s() - self._made_s
        return new >= self._index.snapshot_changes_max or (
            new > 0 and waited_s >= self._index.snapshot_period_s
        )

    # --- making ----------------------------------------------------------------------------------------

    def build(self, fence: Fence | None = None) -> int:
        """Make a snapshot at the present number (or nearer, if that is far), upload and publish it.

        Gives:   the number it was made at.
        Raises:  OSError — disk full; redis.RedisError; StoreError; FencedOff: what was published stays.
        """
        began_s = time.monotonic()
        state = self._store.state()
        keys = FeedKeys(self._namespace, state.epoch)
        self.folder.mkdir(parents=True, exist_ok=True)
        current = self.current(state)
        if current is not None and current.path is not None:
            seq = min(state.seq, current.manifest.seq + self._changes_at_once)
            path = self._path(state, seq)
            self._merge(current.path, current.manifest.seq, path, state, seq)
            how = f"merged with {seq - current.manifest.seq} changes"
        else:
            seq = state.seq
            path = self._path(state, seq)
            self._write_rows(path, state, seq)
            how = "made from the store"
        manifest = make_manifest(path)
        self._publish(keys, path, manifest, fence)
        self._made_s = self._monotonic_s()
        self.tidy(keys, state, seq)
        log.info("snapshot %d: %d bytes, %s, %.2f s", seq, manifest.size, how, time.monotonic() - began_s)
        return seq

    def _publish(self, keys: FeedKeys, path: Path, manifest: Manifest, fence: Fence | None) -> None:
        text = manifest.encode()
        put_chunks(self._valkey, keys, path, manifest)
        self._store.publish(KIND, manifest.seq, hashlib.sha256(text).digest(), text, fence)

    def _merge(self, previous_path: Path, after: int, path: Path, state: StoreState, seq: int) -> None:
        if seq == after:
            return
        previous = SnapshotFile(previous_path)
        changes = self._changes(previous.head.chain, after, seq)
        folded = fold_changes(changes, previous)
        write_snapshot(
            path, state.epoch, seq, self._time_ms(state, seq), self._store.chain_at(seq), folded, previous
        )

    def _changes(self, chain: bytes, after: int, upto: int) -> Iterator[Change]:
        """Yield the changes in (after, upto], checked to lead on from the previous snapshot.

        Raises: FeedError — they do not: the file is of another history than the store.
        """
        while after < upto:
            page = self._store.changes_after(after, upto, _PAGE_CHANGES)
            if not page:
                raise FeedError(f"the store has no change {after + 1}, its number is {upto}")
            for item in page:
                chain = next_chain(chain, item.packed)
                if chain != item.chain:
                    raise FeedError(f"change {item.seq} does not fit the running hash before it")
                yield unpack_change(item.packed)
            after = page[-1].seq

    def _write_rows(self, path: Path, state: StoreState, seq: int) -> None:
        cut = Cut(state.epoch, seq, self._time_ms(state, seq), self._store.chain_at(seq))
        try:
            write_from_store(path, self._store, cut, say=self._note, rows_at_once=self._page_rows)
        finally:
            self.progress = None

    def _note(self, progress: Progress) -> None:
        self.progress = progress

    def _time_ms(self, state: StoreState, seq: int) -> int:
        """Return when change *seq* was recorded; the same however and whenever the snapshot is made."""
        if seq == state.base_seq:
            return int.from_bytes(state.epoch[:8], "big")
        return self._store.recorded_ms(seq)

    # --- what there is ---------------------------------------------------------------------------------

    def current(self, state: StoreState) -> Current | None:
        """Return the published snapshot of this epoch, its file checked against the manifest."""
        manifest = self._published(state)
        if manifest is None:
            return None
        path = self._path(state, manifest.seq)
        try:
            if make_manifest(path) == manifest:
                return Current(manifest, path)
            log.warning("%s differs from its manifest", path)
        except FileNotFoundError:
            log.warning("%s is gone", path)
        except (OSError, ValueError, SnapshotError) as exc:
            log.warning("%s: %s", path, exc)
        return Current(manifest, None)

    def _published(self, state: StoreState) -> Manifest | None:
        found = self._store.publication(KIND)
        if found is None or found.body is None:
            return None
        manifest = read_manifest(found.body, found.sha256)
        return manifest if manifest.epoch == state.epoch.hex() else None

    def keep_uploaded(self, fence: Fence | None = None) -> bool:
        """Put the current snapshot into Valkey again if anything of it is missing there; say whether.

        Raises: as ``build``.
        """
        state = self._store.state()
        keys = FeedKeys(self._namespace, state.epoch)
        manifest = self._published(state)
        if manifest is None or has_chunks(self._valkey, keys, manifest):
            return False
        current = self.current(state)
        if current is None:
            return False
        path = current.path
        if path is None:
            path = self._path(state, manifest.seq)
            self._write_rows(path, state, manifest.seq)
            if make_manifest(path) != manifest:
                # Rows that were merged before a CA-key event do not say what the store's rows now do, and
                # another version may lay them out otherwise.  One number has one snapshot: take another.
                with self._store.writing(clock.now_ms) as act:
                    act.record(ChangeKind.ISSUERS, ground="snapshot lost")
                log.warning("snapshot %d is lost and comes out otherwise: making another", manifest.seq)
                self.build(fence)
                return True
        put_chunks(self._valkey, keys, path, manifest)
        log.warning("snapshot %d was missing in Valkey, uploaded again", manifest.seq)
        return True

    def tidy(self, keys: FeedKeys, state: StoreState, seq: int) -> None:
        """Throw away what lies before the snapshot before *seq*, files and chunks."""
        mine = f"{state.epoch.hex()}-"
        found: dict[int, Path] = {}
        for path in self.folder.iterdir():
            name = path.name
            number = name.removeprefix(mine).removesuffix(SUFFIX)
            if name.startswith(mine) and name.endswith(SUFFIX) and number.isdecimal():
                found[int(number)] = path
            elif SUFFIX in name:
                # Of an earlier epoch, or left behind by a build that was killed.
                path.unlink(missing_ok=True)
        previous = max((found_seq for found_seq in found if found_seq < seq), default=seq)
        for found_seq, path in found.items():
            if found_seq < previous:
                path.unlink(missing_ok=True)
        drop_chunks_but(self._valkey, keys, {previous, seq})
        expire_older_epochs(self._valkey, self._namespace, state.epoch)

    def _path(self, state: StoreState, seq: int) -> Path:
        return self.folder / f"{state.epoch.hex()}-{seq}{SUFFIX}"
