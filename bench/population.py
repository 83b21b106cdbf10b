"""Whom to ask about: the certificates of one issuer, and what each should be answered.

Two forms.  A folder as ``certstatus demo`` writes it (``ca.pem``, ``population.csv`` with
``serial,status`` lines); or ``generated.json`` beside ``ca.pem``, for populations too large to
list: serial number *i* is a keyed hash of *i*, and every *n*-th certificate is revoked::

    {"count": 10000000, "key": "00ff..", "revoked_every": 10}

Knows: picking certificates, uniformly or by Zipf's law, and the expected status of each.
Does not know: requests or answers.
"""

from __future__ import annotations

import bisect
import csv
import hashlib
import itertools
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cryptography import x509

GOOD = "good"
REVOKED = "revoked"
UNKNOWN = "unknown"
# Beside the list: what was revoked since it was written (``revoked_meanwhile``).
REVOKED_LOG = "revoked.log"
SERIAL_OCTETS = 16
# How many ranks of a Zipf distribution are told apart; the rest is its tail, taken uniformly.
_ZIPF_RANKS = 100_000


class Members(Protocol):
    """The certificates by number, 0..len-1."""

    def __len__(self) -> int: ...

    def member(self, number: int) -> tuple[bytes, str]:
        """Return (serial content octets, expected status)."""
        ...


@dataclass(frozen=True, slots=True)
class Listed:
    """Members read from a list."""

    members: list[tuple[bytes, str]]

    def __len__(self) -> int:
        return len(self.members)

    def member(self, number: int) -> tuple[bytes, str]:
        """Return (serial content octets, expected status)."""
        return self.members[number]


@dataclass(frozen=True, slots=True)
class Generated:
    """Members made up from their numbers, the same ones on every machine."""

    count: int
    key: bytes
    revoked_every: int

    def __len__(self) -> int:
        return self.count

    def member(self, number: int) -> tuple[bytes, str]:
        """Return (serial content octets, expected status)."""
        revoked = bool(self.revoked_every) and number % self.revoked_every == 0
        return serial_of(number, self.key), REVOKED if revoked else GOOD


def serial_of(number: int, key: bytes) -> bytes:
    """Return the serial number of generated certificate *number*: 16 octets, positive, minimal."""
    octets = hashlib.blake2b(number.to_bytes(8, "big"), digest_size=SERIAL_OCTETS, key=key).digest()
    return bytes((octets[0] & 0x3F | 0x40,)) + octets[1:]


@dataclass(frozen=True, slots=True)
class Population:
    """The certificates of one issuer.  ``ca``: its certificate, under which answers are verified."""

    ca: x509.Certificate
    members: Members

    @classmethod
    def load(cls, folder: Path) -> Population:
        """Read a population folder.

        Raises: ValueError — not such a folder, with the file and line that are wrong.
        """
        try:
            ca = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
        except (OSError, ValueError) as exc:
            raise ValueError(f"{folder / 'ca.pem'}: expected a PEM certificate: {exc}") from exc
        generated = folder / "generated.json"
        return cls(ca, _read_generated(generated) if generated.exists() else _read_list(folder))

    def uniform(self, chance: random.Random) -> Iterator[tuple[bytes, str]]:
        """Yield members for ever, each as likely as any other."""
        count, member = len(self.members), self.members.member
        return (member(int(chance.random() * count)) for _ in itertools.repeat(None))

    def zipf(self, chance: random.Random, exponent: float = 1.0) -> Iterator[tuple[bytes, str]]:
        """Yield members for ever, the *k*-th most popular one 1/k**exponent as often as the first.

        Which ones are popular has nothing to do with their status.  A flattering distribution.
        """
        pick = zipf_numbers(len(self.members), chance, exponent)
        member = self.members.member
        return (member(pick()) for _ in itertools.repeat(None))


def zipf_numbers(count: int, chance: random.Random, exponent: float) -> Callable[[], int]:
    """Return a function that draws numbers 0..count-1 by Zipf's law, popularity in shuffled order."""
    ranks = min(count, _ZIPF_RANKS)
    sums = list(itertools.accumulate(1 / rank**exponent for rank in range(1, ranks + 1)))
    tail = sum(1 / rank**exponent for rank in range(ranks + 1, min(count, ranks * 10) + 1))
    total = sums[-1] + tail

    def pick() -> int:
        rank = bisect.bisect_left(sums, chance.random() * total)
        if rank >= ranks:
            rank = int(chance.random() * count)
        # A stride without common divisor with the count spreads the popular ones over all numbers.
        return rank * 2_654_435_761 % count

    return pick


def _read_list(folder: Path) -> Listed:
    file = folder / "population.csv"
    members = []
    try:
        with file.open(newline="", encoding="ascii") as stream:
            rows = csv.reader(stream)
            if next(rows, None) != ["serial", "status"]:
                raise ValueError(f"{file}, line 1: expected serial,status")
            for row in rows:
                try:
                    serial, status = row
                    if status not in (GOOD, REVOKED, UNKNOWN):
                        raise ValueError(status)
                    members.append((bytes.fromhex(serial), status))
                except ValueError as exc:
                    raise ValueError(
                        f"{file}, line {rows.line_num}: expected hex,good|revoked|unknown, found {row}"
                    ) from exc
    except OSError as exc:
        raise ValueError(f"{file}: {exc.strerror}") from exc
    if not members:
        raise ValueError(f"{file}: nobody in it")
    return Listed(members)


def _read_generated(file: Path) -> Generated:
    try:
        content = json.loads(file.read_text(encoding="ascii"))
        made = Generated(
            int(content["count"]), bytes.fromhex(content["key"]), int(content.get("revoked_every", 0))
        )
        if made.count < 1 or made.revoked_every < 0 or not 1 <= len(made.key) <= hashlib.blake2b.MAX_KEY_SIZE:
            raise ValueError("count, key or revoked_every out of range")
    except (OSError, KeyError, TypeError, ValueError) as exc:
        raise ValueError(f"{file}: {exc!r}") from exc
    return made
