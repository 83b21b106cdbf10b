"""A real Valkey for the run, emptied for each test, and a real SQLite store with its publisher key."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from publisher_cases import START_MS, Clock, add_bare_issuer

from certstatus.config import Config, parse_config
from certstatus.private_valkey import PrivateValkey
from certstatus.valkey import connect
from issuance.store import Store


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateValkey]:
    """A Valkey server of our own on a unix socket."""
    with PrivateValkey(tmp_path_factory.mktemp("valkey"), 256) as server:
        yield server


@pytest.fixture
def valkey(valkey_server: PrivateValkey) -> Iterator[redis.Redis]:
    """A client of an empty server."""
    client = connect(valkey_server.url)
    client.flushall()
    yield client
    client.close()


@pytest.fixture
def config(tmp_path: Path, valkey_server: PrivateValkey) -> Config:
    """A configuration whose state folder is the test's own."""
    return parse_config(
        {
            "installation": {"state": str(tmp_path)},
            "valkey": {"url": valkey_server.url, "namespace": "t"},
            "index": {"append_changes_max": 40, "stream_changes_max": 1000, "snapshot_changes_max": 100},
        },
        "test",
    )


@pytest.fixture
def store(config: Config) -> Iterator[Store]:
    """A new SQLite store with issuers 1 (SIGN) and 2 (AUTH), whose keys nobody has."""
    with Store.create(config.store_url, START_MS) as made:
        add_bare_issuer(made, 1, "SIGN")
        add_bare_issuer(made, 2, "AUTH")
        yield made


@pytest.fixture
def clock() -> Clock:
    """A clock that only the test moves."""
    return Clock()


@pytest.fixture(scope="session")
def publisher_key() -> Ed25519PrivateKey:
    """The key that signs beats."""
    return Ed25519PrivateKey.generate()
