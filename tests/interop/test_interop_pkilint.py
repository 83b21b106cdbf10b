"""pkilint on what is really served: responses to every case, complete and delta CRLs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import openssl_clients
import pytest
from interop_wire import fetch_response, status_of
from interop_world import World

# Findings that are allowed, each with its reason.
_ALLOWED: dict[str, str] = {}


def _lint(linter: str, path: Path, *options: str) -> list[str]:
    command = Path(sys.executable).with_name(linter)
    done = subprocess.run(
        [command, "lint", *options, "-s", "NOTICE", "-f", "JSON", path],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout, done.stderr
    return sorted({code for code in _codes(json.loads(done.stdout)) if code not in _ALLOWED})


def _codes(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(code := value.get("code"), str):
            yield code
        for inner in value.values():
            yield from _codes(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _codes(inner)


@pytest.mark.parametrize("name", ["SIGN", "AUTH", "CORP", "RSA", "EC"])
def test_responses(world: World, tmp_path: Path, name: str) -> None:
    """Of a response with each status there is nothing to remark; of a mutilated one there is."""
    ca = world.cas[name]
    path = tmp_path / "response.der"
    statuses = set()
    for case in ca.cases:
        response_der = fetch_response(world, ca, ca.leaf(case))
        statuses.add(status_of(response_der))
        path.write_bytes(response_der)
        assert _lint("lint_ocsp_response", path) == [], case
    assert statuses >= {"good", "revoked", "unknown"}


@pytest.mark.parametrize("name", ["SIGN", "AUTH", "CORP", "RSA", "EC"])
@pytest.mark.parametrize("kind", ["complete", "delta"])
def test_crls(world: World, tmp_path: Path, name: str, kind: str) -> None:
    """Of a CRL of each kind there is nothing to remark."""
    path = tmp_path / "list.crl"
    assert openssl_clients.fetch_crl(world, world.cas[name].crl_place, kind, path) is not None
    assert _lint("lint_crl", path, "-t", "CRL", "-p", "PKIX") == []
