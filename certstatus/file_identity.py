"""Which bytes a file holds, as far as that can be told without reading them.

For who has read a file whole once and will not do so again while it is the same.  Whoever writes to a file
and sets its time back deceives this; where that matters, ask for more (``responder.checked_mark``).
Knows: that.  Does not know: what the bytes should be.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple


class FileIdentity(NamedTuple):
    """Two files with the same one hold the same bytes, as far as anybody writes without deceit."""

    device: int
    inode: int
    size: int
    modified_ns: int


def identity_of(file: Path | int) -> FileIdentity:
    """Return that of a file by its path, or by a descriptor of it.  Raises: OSError."""
    found = os.stat(file)
    return FileIdentity(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
