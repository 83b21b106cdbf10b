"""Waiting for the next change or publication, without asking the database all the time.

Knows: SQLite's ``PRAGMA data_version``, polled each 25 ms because SQLite tells nobody anything
(2 microseconds a time), and PostgreSQL's LISTEN/NOTIFY.  Each waiter has a connection of its own.
Does not know: what changed; only how far sequence and publications have got.
"""

from __future__ import annotations

import sqlite3
import time
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import sqlalchemy as sa

from certstatus.errors import StoreAway
from issuance import database

if TYPE_CHECKING:
    import psycopg

POLL_S = 0.025
CHANNEL = "certstatus_change"


_MARK = "SELECT seq, (SELECT COALESCE(SUM(generation), 0) FROM publication) FROM store_state"


class Mark(NamedTuple):
    """How far a store has got.

    ``publications``: the sum of their generations, which moves with each, for generations only rise;
    None, to be waited for: whatever they are.
    """

    seq: int
    publications: int | None = None

    def is_passed_by(self, found: Mark) -> bool:
        """Say whether *found* is news to one who knows this."""
        return found.seq > self.seq or self.publications not in (None, found.publications)


class Waiter(Protocol):
    """One way to wait."""

    def wait(self, after: Mark, timeout_s: float) -> Mark:
        """Return the store's mark once it has passed *after*, or when the time is over."""

    def close(self) -> None:
        """Give the connection back."""


def make_waiter(engine: sa.Engine) -> Waiter:
    """Return the waiter that fits the database behind *engine*."""
    path = database.sqlite_path(engine.url)
    return PostgresWaiter(engine) if path is None else SQLiteWaiter(str(path))


class SQLiteWaiter:
    """Polls ``PRAGMA data_version``, which moves when another connection has committed."""

    def __init__(self, path: str) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._connection.execute(f"PRAGMA busy_timeout = {database.BUSY_TIMEOUT_MS}")

    def wait(self, after: Mark, timeout_s: float) -> Mark:
        """Return the store's mark once it has passed *after*, or when the time is over."""
        deadline = time.monotonic() + timeout_s
        while True:
            # In this order: a commit between the two shows in the next version.
            version = self._pragma()
            found = Mark(*map(int, self._connection.execute(_MARK).fetchone()))
            if after.is_passed_by(found):
                return found
            while self._pragma() == version:
                left = deadline - time.monotonic()
                if left <= 0:
                    return found
                time.sleep(min(POLL_S, left))

    def _pragma(self) -> int:
        (version,) = self._connection.execute("PRAGMA data_version").fetchone()
        return int(version)

    def close(self) -> None:
        """Close the polling connection."""
        self._connection.close()


class PostgresWaiter:
    """Listens for the notice that each change's and publication's own transaction sends.

    A lost connection is made again.
    """

    def __init__(self, engine: sa.Engine) -> None:
        # Here, because a store on SQLite does without the driver.
        import psycopg

        self._connect = psycopg.connect
        self._lost = psycopg.OperationalError
        self._engine = engine
        self._connection: psycopg.Connection[Any] | None = None

    def wait(self, after: Mark, timeout_s: float) -> Mark:
        """Return the store's mark once it has passed *after*, or when the time is over.

        Raises: StoreAway — the connection was lost; the next call makes another.
        """
        deadline = time.monotonic() + timeout_s
        try:
            connection = self._listening()
            while True:
                row = connection.execute(_MARK).fetchone()
                assert row is not None
                found = Mark(*map(int, row))
                left = deadline - time.monotonic()
                if after.is_passed_by(found) or left <= 0:
                    return found
                # Listening since before the SELECT, so nothing is missed; the bound is for the unforeseen.
                for _notice in connection.notifies(timeout=min(left, 1.0), stop_after=1):
                    pass
        except self._lost as exc:
            self.close()
            raise StoreAway(f"the store's database: {str(exc).strip()}") from exc

    def _listening(self) -> psycopg.Connection[Any]:
        if self._connection is None or self._connection.closed:
            _args, options = self._engine.dialect.create_connect_args(self._engine.url)
            options.update(database.postgres_options(self._engine.url))
            self._connection = self._connect(**options, autocommit=True)
            self._connection.execute(f"LISTEN {CHANNEL}")
        return self._connection

    def close(self) -> None:
        """Stop listening."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
