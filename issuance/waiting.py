"""Waiting for the next change, without asking the database all the time.

Knows: SQLite's ``PRAGMA data_version``, polled each 25 ms because SQLite tells nobody anything
(2 microseconds a time), and PostgreSQL's LISTEN/NOTIFY.  Each waiter has a connection of its own.
Does not know: what changed; only how far the sequence has got.
"""

from __future__ import annotations

import sqlite3
import time
from typing import TYPE_CHECKING, Any, Protocol

import sqlalchemy as sa

from certstatus.errors import StoreAway
from issuance import database

if TYPE_CHECKING:
    import psycopg

POLL_S = 0.025
CHANNEL = "certstatus_change"


class Waiter(Protocol):
    """One way to wait."""

    def wait(self, after_seq: int, timeout_s: float) -> int:
        """Return the sequence's number once it is beyond *after_seq*, or when the time is over."""

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

    def wait(self, after_seq: int, timeout_s: float) -> int:
        """Return the sequence's number once it is beyond *after_seq*, or when the time is over."""
        deadline = time.monotonic() + timeout_s
        while True:
            # In this order: a commit between the two shows in the next version.
            version = self._pragma()
            (seq,) = self._connection.execute("SELECT seq FROM store_state").fetchone()
            if seq > after_seq:
                return int(seq)
            while self._pragma() == version:
                left = deadline - time.monotonic()
                if left <= 0:
                    return int(seq)
                time.sleep(min(POLL_S, left))

    def _pragma(self) -> int:
        (version,) = self._connection.execute("PRAGMA data_version").fetchone()
        return int(version)

    def close(self) -> None:
        """Close the polling connection."""
        self._connection.close()


class PostgresWaiter:
    """Listens for the notice that a change's own transaction sends; a lost connection is made again."""

    def __init__(self, engine: sa.Engine) -> None:
        # Here, because a store on SQLite does without the driver.
        import psycopg

        self._connect = psycopg.connect
        self._lost = psycopg.OperationalError
        self._engine = engine
        self._connection: psycopg.Connection[Any] | None = None

    def wait(self, after_seq: int, timeout_s: float) -> int:
        """Return the sequence's number once it is beyond *after_seq*, or when the time is over.

        Raises: StoreAway — the connection was lost; the next call makes another.
        """
        deadline = time.monotonic() + timeout_s
        try:
            connection = self._listening()
            while True:
                row = connection.execute("SELECT seq FROM store_state").fetchone()
                assert row is not None
                left = deadline - time.monotonic()
                if row[0] > after_seq or left <= 0:
                    return int(row[0])
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
