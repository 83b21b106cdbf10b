"""The register of verifiers and the entitlements made from it."""

from __future__ import annotations

import hashlib
import json

import pytest
from store_cases import START_MS, add_issuer

from certstatus import clock
from certstatus.changes import ChangeKind, unpack_change
from certstatus.entitlements import Entitlements, parse_address, read_entitlements
from certstatus.errors import IllegalTransition, PolicyViolation
from issuance.store import Store
from issuance.verifiers import add_verifier, end_verifier, entitlement_document, verifiers

_NOW_S = START_MS // 1000
_TODAY = clock.jst_day_number(_NOW_S)
_BOTH = {"SIGN": ["ocsp", "crl"], "AUTH": ["ocsp"]}


@pytest.fixture(autouse=True)
def services(store: Store) -> None:
    """Both services have an issuer."""
    add_issuer(store, 1, "SIGN")
    add_issuer(store, 2, "AUTH")


def entitlements(store: Store, now_s: int = _NOW_S) -> Entitlements:
    """The published entitlements as responders read them."""
    document = entitlement_document(store)
    assert document is not None
    publication = store.publication("entitlements")
    assert publication is not None
    assert publication.sha256 == hashlib.sha256(document).digest()
    read = read_entitlements(json.loads(document), now_s)
    assert read.generation == publication.generation
    return read


def who(store: Store, address: str, now_s: int = _NOW_S) -> int | None:
    """The number of the verifier that an address is taken for."""
    found = entitlements(store, now_s).look_up(parse_address(address))
    return None if found is None else found.verifier_id


def test_registering_is_one_change_with_its_document(store: Store) -> None:
    """The entitlements that hold from a number on are published under that number."""
    registered = add_verifier(store, "City A", ["192.0.2.0/24"], _BOTH, START_MS)
    basis = store.beat(START_MS, [])
    assert basis.publications["entitlements"].generation == registered.change.seq == basis.cut.seq
    packed = store.changes_after(basis.cut.seq - 1, basis.cut.seq, 1)[0].packed
    assert unpack_change(packed).kind == ChangeKind.ENTITLEMENTS
    found = entitlements(store).look_up(parse_address("192.0.2.9"))
    assert found is not None
    assert (found.verifier_id, found.name) == (1, "City A")
    assert found.may("SIGN", "crl")
    assert not found.may("AUTH", "crl")


def test_addresses_are_told_apart_in_both_families(store: Store) -> None:
    """IPv4, IPv6 and IPv4 mapped into IPv6, as network and as address."""
    add_verifier(store, "mapped", ["::ffff:198.51.100.0/120"], _BOTH, START_MS)
    add_verifier(store, "six", ["2001:db8:1::/48", "192.0.2.1"], _BOTH, START_MS)
    assert who(store, "198.51.100.77") == 1
    assert who(store, "::ffff:198.51.100.77") == 1
    assert who(store, "2001:db8:1:2::3") == 2
    assert who(store, "192.0.2.1") == 2
    assert who(store, "::ffff:192.0.2.1") == 2
    assert who(store, "192.0.2.2") is None
    assert [str(network) for network in verifiers(store)[0].verifier.networks] == ["198.51.100.0/24"]


def test_an_agreement_holds_for_its_days(store: Store) -> None:
    """Not before the first JST day, not after the last."""
    add_verifier(store, "timed", ["192.0.2.0/24"], _BOTH, START_MS, from_day=_TODAY + 1, until_day=_TODAY + 2)
    first = clock.jst_day_end_s(_TODAY) + 1
    last = clock.jst_day_end_s(_TODAY + 2)
    assert [who(store, "192.0.2.1", second) for second in (first - 1, first, last, last + 1)] == [
        None,
        1,
        1,
        None,
    ]


def test_ending_is_at_once_or_with_a_day(store: Store) -> None:
    """An ended verifier is out of the next document; its number is never given out again."""
    add_verifier(store, "one", ["192.0.2.0/24"], _BOTH, START_MS)
    add_verifier(store, "two", ["198.51.100.0/24"], _BOTH, START_MS)
    recorded = end_verifier(store, 2, START_MS)
    assert entitlements(store).generation == recorded.seq
    assert who(store, "198.51.100.1") is None
    assert who(store, "192.0.2.1") == 1
    end_verifier(store, 1, START_MS, until_day=_TODAY + 5)
    assert who(store, "192.0.2.1", clock.jst_day_end_s(_TODAY + 5)) == 1
    assert who(store, "192.0.2.1", clock.jst_day_end_s(_TODAY + 5) + 1) is None
    assert [record.verifier.verifier_id for record in verifiers(store)] == [1]
    assert [record.ended_seq for record in verifiers(store, ended=True)] == [None, recorded.seq]
    with pytest.raises(IllegalTransition, match="verifier 2 is not registered"):
        end_verifier(store, 2, START_MS)
    assert add_verifier(store, "three", ["198.51.100.0/24"], _BOTH, START_MS).verifier_id == 3


def test_a_network_belongs_to_one_verifier_at_a_time(store: Store) -> None:
    """The same network in the same days is refused; a narrower one, or other days, are not."""
    add_verifier(store, "one", ["192.0.2.0/24"], _BOTH, START_MS, until_day=_TODAY + 9)
    with pytest.raises(PolicyViolation, match=r"192.0.2.0/24 is that of verifier 1, one"):
        add_verifier(store, "two", ["::ffff:192.0.2.0/120"], _BOTH, START_MS)
    with pytest.raises(PolicyViolation, match="is that of verifier 1"):
        add_verifier(store, "two", ["192.0.2.0/24"], _BOTH, START_MS, from_day=_TODAY + 9)
    add_verifier(store, "later", ["192.0.2.0/24"], _BOTH, START_MS, from_day=_TODAY + 10)
    add_verifier(store, "within", ["192.0.2.128/25"], _BOTH, START_MS)
    assert who(store, "192.0.2.1") == 1
    assert who(store, "192.0.2.129") == 3
    assert who(store, "192.0.2.1", clock.jst_day_end_s(_TODAY + 10)) == 2


@pytest.mark.parametrize(
    ("networks", "grants", "days", "match"),
    [
        ([], _BOTH, (None, None), "none given"),
        (["192.0.2.1/24"], _BOTH, (None, None), "has host bits set"),
        (["nowhere"], _BOTH, (None, None), "nowhere"),
        (["192.0.2.0/24"], {}, (None, None), "at least one service"),
        (["192.0.2.0/24"], {"SIGN": []}, (None, None), "at least one service"),
        (["192.0.2.0/24"], {"SIGN": ["ldap"]}, (None, None), "kind 'ldap'"),
        (["192.0.2.0/24"], {"OTHER": ["ocsp"]}, (None, None), "no issuer of OTHER"),
        (["192.0.2.0/24"], _BOTH, (_TODAY, _TODAY - 1), "before it starts"),
        (["192.0.2.0/24"], _BOTH, (-1, None), "counted from 1970"),
    ],
)
def test_what_cannot_be_registered_is_refused(
    store: Store,
    networks: list[str],
    grants: dict[str, list[str]],
    days: tuple[int | None, int | None],
    match: str,
) -> None:
    """Each mistake has its message, and nothing is recorded."""
    before = store.state()
    with pytest.raises(PolicyViolation, match=match):
        add_verifier(store, "name", networks, grants, START_MS, from_day=days[0], until_day=days[1])
    assert store.state() == before
    assert entitlement_document(store) is None
