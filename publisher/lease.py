"""A publisher's lease: of several processes with the same task, one works and the others stand by.

Knows: taking, keeping and giving back a named lease in the store of record, and when another
holder may be taken for dead.  What an outdated holder still writes is refused by its fence (store)
or by the stream's own script (feed), so taking over early costs order, never truth.
Does not know: what is done under the lease.

A holder is taken for dead when its lease has run out; when it ran on this machine and its process
is gone; or when it has not renewed for a whole term by our monotonic clock, because the end of
its lease may lie far ahead after the wall clock was set back.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from certstatus import clock, processes
from certstatus.errors import CertStatusError, FencedOff, LeaseHeld
from issuance import schema
from issuance.crl_register import Fence
from issuance.store import Store

log = logging.getLogger(__name__)

FEED_LEASE_MS = 3_000
SHORT_LEASE_MS = 10_000
_LOOK_AGAIN_S = 0.05


class PublisherLease:
    """The lease *name*, as one process sees it."""

    def __init__(
        self,
        store: Store,
        name: str,
        ttl_ms: int,
        *,
        now_ms: Callable[[], int] = clock.now_ms,
        monotonic_s: Callable[[], float] = clock.monotonic_s,
        holder: str | None = None,
    ) -> None:
        self._store = store
        self.name = name
        self._ttl_ms = ttl_ms
        self._now_ms = now_ms
        self._monotonic_s = monotonic_s
        self.holder = holder or this_process()
        self.fence: Fence | None = None
        self._renewed_s = 0.0
        # What was last seen of another holder, and since when it has stayed so.
        self._other: tuple[int, int] | None = None
        self._other_since_s = 0.0

    def hold(self) -> bool:
        """Have the lease, or say that it is another's; renews when a third of the term has passed.

        Raises: StoreError — the store cannot be reached.
        """
        if self.fence is not None:
            if (self._monotonic_s() - self._renewed_s) * 3000 < self._ttl_ms:
                return True
            try:
                self._store.renew_publisher(self.fence, self._ttl_ms, self._now_ms)
                self._renewed_s = self._monotonic_s()
                return True
            except FencedOff as exc:
                log.warning("%s", exc)
                self.fence = None
        try:
            self._take(take_over=False)
        except LeaseHeld:
            if not self._holder_is_dead():
                return False
            self._take(take_over=True)
        return True

    def release(self) -> None:
        """Let the next one begin at once."""
        if self.fence is not None:
            try:
                self._store.renew_publisher(self.fence, 0, self._now_ms)
            except FencedOff:
                log.info("publisher %s: already taken over", self.name)
            self.fence = None

    @contextmanager
    def kept(self) -> Iterator[threading.Event]:
        """Renew the lease from a thread for the length of the block, however long a step of it takes.

        Gives: an event that is set when the lease was lost to somebody else.
        """
        fence = self.fence
        assert fence is not None
        done, lost = threading.Event(), threading.Event()

        def renew() -> None:
            while not done.wait(self._ttl_ms / 3000):
                try:
                    self._store.renew_publisher(fence, self._ttl_ms, self._now_ms)
                except FencedOff as exc:
                    log.warning("%s", exc)
                    lost.set()
                    return
                except CertStatusError as exc:
                    log.warning("publisher %s: not renewed: %s", self.name, exc)

        thread = threading.Thread(target=renew, name=f"lease {self.name}", daemon=True)
        thread.start()
        try:
            yield lost
        finally:
            done.set()
            thread.join()
            if lost.is_set():
                self.fence = None

    def _take(self, *, take_over: bool) -> None:
        asked_s = self._monotonic_s()
        self.fence = self._store.acquire_publisher(
            self.name, self._ttl_ms, self._now_ms, self.holder, take_over=take_over
        )
        self._renewed_s = asked_s
        self._other = None
        log.info("publisher %s: fence %d, holder %s", self.name, self.fence.number, self.holder)

    def _holder_is_dead(self) -> bool:
        table = schema.publisher_lease
        with self._store.reading() as connection:
            row = connection.execute(
                sa.select(table.c.holder, table.c.fence, table.c.until_ms).where(table.c.name == self.name)
            ).one_or_none()
        if row is None or is_gone(row.holder):
            return True
        now_s = self._monotonic_s()
        if self._other != (row.fence, row.until_ms):
            if self._other is None or self._other[0] != row.fence:
                log.info("publisher %s: standing by for %s", self.name, row.holder)
            self._other = (row.fence, row.until_ms)
            self._other_since_s = now_s
        return (now_s - self._other_since_s) * 1000 >= self._ttl_ms


@contextmanager
def held(lease: PublisherLease, wait_s: float) -> Iterator[Fence]:
    """Hold *lease* for the length of the block, waiting at most *wait_s* for another's to end.

    A thread renews it meanwhile.  If it is lost all the same (this process was stopped for long), the
    fence makes the store refuse what the block still writes.
    Raises: LeaseHeld — another holds it, and still does after *wait_s*.
    """
    deadline_s = time.monotonic() + wait_s
    while not lease.hold():
        if time.monotonic() >= deadline_s:
            raise LeaseHeld(f"publisher {lease.name}: another process is at it, waited {wait_s:.0f} s")
        time.sleep(_LOOK_AGAIN_S)
    fence = lease.fence
    assert fence is not None
    try:
        with lease.kept():
            yield fence
    finally:
        lease.release()


def this_process() -> str:
    """Return a name for this process by which others on this machine can tell whether it lives.

    Form: machine/pid/start/random; machine holds the boot and the PID name space, because
    containers share host names and count their processes anew.
    """
    who = processes.identity_of(os.getpid())
    started = who.started if who is not None else 0
    return f"{_machine()}/{os.getpid()}/{started}/{secrets.token_hex(4)}"


def is_gone(holder: str) -> bool:
    """Say whether *holder* was a process of this machine and is no more; when in doubt, no."""
    machine, _, rest = holder.partition("/")
    pid, _, rest = rest.partition("/")
    started, _, _ = rest.partition("/")
    if machine != _machine() or not (pid.isdecimal() and started.isdecimal()):
        return False
    who = processes.Identity(int(pid), int(started))
    return processes.identity_of(who.pid) != who


def _machine() -> str:
    boot = processes.boot_id()
    try:
        return f"{boot}.{os.readlink('/proc/self/ns/pid').strip('pid:[]')}" if boot else "elsewhere"
    except OSError:
        return "elsewhere"
