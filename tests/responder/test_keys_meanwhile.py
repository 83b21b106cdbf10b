"""A worker's keys while they are being read on a thread."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
import redis
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from responder_cases import NAMESPACE
from worker_cases import Host

from certstatus import clock
from certstatus.config import Config
from responder.keys import SignerSet


def test_a_reload_is_not_undone_by_keys_that_were_being_read(
    valkey: redis.Redis, publisher_key: Ed25519PrivateKey, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What SIGHUP brings stays, also where a search for new keys had begun before and ends after it."""
    host = Host(valkey, publisher_key, config)
    now_s = clock.now_s()
    host.ca.install_responder(host.folder / "host" / "keys", now_s, algorithm="p384")
    Path(config.file).write_text(
        f'[installation]\nstate = "{host.folder}"\n'
        f'[valkey]\nurl = "{config.valkey.url}"\nnamespace = "{NAMESPACE}"\n'
        '[responder]\nport = 0\nkey = "p384"\n'
    )
    read, go_on = threading.Event(), threading.Event()

    with host.serving():
        worker = host.worker
        load = worker.keys.load

        def load_slowly(default: str = "") -> SignerSet:
            signers = load(default)
            read.set()
            assert go_on.wait(10)
            return signers

        def algorithm() -> str:
            signer = worker.path.signers.current(host.ca.issuer, now_s)
            return "" if signer is None else signer.key_algorithm

        async def look() -> None:
            await worker._look_for_keys()

        with monkeypatch.context() as patch:
            patch.setattr(worker.keys, "load", load_slowly)
            looking = asyncio.run_coroutine_threadsafe(look(), host._loop)
            assert read.wait(10)
        assert algorithm() == "p256"
        host.call(worker.reload)
        assert algorithm() == "p384"
        go_on.set()
        looking.result(10)
        assert algorithm() == "p384"
