"""The feed against a real store and a real Valkey: what a worker can believe, whatever befalls either."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from publisher_cases import Clock, FeedReading, follow, issue_many, revoke_one

from certstatus import documents
from certstatus.beat import Pointer, sign_beat
from certstatus.clock import now_ms
from certstatus.config import Config
from certstatus.errors import FeedError
from certstatus.feed_keys import FeedKeys
from certstatus.leases import WorkerAck, read_seen
from certstatus.private_valkey import PrivateValkey
from certstatus.publisher_key import make_ed25519
from certstatus.snapshot import Manifest
from certstatus.valkey import connect
from issuance.store import BeatBasis, Now, Store, WorkerLease
from publisher.feed import Feed
from publisher.lease import PublisherLease
from publisher.stream import StreamAhead
from publisher.worker_acks import ACKS_MAX


class Line:
    """A feed over a store, and what a worker would read from it."""

    def __init__(
        self, store: Store, valkey: redis.Redis, key: Ed25519PrivateKey, config: Config, clock: Clock
    ) -> None:
        self.store, self.clock, self.key, self.config = store, clock, key, config
        self.valkey: Any = valkey
        self.epoch = store.state().epoch
        self.keys = FeedKeys("t", self.epoch)
        self.feed = self.another("first")

    def another(self, holder: str, valkey: redis.Redis | None = None) -> Feed:
        lease = PublisherLease(
            self.store,
            "feed",
            3000,
            now_ms=self.clock.now_ms,
            monotonic_s=self.clock.monotonic_s,
            holder=holder,
        )
        client = valkey or self.valkey
        return Feed(
            self.store,
            client,
            self.key,
            self.config,
            now_ms=self.clock.now_ms,
            monotonic_s=self.clock.monotonic_s,
            lease=lease,
        )

    def step(self, feed: Feed | None = None) -> bool:
        self.clock.pass_s(0.5)
        return (feed or self.feed).step()

    def read(self, after: int = 0) -> FeedReading:
        chain = self.store.chain_at(after) if after else None
        return follow(self.valkey, self.epoch, self.key.public_key(), after, chain)

    def is_complete(self, after: int = 0) -> bool:
        """Say whether a worker at *after* can follow to the store's present number."""
        state = self.store.state()
        reading = self.read(after)
        applied = list(range(after + 1, state.seq + 1))
        return reading.applied == applied and reading.beat.time_ms == state.time_ms


@pytest.fixture
def line(
    store: Store, valkey: redis.Redis, publisher_key: Ed25519PrivateKey, config: Config, clock: Clock
) -> Line:
    """A feed that has not sent anything yet."""
    return Line(store, valkey, publisher_key, config, clock)


def test_first_beat_covers_all_changes_and_raises_the_epoch(line: Line) -> None:
    """A new feed puts every change into the stream, a signed beat at the end, and names the epoch."""
    issue_many(line.store, range(100))
    assert line.step()
    assert line.is_complete()
    assert line.valkey.get("{t}:epoch") == line.epoch.hex().encode()


def test_later_steps_append_only_what_is_new(line: Line) -> None:
    """Each step adds the new changes and one beat; more changes than one script call takes come in pieces."""
    line.step()
    for n, count in enumerate((0, 1, 40, 41, 135)):
        issue_many(line.store, range(n * 1000, n * 1000 + count))
        assert line.step()
        assert line.is_complete()
    assert line.feed.rebuilds == 1


def test_beats_name_published_documents_that_are_in_valkey(line: Line) -> None:
    """A document is in Valkey before the beat that names it, and put there again when it is lost."""
    body = documents.encode_document({"generation": 1, "format": 1, "verifiers": []})
    line.store.publish("entitlements", 1, hashlib.sha256(body).digest(), body)
    line.step()
    pointer = line.read().beat.entitlements
    assert pointer == documents.document_pointer(body)
    name = line.keys.document("entitlements", 1)
    assert line.valkey.get(name) == body
    line.valkey.delete(name)
    line.step()
    assert line.valkey.get(name) == body


def test_replaced_document_expires(line: Line) -> None:
    """The document before the current one stays for a while and then goes by itself."""
    for generation in (1, 2):
        body = documents.encode_document({"generation": generation})
        line.store.publish("issuers", generation, hashlib.sha256(body).digest(), body)
        line.step()
    assert line.valkey.ttl(line.keys.document("issuers", 1)) > 0
    assert line.valkey.ttl(line.keys.document("issuers", 2)) == -1


def _flush(line: Line) -> None:
    line.valkey.flushall()


def _delete(line: Line) -> None:
    line.valkey.delete(line.keys.stream)


def _truncate(line: Line) -> None:
    line.valkey.xtrim(line.keys.stream, maxlen=3, approximate=False)


def _empty(line: Line) -> None:
    line.valkey.xtrim(line.keys.stream, maxlen=0, approximate=False)


def _hole(line: Line) -> None:
    line.valkey.xdel(line.keys.stream, "17-0")


def _last_entries(line: Line) -> None:
    for entry_id, _ in line.valkey.xrevrange(line.keys.stream, count=3):
        line.valkey.xdel(line.keys.stream, entry_id)


def _failed_over(line: Line) -> None:
    """What a replica holds that had not received the last entries: a stream that ends earlier."""
    entries = line.valkey.xrange(line.keys.stream)
    line.valkey.delete(line.keys.stream)
    for entry_id, fields in entries[:-4]:
        line.valkey.xadd(line.keys.stream, fields, id=entry_id)


def _foreign_type(line: Line) -> None:
    line.valkey.delete(line.keys.stream)
    line.valkey.xadd(line.keys.stream, {"c": b"x"}, id="1-0")


@pytest.mark.parametrize(
    "damage", [_flush, _delete, _truncate, _empty, _hole, _last_entries, _failed_over, _foreign_type]
)
def test_any_loss_in_valkey_leads_to_a_new_stream(line: Line, damage: Callable[[Line], None]) -> None:
    """Whatever was lost, the next step starts the stream anew and a worker can follow it from the start."""
    issue_many(line.store, range(60))
    body = documents.encode_document({"generation": 1})
    line.store.publish("crls", 1, hashlib.sha256(body).digest(), body)
    line.step()
    revoke_one(line.store, 5)
    line.step()
    damage(line)
    revoke_one(line.store, 6)
    assert line.step()
    assert line.is_complete()
    assert line.feed.rebuilds == 2
    assert line.valkey.get(line.keys.document("crls", 1)) == body
    assert line.valkey.get("{t}:epoch") is not None
    line.step()
    assert line.is_complete()
    assert line.feed.rebuilds == 2


def test_append_is_refused_when_an_id_is_there_already(line: Line) -> None:
    """An entry that somebody else wrote is never taken for one's own, even if its ID is the one meant."""
    line.step()
    seq = revoke_one_issued(line)
    line.valkey.xadd(line.keys.stream, {"c": b"forged" * 6}, id=f"{seq}-0")
    assert line.step()
    assert line.is_complete()
    assert line.feed.rebuilds == 2


def revoke_one_issued(line: Line) -> int:
    """Issue one certificate; returns its number in the sequence."""
    issue_many(line.store, range(5000, 5001))
    return line.store.state().seq


def test_stream_that_is_ahead_is_left_alone(line: Line) -> None:
    """A stream beyond what this publisher could write is another's; it is not overwritten."""
    line.step()
    line.valkey.xadd(line.keys.stream, {"b": b"of another"}, id="99999-1")
    before = line.valkey.xrange(line.keys.stream)
    with pytest.raises(StreamAhead):
        line.step()
    with pytest.raises(StreamAhead):
        line.step()
    assert line.valkey.xrange(line.keys.stream) == before


def test_only_one_of_two_publishers_writes(line: Line) -> None:
    """The second stands by while the first renews its lease, and takes over when the first is gone."""
    other = line.another("second")
    assert line.step()
    assert not line.step(other)
    assert other.state == "standby"
    for _ in range(10):
        assert line.step()
        assert not line.step(other)
    line.clock.pass_s(3)
    issue_many(line.store, range(3))
    assert line.step(other)
    assert line.is_complete()


def test_paused_publisher_cannot_take_the_stream_back(line: Line) -> None:
    """A publisher paused between its cut and its append finds its append refused, and stands by."""
    issue_many(line.store, range(10))
    line.step()
    other = line.another("second")
    true_beat = line.store.beat
    line.clock.pass_s(1)

    def paused(
        now: Now, acks: Iterable[WorkerAck], lease_ms: int, run_out: Iterable[WorkerLease]
    ) -> BeatBasis:
        # Here the first publisher stops; the second takes over, and changes happen under it.
        line.store.beat = true_beat  # type: ignore[method-assign]
        basis = true_beat(now, acks, lease_ms, run_out)
        line.clock.pass_s(4)
        assert other.step()
        revoke_one(line.store, 3)
        line.clock.pass_s(1)
        assert other.step()
        return basis

    line.store.beat = paused  # type: ignore[method-assign,assignment]
    with pytest.raises(StreamAhead):
        line.feed.step()
    assert line.is_complete()
    assert not line.feed.step()
    line.clock.pass_s(0.5)
    assert other.step()
    assert line.is_complete()


def test_lease_of_a_dead_holder_ends_though_the_clock_was_set_back(line: Line) -> None:
    """A lease whose end lies in the far future is taken over once it was not renewed for a whole term."""
    line.clock.ms += 3_600_000
    assert line.step()
    line.clock.ms -= 3_600_000
    other = line.another("second")
    assert not line.step(other)
    line.clock.pass_s(3)
    assert line.step(other)
    assert line.is_complete()
    assert not line.step()


def test_clock_set_back_keeps_beats_rising(line: Line) -> None:
    """Beat times never decrease, whatever the wall clock does."""
    line.step()
    line.clock.ms -= 3_600_000
    for _ in range(3):
        assert line.step()
    times = [beat.time_ms for beat in line.read().beats]
    assert times == sorted(set(times))


def test_outdated_epoch_writes_nothing(line: Line) -> None:
    """A publisher whose store has an older epoch than Valkey has seen refuses, and lowers nothing."""
    newer = "ff" * 16
    line.valkey.set("{t}:epoch", newer)
    with pytest.raises(FeedError):
        line.step()
    assert line.valkey.get("{t}:epoch") == newer.encode()
    assert not line.valkey.exists(line.keys.stream)


def test_worker_is_seen_only_after_the_store_knows_it(line: Line) -> None:
    """An acknowledgement becomes a lease in the store and then a seen key; a goodbye ends both."""
    ack_key = line.keys.ack("h1", 0)
    line.valkey.sadd(line.keys.acks(), ack_key)
    line.valkey.set(ack_key, WorkerAck("h1", 0, "inc-1", 7).encode())
    line.step()
    (lease,) = line.store.leases()
    assert (lease.host, lease.slot, lease.incarnation, lease.applied_seq) == ("h1", 0, "inc-1", 7)
    assert lease.lease_until_ms == line.read().beat.time_ms + line.config.index.age_max_s * 1000 + 5000
    assert read_seen(line.valkey.get(line.keys.seen("h1", 0)))[0] == "inc-1"
    # With the cut at which it was noted: the worker answers nobody before it has applied that.
    assert read_seen(line.valkey.get(line.keys.seen("h1", 0)))[1] == line.read().beat.seq
    line.valkey.set(ack_key, WorkerAck("h1", 0, "", 7).encode())
    line.step()
    assert line.store.leases() == []
    assert line.valkey.get(line.keys.seen("h1", 0)) is None


def test_silent_worker_loses_its_lease_until_it_speaks_again(line: Line) -> None:
    """A worker that does not acknowledge what went out long ago gets no new lease and is not seen any
    more; when it catches up it is."""

    def say(applied_seq: int) -> None:
        line.valkey.sadd(line.keys.acks(), line.keys.ack("h1", 0))
        line.valkey.set(line.keys.ack("h1", 0), WorkerAck("h1", 0, "inc-1", applied_seq).encode())

    say(line.store.state().seq)
    line.step()
    line.clock.pass_s(60)
    line.step()
    # Nothing has happened, so it has missed nothing.
    assert read_seen(line.valkey.get(line.keys.seen("h1", 0)))[0] == "inc-1"
    issue_many(line.store, range(1))
    line.step()
    line.clock.pass_s(9)
    line.step()
    assert read_seen(line.valkey.get(line.keys.seen("h1", 0)))[0] == "inc-1"
    (before,) = line.store.leases()
    line.clock.pass_s(2)
    for _ in range(3):
        line.step()
        assert line.store.leases() == [before]
        assert line.valkey.get(line.keys.seen("h1", 0)) is None
    say(line.store.state().seq)
    line.step()
    (after,) = line.store.leases()
    assert after.lease_until_ms > before.lease_until_ms
    assert read_seen(line.valkey.get(line.keys.seen("h1", 0)))[0] == "inc-1"


@pytest.mark.parametrize("wall_s", [0, 86_400, -86_400])
def test_a_lease_that_ran_out_is_removed_by_the_steady_clock(line: Line, wall_s: int) -> None:
    """What a dead worker or a restore leaves is gone a lease after it stood still, wherever the wall clock
    was set meanwhile; a living worker's stays."""
    line.valkey.sadd(line.keys.acks(), line.keys.ack("h1", 0))
    living = WorkerAck("h1", 0, "inc-1", line.store.state().seq)
    line.valkey.set(line.keys.ack("h1", 0), living.encode())
    line.store.beat(line.clock.now_ms, [WorkerAck("h2", -1, "before restore", 0)])
    lease_s = line.config.index.age_max_s + 5
    line.step()
    line.clock.ms += wall_s * 1000
    line.clock.pass_s(lease_s - 1)
    line.step()
    assert [lease.host for lease in line.store.leases()] == ["h1", "h2"]
    line.clock.pass_s(1)
    line.step()
    line.step()
    assert [lease.host for lease in line.store.leases()] == ["h1"]


def _speak(line: Line, incarnation: str) -> None:
    line.valkey.sadd(line.keys.acks(), line.keys.ack("h1", 0))
    ack = WorkerAck("h1", 0, incarnation, line.store.state().seq)
    line.valkey.set(line.keys.ack("h1", 0), ack.encode())
    line.step()


def test_two_machines_under_one_name_are_noticed_and_neither_answers(
    line: Line, caplog: pytest.LogCaptureFixture
) -> None:
    """Workers that overwrite each other's word get no lease and are not seen, until one of them is gone."""
    seen = line.keys.seen("h1", 0)
    # An ended worker's last word may come late, once: nobody is refused for that.
    for incarnation in ("old", "one", "old", "one"):
        _speak(line, incarnation)
        assert read_seen(line.valkey.get(seen))[0] == incarnation
    _speak(line, "two")
    for _ in range(3):
        _speak(line, "one")
        _speak(line, "two")
    assert line.valkey.get(seen) is None
    (before,) = line.store.leases()
    _speak(line, "two")
    assert line.store.leases() == [before]
    line.feed.note_status("")
    status = json.loads((line.config.state / "run" / "feed.json").read_text())
    assert "two workers call themselves worker 0 of h1" in status["error"]
    assert "two workers call themselves worker 0 of h1" in caplog.text
    line.clock.pass_s(21)
    _speak(line, "two")
    assert read_seen(line.valkey.get(seen))[0] == "two"


def test_seen_key_comes_back_after_valkey_lost_everything(line: Line) -> None:
    """After FLUSHALL a worker that acknowledges again is seen again."""
    ack_key = line.keys.ack("h1", 0)
    for _ in range(2):
        line.valkey.sadd(line.keys.acks(), ack_key)
        line.valkey.set(ack_key, WorkerAck("h1", 0, "inc-1", 1).encode())
        line.step()
        assert read_seen(line.valkey.get(line.keys.seen("h1", 0)))[0] == "inc-1"
        line.valkey.flushall()


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"[1,2,3,4]", b"\xff", b"{}", WorkerAck("h2", 0, "i", 1).encode()]
)
def test_bad_acknowledgements_are_passed_over(line: Line, text: bytes) -> None:
    """Nonsense, or an acknowledgement in another worker's name, stops no beat and makes no lease."""
    line.valkey.sadd(line.keys.acks(), line.keys.ack("h1", 0), "foreign-key", b"\xff\xfe")
    line.valkey.set(line.keys.ack("h1", 0), text)
    assert line.step()
    assert line.store.leases() == []
    assert line.is_complete()


def _note_of(line: Line) -> str:
    """What the operators' page shows of the feed."""
    line.feed.note_status("")
    return str(json.loads((line.config.state / "run" / "feed.json").read_text())["error"])


def test_names_beyond_number_in_the_set_of_acks_are_not_read(
    line: Line, caplog: pytest.LogCaptureFixture
) -> None:
    """A host that floods the set takes no lease from anybody; whoever comes is seen once it is over."""
    _speak(line, "one")
    names = [line.keys.ack(f"flood-{number}", 0) for number in range(ACKS_MAX + 1)]
    line.clock.pass_s(4)
    line.valkey.sadd(line.keys.acks(), *names)
    (before,) = line.store.leases()
    sent = line.valkey.info("stats")["total_net_output_bytes"]
    line.step()
    assert line.valkey.info("stats")["total_net_output_bytes"] - sent < 100_000
    (after,) = line.store.leases()
    assert after.lease_until_ms > before.lease_until_ms
    assert read_seen(line.valkey.get(line.keys.seen("h1", 0)))[0] == "one"
    assert not line.valkey.exists(line.keys.acks())
    assert f"{ACKS_MAX + 2} names" in _note_of(line)
    assert f"{ACKS_MAX + 2} names" in caplog.text
    # As every worker does with each word.
    ack_key = line.keys.ack("h2", 0)
    line.valkey.set(ack_key, WorkerAck("h2", 0, "new", line.store.state().seq).encode())
    line.valkey.sadd(line.keys.acks(), ack_key)
    line.step()
    assert [lease.host for lease in line.store.leases()] == ["h1", "h2"]
    line.clock.pass_s(60)
    assert _note_of(line) == ""


def test_a_name_of_any_length_in_the_set_of_acks_is_taken_away(line: Line) -> None:
    """It is no key that a worker has; what stands under a worker's key is read up to a bound."""
    _speak(line, "one")
    line.valkey.sadd(line.keys.acks(), line.keys.ack("x" * 5_000_000, 0))
    line.valkey.set(line.keys.ack("h3", 0), b"[" * 5_000_000)
    line.valkey.sadd(line.keys.acks(), line.keys.ack("h3", 0))
    sent = line.valkey.info("stats")["total_net_output_bytes"]
    line.step()
    assert line.valkey.info("stats")["total_net_output_bytes"] - sent < 100_000
    assert line.valkey.scard(line.keys.acks()) == 2
    assert "too long" in _note_of(line)
    assert [lease.host for lease in line.store.leases()] == ["h1"]


@pytest.mark.parametrize("is_first", [False, True])
def test_a_worker_that_somebody_took_off_the_set_keeps_its_lease(line: Line, is_first: bool) -> None:
    """It answers for as long as it is seen, so whoever revokes must know of it; of the first beat of a feed,
    too, which was not there when it came."""
    _speak(line, "one")
    (before,) = line.store.leases()
    line.valkey.delete(line.keys.acks())
    line.clock.pass_s(4)
    if is_first:
        line.feed._lease.release()
    line.step(line.another("second") if is_first else line.feed)
    (after,) = line.store.leases()
    assert after.lease_until_ms > before.lease_until_ms


def test_an_epoch_that_is_no_text_is_refused(line: Line) -> None:
    """It is some error of Valkey's, not the end of the feed."""
    line.valkey.set("{t}:epoch", b"\xff\xfe" * 1000)
    with pytest.raises(FeedError, match="Valkey is at epoch"):
        line.step()


def test_stream_is_trimmed_only_behind_the_previous_snapshot(line: Line) -> None:
    """When a new snapshot is named, a worker with the one before it can still follow."""
    issue_many(line.store, range(50))
    line.step()
    seqs = []
    for n in range(1, 4):
        seq = line.store.state().seq
        manifest = Manifest(line.epoch.hex(), seq, 0, ()).encode()
        line.store.publish("snapshot", seq, hashlib.sha256(manifest).digest(), manifest)
        seqs.append(seq)
        issue_many(line.store, range(n * 100, n * 100 + 20))
        line.step()
        assert line.read(seqs[max(0, n - 2)]).beat.snapshot == Pointer(seq, hashlib.sha256(manifest).digest())
        assert line.is_complete(seqs[max(0, n - 2)])
    oldest = line.valkey.xrange(line.keys.stream, count=1)[0][0]
    assert int(oldest.split(b"-")[0]) >= seqs[-2]
    assert line.feed.rebuilds == 1


def test_new_stream_begins_at_the_snapshot(line: Line) -> None:
    """After a loss the stream holds only what came after the current snapshot."""
    issue_many(line.store, range(50))
    seq = line.store.state().seq
    manifest = Manifest(line.epoch.hex(), seq, 0, ()).encode()
    line.store.publish("snapshot", seq, hashlib.sha256(manifest).digest(), manifest)
    issue_many(line.store, range(100, 110))
    line.step()
    assert line.is_complete(seq)
    assert len(line.valkey.xrange(line.keys.stream)) == 11


def test_too_many_changes_wait_for_a_snapshot(line: Line) -> None:
    """A stream longer than its bound is not begun; a snapshot makes it short enough."""
    issue_many(line.store, range(1100))
    assert not line.step()
    assert line.feed.state == "waiting"
    assert not line.valkey.exists(line.keys.stream)
    seq = line.store.state().seq - 500
    manifest = Manifest(line.epoch.hex(), seq, 0, ()).encode()
    line.store.publish("snapshot", seq, hashlib.sha256(manifest).digest(), manifest)
    assert line.step()
    assert line.is_complete(seq)


def test_running_stream_stays_within_its_bound(line: Line) -> None:
    """An import under way keeps the beats going while the oldest changes leave the stream."""
    line.step()
    for n in range(25):
        issue_many(line.store, range(n * 100, n * 100 + 100))
        assert line.step()
    assert line.valkey.xlen(line.keys.stream) < 1300
    assert line.feed.rebuilds == 1


def test_idle_days_do_not_fill_the_stream(line: Line) -> None:
    """Beats that newer ones have replaced are dropped, without taking the stream for damaged."""
    line.step()
    for _ in range(300):
        line.step()
    assert line.valkey.xlen(line.keys.stream) < 100
    assert line.feed.rebuilds == 1
    assert line.is_complete()


def test_snapshot_of_another_epoch_is_named_by_no_beat(line: Line) -> None:
    """A manifest that belongs to another epoch counts as no snapshot."""
    manifest = Manifest("00" * 16, 1, 0, ()).encode()
    line.store.publish("snapshot", 1, hashlib.sha256(manifest).digest(), manifest)
    assert line.step()
    assert line.read().beat.snapshot.generation == 0
    assert line.is_complete()


def test_beat_of_another_key_is_not_believed(line: Line) -> None:
    """The reader of these tests refuses what the publisher's key has not signed."""
    line.step()
    forged = sign_beat(line.read().beat._replace(time_ms=1 << 50), Ed25519PrivateKey.generate())
    line.valkey.xadd(line.keys.stream, {"b": forged}, id=f"{line.store.state().seq}-{1 << 50}")
    with pytest.raises(FeedError):
        line.read()


def test_loop_survives_valkey_and_follows_commits(
    store: Store, config: Config, publisher_key: Ed25519PrivateKey, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The loop follows a commit at once, and goes on after its server was killed and replaced."""
    state = tmp_path_factory.mktemp("own")
    stop = threading.Event()
    epoch = store.state().epoch
    keys = FeedKeys("t", epoch)
    server = PrivateValkey(state, 64)
    server.start()
    client: Any = connect(server.url)
    feed = Feed(store, connect(server.url, 1.0), publisher_key, config)
    thread = threading.Thread(target=feed.run, args=(stop,))
    try:
        thread.start()
        _until(lambda: client.exists(keys.stream) == 1)
        began = time.monotonic()
        issue_many(store, range(5))
        seq = store.state().seq
        _until(lambda: follow(client, epoch, publisher_key.public_key()).beat.seq == seq)
        assert time.monotonic() - began < 0.5
        assert server.process is not None
        server.process.kill()
        server.process.wait()
        time.sleep(0.3)
        issue_many(store, range(10, 15))
        server.start()
        _until(lambda: client.exists(keys.stream) == 1)
        seq = store.state().seq
        _until(lambda: follow(client, epoch, publisher_key.public_key()).beat.seq == seq)
        # Counted after the stream is there.
        _until(lambda: feed.rebuilds == 2)
        assert feed.rebuilds == 2
        assert thread.is_alive()
    finally:
        stop.set()
        thread.join(5)
        client.close()
        server.stop()
    assert not thread.is_alive()


@contextmanager
def _at_work(feed: Feed) -> Iterator[None]:
    """Have *feed* run in a thread of its own meanwhile."""
    stop = threading.Event()
    thread = threading.Thread(target=feed.run, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(15)
    assert not thread.is_alive()


def test_a_publication_goes_out_with_a_beat_of_its_own(
    store: Store, config: Config, valkey: redis.Redis, publisher_key: Ed25519PrivateKey
) -> None:
    """A CRL catalogue, though no change comes with it: not with the next beat, which is ten seconds off."""
    slow = dataclasses.replace(config, index=dataclasses.replace(config.index, beat_period_ms=10_000))
    feed = Feed(store, valkey, publisher_key, slow)
    key = publisher_key.public_key()
    with _at_work(feed):
        _until(lambda: feed.beats > 0)
        epoch, began = store.state().epoch, time.monotonic()
        for generation in (1_700_000_000_001, 1_700_000_000_002):
            before = feed.beats
            body = b"%d" % generation
            store.publish("crls", generation, hashlib.sha256(body).digest(), body)
            _until(lambda g=generation: follow(valkey, epoch, key).beat.crls.generation == g)  # type: ignore[misc]
            assert feed.beats <= before + 2
        assert time.monotonic() - began < 5
        # One is enough: nothing is published by it that would ask for another.
        before = feed.beats
        time.sleep(0.3)
        assert feed.beats <= before + 1


def test_a_worker_that_comes_is_seen_before_the_next_beat_is_due(
    store: Store, config: Config, valkey: redis.Redis, publisher_key: Ed25519PrivateKey
) -> None:
    """One that was started again answers soon, though beats are ten seconds apart; one beat will do."""
    slow = dataclasses.replace(config, index=dataclasses.replace(config.index, beat_period_ms=10_000))
    feed = Feed(store, valkey, publisher_key, slow)
    client: Any = valkey
    with _at_work(feed):
        _until(lambda: feed.beats > 0)
        keys = FeedKeys("t", store.state().epoch)
        before, began = feed.beats, time.monotonic()
        client.set(keys.ack("h1", 0), WorkerAck("h1", 0, "inc-1", feed.seq).encode())
        client.sadd(keys.acks(), keys.ack("h1", 0))
        client.set(keys.arrivals(), b"1", ex=10)
        _until(lambda: client.exists(keys.seen("h1", 0)) == 1)
        assert time.monotonic() - began < 5
        assert read_seen(client.get(keys.seen("h1", 0)))[0] == "inc-1"
        time.sleep(0.6)
        assert feed.beats <= before + 2


def test_beats_go_on_after_the_store_was_locked(
    store: Store, config: Config, valkey: redis.Redis, publisher_key: Ed25519PrivateKey
) -> None:
    """While another process holds SQLite's lock there is no cut, hence no beat; then they go on, with the
    time at which the lock was taken."""
    stop = threading.Event()
    feed = Feed(store, valkey, publisher_key, config)
    thread = threading.Thread(target=feed.run, args=(stop,))
    other = sqlite3.connect(config.state / "store.db", isolation_level=None)
    try:
        thread.start()
        _until(lambda: feed.beats > 0)
        other.execute("BEGIN IMMEDIATE")
        time.sleep(1.5)
        before, released_ms = feed.beats, now_ms()
        other.execute("ROLLBACK")
        _until(lambda: feed.beats > before)
        assert feed.beat_ms >= released_ms
        assert feed.rebuilds == 1
    finally:
        stop.set()
        thread.join(5)
        other.close()
    assert not thread.is_alive()


def test_process_notes_goodbyes_when_it_is_stopped(
    store: Store, config: Config, valkey: redis.Redis, tmp_path: Path
) -> None:
    """`python -m publisher.feed_process CONFIG` sends beats; on SIGTERM one more, so that a worker which has
    left is waited for by nobody, and the next feed need not wait for its lease."""
    (tmp_path / "secrets").mkdir()
    key = make_ed25519(tmp_path / "secrets" / "publisher.key", tmp_path / "secrets" / "publisher.pub")
    config_path = tmp_path / "certstatus.toml"
    config_path.write_text(
        f'[installation]\nstate = "{tmp_path}"\n[valkey]\nurl = "{config.valkey.url}"\nnamespace = "t"\n'
        "[index]\nbeat_period_ms = 10000\n"
    )
    epoch = store.state().epoch
    keys = FeedKeys("t", epoch)
    client: Any = valkey
    client.sadd(keys.acks(), keys.ack("h1", 0))
    client.set(keys.ack("h1", 0), WorkerAck("h1", 0, "inc-1", 2).encode())
    process = subprocess.Popen(
        [sys.executable, "-m", "publisher.feed_process", str(config_path)], stderr=subprocess.PIPE
    )
    try:
        _until(lambda: client.exists(keys.stream) == 1)
        _until(lambda: len(store.leases()) == 1)
        client.set(keys.ack("h1", 0), WorkerAck("h1", 0, "", 2).encode())
        process.terminate()
        _, errors = process.communicate(timeout=10)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, errors
    assert store.leases() == []
    assert len(follow(valkey, epoch, key.public_key()).beats) == 2
    fence = store.acquire_publisher("feed", 1000, now_ms, "the next")
    assert fence.number == 2


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            if condition():
                return
        except redis.RedisError:
            pass
        time.sleep(0.01)
    raise AssertionError("it did not come to pass within 10 s")
