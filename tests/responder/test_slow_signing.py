"""A real worker whose keys are slow: what is known goes on, what is not waits its turn, and no further.

The slow signer is a P-384 key that signs and then sleeps with the interpreter's lock released, as a
key in a device does.
"""

from __future__ import annotations

import itertools
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import redis
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509 import ocsp
from responder_cases import get_request, post_request, serial_of
from worker_cases import Client, Host, body, make_config, status, wait_until

from certstatus import clock
from certstatus.changes import ChangeKind
from certstatus.config import Config
from responder.keys import Signer, SignerSet

TRY_LATER = b"\x30\x03\x0a\x01\x03"
_QUEUE_MAX = 12
_THREADS = 2
_RESET_AT_CLOSE = struct.pack("ii", 1, 0)


class SlowHost(Host):
    """A host whose responder key is of *algorithm*, and sleeps so long behind each signature."""

    def __init__(
        self, client: redis.Redis, key: Ed25519PrivateKey, config: Config, algorithm: str, sleep_s: float
    ) -> None:
        super().__init__(client, key, config)
        folder = config.state / "host" / "keys"
        for path in folder.iterdir():
            path.unlink()
        self.ca.install_responder(folder, clock.now_ms() // 1000, algorithm=algorithm)
        self.other.install_responder(folder, clock.now_ms() // 1000)
        self.sleep_s = sleep_s
        self.at_once = self.most_at_once = 0
        self._count = threading.Lock()

    def slow_down(self) -> None:
        """Have the worker's keys sleep from now on."""

        def wrapped(signer: Signer) -> Signer:
            def sign(tbs: bytes) -> bytes:
                with self._count:
                    self.at_once += 1
                    self.most_at_once = max(self.at_once, self.most_at_once)
                signature = signer.sign(tbs)
                time.sleep(self.sleep_s)
                with self._count:
                    self.at_once -= 1
                return signature

            return replace(signer, sign=sign)

        made = SignerSet([wrapped(signer) for signer in self.worker.path.signers.signers])
        self.call(lambda: setattr(self.worker.path, "signers", made))

    def cold(self, n: int) -> bytes:
        """A question about a number that nobody has asked about."""
        return post_request(self.ca.request(n))


@pytest.fixture
def small(state: Path, valkey_url: str) -> Config:
    """A short queue and few threads."""
    return make_config(state, valkey_url, signing_queue_max=_QUEUE_MAX, signing_threads=_THREADS)


@pytest.fixture(params=[("p384", 0.03), ("rsa3072", 0.0), ("p384", 0.0)], ids=["asleep", "rsa3072", "p384"])
def slow(
    request: pytest.FixtureRequest, valkey: redis.Redis, publisher_key: Ed25519PrivateKey, small: Config
) -> Iterator[SlowHost]:
    """A worker with a key that signs on threads."""
    with SlowHost(valkey, publisher_key, small, *request.param).serving() as host:
        assert isinstance(host, SlowHost)
        host.slow_down()
        yield host


@pytest.fixture
def asleep(valkey: redis.Redis, publisher_key: Ed25519PrivateKey, small: Config) -> Iterator[SlowHost]:
    """A worker whose key takes 30 ms."""
    with SlowHost(valkey, publisher_key, small, "p384", 0.03).serving() as host:
        assert isinstance(host, SlowHost)
        host.slow_down()
        yield host


def _verify(answer: bytes) -> ocsp.OCSPResponse:
    response = ocsp.load_der_ocsp_response(body(answer))
    key = response.certificates[0].public_key()
    if isinstance(key, rsa.RSAPublicKey):
        key.verify(response.signature, response.tbs_response_bytes, padding.PKCS1v15(), hashes.SHA256())
    else:
        assert isinstance(key, ec.EllipticCurvePublicKey)
        key.verify(response.signature, response.tbs_response_bytes, ec.ECDSA(hashes.SHA384()))
    return response


def _said_of(n: int, response_der: bytes) -> str:
    """What the first of several singles says, which must be of certificate *n*."""
    single = next(iter(ocsp.load_der_ocsp_response(response_der).responses))
    assert single.serial_number == int.from_bytes(serial_of(n), "big")
    return single.certificate_status.name


def _settled(host: SlowHost) -> None:
    """Wait until nothing is on its way."""
    wait_until(lambda: host.worker.desk.waiting == 0 and host.worker.path.sizes()["flights"] == 0)


def test_hot_answers_go_on_while_cold_ones_queue(slow: SlowHost) -> None:
    """Of 60 cold questions at once each is answered once: rightly, or tryLater with Retry-After when the
    queue is full.  What is known is answered meanwhile, and the pool is no larger than configured."""
    hot = get_request(slow.ca.request(1))
    numbers = range(1000, 1060)
    waits: list[float] = []
    longest = 0
    with Client(slow.port) as regular:
        regular.send(hot)
        known = regular.read_answer()
        _verify(known)
        signed = slow.worker.desk.signatures
        clients = [Client(slow.port, 20) for _ in numbers]
        for n, client in zip(numbers, clients, strict=True):
            client.send(slow.cold(n))
        while slow.worker.desk.waiting or len(waits) < 50:
            longest = max(longest, slow.worker.desk.waiting)
            begun = time.monotonic()
            regular.send(hot)
            assert body(regular.read_answer()) == body(known)
            waits.append(time.monotonic() - begun)
    given = refused = 0
    for n, client in zip(numbers, clients, strict=True):
        answer = client.read_answer()
        assert status(answer) == 200
        if body(answer) == TRY_LATER:
            assert b"\r\nRetry-After: 1\r\n" in answer
            refused += 1
        else:
            assert _verify(answer).serial_number == int.from_bytes(serial_of(n), "big")
            given += 1
        # The next answer on this connection is to the next question: nothing came twice.
        client.send(hot)
        assert body(client.read_answer()) == body(known)
        client.socket.close()
    _settled(slow)
    assert given + refused == 60
    assert given >= _QUEUE_MAX
    assert slow.worker.desk.signatures - signed == given
    assert longest <= _QUEUE_MAX
    assert slow.most_at_once <= _THREADS
    if slow.sleep_s:
        assert refused > 0
        # Behind the queue it would be 12 signatures by two threads: 180 ms.
        assert sorted(waits)[len(waits) // 2] < slow.sleep_s, waits


def test_many_askers_of_one_certificate_cost_one_signature(asleep: SlowHost) -> None:
    """Fifty connections ask the same before it is signed: all get the same octets, signed once."""
    signed = asleep.worker.desk.signatures
    asleep.sleep_s = 0.3
    clients = [Client(asleep.port) for _ in range(50)]
    for client in clients:
        client.send(asleep.cold(2000))
    answers = {body(client.read_answer()) for client in clients}
    for client in clients:
        client.socket.close()
    _settled(asleep)
    assert len(answers) == 1
    assert asleep.worker.desk.signatures - signed == 1


def test_what_a_lost_connection_asked_is_not_kept_until_it_is_signed(asleep: SlowHost) -> None:
    """Of connections that come, ask and go, as fast as can be, only a shell is left to a slow signature."""
    asleep.sleep_s = 1.0
    clients = [Client(asleep.port) for _ in range(5)]
    for client in clients:
        client.send(asleep.cold(2500))
    wait_until(lambda: len([lane for lane in asleep.lanes() if lane._how is not None]) == 5)
    held = asleep.lanes()
    for client in clients:
        # One that only closes counts as half closed, and among the connections, until it is answered.
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
        client.socket.close()
    wait_until(lambda: not asleep.worker.lanes.connections)
    assert asleep.worker.desk.waiting == 1
    for lane in held:
        assert (lane._how, lane._request_der, lane._buffer) == (None, b"", b"")
    _settled(asleep)


@pytest.mark.parametrize("how", ["closed", "reset"])
def test_leaving_while_it_is_signed_harms_nobody(asleep: SlowHost, how: str) -> None:
    """Who goes away loses its answer; those who wait for the same one get it, and nothing is left behind."""
    asleep.sleep_s = 0.2
    leaving = [Client(asleep.port) for _ in range(10)]
    staying = Client(asleep.port)
    for n, client in enumerate(leaving):
        client.send(asleep.cold(3000 + n % 5))
    staying.send(asleep.cold(3000))
    # All have arrived: what is still on its way when a connection is reset, nobody reads.
    wait_until(lambda: asleep.worker.path.sizes()["flights"] == 5 and asleep.worker.lanes.accepted >= 11)
    for client in leaving:
        if how == "reset":
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
        client.socket.close()
    assert _verify(staying.read_answer()).serial_number == int.from_bytes(serial_of(3000), "big")
    _settled(asleep)
    staying.socket.close()
    wait_until(lambda: not asleep.worker.lanes.connections)
    # What was signed for those who left is known now.
    signed = asleep.worker.desk.signatures
    with Client(asleep.port) as client:
        for n in range(5):
            client.send(asleep.cold(3000 + n))
            _verify(client.read_answer())
    assert asleep.worker.desk.signatures == signed
    assert asleep.worker.path.outcomes.get("internal_error", 0) == 0


def test_no_old_good_in_a_storm_of_revocations(asleep: SlowHost) -> None:
    """Certificates are revoked while they are signed, others change all the time: what is asked after the
    worker has acknowledged a revocation is answered revoked, also what was being signed at that moment."""
    asleep.sleep_s = 0.004
    numbers = range(4000, 4012)
    asleep.writer.issue(*numbers)
    asleep.beat()
    wait_until(lambda: asleep.writer.acked()[0] == asleep.writer.seq)
    acked_s: dict[int, float] = {}
    seen: list[tuple[int, float, str]] = []
    asked: list[tuple[int, bytes]] = []
    ended = threading.Event()

    def ask_on(offset: int) -> None:
        with Client(asleep.port, 20) as client:
            turn = 0
            while not ended.is_set():
                n = numbers[(offset + turn) % len(numbers)]
                nonce = None if turn % 3 else turn.to_bytes(8, "big") + bytes((offset,))
                turn += 1
                sent_s = time.monotonic()
                # Beside a number of its own each time, so that it is always being signed.
                question = post_request(asleep.ca.request(n, 100_000 * (offset + 1) + turn, nonce=nonce))
                asked.append((n, question))
                client.send(question)
                answer = body(client.read_answer())
                if answer == TRY_LATER:
                    continue
                seen.append((n, sent_s, _said_of(n, answer)))

    threads = [threading.Thread(target=ask_on, args=(offset,)) for offset in range(0, 12, 3)]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: len({n for n, _, _ in seen}) == len(numbers))
        for n in numbers:
            with asleep.beating:
                # Others' changes move the mark under every answer that is being signed.
                for other in range(5):
                    asleep.writer.issue(10_000 + 10 * n + other)
                    asleep.beat()
                seq = asleep.writer.revoke(n)
                asleep.beat()
            wait_until(lambda seq=seq: asleep.writer.acked()[0] >= seq)  # type: ignore[misc]
            acked_s[n] = time.monotonic()
        wait_until(lambda: {n for n, sent_s, _ in list(seen) if sent_s > acked_s[n]} == set(numbers), 20)
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    late = [name for n, sent_s, name in seen if sent_s > acked_s[n]]
    assert set(late) == {"REVOKED"}
    _settled(asleep)
    # Whatever was kept of the storm is asked for again.
    with Client(asleep.port) as client:
        for n, question in asked:
            client.send(question)
            assert _said_of(n, body(client.read_answer())) == "REVOKED"


def test_a_status_that_never_holds_still_is_refused_after_some_tries(asleep: SlowHost) -> None:
    """Held and released while every signature is made: five of them, then tryLater with Retry-After."""
    asleep.writer.issue(5000)
    asleep.beat()
    wait_until(lambda: asleep.writer.acked()[0] == asleep.writer.seq)
    kinds = itertools.cycle([ChangeKind.HELD, ChangeKind.RELEASED])
    inner = asleep.worker.path.signers

    def restless(signer: Signer) -> Signer:
        def sign(tbs: bytes) -> bytes:
            with asleep.beating:
                asleep.writer.change(next(kinds), 5000)
                asleep.beat()
            wait_until(lambda: asleep.worker.follower.standing.seq == asleep.writer.seq)
            return signer.sign(tbs)

        return replace(signer, sign=sign)

    signed = asleep.worker.desk.signatures
    made = SignerSet([restless(signer) for signer in inner.signers])
    asleep.call(lambda: setattr(asleep.worker.path, "signers", made))
    with Client(asleep.port) as client:
        client.send(asleep.cold(5000))
        answer = client.read_answer()
    assert body(answer) == TRY_LATER
    assert b"\r\nRetry-After: 1\r\n" in answer
    assert asleep.worker.desk.signatures - signed == 5
    asleep.call(lambda: setattr(asleep.worker.path, "signers", inner))
    with Client(asleep.port) as client:
        client.send(asleep.cold(5000))
        assert _verify(client.read_answer()).certificate_status.name == "REVOKED"
