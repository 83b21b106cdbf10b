"""The follower against a real Valkey: what it believes, how long, and what it refuses."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from responder_cases import CA, FAR_DAY, INDEX_KEY, NAMESPACE, Clock, FeedWriter, everybody, serial_of

from certstatus.beat import Pointer, sign_beat
from certstatus.changes import ChangeKind, fingerprint, pack_change
from certstatus.feed_keys import FeedKeys, epoch_key
from certstatus.private_valkey import PrivateValkey
from certstatus.publisher_key import load_ed25519_public
from certstatus.snapshot import GOOD, REVOKED
from certstatus.valkey import connect
from responder.follow import FeedLimits, FeedPlace, Follower, WorkerName

NOW_MS = 1_900_000_000_000
AGE_MAX_S = 60
AHEAD_MAX_S = 5


def wait_until(holds: Callable[[], object], time_s: float = 20.0) -> None:
    """Wait until *holds*; fail if it never does."""
    until = time.monotonic() + time_s
    while not holds():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.002)


class Scene:
    """A publisher, a clock, and followers that use both."""

    def __init__(self, client: redis.Redis, url: str, key: Ed25519PrivateKey, folder: Path) -> None:
        self.clock = Clock(NOW_MS)
        # redis-py types every answer as "this, or an awaitable of this".
        self.client: Any = client
        self.folder = folder
        self.ca = CA(1, "SIGN", NOW_MS // 1000)
        self.writer = FeedWriter(client, key, NOW_MS)
        self.writer.issuers(self.ca.issuer)
        self.writer.verifiers(everybody())
        self._url = url
        self._public_key = load_ed25519_public(folder / "publisher.pub")

    @contextmanager
    def follower(
        self, slot: int = 0, incarnation: str = "one", pending_max: int = 1000
    ) -> Iterator[Follower]:
        """A follower that runs."""
        follower = Follower(
            WorkerName("h", slot, incarnation),
            FeedPlace(self._url, NAMESPACE, self._public_key, self.folder / "index", self.folder / "crl"),
            FeedLimits(AGE_MAX_S, AHEAD_MAX_S, pending_max),
            self.clock.now_ms,
            self.clock.monotonic_s,
        )
        follower.start()
        try:
            yield follower
        finally:
            follower.stop(5.0)
            assert not follower.is_alive()

    @contextmanager
    def fresh_follower(self) -> Iterator[Follower]:
        """A follower that has become fresh."""
        with self.follower() as follower:
            self.writer.beat()
            wait_until(lambda: self.writer.acked()[1])
            self.beat()
            wait_until(lambda: self.is_fresh(follower))
            yield follower

    def beat(self) -> None:
        """A beat of now."""
        self.writer.beat(self.clock.ms)

    def is_fresh(self, follower: Follower) -> bool:
        return follower.standing.is_fresh(self.clock.now_ms(), self.clock.monotonic_s())

    def state_of(self, follower: Follower, n: int) -> int | None:
        row = follower.standing.view.look_up(1, fingerprint(serial_of(n), INDEX_KEY))
        return None if row is None else row.state


@pytest.fixture
def scene(valkey: redis.Redis, valkey_url: str, publisher_key: Ed25519PrivateKey, state: Path) -> Scene:
    """A publisher that has published its documents, and no beat yet."""
    return Scene(valkey, valkey_url, publisher_key, state / "host")


# --- starting ----------------------------------------------------------------------------------------


def test_it_starts_from_the_changes_alone(scene: Scene) -> None:
    """Without a snapshot the stream from its beginning is the whole index."""
    scene.writer.issue(1, 2)
    scene.writer.revoke(2)
    with scene.fresh_follower() as follower:
        assert [scene.state_of(follower, n) for n in (1, 2, 3)] == [GOOD, REVOKED, None]
        assert follower.standing.seq == 3
        assert follower.standing.access.by_id[1].issuer == scene.ca.issuer


def test_it_starts_from_a_snapshot_and_the_changes_since(scene: Scene, tmp_path: Path) -> None:
    """What the snapshot holds and what came after it are one index."""
    scene.writer.issue(1, 2, 3)
    scene.beat()
    scene.writer.make_snapshot(tmp_path)
    scene.writer.revoke(2)
    scene.writer.issue(4)
    with scene.fresh_follower() as follower:
        assert [scene.state_of(follower, n) for n in (1, 2, 3, 4, 5)] == [GOOD, REVOKED, GOOD, GOOD, None]
        # Loaded before the beat that names it, it comes in with a beat a moment later.

        def moved() -> bool:
            scene.beat()
            time.sleep(0.02)
            return len(follower.standing.view.overlay) == 2

        wait_until(moved)
        assert [scene.state_of(follower, n) for n in (1, 2, 3, 4, 5)] == [GOOD, REVOKED, GOOD, GOOD, None]


def test_it_is_not_fresh_before_the_store_knows_it(scene: Scene) -> None:
    """A worker that no lease stands for answers nobody, whatever it has loaded."""
    scene.writer.issue(1)
    scene.writer.beat(confirm=False)
    with scene.follower() as follower:
        wait_until(lambda: scene.writer.acked() == (1, "one"))
        for _ in range(3):
            scene.writer.beat(confirm=False)
        scene.writer.client.set(scene.writer.keys.seen("h", 0), "an earlier life 0")
        wait_until(lambda: follower.standing.time_ms == scene.writer.now_ms)
        time.sleep(0.1)
        assert not scene.is_fresh(follower)
        scene.beat()
        wait_until(lambda: scene.is_fresh(follower))


def test_a_worker_is_fresh_only_past_the_cut_at_which_the_store_learnt_of_it(scene: Scene) -> None:
    """A revocation before that cut was waited for by nobody, so it must be applied before any answer."""
    scene.writer.issue(1)
    scene.writer.beat(confirm=False)
    with scene.follower() as follower:
        wait_until(lambda: scene.writer.acked() == (1, "one"))
        scene.writer.client.set(scene.writer.keys.seen("h", 0), "one 2")
        scene.writer.beat(confirm=False)
        wait_until(lambda: follower.standing.time_ms == scene.writer.now_ms)
        time.sleep(0.1)
        assert not scene.is_fresh(follower)
        scene.writer.revoke(1)
        scene.writer.beat(confirm=False)
        wait_until(lambda: scene.is_fresh(follower))
        assert follower.standing.seq == 2


def test_an_old_newest_beat_makes_nothing_fresh(scene: Scene) -> None:
    """The beat that was there at the start may have been there for long; only a new one counts."""
    scene.beat()
    scene.client.set(scene.writer.keys.seen("h", 0), "one 0")
    with scene.follower() as follower:
        wait_until(lambda: scene.writer.acked()[1])
        time.sleep(0.1)
        assert follower.standing.seq == 0
        assert not scene.is_fresh(follower)


def test_it_waits_for_a_feed(scene: Scene) -> None:
    """Without epoch or stream it is patient, and begins when they are there."""
    scene.client.flushall()
    with scene.follower() as follower:
        wait_until(lambda: "epoch" in follower.trouble)
        scene.client.set(epoch_key(NAMESPACE), scene.writer.epoch.hex())
        wait_until(lambda: "stream" in follower.trouble)
        scene.writer.issuers(scene.ca.issuer)
        scene.writer.verifiers(everybody())
        scene.beat()
        wait_until(lambda: scene.writer.acked()[1])
        scene.beat()
        wait_until(lambda: scene.is_fresh(follower))


# --- applying ----------------------------------------------------------------------------------------


def test_a_change_is_in_place_before_it_is_acknowledged(scene: Scene) -> None:
    """Whoever reads the acknowledgement finds the change where every request looks."""
    scene.writer.issue(*range(1, 40))
    with scene.fresh_follower() as follower:
        for n in range(1, 40):
            scene.writer.revoke(n)
            scene.writer.beat()
            wait_until(lambda: scene.writer.acked()[0] == scene.writer.seq)
            assert scene.state_of(follower, n) == REVOKED


def test_a_change_moves_the_mark_and_not_the_era(scene: Scene) -> None:
    """One certificate's change is told by the overlay alone."""
    scene.writer.issue(1)
    with scene.fresh_follower() as follower:
        before = follower.standing
        scene.beat()
        wait_until(lambda: follower.standing.time_ms > before.time_ms)
        assert (follower.standing.mark, follower.standing.era) == (before.mark, before.era)
        scene.writer.revoke(1)
        scene.beat()
        wait_until(lambda: follower.standing.seq == 2)
        assert (follower.standing.mark, follower.standing.era) == (before.mark + 1, before.era)


def test_a_ca_key_event_revokes_all_and_begins_an_era(scene: Scene) -> None:
    """One change revokes every certificate of the issuer."""
    scene.writer.issue(1, 2)
    with scene.fresh_follower() as follower:
        era = follower.standing.era
        scene.writer.change(ChangeKind.CA_KEY_EVENT, reason=2)
        scene.beat()
        wait_until(lambda: follower.standing.era > era)
        assert [scene.state_of(follower, n) for n in (1, 2, 3)] == [REVOKED, REVOKED, None]


def test_documents_are_in_place_before_the_change_is_acknowledged(scene: Scene) -> None:
    """The number of an entitlement change is acknowledged only when the new entitlements are in force."""
    with scene.fresh_follower() as follower:
        seq = scene.writer.change(ChangeKind.ENTITLEMENTS, issuer_id=0)
        scene.writer.verifiers()
        scene.beat()
        wait_until(lambda: scene.writer.acked()[0] >= seq)
        assert follower.standing.access.entitlements.generation == 2
        assert follower.standing.access.by_id[1].issuer == scene.ca.issuer


def test_another_issuer_table_begins_an_era(scene: Scene) -> None:
    """An issuer's policy, or a dropped responder certificate, concerns every answer."""
    with scene.fresh_follower() as follower:
        era = follower.standing.era
        scene.writer.issuers(replace(scene.ca.issuer, dropped=("00ff",)))
        scene.beat()
        wait_until(lambda: follower.standing.era > era)
        assert follower.standing.access.by_id[1].issuer.dropped == ("00ff",)


def test_a_newer_snapshot_shortens_the_overlay(scene: Scene, tmp_path: Path) -> None:
    """The state stays the same when the snapshot under it moves."""
    scene.writer.issue(1, 2, 3)
    with scene.fresh_follower() as follower:
        scene.writer.make_snapshot(tmp_path)
        scene.writer.revoke(2)
        assert len(follower.standing.view.overlay) == 3

        def moved() -> bool:
            scene.beat()
            time.sleep(0.02)
            return follower.standing.snapshot.generation == 3

        wait_until(moved)
        assert [scene.state_of(follower, n) for n in (1, 2, 3, 4)] == [GOOD, REVOKED, GOOD, None]
        assert len(follower.standing.view.overlay) == 1


def test_a_snapshot_that_cannot_be_had_does_no_harm(scene: Scene) -> None:
    """A worker that has all changes needs no snapshot to go on."""
    scene.writer.issue(1)
    with scene.fresh_follower() as follower:
        reloads = follower.reloads
        scene.writer.snapshot = Pointer(1, bytes(32))
        for _ in range(5):
            scene.beat()
            time.sleep(0.02)
        scene.writer.revoke(1)
        scene.beat()
        wait_until(lambda: scene.state_of(follower, 1) == REVOKED)
        assert scene.is_fresh(follower)
        assert follower.reloads == reloads


# --- freshness ---------------------------------------------------------------------------------------


def test_it_is_stale_by_the_monotonic_clock(scene: Scene) -> None:
    """No new beat for age_max_s: stale, even if somebody stops the wall clock."""
    with scene.fresh_follower() as follower:
        scene.clock.steady_s += AGE_MAX_S - 0.01
        assert scene.is_fresh(follower)
        scene.clock.steady_s += 0.02
        assert not scene.is_fresh(follower)


def test_it_is_stale_by_the_wall_clock(scene: Scene) -> None:
    """A beat older than age_max_s by the wall clock is stale however lately it came."""
    with scene.fresh_follower() as follower:
        beat_ms = follower.standing.time_ms
        steady_s = scene.clock.monotonic_s()
        assert follower.standing.is_fresh(beat_ms + AGE_MAX_S * 1000, steady_s)
        assert not follower.standing.is_fresh(beat_ms + AGE_MAX_S * 1000 + 1, steady_s)


def test_a_beat_far_ahead_of_the_clock_is_not_believed(scene: Scene) -> None:
    """More than ahead_max_s ahead: somebody's clock is wrong, and it may be ours."""
    with scene.fresh_follower() as follower:
        beat_ms = follower.standing.time_ms
        steady_s = scene.clock.monotonic_s()
        assert follower.standing.is_fresh(beat_ms - AHEAD_MAX_S * 1000, steady_s)
        assert not follower.standing.is_fresh(beat_ms - AHEAD_MAX_S * 1000 - 1, steady_s)


def test_new_beats_keep_it_fresh_and_old_ones_do_not(scene: Scene) -> None:
    """Freshness counts from the receipt of the last beat."""
    with scene.fresh_follower() as follower:
        for _ in range(4):
            scene.clock.pass_s(AGE_MAX_S - 10)
            scene.beat()
            wait_until(lambda: follower.standing.time_ms == scene.writer.now_ms)
            wait_until(lambda: scene.is_fresh(follower))
        scene.clock.pass_s(AGE_MAX_S + 1)
        time.sleep(0.05)
        assert not scene.is_fresh(follower)


def test_freshness_does_not_outlive_the_lease(scene: Scene) -> None:
    """Beats that arrive while no acknowledgement can be written make nothing fresh for longer."""
    with scene.fresh_follower() as follower:
        # The key is there but is no string: from now on every acknowledgement fails.
        scene.client.delete(scene.writer.keys.acks())
        scene.client.set(scene.writer.keys.acks(), "not a set")
        scene.writer.issue(5)
        scene.clock.pass_s(AGE_MAX_S - 10)
        scene.writer.beat(scene.clock.ms, confirm=False)
        wait_until(lambda: scene.state_of(follower, 5) == GOOD)
        assert scene.is_fresh(follower)
        scene.clock.pass_s(11)
        assert not scene.is_fresh(follower)
        scene.client.delete(scene.writer.keys.acks())
        wait_until(lambda: scene.is_fresh(follower))


def test_a_store_that_forgot_the_worker_makes_it_stale(scene: Scene) -> None:
    """After Valkey was emptied a worker is fresh for longer only when the store has seen it again."""
    with scene.fresh_follower() as follower:
        scene.client.delete(scene.writer.keys.seen("h", 0), scene.writer.keys.acks())
        scene.clock.pass_s(AGE_MAX_S - 10)
        scene.writer.beat(scene.clock.ms, confirm=False)
        wait_until(lambda: follower.standing.time_ms == scene.writer.now_ms)
        time.sleep(0.05)
        scene.clock.pass_s(11)
        assert not scene.is_fresh(follower)
        scene.beat()
        wait_until(lambda: scene.is_fresh(follower))


# --- doubt -------------------------------------------------------------------------------------------


def _gap(writer: FeedWriter) -> None:
    writer.issue(90, 91)
    beat = writer.make_beat()._replace(time_ms=writer.now_ms + 1)
    writer.append(writer.waiting[1:], beat, sign_beat(beat, writer.publisher_key))


def _wrong_chain(writer: FeedWriter) -> None:
    writer.issue(90)
    beat = writer.make_beat()._replace(time_ms=writer.now_ms + 1, chain=bytes(32))
    writer.append(writer.waiting, beat, sign_beat(beat, writer.publisher_key))


def _altered_change(writer: FeedWriter) -> None:
    writer.issue(90)
    altered = bytes([ChangeKind.REVOKED]) + writer.waiting[0][1:]
    beat = writer.make_beat()._replace(time_ms=writer.now_ms + 1)
    writer.append([altered], beat, sign_beat(beat, writer.publisher_key))


def _forged_beat(writer: FeedWriter) -> None:
    beat = writer.make_beat()._replace(time_ms=writer.now_ms + 1)
    writer.append([], beat, sign_beat(beat, Ed25519PrivateKey.generate()))


def _foreign_epoch(writer: FeedWriter) -> None:
    beat = writer.make_beat()._replace(time_ms=writer.now_ms + 1, epoch=bytes(16))
    writer.append([], beat, sign_beat(beat, writer.publisher_key))


def _altered_document(writer: FeedWriter) -> None:
    writer.verifiers(everybody(99))
    key = writer.keys.document("entitlements", 2)
    writer.client.set(key, writer.client.get(key).replace(b"99", b"98"))
    writer.beat()


def _missing_document(writer: FeedWriter) -> None:
    writer.verifiers(everybody(99))
    writer.client.delete(writer.keys.document("entitlements", 2))
    writer.beat()


def _beat_without_change(writer: FeedWriter) -> None:
    writer.issue(90)
    beat = writer.make_beat()._replace(time_ms=writer.now_ms + 1)
    writer.append([], beat, sign_beat(beat, writer.publisher_key))


def _garbage(writer: FeedWriter) -> None:
    writer.client.xadd(writer.keys.stream, {"c": "garbage"})


@pytest.mark.parametrize(
    "damage",
    [
        _gap,
        _wrong_chain,
        _altered_change,
        _forged_beat,
        _foreign_epoch,
        _altered_document,
        _missing_document,
        _beat_without_change,
        _garbage,
    ],
)
def test_what_cannot_be_believed_stops_it_at_once(scene: Scene, damage: Callable[[FeedWriter], None]) -> None:
    """Whoever writes to Valkey can stop a worker but not make it answer from what no beat vouches for."""
    scene.writer.issue(1)
    with scene.fresh_follower() as follower:
        damage(scene.writer)
        wait_until(lambda: not scene.is_fresh(follower))
        assert scene.state_of(follower, 90) is None
        time.sleep(0.15)
        assert not scene.is_fresh(follower)


def test_it_comes_back_when_the_feed_is_right_again(scene: Scene, tmp_path: Path) -> None:
    """After doubt it loads anew, by itself."""
    scene.writer.issue(1)
    with scene.fresh_follower() as follower:
        reloads = follower.reloads
        _forged_beat(scene.writer)
        wait_until(lambda: not scene.is_fresh(follower))
        _restart(scene.writer, tmp_path)
        scene.writer.revoke(1)
        wait_until(lambda: _beat_and_ask(scene, follower))
        assert scene.state_of(follower, 1) == REVOKED
        assert follower.reloads > reloads


@pytest.mark.parametrize("was_fresh", [False, True])
def test_a_load_that_breaks_off_is_begun_again(scene: Scene, tmp_path: Path, was_fresh: bool) -> None:
    """A load that Valkey fails at its last step, the documents, leaves nothing to go on from."""
    scene.writer.issue(1, 2)
    with scene.fresh_follower() if was_fresh else scene.follower() as follower:
        if was_fresh:
            _garbage(scene.writer)
            wait_until(lambda: not scene.is_fresh(follower))
        _restart(scene.writer, tmp_path)
        scene.writer.revoke(2)
        scene.writer.verifiers(everybody())
        name = scene.writer.keys.document("entitlements", scene.writer.pointers["entitlements"].generation)
        document = scene.client.get(name)
        # A server's error like any other; a connection that ends just here cannot be had on demand.
        scene.client.delete(name)
        scene.client.rpush(name, "not a string")
        scene.beat()
        wait_until(lambda: "WRONGTYPE" in follower.trouble)
        scene.client.delete(name)
        scene.client.set(name, document)
        scene.writer.issue(3)
        wait_until(lambda: _beat_and_ask(scene, follower))
        assert [scene.state_of(follower, n) for n in (1, 2, 3)] == [GOOD, REVOKED, GOOD]


def _restart(writer: FeedWriter, folder: Path) -> None:
    """Start the stream anew from a snapshot of everything so far, as a publisher does."""
    writer.client.delete(writer.keys.stream)
    writer.last_id = ""
    writer.waiting = []
    writer.make_snapshot(folder)


def _beat_and_ask(scene: Scene, follower: Follower) -> bool:
    scene.beat()
    time.sleep(0.05)
    return scene.is_fresh(follower)


def test_a_stream_started_anew_is_followed_without_a_break(scene: Scene, tmp_path: Path) -> None:
    """A flushed and rebuilt stream goes on where the worker stands, if it holds what comes next."""
    scene.writer.issue(1, 2)
    with scene.fresh_follower() as follower:
        reloads = follower.reloads
        _restart(scene.writer, tmp_path)
        scene.writer.revoke(2)
        scene.beat()
        wait_until(lambda: scene.state_of(follower, 2) == REVOKED)
        assert scene.is_fresh(follower)
        assert follower.reloads == reloads


def test_a_trimmed_stream_is_a_gap(scene: Scene, tmp_path: Path) -> None:
    """A worker that was away for longer than the stream reaches loads the snapshot."""
    scene.writer.issue(1)
    with scene.fresh_follower() as follower:
        reloads = follower.reloads
        scene.writer.issue(2, 3)
        scene.writer.revoke(1)
        _restart(scene.writer, tmp_path)
        wait_until(lambda: _beat_and_ask(scene, follower) and follower.standing.seq == 4)
        assert [scene.state_of(follower, n) for n in (1, 2, 3)] == [REVOKED, GOOD, GOOD]
        assert follower.reloads > reloads


def test_a_new_epoch_is_followed_and_the_old_one_never_again(
    scene: Scene, publisher_key: Ed25519PrivateKey
) -> None:
    """A higher epoch replaces everything; a lower one is refused even when it is all there is."""
    scene.writer.issue(1)
    old = scene.writer
    with scene.fresh_follower() as follower:
        scene.writer = FeedWriter(scene.client, publisher_key, NOW_MS + 1000)
        scene.writer.issuers(scene.ca.issuer)
        scene.writer.verifiers(everybody())
        scene.writer.issue(2)
        scene.clock.pass_s(2)
        wait_until(lambda: _beat_and_ask(scene, follower) and follower.standing.epoch == scene.writer.epoch)
        assert [scene.state_of(follower, n) for n in (1, 2)] == [None, GOOD]
        scene.client.delete(scene.writer.keys.stream)
        scene.client.set(epoch_key(NAMESPACE), old.epoch.hex())
        scene.client.xadd(FeedKeys(NAMESPACE, scene.writer.epoch).stream, {"c": "garbage"}, id="9-9")
        wait_until(lambda: "lower" in follower.trouble)
        old.beat(scene.clock.ms)
        time.sleep(0.2)
        assert follower.standing.epoch == scene.writer.epoch
        assert not scene.is_fresh(follower)


def test_an_older_stream_of_the_same_epoch_is_refused(scene: Scene) -> None:
    """Somebody who puts an old copy of Valkey back cannot take a worker back in time."""
    scene.writer.issue(1)
    with scene.fresh_follower() as follower:
        copy = scene.client.dump(scene.writer.keys.stream)
        scene.writer.revoke(1)
        scene.beat()
        wait_until(lambda: scene.state_of(follower, 1) == REVOKED)
        scene.client.xadd(scene.writer.keys.stream, {"c": "garbage"}, id="999-0")
        wait_until(lambda: not scene.is_fresh(follower))
        scene.client.delete(scene.writer.keys.stream)
        scene.client.restore(scene.writer.keys.stream, 0, copy)
        wait_until(lambda: "older" in follower.trouble)
        assert scene.state_of(follower, 1) == REVOKED
        assert not scene.is_fresh(follower)


def test_too_many_uncovered_changes_stop_it(scene: Scene) -> None:
    """The memory for changes that no beat covers is bounded."""
    with scene.follower(pending_max=10) as follower:
        scene.beat()
        wait_until(lambda: scene.writer.acked()[1])
        scene.beat()
        wait_until(lambda: scene.is_fresh(follower))
        scene.writer.issue(*range(1, 20))
        scene.beat()
        wait_until(lambda: not scene.is_fresh(follower))


def test_service_goes_on_while_valkey_is_away(publisher_key: Ed25519PrivateKey, state: Path) -> None:
    """Without Valkey a worker is fresh until age_max_s is over; a server that comes back empty and is filled
    again is followed from where the worker stands."""
    with PrivateValkey(state) as server:
        client = connect(server.url)
        scene = Scene(client, server.url, publisher_key, state / "host")
        scene.writer.issue(1, 2)
        with scene.fresh_follower() as follower:
            reloads = follower.reloads
            server.stop()
            scene.clock.pass_s(AGE_MAX_S - 5)
            wait_until(lambda: "Error" in follower.trouble)
            assert scene.is_fresh(follower)
            assert scene.state_of(follower, 1) == GOOD
            server.start()
            scene.writer.last_id = ""
            scene.writer.waiting = list(scene.writer.packed)
            scene.client.set(epoch_key(NAMESPACE), scene.writer.epoch.hex())
            scene.writer.issuers(scene.ca.issuer)
            scene.writer.verifiers(everybody())
            scene.writer.revoke(1)
            scene.beat()
            wait_until(lambda: scene.state_of(follower, 1) == REVOKED)
            scene.clock.pass_s(10)
            assert not scene.is_fresh(follower)
            scene.beat()
            wait_until(lambda: scene.is_fresh(follower))
            assert follower.reloads == reloads
            server.stop()
            scene.clock.pass_s(AGE_MAX_S + 1)
            assert not scene.is_fresh(follower)
        client.close()


# --- leaving -----------------------------------------------------------------------------------------


def test_it_says_good_bye(scene: Scene) -> None:
    """A worker that leaves says so, so that nobody waits for it, and is fresh no more."""
    scene.writer.issue(1)
    with scene.fresh_follower() as follower:
        pass
    assert scene.writer.acked() == (1, "")
    assert not scene.is_fresh(follower)


def test_two_workers_follow_independently(scene: Scene) -> None:
    """Slots of one host acknowledge each for itself."""
    scene.writer.issue(1)
    with scene.follower(0, "a"), scene.follower(1, "b"):
        scene.beat()
        wait_until(lambda: scene.writer.acked(slot=0) == (1, "a"))
        wait_until(lambda: scene.writer.acked(slot=1) == (1, "b"))


def test_thisupdate_comes_from_the_last_beat(scene: Scene) -> None:
    """The time that answers carry is the beat's, not the clock's of this host."""
    with scene.fresh_follower() as follower:
        scene.clock.pass_s(3)
        scene.writer.beat(scene.clock.ms - 1500)
        wait_until(lambda: follower.standing.time_ms == scene.clock.ms - 1500)


def test_certificates_far_in_the_future_are_found(scene: Scene) -> None:
    """The day of expiry travels with the row."""
    scene.writer.issue(1, day=FAR_DAY)
    with scene.fresh_follower() as follower:
        row = follower.standing.view.look_up(1, fingerprint(serial_of(1), INDEX_KEY))
        assert row is not None
        assert row.not_after_day == FAR_DAY


def test_a_change_that_no_beat_covers_does_not_hide_a_stream_begun_anew(scene: Scene) -> None:
    """Forged into the stream, which is lost then: the next one begins before it, and is followed."""
    with scene.fresh_follower() as follower:
        seq = scene.writer.seq + 1
        packed = pack_change(ChangeKind.RELEASED, 1, bytes(12), 40_000, None, scene.clock.ms, seq)
        scene.client.xadd(scene.writer.keys.stream, {"c": packed}, f"{seq}-0")
        wait_until(lambda: "no beat covers them" in follower.trouble or "end in a beat" in follower.trouble)
        scene.client.delete(scene.writer.keys.stream)
        scene.writer.last_id = ""

        def is_followed() -> bool:
            scene.clock.pass_s(0.01)
            scene.beat()
            return scene.is_fresh(follower)

        wait_until(is_followed)
