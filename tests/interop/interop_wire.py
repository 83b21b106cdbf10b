"""Octets as they come: an OCSP response, fetched by curl from an address of our choice."""

from __future__ import annotations

import subprocess
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from interop_ca import CA
from interop_world import World

_SHA1 = hashes.SHA1()


def fetch_response(
    world: World, ca: CA, leaf: Path, algorithm: hashes.HashAlgorithm = _SHA1, address: str = "127.0.0.1"
) -> bytes:
    """Ask about *leaf* as one of *ca*'s from *address*; return the response (DER)."""
    builder = ocsp.OCSPRequestBuilder().add_certificate(
        x509.load_pem_x509_certificate(leaf.read_bytes()),
        x509.load_pem_x509_certificate(ca.certificate.read_bytes()),
        algorithm,
    )
    posted = ["--data-binary", "@-", "-H", "Content-Type: application/ocsp-request"]
    done = subprocess.run(
        ["curl", "-sf", "--interface", address, *posted, world.ocsp_url],
        input=builder.build().public_bytes(Encoding.DER),
        capture_output=True,
        check=True,
        timeout=30,
    )
    return done.stdout


def status_of(response_der: bytes) -> str:
    """Return the certificate's status in a response, or the name of the error."""
    response = ocsp.load_der_ocsp_response(response_der)
    if response.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
        return response.response_status.name.lower()
    return response.certificate_status.name.lower()
