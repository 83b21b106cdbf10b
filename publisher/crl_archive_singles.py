"""Archives of earlier versions, one file for each complete CRL: moved into packs, a few at a time.

Knows: where such files are, that one leaves only once its pack has it durably, and that one which is
not what the register (or, where that knows nothing of it, its own signature) says stays where it is.
Does not know: packs (``crl_archive``).
Source: Act arts. 16, 35.
"""

from __future__ import annotations

import logging
from pathlib import Path

from certstatus.clock import DAY_S
from certstatus.crl_pack import PackedCRL, issuer_mark
from certstatus.crl_stream_decode import CRLFile, is_signed_by
from certstatus.errors import ArchiveDamaged, DERError, IntegrityError
from publisher.crl_scopes import CRLScope
from publisher.crl_shelf import CRLShelf, numbered_files, packed

log = logging.getLogger(__name__)

FILES_AT_ONCE = 100


class SingleFiles:
    """The files of an earlier version's archive."""

    def __init__(self, shelf: CRLShelf) -> None:
        self._shelf = shelf
        # Said once.
        self._refused: set[Path] = set()

    def pack(self, scope: CRLScope, now_s: int) -> int:
        """Move at most ``FILES_AT_ONCE`` of the scope's files into packs; return how many are gone.

        Raises: OSError — disk full: what was moved so far is moved.
        """
        folder = self._shelf.folders.archive / scope.path
        now_s = self._shelf.writer.retention.limit(now_s)
        gone = 0
        for number, path in sorted(numbered_files(folder).items()):
            if gone == FILES_AT_ONCE:
                break
            if path in self._refused:
                continue
            try:
                row = self._row(scope, number, path)
                if row.next_update_s + scope.issuer.policy.crl_archive_days * DAY_S >= now_s:
                    self._shelf.writer.add(row, path)
            except (IntegrityError, DERError) as exc:
                log.error("CRL archive: %s stays as it is: %s", path, exc)
                self._refused.add(path)
                continue
            path.unlink()
            gone += 1
        return gone

    def _row(self, scope: CRLScope, number: int, path: Path) -> PackedCRL:
        record = self._shelf.published(scope, number)
        if record is not None:
            return packed(scope, record)
        # Published after the backup that the register comes from.
        with CRLFile(path) as crl:
            parsed, reading = crl.head, crl.reading()
            for _ in reading.rows():
                # To its end, so that what is no CRL is none in the archive either.
                pass
            digests = reading.digests()
        issuer = scope.issuer
        if parsed.number != number or parsed.base_number is not None or parsed.idp_der != scope.idp_der:
            raise ArchiveDamaged(f"complete CRL {parsed.number} of another scope or number")
        if not is_signed_by(parsed, digests.signed, issuer.spki_der):
            raise ArchiveDamaged("not signed by the issuer's key")
        return PackedCRL(
            path=scope.path,
            issuer=issuer_mark(issuer.spki_der),
            number=number,
            seq=0,
            offset=0,
            size=path.stat().st_size,
            this_update_s=parsed.this_update_s,
            next_update_s=parsed.next_update_s or parsed.this_update_s,
            published_ms=0,
            sha256=digests.whole,
        )
