"""The store of record: one sequence, one clock, one lock.

Knows: how processes take turns (``BEGIN IMMEDIATE`` on SQLite, the counter row's lock on
PostgreSQL), that times are taken under that lock and never decrease, what a cut is, and how to
wait for a change.
Does not know: what a certificate is allowed to undergo (``transitions``), what Valkey holds, or
how anything is encoded beyond the packed change.

Lock order: the counter row of ``store_state`` first, everything else after it.
"""

from __future__ import annotations

import os
import struct
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import sqlalchemy as sa

from certstatus import clock
from certstatus.beat import Pointer
from certstatus.changes import TIME_MAX_S, first_chain
from certstatus.errors import CommitUnknown, StoreAway, StoreError
from certstatus.leases import LEASE_SLACK_MS, WorkerAck
from issuance import (
    crl_register,
    crl_register_last,
    database,
    history,
    provisions,
    publication_pages,
    publisher_fence,
    schema,
)
from issuance.act import Act, publish
from issuance.crl_register import (
    AllocatedCRL,
    CRLKey,
    CRLRecord,
    Fence,
    ScopeKey,
    SignedCRL,
    WantedCRL,
)
from issuance.history import IssuedRow, RevocationChange
from issuance.provisions import ProvisionCell, ProvisionSum
from issuance.waiting import CHANNEL, Mark, Waiter, make_waiter

# The time an act happens at: POSIX ms, or (better) the clock itself, which is then read under the lock.
Now = int | Callable[[], int]

_WAL_BYTES_MAX = 4 << 20
# The kind of publication that the CRL catalogue is; its pages are of this kind, a slash and their hash.
CRL_CATALOGUE = "crls"
DEFAULT_LEASE_MS = 60_000 + LEASE_SLACK_MS


class StoreState(NamedTuple):
    """Where the store stands.  ``base_seq``: the number the epoch began after."""

    epoch: bytes
    base_seq: int
    seq: int
    time_ms: int
    chain: bytes


class Cut(NamedTuple):
    """A cut through the sequence: everything up to ``seq``, as of ``time_ms``, and nothing else."""

    epoch: bytes
    seq: int
    time_ms: int
    chain: bytes


class BeatBasis(NamedTuple):
    """What a beat says: a cut, and what was published at it, by kind."""

    cut: Cut
    publications: dict[str, Pointer]


class WorkerLease(NamedTuple):
    """A worker that may still be answering, until ``lease_until_ms``."""

    host: str
    slot: int
    incarnation: str
    lease_until_ms: int
    applied_seq: int


class Publication(NamedTuple):
    """What is published of one kind now."""

    generation: int
    sha256: bytes
    body: bytes | None


class PackedChange(NamedTuple):
    """A change as the feed carries it, with the running hash after it."""

    seq: int
    packed: bytes
    chain: bytes


@dataclass(slots=True)
class LockTimes:
    """How long this process held the store's lock, and waited for it (milliseconds)."""

    acts: int = 0
    held_last_ms: float = 0.0
    held_ms_max: float = 0.0
    waited_ms_max: float = 0.0


class Store:
    """One open store.  Threads may share it; processes each open their own."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine
        self.lock_times = LockTimes()
        self._sqlite_path = database.sqlite_path(engine.url)
        # Threads of one process queue here: cheaper and fairer than each looking every millisecond.
        self._turn = threading.Lock()
        # Guarded by _waiting.
        self._waiting = threading.Lock()
        self._waiter: Waiter | None = None
        self._seen_seq = -1

    # --- life --------------------------------------------------------------------------------------

    @classmethod
    def create(cls, url: str, now_ms: int) -> Store:
        """Make a new store at *url* (its tables, its first epoch) and open it.

        Goes on where a killed ``create`` stopped.
        Raises: StoreError — there is a store already, or the database cannot be reached.
        """
        parsed = database.parse_url(url)
        path = database.sqlite_path(parsed)
        if path is not None:
            database.create_sqlite_file(path)
        store = cls(database.make_engine(parsed))
        try:
            store.upgrade()
            store._begin(now_ms)
        except BaseException:
            store.close()
            raise
        return store

    def _begin(self, now_ms: int) -> None:
        epoch = make_epoch(now_ms)
        with _translated(), database.writing(self.engine) as connection:
            if connection.execute(sa.select(schema.store_state.c.id)).first() is not None:
                raise StoreError(f"{self.place}: there is a store already")
            connection.execute(
                sa.insert(schema.store_state).values(
                    id=1, epoch=epoch, base_seq=0, seq=0, time_ms=now_ms, chain=first_chain(epoch)
                )
            )
            connection.execute(
                sa.insert(schema.epoch).values(epoch=epoch, base_seq=0, started_ms=now_ms, cause="created")
            )

    @classmethod
    def open(cls, url: str) -> Store:
        """Open the store at *url*.

        Raises: StoreError — nothing there, or made by another version (the message says which way).
        """
        parsed = database.parse_url(url)
        path = database.sqlite_path(parsed)
        if path is not None and not path.exists():
            raise StoreError(f"{path}: no store here; make one with `certstatus init`")
        store = cls(database.make_engine(parsed))
        try:
            store._check_revision()
        except BaseException:
            store.close()
            raise
        return store

    @staticmethod
    def exists(url: str) -> bool:
        """Say whether a finished store is at *url*."""
        try:
            Store.open(url).close()
        except StoreError:
            return False
        return True

    @property
    def place(self) -> str:
        """Where the store is, fit for messages (no password)."""
        return str(self._sqlite_path or self.engine.url.render_as_string(hide_password=True))

    @property
    def is_sqlite(self) -> bool:
        """Say whether the database is a SQLite file."""
        return self._sqlite_path is not None

    def upgrade(self) -> None:
        """Bring the tables up to this version; does nothing where they are."""
        # Only here: loading Alembic takes longer than a short command runs.
        from issuance import migrations

        with _translated(), database.writing(self.engine) as connection:
            migrations.upgrade(connection)

    def close(self) -> None:
        """Give all connections back."""
        with self._waiting:
            if self._waiter is not None:
                self._waiter.close()
                self._waiter = None
        self.engine.dispose()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def _check_revision(self) -> None:
        with _translated(), database.reading(self.engine) as connection:
            if not sa.inspect(connection).has_table("alembic_version"):
                raise StoreError(f"{self.place}: no store here; make one with `certstatus init`")
            found = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
            if found != schema.SCHEMA_REVISION:
                older = found is None or found < schema.SCHEMA_REVISION
                advice = "run `certstatus store upgrade`" if older else "a newer version wrote it"
                raise StoreError(
                    f"{self.place}: schema revision {found}, this version works with"
                    f" {schema.SCHEMA_REVISION}; {advice}"
                )
            if connection.execute(sa.select(schema.store_state.c.id)).first() is None:
                raise StoreError(f"{self.place}: `certstatus init` did not finish; run it again")

    # --- under the lock ----------------------------------------------------------------------------

    @contextmanager
    def writing(self, now: Now) -> Iterator[Act]:
        """Hold the lock for one act; all its changes commit together or not at all.

        *now*: POSIX ms or a clock such as ``clock.now_ms``, read once the lock is held.  Keep it
        short: <= 50 ms under the lock, longer jobs go in pieces (``Act.is_full``).
        Raises: StoreError — the database cannot be reached or refuses; CommitUnknown — it went away while
                it was to commit.
        """
        with self._locked() as (connection, row):
            act = Act(connection, row.seq, _store_time_ms(now, row.time_ms), row.chain)
            yield act
            act.flush()
            if act.seq != row.seq:
                self._advance(connection, row.seq, seq=act.seq, time_ms=act.time_ms, chain=act.chain)
                self._notify(connection)

    def _notify(self, connection: sa.Connection) -> None:
        """Wake whoever waits, from within the transaction: heard exactly when it can be read."""
        if not self.is_sqlite:
            connection.execute(sa.select(sa.func.pg_notify(CHANNEL, "")))

    def cut(self, now: Now) -> Cut:
        """Return a cut at the present number; its time is later than that of every cut before."""
        with self._locked() as (connection, row):
            return self._cut(connection, row, now)

    def beat(
        self,
        now: Now,
        acks: Iterable[WorkerAck],
        lease_ms: int = DEFAULT_LEASE_MS,
        run_out: Iterable[WorkerLease] = (),
    ) -> BeatBasis:
        """Return what the next beat says, having noted which workers it will keep alive.

        Takes:   what the workers last said of themselves; each gets a lease of *lease_ms* from the
                 beat's time; an empty incarnation ends one.  *run_out*: leases to be removed unless
                 somebody has renewed them since they were read.
        """
        with self._locked() as (connection, row):
            cut = self._cut(connection, row, now)
            self._end_leases(connection, run_out)
            self._note_leases(connection, acks, cut.time_ms, lease_ms)
            table = schema.publication
            rows = connection.execute(
                sa.select(table.c.kind, table.c.generation, table.c.sha256).where(
                    publication_pages.IS_NO_PAGE
                )
            )
            return BeatBasis(cut, {kind: Pointer(generation, sha256) for kind, generation, sha256 in rows})

    def _cut(self, connection: sa.Connection, row: sa.Row[Any], now: Now) -> Cut:
        time_ms = _store_time_ms(now, row.time_ms + 1)
        self._advance(connection, row.seq, time_ms=time_ms)
        return Cut(row.epoch, row.seq, time_ms, row.chain)

    @staticmethod
    def _note_leases(
        connection: sa.Connection, acks: Iterable[WorkerAck], time_ms: int, lease_ms: int
    ) -> None:
        table = schema.worker_lease
        for ack in acks:
            if not ack.incarnation:
                connection.execute(sa.delete(table).where(table.c.host == ack.host, table.c.slot == ack.slot))
                continue
            # A worker configured to answer for longer than its publisher knows is waited for as long.
            own_ms = ack.age_max_s * 1000 + LEASE_SLACK_MS if ack.age_max_s else 0
            until_ms = time_ms + max(lease_ms, own_ms)
            values = {
                "incarnation": ack.incarnation,
                "lease_until_ms": until_ms,
                "applied_seq": ack.applied_seq,
            }
            connection.execute(
                database.insert(connection, table)
                .values(host=ack.host, slot=ack.slot, **values)
                .on_conflict_do_update(index_elements=["host", "slot"], set_=values)
            )

    @staticmethod
    def _end_leases(connection: sa.Connection, run_out: Iterable[WorkerLease]) -> None:
        table = schema.worker_lease
        for lease in run_out:
            connection.execute(
                sa.delete(table).where(
                    table.c.host == lease.host,
                    table.c.slot == lease.slot,
                    table.c.incarnation == lease.incarnation,
                    table.c.lease_until_ms == lease.lease_until_ms,
                )
            )

    @contextmanager
    def _locked(self) -> Iterator[tuple[sa.Connection, sa.Row[Any]]]:
        """Give a connection that holds the lock, and the counter row as it stands under it."""
        asked = time.monotonic()
        with _translated(), self._turn, database.writing(self.engine) as connection:
            begun = time.monotonic()
            # FOR UPDATE is PostgreSQL's lock and is left out on SQLite, whose BEGIN took it.
            row = connection.execute(_COUNTER).one_or_none()
            if row is None:
                raise StoreError(f"{self.place}: `certstatus init` did not finish; run it again")
            taken = begun if self.is_sqlite else time.monotonic()
            yield connection, row
            # The commit itself is under the lock, so it is made here and measured with the rest.
            try:
                connection.commit()
            except sa.exc.DBAPIError as exc:
                if exc.connection_invalidated:
                    raise CommitUnknown(
                        "the store's database went away during the commit, and whether it is recorded shows"
                        f" when that is back: {str(exc.orig).strip()}"
                    ) from exc
                raise
            self._note_times(taken - asked, time.monotonic() - taken)
        if self._sqlite_path is not None:
            database.checkpoint_sqlite(self.engine, self._sqlite_path, _WAL_BYTES_MAX)

    def _note_times(self, waited_s: float, held_s: float) -> None:
        times = self.lock_times
        times.acts += 1
        times.held_last_ms = held_s * 1000
        times.held_ms_max = max(times.held_ms_max, held_s * 1000)
        times.waited_ms_max = max(times.waited_ms_max, waited_s * 1000)

    @staticmethod
    def _advance(connection: sa.Connection, from_seq: int, **values: int | bytes) -> None:
        # The condition holds by the lock; should the lock ever fail, this refuses instead of losing a number.
        table = schema.store_state
        moved = connection.execute(
            sa.update(table).where(table.c.id == 1, table.c.seq == from_seq).values(**values)
        )
        if moved.rowcount != 1:
            raise StoreError(f"the sequence moved past {from_seq} while its lock was held")

    # --- reading -----------------------------------------------------------------------------------

    def state(self) -> StoreState:
        """Return where the store stands now."""
        with self.reading() as connection:
            row = connection.execute(_STATE).one()
        return StoreState(row.epoch, row.base_seq, row.seq, row.time_ms, row.chain)

    @contextmanager
    def reading(self, *, repeatable: bool = False) -> Iterator[sa.Connection]:
        """Give a connection for reading; *repeatable* when several statements must see one moment."""
        with _translated(), database.reading(self.engine, repeatable=repeatable) as connection:
            yield connection

    def changes_after(self, seq: int, upto: int, limit: int) -> list[PackedChange]:
        """Return at most *limit* changes with numbers in (seq, upto], in order and without a gap.

        Raises: StoreError — *seq* lies before the epoch (a snapshot is needed), or a number is missing.
        """
        table = schema.change
        with self.reading() as connection:
            base_seq = connection.execute(_STATE).one().base_seq
            if seq < base_seq:
                raise StoreError(f"the feed of this epoch begins after {base_seq}, asked for after {seq}")
            rows = connection.execute(
                sa.select(table.c.seq, table.c.packed, table.c.chain)
                .where(table.c.seq > seq, table.c.seq <= upto)
                .order_by(table.c.seq)
                .limit(limit)
            ).all()
        for expected, row in enumerate(rows, seq + 1):
            if row.seq != expected:
                raise StoreError(f"the store has no change {expected}")
        return [PackedChange(*row) for row in rows]

    def chain_at(self, seq: int) -> bytes:
        """Return the running hash after change *seq* of this epoch.

        Raises: StoreError — no such number in this epoch.
        """
        with self.reading() as connection:
            state = connection.execute(_STATE).one()
            if seq == state.base_seq:
                return first_chain(state.epoch)
            found = connection.execute(
                sa.select(schema.change.c.chain).where(schema.change.c.seq == seq)
            ).scalar()
        if found is None or seq < state.base_seq:
            raise StoreError(f"no change {seq} in this epoch ({state.base_seq} to {state.seq})")
        return bytes(found)

    def recorded_ms(self, seq: int) -> int:
        """Return when change *seq* was recorded, POSIX ms.

        From its column: what the packed change shows of an imported revocation is the old CA's date.
        Raises: StoreError — no such number in this epoch.
        """
        table = schema.change
        with self.reading() as connection:
            base_seq = connection.execute(_STATE).one().base_seq
            found = connection.execute(sa.select(table.c.recorded_ms).where(table.c.seq == seq)).scalar()
        if found is None or seq <= base_seq:
            raise StoreError(f"no change {seq} in this epoch")
        return int(found)

    def wait_for_change(self, timeout_s: float, after: Mark | None = None) -> bool:
        """Wait until the store has passed *after*; say whether it has.

        Without *after*: until the sequence is beyond what this method saw when it last returned; the
        first such call returns at once.  One thread at a time.
        """
        with self._waiting:
            if self._waiter is None:
                self._waiter = make_waiter(self.engine)
            base = Mark(self._seen_seq) if after is None else after
            found = self._waiter.wait(base, timeout_s)
            self._seen_seq = found.seq
            return base.is_passed_by(found)

    def leases(self) -> list[WorkerLease]:
        """Return all worker leases, also those that have run out."""
        with self.reading() as connection:
            rows = connection.execute(
                sa.select(schema.worker_lease).order_by(
                    schema.worker_lease.c.host, schema.worker_lease.c.slot
                )
            )
            return [WorkerLease(*row) for row in rows]

    def issued_rows(self, issuer_id: int, upto_seq: int, page_rows: int = 5000) -> Iterator[IssuedRow]:
        """Yield every certificate of an issuer as it stood at *upto_seq*, by rising fingerprint.

        Memory: one page.  Writers go on meanwhile; what they change after *upto_seq* does not show.
        """
        return history.issued_rows(self, issuer_id, upto_seq, page_rows)

    def revocation_changes(
        self,
        issuer_id: int,
        after_seq: int,
        upto_seq: int,
        page_rows: int = 2000,
        *,
        scope_id: int | None = None,
    ) -> Iterator[RevocationChange]:
        """Yield what a CRL of the issuer must take over from (after_seq, upto_seq], in order.

        With *scope_id*: a CRL of that partition.  A CA-key event comes as one REVOKED per certificate, all
        under the event's number.
        """
        return history.revocation_changes(self, issuer_id, after_seq, upto_seq, page_rows, scope_id)

    # --- publications and publishers ---------------------------------------------------------------

    def publish(
        self,
        kind: str,
        generation: int,
        sha256: bytes,
        body: bytes | None = None,
        fence: Fence | None = None,
    ) -> None:
        """Make this the current publication of *kind*: what the next beat names.

        Raises: StoreError — older than what is out, or the same generation with other bytes;
                FencedOff — *fence* is not the newest of its name.
        """
        with self._locked() as (connection, _row):
            if fence is not None:
                publisher_fence.check_fence(connection, fence)
            publish(connection, kind, generation, sha256, body)
            self._notify(connection)

    def publish_crls(
        self,
        generation: int,
        sha256: bytes,
        body: bytes,
        shown: Collection[CRLKey],
        fence: Fence,
        now: Now,
        pages: Mapping[str, bytes] | None = None,
    ) -> int:
        """Make this the current CRL catalogue, and note from when on the CRLs *shown* in it are out.

        Takes:  *pages*: all that *body* names, by SHA-256 (hex); those of an earlier catalogue alone go.
        Gives:  that time, POSIX ms: not before any other time of this store, and in one transaction with the
                pointer, so that neither is without the other.
        Raises: as ``publish``.
        """
        with self._locked() as (connection, row):
            publisher_fence.check_fence(connection, fence)
            time_ms: int = _store_time_ms(now, row.time_ms)
            self._advance(connection, row.seq, time_ms=time_ms)
            publish(connection, CRL_CATALOGUE, generation, sha256, body)
            publication_pages.keep(connection, CRL_CATALOGUE, pages or {})
            crl_register.note_shown(connection, shown, time_ms)
            return time_ms

    def publication(self, kind: str) -> Publication | None:
        """Return what is published of *kind*, or None."""
        table = schema.publication
        with self.reading() as connection:
            row = connection.execute(
                sa.select(table.c.generation, table.c.sha256, table.c.body).where(table.c.kind == kind)
            ).one_or_none()
        return None if row is None else Publication(*row)

    def catalogue_pages(self, wanted: Iterable[str]) -> dict[str, bytes]:
        """Return those of the *wanted* pages of the CRL catalogue that are published, by SHA-256 (hex)."""
        with self.reading() as connection:
            return publication_pages.read(connection, CRL_CATALOGUE, wanted)

    def acquire_publisher(
        self, name: str, ttl_ms: int, now: Now, holder: str, *, take_over: bool = False
    ) -> Fence:
        """Become the publisher *name* for *ttl_ms*; the returned fence goes with everything written.

        The same *holder* gets a new fence at once, another only when the lease has run out or with
        *take_over* (which is safe: what the old one still writes is refused).
        Raises: LeaseHeld — another holder's lease is running.
        """
        with self._locked() as (connection, _row):
            return publisher_fence.acquire_publisher(
                connection, name, ttl_ms, read_clock(now), holder, take_over
            )

    def renew_publisher(self, fence: Fence, ttl_ms: int, now: Now) -> None:
        """Keep the lease for another *ttl_ms*.

        Raises: FencedOff — somebody else has taken over.
        """
        with self._locked() as (connection, _row):
            publisher_fence.renew_publisher(connection, fence, ttl_ms, read_clock(now))

    def require_publisher(self, fence: Fence) -> None:
        """Refuse to go on under a fence that is over; asks without the lock.

        Raises: FencedOff — somebody else has taken over.
        """
        with self.reading() as connection:
            publisher_fence.check_fence(connection, fence)

    # --- CRLs --------------------------------------------------------------------------------------

    def allocate_crls(self, wanted: Sequence[WantedCRL], fence: Fence, now: Now) -> list[AllocatedCRL]:
        """Give out the next CRL number of each scope together with the one cut they are to be made at.

        One number serves a complete and a delta CRL made at the same cut (RFC 5280 §5.2.3).  Durable
        before anything is signed: a number is never given out twice, whoever crashes.
        Takes:  each scope once.
        Gives:  in the order of *wanted*.
        Raises: FencedOff; PolicyViolation — no such issuer, or the last CRL of one of the scopes is out;
                no number is given out then.
        """
        with self._locked() as (connection, row):
            publisher_fence.check_fence(connection, fence)
            cut = self._cut(connection, row, now)
            numbers = crl_register.allocate(connection, wanted, cut.seq, cut.time_ms // 1000)
            return [AllocatedCRL(number, cut.seq, cut.time_ms) for number in numbers]

    def record_crls(self, signed: Sequence[SignedCRL], fence: Fence) -> None:
        """Note that allocated CRLs are signed, checked and in their places: of all of them or of none.

        Raises: FencedOff; IllegalTransition — one is not allocated, or published or withdrawn already.
        """
        with self._locked() as (connection, _row):
            publisher_fence.check_fence(connection, fence)
            crl_register.record(connection, signed)

    def withdraw_crls(self, keys: Collection[CRLKey], fence: Fence) -> None:
        """Note that CRLs were never finished or must not be served; their numbers stay used.

        Raises: FencedOff; IllegalTransition — one of them is not there.
        """
        with self._locked() as (connection, _row):
            publisher_fence.check_fence(connection, fence)
            crl_register.withdraw(connection, keys)

    def unfinished_crls(self, keys: Sequence[ScopeKey]) -> list[CRLRecord]:
        """Return what was allocated of these scopes and is neither published nor withdrawn."""
        with self.reading() as connection:
            return crl_register.unfinished(connection, keys)

    def unshown_crl_scopes(self) -> set[ScopeKey]:
        """Return the scopes of which a published CRL was in no catalogue yet."""
        with self.reading() as connection:
            return crl_register.unshown(connection)

    def allocate_last_crl(self, issuer_id: int, scope: str, fence: Fence, now: Now) -> AllocatedCRL:
        """Give out the number of a scope's last CRL, with the cut that it is to be made at.

        Beyond all numbers of regular CRLs, and made of the cut's time: so none comes twice, in this
        store or in one restored from a backup of it.
        Raises: FencedOff; PolicyViolation — the last CRL is out.
        """
        with self._locked() as (connection, row):
            publisher_fence.check_fence(connection, fence)
            cut = self._cut(connection, row, now)
            number = crl_register_last.allocate_last(
                connection, issuer_id, scope, cut.seq, cut.time_ms, cut.time_ms // 1000
            )
            return AllocatedCRL(number, cut.seq, cut.time_ms)

    def record_prepared_crl(
        self,
        issuer_id: int,
        scope: str,
        number: int,
        *,
        next_update_s: int,
        sha256: bytes,
        size: int,
        fence: Fence,
    ) -> None:
        """Note that a last CRL is signed, checked and kept; one prepared before is withdrawn.

        Raises: FencedOff; IllegalTransition — not allocated.
        """
        with self._locked() as (connection, _row):
            publisher_fence.check_fence(connection, fence)
            crl_register_last.record_prepared(
                connection, issuer_id, scope, number, next_update_s, sha256, size
            )

    def publish_last_crl(
        self,
        issuer_id: int,
        scope: str,
        number: int,
        *,
        this_update_s: int,
        next_update_s: int,
        sha256: bytes,
        size: int,
        fence: Fence,
    ) -> None:
        """Note that a prepared CRL is in its place as the scope's last one.

        Raises: FencedOff; PolicyViolation — one is out.
        """
        with self._locked() as (connection, row):
            publisher_fence.check_fence(connection, fence)
            crl_register_last.publish_last(
                connection, issuer_id, scope, number, row.seq, this_update_s, next_update_s, sha256, size
            )

    def prepared_crls(self, keys: Sequence[ScopeKey]) -> list[CRLRecord]:
        """Return the last CRLs of these scopes that are signed and kept back."""
        with self.reading() as connection:
            return crl_register_last.prepared(connection, keys)

    def last_crl_numbers(self, keys: Sequence[ScopeKey]) -> dict[ScopeKey, int]:
        """Return the last number given out to the regular CRLs of scopes, or that of their last CRL.

        Scopes that have no line yet are left out.
        """
        with self.reading() as connection:
            return crl_register.last_numbers(connection, keys)

    def last_crl_number(self, issuer_id: int, scope: str) -> int:
        """Return the number of ``last_crl_numbers`` for one scope; 0: none."""
        with self.reading() as connection:
            return crl_register.last_number(connection, issuer_id, scope)

    def crls(
        self, issuer_id: int, scope: str, *, kind: str | None = None, state: str | None = None
    ) -> list[CRLRecord]:
        """Return the scope's CRLs by rising number, complete before delta."""
        with self.reading() as connection:
            return crl_register.crls(connection, issuer_id, scope, kind, state)

    def crl(self, key: CRLKey) -> CRLRecord | None:
        """Return one CRL's line, None if the register knows no such CRL."""
        if key.number >= 1 << 63:
            # What no column holds; a file may be called so.
            return None
        with self.reading() as connection:
            row = connection.execute(sa.select(schema.crl).where(crl_register.is_crl(key))).one_or_none()
            return None if row is None else CRLRecord(*row)

    # --- provisions --------------------------------------------------------------------------------

    def record_provisions(self, cells: Iterable[ProvisionCell]) -> None:
        """Take over counter cells.  Told twice, or an older value later, changes nothing."""
        for piece in provisions.pieces(cells):
            with _translated(), self._turn, database.writing(self.engine) as connection:
                provisions.record(connection, piece)

    def provision_sums(
        self, from_hour_s: int | None = None, until_hour_s: int | None = None
    ) -> list[ProvisionSum]:
        """Return the counts by verifier, issuer and kind, over hours in [from, until)."""
        with self.reading() as connection:
            return provisions.sums(connection, from_hour_s, until_hour_s)


_STATE = sa.select(schema.store_state)
_COUNTER = _STATE.where(schema.store_state.c.id == 1).with_for_update()


def make_epoch(now_ms: int) -> bytes:
    """Return a new epoch: creation time in ms (big-endian, so that epochs sort by it), 8 random bytes."""
    return struct.pack(">Q", now_ms) + os.urandom(8)


def read_clock(now: Now) -> int:
    """Return the POSIX ms that *now* says or, being a clock, shows."""
    return now() if callable(now) else now


def _store_time_ms(now: Now, not_before_ms: int) -> int:
    """Return the later of two times, the second of which the store has reached already.

    Raises: StoreError — a clock beyond what any record has room for.  The store's time never goes back, so
            nothing could be recorded ever after.
    """
    clock_ms = read_clock(now)
    if clock_ms // 1000 > TIME_MAX_S:
        raise StoreError(
            f"the clock shows {clock_ms // 1000} s since 1970, and no record has room for a time after"
            f" {clock.utc_text(TIME_MAX_S)}: it has to be set"
        )
    return max(clock_ms, not_before_ms)


@contextmanager
def _translated() -> Iterator[None]:
    """Turn what the database or its driver says into StoreError, once."""
    try:
        yield
    except sa.exc.IntegrityError:
        # A rule of the schema that was broken: the code is wrong, not the database.
        raise
    except sa.exc.OperationalError as exc:
        raise StoreAway(f"the store's database: {str(exc.orig).strip()}") from exc
    except sa.exc.DBAPIError as exc:
        raise StoreError(f"the store's database: {str(exc.orig).strip()}") from exc
