"""Certificates that name two distribution points, their partition's and that of the whole list.

Every client takes either CRL for them.  OpenSSL, the JDK and BouncyCastle refuse that of another partition;
GnuTLS looks at no scope, so whoever verifies by it must choose by the certificate's point, or take the
whole list.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import gnutls_clients
import java_clients
import openssl_clients
import pytest
from interop_world import World
from two_points_ca import ALL, OTHER, OWN, TwoPointsCA


class Clients(NamedTuple):
    """Two generations of one name, a file that trusts both, and where the Java clients are."""

    first: TwoPointsCA
    second: TwoPointsCA
    both: Path
    world: World


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Clients:
    """The CAs, made by hand; nothing is served."""
    folder = tmp_path_factory.mktemp("two-points")
    world = World(folder)
    java_clients.compile_client(folder)
    first, second = TwoPointsCA(folder / "g1", 1), TwoPointsCA(folder / "g2", 2)
    both = folder / "both.pem"
    both.write_bytes(first.certificate.read_bytes() + second.certificate.read_bytes())
    return Clients(first, second, both, world)


def _verdicts(clients: Clients, leaf: Path, crl: Path) -> dict[str, str]:
    first, second, both, world = clients
    line = f"list:{crl} {first.certificate},{second.certificate} {leaf}"
    return {
        "openssl": openssl_clients.verify(leaf, both, [crl]).verdict,
        "openssl -extended_crl": openssl_clients.verify(leaf, both, [crl], "-extended_crl").verdict,
        "JDK": java_clients.ask(world, "SUN", [line], online=False)[0].verdict,
        "BouncyCastle": java_clients.ask(world, "BC", [line], online=False)[0].verdict,
        "certtool": gnutls_clients.by_crl(leaf, first.certificate, crl).verdict,
    }


@pytest.mark.parametrize("scope", [OWN, ALL])
def test_either_list_is_taken(clients: Clients, scope: str) -> None:
    """By the partition's CRL as by the whole one a certificate is what it is."""
    crl = clients.first.crl(scope)
    for leaf, right in ((clients.first.good, "good"), (clients.first.revoked, "revoked")):
        found = _verdicts(clients, leaf, crl)
        assert found == dict.fromkeys(found, right)


def test_another_partitions_list_is_refused(clients: Clients) -> None:
    """It says nothing of the certificate, which is revoked; GnuTLS alone does not see that."""
    found = _verdicts(clients, clients.first.revoked, clients.first.crl(OTHER))
    assert found == dict.fromkeys(found, "refused") | {"certtool": "good"}


@pytest.mark.parametrize("scope", [OWN, ALL])
def test_the_other_generations_lists_are_refused(clients: Clients, scope: str) -> None:
    """The same partition, or the whole list, of another key of the same name."""
    found = _verdicts(clients, clients.first.revoked, clients.second.crl(scope))
    assert found == dict.fromkeys(found, "refused")


@pytest.mark.parametrize("scope", [OWN, ALL])
def test_deltas_are_combined(clients: Clients, scope: str) -> None:
    """With base and delta of either scope, what the delta alone lists is revoked."""
    first, _, both, world = clients
    base, delta = first.crl(scope), first.delta(scope)
    for leaf, by_base, by_both in (
        (first.good, "good", "good"),
        (first.revoked, "revoked", "revoked"),
        (first.revoked_later, "good", "revoked"),
    ):
        options = ("-extended_crl", "-use_deltas")
        assert openssl_clients.verify(leaf, both, [base], *options).verdict == by_base
        assert openssl_clients.verify(leaf, both, [base, delta], *options).verdict == by_both
        assert java_clients.combine(world, first.certificate, leaf, [base]).verdict == by_base
        assert java_clients.combine(world, first.certificate, leaf, [base, delta]).verdict == by_both


def test_a_delta_of_another_scope_changes_nothing(clients: Clients) -> None:
    """Base and delta go together only within one scope (RFC 5280 §5.2.4)."""
    first, _, both, world = clients
    lists = [first.crl(OWN), first.delta(ALL)]
    leaf = first.revoked_later
    assert openssl_clients.verify(leaf, both, lists, "-extended_crl", "-use_deltas").verdict == "good"
    assert java_clients.combine(world, first.certificate, leaf, lists).verdict == "good"
