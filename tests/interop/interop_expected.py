"""What every client is expected to say: one table, with the reasons of what looks odd in it.

* A CRL says nothing of a certificate that was never issued, so by CRL alone it is ``good``.
* Of an expired certificate SIGN and AUTH say ``unknown`` and CORP what it said last (``expired =
  "last"``); clients that build a path never ask.
* strongSwan takes `unknown`, `unauthorized` and `tryLater` for a fault, goes on to the CRL, and where
  there is none either goes on without (its IKE daemon refuses that under ``revocation = strict``).
* s_server and Apache staple what they are told, errors too; nginx staples ``good`` or nothing.
* gnutls-cli refuses what is stapled as revoked and goes on with anything else, as without a staple.
"""

from __future__ import annotations

from interop_matrix import COLUMNS

# Those whose policy is `expired = "last"`.
LAST_SAID = frozenset({"CORP"})

_ASKING = ("good", "revoked", "revoked", "unknown", "unknown", "unauthorized", "unauthorized", "tryLater")
_ON_A_PATH = ("good", "revoked", "revoked", "unknown", "expired", "unauthorized", "unauthorized", "tryLater")
_BY_CRL = ("good", "revoked", "revoked", "good", "expired", "refused", "refused", "refused")
_GOOD_OR_NOTHING = (
    "good",
    "no staple",
    "no staple",
    "no staple",
    "expired",
    "no staple",
    "no staple",
    "no staple",
)
_STAPLED_TO_GNUTLS = (
    "accepted",
    "revoked",
    "revoked",
    "accepted",
    "expired",
    "accepted",
    "accepted",
    "accepted",
)
_TABLE: dict[str, tuple[str, ...]] = {
    "openssl ocsp": _ASKING,
    "openssl ocsp -no_nonce": _ASKING,
    "openssl ocsp -sha256": _ASKING,
    "openssl verify, CRL": _BY_CRL,
    "openssl verify, CRL and delta": _BY_CRL,
    "ocsptool": _ASKING,
    "ocsptool --nonce": _ASKING,
    "certtool, CRL": _BY_CRL,
    "JDK, OCSP by GET": _ON_A_PATH,
    "JDK, OCSP by POST": _ON_A_PATH,
    "JDK, OCSP with nonce": _ON_A_PATH,
    "JDK, CRL": _BY_CRL,
    "BouncyCastle, OCSP": _ON_A_PATH,
    "BouncyCastle, OCSP with nonce": _ON_A_PATH,
    "BouncyCastle, CRL": _BY_CRL,
    "Go x/crypto, OCSP by POST": _ASKING,
    "Go x/crypto, OCSP by GET": _ASKING,
    "Go x/crypto, OCSP with SHA-256": _ASKING,
    "Go crypto/x509, CRL": ("good", "revoked", "revoked", "good", "good", "refused", "refused", "refused"),
    "s_server to s_client -status": _ON_A_PATH,
    "s_server to curl --cert-status": _ON_A_PATH,
    "s_server to gnutls-cli": _STAPLED_TO_GNUTLS,
    "nginx to s_client -status": _GOOD_OR_NOTHING,
    "nginx to curl --cert-status": _GOOD_OR_NOTHING,
    "nginx to gnutls-cli": ("accepted", *_GOOD_OR_NOTHING[1:]),
    "Apache to s_client -status": _ON_A_PATH,
    "Apache to curl --cert-status": _ON_A_PATH,
    "Apache to gnutls-cli": _STAPLED_TO_GNUTLS,
    "NSS ocspclnt": _ASKING,
    "strongSwan pki, OCSP and CRL": (
        "good",
        "revoked",
        "revoked",
        "good by CRL",
        "expired",
        "no status",
        "no status",
        "no status",
    ),
}


def expected(client: str, ca: str, column: str) -> str:
    """Return the verdict that the table has for this cell.  Raises: KeyError — no such client."""
    verdict = _TABLE[client][COLUMNS.index(column)]
    if column == "expired" and ca in LAST_SAID and verdict == "unknown":
        return "good"
    return verdict
