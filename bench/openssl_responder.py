"""A server to compare with: ``openssl ocsp`` as a responder over an index.txt of a few lines.

It answers one request at a time, each on a connection of its own, and signs every answer.
Knows: making its CA and index, starting it, requests about its certificate.
Does not know: what it is compared with.  Source: openssl-ocsp(1).
"""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from bench.server import ServerProcess, free_port

SERIAL = 0x4A00_0000_0000_0001
_LINES = 100


class OpensslResponder(ServerProcess):
    """A running responder; ``ca`` is whom it answers for, by a P-256 key."""

    def __init__(self, folder: Path, processor: int) -> None:
        folder.mkdir()
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench openssl CA")])
        now = datetime.now(UTC)
        self.ca = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(1)
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(True, None), True)
            .sign(key, hashes.SHA256())
        )
        (folder / "ca.pem").write_bytes(self.ca.public_bytes(serialization.Encoding.PEM))
        (folder / "ca.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        until = (now + timedelta(days=1)).strftime("%y%m%d%H%M%SZ")
        (folder / "index.txt").write_text(
            "".join(f"V\t{until}\t\t{SERIAL + number:X}\tunknown\t/CN={number}\n" for number in range(_LINES))
        )
        files: list[str | Path] = ["-index", folder / "index.txt", "-CA", folder / "ca.pem"]
        files += ["-rsigner", folder / "ca.pem", "-rkey", folder / "ca.key"]
        self._command = ["taskset", "-c", str(processor), "openssl", "ocsp", *map(str, files)]
        super().__init__("openssl ocsp", *self._start())

    def restart(self) -> None:
        """Begin anew: a connection without a request, as a generator leaves behind, blocks it for ever."""
        self.stop()
        super().__init__(self.name, *self._start())

    def _start(self) -> tuple[int, subprocess.Popen[bytes]]:
        port = free_port()
        return port, subprocess.Popen(
            [*self._command, "-port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
