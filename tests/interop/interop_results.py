"""RESULTS.md: what was driven, which version of it, and what each said.

Versions change with Debian's updates, so a run compares the tables and not the versions.
"""

from __future__ import annotations

import re
from pathlib import Path

from interop_clients import run
from interop_matrix import COLUMNS, Matrix
from interop_world import World

RESULTS = Path(__file__).with_name("RESULTS.md")
_VERSIONS = {
    "OpenSSL": (("openssl", "version"), r"OpenSSL (\S+)"),
    "GnuTLS": (("ocsptool", "--version"), r"(\d+\.\d+\.\d+)"),
    "JDK": (("java", "-version"), r'version "([^"]+)"'),
    "BouncyCastle": (("readlink", "/usr/share/java/bcprov.jar"), r"(\d+\.\d+)"),
    "Go": (("go", "version"), r"go(\d\S+)"),
    "x/crypto": (
        ("dpkg-query", "-W", "-f", "${Version}", "golang-golang-x-crypto-dev"),
        r"(\d+\.\d+\.\d+)",
    ),
    "NSS": (("dpkg-query", "-W", "-f", "${Version}", "libnss3-tools"), r"(\d+\.\d+(?:\.\d+)?)"),
    "curl": (("curl", "--version"), r"curl (\S+)"),
    "nginx": (("nginx", "-v"), r"nginx/(\S+)"),
    "Apache": (("apache2", "-v"), r"Apache/(\S+)"),
    "strongSwan": (("pki", "--help"), r"strongSwan (\S+)"),
}
_BEGIN = "<!-- tables -->\n"
_HEAD = """# What real clients say

Written by `make interop ARGS=--write-results`, compared at every `make interop`. The words are those of
[interop_clients.py](interop_clients.py); why a cell is as it is, says
[interop_expected.py](interop_expected.py).

| driven | version |
|---|---|
"""


def render(world: World, matrix: Matrix) -> str:
    """Return the whole of RESULTS.md."""
    versions = [f"| {name} | {_version(words, pattern)} |\n" for name, (words, pattern) in _VERSIONS.items()]
    parts = [_HEAD, *versions, "\n", _BEGIN]
    for ca in world.cas.values():
        parts.append(f"\n## {ca.name}: {ca.what}\n\n")
        parts.append(f"| client | {' | '.join(COLUMNS)} |\n|{'---|' * (len(COLUMNS) + 1)}\n")
        for client in dict.fromkeys(name for name, _, _ in matrix):
            cells = [
                matrix[client, ca.name, column].verdict if (client, ca.name, column) in matrix else "–"
                for column in COLUMNS
            ]
            parts.append(f"| {client} | {' | '.join(cells)} |\n")
    return "".join(parts)


def tables(text: str) -> str:
    """Return the part of RESULTS.md that is the same at every run."""
    return text.partition(_BEGIN)[2]


def _version(words: tuple[str, ...], pattern: str) -> str:
    said = run(*words)
    found = re.search(pattern, said)
    assert found is not None, said
    return found[1]
