"""Published complete CRLs read back from their files: once whole, and then remembered by their digests.

Knows: that a file is read whole, its SHA-256 compared with the register's and its entries summed up, when it
is published (by who makes it) and when this process needs it for the first time (a start, ``publish now``),
and that this stands for as long as it is the same file: device, inode, size and time of writing are looked
at each time.  Every host that serves it hashes it again, and so does the archive.  A disk that loses octets
changes none of these: where something made of a file does not fit, it is read whole again (``distrust``).
Does not know: what a list should be (``crl_lists``).
Source: RFC 5280 §5.2.4 (a delta's base, whose scope must be the same).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from certstatus.crl_rows import DIGEST_END, Rows, digest_of
from certstatus.crl_stream_decode import CRLFile
from certstatus.errors import DERError, IntegrityError
from certstatus.file_identity import FileIdentity, identity_of
from issuance.crl_register import CRLRecord
from publisher.crl_make import CheckedCRL
from publisher.crl_scopes import CRLScope
from publisher.crl_shelf import CRLShelf


class _Known(NamedTuple):
    """A file that was read whole, and the digest of the rows that its bytes say."""

    file: FileIdentity
    sha256: bytes
    idp_der: bytes | None
    digest: int


class PublishedBytes:
    """What the published complete CRLs of one installation say, by their bytes."""

    def __init__(self, shelf: CRLShelf) -> None:
        self._shelf = shelf
        # By scope path and number.
        self._known: dict[str, dict[int, _Known]] = {}

    def note(self, scope: CRLScope, number: int, path: Path, checked: CheckedCRL) -> None:
        """Remember a file that was just read and checked, whatever it will be called."""
        known = _Known(identity_of(path), checked.sha256, scope.idp_der, checked.digest)
        self._known.setdefault(scope.path, {})[number] = known

    def forget_others(self, scope: CRLScope, numbers: set[int]) -> None:
        """Remember none of a scope but *numbers*."""
        known = self._known.get(scope.path, {})
        self._known[scope.path] = {number: known[number] for number in known.keys() & numbers}

    def distrust(self, scope: CRLScope) -> None:
        """Read the scope's files whole again before they are believed."""
        self._known.pop(scope.path, None)

    def digest(self, scope: CRLScope, record: CRLRecord) -> int:
        """Return the digest of the rows in a complete CRL's bytes.

        Raises: IntegrityError — the file has not the registered bytes, or is of a scope of another name (an
                earlier version's); it is put out of the way, so that the next attempt does without it.
        """
        path = self._shelf.path(scope, record.kind, record.number)
        known = self._known.get(scope.path, {}).get(record.number)
        if known is None or known[:3] != (identity_of(path), record.sha256, scope.idp_der):
            known = self._known.setdefault(scope.path, {})[record.number] = _read(path)
        if known.sha256 != record.sha256:
            path.rename(path.with_name(f".{path.name}.damaged"))
            raise IntegrityError(f"{path}: another SHA-256 than the register's")
        if known.idp_der != scope.idp_der:
            # No base for a delta, whose scope must be the same (RFC 5280 §5.2.4).
            path.rename(path.with_name(f".{path.name}.other-scope"))
            raise IntegrityError(f"{path}: another issuing distribution point than its scope's")
        return known.digest

    def rows(self, scope: CRLScope, record: CRLRecord) -> Iterator[Rows]:
        """Yield the entries of a complete CRL, block by block; raises as ``digest``."""
        self.digest(scope, record)
        with CRLFile(self._shelf.path(scope, record.kind, record.number)) as crl:
            yield from crl.rows()


def _read(path: Path) -> _Known:
    """Read a file whole.  What is no CRL has an SHA-256, too, and nobody's distribution point."""
    found = identity_of(path)
    try:
        with CRLFile(path) as crl:
            reading, digest = crl.reading(), 0
            for rows in reading.rows():
                digest = (digest + digest_of(rows)) % DIGEST_END
            return _Known(found, reading.digests().whole, crl.head.idp_der, digest)
    except DERError:
        with path.open("rb") as file:
            return _Known(found, hashlib.file_digest(file, "sha256").digest(), b"", 0)
