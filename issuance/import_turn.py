"""Turns: of one CA, one import or one followed CRL at a time.

Two at once would each decide by what the register said before the other: the older CRL could release what
the newer one has just put on hold, or an import put its older dates in the place of newer ones.
Knows: a lock file per CA key in the installation's folder, which the system lets go of with the process.
Does not know: what is done in a turn; nor the store's own lock, which is held for single acts only.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from certstatus import clock
from certstatus.errors import LeaseHeld

_LOOK_EVERY_S = 0.05


@contextmanager
def turn_of(spki_der: bytes, folder: Path, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the turn of the CA with this key, waiting at most *wait_s*.

    Raises: LeaseHeld — somebody else still has it.
    """
    path = folder / f".importing-{hashlib.sha256(spki_der).hexdigest()[:16]}"
    until_s = clock.monotonic_s() + wait_s
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as exc:
                if clock.monotonic_s() >= until_s:
                    raise LeaseHeld(
                        "another import of this CA, or a CRL of its own, is being recorded"
                    ) from exc
                time.sleep(_LOOK_EVERY_S)
        # The file stays: somebody may be waiting for it by this name.
        yield
    finally:
        os.close(descriptor)
