"""The host agent goes on with the rest of its round when one part of it cannot be done."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from worker_cases import Host

from certstatus import clock
from certstatus.config import Config, format_config
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


def test_signals_that_come_amid_a_round_are_heard_at_its_end(
    valkey: redis.Redis, publisher_key: Ed25519PrivateKey, config: Config, tmp_path: Path
) -> None:
    """No thread of a numerical library takes them, which would end the agent there and then."""
    Host(valkey, publisher_key, config)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}"
        file = tmp_path / "serve.toml"
        file.write_text(format_config(replace(config, valkey=replace(config.valkey, url=url))))
        with subprocess.Popen([sys.executable, "-m", "responder.host_agent", str(file)]) as agent:
            try:
                # It waits for an answer here, for two seconds.
                connection, _ = silent.accept()
                with connection:
                    for number in (signal.SIGHUP, signal.SIGTERM):
                        agent.send_signal(number)
                        with pytest.raises(subprocess.TimeoutExpired):
                            agent.wait(0.5)
                    assert agent.wait(30) == 0
            finally:
                agent.kill()
