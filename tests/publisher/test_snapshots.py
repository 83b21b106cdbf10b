"""Snapshots made by a real store and kept in a real Valkey: equal however they are made, never lost."""

from __future__ import annotations

import contextlib
import hashlib
import random
from pathlib import Path
from typing import Any

import pytest
import redis
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from publisher_cases import (
    INDEX_KEY,
    START_MS,
    Clock,
    add_bare_issuer,
    follow,
    issue_many,
    revoke_one,
    serial_of,
    set_cert_hash,
)

from certstatus.changes import ChangeKind, fingerprint, first_chain
from certstatus.config import Config
from certstatus.errors import FencedOff, IllegalTransition, SnapshotError, StoreError, UnknownCertificate
from certstatus.feed_keys import FeedKeys
from certstatus.index import Snapshot, View
from certstatus.snapshot import CHUNK_BYTES, HELD, REVOKED, read_head, read_manifest
from issuance import schema
from issuance.certificate_hashes import tell_hashes
from issuance.store import Store, make_epoch
from publisher.chunks import put_chunks
from publisher.feed import Feed
from publisher.lease import PublisherLease
from publisher.snapshots import Snapshots


@pytest.fixture
def snapshots(store: Store, valkey: redis.Redis, config: Config, clock: Clock) -> Snapshots:
    """The snapshots of the test's store; pages of 64 rows, so that small numbers make several."""
    return Snapshots(store, valkey, config, monotonic_s=clock.monotonic_s, changes_at_once=64, page_rows=64)


def _files(config: Config) -> list[str]:
    return sorted(path.name.partition("-")[2] for path in (config.state / "index").iterdir())


def _path(store: Store, config: Config, seq: int) -> Path:
    return config.state / "index" / f"{store.state().epoch.hex()}-{seq}.csx"


def _history(store: Store, random_numbers: random.Random, count: int, next_number: int) -> int:
    """Do *count* acts at random to certificates of two issuers; returns the next unused number."""
    for _ in range(count):
        issuer_id = random_numbers.choice((1, 2))
        act_kind = random_numbers.choice(
            ("issue", "issue", "issue", "revoke", "hold", "release", "reason", "policy")
        )
        now_ms = store.state().time_ms + random_numbers.randrange(3000)
        if act_kind == "issue":
            with_record = random_numbers.random() < 0.8
            issue_many(store, range(next_number, next_number + 3), issuer_id, now_ms, with_record=with_record)
            next_number += 3
            continue
        if act_kind == "policy":
            # Issuer 1 never has hashes, issuer 2 now and then, told afterwards or not.
            set_cert_hash(store, 2, random_numbers.random() < 0.5, now_ms)
            if random_numbers.random() < 0.3:
                tell_hashes(store, 2, now_ms)
            continue
        kind, reason = {
            "revoke": (ChangeKind.REVOKED, random_numbers.choice((None, 1, 3, 4, 5))),
            "hold": (ChangeKind.HELD, 6),
            "release": (ChangeKind.RELEASED, None),
            "reason": (ChangeKind.REASON_CHANGED, random_numbers.choice((1, 4))),
        }[act_kind]
        serial = serial_of(random_numbers.randrange(next_number + 1))
        # Acts that the certificate's state does not allow are part of a random history.
        with contextlib.suppress(IllegalTransition, UnknownCertificate), store.writing(now_ms) as act:
            act.record(kind, issuer_id=issuer_id, serial=serial, reason=reason)
    return next_number


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_merged_snapshot_equals_one_made_from_nothing(
    store: Store, snapshots: Snapshots, config: Config, seed: int
) -> None:
    """After any history, merging step by step gives the same bytes as reading all rows at the end."""
    random_numbers = random.Random(seed)
    next_number = 0
    for _ in range(6):
        next_number = _history(store, random_numbers, 25, next_number)
        while snapshots.build() < store.state().seq:
            pass
    seq = store.state().seq
    merged = _path(store, config, seq).read_bytes()
    _path(store, config, seq).unlink()
    fresh = Snapshots(store, snapshots._valkey, config, page_rows=50)
    fresh._write_rows(_path(store, config, seq), store.state(), seq)
    assert _path(store, config, seq).read_bytes() == merged
    head = read_head(memoryview(merged))
    assert (head.seq, head.chain) == (seq, store.chain_at(seq))
    assert [place.hashes.rows > 0 for place in head.sections] == [False, True]


def test_a_past_snapshot_is_made_again_as_it_was(store: Store, snapshots: Snapshots, config: Config) -> None:
    """From rows that have moved on, hashes told since included, the file of an earlier number comes out."""
    issue_many(store, range(10), with_record=True)
    set_cert_hash(store, 1, True)
    issue_many(store, range(10, 20), with_record=True)
    issue_many(store, range(20, 30))
    seq = snapshots.build()
    before = _path(store, config, seq).read_bytes()
    assert tell_hashes(store, 1, START_MS) == 10
    assert tell_hashes(store, 1, START_MS) == 0
    revoke_one(store, 3)
    snapshots._write_rows(_path(store, config, seq), store.state(), seq)
    assert _path(store, config, seq).read_bytes() == before
    found = View(Snapshot(_path(store, config, snapshots.build())))
    for n in range(30):
        row = found.look_up(1, fingerprint(serial_of(n), INDEX_KEY))
        assert row is not None
        der = b"certificate " + serial_of(n)
        assert row.certificate_sha256 == (hashlib.sha256(der).digest() if n < 20 else b"")
        assert row.state == (REVOKED if n == 3 else 0)


def test_lookups_equal_the_store(store: Store, snapshots: Snapshots, config: Config) -> None:
    """What the index finds in the file is what the store's rows say, reason and time included."""
    _history(store, random.Random(7), 120, 0)
    snapshots.build()
    seq = snapshots.build()
    while seq < store.state().seq:
        seq = snapshots.build()
    view = View(Snapshot(_path(store, config, seq)))
    states = {1: 0, 2: REVOKED, 3: HELD}
    for issuer_id in (1, 2):
        rows = list(store.issued_rows(issuer_id, seq))
        assert rows
        for row in rows:
            found = view.look_up(issuer_id, row.fingerprint)
            assert found is not None
            assert found.state == states[row.state]
            assert found.revoked_at_s == row.revoked_at_s
            assert found.certificate_sha256 == row.certificate_sha256
            if found.state:
                assert found.reason == (255 if row.reason is None else row.reason)


def test_ca_key_event_is_in_the_snapshot(store: Store, snapshots: Snapshots, config: Config) -> None:
    """After an issuer-wide event every certificate of that issuer is revoked at the event, merged or not."""
    issue_many(store, range(10))
    issue_many(store, range(20, 25), 2)
    snapshots.build()
    now_ms = store.state().time_ms + 5000
    with store.writing(now_ms) as act:
        act.record(ChangeKind.CA_KEY_EVENT, issuer_id=1, reason=2)
    seq = snapshots.build()
    path = _path(store, config, seq)
    for _ in range(2):
        view = View(Snapshot(path))
        for n in range(10):
            found = view.look_up(1, fingerprint(serial_of(n), INDEX_KEY))
            assert found is not None
            assert (found.state, found.reason, found.revoked_at_s) == (REVOKED, 2, now_ms // 1000)
        other = view.look_up(2, fingerprint(serial_of(20), INDEX_KEY))
        assert other is not None
        assert other.state == 0
        snapshots._write_rows(path, store.state(), seq)


def test_chunks_are_in_valkey_before_the_pointer_is_in_the_store(
    store: Store, valkey: redis.Redis, config: Config
) -> None:
    """The published manifest's chunks can be read from Valkey and make up exactly the file."""
    _issue_directly(store, 70_000)
    seq = store.state().seq
    assert Snapshots(store, valkey, config).build() == seq
    found = store.publication("snapshot")
    assert found is not None
    assert found.body is not None
    keys = FeedKeys("t", store.state().epoch)
    client: Any = valkey
    assert client.get(keys.manifest(seq)) == found.body
    manifest = read_manifest(found.body, found.sha256)
    chunks = [client.get(keys.chunk(seq, number)) for number in range(len(manifest.chunks))]
    assert len(chunks) == 2
    assert all(len(chunk) <= CHUNK_BYTES for chunk in chunks)
    assert b"".join(chunks) == _path(store, config, seq).read_bytes()
    for chunk, sha256 in zip(chunks, manifest.chunks, strict=True):
        assert hashlib.sha256(chunk).hexdigest() == sha256


def _issue_directly(store: Store, count: int) -> None:
    for start in range(0, count, 10_000):
        issue_many(store, range(start, start + 10_000))


def test_lost_chunks_are_uploaded_again(
    store: Store, snapshots: Snapshots, valkey: redis.Redis, config: Config
) -> None:
    """Whatever key of the current snapshot is lost, and even its file, the same bytes come back."""
    issue_many(store, range(60))
    revoke_one(store, 3)
    seq = snapshots.build()
    keys = FeedKeys("t", store.state().epoch)
    client: Any = valkey
    before = client.get(keys.chunk(seq, 0))
    assert not snapshots.keep_uploaded()
    for name in (keys.chunk(seq, 0), keys.manifest(seq)):
        client.delete(name)
        assert snapshots.keep_uploaded()
        assert client.get(keys.chunk(seq, 0)) == before
    client.set(keys.manifest(seq), b"of somebody else")
    assert snapshots.keep_uploaded()
    client.flushall()
    issue_many(store, range(100, 110))
    _path(store, config, seq).unlink()
    assert snapshots.keep_uploaded()
    assert client.get(keys.chunk(seq, 0)) == before
    assert not snapshots.keep_uploaded()


def test_a_lost_snapshot_that_cannot_be_made_again_is_replaced(
    store: Store, snapshots: Snapshots, valkey: redis.Redis, config: Config
) -> None:
    """One whose bytes come out otherwise, as after a CA-key event, gives way to one of a new number."""
    issue_many(store, range(5))
    issue_many(store, range(20, 25), 2)
    snapshots.build()
    with store.writing(START_MS) as act:
        act.record(ChangeKind.CA_KEY_EVENT, issuer_id=1)
    seq = snapshots.build()
    client: Any = valkey
    client.flushall()
    _path(store, config, seq).unlink()
    assert snapshots.keep_uploaded()
    found = store.publication("snapshot")
    assert found is not None
    assert found.generation == store.state().seq > seq
    assert client.get(FeedKeys("t", store.state().epoch).manifest(found.generation)) == found.body
    assert not snapshots.keep_uploaded()
    view = View(Snapshot(_path(store, config, found.generation)))
    for issuer_id, n, state in ((1, 3, REVOKED), (2, 23, 0)):
        row = view.look_up(issuer_id, fingerprint(serial_of(n), INDEX_KEY))
        assert row is not None
        assert row.state == state


def test_damaged_file_is_not_merged(store: Store, snapshots: Snapshots, config: Config) -> None:
    """A previous file that is not what its manifest says is passed over; the store's rows are read."""
    issue_many(store, range(40))
    first = snapshots.build()
    path = _path(store, config, first)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    revoke_one(store, 1)
    second = snapshots.build()
    found = View(Snapshot(_path(store, config, second)))
    for n in range(40):
        row = found.look_up(1, fingerprint(serial_of(n), INDEX_KEY))
        assert row is not None
        assert row.state == (REVOKED if n == 1 else 0)


def test_only_current_and_previous_are_kept(
    store: Store, snapshots: Snapshots, valkey: redis.Redis, config: Config
) -> None:
    """Files and chunks before the previous snapshot go, and so do leftovers of killed builds."""
    seqs = []
    for n in range(4):
        issue_many(store, range(n * 10, n * 10 + 10))
        (config.state / "index").mkdir(exist_ok=True)
        (config.state / "index" / ".x.csx.123.new").write_bytes(b"half")
        seqs.append(snapshots.build())
        expected = seqs[-2:]
        assert _files(config) == [f"{seq}.csx" for seq in expected]
        keys = FeedKeys("t", store.state().epoch)
        client: Any = valkey
        names = {name.decode() for name in client.scan_iter()}
        assert names == {keys.chunk(seq, 0) for seq in expected} | {keys.manifest(seq) for seq in expected}


def test_worker_can_start_from_previous_snapshot_until_the_next(
    store: Store,
    snapshots: Snapshots,
    valkey: redis.Redis,
    config: Config,
    clock: Clock,
    publisher_key: Ed25519PrivateKey,
) -> None:
    """At every moment the stream reaches back to the previous snapshot, whose chunks are still there."""
    lease = PublisherLease(store, "feed", 3000, now_ms=clock.now_ms, monotonic_s=clock.monotonic_s)
    feed = Feed(store, valkey, publisher_key, config, now_ms=clock.now_ms, lease=lease)
    epoch = store.state().epoch
    keys = FeedKeys("t", epoch)
    client: Any = valkey
    seqs: list[int] = []
    for n in range(5):
        issue_many(store, range(n * 10, n * 10 + 10))
        feed.step()
        seqs.append(snapshots.build())
        issue_many(store, range(n * 10 + 500, n * 10 + 503))
        for _ in range(2):
            feed.step()
            for seq in seqs[-2:]:
                assert client.exists(keys.manifest(seq), keys.chunk(seq, 0)) == 2
                chain = store.chain_at(seq)
                reading = follow(valkey, epoch, publisher_key.public_key(), seq, chain)
                assert reading.applied == list(range(seq + 1, store.state().seq + 1))
    assert feed.rebuilds == 1


def test_due_by_changes_and_by_time(store: Store, snapshots: Snapshots, clock: Clock) -> None:
    """A snapshot is due when there is none, after enough changes, or after a while with any change."""
    assert snapshots.is_due()
    snapshots.build()
    clock.pass_s(10_000)
    assert not snapshots.is_due()
    issue_many(store, range(1))
    assert snapshots.is_due()
    snapshots.build()
    issue_many(store, range(1, 100))
    assert not snapshots.is_due()
    issue_many(store, range(100, 101))
    assert snapshots.is_due()
    snapshots.build()
    issue_many(store, range(200, 201))
    clock.pass_s(299)
    assert not snapshots.is_due()
    clock.pass_s(1)
    assert snapshots.is_due()


def test_new_epoch_begins_with_a_snapshot_of_its_own(
    store: Store,
    snapshots: Snapshots,
    valkey: redis.Redis,
    config: Config,
    clock: Clock,
    publisher_key: Ed25519PrivateKey,
) -> None:
    """After a restore the feed waits for the builder, and then begins at the snapshot it made."""
    issue_many(store, range(30))
    snapshots.build()
    _begin_epoch(store)
    feed = Feed(store, valkey, publisher_key, config, now_ms=clock.now_ms)
    assert not feed.step()
    assert feed.state == "waiting"
    assert snapshots.is_due()
    seq = snapshots.build()
    assert feed.step()
    reading = follow(valkey, store.state().epoch, publisher_key.public_key(), seq, store.chain_at(seq))
    assert (reading.beat.snapshot.generation, reading.applied) == (seq, [])
    assert _files(config) == [f"{seq}.csx"]


def _begin_epoch(store: Store) -> None:
    """What a restore does to the counter row: another epoch, beginning behind everything published."""
    state = store.state()
    epoch = make_epoch(state.time_ms + 1000)
    with store.engine.connect() as connection:
        connection.execute(
            sa.update(schema.store_state).values(
                epoch=epoch, base_seq=state.seq + 7, seq=state.seq + 7, chain=first_chain(epoch)
            )
        )
        connection.commit()


def test_fenced_off_builder_publishes_nothing(store: Store, snapshots: Snapshots, clock: Clock) -> None:
    """A builder that was overtaken cannot move the pointer."""
    issue_many(store, range(5))
    old = store.acquire_publisher("builder", 1000, clock.now_ms, "one")
    new = store.acquire_publisher("builder", 1000, clock.now_ms, "two", take_over=True)
    with pytest.raises(FencedOff):
        snapshots.build(old)
    assert store.publication("snapshot") is None
    assert snapshots.build(new) == store.state().seq


def test_manifest_is_not_written_over_other_bytes(
    store: Store, snapshots: Snapshots, valkey: redis.Redis, config: Config
) -> None:
    """Chunks that are not the manifest's are found out before the manifest appears in Valkey."""
    issue_many(store, range(5))
    seq = snapshots.build()
    found = store.publication("snapshot")
    assert found is not None
    assert found.body is not None
    path = _path(store, config, seq)
    path.write_bytes(bytes(path.stat().st_size))
    keys = FeedKeys("t", store.state().epoch)
    with pytest.raises(SnapshotError):
        put_chunks(valkey, keys, path, read_manifest(found.body, found.sha256))
    client: Any = valkey
    assert not client.exists(keys.manifest(seq))


def test_failed_build_leaves_the_published_snapshot(
    store: Store, valkey: redis.Redis, config: Config, tmp_path: Path
) -> None:
    """When the file cannot be put in place, the error comes out and what was published stays current."""
    issue_many(store, range(5))
    snapshots = Snapshots(store, valkey, config)
    seq = snapshots.build()
    issue_many(store, range(10, 15))
    (tmp_path / "index" / f"{store.state().epoch.hex()}-{seq + 5}.csx").mkdir()
    with pytest.raises(OSError):
        snapshots.build()
    found = store.publication("snapshot")
    assert found is not None
    assert found.generation == seq


def test_same_number_with_other_bytes_is_refused(store: Store, snapshots: Snapshots) -> None:
    """One number, one snapshot: the store refuses a second manifest for it."""
    issue_many(store, range(5))
    seq = snapshots.build()
    with pytest.raises(StoreError):
        store.publish("snapshot", seq, bytes(32), b"{}")
    assert snapshots.build() == seq


def test_population_of_a_third_issuer_gets_its_own_section(
    store: Store, snapshots: Snapshots, config: Config
) -> None:
    """Issuers that come later are merged in; those without certificates take no room."""
    issue_many(store, range(5))
    snapshots.build()
    add_bare_issuer(store, 3, "PARTNER", store.state().time_ms)
    seq = snapshots.build()
    assert [
        place.issuer_id for place in read_head(memoryview(_path(store, config, seq).read_bytes())).sections
    ] == [1]
    issue_many(store, range(2), 3, store.state().time_ms)
    seq = snapshots.build()
    sections = read_head(memoryview(_path(store, config, seq).read_bytes())).sections
    assert [(place.issuer_id, place.issued.rows) for place in sections] == [(1, 5), (3, 2)]


def test_server_too_small_for_a_snapshot_keeps_room_for_beats(
    store: Store,
    valkey: redis.Redis,
    config: Config,
    clock: Clock,
    publisher_key: Ed25519PrivateKey,
) -> None:
    """When the chunks do not fit, they are taken back, nothing is published, and beats still go out."""
    _issue_directly(store, 70_000)
    client: Any = valkey
    snapshots = Snapshots(store, valkey, config)
    # One megabyte more than what is used: the first chunk fits, the second does not.
    client.config_set("maxmemory", client.info("memory")["used_memory"] + (3 << 19))
    try:
        with pytest.raises(redis.ResponseError):
            snapshots.build()
        assert list(client.scan_iter()) == []
        assert store.publication("snapshot") is None
    finally:
        client.config_set("maxmemory", 256 << 20)
    snapshots.build()
    assert Feed(store, valkey, publisher_key, config, now_ms=clock.now_ms).step()
