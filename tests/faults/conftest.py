"""Folders that PostgreSQL's own user may enter, and installations made once to be copied."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_mounts import enter_private_mounts
from fault_scene import Prepared, new_folder


@pytest.fixture(scope="session")
def prepared() -> Iterator[Prepared]:
    """Fresh installations to be copied."""
    enter_private_mounts()
    with new_folder() as folder:
        yield Prepared(folder)


@pytest.fixture
def fault_folder() -> Iterator[Path]:
    """A folder for one scene."""
    with new_folder() as folder:
        yield folder
