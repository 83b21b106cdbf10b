"""Requests octet for octet as real clients send them, about any certificate.

``real_clients.toml`` has their heads, the shape of their DER, and in how many segments they send.
Knows: filling these in.  Does not know: connections or answers.
"""

from __future__ import annotations

import base64
import os
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from bench.prepared import Question, escaped, issuer_part, nonce_extension, request_der
from certstatus.der import tlv

_FILE = Path(__file__).with_suffix(".toml")
# AcceptableResponses with id-pkix-ocsp-basic alone (RFC 6960 §4.4.3).
_BASIC = tlv(
    0x30,
    bytes.fromhex("06092b0601050507300104") + tlv(0x04, tlv(0x30, bytes.fromhex("06092b0601050507300101"))),
)


@dataclass(frozen=True, slots=True)
class RealClient:
    """One way in which a client asks; the fields are the file's."""

    row: str
    name: str
    head: Sequence[str]
    hash: str = "sha1"
    parameters: str = "null"
    nonce_octets: int = 0
    extensions: Sequence[str] = ()
    empty: bool = False
    pieces: int = 1

    @property
    def method(self) -> str:
        """GET or POST."""
        return self.head[0].split(" ")[0]

    @property
    def keeps(self) -> bool:
        """Whether it asks again on the same connection."""
        return self.head[0].endswith("HTTP/1.1") and "Connection: close" not in self.head


def real_clients() -> tuple[RealClient, ...]:
    """Return all that were recorded."""
    return tuple(RealClient(**item) for item in tomllib.loads(_FILE.read_text())["client"])


class ClientPreparer:
    """Makes one client's requests about one issuer's certificates."""

    def __init__(
        self, client: RealClient, ca: x509.Certificate, host: str, port: int, path: str = "/ocsp"
    ) -> None:
        self.issuer = issuer_part(ca, client.hash, parameters=client.parameters != "absent")
        self.keeps = client.keeps
        self._client = client
        method, rest = client.head[0].split(" ", 1)
        first = f"{method} {path.rstrip('/')}{rest.removeprefix('/ocsp')}"
        head = "".join(f"{line}\r\n" for line in (first, *client.head[1:], ""))
        head = head.replace("{host}", host).replace("{port}", str(port))
        # The one part that changes: the request in the path, or the body's length.
        self._changes = next(name for name in ("{path}", "{raw}", "{length}") if name in head)
        before, after = head.split(self._changes)
        self._before, self._after = before.encode("ascii"), after.encode("ascii")

    def question(self, serials: Sequence[bytes], nonce: bytes | None = None) -> Question:
        """Return the HTTP request that asks about *serials*; *nonce*: not a random one."""
        client = self._client
        if nonce is None:
            nonce = os.urandom(client.nonce_octets) if client.nonce_octets else b""
        extensions = [nonce_extension(nonce) if name == "nonce" else _BASIC for name in client.extensions]
        der = request_der(self.issuer, serials, *extensions, empty=client.empty)
        if self._changes == "{path}":
            return Question(self._before + escaped(der) + self._after, b"", nonce)
        if self._changes == "{raw}":
            return Question(self._before + base64.b64encode(der) + self._after, b"", nonce)
        head = b"%b%d%b" % (self._before, len(der), self._after)
        return Question(head, der, nonce) if client.pieces == 2 else Question(head + der, b"", nonce)
