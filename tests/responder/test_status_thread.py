"""The status file is written beside the loop, once at a time."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import redis
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from worker_cases import Host, wait_until

from certstatus.config import Config
from certstatus.counters import Provision
from certstatus.status_file import write_status
from responder.counting import Counting
from responder.status_thread import StatusThread


class Disk:
    """Stalls until told otherwise, and notes who waited for it."""

    def __init__(self) -> None:
        self.is_well = threading.Event()
        self.written: list[dict[str, Any]] = []
        self.threads: set[str] = set()

    def write(self, path: Path, content: dict[str, Any]) -> None:
        self.threads.add(threading.current_thread().name)
        assert self.is_well.wait(10)
        self.written.append(content)
        write_status(path, content)


def test_what_comes_while_the_disk_stalls_is_left_out(tmp_path: Path) -> None:
    """Nothing queues behind a write; the last word is the last in the file."""
    disk = Disk()
    file = StatusThread(tmp_path / "run" / "w.json", disk.write)
    file.put({"n": 1})
    wait_until(lambda: disk.threads)
    for number in (2, 3):
        assert file.is_busy
        file.put({"n": number})
    disk.is_well.set()
    wait_until(lambda: not file.is_busy)
    file.put({"n": 4})
    file.close({"n": 5})
    assert disk.written == [{"n": 1}, {"n": 4}, {"n": 5}]
    assert (tmp_path / "run" / "w.json").read_text() == '{"n": 5}\n'


def test_a_disk_that_stays_away_holds_up_no_end(tmp_path: Path) -> None:
    """Whoever closes waits some seconds at most."""
    disk = Disk()
    file = StatusThread(tmp_path / "w.json", disk.write)
    file.put({"n": 1})
    begun_s = time.monotonic()
    file.close({"n": 2})
    assert time.monotonic() - begun_s < 4
    disk.is_well.set()


def test_a_stalled_disk_does_not_stop_the_ticking(
    valkey: redis.Redis, publisher_key: Ed25519PrivateKey, config: Config
) -> None:
    """Deadlines and answers go on while the status file cannot be written."""
    host = Host(valkey, publisher_key, config)
    disk = Disk()
    with host.serving():
        worker = host.worker
        path = host.folder / "run" / "worker-0.json"
        worker.status_file = StatusThread(path, disk.write)
        for _ in range(3):
            begun_s = time.monotonic()
            host.call(worker.tick)
            assert time.monotonic() - begun_s < 1
        disk.is_well.set()
        wait_until(lambda: not worker.status_file.is_busy)
        host.call(worker.tick)
        wait_until(lambda: len(disk.written) == 2)
        assert not any(name.startswith("worker") for name in disk.threads)


def test_the_totals_look_at_rows_in_use_only(tmp_path: Path) -> None:
    """They are made once a second in the loop: a file with room for 65,536 rows must not take 25 ms."""
    counting = Counting(tmp_path, "h", 0, 65_536)
    cells = counting.ensure(bytes(16), 3600)
    for verifier_id in (1, 2):
        cells[counting.row(verifier_id, 1) + Provision.GOOD] += verifier_id
    begun_s = time.thread_time()
    totals = counting.totals()
    assert time.thread_time() - begun_s < 0.005
    assert totals[Provision.GOOD] == 3
    assert sum(totals) == 3
    counting.close()
    assert counting.totals()[Provision.GOOD] == 3
