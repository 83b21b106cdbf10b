"""What the processes of this machine say of themselves, in small JSON files under ``STATE/run``.

Knows: reading them, and that a file whose writer is gone or silent speaks of the past.
Does not know: what the numbers mean; ``metrics`` and ``start_page`` do.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from certstatus import processes

# Everyone writes once a second; the slowest machine manages it in this.
SILENT_S = 15.0

Status = dict[str, Any]


@dataclass(frozen=True, slots=True)
class RunStatus:
    """All status files that are up to date; workers by slot."""

    workers: tuple[Status, ...]
    feed: Status | None
    builder: Status | None
    agent: Status | None

    @property
    def ready_workers(self) -> int:
        """How many workers answer."""
        return sum(1 for worker in self.workers if worker.get("ready"))

    def total(self, name: str, key: str) -> int:
        """Return the sum over all workers of one number below *name*."""
        return sum(int(worker.get(name, {}).get(key, 0)) for worker in self.workers)

    def totals(self, name: str) -> dict[str, int]:
        """Return, for each key below *name*, the sum over all workers."""
        keys = dict.fromkeys(key for worker in self.workers for key in worker.get(name, {}))
        return {key: self.total(name, key) for key in keys}


def read_run_status(run_folder: Path, now_s: float) -> RunStatus:
    """Return what stands in *run_folder* and is not older than ``SILENT_S`` at *now_s* (POSIX)."""
    workers = [
        status
        for path in run_folder.glob("worker-*.json")
        if (status := _read(path, now_s)) is not None and isinstance(status.get("slot"), int)
    ]
    return RunStatus(
        tuple(sorted(workers, key=lambda status: int(status["slot"]))),
        *(_read(run_folder / f"{name}.json", now_s) for name in ("feed", "builder", "agent")),
    )


def _read(path: Path, now_s: float) -> Status | None:
    try:
        status = json.loads(path.read_text(encoding="utf-8"))
        age_s = now_s - path.stat().st_mtime
    except (OSError, ValueError):
        return None
    if not isinstance(status, dict) or age_s > SILENT_S:
        return None
    pid = status.get("pid")
    if isinstance(pid, int) and processes.identity_of(pid) is None:
        return None
    return status
