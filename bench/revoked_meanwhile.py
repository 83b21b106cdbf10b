"""What has been revoked since the population was written, by whoever revokes during a run.

The revoking process appends ``? serial`` before it asks for a revocation, and when that has been
acknowledged ``! serial seconds boot``: its monotonic clock, and which start of a machine that
belongs to.  Between the two both answers are right; after the second, good is wrong.  Read on
another machine (the file is followed there), a revocation counts from the moment it is read.
Knows: reading that file as it grows.  Does not know: who writes it.
"""

from __future__ import annotations

import time
from pathlib import Path

from certstatus.processes import boot_id


def this_boot() -> str:
    """Return the name of this machine's life since it was switched on, "-" where it has none."""
    return boot_id() or "-"


def asked_line(serial: bytes) -> str:
    """Return the line that says that *serial* is about to be revoked."""
    return f"? {serial.hex()}\n"


def acknowledged_line(serial: bytes) -> str:
    """Return the line that says that the revocation of *serial* has been acknowledged by now."""
    return f"! {serial.hex()} {time.perf_counter():.6f} {this_boot()}\n"


class RevokedMeanwhile:
    """The state of such a file; without one, nothing is revoked meanwhile."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._at = 0
        self._rest = b""
        self._asked: set[bytes] = set()
        self._boot = this_boot().encode("ascii")
        self.acknowledged: dict[bytes, float] = {}
        """Serial number: since when, by ``time.perf_counter``."""
        # When each number was asked about last and answered good: since the last reading, and before.
        self._good: dict[bytes, float] = {}
        self._good_before: dict[bytes, float] = {}

    def answered_good(self, serial: bytes, asked_s: float) -> None:
        """Remember that a question of *asked_s* was answered good, until the file has been read twice."""
        if self._file is not None:
            self._good[serial] = asked_s

    def read(self) -> list[bytes]:
        """Take in what was appended since.

        Returns: numbers answered good after an acknowledgement that was not known then.
        Raises: ValueError — a line that is none.
        """
        if self._file is None or not self._file.exists():
            return []
        late = []
        with self._file.open("rb") as stream:
            stream.seek(self._at)
            data = stream.read()
        self._at += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            try:
                mark, serial, *more = line.split()
                octets = bytes.fromhex(serial.decode("ascii"))
                if mark == b"!":
                    here = len(more) > 1 and more[1] == self._boot
                    self.acknowledged[octets] = float(more[0]) if here else time.perf_counter()
                elif mark != b"?":
                    raise ValueError(mark)
            except (IndexError, ValueError) as exc:
                raise ValueError(f"{self._file}: expected ? or ! and a serial number: {line!r}") from exc
            self._asked.add(octets)
            since_s = self.acknowledged.get(octets, float("inf"))
            if max(self._good.get(octets, 0.0), self._good_before.get(octets, 0.0)) > since_s:
                late.append(octets)
        self._good_before, self._good = self._good, {}
        return late

    def may_be(self, serial: bytes) -> bool:
        """Say whether a certificate of this number may be revoked by now."""
        if serial not in self._asked:
            self.read()
        return serial in self._asked

    def is_since_before(self, serial: bytes, monotonic_s: float) -> bool:
        """Say whether its revocation was acknowledged before *monotonic_s* (this machine's clock)."""
        return self.acknowledged.get(serial, float("inf")) < monotonic_s
