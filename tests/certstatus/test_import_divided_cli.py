"""A CA with two distribution points is taken over while serving: its clients' CRLs come from here."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from served_installation import Served

_DAY = timedelta(days=1)


class PartedCA:
    """A CA that names http://old.example/<part>.crl in its certificates; its files in *folder*."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "certificates").mkdir(parents=True)
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Parted CA")])
        self.now = datetime.now(UTC).replace(microsecond=0)
        self.ca = self._write("ca.pem", self._certificate(1, x509.BasicConstraints(True, None)))
        key = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (folder / "ca.key").write_bytes(key)

    def _certificate(self, serial: int, extension: x509.ExtensionType) -> bytes:
        builder = (
            x509.CertificateBuilder()
            .subject_name(self.name)
            .issuer_name(self.name)
            .public_key(self.key.public_key())
            .serial_number(serial)
            .not_valid_before(self.now - _DAY)
            .not_valid_after(self.now + 300 * _DAY)
            .add_extension(extension, critical=False)
        )
        return builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.PEM)

    def _write(self, name: str, content: bytes) -> Path:
        (self.folder / name).write_bytes(content)
        return self.folder / name

    def _point(self, part: int) -> list[x509.GeneralName]:
        return [x509.UniformResourceIdentifier(f"http://old.example/{part}.crl")]

    def issue(self, serial: int, part: int) -> Path:
        """Issue a certificate of a part; return its file."""
        point = x509.DistributionPoint(self._point(part), None, None, None)
        content = self._certificate(serial, x509.CRLDistributionPoints([point]))
        return self._write(f"certificates/{serial:x}.pem", content)

    def crl(self, part: int, number: int, *serials: int) -> Path:
        """Make a part's CRL."""
        point = x509.IssuingDistributionPoint(self._point(part), None, False, False, None, False, False)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.name)
            .last_update(self.now - timedelta(hours=1))
            .next_update(self.now + _DAY)
            .add_extension(x509.CRLNumber(number), critical=False)
            .add_extension(point, critical=True)
        )
        for serial in serials:
            entry = x509.RevokedCertificateBuilder().serial_number(serial)
            builder = builder.add_revoked_certificate(entry.revocation_date(self.now - _DAY / 2).build())
        crl = builder.sign(self.key, hashes.SHA256())
        return self._write(f"{part}.crl", crl.public_bytes(Encoding.DER))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """An installation without certificates, being served by one worker."""
    made = Served(tmp_path_factory.mktemp("divided"))
    made.run("init")
    made.serve(workers=1)
    yield made
    made.stop()
    made.clean_up()


def test_each_old_address_has_its_successor(served: Served, tmp_path: Path) -> None:
    """The command says which; it is listed, mirrored, and offline clients go by it."""
    old = PartedCA(tmp_path / "parted")
    good, bad, other = old.issue(0x1001, 1), old.issue(0x1002, 1), old.issue(0x2001, 2)
    words = ["import", "PARTED", "--ca", str(old.ca), "--key", str(old.folder / "ca.key")]
    words += ["--certificates", str(old.folder / "certificates"), "--access", "public"]
    for crl in (old.crl(1, 40, 0x1002), old.crl(2, 70)):
        words += ["--crl", str(crl)]
    said = served.run(*words).stderr
    places = {f"dp/{part}": f"http://old.example/{part}.crl" for part in (1, 2)}
    for scope, place in places.items():
        assert f"/crl/parted/g1/{scope}/complete.crl goes on from {place}" in said
    # Deltas follow on the first complete CRLs as soon as the clock shows a later second.
    folder = tmp_path / "crls"
    mirror = ["crl", "mirror", f"{served.url}/crl/", str(folder), "--ca", str(old.ca), "--scope", "parted/*"]
    until = time.monotonic() + 60
    while not (folder / "parted/g1/dp/2/delta.crl").exists() and time.monotonic() < until:
        time.sleep(0.3)
        _run_mirror(served, mirror)
    served.run("revoke", "2001", "--service", "PARTED", "--reason", "superseded")
    served.run("publish", "now", "--all", "--service", "PARTED")
    while "superseded" not in _checked(served, folder, other) and time.monotonic() < until:
        _run_mirror(served, mirror)
        time.sleep(0.3)
    assert "revoked" in _checked(served, folder, other)
    assert ": good" in _checked(served, folder, good)
    assert ": revoked" in _checked(served, folder, bad)
    numbers = {
        part: x509.load_der_x509_crl(served.get(f"/crl/parted/g1/dp/{part}/complete.crl"))
        .extensions.get_extension_for_class(x509.CRLNumber)
        .value.crl_number
        for part in (1, 2)
    }
    assert numbers[1] > 40
    assert numbers[2] > 70
    shown = served.run("show", "2001", "--service", "PARTED").stdout
    assert "dp/2" in shown


def _run_mirror(served: Served, words: list[str]) -> None:
    """Go round once; what is not published yet is missed, and no matter."""
    subprocess.run(served.command(*words), capture_output=True, check=False, timeout=60)


def _checked(served: Served, folder: Path, certificate: Path) -> str:
    words = served.command("crl", "check", str(folder), str(certificate))
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=60).stdout
