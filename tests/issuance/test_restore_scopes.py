"""Partitions after a restore: their numbers, their names, and who was in them, from the published CRLs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from ca_cases import found, make_issuing
from partition_cases import issue_into, opened, points_of
from store_cases import START_MS
from test_backup import Installation, installation

from certstatus.crl import ParsedCRL, parse_certificate_list
from issuance.crl_scopes import close_scope
from issuance.issue import IssuedCertificate, Issuing
from issuance.issuers import issuer_by_id
from issuance.restore import CRL_NUMBER_GAP, restore
from issuance.revoke import revoke
from issuance.store import Store
from publisher.crl_plan import Due
from publisher.crl_publish import CRLPublisher, crl_lease
from publisher.lease import held

__all__ = ["installation"]
_CODES = {"SIGN": ("13104", "13113"), "AUTH": (None, None)}


class _Clock:
    def __init__(self) -> None:
        self.ms = START_MS

    def now_ms(self) -> int:
        return self.ms

    def pass_s(self, seconds: float) -> None:
        self.ms += int(seconds * 1000)


def _publish(installed: Installation, store: Store, clock: _Clock) -> dict[str, ParsedCRL]:
    """Publish a complete CRL of every scope; return them by path."""
    clock.pass_s(2)
    publisher = CRLPublisher(store, installed.keys, installed.state, now_ms=clock.now_ms, pause=clock.pass_s)
    made = {}
    with held(crl_lease(store, clock.now_ms), 0) as fence:
        for scope in publisher.scopes():
            for item in publisher.issue(scope, Due(True, False), fence):
                made[scope.path] = parse_certificate_list(item.file.read_bytes())
    return made


def _serials(crl: ParsedCRL) -> set[bytes]:
    return {entry.serial for entry in crl.entries}


@pytest.mark.parametrize("is_lost", [True, False], ids=["store lost", "store readable"])
@pytest.mark.parametrize("service", ["SIGN", "AUTH"])
def test_who_was_revoked_after_the_backup_is_in_its_partition_again(
    installation: Installation, tmp_path: Path, service: str, is_lost: bool
) -> None:
    """Also in one that the backup does not know; its CRLs go on under their name, with higher numbers."""
    store, clock = installation.store, _Clock()
    issuing = make_issuing(store, installation.keys, service, partition_buckets=64)
    known, new = _CODES[service]
    first = issue_into(store, issuing, known, clock.now_ms)
    _publish(installation, store, clock)
    path = installation.backup()
    second = _issue_elsewhere(store, issuing, new, clock, first)
    for issued in (first, second):
        revoke(store, found(issuing, issued), clock.now_ms, reason=1)
    before = _publish(installation, store, clock)
    place = f"{service.lower()}/g1"
    assert _serials(before[f"{place}/{second.scope}"]) == {second.serial}
    state = installation.state
    if is_lost:
        # Nothing is left of what happened since but the CRLs, collected from wherever they were.
        store.close()
        collected = tmp_path / "collected"
        collected.mkdir()
        for number, file in enumerate(sorted((state / "crl").rglob("*.crl"))):
            shutil.copy(file, collected / f"{number}.crl")
        state = tmp_path / "anew"
        url = f"sqlite:///{state / 'store.db'}"
        restore(path, state, url, clock.ms, crl_folders=[collected])
    else:
        store.close()
        url = installation.url
        restore(path, state, url, clock.ms)
    with Store.open(url) as restored:
        assert {name: scope.names.idp_der for name, scope in opened(restored, issuing).items()} == {
            issued.scope: before[f"{place}/{issued.scope}"].idp_der for issued in (first, second)
        }
        installation.state = state
        # What the restore recorded lies at its own time.
        clock.ms = restored.state().time_ms
        after = _publish(installation, restored, clock)
        for path_of, crl in after.items():
            assert crl.idp_der == before[path_of].idp_der
            assert (crl.number or 0) > (before[path_of].number or 0) + CRL_NUMBER_GAP
            assert _serials(crl) == _serials(before[path_of])
        # A certificate of the partition names the same as before.
        issuing = Issuing.of(issuer_by_id(restored, issuing.issuer.issuer_id), issuing.ca_key)
        if service == "SIGN":
            assert points_of(issue_into(restored, issuing, new, clock.now_ms)) == points_of(second)


def _issue_elsewhere(
    store: Store, issuing: Issuing, code: str | None, clock: _Clock, first: IssuedCertificate
) -> IssuedCertificate:
    while True:
        issued = issue_into(store, issuing, code, clock.now_ms)
        if issued.scope != first.scope:
            return issued


def test_a_partition_closed_after_the_backup_stays_closed(installation: Installation) -> None:
    """A merged municipality does not come back."""
    store = installation.store
    issuing = make_issuing(store, installation.keys)
    issue_into(store, issuing, "13104")
    path = installation.backup()
    close_scope(store, issuing.issuer.issuer_id, "m1/13104", START_MS)
    store.close()
    restore(path, installation.state, installation.url, START_MS)
    with Store.open(installation.url) as restored:
        assert opened(restored, issuing)["m1/13104"].closed_seq is not None


def test_numbers_of_scopes_stay_apart(installation: Installation) -> None:
    """No two scopes get one number by which certificates name them."""
    store = installation.store
    issuing = make_issuing(store, installation.keys)
    clock = _Clock()
    issued = [issue_into(store, issuing, code, clock.now_ms) for code in ("13104", "13113", None)]
    _publish(installation, store, clock)
    path = installation.backup()
    issued.append(issue_into(store, issuing, "01101", clock.now_ms))
    revoke(store, found(issuing, issued[-1]), clock.now_ms, reason=1)
    _publish(installation, store, clock)
    store.close()
    restore(path, installation.state, installation.url, clock.ms)
    with Store.open(installation.url) as restored:
        scopes = opened(restored, issuing)
        assert set(scopes) == {item.scope for item in issued}
        assert len({scope.scope_id for scope in scopes.values()}) == 4
