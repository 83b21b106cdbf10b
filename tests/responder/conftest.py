"""Fixtures of the responder's tests: one real Valkey, an empty namespace each test, a host's folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from responder_cases import INDEX_KEY, NAMESPACE

from certstatus.config import Config, parse_config
from certstatus.private_valkey import PrivateValkey
from certstatus.publisher_key import make_ed25519
from certstatus.valkey import connect


@pytest.fixture(scope="session")
def valkey_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Valkey for this run."""
    with PrivateValkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server.url


@pytest.fixture
def valkey(valkey_url: str) -> Iterator[redis.Redis]:
    """A client of an empty Valkey."""
    client = connect(valkey_url)
    client.flushall()
    yield client
    client.close()


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state folder with a host in it."""
    host = tmp_path / "state" / "host"
    for folder in (host / "keys", host / "index", host / "counters", host.parent / "run"):
        folder.mkdir(parents=True)
    (host / "host.toml").write_text('name = "h"\n')
    key = host / "index.key"
    key.write_bytes(INDEX_KEY)
    key.chmod(0o600)
    return host.parent


@pytest.fixture
def publisher_key(state: Path, tmp_path: Path) -> Ed25519PrivateKey:
    """The publisher's key; its public half is where the host looks for it."""
    return make_ed25519(tmp_path / "publisher.key", state / "host" / "publisher.pub")


@pytest.fixture
def config(state: Path, valkey_url: str) -> Config:
    """The configuration of a small host."""
    return parse_config(
        {
            "installation": {"state": str(state)},
            "valkey": {"url": valkey_url, "namespace": NAMESPACE},
            "responder": {"port": 0, "shutdown_s": 3},
        },
        str(state / "certstatus.toml"),
    )
