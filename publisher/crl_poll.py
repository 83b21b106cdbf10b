"""Following CAs that revoke elsewhere: their CRLs, fetched again and again.

Knows: when which CRL is due (by the period kept with the issuer), that each CA's failures are its own,
and that what was taken over last stands until a newer one has been verified and recorded whole.
Does not know: how a CRL is checked or recorded (``issuance.import_run``), or what is answered
once the last one has run out (the responders stop by its nextUpdate).
Source: RFC 5280 §6.3.3 (fetching a CRL).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

from certstatus import clock
from certstatus.publisher_key import load_index_key
from issuance.import_fetch import Fetched, fetch_crl
from issuance.import_run import follow_crl
from issuance.issuers import IssuerRecord, issuers
from issuance.store import Store
from publisher.task import Task

log = logging.getLogger(__name__)

# How often it is looked whom to follow, while somebody is due only by minutes.
_LOOK_EVERY_S = 2.0


class CRLPoll:
    """The CAs of one installation whose CRLs are polled."""

    def __init__(
        self,
        store: Store,
        state: Path,
        *,
        now_ms: Callable[[], int] = clock.now_ms,
        monotonic_s: Callable[[], float] = clock.monotonic_s,
    ) -> None:
        self._store = store
        self._state = state
        self._now_ms = now_ms
        self._monotonic_s = monotonic_s
        # By issuer_id: the task, when it is due, and (by its URL, too) what was fetched last.
        self.tasks: dict[int, Task] = {}
        self._due_s: dict[int, float] = {}
        self._fetched: dict[tuple[int, str], Fetched] = {}
        self._looked_s = float("-inf")

    def step(self) -> None:
        """Fetch what is due; errors are noted in the tasks and tried again with growing pauses."""
        now_s = self._monotonic_s()
        if now_s - self._looked_s < _LOOK_EVERY_S:
            return
        self._looked_s = now_s
        polled = [
            record
            for record in issuers(self._store)
            if record.imported is not None and record.imported.crl_url and record.is_ready
        ]
        # One that is taken over, or not polled any more, leaves with its errors.
        self.tasks = {
            record.issuer_id: self.tasks.get(record.issuer_id) or self._task(record) for record in polled
        }
        for record in polled:
            if now_s >= self._due_s.get(record.issuer_id, 0.0):
                self.tasks[record.issuer_id].run()

    def _task(self, record: IssuerRecord) -> Task:
        name = f"crl-poll {record.service.lower()}/g{record.generation}"
        return Task(
            name,
            partial(self._poll, record.issuer_id),
            now_ms=self._now_ms,
            monotonic_s=self._monotonic_s,
        )

    def _poll(self, issuer_id: int) -> str:
        record = next(item for item in issuers(self._store) if item.issuer_id == issuer_id)
        taken = record.imported
        if taken is None or taken.crl_url is None or taken.poll_period_s is None:
            return ""
        # Another place's tag may happen to be the same.
        place = issuer_id, taken.crl_url
        fetched = fetch_crl(taken.crl_url, self._fetched.get(place))
        word = ""
        if fetched is not None:
            index_key = load_index_key(self._state / "secrets" / "index.key")
            new = follow_crl(
                self._store, record, index_key, fetched.content, taken.crl_url, self._state, self._now_ms
            )
            # Only now: one that was refused is asked for, and refused, again.
            self._fetched[place] = fetched._replace(content=b"")
            if new is not None:
                word = f"{new.revoked} revoked, {new.held} on hold, {new.released} released"
                log.info("CRL of %s from %s: %s", record.service, taken.crl_url, word)
        self._due_s[issuer_id] = self._monotonic_s() + taken.poll_period_s
        return word
