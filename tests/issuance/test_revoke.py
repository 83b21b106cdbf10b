"""Revoking, holding, releasing, lapsing: grounds, reasons, and what is refused."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import sqlalchemy as sa
from ca_cases import found, issue_one, make_issuing
from store_cases import START_MS

from certstatus.changes import ChangeKind, unpack_change
from certstatus.errors import IllegalTransition, PolicyViolation, StoreError, UnknownCertificate
from issuance import schema
from issuance.ca_keys import CAKeyFolder
from issuance.revoke import (
    Cause,
    cause_of,
    change_reason,
    complete_ca_key_event,
    find_certificate,
    hold,
    record_ca_key_event,
    release,
    revoke,
)
from issuance.schema import CertificateState
from issuance.show import show
from issuance.store import Store

_NOW_S = START_MS // 1000

# The Act's grounds as RFC 5280 reasons, inside the set that the real service uses.
_REASONS = {
    "no-longer-needed": 5,
    "renewed": 4,
    "key-leaked": 1,
    "key-destroyed": 5,
    "attributes-changed": 3,
    "record-deleted": 5,
    "moved-out": 5,
    "certificate-error": 3,
    "ca-key": 2,
    "discarded": None,
}


def test_every_ground_of_the_act_has_its_reason() -> None:
    """The table of grounds is complete, and labels lead back to causes."""
    assert {cause.label: cause.reason for cause in Cause} == _REASONS
    assert all(cause_of(cause.label) is cause for cause in Cause)
    with pytest.raises(PolicyViolation, match="no cause 'bored'"):
        cause_of("bored")


def test_each_ground_revokes_in_its_services(store: Store, keys: CAKeyFolder) -> None:
    """A ground that a service does not have is refused; one that it has gives the reason, and is kept."""
    for service in ("SIGN", "AUTH"):
        issuing = make_issuing(store, keys, service)
        for cause in Cause:
            certificate = found(issuing, issue_one(store, issuing))
            if service not in cause.services:
                with pytest.raises(PolicyViolation, match="not one of its grounds"):
                    revoke(store, certificate, START_MS, cause=cause)
                continue
            recorded = revoke(store, certificate, START_MS, cause=cause)
            shown = show(store, certificate, _NOW_S)
            assert shown.answer == "revoked"
            assert shown.changes[-1].seq == recorded.seq
            assert shown.changes[-1].ground == cause.label
            packed = store.changes_after(recorded.seq - 1, recorded.seq, 1)[0].packed
            assert unpack_change(packed).reason == (0xFF if cause.reason is None else cause.reason)


def test_address_and_move_grounds_are_told_apart_by_service() -> None:
    """Changed attributes end a signature certificate only, the 30-day rule an authentication one only."""
    assert Cause.ATTRIBUTES_CHANGED.services == ("SIGN",)
    assert Cause.MOVED_OUT.services == ("AUTH",)


def test_a_revocation_counts_from_its_recording(store: Store, keys: CAKeyFolder) -> None:
    """The time is the store's, taken while recording, whatever the caller believes."""
    issuing = make_issuing(store, keys)
    certificate = found(issuing, issue_one(store, issuing))
    store.cut(START_MS + 60_000)
    recorded = revoke(store, certificate, START_MS, reason=1)
    assert recorded.recorded_ms == START_MS + 60_000
    shown = show(store, certificate, _NOW_S)
    assert shown.revoked_at == "2027-01-15T08:01:00Z"
    assert shown.reason == "keyCompromise"


@pytest.mark.parametrize("invalidity_s", [-1, _NOW_S + 1, 2**32 - 1, 2**32, 10**12])
def test_an_invalidity_out_of_reach_is_refused(store: Store, keys: CAKeyFolder, invalidity_s: int) -> None:
    """Before 1970, beyond 32 bits or yet to come: refused in words, and nothing was recorded."""
    issuing = make_issuing(store, keys)
    certificate = found(issuing, issue_one(store, issuing))
    with pytest.raises(PolicyViolation, match="invalidity"):
        revoke(store, certificate, START_MS, reason=1, invalidity_s=invalidity_s)
    assert show(store, certificate, _NOW_S).answer == "good"
    revoke(store, certificate, START_MS, reason=1, invalidity_s=_NOW_S)
    assert show(store, certificate, _NOW_S).invalidity == "2027-01-15T08:00:00Z"


_BEYOND_MS = (1 << 32) * 1000


def test_no_time_is_recorded_that_no_row_of_a_crl_can_hold(store: Store, keys: CAKeyFolder) -> None:
    """Refused in words by whatever act, and nothing was recorded: one such row would block a whole list, and
    a store whose time has once gone there could record nothing any more."""
    issuing = make_issuing(store, keys, "PARTNER", hold=True)
    certificate = found(issuing, issue_one(store, issuing))
    before = store.state()
    acts: list[Any] = [
        lambda now: revoke(store, certificate, now, reason=1),
        lambda now: hold(store, certificate, now),
        lambda now: record_ca_key_event(store, certificate.issuer_id, now, "leaked"),
        store.cut,
    ]
    for act in acts:
        with pytest.raises(StoreError, match="the clock shows 4294967296 s"):
            act(_BEYOND_MS)
    named: dict[str, Any] = {"issuer_id": certificate.issuer_id, "serial": certificate.serial}
    times: list[dict[str, Any]] = [{"revoked_ms": _BEYOND_MS}, {"revoked_ms": -1}, {"invalidity_s": 1 << 32}]
    for shown in times:
        for kind in (ChangeKind.REVOKED, ChangeKind.HELD):
            with (
                pytest.raises(PolicyViolation, match=f"certificate {certificate.serial.hex()}: .* 2106"),
                store.writing(START_MS) as writing,
            ):
                writing.record(kind, **named, **shown)
    assert store.state() == before
    assert show(store, certificate, _NOW_S).answer == "good"
    last_ms = _BEYOND_MS - 1
    assert revoke(store, certificate, last_ms, reason=1).recorded_ms == last_ms


def test_a_second_revocation_is_refused_and_says_when_the_first_was(store: Store, keys: CAKeyFolder) -> None:
    """The first date stays, even when many try at once."""
    issuing = make_issuing(store, keys)
    certificate = found(issuing, issue_one(store, issuing))
    outcomes: list[object] = []
    gate = threading.Barrier(6)

    def attempt(n: int) -> None:
        gate.wait()
        try:
            outcomes.append(revoke(store, certificate, START_MS + n, reason=5))
        except IllegalTransition as exc:
            outcomes.append(str(exc))

    threads = [threading.Thread(target=attempt, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    refused = [text for text in outcomes if isinstance(text, str)]
    assert len(refused) == 5
    assert all(
        "is already revoked (since 2027-01-15T08:00:00Z, cessationOfOperation" in text for text in refused
    )
    assert [change.kind for change in show(store, certificate, _NOW_S).changes] == ["issued", "revoked"]


@pytest.mark.parametrize("reason", [6, 7, 8, 9, 10, 11, -1])
def test_statutory_services_take_their_own_reasons_only(
    sqlite_store: Store, keys: CAKeyFolder, reason: int
) -> None:
    """certificateHold, removeFromCRL, the unused 7 and the foreign ones are no reasons to revoke."""
    issuing = make_issuing(sqlite_store, keys)
    certificate = found(issuing, issue_one(sqlite_store, issuing))
    with pytest.raises(PolicyViolation, match=f"CRLReason {reason} is not one of"):
        revoke(sqlite_store, certificate, START_MS, reason=reason)


def test_unspecified_is_recorded_as_no_reason(sqlite_store: Store, keys: CAKeyFolder) -> None:
    """Reason 0 and none at all are the same, for neither is written (RFC 5280 §5.3.1)."""
    issuing = make_issuing(sqlite_store, keys, "OTHER")
    for reason in (None, 0):
        certificate = found(issuing, issue_one(sqlite_store, issuing))
        revoke(sqlite_store, certificate, START_MS, reason=reason)
        assert show(sqlite_store, certificate, _NOW_S).reason == "no reason given"
    certificate = found(issuing, issue_one(sqlite_store, issuing))
    revoke(sqlite_store, certificate, START_MS, reason=9)
    assert show(sqlite_store, certificate, _NOW_S).reason == "privilegeWithdrawn"


def test_hold_and_release_where_the_policy_has_them(store: Store, keys: CAKeyFolder) -> None:
    """Held is answered revoked, released is good again, and a held one can still be revoked."""
    issuing = make_issuing(store, keys, "OTHER", hold=True)
    certificate = found(issuing, issue_one(store, issuing))
    with pytest.raises(IllegalTransition, match="is valid, only a held certificate can be released"):
        release(store, certificate, START_MS)
    held = hold(store, certificate, START_MS + 1_000)
    shown = show(store, certificate, _NOW_S)
    assert (shown.state, shown.answer, shown.reason) == ("held", "revoked", "certificateHold")
    assert unpack_change(store.changes_after(held.seq - 1, held.seq, 1)[0].packed).reason == 6
    with pytest.raises(IllegalTransition, match="is held, only a valid certificate can be held"):
        hold(store, certificate, START_MS)
    release(store, certificate, START_MS + 2_000)
    shown = show(store, certificate, _NOW_S)
    assert (shown.state, shown.answer, shown.revoked_at) == ("valid", "good", None)
    hold(store, certificate, START_MS + 3_000)
    revoke(store, certificate, START_MS + 4_000, reason=1)
    with pytest.raises(IllegalTransition, match="is revoked, only a held certificate"):
        release(store, certificate, START_MS)
    assert [change.kind for change in show(store, certificate, _NOW_S).changes] == [
        "issued",
        "held",
        "released",
        "held",
        "revoked",
    ]


@pytest.mark.parametrize("service", ["SIGN", "AUTH", "OTHER"])
def test_no_hold_where_law_or_policy_has_none(sqlite_store: Store, keys: CAKeyFolder, service: str) -> None:
    """SIGN and AUTH refuse by law, another issuer by its policy; nothing is recorded."""
    issuing = make_issuing(sqlite_store, keys, service)
    certificate = found(issuing, issue_one(sqlite_store, issuing))
    before = sqlite_store.state()
    match = "policy has no hold" if service == "OTHER" else "the Act knows neither"
    for act in (hold, release):
        with pytest.raises(PolicyViolation, match=match):
            act(sqlite_store, certificate, START_MS)
    assert sqlite_store.state() == before


def test_a_reason_can_be_corrected_and_the_date_stays(store: Store, keys: CAKeyFolder) -> None:
    """Correcting appends a change; only a revocation has a reason to correct."""
    issuing = make_issuing(store, keys)
    certificate = found(issuing, issue_one(store, issuing))
    with pytest.raises(IllegalTransition, match="only a revocation's reason"):
        change_reason(store, certificate, START_MS, reason=1)
    revoke(store, certificate, START_MS + 1_000, cause=Cause.NO_LONGER_NEEDED)
    change_reason(store, certificate, START_MS + 9_000, cause=Cause.KEY_LEAKED)
    shown = show(store, certificate, _NOW_S)
    assert (shown.reason, shown.revoked_at) == ("keyCompromise", "2027-01-15T08:00:01Z")
    assert shown.changes[-1].kind == "reason-changed"


def test_a_certificate_is_found_by_its_number(store: Store, keys: CAKeyFolder) -> None:
    """The number alone is enough unless two services happen to have it; unknown ones are refused."""
    sign, auth = make_issuing(store, keys, "SIGN"), make_issuing(store, keys, "AUTH")
    issued = issue_one(store, sign)
    assert find_certificate(store, issued.serial) == found(sign, issued)
    with pytest.raises(UnknownCertificate, match="of AUTH"):
        find_certificate(store, issued.serial, "AUTH")
    with pytest.raises(UnknownCertificate, match="no certificate 01ff"):
        find_certificate(store, b"\x01\xff")
    with store.writing(START_MS) as act:
        act.record(
            ChangeKind.ISSUED,
            issuer_id=auth.issuer.issuer_id,
            serial=issued.serial,
            fingerprint=b"f" * 12,
            not_after_s=issued.not_after_s,
        )
    with pytest.raises(UnknownCertificate, match="exists in AUTH, SIGN: say which"):
        find_certificate(store, issued.serial)
    assert find_certificate(store, issued.serial, "AUTH").issuer_id == auth.issuer.issuer_id


def test_a_ca_key_event_revokes_all_at_one_number(store: Store, keys: CAKeyFolder) -> None:
    """One change revokes every certificate of that key and none of another; the records follow unnumbered."""
    old, new = make_issuing(store, keys), make_issuing(store, keys)
    mine = [found(old, issue_one(store, old)) for _ in range(250)]
    other = found(new, issue_one(store, new))
    revoke(store, mine[0], START_MS, cause=Cause.RENEWED)
    recorded = record_ca_key_event(store, 1, START_MS + 5_000, "key leaked")
    for _ in range(2):
        seq = store.state().seq
        assert seq == recorded.seq
        assert {row.state for row in store.issued_rows(1, seq)} == {CertificateState.REVOKED}
        assert [row.state for row in store.issued_rows(2, seq)] == [CertificateState.VALID]
        assert {row.state for row in store.issued_rows(1, recorded.seq - 1)} == {
            CertificateState.VALID,
            CertificateState.REVOKED,
        }
        shown = show(store, mine[7], _NOW_S)
        assert (shown.answer, shown.reason) == ("revoked", "cACompromise")
        assert shown.revoked_at == "2027-01-15T08:00:05Z"
        assert shown.changes[-1].kind == "ca-key-event"
        assert show(store, mine[0], _NOW_S).reason == "superseded"
        assert show(store, other, _NOW_S).answer == "good"
        listed = list(store.revocation_changes(1, recorded.seq - 1, seq))
        assert {(change.kind, change.seq, change.reason) for change in listed} == {
            (ChangeKind.REVOKED, recorded.seq, 2)
        }
        assert len({change.serial for change in listed}) == 249
        complete_ca_key_event(store, 1, START_MS)
    with store.reading() as connection:
        states = connection.execute(
            sa.select(schema.certificate.c.state).where(schema.certificate.c.issuer_id == 1)
        ).scalars()
        assert set(states) == {int(CertificateState.REVOKED)}


def test_no_act_walks_over_everything_that_an_issuer_issued(sqlite_store: Store, keys: CAKeyFolder) -> None:
    """A certificate is found by the index of service and number, under the lock, however many there are."""
    issuing = make_issuing(sqlite_store, keys)
    issued = issue_one(sqlite_store, issuing)
    asked: list[tuple[str, Any]] = []

    @sa.event.listens_for(sqlite_store.engine, "before_cursor_execute")
    def note(_c: object, _cursor: object, statement: str, parameters: Any, *_more: object) -> None:
        if "FROM certificate" in statement and statement.startswith("SELECT"):
            asked.append((statement, parameters))

    revoke(sqlite_store, found(issuing, issued), START_MS, reason=1)
    assert asked
    statements = list(asked)
    with sqlite_store.reading() as connection:
        for statement, parameters in statements:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
            assert any("service=? AND serial=?" in row[-1] for row in plan), plan
