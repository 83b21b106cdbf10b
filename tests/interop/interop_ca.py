"""A CA as its clients see it: files, and a certificate for each thing that can be said."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

# What TLS servers call themselves; clients are told that it is 127.0.0.1.
HOST_NAME = "server.test"
CASES = ("good", "revoked", "held", "unknown", "expired", "wrong issuer")


@dataclass(frozen=True, slots=True)
class CA:
    """One CA and its files: ``ca.pem``, ``foreign.pem``, and per case a certificate and its key."""

    name: str
    folder: Path
    crl_place: str
    cases: tuple[str, ...]
    registered: bool
    what: str
    issuer_id: int

    @property
    def certificate(self) -> Path:
        """The CA's own certificate."""
        return self.folder / "ca.pem"

    def anchor(self, case: str) -> Path:
        """The CA certificate that a client of this case trusts."""
        return self.folder / ("foreign.pem" if case == "wrong issuer" else "ca.pem")

    def leaf(self, case: str) -> Path:
        """The certificate that the case asks about."""
        return self.folder / f"{case.replace(' ', '-')}.pem"

    def key(self, case: str) -> Path:
        """The private key of that certificate."""
        return self.leaf(case).with_suffix(".key")
