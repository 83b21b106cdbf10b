"""What the register of CRLs keeps of times and last numbers, on both databases."""

from __future__ import annotations

from pathlib import Path

import pytest
from ca_cases import found, issue_one, make_issuing
from crl_steps_by_one import allocate_crl_number, record_crl
from store_cases import START_MS

from certstatus.errors import FencedOff, IllegalTransition, PolicyViolation, StoreError
from issuance.ca_keys import CAKeyFolder
from issuance.crl_register import LAST_NUMBER_MIN, CRLKey
from issuance.revoke import revoke
from issuance.store import Store
from publisher.crl_past import published_at
from publisher.crl_plan import Due
from publisher.crl_publish import CRLPublisher


def _record(store: Store, fence_name: str = "crl") -> CRLKey:
    fence = store.acquire_publisher(fence_name, 1 << 40, START_MS, "test")
    allocated = allocate_crl_number(store, 1, "all", ["complete"], fence, START_MS)
    record_crl(
        store,
        1,
        "all",
        allocated.number,
        "complete",
        base_number=None,
        next_update_s=START_MS // 1000 + 60,
        sha256=bytes(32),
        size=1,
        fence=fence,
    )
    return CRLKey(1, "all", allocated.number, "complete")


def test_pointer_and_times_move_together_or_not_at_all(store: Store, keys: CAKeyFolder) -> None:
    """Only what is named gets the time, once; the store's time goes with it; a refusal moves nothing."""
    make_issuing(store, keys)
    first, second = _record(store), _record(store)
    fence = store.acquire_publisher("crl", 1 << 40, START_MS, "test")
    at_ms = store.publish_crls(5, bytes(32), b"{}", {first}, fence, START_MS + 70)
    assert at_ms == START_MS + 70 == store.state().time_ms
    assert [item.published_ms for item in store.crls(1, "all")] == [at_ms, None]
    # Older than what is out.
    with pytest.raises(StoreError):
        store.publish_crls(4, bytes(32), b"{}", {first, second}, fence, START_MS + 80)
    newer = store.acquire_publisher("crl", 1 << 40, START_MS, "test")
    with pytest.raises(FencedOff):
        store.publish_crls(6, bytes(32), b"{}", {first, second}, fence, START_MS + 80)
    assert [item.published_ms for item in store.crls(1, "all")] == [at_ms, None]
    # The clock was set back: not before what was said last.
    later_ms = store.publish_crls(6, bytes(32), b"{}", {first, second}, newer, START_MS)
    assert later_ms == at_ms
    assert [item.published_ms for item in store.crls(1, "all")] == [at_ms, at_ms]


def test_a_scope_that_is_over_gives_out_no_number(store: Store, keys: CAKeyFolder) -> None:
    """Prepared: beyond all, one at a time, and the regular ones go on; published: the end."""
    make_issuing(store, keys)
    _record(store)
    fence = store.acquire_publisher("crl", 1 << 40, START_MS, "test")
    values = {"next_update_s": 253_402_300_799, "sha256": bytes(32), "size": 3}
    numbers = []
    for _ in range(2):
        allocated = store.allocate_last_crl(1, "all", fence, START_MS)
        numbers.append(allocated.number)
        store.record_prepared_crl(1, "all", allocated.number, fence=fence, **values)  # type: ignore[arg-type]
    assert LAST_NUMBER_MIN < numbers[0] < numbers[1]
    with pytest.raises(IllegalTransition):
        store.record_prepared_crl(1, "all", numbers[0], fence=fence, **values)  # type: ignore[arg-type]
    assert _record(store).number == 2
    fence = store.acquire_publisher("crl", 1 << 40, START_MS, "test")
    assert store.last_crl_number(1, "all") == 2
    states = {item.number: item.state for item in store.crls(1, "all") if item.number in numbers}
    assert states == {numbers[0]: "withdrawn", numbers[1]: "prepared"}
    for again in range(2):
        publish = {"this_update_s": 1, "fence": fence, **values}
        if again:
            with pytest.raises(PolicyViolation):
                store.publish_last_crl(1, "all", numbers[1], **publish)  # type: ignore[arg-type]
        else:
            store.publish_last_crl(1, "all", numbers[1], **publish)  # type: ignore[arg-type]
    with pytest.raises(PolicyViolation, match="its last CRL is out"):
        allocate_crl_number(store, 1, "all", ["complete"], fence, START_MS)
    with pytest.raises(PolicyViolation, match="its last CRL is out"):
        store.allocate_last_crl(1, "all", fence, START_MS)
    # Another scope of the same key is not.
    assert allocate_crl_number(store, 1, "other", ["complete"], fence, START_MS).number == 1


def test_what_was_published_can_be_asked(store: Store, keys: CAKeyFolder, tmp_path: Path) -> None:
    """Acts, CRLs and the question, over either database."""
    issuing = make_issuing(store, keys)
    certificate = found(issuing, issue_one(store, issuing))
    now = [START_MS + 10_000]
    publisher = CRLPublisher(store, keys, tmp_path, now_ms=lambda: now[0], pause=lambda _s: None)
    fence = store.acquire_publisher("crl", 1 << 40, now[0], "test")
    scope = next(scope for scope in publisher.scopes() if scope.name == "all")
    said = {}
    for step in range(4):
        if step == 1:
            revoke(store, certificate, now[0], reason=1)
        publisher.issue(scope, Due(step != 1, True), fence)
        now[0] += 2000
        answer = published_at(store, tmp_path, certificate, now[0] - 1000, now[0])
        assert answer.complete is not None
        listed = answer.listed is not None
        said[step] = (answer.complete.number, answer.delta and answer.delta.number, listed)
    assert said == {0: (1, None, False), 1: (1, 2, True), 2: (3, 3, True), 3: (4, 4, True)}
    assert answer.first is not None
    assert (answer.first.kind, answer.first.number) == ("delta", 2)
    assert answer.last is not None
    assert (answer.last.kind, answer.last.number, answer.is_listed_now) == ("complete", 4, True)
