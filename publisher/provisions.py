"""Taking over what the workers have counted: from Valkey into the store of record.

::

    stream ─▶ store.record_provisions (committed) ─▶ "done" by file UUID ─▶ entry deleted

Knows: the form of a report, and that a report is acknowledged only after the commit, with the
digest of exactly the cells that were committed: the host deletes a file only if its last cells have
that digest.  So a report may come twice or out of order, and a forged one can acknowledge nothing
that was not recorded.
Does not know: counter files (``certstatus.counters``); what the counts are used for.
Source: Act arts. 40, 41 (no provision may be missing from the ledger).
"""

from __future__ import annotations

import hashlib
import json
import logging
from typing import Any, NamedTuple

import redis

from certstatus.counters import Provision
from certstatus.errors import IntegrityError
from certstatus.feed_keys import FeedKeys
from issuance.provisions import ProvisionCell
from issuance.store import Store

log = logging.getLogger(__name__)

_FIELD = b"p"
REPORTS_AT_ONCE = 50
# Files come and go by the hour; when so many acknowledgements are kept, most are of files long deleted.
# A host whose file is still there reports it again, which changes nothing.
_DONE_MAX = 20_000


class Report(NamedTuple):
    """One counter file's cells, cumulative, as its host told them."""

    host: str
    file_uuid: str
    digest: str
    cells: list[ProvisionCell]


def read_report(text: bytes) -> Report:
    """Return the report in *text*.

    Raises: IntegrityError — not the JSON of a report, or cells that its digest is not of.
    """
    try:
        content = json.loads(text)
        host, file_uuid, digest = content["host"], content["uuid"], content["digest"]
        cells = [
            ProvisionCell(
                file_uuid, cell, verifier_id, issuer_id, Provision(kind).name.lower(), hour_s, value
            )
            for cell, verifier_id, issuer_id, kind, hour_s, value in content["cells"]
        ]
        canonical = json.dumps(content["cells"], separators=(",", ":")).encode()
    except (ValueError, KeyError, TypeError) as exc:
        raise IntegrityError(f"a report of provisions: {exc!r}") from exc
    numbers = [number for cell in content["cells"] for number in cell]
    if not all(type(text) is str for text in (host, file_uuid, digest)) or not all(
        type(number) is int and 0 <= number < 1 << 63 for number in numbers
    ):
        raise IntegrityError("a report of provisions: a member of the wrong kind")
    if hashlib.sha256(canonical).hexdigest() != digest:
        raise IntegrityError(f"a report of provisions: file {file_uuid}: its digest is not of its cells")
    return Report(host, file_uuid, digest, cells)


def drain(store: Store, valkey: redis.Redis, keys: FeedKeys) -> int:
    """Take over the reports that are waiting, at most REPORTS_AT_ONCE; return how many entries went.

    Raises: redis.RedisError, StoreError — what was not acknowledged is told again by its host.
    """
    client: Any = valkey
    entries = client.xrange(keys.provisions(), count=REPORTS_AT_ONCE)
    if not entries:
        return 0
    newest: dict[tuple[str, str], Report] = {}
    greatest: dict[tuple[str, int], ProvisionCell] = {}
    for entry_id, fields in entries:
        try:
            report = read_report(fields.get(_FIELD, b""))
        except IntegrityError as exc:
            log.warning("%s: %s", entry_id.decode(), exc)
            continue
        newest[report.host, report.file_uuid] = report
        for cell in report.cells:
            before = greatest.get((cell.file_uuid, cell.cell))
            if before is None or before.value < cell.value:
                greatest[cell.file_uuid, cell.cell] = cell
    reports = list(newest.values())
    if greatest:
        store.record_provisions(greatest.values())
    pipeline = client.pipeline(transaction=False)
    for report in reports:
        pipeline.hset(keys.provisions_done(report.host), report.file_uuid, report.digest)
    pipeline.xdel(keys.provisions(), *(entry_id for entry_id, _ in entries))
    pipeline.execute()
    for host in {report.host for report in reports}:
        if client.hlen(keys.provisions_done(host)) > _DONE_MAX:
            client.unlink(keys.provisions_done(host))
    return len(entries)
