"""CRLs that keep whoever has expired: what they claim is so, over any changes of the policy."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from crl_cases import COMPLETE, DELTA, CRLLine, short_periods
from publisher_cases import START_MS, Clock

from certstatus.changes import ChangeKind
from certstatus.crl import ParsedCRL
from certstatus.crl_combine import combine
from certstatus.errors import CRLCheckFailed
from issuance.import_register import HERE, ImportedIssuer
from issuance.issuers import set_policy
from issuance.store import Store
from publisher.crl_expired import kept_from_s
from publisher.crl_lot import PublishedCRL

BORN_S = START_MS // 1000


@pytest.fixture
def line(tmp_path: Path, clock: Clock) -> Iterator[CRLLine]:
    """An issuer that keeps what has expired."""
    with Store.create(f"sqlite:///{tmp_path / 'store.db'}", START_MS) as store:
        yield CRLLine(store, tmp_path, clock, replace(short_periods("CORP"), expired_entries="keep"))


def _set(line: CRLLine, expired_entries: str) -> None:
    policy = replace(line.issuer.policy, expired_entries=expired_entries)
    set_policy(line.store, line.issuer_id, policy, line.clock.now_ms)


def _newest(line: CRLLine, published: list[PublishedCRL], kind: str) -> ParsedCRL:
    return line.parsed(next(item.number for item in published if item.kind == kind), kind)


def _pass_and_issue(line: CRLLine, seconds: int) -> list[PublishedCRL]:
    """Let time pass by complete CRLs; return what came last."""
    published: list[PublishedCRL] = []
    for _ in range(seconds // 1000):
        line.clock.pass_s(1000)
        published = line.issue(True, True)
    return published


def test_kept_from_the_beginning(line: CRLLine) -> None:
    """Years after its certificate's end an entry is there, and complete CRL and delta say since when."""
    serial = line.issue_certificate(life_s=500)
    line.record(ChangeKind.REVOKED, serial, 1)
    line.issue(True, True)
    published = _pass_and_issue(line, 9000)
    complete, delta = (_newest(line, published, kind) for kind in (COMPLETE, DELTA))
    assert [entry.serial for entry in complete.entries] == [serial]
    born_s = int(line.issuer.ca_certificate.not_valid_before_utc.timestamp())
    assert complete.expired_certs_from_s == delta.expired_certs_from_s == born_s <= BORN_S
    assert not next(item for item in complete.extensions if item.oid == "2.5.29.60").critical


def test_switched_on_late_it_claims_nothing_that_has_left(line: CRLLine) -> None:
    """The date is that of the last lapse, later than the end of all that lapsed."""
    _set(line, "lapse")
    gone, stays = line.issue_certificate(life_s=500), line.issue_certificate(life_s=7000)
    for serial in (gone, stays):
        line.record(ChangeKind.REVOKED, serial, 1)
    line.issue(True, True)
    complete = _newest(line, _pass_and_issue(line, 3000), COMPLETE)
    assert [entry.serial for entry in complete.entries] == [stays]
    assert complete.expired_certs_from_s is None
    _set(line, "keep")
    line.clock.pass_s(100)
    # A delta is asked for, and no CRL that is out has its scope.
    published = line.issue(False, True)
    assert [item.kind for item in published] == [COMPLETE]
    from_s = _newest(line, published, COMPLETE).expired_certs_from_s
    assert from_s is not None
    assert BORN_S + 500 < from_s <= line.clock.ms // 1000
    assert from_s == kept_from_s(line.store, line.issuer)
    line.clock.pass_s(2)
    published = line.issue(False, True)
    assert [(item.kind, item.base_number) for item in published] == [(DELTA, published[0].number - 1)]
    complete = _newest(line, _pass_and_issue(line, 9000), COMPLETE)
    assert [entry.serial for entry in complete.entries] == [stays]
    assert complete.expired_certs_from_s == from_s


def test_switched_off_it_claims_nothing_any_more(line: CRLLine) -> None:
    """The next CRL is a complete one without the extension, and entries leave by the ordinary rule."""
    serial = line.issue_certificate(life_s=500)
    line.record(ChangeKind.REVOKED, serial, 1)
    line.issue(True, True)
    _pass_and_issue(line, 5000)
    _set(line, "lapse")
    line.clock.pass_s(100)
    published = line.issue(False, True)
    assert [item.kind for item in published] == [COMPLETE]
    complete = _newest(line, published, COMPLETE)
    assert complete.expired_certs_from_s is None
    assert [entry.serial for entry in complete.entries] == [serial]
    assert _newest(line, _pass_and_issue(line, 2000), COMPLETE).entries == []


def test_a_delta_is_not_joined_to_a_base_of_another_extent(line: CRLLine) -> None:
    """What a list keeps is part of its scope."""
    line.issue(True, True)
    line.clock.pass_s(10)
    (kept,) = line.issue(False, True)
    base, delta = line.parsed(1, COMPLETE), line.parsed(kept.number, DELTA)
    assert combine(base, delta) == []
    other = replace(base, extensions=tuple(item for item in base.extensions if item.oid != "2.5.29.60"))
    with pytest.raises(CRLCheckFailed, match=r"combine_scope_differs"):
        combine(other, delta)


def test_a_ca_that_was_taken_over_is_not_vouched_for_before(line: CRLLine) -> None:
    """What had ended by the import may have left the old CA's lists; so may it by its last CRL."""
    with line.store.reading() as connection:
        assert connection is not None
    taken = replace(line.issuer, imported=ImportedIssuer(HERE, is_ready=True))
    assert kept_from_s(line.store, taken) == BORN_S + 1
    later = ImportedIssuer(HERE, is_ready=True, crl_this_update_s=BORN_S + 77)
    assert kept_from_s(line.store, replace(taken, imported=later)) == BORN_S + 77


def test_a_last_crl_keeps_what_it_was_prepared_with(line: CRLLine) -> None:
    """Also when the policy has become another one before it is published."""
    serial = line.issue_certificate(life_s=500)
    line.record(ChangeKind.REVOKED, serial, 1)
    line.issue(True, True)
    _pass_and_issue(line, 2000)
    line.publisher.prepare_last(line.scope, line.fence)
    _set(line, "lapse")
    published = line.publisher.publish_last(line.scope, line.fence)
    said = subprocess.run(
        ["openssl", "crl", "-inform", "DER", "-in", published.file, "-noout", "-text"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "2.5.29.60" in said or "Expired Certs" in said
    assert serial.hex().upper() in said


@pytest.mark.parametrize("seed", range(4))
def test_over_any_history_the_claim_is_true(tmp_path: Path, clock: Clock, seed: int) -> None:
    """Whoever is revoked and ended at the date or later is listed; deltas and bases claim the same."""
    numbers = random.Random(seed)
    with Store.create(f"sqlite:///{tmp_path / 'store.db'}", START_MS) as store:
        line = CRLLine(store, tmp_path, clock, short_periods("CORP", hold=bool(seed % 2)))
        claims = 0
        for _ in range(150):
            line.clock.pass_s(numbers.choice((1, 40, 150, 700)))
            line.random_act(numbers, hold=bool(seed % 2))
            if numbers.random() < 0.06:
                _set(line, numbers.choice(("keep", "lapse")))
            for item in line.issue_due():
                parsed = line.parsed(item.number, item.kind)
                if item.kind == DELTA:
                    assert item.base_number is not None
                    base = line.parsed(item.base_number, COMPLETE)
                    listed = {entry.serial for entry in combine(base, parsed)}
                else:
                    listed = {entry.serial for entry in parsed.entries}
                if parsed.expired_certs_from_s is not None:
                    claims += 1
                    assert _revoked_since(line, item, parsed.expired_certs_from_s) <= listed
        assert claims


def _revoked_since(line: CRLLine, item: PublishedCRL, from_s: int) -> set[bytes]:
    """Whoever is revoked at a CRL's cut and ended at *from_s* or later, by the change log alone."""
    found = set()
    for change in line.store.revocation_changes(line.issuer_id, 0, line.seq_of(item.number)):
        if change.kind is ChangeKind.REVOKED and change.not_after_s >= from_s:
            found.add(change.serial)
    return found
