"""A responder host's request for a certificate over an OCSP key of its own.

A CSR proves that somebody holds the OCSP key; the host's signature around it says which enrolled
host that is.  JSON, canonical::

    {"csr": PEM, "host": name, "issuer_id": n, "signature": hex, "time_ms": ms}

``signature`` is Ed25519 by the host's key over the canonical JSON of the other members after
the label ``certstatus certificate request``, so that it means nothing anywhere else.
Knows: the form, signing and verifying.  Does not know: who is enrolled, or what gets issued.
Source: RFC 2986 (CSR); RFC 6960 §4.2.2.2 (delegated responders).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from certstatus.errors import MalformedRequest, NotEntitled

_LABEL = b"certstatus certificate request\0"
REQUEST_BYTES_MAX = 16_384
# What the feed and the store of record hold in the two numbers.
_ISSUER_ID_MAX = 0xFFFF
_TIME_MS_MAX = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    """What is asked for: a certificate of *issuer_id* for *host* over the key in the CSR."""

    host: str
    issuer_id: int
    csr_pem: str
    time_ms: int

    def sign(self, host_key: Ed25519PrivateKey) -> bytes:
        """Return the signed request."""
        signature = host_key.sign(_LABEL + self._body())
        return _canonical({**self._members(), "signature": signature.hex()})

    def verify(self, signature: bytes, host_key: Ed25519PublicKey) -> None:
        """Check that the host signed exactly this.

        Raises: NotEntitled — it did not.
        """
        try:
            host_key.verify(signature, _LABEL + self._body())
        except InvalidSignature as exc:
            raise NotEntitled(f"the request is not signed by the key enrolled for host {self.host}") from exc

    def _members(self) -> dict[str, str | int]:
        return {
            "csr": self.csr_pem,
            "host": self.host,
            "issuer_id": self.issuer_id,
            "time_ms": self.time_ms,
        }

    def _body(self) -> bytes:
        return _canonical(self._members())


def read_request(text: bytes) -> tuple[CertificateRequest, bytes]:
    """Return the request in *text* and its signature, not verified yet.

    Raises: MalformedRequest — too long, not JSON, or members missing or of the wrong kind.
    """
    if len(text) > REQUEST_BYTES_MAX:
        raise MalformedRequest(f"a certificate request has at most {REQUEST_BYTES_MAX} bytes")
    try:
        content = json.loads(text)
        request = CertificateRequest(
            content["host"], content["issuer_id"], content["csr"], content["time_ms"]
        )
        signature = bytes.fromhex(content["signature"])
    except (ValueError, KeyError, TypeError, RecursionError) as exc:
        raise MalformedRequest(f"a certificate request: {exc!r}") from exc
    numbers = ((request.issuer_id, _ISSUER_ID_MAX), (request.time_ms, _TIME_MS_MAX))
    if not all(type(item) is str for item in (request.host, request.csr_pem)) or not all(
        type(item) is int and 0 <= item <= most for item, most in numbers
    ):
        raise MalformedRequest("a certificate request: host and csr are strings, the others numbers")
    # Controls and halves of characters are in no host's name, and no database takes them.
    if not request.host.isprintable() or not request.csr_pem.isascii():
        raise MalformedRequest("a certificate request: host or csr has characters that cannot be there")
    return request, signature


def request_digest(text: bytes) -> str:
    """Return the SHA-256 of a signed request in hex, under which its answer is kept."""
    return hashlib.sha256(text).hexdigest()


def _canonical(members: dict[str, str | int]) -> bytes:
    return json.dumps(members, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
