"""CRL partitions: which one a certificate gets, under which names, and what stays as it was."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter

import pytest
from ca_cases import found, make_issuing, new_key
from partition_cases import issue_into, opened, points_of, stored_scope
from store_cases import INDEX_KEY, START_MS

from certstatus.changes import ChangeKind
from certstatus.config import IssuerConfig
from certstatus.distribution_point import (
    parse_distribution_points,
    parse_issuing_distribution_point,
    read_point_name,
)
from certstatus.errors import IllegalTransition, PolicyViolation, UnknownCertificate
from issuance.ca_keys import CAKeyFolder
from issuance.crl_scopes import close_scope
from issuance.issue import Issuing, record, sign
from issuance.issuers import IssuerPolicy, issuer_by_id, set_policy
from issuance.partition import partition_of
from issuance.show import show
from issuance.store import Store
from publisher.crl_scopes import scopes_of


def _again(store: Store, issuing: Issuing) -> Issuing:
    """The signing tools under the issuer's policy of now."""
    return Issuing.of(issuer_by_id(store, issuing.issuer.issuer_id), issuing.ca_key)


def test_a_certificate_is_in_the_partition_of_its_municipality(store: Store, keys: CAKeyFolder) -> None:
    """Two points, the partition's by name and place and that of ``all`` by name; the partition's delta."""
    issuing = make_issuing(store, keys)
    issued = issue_into(store, issuing, "131041")
    assert issued.scope == "m1/13104"
    scope = opened(store, issuing)["m1/13104"]
    assert (scope.title, scope.opened_seq, scope.closed_seq) == ("東京都新宿区", issued.seq, None)
    assert stored_scope(store, issued) == scope.scope_id
    assert show(store, found(issuing, issued), START_MS // 1000).scope == "m1/13104"
    said = points_of(issued)
    own, whole = said.points
    assert own[1] == ("http://status.example:8080/crl/sign/g1/m1/13104/complete.crl",)
    assert whole == (issuing.issuer.crl_names.complete[0], ())
    assert said.freshest == [(own[0], ("http://status.example:8080/crl/sign/g1/m1/13104/delta.crl",))]
    idp = parse_issuing_distribution_point(scope.names.idp_der)
    assert idp.name_der is not None
    assert read_point_name(idp.name_der) == own
    assert (idp.only_user_certs, idp.only_ca_certs) == (True, False)


def test_who_was_issued_for_no_municipality_is_in_the_rest(store: Store, keys: CAKeyFolder) -> None:
    """So that every certificate of a parted issuer is in a partition."""
    issuing = make_issuing(store, keys)
    issued = issue_into(store, issuing)
    assert issued.scope == "m1/00000"
    assert stored_scope(store, issued) == opened(store, issuing)["m1/00000"].scope_id


def test_buckets_go_by_the_number_alone(store: Store, keys: CAKeyFolder) -> None:
    """All of them are used, about equally; the name says of how many."""
    issuing = make_issuing(store, keys, "AUTH", partition_buckets=4)
    issued = [issue_into(store, issuing) for _ in range(80)]
    count = Counter(item.scope for item in issued)
    assert set(count) == {f"n4/b{number}" for number in range(4)}
    assert min(count.values()) >= 5
    assert {item.scope for item in issued} == set(opened(store, issuing))
    assert [stored_scope(store, item) for item in issued] == [
        opened(store, issuing)[item.scope].scope_id for item in issued
    ]


def test_a_bucket_stays_when_their_number_changes(store: Store, keys: CAKeyFolder) -> None:
    """What is issued later is in other partitions, and what was issued before where it was."""
    issuing = make_issuing(store, keys, "AUTH", partition_buckets=2)
    before = issue_into(store, issuing)
    was_in = stored_scope(store, before)
    policy = dataclasses.replace(issuing.issuer.policy, partition_buckets=8)
    set_policy(store, issuing.issuer.issuer_id, policy, START_MS)
    after = issue_into(store, _again(store, issuing))
    assert (before.scope[:3], after.scope[:3]) == ("n2/", "n8/")
    assert stored_scope(store, before) == was_in
    assert set(opened(store, issuing)) == {before.scope, after.scope}


@pytest.mark.parametrize(
    ("service", "partition"), [("AUTH", "hash"), ("SIGN", "none"), ("CORP", "by_service")]
)
def test_no_municipality_where_crls_are_not_parted_by_it(
    sqlite_store: Store, keys: CAKeyFolder, service: str, partition: str
) -> None:
    """An authentication certificate must not show where its owner lives, and none may be lost silently."""
    issuing = make_issuing(sqlite_store, keys, service, partition=partition)
    with pytest.raises(PolicyViolation, match="no partitions by municipality"):
        issue_into(sqlite_store, issuing, "13104")
    assert opened(sqlite_store, issuing) == {}


def test_an_unknown_municipality_is_refused(sqlite_store: Store, keys: CAKeyFolder) -> None:
    """Before anything is signed or opened."""
    issuing = make_issuing(sqlite_store, keys)
    with pytest.raises(PolicyViolation, match="no municipality or ward has the code '99999'"):
        issue_into(sqlite_store, issuing, "99999")
    assert opened(sqlite_store, issuing) == {}


def test_an_issuer_without_partitions_issues_as_ever(sqlite_store: Store, keys: CAKeyFolder) -> None:
    """One point, with the place of ``all``; the register has the certificate in no partition."""
    issuing = make_issuing(sqlite_store, keys, "CORP")
    issued = issue_into(sqlite_store, issuing)
    assert (issued.scope, stored_scope(sqlite_store, issued)) == ("all", None)
    said = points_of(issued)
    assert said.points == [issuing.issuer.crl_names.complete]
    assert said.freshest == [issuing.issuer.crl_names.freshest]


def test_every_name_says_generation_scheme_and_partition(sqlite_store: Store, keys: CAKeyFolder) -> None:
    """No two scopes share a directory name or a place, of whatever service and generation they are."""
    first, second = make_issuing(sqlite_store, keys), make_issuing(sqlite_store, keys)
    auth = make_issuing(sqlite_store, keys, "AUTH", partition_buckets=1)
    other = make_issuing(sqlite_store, keys, "OTHER", partition="hash", partition_buckets=2)
    made = [
        issue_into(sqlite_store, issuing, code)
        for issuing, code in ((first, "13104"), (first, "13113"), (first, None), (second, "13104"))
    ]
    made += [issue_into(sqlite_store, auth), issue_into(sqlite_store, other)]
    points = [points_of(issued).points for issued in made]
    places = [own[1] for own, _whole in points]
    assert len(set(places)) == len(made)
    # The name of a scope, with its issuer's; SIGN and AUTH have names of their own.
    names = {(issued.scope, own[0], whole[0]) for issued, (own, whole) in zip(made, points, strict=True)}
    assert len(names) == len(made)
    assert points[0][0][0] != points[3][0][0]
    assert [place[0].partition("/crl/")[2] for place in places[:5]] == [
        "sign/g1/m1/13104/complete.crl",
        "sign/g1/m1/13113/complete.crl",
        "sign/g1/m1/00000/complete.crl",
        "sign/g2/m1/13104/complete.crl",
        "auth/g1/n1/b0/complete.crl",
    ]


def test_names_stay_when_the_address_changes(store: Store, keys: CAKeyFolder) -> None:
    """A partition's certificates have one name all, since its CRLs have one; a new partition has the new."""
    issuing = make_issuing(store, keys)
    before = issue_into(store, issuing, "13104")
    policy = dataclasses.replace(issuing.issuer.policy, base_url="http://new.example")
    set_policy(store, issuing.issuer.issuer_id, policy, START_MS)
    issuing = _again(store, issuing)
    assert points_of(issue_into(store, issuing, "13104")) == points_of(before)
    ((_, places), _) = points_of(issue_into(store, issuing, "13113")).points
    assert places == ("http://new.example/crl/sign/g1/m1/13113/complete.crl",)


def test_a_certificate_with_other_names_than_its_partition_is_not_recorded(
    store: Store, keys: CAKeyFolder
) -> None:
    """Signed under a policy that nobody asked the register about: no CRL would match it."""
    issuing = make_issuing(store, keys)
    issue_into(store, issuing, "13104")
    policy = dataclasses.replace(issuing.issuer.policy, base_url="http://new.example")
    set_policy(store, issuing.issuer.issuer_id, policy, START_MS)
    issuing = _again(store, issuing)
    signed = sign(issuing, new_key(), START_MS // 1000, partition="13104")
    seq = store.state().seq
    with pytest.raises(PolicyViolation, match="sign it again"), store.writing(START_MS) as act:
        record(act, issuing, INDEX_KEY, signed)
    assert store.state().seq == seq


def test_a_merged_municipality_goes_on_without_new_certificates(store: Store, keys: CAKeyFolder) -> None:
    """Its partition is closed once, by a change on record; its CRLs are made as before."""
    issuing = make_issuing(store, keys)
    issuer_id = issuing.issuer.issuer_id
    issued = issue_into(store, issuing, "13104")
    names = [scope.path for scope in scopes_of(store)]
    closed = close_scope(store, issuer_id, "m1/13104", START_MS)
    assert opened(store, issuing)["m1/13104"].closed_seq == closed.seq
    with pytest.raises(PolicyViolation, match=f"closed since change {closed.seq}"):
        issue_into(store, issuing, "13104")
    with pytest.raises(IllegalTransition, match="is closed"):
        close_scope(store, issuer_id, "m1/13104", START_MS)
    with pytest.raises(UnknownCertificate, match="has no CRL partition m1/13113"):
        close_scope(store, issuer_id, "m1/13113", START_MS)
    with store.writing(START_MS) as act:
        act.record(ChangeKind.REVOKED, issuer_id=issuer_id, serial=issued.serial, reason=4)
    assert [scope.path for scope in scopes_of(store)] == names == ["sign/g1/all", "sign/g1/m1/13104"]
    (change,) = scopes_of(store)[1].changes(store, 0, store.state().seq)
    assert change.serial == issued.serial


def test_a_policy_from_before_there_were_partitions_has_none(sqlite_store: Store, keys: CAKeyFolder) -> None:
    """No issuer begins to part its CRLs by an upgrade; a new one does, as its service wants it."""
    issuer = make_issuing(sqlite_store, keys).issuer
    kept = json.loads(issuer.policy.as_json())
    del kept["partition"], kept["partition_buckets"]
    old = dataclasses.replace(issuer, policy=IssuerPolicy.from_json(json.dumps(kept)))
    assert old.policy.partition == "none"
    assert partition_of(old, b"\x01", None) == "all"
    assert IssuerPolicy.from_config(IssuerConfig()).partition == "by_service"
    assert partition_of(issuer, b"\x01", None) == "m1/00000"


def test_freshest_names_are_those_of_the_scope(sqlite_store: Store, keys: CAKeyFolder) -> None:
    """The CRLs of a partition name its own delta, unless the policy has none."""
    issuing = make_issuing(sqlite_store, keys)
    issued = issue_into(sqlite_store, issuing, "13104")
    (scope,) = [scope for scope in scopes_of(sqlite_store) if scope.name != "all"]
    assert scope.freshest_der is not None
    assert parse_distribution_points(scope.freshest_der) == points_of(issued).freshest
    without = dataclasses.replace(issuing.issuer.policy, freshest_crl=False)
    set_policy(sqlite_store, issuing.issuer.issuer_id, without, START_MS)
    assert [scope.freshest_der for scope in scopes_of(sqlite_store)] == [None, None]
