"""GnuTLS as a client: ``ocsptool --ask`` with and without a nonce, and ``certtool`` with a CRL."""

from __future__ import annotations

from pathlib import Path

from interop_clients import Answer, Client, Patterns, Question, judge, one_by_one, run
from interop_world import World
from openssl_clients import fetch_crl

# `ocsptool` says what the answer says before it says whether it believes it.
_OCSP: Patterns = (
    (r"Response Status: unauthorized", "unauthorized"),
    (r"Response Status: tryLater", "tryLater"),
    (r"Certificate Status: good.*Verifying OCSP Response: Success", "good"),
    (r"Certificate Status: revoked.*Verifying OCSP Response: Success", "revoked"),
    (r"Certificate Status: unknown.*Verifying OCSP Response: Success", "unknown"),
)
_VERIFY: Patterns = (
    (r"certificate chain is revoked", "revoked"),
    (r"uses expired certificate", "expired"),
    # Without a word about a CRL it would have taken none into account.
    (r"Checked against CRL.*Chain verification output: Verified\.", "good"),
)


def _ocsptool(*options: str) -> Client:
    def ask(world: World, question: Question) -> Answer:
        trust = [f"--load-issuer={question.anchor}", f"--load-trust={question.anchor}"]
        words = [*options, f"--ask={world.ocsp_url}", f"--load-cert={question.leaf}", *trust]
        return judge(run("ocsptool", *words), _OCSP)

    return Client(" ".join(["ocsptool", *options]), one_by_one(ask))


def by_crl(leaf: Path, anchor: Path, crl: Path) -> Answer:
    """Ask ``certtool`` with this CRL (PEM): first whether it is the anchor's, then about the certificate.

    ``--verify`` by itself takes any list of that issuer's name, whoever signed it.
    """
    said = run("certtool", "--verify-crl", f"--load-ca-certificate={anchor}", f"--infile={crl}")
    if "Verification output: Verified." not in said:
        return Answer("refused", said)
    words = ["--verify", f"--load-ca-certificate={anchor}", f"--load-crl={crl}", f"--infile={leaf}"]
    return judge(run("certtool", *words), _VERIFY)


def _certtool(world: World, question: Question) -> Answer:
    crl = fetch_crl(world, question.ca.crl_place, "complete", question.ca.folder / "gnutls.crl")
    if crl is None:
        return Answer("refused", "no CRL to be had")
    return by_crl(question.leaf, question.anchor, crl)


CLIENTS = (_ocsptool(), _ocsptool("--nonce"), Client("certtool, CRL", one_by_one(_certtool)))
