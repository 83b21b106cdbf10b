"""The mirror over https: a server that somebody trusted vouches for, and none else."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from mirror_cases import NOW_S, CRLSite, MirrorCA, listed_entry

from certstatus.cli import cli
from certstatus.crl_folder import CRLFolder
from certstatus.crl_mirror import MirrorReport, mirror_round
from certstatus.crl_server import CRLServer
from certstatus.crl_trust import read_trusted_ca
from certstatus.errors import CRLRefused

SCOPE = "test/g1/all"
_DAY = timedelta(days=1)


class TLSServer:
    """A CA for TLS, and a list of CRLs behind a certificate of it for *address*."""

    def __init__(self, folder: Path, address: str = "127.0.0.1") -> None:
        now = datetime.now(UTC)
        ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "TLS test CA")])
        ca = (
            x509.CertificateBuilder(ca_name, ca_name, ca_key.public_key(), 1, now - _DAY, now + _DAY)
            .add_extension(x509.BasicConstraints(True, None), critical=True)
            .add_extension(
                x509.KeyUsage(False, False, False, False, False, True, True, False, False), critical=True
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False)
            .sign(ca_key, hashes.SHA256())
        )
        certificate = (
            x509.CertificateBuilder(ca_name, x509.Name([]), key.public_key(), 2, now - _DAY, now + _DAY)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address(address))]), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
            )
            .sign(ca_key, hashes.SHA256())
        )
        self.ca_file, chain = folder / f"tls-ca-{address}.pem", folder / f"server-{address}.pem"
        self.ca_file.write_bytes(ca.public_bytes(Encoding.PEM))
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        chain.write_bytes(private + certificate.public_bytes(Encoding.PEM))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain)
        self.site = CRLSite(context)


@pytest.fixture
def tls(tmp_path: Path) -> Iterator[TLSServer]:
    made = TLSServer(tmp_path)
    yield made
    made.site.stop()


def _mirror(url: str, folder: Path, ca: MirrorCA, tls_ca: Path | None) -> MirrorReport:
    kept, server = CRLFolder(folder), CRLServer(url, tls_ca)
    with kept.locked():
        kept.trust(read_trusted_ca(ca.pem, "ca"))
        try:
            return mirror_round(server, kept, NOW_S)
        finally:
            server.close()


def test_a_server_that_a_given_ca_vouches_for_is_mirrored(tls: TLSServer, tmp_path: Path) -> None:
    """All over one connection, as over http."""
    ca = MirrorCA()
    tls.site.publish(ca, ca.crl(5, listed_entry(7, 1)), ca.crl(6, base=5))
    report = _mirror(tls.site.url, tmp_path / "dir", ca, tls.ca_file)
    assert (report.fetched, report.exit_code) == ([f"{SCOPE} complete 5", f"{SCOPE} delta 6"], 0)
    kept = (tmp_path / "dir" / SCOPE / "complete.crl").read_bytes()
    assert kept == tls.site.files[f"/crl/{SCOPE}/5.crl"]


@pytest.mark.parametrize("who", ["the system's CAs", "another CA", "another address"])
def test_a_server_that_nobody_trusted_vouches_for_is_refused(
    tls: TLSServer, tmp_path: Path, who: str
) -> None:
    """It is said why, and that a CA may be named; nothing is asked of it, and nothing comes into DIR."""
    ca = MirrorCA()
    tls.site.publish(ca, ca.crl(5))
    other = TLSServer(tmp_path, "127.0.0.2")
    try:
        other.site.publish(ca, ca.crl(5))
        url = other.site.url if who == "another address" else tls.site.url
        trusted = {"the system's CAs": None}.get(who, other.ca_file)
        with pytest.raises(CRLRefused, match=r"TLS certificate is not trusted: .*; --tls-ca names"):
            _mirror(url, tmp_path / "dir", ca, trusted)
        assert (tls.site.asked, other.site.asked) == ([], [])
    finally:
        other.site.stop()
    assert not list((tmp_path / "dir").rglob("*.crl"))


def test_the_command_says_so_too(tls: TLSServer, tmp_path: Path) -> None:
    """With --tls-ca it fetches; a file that holds no CA is named."""
    ca = MirrorCA()
    # The command goes by the system's clock.
    now_s = int(datetime.now(UTC).timestamp())
    tls.site.publish(ca, ca.crl(5, this_s=now_s - 60, next_s=now_s + 3600))
    (tmp_path / "ca.pem").write_bytes(ca.pem)
    (tmp_path / "none.pem").write_text("nothing")
    words = ["crl", "mirror", tls.site.url, str(tmp_path / "dir"), "--ca", str(tmp_path / "ca.pem")]
    done = CliRunner().invoke(cli, words, standalone_mode=False)
    assert isinstance(done.exception, CRLRefused)
    assert "TLS certificate is not trusted" in str(done.exception)
    done = CliRunner().invoke(cli, [*words, "--tls-ca", str(tmp_path / "none.pem")], standalone_mode=False)
    assert isinstance(done.exception, CRLRefused)
    assert "none.pem: no CA certificates" in str(done.exception)
    done = CliRunner().invoke(cli, [*words, "--tls-ca", str(tls.ca_file)], standalone_mode=False)
    assert done.return_value == 0, done.output
    assert f"fetched  {SCOPE} complete 5" in done.output
