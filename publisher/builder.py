"""The builder as a process, ``python -m publisher.builder CONFIG``: snapshots, CRLs, and what comes
back from the responders.

Knows: which tasks there are, that one which fails leaves the others alone, and that of several
builders only the holder of the lease works.  Reports and certificate requests have a thread of
their own, because a snapshot or a CRL of millions takes long; so has fetching other CAs' CRLs, whose
servers may take their time, and giving CRL files to hosts, which must not wait for a build.
Does not know: the feed, which is another process: nothing here may hold up a beat.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import redis

from certstatus import clock
from certstatus.config import Config
from certstatus.errors import CertStatusError, LeaseHeld, StoreError
from certstatus.feed_keys import FeedKeys
from certstatus.status_file import write_status
from issuance.ca_keys import CAKeyFolder
from issuance.store import Store
from publisher.certificate_requests import CertificateRequests
from publisher.crl_chunks import CRLChunks
from publisher.crl_poll import CRLPoll
from publisher.crl_publish import CRLPublisher, crl_lease
from publisher.crl_run import CRLRun
from publisher.crl_scopes import CRLFolders
from publisher.lease import SHORT_LEASE_MS, PublisherLease, held
from publisher.process import run_process
from publisher.provisions import REPORTS_AT_ONCE, drain
from publisher.register_audit import RegisterAudit
from publisher.snapshots import Snapshots
from publisher.task import Task

log = logging.getLogger(__name__)

LEASE_NAME = "builder"
TICK_S = 0.5
DRAIN_TICK_S = 0.1
# Looking after catalogue and old files needs no second's exactness.
_TIDY_EVERY_S = 10.0
_NOTE_EVERY_S = 1.0
_CHUNK_WAIT_S = 0.2
_VALKEY_ANSWER_S = 10.0
_POLLER_S = 2.0
_NAMES_IN_A_LINE = 3


class Builder:
    """One builder process."""

    def __init__(
        self,
        store: Store,
        valkey: redis.Redis,
        config: Config,
        *,
        now_ms: Callable[[], int] = clock.now_ms,
        monotonic_s: Callable[[], float] = clock.monotonic_s,
    ) -> None:
        self._store = store
        self._valkey = valkey
        self._namespace = config.valkey.namespace
        self._now_ms = now_ms
        self._monotonic_s = monotonic_s
        self._status_path = config.state / "run" / "builder.json"
        self._lease = PublisherLease(
            store, LEASE_NAME, SHORT_LEASE_MS, now_ms=now_ms, monotonic_s=monotonic_s
        )
        ca_keys = CAKeyFolder(config.state / "ca")
        self._snapshots = Snapshots(store, valkey, config, monotonic_s=monotonic_s)
        self._crls = CRLPublisher(store, ca_keys, config.state, now_ms=now_ms, monotonic_s=monotonic_s)
        self._requests = CertificateRequests(
            store,
            valkey,
            # A key folder of its own: this one is used from another thread.
            CAKeyFolder(config.state / "ca"),
            config.responder.certificate_life_s,
            now_ms=now_ms,
            monotonic_s=monotonic_s,
        )
        self._crl_lease = crl_lease(store, now_ms)
        self.crl_poll = CRLPoll(store, config.state, now_ms=now_ms, monotonic_s=monotonic_s)
        self._chunks = CRLChunks(
            store, valkey, config.valkey.namespace, CRLFolders(config.state).crl, monotonic_s=monotonic_s
        )
        self._tidied_s = float("-inf")
        self.state = "starting"
        self.snapshot_task = self._task("snapshot", self._snapshot)
        self.provision_task = self._task("provisions", self._drain)
        self.request_task = self._task("certificates", self._sign)
        self.crl_run = CRLRun(self._crls, self._crl_lease, now_ms=now_ms, monotonic_s=monotonic_s)
        self.crl_task = self._task("crl", self.crl_run.step)
        self.catalogue_task = self._task("catalogue", self._tidy)
        self.chunk_task = self._task("crl files", self._give)
        self.audit = RegisterAudit(store, now_ms=now_ms, monotonic_s=monotonic_s)
        self.audit_task = self._task("audit", self.audit.step)

    def _task(self, name: str, work: Callable[[], str]) -> Task:
        return Task(name, work, now_ms=self._now_ms, monotonic_s=self._monotonic_s)

    # --- the tasks -------------------------------------------------------------------------------------

    def _snapshot(self) -> str:
        if self._snapshots.is_due():
            return f"snapshot {self._snapshots.build(self._lease.fence)}"
        return "uploaded again" if self._snapshots.keep_uploaded(self._lease.fence) else ""

    def _tidy(self) -> str:
        now_s = self._monotonic_s()
        if now_s - self._tidied_s >= _TIDY_EVERY_S:
            with suppress(LeaseHeld), held(self._crl_lease, wait_s=0) as fence:
                self._crls.tidy(fence)
                self._tidied_s = now_s
        return ""

    def _drain(self) -> str:
        keys = self._keys()
        total = count = drain(self._store, self._valkey, keys)
        while count == REPORTS_AT_ONCE:
            count = drain(self._store, self._valkey, keys)
            total += count
        return f"{total} reports" if total else ""

    def _sign(self) -> str:
        count = self._requests.answer(self._keys())
        return f"{count} certificates" if count else ""

    def _give(self) -> str:
        return f"{self._chunks.octets} bytes so far" if self._chunks.step(_CHUNK_WAIT_S) else ""

    def _keys(self) -> FeedKeys:
        return FeedKeys(self._namespace, self._store.state().epoch)

    # --- the loop --------------------------------------------------------------------------------------

    def step(self) -> bool:
        """Do what is due of snapshots and CRLs; say whether this process is the builder."""
        if self._lease.fence is None and not self._hold():
            return False
        self.state = "working"
        self.snapshot_task.run()
        self.crl_task.run()
        self.catalogue_task.run()
        self.audit_task.run()
        return True

    def drain_step(self) -> None:
        """Take over reports and answer certificate requests."""
        self.provision_task.run()
        self.request_task.run()

    def _hold(self) -> bool:
        try:
            if self._lease.hold():
                return True
            self.state = "standby"
        except StoreError as exc:
            if self.state != "no_store":
                log.warning("%s", exc)
            self.state = "no_store"
        return False

    def run(self, stop: threading.Event) -> None:
        """Work until *stop*; nothing that fails in a task ends this loop."""
        while not stop.is_set():
            if not self._hold():
                stop.wait(TICK_S)
                continue
            over = threading.Event()
            drainer = threading.Thread(target=self._drain_until, args=(stop, over), name="drain")
            # Hardly waited for at the end: it can break off anywhere, and its servers may be slow.
            giver = threading.Thread(target=self._give_until, args=(stop, over), name="files", daemon=True)
            poller = threading.Thread(target=self._poll_until, args=(stop, over), name="poll", daemon=True)
            try:
                with self._lease.kept() as lost:
                    drainer.start()
                    poller.start()
                    giver.start()
                    while not stop.is_set() and not lost.is_set():
                        self.step()
                        stop.wait(0 if self.crl_run.has_more else TICK_S)
            finally:
                over.set()
                drainer.join()
                giver.join(_POLLER_S)
                poller.join(_POLLER_S)
        # What the workers counted last, so that a clean stop leaves nothing behind.
        if self._lease.fence is not None:
            self.provision_task.run()
            self.state = "stopped"
            self.note_status()
            with suppress(CertStatusError):
                self._lease.release()

    def _drain_until(self, stop: threading.Event, over: threading.Event) -> None:
        noted_s = float("-inf")
        while not stop.is_set() and not over.is_set():
            self.drain_step()
            # From this thread, so that the page does not take a long build for silence.
            if self._monotonic_s() - noted_s >= _NOTE_EVERY_S:
                noted_s = self._monotonic_s()
                self.note_status()
            over.wait(DRAIN_TICK_S)

    def _give_until(self, stop: threading.Event, over: threading.Event) -> None:
        while not stop.is_set() and not over.is_set():
            self.chunk_task.run()
            if self.chunk_task.error:
                over.wait(TICK_S)

    def _poll_until(self, stop: threading.Event, over: threading.Event) -> None:
        while not stop.is_set() and not over.is_set():
            try:
                self.crl_poll.step()
            except CertStatusError as exc:
                log.warning("CRL polling: %s", exc)
            over.wait(TICK_S)

    def note_status(self) -> None:
        """Write what the operators' page shows of the builder."""
        tasks = [
            self.snapshot_task,
            self.crl_task,
            *self.crl_poll.tasks.copy().values(),
            self.catalogue_task,
            self.provision_task,
            self.request_task,
            self.chunk_task,
            self.audit_task,
        ]
        progress = self._snapshots.progress
        crls = self.crl_run.status()
        troubles = [f"{task.name}: {task.error}" for task in tasks if task.error]
        register = self.audit.status()
        if register["trouble"]:
            troubles.append(f"register: {register['trouble']}")
        named = crls["troubles"][:_NAMES_IN_A_LINE]
        troubles += [f"crl {item['scope']}: {item['error']}" for item in named]
        if (unnamed := crls["troubles_total"] - len(named)) > 0:
            troubles.append(f"{unnamed} further CRL scopes")
        write_status(
            self._status_path,
            {
                "pid": os.getpid(),
                "state": self.state,
                "time_ms": self._now_ms(),
                "error": "; ".join(troubles),
                "tasks": {task.name: task.status() for task in tasks},
                "crls": crls,
                "register": register,
                "snapshot_progress": None if progress is None else progress._asdict(),
            },
        )


def main(config_path: Path) -> int:
    """Run a builder until a signal; return the exit code."""
    return run_process("builder", config_path, _VALKEY_ANSWER_S, _work)


def _work(store: Store, valkey: redis.Redis, config: Config, stop: threading.Event) -> None:
    Builder(store, valkey, config).run(stop)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
