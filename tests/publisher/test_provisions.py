"""Counts on their way from real counter files through a real Valkey into a real store."""

from __future__ import annotations

import hashlib
import json
import uuid
from pathlib import Path
from typing import Any

import pytest
import redis

from certstatus.counters import CounterFile, Provision
from certstatus.errors import IntegrityError
from certstatus.feed_keys import FeedKeys
from issuance.store import Store
from publisher.provisions import REPORTS_AT_ONCE, drain, read_report
from responder.counter_drain import CounterDrain

HOUR_S = 1_800_000_000


def _sums(store: Store) -> dict[tuple[int, int, str], int]:
    return {(item.verifier_id, item.issuer_id, item.kind): item.total for item in store.provision_sums()}


def _report(cells: list[list[int]], host: str = "h1", file_uuid: str = "") -> bytes:
    digest = hashlib.sha256(json.dumps(cells, separators=(",", ":")).encode()).hexdigest()
    name = file_uuid or str(uuid.uuid4())
    content = {"host": host, "uuid": name, "sealed": False, "digest": digest, "cells": cells}
    return json.dumps(content).encode()


@pytest.fixture
def keys(store: Store) -> FeedKeys:
    """The key names of the test's epoch."""
    return FeedKeys("t", store.state().epoch)


def test_counter_file_arrives_exactly_and_is_deleted_then(
    store: Store, valkey: redis.Redis, keys: FeedKeys, tmp_path: Path
) -> None:
    """A host's file is counted while it grows, counted once, and goes only after the store has it all."""
    file = CounterFile(tmp_path, store.state().epoch, "h1", 0, HOUR_S, 16)
    first = file.row(3, 1)
    file.cells[first + Provision.GOOD] = 5
    host = CounterDrain(tmp_path)
    for step in range(3):
        file.cells[first + Provision.REVOKED] = step
        host.step(valkey, keys, "h1", step * 100.0)
        drain(store, valkey, keys)
    assert _sums(store) == {(3, 1, "good"): 5, (3, 1, "revoked"): 2}
    file.cells[first + Provision.GOOD] = 6
    file.seal()
    del first
    host.step(valkey, keys, "h1", 1000.0)
    assert file.path.exists()
    drain(store, valkey, keys)
    host.step(valkey, keys, "h1", 1001.0)
    assert not file.path.exists()
    assert _sums(store) == {(3, 1, "good"): 6, (3, 1, "revoked"): 2}


def test_reports_told_twice_and_out_of_order_count_once(
    store: Store, valkey: redis.Redis, keys: FeedKeys
) -> None:
    """Cumulative values: the greatest counts, whatever came before or after."""
    client: Any = valkey
    name = str(uuid.uuid4())
    for value in (4, 9, 9, 7):
        client.xadd(keys.provisions(), {"p": _report([[0, 1, 1, 0, HOUR_S, value]], file_uuid=name)})
        drain(store, valkey, keys)
    assert _sums(store) == {(1, 1, "good"): 9}
    for value in (2, 11, 3):
        client.xadd(keys.provisions(), {"p": _report([[0, 1, 1, 0, HOUR_S, value]], file_uuid=name)})
    drain(store, valkey, keys)
    drain(store, valkey, keys)
    assert _sums(store) == {(1, 1, "good"): 11}
    assert client.xlen(keys.provisions()) == 0


def test_nothing_is_acknowledged_before_it_is_committed(
    store: Store, valkey: redis.Redis, keys: FeedKeys
) -> None:
    """When the store refuses, the report stays and its host hears nothing."""
    client: Any = valkey
    name = str(uuid.uuid4())
    client.xadd(keys.provisions(), {"p": _report([[0, 1, 1, 0, HOUR_S, 3]], file_uuid=name)})
    true_record = store.record_provisions

    def refuse(_cells: object) -> None:
        raise OSError("disk full")

    store.record_provisions = refuse  # type: ignore[method-assign,assignment]
    with pytest.raises(OSError):
        drain(store, valkey, keys)
    assert client.hgetall(keys.provisions_done("h1")) == {}
    store.record_provisions = true_record  # type: ignore[method-assign]
    assert drain(store, valkey, keys) == 1
    assert list(client.hgetall(keys.provisions_done("h1"))) == [name.encode()]


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff\xfe",
        _report([[0, 1, 1, 99, HOUR_S, 1]]),
        _report([[0, 1, 1, 0, HOUR_S, -1]]),
        _report([[0, 1, 1, 0, HOUR_S]]),
        _report([[0, 1, 1, 0, HOUR_S, 1 << 63]]),
        _report([[0, 1, 1, 0, HOUR_S, 1]]).replace(b'"digest": "', b'"digest": "00'),
        _report([[0, 1, 1, 0, HOUR_S, 1]]).replace(b'"h1"', b"7"),
    ],
)
def test_bad_reports_are_refused_and_hold_nothing_up(
    store: Store, valkey: redis.Redis, keys: FeedKeys, text: bytes
) -> None:
    """What is no report is logged and dropped; the one after it is taken over."""
    with pytest.raises(IntegrityError):
        read_report(text)
    client: Any = valkey
    client.xadd(keys.provisions(), {"p": text})
    client.xadd(keys.provisions(), {"other": b"field"})
    client.xadd(keys.provisions(), {"p": _report([[0, 2, 1, 1, HOUR_S, 8]])})
    assert drain(store, valkey, keys) == 3
    assert _sums(store) == {(2, 1, "revoked"): 8}
    assert client.xlen(keys.provisions()) == 0


def test_many_reports_go_in_bounded_steps(store: Store, valkey: redis.Redis, keys: FeedKeys) -> None:
    """A backlog is taken over piece by piece, all of it."""
    client: Any = valkey
    for n in range(REPORTS_AT_ONCE * 2 + 10):
        client.xadd(keys.provisions(), {"p": _report([[0, 1, 1, 0, HOUR_S, n]])})
    counts = [drain(store, valkey, keys) for _ in range(4)]
    assert counts == [REPORTS_AT_ONCE, REPORTS_AT_ONCE, 10, 0]
    assert _sums(store)[1, 1, "good"] == sum(range(REPORTS_AT_ONCE * 2 + 10))
