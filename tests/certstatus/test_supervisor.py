"""The supervisor with everything it supervises: exactly one of each, whatever is killed.

All processes here are the real ones, started by the real command line; one installation for all tests.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from served_installation import Served


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, demo: Path) -> Iterator[Served]:
    """An installation that is served by two workers."""
    made = Served(tmp_path_factory.mktemp("running"))
    shutil.copytree(demo, made.state)
    try:
        yield made.serve()
    finally:
        made.clean_up()


@pytest.fixture
def running(shared: Served) -> Served:
    """The same, all of it running and ready again."""
    shared.wait_for_one_of_each()
    shared.wait_ready()
    return shared


def test_what_is_killed_comes_back_exactly_once(running: Served) -> None:
    """kill -9 of each process in turn: one takes its place, and answers go on being right."""
    before = running.output.count("was ended by SIGKILL; starting it again")
    for role in ("worker", "feed", "builder", "agent", "admin", "valkey"):
        killed = running.kill(role)
        time.sleep(0.2)
        running.wait_for_one_of_each()
        assert killed not in running.running()[role]
    running.wait_ready()
    serial = running.serial("good", "sign")
    assert running.ask("good", "sign") == "good"
    told = running.json("revoke", serial, "--cause", "key-leaked")
    assert len(told["workers"]["acknowledged"]) == 2
    assert running.ask("good", "sign") == "revoked"
    assert running.output.count("was ended by SIGKILL; starting it again") == before + 6


def test_a_second_serve_is_refused_by_name(running: Served) -> None:
    """Two supervisors of one state folder would be two publishers; the second says who the first is."""
    assert running.supervisor is not None
    done = running.run("serve", expect=75)
    assert f"{running.state} is served already, by process {running.supervisor.pid}" in done.stderr
    running.wait_for_one_of_each()


def test_no_waiting_connection_is_reset_when_a_real_worker_is_killed(running: Served) -> None:
    """Connections queued at a stopped worker are answered by its successor after kill -9; none is reset."""
    host, _, port = running.url.removeprefix("http://").rpartition(":")
    worker = running.running()["worker"][0]
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


def test_what_cannot_be_started_is_tried_again_and_the_others_go_on(running: Served) -> None:
    """A disk that refuses the agent's log keeps the agent away, not the answers, until it is well."""
    log = running.state / "log"
    aside = log.rename(running.state / "aside")
    log.write_text("a file where a folder should be")
    running.kill("agent")
    running.wait_for("agent could not be started: [Errno 20] Not a directory")
    assert running.ask("good") == "good"
    log.unlink()
    aside.rename(log)
    running.wait_for_one_of_each()


def test_a_changed_configuration_is_taken_over_and_a_wrong_one_is_not(running: Served) -> None:
    """SIGHUP: workers keep running with new limits; a mistake is named and changes nothing."""
    assert running.supervisor is not None
    workers = running.running()["worker"]
    text = running.config.read_text()
    effective = running.state / "run" / "serve.toml"
    try:
        running.config.write_text(text.replace("[responder]", "[responder]\nidle_time_s = 7"))
        running.supervisor.send_signal(signal.SIGHUP)
        running.wait_for("configuration taken over")
        assert "idle_time_s = 7" in effective.read_text()
        running.config.write_text(text.replace("[responder]", "[responder]\nidle_time_s = 0"))
        running.supervisor.send_signal(signal.SIGHUP)
        running.wait_for("configuration not taken over")
        assert "responder.idle_time_s: expected 1..3600, found 0" in running.output
        assert "idle_time_s = 7" in effective.read_text()
    finally:
        running.config.write_text(text)
    running.wait_for_one_of_each()
    assert running.running()["worker"] == workers
    assert running.ask("good") == "good"
