"""openssl as a client: ``ocsp`` in its variants, and ``verify`` with CRLs."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path

from interop_clients import Answer, Client, Patterns, Question, judge, one_by_one, run
from interop_world import World

_OCSP: Patterns = (
    (r"Responder Error: unauthorized", "unauthorized"),
    (r"Responder Error: trylater", "tryLater"),
    # It says on two channels what the answer is, and whether it believes it.
    (r"WARNING: no nonce in response", "refused"),
    (r": good\n.*Response verify OK", "good"),
    (r": revoked\n.*Response verify OK", "revoked"),
    (r": unknown\n.*Response verify OK", "unknown"),
)
_VERIFY: Patterns = (
    (r"certificate revoked", "revoked"),
    (r"certificate has expired", "expired"),
    (r": OK\n", "good"),
)


def _ocsp(*options: str) -> Client:
    def ask(world: World, question: Question) -> Answer:
        files: list[str | Path] = [
            "-issuer",
            question.anchor,
            "-CAfile",
            question.anchor,
            "-cert",
            question.leaf,
        ]
        return judge(run("openssl", "ocsp", *options, *files, "-url", world.ocsp_url), _OCSP)

    name = " ".join(["openssl ocsp", *options])
    return Client(name, one_by_one(ask))


def fetch_crl(world: World, place: str, kind: str, into: Path) -> Path | None:
    """Fetch ``complete`` or ``delta`` of a scope as PEM; None where it is not given out."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{world.port}{place}/{kind}.crl", timeout=10) as got:
            into.write_bytes(got.read())
    except urllib.error.HTTPError:
        return None
    said = run("openssl", "crl", "-inform", "DER", "-in", into, "-out", into.with_suffix(".pem"))
    assert "exit 0" in said, said
    return into.with_suffix(".pem")


def verify(leaf: Path, anchor: Path, crls: list[Path], *options: str) -> Answer:
    """Ask ``openssl verify -crl_check`` with these CRLs."""
    words: list[str | Path] = ["openssl", "verify", "-crl_check", *options, "-CAfile", anchor]
    for crl in crls:
        words += ["-CRLfile", crl]
    return judge(run(*words, leaf), _VERIFY)


def _verify(deltas: bool) -> Client:
    def ask(world: World, question: Question) -> Answer:
        kinds = ("complete", "delta") if deltas else ("complete",)
        name = f"openssl-{deltas}"
        fetched = [
            fetch_crl(world, question.ca.crl_place, kind, question.ca.folder / f"{name}-{kind}.crl")
            for kind in kinds
        ]
        options = ("-extended_crl", "-use_deltas") if deltas else ()
        return verify(question.leaf, question.anchor, [crl for crl in fetched if crl], *options)

    return Client("openssl verify, CRL" + (" and delta" if deltas else ""), one_by_one(ask))


CLIENTS = (
    _ocsp(),
    _ocsp("-no_nonce"),
    _ocsp("-sha256"),
    _verify(False),
    _verify(True),
)
