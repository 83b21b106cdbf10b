"""A process that shares the server's processor and has nothing to do with it.

    python -m bench.neighbour memory | interpreter

It wakes about as often as two busy workers take turns, and does one thing: overwrite what the nearer caches
hold, or run Python of many kinds, which takes the processor's memory of where a program goes next.  What
that costs a worker is the price of sharing a processor, whatever one worker may have in common with another.
Knows: this.  Does not know: what is measured beside it.
"""

from __future__ import annotations

import difflib
import email
import fractions
import subprocess
import sys
import textwrap
import time
import urllib.parse
from collections.abc import Callable
from types import TracebackType
from typing import Self

from bench.own_process import put_down

MEMORY, INTERPRETER = "memory", "interpreter"
_REST_S = 0.0016
_WORK_S = 0.0003
# Twice the cache that a processor has for itself on the machines that this was made for.
_OCTETS = 2 << 20


class Neighbour:
    """One of *kind* on *processor*, while the context lasts."""

    def __init__(self, kind: str, processor: int) -> None:
        self._command = ["taskset", "-c", str(processor), sys.executable, "-m", "bench.neighbour", kind]

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        if self.process.stdout.readline() != "here\n":
            put_down(self.process)
            raise RuntimeError("the neighbour did not come up")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        ended = self.process.poll()
        put_down(self.process)
        if ended is not None and kind is None:
            raise RuntimeError(f"the neighbour ended meanwhile, with exit code {ended}")


def overwriting() -> Callable[[], None]:
    """Return what overwrites some megabytes."""
    kept, other = bytearray(_OCTETS), bytes(_OCTETS)

    def overwrite() -> None:
        kept[:] = other

    return overwrite


def interpret() -> None:
    """Run interpreted code of many kinds for a third of a millisecond."""
    until_s, number = time.perf_counter() + _WORK_S, 0
    while time.perf_counter() < until_s:
        number += 1
        urllib.parse.urlsplit(urllib.parse.quote(f"/path/{number}/ä?q={number}"))
        textwrap.wrap(f"words to be broken where a line is full, for the {number}th time", 20)
        difflib.SequenceMatcher(None, f"one {number}", f"other {number}").ratio()
        email.message_from_string(f"From: a\nTo: b\n\nhello {number}")
        fractions.Fraction(number, 7).limit_denominator(5)


def main() -> None:
    """Disturb until killed."""
    disturb = {MEMORY: overwriting, INTERPRETER: lambda: interpret}[sys.argv[1]]()
    disturb()
    print("here", flush=True)
    while True:
        time.sleep(_REST_S)
        disturb()


if __name__ == "__main__":
    main()
