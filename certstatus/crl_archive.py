"""Reading the archive of complete CRLs: packs by day, found by scope and number, or by time.

Knows: that a scope's numbers and times of publication rise from day to day, so a CRL is found by
halving; that a pack which cannot be read keeps its own CRLs from being found and no others.
Does not know: who writes it (``publisher.crl_archive``), SQL, or what CRLs say; whoever reads one compares
it with the hash in its row.
Source: Act arts. 16, 35.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from certstatus.crl_pack import (
    HEADER_BYTES,
    ROW_BYTES,
    ArchiveMark,
    PackedCRL,
    PackHeader,
    PackName,
    contents_file,
    parse_pack_name,
    read_contents,
    read_header,
    read_keys,
    read_rows,
)
from certstatus.errors import ArchiveDamaged

log = logging.getLogger(__name__)

INDEX_SUFFIX = ".idx"
PACK_SUFFIX = ".pack"


class ArchivedCRL(NamedTuple):
    """A CRL found in the archive: its row, and the file that holds its octets."""

    crl: PackedCRL
    pack: Path


class CRLArchive:
    """The archive in *folder*; a folder that is not there holds nothing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def names(self) -> list[PackName]:
        """Return the packs that have an index, by day and part."""
        try:
            files = os.listdir(self.folder)
        except FileNotFoundError:
            return []
        found = (
            parse_pack_name(file.removesuffix(INDEX_SUFFIX)) for file in files if file.endswith(INDEX_SUFFIX)
        )
        return sorted(name for name in found if name is not None)

    def index_path(self, name: PackName) -> Path:
        """Where a pack's index is."""
        return self.folder / f"{name}{INDEX_SUFFIX}"

    def pack_path(self, name: PackName) -> Path:
        """Where a pack is."""
        return self.folder / f"{name}{PACK_SUFFIX}"

    def header(self, name: PackName) -> PackHeader:
        """Return the head of a pack's index.  Raises: ArchiveDamaged; OSError."""
        with self.index_path(name).open("rb") as file:
            head = read_header(file.read(HEADER_BYTES))
        if head.name != name:
            raise ArchiveDamaged(f"{name}: its index is that of {head.name}")
        return head

    def rows(self, name: PackName) -> list[PackedCRL]:
        """Return the rows of a pack's index; none, with a word in the log, if there is nothing to read."""
        return read_rows(self._row_octets(name))

    def keys(self, name: PackName) -> frozenset[bytes]:
        """Return the keys of these rows, as ``crl_pack.key_of`` makes them."""
        return read_keys(self._row_octets(name))

    def _row_octets(self, name: PackName) -> bytes:
        try:
            octets = self.index_path(name).read_bytes()
            read_header(octets)
        except (OSError, ArchiveDamaged) as exc:
            log.error("CRL archive, %s: %s", name, exc)
            return b""
        return octets[HEADER_BYTES:]

    def find(self, path: str, issuer: bytes, number: int) -> ArchivedCRL | None:
        """Return the complete CRL of this scope, key and number, if it is retained."""
        days = self._days()
        low, high = 0, len(days) - 1
        while low <= high:
            middle = (low + high) // 2
            # A day on which the scope had no CRL says nothing: look at the ones after it.
            at, found = middle, self._of(days[middle], path, issuer)
            while not found and at < high:
                at += 1
                found = self._of(days[at], path, issuer)
            if not found or number < found[0].crl.number:
                high = middle - 1
            elif number > found[-1].crl.number:
                low = at + 1
            else:
                return next((item for item in found if item.crl.number == number), None)
        return None

    def newest_out(self, path: str, issuer: bytes, at_ms: int, not_before_day: int) -> ArchivedCRL | None:
        """Return the CRL of the highest number that was out at *at_ms* (POSIX ms).

        Takes:  the JST day before which nobody need look.
        """
        for names in reversed(self._days()):
            if names[0].day < not_before_day:
                return None
            out = [item for item in self._of(names, path, issuer) if 0 < item.crl.published_ms <= at_ms]
            if out:
                return out[-1]
        return None

    def everything(self) -> Iterator[ArchivedCRL]:
        """Yield all that is retained, pack by pack."""
        for name in self.names():
            for crl in self.rows(name):
                yield ArchivedCRL(crl, self.pack_path(name))

    def _days(self) -> list[list[PackName]]:
        return [list(names) for _, names in groupby(self.names(), key=lambda name: name.day)]

    def _of(self, names: list[PackName], path: str, issuer: bytes) -> list[ArchivedCRL]:
        """Return a scope's CRLs in all parts of a day, by rising number."""
        found = [
            ArchivedCRL(crl, self.pack_path(name))
            for name in names
            for crl in self.rows(name)
            if crl.path == path and crl.issuer == issuer
        ]
        return sorted(found, key=lambda item: item.crl.number)


class VouchedArchive(CRLArchive):
    """The archive as the CRL catalogue names it: nothing in the folder counts but what *mark* vouches for.

    For one thread at a time.
    Raises: FileNotFoundError — the archive is not on this host; ArchiveDamaged — another list there.
    """

    def __init__(self, folder: Path, mark: ArchiveMark) -> None:
        super().__init__(folder)
        sealed = read_contents((folder / contents_file(mark.contents)).read_bytes(), mark.contents)
        self._lines = {parse_pack_name(line.name): line for line in (*sealed, *mark.growing)}
        # What was wrong with an index, since somebody last looked for something.
        self._damage = ""

    def names(self) -> list[PackName]:
        return sorted(name for name in self._lines if name is not None)

    def find(self, path: str, issuer: bytes, number: int) -> ArchivedCRL | None:
        """Return the CRL, if it is retained.

        Raises: ArchiveDamaged — it was not found, and an index that may have it is not the one named.
        """
        self._damage = ""
        found = super().find(path, issuer, number)
        if found is None and self._damage:
            raise ArchiveDamaged(self._damage)
        return found

    def rows(self, name: PackName) -> list[PackedCRL]:
        """Return a pack's rows; none if they are not those that the catalogue names."""
        try:
            return read_rows(self._octets(name))
        except ArchiveDamaged as exc:
            self._damage = str(exc)
            return []

    def _octets(self, name: PackName) -> bytes:
        line = self._lines[name]
        try:
            with self.index_path(name).open("rb") as file:
                file.seek(HEADER_BYTES)
                octets = file.read(line.rows * ROW_BYTES)
        except OSError as exc:
            raise ArchiveDamaged(f"the index of {name}: {exc.strerror}") from exc
        if hashlib.sha256(octets).hexdigest() != line.rows_sha256:
            raise ArchiveDamaged(f"the index of {name} is not the one that the catalogue names")
        return octets
