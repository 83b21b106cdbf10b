"""The host agent goes on with the rest of its round when one part of it cannot be done."""

from __future__ import annotations

import json
from typing import Any

import redis
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from worker_cases import Host

from certstatus import clock
from certstatus.config import Config
from certstatus.counters import Provision
from certstatus.feed_keys import FeedKeys
from responder.counting import Counting
from responder.host_agent import HostAgent


def status(config: Config) -> dict[str, Any]:
    """What the agent says of itself."""
    found: dict[str, Any] = json.loads((config.state / "run" / "agent.json").read_text())
    return found


def test_a_key_that_others_can_read_keeps_no_counter_back(
    valkey: redis.Redis, publisher_key: Ed25519PrivateKey, config: Config
) -> None:
    """It is told as a problem, what was counted is reported, and once mended all is well by itself."""
    host = Host(valkey, publisher_key, config)
    host.beat()
    agent = HostAgent(config, valkey)
    (key,) = (config.state / "host" / "keys").glob("1-*.key")
    key.chmod(0o644)
    epoch = host.writer.epoch
    counting = Counting(config.state / "host" / "counters", "h", 0, 4)
    for turn in (1, 2):
        cells = counting.ensure(epoch, clock.now_s())
        cells[counting.row(7, 1) + Provision.GOOD] += 1
        counting.close()
        agent.round()
        assert "mode 644, expected 600" in status(config)["problem"]
        # Of the issuer whose key that is; the other one's is none the worse for it.
        states = {item["issuer_id"]: item["state"] for item in status(config)["certificates"]}
        assert states == {1: "missing", 2: "ok"}
        assert valkey.xlen(FeedKeys(config.valkey.namespace, epoch).provisions()) == turn
    key.chmod(0o600)
    agent._certificates_at_s = 0.0
    agent.round()
    assert status(config)["problem"] == ""
    assert {item["state"] for item in status(config)["certificates"]} == {"ok"}
