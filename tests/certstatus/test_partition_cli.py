"""CRLs in parts, from the command line to a folder that answers: issue, list, mirror, check, close."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from served_installation import Served, openssl


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The demo, being served; its first CRLs are out."""
    made = Served(tmp_path_factory.mktemp("parts"))
    made.run("init")
    made.run("demo", "--population", "80")
    made.serve(workers=1)
    yield made
    made.stop()
    made.clean_up()


def _scopes(served: Served) -> dict[str, dict[str, Any]]:
    """What the list of CRLs says, by scope."""
    return {item["scope"]: item for item in json.loads(served.get("/crl/"))["scopes"]}


def _until_listed(served: Served, *scopes: str) -> dict[str, dict[str, Any]]:
    """Wait until complete CRL and delta of all these are listed."""
    until_s = time.monotonic() + 30
    while True:
        found = _scopes(served)
        if all(scope in found and found[scope]["complete"] and found[scope]["delta"] for scope in scopes):
            return found
        assert time.monotonic() < until_s, found.keys()
        time.sleep(0.1)


def _request(folder: Path) -> Path:
    csr = folder / "subject.csr"
    openssl(
        f"req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {folder}/key"
        f" -subj /C=JP/CN=subject -out {csr}"
    )
    return csr


def _issue(served: Served, folder: Path, *words: str) -> tuple[dict[str, Any], Path]:
    csr, out = _request(folder), folder / "subject.pem"
    return served.json("issue", str(csr), "--out", str(out), *words), out


def test_the_demo_has_parts_of_both_kinds(served: Served) -> None:
    """Municipalities of SIGN and buckets of AUTH, each listed with scheme and partition, beside the whole."""
    wanted = ["sign/g1/all", "sign/g1/m1/01101", "sign/g1/m1/04101", "auth/g1/all"]
    wanted += [f"auth/g1/n8/b{number}" for number in range(8)]
    found = _until_listed(served, *wanted)
    assert set(found) >= set(wanted)
    said = found["sign/g1/m1/01101"]
    assert (said["scheme"], said["partition"], said["key_generation"]) == ("m1", "01101", 1)
    assert said["complete"]["url"] == "/crl/sign/g1/m1/01101/complete.crl"
    assert served.get(said["delta"]["by_number"])


def test_a_certificate_of_a_municipality_is_checked_by_its_part_alone(served: Served, tmp_path: Path) -> None:
    """Its part is opened with it; mirrored alone, it says good and then revoked; OpenSSL says the same."""
    issued, pem = _issue(served, tmp_path, "--service", "SIGN", "--partition", "131041")
    assert issued["scope"] == "m1/13104"
    assert re.search(r"^on CRLs +m1/13104, all$", served.run("show", issued["serial"]).stdout, re.MULTILINE)
    scope = "sign/g1/m1/13104"
    _until_listed(served, scope)
    ca, folder = served.state / "demo" / "sign" / "ca.pem", tmp_path / "dir"
    mirror = ("crl", "mirror", f"{served.url}/crl/", str(folder), "--ca", str(ca), "--scope", scope)
    served.run(*mirror)
    check = ("crl", "check", str(folder), str(pem))
    assert json.loads(served.run(*check, "--json").stdout)["scope"] == scope
    # Of another municipality's certificate this folder says nothing.
    assert (
        "unknown" in served.run("crl", "check", str(folder), str(ca.with_name("good.pem")), expect=2).stdout
    )
    served.run("revoke", issued["serial"], "--cause", "key-leaked")
    served.run("publish", "now", "--service", "SIGN")
    until_s = time.monotonic() + 30
    while _exit_code(served, *check) != 1:
        assert time.monotonic() < until_s
        time.sleep(0.2)
        served.run(*mirror)
    complete = folder / scope / "complete.crl"
    openssl(f"crl -inform DER -in {complete} -out {complete}.pem")
    delta = folder / scope / "delta.crl"
    openssl(f"crl -inform DER -in {delta} -out {delta}.pem")
    said = openssl(
        "verify -crl_check -extended_crl -use_deltas"
        f" -CAfile {ca} -CRLfile {complete}.pem -CRLfile {delta}.pem {pem}"
    )
    assert "certificate revoked" in said


def _exit_code(served: Served, *words: str) -> int:
    return subprocess.run(served.command(*words), capture_output=True, check=False, timeout=60).returncode


def test_what_cannot_be_is_said_in_a_line(served: Served, tmp_path: Path) -> None:
    """A code that is none, one for AUTH, and a partition that was closed."""
    _issue(served, tmp_path, "--service", "SIGN", "--partition", "13113")
    csr = _request(tmp_path)
    refused = served.run("issue", str(csr), "--service", "SIGN", "--partition", "131132", expect=77)
    assert re.search(r"the check digit of 13113 \(東京都渋谷区\) is 0", refused.stderr)
    refused = served.run("issue", str(csr), "--service", "AUTH", "--partition", "13113", expect=77)
    assert "no partitions by municipality" in refused.stderr
    said = served.run("issuer", "close-partition", "SIGN", "m1/13113").stdout
    assert re.search(r"^SIGN m1/13113: closed, change \d+$", said, re.MULTILINE)
    refused = served.run("issue", str(csr), "--service", "SIGN", "--partition", "13113", expect=77)
    assert "is closed since change" in refused.stderr
    # Its lists go on.
    _until_listed(served, "sign/g1/m1/13113")
