"""CRL files opened only if their bytes are those that the catalogue names.

::

    open ─▶ size ─▶ the bytes that had the hash before? ─▶ given
                               └▶ no: read whole, off the loop, once for all who wait for it

Knows: that, of files and of CRLs in a pack.  Does not know: who may have one, or how it is sent
(``crl_files``).
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

from certstatus.crl_catalogue import CatalogueEntry
from certstatus.file_identity import FileIdentity, identity_of

log = logging.getLogger(__name__)

_CHECKED_MAX = 4096
_HASH_BLOCK = 1 << 20


class OpenedCRL(NamedTuple):
    """An open file, and where in it the CRL begins."""

    descriptor: int
    offset: int


class CheckedCRLs:
    """The CRL files in *folder*, for one event loop."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # Files whose hash was right, least recently used first; and those being hashed.
        self._checked: OrderedDict[tuple[str, str], FileIdentity] = OrderedDict()
        self._checking: dict[tuple[str, str], asyncio.Task[bool]] = {}

    async def open(self, entry: CatalogueEntry, place: tuple[Path, int] | None) -> OpenedCRL | None:
        """Return the open file if its bytes are those the catalogue names, else None; the caller closes it.

        Takes:  the pack that holds the bytes, and from where on, unless they have a file of their own.
        """
        key = (entry.file, entry.sha256)
        path, offset = (self._folder / entry.file, 0) if place is None else place
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as exc:
            log.warning("CRL %s: %s", entry.file, exc.strerror)
            return None
        opened = OpenedCRL(descriptor, offset)
        identity = identity_of(descriptor)
        is_there = identity.size == entry.size if place is None else identity.size >= offset + entry.size
        if not is_there:
            log.error("CRL %s: %d bytes, the catalogue says %d", entry.file, identity.size, entry.size)
        if not is_there or (self._checked.get(key) != identity and not await self._check(entry, key, opened)):
            os.close(descriptor)
            return None
        self._checked[key] = identity
        self._checked.move_to_end(key)
        if len(self._checked) > _CHECKED_MAX:
            self._checked.popitem(last=False)
        return opened

    async def _check(self, entry: CatalogueEntry, key: tuple[str, str], opened: OpenedCRL) -> bool:
        task = self._checking.get(key)
        if task is None:
            # A descriptor of its own: this request may be gone before the file is read.
            own = OpenedCRL(os.dup(opened.descriptor), opened.offset)
            task = asyncio.create_task(_has_hash(own, entry.size, entry.sha256))
            self._checking[key] = task
            task.add_done_callback(lambda _done: self._checking.pop(key, None))
        is_right = await asyncio.shield(task)
        if not is_right:
            log.error("CRL %s: its SHA-256 is not the one in the catalogue", entry.file)
        return is_right


async def _has_hash(opened: OpenedCRL, size: int, sha256: str) -> bool:
    """Say whether the *size* bytes there have this SHA-256 (hex); closes what is *opened*."""

    def hashed() -> str:
        digest = hashlib.sha256()
        at = 0
        # hashlib lets go of the interpreter for blocks of this size, so the loop runs on.
        while block := os.pread(opened.descriptor, min(_HASH_BLOCK, size - at), opened.offset + at):
            digest.update(block)
            at += len(block)
        return digest.hexdigest()

    try:
        return await asyncio.get_running_loop().run_in_executor(None, hashed) == sha256
    except OSError:
        return False
    finally:
        os.close(opened.descriptor)
