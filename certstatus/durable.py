"""Writing a file so that after a crash it is there whole, or not at all.

Knows: write to a neighbour, fsync it, rename over the name, fsync the folder.  A reader
never sees half a file, and once the call returns the new content survives power loss.
Does not know: what the bytes mean.
"""

from __future__ import annotations

import os
from pathlib import Path


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
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
