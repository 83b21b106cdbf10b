"""CONFORMANCE.md against the tests: no row without proof, no proof without a row.  Runs last."""

from __future__ import annotations

from row_table import TABLE, Proof, read_rows


def test_ids_are_unique_and_no_cell_is_empty() -> None:
    """Every row can be named, and says what is asked, whence, and what we do."""
    rows = read_rows(TABLE.read_text())
    names = [row.name for row in rows]
    assert sorted({name for name in names if names.count(name) > 1}) == []
    assert [row.name for row in rows if not all(row.cells)] == []
    assert len(rows) > 0


def test_tests_name_only_rows_that_are_there(proof: Proof) -> None:
    """A test that names a row which the table does not have proves nothing."""
    names = {row.name for row in read_rows(TABLE.read_text())}
    assert {row: tests for row, tests in proof.claims.items() if row not in names} == {}


def test_every_row_was_proven_on_the_wire(proof: Proof) -> None:
    """Each row has tests, all of them passed, and all exchanged octets with a running installation.

    Judged only where the whole folder was run: a part proves nothing about the rest.
    """
    missing = proof.missing(read_rows(TABLE.read_text()))
    assert not proof.is_whole or missing == {}


def test_a_row_counts_only_with_a_test_that_passed_on_the_wire() -> None:
    """The judge itself: no test, a test that did not pass, and one of two that did not."""
    rows = read_rows("| ID | a |\n|---|---|\n| Q1 | x |\n| Q2 | x |\n| B-D05 | x |\n\n| Q9 | no table |\n")
    judged = Proof()
    judged.claim("Q1", "one")
    judged.claim("Q2", "one")
    judged.claim("Q2", "two")
    judged.passed.add("one")
    assert set(judged.missing(rows)) == {"Q2", "B-D05"}
