"""Which published CRLs still matter: what few statements find of many scopes is what a walk over all says."""

from __future__ import annotations

import random

import pytest
import sqlalchemy as sa
from publisher_cases import START_MS, add_bare_issuer

from certstatus.crl_catalogue import COMPLETE, DELTA
from issuance.crl_register import CRLKey, CRLRecord, ScopeKey, SignedCRL, WantedCRL, is_one_of
from issuance.store import Store
from publisher.crl_recent import _RECENT, deltas_over, recent

_KINDS = ([COMPLETE], [DELTA], [COMPLETE, DELTA], [DELTA], [DELTA])


def _history(store: Store, keys: list[ScopeKey], numbers: random.Random) -> None:
    """Publish, withdraw and leave unfinished CRLs of each scope; nextUpdate never goes back within a kind."""
    fence = store.acquire_publisher("crl", 1 << 40, START_MS, "test")
    ends_s: dict[tuple[ScopeKey, str], int] = {}
    completes: dict[ScopeKey, list[int]] = {}
    for at_s in range(30):
        some = [key for key in keys if numbers.random() < 0.7]
        wanted = [WantedCRL(*key, numbers.choice(_KINDS)) for key in some]
        signed, failed = [], []
        for item, given in zip(wanted, store.allocate_crls(wanted, fence, START_MS + at_s), strict=True):
            for kind in item.kinds:
                key = CRLKey(*item.key, given.number, kind)
                known = completes.get(item.key, [])
                if numbers.random() < 0.2 or (kind == DELTA and not known):
                    failed.append(key)
                    continue
                life_s = numbers.choice((3, 10)) if kind == DELTA else numbers.choice((5, 20))
                end_s = max(at_s + life_s, ends_s.get((item.key, kind), 0))
                ends_s[item.key, kind] = end_s
                base = None if kind == COMPLETE else numbers.choice(known[-4:])
                signed.append(SignedCRL(key, base, end_s, bytes(32), 1))
        store.record_crls(signed, fence)
        store.withdraw_crls([key for key in failed if numbers.random() < 0.8], fence)
        for each in signed:
            if each.key.kind == COMPLETE:
                completes.setdefault(each.key[:2], []).append(each.key.number)


def _walked(records: list[CRLRecord], ended_s: int) -> list[CRLRecord]:
    """The same from all that was ever published."""
    newest = {record.kind: record.number for record in records}
    found = [
        record
        for record in records
        if record.number == newest[record.kind] or (record.next_update_s or 0) > ended_s
    ]
    bases = {record.base_number for record in found}
    return [
        record
        for record in records
        if record in found or (record.kind == COMPLETE and record.number in bases)
    ]


@pytest.mark.parametrize("seed", range(3))
def test_it_is_what_a_walk_over_all_says(store_url: str, seed: int) -> None:
    """At every time, of few scopes and of more, with scopes among them that never had a CRL."""
    numbers = random.Random(seed)
    with Store.create(store_url, START_MS) as store:
        add_bare_issuer(store, 1, "SIGN")
        add_bare_issuer(store, 2, "AUTH")
        keys = [(issuer_id, name) for issuer_id in (1, 2) for name in ("all", "m1/1", "m1/2")]
        _history(store, keys, numbers)
        published = {key: store.crls(*key, state="published") for key in keys}
        published[1, "never"] = []
        for ended_s in range(0, 60, 3):
            some = numbers.sample(list(published), numbers.randint(1, len(published)))
            assert recent(store, some, ended_s) == {key: _walked(published[key], ended_s) for key in some}
            bases = {key: set(numbers.sample(range(1, 25), 5)) for key in some} | {keys[0]: set()}
            found = deltas_over(store, bases)
            assert len(found) == len(set(found))
            assert set(found) == {
                record
                for key, of in bases.items()
                for record in published[key]
                if record.kind == DELTA and record.base_number in of
            }


def test_it_is_answered_from_the_end_of_each_scopes_numbers(store: Store) -> None:
    """No walk over the CRLs: they are all searched for by their key."""
    for query in _RECENT.values():
        wanted = query.where(is_one_of([(1, "all"), (1, "m1/1")])).params(ended_s=1)
        text = str(wanted.compile(store.engine, compile_kwargs={"literal_binds": True}))
        with store.reading() as connection:
            steps = [step.detail for step in connection.execute(sa.text(f"EXPLAIN QUERY PLAN {text}"))]
        assert any("SEARCH crl USING" in step and "number>" in step for step in steps), steps
        assert not any(step.startswith(("SCAN crl ", "SCAN over")) for step in steps), steps
