"""Who has the store open: many at once, or a restore, which puts another in its place.

A command that went on with the replaced database would record revocations where nobody looks, and its end
would take the new one's log away.
Knows: a lock file in the installation's folder, which the system lets go of with the process.
Does not know: the store, nor who serves (``supervisor``).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from certstatus.errors import StoreAway, StoreError

_NAME = "store-use"


@contextmanager
def using_store(state: Path) -> Iterator[None]:
    """Have the store open together with others.  Raises: StoreAway — it is being restored."""
    if not state.is_dir():
        # Nothing is there that could be replaced; whoever opens it says so better.
        yield
        return
    with _locked(state, fcntl.LOCK_SH, StoreAway(f"{state}: being restored; try again when that has ended")):
        yield


@contextmanager
def replacing_store(state: Path) -> Iterator[None]:
    """Have it alone.  Raises: StoreError — somebody has it open."""
    busy = f"{state}: the store is in use by another command (or what `serve` left behind); let it end first"
    with _locked(state, fcntl.LOCK_EX, StoreError(busy)):
        yield


@contextmanager
def _locked(state: Path, how: int, refusal: StoreError) -> Iterator[None]:
    descriptor = os.open(state / _NAME, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, how | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise refusal from exc
        yield
    finally:
        os.close(descriptor)
