"""Whether everything that was answered was counted, for a verifier that is registered.

Knows: summing up the counter files of an installation, and the bounds between which the sum must have
grown: what was answered at least, what was sent at most.
Does not know: who sent it.  Source: ``certstatus.counters``.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

from bench.generator import Requests
from certstatus.counters import SUFFIX, Provision, read_counters

_GIVEN = (Provision.GOOD, Provision.REVOKED, Provision.UNKNOWN)
_NEVER = tuple(kind for kind in Provision if kind.name.startswith("REFUSED"))


class NotCounted(Exception):
    """The counters do not say what was sent and answered: then it was another path that was measured."""


@dataclass(frozen=True, slots=True)
class Count:
    """What the counters say: certificates given, requests refused."""

    given: int
    refused: int


class Tally:
    """The counter files in *folder*, also those that are gone since they were last looked at."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # Open, so that they can be read to their end after the host has removed them.
        self._files: dict[str, BinaryIO] = {}

    def read(self) -> Count:
        """Return what has been counted by now.

        Raises: NotCounted — something was given to somebody who is not registered.
        """
        for path in self._folder.glob(f"*{SUFFIX}"):
            if path.name not in self._files:
                with suppress(FileNotFoundError):
                    self._files[path.name] = path.open("rb")
        given = refused = 0
        for file in self._files.values():
            for cell in read_counters(Path(f"/proc/self/fd/{file.fileno()}")).cells:
                if cell.kind in _GIVEN:
                    given += cell.value
                    if not cell.verifier_id:
                        raise NotCounted("an answer was given to somebody who is not registered")
                elif cell.kind in _NEVER:
                    refused += cell.value
        return Count(given, refused)

    def close(self) -> None:
        """Look at no file any more."""
        for file in self._files.values():
            file.close()
        self._files.clear()


def check_counted(before: Count, after: Count, requests: Requests, sent: int, answered: int) -> None:
    """Check that *answered* to *sent* of *requests* were counted, and nothing refused.

    Raises: NotCounted.
    """
    if after.refused != before.refused:
        raise NotCounted(f"{after.refused - before.refused} requests were refused")
    sums = requests.certificates
    if sums is None:
        least, most = answered, sent
    else:
        most = sums[sent]
        # Whichever of those sent were not answered.
        least = most - (sent - answered) * max(b - a for a, b in pairwise(sums))
    if not least <= after.given - before.given <= most:
        raise NotCounted(f"{after.given - before.given} were counted, not {least} to {most}")
