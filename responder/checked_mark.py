"""A mark that a file has been read and found whole, so that not every worker reads it again.

Reading and hashing a snapshot of 100 million certificates takes a worker longer than all the rest of
its start.  The mark stands beside the file and says which file, down to what changes with any writing
to it (inode, size, mtime, ctime; nobody can set a ctime), which manifest it agreed with, and in which
run of the machine: after a restart of it everything is read again, because then what lies on the disk
need not be what was in memory.
Only a mark and a file of the service account's own count that nobody else may write.  Whoever can write
there can replace this program, too, so the mark opens nothing.
Not noticed, with the mark or without: a disk that gives other octets when pages are read again later.

Knows: making and believing marks.  Does not know: what whole means.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

from certstatus.durable import write_durable
from certstatus.processes import boot_id

MARK_SUFFIX = ".checked"


def identity(descriptor: int) -> tuple[int, ...]:
    """Return what tells an open file from every other, and from itself before any writing to it."""
    found = os.fstat(descriptor)
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def is_marked(path: Path, descriptor: int, manifest_sha256: bytes) -> bool:
    """Say whether the file open at *descriptor*, at *path*, was found to agree with this manifest."""
    if not _is_ours(os.fstat(descriptor)):
        return False
    try:
        mark = os.open(path.with_suffix(MARK_SUFFIX), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        content = _content(descriptor, manifest_sha256)
        return bool(content) and _is_ours(os.fstat(mark)) and os.read(mark, 4096) == content
    finally:
        os.close(mark)


def mark(path: Path, descriptor: int, manifest_sha256: bytes) -> None:
    """Note that the file open at *descriptor*, at *path*, agrees with this manifest.

    The caller has made sure that its ``identity`` is the same after reading it as before.
    Where the system does not say which run of it this is, nothing is noted.
    """
    if content := _content(descriptor, manifest_sha256):
        write_durable(path.with_suffix(MARK_SUFFIX), content)


def _is_ours(found: os.stat_result) -> bool:
    return stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022


def _content(descriptor: int, manifest_sha256: bytes) -> bytes:
    if not (boot := boot_id()):
        return b""
    parts = {
        "boot": boot,
        "file": identity(descriptor),
        "manifest": manifest_sha256.hex(),
    }
    return json.dumps(parts).encode()
