"""``certstatus import`` with files that ``openssl ca`` wrote, asked about with ``openssl ocsp``."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from served_installation import Served, openssl

_CONFIG = """[ca]
default_ca = d
[d]
database = {0}/index.txt
new_certs_dir = {0}/newcerts
serial = {0}/serial
crlnumber = {0}/crlnumber
certificate = {0}/ca.pem
private_key = {0}/ca.key
default_md = sha256
policy = p
default_days = 300
default_crl_days = 30
crl_extensions = c
unique_subject = no
[p]
commonName = supplied
[c]
authorityKeyIdentifier = keyid
[ocsp]
extendedKeyUsage = OCSPSigning
noCheck = yes
"""


class OpenSSLCA:
    """A CA kept with ``openssl ca`` in *folder*."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder = folder
        (folder / "newcerts").mkdir(parents=True)
        (folder / "index.txt").touch()
        (folder / "serial").write_text("1001\n")
        (folder / "crlnumber").write_text("0A\n")
        (folder / "ca.cnf").write_text(_CONFIG.format(folder))
        made = f"-newkey {kind} -nodes -keyout {folder / 'ca.key'} -out {folder / 'ca.pem'}"
        openssl(f"req -x509 {made} -subj /C=JP/CN={folder.name} -days 900")
        self.ca = folder / "ca.pem"
        self.crl = folder / "ca.crl"

    def issue(self, name: str, *more: str) -> Path:
        """Issue a certificate; return its file, with the key beside it."""
        key, csr, out = (self.folder / f"{name}.{end}" for end in ("key", "csr", "pem"))
        made = f"-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {key} -out {csr}"
        openssl(f"req {made} -subj /CN={name}")
        openssl(f"ca -batch -notext -config {self.folder / 'ca.cnf'} -in {csr} -out {out} {' '.join(more)}")
        return out

    def revoke(self, certificate: Path, reason: str = "keyCompromise") -> None:
        """Revoke a certificate at this CA and make its next CRL."""
        config = f"ca -config {self.folder / 'ca.cnf'}"
        openssl(f"{config} -revoke {certificate} -crl_reason {reason}")
        self.make_crl()

    def make_crl(self) -> None:
        """Make the next CRL."""
        openssl(f"ca -config {self.folder / 'ca.cnf'} -gencrl -out {self.crl}")

    def words(self) -> list[str]:
        """What `import` is given of it, but for the key."""
        folder = self.folder
        given = ["--ca", self.ca, "--certificates", folder / "newcerts", "--index", folder / "index.txt"]
        return [str(word) for word in (*given, "--crl", self.crl, "--access", "public")]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """An installation without certificates, being served by one worker."""
    made = Served(tmp_path_factory.mktemp("import"))
    made.run("init")
    made.serve(workers=1)
    yield made
    made.stop()
    made.clean_up()


def ask_until(served: Served, certificate: Path, ca: Path, expected: str) -> None:
    """Ask until there is an answer, which must be *expected*: a new issuer needs a signer first."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            found = served.ask_file(certificate, ca)
        except AssertionError:
            time.sleep(0.3)
            continue
        assert found == expected
        return
    raise AssertionError(served.openssl_ocsp(certificate, ca) + served.logs())


def test_a_ca_is_taken_over_while_serving(served: Served, tmp_path: Path) -> None:
    """RSA, key and files of openssl: answered at once, revoked here, CRL numbered on from the CA's last."""
    old = OpenSSLCA(tmp_path / "taken", "rsa:2048")
    good, bad = old.issue("good"), old.issue("bad")
    old.revoke(bad)
    words = ["import", "TAKEN", *old.words(), "--key", str(old.folder / "ca.key")]
    told = served.json(*words)
    assert told["workers"]["acknowledged"] == ["localhost:0"]
    ask_until(served, good, old.ca, "good")
    assert served.ask_file(bad, old.ca) == "revoked"
    assert served.json(*words) == {"issuer_id": 3, "service": "TAKEN", "changed": False}
    served.run("revoke", "1001", "--service", "TAKEN", "--reason", "superseded")
    assert served.ask_file(good, old.ca) == "revoked"
    served.run("publish", "now", "--all", "--service", "TAKEN")
    crl = served.state / "crl" / "taken" / "g1" / "all"
    # The CA's was 0A.
    numbers = sorted(int(path.name.split(".")[0]) for path in crl.glob("*.crl"))
    assert numbers[0] >= 11
    text = openssl(f"crl -in {crl / f'{numbers[0]}.crl'} -inform DER -noout -text -CAfile {old.ca}")
    assert "verify OK" in text
    assert "Issuing Distribution Point" not in text
    dates = [
        line for line in openssl(f"crl -in {old.crl} -noout -text").splitlines() if "Revocation Date" in line
    ]
    newest = openssl(f"crl -in {crl / f'{numbers[-1]}.crl'} -inform DER -noout -text") + text
    assert dates[0].strip() in newest


def test_a_ca_is_followed_while_serving(served: Served, tmp_path: Path) -> None:
    """EC, without its key: its signer adopted, its next CRL taken over, and nothing done in its name."""
    old = OpenSSLCA(tmp_path / "followed", "ec -pkeyopt ec_paramgen_curve:P-256")
    good = old.issue("good")
    signer = old.issue("signer", "-extfile", str(old.folder / "ca.cnf"), "-extensions", "ocsp")
    old.make_crl()
    served.run("import", "FOLLOWED", *old.words())
    served.run(
        "responder-cert", "adopt", str(signer), str(signer.with_suffix(".key")), "--service", "FOLLOWED"
    )
    ask_until(served, good, old.ca, "good")
    refused = served.run("revoke", "1001", "--service", "FOLLOWED", expect=77)
    assert "revokes elsewhere" in refused.stderr
    old.revoke(good)
    served.run("import", "FOLLOWED", *old.words())
    assert served.ask_file(good, old.ca) == "revoked"
    rows = {item["service"]: item["revocations"] for item in served.json("issuer", "list")}
    assert rows["FOLLOWED"] == "elsewhere"


def test_a_wrong_file_is_named_and_exits_with_bad_data(served: Served, tmp_path: Path) -> None:
    """The message has file, line and field; options that contradict each other are usage errors."""
    old = OpenSSLCA(tmp_path / "wrong", "rsa:2048")
    old.issue("good")
    old.make_crl()
    index = old.folder / "index.txt"
    index.write_text(index.read_text() + "V\tsoon\t\t1002\tunknown\t/CN=x\n")
    said = served.run("import", "WRONG", *old.words(), expect=65).stderr
    assert f"{index}, line 2: expiry date: " in said
    assert "WRONG" not in served.run("issuer", "list").stdout
    served.run("import", "WRONG", *old.words(), "--poll", expect=64)
    served.run("import", "SIGN", *old.words(), expect=77)
