"""What making a CRL costs is measured of CRLs that are right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench import crl_steps
from bench.crl_lists import draw_changes, draw_rows, write_list
from certstatus.crl_rows import ascend, der_lengths, keys
from certstatus.crl_rows_file import RowsFile


def test_every_step_is_taken_and_judged(tmp_path: Path) -> None:
    """With few entries; ratios mean nothing then, but all are there, and the checks in the steps hold."""
    steps = crl_steps.measure(3000, tmp_path, 1, small_entries=500, scopes=3, scopes_entries=300)
    assert steps["draw"]["bytes"] == 128 + 32 * 3000
    assert steps["complete"]["entries"] >= 3000
    assert steps["delta"]["changes"] == 1000
    assert steps["publisher_delta"]["base_entries"] == 3000
    assert (steps["nation"]["scopes"], steps["nation"]["entries"]) == (3, 303)
    judged = crl_steps.verdicts(steps)
    assert [item["figure"] for item in judged] == [f"{bound[0]} {bound[1]}" for bound in crl_steps.BOUNDS]
    assert steps["builder"]["times_faster"] > 0
    assert list(tmp_path.glob("*.cse")) == []


@pytest.mark.parametrize("mixed", [False, True])
def test_drawn_lists_are_in_order(mixed: bool) -> None:
    """Also from one stretch to the next."""
    rows = np.concatenate([*draw_rows(150_000, mixed=mixed)])
    assert len(rows) == 150_000
    assert ascend(rows)
    assert (rows["der_len"] == der_lengths(rows)).all()
    assert (len(np.unique(rows["der_len"])) > 1) == mixed


def test_drawn_changes_change_what_they_say(tmp_path: Path) -> None:
    """Half of the keys are new, the others were there."""
    write_list(tmp_path / "rows", 10_000)
    with RowsFile(tmp_path / "rows") as file:
        puts, drops = draw_changes(file, 1000)
        assert ascend(puts)
        assert (len(puts), len(drops)) == (750, 250)
        assert len(file.look_up(keys(puts))) == 250
        assert len(file.look_up(drops)) == 250
