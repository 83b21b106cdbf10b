"""Whichever one command to Valkey a follower loses, what it believes is what the feed said up to there."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from responder_cases import INDEX_KEY, serial_of
from test_follow import Scene

from certstatus.changes import ChangeKind, fingerprint, unpack_change
from certstatus.index import View
from certstatus.valkey import connect
from responder import follow
from responder.follow import Follower

# More than a scenario sends until its last change is believed, when nothing is lost.
COMMANDS = 40
_CERTIFICATES = range(1, 8)
_SETTLE_TIME_S = 8.0


class Losing:
    """A real client one command of which is lost: not sent, or sent and its reply lost.

    ``countdown`` is shared by all clients of a follower, so that every command has its turn.
    """

    def __init__(self, client: Any, countdown: itertools.count[int], lost: int, is_sent: bool) -> None:
        self._client = client
        self._countdown = countdown
        self._lost = lost
        self._is_sent = is_sent

    def _losing(self, send: Callable[..., Any]) -> Callable[..., Any]:
        def command(*arguments: Any, **named: Any) -> Any:
            is_lost = next(self._countdown) == self._lost
            if is_lost and not self._is_sent:
                raise redis.ConnectionError("lost before it was sent")
            reply = send(*arguments, **named)
            if is_lost:
                raise redis.ConnectionError("its reply was lost")
            return reply

        return command

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        if name in ("get", "set", "xread", "xrevrange"):
            return self._losing(found)
        if name == "pipeline":

            def pipeline(**named: Any) -> Any:
                made = found(**named)
                made.execute = self._losing(made.execute)
                return made

            return pipeline
        return found


@pytest.fixture
def scene(valkey: redis.Redis, valkey_url: str, publisher_key: Ed25519PrivateKey, state: Path) -> Scene:
    """A publisher that has published its documents, and no beat yet."""
    return Scene(valkey, valkey_url, publisher_key, state / "host")


def _check(scene: Scene, follower: Follower) -> None:
    """Compare what is believed with the changes up to the number it is believed at."""
    with follower.settled:
        standing = follower.standing
        marks = [fingerprint(serial_of(n), INDEX_KEY) for n in _CERTIFICATES]
        found = [standing.view.look_up(1, mark) for mark in marks]
    said = View(None)
    for packed in scene.writer.packed[: standing.seq] if standing.epoch else []:
        said.apply(unpack_change(packed))
    assert found == [said.look_up(1, mark) for mark in marks], f"at {standing.seq}"


def _settle(scene: Scene, follower: Follower) -> None:
    """Send beats until everything is believed and fresh; whatever is believed meanwhile must be right."""
    until = time.monotonic() + _SETTLE_TIME_S
    while not (scene.is_fresh(follower) and follower.standing.seq == scene.writer.seq):
        assert time.monotonic() < until, follower.trouble
        scene.beat()
        time.sleep(0.01)
        _check(scene, follower)


@pytest.mark.parametrize("lost", range(COMMANDS))
def test_one_lost_command_leads_to_no_other_index(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: int
) -> None:
    """Start, changes, documents, snapshots, a broken stream and a new one: the index is never another."""
    countdown = itertools.count()
    is_sent = lost % 2 == 1
    monkeypatch.setattr(follow, "connect", lambda url: Losing(connect(url), countdown, lost, is_sent))
    monkeypatch.setattr(follow, "BLOCK_MS", 20)
    writer = scene.writer
    writer.issue(1, 2, 3)
    writer.revoke(2)
    scene.beat()
    writer.make_snapshot(tmp_path)
    writer.change(ChangeKind.HELD, 3)
    writer.crls()
    scene.beat()
    with scene.follower() as follower:
        _settle(scene, follower)
        writer.issue(4)
        writer.revoke(1)
        writer.crls()
        _settle(scene, follower)
        writer.make_snapshot(tmp_path)
        writer.change(ChangeKind.RELEASED, 3)
        writer.revoke(4)
        _settle(scene, follower)
        scene.client.xadd(writer.keys.stream, {"c": "garbage"})
        writer.issue(5)
        scene.client.delete(writer.keys.stream)
        writer.last_id = ""
        writer.waiting = []
        writer.make_snapshot(tmp_path)
        writer.revoke(3)
        writer.crls()
        writer.issuers(scene.ca.issuer)
        _settle(scene, follower)
        writer.revoke(5)
        writer.issue(6)
        _settle(scene, follower)
