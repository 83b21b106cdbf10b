"""Rows S, and B-H64 and B-H65: clients that are slow, silent, deaf or many."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from demo_service import Service, service_of
from installation_watch import OpenWire
from request_octets import base64_of, get, get_path, post
from served_installation import Served, demo_served
from wire_client import Wire

CONFIG = """
[installation]
state = "."

[responder]
header_time_s = 1
body_time_s = 1
idle_time_s = 2
write_time_s = 1
connections_max = 64
key = "rsa2048"

[[issuer]]
service = "AUTH"

[[issuer]]
service = "CORP"
access = "public"
hold = true
"""
# The deadline, a sweep once a second, and a machine that is busy.
PATIENCE_S = 6.0


@pytest.fixture(scope="session")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """An installation of one worker with little patience and few connections, which signs with RSA."""
    with demo_served(tmp_path_factory.mktemp("hasty"), CONFIG) as installation:
        yield installation


@pytest.fixture
def hasty_wire(open_wire: OpenWire, hasty: Served) -> Wire:
    """A counting client of it."""
    return open_wire(hasty)


@pytest.fixture(scope="session")
def hasty_auth(hasty: Served) -> Service:
    """Its AUTH service."""
    return service_of(hasty.state, "AUTH")


def memory_bytes(served: Served) -> int:
    """What all workers have in memory."""
    pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in served.running()["worker"]]
    return sum(pages) * 4096


# --- slow --------------------------------------------------------------------------------------------


@pytest.mark.row("B-H64", "S1")
def test_an_octet_at_a_time_is_a_request(wire: Wire, auth: Service) -> None:
    """A head that comes one octet every 10 ms is answered like any other."""
    message = f"GET /ocsp/{base64_of(auth.request())} HTTP/1.0\r\n\r\n".encode()
    with wire.connect() as connection:
        connection.send(*[bytes((octet,)) for octet in message], pause_s=0.01)
        reply = connection.read()
    assert reply is not None
    assert auth.read(reply).word == "good"


@pytest.mark.row("B-H65", "S2")
@pytest.mark.parametrize(
    "begun",
    [
        pytest.param(b"GET /ocsp/MEowSDBGMEQ", id="plain head"),
        pytest.param(b"GET /other HTTP/1.1\r\nHost: x\r\n", id="another head"),
        pytest.param(post(b"x" * 80)[:-40], id="body"),
        pytest.param(post(b"x" * 80, "Expect: 100-continue")[:-80], id="body that was asked for"),
        pytest.param(
            b"POST /ocsp HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nxxxxx\r\n", id="chunks"
        ),
    ],
)
def test_what_is_begun_must_be_ended_in_time(hasty_wire: Wire, begun: bytes) -> None:
    """A head or body that stops coming is answered 408, and the connection closed, within a bound."""
    began = time.monotonic()
    with hasty_wire.connect() as connection:
        connection.send(begun)
        reply = connection.read()
        assert reply is not None
        assert (reply.status, reply.header("Connection")) == (408, "close")
        # A rest of the body that is on its way is waited for, or a reset would take the answer away.
        assert connection.is_closed(PATIENCE_S)
    assert 0.9 < time.monotonic() - began < PATIENCE_S


@pytest.mark.row("B-H65", "S2")
@pytest.mark.parametrize("head", [b"GET /ocsp/", b"GET /other?", post(b"x" * 5000)[:-5000]])
def test_a_trickle_gains_no_time(hasty_wire: Wire, head: bytes) -> None:
    """An octet now and then does not put the end off."""
    began = time.monotonic()
    with hasty_wire.connect(timeout_s=0.1) as connection:
        connection.send(head)
        while not connection.buffer:
            assert time.monotonic() - began < PATIENCE_S
            try:
                connection.send(b"x")
                connection.receive()
            except (TimeoutError, BrokenPipeError, ConnectionResetError):
                continue
        assert connection.buffer.startswith(b"HTTP/1.1 408 ")


@pytest.mark.row("S3")
def test_silence_is_cut_off(hasty_wire: Wire, hasty_auth: Service) -> None:
    """Whoever connects and says nothing, or nothing more, is let go without a word."""
    with hasty_wire.connect() as mute, hasty_wire.connect() as done, hasty_wire.connect() as other:
        done.send(get(hasty_auth.request()))
        assert done.read() is not None
        other.send(get_path("/healthz"))
        assert other.read() is not None
        for connection in (mute, done, other):
            assert connection.is_closed(PATIENCE_S)


@pytest.mark.row("B-H65", "S4")
@pytest.mark.parametrize("kind", ["plain", "elsewhere", "one by one"])
def test_a_deaf_client_is_cut_off_and_costs_little(
    hasty_wire: Wire, hasty_auth: Service, hasty: Served, kind: str
) -> None:
    """Whoever asks and asks and never reads is ended by the write deadline; memory stays where it was."""
    message = get_path("/other") if kind == "elsewhere" else get(hasty_auth.request())
    piece = message * (1 if kind == "one by one" else 300)
    hasty_wire.ask(message)
    before = memory_bytes(hasty)
    began = time.monotonic()
    most = before
    with hasty_wire.connect(timeout_s=0.2, receive_bytes=4096) as connection:
        sent = 0
        while True:
            # So much in flight is the kernel's; a server that reads on for ever would never stop us.
            assert time.monotonic() - began < 4 * PATIENCE_S, f"{sent} octets taken"
            try:
                sent += connection.socket.send(piece)
            except TimeoutError:
                most = max(most, memory_bytes(hasty))
            except (BrokenPipeError, ConnectionResetError):
                break
    assert max(most, memory_bytes(hasty)) - before < 32 << 20
    assert hasty_auth.read(hasty_wire.ask(get(hasty_auth.request()))).word == "good"


@pytest.mark.row("S5")
def test_whoever_has_asked_may_stop_sending(wire: Wire, auth: Service) -> None:
    """A client that closes its side after the request is answered at once, in whichever way it asked."""
    began = time.monotonic()
    for message in (get(auth.request()), post(auth.request()), get(auth.request(), 'If-None-Match: "x"')):
        assert [auth.read(reply).word for reply in wire.talk(message)] == ["good"]
    assert time.monotonic() - began < 2


# --- many --------------------------------------------------------------------------------------------


@pytest.mark.row("S6", "Q22")
def test_there_are_so_many_connections_and_no_more(hasty_wire: Wire, hasty_auth: Service) -> None:
    """Beyond the limit one is closed at once; those that are open are served; then there is room again."""
    message = get(hasty_auth.request())
    held = [hasty_wire.connect() for _ in range(64)]
    try:
        for connection in held:
            connection.send(message)
            assert connection.read() is not None
        with hasty_wire.connect() as one_more:
            assert one_more.is_closed(2)
        held[0].send(message)
        assert held[0].read() is not None
    finally:
        for connection in held:
            connection.socket.close()
    until = time.monotonic() + PATIENCE_S
    while True:
        assert time.monotonic() < until
        if hasty_wire.talk(message):
            break


@pytest.mark.row("S7")
def test_ten_thousand_idle_connections_stand_in_nobody_s_way(
    wire: Wire, auth: Service, served: Served
) -> None:
    """10,000 connections asked and stay; fresh ones are answered, and all of the old ones still are."""
    before = memory_bytes(served)
    message = get(auth.request())
    holders = [
        subprocess.Popen(
            [
                sys.executable,
                str(Path(__file__).with_name("idle_holder.py")),
                wire.host,
                str(wire.port),
                "2500",
                f"127.0.0.{number}",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in (2, 3, 4, 5)
    ]
    try:
        for holder in holders:
            assert holder.stdin is not None
            holder.stdin.write(message.hex() + "\n")
            holder.stdin.flush()
        assert [_said(holder) for holder in holders] == ["held 2500"] * 4
        began = time.monotonic()
        for serial in auth.good[:50]:
            assert auth.read(wire.ask(get(auth.request(serial)))).word == "good"
        assert (time.monotonic() - began) / 50 < 0.2
        assert memory_bytes(served) - before < 10_000 * 20_000
        for holder in holders:
            assert holder.stdin is not None
            holder.stdin.write("\n")
            holder.stdin.flush()
        assert [_said(holder) for holder in holders] == ["answered 2500"] * 4
    finally:
        for holder in holders:
            holder.kill()
            holder.communicate()


def _said(holder: subprocess.Popen[str]) -> str:
    assert holder.stdout is not None
    return holder.stdout.readline().strip()


# --- the other key, the other access -----------------------------------------------------------------


@pytest.mark.row("P24")
def test_rsa_with_sha_256_is_to_be_had(hasty_wire: Wire, hasty_auth: Service, hasty: Served) -> None:
    """A host whose key is RSA signs with RSA and SHA-256, which every client must know."""
    said = hasty_auth.read(hasty_wire.ask(get(hasty_auth.request())))
    assert (said.word, said.algorithm) == ("good", "sha256_rsa")
    assert hasty.ask("good") == "good"


@pytest.mark.row("H4", "P13")
def test_a_public_service_may_be_kept_by_everybody_and_hold(hasty_wire: Wire, hasty: Served) -> None:
    """A public answer is for every cache; what is held is revoked for certificateHold until released."""
    corp = service_of(hasty.state, "CORP")
    serial = corp.good[0]
    message = get(corp.request(serial))
    reply = hasty_wire.ask(message)
    assert corp.read(reply).word == "good"
    assert ", public, no-transform, must-revalidate" in str(reply.header("Cache-Control"))
    hasty.run("hold", f"{serial:x}", "--service", "CORP")
    single = corp.read(hasty_wire.ask(message)).singles[0]
    assert (single.status, single.reason) == ("revoked", "certificate_hold")
    hasty.run("release", f"{serial:x}", "--service", "CORP")
    assert corp.read(hasty_wire.ask(message)).word == "good"
