"""An empty store in the place of another: new tables, which take over when all is in them.

Knows: that nobody ever sees half of it, and that what was there is kept beside it under another name: on
PostgreSQL as tables in a schema of their own, on SQLite as a file.
Does not know: what is written into it; ``restore`` does, and sees to it that nobody uses the old one.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from certstatus.durable import sync_folder
from issuance import database, migrations, schema


@contextmanager
def new_store(url: str) -> Iterator[sa.Connection]:
    """Give a connection to empty tables of today's schema, which take the store's place at the end."""
    parsed = database.parse_url(url)
    path = database.sqlite_path(parsed)
    if path is None:
        with _new_postgres(parsed) as connection:
            yield connection
    else:
        with _new_sqlite(path) as connection:
            yield connection


@contextmanager
def _new_postgres(url: sa.URL) -> Iterator[sa.Connection]:
    """All in one transaction: the old tables move into a schema of their own, new ones take their place."""
    engine = database.make_engine(url)
    try:
        with database.writing(engine) as connection:
            # The one statement that may find the lock held: by a writer that has yet to notice.
            present = set(sa.inspect(connection).get_table_names())
            ours = [name for name in (*schema.metadata.tables, "alembic_version") if name in present]
            if ours:
                aside = f"before_restore_{secrets.token_hex(4)}"
                connection.exec_driver_sql(f'CREATE SCHEMA "{aside}"')
                for name in ours:
                    connection.exec_driver_sql(f'ALTER TABLE "{name}" SET SCHEMA "{aside}"')
            migrations.upgrade(connection)
            yield connection
    finally:
        engine.dispose()


@contextmanager
def _new_sqlite(path: Path) -> Iterator[sa.Connection]:
    """A file beside the old one, renamed over it when it is complete."""
    neighbour = path.with_name(f"{path.name}.restoring")
    for leftover in (neighbour, *_log_files(neighbour)):
        leftover.unlink(missing_ok=True)
    database.create_sqlite_file(neighbour)
    engine = database.make_engine(sa.URL.create("sqlite+pysqlite", database=str(neighbour)))
    try:
        with database.writing(engine) as connection:
            migrations.upgrade(connection)
            yield connection
        _empty_log(engine)
    finally:
        engine.dispose()
    if path.exists():
        _keep_aside(path)
    neighbour.rename(path)
    sync_folder(path.parent)


def _keep_aside(path: Path) -> None:
    """Give the old database a second name, and leave no log that could be taken for the new one's."""
    try:
        old = database.make_engine(sa.URL.create("sqlite+pysqlite", database=str(path)))
        try:
            _empty_log(old)
        finally:
            old.dispose()
    except sa.exc.DatabaseError:
        # Damaged beyond opening; its log goes aside with it as it is.
        pass
    name = f"{path.name}.before-{secrets.token_hex(4)}"
    os.link(path, path.with_name(name))
    for log in _log_files(path):
        if log.exists():
            log.rename(log.with_name(name + log.name.removeprefix(path.name)))
    sync_folder(path.parent)


def _empty_log(engine: sa.Engine) -> None:
    raw: Any = engine.raw_connection()
    try:
        raw.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        raw.close()


def _log_files(path: Path) -> list[Path]:
    return [path.with_name(path.name + suffix) for suffix in ("-wal", "-shm")]
