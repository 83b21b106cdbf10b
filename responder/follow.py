"""The follower: a thread that keeps the worker's standing true to the publisher's feed.

A thread with a blocking client, not a task: an event loop that is busy signing would read
changes a fifth of a second late; this reads them in a few milliseconds.

    load      newest beat, its snapshot, the changes since: a view of our own until it has
              caught up with that beat, then its documents, then published
    tail      each reply of the stream: changes applied and documents swapped under one lock
              with the new standing, then acknowledged, then (only then) fresh for longer
    doubt     gap, foreign epoch, wrong hash, forged beat: not fresh at once, load anew
    CRLs      the catalogue that a beat names is brought in beside all this (``follow_crls``)

What a worker acknowledges it has already put where every request looks, so a query that
follows the acknowledgement cannot be given an older answer.
Freshness never outlives the lease: it counts from the receipt of the last new beat whose
acknowledgement was written while the store of record knew this incarnation.
Does not know: HTTP, signing, caches.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from certstatus import clock
from certstatus.beat import NOTHING, Beat, Pointer, verify_beat
from certstatus.changes import Change, ChangeKind, first_chain
from certstatus.documents import open_document
from certstatus.entitlements import Entitlements, read_entitlements
from certstatus.errors import CertStatusError, FeedError
from certstatus.feed_keys import BEAT_FIELD, FeedKeys, epoch_key
from certstatus.index import Entry, Snapshot, View
from certstatus.issuer_table import Issuer, read_issuer_table
from certstatus.leases import WorkerAck, read_seen
from certstatus.valkey import VALKEY_AWAY, connect
from responder.feed_state import Believed, FeedState
from responder.fetch_snapshot import load_snapshot
from responder.follow_crls import NOTHING_SHOWN, CRLFollower, ShownCRLs, WantedCRLs
from responder.held_crls import has_file_in
from responder.standing import Access, Standing, nothing_believed

BLOCK_MS = 250
READ_COUNT = 2000
_PAUSE_FIRST_S = 0.05
_PAUSE_MAX_S = 1.0
_SNAPSHOT_RETRY_S = 10.0
# Long enough to let the loop's thread run, which waits for the interpreter.
_BREATH_S = 0.0001
_EPOCH_ORDER_BYTES = 8
_ARRIVAL_S = 10
_NOT_SEEN = "the store of record does not know this worker yet"


_Entries = list[tuple[bytes, dict[bytes, bytes]]]


class WorkerName(NamedTuple):
    """Which worker this is: its host, its slot there, and this life of it."""

    host: str
    slot: int
    incarnation: str


class FeedPlace(NamedTuple):
    """Where the feed is and what may be believed of it; ``crl_folder``: where this host's CRL files are."""

    url: str
    namespace: str
    publisher_key: Ed25519PublicKey
    index_folder: Path
    crl_folder: Path


class FeedLimits(NamedTuple):
    """``[index]`` of the configuration, as far as it concerns a worker."""

    age_max_s: int
    ahead_max_s: int
    pending_max: int


class _Documents(NamedTuple):
    pointers: tuple[Pointer, Pointer]
    entitlements: Entitlements
    issuers: list[Issuer]
    access: Access


class Follower(threading.Thread):
    """Follows the feed.  ``standing`` is what is believed; ``settled`` is held while it changes.

    Whoever looks up a certificate and wants the time that goes with it holds ``settled``.
    """

    def __init__(
        self,
        name: WorkerName,
        place: FeedPlace,
        limits: FeedLimits,
        now_ms: Callable[[], int] = clock.now_ms,
        monotonic_s: Callable[[], float] = clock.monotonic_s,
    ) -> None:
        super().__init__(name="follower", daemon=True)
        self.standing: Standing = nothing_believed()
        self.settled = threading.Lock()
        self.trouble = "starting"
        self.reloads = 0
        self._worker = name
        self._place = place
        self._limits = limits
        self._now_ms = now_ms
        self._monotonic_s = monotonic_s
        self._stopping = threading.Event()
        self._client = connect(place.url)
        self._keys = FeedKeys(place.namespace, b"")
        self._state: FeedState | None = None
        self._cursor = b"0-0"
        self._documents: _Documents | None = None
        # The CRL catalogue has a thread of its own; ``_shown`` is what it has shown of this epoch.
        self.crls = CRLFollower(place.url, has_file_in(place.crl_folder), self._show_crls, now_ms)
        self._shown = NOTHING_SHOWN
        self._wanted_crls: tuple[bytes, Pointer, list[Issuer]] | None = None
        # The last believed: what is older than this is never believed again.
        self._floor_epoch = b""
        self._floor = (0, 0)
        # Taken from the stream but not yet published, should Valkey go away in between.
        self._owed: tuple[Believed, float] | None = None
        # Published but not yet acknowledged: the beat's number and when it was received.
        self._unacknowledged: tuple[int, float] | None = None
        self._coming: _SnapshotLoad | None = None
        self._snapshot_retry_s = 0.0

    # --- for the event loop's thread -----------------------------------------------------------

    def stop(self, timeout_s: float) -> None:
        """Stop following and say good-bye; nothing may be answered after this call."""
        # In this order: what the thread publishes after the first line is fresh for nobody.
        self._stopping.set()
        with self.settled:
            self.standing.fresh_until_s = 0.0
        self.crls.stop()
        self.join(timeout_s)

    # --- for the CRL follower's thread ---------------------------------------------------------------

    def _show_crls(self, epoch: bytes, shown: ShownCRLs) -> None:
        """Serve these CRLs from now on, unless another epoch has begun."""
        with self.settled:
            if epoch == self._floor_epoch:
                self._shown = shown
                # In place: to put another object there would be to decide how fresh it is.
                self.standing.catalogue = shown.catalogue
                self.standing.listed = shown.listed
                self.standing.archive = shown.archive

    # --- the thread --------------------------------------------------------------------------------

    def run(self) -> None:
        """Follow until stopped; every error ends in doubt or in patience, never in this thread's end."""
        pause_s = _PAUSE_FIRST_S
        self.crls.start()
        while not self._stopping.is_set():
            try:
                if self._state is None:
                    self._load()
                self._tail()
                pause_s = _PAUSE_FIRST_S
                continue
            except (*VALKEY_AWAY, OSError) as exc:
                # Valkey away, or no room for a snapshot: what is believed stays so until it is stale.
                self.trouble = f"{type(exc).__name__}: {exc}"
            except CertStatusError as exc:
                self._doubt(exc)
            except Exception as exc:
                # A bug must not leave a worker that answers from an index that stands still.
                self._doubt(exc)
            self._stopping.wait(pause_s)
            pause_s = min(pause_s * 2, _PAUSE_MAX_S)
        self._leave()

    def _doubt(self, reason: Exception) -> None:
        self.trouble = f"{type(reason).__name__}: {reason}"
        self.standing.fresh_until_s = 0.0
        self._state = None
        self._owed = None
        self._unacknowledged = None
        self._coming = None

    def _leave(self) -> None:
        worker = self._worker
        farewell = self._ack("", self.standing.seq)
        try:
            self._client.set(self._keys.ack(worker.host, worker.slot), farewell.encode())
        except (*VALKEY_AWAY, OSError) as exc:
            self.trouble = f"no farewell: {exc}"
        self._client.close()

    # --- load --------------------------------------------------------------------------------------

    def _load(self) -> None:
        """Bring a new standing about, from the newest beat there is."""
        self.reloads += 1
        epoch = self._read_epoch()
        if epoch is None:
            raise FeedError("there is no epoch in Valkey")
        if epoch[:_EPOCH_ORDER_BYTES] < self._floor_epoch[:_EPOCH_ORDER_BYTES]:
            raise FeedError(f"epoch {epoch.hex()} is lower than {self._floor_epoch.hex()}, already served")
        keys = FeedKeys(self._place.namespace, epoch)
        newest = self._newest_beat(keys, epoch)
        if epoch == self._floor_epoch and (newest.seq, newest.time_ms) < self._floor:
            raise FeedError(f"the newest beat {newest.entry_id} is older than one believed, {self._floor}")
        snapshot = load_snapshot(self._client, keys, epoch, newest.snapshot, self._place.index_folder)
        if snapshot is None:
            state = self._new_state(epoch, 0, first_chain(epoch))
        else:
            state = self._new_state(epoch, snapshot.head.seq, snapshot.head.chain)
        view = View(snapshot)
        cursor = b"%d-0" % state.seq
        believed: Believed | None = None
        while believed is None or (believed.beat.seq, believed.beat.time_ms) < (newest.seq, newest.time_ms):
            entries = self._read(keys, cursor, None)
            if not entries:
                raise FeedError(f"the stream after {cursor!r} does not reach beat {newest.entry_id}")
            for entry_id, fields in entries:
                step = state.take(entry_id, fields)
                if step is not None:
                    believed = step
                    for change in step.changes:
                        view.apply(change)
            cursor = entries[-1][0]
        self._keys = keys
        self._publish(believed.beat, [], view, newest.snapshot)
        # Only now: whatever stops us before this must not leave a place to go on from without its view.
        self._state = state
        self._cursor = cursor
        # Said, so that the store learns of us; but this beat may be an old one, so it makes nothing fresh.
        self._acknowledge(believed.beat.seq)

    def _new_state(self, epoch: bytes, seq: int, chain: bytes) -> FeedState:
        return FeedState(epoch, seq, chain, self._place.publisher_key, self._limits.pending_max)

    def _read_epoch(self) -> bytes | None:
        text = self._client.get(epoch_key(self._place.namespace))
        if not isinstance(text, bytes):
            return None
        try:
            return bytes.fromhex(text.decode())
        except ValueError as exc:
            raise FeedError(f"the epoch in Valkey is {text[:64]!r}") from exc

    def _newest_beat(self, keys: FeedKeys, epoch: bytes) -> Beat:
        newest: Any = self._client.xrevrange(keys.stream, count=1)
        signed = newest[0][1].get(BEAT_FIELD) if newest else None
        if signed is None:
            # Empty, or a publisher is in the middle of starting the stream anew.
            raise FeedError("the stream does not end in a beat")
        beat = verify_beat(signed, self._place.publisher_key)
        if beat.epoch != epoch:
            raise FeedError(f"a beat of epoch {beat.epoch.hex()} in the stream of {epoch.hex()}")
        return beat

    # --- tail --------------------------------------------------------------------------------------

    def _tail(self) -> None:
        """Take one reply of the stream, and do what an earlier one still asks for."""
        assert self._state is not None
        if self._owed is not None:
            # Fresh from when it was received, not from when it could at last be put in place.
            self._settle(*self._owed)
        if self._unacknowledged is not None:
            self._extend(*self._unacknowledged)
        entries = self._read(self._keys, self._cursor, BLOCK_MS)
        received_s = self._monotonic_s()
        if not entries:
            # Gone on from behind such changes, a stream begun anew without them would never be heard again.
            self._state.require_covered()
            self._look_for_new_epoch()
            return
        last: Beat | None = None
        changes: list[Change] = []
        for entry_id, fields in entries:
            step = self._state.take(entry_id, fields)
            if step is not None:
                last = step.beat
                changes += step.changes
        self._cursor = entries[-1][0]
        if last is not None:
            self._owed = Believed(last, changes), received_s
            self._settle(*self._owed)

    def _settle(self, owed: Believed, received_s: float) -> None:
        beat, changes = owed
        self._publish(beat, changes, None, self.standing.snapshot)
        self._owed = None
        self._unacknowledged = beat.seq, received_s
        self._extend(beat.seq, received_s)
        self._follow_snapshot(beat)

    def _extend(self, seq: int, received_s: float) -> None:
        """Acknowledge, and be fresh for longer: the lease and the freshness end together."""
        if self._acknowledge(seq):
            self._unacknowledged = None
            with self.settled:
                if not self._stopping.is_set():
                    self.standing.fresh_until_s = received_s + self._limits.age_max_s
            self.trouble = ""

    def _read(self, keys: FeedKeys, cursor: bytes, block_ms: int | None) -> _Entries:
        reply: Any = self._client.xread({keys.stream: cursor}, count=READ_COUNT, block=block_ms)
        if not reply:
            return []
        # The two versions of the protocol give a mapping and a list.
        entries: _Entries = reply[keys.stream.encode()][0] if isinstance(reply, dict) else reply[0][1]
        return entries

    def _look_for_new_epoch(self) -> None:
        epoch = self._read_epoch()
        if epoch is not None and epoch[:_EPOCH_ORDER_BYTES] > self._floor_epoch[:_EPOCH_ORDER_BYTES]:
            raise FeedError(f"epoch {epoch.hex()} has begun")

    def _publish(self, beat: Beat, changes: list[Change], view: View | None, snapshot: Pointer) -> None:
        """Make what *beat* vouches for the worker's standing; *view* is given after a load."""
        documents = self._read_documents(beat)
        before = self.standing
        broad = (
            view is not None
            or self._documents is None
            or documents.issuers is not self._documents.issuers
            or any(change.kind == ChangeKind.CA_KEY_EVENT for change in changes)
        )
        with self.settled:
            now_view = before.view if view is None else view
            for change in changes:
                now_view.apply(change)
            if beat.epoch != self._floor_epoch:
                self._shown = NOTHING_SHOWN
            self._floor_epoch = beat.epoch
            self.standing = Standing(
                epoch=beat.epoch,
                seq=beat.seq,
                time_ms=beat.time_ms,
                mark=before.mark + bool(changes or broad),
                era=before.era + broad,
                view=now_view,
                access=documents.access,
                catalogue=self._shown.catalogue,
                listed=self._shown.listed,
                archive=self._shown.archive,
                fresh_until_s=before.fresh_until_s,
                wall_from_ms=beat.time_ms - self._limits.ahead_max_s * 1000,
                wall_until_ms=beat.time_ms + self._limits.age_max_s * 1000,
                snapshot=snapshot,
            )
        self._documents = documents
        self._floor = (beat.seq, beat.time_ms)
        wanted = beat.epoch, beat.crls, documents.issuers
        if wanted != self._wanted_crls:
            self._wanted_crls = wanted
            self.crls.want(WantedCRLs(self._keys, *wanted))

    def _ack(self, incarnation: str, seq: int) -> WorkerAck:
        worker = self._worker
        return WorkerAck(worker.host, worker.slot, incarnation, seq, self._limits.age_max_s)

    def _acknowledge(self, seq: int) -> bool:
        """Say how far we are; return whether the store of record knows this incarnation."""
        worker = self._worker
        ack_key = self._keys.ack(worker.host, worker.slot)
        pipeline = self._client.pipeline(transaction=False)
        pipeline.set(ack_key, self._ack(worker.incarnation, seq).encode())
        pipeline.sadd(self._keys.acks(), ack_key)
        pipeline.get(self._keys.seen(worker.host, worker.slot))
        known, noted_seq = read_seen(pipeline.execute()[2])
        # Whoever revoked before that cut did not wait for us, so we must have applied it first.
        if known != worker.incarnation or seq < noted_seq:
            # Once: whoever is refused for good must not make beats come faster.
            if self.trouble != _NOT_SEEN:
                self._client.set(self._keys.arrivals(), b"1", ex=_ARRIVAL_S)
                self.trouble = _NOT_SEEN
            return False
        return True

    # --- what a beat names -----------------------------------------------------------------------

    def _read_documents(self, beat: Beat) -> _Documents:
        """Return the documents *beat* names, reading only those that are not at hand."""
        have = self._documents
        pointers = (beat.entitlements, beat.issuers)
        if have is not None and have.pointers == pointers:
            return have
        if have is not None and have.pointers[0] == beat.entitlements:
            entitlements = have.entitlements
        else:
            content = self._read_document("entitlements", beat.entitlements)
            now_s = self._now_ms() // 1000
            entitlements = read_entitlements(content, now_s) if content else Entitlements(0, [], now_s)
        if have is not None and have.pointers[1] == beat.issuers:
            issuers = have.issuers
        else:
            content = self._read_document("issuers", beat.issuers)
            issuers = read_issuer_table(content) if content else []
        if have is not None and have.entitlements is entitlements and have.issuers is issuers:
            access = have.access
        else:
            access = Access(entitlements, issuers)
        return _Documents(pointers, entitlements, issuers, access)

    def _read_document(self, kind: str, pointer: Pointer) -> dict[str, Any] | None:
        if pointer == NOTHING:
            return None
        document = self._client.get(self._keys.document(kind, pointer.generation))
        if not isinstance(document, bytes):
            raise FeedError(f"{kind} generation {pointer.generation}: not in Valkey")
        return open_document(document, pointer)

    def _follow_snapshot(self, beat: Beat) -> None:
        """Bring a newer snapshot in, beside the tailing, so that the overlay stays small."""
        if self._coming is None:
            wanted = beat.snapshot != self.standing.snapshot and beat.snapshot.generation
            if wanted and self._monotonic_s() >= self._snapshot_retry_s:
                self._coming = _SnapshotLoad(self._place, self._keys, beat.epoch, beat.snapshot)
                self._coming.start()
            return
        if self._coming.is_alive():
            return
        coming, self._coming = self._coming, None
        if coming.error is not None:
            self.trouble = f"snapshot {coming.pointer.generation}: {coming.error}"
            self._snapshot_retry_s = self._monotonic_s() + _SNAPSHOT_RETRY_S
        snapshot = coming.snapshot
        before = self.standing
        if snapshot is None or not before.snapshot.generation < snapshot.head.seq <= before.seq:
            return
        # Before the lock is taken: only this thread changes a view, and many changes take some milliseconds.
        left: list[list[Entry]] = []
        view = before.view.moved_to(snapshot, partial(take_breath, left))
        with self.settled:
            self.standing = replace(
                before,
                view=view,
                snapshot=coming.pointer,
                mark=before.mark + 1,
                era=before.era + 1,
            )
        # An overlay that is let go of at once frees 200,000 entries in one go, and keeps the loop from its
        # work for 20 ms; held by the lots, they go a few at a time.  A map takes as long.
        if before.view.snapshot is not None:
            before.view.snapshot.forget_pages(breathe)
        del before
        while left:
            left.pop()
            breathe()


def take_breath(left: list[list[Entry]], lot: list[Entry]) -> None:
    """Keep a *lot* alive among those *left* to be let go of, and let other threads run."""
    left.append(lot)
    breathe()


def breathe() -> None:
    """Let the threads run that wait for the interpreter."""
    time.sleep(_BREATH_S)


class _SnapshotLoad(threading.Thread):
    """Fetches and maps one snapshot; ``snapshot`` or ``error`` is there once it has ended."""

    def __init__(self, place: FeedPlace, keys: FeedKeys, epoch: bytes, pointer: Pointer) -> None:
        super().__init__(name="snapshot", daemon=True)
        self.pointer = pointer
        self.snapshot: Snapshot | None = None
        self.error: Exception | None = None
        self._place = place
        self._keys = keys
        self._epoch = epoch

    def run(self) -> None:
        folder = self._place.index_folder
        try:
            with closing(connect(self._place.url)) as client:
                self.snapshot = load_snapshot(client, self._keys, self._epoch, self.pointer, folder)
        except Exception as exc:
            # Of whatever kind: what was there serves on, and it is tried again after a pause.
            self.error = exc
