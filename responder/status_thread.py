"""A process's status file, written on a thread: a disk that is slow or full stops nobody but the file.

Knows: one file is written at a time, and what comes meanwhile is left out, not queued: a second later
there is something newer to say.  In the loop it took 0.4 ms, and on a disk that stalls all of the stall.
Does not know: what is said (``worker``), or how a file is replaced (``certstatus.status_file``).
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from certstatus.status_file import write_status

# At the end a write that is under way is waited for so long.
_LAST_S = 1.0


class StatusThread:
    """Replaces the file *path*; every call from one thread."""

    def __init__(self, path: Path, write: Callable[[Path, dict[str, Any]], None] = write_status) -> None:
        self._path = path
        self._write = write
        self._thread = ThreadPoolExecutor(1, "status")
        self._last: Future[None] | None = None

    @property
    def is_busy(self) -> bool:
        """Whether the file is still being written, so that nothing more can be put."""
        return self._last is not None and not self._last.done()

    def put(self, content: dict[str, Any]) -> None:
        """Have the file replaced by *content*, unless it is being written."""
        if not self.is_busy:
            self._last = self._thread.submit(self._write, self._path, content)

    def close(self, content: dict[str, Any]) -> None:
        """Leave *content* as the last word, if the disk takes it in time."""
        if self._last is not None:
            wait([self._last], _LAST_S)
        self.put(content)
        if self._last is not None:
            wait([self._last], _LAST_S)
        self._thread.shutdown(wait=False, cancel_futures=True)
