"""The register's past: the state at any number equals what a plain replay in a dictionary says."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import pytest
import sqlalchemy as sa
from store_cases import NOT_AFTER_S, START_MS, add_issuer, mark, number, record_issued

from certstatus import clock
from certstatus.changes import ChangeKind
from certstatus.errors import IllegalTransition, StoreError
from issuance import schema
from issuance.act import Act
from issuance.revoke import complete_ca_key_event
from issuance.schema import CertificateState
from issuance.store import Store

_VALID = (1, None, 0)
# Issuer 2 has its CA-key event somewhere in the middle.
_ISSUERS = (1, 2)


@dataclass
class Model:
    """The oracle: per issuer, certificate -> (state, reason, revoked_at_s), and a copy at every number."""

    now: dict[int, dict[int, tuple[int, int | None, int]]] = field(
        default_factory=lambda: {issuer: {} for issuer in _ISSUERS}
    )
    at: dict[int, dict[int, dict[int, tuple[int, int | None, int]]]] = field(default_factory=dict)

    def keep(self, seq: int) -> None:
        """Remember the state at *seq*."""
        self.at[seq] = {issuer: dict(states) for issuer, states in self.now.items()}


def one_change(rng: random.Random, act: Act, model: Model, made: list[int], event_done: bool) -> int:
    """Make one random allowed change, in the store and in the model; return its number."""
    issuer = rng.choice(_ISSUERS) if not event_done else rng.choice((1, 1, 2))
    states = model.now[issuer]
    second = act.time_ms // 1000
    kind = rng.choice(["issue", "issue", "revoke", "hold", "release", "reason", "lapse"])
    by_state = {
        state: [n for n, standing in states.items() if standing[0] == state]
        for state in map(int, CertificateState)
    }
    if kind == "revoke" and by_state[1] + by_state[3]:
        n, reason = rng.choice(by_state[1] + by_state[3]), rng.choice([None, 1, 3, 4, 5])
        change = act.record(ChangeKind.REVOKED, issuer_id=issuer, serial=number(n), reason=reason)
        states[n] = (2, reason, second)
    elif kind == "hold" and by_state[1]:
        n = rng.choice(by_state[1])
        change = act.record(ChangeKind.HELD, issuer_id=issuer, fingerprint=mark(n))
        states[n] = (3, 6, second)
    elif kind == "release" and by_state[3]:
        n = rng.choice(by_state[3])
        change = act.record(ChangeKind.RELEASED, issuer_id=issuer, serial=number(n))
        states[n] = _VALID
    elif kind == "reason" and by_state[2] and not (event_done and issuer == 2):
        n = rng.choice(by_state[2])
        change = act.record(ChangeKind.REASON_CHANGED, issuer_id=issuer, serial=number(n), reason=1)
        states[n] = (2, 1, states[n][2])
    elif kind == "lapse" and (free := [n for n in by_state[2] + by_state[3] if n not in made]):
        n = rng.choice(free)
        change = act.record(ChangeKind.LAPSED, issuer_id=issuer, serial=number(n))
        made.append(n)
    elif event_done and issuer == 2:
        change = act.record(ChangeKind.ENTITLEMENTS)
    else:
        n = sum(map(len, model.now.values()))
        change = record_issued(act, n, issuer_id=issuer)
        states[n] = _VALID
    return change.seq


def rows_at(store: Store, issuer: int, seq: int) -> dict[bytes, tuple[int, int | None, int]]:
    """The store's word on an issuer at *seq*, in the model's form."""
    day = clock.jst_day_number(NOT_AFTER_S)
    found = {}
    for row in store.issued_rows(issuer, seq, page_rows=9):
        assert row.not_after_day == day
        found[row.fingerprint] = (int(row.state), row.reason, row.revoked_at_s)
    return found


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_state_at_any_number_equals_a_replay(store: Store, seed: int) -> None:
    """Random histories with holds, corrections, lapses and a CA-key event, read back at every number."""
    rng = random.Random(seed)
    add_issuer(store, 1, "TEST", 1)
    add_issuer(store, 2, "TEST", 2)
    model = Model()
    lapsed: list[int] = []
    event_seq = 0
    now_ms = START_MS
    model.keep(store.state().seq)
    for step in range(60):
        now_ms += rng.choice([0, 1, 700, 5_000])
        with store.writing(now_ms) as act:
            for _ in range(rng.randrange(1, 5)):
                model.keep(one_change(rng, act, model, lapsed, event_seq > 0))
            if step == 35:
                event_seq = act.record(ChangeKind.CA_KEY_EVENT, issuer_id=2).seq
                for n, standing in model.now[2].items():
                    if standing[0] != CertificateState.REVOKED:
                        model.now[2][n] = (2, 2, act.time_ms // 1000)
                model.keep(event_seq)
        if step == 45:
            # Whether or not the single records have been made up makes no difference to anybody.
            assert complete_ca_key_event(store, 2, now_ms) > 0
            assert complete_ca_key_event(store, 2, now_ms) == 0
    last = store.state().seq
    for seq in sorted({*rng.sample(sorted(model.at), 40), event_seq - 1, event_seq, last}):
        if seq not in model.at:
            continue
        for issuer in _ISSUERS:
            expected = {mark(n): standing for n, standing in model.at[seq][issuer].items()}
            assert rows_at(store, issuer, seq) == expected, f"seed {seed}, issuer {issuer}, number {seq}"


@pytest.mark.parametrize("seed", [11, 12])
def test_what_crls_are_told_adds_up_to_the_state(store: Store, seed: int) -> None:
    """Following revocation_changes piece by piece gives exactly the certificates revoked or held."""
    rng = random.Random(seed)
    add_issuer(store, 1, "TEST", 1)
    add_issuer(store, 2, "TEST", 2)
    model = Model()
    lapsed: list[int] = []
    event_seq = 0
    listed: dict[int, dict[bytes, tuple[int | None, int]]] = {issuer: {} for issuer in _ISSUERS}
    at = 0
    for step in range(40):
        with store.writing(START_MS + step * 1_500) as act:
            for _ in range(rng.randrange(1, 6)):
                one_change(rng, act, model, lapsed, event_seq > 0)
            if step == 25:
                event_seq = act.record(ChangeKind.CA_KEY_EVENT, issuer_id=2).seq
                for n, standing in model.now[2].items():
                    if standing[0] != CertificateState.REVOKED:
                        model.now[2][n] = (2, 2, act.time_ms // 1000)
        if step % 4 == 0 or step == 39:
            upto = store.state().seq
            for issuer in _ISSUERS:
                entries = listed[issuer]
                seqs = []
                for change in store.revocation_changes(issuer, at, upto, page_rows=3):
                    seqs.append(change.seq)
                    assert change.not_after_s == NOT_AFTER_S
                    if change.kind in (ChangeKind.REVOKED, ChangeKind.HELD):
                        entries[change.serial] = (change.reason, change.recorded_ms // 1000)
                    elif change.kind == ChangeKind.RELEASED:
                        del entries[change.serial]
                    elif change.kind == ChangeKind.REASON_CHANGED:
                        entries[change.serial] = (change.reason, entries[change.serial][1])
                    else:
                        assert change.kind == ChangeKind.LAPSED
                        assert change.serial in entries
                assert seqs == sorted(seqs)
                assert entries == {
                    number(n): standing[1:] for n, standing in model.now[issuer].items() if standing[0] != 1
                }
            at = upto


def test_nothing_is_issued_after_a_ca_key_event(store: Store) -> None:
    """An issuer whose key leaked issues nothing more, and the event is recorded once."""
    add_issuer(store)
    with store.writing(START_MS) as act:
        act.record(ChangeKind.CA_KEY_EVENT, issuer_id=1)
    with (
        pytest.raises(IllegalTransition, match="issues nothing since change 2"),
        store.writing(START_MS) as act,
    ):
        record_issued(act, 1)
    with pytest.raises(IllegalTransition, match="already, in change 2"), store.writing(START_MS) as act:
        act.record(ChangeKind.CA_KEY_EVENT, issuer_id=1)


def test_the_reason_of_a_ca_key_event_stands(store: Store) -> None:
    """A certificate revoked with its issuer's key keeps cACompromise, its record made up or not."""
    add_issuer(store)
    with store.writing(START_MS) as act:
        record_issued(act, 1)
        act.record(ChangeKind.CA_KEY_EVENT, issuer_id=1)
    for _ in range(2):
        for kind in (ChangeKind.REASON_CHANGED, ChangeKind.REVOKED):
            with pytest.raises(IllegalTransition), store.writing(START_MS) as act:
                act.record(kind, issuer_id=1, serial=number(1), reason=1)
        complete_ca_key_event(store, 1, START_MS)
    row = next(store.issued_rows(1, store.state().seq))
    assert (row.state, row.reason) == (CertificateState.REVOKED, 2)


def test_an_expired_certificate_is_not_listed_for_a_ca_key_event(store: Store) -> None:
    """The event revokes all, but a CRL need not list what had already expired (RFC 5280 §3.3)."""
    add_issuer(store)
    with store.writing(START_MS) as act:
        record_issued(act, 1, not_after_s=START_MS // 1000 - 10)
        record_issued(act, 2)
        act.record(ChangeKind.CA_KEY_EVENT, issuer_id=1)
    assert [change.serial for change in store.revocation_changes(1, 0, 99)] == [number(2)]


def test_a_lapse_is_recorded_once(store: Store) -> None:
    """An entry leaves the CRL once, and only if it is there."""
    add_issuer(store)
    with store.writing(START_MS) as act:
        record_issued(act, 1)
    with pytest.raises(IllegalTransition, match="is valid"), store.writing(START_MS) as act:
        act.record(ChangeKind.LAPSED, issuer_id=1, serial=number(1))
    with store.writing(START_MS) as act:
        act.record(ChangeKind.REVOKED, issuer_id=1, serial=number(1))
        act.record(ChangeKind.LAPSED, issuer_id=1, serial=number(1))
    with pytest.raises(IllegalTransition, match="lapsed already"), store.writing(START_MS) as act:
        act.record(ChangeKind.LAPSED, issuer_id=1, serial=number(1))


def test_history_of_an_unknown_issuer_is_an_error(store: Store) -> None:
    """Asking for an issuer that does not exist is never answered with an empty list."""
    with pytest.raises(StoreError, match="no issuer 9"):
        list(store.issued_rows(9, 0))


def test_the_crls_question_is_answered_from_its_index(store: Store) -> None:
    """Both databases use the partial indexes, so that a CRL never walks over what was merely issued."""
    add_issuer(store)
    with store.writing(START_MS) as act:
        for n in range(3000):
            record_issued(act, n)
        for n in range(20):
            act.record(ChangeKind.REVOKED, issuer_id=1, serial=number(n))
    change, certificate = schema.change, schema.certificate
    queries = {
        "ix_change_revocation": sa.select(change.c.seq).where(
            change.c.issuer_id == 1, schema.IS_REVOCATION, change.c.seq > 5
        ),
        "ix_certificate_listed": sa.select(certificate.c.serial).where(
            certificate.c.issuer_id == 1, schema.IS_LISTED, certificate.c.not_after_s < 5
        ),
    }
    with store.writing(START_MS) as act:
        act.connection.execute(sa.text("ANALYZE"))
    with store.reading() as connection:
        for index, query in queries.items():
            text = str(query.compile(store.engine, compile_kwargs={"literal_binds": True}))
            explain = "EXPLAIN QUERY PLAN " if store.is_sqlite else "EXPLAIN "
            plan = " ".join(str(row) for row in connection.exec_driver_sql(explain + text))
            assert index in plan


def test_a_ca_key_event_is_read_in_one_pass(sqlite_store: Store) -> None:
    """However many pages its certificates take, none of them sorts, or begins from the issuer's first."""
    store = sqlite_store
    add_issuer(store, 1)
    with store.writing(START_MS) as act:
        for n in range(20):
            record_issued(act, n)
        seq = act.record(ChangeKind.CA_KEY_EVENT, issuer_id=1).seq
    plans: list[list[str]] = []

    def note(_connection: object, cursor: Any, statement: str, parameters: Any, *_rest: object) -> None:
        if statement.startswith("SELECT certificate"):
            rows = cursor.connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters).fetchall()
            plans.append([row[3] for row in rows])

    sa.event.listen(store.engine, "before_cursor_execute", note)
    for scope_id in (None, 1):
        list(store.revocation_changes(1, 0, seq, page_rows=3, scope_id=scope_id))
    sa.event.remove(store.engine, "before_cursor_execute", note)
    assert len(plans) > 7
    expected = ["SEARCH certificate USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"]
    assert [plan for plan in plans if plan != expected] == []
