"""An existing CA, kept with ``openssl ca`` until it is imported: index, certificates, numbered CRLs.

Knows: making it, with a certificate for each case, TLS servers' ones, as most CAs' are; its responder's
own certificate.
Does not know: our formats; that is the point of it.
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from interop_ca import CA, HOST_NAME

_DAY_S = 86_400
_CONFIG = """
[ca]
default_ca = kept

[kept]
database = {folder}/index.txt
new_certs_dir = {folder}/certificates
serial = {folder}/serial
crlnumber = {folder}/crlnumber
certificate = {folder}/ca.pem
private_key = {folder}/ca.key
default_md = sha256
default_days = 300
default_crl_days = 7
unique_subject = no
policy = any
crl_extensions = crl

[any]
countryName = optional
organizationName = optional
commonName = supplied

[server]
basicConstraints = CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth, clientAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = DNS:{name}
authorityInfoAccess = OCSP;URI:{base_url}/ocsp
crlDistributionPoints = URI:{base_url}{crl_place}/complete.crl

[responder]
basicConstraints = CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = OCSPSigning
1.3.6.1.5.5.7.48.1.5 = DER:0500
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid

[crl]
authorityKeyIdentifier = keyid
"""


def make_existing_ca(ca: CA, new_key: str, base_url: str) -> None:
    """Make *ca*'s files with openssl alone; *new_key*: ``rsa:2048``, or a curve."""
    folder = ca.folder
    (folder / "certificates").mkdir(parents=True)
    (folder / "index.txt").touch()
    (folder / "serial").write_text("1001\n")
    (folder / "crlnumber").write_text("0A\n")
    text = _CONFIG.format(folder=folder, name=HOST_NAME, base_url=base_url, crl_place=ca.crl_place)
    (folder / "openssl.cnf").write_text(text)
    _make_key(folder / "ca.key", new_key)
    own = ["-subj", f"/C=JP/O={ca.name} CA before/CN=Old CA", "-days", "3650"]
    own += ["-addext", "keyUsage=critical,keyCertSign,cRLSign"]
    _openssl("req", "-x509", "-new", "-key", str(folder / "ca.key"), *own, "-out", str(ca.certificate))
    for case in ca.cases:
        if case != "wrong issuer":
            _issue(ca, case)
    _ca(ca, "-revoke", str(ca.leaf("revoked")), "-crl_reason", "keyCompromise")
    if "held" in ca.cases:
        _ca(ca, "-revoke", str(ca.leaf("held")), "-crl_reason", "certificateHold")
    for _ in range(2):
        _ca(ca, "-gencrl", "-out", str(folder / "last.crl"))


def _issue(ca: CA, case: str) -> None:
    _make_key(ca.key(case), "P-256")
    request = ca.leaf(case).with_suffix(".csr")
    subject = f"/C=JP/O={case}/CN={HOST_NAME}"
    _openssl("req", "-new", "-key", str(ca.key(case)), "-subj", subject, "-out", str(request))
    if case == "unknown":
        # Signed behind the index's back.
        signing = ["-CA", str(ca.certificate), "-CAkey", str(ca.folder / "ca.key"), "-set_serial", "0x9999"]
        extensions = ["-extfile", str(ca.folder / "openssl.cnf"), "-extensions", "server", "-days", "30"]
        _openssl("x509", "-req", "-in", str(request), *signing, *extensions, "-out", str(ca.leaf(case)))
    else:
        dates = ["-startdate", _date(-20), "-enddate", _date(-2)] if case == "expired" else []
        words = ["-batch", "-notext", "-in", str(request), "-extensions", "server"]
        _ca(ca, *words, *dates, "-out", str(ca.leaf(case)))
    _openssl(
        "x509", "-in", str(ca.leaf(case)), "-outform", "DER", "-out", str(ca.leaf(case).with_suffix(".der"))
    )


def make_old_responder(ca: CA) -> tuple[Path, Path]:
    """Make the responder certificate that the CA gave out before the import; return it and its key."""
    key, request, certificate = (ca.folder / f"responder.{kind}" for kind in ("key", "csr", "pem"))
    _make_key(key, "rsa:2048")
    _openssl("req", "-new", "-key", str(key), "-subj", "/CN=Old responder", "-out", str(request))
    words = ["-batch", "-notext", "-in", str(request), "-extensions", "responder"]
    _ca(ca, *words, "-days", "60", "-out", str(certificate))
    return certificate, key


def _make_key(path: Path, kind: str) -> None:
    if kind.startswith("rsa:"):
        words = ["RSA", "-pkeyopt", f"rsa_keygen_bits:{kind.removeprefix('rsa:')}"]
    else:
        words = ["EC", "-pkeyopt", f"ec_paramgen_curve:{kind}"]
    _openssl("genpkey", "-algorithm", *words, "-out", str(path))


def _date(days: int) -> str:
    return time.strftime("%Y%m%d%H%M%SZ", time.gmtime(time.time() + days * _DAY_S))


def _ca(ca: CA, *words: str) -> None:
    _openssl("ca", "-config", str(ca.folder / "openssl.cnf"), *words)


def _openssl(*words: str) -> None:
    done = subprocess.run(["openssl", *words], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, f"openssl {' '.join(words)}\n{done.stderr}"
