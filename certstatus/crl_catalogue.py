"""The CRL catalogue: which CRL files are current, and what each must be.

Knows: the document's shape.  A host serves a file only if its size and SHA-256 are those
that a verified beat vouches for, and only once the cut ``seq`` it was made at is applied.
Does not know: how CRLs are made or transferred.
Source: document kind ``crls``; RFC 5280 §5.2.3-5.2.4 (numbers and bases).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from certstatus.errors import FeedError

FORMAT = 2
COMPLETE = "complete"
DELTA = "delta"


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """One CRL file.

    ``file``: path below the CRL folder, e.g. ``sign/g1/all/12.crl``.  ``name``: the URL path
    below ``/crl/`` under which the newest of its kind is served (``sign/g1/all/complete.crl``);
    every file is also served under its own ``file`` path.  ``current``: is it that newest one.
    ``next_issue_s``: when the schedule has its successor made; nextUpdate for one that has a successor.
    """

    issuer_id: int
    scope: str
    kind: str
    file: str
    name: str
    current: bool
    number: int
    base_number: int | None
    seq: int
    this_update_s: int
    next_update_s: int
    next_issue_s: int
    size: int
    sha256: str


def catalogue_content(generation: int, entries: list[CatalogueEntry]) -> dict[str, Any]:
    """Return the document content for *entries*, to be encoded by ``documents``."""
    return {"format": FORMAT, "generation": generation, "crls": [asdict(entry) for entry in entries]}


def read_catalogue(content: dict[str, Any]) -> list[CatalogueEntry]:
    """Return the entries of an opened document.

    Raises: FeedError — another format, or a member missing or of the wrong form.
    """
    if content.get("format") != FORMAT:
        raise FeedError(f"CRL catalogue format {content.get('format')!r}, this version reads {FORMAT}")
    try:
        return [CatalogueEntry(**item) for item in content["crls"]]
    except (KeyError, TypeError) as exc:
        raise FeedError(f"CRL catalogue: {exc!r}") from exc
