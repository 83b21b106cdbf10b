"""What ``serve`` starts: which part of an installation, on which listeners, with which secrets and logs.

All processes here are the real ones, started by the real command line.
"""

from __future__ import annotations

import signal
import socket
import ssl
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from served_installation import Served, openssl

from certstatus.private_valkey import socket_path


def _counted(served: Served) -> dict[tuple[str, str], int]:
    return {(item["service"], item["kind"]): item["count"] for item in served.json("provisions")}


def test_a_responder_host_apart_meets_the_publisher_only_in_valkey(served: Served, tmp_path: Path) -> None:
    """Two state folders, one Valkey: the host has no store and no CA key, and answers all the same."""
    other = Served(tmp_path / "osaka")
    other.state.mkdir(parents=True)
    other.config.write_text('[responder]\nhost = "osaka-1"\n')
    alone = other.run("serve", "--only", "responder", expect=78)
    assert "valkey.url" in alone.stderr
    other.config.write_text(
        f'[valkey]\nurl = "unix://{socket_path(served.state)}"\n[responder]\nhost = "osaka-1"\n'
    )
    key = other.run("host", "make", "osaka-1", "--shared", str(served.state / "secrets")).stdout
    (tmp_path / "host.pub").write_text(key)
    served.run("host", "enroll", "osaka-1", str(tmp_path / "host.pub"))
    try:
        served.serve("--only", "publisher")
        other.serve("--only", "responder")
        assert {name for name, count in served.counts().items() if count} == {"valkey", "feed", "builder"}
        assert {name for name, count in other.counts().items() if count} == {"agent", "worker", "admin"}
        served.url = other.url
        assert served.ask("good") == "good"
        told = served.json("revoke", served.serial("good"), "--cause", "key-leaked")
        assert sorted(told["workers"]["acknowledged"]) == ["osaka-1:0", "osaka-1:1"]
        assert served.ask("good") == "revoked"
        assert not (other.state / "store.db").exists()
        assert not (other.state / "ca").exists()
        # What ends last tells what is left within seconds, or at its next start: on a busy machine too few.
        until_s = time.monotonic() + 30
        while (counted := _counted(served)) != {("AUTH", "good"): 1, ("AUTH", "revoked"): 1}:
            assert time.monotonic() < until_s, counted
            time.sleep(0.2)
        assert other.stop() == 0
        assert served.stop() == 0
        assert _counted(served) == counted
    finally:
        other.clean_up()


def test_tls_stands_beside_the_plain_listener(served: Served, tmp_path: Path) -> None:
    """The same paths over TLS, on every worker's own socket; a new certificate is taken at SIGHUP."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    files = f'tls_port = {port}\ntls_certificate = "{tmp_path}/tls.pem"\ntls_key = "{tmp_path}/tls.key"'
    served.config.write_text(served.config.read_text().replace("[responder]", f"[responder]\n{files}"))
    _make_tls_certificate(tmp_path, "first")
    served.serve()
    assert {_tls_name(port) for _ in range(8)} == {"first"}
    _make_tls_certificate(tmp_path, "second")
    assert served.supervisor is not None
    served.supervisor.send_signal(signal.SIGHUP)
    until = time.monotonic() + 10
    while {_tls_name(port) for _ in range(8)} != {"second"}:
        assert time.monotonic() < until
        time.sleep(0.1)
    context = ssl.create_default_context(cafile=str(tmp_path / "tls.pem"))
    with urllib.request.urlopen(f"https://localhost:{port}/readyz", context=context, timeout=10) as answer:
        assert answer.status == 200


def test_a_client_certificate_is_asked_for_where_a_ca_for_it_is_named(served: Served, tmp_path: Path) -> None:
    """Without a certificate of that CA the handshake fails; with one, the same paths are answered."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    _make_tls_certificate(tmp_path, "both")
    files = f'tls_port = {port}\ntls_certificate = "{tmp_path}/tls.pem"\ntls_key = "{tmp_path}/tls.key"'
    files += f'\ntls_client_ca = "{tmp_path}/tls.pem"'
    served.config.write_text(served.config.read_text().replace("[responder]", f"[responder]\n{files}"))
    served.serve(workers=1)
    context = ssl.create_default_context(cafile=str(tmp_path / "tls.pem"))
    url = f"https://localhost:{port}/readyz"
    with pytest.raises((urllib.error.URLError, ssl.SSLError, ConnectionError)):
        urllib.request.urlopen(url, context=context, timeout=10)
    context.load_cert_chain(tmp_path / "tls.pem", tmp_path / "tls.key")
    with urllib.request.urlopen(url, context=context, timeout=10) as answer:
        assert answer.status == 200


def _make_tls_certificate(folder: Path, name: str) -> None:
    key = f"-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {folder}/tls.key"
    openssl(f"req -x509 {key} -subj /CN={name} -addext subjectAltName=DNS:localhost -out {folder}/tls.pem")


def _tls_name(port: int) -> str:
    pem = ssl.get_server_certificate(("127.0.0.1", port), timeout=10)
    subject = x509.load_pem_x509_certificate(pem.encode()).subject
    return str(subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


def test_only_the_builder_gets_the_ca_passphrase(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that is broken into knows no way to the CA keys."""
    passphrase = (served.state / "ca" / "passphrase").read_text().strip()
    (served.state / "ca" / "passphrase").unlink()
    monkeypatch.setenv("CERTSTATUS_CA_PASSPHRASE", passphrase)
    served.serve(workers=1)
    assert served.ask("good") == "good"
    knowing = {
        name
        for name, pids in served.running().items()
        for pid in pids
        if passphrase.encode() in Path(f"/proc/{pid}/environ").read_bytes()
    }
    assert knowing == {"builder"}


def test_logs_stay_bounded_while_their_writers_go_on(tmp_path: Path) -> None:
    """A log over its limit is moved aside and emptied, and what is appended next stands at its beginning."""
    from certstatus import supervisor
    from certstatus.config import parse_config

    watched = supervisor.Supervisor(
        lambda: parse_config({}, str(tmp_path / "x.toml")), print, lambda _config: None
    )
    folder = tmp_path / "log"
    folder.mkdir()
    with (folder / "feed.log").open("ab", buffering=0) as log:
        log.write(b"x" * (supervisor.LOG_BYTES_MAX + 1))
        watched._bound_logs()
        log.write(b"after")
    assert (folder / "feed.log").read_bytes() == b"after"
    assert (folder / "feed.log.1").stat().st_size == supervisor.LOG_BYTES_MAX + 1
