"""A worker as a process, and as a whole: its life, its signals, its counts, and its promptness."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509 import ocsp
from responder_cases import CA, get_request, post_request
from worker_cases import Client, Host, ask, body, listening, make_config, status, talk, wait_until

from certstatus import listeners
from certstatus.changes import ChangeKind
from certstatus.config import Config, format_config
from certstatus.counters import Provision, read_counters
from responder.worker import hold_slot


class Process:
    """A worker process on sockets that this test holds, as a supervisor does."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.plain = listening()
        self.port = self.plain.getsockname()[1]
        self.file = host.folder / "serve.toml"
        self.file.write_text(format_config(host.config))
        self.process: subprocess.Popen[bytes]

    def start(self, slot: int = 0) -> None:
        """Start it and wait until it is ready."""
        self.begin(slot)
        until = time.monotonic() + 15
        while not self.status(slot).get("ready") or self.status(slot)["pid"] != self.process.pid:
            assert time.monotonic() < until, self.status(slot)
            assert self.process.poll() is None, "it ended"
            self.host.beat()
            time.sleep(0.05)

    def begin(self, slot: int = 0) -> None:
        """Start it."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "responder.worker", str(self.file), str(slot)],
            pass_fds=[self.plain.fileno()],
            env={**os.environ, **listeners.environment({listeners.PLAIN: self.plain})},
        )

    def status(self, slot: int = 0) -> dict[str, Any]:
        """What it says of itself."""
        try:
            found: dict[str, Any] = json.loads((self.host.folder / "run" / f"worker-{slot}.json").read_text())
        except (OSError, ValueError):
            return {}
        return found

    def end(self, number: int = signal.SIGTERM, time_s: float = 10) -> int:
        """Send the signal and wait for the end; returns the exit code."""
        self.process.send_signal(number)
        return self.process.wait(time_s)

    def counted(self) -> dict[str, int]:
        """What stands in this host's counter files."""
        totals: dict[str, int] = {}
        for path in (self.host.folder / "host" / "counters").glob("*.counters"):
            for cell in read_counters(path).cells:
                name = Provision(cell.kind).name
                totals[name] = totals.get(name, 0) + cell.value
        return totals


@pytest.fixture
def process(valkey: redis.Redis, publisher_key: Ed25519PrivateKey, config: Config) -> Iterator[Process]:
    """A worker process that has not been started."""
    made = Process(Host(valkey, publisher_key, config))
    try:
        yield made
    finally:
        if hasattr(made, "process") and made.process.poll() is None:
            made.process.kill()
            made.process.wait()
        made.plain.close()


@contextmanager
def asking(process: Process, message: bytes, answers: list[bytes]) -> Iterator[None]:
    """Ask again and again on connections that are renewed, until left; every answer is kept."""
    stop = threading.Event()

    def ask_on() -> None:
        while not stop.is_set():
            try:
                with Client(process.port) as client:
                    while not stop.is_set():
                        client.send(message)
                        answer = client.read_answer()
                        if answer == b"":
                            break
                        answers.append(answer)
            except OSError:
                continue

    threads = [threading.Thread(target=ask_on) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


# --- life --------------------------------------------------------------------------------------------


def test_a_process_answers_says_how_it_is_and_leaves(process: Process) -> None:
    """From start to SIGTERM: ready, right answers, a status file, a good-bye, a sealed counter file."""
    process.start()
    der = process.host.ca.request(1)
    assert (
        ocsp.load_der_ocsp_response(body(ask(process.port, get_request(der)))).certificate_status.name
        == "GOOD"
    )
    assert status(ask(process.port, b"GET /readyz HTTP/1.0\r\n\r\n")) == 200
    wait_until(lambda: process.status()["provisions"]["good"] == 1)
    said = process.status()
    assert said["applied_seq"] == process.host.writer.seq
    assert said["epoch"] == process.host.writer.epoch.hex()
    assert said["issuers"][0]["signer_serial"]
    assert said["trouble"] == ""
    assert process.host.writer.acked() == (process.host.writer.seq, said["incarnation"])
    assert process.end() == 0
    assert process.host.writer.acked() == (process.host.writer.seq, "")
    assert process.status()["ready"] is False
    (path,) = (process.host.folder / "host" / "counters").glob("*.counters")
    assert read_counters(path).sealed


def test_a_slot_has_one_worker(process: Process) -> None:
    """A second process for the same slot ends at once and disturbs nobody."""
    process.start()
    first = process.process
    process.begin()
    assert process.process.wait(10) == os.EX_TEMPFAIL
    process.process = first
    assert status(ask(process.port, get_request(process.host.ca.request(1)))) == 200


def test_a_broken_host_folder_is_told(process: Process) -> None:
    """A worker that cannot begin says why and with which exit code."""
    (process.host.folder / "host" / "index.key").chmod(0o644)
    process.begin()
    assert process.process.wait(10) == 66


def test_sigterm_finishes_what_has_begun(process: Process) -> None:
    """Nobody who was answered before is cut off in the middle; what waits in the socket's queue is served by
    the successor."""
    process.start()
    answers: list[bytes] = []
    with asking(process, get_request(process.host.ca.request(1)), answers):
        time.sleep(0.3)
        with Client(process.port) as idle:
            idle.send(get_request(process.host.ca.request(1)))
            assert idle.read_answer() != b""
            began = time.monotonic()
            assert process.end() == 0
            assert time.monotonic() - began < process.host.config.responder.shutdown_s + 1
            assert idle.is_closed()
        before = len(answers)
        assert before > 10
        process.start()
        wait_until(lambda: len(answers) > before + 10)
    assert {status(answer) for answer in answers} == {200}
    said = {ocsp.load_der_ocsp_response(body(answer)).response_status.name for answer in answers}
    assert said <= {"SUCCESSFUL", "TRY_LATER"}


def test_counts_are_exact_across_kill_9(process: Process) -> None:
    """After kill -9 and a new start every answer that was received is counted; only those on their way when
    it was killed may be counted without having arrived."""
    process.start()
    answers: list[bytes] = []
    with asking(process, get_request(process.host.ca.request(1)), answers):
        for _ in range(3):
            before = len(answers)
            wait_until(lambda before=before: len(answers) > before + 100)  # type: ignore[misc]
            process.end(signal.SIGKILL)
            process.start()
        wait_until(lambda: len(answers) > 400)
    process.end()
    good = sum(1 for answer in answers if body(answer)[:3] != b"\x30\x03\x0a")
    assert good > 300
    # Three connections, killed three times, and ended once.
    assert good <= process.counted()["GOOD"] <= good + 3 * 4


def test_sighup_reads_keys_and_limits_without_dropping_a_connection(process: Process) -> None:
    """A new key and new limits are in use after SIGHUP, on the same connection."""
    process.start()
    host = process.host
    with Client(process.port) as client:
        client.send(post_request(host.ca.request(1, 1)))
        old = ocsp.load_der_ocsp_response(body(client.read_answer()))
        assert len(list(old.responses)) == 2
        limited = make_config(host.folder, host.config.valkey.url, certificates_per_request_max=1)
        process.file.write_text(format_config(limited))
        serial = host.ca.install_responder(host.folder / "host" / "keys", int(time.time()) + 1)
        process.process.send_signal(signal.SIGHUP)
        two = host.ca.request(1, 3, nonce=bytes(16))
        wait_until(lambda: _says(client, two) == "UNAUTHORIZED")
        time.sleep(1.1)
        host.beat()
        client.send(post_request(host.ca.request(7)))
        new = ocsp.load_der_ocsp_response(body(client.read_answer()))
        assert new.certificates[0].serial_number == int(serial, 16)
        process.file.write_text("[responder]\nport = -1\n")
        process.process.send_signal(signal.SIGHUP)
        time.sleep(0.2)
        assert _says(client, host.ca.request(1)) == "SUCCESSFUL"


def _says(client: Client, der: bytes) -> str:
    client.send(post_request(der))
    return ocsp.load_der_ocsp_response(body(client.read_answer())).response_status.name


def test_new_keys_are_found_without_being_told(process: Process) -> None:
    """A key that the agent installs is used within seconds."""
    process.start()
    host = process.host
    serial = host.ca.install_responder(host.folder / "host" / "keys", int(time.time()) + 1)
    wait_until(lambda: process.status()["issuers"][0]["signer_serial"] == serial, 10)


def test_what_lies_among_the_keys_ends_nothing(process: Process) -> None:
    """A certificate that cannot be read stops neither the worker's ticking nor the keys beside it."""
    process.start()
    folder = process.host.folder / "host" / "keys"
    unreadable = folder / "1-00ff.crt"
    unreadable.mkdir()
    wait_until(lambda: process.status()["time_ms"] > unreadable.stat().st_mtime * 1000 + 2500)
    assert process.status()["unfit_keys"] == {"1-00ff": f"{unreadable}: Is a directory"}
    serial = process.host.ca.install_responder(folder, int(time.time()) + 1)
    wait_until(lambda: process.status()["issuers"][0]["signer_serial"] == serial, 10)
    unreadable.rmdir()
    wait_until(lambda: not process.status()["unfit_keys"], 10)


def test_an_issuer_whose_key_is_broken_at_the_start_is_silent_alone(process: Process) -> None:
    """Its clients are told tryLater; the other issuer's are answered, and nobody has to come to mend that."""
    host = process.host
    (broken,) = (host.folder / "host" / "keys").glob("1-*.key")
    broken.chmod(0o644)
    process.begin()

    def says(ca: CA) -> str:
        host.beat()
        time.sleep(0.05)
        with Client(process.port) as client:
            return _says(client, ca.request(1))

    wait_until(lambda: says(host.other) == "SUCCESSFUL", 10)
    assert says(host.ca) == "TRY_LATER"
    wait_until(lambda: list(process.status().get("unfit_keys", {})) == [broken.stem])
    broken.chmod(0o600)
    wait_until(lambda: says(host.ca) == "SUCCESSFUL", 15)


def test_a_key_file_mended_in_place_is_taken_into_use(process: Process) -> None:
    """Its mode, say: the certificate beside it is as it was, so nothing there shows the change."""
    process.start()
    folder = process.host.folder / "host" / "keys"
    before = {path.name for path in folder.iterdir()}
    serial = process.host.ca.install_responder(folder, int(time.time()) + 1)
    (key,) = (path for path in folder.glob("*.key") if path.name not in before)
    key.chmod(0o644)
    wait_until(lambda: process.status()["time_ms"] > key.stat().st_ctime * 1000 + 2500)
    assert process.status()["issuers"][0]["signer_serial"] != serial
    key.chmod(0o600)
    wait_until(lambda: process.status()["issuers"][0]["signer_serial"] == serial, 15)


def test_the_slot_lock_is_held(tmp_path: Path) -> None:
    """While somebody holds the slot nobody else gets it."""
    held = hold_slot(tmp_path, 3)
    with pytest.raises(BlockingIOError):
        hold_slot(tmp_path, 3)
    os.close(held)
    os.close(hold_slot(tmp_path, 3))


# --- promptness --------------------------------------------------------------------------------------


def test_what_is_acknowledged_is_answered(
    valkey: redis.Redis, publisher_key: Ed25519PrivateKey, config: Config
) -> None:
    """The first query after the acknowledgement is answered revoked, though the answer before was in every
    cache."""
    with Host(valkey, publisher_key, config).serving() as host, Client(host.port) as client:
        for n in range(3, 10):
            message = get_request(host.ca.request(n))
            for _ in range(3):
                client.send(message)
                before = client.read_answer()
            assert ocsp.load_der_ocsp_response(body(before)).certificate_status.name == "GOOD"
            with host.beating:
                host.writer.revoke(n)
                host.beat()
            wait_until(lambda: host.writer.acked()[0] == host.writer.seq)
            client.send(message)
            after = ocsp.load_der_ocsp_response(body(client.read_answer()))
            assert after.certificate_status.name == "REVOKED"


def test_a_suspension_that_is_acknowledged_refuses(
    valkey: redis.Redis, publisher_key: Ed25519PrivateKey, config: Config
) -> None:
    """The first request after the acknowledgement is refused, on a connection that was served before."""
    with Host(valkey, publisher_key, config).serving() as host, Client(host.port) as client:
        message = get_request(host.ca.request(1))
        for _ in range(3):
            client.send(message)
            assert body(client.read_answer())[:2] == b"\x30\x82"
        with host.beating:
            host.writer.change(ChangeKind.ENTITLEMENTS, issuer_id=0)
            host.writer.verifiers()
            host.beat()
        wait_until(lambda: host.writer.acked()[0] == host.writer.seq)
        client.send(message)
        assert body(client.read_answer()) == b"\x30\x03\x0a\x01\x06"


def test_changes_are_applied_while_the_loop_is_busy_signing(
    valkey: redis.Redis, publisher_key: Ed25519PrivateKey, config: Config
) -> None:
    """Under a flood of answers that all must be signed a change is acknowledged within a tenth of a second,
    and answers that are cached do not wait for those that are not."""
    with Host(valkey, publisher_key, config).serving() as host, flooding(host):
        signatures = host.worker.desk.signatures
        wait_until(lambda: host.worker.desk.signatures > signatures + 1000)
        delays, waits = [], []
        with Client(host.port) as client:
            hot = get_request(host.ca.request(1))
            for n in range(20):
                with host.beating:
                    host.writer.issue(1000 + n)
                    began = time.monotonic()
                    host.beat()
                wait_until(lambda: host.writer.acked()[0] == host.writer.seq)
                delays.append(time.monotonic() - began)
                began = time.monotonic()
                client.send(hot)
                assert status(client.read_answer()) == 200
                waits.append(time.monotonic() - began)
        assert host.worker.desk.signatures > signatures + 1100
        assert sorted(delays)[18] < 0.1, delays
        assert sorted(waits)[18] < 0.1, waits


@contextmanager
def flooding(host: Host) -> Iterator[None]:
    """Another process asks for what must be signed, as fast as it can."""
    command = [sys.executable, str(Path(__file__).with_name("flood_cases.py")), str(host.port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as flood:
        try:
            assert flood.stdin is not None
            flood.stdin.write(host.ca.cert_id_der(1).hex().encode() + b"\n")
            flood.stdin.flush()
            yield
        finally:
            flood.kill()


# --- memory ------------------------------------------------------------------------------------------


def test_the_full_server_leaves_no_garbage_that_grows(host: Host) -> None:
    """Automatic collection is off in a worker, so nothing may be left to it, however requests end."""
    post = b"POST /ocsp HTTP/1.1\r\nHost: x\r\n"
    whole = [
        b"GET /other HTTP/1.1\r\nHost: x\r\n\r\n",
        post + b"Content-Length: -1\r\n\r\n",
        post + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        post + b"Content-Length: 99999999\r\n\r\n",
        b"GET /crl/sign/g1/all/complete.crl HTTP/1.1\r\nHost: x\r\n\r\n",
        get_request(host.ca.request(1)) * 3,
    ]
    cut_off = [
        b"GET /other HTTP/1.1\r\nHo",
        post + b"Content-Length: 50\r\nExpect: 100-continue\r\n\r\nabc",
        post + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab",
        post + b"Content-Length: 50\r\n\r\nabc",
    ]

    def go_round() -> None:
        for message in whole:
            talk(host.port, message)
        for message in cut_off:
            with Client(host.port) as client:
                client.send(message)
                time.sleep(0.005)
        wait_until(lambda: not host.worker.lanes.connections)

    gc.disable()
    try:
        go_round()
        gc.collect()
        left = len(gc.get_objects())
        for _ in range(4):
            go_round()
        assert len(gc.get_objects()) - left < 200
        assert gc.collect() < 20
    finally:
        gc.enable()
