"""Every input that fuzzing has kept, and every seed, still holds every oracle of its target."""

from __future__ import annotations

import importlib
import logging

import pytest
from run_fuzz import CORPUS, TARGETS


def test_every_corpus_has_its_target() -> None:
    """Nothing was kept that is not replayed."""
    assert sorted(path.name for path in CORPUS.iterdir()) == sorted(TARGETS)


@pytest.mark.parametrize("name", TARGETS)
def test_what_was_kept_holds(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """One input after the other: none at all, the seeds, what was learnt and what was found."""
    caplog.set_level(logging.CRITICAL)
    target = importlib.import_module(f"fuzz_{name}")
    kept = {path.name: path.read_bytes() for path in sorted((CORPUS / name).iterdir())}
    for title, content in {"nothing": b"", **dict(target.seeds()), **kept}.items():
        try:
            target.one_input(content)
        except Exception as exc:
            exc.add_note(f"input: {name}/{title}")
            raise
