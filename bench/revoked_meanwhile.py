"""What has been revoked since the population file was written, by whoever revokes during a run.

The revoking process appends a line before it asks for a revocation (``? serial``) and one when
that has been acknowledged (``! serial monotonic-seconds``).  Between the two both answers are
right; after the second, good is wrong.
Knows: reading that file as it grows.  Does not know: who writes it (on this machine, or nobody).
"""

from __future__ import annotations

from pathlib import Path


class RevokedMeanwhile:
    """The state of such a file; without one, nothing is revoked meanwhile."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._at = 0
        self._rest = b""
        self._asked: set[bytes] = set()
        self._acknowledged: dict[bytes, float] = {}

    def read(self) -> None:
        """Take in what was appended since."""
        if self._file is None or not self._file.exists():
            return
        with self._file.open("rb") as stream:
            stream.seek(self._at)
            data = stream.read()
        self._at += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            mark, serial, *more = line.split()
            octets = bytes.fromhex(serial.decode("ascii"))
            self._asked.add(octets)
            if mark == b"!":
                self._acknowledged[octets] = float(more[0])

    def may_be(self, serial: bytes) -> bool:
        """Say whether a certificate of this number may be revoked by now."""
        if serial not in self._asked:
            self.read()
        return serial in self._asked

    def is_since_before(self, serial: bytes, monotonic_s: float) -> bool:
        """Say whether its revocation was acknowledged before *monotonic_s* (this machine's clock)."""
        return self._acknowledged.get(serial, float("inf")) < monotonic_s
