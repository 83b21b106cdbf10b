"""What a client is here: something that is asked about certificates and says what it was told.

Knows: questions, verdicts, and how a client's own words become one.  The verdicts:
``good`` and ``revoked`` are believed; ``unknown`` is the signed answer; ``unauthorized`` and ``tryLater``
are the unsigned ones; ``expired`` is said by the client without us; ``good by CRL``: OCSP was no use to
it, and a CRL was; ``no status``: it would go on without; ``refused``: it would not; ``no staple``: the TLS
server had nothing for it; ``accepted``: it went on, and does not say what was stapled.
Does not know: any client.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from interop_ca import CA
from interop_world import World

TIME_MAX_S = 60.0
Patterns = Sequence[tuple[str, str]]


class Question(NamedTuple):
    """One certificate of one CA."""

    ca: CA
    case: str

    @property
    def leaf(self) -> Path:
        """The certificate asked about."""
        return self.ca.leaf(self.case)

    @property
    def anchor(self) -> Path:
        """The CA certificate that the asker trusts."""
        return self.ca.anchor(self.case)


class Answer(NamedTuple):
    """What a client made of it, and its own words."""

    verdict: str
    said: str


@dataclass(frozen=True, slots=True)
class Client:
    """A client by name; ``ask`` answers each question in turn."""

    name: str
    ask: Callable[[World, list[Question]], list[Answer]]


def one_by_one(ask: Callable[[World, Question], Answer]) -> Callable[[World, list[Question]], list[Answer]]:
    """Make of a client that is asked one thing at a time one that is asked many."""
    return lambda world, questions: [ask(world, question) for question in questions]


def run(*words: str | Path, given: str | None = None) -> str:
    """Run a command and return all it says, on both channels, and its exit code in the last line."""
    done = subprocess.run(
        [str(word) for word in words],
        input=given,
        stdin=subprocess.DEVNULL if given is None else None,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        timeout=TIME_MAX_S,
    )
    return f"{done.stdout}{done.stderr}\nexit {done.returncode}\n"


def judge(said: str, patterns: Patterns) -> Answer:
    """Return the verdict of the first pattern found in *said*; ``refused`` if none is."""
    for pattern, verdict in patterns:
        if re.search(pattern, said, re.DOTALL):
            return Answer(verdict, said)
    return Answer("refused", said)
