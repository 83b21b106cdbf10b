"""The catalogue document from the register of CRLs: which files the hosts serve.

Knows: that a CRL is listed while it is the newest of its kind or inside its nextUpdate, and that
a complete one also while a listed delta names it as base; published anew only when that changed.
Does not know: what the files contain; they were checked before the register called them published.
Source: RFC 5280 §5.2.4 (a base stays fetchable); ``certstatus.crl_catalogue``.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable
from pathlib import Path

from certstatus.crl_catalogue import COMPLETE, DELTA, CatalogueEntry, catalogue_content
from certstatus.documents import encode_document
from issuance.crl_register import CRLRecord, Fence
from issuance.store import Now, Store
from publisher.crl_plan import IssuedCRL, next_issue_s
from publisher.crl_scopes import KINDS, CRLScope

log = logging.getLogger(__name__)

KIND = "crls"


def listed(records: Iterable[CRLRecord], now_s: int) -> list[CRLRecord]:
    """Return, of published CRLs of one scope, those that must be served at *now_s*."""
    published = list(records)
    newest = {kind: max((r.number for r in published if r.kind == kind), default=None) for kind in KINDS}
    kept = [
        record
        for record in published
        if record.number == newest[record.kind] or (record.next_update_s or 0) > now_s
    ]
    bases = {record.base_number for record in kept if record.base_number is not None}
    also = [
        record
        for record in published
        if record.kind == COMPLETE and record.number in bases and record not in kept
    ]
    return sorted(kept + also, key=lambda record: (record.number, record.kind))


def catalogue_entries(scope: CRLScope, records: list[CRLRecord]) -> list[CatalogueEntry]:
    """Return the catalogue's lines for a scope's listed CRLs."""
    newest: dict[str, CRLRecord | None] = {
        kind: max((r for r in records if r.kind == kind), key=lambda record: record.number, default=None)
        for kind in KINDS
    }
    next_s = _next_issue_s(scope, newest)
    return [
        CatalogueEntry(
            issuer_id=record.issuer_id,
            scope=record.scope,
            kind=record.kind,
            file=scope.file(record.kind, record.number),
            name=scope.url_name(record.kind),
            current=record is newest[record.kind],
            number=record.number,
            base_number=record.base_number,
            seq=record.seq,
            this_update_s=record.this_update_s,
            next_update_s=record.next_update_s or 0,
            next_issue_s=next_s[record.kind] if record is newest[record.kind] else record.next_update_s or 0,
            size=record.size or 0,
            sha256=(record.sha256 or b"").hex(),
        )
        for record in records
    ]


def _next_issue_s(scope: CRLScope, newest: dict[str, CRLRecord | None]) -> dict[str, int]:
    """Return, by kind, when the newest one's successor is due."""
    complete, delta = newest[COMPLETE], newest[DELTA]
    if complete is None:
        # Then one is due at once, and a delta with it.
        return dict.fromkeys(KINDS, 0)
    complete_s, delta_s = next_issue_s(
        scope.issuer.policy, issued(complete), None if delta is None else issued(delta)
    )
    return {COMPLETE: complete_s, DELTA: delta_s}


def issued(record: CRLRecord) -> IssuedCRL:
    """Return a published CRL as the plan sees it."""
    return IssuedCRL(record.number, record.seq, record.this_update_s, record.next_update_s or 0)


def publish_catalogue(store: Store, entries: list[CatalogueEntry], fence: Fence, now: Now) -> bool:
    """Publish the catalogue if it differs from the published one; say whether it did.

    Its generation is the time of a cut of its own, which is later than that of every CRL in it.
    """
    found = store.publication(KIND)
    if found is not None and found.body is not None:
        before = json.loads(found.body)
        if before == json.loads(encode_document(catalogue_content(found.generation, entries))):
            return False
    generation = store.cut(now).time_ms
    body = encode_document(catalogue_content(generation, entries))
    store.publish(KIND, generation, hashlib.sha256(body).digest(), body, fence)
    log.info("CRL catalogue %d: %d files", generation, len(entries))
    return True


def remove_unlisted(folder: Path, scope: CRLScope, kept: Iterable[CRLRecord]) -> list[Path]:
    """Remove the scope's files that are not among *kept*; return which.

    So go expired CRLs (the archive has the complete ones), and what a killed publisher left.
    """
    names = {Path(scope.file(record.kind, record.number)).name for record in kept}
    place = folder / scope.path
    if not place.is_dir():
        return []
    removed = [path for path in sorted(place.iterdir()) if path.name not in names]
    for path in removed:
        path.unlink(missing_ok=True)
    return removed
