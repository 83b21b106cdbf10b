"""TLS below the lane over real sockets: the same answers however records are cut, whoever else is there."""

from __future__ import annotations

import _ssl
import contextlib
import ctypes
import random
import re
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from responder_cases import get_request, post_request
from worker_cases import Host, ask, listening, timeless, wait_until

from certstatus.config import Config, parse_config

_NO_CERTIFICATE = r"CERTIFICATE_REQUIRED|HANDSHAKE_FAILURE"
VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
_LIMITS = {"connections_max": 40, "header_time_s": 2, "idle_time_s": 20, "write_time_s": 2}


class TlsHost(Host):
    """A host that listens with TLS, too, at ``tls_port``; ``context``: what a client has to trust."""

    def __init__(
        self, client: redis.Redis, key: Ed25519PrivateKey, config: Config, *, ask_clients: bool = False
    ) -> None:
        self.certificate = _make_certificate(config.state)
        super().__init__(client, key, _tls_config(config, config.state, ask_clients))
        self.tls = listening()
        self.tls_port = self.tls.getsockname()[1]
        self.context = ssl.create_default_context(cafile=str(self.certificate))

    def left(self) -> tuple[int, int]:
        """How many octets the shared BIOs hold; from the worker's loop, so while no connection is at work."""
        shared = self.worker.tls_lanes
        assert shared is not None
        return self.call(lambda: (shared.incoming.pending, shared.outgoing.pending))


class TlsClient:
    """One TLS connection whose octets are sent when and in which pieces the test likes."""

    def __init__(self, host: TlsHost, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> None:
        context = ssl.create_default_context(cafile=str(host.certificate))
        context.maximum_version = version
        self.socket = socket.create_connection(("127.0.0.1", host.tls_port), 10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._coming, self._going = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._coming, self._going, server_hostname="127.0.0.1")

    def __enter__(self) -> TlsClient:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.socket.close()

    def shake_hands(self) -> bytes:
        """Come to the end of the handshake; return its last octets, which are not sent yet."""
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self.socket.sendall(self._going.read())
                if not self._receive():
                    raise ConnectionError("closed amid the handshake") from None
            else:
                return self._going.read()

    def hello(self) -> bytes:
        """What is to be sent to begin a handshake."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        return self._going.read()

    def octets(self, message: bytes) -> bytes:
        """What is to be sent for *message*."""
        self.tls.write(message)
        return self._going.read()

    def ask(self, message: bytes) -> bytes:
        """Shake hands, ask, and return how the answer begins."""
        self.socket.sendall(self.shake_hands() + self.octets(message))
        return self.read(15)

    def key_updates(self, count: int, asks: bool) -> bytes:
        """What is to be sent for so many KeyUpdates, which the library's ``ssl`` has no call for."""
        library = ctypes.CDLL(_ssl.__file__)
        # The first thing in CPython's object, behind its head and its socket.
        pointer = ctypes.c_void_p.from_address(id(self.tls._sslobj) + 24)  # type: ignore[attr-defined]
        assert library.SSL_version(pointer) == ssl.TLSVersion.TLSv1_3
        for _ in range(count):
            assert library.SSL_key_update(pointer, int(asks)) == 1
            assert library.SSL_do_handshake(pointer) == 1
        return self._going.read()

    def farewell(self) -> bytes:
        """What is to be sent to say that nothing follows."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        return self._going.read()

    def read(self, size: int) -> bytes:
        """*size* octets of what was answered; fewer at its end."""
        found = b""
        while len(found) < size:
            try:
                piece = self.tls.read(size - len(found))
            except ssl.SSLWantReadError:
                if not self._receive():
                    break
            else:
                if not piece:
                    break
                found += piece
        return found

    def is_closed(self) -> bool:
        """Whether the other side closes the socket, whatever it says before."""
        try:
            while self.socket.recv(65_536):
                pass
        except ConnectionResetError:
            pass
        except TimeoutError:
            return False
        return True

    def _receive(self) -> bytes:
        data = self.socket.recv(65_536)
        self._coming.write(data)
        return data


@pytest.fixture
def host(valkey: redis.Redis, publisher_key: Ed25519PrivateKey, config: Config) -> Iterator[TlsHost]:
    """Serving; nothing is left in the shared BIOs in the end, and no connection."""
    with _served(TlsHost(valkey, publisher_key, config)) as serving:
        yield serving


@contextmanager
def _served(host: TlsHost) -> Iterator[TlsHost]:
    with host.serving():
        yield host
        wait_until(lambda: not host.worker.lanes.connections)
        assert host.left() == (0, 0)


def test_tls_says_the_same(host: TlsHost) -> None:
    """The TLS listener gives the same octets as the plain one, from the lane and from the delegate."""
    for message in (
        get_request(host.ca.request(1)),
        post_request(host.ca.request(2)),
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    ):
        plain = ask(host.port, message)
        with (
            socket.create_connection(("127.0.0.1", host.tls_port), 5) as raw,
            host.context.wrap_socket(raw, server_hostname="127.0.0.1") as tls,
        ):
            for cut in (0, 20):
                tls.sendall(message[:cut])
                tls.sendall(message[cut:])
                answer = b""
                while len(answer) < len(plain):
                    answer += tls.recv(65536)
                assert timeless(answer) == timeless(plain)
            assert tls.version() == "TLSv1.3"


@pytest.mark.parametrize("seed", range(3))
def test_connections_never_get_what_is_anothers(host: TlsHost, seed: int) -> None:
    """Thirty connections, each asking about its own certificate, their records cut anywhere and mixed.

    Some are garbage or end amid a record; whoever is left gets its own answers, octet for octet.
    """
    chance = random.Random(seed)
    plain = {}
    for number in range(30):
        message = post_request(host.ca.request(1000 + number))
        ask(host.port, message)
        plain[number] = message, ask(host.port, message)
    with contextlib.ExitStack() as stack:
        clients = {number: stack.enter_context(TlsClient(host, chance.choice(VERSIONS))) for number in plain}
        octets = {number: clients[number].shake_hands() for number in clients}
        asked = {number: chance.randrange(1, 5) for number in clients}
        for number, client in clients.items():
            for _ in range(asked[number]):
                octets[number] += client.octets(plain[number][0])
        spoilt = set(chance.sample(sorted(clients), 6))
        for number in spoilt:
            at = chance.randrange(len(octets[number]))
            octets[number] = octets[number][:at] + chance.randbytes(chance.randrange(0, 40))
        while octets:
            number = chance.choice(sorted(octets))
            size = chance.choice((1, 5, 17, 200, 5000))
            with contextlib.suppress(ConnectionError):
                clients[number].socket.sendall(octets[number][:size])
            octets[number] = octets[number][size:]
            if not octets[number]:
                del octets[number]
                if number in spoilt:
                    clients[number].socket.close()
        for number, client in clients.items():
            if number not in spoilt:
                _, answer = plain[number]
                for _ in range(asked[number]):
                    assert timeless(client.read(len(answer))) == timeless(answer)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("at_once", [True, False])
def test_who_asks_and_ends_tls_at_once_is_answered(
    host: TlsHost, version: ssl.TLSVersion, at_once: bool
) -> None:
    """Question and close_notify come together, and the question is one that has to be signed.

    *at_once*: in one piece with the end of the handshake.
    """
    with TlsClient(host, version) as client:
        last = client.shake_hands()
        if not at_once:
            client.socket.sendall(last)
            last = b""
        client.socket.sendall(last + client.octets(get_request(host.ca.request(7777))) + client.farewell())
        assert client.read(15) == b"HTTP/1.1 200 OK"
        assert client.is_closed()


def test_who_closes_the_socket_without_a_word_is_answered(host: TlsHost) -> None:
    """The end of the socket is an end, too."""
    with TlsClient(host) as client:
        client.socket.sendall(client.shake_hands() + client.octets(get_request(host.ca.request(7778))))
        client.socket.shutdown(socket.SHUT_WR)
        assert client.read(15) == b"HTTP/1.1 200 OK"
        assert client.is_closed()


@pytest.mark.parametrize("version", VERSIONS)
def test_the_end_is_said(host: TlsHost, version: ssl.TLSVersion) -> None:
    """After an answer with Connection: close comes close_notify, so that nobody takes a cut for an end."""
    with TlsClient(host, version) as client:
        message = get_request(host.ca.request(1), headers="Host: x\r\nConnection: close\r\n")
        client.socket.sendall(client.shake_hands() + client.octets(message))
        answer = client.read(100_000)
        assert answer.startswith(b"HTTP/1.1 200 OK")
        # Not at the end of the socket: OpenSSL would call that an error.
        assert client.tls.read(1) == b""


@pytest.mark.parametrize(
    "octets",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x40\x01" + bytes(70_000),
        b"\x15\x03\x03\x00\x02\x02\x28",
        b"\x80\x2e\x01\x00\x02",
    ],
    ids=["HTTP", "record too long", "alert", "SSL 2"],
)
def test_what_is_no_handshake_ends_the_connection(host: TlsHost, octets: bytes) -> None:
    """At once, with an alert or without."""
    with TlsClient(host) as client:
        with contextlib.suppress(ConnectionError):
            client.socket.sendall(octets)
        assert client.is_closed()


def test_a_record_that_was_changed_ends_the_connection(host: TlsHost) -> None:
    """Nothing of it is answered, and an alert says why."""
    with TlsClient(host) as client:
        client.socket.sendall(client.shake_hands())
        octets = bytearray(client.octets(get_request(host.ca.request(1))))
        octets[-1] ^= 1
        client.socket.sendall(octets)
        with pytest.raises(ssl.SSLError, match="BAD_RECORD_MAC"):
            client.read(1)


def test_a_handshake_has_its_time(host: TlsHost) -> None:
    """As long as a head; one that came to half a handshake is ended as one that never began."""
    with TlsClient(host) as silent, TlsClient(host) as slow:
        slow.socket.sendall(slow.hello()[:100])
        before_s = time.monotonic()
        assert silent.is_closed()
        assert slow.is_closed()
        assert 1.5 < time.monotonic() - before_s < 6
        assert host.worker.lanes.timed_out == 2


def test_connections_count_before_their_handshake(host: TlsHost) -> None:
    """Whoever only connects takes a place; beyond the limit nobody gets one, and later they do again."""
    with contextlib.ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(TlsClient(host))
        wait_until(lambda: len(host.worker.lanes.connections) == 40)
        late = stack.enter_context(TlsClient(host))
        assert late.is_closed()
        assert host.worker.lanes.refused == 1
    wait_until(lambda: not host.worker.lanes.connections)
    with TlsClient(host) as client:
        assert client.ask(get_request(host.ca.request(1))) == b"HTTP/1.1 200 OK"


def test_who_does_not_read_is_not_asked_for_more(host: TlsHost) -> None:
    """No answer is read: the worker stops reading questions, keeps little, and ends it in time."""
    message = get_request(host.ca.request(1)) * 50
    with TlsClient(host) as client:
        client.socket.sendall(client.shake_hands())
        client.socket.settimeout(0.3)
        # Until the kernel takes no more on either side of the loopback, which are some megabytes.
        asked = 0
        with contextlib.suppress(TimeoutError):
            while asked < 200_000:
                client.socket.sendall(client.octets(message))
                asked += 50
        assert asked < 200_000
        unsent = host.call(lambda: [lane._transport.get_write_buffer_size() for lane in host.lanes()])
        assert 0 < unsent[0] < 1_000_000
        wait_until(lambda: host.worker.lanes.timed_out == 1)


def test_large_messages_go_in_records(host: TlsHost) -> None:
    """Questions sent ahead in records of 16 KB, whose answers come to many records more."""
    message = post_request(host.ca.request(1))
    ask(host.port, message)
    answer = ask(host.port, message)
    with TlsClient(host) as client:
        client.socket.sendall(client.shake_hands() + client.octets(message * 500))
        assert timeless(client.read(500 * len(answer))) == timeless(answer) * 500


def test_keys_are_updated_when_openssl_asks(host: TlsHost) -> None:
    """``openssl s_client`` sends a KeyUpdate that asks for ours, and goes on asking."""
    command = [
        "openssl",
        "s_client",
        "-connect",
        f"127.0.0.1:{host.tls_port}",
        "-CAfile",
        str(host.certificate),
    ]
    command += ["-verify_ip", "127.0.0.1", "-tls1_3", "-msg"]
    question = "GET /healthz HTTP/1.1\nHost: x\n\n".replace("\n", "\r\n")
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        patience = threading.Timer(20, process.kill)
        patience.start()
        assert process.stdin is not None
        assert process.stdout is not None
        said = ""
        for line, awaited in (("", "Verify return code"), ("K\n", "KeyUpdate"), (question, "200 OK")):
            process.stdin.write(line)
            process.stdin.flush()
            while awaited not in said:
                read = process.stdout.readline()
                assert read, said
                said += read
        patience.cancel()
        process.kill()
    # Ours stands before the answer, as OpenSSL wrote it when it read theirs.
    assert re.search(r"<<< TLS 1\.3, Handshake \[length 0005\], KeyUpdate", said), said


@pytest.mark.parametrize("asks", [False, True], ids=["not asked for", "asked for"])
def test_key_updates_without_end_keep_nobody_waiting(host: TlsHost, asks: bool) -> None:
    """Thirty thousand KeyUpdates: the connection is ended soon, and no turn of the loop is long."""
    with TlsClient(host) as client:
        assert client.ask(get_request(host.ca.request(1))) == b"HTTP/1.1 200 OK"
        octets = client.key_updates(30_000, asks)
        host.call(host.worker.turns.take)
        with contextlib.suppress(ConnectionError):
            client.socket.sendall(octets)
        wait_until(lambda: not host.worker.lanes.connections)
        # As CPU time of the loop's thread; it was 2.6 s when all was read that had come.
        assert host.call(host.worker.turns.take) < 0.1


def test_what_stands_before_a_spoilt_record_is_not_counted(host: TlsHost) -> None:
    """It cannot be answered any more, so nothing is signed or counted for it."""
    message = get_request(host.ca.request(1))
    with TlsClient(host) as client:
        assert client.ask(message) == b"HTTP/1.1 200 OK"
        counted = host.call(lambda: sum(host.worker.counting.totals()))
        octets = bytearray(client.octets(message) + client.octets(message))
        octets[-1] ^= 1
        client.socket.sendall(octets)
        with pytest.raises(ssl.SSLError, match="BAD_RECORD_MAC"):
            client.read(100_000)
        assert host.call(lambda: sum(host.worker.counting.totals())) == counted


class _Failing:
    """Enciphers half an answer and fails as no SSLObject should."""

    def __init__(self, tls: ssl.SSLObject) -> None:
        self._tls = tls

    def read(self, size: int) -> bytes:
        return self._tls.read(size)

    def write(self, data: bytes) -> int:
        self._tls.write(data[: len(data) // 2])
        raise MemoryError


def test_what_fails_for_one_is_not_found_by_the_next(host: TlsHost, caplog: pytest.LogCaptureFixture) -> None:
    """Half an answer in the shared BIO would be the beginning of somebody else's."""
    message = get_request(host.ca.request(1))
    with TlsClient(host) as client, TlsClient(host) as other:
        other.socket.sendall(other.shake_hands())
        assert client.ask(message) == b"HTTP/1.1 200 OK"
        (connection,) = [
            lane._transport
            for lane in host.lanes()
            if lane._transport.get_extra_info("peername")[1] == client.socket.getsockname()[1]
        ]
        connection._tls = _Failing(connection._tls)
        client.socket.sendall(client.octets(message))
        assert client.is_closed()
        assert host.left() == (0, 0)
        other.socket.sendall(other.octets(message))
        assert other.read(15) == b"HTTP/1.1 200 OK"
    assert "MemoryError" in caplog.text


def test_who_has_no_certificate_is_told(
    valkey: redis.Redis, publisher_key: Ed25519PrivateKey, config: Config
) -> None:
    """Where certificates are asked for: an alert, and nothing else; with one: an answer."""
    with _served(TlsHost(valkey, publisher_key, config, ask_clients=True)) as host:
        for version in VERSIONS:
            with TlsClient(host, version) as client, pytest.raises(ssl.SSLError, match=_NO_CERTIFICATE):
                client.ask(b"")
        host.context.load_cert_chain(host.certificate, host.certificate.with_suffix(".key"))
        with (
            socket.create_connection(("127.0.0.1", host.tls_port), 5) as raw,
            host.context.wrap_socket(raw, server_hostname="127.0.0.1") as tls,
        ):
            tls.sendall(get_request(host.ca.request(1)))
            assert tls.recv(15) == b"HTTP/1.1 200 OK"


def _make_certificate(folder: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )
    (folder / "tls.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "tls.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return folder / "tls.crt"


def _tls_config(config: Config, folder: Path, ask_clients: bool) -> Config:
    responder = {
        "port": 0,
        "shutdown_s": 3,
        "tls_port": 8443,
        "tls_certificate": str(folder / "tls.crt"),
        "tls_key": str(folder / "tls.key"),
        **_LIMITS,
    }
    if ask_clients:
        responder["tls_client_ca"] = str(folder / "tls.crt")
    return parse_config(
        {
            "installation": {"state": str(folder)},
            "valkey": {"url": config.valkey.url, "namespace": config.valkey.namespace},
            "responder": responder,
        },
        config.file,
    )
