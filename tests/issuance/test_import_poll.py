"""Following a CA by its CRL's URL: fetched, believed only when verified, asked for conditionally."""

from __future__ import annotations

import dataclasses
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from import_cases import NOW_MS, NOW_S, OldCA, run, states
from store_cases import INDEX_KEY

from certstatus.errors import ImportRefused
from certstatus.publisher_key import SECRET_MODE
from issuance import import_fetch
from issuance.ca_keys import CAKeyFolder
from issuance.import_fetch import fetch_crl
from issuance.issuers import issuer_of
from issuance.store import Store
from publisher.crl_poll import CRLPoll
from publisher.crl_publish import CRLPublisher


class CRLServer(ThreadingHTTPServer):
    """Serves ``content`` under an ETag made of its length and counts what it answered, by status."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.content = b""
        self.answers: list[int] = []
        self.url = f"http://127.0.0.1:{self.server_port}/old.crl"


class _Answer(BaseHTTPRequestHandler):
    server: CRLServer

    def do_GET(self) -> None:
        """Answer 200, 304, a redirect that leads elsewhere, or a body that is cut off."""
        content = self.server.content
        tag = f'"{len(content)}"'
        status = 304 if self.headers.get("If-None-Match") == tag else 200
        if self.path == "/file":
            status = 302
        self.server.answers.append(status)
        self.send_response(status)
        if self.path == "/file":
            self.send_header("Location", "file:///etc/passwd")
        self.send_header("ETag", tag)
        self.send_header("Content-Length", str(len(content) if status == 200 else 0))
        self.end_headers()
        if status == 200:
            self.wfile.write(content[: len(content) // 2] if self.path == "/cut" else content)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[CRLServer]:
    """A CA's web server."""
    made = CRLServer()
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def test_a_crl_is_followed_by_its_url(tmp_path: Path, server: CRLServer) -> None:
    """New ones are taken over, the same is not fetched again, a wrong one changes nothing and is said."""
    old = OldCA(tmp_path / "old")
    keys = CAKeyFolder(tmp_path / "ca", environment={})
    keys.make_passphrase()
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "index.key").write_bytes(INDEX_KEY)
    (tmp_path / "secrets" / "index.key").chmod(SECRET_MODE)
    clock_s = 1000.0
    with Store.create(f"sqlite:///{tmp_path / 'store.db'}", NOW_MS) as store:
        server.content = old.crl_der({1: None}, 7)
        order = old.order(
            key_path=None,
            certificates=(old.write_certificates(1, 2, 3),),
            crl_der=server.content,
            crl_url=server.url,
            poll_period_s=60,
        )
        issuer = run(store, keys, order).issuer
        poll = CRLPoll(store, tmp_path, now_ms=lambda: NOW_MS, monotonic_s=lambda: clock_s)
        poll.step()
        assert server.answers == [200]
        clock_s += 30
        poll.step()
        clock_s += 31
        poll.step()
        assert server.answers == [200, 304]
        server.content = old.crl_der({1: None, 2: None}, 8, NOW_S - 100)
        clock_s += 61
        poll.step()
        assert states(store)["02"][0] == 2
        assert poll.tasks[issuer.issuer_id].done == "1 revoked, 0 on hold, 0 released"
        server.content = OldCA(tmp_path / "other").crl_der({1: None, 2: None, 3: None}, 9, NOW_S - 50)
        clock_s += 61
        poll.step()
        assert "signature: not one of this CA's key" in poll.tasks[issuer.issuer_id].error
        assert states(store)["03"][0] == 1
        taken = issuer_of(store, "OLD").imported
        assert taken is not None
        assert taken.crl_number == 8
        server.content = old.crl_der({1: None, 2: None, 3: None}, 9, NOW_S - 50)
        clock_s += 120
        poll.step()
        assert poll.tasks[issuer.issuer_id].error == ""
        assert states(store)["03"][0] == 2
        # Nothing is published here for a CA that publishes by itself; once taken over, nothing is polled.
        publisher = CRLPublisher(store, keys, tmp_path)
        assert publisher.scopes() == []
        run(store, keys, old.order())
        assert [scope.path for scope in publisher.scopes()] == ["old/g1/all"]
        asked = len(server.answers)
        clock_s += 120
        poll.step()
        assert (len(server.answers), poll.tasks) == (asked, {})


def test_only_http_is_followed_and_only_whole_answers_are_taken(server: CRLServer) -> None:
    """Files, ftp, redirects out of http, broken bodies and silence are errors that name the URL."""
    server.content = b"x" * 1000
    for url, message in (
        ("file:///etc/passwd", "URL: http or https expected"),
        ("ftp://127.0.0.1/x", "URL: http or https expected"),
        ("http://", "URL: http or https expected"),
        (server.url.replace("/old.crl", "/file"), "answer: "),
        (server.url.replace("/old.crl", "/cut"), "answer: "),
        ("http://127.0.0.1:1/x", "answer: .*refused"),
    ):
        with pytest.raises(ImportRefused, match=message) as caught:
            fetch_crl(url)
        assert caught.value.file == url
    first = fetch_crl(server.url)
    assert first is not None
    assert first.content == server.content
    assert fetch_crl(server.url, first) is None


@pytest.mark.parametrize(
    "begun",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nX: ",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
def test_an_answer_that_never_ends_is_cut_off(begun: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """An octet now and then, in status line, header, body or chunk size: over when the time is."""
    monkeypatch.setattr(import_fetch, "_TOTAL_S", 0.5)
    let_go = threading.Event()

    def drip() -> None:
        connection, _ = listener.accept()
        with connection, suppress(OSError):
            connection.recv(1000)
            connection.sendall(begun)
            while not let_go.wait(0.05):
                connection.sendall(b"0")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        began_s = time.monotonic()
        with pytest.raises(ImportRefused, match="answer: "):
            fetch_crl(f"http://127.0.0.1:{listener.getsockname()[1]}/x")
        assert time.monotonic() - began_s < 8
        let_go.set()
        thread.join()


def test_another_url_is_not_asked_by_the_old_one_s_tag(tmp_path: Path, server: CRLServer) -> None:
    """Tags say something at one place only: a CRL elsewhere is new, whatever its tag is."""
    old = OldCA(tmp_path / "old")
    keys = CAKeyFolder(tmp_path / "ca", environment={})
    keys.make_passphrase()
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "index.key").write_bytes(INDEX_KEY)
    (tmp_path / "secrets" / "index.key").chmod(SECRET_MODE)
    clock_s = 1000.0
    with Store.create(f"sqlite:///{tmp_path / 'store.db'}", NOW_MS) as store:
        server.content = old.crl_der({1: None}, 7)
        order = old.order(
            key_path=None,
            certificates=(old.write_certificates(1, 2),),
            crl_der=server.content,
            crl_url=server.url,
            poll_period_s=60,
        )
        run(store, keys, order)
        poll = CRLPoll(store, tmp_path, now_ms=lambda: NOW_MS, monotonic_s=lambda: clock_s)
        poll.step()
        run(store, keys, dataclasses.replace(order, crl_url=f"{server.url}?elsewhere"))
        # Signatures of P-256 differ in length; a tag of the same length is the same tag here.
        size = len(server.content)
        while len(server.content) != size or server.content == order.crl_der:
            server.content = old.crl_der({2: None}, 8, NOW_S - 100)
        clock_s += 61
        poll.step()
        assert server.answers == [200, 200]
        assert states(store)["02"][0] == 2
