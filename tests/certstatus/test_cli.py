"""The command line against an installation that is being served, and without one.

One installation serves the whole module; each test takes certificates of its own.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from served_installation import Served, openssl
from warm_commands import run_command

from certstatus import __version__
from certstatus.cli import cli
from certstatus.cli.certificates import serial_octets
from certstatus.config import load_config
from issuance import profiles
from issuance.ca_keys import CAKeyFolder
from issuance.issuers import issuer_of
from issuance.store import Store


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """An installation with a demo, being served by two workers."""
    made = Served(tmp_path_factory.mktemp("cli"))
    made.run("init")
    # A third issuer, public and with hold, for what SIGN and AUTH do not have.
    more = '\n[[issuer]]\nservice = "CORP"\naccess = "public"\nhold = true\n'
    made.config.write_text(made.config.read_text() + more)
    made.run("issuer", "add", "CORP")
    made.run("demo", "--population", "40")
    made.serve()
    yield made
    made.stop()
    made.clean_up()


def make_request(folder: Path, name: str) -> Path:
    """Make a key and a CSR with openssl."""
    csr = folder / f"{name}.csr"
    key = f"-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {folder / name}.key"
    openssl(f"req -new {key} -subj /C=JP/CN={name} -out {csr}")
    return csr


def issue(served: Served, folder: Path, service: str = "AUTH") -> tuple[str, Path]:
    """Issue a certificate for a new key; return its serial and file."""
    csr, out = make_request(folder, "subject"), folder / "subject.pem"
    serial = served.json("issue", str(csr), "--service", service, "--out", str(out))["serial"]
    return serial, out


@pytest.mark.parametrize("url", ["cluster://127.0.0.1:1", "redis://127.0.0.1:1"])
def test_revoke_does_without_a_valkey_that_is_away(served: Served, tmp_path: Path, url: str) -> None:
    """What the feed has noted in the store says who has applied it, and nothing else goes wrong."""
    serial, _ = issue(served, tmp_path)
    elsewhere = served.config.with_name("elsewhere.toml")
    without = re.sub(r"^\[valkey\]\n(?:url = .*\n)?", "", served.config.read_text(), flags=re.MULTILINE)
    elsewhere.write_text(f'{without}\n[valkey]\nurl = "{url}"\n')
    done = run_command(["--config", str(elsewhere), "revoke", serial, "--cause", "key-leaked"])
    assert done.returncode == 0, done.stderr
    assert re.search(r"^applied by worker 0 of localhost, worker 1 of localhost ", done.stdout, re.MULTILINE)


def test_issue_show_revoke_and_ask_again(served: Served, tmp_path: Path) -> None:
    """The whole life of one certificate, from a CSR to `revoked` at the next query."""
    ca = served.state / "demo" / "auth" / "ca.pem"
    serial, pem = issue(served, tmp_path)
    certificate = x509.load_pem_x509_certificate(pem.read_bytes())
    assert f"{certificate.serial_number:032x}" == serial
    _wait_until_answered(served, pem, ca, "good")
    text = served.run("show", serial).stdout
    assert re.search(r"^state\s+valid$", text, re.MULTILINE)
    assert re.search(
        r"^OCSP answers\s+good: issued, and nothing was recorded against it$", text, re.MULTILINE
    )
    done = served.run("revoke", serial, "--cause", "key-leaked", "--invalidity", "2026-01-02T03:04:05Z")
    assert re.search(rf"^AUTH {serial} revoked, change \d+, at ", done.stdout)
    assert re.search(
        r"^applied by worker 0 of localhost, worker 1 of localhost \(\d\.\d+ s\)$", done.stdout, re.MULTILINE
    )
    assert served.ask_file(pem, ca) == "revoked"
    shown = served.json("show", serial)
    assert (shown["state"], shown["reason"], shown["answer"]) == ("revoked", "keyCompromise", "revoked")
    assert [change["kind"] for change in shown["changes"]] == ["issued", "revoked"]
    assert shown["invalidity"] == "2026-01-02T03:04:05Z"
    assert served.run("show", serial, "--pem").stdout.strip() == pem.read_text().strip()
    again = served.run("revoke", serial, expect=77)
    assert again.stdout == ""
    assert len(again.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "octets"),
    [("01", "01"), ("7f", "7f"), ("80", "0080"), ("00:FF:00", "00ff00"), ("-80", "80"), ("-81", "ff7f")],
)
def test_a_serial_number_is_taken_as_other_programs_print_it(text: str, octets: str) -> None:
    """With colons or without, and with the minus that an imported CA's may have."""
    assert serial_octets(text).hex() == octets


def _wait_until_answered(served: Served, pem: Path, ca: Path, status: str) -> None:
    # Nobody waits for workers after `issue`; they know within a beat.
    deadline = time.monotonic() + 10
    while served.ask_file(pem, ca) != status:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_serial_is_read_as_other_programs_print_it(served: Served, tmp_path: Path) -> None:
    """Upper case, colons and leading zeros all mean the same number; what is none is a usage error."""
    serial, _ = issue(served, tmp_path)
    for text in (serial.upper(), ":".join(re.findall("..", serial)), f"0000{serial}", f"0x{serial}"):
        assert served.json("show", text)["serial"] == serial
    assert "is not a hexadecimal number" in served.run("show", "xyz", expect=64).stderr
    assert "no certificate 1234" in served.run("show", "1234", expect=66).stderr


def test_no_wait_returns_at_once_and_causes_are_listed(served: Served, tmp_path: Path) -> None:
    """--no-wait tells of the record only; an unknown cause names those that there are."""
    serial, _ = issue(served, tmp_path, "SIGN")
    wrong = served.run("revoke", serial, "--cause", "boredom", expect=77)
    assert "no cause 'boredom'; there are: no-longer-needed" in wrong.stderr
    served.run("revoke", serial, "--cause", "key-leaked", "--reason", "keyCompromise", expect=64)
    told = served.json("revoke", serial, "--reason", "superseded", "--no-wait")
    assert "workers" not in told


def test_hold_and_release_only_where_the_policy_has_them(served: Served, tmp_path: Path) -> None:
    """CORP may hold and release; AUTH refuses both, in the law's words."""
    serial, pem = issue(served, tmp_path, "CORP")
    ca = served.state / "demo" / "corp" / "ca.pem"
    assert len(served.json("hold", serial)["workers"]["acknowledged"]) == 2
    assert served.ask_file(pem, ca) == "revoked"
    assert served.json("show", serial)["state"] == "held"
    served.run("release", serial)
    assert served.ask_file(pem, ca) == "good"
    refused = served.run("hold", served.serial("good"), expect=77)
    assert "AUTH: the Act knows neither hold nor release" in refused.stderr


def test_a_verifier_that_is_ended_is_refused_at_its_next_request(served: Served) -> None:
    """Ending and registering return when every worker has applied them."""
    (known,) = served.json("verifier", "list")
    assert known["networks"] == ["127.0.0.0/8", "::1/128"]
    served.run("verifier", "end", str(known["verifier_id"]))
    assert _unauthorized(served)
    with pytest.raises(OSError, match="403"):
        served.get("/crl/auth/g1/all/complete.crl")
    again = ["--network", "127.0.0.0/8", "--grant", "AUTH", "--grant", "SIGN:ocsp,crl"]
    made = served.json("verifier", "add", "loopback again", *again)
    assert len(made["workers"]["acknowledged"]) == 2
    assert served.ask("good") == "good"
    assert served.get("/crl/auth/g1/all/complete.crl")
    assert [item["name"] for item in served.json("verifier", "list")] == ["loopback again"]
    assert len(served.json("verifier", "list", "--all")) == 2
    assert (
        "127.0.0.1/8"
        in served.run("verifier", "add", "x", "--network", "127.0.0.1/8", "--grant", "AUTH", expect=77).stderr
    )


def _unauthorized(served: Served) -> bool:
    folder = served.state / "demo" / "auth"
    return "unauthorized (6)" in served.openssl_ocsp(folder / "good.pem", folder / "ca.pem")


def test_publish_now_and_openssl_verifies_with_base_and_delta(served: Served, tmp_path: Path) -> None:
    """A certificate revoked after the base is rejected with the delta, and by the next complete CRL alone."""
    serial, pem = issue(served, tmp_path)
    base = tmp_path / "base.crl"
    served.run("publish", "now", "--all", "--service", "AUTH")
    base.write_bytes(_eventually(served, "/crl/auth/g1/all/complete.crl"))
    served.run("revoke", serial, "--cause", "renewed")
    made = served.json("publish", "now", "--all", "--service", "AUTH")["published"]
    assert {item["scope"] for item in made} >= {"auth/g1/all", "auth/g1/n8/b0"}
    made = [item for item in made if item["scope"] == "auth/g1/all"]
    assert [item["kind"] for item in made] == ["complete", "delta"]
    complete, delta = (
        served.state / "crl" / "auth" / "g1" / "all" / Path(item["file"]).name for item in made
    )
    ca = served.state / "demo" / "auth" / "ca.pem"
    text = served.run("crl", "inspect", str(delta), "--base", str(base), "--ca", str(ca), "--entries").stdout
    assert "signature verified" in text
    assert re.search(rf"^{serial}\s+\S+\s+superseded", text, re.MULTILINE)
    # A delta no newer than the complete CRL adds nothing to it; that is said, and is no error.
    text = served.run("crl", "inspect", str(delta), "--base", str(complete), "--entries").stdout
    assert "is no older" in text
    assert re.search(rf"^{serial}\s+\S+\s+superseded", text, re.MULTILINE)
    for crls in ([base], [complete]):
        done = _verify(pem, ca, crls)
        assert ("certificate revoked" in done) == (crls == [complete]), done
    assert "certificate revoked" in _verify(pem, ca, [base, delta], "-extended_crl -use_deltas")


def test_publish_now_says_what_was_new_and_what_failed(served: Served, tmp_path: Path) -> None:
    """Nothing new: nothing made.  A change: that scope's delta.  A key that is away: the others all the
    same, and the exit code says why."""
    count = len(served.json("publish", "now", "--all")["published"]) // 2
    assert served.json("publish", "now") == {
        "scopes": count,
        "unchanged": count,
        "published": [],
        "failed": [],
        "untidy": None,
    }
    assert "--all publishes all the same" in served.run("publish", "now").stdout
    serial, _ = issue(served, tmp_path)
    served.run("revoke", serial, "--cause", "renewed")
    made = served.json("publish", "now", "--scope", "auth/g1/all", "--scope", "sign/g1/all")
    assert [(item["scope"], item["kind"]) for item in made["published"]] == [("auth/g1/all", "delta")]
    assert (made["scopes"], made["unchanged"]) == (2, 1)
    served.run("publish", "now", "--scope", "auth/g1/none", expect=66)
    key = served.state / "ca" / "1.key"
    key.rename(tmp_path / "1.key")
    try:
        done = served.run("publish", "now", "--all", expect=66)
        assert re.search(r"^auth/g1/all +complete", done.stdout, re.MULTILINE)
        assert "sign/g1/all: KeyFileError" in done.stderr
        made = json.loads(served.run("publish", "now", "--all", "--json", expect=66).stdout)
        failed = {item["scope"]: item["kind"] for item in made["failed"]}
        assert "sign/g1/all" in failed
        assert all(scope.startswith("sign/g1/") for scope in failed)
        assert set(failed.values()) == {"KeyFileError"}
        assert len(made["published"]) == 2 * (count - len(failed))
    finally:
        (tmp_path / "1.key").rename(key)


def _verify(pem: Path, ca: Path, crls: list[Path], options: str = "") -> str:
    named = ""
    for path in crls:
        as_pem = path.with_suffix(".pem")
        openssl(f"crl -inform DER -in {path} -out {as_pem}")
        named += f" -CRLfile {as_pem}"
    return openssl(f"verify -crl_check {options} -CAfile {ca} {named} {pem}")


def _eventually(served: Served, path: str) -> bytes:
    deadline = time.monotonic() + 10
    while True:
        try:
            return served.get(path)
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_crl_inspect_says_what_is_wrong(served: Served, tmp_path: Path) -> None:
    """Another CA's CRL, and a file that is none: exit 65 and one line."""
    path = next((served.state / "crl" / "sign").rglob("*.crl"))
    done = served.run(
        "crl", "inspect", str(path), "--ca", str(served.state / "demo" / "auth" / "ca.pem"), expect=65
    )
    assert "pkix.signature_does_not_verify" in done.stderr
    (tmp_path / "x.crl").write_bytes(b"no CRL")
    done = served.run("crl", "inspect", str(tmp_path / "x.crl"), expect=65)
    assert len(done.stderr.splitlines()) == 1


def test_pages_metrics_and_ca_certificates(served: Served) -> None:
    """A page that stands alone, metrics over all workers, CA certificates in both forms."""
    served.ask("good")
    deadline = time.monotonic() + 10
    while 'certstatus_provisions_total{kind="good"' not in served.get("/metrics", admin=True).decode():
        assert time.monotonic() < deadline
        time.sleep(0.2)
    page = served.get("/", admin=True).decode()
    assert "2 of 2" in page
    assert "/crl/auth/g1/all/complete.crl" in page
    assert "<script" not in page
    assert not re.search(r'(src|href)="https?://(?!127\.0\.0\.1)', page)
    metrics = served.get("/metrics", admin=True).decode()
    assert 'certstatus_worker_ready{slot="0"} 1.0' in metrics
    assert 'certstatus_worker_ready{slot="1"} 1.0' in metrics
    assert 'certstatus_process_up{process="builder"} 1.0' in metrics
    assert 'certstatus_responder_certificate_alarm{generation="1",service="SIGN"} 0.0' in metrics
    pem = x509.load_pem_x509_certificate(served.get("/ca/auth/g1.pem", admin=True))
    assert pem == x509.load_der_x509_certificate(served.get("/ca/auth/g1.cer", admin=True))
    with pytest.raises(OSError, match="404"):
        served.get("/ca/auth/g9.pem", admin=True)


def test_responder_certificates_are_listed_on_both_sides(served: Served) -> None:
    """What was signed and what is installed agree; a dropped one is replaced by itself."""
    signed = served.json("responder-cert", "status", "--issuance")
    installed = served.json("responder-cert", "status")
    assert {item["serial"] for item in installed} == {item["serial"] for item in signed}
    assert {item["state"] for item in installed} == {"good"}
    dropped = next(item for item in installed if item["issuer_id"] == 2)
    served.run("responder-cert", "drop", "2", dropped["serial"].upper().removeprefix("00"))
    assert served.run("responder-cert", "drop", "2", dropped["serial"], expect=77)
    deadline = time.monotonic() + 20
    demo = served.state / "demo" / "auth"
    while "Response verify OK" not in (said := served.openssl_ocsp(demo / "good.pem", demo / "ca.pem")):
        assert "trylater" in said
        assert time.monotonic() < deadline
        time.sleep(0.2)
    states = {item["serial"]: item["state"] for item in served.json("responder-cert", "status", "--issuance")}
    assert states[dropped["serial"]] == "dropped"
    assert list(states.values()).count("good") == 3


def test_a_host_apart_gets_its_certificate_by_files(served: Served, tmp_path: Path) -> None:
    """make, enroll, request, issue, install: the way for a host and a CA that never meet."""
    other = Served(tmp_path)
    other.state.mkdir()
    other.config.write_text('[responder]\nhost = "osaka-1"\n')
    key = other.run("host", "make", "osaka-1", "--shared", str(served.state / "secrets")).stdout
    (tmp_path / "host.pub").write_text(key)
    request = other.run("responder-cert", "request", "2").stdout
    refused = served.run("responder-cert", "issue", "-", expect=77, given=request)
    assert "host osaka-1 is not enrolled" in refused.stderr
    served.run("host", "enroll", "osaka-1", str(tmp_path / "host.pub"))
    pem = served.run("responder-cert", "issue", "-", given=request).stdout
    wrong = ["--issuer-id", "2", "--ca", str(served.state / "demo" / "sign" / "ca.pem")]
    assert (
        "is not issued by" in other.run("responder-cert", "install", "-", *wrong, expect=66, given=pem).stderr
    )
    right = ["--issuer-id", "2", "--ca", str(served.state / "demo" / "auth" / "ca.pem")]
    assert "installed, good until" in other.run("responder-cert", "install", "-", *right, given=pem).stdout
    (item,) = other.json("responder-cert", "status")
    assert (item["host"], item["state"], item["problem"]) == ("osaka-1", "good", None)
    _broken_pairs_are_listed(other, item["serial"])
    served.run("host", "end", "osaka-1")
    assert {host["host"]: bool(host["ended_at"]) for host in served.json("host", "list")} == {
        "localhost": False,
        "osaka-1": True,
    }


def _broken_pairs_are_listed(host: Served, serial: str) -> None:
    """Not only said to whoever reads text: programs that watch a host go by the JSON."""
    (certificate,) = (host.state / "host" / "keys").glob("2-*.crt")
    content = certificate.read_bytes()
    certificate.write_bytes(b"broken")
    try:
        (item,) = host.json("responder-cert", "status")
        assert (item["issuer_id"], item["serial"], item["state"]) == (2, serial, "unfit")
        assert (item["host"], item["from"], item["until"]) == ("osaka-1", None, None)
        assert certificate.name in item["problem"]
        said = host.run("responder-cert", "status")
        assert "unfit" in said.stdout
        assert certificate.name in said.stderr
    finally:
        certificate.write_bytes(content)


def test_a_responder_certificate_from_elsewhere_is_adopted(served: Served, tmp_path: Path) -> None:
    """Key and certificate that the CA made by itself sign for it; nothing is told or restarted."""
    ca_pem, passphrase = served.state / "demo" / "corp" / "ca.pem", served.state / "ca" / "passphrase"
    csr, key = make_request(tmp_path, "elsewhere"), tmp_path / "elsewhere.key"
    extensions, pem = tmp_path / "extensions", tmp_path / "elsewhere.pem"
    extensions.write_text("extendedKeyUsage=OCSPSigning\nnoCheck=yes\n")
    ca_key = f"-CAkey {served.state / 'ca' / '3.key'} -passin file:{passphrase} -set_serial 0x5eed"
    openssl(f"x509 -req -in {csr} -CA {ca_pem} {ca_key} -days 3 -extfile {extensions} -out {pem}")
    key.chmod(0o644)
    exposed = served.run("responder-cert", "adopt", str(pem), str(key), "--service", "CORP", expect=66)
    assert "expected 600" in exposed.stderr
    key.chmod(0o600)
    wrong = served.run("responder-cert", "adopt", str(pem), str(key), "--service", "AUTH", expect=66)
    assert "is not issued by auth/g1" in wrong.stderr
    served.run("responder-cert", "adopt", str(pem), str(key), expect=64)
    said = served.run("responder-cert", "adopt", str(pem), str(key), "--service", "CORP").stdout
    assert "responder certificate 5eed adopted" in said
    good = served.state / "demo" / "corp" / "good.pem"
    deadline = time.monotonic() + 20
    while served.signer_serial(good, ca_pem) != 0x5EED:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert served.ask_file(good, ca_pem) == "good"


def test_a_ca_may_sign_answers_itself(served: Served, tmp_path: Path) -> None:
    """Its certificate and its encrypted key are adopted as any other's, on a host without the store."""
    other = Served(tmp_path)
    other.state.mkdir()
    other.config.write_text('[responder]\nhost = "osaka-2"\n')
    other.run("host", "make", "osaka-2", "--shared", str(served.state / "secrets"))
    ca_pem, key = served.state / "demo" / "auth" / "ca.pem", served.state / "ca" / "2.key"
    words = ["adopt", str(ca_pem), str(key), "--ca", str(ca_pem), "--issuer-id", "2"]
    assert "not an unencrypted PEM key" in other.run("responder-cert", *words, expect=66).stderr
    passphrase = ["--passphrase-file", str(served.state / "ca" / "passphrase")]
    assert "adopted, good until" in other.run("responder-cert", *words, *passphrase).stdout
    (item,) = other.json("responder-cert", "status")
    assert (item["issuer_id"], item["state"]) == (2, "good")


def test_a_backup_is_taken_while_serving_and_restore_refuses_meanwhile(
    served: Served, tmp_path: Path
) -> None:
    """A backup holds everything up to one change; nobody restores under a running service."""
    path = tmp_path / "backup.tar"
    made = served.json("backup", str(path))
    assert path.stat().st_size == made["bytes"]
    assert made["seq"] <= served.json("store", "state")["seq"]
    assert "being served" in served.run("restore", str(path), expect=69).stderr


def test_restored_elsewhere_it_knows_everything(served: Served, tmp_path: Path) -> None:
    """On a machine that has nothing, a backup becomes an installation of a later epoch."""
    path = tmp_path / "backup.tar"
    served.run("backup", str(path))
    other = Served(tmp_path / "other")
    told = other.json("restore", str(path))
    assert told["epoch"] > served.json("store", "state")["epoch"]
    assert other.json("show", served.serial("revoked"))["state"] == "revoked"
    assert other.json("issuer", "list") == served.json("issuer", "list")
    assert [host["host"] for host in other.json("host", "list") if not host["ended_at"]] == ["localhost"]


def test_generations_stand_side_by_side(served: Served, tmp_path: Path) -> None:
    """A new CA key takes over issuing; certificates of the old one go on being answered."""
    made = served.json("issuer", "add", "SIGN")
    assert made["generation"] == 2
    serial, pem = issue(served, tmp_path, "SIGN")
    assert served.json("show", serial)["generation"] == 2
    (tmp_path / "g2.pem").write_bytes(_eventually_admin(served, "/ca/sign/g2.pem"))
    _wait_until_good(served, pem, tmp_path / "g2.pem")
    assert served.ask("good", "sign") == "good"


def _eventually_admin(served: Served, path: str) -> bytes:
    deadline = time.monotonic() + 10
    while True:
        try:
            return served.get(path, admin=True)
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def _wait_until_good(served: Served, pem: Path, ca: Path) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            if served.ask_file(pem, ca) == "good":
                return
        except AssertionError:
            # Its responder certificate is on the way.
            assert time.monotonic() < deadline
        time.sleep(0.2)


def test_provisions_are_exact(served: Served) -> None:
    """What is asked is what is counted, a second later at the most."""
    before = _good_of_auth(served)
    for _ in range(7):
        assert served.ask("revoked", "auth") == "revoked"
    deadline = time.monotonic() + 10
    while _good_of_auth(served) != before + 7:
        assert time.monotonic() < deadline
        time.sleep(0.2)


def _good_of_auth(served: Served) -> int:
    return sum(
        int(item["count"])
        for item in served.json("provisions")
        if (item["service"], item["kind"]) == ("AUTH", "revoked")
    )


# --- without an installation -------------------------------------------------------------------------


def certstatus(*words: str, cwd: Path, expect: int) -> subprocess.CompletedProcess[str]:
    """Run the command line in a folder."""
    done = run_command(list(words), cwd=cwd)
    assert done.returncode == expect, done.stderr
    return done


def test_errors_are_one_line_with_an_exit_code(tmp_path: Path) -> None:
    """No traceback, ever: what is wrong, and where."""
    done = certstatus("show", "1234", cwd=tmp_path, expect=78)
    assert done.stderr == (
        "certstatus: certstatus.toml: (file): expected a readable file, found 'No such file or directory'\n"
    )
    (tmp_path / "certstatus.toml").write_text("")
    done = certstatus("show", "1234", cwd=tmp_path, expect=69)
    assert (
        done.stderr
        == f"certstatus: {tmp_path / 'store.db'}: no store here; make one with `certstatus init`\n"
    )
    done = certstatus("show", "1234", "--json", cwd=tmp_path, expect=69)
    assert json.loads(done.stderr)["kind"] == "StoreError"
    assert certstatus("issue", "absent.csr", "--service", "SIGN", cwd=tmp_path, expect=69).stderr.startswith(
        "certstatus: absent.csr: No such file"
    )
    assert "No such command" in certstatus("revoek", cwd=tmp_path, expect=64).stderr


def test_init_goes_on_and_never_makes_a_second_key(tmp_path: Path) -> None:
    """Running init again changes nothing; without the keys that the store relies on it refuses."""
    first = certstatus("init", "--port", "9000", cwd=tmp_path, expect=0)
    assert "responder host localhost enrolled" in first.stdout
    text = (tmp_path / "certstatus.toml").read_text()
    assert "port = 9000" in text
    assert "admin_port = 9001" in text
    assert text.count("http://localhost:9000") == 2
    key = (tmp_path / "secrets" / "index.key").read_bytes()
    certstatus("init", cwd=tmp_path, expect=0)
    assert (tmp_path / "secrets" / "index.key").read_bytes() == key
    assert (
        json.loads(certstatus("issuer", "list", "--json", cwd=tmp_path, expect=0).stdout)[-1]["issuer_id"]
        == 2
    )
    certstatus("init", "--port", "9000", cwd=tmp_path, expect=78)
    (tmp_path / "secrets" / "index.key").unlink()
    done = certstatus("init", cwd=tmp_path, expect=66)
    assert "not there, but the store is; restore it from a backup" in done.stderr


def test_secrets_are_for_their_owner_only(tmp_path: Path) -> None:
    """Every file with a private or shared key has mode 600."""
    certstatus("init", cwd=tmp_path, expect=0)
    secret = [*(tmp_path / "ca").iterdir(), *tmp_path.rglob("*.key"), tmp_path / "store.db"]
    assert len(secret) >= 8
    assert {path.stat().st_mode & 0o077 for path in secret} == {0}


def test_help_is_quick_and_complete(tmp_path: Path) -> None:
    """--help imports nothing heavy; every command is listed and has help of its own."""
    code = (
        "import sys\nfrom certstatus.cli import main\ntry:\n    main(['--help'])\nfinally:\n"
        "    heavy = {'sqlalchemy', 'cryptography', 'redis', 'rich', 'numpy', 'aiohttp'} & set(sys.modules)\n"
        "    assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    commands = re.findall(r"^  ([a-z-]+)  ", done.stdout.partition("Commands:")[2], re.MULTILINE)
    assert commands == cli.list_commands(click.Context(cli))
    assert len(commands) >= 18
    for name in commands:
        assert certstatus(name, "--help", cwd=tmp_path, expect=0).stdout.startswith("Usage: certstatus")


def test_version(tmp_path: Path) -> None:
    """--version is the package's."""
    assert certstatus("--version", cwd=tmp_path, expect=0).stdout == f"certstatus, version {__version__}\n"


def test_probe_measures_from_the_commit_to_the_last_worker(served: Served, tmp_path: Path) -> None:
    """The figures are ordered, and written out for Prometheus when asked for."""
    textfile = tmp_path / "probe.prom"
    found = served.json("probe", "--service", "CORP", "--rounds", "3", "--url", f"{served.url}/ocsp")
    assert found["rounds"] == 3
    assert 0 < found["median_ms"] <= found["p99_ms"] <= found["max_ms"]
    assert 0 < found["last_good_median_ms"] <= found["last_good_p99_ms"] <= found["last_good_max_ms"]
    # After the last good one every connection has still to be answered revoked.
    assert found["last_good_max_ms"] < found["max_ms"]
    words = ("--rounds", "1", "--nonces", "--textfile", str(textfile), "--url", f"{served.url}/ocsp")
    served.run("probe", "--service", "CORP", *words)
    assert 'certstatus_probe_revocation_seconds_count{service="CORP"} 1\n' in textfile.read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--url", "https://127.0.0.1/ocsp"), "expected http://"),
        (("--url", "http://127.0.0.1:99999/ocsp"), "Port out of range"),
        (("--url", "http://[::1/ocsp"), "Invalid IPv6 URL"),
        (("--url", "http://127.0.0.1:1/ocsp"), "no answer from 127.0.0.1:1"),
        (("--objective-ms", "1", "--rounds", "1"), "the objective 1 ms"),
    ],
)
def test_probe_fails_by_what_it_found(served: Served, words: tuple[str, ...], said: str) -> None:
    """A responder that cannot be asked, and one that is too slow, end the command with an error."""
    if "--url" not in words:
        words = (*words, "--url", f"{served.url}/ocsp")
    assert said in served.run("probe", "--service", "CORP", *words, expect=69).stderr


def test_a_reason_is_corrected_and_its_date_stays(served: Served, tmp_path: Path) -> None:
    """OCSP names the new reason and the old time; without a reason, or for a good one, it is refused."""
    serial, certificate = issue(served, tmp_path, "CORP")
    served.run("change-reason", serial, "--reason", "superseded", expect=77)
    served.run("revoke", serial, "--reason", "superseded")
    ca = served.state / "demo" / "corp" / "ca.pem"
    before = served.openssl_ocsp(certificate, ca)
    served.run("change-reason", serial, expect=64)
    served.run("change-reason", serial, "--reason", "keyCompromise")
    after = served.openssl_ocsp(certificate, ca)
    assert "Reason: superseded" in before
    assert "Reason: keyCompromise" in after
    times = [re.findall("Revocation Time: (.*)", said) for said in (before, after)]
    assert times[0] == times[1]


def test_a_renewed_ca_certificate_joins_its_issuer(served: Served, tmp_path: Path) -> None:
    """The same name and key: taken once.  Another CA's, a leaf and noise are refused by what they are."""
    config = load_config(served.config)
    store = Store.open(config.store_url)
    issuer = issuer_of(store, "CORP")
    key = CAKeyFolder(config.state / "ca").private_key(issuer.issuer_id)
    renewed = profiles.sign_ca_certificate(key, issuer.ca_certificate.subject, int(time.time()))
    store.close()
    file = tmp_path / "renewed.pem"
    file.write_bytes(renewed.public_bytes(serialization.Encoding.PEM))
    assert served.json("issuer", "add-certificate", "CORP", str(file))["certificates"] == 2
    assert "known already" in served.run("issuer", "add-certificate", "CORP", str(file), expect=77).stderr
    demo = served.state / "demo"
    for path, said, code in (
        (demo / "auth" / "ca.pem", "over another key", 77),
        (demo / "corp" / "good.pem", "over another key", 77),
        (served.config, "expected a certificate", 65),
    ):
        assert said in served.run("issuer", "add-certificate", "CORP", str(path), expect=code).stderr
    assert served.ask("good", "corp") == "good"
