"""The private Valkey: one per installation, whatever was killed before."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from certstatus import private_valkey, processes
from certstatus.config import parse_config
from certstatus.errors import ValkeyUnavailable
from certstatus.private_valkey import PrivateValkey, socket_folder, socket_path, valkey_url
from certstatus.valkey import connect

# Starts a server, tells its process id, and waits to be killed.
_PARENT = """
import sys, time
from pathlib import Path
from certstatus.private_valkey import PrivateValkey
server = PrivateValkey(Path(sys.argv[1]), 16)
server.start()
print(server.process.pid, flush=True)
time.sleep(60)
"""


def _start_by_hand(state: Path) -> subprocess.Popen[bytes]:
    """Start a server as nothing here does: without a parent-death signal."""
    socket_folder(state).mkdir(mode=0o700, exist_ok=True)
    server = subprocess.Popen(
        private_valkey.server_command(state, 16), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    private_valkey.wait_until_ready(state, server)
    return server


def test_serves_on_the_socket_only_and_keeps_nothing(tmp_path: Path) -> None:
    """The server has no TCP port, writes nothing to disk, and refuses writes instead of dropping keys."""
    with PrivateValkey(tmp_path, 16) as server:
        client = connect(server.url)
        assert client.config_get("port")["port"] == "0"
        assert client.config_get("save")["save"] == ""
        assert client.config_get("appendonly")["appendonly"] == "no"
        assert client.config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"
        assert socket_path(tmp_path).stat().st_mode & 0o077 == 0
        assert len(os.fsencode(socket_path(tmp_path))) < 108
        client.close()
    assert not socket_folder(tmp_path).exists()


def test_dies_with_its_parent(tmp_path: Path) -> None:
    """After kill -9 of the process that started it no server is left."""
    with subprocess.Popen(
        [sys.executable, "-c", _PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        server = processes.identity_of(int(parent.stdout.readline()))
        assert server is not None
        parent.kill()
    assert processes.wait_until_gone(server, 5)
    private_valkey.prepare(tmp_path)
    private_valkey.clear(tmp_path)


def test_an_old_server_on_the_path_is_ended_first(tmp_path: Path) -> None:
    """A server that outlived its parent is shut down before a new one takes its path over."""
    old = _start_by_hand(tmp_path)
    with PrivateValkey(tmp_path, 16) as server:
        assert old.wait(5) is not None
        assert server.process is not None
        client = connect(server.url)
        assert client.info("server")["process_id"] == server.process.pid
        client.close()


def test_a_server_whose_path_was_taken_over_is_found_too(tmp_path: Path) -> None:
    """A server that nobody can reach any more, because its socket file is gone, is ended as well."""
    old = _start_by_hand(tmp_path)
    socket_path(tmp_path).unlink()
    ended = private_valkey.prepare(tmp_path)
    assert ended == [old.pid]
    assert old.wait(5) is not None
    private_valkey.clear(tmp_path)


def test_a_server_that_does_not_listen_to_reason_is_killed(tmp_path: Path) -> None:
    """A stopped (SIGSTOP) server is killed, after its time to answer is over."""
    old = _start_by_hand(tmp_path)
    old.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    assert private_valkey.prepare(tmp_path) == [old.pid]
    assert old.wait(1) == -signal.SIGKILL
    assert time.monotonic() - began < 10
    private_valkey.clear(tmp_path)


def test_a_folder_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    """Somebody else's folder in the socket's place could hold somebody else's socket."""
    folder = socket_folder(tmp_path)
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    try:
        with pytest.raises(ValkeyUnavailable, match="expected a folder of ours with mode 700"):
            private_valkey.prepare(tmp_path)
    finally:
        folder.rmdir()


def test_two_installations_have_two_servers(tmp_path: Path) -> None:
    """Servers of different state folders do not meet, and starting one does not end the other."""
    first, second = tmp_path / "a", tmp_path / "b"
    first.mkdir()
    second.mkdir()
    with PrivateValkey(first, 16) as one, PrivateValkey(second, 16) as two:
        clients = connect(one.url), connect(two.url)
        clients[0].set("whose", "one")
        assert clients[1].get("whose") is None
        for client in clients:
            client.close()


def test_the_configured_server_goes_before_the_private_one(tmp_path: Path) -> None:
    """A URL in the configuration is used as it is; an empty one means the private socket."""
    table = {"installation": {"state": str(tmp_path)}}
    assert valkey_url(parse_config(table, "test")) == f"unix://{socket_path(tmp_path)}"
    named = {**table, "valkey": {"url": "redis://example.test:6379"}}
    assert valkey_url(parse_config(named, "test")) == "redis://example.test:6379"
