"""The octets of an archived CRL, compared with the hash that its row has."""

from __future__ import annotations

import hashlib

from certstatus.crl_archive import ArchivedCRL
from certstatus.errors import ArchiveDamaged


def read_archived(found: ArchivedCRL) -> bytes:
    try:
        with found.pack.open("rb") as file:
            file.seek(found.crl.offset)
            content = file.read(found.crl.size)
    except OSError as exc:
        raise ArchiveDamaged(f"{found.crl.file}: {exc}") from exc
    if hashlib.sha256(content).digest() != found.crl.sha256:
        raise ArchiveDamaged(f"{found.crl.file}: {found.pack.name} holds other octets than were archived")
    return content
