"""A host that was away: back by the stream, or by a snapshot where the stream no longer reaches back."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import ocsp
from served_installation import Served, demo_served

from certstatus import clock
from certstatus.changes import ChangeKind
from certstatus.cli.context import Installation
from certstatus.cli.initialise import demo_text
from certstatus.feed_keys import FeedKeys

AWAY_S = 3.0
CONFIG = """
[index]
age_max_s = 2
beat_period_ms = 200
snapshot_period_s = 3600
snapshot_changes_max = 100
stream_changes_max = 1000
"""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """One worker whose index is stale after two seconds; every hundred changes make a snapshot."""
    with demo_served(tmp_path, demo_text() + CONFIG) as installation:
        yield installation


class _Asker:
    """Asks about the good demo certificate until stopped; ``said``: (when it was asked, what was said)."""

    def __init__(self, served: Served) -> None:
        folder = served.state / "demo" / "auth"
        certificate = x509.load_pem_x509_certificate((folder / "good.pem").read_bytes())
        ca = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
        request = ocsp.OCSPRequestBuilder().add_certificate(certificate, ca, hashes.SHA1()).build()
        self._asked = urllib.request.Request(
            f"{served.url}/ocsp",
            request.public_bytes(serialization.Encoding.DER),
            {"Content-Type": "application/ocsp-request"},
        )
        self.said: list[tuple[float, str]] = []

    def ask(self) -> str:
        """Ask once: GOOD, REVOKED or TRY_LATER."""
        asked_s = time.monotonic()
        with urllib.request.urlopen(self._asked, timeout=20) as answer:
            response = ocsp.load_der_ocsp_response(answer.read())
        status = response.response_status
        word = status.name if status.name != "SUCCESSFUL" else response.certificate_status.name
        self.said.append((asked_s, word))
        return word

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        """Ask again and again meanwhile."""
        ended = threading.Event()

        def run() -> None:
            while not ended.is_set():
                self.ask()

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(30)


def _wait(holds: Callable[[], object], what: str) -> None:
    until = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < until, what
        time.sleep(0.02)


def _worker(served: Served) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((served.state / "run" / "worker-0.json").read_text())
    return found


def _stream_begins(installation: Installation) -> int:
    keys = FeedKeys(installation.config.valkey.namespace, installation.store.state().epoch)
    client: Any = installation.valkey
    return int(client.xrange(keys.stream, count=1)[0][0].split(b"-")[0])


def _stream_ends(installation: Installation) -> int:
    keys = FeedKeys(installation.config.valkey.namespace, installation.store.state().epoch)
    client: Any = installation.valkey
    return int(client.xrevrange(keys.stream, count=1)[0][0].split(b"-")[0])


def _change_much(installation: Installation, count: int) -> int:
    """Let *count* things happen that concern nobody, and wait for a snapshot beyond them; its number."""
    with installation.store.writing(clock.now_ms) as act:
        for _ in range(count):
            act.record(ChangeKind.ISSUERS, ground="test")
    seq = installation.store.state().seq

    def made() -> bool:
        found = installation.store.publication("snapshot")
        return found is not None and found.generation >= seq

    _wait(made, "a snapshot of what happened")
    return seq


@pytest.mark.parametrize("is_trimmed", [False, True])
def test_a_host_that_was_away_says_try_later_until_it_is_current(served: Served, is_trimmed: bool) -> None:
    """Its worker stood still while a certificate was revoked: never again good, first tryLater, then revoked.

    By the stream without loading anew; or by the snapshot, when the stream had been trimmed beyond it.
    """
    asker = _Asker(served)
    (pid,) = served.running()["worker"]
    installation = Installation(served.config, as_json=True)
    try:
        _change_much(installation, 120)
        _wait(lambda: asker.ask() == "GOOD", "good")
        _wait(lambda: _worker(served)["applied_seq"] == installation.store.state().seq, "the worker")
        before = _worker(served)
        os.kill(pid, signal.SIGSTOP)
        stopped_s = time.monotonic()
        try:
            served.run(
                "revoke", served.serial("good"), "--service", "AUTH", "--cause", "key-leaked", "--no-wait"
            )
            # It waits for the next change, so this one is on its way to it: it alone.
            revoked_seq = installation.store.state().seq
            _wait(lambda: _stream_ends(installation) >= revoked_seq, "the feed")
            if is_trimmed:
                _change_much(installation, 120)
                _change_much(installation, 120)
                _wait(lambda: _stream_begins(installation) > revoked_seq + 1, "trimming")
            else:
                assert _stream_begins(installation) <= before["applied_seq"]
            time.sleep(max(0.0, stopped_s + AWAY_S - time.monotonic()))
        finally:
            back_s = time.monotonic()
            os.kill(pid, signal.SIGCONT)
        with asker.asking():
            _wait(lambda: asker.said[-1][1] == "REVOKED", "revoked")
        # What had been on its way to it may be applied before it finds the rest trimmed away.
        current_seq = installation.store.state().seq
        _wait(lambda: _worker(served)["applied_seq"] >= current_seq, "its word")
    finally:
        installation.close()
    words = [word for asked_s, word in asker.said if asked_s >= back_s]
    # None at all, if it was current before the first question was read.
    assert set(words[: words.index("REVOKED")]) <= {"TRY_LATER"}, words
    assert "GOOD" not in words
    assert served.running()["worker"] == [pid]
    assert (_worker(served)["reloads"] > before["reloads"]) == is_trimmed
