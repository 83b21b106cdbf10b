"""The conformance table: which rows CONFORMANCE.md has, and which of them a test has proven.

A row is a line of a Markdown table whose first column is headed ``ID``.  It is proven when a
test that names it (``@pytest.mark.row("Q3")``) has passed and has exchanged octets with a
running installation.
Knows: reading the file; keeping what was proven.  Does not know: how a test asks.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

TABLE = Path(__file__).parents[2] / "CONFORMANCE.md"
_ID = re.compile(r"[A-Z]{1,2}(?:-[A-Z])?-?\d{1,2}")


class Row(NamedTuple):
    """One row; *cells* without the ID."""

    name: str
    cells: tuple[str, ...]


def read_rows(text: str) -> list[Row]:
    """Return every row of every table that is headed ``ID``; a line that cannot be read is an error."""
    rows: list[Row] = []
    columns = 0
    for line in text.splitlines():
        if not line.startswith("|"):
            columns = 0
            continue
        cells = tuple(cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1])
        if cells[0] == "ID":
            columns = len(cells)
        elif columns and not set(line) <= set("|-: "):
            assert _ID.fullmatch(cells[0]), f"not an ID: {line}"
            assert len(cells) == columns, f"{len(cells)} cells, {columns} columns: {line}"
            rows.append(Row(cells[0], cells[1:]))
    return rows


class Proof:
    """What this run of the tests has shown, by row.

    claims   for each row the tests that name it, by node id
    passed   tests that passed and exchanged octets with a running installation
    """

    def __init__(self) -> None:
        self.claims: dict[str, set[str]] = {}
        self.passed: set[str] = set()
        self.is_whole = False

    def claim(self, row: str, test: str) -> None:
        """Remember that *test* names *row*."""
        self.claims.setdefault(row, set()).add(test)

    def missing(self, rows: list[Row]) -> dict[str, str]:
        """Return what each unproven row lacks."""
        found = {}
        for row in rows:
            tests = self.claims.get(row.name, set())
            if not tests:
                found[row.name] = "no test names it"
            elif unproven := tests - self.passed:
                found[row.name] = f"not passed with octets exchanged: {', '.join(sorted(unproven))}"
        return found
