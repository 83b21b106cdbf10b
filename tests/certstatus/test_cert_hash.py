"""The hash of the certificate in answers of a running installation, from its issuing to the octets."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from asn1crypto import ocsp as asn1_ocsp
from asn1crypto.algos import DigestAlgorithm
from asn1crypto.core import OctetString, Sequence
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from served_installation import READY_TIME_S, Served, openssl

from certstatus import oid
from certstatus.config import load_config
from certstatus.index import Snapshot
from issuance.issuers import issuers
from issuance.store import Store

CONFIG = """
[[issuer]]
service = "PUBLIC"
access = "public"
hold = true
cert_hash = false
"""


class CertHash(Sequence):  # type: ignore[misc]
    """CertHash as Common PKI writes it down."""

    _fields = [("hash_algorithm", DigestAlgorithm), ("certificate_hash", OctetString)]  # noqa: RUF012


class Public:
    """A served installation with one public issuer, and the certificates it has issued."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.served = Served(folder)
        given = folder / "given.toml"
        given.write_text(CONFIG)
        self.served.run("init", "--from", str(given))
        self.ca = folder / "ca.pem"
        with Store.open(load_config(self.served.config).store_url) as store:
            certificate = issuers(store)[0].ca_certificate
        self.ca.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def set_policy(self, cert_hash: bool) -> int:
        """Change cert_hash in the configuration and have it taken over; return how many hashes that told."""
        text = self.served.config.read_text()
        self.served.config.write_text(
            re.sub(r"cert_hash = \w+", f"cert_hash = {str(cert_hash).lower()}", text)
        )
        told: int = self.served.json("issuer", "policy", "PUBLIC")["hashes_told"]
        return told

    def issue(self, name: str) -> Path:
        """Issue a certificate over a fresh key and return where it is."""
        key, path = self.folder / f"{name}.key", self.folder / f"{name}.pem"
        openssl(f"ecparam -name prime256v1 -genkey -noout -out {key}")
        openssl(f"pkey -in {key} -pubout -out {key}.pub")
        self.served.run("issue", f"{key}.pub", "--service", "PUBLIC", "--out", str(path))
        return path

    def serial(self, path: Path) -> str:
        """The serial number in hex."""
        return openssl(f"x509 -in {path} -noout -serial").strip().removeprefix("serial=")

    def asked(self, path: Path) -> tuple[str, bytes | None]:
        """What openssl is answered, verified: the status, and the hash in the CertHash extension."""
        octets = path.with_suffix(".ors")
        said = openssl(
            f"ocsp -issuer {self.ca} -CAfile {self.ca} -cert {path} -url {self.served.url}/ocsp"
            f" -respout {octets}"
        )
        assert "Response verify OK" in said, said
        response = asn1_ocsp.OCSPResponse.load(octets.read_bytes(), strict=True)
        (single,) = response.response_data["responses"]
        return single["cert_status"].name, self._hash(single)

    def _hash(self, single: asn1_ocsp.SingleResponse) -> bytes | None:
        for extension in single["single_extensions"]:
            if extension["extn_id"].dotted == oid.CERT_HASH:
                assert not extension["critical"].native
                read = CertHash.load(extension["extn_value"].contents, strict=True)
                assert read["hash_algorithm"]["algorithm"].native == "sha256"
                value: bytes = read["certificate_hash"].native
                return value
        return None

    def becomes(self, path: Path, wanted: tuple[str, bytes | None]) -> None:
        """Wait until this is what is said of a certificate."""
        until = time.monotonic() + READY_TIME_S
        while (found := self.asked(path)) != wanted:
            assert time.monotonic() < until, f"{path.name} is {found}: {self.served.logs()}"
            time.sleep(0.05)

    def hashes_in_snapshot(self) -> int:
        """Wait for the first snapshot on the responder host; return how many hashes it holds."""
        until = time.monotonic() + READY_TIME_S
        while not (found := list((self.served.state / "host" / "index").glob("*.idx"))):
            assert time.monotonic() < until, self.served.logs()
            time.sleep(0.05)
        (path,) = found
        return sum(place.hashes.rows for place in Snapshot(path).head.sections)


@pytest.fixture
def public(tmp_path: Path) -> Iterator[Public]:
    """A new installation, not served yet."""
    made = Public(tmp_path)
    yield made
    made.served.clean_up()


def _sha256(path: Path) -> bytes:
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    return hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).digest()


def test_answers_carry_the_hash_of_the_very_certificate(public: Public) -> None:
    """Issued before the policy, in the snapshot or since; good, revoked, held and released."""
    early, old, gone = public.issue("early"), public.issue("old"), public.issue("gone")
    public.served.run("revoke", public.serial(gone))
    assert public.set_policy(True) == 3
    kept = public.issue("kept")
    public.served.serve()
    assert public.hashes_in_snapshot() == 4
    for path, status in ((early, "good"), (kept, "good"), (gone, "revoked")):
        public.becomes(path, (status, _sha256(path)))
    since = public.issue("since")
    public.becomes(since, ("good", _sha256(since)))
    assert public.hashes_in_snapshot() == 4
    # Each command returns when every worker has it.
    for path in (since, old):
        public.served.run("hold", public.serial(path))
        assert public.asked(path) == ("revoked", _sha256(path))
        public.served.run("release", public.serial(path))
        assert public.asked(path) == ("good", _sha256(path))
        public.served.run("revoke", public.serial(path), "--reason", "keyCompromise")
        assert public.asked(path) == ("revoked", _sha256(path))
    assert public.set_policy(False) == 0
    public.becomes(kept, ("good", None))
    unhashed = public.issue("unhashed")
    public.becomes(unhashed, ("good", None))
    assert public.set_policy(True) == 1
    for path in (kept, unhashed):
        public.becomes(path, ("good", _sha256(path)))
    assert public.served.stop() == 0
