"""Random histories of revocation, hold, release, reasons and expiry: every delta joins every base.

The CRLs are signed and published for real, over a real store; the oracle reads the change log alone.
"""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import pytest
from crl_cases import COMPLETE, DELTA, CRLLine, short_periods
from cryptography import x509
from publisher_cases import START_MS, Clock

from certstatus.changes import ChangeKind
from certstatus.crl_combine import combine
from certstatus.crl_lint import lint
from certstatus.crl_reason import CRLReason
from issuance.store import Store


def _line(tmp_path: Path, clock: Clock, service: str, hold: bool) -> CRLLine:
    store = Store.create(f"sqlite:///{tmp_path / 'store.db'}", START_MS)
    return CRLLine(store, tmp_path, clock, short_periods(service, hold))


def _run(line: CRLLine, seed: int, hold: bool, steps: int = 160) -> None:
    """Let time pass and acts happen; publish whenever something is due, and sometimes out of turn."""
    numbers = random.Random(seed)
    for _ in range(steps):
        for _ in range(numbers.randrange(4)):
            line.random_act(numbers, hold)
        line.clock.pass_s(numbers.choice((0.3, 20, 60, 130, 400)))
        if numbers.random() < 0.1:
            line.issue(complete=numbers.random() < 0.5)
        line.issue_due()


@pytest.fixture(
    scope="module",
    params=[("SIGN", False, 1), ("AUTH", False, 2), ("PARTNER", True, 4), ("PARTNER", True, 5)],
)
def past(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> CRLLine:
    """A line of CRLs with a random history; what must hold of it is looked at by several tests."""
    service, hold, seed = request.param
    line = _line(tmp_path_factory.mktemp("past"), Clock(), service, hold)
    _run(line, seed, hold)
    return line


def test_base_and_delta_make_the_complete_crl(past: CRLLine) -> None:
    """For every published complete k and delta n with base(n) <= k < n: combine(k, n) is the list at n;
    complete CRLs are the list at their cut; what our parser reads, cryptography reads."""
    line, hold = past, past.issuer.policy.hold
    completes, deltas = line.numbers(COMPLETE), line.numbers(DELTA)
    assert len(completes) > 5
    assert len(deltas) > 40
    pairs = 0
    for number in completes:
        _check_complete(line, number)
    for number in deltas:
        delta = line.parsed(number, DELTA)
        assert delta.base_number in completes
        assert delta.base_number is not None
        expected = line.list_at(line.seq_of(number))
        for base in completes:
            if delta.base_number <= base < number:
                combined = combine(line.parsed(base, COMPLETE), delta)
                assert {entry.serial: entry for entry in combined} == expected
                pairs += 1
        removed = {entry.serial for entry in delta.entries if entry.reason == CRLReason.REMOVE_FROM_CRL}
        if not hold:
            assert not removed
        assert not removed & expected.keys()
        _check_with_cryptography(line, number, DELTA)
    assert pairs > 60
    lapsed = [
        change
        for change in line.store.revocation_changes(line.issuer_id, 0, line.store.state().seq)
        if change.kind is ChangeKind.LAPSED
    ]
    assert lapsed, "the history was to contain lapses"
    if hold:
        assert any(
            e.reason == CRLReason.REMOVE_FROM_CRL for n in deltas for e in line.parsed(n, DELTA).entries
        )


def _check_complete(line: CRLLine, number: int) -> None:
    parsed = line.parsed(number, COMPLETE)
    assert lint(parsed, hold_allowed=line.issuer.policy.hold) == []
    assert {entry.serial: entry for entry in parsed.entries} == line.list_at(line.seq_of(number))
    if (number, DELTA) in line.seen:
        delta = line.parsed(number, DELTA)
        assert delta.this_update_s == parsed.this_update_s
    _check_with_cryptography(line, number, COMPLETE)


def _check_with_cryptography(line: CRLLine, number: int, kind: str) -> None:
    found = x509.load_der_x509_crl(line.seen[number, kind][1])
    ours = line.parsed(number, kind)
    assert found.is_signature_valid(line.issuer.ca_certificate.public_key())  # type: ignore[arg-type]
    assert found.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == number
    theirs = {
        entry.serial_number: (
            int(entry.revocation_date_utc.timestamp()),
            _reason_of(entry),
        )
        for entry in found
    }
    mine = {
        int.from_bytes(entry.serial, "big", signed=True): (entry.revoked_at_s, entry.reason)
        for entry in ours.entries
    }
    assert theirs == mine


_NAMES = {
    "unspecified": 0,
    "keyCompromise": 1,
    "cACompromise": 2,
    "affiliationChanged": 3,
    "superseded": 4,
    "cessationOfOperation": 5,
    "certificateHold": 6,
    "removeFromCRL": 8,
}


def _reason_of(entry: x509.RevokedCertificate) -> int | None:
    try:
        return _NAMES[entry.extensions.get_extension_for_class(x509.CRLReason).value.reason.value]
    except x509.ExtensionNotFound:
        return None


def test_entries_leave_only_after_a_complete_crl_past_their_end(past: CRLLine) -> None:
    """No entry disappears before a complete CRL issued after its certificate's notAfter has listed it."""
    line = past
    listed_past_end: set[bytes] = set()
    changes = list(line.store.revocation_changes(line.issuer_id, 0, line.store.state().seq))
    ends = {change.serial: change.not_after_s for change in changes}
    completes = [(line.seq_of(n), line.parsed(n, COMPLETE)) for n in line.numbers(COMPLETE)]
    count = 0
    for change in changes:
        if change.kind is not ChangeKind.LAPSED:
            continue
        count += 1
        assert any(
            seq < change.seq
            and crl.this_update_s > ends[change.serial]
            and any(entry.serial == change.serial for entry in crl.entries)
            for seq, crl in completes
        )
        listed_past_end.add(change.serial)
    assert count > 3


def test_times_and_numbers_rise(tmp_path: Path, clock: Clock) -> None:
    """Numbers rise without reuse, thisUpdate rises with them, nextUpdate of a kind never falls, and
    every successor comes before its predecessor's nextUpdate."""
    line = _line(tmp_path, clock, "SIGN", False)
    numbers = random.Random(21)
    for _ in range(150):
        line.random_act(numbers, False)
        line.clock.pass_s(50)
        line.issue_due()
    for kind in (COMPLETE, DELTA):
        crls = [line.parsed(number, kind) for number in line.numbers(kind)]
        assert len(crls) > 5
        for earlier, later in pairwise(crls):
            assert later.this_update_s > earlier.this_update_s
            assert (later.next_update_s or 0) >= (earlier.next_update_s or 0)
            assert later.this_update_s <= (earlier.next_update_s or 0)
    by_time = sorted({(line.parsed(*key).this_update_s, key[0]) for key in line.seen})
    assert [number for _, number in by_time] == sorted({number for number, _ in line.seen})


def test_clock_set_back_keeps_numbers_and_times_in_order(tmp_path: Path, clock: Clock) -> None:
    """After the wall clock was set back, thisUpdate still never decreases and combining still holds."""
    line = _line(tmp_path, clock, "SIGN", False)
    serials = [line.issue_certificate() for _ in range(6)]
    line.issue(True)
    clock.pass_s(10)
    line.record(ChangeKind.REVOKED, serials[0], 1)
    line.issue(False)
    clock.ms -= 3_600_000
    line.record(ChangeKind.REVOKED, serials[1], 1)
    line.issue(False)
    line.record(ChangeKind.REVOKED, serials[2], 1)
    line.issue(True)
    updates = [line.parsed(*key).this_update_s for key in sorted(line.seen)]
    assert updates == sorted(updates)
    newest = max(line.numbers(DELTA))
    base = line.parsed(1, COMPLETE)
    combined = {entry.serial for entry in combine(base, line.parsed(newest, DELTA))}
    assert combined == set(serials[:3])
