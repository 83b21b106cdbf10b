"""NSS (``ocspclnt``) and strongSwan (``pki --verify``)."""

from __future__ import annotations

from pathlib import Path

from interop_clients import Answer, Client, Patterns, Question, judge, one_by_one, run
from interop_world import World

_NSS: Patterns = (
    (r"succeeded", "good"),
    (r"has been revoked", "revoked"),
    (r"has no status for the certificate", "unknown"),
    (r"unauthorized|not authorized", "unauthorized"),
    (r"suggests trying again later", "tryLater"),
    (r"has expired", "expired"),
)
_STRONGSWAN: Patterns = (
    (r"certificate was revoked", "revoked"),
    (r"certificate was put on hold|certificate hold", "revoked"),
    (r"subject certificate invalid", "expired"),
    # It takes no OCSP error and no `unknown` for an end, and goes on to the CRL.
    (r"fallback to crl.*certificate status is good", "good by CRL"),
    (r"certificate status is good", "good"),
    (r"revocation checking failed", "no status"),
)


def _nss(_: World, question: Question) -> Answer:
    database = f"sql:{_nss_database(question.anchor)}"
    return judge(run("ocspclnt", "-S", question.leaf.with_suffix(".der"), "-d", database), _NSS)


def _nss_database(anchor: Path) -> Path:
    """Make a database that trusts *anchor* for everything, once."""
    folder = anchor.with_suffix(".nss")
    if not folder.exists():
        folder.mkdir()
        run("certutil", "-N", "-d", f"sql:{folder}", "--empty-password")
        run("certutil", "-A", "-d", f"sql:{folder}", "-n", "ca", "-t", "CT,C,C", "-i", anchor)
    return folder


def _strongswan(_: World, question: Question) -> Answer:
    files: list[str | Path] = ["--in", question.leaf, "--cacert", question.anchor]
    return judge(run("pki", "--verify", "--online", *files), _STRONGSWAN)


CLIENTS = (
    Client("NSS ocspclnt", one_by_one(_nss)),
    Client("strongSwan pki, OCSP and CRL", one_by_one(_strongswan)),
)
