"""Rows K: what real clients send, octet for octet, and what they need of the answer."""

from __future__ import annotations

import secrets

import pytest
from client_corpus import CLIENTS, RealClient
from demo_service import Service, never_issued
from wire_client import Wire

from bench.real_clients import ClientPreparer, real_clients


@pytest.mark.parametrize(
    "client",
    [pytest.param(client, marks=pytest.mark.row(client.row), id=client.name) for client in CLIENTS],
)
def test_a_real_client_gets_what_it_can_read(wire: Wire, auth: Service, client: RealClient) -> None:
    """Each status, in the hash it asked by, with its nonce, whole; then the connection as it wants it."""
    stays = "HTTP/1.1" in client.head[0]
    with wire.connect() as connection:
        questions = ((auth.good[0], "good"), (auth.revoked[0], "revoked"), (never_issued(), "unknown"))
        for serial, word in questions:
            nonce = secrets.token_bytes(client.nonce_octets)
            pieces = client.split(auth, serial, nonce, wire.host, wire.port)
            one = connection if stays else wire.connect()
            one.send(*pieces)
            reply = one.read()
            assert reply is not None
            said = auth.read(reply)
            assert (said.word, said.singles[0].serial) == (word, serial)
            assert said.singles[0].hash_alg == client.hash
            assert said.nonce == (nonce or None)
            assert reply.header("Content-Length") == str(len(reply.body))
            assert reply.header("Transfer-Encoding") is None
            assert (reply.header("Connection") == "close") == (not stays)
            if not stays:
                assert one.is_closed(2)
                one.socket.close()


@pytest.mark.parametrize("client", CLIENTS, ids=[client.name for client in CLIENTS])
def test_the_load_test_sends_the_same_octets(auth: Service, client: RealClient) -> None:
    """What operators load their responders with is, segment by segment, what the clients send."""
    twin = next(item for item in real_clients() if item.name == client.name)
    preparer = ClientPreparer(twin, auth.ca, "ocsp.test", 8080)
    serial, nonce = never_issued(), secrets.token_bytes(client.nonce_octets)
    octets = serial.to_bytes(serial.bit_length() // 8 + 1, "big")
    sent = preparer.question([octets], nonce)
    assert [piece for piece in sent[:2] if piece] == client.split(auth, serial, nonce, "ocsp.test", 8080)
    assert sent.nonce == nonce
    assert preparer.keeps == (client.head[0].endswith("1.1") and "Connection: close" not in client.head)
