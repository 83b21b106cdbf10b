"""Fixtures of the responder's tests: one real Valkey, an empty namespace each test, a host's folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from answer_cases import Scene
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from worker_cases import Host, make_config, make_state

from certstatus.changes import ChangeKind
from certstatus.config import Config
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
    return make_state(tmp_path)


@pytest.fixture
def publisher_key(state: Path, tmp_path: Path) -> Ed25519PrivateKey:
    """The publisher's key; its public half is where the host looks for it."""
    return make_ed25519(tmp_path / "publisher.key", state / "host" / "publisher.pub")


@pytest.fixture
def config(state: Path, valkey_url: str) -> Config:
    """The configuration of a small host."""
    return make_config(state, valkey_url)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """One worker for all tests of a module that leave it as it was."""
    folder = tmp_path_factory.mktemp("host")
    state = make_state(folder)
    key = make_ed25519(folder / "publisher.key", state / "host" / "publisher.pub")
    with PrivateValkey(state) as server:
        client = connect(server.url)
        config = make_config(state, server.url, header_time_s=1, body_time_s=1, write_time_s=1)
        with Host(client, key, config).serving() as serving:
            yield serving
        client.close()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """Certificates 1 (good), 2 (revoked for keyCompromise) of SIGN; 1 of AUTH."""
    made = Scene(tmp_path)
    made.ground.change(ChangeKind.ISSUED, 1)
    made.ground.change(ChangeKind.ISSUED, 2)
    made.ground.change(ChangeKind.REVOKED, 2, reason=1)
    made.ground.change(ChangeKind.ISSUED, 1, issuer_id=2)
    yield made
    made.close()
