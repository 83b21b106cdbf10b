"""Lines of a CRL catalogue for tests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from certstatus.crl_catalogue import COMPLETE, DELTA, CatalogueEntry


def catalogue_line(
    path: str, number: int, at_s: int, *, base: int | None = None, **other: Any
) -> CatalogueEntry:
    """The CRL *number* of the scope *path* (``sign/g1/all``), a delta if it has a *base*, made at *at_s*:
    current, of issuer 1, good for a day and followed after half of one; *other* fields as given."""
    kind, ending = (COMPLETE, "crl") if base is None else (DELTA, "delta.crl")
    made = CatalogueEntry(
        issuer_id=1,
        scope=path.split("/", 2)[2],
        kind=kind,
        file=f"{path}/{number}.{ending}",
        name=f"{path}/{kind}.crl",
        current=True,
        number=number,
        base_number=base,
        seq=1,
        this_update_s=at_s,
        next_update_s=at_s + 86_400,
        next_issue_s=at_s + 43_200,
        size=1000,
        sha256=f"{number:064x}",
    )
    return replace(made, **other)
