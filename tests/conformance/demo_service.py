"""One service of a demo installation as its verifiers know it: the CA, and who was revoked."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from ocsp_reading import Said, read_answer
from request_octets import SHA1_OID, Asked, cert_id, request
from wire_client import Reply


class Service(NamedTuple):
    """*good* and *revoked*: serial numbers of the demo's certificates."""

    name: str
    folder: Path
    ca: x509.Certificate
    good: tuple[int, ...]
    revoked: tuple[int, ...]

    def asked(self, serial: int | None = None, algorithm: str = SHA1_OID) -> Asked:
        """The CertID of a certificate, the first good one unless told otherwise."""
        return cert_id(self.ca, self.good[0] if serial is None else serial, algorithm)

    def request(self, *serials: int, extensions: bytes = b"") -> bytes:
        """A plain request for *serials*, the first good one if there are none."""
        ones = [self.asked(serial).one for serial in serials or self.good[:1]]
        return request(*ones, extensions=extensions)

    def read(self, reply: Reply) -> Said:
        """What an HTTP answer says; it must be an OCSP answer, and verify if it is signed."""
        assert reply.status == 200, reply.head
        assert reply.header("Content-Type") == "application/ocsp-response"
        return read_answer(reply.body, self.ca)


def never_issued() -> int:
    """A serial number that nobody has given out."""
    return secrets.randbits(126) | 1 << 126


def service_of(state: Path, name: str) -> Service:
    """The demo's files of a service."""
    folder = state / "demo" / name.lower()
    by_status: dict[str, list[int]] = {"good": [], "revoked": []}
    for line in (folder / "population.csv").read_text().splitlines()[1:]:
        serial, status = line.split(",")
        by_status[status].append(int(serial, 16))
    ca = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
    return Service(name, folder, ca, tuple(by_status["good"]), tuple(by_status["revoked"]))
