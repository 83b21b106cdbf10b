"""Partitions never gap nor overlap: whoever issues and revokes, and whoever publishes meanwhile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest
import sqlalchemy as sa
from ca_cases import make_issuing
from cryptography import x509
from partition_cases import issue_into

from certstatus import clock, oid
from certstatus.changes import ChangeKind
from certstatus.crl import ParsedCRL, parse_certificate_list
from certstatus.crl_combine import combine
from certstatus.crl_entry import CRLEntry
from certstatus.distribution_point import names_of_points, parse_issuing_distribution_point, point_names
from issuance import schema
from issuance.ca_keys import CAKeyFolder
from issuance.store import Store
from publisher.crl_plan import Due
from publisher.crl_publish import CRLPublisher, crl_lease
from publisher.lease import held

_HERE = Path(__file__).parent
_ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{_HERE.parents[1]}:{_HERE}"}
_PROCESSES = 3
_ACTS = 60


class Told(NamedTuple):
    """A certificate as its issuing process knows it."""

    scope: str
    is_revoked: bool


class Published(NamedTuple):
    """The lists of a scope."""

    complete: ParsedCRL
    delta: ParsedCRL


def _start(url: str, folder: Path, seed: int) -> subprocess.Popen[str]:
    command = [sys.executable, str(_HERE / "partition_writers.py"), url, str(folder), str(seed), str(_ACTS)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=_ENVIRONMENT)


def _publish(publisher: CRLPublisher, store: Store, want: Due) -> dict[str, list[ParsedCRL]]:
    """Publish every scope that there is; return the CRLs by the scope's path, complete before delta."""
    made: dict[str, list[ParsedCRL]] = {}
    with held(crl_lease(store), 30) as fence:
        for scope in publisher.scopes():
            for item in publisher.issue(scope, want, fence):
                made.setdefault(scope.path, []).append(parse_certificate_list(item.file.read_bytes()))
    return made


def _entries(crl: ParsedCRL) -> dict[bytes, CRLEntry]:
    return {entry.serial: entry for entry in crl.entries}


def _certificates(store: Store) -> dict[tuple[str, str], bytes]:
    """Return the points of all certificates, by service and number."""
    table, records = schema.certificate, schema.issue_record
    found = {}
    with store.reading() as connection:
        for row in connection.execute(
            sa.select(table.c.service, table.c.serial, records.c.certificate_der).join(
                records, records.c.issued_seq == table.c.issued_seq
            )
        ):
            points = (
                x509.load_der_x509_certificate(row.certificate_der)
                .extensions.get_extension_for_oid(x509.ObjectIdentifier(oid.CRL_DISTRIBUTION_POINTS))
                .value.public_bytes()
            )
            found[row.service, row.serial] = points
    return found


def _check_service(
    service: str, told: dict[tuple[str, str], Told], lists: dict[str, dict[bytes, CRLEntry]]
) -> None:
    """The partitions' lists have no entry in common, and are that of ``all`` together."""
    mine = {serial: item for (of, serial), item in told.items() if of == service}
    place = f"{service.lower()}/g1"
    whole = lists[f"{place}/all"]
    parts = {
        path: entries for path, entries in lists.items() if path.startswith(place) and "/all" not in path
    }
    assert {serial.hex() for serial in whole} == {serial for serial, item in mine.items() if item.is_revoked}
    if not parts:
        assert {item.scope for item in mine.values()} == {"all"}
        return
    assert set(parts) == {f"{place}/{item.scope}" for item in mine.values()}
    assert sum(len(entries) for entries in parts.values()) == len(whole)
    for path, entries in parts.items():
        for serial, entry in entries.items():
            assert whole[serial] == entry
            assert f"{place}/{mine[serial.hex()].scope}" == path


def _check_points(store: Store, told: dict[tuple[str, str], Told], crls: dict[str, ParsedCRL]) -> None:
    """A certificate's points have a name in common with the CRLs of its partition and of ``all``, alone."""
    names = {}
    for path, crl in crls.items():
        assert crl.idp_der is not None
        name_der = parse_issuing_distribution_point(crl.idp_der).name_der
        assert name_der is not None
        names[path] = point_names(name_der)
    for key, points_der in _certificates(store).items():
        service, _serial = key
        place = f"{service.lower()}/g1"
        matched = {
            path
            for path, of_crl in names.items()
            if path.startswith(place) and of_crl & names_of_points(points_der)
        }
        assert matched == {f"{place}/all", f"{place}/{told[key].scope}"}


def test_partitions_are_the_whole_and_have_nothing_in_common(
    store: Store, store_url: str, keys: CAKeyFolder, tmp_path: Path
) -> None:
    """Three processes issue and revoke while CRLs are published; then every list, complete and delta."""
    for service in ("SIGN", "AUTH", "CORP"):
        make_issuing(store, keys, service, clock.now_ms, partition_buckets=3)
    writers = [_start(store_url, keys.folder, seed) for seed in range(_PROCESSES)]
    publisher = CRLPublisher(store, keys, tmp_path)
    bases: dict[str, ParsedCRL] = {}
    while any(writer.poll() is None for writer in writers):
        # What is published in the middle of it must join with what comes at the end.
        for path, (complete, *_) in _publish(publisher, store, Due(True, False)).items():
            bases.setdefault(path, complete)
    told: dict[tuple[str, str], Told] = {}
    for writer in writers:
        output, _ = writer.communicate(timeout=60)
        assert writer.returncode == 0
        for service, serial, scope, revoked in json.loads(output):
            told[service, serial] = Told(scope, revoked)
    assert len({item.scope for item in told.values()}) == 4 + 3 + 1
    # Some opened only after the last round: their first complete CRL.
    _publish(publisher, store, Due(True, False))
    made = _publish(publisher, store, Due(True, True))
    last = {path: Published(*crls) for path, crls in made.items()}
    for service in ("SIGN", "AUTH", "CORP"):
        _check_service(service, told, {path: _entries(item.complete) for path, item in last.items()})
    _check_points(store, told, {path: item.complete for path, item in last.items()})
    assert set(bases) <= set(last)
    for path, item in last.items():
        assert item.complete.idp_der == item.delta.idp_der
        base = bases.get(path)
        if base is not None and (item.delta.base_number or 0) <= (base.number or 0):
            assert {entry.serial: entry for entry in combine(base, item.delta)} == _entries(item.complete)


@pytest.mark.parametrize("service", ["SIGN", "AUTH"])
def test_a_ca_key_event_lists_each_certificate_in_its_partition(
    store: Store, keys: CAKeyFolder, tmp_path: Path, service: str
) -> None:
    """Also those that were revoked before, under their own reason, and each once."""
    issuing = make_issuing(store, keys, service, clock.now_ms, partition_buckets=3)
    codes = ("13104", "13113", None) if service == "SIGN" else (None,)
    issued = [issue_into(store, issuing, codes[at % len(codes)], clock.now_ms) for at in range(12)]
    issuer_id = issuing.issuer.issuer_id
    with store.writing(clock.now_ms) as act:
        act.record(ChangeKind.REVOKED, issuer_id=issuer_id, serial=issued[0].serial, reason=1)
        act.record(ChangeKind.CA_KEY_EVENT, issuer_id=issuer_id)
    publisher = CRLPublisher(store, keys, tmp_path)
    made = _publish(publisher, store, Due(True, False))
    assert all(len(crls) == 1 for crls in made.values())
    lists = {path: _entries(crl) for path, (crl,) in made.items()}
    told = {(service, item.serial.hex()): Told(item.scope, True) for item in issued}
    _check_service(service, told, lists)
    reasons = [entry.reason for entry in lists[f"{service.lower()}/g1/all"].values()]
    assert Counter(reasons) == {1: 1, 2: 11}
