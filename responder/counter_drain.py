"""Taking counter files to the store of record, and removing them once it has them for good.

::

    owner lives          file ──report──▶ stream ──▶ publisher ──▶ store of record
                           │                                          │
    sealed, or no owner    └─ deleted when the digest of its last cells ◀─┘ has come back

Values are cumulative, so a report may be lost, repeated or overtaken: the newest one says it all,
and the store keeps the greatest.  A file is never deleted before the store has acknowledged exactly what
is in it at that moment, and never while a process could still raise a cell.

Knows: when a file has an owner, the form of a report, when to repeat one.
Does not know: what is counted (``certstatus.counters``), nor how the store keeps it.
Source: Act arts. 40, 41 (no provision may be missing from the ledger).
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from certstatus import processes
from certstatus.counters import SUFFIX, CounterReading, read_counters
from certstatus.errors import IntegrityError
from certstatus.feed_keys import FeedKeys

log = logging.getLogger(__name__)

REPORT_FIELD = b"p"
WORKER_MODULE = "responder.worker"
# What was not acknowledged by then was lost with Valkey, or the publisher is away.
REPEAT_S = 5.0
# A publisher that is away for days must not fill Valkey: what falls out is told again.
REPORTS_MAX = 10_000


@dataclass(slots=True)
class _Told:
    """The last report of a file: what it said and when (monotonic seconds)."""

    digest: str
    told_s: float


@dataclass(frozen=True, slots=True)
class DrainStatus:
    """How a pass went: files there, files with values not acknowledged yet, files removed."""

    files: int
    waiting: int
    removed: int
    unreadable: int


class CounterDrain:
    """The counter files in one host's folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._owners = Owners()
        self._told: dict[str, _Told] = {}

    def step(self, client: redis.Redis, keys: FeedKeys, host: str, monotonic_s: float) -> DrainStatus:
        """Report what has grown, remove what has been acknowledged for good.

        Raises: redis.RedisError — Valkey is away; nothing is lost by that.
        """
        valkey: Any = client
        removed = unreadable = waiting = 0
        readings: list[tuple[Path, CounterReading, bool]] = []
        for path in sorted(self._folder.glob(f"*{SUFFIX}")):
            try:
                # Whether it has an owner is asked before it is read: what is read then is the last word.
                is_final = not self._owners.has_owner(path)
                reading = read_counters(path)
            except FileNotFoundError:
                continue
            except (IntegrityError, OSError) as exc:
                log.error("%s: %s", path.name, exc)
                unreadable += 1
                continue
            readings.append((path, reading, is_final or reading.sealed))
        done = _acknowledged(client, keys, host, [reading for _, reading, _ in readings])
        for path, reading, is_final in readings:
            digest = cells_digest(reading)
            # The file tells which host it was made under; a renamed host still reports it.
            if done.get(reading.file_uuid) == digest or not reading.cells:
                self._told.pop(reading.file_uuid, None)
                if is_final:
                    path.unlink(missing_ok=True)
                    removed += 1
                continue
            waiting += 1
            told = self._told.get(reading.file_uuid)
            # One report at a time is on its way: the next says all that has happened since.
            if (
                told is None
                or done.get(reading.file_uuid) == told.digest
                or (is_final and told.digest != digest)
                or monotonic_s - told.told_s >= REPEAT_S
            ):
                valkey.xadd(
                    keys.provisions(),
                    {REPORT_FIELD: encode_report(reading, host, digest, sealed=is_final)},
                    maxlen=REPORTS_MAX,
                    approximate=True,
                )
                self._told[reading.file_uuid] = _Told(digest, monotonic_s)
        return DrainStatus(len(readings), waiting, removed, unreadable)


def _acknowledged(
    client: redis.Redis, keys: FeedKeys, host: str, readings: list[CounterReading]
) -> dict[str, str]:
    if not readings:
        return {}
    names = [reading.file_uuid for reading in readings]
    values: Any = client.hmget(keys.provisions_done(host), names)
    return {
        name: value.decode(errors="replace")
        for name, value in zip(names, values, strict=True)
        if value is not None
    }


def cells_digest(reading: CounterReading) -> str:
    """Return the digest (hex SHA-256) under which the store acknowledges these very cells."""
    return hashlib.sha256(json.dumps(_cells(reading), separators=(",", ":")).encode()).hexdigest()


def encode_report(reading: CounterReading, host: str, digest: str, *, sealed: bool) -> bytes:
    """Return a report: JSON with host, uuid, sealed, digest and the cells that are not zero.

    A cell is [cell, verifier_id, issuer_id, kind, hour_s, value]; kind is a ``counters.Provision``.
    """
    content = {
        "host": host,
        "uuid": reading.file_uuid,
        "sealed": sealed,
        "digest": digest,
        "cells": _cells(reading),
    }
    return json.dumps(content, separators=(",", ":")).encode()


def _cells(reading: CounterReading) -> list[list[int]]:
    return [
        [cell.cell, cell.verifier_id, cell.issuer_id, cell.kind, cell.hour_s, cell.value]
        for cell in reading.cells
    ]


class Owners:
    """Which processes have which counter files mapped, and so may still raise a cell.

    Asked of the kernel and not of lock files or process ids written down somewhere: a mapping is the
    very thing that lets a cell grow.  Agent and workers run as one user in one PID name space.
    """

    def __init__(self) -> None:
        # The owner found last; looking there first spares reading every process's map each second.
        self._last: dict[str, int] = {}

    def has_owner(self, path: Path) -> bool:
        """Say whether any process has *path* mapped."""
        last = self._last.get(path.name)
        if last is not None and _has_mapped(last, path):
            return True
        self._last.pop(path.name, None)
        for pid in processes.own_pids():
            if _has_mapped(pid, path):
                self._last[path.name] = pid
                return True
        return False


def _has_mapped(pid: int, path: Path) -> bool:
    try:
        return path.name in Path(f"/proc/{pid}/maps").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return False
    except OSError:
        # Its map is kept from us, as that of a hardened process is.  If it is a worker, it may be the owner.
        return WORKER_MODULE in processes.command_line(pid)
