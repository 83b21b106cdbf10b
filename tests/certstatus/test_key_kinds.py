"""Both services under RSA and P-384 keys, served: what ``openssl ocsp`` and ``openssl verify`` say."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from served_installation import Served

CONFIG = """
[responder]
key = "{responder}"

[[issuer]]
service = "SIGN"
key = "{sign}"

[[issuer]]
service = "AUTH"
key = "{auth}"
"""


@pytest.fixture(params=[("rsa2048", "rsa2048", "p384"), ("p384", "p384", "rsa2048")], ids="-".join)
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    """A demo whose responder, SIGN and AUTH keys are of these kinds."""
    responder, sign, auth = request.param
    given = tmp_path / "given.toml"
    given.write_text(CONFIG.format(responder=responder, sign=sign, auth=auth))
    made = Served(tmp_path)
    made.run("init", "--from", str(given))
    made.run("demo", "--population", "20")
    made.serve()
    yield made
    made.stop()
    made.clean_up()


def _verify(served: Served, service: str, name: str, crls: list[Path], *options: str) -> str:
    folder = served.state / "demo" / service
    words = ["openssl", "verify", "-crl_check", *options, "-CAfile", str(folder / "ca.pem")]
    for crl in crls:
        pem = crl.with_suffix(".pem")
        subprocess.run(
            ["openssl", "crl", "-inform", "DER", "-in", str(crl), "-out", str(pem)],
            check=True,
            capture_output=True,
        )
        words += ["-CRLfile", str(pem)]
    done = subprocess.run(
        [*words, str(folder / f"{name}.pem")], capture_output=True, text=True, check=False, timeout=30
    )
    return done.stdout + done.stderr


def test_openssl_agrees_in_both_services(served: Served) -> None:
    """OCSP, complete CRL, and base with delta say the same of a good, a revoked and a newly revoked one."""
    for service in ("sign", "auth"):
        folder = served.state / "crl" / service / "g1" / "all"
        base = folder / "1.crl"
        assert served.ask("good", service) == "good"
        assert served.ask("revoked", service) == "revoked"
        assert ": OK" in _verify(served, service, "good", [base])
        assert "certificate revoked" in _verify(served, service, "revoked", [base])
        served.run("revoke", served.serial("good", service), "--cause", "key-leaked")
        assert served.ask("good", service) == "revoked"
        made = served.json("publish", "now", "--all", "--service", service.upper())["published"]
        delta = next(folder / Path(item["file"]).name for item in made if item["kind"] == "delta")
        assert ": OK" in _verify(served, service, "good", [base])
        combined = _verify(served, service, "good", [base, delta], "-extended_crl", "-use_deltas")
        assert "certificate revoked" in combined
