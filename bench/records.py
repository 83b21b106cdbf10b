"""The records among the results: which is the newest of a kind, and the index's sizes over all of them.

A record is ``<kind>-<commit>.json`` with ``what`` (command, commit, date, machine) and figures.  Its age
is its own date, then the file's: a checkout gives every file the same.
Knows: where records lie.  Does not know: how they came about, or how they are shown.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Record = dict[str, Any]


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


def index_sizes(folder: Path) -> list[tuple[Path, Record]]:
    """Return (record it stands in, figures) for each size of the index, the smallest first.

    Takes the newest figures of every size: 100 million certificates are not measured each time.
    """
    found: dict[int, tuple[Path, Record]] = {}
    for path in by_age(folder, "index-*.json"):
        for figures in _with_size(read_record(path)):
            found[int(figures["certificates"])] = path, figures
    return [found[size] for size in sorted(found)]


def _with_size(record: Record) -> Iterator[Record]:
    if "certificates" in record:
        yield record
    for part in record.values():
        if isinstance(part, list):
            yield from (item for item in part if isinstance(item, dict) and "certificates" in item)


def flat(figures: Record, prefix: str = "") -> dict[str, float]:
    """Return all numbers in *figures* by name, those of a part with its name before theirs.

    Of several rounds in one (median, min, max) it is the median.
    """
    numbers: dict[str, float] = {}
    for name, value in figures.items():
        if isinstance(value, dict):
            if {"median", "min", "max"} <= value.keys():
                numbers[prefix + name] = float(value["median"])
            else:
                numbers |= flat(value, f"{prefix}{name} ")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            numbers[prefix + name] = float(value)
    return numbers
