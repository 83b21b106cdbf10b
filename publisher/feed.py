"""The feed: what the store of record has committed, on its way to the workers, under signed beats.

One ``step`` is one beat::

    survey Valkey ─▶ store.beat (a cut; leases noted) ─▶ documents ─▶ seen keys ─▶ changes + beat
                                                                                   one script call

Anything that is not as this publisher left it (an ID already there, a hole, a flushed or
failed-over server, entries taken away) means: start the stream anew from the current snapshot.
Knows: the order of these acts, and that a beat names nothing that is not in Valkey yet.
Does not know: how snapshots and CRLs are made (``builder``); it must never wait for either.
Source: ARCHITECTURE.md, "Life of a revocation"; nothing here comes from an RFC.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import redis
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from certstatus import clock, documents
from certstatus.beat import NOTHING, Beat, Pointer, sign_beat
from certstatus.changes import first_chain, next_chain
from certstatus.config import Config
from certstatus.errors import CertStatusError, FeedError
from certstatus.feed_keys import MEMBERS, PAGES, RAISE, WRONG_TYPE, FeedKeys
from certstatus.leases import LEASE_SLACK_MS, WorkerAck
from certstatus.status_file import write_status
from certstatus.valkey import VALKEY_AWAY
from issuance.lease_watch import LeaseWatch
from issuance.store import CRL_CATALOGUE, BeatBasis, PackedChange, Publication, Store, WorkerLease
from issuance.waiting import Mark
from publisher.feed_pages import PAGES_MAX, FeedPages, pages_of
from publisher.lease import FEED_LEASE_MS, PublisherLease
from publisher.stream import Stream, StreamAhead
from publisher.twins import TwinWatch
from publisher.worker_acks import ACK_KEY_BYTES_MAX, ACKS_MAX, AckReading, confirm, read_acks, without

log = logging.getLogger(__name__)

LEASE_NAME = "feed"
# A replaced document stays this long for workers that read it from an older beat.
OLD_DOCUMENT_S = 600
BACKOFF_S_MAX = 1.0
_BACKOFF_S = 0.05
# A worker that has not acknowledged a beat for so long is silent.  Its freshness and the lease it has
# both end by then or later; one that comes back is seen again at the next beat.
ACK_PATIENCE_S = 10.0
# So often the loop looks whether it has been told to stop.
_SLICE_S = 0.25
# So long the operators' page shows what was wrong in a key that others write too.
ALARM_S = 60.0
# A publication may move between the cut and reading its body; then the cut is taken again.
_CUTS_MAX = 10


class Survey(NamedTuple):
    """What Valkey holds before a beat; ``missing`` names documents that must be put there again.

    ``pages``: which pages of the CRL catalogue are there, by SHA-256 (hex).
    """

    epoch: str
    length: int
    acks: AckReading
    missing: set[str]
    pages: set[str]


class _Overtaken(Exception):
    """A publication moved between the cut and the reading of its body."""


class Feed:
    """One publisher's feed.  ``seq`` and ``beat_ms`` are those of the last beat that went out."""

    def __init__(
        self,
        store: Store,
        valkey: redis.Redis,
        publisher_key: Ed25519PrivateKey,
        config: Config,
        *,
        now_ms: Callable[[], int] = clock.now_ms,
        monotonic_s: Callable[[], float] = clock.monotonic_s,
        lease: PublisherLease | None = None,
    ) -> None:
        # Fixed.
        self._store = store
        self._valkey: Any = valkey
        self._publisher_key = publisher_key
        self._index = config.index
        self._namespace = config.valkey.namespace
        self._now_ms = now_ms
        self._monotonic_s = monotonic_s
        self._lease = lease or PublisherLease(store, LEASE_NAME, FEED_LEASE_MS, now_ms=now_ms)
        self._lease_ms = config.index.age_max_s * 1000 + LEASE_SLACK_MS
        self._lease_watch = LeaseWatch(self._lease_ms, monotonic_s)
        self._run_out: list[WorkerLease] = []
        self._twin_watch = TwinWatch(monotonic_s)
        self._twins: set[tuple[str, int]] = set()
        # Whom the store knows since the last beat, None: not asked yet.
        self._leased: list[tuple[str, int]] | None = None
        # Key -> what was wrong with it, and until when that is shown.
        self._alarms: dict[str, tuple[str, float]] = {}
        self._status_path = config.state / "run" / "feed.json"
        # Of the epoch.
        self._keys: FeedKeys | None = None
        self._stream: Stream | None = None
        self._chain = b""
        self._snapshot = NOTHING
        self._documents: dict[str, Pointer] = {}
        self._pages = FeedPages(OLD_DOCUMENT_S, monotonic_s)
        # Sum of the generations of all that was published by the last beat, as ``Mark`` has it.
        self._publications = 0
        # Beats sent within ACK_PATIENCE_S, as (when, seq), and the greatest number sent before that.
        self._sent: deque[tuple[float, int]] = deque()
        self._must_have_seq = 0
        # To be seen from outside.
        self.seq = -1
        self.beat_ms = 0
        self.beats = 0
        self.rebuilds = 0
        self.workers = 0
        self.state = "starting"

    # --- one beat ------------------------------------------------------------------------------------

    def step(self) -> bool:
        """Bring the stream up to the store and send one beat.

        Gives:   False when there was nothing to send: another publisher holds the lease, or the
                 stream can begin only from a snapshot that is not there yet.
        Raises:  redis.RedisError, StoreError, FeedError — nothing wrong went out; try again.
        """
        if not self._lease.hold():
            self._stand_by("standby")
            return False
        for _ in range(_CUTS_MAX):
            try:
                return self._beat_once()
            except _Overtaken:
                continue
        raise FeedError(f"publications moved {_CUTS_MAX} times during one beat")

    def _beat_once(self) -> bool:
        if self._keys is None:
            self._begin_epoch(self._store.state().epoch)
        keys, stream = self._keys, self._stream
        assert keys is not None
        assert stream is not None
        survey = self._survey(keys)
        basis = self._store.beat(self._now_ms, survey.acks.acks, self._lease_ms, self._run_out)
        if basis.cut.epoch != self._keys_epoch:
            log.warning("epoch %s begins", basis.cut.epoch.hex())
            self._begin_epoch(basis.cut.epoch)
            raise _Overtaken
        snapshot = self._snapshot_of(basis)
        self.workers = sum(1 for ack in survey.acks.acks if ack.incarnation)
        intact = stream.is_known() and stream.length == survey.length
        if stream.is_known() and not intact:
            log.warning("stream holds %d entries, %d expected", survey.length, stream.length)
        self._put_documents(keys, basis, survey if intact else None)
        confirm(self._valkey, survey.acks.seen, basis.cut.seq)
        if not intact or not self._go_on(stream, basis, snapshot):
            if intact:
                # What the survey saw may have been lost since, together with the stream.
                self._put_documents(keys, basis, None)
            if not self._rebuild(keys, stream, basis, snapshot):
                return False
        # The beat is out, whatever fails from here on.
        before, self._snapshot = self._snapshot, snapshot
        self.seq, self.beat_ms, self._chain = basis.cut.seq, basis.cut.time_ms, basis.cut.chain
        self._publications = sum(pointer.generation for pointer in basis.publications.values())
        self._sent.append((self._monotonic_s(), basis.cut.seq))
        self.beats += 1
        if survey.epoch < keys_epoch(basis):
            self._raise_epoch(keys, basis)
        self._watch_leases(survey.acks.acks)
        self._tidy(keys, stream, before, snapshot)
        self.state = "publishing"
        return True

    def _watch_leases(self, acks: list[WorkerAck]) -> None:
        """Count for how long each lease that this beat did not renew has stood still.

        Only once the beat is out: by then its worker is not seen any more, so none can keep it alive.
        """
        renewed = {(ack.host, ack.slot) for ack in acks}
        known = self._store.leases()
        self._leased = [(lease.host, lease.slot) for lease in known]
        leases = [lease for lease in known if (lease.host, lease.slot) not in renewed]
        self._run_out = self._lease_watch.run_out(leases, lambda: self._store.state().time_ms)
        for lease in self._run_out:
            log.info("worker %d of %s: said nothing, its lease ran out", lease.slot, lease.host)

    def _begin_epoch(self, epoch: bytes) -> None:
        self._keys_epoch = epoch
        self._keys = FeedKeys(self._namespace, epoch)
        self._stream = Stream(self._valkey, self._keys)
        self._snapshot = NOTHING
        self._documents = {}
        self._pages = FeedPages(OLD_DOCUMENT_S, self._monotonic_s)
        self._sent.clear()
        self._must_have_seq = 0
        self._leased = None
        self.seq = -1

    def _stand_by(self, state: str) -> None:
        self.state = state
        self._sent.clear()
        self._run_out = []
        self._leased = None
        # Whoever leads meanwhile may renew what stood still here.
        self._lease_watch.run_out([], lambda: 0)
        if self._stream is not None:
            # Whoever leads meanwhile writes the stream; it must be started anew before the next append.
            self._stream.forget()

    def _survey(self, keys: FeedKeys) -> Survey:
        """Read what a beat depends on: two round trips, nothing that grows with the index."""
        documents_named = [
            keys.document(kind, pointer.generation) for kind, pointer in self._documents.items()
        ]
        pipeline = self._valkey.pipeline(transaction=False)
        pipeline.get(keys.epoch_key)
        pipeline.xlen(keys.stream)
        pipeline.eval(MEMBERS, 1, keys.acks(), ACKS_MAX, ACK_KEY_BYTES_MAX)
        pipeline.eval(PAGES, 1, keys.catalogue_pages(), PAGES_MAX)
        for name in documents_named:
            pipeline.exists(name)
        found = pipeline.execute(raise_on_error=False)
        # Every host may write the one of the two, and nobody's mistake there may end the beats of all.
        for at, name in ((2, keys.acks()), (3, keys.catalogue_pages())):
            if isinstance(found[at], redis.ResponseError) and WRONG_TYPE in str(found[at]):
                self._alarm(name, "of another type, removed")
                self._valkey.delete(name)
                found[at] = [0, []]
        for answer in found:
            if isinstance(answer, Exception):
                raise answer
        epoch, length, (members_gone, members), (pages_gone, pages), *there = found
        if members_gone:
            self._alarm(keys.acks(), f"{members_gone} names that are too long or too many, removed")
        if pages_gone:
            self._alarm(
                keys.catalogue_pages(), f"{pages_gone} fields that name no page or are too many, removed"
            )
        epoch_text = epoch.decode(errors="replace") if epoch is not None else ""
        if epoch_text > self._keys_epoch.hex():
            raise FeedError(f"Valkey is at epoch {epoch_text:.64}, this store at {self._keys_epoch.hex()}")
        missing = {name for name, found in zip(documents_named, there, strict=True) if not found}
        long_ago_s = self._monotonic_s() - ACK_PATIENCE_S
        while self._sent and self._sent[0][0] <= long_ago_s:
            self._must_have_seq = self._sent.popleft()[1]
        acks = read_acks(self._valkey, keys, self._ack_keys(keys) | set(members), self._must_have_seq)
        there_now = {page.decode() for page in pages}
        return Survey(epoch_text, length, self._refuse_twins(acks, keys), missing, there_now)

    def _ack_keys(self, keys: FeedKeys) -> set[bytes]:
        """Return the ack keys of the workers that the store knows.

        Whatever became of the set: of a worker that may be answering the lease must not end.
        """
        if self._leased is None:
            self._leased = [(lease.host, lease.slot) for lease in self._store.leases()]
        return {keys.ack(*worker).encode() for worker in self._leased}

    def _alarm(self, name: str, what: str) -> None:
        """Say what was wrong with a key that others write too; once in a while, however often it is."""
        now_s = self._monotonic_s()
        if now_s >= self._alarms.get(name, ("", now_s))[1]:
            log.error("%s: %s", name, what)
        self._alarms[name] = f"{name}: {what}", now_s + ALARM_S

    def _refuse_twins(self, acks: AckReading, keys: FeedKeys) -> AckReading:
        """Give no lease to workers that share a name: the store could wait for one of them only."""
        twins = self._twin_watch.note(acks.acks)
        for host, slot in sorted(twins - self._twins):
            log.error("%s", _twins_text(host, slot))
        self._twins = twins
        return without(acks, keys, twins)

    # --- what a beat names -----------------------------------------------------------------------------

    def _snapshot_of(self, basis: BeatBasis) -> Pointer:
        """Return the snapshot a beat may name; one of an older epoch counts as none."""
        pointer = basis.publications.get("snapshot", NOTHING)
        if pointer in (self._snapshot, NOTHING):
            return pointer
        manifest = self._body("snapshot", pointer)
        if json.loads(manifest)["epoch"] != basis.cut.epoch.hex():
            return NOTHING
        return pointer

    def _put_documents(self, keys: FeedKeys, basis: BeatBasis, survey: Survey | None) -> None:
        """Have every document that the beat names in Valkey; *survey* None: put them all."""
        missing = None if survey is None else survey.missing
        self._pages.see(set() if survey is None else survey.pages)
        for kind in documents.KINDS:
            pointer = basis.publications.get(kind, NOTHING)
            if pointer.generation == 0:
                continue
            name = keys.document(kind, pointer.generation)
            before = self._documents.get(kind)
            if before == pointer and missing is not None and name not in missing:
                continue
            body = self._body(kind, pointer)
            if kind == CRL_CATALOGUE:
                self._pages.name(pages_of(body))
                # Before the root: who reads the root finds them.
                self._put_pages(keys)
            self._valkey.set(name, body)
            self._documents[kind] = pointer
            if before is not None and before.generation != pointer.generation:
                self._valkey.expire(keys.document(kind, before.generation), OLD_DOCUMENT_S)
        self._put_pages(keys)

    def _put_pages(self, keys: FeedKeys) -> None:
        """Have every page in Valkey that the root of the CRL catalogue names."""
        missing = self._pages.missing()
        found = self._store.catalogue_pages(missing)
        if len(found) < len(missing):
            # They go with the root that named them, so by now there must be another.
            raise _Overtaken
        self._pages.put(self._valkey, keys, found)

    def _body(self, kind: str, pointer: Pointer) -> bytes:
        found: Publication | None = self._store.publication(kind)
        if found is None or found.generation != pointer.generation or found.sha256 != pointer.sha256:
            raise _Overtaken
        if found.body is None or hashlib.sha256(found.body).digest() != pointer.sha256:
            raise FeedError(f"publication {kind} {pointer.generation}: its body has another SHA-256")
        return found.body

    def _signed(self, basis: BeatBasis, snapshot: Pointer) -> tuple[str, bytes]:
        cut, published = basis.cut, basis.publications
        beat = Beat(
            cut.epoch,
            cut.seq,
            cut.time_ms,
            cut.chain,
            snapshot,
            *(published.get(kind, NOTHING) for kind in documents.KINDS),
        )
        return beat.entry_id, sign_beat(beat, self._publisher_key)

    # --- the stream --------------------------------------------------------------------------------------

    def _go_on(self, stream: Stream, basis: BeatBasis, snapshot: Pointer) -> bool:
        """Append what is new; say whether the stream was as it was left."""
        beat_id, beat = self._signed(basis, snapshot)
        for piece in self._pieces(self.seq, self._chain, basis):
            last = not piece or piece[-1].seq == basis.cut.seq
            if not stream.append(piece, beat_id if last else "", beat if last else b""):
                log.warning("stream is at another entry than this publisher left")
                return False
        return True

    def _rebuild(self, keys: FeedKeys, stream: Stream, basis: BeatBasis, snapshot: Pointer) -> bool:
        """Start the stream anew from the current snapshot; say whether that was possible."""
        cut = basis.cut
        start, base_seq = snapshot.generation, 0
        if snapshot == NOTHING:
            base_seq = self._store.state().base_seq
        if base_seq > start or cut.seq - start > self._index.stream_changes_max:
            if self.state != "waiting":
                log.info("waiting for a snapshot: %d changes are too many for the stream", cut.seq - start)
            self._stand_by("waiting")
            return False
        chain = first_chain(cut.epoch) if start == 0 else self._store.chain_at(start)
        beat_id, beat = self._signed(basis, snapshot)
        began_s = time.monotonic()
        first = True
        for piece in self._pieces(start, chain, basis):
            last = not piece or piece[-1].seq == cut.seq
            beat_now = (beat_id, beat) if last else ("", b"")
            if first:
                stream.restart(piece, *beat_now, beat_id, start)
                first = False
            elif not stream.append(piece, *beat_now):
                raise StreamAhead(f"{keys.stream}: another publisher wrote while it was started anew")
        self.rebuilds += 1
        log.info(
            "stream started anew after %d, up to %s, in %.0f ms",
            start,
            beat_id,
            (time.monotonic() - began_s) * 1000,
        )
        return True

    def _pieces(self, after: int, chain: bytes, basis: BeatBasis) -> Iterator[list[PackedChange]]:
        """Yield the changes in (after, cut], at least one piece, each checked against the running hash.

        Raises: FeedError — the store's changes do not lead to the hash of the cut: nothing is sent.
        """
        cut = basis.cut
        while True:
            piece: list[PackedChange] = []
            if after < cut.seq:
                piece = self._store.changes_after(after, cut.seq, self._index.append_changes_max)
            for change in piece:
                chain = next_chain(chain, change.packed)
                if chain != change.chain:
                    raise FeedError(f"change {change.seq} does not fit the running hash of the store")
            after = piece[-1].seq if piece else after
            if after == cut.seq and chain != cut.chain:
                raise FeedError(f"the store's running hash at {cut.seq} is not that of its changes")
            if not piece and after != cut.seq:
                raise FeedError(f"the store has no changes after {after}, its number is {cut.seq}")
            yield piece
            if after == cut.seq:
                return

    def _raise_epoch(self, keys: FeedKeys, basis: BeatBasis) -> None:
        """Tell the workers of this epoch, now that its stream can be followed; never lowers it."""
        kept = self._valkey.eval(RAISE, 1, keys.epoch_key, keys_epoch(basis)).decode(errors="replace")
        if kept != keys_epoch(basis):
            raise FeedError(f"Valkey is at epoch {kept}, this store at {keys_epoch(basis)}")

    def _tidy(self, keys: FeedKeys, stream: Stream, before: Pointer, snapshot: Pointer) -> None:
        """Keep the stream short: behind the previous snapshot, and never longer than its bound."""
        if before.generation and snapshot.generation > before.generation:
            stream.trim(before.generation)
        stream.bound(self._index.stream_changes_max)
        stream.drop_beats()
        self._pages.tidy(self._valkey, keys)

    # --- the loop ------------------------------------------------------------------------------------------

    def run(self, stop: threading.Event) -> None:
        """Send beats until *stop*; nothing that Valkey or the store does ends this loop."""
        backoff_s = _BACKOFF_S
        while not stop.is_set():
            began_s = time.monotonic()
            error = self._try_step()
            self.note_status(error)
            if error:
                stop.wait(backoff_s)
                backoff_s = min(backoff_s * 2, BACKOFF_S_MAX)
                continue
            backoff_s = _BACKOFF_S
            if self.state == "publishing":
                self._wait(stop, began_s + self._index.beat_period_ms / 1000)
            else:
                stop.wait(_SLICE_S)
        # Workers that left while we were told to stop are noted, so that nobody waits for them.
        if self.state == "publishing":
            self._try_step()
        self._leave()

    def _try_step(self) -> str:
        """Return what went wrong, empty if nothing did."""
        try:
            self.step()
            return ""
        except VALKEY_AWAY as exc:
            return self._failed("no_valkey", exc)
        except CertStatusError as exc:
            return self._failed("failing", exc)

    def _failed(self, state: str, exc: Exception) -> str:
        text = f"{type(exc).__name__}: {exc}"
        # Once per kind of trouble; a server that is away for an hour is one event.
        if self.state != state:
            log.warning("no beat: %s", text)
        self.state = state
        return text

    def _wait(self, stop: threading.Event, until_s: float) -> None:
        """Wait until the next beat is due, a worker waits to be seen, or there is a change or a publication
        that the last one did not name."""
        known = Mark(self.seq, self._publications)
        while not stop.is_set():
            left_s = until_s - time.monotonic()
            if left_s <= 0:
                return
            try:
                if self._store.wait_for_change(min(left_s, _SLICE_S), known) or self._has_arrivals():
                    return
            except CertStatusError as exc:
                log.warning("cannot wait for changes: %s", exc)
                stop.wait(min(left_s, _SLICE_S))

    def _has_arrivals(self) -> bool:
        """Say whether a worker waits to be seen; the beat that comes now is its answer."""
        assert self._keys is not None
        try:
            return bool(self._valkey.delete(self._keys.arrivals()))
        except VALKEY_AWAY:
            # The next beat finds out, and says so.
            return False

    def note_status(self, error: str) -> None:
        """Write what the operators' page shows of the feed; the one that stands by has nothing to say."""
        if self.state == "standby":
            return
        if not error:
            now_s = self._monotonic_s()
            shown = [_twins_text(*name) for name in sorted(self._twins)]
            shown += [text for text, until_s in self._alarms.values() if now_s < until_s]
            error = "; ".join(shown)
        write_status(
            self._status_path,
            {
                "pid": os.getpid(),
                "state": self.state,
                "seq": self.seq,
                "beat_ms": self.beat_ms,
                "beats": self.beats,
                "rebuilds": self.rebuilds,
                "workers": self.workers,
                "error": error,
            },
        )

    def _leave(self) -> None:
        try:
            self._lease.release()
        except CertStatusError as exc:
            log.warning("lease not given back: %s", exc)
        self.state = "stopped"
        self.note_status("")


def _twins_text(host: str, slot: int) -> str:
    return f"two workers call themselves worker {slot} of {host} and get no lease: name one machine anew"


def keys_epoch(basis: BeatBasis) -> str:
    """Return the epoch as it stands under the epoch key."""
    return basis.cut.epoch.hex()
