"""Older complete CRLs, from the archive beside the served ones, by scope and number.

Knows: that nothing in that folder counts but what the CRL catalogue vouches for, and so a beat; that
a host without the folder has none; that looking takes a while, so it is done off the loop and one at
a time.
Does not know: who may have one, or how it is sent (``crl_files``).
Source: Act arts. 16, 35 (files that are retained are provided); RFC 5280 §5.2.3.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import NamedTuple

from certstatus.crl_archive import ArchivedCRL, VouchedArchive
from certstatus.crl_catalogue import COMPLETE, CatalogueEntry
from certstatus.crl_pack import ArchiveMark, issuer_mark
from certstatus.errors import ArchiveDamaged
from certstatus.issuer_table import Issuer
from responder.standing import Standing

# What a CRL is called by its number: service, generation, scope, number.
_NAME = re.compile(r"([a-z0-9]{1,32}/g[1-9][0-9]{0,8})/((?:[a-z0-9]+/)*[a-z0-9]+)/([1-9][0-9]{0,18})\.crl")


class Located(NamedTuple):
    """An archived CRL as the catalogue would have it, and where its octets are."""

    entry: CatalogueEntry
    pack: Path
    offset: int


class ArchivedCRLs:
    """The archive in *folder* as one worker reads it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._turn = asyncio.Lock()
        self._read: VouchedArchive | None = None
        self._read_mark: ArchiveMark | None = None

    async def find(self, mark: ArchiveMark, issuer: Issuer, path: str) -> Located | None:
        """Return the CRL called *path*, if it is retained.

        Raises: ArchiveDamaged — what is there is not what *mark* names, or not any more: a newer catalogue
                may name it; FileNotFoundError — the archive is not on this host.
        """
        name = _NAME.fullmatch(path)
        if name is None:
            return None
        scope_path, number = f"{name[1]}/{name[2]}", int(name[3])
        loop = asyncio.get_running_loop()
        async with self._turn:
            found = await loop.run_in_executor(
                None, self._find, mark, scope_path, issuer_mark(issuer.spki_der), number
            )
        if found is None:
            return None
        crl = found.crl
        entry = CatalogueEntry(
            issuer_id=issuer.issuer_id,
            scope=name[2],
            kind=COMPLETE,
            file=crl.file,
            name=f"{scope_path}/complete.crl",
            current=False,
            number=number,
            base_number=None,
            seq=crl.seq,
            this_update_s=crl.this_update_s,
            next_update_s=crl.next_update_s,
            next_issue_s=crl.next_update_s,
            size=crl.size,
            sha256=crl.sha256.hex(),
        )
        return Located(entry, found.pack, crl.offset)

    def _find(self, mark: ArchiveMark, path: str, issuer: bytes, number: int) -> ArchivedCRL | None:
        if self._read is None or self._read_mark != mark:
            try:
                self._read = VouchedArchive(self._folder, mark)
            except FileNotFoundError as exc:
                if self._folder.is_dir():
                    raise ArchiveDamaged("the list of packs that the catalogue names is not there") from exc
                raise
            self._read_mark = mark
        return self._read.find(path, issuer, number)


def issuer_named(standing: Standing, path: str) -> Issuer | None:
    """Return the issuer of the CRL that is called *path*, if that is the name of one by its number."""
    name = _NAME.fullmatch(path)
    if name is None:
        return None
    issuers = (served.issuer for served in standing.access.by_id.values())
    return next((issuer for issuer in issuers if issuer.path == name[1]), None)
