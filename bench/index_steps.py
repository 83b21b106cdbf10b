"""What is done with an index of a given size, step by step; each runs in a process of its own.

Knows: writing, merging, bringing to Valkey and from there, checking, mapping, looking up, swapping.
Does not know: how large the index is, or what the figures must be.
"""

from __future__ import annotations

import filecmp
import gc
import hashlib
import os
import random
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from bench.cpu_time import cpu_ns
from bench.population import Population
from certstatus.beat import Pointer
from certstatus.changes import FINGERPRINT_BYTES, NO_REASON, Change, ChangeKind, fingerprint
from certstatus.feed_keys import FeedKeys
from certstatus.index import Snapshot, View
from certstatus.snapshot import (
    REVOKED,
    IndexRow,
    SnapshotFile,
    fold_changes,
    make_manifest,
    write_snapshot,
)
from certstatus.snapshot_writer import IssuerHead, RowBlock, new_snapshot
from certstatus.valkey import connect
from publisher.chunks import put_chunks
from responder.fetch_snapshot import load_snapshot
from responder.follow import breathe, take_breath

NAMESPACE = "bench"
_BLOCK_ROWS = 1 << 20
_LIFE_DAYS = 1826
_LOOK_UPS = 10_000
_OVERLAY = 200_000
_TIMED_TIMES = 7


def write(source: Path, target: Path) -> dict[str, Any]:
    """Write a snapshot of the same rows as *source*, as they come sorted from somewhere else."""
    previous = SnapshotFile(source)
    head = previous.head
    issuers = [IssuerHead(place.issuer_id, place.event_reason, place.event_ms) for place in head.sections]
    rows = 0
    with new_snapshot(target, head.epoch, head.seq, head.time_ms, head.chain, issuers) as writer:
        for place in head.sections:
            issued, revoked, dated = map(previous.table, (place.issued, place.revoked, place.invalidity))
            if len(dated.hi):
                raise ValueError("generated certificates have no invalidity date")
            rows += len(issued.hi)
            taken = 0
            for start in range(0, len(issued.hi), _BLOCK_ROWS):
                part = slice(start, start + _BLOCK_ROWS)
                meta = issued.value[part]
                revoked_at = (meta >> 16 & 0xFF != 0).astype(meta.dtype)
                count = int(revoked_at.sum())
                none = revoked_at * 0
                revoked_at[revoked_at != 0] = revoked.value[taken : taken + count]
                taken += count
                writer.add(RowBlock(issued.hi[part], issued.lo[part], meta, revoked_at, none))
            writer.end_issuer()
    if not filecmp.cmp(target, source, shallow=False):
        raise ValueError(f"{target} differs from {source}")
    return {"rows": rows, "bytes": target.stat().st_size}


def merge(source: Path, target: Path, population: Path, index_key: bytes) -> dict[str, Any]:
    """Merge a day's changes: as many issued as come to an end on a day, and as many revoked."""
    previous = SnapshotFile(source)
    place = max(previous.head.sections, key=lambda item: item.issued.rows)
    changes = list(_day(place.issuer_id, place.issued.rows, previous.head.seq, population, index_key))
    began_s = time.perf_counter()
    folded = fold_changes(changes, previous)
    seq = previous.head.seq + len(changes)
    write_snapshot(target, previous.head.epoch, seq, 0, bytes(32), folded, previous)
    merged_s = time.perf_counter() - began_s
    make_manifest(target)
    return {
        "changes": len(changes),
        "merge_s": round(merged_s, 3),
        "manifest_s": round(time.perf_counter() - began_s - merged_s, 3),
    }


def _day(issuer_id: int, rows: int, seq: int, population: Path, index_key: bytes) -> Iterator[Change]:
    count = max(1, rows // _LIFE_DAYS)
    now_ms = time.time_ns() // 1_000_000
    members = Population.load(population).members
    for number in range(count):
        seq += 2
        new = os.urandom(FINGERPRINT_BYTES)
        yield Change(ChangeKind.ISSUED, NO_REASON, issuer_id, 20_000, new, 0, now_ms, seq - 1)
        known = fingerprint(members.member(number * (len(members) // count))[0], index_key)
        yield Change(ChangeKind.REVOKED, 4, issuer_id, 20_000, known, 0, now_ms, seq)


def upload(path: Path, url: str, server_pid: int) -> dict[str, Any]:
    """Put a snapshot into Valkey; ``server_cpu_s`` is Valkey's part."""
    manifest = make_manifest(path)
    client = connect(url)
    before_ns, began_s, cpu_s = cpu_ns(server_pid), time.perf_counter(), time.process_time()
    put_chunks(client, FeedKeys(NAMESPACE, bytes.fromhex(manifest.epoch)), path, manifest)
    return _rates(manifest.size, began_s, cpu_s) | {"server_cpu_s": (cpu_ns(server_pid) - before_ns) / 1e9}


def fetch(path: Path, url: str, server_pid: int, folder: Path) -> dict[str, Any]:
    """Bring the uploaded snapshot onto a host that has none, as a worker does."""
    load = _loader(path, url, folder)
    before_ns, began_s, cpu_s = cpu_ns(server_pid), time.perf_counter(), time.process_time()
    load()
    return _rates(path.stat().st_size, began_s, cpu_s) | {
        "server_cpu_s": (cpu_ns(server_pid) - before_ns) / 1e9
    }


def check(path: Path, url: str, folder: Path) -> dict[str, Any]:
    """Open the file that is there: reading it whole, and when that has been done before."""
    load = _loader(path, url, folder)
    for mark in folder.glob("*.checked"):
        mark.unlink()
    whole_s = _seconds(load)
    return {
        "whole_ms": whole_s * 1000,
        "marked_ms": statistics.median(_seconds(load) for _ in range(5)) * 1000,
    }


def _loader(path: Path, url: str, folder: Path) -> Callable[[], Snapshot]:
    text = make_manifest(path).encode()
    head = SnapshotFile(path).head
    pointer = Pointer(head.seq, hashlib.sha256(text).digest())
    client, keys = connect(url), FeedKeys(NAMESPACE, head.epoch)

    def load() -> Snapshot:
        found = load_snapshot(client, keys, head.epoch, pointer, folder)
        if found is None:
            raise ValueError("nothing was loaded")
        return found

    return load


def _seconds(act: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    act()
    return time.perf_counter() - began_s


def _rates(size: int, began_s: float, began_cpu_s: float) -> dict[str, Any]:
    wall_s, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
    return {
        "bytes": size,
        "mb_per_s": round(size / wall_s / 1e6, 1),
        "mb_per_cpu_s": round(size / cpu_s / 1e6, 1),
    }


def look_up(path: Path, population: Path, index_key: bytes) -> dict[str, Any]:
    """Look up certificates at random, each once, in a map whose pages have been touched; and unknown ones."""
    gc.disable()
    snapshot = Snapshot(path)
    view = View(snapshot)
    issuer_id = max(snapshot.counts().items(), key=lambda item: item[1][0])[0]
    members = Population.load(population).members
    chance = random.Random(1)
    first = [_mark(chance, members, index_key) for _ in range(_LOOK_UPS)]
    first_us = _look_up_us(view, issuer_id, [mark for mark, _ in first])
    wrong = [
        status
        for mark, status in first
        if (row := view.look_up(issuer_id, mark)) is None or (row.state == REVOKED) != (status == "revoked")
    ]
    if wrong:
        raise ValueError(f"{len(wrong)} look-ups found something else than the population says")
    # As a worker's are after a while: every page has been needed once.
    with path.open("rb") as file:
        while file.read(1 << 20):
            pass
    for _ in range(20):
        _look_up_us(view, issuer_id, [_mark(chance, members, index_key)[0] for _ in range(_LOOK_UPS)])
    known = [
        _look_up_us(view, issuer_id, [_mark(chance, members, index_key)[0] for _ in range(_LOOK_UPS)])
        for _ in range(_TIMED_TIMES)
    ]
    unknown = [
        _look_up_us(view, issuer_id, [os.urandom(FINGERPRINT_BYTES) for _ in range(_LOOK_UPS)])
        for _ in range(_TIMED_TIMES)
    ]
    return {
        "first_us": first_us,
        "known_us": statistics.median(known),
        "known_us_max": max(known),
        "unknown_us": statistics.median(unknown),
    }


def _mark(chance: random.Random, members: Any, index_key: bytes) -> tuple[bytes, str]:  # noqa: ANN401
    serial, status = members.member(chance.randrange(len(members)))
    return fingerprint(serial, index_key), status


def _look_up_us(view: View, issuer_id: int, marks: list[bytes]) -> float:
    """CPU time, page faults included; others on the same processor are not."""
    find = view.look_up
    began_ns = time.thread_time_ns()
    for mark in marks:
        find(issuer_id, mark)
    return (time.thread_time_ns() - began_ns) / len(marks) / 1000


def swap(path: Path) -> dict[str, Any]:
    """Change over to another map with a large overlay, all of it to be let go, beside a thread that wants
    to run every 0.2 ms: the longest that it had to wait."""
    gc.disable()
    old = Snapshot(path)
    view = View(old)
    seq = old.head.seq
    for _ in range(_OVERLAY):
        mark = os.urandom(FINGERPRINT_BYTES)
        view.overlay[1, mark] = (IndexRow(mark, 20_000, REVOKED, 4, 1), seq)
    for number in old.counts():
        for _ in range(_LOOK_UPS):
            old.look_up(number, os.urandom(FINGERPRINT_BYTES))
    waits = _Waits()
    waits.start()
    time.sleep(0.5)
    idle_ms = waits.highest_ms()
    left: list[Any] = []
    began_s = time.perf_counter()
    moved = view.moved_to(Snapshot(path), partial(take_breath, left))
    old.forget_pages(breathe)
    del view, old
    while left:
        left.pop()
        breathe()
    wall_ms = (time.perf_counter() - began_s) * 1000
    time.sleep(0.05)
    return {
        "overlay": _OVERLAY,
        "kept": len(moved.overlay),
        "swap_ms": wall_ms,
        "wait_ms_max": waits.highest_ms(),
        "wait_ms_max_idle": idle_ms,
    }


class _Waits(threading.Thread):
    """A thread with something to do every 0.2 ms."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._highest_s = 0.0

    def run(self) -> None:
        last_s = time.perf_counter()
        while True:
            time.sleep(0.0002)
            now_s = time.perf_counter()
            self._highest_s = max(self._highest_s, now_s - last_s)
            last_s = now_s

    def highest_ms(self) -> float:
        """Return the longest time from turn to turn since this was asked last."""
        found, self._highest_s = self._highest_s * 1000, 0.0
        return found
