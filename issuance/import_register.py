"""The register of imported issuers: where each is revoked, and how far it has been taken over.

Knows: the rows of ``imported_issuer``: whether an import has ended, who revokes, and which CRL of the
CA's own was taken over last.
Does not know: files, issuers otherwise, or what an import does.
Source: RFC 5280 §5.2.3 (numbers go on rising), RFC 6960 §2.4 (thisUpdate: until when the status is known).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa

from issuance import schema
from issuance.database import insert

# Who revokes: this installation, or the CA by itself, whose CRLs are followed.
HERE = "here"
ELSEWHERE = "elsewhere"


@dataclass(frozen=True, slots=True)
class ImportedIssuer:
    """What is kept of an issuer that was another installation's before.

    ``is_ready``: False until an import has ended.  ``crl_*``: the newest CRL of the CA's own that was
    taken over (times POSIX s; the value of its IssuingDistributionPoint), None before the first.
    ``crl_url``, ``poll_period_s``: where and how often newer ones are fetched, None for not at all.
    """

    revocations: str
    is_ready: bool = False
    crl_number: int | None = None
    crl_this_update_s: int | None = None
    crl_next_update_s: int | None = None
    crl_sha256: bytes | None = None
    crl_idp_der: bytes | None = None
    crl_url: str | None = None
    poll_period_s: int | None = None


def read_imported(connection: sa.Connection) -> dict[int, ImportedIssuer]:
    """Return the imported issuers by issuer_id."""
    found = {}
    for row in connection.execute(sa.select(schema.imported_issuer)):
        values: dict[str, Any] = dict(row._mapping)
        issuer_id, ready, number = values.pop("issuer_id"), values.pop("ready"), values.pop("crl_number")
        found[issuer_id] = ImportedIssuer(
            is_ready=bool(ready), crl_number=None if number is None else int(number), **values
        )
    return found


def write_imported(connection: sa.Connection, issuer_id: int, imported: ImportedIssuer) -> None:
    """Put *imported* in the place of what is kept of the issuer; the caller holds the store's lock."""
    values = asdict(imported)
    values["ready"] = int(values.pop("is_ready"))
    number = values["crl_number"]
    values["crl_number"] = None if number is None else str(number)
    table = schema.imported_issuer
    connection.execute(
        insert(connection, table)
        .values(issuer_id=issuer_id, **values)
        .on_conflict_do_update(index_elements=["issuer_id"], set_=values)
    )
