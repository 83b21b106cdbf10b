"""Writing a file so that after a crash it is there whole, or not at all.

Knows: write to a neighbour, fsync it, rename over the name, fsync the folder.  A reader
never sees half a file, and once the call returns the new content survives power loss.
Does not know: what the bytes mean.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_SYNCED_AT_ONCE = 16


def write_durable(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Replace *path* by *content* atomically and durably; the folder must exist.

    Raises: OSError — disk full, no permission; *path* is then what it was before.
    """
    neighbour = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        descriptor = os.open(neighbour, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(neighbour, path)
    except BaseException:
        neighbour.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make names created, renamed or removed in *folder* survive power loss."""
    _sync(folder, os.O_DIRECTORY)


def sync_all(paths: Iterable[Path]) -> dict[Path, OSError]:
    """Make the content of many files, and the names in many folders, survive power loss.

    Several at a time, so that the file system writes its journal once for many: a tenth of what they take
    one after another.
    Gives: those that could not be, and why.
    """
    given = list(paths)
    with ThreadPoolExecutor(_SYNCED_AT_ONCE) as pool:
        troubles = pool.map(_trouble, given)
        return {path: trouble for path, trouble in zip(given, troubles, strict=True) if trouble is not None}


def _trouble(path: Path) -> OSError | None:
    try:
        _sync(path)
    except OSError as exc:
        return exc
    return None


def _sync(path: Path, flags: int = 0) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
