"""What is said of a certificate, and why."""

from __future__ import annotations

import json

import pytest
from ca_cases import found, issue_one, make_issuing
from store_cases import START_MS

from certstatus import clock
from issuance.ca_keys import CAKeyFolder
from issuance.revoke import revoke
from issuance.show import show
from issuance.store import Store

_NOW_S = START_MS // 1000


@pytest.mark.parametrize(
    ("expired", "good_after", "revoked_after"),
    [
        ("unknown", "unknown", "unknown"),
        ("unauthorized", "unauthorized", "unauthorized"),
        ("last", "good", "revoked"),
    ],
)
def test_expiry_is_answered_by_policy_from_midnight_in_japan(
    sqlite_store: Store, keys: CAKeyFolder, expired: str, good_after: str, revoked_after: str
) -> None:
    """At 23:59:59 JST of the last day the status counts, one second later the policy."""
    issuing = make_issuing(sqlite_store, keys, expired=expired)
    ends = clock.jst_day_end_s(clock.jst_day_number(_NOW_S) + 3)
    good = found(issuing, issue_one(sqlite_store, issuing, not_after_s=ends))
    bad = found(issuing, issue_one(sqlite_store, issuing, not_after_s=ends))
    revoke(sqlite_store, bad, START_MS, reason=1)
    assert [show(sqlite_store, item, ends).answer for item in (good, bad)] == ["good", "revoked"]
    after = [show(sqlite_store, item, ends + 1) for item in (good, bad)]
    assert [item.answer for item in after] == [good_after, revoked_after]
    assert "last day was 2027-01-18" in after[0].why


def test_what_is_shown_goes_into_json(sqlite_store: Store, keys: CAKeyFolder) -> None:
    """Everything is plain: certificate in hex, times as text, changes by number."""
    issuing = make_issuing(sqlite_store, keys)
    issued = issue_one(sqlite_store, issuing)
    revoke(sqlite_store, found(issuing, issued), START_MS, reason=1, invalidity_s=_NOW_S - 3600)
    values = json.loads(json.dumps(show(sqlite_store, found(issuing, issued), _NOW_S).as_json()))
    assert values["certificate"] == issued.certificate_der.hex()
    assert values["serial"] == issued.serial.hex()
    assert values["not_before"] == "2027-01-15T08:00:00Z"
    assert values["invalidity"] == "2027-01-15T07:00:00Z"
    assert [(item["seq"], item["kind"]) for item in values["changes"]] == [(2, "issued"), (3, "revoked")]
    assert values["why"] == "revoked since 2027-01-15T08:00:00Z (keyCompromise)"
