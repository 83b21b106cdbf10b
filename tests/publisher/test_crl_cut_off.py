"""Which removals cut off which bases: those whose entry a CRL of the scope has shown, and no others."""

from __future__ import annotations

import random
from bisect import bisect_left
from dataclasses import replace
from pathlib import Path

import pytest
from crl_cases import COMPLETE, DELTA, CRLLine, short_periods
from crl_steps_by_one import allocate_crl_number
from publisher_cases import INDEX_KEY, START_MS, Clock

from certstatus.changes import ChangeKind, fingerprint
from certstatus.crl_combine import combine
from certstatus.crl_reason import CRLReason
from certstatus.errors import IllegalTransition
from issuance.act import RECOVERED
from issuance.crl_scopes import ScopeRecord, ensure_scope, new_names
from issuance.issuers import set_policy
from issuance.store import Store
from publisher.crl_lapse import last_lapse_s
from publisher.crl_removals import last_shown_removals
from publisher.crl_scopes import CRLScope


@pytest.fixture
def partner(tmp_path: Path, clock: Clock) -> CRLLine:
    """An issuer whose policy has hold."""
    store = Store.create(f"sqlite:///{tmp_path / 'store.db'}", START_MS)
    return CRLLine(store, tmp_path, clock, short_periods("PARTNER", hold=True))


class _Whole(CRLScope):
    """A scope of any name that has the issuer's whole list."""

    @property
    def partition_id(self) -> int | None:
        """None, as of ``all``."""
        return None


def _without_hold(line: CRLLine) -> None:
    policy = replace(line.issuer.policy, hold=False)
    set_policy(line.store, line.issuer_id, policy, line.clock.now_ms)


def _cut(line: CRLLine, scope: str) -> None:
    allocate_crl_number(line.store, line.issuer_id, scope, [DELTA], line.fence, line.clock.now_ms)


def _removed(line: CRLLine, name: str, after_seq: int = 0) -> int:
    seq = line.store.state().seq
    record = ScopeRecord(0, line.issuer_id, name, "", new_names(line.issuer, name), 0, None)
    scope = _Whole(line.issuer, record)
    return last_shown_removals(line.store, [scope], after_seq, seq).get(scope.key, 0)


def test_what_one_scope_has_shown_cuts_off_that_scope_alone(partner: CRLLine) -> None:
    """A release concerns the lists that had the entry; the others keep their bases."""
    held = partner.issue_certificate()
    _cut(partner, "one")
    _cut(partner, "two")
    partner.record(ChangeKind.HELD, held)
    _cut(partner, "one")
    partner.record(ChangeKind.RELEASED, held)
    released = partner.store.state().seq
    _cut(partner, "one")
    _cut(partner, "two")
    assert _removed(partner, "one") == released
    assert _removed(partner, "two") == 0
    assert _removed(partner, "never published") == 0
    assert _removed(partner, "one", after_seq=released) == 0


def test_an_entry_counts_as_shown_since_it_first_came(partner: CRLLine) -> None:
    """Held and then revoked it was listed since the hold; released and held again only since then."""
    serial = partner.issue_certificate()
    partner.record(ChangeKind.HELD, serial)
    _cut(partner, "one")
    partner.record(ChangeKind.REVOKED, serial, 1)
    partner.record(ChangeKind.LAPSED, serial)
    assert _removed(partner, "one") == partner.store.state().seq
    again = partner.issue_certificate()
    partner.record(ChangeKind.HELD, again)
    _cut(partner, "one")
    partner.record(ChangeKind.RELEASED, again)
    shown = partner.store.state().seq
    partner.record(ChangeKind.HELD, again)
    partner.record(ChangeKind.RELEASED, again)
    assert _removed(partner, "one") == shown


def test_an_entry_by_the_ca_key_event_counts_since_the_event(partner: CRLLine) -> None:
    """It has no change of its own."""
    serial = partner.issue_certificate()
    _cut(partner, "one")
    partner.record(ChangeKind.CA_KEY_EVENT, reason=2)
    partner.record(ChangeKind.LAPSED, serial)
    assert _removed(partner, "one") == 0
    _cut(partner, "one")
    # Later ones are those that a restore found on a CRL, and they have changes of their own.
    with partner.store.writing(partner.clock.now_ms) as act:
        act.record(
            ChangeKind.ISSUED,
            issuer_id=partner.issuer_id,
            serial=b"\x07",
            fingerprint=fingerprint(b"\x07", INDEX_KEY),
            not_after_s=partner.clock.ms // 1000 + 1000,
            origin=RECOVERED,
        )
    partner.record(ChangeKind.REVOKED, b"\x07", 1)
    partner.record(ChangeKind.LAPSED, b"\x07")
    assert _removed(partner, "one") == 0


def test_a_last_crl_that_is_only_prepared_has_shown_nothing_and_hides_no_cut(partner: CRLLine) -> None:
    """Its number is beyond those of all cuts that follow it."""
    serial = partner.issue_certificate()
    partner.store.allocate_last_crl(partner.issuer_id, "one", partner.fence, partner.clock.now_ms)
    partner.record(ChangeKind.HELD, serial)
    partner.store.allocate_last_crl(partner.issuer_id, "two", partner.fence, partner.clock.now_ms)
    _cut(partner, "one")
    partner.record(ChangeKind.RELEASED, serial)
    assert _removed(partner, "one") == partner.store.state().seq
    assert _removed(partner, "two") == 0


def test_many_removals_that_none_has_shown_hide_no_older_one(partner: CRLLine) -> None:
    """Also where more of them follow than are looked at together."""
    held = partner.issue_certificate()
    partner.record(ChangeKind.HELD, held)
    _cut(partner, "one")
    partner.record(ChangeKind.RELEASED, held)
    shown = partner.store.state().seq
    for _ in range(250):
        partner.record(ChangeKind.HELD, held)
        partner.record(ChangeKind.RELEASED, held)
    assert _removed(partner, "one") == shown


def test_what_came_and_went_between_two_crls_leaves_the_base(partner: CRLLine, clock: Clock) -> None:
    """Nobody has seen it, so no delta has to unsay it: the delta goes over the old base."""
    serial = partner.issue_certificate()
    partner.issue(True)
    clock.pass_s(5)
    partner.record(ChangeKind.HELD, serial)
    partner.record(ChangeKind.RELEASED, serial)
    _without_hold(partner)
    (delta,) = partner.issue(False)
    assert (delta.kind, delta.base_number, delta.entries) == (DELTA, 1, 0)


def test_last_lapse_is_the_last(partner: CRLLine, clock: Clock) -> None:
    """Of several lapses the last one's time counts, and no other change's."""
    assert last_lapse_s(partner.store, partner.issuer_id) is None
    serials = [partner.issue_certificate() for _ in range(3)]
    for serial in serials:
        partner.record(ChangeKind.REVOKED, serial, 1)
    for serial in serials[:2]:
        clock.pass_s(7)
        partner.record(ChangeKind.LAPSED, serial)
    at_s = clock.ms // 1000
    clock.pass_s(7)
    partner.record(ChangeKind.REASON_CHANGED, serials[2], 4)
    assert last_lapse_s(partner.store, partner.issuer_id) == at_s


@pytest.mark.parametrize("seed", [1, 2])
def test_the_base_is_the_oldest_that_no_shown_removal_has_cut_off(partner: CRLLine, seed: int) -> None:
    """Over histories in which the policy loses hold half-way: told from the bytes of all CRLs, each
    delta's base is the oldest complete CRL inside its nextUpdate since which nothing shown has gone."""
    numbers = random.Random(seed)
    for step in range(140):
        if step == 60:
            without_hold_from = partner.store.state().seq
            _without_hold(partner)
        for _ in range(numbers.randrange(4)):
            partner.random_act(numbers, hold=step < 60)
        if step < 60 and numbers.random() < 0.3:
            # Come and gone before any CRL could show it.
            brief = partner.issue_certificate()
            partner.record(ChangeKind.HELD, brief)
            partner.record(ChangeKind.RELEASED, brief)
        partner.clock.pass_s(numbers.choice((0.3, 20, 60, 130, 400)))
        if numbers.random() < 0.15:
            partner.issue(complete=numbers.random() < 0.3)
        partner.issue_due()
    made = sorted(partner.seen)
    removals = [
        change
        for change in partner.store.revocation_changes(partner.issuer_id, 0, partner.store.state().seq)
        if change.kind in (ChangeKind.LAPSED, ChangeKind.RELEASED)
    ]
    cuts = sorted({partner.seq_of(number) for number, _ in made})
    # Removals whose entry stood on the last list before them.
    shown = [
        change.seq
        for change in removals
        if (at := bisect_left(cuts, change.seq)) and change.serial in partner.list_at(cuts[at - 1])
    ]
    assert 0 < len(shown) < len(removals), "the history was to have both kinds"
    judged = cut = 0
    for number, kind in made:
        if kind != DELTA or partner.seq_of(number) <= without_hold_from:
            continue
        delta = partner.parsed(number, DELTA)
        assert not any(entry.reason == CRLReason.REMOVE_FROM_CRL for entry in delta.entries)
        before = [n for n, k in made if k == COMPLETE and n < number]
        inside = [n for n in before if (partner.parsed(n, COMPLETE).next_update_s or 0) > delta.this_update_s]
        usable = [
            n for n in inside if not any(partner.seq_of(n) < seq <= partner.seq_of(number) for seq in shown)
        ]
        assert delta.base_number == min(usable)
        combined = combine(partner.parsed(min(usable), COMPLETE), delta)
        assert {entry.serial: entry for entry in combined} == partner.list_at(partner.seq_of(number))
        judged += 1
        cut += len(usable) < len(inside)
    assert judged > 20
    assert cut > 3


# --- partitions ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_a_removal_concerns_its_partition_and_the_whole_list(
    store_url: str, tmp_path: Path, clock: Clock, seed: int
) -> None:
    """Over random histories with holds, releases, lapses and a CA-key event, CRLs of each scope cut when it
    happens to be: against an oracle that goes through the change log certificate by certificate."""
    numbers = random.Random(seed)
    with Store.create(store_url, START_MS) as store:
        line = CRLLine(store, tmp_path, clock, short_periods("PARTNER", hold=True))
        names = ["all", "m1/13101", "m1/13102", "m1/13103"]
        home: dict[bytes, str] = {}
        cuts: dict[str, list[int]] = {name: [] for name in names}
        # (number, serial, kind), a CA-key event with an empty serial
        log: list[tuple[int, bytes, ChangeKind]] = []
        issued: dict[bytes, int] = {}

        def issue() -> None:
            serial, name = b"\x01" + len(home).to_bytes(7, "big"), numbers.choice(names[1:])
            with store.writing(clock.now_ms) as act:
                partition = ensure_scope(act, line.issuer_id, name, new_names(line.issuer, name))
                issued[serial] = act.record(
                    ChangeKind.ISSUED,
                    issuer_id=line.issuer_id,
                    serial=serial,
                    fingerprint=fingerprint(serial, INDEX_KEY),
                    not_after_s=clock.ms // 1000 + 10_000,
                    # After the event only those that a restore found on a CRL.
                    origin=RECOVERED,
                    scope_id=partition.scope_id,
                ).seq
            home[serial] = name

        def change(kind: ChangeKind, serial: bytes) -> None:
            reason = 1 if kind is ChangeKind.REVOKED else 2 if kind is ChangeKind.CA_KEY_EVENT else None
            try:
                with store.writing(clock.now_ms) as act:
                    seq = act.record(kind, issuer_id=line.issuer_id, serial=serial, reason=reason).seq
            except IllegalTransition:
                return
            log.append((seq, serial, kind))

        for _ in range(6):
            issue()
        kinds = [ChangeKind.HELD, ChangeKind.RELEASED, ChangeKind.REVOKED, ChangeKind.LAPSED]
        for step in range(150):
            what = numbers.random()
            if what < 0.25:
                name = numbers.choice(names)
                _cut(line, name)
                cuts[name].append(store.state().seq)
            elif what < 0.4:
                issue()
            elif step == 100:
                change(ChangeKind.CA_KEY_EVENT, b"")
            else:
                change(numbers.choice(kinds), numbers.choice(list(home)))
        event = next((seq for seq, _, kind in log if kind is ChangeKind.CA_KEY_EVENT), None)

        def shown(name: str, after_seq: int, upto_seq: int) -> int:
            found = 0
            for serial, of in home.items():
                if name not in ("all", of):
                    continue
                left, entered = 0, None
                for seq, of_serial, kind in log:
                    if of_serial != serial:
                        continue
                    if kind in (ChangeKind.HELD, ChangeKind.REVOKED):
                        entered = entered or seq
                    elif kind in (ChangeKind.RELEASED, ChangeKind.LAPSED):
                        began = [entered] if entered else []
                        began += [event] if event and issued[serial] < event and event > left else []
                        if any(min(began, default=0) <= cut < seq for cut in cuts[name]):
                            found = max(found, seq if after_seq < seq <= upto_seq else 0)
                        left, entered = seq, None
            return found

        end = store.state().seq
        by_name = {scope.name: scope for scope in line.publisher.scopes()}
        judged = 0
        for _ in range(40):
            after_seq, upto_seq = sorted(numbers.sample(range(end + 1), 2))
            some = numbers.sample(names, numbers.randint(1, 4))
            found = last_shown_removals(store, [by_name[name] for name in some], after_seq, upto_seq)
            expected = {by_name[name].key: shown(name, after_seq, upto_seq) for name in some}
            assert found == {key: seq for key, seq in expected.items() if seq}
            judged += len(found)
        assert judged > 20
