"""What is said of a certificate, and why."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ca_cases import found, issue_one, make_issuing
from cryptography import x509
from import_cases import NOW_S, OldCA, run
from store_cases import START_MS

from certstatus import clock
from issuance.ca_keys import CAKeyFolder
from issuance.revoke import find_certificate, revoke
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


def test_beyond_the_archive_cutoff_nothing_is_claimed(sqlite_store: Store, keys: CAKeyFolder) -> None:
    """The last status is repeated for as many days as the policy says, to the second."""
    issuing = make_issuing(sqlite_store, keys, "OTHER", expired="last", archive_cutoff_days=2)
    ends = clock.jst_day_end_s(clock.jst_day_number(_NOW_S) + 3)
    bad = found(issuing, issue_one(sqlite_store, issuing, not_after_s=ends))
    revoke(sqlite_store, bad, START_MS, reason=1)
    last = ends + 2 * clock.DAY_S
    assert [show(sqlite_store, bad, now_s).answer for now_s in (last, last + 1)] == ["revoked", "unknown"]


@pytest.mark.parametrize("unlisted", ["unknown", "good"])
def test_what_left_the_list_of_a_followed_ca_is_answered_by_policy(
    sqlite_store: Store, keys: CAKeyFolder, tmp_path: Path, unlisted: str
) -> None:
    """Only a CRL told of it, and the next one lists it no more: that says nothing of its being issued."""
    old = OldCA(tmp_path / "old")
    changes = {"issued_list": "absent", "unlisted": unlisted}
    crl = old.write_crl({9: x509.ReasonFlags.certificate_hold})
    run(sqlite_store, keys, old.order(key_path=None, crl_paths=(crl,), changes=changes))
    one = find_certificate(sqlite_store, b"\x09")
    assert show(sqlite_store, one, NOW_S).answer == "revoked"
    run(sqlite_store, keys, old.order(key_path=None, crl_paths=(old.write_crl({}, 8, NOW_S - 500),)))
    assert show(sqlite_store, one, NOW_S).answer == unlisted


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
