"""Two generations of one name: what the other one signed is refused, by clients and by us."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import gnutls_clients
import go_clients
import java_clients
import openssl_clients
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509 import ocsp
from interop_ca import CA
from interop_clients import run
from interop_wire import fetch_response, status_of
from interop_world import TWO_GENERATIONS, World


class Generations(NamedTuple):
    """The two, and one file that trusts both, as verifiers do while both are in use."""

    first: CA
    second: CA
    both: Path


@pytest.fixture(scope="module")
def generations(world: World) -> Generations:
    """The two generations of one name."""
    first, second = world.cas[TWO_GENERATIONS], world.cas[f"{TWO_GENERATIONS} 2"]
    both = world.folder / "both.pem"
    both.write_bytes(first.certificate.read_bytes() + second.certificate.read_bytes())
    return Generations(first, second, both)


def _verdicts_by_crl(
    world: World, generations: Generations, case: str, crl_of: CA, scope: str
) -> dict[str, str]:
    """What each client makes of a first-generation certificate with the CRL of *crl_of*."""
    first, second, both = generations
    leaf = first.leaf(case)
    place = crl_of.crl_place.removesuffix("all") + scope
    crl = openssl_clients.fetch_crl(world, place, "complete", world.folder / "generation.crl")
    assert crl is not None
    line = f"list:{crl} {first.certificate},{second.certificate} {leaf}"
    url = f"http://127.0.0.1:{world.port}{place}/complete.crl"
    return {
        "openssl": openssl_clients.verify(leaf, both, [crl]).verdict,
        "certtool": gnutls_clients.by_crl(leaf, first.certificate, crl).verdict,
        "JDK": java_clients.ask(world, "SUN", [line], online=False)[0].verdict,
        "BouncyCastle": java_clients.ask(world, "BC", [line], online=False)[0].verdict,
        "Go": go_clients.ask(world, [f"crl {url} {first.certificate} {leaf}"])[0].verdict,
    }


@pytest.mark.parametrize("scope", ["all", "m1/00000"])
@pytest.mark.parametrize("case", ["good", "revoked"])
def test_the_other_generations_crl_is_refused(
    world: World, generations: Generations, case: str, scope: str
) -> None:
    """By the CRL of its own generation a certificate is what it is, and by the other's it is nothing: by
    the whole list as by its partition's, of which both generations have one."""
    own = _verdicts_by_crl(world, generations, case, generations.first, scope)
    other = _verdicts_by_crl(world, generations, case, generations.second, scope)
    assert own == dict.fromkeys(own, case)
    assert other == dict.fromkeys(other, "refused")


def _forge(world: World, generations: Generations, delegate_of: CA) -> Path:
    """Make a "good" about the first generation's revoked certificate, by the delegate of *delegate_of*."""
    first = generations.first
    key = next((world.served.state / "host" / "keys").glob(f"{delegate_of.issuer_id}-*.key"))
    leaf = first.leaf("revoked")
    number = x509.load_pem_x509_certificate(leaf.read_bytes()).serial_number
    index = world.folder / "forged.txt"
    index.write_text(f"V\t491231235959Z\t\t{number:032X}\tunknown\t/CN=forged\n")
    files = world.folder / f"forged-{delegate_of.issuer_id}"
    asked = run("openssl", "ocsp", "-issuer", first.certificate, "-cert", leaf, "-no_nonce", "-reqout", files)
    assert "exit 0" in asked, asked
    response = files.with_suffix(".der")
    said = run(
        *("openssl", "ocsp", "-index", index, "-CA", first.certificate, "-reqin", files),
        *("-rsigner", key.with_suffix(".crt"), "-rkey", key, "-respout", response, "-ndays", "1"),
    )
    assert "exit 0" in said, said
    return response


def _verdicts_by_response(world: World, generations: Generations, response: Path) -> dict[str, str]:
    first, second, both = generations
    leaf = first.leaf("revoked")
    line = f"response:{response} {first.certificate},{second.certificate} {leaf}"
    said = run(
        "openssl", "ocsp", "-issuer", first.certificate, "-CAfile", both, "-cert", leaf, "-respin", response
    )
    gnutls = run(
        *("ocsptool", "--verify-response", f"--load-response={response}"),
        *(f"--load-issuer={first.certificate}", f"--load-trust={first.certificate}"),
    )
    return {
        "openssl": "good" if "Response verify OK" in said and ": good" in said else "refused",
        "ocsptool": "good" if "Verifying OCSP Response: Success" in gnutls else "refused",
        "JDK": java_clients.ask(world, "SUN", [line])[0].verdict,
        "BouncyCastle": java_clients.ask(world, "BC", [line])[0].verdict,
        "Go": go_clients.ask(world, [f"response {response} {first.certificate} {leaf}"])[0].verdict,
    }


def test_the_other_generations_delegate_is_refused(world: World, generations: Generations) -> None:
    """A stolen delegate's key lies with effect under its own CA key, and under no other of that name."""
    own = _verdicts_by_response(world, generations, _forge(world, generations, generations.first))
    other = _verdicts_by_response(world, generations, _forge(world, generations, generations.second))
    assert own == dict.fromkeys(own, "good")
    assert other == dict.fromkeys(other, "refused")


@pytest.mark.parametrize("algorithm", [hashes.SHA1(), hashes.SHA256()], ids=lambda item: item.name)
def test_we_never_answer_under_the_other_generation(
    world: World, generations: Generations, algorithm: hashes.HashAlgorithm
) -> None:
    """The delegate is of the key that was asked about, which knows none of the other's certificates."""
    first, second, _ = generations
    for asked, other in ((first, second), (second, first)):
        ca = x509.load_pem_x509_certificate(asked.certificate.read_bytes())
        for of, case in [(of, case) for of in (asked, other) for case in ("good", "revoked", "unknown")]:
            response_der = fetch_response(world, asked, of.leaf(case), algorithm)
            assert status_of(response_der) == (case if of is asked else "unknown")
            (delegate,) = ocsp.load_der_ocsp_response(response_der).certificates
            delegate.verify_directly_issued_by(ca)


def test_one_request_about_both_generations(world: World, generations: Generations) -> None:
    """Two CA keys in one request would need two signers, so nobody is told anything; one key is answered."""
    first, second, both = generations
    base: list[str | Path] = ["openssl", "ocsp", "-CAfile", both, "-url", world.ocsp_url]
    base += ["-issuer", first.certificate, "-cert", first.leaf("good"), "-cert", first.leaf("revoked")]
    said = run(*base)
    assert "Response verify OK" in said
    assert f"{first.leaf('good')}: good\n" in said
    assert f"{first.leaf('revoked')}: revoked\n" in said
    said = run(*base, "-issuer", second.certificate, "-cert", second.leaf("good"))
    assert "Responder Error: unauthorized (6)" in said
