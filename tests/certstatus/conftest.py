"""An installation with a small demo, made once to be copied."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from served_installation import Served


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state folder of an installation with a small demo, which is never run."""
    made = Served(tmp_path_factory.mktemp("demo"))
    made.run("init")
    made.run("demo", "--population", "40")
    return made.state


@pytest.fixture
def served(tmp_path: Path, demo: Path) -> Iterator[Served]:
    """A copy of it of the test's own; not running yet."""
    made = Served(tmp_path)
    shutil.copytree(demo, made.state)
    yield made
    made.clean_up()
