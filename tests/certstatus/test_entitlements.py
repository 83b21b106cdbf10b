"""Who may ask: addresses, networks, dates of agreements."""

from __future__ import annotations

import pytest

from certstatus import clock
from certstatus.entitlements import (
    NEVER_S,
    Entitlements,
    Verifier,
    entitlements_content,
    parse_address,
    parse_network,
    read_entitlements,
)
from certstatus.errors import FeedError


def _verifier(number: int, *networks: str, **more: int) -> Verifier:
    return Verifier(
        number, f"v{number}", tuple(parse_network(text) for text in networks), {"SIGN": ("ocsp",)}, **more
    )


def _who(entitlements: Entitlements, address: str) -> int | None:
    verifier = entitlements.look_up(parse_address(address))
    return None if verifier is None else verifier.verifier_id


def test_an_address_finds_its_network_in_every_form() -> None:
    """IPv4, IPv6 and IPv4 mapped into IPv6 find the same register line; strangers find none."""
    table = Entitlements(1, [_verifier(1, "192.0.2.0/24", "2001:db8::/32")], now_s=0)
    assert _who(table, "192.0.2.7") == 1
    assert _who(table, "::ffff:192.0.2.7") == 1
    assert _who(table, "2001:db8::1%eth0") == 1
    assert _who(table, "192.0.3.7") is None
    assert _who(table, "2001:db9::1") is None


def test_a_mapped_network_is_the_ipv4_network() -> None:
    """A network written ::ffff:192.0.2.0/120 admits 192.0.2.x however it arrives."""
    table = Entitlements(1, [_verifier(1, "::ffff:192.0.2.0/120")], now_s=0)
    assert _who(table, "192.0.2.7") == 1
    assert _who(table, "::ffff:192.0.2.7") == 1


def test_the_narrowest_network_decides() -> None:
    """An address inside two networks belongs to the longer prefix; /0 and host routes work."""
    table = Entitlements(
        1, [_verifier(1, "0.0.0.0/0"), _verifier(2, "10.0.0.0/8"), _verifier(3, "10.1.2.3/32")], now_s=0
    )
    assert [_who(table, text) for text in ("11.0.0.1", "10.9.9.9", "10.1.2.3")] == [1, 2, 3]
    assert _who(table, "::1") is None


def test_an_agreement_counts_whole_jst_days() -> None:
    """It starts at 00:00:00 JST of the first day and ends after 23:59:59 JST of the last."""
    day = 20_000
    first, last = clock.jst_day_end_s(day - 1) + 1, clock.jst_day_end_s(day)
    verifier = _verifier(1, "127.0.0.0/8", from_day=day, until_day=day)
    for now, wanted in ((first - 1, None), (first, 1), (last, 1), (last + 1, None)):
        assert _who(Entitlements(1, [verifier], now), "127.0.0.1") == wanted


def test_the_boundary_is_the_next_moment_anything_changes() -> None:
    """A look-up stays true until boundary_s, and ``at`` gives what is true afterwards."""
    day = 20_000
    verifier = _verifier(1, "127.0.0.0/8", from_day=day, until_day=day)
    before = clock.jst_day_end_s(day - 1) - 10
    table = Entitlements(1, [verifier], before)
    assert table.boundary_s == clock.jst_day_end_s(day - 1) + 1
    inside = table.at(table.boundary_s)
    assert _who(inside, "127.0.0.1") == 1
    after = inside.at(inside.boundary_s)
    assert _who(after, "127.0.0.1") is None
    assert after.boundary_s == NEVER_S


def test_the_scope_is_service_and_kind() -> None:
    """A grant for one service and kind is no grant for another."""
    verifier = _verifier(1, "::/0")
    assert verifier.may("SIGN", "ocsp")
    assert not verifier.may("SIGN", "crl")
    assert not verifier.may("AUTH", "ocsp")


def test_the_document_round_trips() -> None:
    """What the register says comes back from the document unchanged."""
    verifiers = [_verifier(2, "2001:db8::/32", from_day=5), _verifier(1, "192.0.2.0/24")]
    content = entitlements_content(4, verifiers)
    table = read_entitlements(content, clock.jst_day_end_s(9))
    assert table.generation == 4
    assert _who(table, "192.0.2.1") == 1
    assert _who(table, "2001:db8::9") == 2


@pytest.mark.parametrize(
    "verifiers", [None, [{}], [{"verifier_id": 1, "name": "x", "networks": ["?"], "grants": {}}], [3]]
)
def test_a_document_of_another_form_is_refused(verifiers: object) -> None:
    """Missing members and bad networks are a FeedError, not a crash."""
    with pytest.raises(FeedError):
        read_entitlements({"format": 1, "generation": 1, "verifiers": verifiers}, 0)
    with pytest.raises(FeedError):
        read_entitlements({"format": 9, "generation": 1, "verifiers": []}, 0)
