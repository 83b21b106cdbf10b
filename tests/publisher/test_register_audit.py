"""The audit of the register's past: what was lost or altered is named, and what is as it was is not."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import redis
import sqlalchemy as sa
from publisher_cases import START_MS, Clock, add_bare_issuer, issue_many, serial_of

from certstatus.changes import ChangeKind, first_chain
from certstatus.clock import DAY_S
from certstatus.config import Config
from issuance import schema
from issuance.store import Store, make_epoch
from publisher import register_audit
from publisher.builder import Builder
from publisher.register_audit import RegisterAudit

_CHANGE = schema.change.c


@pytest.fixture(autouse=True)
def _short_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(register_audit, "_SLICE_ROWS", 7)


@pytest.fixture
def full(store: Store) -> Store:
    """A store with 30 certificates, 10 of them revoked, in two epochs."""
    issue_many(store, range(20))
    _revoke(store, range(5))
    state = store.state()
    epoch, base_seq = make_epoch(START_MS + 5), state.seq + 1000
    _execute(
        store,
        sa.insert(schema.epoch).values(
            epoch=epoch, base_seq=base_seq, started_ms=START_MS + 5, cause="restored"
        ),
        sa.update(schema.store_state).values(
            epoch=epoch, base_seq=base_seq, seq=base_seq, chain=first_chain(epoch)
        ),
    )
    issue_many(store, range(20, 30))
    _revoke(store, range(5, 10))
    return store


def _revoke(store: Store, numbers: range) -> None:
    with store.writing(START_MS) as act:
        for n in numbers:
            act.record(ChangeKind.REVOKED, issuer_id=1, serial=serial_of(n), reason=1)


def _execute(store: Store, *statements: sa.Executable) -> None:
    with store.engine.connect() as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def _audited(store: Store, clock: Clock, began: int = 0) -> RegisterAudit:
    """After its first pass, and the whole one after that."""
    audit = RegisterAudit(
        store, now_ms=clock.now_ms, monotonic_s=clock.monotonic_s, draw=lambda end: min(began, end)
    )
    for _ in range(40):
        audit.step()
        clock.pass_s(1)
    assert audit.ended_ms
    return audit


def test_what_was_recorded_is_found_as_it_was(full: Store, clock: Clock) -> None:
    """Over epochs, wherever the first pass begins; each change is read once a day."""
    last = full.state().seq
    for began in (0, 1, 15, 27, 500, last - 1, last):
        audit = _audited(full, clock, began)
        assert (audit.wrong, audit.trouble) == (0, "")
        assert audit.checked == 42
    ended_ms = audit.ended_ms
    clock.pass_s(DAY_S - 60)
    assert audit.step() == ""
    assert audit.ended_ms == ended_ms
    clock.pass_s(60)
    _revoke(full, range(10, 12))
    words = []
    for _ in range(10):
        words.append(audit.step())
        clock.pass_s(1)
    assert "44 changes, 0 wrong" in words


_OF_ONE = "WHERE kind = 2 AND certificate_seq = 5"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (f"DELETE FROM change {_OF_ONE}", "change 25: lost, up to 25"),
        ("DELETE FROM change WHERE seq BETWEEN 8 AND 12", "change 8: lost, up to 12"),
        ("DELETE FROM change WHERE seq <= 4", "change 1: lost, up to 4"),
        ("DELETE FROM change WHERE seq >= 1040", "change 1040: lost, up to 1042"),
        ("DELETE FROM change WHERE seq > 1000", "change 1028: lost, up to 1042"),
        (f"UPDATE change SET reason = 4 {_OF_ONE}", "change 25: altered: its columns"),
        (f"UPDATE change SET recorded_ms = 77 {_OF_ONE}", "change 25: altered: its columns"),
        (f"UPDATE change SET invalidity_s = 9 {_OF_ONE}", "change 25: altered: its columns"),
        (f"UPDATE change SET packed = zeroblob(40) {_OF_ONE}", "change 25: altered: its running"),
        ("UPDATE change SET chain = zeroblob(32) WHERE seq = 1042", "change 1042: altered: its running"),
        (
            "UPDATE certificate SET fingerprint = zeroblob(12) WHERE issued_seq = 5",
            "change 5: its",
        ),
        ("DELETE FROM certificate WHERE issued_seq = 5", "change 5: its certificate is lost"),
    ],
)
@pytest.mark.parametrize("began", [0, 15, 2000])
def test_what_was_lost_or_altered_is_named(
    full: Store, clock: Clock, damage: str, said: str, began: int
) -> None:
    """Wherever it is; and no more once it is as it was."""
    # By hand, so that no rule of the schema is in the way.
    with closing(sqlite3.connect(full.place, isolation_level=None)) as database:
        assert database.execute(damage).rowcount > 0
    audit = _audited(full, clock, began)
    assert audit.wrong > 0
    assert f"recorded: {said}" in audit.trouble
    assert audit.status()["trouble"] == audit.trouble


def test_an_empty_store_has_lost_nothing(tmp_path: Path, clock: Clock) -> None:
    """Made and not used yet: it stands where its epoch began."""
    with Store.create(f"sqlite:///{tmp_path / 'empty.db'}", START_MS) as store:
        audit = _audited(store, clock)
        assert (audit.wrong, audit.trouble) == (0, "")
        add_bare_issuer(store, 1, "SIGN")
        clock.pass_s(DAY_S)
        assert [word for _ in range(4) if (word := _step(audit, clock))] == ["1 changes, 0 wrong"]


def _step(audit: RegisterAudit, clock: Clock) -> str:
    clock.pass_s(1)
    return audit.step()


def test_where_everything_is_wrong_the_first_of_it_is_kept(
    full: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A hundred million of them would fill memory and log, and the builder would do nothing else."""
    monkeypatch.setattr(register_audit, "_KEPT_MAX", 5)
    _execute(full, sa.update(schema.change).values(recorded_ms=77))
    audit = _audited(full, clock)
    assert audit.wrong == 42
    assert audit.trouble.count("altered") == 3
    assert audit.trouble.endswith("; and at 39 other places")
    clock.pass_s(DAY_S)
    for _ in range(10):
        _step(audit, clock)
    assert audit.wrong == 42
    assert caplog.text.count("register: change") == 5


def test_it_ends_once_the_store_is_as_it_was(full: Store, clock: Clock) -> None:
    """With the next whole pass, and not before."""
    with full.reading() as connection:
        kept = connection.execute(sa.select(schema.change).where(_CHANGE.seq == 9)).mappings().all()
    _execute(full, sa.delete(schema.change).where(_CHANGE.seq == 9))
    audit = _audited(full, clock)
    _execute(full, sa.insert(schema.change).values([dict(row) for row in kept]))
    assert audit.wrong == 1
    clock.pass_s(DAY_S)
    audit.step()
    assert audit.wrong == 1
    for _ in range(10):
        clock.pass_s(1)
        audit.step()
    assert (audit.wrong, audit.trouble) == (0, "")


def test_operators_are_told(
    full: Store, config: Config, valkey: redis.Redis, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """In the builder's log, and in what its page and the metrics show."""
    _execute(full, sa.delete(schema.change).where(_CHANGE.seq.between(8, 9)))
    builder = Builder(full, valkey, config, now_ms=clock.now_ms, monotonic_s=clock.monotonic_s)
    for _ in range(40):
        assert builder.step()
        clock.pass_s(1)
    builder.note_status()
    status = json.loads(Path(config.state / "run" / "builder.json").read_text())
    assert "register: the store is not what was recorded: change 8: lost, up to 9" in status["error"]
    assert status["register"]["wrong"] == 2
    assert "change 8: lost, up to 9" in caplog.text
