"""The records among the results: which is the newest of a kind, and the index's sizes over all of them.

A record is ``<kind>-<commit>.json`` with ``what`` (command, commit, date, machine) and figures.  Its age
is its own date, then the file's: a checkout gives every file the same.
Knows: where records lie.  Does not know: how they came about, or how they are shown.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Record = dict[str, Any]

# What is shown of an index: title -> figures, each as its step and its name in ``index_scale``'s record.
INDEX_FIGURES = {
    "look-up, µs": ("look_up known_us", "look_up unknown_us"),
    "bytes a certificate": ("size bytes_per_issued", "size bytes_per_revoked"),
    "seconds": (
        "make wall_s",
        "write wall_s",
        "merge merge_s",
        "fetch wall_s",
        "serve first_start_s",
        "serve next_start_s",
        "serve restart_s",
    ),
    "MB a second": ("upload mb_per_s", "fetch mb_per_s"),
    "own memory, MB": ("write own_mb_max", "merge own_mb_max", "fetch own_mb_max", "serve worker_own_mb"),
    "waiting, ms": ("swap wait_ms_max", "swap wait_ms_max_idle", "check marked_ms"),
}


def read_record(file: Path) -> Record:
    """Read a record of any kind.

    Raises: ValueError — not one; the message names the file.
    """
    try:
        record: Record = json.loads(file.read_text())
        str(record["what"]["commit"]), str(record["what"]["date"])
    except (OSError, KeyError, TypeError, ValueError) as exc:
        raise ValueError(f"{file}: not a record of a benchmark run: {exc!r}") from exc
    return record


def by_age(folder: Path, pattern: str) -> list[Path]:
    """Return the records whose names fit *pattern*, the newest last."""

    def age(path: Path) -> tuple[str, float, str]:
        return read_record(path)["what"]["date"], path.stat().st_mtime, path.name

    return sorted(folder.glob(pattern), key=age)


def newest(folder: Path, pattern: str) -> Path | None:
    """Return the newest record of this kind; None if there is none."""
    found = by_age(folder, pattern)
    return found[-1] if found else None


def index_sizes(folder: Path) -> list[tuple[int, Path, dict[str, float]]]:
    """Return (certificates, record it stands in, figures) for each size of the index, the smallest first.

    Takes the newest figures of every size: 100 million certificates are not measured each time.
    """
    found: dict[int, tuple[int, Path, dict[str, float]]] = {}
    for path in by_age(folder, "index-*.json"):
        for size, steps in read_record(path)["sizes"].items():
            found[int(size)] = int(size), path, flat(steps)
    return [found[size] for size in sorted(found)]


def crl_verdicts(folder: Path) -> list[tuple[Path, Record]]:
    """Return (record it stands in, verdict) for each figure of CRLs that is judged, the newest of each.

    A verdict has ``figure``, ``value``, ``must`` and ``aim`` (``"<= 3"``), ``held``, ``aim_reached``.
    """
    found: dict[str, tuple[Path, Record]] = {}
    for path in by_age(folder, "crl-*.json"):
        for verdict in read_record(path)["verdicts"]:
            found[verdict["figure"]] = path, verdict
    return list(found.values())


def flat(figures: Record, prefix: str = "") -> dict[str, float]:
    """Return all numbers in *figures* by name, those of a part with its name before theirs."""
    numbers: dict[str, float] = {}
    for name, value in figures.items():
        if isinstance(value, dict):
            numbers |= flat(value, f"{prefix}{name} ")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            numbers[prefix + name] = float(value)
    return numbers
