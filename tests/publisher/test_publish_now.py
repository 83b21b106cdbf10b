"""`publish now`: which scopes are meant, what is made of them, and that one failure keeps no other back."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from crl_cases import COMPLETE, DELTA, published_entries, short_periods
from publisher_cases import INDEX_KEY, START_MS, Clock

from certstatus import clock as wall_clock
from certstatus.changes import ChangeKind, fingerprint
from certstatus.config import Config, parse_config
from certstatus.crl_archive import CRLArchive
from certstatus.crl_catalogue import path_of
from certstatus.errors import IntegrityError, KeyFileError, LeaseHeld, UnknownCertificate
from issuance.ca_keys import CAKeyFolder
from issuance.issuers import create_issuer
from issuance.store import Store
from publisher.crl_archive import ArchiveWriter
from publisher.crl_lapse import last_lapse_s
from publisher.crl_publish import CRLPublisher
from publisher.publish_now import PublishReport, publish_now

NOW = wall_clock.now_ms


def _config(state: Path) -> Config:
    return parse_config({"installation": {"state": str(state)}, "valkey": {"url": "unix:///nowhere"}}, "test")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store with SIGN (1) and AUTH (2), whose CRLs are due rarely."""
    with Store.create(f"sqlite:///{tmp_path / 'store.db'}", NOW() - 10_000) as made:
        keys = CAKeyFolder(tmp_path / "ca")
        keys.make_passphrase()
        for service in ("SIGN", "AUTH"):
            rarely = {"crl_period_s": 86_400, "crl_validity_s": 172_800, "delta_period_s": 900}
            values: dict[str, Any] = rarely | {"delta_validity_s": 3600}
            create_issuer(made, keys, replace(short_periods(service), **values), NOW)
        yield made


def _revoke(store: Store, issuer_id: int) -> None:
    serial = b"\x01" + store.state().seq.to_bytes(7, "big")
    with store.writing(NOW) as act:
        act.record(
            ChangeKind.ISSUED,
            issuer_id=issuer_id,
            serial=serial,
            fingerprint=fingerprint(serial, INDEX_KEY),
            not_after_s=NOW() // 1000 + 100_000,
        )
        act.record(ChangeKind.REVOKED, issuer_id=issuer_id, serial=serial, reason=1)


def _made(report: PublishReport) -> list[tuple[str, str, int]]:
    return [(item.scope, item.kind, item.number) for item in report.published]


def _out(store: Store) -> set[tuple[str, int]]:
    return {(path_of(entry), entry.number) for entry in published_entries(store) if entry.current}


def test_what_is_due_and_what_has_changed_is_made_and_nothing_else(store: Store, tmp_path: Path) -> None:
    """First everything, for nothing is out; then nothing; then the delta of the changed list, at once."""
    config = _config(tmp_path)
    report = publish_now(config)
    sign, auth = "sign/g1/all", "auth/g1/all"
    # Lists first, so that the deltas over them wait for the next second together.
    expected = [(auth, COMPLETE, 1), (sign, COMPLETE, 1), (auth, DELTA, 2), (sign, DELTA, 2)]
    assert _made(report) == expected
    assert (report.scopes, report.unchanged, report.failed) == (2, 0, {})
    report = publish_now(config)
    assert (_made(report), report.unchanged) == ([], 2)
    _revoke(store, 2)
    report = publish_now(config)
    assert _made(report) == [(auth, DELTA, 3)]
    assert (report.published[0].entries, report.unchanged) == (1, 1)
    assert _out(store) == {(sign, 1), (sign, 2), (auth, 1), (auth, 3)}
    # Where delta and complete CRL are of one cut, the change before it is not news.
    assert _made(publish_now(config, everything=True, service="AUTH")) == [
        (auth, COMPLETE, 4),
        (auth, DELTA, 4),
    ]
    assert _made(publish_now(config)) == []


@pytest.mark.usefixtures("store")
def test_a_list_and_the_delta_after_it_are_archived_once(tmp_path: Path) -> None:
    """Also where both are made before the pointer moves, a complete CRL has one place in the archive."""
    assert len(publish_now(_config(tmp_path), everything=True).published) == 4
    archive = CRLArchive(tmp_path / "crl" / "archive")
    rows = [row for name in archive.names() for row in archive.rows(name)]
    assert sorted((row.path, row.number) for row in rows) == [("auth/g1/all", 1), ("sign/g1/all", 1)]


def test_scopes_are_chosen_by_service_and_path(store: Store, tmp_path: Path) -> None:
    """Both together must fit; what is not there is named, and then nothing is made."""
    config = _config(tmp_path)
    report = publish_now(config, paths=["auth/g1/all"])
    assert ({item.scope for item in report.published}, report.scopes) == ({"auth/g1/all"}, 1)
    report = publish_now(config, service="SIGN", paths=["sign/g1/all"], everything=True)
    assert {item.scope for item in report.published} == {"sign/g1/all"}
    with pytest.raises(UnknownCertificate, match="no CRL scope of SIGN auth/g1/all"):
        publish_now(config, service="SIGN", paths=["sign/g1/all", "auth/g1/all"], everything=True)
    with pytest.raises(UnknownCertificate, match="no issuer of OTHER"):
        publish_now(config, service="OTHER")
    assert _out(store) == {(place, number) for place in ("sign/g1/all", "auth/g1/all") for number in (1, 2)}


def test_a_failing_scope_keeps_no_other_back(store: Store, tmp_path: Path) -> None:
    """Without SIGN's key AUTH's CRLs are published all the same, and the report says what failed."""
    (tmp_path / "ca" / "1.key").unlink()
    told: list[tuple[int, int, str]] = []
    report = publish_now(_config(tmp_path), everything=True, told=lambda *words: told.append(words))
    assert _made(report) == [("auth/g1/all", COMPLETE, 1), ("auth/g1/all", DELTA, 2)]
    assert isinstance(report.failed["sign/g1/all"], KeyFileError)
    assert len(report.failed) == 1
    assert told == [(1, 2, "sign/g1/all"), (2, 2, "auth/g1/all")]
    assert _out(store) == {("auth/g1/all", 1), ("auth/g1/all", 2)}


def test_publish_now_waits_for_the_lease_and_then_gives_up(store: Store, tmp_path: Path) -> None:
    """While another publisher holds the lease, it waits a bounded time and says so."""
    config = _config(tmp_path)
    fence = store.acquire_publisher("crl", 60_000, NOW, "somebody")
    with pytest.raises(LeaseHeld):
        publish_now(config, wait_s=0.2)
    assert store.publication("crls") is None
    store.renew_publisher(fence, 0, NOW)
    assert len(publish_now(config, wait_s=0.2).published) == 4


def _publish_again(state: str, count: int) -> list[tuple[str, str, int]]:
    found = []
    for _ in range(count):
        found += _made(publish_now(_config(Path(state)), everything=True))
    return found


def test_several_processes_publish_at_once(store: Store, tmp_path: Path) -> None:
    """From several processes side by side: every number once, everything published is what the register
    and the catalogue say."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(3) as pool:
        results = pool.starmap(_publish_again, [(str(tmp_path), 2)] * 3)
    published = [item for result in results for item in result]
    assert len(published) == len(set(published)) >= 3 * 2 * 2 * 2
    for issuer_id, path in ((1, "sign/g1/all"), (2, "auth/g1/all")):
        register = {
            (path, record.kind, record.number) for record in store.crls(issuer_id, "all", state="published")
        }
        assert register == {item for item in published if item[0] == path}
    assert {path for path, _ in _out(store)} == {"sign/g1/all", "auth/g1/all"}


def test_where_nothing_else_runs_entries_and_packs_leave_all_the_same(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every few hours a process of its own, as cron has it; what is needed no longer goes, too."""
    monkeypatch.setattr("publisher.publish_now.CRLPublisher", partial(CRLPublisher, pause=clock.pass_s))
    state = tmp_path / "cron"
    state.mkdir()
    with Store.create(f"sqlite:///{state / 'store.db'}", START_MS) as store:
        keys = CAKeyFolder(state / "ca")
        keys.make_passphrase()
        config = replace(short_periods("SIGN"), crl_archive_days=2)
        issuer_id = create_issuer(store, keys, config, clock.now_ms).issuer_id
        serial = b"\x01\x02"
        with store.writing(clock.now_ms) as act:
            act.record(
                ChangeKind.ISSUED,
                issuer_id=issuer_id,
                serial=serial,
                fingerprint=fingerprint(serial, INDEX_KEY),
                not_after_s=clock.ms // 1000 + 86_400,
            )
            act.record(ChangeKind.REVOKED, issuer_id=issuer_id, serial=serial, reason=1)
        packs = []
        for _ in range(16):
            report = publish_now(_config(state), now_ms=clock.now_ms, monotonic_s=clock.monotonic_s)
            assert (report.failed, report.untidy) == ({}, None)
            packs.append({name.day for name in CRLArchive(state / "crl" / "archive").names()})
            clock.pass_s(6 * 3600)
        assert last_lapse_s(store, issuer_id) is not None
        assert report.published[0].entries == 0
        assert packs[0]
        assert packs[0].isdisjoint(packs[-1])
        assert not (state / "crl" / "sign/g1/all" / "1.crl").exists()


@pytest.mark.usefixtures("store")
def test_what_cannot_be_tidied_keeps_no_crl_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A CRL that missed the archive is damaged by now: it is said, and others go out all the same."""
    with monkeypatch.context() as killed:
        killed.setattr(ArchiveWriter, "add_all", lambda _writer, crls: [None for _ in crls])
        publish_now(_config(tmp_path))
    damaged = tmp_path / "crl" / "sign/g1/all" / "1.crl"
    damaged.write_bytes(bytes(damaged.stat().st_size))
    report = publish_now(_config(tmp_path), everything=True, service="AUTH")
    assert len(report.published) == 2
    assert report.failed == {}
    assert isinstance(report.untidy, IntegrityError)
