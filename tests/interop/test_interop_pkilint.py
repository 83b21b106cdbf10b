"""pkilint on what is really served: responses to every case, complete and delta CRLs."""

from __future__ import annotations

import contextlib
import io
import json
import re
import time
import warnings
from pathlib import Path
from types import ModuleType

import openssl_clients
import pytest
from interop_wire import fetch_response, status_of
from interop_world import World

with warnings.catch_warnings():
    # Of the packages it stands on; none of them is about what it reads.
    warnings.simplefilter("ignore")
    from pkilint.bin import lint_crl, lint_ocsp_response

# Findings that are allowed, by code, each with its reason.  There are none.
_ALLOWED: dict[str, str] = {}
_NAMES = ("SIGN", "SIGN 2", "AUTH", "CORP", "RSA", "EC")


def _lint(linter: ModuleType, path: Path, *options: str) -> list[str]:
    """Return the codes of what pkilint remarks, from a notice upwards."""
    said = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(said):
        warnings.simplefilter("ignore")
        linter.main(["lint", *options, "-s", "NOTICE", "-f", "JSON", str(path)])
    found = [
        finding["code"]
        for result in json.loads(said.getvalue())["results"]
        for finding in result["finding_descriptions"]
    ]
    return [code for code in found if code not in _ALLOWED]


@pytest.mark.parametrize("name", _NAMES)
def test_responses(world: World, tmp_path: Path, name: str) -> None:
    """There is nothing to remark on a response with any status."""
    ca = world.cas[name]
    path = tmp_path / "response.der"
    statuses = set()
    for case in ca.cases:
        response_der = fetch_response(world, ca, ca.leaf(case))
        statuses.add(status_of(response_der))
        path.write_bytes(response_der)
        assert _lint(lint_ocsp_response, path) == [], case
    assert statuses >= {"good", "revoked", "unknown"}


@pytest.mark.parametrize(
    ("name", "scope"), [*((name, "all") for name in _NAMES), ("SIGN", "m1/00000"), ("SIGN 2", "m1/00000")]
)
@pytest.mark.parametrize("kind", ["complete", "delta"])
def test_crls(world: World, tmp_path: Path, name: str, scope: str, kind: str) -> None:
    """There is nothing to remark on a CRL of either kind, of the whole or of a partition."""
    path = tmp_path / "list.crl"
    place = world.cas[name].crl_place.removesuffix("all") + scope
    # Who is told to come again comes again.
    until_s = time.monotonic() + 20
    while openssl_clients.fetch_crl(world, place, kind, path) is None:
        assert time.monotonic() < until_s
        time.sleep(0.5)
    assert _lint(lint_crl, path, "-t", "CRL", "-p", "PKIX") == []


def test_it_would_remark(world: World, tmp_path: Path) -> None:
    """A nextUpdate that has become last century's is remarked on, in a response and in a CRL."""
    ca = world.cas["SIGN"]
    response, crl = tmp_path / "response.der", tmp_path / "list.crl"
    response_der = fetch_response(world, ca, ca.leaf("good"))
    response.write_bytes(_with_last_time(response_der, rb"\x18\x0f20\d{12}Z", b"\x18\x0f19"))
    assert _lint(lint_ocsp_response, response) == ["pkix.ocsp_negative_validity_period"]
    openssl_clients.fetch_crl(world, ca.crl_place, "complete", crl)
    times = list(re.finditer(rb"\x17\x0d\d{12}Z", crl_der := crl.read_bytes()))
    at = times[1].start()
    crl.write_bytes(crl_der[:at] + b"\x17\x0d99" + crl_der[at + 4 :])
    assert _lint(lint_crl, crl, "-t", "CRL", "-p", "PKIX") != []


def _with_last_time(der: bytes, pattern: bytes, begin: bytes) -> bytes:
    at = list(re.finditer(pattern, der))[-1].start()
    return der[:at] + begin + der[at + len(begin) :]
