"""The signing desk: so many signatures now, the others in a queue, slow keys on threads.

Knows: a fast key (P-256, about 25 µs) signs in the event loop, within a budget for each turn of
it, so that reading, hot answers and the follower never wait behind a flood of cold ones; a
slow key (RSA 340 µs, P-384 170 µs) signs on a few threads, where OpenSSL works without the
interpreter's lock (measured: two threads sign twice as much).  Both queues share one bound.
Does not know: what is signed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from certstatus import clock
from certstatus.errors import Overloaded
from certstatus.pkcs11_key import TokenECKey
from responder.keys import Signer
from responder.signing_threads import SigningThreads

_FAST = "p256"


def is_fast(signer: Signer) -> bool:
    """Say whether *signer* signs within some tens of microseconds; a key in a token never does."""
    return signer.key_algorithm == _FAST and not isinstance(signer.key, TokenECKey)


class SigningDesk:
    """Where all signatures of a worker are made.

    queue_max   jobs waiting or on threads; one more raises Overloaded
    budget_s    time for signing in one turn of the loop
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
        self._queue: deque[Callable[[], None]] = deque()
        self._spent_s = 0.0
        self._turn_is_due = False

    @property
    def waiting(self) -> int:
        """Jobs in the queue or on threads."""
        return len(self._queue) + self._on_threads

    def has_time(self) -> bool:
        """Say whether a fast signature may be made right now, before anything that waits."""
        return not self._queue and self._spent_s < self.budget_s

    def sign(self, signer: Signer, tbs: bytes) -> bytes:
        """Return the signature over *tbs*, made here and now, at this turn's cost."""
        started_s = self._monotonic_s()
        signature = signer.sign(tbs)
        self._spent_s += self._monotonic_s() - started_s
        self.signatures += 1
        self._expect_turn()
        return signature

    def wait_in_line(self, job: Callable[[], None]) -> None:
        """Run *job* in a turn that has time for it.  Raises: Overloaded — the queue is full."""
        self._check_room()
        self._queue.append(job)
        self._expect_turn()

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
        self._threads.close()

    def _check_room(self) -> None:
        if self.waiting >= self.queue_max:
            raise Overloaded(f"{self.waiting} signatures wait, at most {self.queue_max}")

    def _expect_turn(self) -> None:
        if not self._turn_is_due:
            self._turn_is_due = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        """Begin a new turn's budget with what waits."""
        self._turn_is_due = False
        self._spent_s = 0.0
        queue = self._queue
        until_s = self._monotonic_s() + self.budget_s
        while queue:
            queue.popleft()()
            # By the clock, not by the signatures: a job that is refused takes time as well.
            if self._monotonic_s() >= until_s:
                self._spent_s = self.budget_s
                break
        if queue:
            self._expect_turn()
