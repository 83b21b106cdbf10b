"""Base and delta combined by those who can: newly revoked, and released from hold.

Not strongSwan: it takes a delta only beside the complete CRL of exactly the number that the delta names,
where RFC 5280 §5.2.4 allows any later one. Ours name the oldest that is still valid, so it goes by the
complete CRL alone.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

import java_clients
import openssl_clients
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from interop_ca import CA
from interop_world import World, serial

_TRIES = 5
_SERVED_WITHIN_S = 20.0


class Lists(NamedTuple):
    """A complete CRL as it was before something happened, and a delta from after it."""

    base: Path
    delta: Path


def _publish(world: World, ca: CA) -> int:
    """Publish both kinds and return their number."""
    made = world.served.json("publish", "now", "--all", "--service", ca.name)["published"]
    number: int = max(item["number"] for item in made)
    return number


def _fetch(world: World, ca: CA, kind: str, number: int, into: Path) -> Path:
    """Fetch the CRL that is current, once it is of this number or a later one."""
    until = time.monotonic() + _SERVED_WITHIN_S
    while True:
        fetched = openssl_clients.fetch_crl(world, ca.crl_place, kind, into)
        if fetched is not None and _number(fetched) >= number:
            return fetched
        assert time.monotonic() < until, f"{kind} {number} of {ca.name} is not served"
        time.sleep(0.05)


def _lists_around(world: World, ca: CA, folder: Path, number: int, *act: str) -> Lists | None:
    """Fetch a base, act, fetch a delta; None where the publisher's own schedule came between them."""
    base = _fetch(world, ca, "complete", number, folder / "base.crl")
    world.served.run(*act)
    delta = _fetch(world, ca, "delta", _publish(world, ca), folder / "delta.crl")
    fits = _base_number(delta) <= _number(base) < _number(delta)
    return Lists(base, delta) if fits else None


def _number(crl: Path) -> int:
    read = x509.load_pem_x509_crl(crl.read_bytes())
    return read.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def _base_number(delta: Path) -> int:
    read = x509.load_pem_x509_crl(delta.read_bytes())
    return read.extensions.get_extension_for_class(x509.DeltaCRLIndicator).value.crl_number


def _new_certificate(world: World, ca: CA, folder: Path) -> Path:
    public = folder / "key.pem"
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    public.write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    world.served.run("issue", str(public), "--service", ca.name, "--out", str(folder / "leaf.pem"))
    return folder / "leaf.pem"


@pytest.fixture(params=["revoked", "released"])
def happened(
    request: pytest.FixtureRequest, world: World, tmp_path: Path
) -> tuple[Path, Lists, dict[str, str]]:
    """A certificate, lists from before and after, and what is right by base alone and by both."""
    ca = world.cas["CORP"]
    for attempt in range(_TRIES):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        leaf = _new_certificate(world, ca, folder)
        if request.param == "released":
            world.served.run("hold", serial(leaf))
            number = _publish(world, ca)
            right, act = {"base": "revoked", "both": "good"}, ("release", serial(leaf))
        else:
            number = 0
            right, act = {"base": "good", "both": "revoked"}, ("revoke", serial(leaf))
        if (lists := _lists_around(world, ca, folder, number, *act)) is not None:
            return leaf, lists, right
    raise AssertionError(f"no base and delta that fit in {_TRIES} tries")


def test_openssl(world: World, happened: tuple[Path, Lists, dict[str, str]]) -> None:
    """openssl combines them with -use_deltas and -extended_crl."""
    leaf, (base, delta), right = happened
    anchor = world.cas["CORP"].certificate
    assert openssl_clients.verify(leaf, anchor, [base]).verdict == right["base"]
    both = openssl_clients.verify(leaf, anchor, [base, delta], "-extended_crl", "-use_deltas")
    assert both.verdict == right["both"], both.said


def test_bouncy_castle(world: World, happened: tuple[Path, Lists, dict[str, str]]) -> None:
    """BouncyCastle combines them, and takes no delta for a complete CRL."""
    leaf, (base, delta), right = happened
    anchor = world.cas["CORP"].certificate
    said = {
        name: java_clients.combine(world, anchor, leaf, lists).verdict
        for name, lists in {"base": [base], "both": [base, delta], "delta": [delta]}.items()
    }
    assert said == right | {"delta": "refused"}
