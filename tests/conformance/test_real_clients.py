"""Rows K: what real clients send, octet for octet, and what they need of the answer."""

from __future__ import annotations

import secrets

import pytest
from client_corpus import CLIENTS, RealClient
from demo_service import Service, never_issued
from wire_client import Wire


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
