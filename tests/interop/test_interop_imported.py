"""CAs that openssl has kept and that were taken over."""

from __future__ import annotations

import urllib.request

from cryptography import x509
from cryptography.x509 import ocsp
from interop_wire import fetch_response
from interop_world import World


def test_who_signs(world: World) -> None:
    """The one CA's answers are signed by a delegate made here, the other's by its old responder's key."""
    for name, signer in (("RSA", "OCSP responder localhost"), ("EC", "Old responder")):
        ca = world.cas[name]
        response = ocsp.load_der_ocsp_response(fetch_response(world, ca, ca.leaf("good")))
        (delegate,) = response.certificates
        delegate.verify_directly_issued_by(x509.load_pem_x509_certificate(ca.certificate.read_bytes()))
        assert f"CN={signer}" in delegate.subject.rfc4514_string()


def test_crl_numbers_go_on(world: World) -> None:
    """The first CRL of ours has a higher number than the last one that openssl made."""
    for name in ("RSA", "EC"):
        ca = world.cas[name]
        last = x509.load_pem_x509_crl((ca.folder / "last.crl").read_bytes())
        url = f"http://127.0.0.1:{world.port}{ca.crl_place}/complete.crl"
        with urllib.request.urlopen(url, timeout=10) as answer:
            ours = x509.load_der_x509_crl(answer.read())
        assert _number(last) < _number(ours)
        assert {entry.serial_number for entry in last} == {entry.serial_number for entry in ours}


def _number(crl: x509.CertificateRevocationList) -> int:
    return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
