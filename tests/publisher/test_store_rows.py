"""A snapshot from the store's rows: bounded memory, and saying how far it is."""

from __future__ import annotations

import multiprocessing
import threading
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from publisher_cases import INDEX_KEY, NOT_AFTER_S, START_MS, add_bare_issuer

from certstatus.changes import fingerprint
from certstatus.index import Snapshot
from issuance import schema
from issuance.store import Cut, Store
from publisher.store_rows import Progress, write_from_store

_LOT = 50_000


def _fill(store: Store, count: int) -> None:
    """Put *count* certificates of issuer 1 into the register, every tenth revoked, past the acts that
    would record them: a million of those take minutes."""
    for start in range(0, count, _LOT):
        with store.writing(START_MS) as act:
            rows = [_certificate(n) for n in range(start, min(start + _LOT, count))]
            act.connection.execute(sa.insert(schema.certificate), rows)


def _certificate(n: int) -> dict[str, Any]:
    serial = b"\x01" + n.to_bytes(7, "big")
    revoked = n % 10 == 0
    return {
        "issued_seq": n + 10,
        "issuer_id": 1,
        "service": "SIGN",
        "serial": serial.hex(),
        "fingerprint": fingerprint(serial, INDEX_KEY),
        "spki_sha256": None,
        "not_before_s": None,
        "not_after_s": NOT_AFTER_S,
        "not_after_day": 20_000,
        "origin": "issued",
        "state": 2 if revoked else 1,
        "reason": 1 if revoked else None,
        "revoked_at_ms": START_MS if revoked else None,
        "revoked_seq": n + 10 if revoked else None,
        "invalidity_s": 0,
        "lapsed_seq": None,
        "changed_seq": n + 10,
    }


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """Two stores, one five times the other, by the number of certificates."""
    found = {}
    for count in (50_000, 250_000):
        url = f"sqlite:///{tmp_path_factory.mktemp('store') / 'store.db'}"
        with Store.create(url, START_MS) as store:
            add_bare_issuer(store, 1, "SIGN")
            _fill(store, count)
        found[count] = url
    return found


def _build(sending: Any, url: str, count: int, path: Path) -> None:
    """Write the snapshot; send the highest amount of own memory meanwhile, beyond what there was before."""

    def own_kb() -> int:
        return int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0])

    highest, over = [0], threading.Event()

    def watch() -> None:
        while not over.wait(0.005):
            highest.append(own_kb())

    with Store.open(url) as store:
        # SQLite's own memory of pages is bounded by itself, at 64 MB, and would hide ours.
        sa.event.listen(store.engine, "connect", lambda raw, _: raw.execute("PRAGMA cache_size = -1024"))
        store.engine.dispose()
        state = store.state()
        cut = Cut(state.epoch, count + 10, START_MS, bytes(32))
        before = own_kb()
        watcher = threading.Thread(target=watch)
        watcher.start()
        said: list[Progress] = []
        write_from_store(path, store, cut, say=said.append)
        over.set()
        watcher.join()
    sending.send((max(highest) - before, said[0], said[-1], len(said)))


def test_memory_does_not_grow_with_the_register(stores: dict[int, str], tmp_path: Path) -> None:
    """Five times the certificates take the same memory, and after every page it is said how far it is."""
    context = multiprocessing.get_context("spawn")
    used_kb = {}
    for count, url in stores.items():
        path = tmp_path / f"{count}.csx"
        receiving, sending = context.Pipe(duplex=False)
        process = context.Process(target=_build, args=(sending, url, count, path))
        process.start()
        sending.close()
        used_kb[count], first, last, times = receiving.recv()
        process.join()
        assert (first.rows_done, last.rows_done) == (20_000, count)
        assert last.rows_total == count
        assert last.rows_per_s > 0
        assert times == -(-count // 20_000)
        assert Snapshot(path).counts() == {1: (count, count // 10)}
    small, large = used_kb.values()
    # One page takes 20 MB; the larger one's rows together would take 100.
    assert large < small + 8192, used_kb
    assert large < 40_000, used_kb
