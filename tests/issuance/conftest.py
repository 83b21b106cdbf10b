"""Stores to test against, on each database in turn."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from store_cases import START_MS

from issuance.ca_keys import CAKeyFolder
from issuance.store import Store


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    """A new store, made at START_MS."""
    with Store.create(store_url, START_MS) as made:
        yield made


@pytest.fixture
def keys(tmp_path: Path) -> CAKeyFolder:
    """An empty folder for CA keys, with a passphrase file."""
    folder = CAKeyFolder(tmp_path / "ca", environment={})
    folder.make_passphrase()
    return folder


@pytest.fixture
def sqlite_store(tmp_path: Path) -> Iterator[Store]:
    """A new store on SQLite, for what the database makes no difference to."""
    with Store.create(f"sqlite:///{tmp_path / 'store.db'}", START_MS) as made:
        yield made
