"""The signing desk: fast keys sign a lot at a time in the event loop, slow keys on threads.

Knows: a fast key (``Signer.is_fast``) signs in the event loop, for what waits in a queue, so many
at a time: one look at the clock and one hold of the follower's lock serve a lot, and each step
finds the processor's nearest caches full of itself (17 µs of 80 less a request).  Each turn of
the loop has a budget, so that reading, hot answers and the follower never wait behind a flood of
cold ones.  A slow key signs on a few threads, where OpenSSL works
without the interpreter's lock (measured: two threads sign twice as much).  Both queues share one
bound.
Does not know: what is signed.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable

from certstatus import clock
from certstatus.errors import Overloaded
from responder.answers import Flight
from responder.keys import Signer
from responder.signing_threads import SigningThreads

log = logging.getLogger(__name__)

# Certificates that are flown for at a time: some 1.5 ms; more only where one flight asks about more.
LOT = 32


class SigningDesk:
    """Where all signatures of a worker are made.

    queue_max   jobs waiting or on threads; one more raises Overloaded
    budget_s    time for lots in one turn of the loop; the last lot begins within it
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        queue_max: int,
        budget_us: int,
        threads: int,
        monotonic_s: Callable[[], float] = clock.monotonic_s,
    ) -> None:
        self.queue_max = queue_max
        self.budget_s = budget_us / 1e6
        self.signatures = 0
        self._loop = loop
        self._monotonic_s = monotonic_s
        self._threads = SigningThreads(loop, threads)
        self._on_threads = 0
        self._queue: deque[Flight] = deque()
        self._certificates_queued = 0
        self._fly: Callable[[list[Flight]], None] | None = None
        self._turn_is_due = False

    @property
    def waiting(self) -> int:
        """Jobs in the queue or on threads."""
        return len(self._queue) + self._on_threads

    @property
    def is_near(self) -> bool:
        """Whether what joins the queue now is flown with the next lot."""
        return self._certificates_queued < LOT

    def attend(self, fly: Callable[[list[Flight]], None]) -> None:
        """Have *fly* called with every lot; it lands each of them, and raises nothing."""
        self._fly = fly

    def wait_in_line(self, flight: Flight) -> None:
        """Fly *flight* in a turn that has time for it.  Raises: Overloaded — the queue is full."""
        self._check_room()
        self._queue.append(flight)
        self._certificates_queued += len(flight.query.request.cert_ids)
        if not self._turn_is_due:
            self._turn_is_due = True
            self._loop.call_soon(self._turn)

    def hurry(self) -> None:
        """Give what waits a turn now: for whoever can be answered only before the loop turns."""
        if self._queue:
            self._turn()

    def sign_lot(self, lot: Iterable[tuple[Signer, bytes]]) -> list[bytes | None]:
        """Return the signatures, made here and now, over each (signer, octets); None where there is none."""
        signatures = [_sign(signer, tbs) for signer, tbs in lot]
        self.signatures += len(signatures)
        return signatures

    def sign_on_thread(self, signer: Signer, tbs: bytes, done: Callable[[bytes | None], None]) -> None:
        """Sign on a thread, then call *done* in the loop with the signature, None if there is none.

        Raises: Overloaded — the queue is full.
        """
        self._check_room()
        self._on_threads += 1

        def delivered(signature: bytes | None) -> None:
            self._on_threads -= 1
            self.signatures += 1
            done(signature)

        self._threads.submit(signer.sign, tbs, delivered)

    def close(self) -> None:
        """Forget what waits and end the threads."""
        self._queue.clear()
        self._certificates_queued = 0
        self._threads.close()

    def _check_room(self) -> None:
        if self.waiting >= self.queue_max:
            raise Overloaded(f"{self.waiting} signatures wait, at most {self.queue_max}")

    def _turn(self) -> None:
        """Fly lots of what waits, until nothing does or the turn's time is spent."""
        self._turn_is_due = False
        queue, fly = self._queue, self._fly
        assert fly is not None
        until_s = self._monotonic_s() + self.budget_s
        while queue:
            fly(self._next_lot())
            # By the clock, not by the signatures: what is refused takes time as well.
            if self._monotonic_s() >= until_s:
                break
        if queue and not self._turn_is_due:
            self._turn_is_due = True
            self._loop.call_soon(self._turn)

    def _next_lot(self) -> list[Flight]:
        """Take what is flown next: by certificates, for these are what drafting takes its time for."""
        queue = self._queue
        lot: list[Flight] = []
        certificates = 0
        while queue and certificates < LOT:
            flight = queue.popleft()
            certificates += len(flight.query.request.cert_ids)
            lot.append(flight)
        self._certificates_queued -= certificates
        return lot


def _sign(signer: Signer, tbs: bytes) -> bytes | None:
    try:
        return signer.sign(tbs)
    except Exception as exc:
        log.warning("a key did not sign: %s: %s", type(exc).__name__, exc)
        return None
