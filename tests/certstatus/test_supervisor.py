"""The supervisor with everything it supervises: exactly one of each, whatever is killed.

All processes here are the real ones, started by the real command line.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from served_installation import Served, openssl

from certstatus import processes
from certstatus.private_valkey import socket_folder, socket_path


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """An installation with a small demo; not running yet."""
    made = Served(tmp_path)
    made.run("init")
    made.run("demo", "--population", "40")
    yield made
    made.clean_up()


def test_a_first_start_answers_and_ctrl_c_leaves_nothing(served: Served) -> None:
    """Ready means ready; after an interrupt nothing runs, nothing lies about, and every answer is counted."""
    served.serve()
    served.wait_for_one_of_each()
    for _ in range(5):
        assert served.ask("good") == "good"
        assert served.ask("revoked", "sign") == "revoked"
    # One full collection would stop a worker for tens of milliseconds, so none is ever made by itself.
    collector = json.loads((served.state / "run" / "worker-0.json").read_text())["collector"]
    assert collector["automatic"] is False
    assert collector["frozen"] > 10_000
    assert served.stop(signal.SIGINT) == 0
    assert set(served.counts().values()) == {0}
    assert not socket_folder(served.state).exists()
    assert not list((served.state / "host" / "counters").glob("*.counters"))
    counted = {(item["service"], item["kind"]): item["count"] for item in served.json("provisions")}
    assert counted == {("AUTH", "good"): 5, ("SIGN", "revoked"): 5}


def test_what_is_killed_comes_back_exactly_once(served: Served) -> None:
    """kill -9 of each process in turn: one takes its place, and answers go on being right."""
    served.serve()
    for role in ("worker", "feed", "builder", "agent", "admin", "valkey"):
        killed = served.kill(role)
        time.sleep(0.2)
        served.wait_for_one_of_each()
        assert killed not in served.running()[role]
    served.wait_ready()
    serial = served.serial("good")
    assert served.ask("good") == "good"
    told = served.json("revoke", serial, "--cause", "key-leaked")
    assert len(told["workers"]["acknowledged"]) == 2
    assert served.ask("good") == "revoked"
    assert served.output.count("was ended by SIGKILL; starting it again") == 6


def test_nothing_outlives_a_killed_supervisor_and_the_next_finds_one_of_each(served: Served) -> None:
    """kill -9 of the supervisor ends all; a new start goes on with one of everything, on the same port."""
    served.serve()
    port = served.url.rpartition(":")[2]
    assert served.supervisor is not None
    left = [who for pids in served.running().values() for pid in pids if (who := processes.identity_of(pid))]
    served.supervisor.kill()
    served.supervisor.wait()
    for who in left:
        assert processes.wait_until_gone(who, 5), processes.command_line(who.pid)
    served.serve("--port", port)
    served.wait_for_one_of_each()
    assert served.url.endswith(f":{port}")
    assert served.ask("good") == "good"


def test_a_second_serve_is_refused_by_name(served: Served) -> None:
    """Two supervisors of one state folder would be two publishers; the second says who the first is."""
    served.serve(workers=1)
    assert served.supervisor is not None
    done = served.run("serve", expect=75)
    assert f"{served.state} is served already, by process {served.supervisor.pid}" in done.stderr
    served.wait_for_one_of_each(workers=1)


def test_no_waiting_connection_is_reset_when_a_real_worker_is_killed(served: Served) -> None:
    """Connections queued at a stopped worker are answered by its successor after kill -9; none is reset."""
    served.serve()
    host, _, port = served.url.removeprefix("http://").rpartition(":")
    worker = served.running()["worker"][0]
    os.kill(worker, signal.SIGSTOP)
    clients = [socket.create_connection((host, int(port)), timeout=30) for _ in range(100)]
    for client in clients:
        client.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
    time.sleep(0.2)
    os.kill(worker, signal.SIGKILL)
    answers = [client.recv(1000) for client in clients]
    assert [answer[:15] for answer in answers] == [b"HTTP/1.1 200 OK"] * 100
    for client in clients:
        client.close()


def test_what_an_earlier_run_left_is_ended_first(served: Served) -> None:
    """A process that is written down and still runs is ended before anything is started."""
    left = subprocess.Popen(["/bin/sleep", "600"])
    who = processes.identity_of(left.pid)
    assert who is not None
    run_folder = served.state / "run"
    run_folder.mkdir()
    (run_folder / "processes.json").write_text(json.dumps([["worker-0", *who]]))
    served.serve(workers=1)
    assert left.wait(5) == -signal.SIGTERM
    assert "ended 1 processes of an earlier run" in served.output


def test_a_worker_that_does_not_stop_is_killed_in_time(served: Served) -> None:
    """A stopped (SIGSTOP) worker cannot keep the others from ending."""
    served.config.write_text(served.config.read_text().replace("[responder]", "[responder]\nshutdown_s = 1"))
    served.serve()
    os.kill(served.running()["worker"][0], signal.SIGSTOP)
    began = time.monotonic()
    assert served.stop(signal.SIGTERM) == 0
    assert time.monotonic() - began < 8
    assert "does not stop; killed" in served.output
    assert set(served.counts().values()) == {0}


def test_a_second_interrupt_ends_the_waiting(served: Served) -> None:
    """Whoever presses Ctrl-C twice does not want to wait for anybody."""
    served.serve()
    worker = served.running()["worker"][0]
    os.kill(worker, signal.SIGSTOP)
    assert served.supervisor is not None
    served.supervisor.send_signal(signal.SIGINT)
    time.sleep(0.5)
    began = time.monotonic()
    # One for the workers that hang; the ranks after them are again given their time.
    assert served.stop(signal.SIGINT) == 0
    assert time.monotonic() - began < 9


def test_a_changed_configuration_is_taken_over_and_a_wrong_one_is_not(served: Served) -> None:
    """SIGHUP: workers keep running with new limits; a mistake is named and changes nothing."""
    served.serve()
    assert served.supervisor is not None
    workers = served.running()["worker"]
    text = served.config.read_text()
    effective = served.state / "run" / "serve.toml"
    served.config.write_text(text.replace("[responder]", "[responder]\nidle_time_s = 7"))
    served.supervisor.send_signal(signal.SIGHUP)
    _wait_for(served, "configuration taken over")
    assert "idle_time_s = 7" in effective.read_text()
    served.config.write_text(text.replace("[responder]", "[responder]\nidle_time_s = 0"))
    served.supervisor.send_signal(signal.SIGHUP)
    _wait_for(served, "configuration not taken over")
    assert "responder.idle_time_s: expected 1..3600, found 0" in served.output
    assert "idle_time_s = 7" in effective.read_text()
    served.wait_for_one_of_each()
    assert served.running()["worker"] == workers
    assert served.ask("good") == "good"


def test_a_process_that_cannot_start_stops_the_start_with_its_reason(served: Served) -> None:
    """A publisher without its key: serve ends, and says which process, why, and where its log is."""
    (served.state / "secrets" / "publisher.key").unlink()
    done = served.run("serve", "--port", "0", "--workers", "1", expect=69)
    line = done.stderr.strip().splitlines()[-1]
    assert re.search(r"feed does not stay up: ended with exit code 66; .*publisher\.key: No such file", line)
    assert str(served.state / "log" / "feed.log") in line
    assert set(served.counts().values()) == {0}


def test_what_cannot_be_started_is_tried_again_and_the_others_go_on(served: Served) -> None:
    """A disk that refuses the agent's log keeps the agent away, not the answers, until it is well."""
    served.serve()
    log = served.state / "log"
    aside = log.rename(served.state / "aside")
    log.write_text("a file where a folder should be")
    served.kill("agent")
    _wait_for(served, "agent could not be started: [Errno 20] Not a directory")
    assert served.ask("good") == "good"
    log.unlink()
    aside.rename(log)
    served.wait_for_one_of_each()


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
        assert other.stop() == 0
        assert served.stop() == 0
        counted = {(item["service"], item["kind"]): item["count"] for item in served.json("provisions")}
        assert counted == {("AUTH", "good"): 1, ("AUTH", "revoked"): 1}
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


def _wait_for(served: Served, text: str) -> None:
    until = time.monotonic() + 10
    while text not in served.output:
        assert time.monotonic() < until, served.output
        time.sleep(0.05)
