"""HTTP requests with an OCSP request in them, as bytes, cheap to make by the million.

Everything that does not change from one certificate to the next is made once per ``Form``; a
serial number is put in by joining.  Shapes are those of real clients: GET with percent-encoded
base64, POST, HTTP/1.0, one connection per request, nonce, SHA-1 or SHA-256.
Knows: the octets.  Does not know: connections or answers.
Source: RFC 6960 §4.1.1, A.1; RFC 9654 §2 (nonce).
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from certstatus.der import tlv

_HASHES = {
    "sha1": (hashlib.sha1, bytes.fromhex("300906052b0e03021a0500")),
    "sha256": (hashlib.sha256, bytes.fromhex("300d06096086480165030402010500")),
}
_NONCE_OCTETS = 16
_NONCE_OID = bytes.fromhex("06092b0601050507300102")


@dataclass(frozen=True, slots=True)
class Form:
    """How a client asks.

    method     GET or POST
    hash_name  sha1 or sha256, for the CertID
    nonce      16 random octets with each request
    close      ``Connection: close`` is sent
    version    of HTTP: 1.1, or 1.0 (one connection per request)
    headers    further header lines, each with its line end, as the client sends them
    """

    method: str = "GET"
    hash_name: str = "sha1"
    nonce: bool = False
    close: bool = False
    version: str = "1.1"
    headers: bytes = b""

    @property
    def keeps(self) -> bool:
        """Whether further requests may follow on the connection."""
        return self.version == "1.1" and not self.close


class Question(NamedTuple):
    """One HTTP request with an OCSP request in it.

    first, second  the message, in the segments in which it is sent; usually there is one
    nonce          the nonce's octets; empty: none
    """

    first: bytes
    second: bytes
    nonce: bytes


class Preparer:
    """Makes one form's requests about one issuer's certificates to one host."""

    def __init__(self, form: Form, ca: x509.Certificate, host: str, path: str = "/ocsp") -> None:
        self.form = form
        self.issuer = issuer_part(ca, form.hash_name)
        self.keeps = form.keeps
        line_end = f" HTTP/{form.version}\r\nHost: {host}\r\n".encode("ascii") + form.headers
        if form.close:
            line_end += b"Connection: close\r\n"
        self._path = path.rstrip("/").encode("ascii")
        self._get_end = line_end + b"\r\n"
        self._post = (
            b"POST " + self._path + line_end + b"Content-Type: application/ocsp-request\r\nContent-Length: "
        )
        self._is_post = form.method == "POST"
        self._nonce_octets = _NONCE_OCTETS if form.nonce else 0
        # What surrounds serial number and nonce, by the serial number's length.
        self._around: dict[int, tuple[bytes, bytes]] = {}

    def question(self, serials: Sequence[bytes]) -> Question:
        """Return the HTTP request that asks about *serials* (INTEGER content octets)."""
        nonce = os.urandom(self._nonce_octets) if self._nonce_octets else b""
        if len(serials) == 1:
            serial = serials[0]
            around = self._around.get(len(serial))
            if around is None:
                whole = request_der(self.issuer, [serial], nonce_extension(nonce) if nonce else b"")
                begins = whole.index(self.issuer) + len(self.issuer) + 2
                around = whole[:begins], whole[begins + len(serial) : len(whole) - len(nonce)]
                self._around[len(serial)] = around
            der = b"".join((around[0], serial, around[1], nonce))
        else:
            der = request_der(self.issuer, serials, nonce_extension(nonce) if nonce else b"")
        if self._is_post:
            return Question(b"%b%d\r\n\r\n%b" % (self._post, len(der), der), b"", nonce)
        return Question(b"GET %b/%b%b" % (self._path, escaped(der), self._get_end), b"", nonce)

    def http(self, serials: Sequence[bytes]) -> bytes:
        """Return the HTTP request in one piece."""
        return self.question(serials).first

    def ocsp(self, serials: Sequence[bytes]) -> bytes:
        """Return the OCSPRequest, DER."""
        nonce = nonce_extension(os.urandom(self._nonce_octets)) if self._nonce_octets else b""
        return request_der(self.issuer, serials, nonce)


def request_der(issuer: bytes, serials: Sequence[bytes], *extensions: bytes, empty: bool = False) -> bytes:
    """Return an OCSPRequest about *serials* with these extensions (empty ones do not count).

    *empty*: with requestExtensions, even if there are none.
    """
    wanted = b"".join([tlv(0x30, tlv(0x30, issuer + bytes((2, len(serial))) + serial)) for serial in serials])
    parts = tlv(0x30, wanted)
    if (content := b"".join(extensions)) or empty:
        parts += tlv(0xA2, tlv(0x30, content))
    return tlv(0x30, tlv(0x30, parts))


def nonce_extension(nonce: bytes) -> bytes:
    """Return the Extension that asks for *nonce* to be echoed."""
    return tlv(0x30, _NONCE_OID + tlv(0x04, tlv(0x04, nonce)))


def escaped(request: bytes) -> bytes:
    """Return base64 with what is not for URLs percent-encoded, as ``urllib`` does at 30 times the cost."""
    return base64.b64encode(request).replace(b"+", b"%2B").replace(b"/", b"%2F").replace(b"=", b"%3D")


def issuer_part(ca: x509.Certificate, hash_name: str, *, parameters: bool = True) -> bytes:
    """Return what stands before the serial number in a CertID: hash, name hash, key hash.

    *parameters*: the hash's AlgorithmIdentifier has its NULL.
    """
    function, algorithm_der = _HASHES[hash_name]
    if not parameters:
        algorithm_der = tlv(0x30, algorithm_der[2:-2])
    return b"".join(
        (
            algorithm_der,
            tlv(0x04, function(ca.subject.public_bytes()).digest()),
            tlv(0x04, function(_key_bits(ca)).digest()),
        )
    )


def _key_bits(ca: x509.Certificate) -> bytes:
    """Return what the BIT STRING of the certificate's SubjectPublicKeyInfo holds."""
    key = ca.public_key()
    if isinstance(key, ec.EllipticCurvePublicKey):
        return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return key.public_bytes(Encoding.DER, PublicFormat.PKCS1)
