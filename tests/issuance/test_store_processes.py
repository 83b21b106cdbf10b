"""Several processes on one store: the sequence stays whole, whoever writes, dies or imports."""

from __future__ import annotations

import itertools
import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from crl_steps_by_one import allocate_crl_number
from store_cases import START_MS, add_issuer, record_issued

from certstatus import clock
from certstatus.changes import ChangeKind, next_chain, unpack_change
from issuance import database
from issuance.schema import CertificateState
from issuance.store import Store

_HERE = Path(__file__).parent
_ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{_HERE.parents[1]}:{_HERE}"}


def start(program: str, url: str, *numbers: int) -> subprocess.Popen[str]:
    """Start one of ``store_writers``' programs."""
    command = [sys.executable, str(_HERE / "store_writers.py"), program, url, *map(str, numbers)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=_ENVIRONMENT)


def start_together(*programs: tuple[str, str, *tuple[int, ...]]) -> list[subprocess.Popen[str]]:
    """Start several of the programs, and let them go at the same moment once all have loaded."""
    processes = []
    for program, url, *numbers in programs:
        command = [
            sys.executable,
            str(_HERE / "store_writers.py"),
            program,
            url,
            *map(str, numbers),
            "--wait",
        ]
        processes.append(
            subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_ENVIRONMENT
            )
        )
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "loaded\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    return processes


def result(process: subprocess.Popen[str]) -> dict[str, list[Any]]:
    """Return what a program reported."""
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    report: dict[str, list[Any]] = json.loads(output)
    return report


def read_log(store: Store) -> list[Any]:
    """Return all changes, having verified that numbers are contiguous, times rise and the chain holds."""
    state = store.state()
    changes = store.changes_after(0, state.seq, state.seq + 1)
    assert len(changes) == state.seq
    chain = store.chain_at(0)
    unpacked = []
    for expected, (seq, packed, stored) in enumerate(changes, 1):
        chain = next_chain(chain, packed)
        change = unpack_change(packed)
        assert (seq, change.seq, stored) == (expected, expected, chain)
        unpacked.append(change)
    times = [change.recorded_ms for change in unpacked]
    assert times == sorted(times)
    assert state.chain == chain
    return unpacked


def test_writers_in_several_processes_lose_and_double_nothing(store: Store, store_url: str) -> None:
    """Four processes write at once while a fifth takes cuts and a sixth reads the feed as it grows."""
    add_issuer(store)
    seen: list[int] = []
    over = threading.Event()

    def follow() -> None:
        # As the feed does: what it has once read must never be preceded by something later.
        at = 0
        while not over.is_set() or at < store.state().seq:
            for seq, _packed, _chain in store.changes_after(at, 1 << 40, 500):
                assert seq == at + 1
                seen.append(seq)
                at = seq

    reader = threading.Thread(target=follow)
    reader.start()
    writers = [start("write", store_url, first * 1000, 90) for first in range(1, 5)]
    cutter = start("cut", store_url, 150)
    reports = [result(writer) for writer in writers]
    cuts = result(cutter)["cuts"]
    over.set()
    reader.join()
    told = sorted(tuple(pair) for report in reports for pair in report["recorded"])
    changes = read_log(store)
    assert told == [(change.seq, change.recorded_ms) for change in changes[1:]]
    assert len(told) == 4 * (90 + 30)
    assert seen == list(range(1, len(changes) + 1))
    by_seq = {change.seq: change.recorded_ms for change in changes}
    for (seq, time_ms), (_later_seq, later_ms) in itertools.pairwise(cuts):
        assert time_ms < later_ms
        assert by_seq[seq] <= time_ms
        if seq + 1 in by_seq:
            # Whatever the cut does not cover was recorded at or after its time.
            assert by_seq[seq + 1] >= time_ms


@pytest.mark.alone
def test_the_lock_is_never_held_long_while_an_import_runs(store: Store, store_url: str) -> None:
    """A piecewise import of 20,000 holds the lock for less than 50 ms at a time; others get their turn."""
    add_issuer(store)
    importer, writer, cutter = start_together(
        ("bulk", store_url, 1_000_000, 20_000), ("write", store_url, 100_000, 1500), ("cut", store_url, 60)
    )
    imported, written, cuts = result(importer), result(writer), result(cutter)
    read_log(store)
    held = sorted(imported["held_ms"])
    assert len(held) >= 20
    # The middle is ours.  The rest is the machine's too: one that is busy stops a process in the act, a new
    # PostgreSQL server makes a 16 MB log segment in somebody's commit, and a disk lets commits wait.
    assert held[len(held) // 2] < 50
    assert held[int(len(held) * 0.95) - 1] < 250
    assert written["recorded"]
    numbers = [seq for seq, _time in imported["recorded"]]
    own = [seq for seq, _time in written["recorded"]]
    # The writer's acts lie among the importer's pieces, not after them, whoever began first: also on SQLite,
    # whose own way of waiting can miss every gap between two pieces.
    assert sum(numbers[0] < seq < numbers[-1] for seq in own) >= 10
    assert len({seq for seq, _time in cuts["cuts"]}) > 1


_RECOVER = """
import fcntl, sys, time
with open(sys.argv[1], "r+b") as shared:
    # WAL_WRITE_LOCK to WAL_RECOVER_LOCK, as whoever recovers the index of the log holds them.
    fcntl.lockf(shared, fcntl.LOCK_EX, 3, 120)
    shared.write(bytes(136))
    shared.flush()
    print("held", flush=True)
    time.sleep(0.5)
"""


def test_a_writer_waits_while_another_recovers_the_log(tmp_path: Path) -> None:
    """After a kill the next process reads SQLite's log anew; for those beside it that is no error, either."""
    url = f"sqlite:///{tmp_path}/store.db"
    Store.create(url, START_MS).close()
    with Store.open(url) as store:
        add_issuer(store)
        # What is left after a kill: a log, and an index of it that nobody vouches for.
        with sqlite3.connect(tmp_path / "store.db") as left:
            left.execute("PRAGMA wal_autocheckpoint = 0")
            left.execute("UPDATE store_state SET time_ms = time_ms + 1")
            left.commit()
            with subprocess.Popen(
                [sys.executable, "-c", _RECOVER, f"{tmp_path}/store.db-shm"],
                stdout=subprocess.PIPE,
                text=True,
            ) as recovering:
                assert recovering.stdout is not None
                assert recovering.stdout.readline() == "held\n"
                began_s = time.monotonic()
                with store.writing(clock.now_ms) as act:
                    record_issued(act, 1)
                assert time.monotonic() - began_s > 0.2
        assert len(read_log(store)) == 2


def test_a_writer_killed_in_the_act_leaves_no_trace_and_no_lock(store: Store, store_url: str) -> None:
    """kill -9 with the lock held: the change never happened, and the next writer gets the number."""
    add_issuer(store)
    doomed = start("die_in_the_act", store_url)
    output, _ = doomed.communicate(timeout=60)
    seq = json.loads(output)["seq"]
    assert doomed.returncode == -9
    with store.writing(clock.now_ms) as act:
        assert record_issued(act, 1).seq == seq
    assert len(read_log(store)) == seq


def test_a_crl_number_survives_the_process_that_took_it(store: Store, store_url: str) -> None:
    """kill -9 after allocation: the number is used, the next one is higher, the old fence is over."""
    add_issuer(store)
    doomed = start("allocate_and_die", store_url)
    output, _ = doomed.communicate(timeout=60)
    taken = json.loads(output)["number"]
    fence = store.acquire_publisher("builder", 60_000, clock.now_ms, "next", take_over=True)
    following = allocate_crl_number(store, 1, "all", ["complete"], fence, clock.now_ms)
    assert taken == 3
    assert following.number == taken + 1
    assert [line.number for line in store.crls(1, "all", state="allocated")] == [1, 2, 3, 4]


def test_a_snapshot_of_the_past_is_right_while_others_write(store: Store, store_url: str) -> None:
    """The state at S, read in small pages while a process issues and revokes, equals replaying to S."""
    add_issuer(store)
    with store.writing(START_MS) as act:
        for n in range(300):
            record_issued(act, n)
            if n % 4 == 0:
                act.record(ChangeKind.REVOKED, issuer_id=1, serial=b"\x01" + n.to_bytes(7, "big"), reason=1)
    at = store.state().seq
    expected = sorted(tuple(row) for row in store.issued_rows(1, at))
    assert len(expected) == 300
    writer = start("write", store_url, 5_000, 150)
    for _ in range(5):
        with store.writing(clock.now_ms) as act:
            for n in range(1, 300, 4):
                standing = {1: ChangeKind.REVOKED}.get(n % 4)
                if standing and store_is_valid(act.connection, n):
                    act.record(standing, issuer_id=1, serial=b"\x01" + n.to_bytes(7, "big"), reason=3)
                    break
        rows = list(store.issued_rows(1, at, page_rows=7))
        assert [row.fingerprint for row in rows] == sorted(row.fingerprint for row in rows)
        assert sorted(tuple(row) for row in rows) == expected
    result(writer)
    now = list(store.issued_rows(1, store.state().seq))
    assert len(now) == 450
    assert sum(row.state is CertificateState.REVOKED for row in now) == 75 + 50 + 5


def store_is_valid(connection: sa.Connection, n: int) -> bool:
    """Say whether test certificate *n* is valid now."""
    serial = (b"\x01" + n.to_bytes(7, "big")).hex()
    query = sa.text("SELECT state FROM certificate WHERE serial = :serial").bindparams(serial=serial)
    return connection.execute(query).scalar() == CertificateState.VALID


# --- why the lock is taken at BEGIN ------------------------------------------------------------------

_COUNT = 60
_THREADS = 4


def make_counter(engine: sa.Engine) -> None:
    """A table with one counter in it."""
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE counter (n INTEGER)"))
        connection.execute(sa.text("INSERT INTO counter VALUES (0)"))


def draw(connection: sa.Connection) -> int:
    """Read the counter, as the naive way begins."""
    return int(connection.execute(sa.text("SELECT n FROM counter")).scalar_one()) + 1


def put(connection: sa.Connection, n: int) -> None:
    """Write the counter back, as the naive way ends."""
    connection.execute(sa.text("UPDATE counter SET n = :n"), {"n": n})


def test_sqlalchemys_own_begin_doubles_numbers(tmp_path: Path) -> None:
    """Under its default BEGIN two transactions read the same counter, and both commit without an error."""
    engine = sa.create_engine(sa.URL.create("sqlite+pysqlite", database=str(tmp_path / "trap.db")))
    make_counter(engine)
    with engine.connect() as one, engine.connect() as other:
        with one.begin(), other.begin():
            numbers = [draw(one), draw(other)]
            put(one, numbers[0])
            one.commit()
            put(other, numbers[1])
            other.commit()
        assert numbers == [1, 1]
        assert draw(one) == 2
    engine.dispose()


def test_our_begin_gives_every_number_once(tmp_path: Path) -> None:
    """The same naive reading and writing, by four threads at once, under the hook: no number twice."""
    engine = database.make_engine(sa.URL.create("sqlite+pysqlite", database=str(tmp_path / "trap.db")))
    make_counter(engine)
    drawn: list[int] = []
    gate = threading.Barrier(_THREADS)

    def draw_many() -> None:
        gate.wait()
        for _ in range(_COUNT):
            with database.writing(engine) as connection:
                n = draw(connection)
                put(connection, n)
            drawn.append(n)

    threads = [threading.Thread(target=draw_many) for _ in range(_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    engine.dispose()
    assert sorted(drawn) == list(range(1, _THREADS * _COUNT + 1))
