"""Requests octet for octet as real clients send them, from bench/real_clients.toml, about any certificate."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import NamedTuple

from demo_service import Service
from request_octets import (
    BASIC_OID,
    RESPONSE_OID,
    SHA1_OID,
    SHA256_OID,
    base64_of,
    escaped,
    extension,
    nonce_of,
    oid,
    request,
    seq,
    with_extensions,
)

# The load test sends them too, and makes them by itself.
_FILE = Path(__file__).parents[2] / "bench" / "real_clients.toml"
_HASHES = {"sha1": SHA1_OID, "sha256": SHA256_OID}


class RealClient(NamedTuple):
    """One way in which a client asks; the fields are the file's."""

    row: str
    name: str
    head: list[str]
    hash: str = "sha1"
    parameters: str = "null"
    nonce_octets: int = 0
    extensions: tuple[str, ...] = ()
    empty: bool = False
    pieces: int = 1

    def der(self, service: Service, serial: int, nonce: bytes) -> bytes:
        """The OCSPRequest about *serial*."""
        asked = service.asked(serial, _HASHES[self.hash])
        if self.parameters == "absent":
            asked = asked._replace(algorithm=seq(oid(_HASHES[self.hash])))
        known = {"nonce": nonce_of(nonce), "basic": extension(RESPONSE_OID, seq(oid(BASIC_OID)))}
        parts = [known[name] for name in self.extensions]
        return request(asked.one, extensions=with_extensions(*parts) if parts or self.empty else b"")

    def split(self, service: Service, serial: int, nonce: bytes, host: str, port: int) -> list[bytes]:
        """The message in the segments in which it is sent."""
        der = self.der(service, serial, nonce)
        names = {
            "host": host,
            "port": port,
            "length": len(der),
            "path": escaped(der),
            "raw": base64_of(der),
        }
        head = "".join(f"{line}\r\n" for line in (*self.head, "")).format_map(names).encode()
        if self.head[0].startswith("GET "):
            return [head]
        return [head, der] if self.pieces == 2 else [head + der]

    def message(
        self, service: Service, serial: int, nonce: bytes, host: str = "ocsp.test", port: int = 80
    ) -> bytes:
        """The message."""
        return b"".join(self.split(service, serial, nonce, host, port))


CLIENTS = tuple(RealClient(**item) for item in tomllib.loads(_FILE.read_text())["client"])
