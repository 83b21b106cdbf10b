"""A snapshot from the store's rows: read page by page, written block by block.

Knows: which issuers have a section, turning rows into columns, saying how far it is.  Memory: one
page, however many certificates there are.
Does not know: when a snapshot is made from rows (``snapshots``: only when there is none to go on from).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import sqlalchemy as sa

from certstatus import clock
from certstatus.changes import NO_REASON, unpack_change
from certstatus.snapshot import GOOD, HELD, REVOKED, pack_meta
from certstatus.snapshot_writer import IssuerHead, RowBlock, new_snapshot
from issuance import schema
from issuance.history import IssuedRow
from issuance.schema import CertificateState
from issuance.store import Cut, Store

log = logging.getLogger(__name__)

ROWS_AT_ONCE = 20_000
_SAY_EVERY_S = 10.0
_STATES = {CertificateState.VALID: GOOD, CertificateState.REVOKED: REVOKED, CertificateState.HELD: HELD}


class Progress(NamedTuple):
    """How far a build is.  ``rows_total`` counts what was there when it began."""

    rows_done: int
    rows_total: int
    rows_per_s: float


class _Counter:
    """Counts rows, and says so now and then."""

    def __init__(self, total: int, say: Callable[[Progress], None], monotonic_s: Callable[[], float]) -> None:
        self._total = total
        self._say = say
        self._monotonic_s = monotonic_s
        self._began_s = monotonic_s()
        self._logged_s = self._began_s
        self._done = 0

    def add(self, rows: int) -> None:
        self._done += rows
        now_s = self._monotonic_s()
        progress = Progress(self._done, self._total, self._done / max(now_s - self._began_s, 1e-6))
        self._say(progress)
        if now_s - self._logged_s >= _SAY_EVERY_S:
            self._logged_s = now_s
            log.info("snapshot from the store: %d of %d rows, %.0f a second", *progress)


def write_from_store(
    path: Path,
    store: Store,
    cut: Cut,
    *,
    say: Callable[[Progress], None] = lambda _progress: None,
    monotonic_s: Callable[[], float] = clock.monotonic_s,
    rows_at_once: int = ROWS_AT_ONCE,
) -> None:
    """Write the snapshot of everything as it stood at *cut*, durably.

    Writers go on meanwhile.  *say* is called after every page.
    Raises: OSError — disk full; StoreError.  Nothing is left at *path* then.
    """
    counter = _Counter(count_rows(store), say, monotonic_s)
    issuers = issuer_heads(store, cut.seq)
    with new_snapshot(path, *cut, issuers) as writer:
        for issuer in issuers:
            for block in row_blocks(store, issuer.issuer_id, cut.seq, rows_at_once):
                writer.add(block)
                counter.add(len(block.hi))
            writer.end_issuer()


def count_rows(store: Store) -> int:
    """Return how many certificates the store has now."""
    with store.reading() as connection:
        found = connection.execute(sa.select(sa.func.count()).select_from(schema.certificate))
        count: int = found.scalar_one()
        return count


def issuer_heads(store: Store, seq: int) -> list[IssuerHead]:
    """Return every issuer that has issued by *seq*, with its CA-key event if that is not later."""
    table, certificates, changes = schema.issuer, schema.certificate, schema.change
    event = sa.and_(changes.c.seq == table.c.key_event_seq, changes.c.seq <= seq)
    with store.reading(repeatable=True) as connection:
        rows = connection.execute(
            sa.select(table.c.issuer_id, changes.c.packed)
            .select_from(table.outerjoin(changes, event))
            .where(
                sa.or_(
                    changes.c.seq.is_not(None),
                    sa.exists().where(
                        certificates.c.issuer_id == table.c.issuer_id, certificates.c.issued_seq <= seq
                    ),
                )
            )
            .order_by(table.c.issuer_id)
        ).all()
    return [IssuerHead(row.issuer_id, *_event(row.packed)) for row in rows]


def _event(packed: bytes | None) -> tuple[int, int]:
    if packed is None:
        return 0, 0
    change = unpack_change(packed)
    return change.reason, change.recorded_ms


def row_blocks(
    store: Store, issuer_id: int, seq: int, rows_at_once: int = ROWS_AT_ONCE
) -> Iterator[RowBlock]:
    """Yield an issuer's certificates as they stood at *seq*, by rising fingerprint."""
    rows = store.issued_rows(issuer_id, seq, rows_at_once)
    while page := list(islice(rows, rows_at_once)):
        yield _block(page)


def _block(rows: Sequence[IssuedRow]) -> RowBlock:
    fingerprints = np.frombuffer(
        b"".join(row.fingerprint for row in rows), dtype=np.dtype([("hi", ">u8"), ("lo", ">u4")])
    )
    hashes = [row.certificate_sha256 for row in rows]
    return RowBlock(
        fingerprints["hi"].astype(np.uint64),
        fingerprints["lo"].astype(np.uint32),
        np.fromiter(map(_meta, rows), dtype=np.uint32, count=len(rows)),
        np.fromiter((row.revoked_at_s for row in rows), dtype=np.uint32, count=len(rows)),
        np.fromiter(map(_invalidity_s, rows), dtype=np.uint32, count=len(rows)),
        hashes if any(hashes) else None,
    )


def _meta(row: IssuedRow) -> int:
    if row.state is CertificateState.VALID:
        return pack_meta(row.not_after_day, GOOD, NO_REASON)
    reason = NO_REASON if row.reason is None else row.reason
    return pack_meta(row.not_after_day, _STATES[row.state], reason)


def _invalidity_s(row: IssuedRow) -> int:
    return 0 if row.state is CertificateState.VALID else row.invalidity_s
