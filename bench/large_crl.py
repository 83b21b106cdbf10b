"""A CRL of a nation's size, served by a demo that has a few thousand certificates.

::

    drawn rows ─▶ CRL, signed by the CA's key ─▶ register, catalogue ─▶ beat ─▶ workers serve it

Its entries stand in no register, so the publisher's next CRL of the scope would contradict it: the lease is
kept as long as it is served, and nothing else is published, tidied or archived meanwhile.  From the file on
everything is the product's: hashed and looked up by each worker, entitlement asked, transfers counted.
Knows: making it, waiting for workers to serve it.  Does not know: who pulls it.
"""

from __future__ import annotations

import hashlib
import http.client
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bench.crl_lists import draw_rows
from certstatus import clock
from certstatus.cli.context import Installation
from certstatus.crl_catalogue import COMPLETE
from certstatus.crl_rows import Rows
from certstatus.crl_rows_file import RowsFile, RowsHead, write_rows
from certstatus.durable import sync_folder
from issuance.crl_register import CRLKey, Fence, SignedCRL, WantedCRL
from publisher.crl_make import CRLHead, make_crl
from publisher.crl_publish import CRLPublisher, crl_lease
from publisher.crl_scopes import CRLFolders, CRLScope
from publisher.lease import held

SERVICE = "AUTH"
# Of the drawn rows: 16 octets of serial number, a date, a reason.
ENTRY_OCTETS = 49
_LEASE_WAIT_S = 60.0
_SERVED_S = 60.0
_LOOK_S = 0.2
_LIFE_S = 7 * clock.DAY_S


class LargeCRL(NamedTuple):
    """Its path below the responder's address, its octets and their SHA-256 (hex), its entries."""

    path: str
    size: int
    sha256: str
    entries: int


@contextmanager
def large_crl(installation: Installation, port: int, megabytes: int) -> Iterator[LargeCRL]:
    """Have a CRL of so many MB (10^6) published and served by whoever listens at *port*.

    Raises: LeaseHeld — the builder publishes all the time; RuntimeError — no worker serves it;
            OSError — no room: 1.7 times its size is needed.
    """
    store, state = installation.store, installation.config.state
    publisher = CRLPublisher(store, installation.ca_keys, state)
    # ``all`` comes first.
    scope = publisher.scopes_of(SERVICE)[0]
    listed = state / "large.cse"
    head = RowsHead(bytes(16), scope.issuer.issuer_id, 1, 1)
    entries = write_rows(listed, head, _drawn(megabytes * 1_000_000 // ENTRY_OCTETS)).rows
    with held(crl_lease(store), _LEASE_WAIT_S) as fence:
        crl = _register(installation, scope, listed, fence)
        listed.unlink()
        publisher.publish_catalogue(fence)
        made = crl._replace(entries=entries)
        _wait_until_served(port, made)
        yield made


def _drawn(entries: int) -> Iterator[Rows]:
    """Yield drawn rows, none revoked later than now."""
    now_s = clock.now_ms() // 1000
    for rows in draw_rows(entries):
        rows["revoked_at"] = np.minimum(rows["revoked_at"], now_s)
        yield rows


def _register(installation: Installation, scope: CRLScope, listed: Path, fence: Fence) -> LargeCRL:
    """Sign the CRL of the rows in *listed* under the scope's next number, and record it as published."""
    store, issuer_id = installation.store, scope.issuer.issuer_id
    (allocated,) = store.allocate_crls([WantedCRL(*scope.key, [COMPLETE])], fence, clock.now_ms)
    until_s = allocated.this_update_s + _LIFE_S
    file = scope.file(COMPLETE, allocated.number)
    path = CRLFolders(installation.config.state).crl / file
    head = CRLHead(allocated.number, None, allocated.this_update_s, until_s)
    with RowsFile(listed) as rows:
        make_crl(path, scope, head, rows, installation.ca_keys.private_key(issuer_id)).rename(path)
    sync_folder(path.parent)
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256")
    size = path.stat().st_size
    key = CRLKey(*scope.key, allocated.number, COMPLETE)
    store.record_crls([SignedCRL(key, None, until_s, digest.digest(), size)], fence)
    # By its number: the name of the newest could lead to another one later.
    return LargeCRL(f"/crl/{file}", size, digest.hexdigest(), 0)


def _wait_until_served(port: int, crl: LargeCRL) -> None:
    give_up_s = time.monotonic() + _SERVED_S
    while True:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=_SERVED_S)) as connection:
            connection.request("HEAD", crl.path)
            answer = connection.getresponse()
            said = answer.status, answer.headers["Content-Length"], answer.headers["ETag"]
        if said == (200, str(crl.size), f'"{crl.sha256}"'):
            return
        if time.monotonic() > give_up_s:
            raise RuntimeError(f"{crl.path} is not served: {said}")
        time.sleep(_LOOK_S)
