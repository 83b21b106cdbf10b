"""A worker's signers, kept as the key files are: read on a thread, taken over in the loop.

Reading takes 1 ms for each pair and whatever a token takes, finding out who may sign for whom a
verification for each new certificate; none of it in the loop, which only puts the finished set in place.
Readings may overlap, a slow one with one that was asked for later: each has a number, and one that
ends after a later one has been taken over is dropped.
Knows: when to read, what counts, and saying once what cannot be read.
Does not know: what is in the files (``keys``), or who else is reloaded (``worker``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from certstatus import clock
from certstatus.issuer_table import Issuer
from responder.keys import HostKeys, SignerSet, Unfit

log = logging.getLogger(__name__)

# Pairs that could not be read are tried again: what was wrong need not show in the folder.
AGAIN_S = 5.0
# One reading that hangs with its token leaves room for another.
_THREADS = 2

_Seen = tuple[tuple[str, int], ...]


class _Reading(NamedTuple):
    """What the folder looked like, and what was in it."""

    seen: _Seen
    signers: SignerSet


class KeyWatch:
    """The signers of one worker.  Everything but ``first`` and ``close``: in the loop.

    signers   what was taken over last
    default   the key algorithm that signs by default; the next reading goes by it
    """

    def __init__(
        self,
        keys: HostKeys,
        default: str,
        issuers: Callable[[], Iterable[Issuer]],
        take: Callable[[SignerSet], None],
        monotonic_s: Callable[[], float] = clock.monotonic_s,
    ) -> None:
        """*issuers*: who is served now.  *take*: puts a set in place of the one before."""
        self.signers = SignerSet()
        self.default = default
        self._keys = keys
        self._issuers = issuers
        self._take = take
        self._monotonic_s = monotonic_s
        self._threads = ThreadPoolExecutor(_THREADS, "keys")
        self._seen: _Seen = ()
        self._again_s = 0.0
        self._begun = 0
        self._taken = 0
        self._said: tuple[Unfit, ...] = ()

    def first(self) -> SignerSet:
        """Return what there is at the start; what cannot be read is named, and tried again by ``look``.

        Its issuer is told tryLater meanwhile, which is more than clients of a process that waits would be.
        """
        reading = self._read(self.default, self.signers)
        self._accept(reading)
        return reading.signers

    async def look(self) -> None:
        """Take over what has changed, if something has; called about once a second, one call at a time."""
        loop = asyncio.get_running_loop()
        seen = await loop.run_in_executor(self._threads, self._keys.look)
        is_due = bool(self.signers.unfit) and self._monotonic_s() >= self._again_s
        if seen != self._seen or is_due:
            await self.read()

    async def read(self) -> None:
        """Read everything anew and take it over, unless a later reading has been taken over meanwhile."""
        self._begun += 1
        number = self._begun
        loop = asyncio.get_running_loop()
        reading = await loop.run_in_executor(self._threads, self._read, self.default, self.signers)
        if number > self._taken:
            self._taken = number
            self._accept(reading)
            self._take(reading.signers)

    def close(self) -> None:
        """Read no more; a reading that hangs is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _read(self, default: str, before: SignerSet) -> _Reading:
        # Looked at first: what comes while it is read is seen by the next look.
        seen = self._keys.look()
        signers = self._keys.load(default, before)
        signers.prepare(self._issuers())
        return _Reading(seen, signers)

    def _accept(self, reading: _Reading) -> None:
        self._seen, self.signers = reading
        self._again_s = self._monotonic_s() + AGAIN_S
        unfit = reading.signers.unfit
        if unfit != self._said:
            for item in unfit:
                log.error("keys: %s", item.problem)
            self._said = unfit
