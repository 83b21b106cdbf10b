"""Two providers of Java's PKIXRevocationChecker, the JDK's and BouncyCastle's, by PathClient.java."""

from __future__ import annotations

from pathlib import Path

from interop_clients import Answer, Client, Patterns, Question, judge, run
from interop_world import World

BOUNCY_CASTLE = Path("/usr/share/java/bcprov.jar")
_SOURCES = [Path(__file__).with_name(name) for name in ("PathClient.java", "DeltaClient.java")]
# The JDK asks by GET up to 255 characters of URL; what follows `?` we do not read.
_LONG_QUERY = "?" + "long" * 64
_PATTERNS: Patterns = (
    (r"^good$", "good"),
    (r"^REVOKED |certificate revoked, reason|^(?:UNSPECIFIED )?Certificate revocation after", "revoked"),
    (r"revocation status is unknown|certificate revoked, details unknown", "unknown"),
    (r"^EXPIRED |Could not validate certificate: NotAfter", "expired"),
    (r"OCSP response error: UNAUTHORIZED|OCSP responder failed: 6", "unauthorized"),
    (r"OCSP response error: TRY_LATER|OCSP responder failed: 3", "tryLater"),
)
_OPTIONS = {
    "SUN": ["-Dcom.sun.security.enableCRLDP=true"],
    "BC": ["-Dorg.bouncycastle.x509.enableCRLDP=true", "-Docsp.enable=true"],
}


def compile_client(folder: Path) -> None:
    """Compile both Java programs into *folder*/java."""
    said = run("javac", "-cp", BOUNCY_CASTLE, "-d", folder / "java", *_SOURCES)
    assert "exit 0" in said, said


def ask(world: World, provider: str, lines: list[str], *, online: bool = True) -> list[Answer]:
    """Ask *provider* the *lines* (``MODE ANCHORS LEAF``) in one process; *online*: it may fetch things."""
    options = ["-XX:TieredStopAtLevel=1", *_OPTIONS[provider]]
    if not online:
        # The JDK fetches CRLs whether it is given others or not: by way of a proxy that is not there.
        options += ["-Dhttp.proxyHost=127.0.0.1", "-Dhttp.proxyPort=9", "-Dhttp.nonProxyHosts="]
    path = f"{world.folder / 'java'}:{BOUNCY_CASTLE}"
    said = run("java", *options, "-cp", path, "PathClient", provider, given="\n".join(lines))
    answers = said.splitlines()[: len(lines)]
    assert "\nexit 0" in said, said
    return [judge(line, _PATTERNS) for line in answers]


def combine(world: World, anchor: Path, leaf: Path, crls: list[Path]) -> Answer:
    """Have BouncyCastle judge *leaf* by these CRLs, deltas combined with their bases."""
    path = f"{world.folder / 'java'}:{BOUNCY_CASTLE}"
    return judge(run("java", "-cp", path, "DeltaClient", anchor, leaf, *crls).splitlines()[0], _PATTERNS)


def _client(name: str, provider: str, mode: str) -> Client:
    def ask_all(world: World, questions: list[Question]) -> list[Answer]:
        which = f"post:{world.ocsp_url}{_LONG_QUERY}" if mode == "post" else mode
        lines = [f"{which} {question.anchor} {question.leaf}" for question in questions]
        return ask(world, provider, lines)

    return Client(name, ask_all)


CLIENTS = (
    _client("JDK, OCSP by GET", "SUN", "get"),
    _client("JDK, OCSP by POST", "SUN", "post"),
    _client("JDK, OCSP with nonce", "SUN", "nonce"),
    _client("JDK, CRL", "SUN", "crl"),
    _client("BouncyCastle, OCSP", "BC", "get"),
    _client("BouncyCastle, OCSP with nonce", "BC", "nonce"),
    _client("BouncyCastle, CRL", "BC", "crl"),
)
