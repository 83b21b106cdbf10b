"""One of the builder's tasks: run when due, retried with growing pauses, its fate noted.

Knows: that a task which fails must not stop the others, and what the operators' page shows.
Does not know: what the task does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from certstatus import clock
from certstatus.errors import CertStatusError
from certstatus.valkey import VALKEY_AWAY

log = logging.getLogger(__name__)

PAUSE_FIRST_S = 1.0
PAUSE_S_MAX = 60.0
# A server that was away is back any moment, and trying costs nothing.
VALKEY_PAUSE_S_MAX = 2.0


class Task:
    """A named task; ``work`` returns a word on what it did, empty if there was nothing to do."""

    def __init__(
        self,
        name: str,
        work: Callable[[], str],
        *,
        now_ms: Callable[[], int] = clock.now_ms,
        monotonic_s: Callable[[], float] = clock.monotonic_s,
    ) -> None:
        self.name = name
        self._work = work
        self._now_ms = now_ms
        self._monotonic_s = monotonic_s
        self._pause_s = PAUSE_FIRST_S
        self._not_before_s = 0.0
        self.done = ""
        self.done_ms = 0
        self.checked_ms = 0
        self.failed_ms = 0
        self.error = ""

    def run(self) -> bool:
        """Run the task unless it is pausing after a failure; say whether it did something."""
        if self._monotonic_s() < self._not_before_s:
            return False
        try:
            word = self._work()
        except VALKEY_AWAY as exc:
            self._fail(f"{type(exc).__name__}: {exc}", VALKEY_PAUSE_S_MAX)
            return False
        except (CertStatusError, OSError) as exc:
            self._fail(f"{type(exc).__name__}: {exc}", PAUSE_S_MAX)
            return False
        except Exception as exc:
            # A bug in one task is no reason for the others to stop; it is loud in the log.
            log.exception("%s", self.name)
            self._fail(f"{type(exc).__name__}: {exc}", PAUSE_S_MAX)
            return False
        self.checked_ms = self._now_ms()
        if self.error:
            log.info("%s: works again", self.name)
        self.error = ""
        self._pause_s = PAUSE_FIRST_S
        if word:
            self.done, self.done_ms = word, self.checked_ms
        return bool(word)

    def _fail(self, error: str, pause_s_max: float) -> None:
        if error != self.error:
            log.error("%s: %s", self.name, error)
        self.error, self.failed_ms = error, self._now_ms()
        self._not_before_s = self._monotonic_s() + min(self._pause_s, pause_s_max)
        self._pause_s = min(self._pause_s * 2, pause_s_max)

    def status(self) -> dict[str, Any]:
        """Return what the operators' page shows: last check that went well, last deed, last failure."""
        return {
            "checked_ms": self.checked_ms,
            "done": self.done,
            "done_ms": self.done_ms,
            "failed_ms": self.failed_ms,
            "error": self.error,
        }
