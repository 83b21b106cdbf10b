"""The register over many scopes at once: one transaction for all, all of it or nothing, on both databases."""

from __future__ import annotations

import random
import threading
from collections import defaultdict

import pytest
import sqlalchemy as sa
from store_cases import START_MS, add_issuer

from certstatus.errors import FencedOff, IllegalTransition, PolicyViolation
from issuance import crl_register
from issuance.crl_register import AllocatedCRL, CRLKey, Fence, SignedCRL, WantedCRL
from issuance.store import Store

_KINDS = (["complete"], ["delta"], ["complete", "delta"])


def _fence(store: Store, holder: str = "one") -> Fence:
    return store.acquire_publisher("crl", 10_000, START_MS, holder, take_over=True)


def _signed(key: CRLKey) -> SignedCRL:
    base_number = None if key.kind == "complete" else 1
    return SignedCRL(key, base_number, START_MS // 1000 + key.number, bytes([key.number] * 32), key.number)


def _keys(wanted: list[WantedCRL], allocated: list[AllocatedCRL]) -> list[CRLKey]:
    return [
        CRLKey(*item.key, given.number, kind)
        for item, given in zip(wanted, allocated, strict=True)
        for kind in item.kinds
    ]


@pytest.mark.parametrize("seed", range(2))
def test_the_register_over_random_lots_is_what_a_dictionary_says(store: Store, seed: int) -> None:
    """Numbers rise by one in each scope, whatever became of those before; a lot has one cut, later than all
    before; each CRL is what was recorded of it; what is begun and not finished is found, and nothing else."""
    numbers = random.Random(seed)
    issuer_ids = [add_issuer(store, 1, "SIGN"), add_issuer(store, 2, "AUTH")]
    scopes = [(issuer_id, name) for issuer_id in issuer_ids for name in ("all", "m1/1", "n64/b1", "n64/b2")]
    fence = _fence(store)
    last: dict[tuple[int, str], int] = defaultdict(int)
    states: dict[CRLKey, str] = {}
    signed: dict[CRLKey, SignedCRL] = {}
    time_ms = 0
    for _ in range(25):
        lot = numbers.sample(scopes, numbers.randint(1, len(scopes)))
        # As a publisher does: what was begun is settled before the next number.
        begun = [key for key, state in states.items() if state == "allocated" and key[:2] in lot]
        assert {record.key for record in store.unfinished_crls(lot)} == set(begun)
        if begun:
            store.withdraw_crls(begun, fence)
            states |= dict.fromkeys(begun, "withdrawn")
        wanted = [WantedCRL(*key, numbers.choice(_KINDS)) for key in lot]
        allocated = store.allocate_crls(wanted, fence, START_MS)
        assert len({item[1:] for item in allocated}) == 1
        assert allocated[0].time_ms > time_ms
        time_ms = allocated[0].time_ms
        for key, given in zip(lot, allocated, strict=True):
            last[key] += 1
            assert given.number == last[key]
        keys = _keys(wanted, allocated)
        states |= dict.fromkeys(keys, "allocated")
        done = numbers.sample(keys, numbers.randint(0, len(keys)))
        store.record_crls([_signed(key) for key in done], fence)
        signed |= {key: _signed(key) for key in done}
        states |= dict.fromkeys(done, "published")
        for key in scopes:
            for record in store.crls(*key):
                assert record.state == states[record.key]
                if record.key in signed:
                    told = signed[record.key]
                    assert record.base_number == told.base_number
                    assert (record.next_update_s, record.sha256, record.size) == told[2:]
        assert store.last_crl_numbers(scopes) == last
    assert {key for key, state in states.items() if state == "allocated"} == {
        record.key for record in store.unfinished_crls(scopes)
    }
    with store.reading() as connection:
        ids = connection.execute(sa.text("SELECT scope_id FROM crl_scope")).scalars().all()
    assert len(ids) == len(set(ids)) == len(last)


def test_a_lot_that_cannot_be_numbered_or_recorded_leaves_everything_as_it_was(store: Store) -> None:
    """An unknown issuer, a scope that is over, a CRL that is published already: none of the others moves."""
    add_issuer(store)
    fence = _fence(store)
    wanted = [WantedCRL(1, "m1/1", ["complete"]), WantedCRL(1, "m1/2", ["complete"])]
    keys = _keys(wanted, store.allocate_crls(wanted, fence, START_MS))
    store.record_crls([_signed(keys[0])], fence)
    with pytest.raises(IllegalTransition, match="one of 2 CRLs is not allocated"):
        store.record_crls([_signed(key) for key in reversed(keys)], fence)
    missing = keys[1]._replace(number=7)
    with pytest.raises(IllegalTransition, match="one of 2 CRLs is not there"):
        store.withdraw_crls([keys[1], missing], fence)
    assert [record.state for record in store.crls(1, "m1/2")] == ["allocated"]
    with pytest.raises(PolicyViolation, match="no issuer 9"):
        store.allocate_crls([*wanted, WantedCRL(9, "all", ["complete"])], fence, START_MS)
    with pytest.raises(ValueError, match="twice"):
        store.allocate_crls([*wanted, wanted[0]], fence, START_MS)
    prepared = store.allocate_last_crl(1, "m1/2", fence, START_MS)
    store.record_prepared_crl(
        1, "m1/2", prepared.number, next_update_s=START_MS, sha256=bytes(32), size=1, fence=fence
    )
    store.publish_last_crl(
        1,
        "m1/2",
        prepared.number,
        this_update_s=prepared.this_update_s,
        next_update_s=prepared.this_update_s,
        sha256=bytes(32),
        size=1,
        fence=fence,
    )
    with pytest.raises(PolicyViolation, match="scope m1/2: its last CRL is out"):
        store.allocate_crls(wanted, fence, START_MS)
    assert store.last_crl_numbers([(1, "m1/1")]) == {(1, "m1/1"): 1}
    assert store.allocate_crls([], fence, START_MS) == []


def test_an_old_fence_moves_no_lot(store: Store) -> None:
    """Neither numbers, nor records, nor what is withdrawn."""
    add_issuer(store)
    old = _fence(store)
    wanted = [WantedCRL(1, "m1/1", ["complete"]), WantedCRL(1, "m1/2", ["complete", "delta"])]
    keys = _keys(wanted, store.allocate_crls(wanted, old, START_MS))
    _fence(store, "two")
    for refused in (
        lambda: store.allocate_crls(wanted, old, START_MS),
        lambda: store.record_crls([_signed(key) for key in keys], old),
        lambda: store.withdraw_crls(keys, old),
    ):
        with pytest.raises(FencedOff):
            refused()
    assert [record.key for record in store.unfinished_crls([(1, "m1/1"), (1, "m1/2")])] == keys
    assert store.last_crl_numbers([(1, "m1/1"), (1, "m1/2")]) == {(1, "m1/1"): 1, (1, "m1/2"): 1}


def test_a_lot_takes_as_many_statements_whatever_its_size(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers, records, what is unfinished, withdrawn and shown; more keys than one statement names are named
    in several."""
    add_issuer(store)
    fence = _fence(store)
    counts = []
    for size in (2, 64):
        wanted = [WantedCRL(1, f"s{size}/{number}", ["complete", "delta"]) for number in range(size)]
        count = [0]

        def note(*_arguments: object, count: list[int] = count) -> None:
            count[0] += 1

        sa.event.listen(store.engine, "before_cursor_execute", note)
        keys = _keys(wanted, store.allocate_crls(wanted, fence, START_MS))
        store.record_crls([_signed(key) for key in keys], fence)
        again = _keys(wanted, store.allocate_crls(wanted, fence, START_MS))
        store.publish_crls(size, bytes(32), b"", set(keys), fence, START_MS)
        unfinished = store.unfinished_crls([item.key for item in wanted])
        store.withdraw_crls(again, fence)
        sa.event.remove(store.engine, "before_cursor_execute", note)
        assert {record.key for record in unfinished} == set(again)
        for item in wanted:
            first = store.crls(*item.key)[0]
            assert (first.state, first.published_ms is not None) == ("published", True)
        counts.append(count[0])
    assert counts[0] == counts[1] <= 45
    monkeypatch.setattr(crl_register, "KEYS_AT_ONCE", 3)
    wanted = [WantedCRL(1, f"s64/{number}", ["complete", "delta"]) for number in range(64)]
    keys = _keys(wanted, store.allocate_crls(wanted, fence, START_MS))
    assert {key.number for key in keys} == {3}
    store.record_crls([_signed(key) for key in keys], fence)
    assert store.unfinished_crls([item.key for item in wanted]) == []


def test_publishers_side_by_side_give_out_each_number_once(store_url: str) -> None:
    """Each taking over from the other between its lots: every number is given out once, none is left out."""
    scopes = [(1, f"m1/{number}") for number in range(5)]
    given: list[tuple[tuple[int, str], int]] = []
    with Store.create(store_url, START_MS) as store:
        add_issuer(store)

        def run(seed: int) -> None:
            numbers = random.Random(seed)
            with Store.open(store_url) as own:
                for _ in range(15):
                    fence = _fence(own, str(seed))
                    lot = numbers.sample(scopes, 3)
                    try:
                        allocated = own.allocate_crls(
                            [WantedCRL(*key, ["complete"]) for key in lot], fence, START_MS
                        )
                    except FencedOff:
                        continue
                    given.extend(zip(lot, (item.number for item in allocated), strict=True))

        threads = [threading.Thread(target=run, args=(seed,)) for seed in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        last = store.last_crl_numbers(scopes)
    assert given
    assert sorted(given) == [(key, number) for key in sorted(last) for number in range(1, last[key] + 1)]
