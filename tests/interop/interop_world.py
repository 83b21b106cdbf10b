"""The installation that real clients meet, and a certificate for each thing they can be told.

Knows: SIGN, AUTH and an issuer that holds, made in the past so that something has expired; two
generations of one name; a foreign CA under each name; the certificates' keys, for TLS servers.
Does not know: any client.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from imported_ca import make_existing_ca, make_old_responder
from interop_ca import CA, CASES, HOST_NAME
from served_installation import Served

from certstatus import clock
from certstatus.config import load_config
from certstatus.key_kinds import generate_key, signature_hash
from certstatus.publisher_key import load_index_key
from issuance import profiles
from issuance.ca_keys import CAKey, CAKeyFolder
from issuance.crl_scopes import known_names
from issuance.issue import Issuing, issue, sign
from issuance.issuers import issuers
from issuance.store import Store

AGE_MAX_S = 10
CRL_VALIDITY_S = 30
# The issuer that has two.
TWO_GENERATIONS = "SIGN"
_AGE_OF_CA_DAYS = 40
_AGE_OF_EXPIRED_DAYS = 35
_CONFIG = f"""
[index]
age_max_s = {AGE_MAX_S}
snapshot_period_s = 5

[responder]
port = {{port}}
admin_port = {{admin_port}}
key = "{{responder_key}}"
"""
_ISSUER = f"""
[[issuer]]
service = "{{service}}"
key = "{{key}}"
{{more}}
base_url = "http://127.0.0.1:{{port}}"
validity_good_s = 60
validity_revoked_s = 60
validity_unknown_s = 30
crl_period_s = 10
crl_validity_s = {CRL_VALIDITY_S}
delta_period_s = 4
delta_validity_s = 30
"""
_ISSUERS = (
    ("SIGN", "p256", ""),
    ("AUTH", "rsa2048", ""),
    ("CORP", "p384", 'access = "public"\nhold = true\nexpired = "last"'),
)

_IMPORTED_FILES = {
    "ca": "ca.pem",
    "key": "ca.key",
    "certificates": "certificates",
    "index": "index.txt",
    "crl": "last.crl",
}


class World:
    """One installation below *folder*, served; ``cas`` by name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.served = Served(folder)
        self.port = free_port()
        self.cas: dict[str, CA] = {}

    @property
    def ocsp_url(self) -> str:
        """Where OCSP is asked; the certificates say the same."""
        return f"http://127.0.0.1:{self.port}/ocsp"

    def begin(self) -> None:
        """Make everything and serve it."""
        given = self.folder / "given.toml"
        text = _CONFIG.format(port=self.port, admin_port=self.port + 1, responder_key="p256")
        for service, key, more in _ISSUERS:
            text += _ISSUER.format(service=service, key=key, more=more, port=self.port)
        given.write_text(text)
        self._init_in_the_past(given)
        config = load_config(self.served.config)
        keys = CAKeyFolder(config.state / "ca")
        index_key = load_index_key(config.state / "secrets" / "index.key")
        with Store.open(config.store_url) as store:
            for issuer in issuers(store):
                made = self._make_ca(store, Issuing.of(issuer, keys.private_key(issuer.issuer_id)), index_key)
                self.cas[made.name] = made
        self._import()
        self.entitle()
        self.served.serve("--port", str(self.port))

    def end(self) -> None:
        """Stop serving, and leave nothing running."""
        if self.served.supervisor is not None:
            self.served.stop()
        self.served.clean_up()

    # --- what befalls it ---------------------------------------------------------------------------

    def entitle(self) -> None:
        """Register this machine's own address for all that needs it."""
        services = {ca.name.split()[0] for ca in self.cas.values() if ca.registered}
        grants = [word for name in sorted(services) for word in ("--grant", name)]
        self.served.run("verifier", "add", "here", "--network", "127.0.0.1/32", *grants)

    def end_entitlement(self) -> None:
        """End the right of this machine's address."""
        for item in self.served.json("verifier", "list"):
            self.served.run("verifier", "end", str(item["verifier_id"]))

    @contextmanager
    def out_of_touch(self) -> Iterator[None]:
        """Stop the publisher, until workers have heard nothing for too long and every CRL has run out."""
        running = self.served.running()
        stopped = [*running["feed"], *running["builder"]]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            time.sleep(max(AGE_MAX_S, CRL_VALIDITY_S) + 1)
            yield
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
            self.served.wait_ready()

    # --- making ------------------------------------------------------------------------------------

    def _init_in_the_past(self, given: Path) -> None:
        offset = self.folder / "clock"
        offset.write_bytes(struct.pack("<q", -_AGE_OF_CA_DAYS * clock.DAY_S * 1000))
        hook = Path(__file__).parents[1] / "faults" / "stepped_clock"
        paths = [str(hook), *filter(None, [os.environ.get("PYTHONPATH")])]
        stepped = {"PYTHONPATH": ":".join(paths), "CERTSTATUS_TEST_CLOCK": str(offset)}
        for words in (["init", "--from", str(given)], ["issuer", "add", TWO_GENERATIONS]):
            subprocess.run(
                self.served.command(*words),
                env=os.environ | stepped,
                check=True,
                capture_output=True,
                timeout=60,
            )

    def _make_ca(self, store: Store, issuing: Issuing, index_key: bytes) -> CA:
        issuer = issuing.issuer
        name = issuer.service if issuer.generation == 1 else f"{issuer.service} {issuer.generation}"
        holds = issuer.policy.hold
        made = CA(
            name,
            self.folder / name.replace(" ", "-"),
            f"/crl/{issuer.service.lower()}/g{issuer.generation}/all",
            tuple(case for case in CASES if holds or case != "held"),
            issuer.policy.access == "registered",
            f"{issuer.key_algorithm}, {issuer.policy.access}",
            issuer.issuer_id,
        )
        made.folder.mkdir()
        write_certificate(made.certificate, issuer.ca_certificate)
        for case in made.cases:
            key = ec.generate_private_key(ec.SECP256R1())
            write_key(made.key(case), key)
            if case == "wrong issuer":
                der = self._copy_under_foreign_ca(made, key)
            else:
                der = _certificate(store, issuing, index_key, key.public_key(), case)
            write_certificate(made.leaf(case), x509.load_der_x509_certificate(der))
        self.served.run("revoke", serial(made.leaf("revoked")), "--reason", "keyCompromise")
        if holds:
            self.served.run("hold", serial(made.leaf("held")))
        return made

    def _import(self) -> None:
        """Take over two CAs that openssl has kept: an RSA one, and an EC one with its old responder."""
        with self.served.config.open("a") as config:
            for service in ("RSA", "EC"):
                config.write(_ISSUER.format(service=service, key="p256", more="", port=self.port))
        self._take_over("RSA", "rsa:2048", "registered", "its own delegate")
        self._adopt(self._take_over("EC", "P-384", "public", "the old responder's certificate"))

    def _take_over(self, service: str, new_key: str, access: str, signer: str) -> CA:
        issuer_id = len(self.served.json("issuer", "list")) + 1
        what = f"imported, {new_key}, {access}, {signer}"
        place = f"/crl/{service.lower()}/g1/all"
        made = CA(service, self.folder / service, place, CASES, access == "registered", what, issuer_id)
        make_existing_ca(made, new_key, f"http://127.0.0.1:{self.port}")
        foreign_key = ec.generate_private_key(ec.SECP256R1())
        write_key(made.key("wrong issuer"), foreign_key)
        der = self._copy_under_foreign_ca(made, foreign_key)
        write_certificate(made.leaf("wrong issuer"), x509.load_der_x509_certificate(der))
        files = [f"--{name}={made.folder / file}" for name, file in _IMPORTED_FILES.items()]
        words = ["--issued-list", "complete", "--access", access, "--hold"]
        self.served.run("import", service, *files, *words)
        self.cas[service] = made
        return made

    def _adopt(self, ca: CA) -> None:
        certificate, key = make_old_responder(ca)
        self.served.run("responder-cert", "adopt", str(certificate), str(key), "--service", ca.name)

    def _copy_under_foreign_ca(self, ca: CA, key: ec.EllipticCurvePrivateKey) -> bytes:
        """Make another CA of the same name, and its certificate with the number of our good one."""
        ours = x509.load_pem_x509_certificate(ca.certificate.read_bytes())
        good = x509.load_pem_x509_certificate(ca.leaf("good").read_bytes())
        foreign_key = generate_key("p256")
        foreign = profiles.sign_ca_certificate(foreign_key, ours.subject, clock.now_s() - clock.DAY_S)
        write_certificate(ca.folder / "foreign.pem", foreign)
        return copy_certificate(good, key, foreign_key, foreign).public_bytes(serialization.Encoding.DER)


def _certificate(
    store: Store, issuing: Issuing, index_key: bytes, key: ec.EllipticCurvePublicKey, case: str
) -> bytes:
    """Return the certificate of a case (DER), recorded unless nobody is to know it."""
    subject = _server_name(case)
    if case == "unknown":
        # In a partition that has been opened, so that there are CRLs to say nothing of it; which one follows
        # from the number, and that is drawn.
        for _ in range(10_000):
            signed = sign(issuing, key, clock.now_s(), subject=subject)
            if known_names(store, issuing.issuer.issuer_id, signed.scope) is not None:
                break
        return signed.certificate_der
    if case != "expired":
        return issue(store, issuing, index_key, key, clock.now_ms, subject=subject).certificate_der
    began_s = clock.now_s() - _AGE_OF_EXPIRED_DAYS * clock.DAY_S
    ended_s = profiles.day_after_days(began_s, _AGE_OF_EXPIRED_DAYS - 5)
    return issue(
        store, issuing, index_key, key, began_s * 1000, subject=subject, not_after_s=ended_s
    ).certificate_der


def copy_certificate(
    pattern: x509.Certificate, key: ec.EllipticCurvePrivateKey, ca_key: CAKey, ca: x509.Certificate
) -> x509.Certificate:
    """Return a certificate from *ca* that says all that *pattern* says, serial number included."""
    builder = (
        x509.CertificateBuilder()
        .serial_number(pattern.serial_number)
        .subject_name(pattern.subject)
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .not_valid_before(pattern.not_valid_before_utc)
        .not_valid_after(pattern.not_valid_after_utc)
    )
    for item in pattern.extensions:
        value = item.value
        if isinstance(value, x509.AuthorityKeyIdentifier):
            value = profiles.authority_key_id(ca)
        elif isinstance(value, x509.SubjectKeyIdentifier):
            value = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        builder = builder.add_extension(value, item.critical)
    return builder.sign(ca_key, signature_hash(ca_key))


def _server_name(case: str) -> x509.Name:
    # The case in the name too: NSS takes two certificates of one subject for one.
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "JP"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, case),
            x509.NameAttribute(NameOID.COMMON_NAME, HOST_NAME),
        ]
    )


def write_certificate(path: Path, certificate: x509.Certificate) -> None:
    """Write a certificate as PEM, and beside it as DER."""
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    path.with_suffix(".der").write_bytes(certificate.public_bytes(serialization.Encoding.DER))


def write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    """Write a private key as PEM, not encrypted."""
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )


def serial(certificate: Path) -> str:
    """Return a certificate's number in hex."""
    return f"{x509.load_pem_x509_certificate(certificate.read_bytes()).serial_number:x}"


_given: set[int] = set()
_giving = threading.Lock()


def free_port() -> int:
    """Return a TCP port that nobody listens on just now, nor on the next one (the operators' pages).

    Never one twice, and below those that the system gives out by itself, so that no client's connection
    comes to lie there.
    """
    while True:
        port = random.randrange(20_000, 32_000, 2)
        try:
            for number in (port, port + 1):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", number))
        except OSError:
            continue
        with _giving:
            if port not in _given:
                _given.add(port)
                return port
