"""The schema: what revisions make is what the code believes, and other versions are told apart."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from ca_cases import found, issue_one, make_issuing
from crl_steps_by_one import allocate_crl_number, record_crl
from import_cases import OldCA, run
from store_cases import START_MS, add_issuer

from certstatus.crl_entry import CRLEntry
from certstatus.errors import StoreAway, StoreError
from issuance import database, migrations, schema
from issuance.ca_keys import CAKeyFolder
from issuance.database import create_sqlite_file, make_engine, parse_url, postgres_options
from issuance.issuers import issuers
from issuance.migrations import newest_revision
from issuance.revoke import revoke
from issuance.show import show
from issuance.store import Store
from publisher.crl_entries import fold

# What later revisions added to the first one's tables.
_LATER_COLUMNS = {
    "revoked_ms",
    "published_ms",
    "scope_id",
    "title",
    *(f"{name}_der" for name in ("idp", "crldp", "freshest")),
}
_LATER_COLUMNS |= {"opened_seq", "closed_seq", "taken_this_update_s", "last_end_s", "retired_seq"}


def test_the_revisions_make_the_schema_of_the_code(store: Store) -> None:
    """Alembic finds no difference between a store made by revisions and the declared tables."""
    assert newest_revision() == schema.SCHEMA_REVISION
    with store.reading() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, schema.metadata) == []
        inspector = sa.inspect(connection)
        for table in schema.metadata.sorted_tables:
            found = {index["name"] for index in inspector.get_indexes(table.name)}
            assert {index.name for index in table.indexes} <= found


def test_upgrading_again_changes_nothing(store: Store) -> None:
    """A store that is up to date stays as it is."""
    add_issuer(store)
    before = store.state()
    store.upgrade()
    assert store.state() == before


def test_a_store_is_made_once(store_url: str) -> None:
    """Creating over an existing store is refused and leaves it alone."""
    with Store.create(store_url, START_MS) as store:
        epoch = store.state().epoch
        with pytest.raises(StoreError, match="there is a store already"):
            Store.create(store_url, START_MS + 1)
        assert store.state().epoch == epoch


def test_an_interrupted_creation_is_gone_on_with(store_url: str) -> None:
    """Tables without the counter row, as a kill leaves them, are no store, and the next creation ends it."""
    with Store.create(store_url, START_MS) as store, store.engine.begin() as connection:
        connection.execute(sa.delete(schema.store_state))
        connection.execute(sa.delete(schema.epoch))
    assert not Store.exists(store_url)
    with pytest.raises(StoreError, match="did not finish"):
        Store.open(store_url)
    Store.create(store_url, START_MS).close()
    assert Store.exists(store_url)


@pytest.mark.parametrize(
    ("revision", "advice"),
    [("0000", "run `certstatus store upgrade`"), ("9999", "a newer version wrote it")],
)
def test_another_versions_store_is_told_apart(store_url: str, revision: str, advice: str) -> None:
    """The message names both revisions and says what to do."""
    with Store.create(store_url, START_MS) as store, store.engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = :r"), {"r": revision})
    with pytest.raises(
        StoreError, match=f"schema revision {revision}, this version works with 0005.*{advice}"
    ):
        Store.open(store_url)


def test_where_no_store_is(tmp_path: Path, new_postgres: Callable[[str], str]) -> None:
    """An absent file, an empty one, an empty database and no server each say so, and none is made."""
    absent = tmp_path / "absent.db"
    with pytest.raises(StoreError, match="no store here"):
        Store.open(f"sqlite:///{absent}")
    assert not absent.exists()
    (tmp_path / "empty.db").touch()
    for url in (f"sqlite:///{tmp_path / 'empty.db'}", new_postgres("t_empty")):
        with pytest.raises(StoreError, match="no store here"):
            Store.open(url)
    with pytest.raises(StoreError, match="the store's database"):
        Store.open("postgresql://nobody@127.0.0.1:1/nothing")
    (tmp_path / "junk.db").write_bytes(b"not a database at all" * 100)
    with pytest.raises(StoreError, match="not a database"):
        Store.open(f"sqlite:///{tmp_path / 'junk.db'}")


@pytest.mark.parametrize("url", ["", "nonsense", "mysql://h/d", "sqlite://", "sqlite:///:memory:"])
def test_urls_of_no_use_are_refused(url: str) -> None:
    """Only a SQLite file or PostgreSQL can be a store of record."""
    with pytest.raises(StoreError, match="store URL"):
        Store.open(url)


def test_sqlite_is_set_up_for_durability_and_for_its_owner(tmp_path: Path) -> None:
    """Write-ahead log, synced at each commit, foreign keys held, file readable by its owner only."""
    path = tmp_path / "store.db"
    with Store.create(f"sqlite:///{path}", START_MS) as store:
        assert path.stat().st_mode & 0o777 == 0o600
        with store.reading() as connection:
            for pragma, value in (("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1)):
                assert connection.exec_driver_sql(f"PRAGMA {pragma}").scalar() == value
        assert Path(f"{path}-wal").stat().st_mode & 0o777 == 0o600


def test_the_write_ahead_log_does_not_grow_without_end(tmp_path: Path) -> None:
    """Checkpoints run after commits, outside the lock: the log stays near its bound and shrinks again."""
    path = tmp_path / "store.db"
    sizes = []
    with Store.create(f"sqlite:///{path}", START_MS) as store:
        for _ in range(60):
            store.publish("snapshot", store.cut(START_MS).time_ms, bytes(32), bytes(400_000))
            sizes.append(Path(f"{path}-wal").stat().st_size)
    assert max(sizes) < 8 << 20
    # A file that kept its greatest size would make every later commit checkpoint anew.
    assert min(sizes[30:]) < 2 << 20


def test_passwords_are_not_in_messages() -> None:
    """A URL is shown without its password."""
    with Store(make_engine(parse_url("postgresql://user:hunter2@127.0.0.1:1/d"))) as store:
        assert "hunter2" not in store.place
        with pytest.raises(StoreError) as caught:
            store.state()
    assert "hunter2" not in str(caught.value)


def test_a_database_that_never_answers_is_not_waited_for_without_end() -> None:
    """A connection that is taken but never served ends in an error; the time can be set in the URL."""
    url = parse_url("postgresql://u@127.0.0.1:1/d")
    assert postgres_options(url)["connect_timeout"] == 5
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        began = time.monotonic()
        with pytest.raises(StoreAway, match="timeout"):
            Store.open(f"postgresql://u@127.0.0.1:{listener.getsockname()[1]}/d?connect_timeout=2")
        assert time.monotonic() - began < 4.5


def test_a_store_of_the_first_revision_keeps_what_is_in_it(
    store_url: str, tmp_path: Path, new_postgres: Callable[[str], str], keys: CAKeyFolder
) -> None:
    """Issued, revoked, held and numbered before; the same rows, and a register that goes on, afterwards."""
    is_sqlite = store_url.startswith("sqlite")
    source_url = f"sqlite:///{tmp_path / 'source.db'}" if is_sqlite else new_postgres("t_source")
    with Store.create(source_url, START_MS) as source:
        issuing = make_issuing(source, keys, partition="none")
        revoked, kept = (issue_one(source, issuing) for _ in range(2))
        revoke(source, found(issuing, revoked), START_MS + 5, reason=1)
        fence = source.acquire_publisher("crl", 60_000, START_MS, "test")
        for number in (1, 2):
            allocate_crl_number(source, 1, "all", ["complete"], fence, START_MS)
            if number == 1:
                record_crl(
                    source,
                    1,
                    "all",
                    1,
                    "complete",
                    base_number=None,
                    next_update_s=START_MS // 1000 + 60,
                    sha256=bytes(32),
                    size=1,
                    fence=fence,
                )
        allocate_crl_number(source, 1, "other", ["complete"], fence, START_MS)
        before = source.state()
        # As the first version had them.
        first: dict[str, tuple[list[str], list[dict[str, object]]]] = {}
        with source.reading() as connection:
            for table in schema.metadata.sorted_tables:
                if table.name == "imported_issuer":
                    continue
                names = [column.name for column in table.columns if column.name not in _LATER_COLUMNS]
                rows = connection.execute(sa.select(*(table.c[name] for name in names)))
                first[table.name] = names, [dict(row._mapping) for row in rows]
    if is_sqlite:
        create_sqlite_file(tmp_path / "store.db")
    engine = make_engine(parse_url(store_url))
    with database.writing(engine) as connection:
        command.upgrade(migrations._config(connection), "0001")
        for table in schema.metadata.sorted_tables:
            if table.name in first and first[table.name][1]:
                lines = first[table.name][1]
                columns: list[sa.ColumnClause[object]] = [sa.column(name) for name in first[table.name][0]]
                connection.execute(sa.table(table.name, *columns).insert(), lines)
    engine.dispose()
    with pytest.raises(StoreError, match="run `certstatus store upgrade`"):
        Store.open(store_url)
    with Store(make_engine(parse_url(store_url))) as old:
        old.upgrade()
    with Store.open(store_url) as store:
        assert store.state() == before
        with store.reading() as connection:
            for table in schema.metadata.sorted_tables:
                if table.name in first:
                    names, lines = first[table.name]
                    rows = connection.execute(sa.select(*(table.c[name] for name in names)))
                    found_rows = [dict(row._mapping) for row in rows]
                    assert sorted(map(repr, found_rows)) == sorted(map(repr, lines))
        # Out, but nobody knows since when; and never out.
        assert [item.published_ms for item in store.crls(1, "all")] == [0, None]
        (entry,) = fold(store.revocation_changes(1, 0, before.seq)).values()
        assert entry == CRLEntry(revoked.serial, (START_MS + 5) // 1000, 1)
        revoke(store, found(issuing, kept), START_MS + 10, reason=4)
        assert show(store, found(issuing, kept), START_MS // 1000).answer == "revoked"
        with store.reading() as connection:
            assert connection.execute(sa.select(schema.certificate.c.scope_id)).scalars().all() == [None] * 2
            scopes = connection.execute(
                sa.select(schema.crl_scope.c.scope, schema.crl_scope.c.scope_id)
            ).all()
            assert sorted(map(tuple, scopes)) == [("all", 1), ("other", 2)]
        old_ca = OldCA(tmp_path / "old")
        run(store, keys, old_ca.order(certificates=(old_ca.write_certificates(1),), crl_number=3), START_MS)
        assert len(issuers(store)) == 2
