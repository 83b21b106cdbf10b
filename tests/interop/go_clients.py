"""Go's golang.org/x/crypto/ocsp and crypto/x509, by go_client.go."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from interop_clients import Answer, Client, Patterns, Question, judge, run
from interop_world import World

_PATTERNS: Patterns = (
    (r"^good$", "good"),
    (r"^revoked$", "revoked"),
    (r"^unknown$", "unknown"),
    (r"error from server: unauthorized", "unauthorized"),
    (r"error from server: try later", "tryLater"),
)


def compile_client(folder: Path) -> None:
    """Compile go_client.go with Debian's packages only, nothing fetched."""
    environment = {
        "GO111MODULE": "off",
        "GOPATH": "/usr/share/gocode",
        "GOCACHE": str(folder / "go-cache"),
        "CGO_ENABLED": "0",
    }
    subprocess.run(
        ["go", "build", "-o", folder / "go-client", Path(__file__).with_name("go_client.go")],
        env=os.environ | environment,
        check=True,
        timeout=300,
    )


def ask(world: World, lines: list[str]) -> list[Answer]:
    """Ask the *lines* (``MODE URL CA LEAF``) in one process."""
    said = run(world.folder / "go-client", given="\n".join(lines))
    assert "\nexit 0" in said, said
    return [judge(line, _PATTERNS) for line in said.splitlines()[: len(lines)]]


def _client(name: str, mode: str) -> Client:
    def ask_all(world: World, questions: list[Question]) -> list[Answer]:
        lines = []
        for question in questions:
            crl_url = f"http://127.0.0.1:{world.port}{question.ca.crl_place}/complete.crl"
            url = crl_url if mode == "crl" else world.ocsp_url
            lines.append(f"{mode} {url} {question.anchor} {question.leaf}")
        return ask(world, lines)

    return Client(name, ask_all)


CLIENTS = (
    _client("Go x/crypto, OCSP by POST", "post"),
    _client("Go x/crypto, OCSP by GET", "get"),
    _client("Go x/crypto, OCSP with SHA-256", "sha256"),
    _client("Go crypto/x509, CRL", "crl"),
)
