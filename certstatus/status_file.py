"""A small JSON file in which a process says how it is doing, for the operators' page.

Knows: replacing the file so that a reader never sees half of it.  Not durable on purpose: after a
crash it says nothing worth keeping, and an fsync each second would hold up a beat.
Does not know: what a process says, or who reads it (``responder/run_status.py``).
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)


def write_status(path: Path, content: dict[str, Any]) -> None:
    """Replace *path* by *content* as JSON; a full disk is only logged, the work goes on."""
    neighbour = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        neighbour.write_text(json.dumps(content, sort_keys=True) + "\n", encoding="utf-8")
        neighbour.replace(path)
    except OSError as exc:
        log.warning("%s: %s", path, exc.strerror)
        neighbour.unlink(missing_ok=True)
