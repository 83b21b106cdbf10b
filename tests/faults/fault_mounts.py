"""Mounts that nobody else sees: small disks, and files put over others.

Knows: a mount namespace of this process's own, so that every mount is gone with the last process of
the harness, however that ends; ``tmpfs`` of a given size; one file bound over another.
Does not know: what is kept there.
Needs root, or a kernel that lets a user make namespaces.  Source: mount_namespaces(7), mount(2).
"""

from __future__ import annotations

import ctypes
import errno
import os
from contextlib import suppress
from pathlib import Path

_CLONE_NEWNS, _CLONE_NEWUSER = 0x0002_0000, 0x1000_0000
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 0x4_0000
_MNT_DETACH = 2
_BALLAST = ".ballast"

_libc = ctypes.CDLL(None, use_errno=True)
_namespace: list[bool] = []


def enter_private_mounts() -> None:
    """Give this process and its children mounts of their own; once is enough.  Raises: OSError."""
    if _namespace:
        return
    flags = _CLONE_NEWNS
    if os.geteuid() != 0:
        flags |= _CLONE_NEWUSER
    user, group = os.geteuid(), os.getegid()
    _check(_libc.unshare(flags))
    if flags & _CLONE_NEWUSER:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    _mount(None, Path("/"), None, _MS_REC | _MS_PRIVATE, None)
    _namespace.append(True)


def bind_file(source: Path, over: Path) -> None:
    """Let *source* be seen where *over* is."""
    _mount(str(source), over, None, _MS_BIND, None)


def unmount(path: Path) -> None:
    """Take the topmost mount on *path* away, also while somebody uses it."""
    _check(_libc.umount2(os.fsencode(path), _MNT_DETACH))


def _mount(source: str | None, target: Path, kind: str | None, flags: int, options: str | None) -> None:
    words = [None if word is None else word.encode() for word in (source, kind, options)]
    _check(_libc.mount(words[0], os.fsencode(target), words[1], ctypes.c_ulong(flags), words[2]))


def _check(returned: int) -> None:
    if returned != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class SmallDisk:
    """A file system of a few MiB on *folder*, which can be filled to the last byte."""

    def __init__(self, folder: Path, size_mb: int) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder = folder
        _mount("tmpfs", folder, "tmpfs", 0, f"size={size_mb}m,mode=700")

    def fill(self) -> None:
        """Take every byte that is left."""
        with (self.folder / _BALLAST).open("ab", buffering=0) as ballast:
            size = 1 << 20
            while size:
                try:
                    ballast.write(bytes(size))
                except OSError as exc:
                    if exc.errno != errno.ENOSPC:
                        raise
                    size >>= 1

    def free(self) -> None:
        """Give the room back."""
        (self.folder / _BALLAST).unlink(missing_ok=True)

    def end(self) -> None:
        """Unmount it."""
        with suppress(OSError):
            unmount(self.folder)
