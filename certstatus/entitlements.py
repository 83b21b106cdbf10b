"""Entitlements: which registered verifier may ask what, as the responders see it.

A verifier is known here by the network its requests come from.  An IPv4 address that
arrives mapped into IPv6 is the IPv4 address.
Knows: the document's shape, the dates of agreements as legal (JST) days, and the look-up of
an address.  Does not know: why a verifier is entitled; that is the register's business.
Source: Act arts. 17, 18, 36, 37 (agreement before provision); document kind ``entitlements``.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any

from certstatus import clock
from certstatus.errors import FeedError

FORMAT = 1
KINDS = ("ocsp", "crl")
PUBLIC_VERIFIER_ID = 0
NEVER_S = 1 << 62

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Verifier:
    """One registered verifier.

    ``grants`` maps a service to the kinds of provision it may have.  ``from_day`` and
    ``until_day`` are the first and last JST day of the agreement (days since 1970-01-01),
    None for open ends.
    """

    verifier_id: int
    name: str
    networks: tuple[Network, ...]
    grants: dict[str, tuple[str, ...]]
    from_day: int | None = None
    until_day: int | None = None

    def is_in_force(self, now_s: int) -> bool:
        """Say whether the agreement covers the legal day of *now_s*."""
        day = clock.jst_day_number(now_s)
        return (self.from_day is None or self.from_day <= day) and (
            self.until_day is None or day <= self.until_day
        )

    def may(self, service: str, kind: str) -> bool:
        """Say whether the agreement's scope holds *kind* ("ocsp", "crl") of *service*."""
        return kind in self.grants.get(service, ())

    def as_json(self) -> dict[str, Any]:
        """Return the verifier as it stands in the document."""
        return {
            "verifier_id": self.verifier_id,
            "name": self.name,
            "networks": [str(network) for network in self.networks],
            "grants": {service: list(kinds) for service, kinds in self.grants.items()},
            "from_day": self.from_day,
            "until_day": self.until_day,
        }


def entitlements_content(generation: int, verifiers: list[Verifier]) -> dict[str, Any]:
    """Return the document content for *verifiers*, to be encoded by ``documents``."""
    ordered = sorted(verifiers, key=lambda verifier: verifier.verifier_id)
    return {"format": FORMAT, "generation": generation, "verifiers": [item.as_json() for item in ordered]}


def parse_address(text: str) -> Address:
    """Return the address in *text* (a scope such as ``%eth0`` is dropped), mapped IPv4 unwrapped.

    Raises: ValueError — not an address.
    """
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def parse_network(text: str) -> Network:
    """Return the network in *text*; an IPv4-mapped IPv6 network becomes the IPv4 network.

    Raises: ValueError — not a network, or with host bits set.
    """
    network = ipaddress.ip_network(text)
    if isinstance(network, ipaddress.IPv6Network):
        mapped = network.network_address.ipv4_mapped
        if mapped is not None and network.prefixlen >= 96:
            return ipaddress.IPv4Network((mapped, network.prefixlen - 96))
    return network


class Entitlements:
    """All verifiers of one generation, looked up by address; immutable once made.

    ``boundary_s``: the next POSIX second at which an agreement starts or ends, so that a
    look-up made before it stays true until then.
    """

    __slots__ = ("_by_prefix", "_verifiers", "boundary_s", "generation")

    def __init__(self, generation: int, verifiers: list[Verifier], now_s: int) -> None:
        self.generation = generation
        self._verifiers = verifiers
        self.boundary_s = min(
            (second for verifier in verifiers for second in _boundaries(verifier) if second > now_s),
            default=NEVER_S,
        )
        by_prefix: dict[tuple[int, int], dict[int, Verifier]] = {}
        for verifier in verifiers:
            if verifier.is_in_force(now_s):
                for network in verifier.networks:
                    table = by_prefix.setdefault((network.version, network.prefixlen), {})
                    table[int(network.network_address)] = verifier
        # Longest prefix first: the narrower network decides.
        self._by_prefix = sorted(by_prefix.items(), key=lambda item: -item[0][1])

    def at(self, now_s: int) -> Entitlements:
        """Return the same generation as it stands at *now_s*, on the other side of a boundary."""
        return Entitlements(self.generation, self._verifiers, now_s)

    def look_up(self, address: Address) -> Verifier | None:
        """Return the verifier whose network holds *address*, the narrowest first, or None."""
        value = int(address)
        for (version, prefix_length), table in self._by_prefix:
            if version == address.version:
                host_bits = address.max_prefixlen - prefix_length
                verifier = table.get(value >> host_bits << host_bits)
                if verifier is not None:
                    return verifier
        return None


def _boundaries(verifier: Verifier) -> list[int]:
    starts = [] if verifier.from_day is None else [clock.jst_day_end_s(verifier.from_day - 1) + 1]
    ends = [] if verifier.until_day is None else [clock.jst_day_end_s(verifier.until_day) + 1]
    return starts + ends


def read_entitlements(content: dict[str, Any], now_s: int) -> Entitlements:
    """Return the entitlements of an opened document as they stand at *now_s*.

    Raises: FeedError — another format, or a member missing or of the wrong form.
    """
    if content.get("format") != FORMAT:
        raise FeedError(f"entitlements format {content.get('format')!r}, this version reads {FORMAT}")
    try:
        verifiers = [
            Verifier(
                verifier_id=item["verifier_id"],
                name=item["name"],
                networks=tuple(parse_network(text) for text in item["networks"]),
                grants={service: tuple(kinds) for service, kinds in item["grants"].items()},
                from_day=item["from_day"],
                until_day=item["until_day"],
            )
            for item in content["verifiers"]
        ]
        return Entitlements(content["generation"], verifiers, now_s)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as exc:
        raise FeedError(f"entitlements: {exc!r}") from exc
