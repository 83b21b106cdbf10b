"""Connections to the store of record: SQLite or PostgreSQL, and where each takes its lock.

Knows: pragmas, how long and how often a writer looks for SQLite's lock, and that a writing transaction must
hold the write lock from its first statement.  SQLAlchemy's own BEGIN on SQLite is deferred, and Python's
sqlite3 begins only before the first INSERT or UPDATE: two writers can then both have read the counter before
either writes it, and numbers come out double without any error.
Does not know: any table.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from certstatus.errors import StoreError

WRITING = "certstatus_writing"
BUSY_TIMEOUT_MS = 30_000
# Long jobs leave the lock alone for some milliseconds between their pieces.  SQLite's own retries sleep for
# up to 100 and can miss every such gap of an import, and a beat or a revocation would wait for its end.
_LOOK_EVERY_S = 0.001
# PostgreSQL ends the transaction of a writer that stops for so long with the lock in its hands.
_IDLE_TIMEOUT_MS = 10_000

# A server that is gone without a word must not be waited for until the kernel's two hours are over.
_PATIENCE = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}

_SQLITE_PRAGMAS = (
    f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}",
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    # Checkpoints would run inside a commit and count as time under the lock; the store runs them after.
    "PRAGMA wal_autocheckpoint = 0",
    # Without it the log's file keeps its greatest size, and every commit after would checkpoint.
    "PRAGMA journal_size_limit = 1048576",
    "PRAGMA cache_size = -65536",
    "PRAGMA temp_store = MEMORY",
)


def parse_url(url: str) -> sa.URL:
    """Return the SQLAlchemy URL in *url*, PostgreSQL always through psycopg.

    Raises: StoreError — not a URL, another database, or SQLite in memory (which nobody else can open).
    """
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError as exc:
        raise StoreError("store URL: expected sqlite:///path or postgresql://host/database") from exc
    backend = parsed.get_backend_name()
    if backend == "sqlite":
        if not parsed.database or parsed.database == ":memory:":
            raise StoreError("store URL: SQLite needs a file, several processes open it")
        return parsed.set(drivername="sqlite+pysqlite")
    if backend == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    raise StoreError(f"store URL: expected sqlite or postgresql, found {backend}")


def make_engine(url: sa.URL) -> sa.Engine:
    """Return an engine whose connections are set up, and whose writing transactions lock at BEGIN."""
    if url.get_backend_name() == "sqlite":
        engine = sa.create_engine(url, connect_args={"check_same_thread": False})
        sa.event.listen(engine, "connect", _prepare_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
        return engine
    return sa.create_engine(url, connect_args=postgres_options(url), pool_pre_ping=True)


def postgres_options(url: sa.URL) -> dict[str, str | int]:
    """Return what every connection to PostgreSQL is made with, unless *url* itself says otherwise."""
    options: dict[str, str | int] = {
        "options": f"-c idle_in_transaction_session_timeout={_IDLE_TIMEOUT_MS} -c timezone=UTC"
    }
    return options | {name: value for name, value in _PATIENCE.items() if name not in url.query}


def _prepare_sqlite(dbapi_connection: sqlite3.Connection, _record: object) -> None:
    # None: the driver begins nothing by itself, the hook below does.
    dbapi_connection.isolation_level = None
    for pragma in _SQLITE_PRAGMAS:
        dbapi_connection.execute(pragma).close()


def _begin_sqlite(connection: sa.Connection) -> None:
    if not connection.get_execution_options().get(WRITING, False):
        connection.exec_driver_sql("BEGIN")
        return
    raw: Any = connection.connection.dbapi_connection
    until_s = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    raw.execute("PRAGMA busy_timeout = 0").close()
    try:
        while time.monotonic() < until_s:
            try:
                raw.execute("BEGIN IMMEDIATE").close()
                return
            except sqlite3.Error as exc:
                # The low octet: a writer that was killed leaves SQLITE_BUSY_RECOVERY to who comes next.
                if getattr(exc, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_BUSY:
                    break
                time.sleep(_LOOK_EVERY_S)
        # Once more in SQLAlchemy's own way, which makes an error of its own of what is wrong.
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    finally:
        raw.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}").close()


@contextmanager
def writing(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Give a connection in a transaction that may write; commits at the end, or rolls back."""
    with engine.connect().execution_options(**{WRITING: True}) as connection, connection.begin():
        yield connection


@contextmanager
def reading(engine: sa.Engine, *, repeatable: bool = False) -> Iterator[sa.Connection]:
    """Give a connection for reading.

    *repeatable*: all statements see one moment.  SQLite always does so; PostgreSQL when asked.
    """
    options = {"isolation_level": "REPEATABLE READ"} if repeatable and not sqlite_path(engine.url) else {}
    with engine.connect().execution_options(**options) as connection, connection.begin():
        yield connection


def insert(connection: sa.Connection, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
    """Return an INSERT that knows ``on_conflict_do_update``, in the connection's dialect."""
    if connection.dialect.name == "sqlite":
        return sqlite.insert(table)
    return postgresql.insert(table)


def sqlite_path(url: sa.URL) -> Path | None:
    """Return the database file of a SQLite URL, None for PostgreSQL."""
    return Path(url.database) if url.get_backend_name() == "sqlite" and url.database else None


def create_sqlite_file(path: Path) -> None:
    """Make an empty file that only its owner may read; WAL and SHM files take its mode over."""
    path.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))


def checkpoint_sqlite(engine: sa.Engine, path: Path, wal_bytes_max: int) -> None:
    """Copy the write-ahead log back into the database file once it has grown; blocks nobody."""
    try:
        if os.stat(f"{path}-wal").st_size < wal_bytes_max:
            return
    except FileNotFoundError:
        return
    raw = engine.raw_connection()
    try:
        raw.cursor().execute("PRAGMA wal_checkpoint(PASSIVE)")
    finally:
        raw.close()
