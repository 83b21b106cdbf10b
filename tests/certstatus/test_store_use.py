"""A restore and whoever else has the store open: never both."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from certstatus.cli.context import Installation
from certstatus.errors import StoreAway, StoreError
from certstatus.store_use import replacing_store, using_store


def command(folder: Path, *words: str, expect: int = 0) -> str:
    """Run a command on the installation in *folder*; return what it says to stderr."""
    line = [sys.executable, "-m", "certstatus.cli", "--config", str(folder / "certstatus.toml"), *words]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == expect, done.stderr
    return done.stderr


def test_many_use_it_and_one_replaces_it(tmp_path: Path) -> None:
    """Users do not mind each other; a restore minds every one of them, and they mind it."""
    in_use = pytest.raises(StoreError, match="in use by another command")
    with using_store(tmp_path), using_store(tmp_path), in_use, replacing_store(tmp_path):
        pass
    being_restored = pytest.raises(StoreAway, match="being restored")
    with replacing_store(tmp_path), being_restored, using_store(tmp_path):
        pass
    with using_store(tmp_path / "absent"):
        pass
    assert not (tmp_path / "absent").exists()


def test_no_command_goes_on_with_a_database_that_a_restore_replaced(tmp_path: Path) -> None:
    """What it recorded would be lost: the restore is refused while a command is at it, and the reverse."""
    command(tmp_path, "init")
    backup = tmp_path / "b.tar"
    command(tmp_path, "backup", str(backup))
    at_it = Installation(tmp_path / "certstatus.toml", as_json=True)
    before = at_it.store.state()
    assert "in use by another command" in command(tmp_path, "restore", str(backup), expect=69)
    assert at_it.store.state() == before
    state = at_it.config.state
    at_it.close()
    with replacing_store(state):
        for words in (("store", "state"), ("publish", "now")):
            assert "being restored" in command(tmp_path, *words, expect=75)
    command(tmp_path, "restore", str(backup))
    command(tmp_path, "store", "state")
