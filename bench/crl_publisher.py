"""What the publisher itself takes: all scopes of a nation, one revocation on request, a long list's delta.

Lists are written where the publisher keeps them, as if it had made CRLs of them before; the certificates on
them are in no register.  What changes after that is: a certificate of each scope, issued and revoked for
real.

Knows: setting up such installations, and timing the publisher's own way: ``publish_now``, as the command does
it, and ``CRLPublisher``, as the builder does.
Does not know: what must hold (``crl_steps``).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from bench.crl_lists import draw_rows
from certstatus import clock
from certstatus.changes import ChangeKind, fingerprint
from certstatus.config import Config, IssuerConfig, parse_config
from certstatus.crl_catalogue import COMPLETE, DELTA
from certstatus.crl_rows_file import RowsHead, write_rows
from issuance.ca_keys import CAKeyFolder
from issuance.crl_scopes import ensure_scope, new_names
from issuance.issuers import IssuerRecord, create_issuer, issuer_by_id
from issuance.store import Store
from publisher.crl_lists import LISTS_FOLDER
from publisher.crl_plan import Due
from publisher.crl_publish import CRLPublisher, crl_lease
from publisher.crl_scopes import CRLScope, scopes_of
from publisher.lease import held
from publisher.publish_now import PublishReport, publish_now

_INDEX_KEY = bytes(range(32))
_DAY_S = 86_400
_ISSUED_AT_ONCE = 200


class _Installation(NamedTuple):
    """A store with one issuer whose key is P-256."""

    config: Config
    store: Store
    issuer_id: int

    @property
    def issuer(self) -> IssuerRecord:
        return issuer_by_id(self.store, self.issuer_id)

    def issue(self, parts: list[str | None]) -> list[bytes]:
        """Issue a certificate into each of the partitions (None: into none), which are opened if need be."""
        issuer, serials = self.issuer, []
        for start in range(0, len(parts), _ISSUED_AT_ONCE):
            with self.store.writing(clock.now_ms) as act:
                for part in parts[start : start + _ISSUED_AT_ONCE]:
                    # Sixteen octets like those that are drawn, and below them all.
                    serial = b"\x01" + (act.seq + 1).to_bytes(15, "big")
                    names = None if part is None else new_names(issuer, part)
                    act.record(
                        ChangeKind.ISSUED,
                        issuer_id=self.issuer_id,
                        serial=serial,
                        fingerprint=fingerprint(serial, _INDEX_KEY),
                        not_after_s=act.time_ms // 1000 + 1000 * _DAY_S,
                        scope_id=None
                        if part is None or names is None
                        else ensure_scope(act, self.issuer_id, part, names).scope_id,
                    )
                    serials.append(serial)
        return serials

    def revoke(self, serials: list[bytes]) -> None:
        """Revoke certificates."""
        for start in range(0, len(serials), _ISSUED_AT_ONCE):
            with self.store.writing(clock.now_ms) as act:
                for serial in serials[start : start + _ISSUED_AT_ONCE]:
                    act.record(ChangeKind.REVOKED, issuer_id=self.issuer_id, serial=serial, reason=1)

    def keep_list(self, scope: CRLScope, rows: int) -> None:
        """Write a scope's list of so many rows where it is kept."""
        state = self.store.state()
        path = self.config.state / LISTS_FOLDER / scope.path / f"{state.seq}-{state.seq}.rows"
        path.parent.mkdir(parents=True)
        head = RowsHead(state.epoch, self.issuer_id, scope.partition_id or 0, state.seq)
        write_rows(path, head, draw_rows(rows), durable=False)


@contextmanager
def _installation(folder: Path) -> Iterator[_Installation]:
    folder.mkdir()
    config = parse_config(
        {"installation": {"state": str(folder)}, "valkey": {"url": "unix:///nowhere"}}, "bench"
    )
    with Store.create(config.store_url, clock.now_ms()) as store:
        keys = CAKeyFolder(folder / "ca")
        keys.make_passphrase()
        issuer = create_issuer(store, keys, IssuerConfig(service="SIGN", key="p256"), clock.now_ms)
        yield _Installation(config, store, issuer.issuer_id)


def nation(folder: Path, scopes: int, entries: int) -> dict[str, Any]:
    """Complete CRLs of so many partitions with so many entries in all; again a moment later, with deltas,
    when one certificate of each has been revoked; then a delta of one of them on request.

    Gives: seconds; of ten requests the median, ms.  With catalogue and archive, without starting a process.
    """
    with _installation(folder) as place:
        parts = [f"n{scopes}/b{number}" for number in range(scopes)]
        serials = place.issue([*parts])
        spare = place.issue([parts[0]] * 10)
        by_name = {scope.name: scope for scope in scopes_of(place.store)}
        paths = [by_name[part].path for part in parts]
        for part in parts:
            place.keep_list(by_name[part], entries // scopes)
        first_s, first = _published(place, paths)
        place.revoke(serials)
        again_s, again = _published(place, paths)
        kinds = [item.kind for item in again.published]
        if (kinds.count(COMPLETE), kinds.count(DELTA)) != (scopes, scopes) or len(first.published) < scopes:
            raise ValueError(f"not all was published: {dict(again.failed)}")
        listed = sum(item.entries for item in again.published if item.kind == COMPLETE)
        if listed != (entries // scopes + 1) * scopes:
            raise ValueError(f"{listed} entries were published")
        took_ms = [_on_request(place, paths[0], serial) for serial in spare]
    return {
        "scopes": scopes,
        "entries": listed,
        "first_s": first_s,
        "publish_s": again_s,
        "on_request_ms": statistics.median(took_ms),
    }


def _published(place: _Installation, paths: list[str]) -> tuple[float, PublishReport]:
    began_s = time.perf_counter()
    report = publish_now(place.config, paths=paths, everything=True)
    return time.perf_counter() - began_s, report


def _on_request(place: _Installation, path: str, serial: bytes) -> float:
    """Revoke one, and publish a delta of its scope; return how long the publishing took, ms."""
    # What it took if it had to wait for another second is no work of the publisher's.
    time.sleep(1.1)
    place.revoke([serial])
    began_s = time.perf_counter()
    report = publish_now(place.config, paths=[path])
    took_ms = (time.perf_counter() - began_s) * 1000
    if [item.kind for item in report.published] != [DELTA]:
        raise ValueError(f"no delta was published: {report.failed}")
    return took_ms


def long_delta(folder: Path, entries: int, changes: int, rounds: int) -> dict[str, Any]:
    """A delta of so many changes over a base of so many entries, by a publisher that has run for a while.

    Gives: ms until it is registered, of the first and (median) of those after one revocation more each; the
           catalogue that names it is published after that.
    """
    with _installation(folder) as place:
        serials = place.issue([None] * (changes + rounds))
        (scope,) = scopes_of(place.store)
        place.keep_list(scope, entries)
        with held(crl_lease(place.store), wait_s=0) as fence:
            publisher = CRLPublisher(place.store, CAKeyFolder(place.config.state / "ca"), place.config.state)
            publisher.issue(scope, Due(True, False), fence)
            place.revoke(serials[:changes])
            took_ms = []
            for serial in [None, *serials[changes:]]:
                if serial is not None:
                    place.revoke([serial])
                time.sleep(1.1)
                began_s = time.perf_counter()
                (delta,) = publisher.make(scope, Due(False, True), fence)
                took_ms.append((time.perf_counter() - began_s) * 1000)
                publisher.finish([scope], fence)
            if (delta.kind, delta.entries) != (DELTA, len(serials)):
                raise ValueError("the delta says not what has changed")
    return {
        "base_entries": entries,
        "changes": changes,
        "first_ms": took_ms[0],
        "next_ms": statistics.median(took_ms[1:]),
    }
