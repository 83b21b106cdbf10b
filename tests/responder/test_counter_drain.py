"""Counter files on their way to the store: nothing lost, nothing deleted too early.

The far end is the publisher's part, played here by hand so that it can also be late, forgetful or wrong.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from certstatus.counters import CounterFile, Provision, read_counters
from certstatus.feed_keys import FeedKeys
from responder.counter_drain import REPEAT_S, REPORT_FIELD, CounterDrain, Owners, cells_digest

EPOCH = bytes(16)
KEYS = FeedKeys("t", EPOCH)

# Makes a counter file with three provisions in it, tells its path, and waits to be killed.
_OWNER = """
import sys, time
from pathlib import Path
from certstatus.counters import CounterFile, Provision
made = CounterFile(Path(sys.argv[1]), bytes(16), "h", 0, 3600, 16)
made.cells[made.row(7, 1) + Provision.GOOD] += 3
print(made.path, flush=True)
time.sleep(60)
"""


@pytest.fixture
def folder(state: Path) -> Path:
    """The host's folder of counter files."""
    return state / "host" / "counters"


def count(made: CounterFile, times: int = 1, verifier_id: int = 7) -> None:
    """Raise one cell."""
    made.cells[made.row(verifier_id, 1) + Provision.GOOD] += times


def reports(valkey: Any) -> list[dict[str, Any]]:
    """Take the reports that have come, oldest first."""
    entries = valkey.xrange(KEYS.provisions())
    if entries:
        valkey.xdel(KEYS.provisions(), *[entry for entry, _ in entries])
    return [json.loads(fields[REPORT_FIELD]) for _, fields in entries]


def acknowledge(valkey: Any, report: dict[str, Any]) -> None:
    """Say that the store has the cells of *report*."""
    valkey.hset(KEYS.provisions_done("h"), report["uuid"], report["digest"])


def test_a_report_says_which_cells_stand_where(valkey: Any, folder: Path) -> None:
    """Host, file, cells with verifier, issuer, kind, hour and value, and a digest over them."""
    made = CounterFile(folder, EPOCH, "h", 0, 3600, 16)
    count(made, 3)
    count(made, 2, verifier_id=9)
    status = CounterDrain(folder).step(valkey, KEYS, "h", 0)
    (report,) = reports(valkey)
    assert report["host"] == "h"
    assert report["uuid"] == made.path.stem
    assert report["sealed"] is False
    assert report["cells"] == [[0, 7, 1, 0, 3600, 3], [16, 9, 1, 0, 3600, 2]]
    assert report["digest"] == cells_digest(read_counters(made.path))
    assert (status.files, status.waiting, status.removed) == (1, 1, 0)


def test_a_file_goes_only_when_its_last_cells_are_acknowledged(valkey: Any, folder: Path) -> None:
    """Sealed is not enough, acknowledged is not enough: the digest must be that of the final cells."""
    drain = CounterDrain(folder)
    made = CounterFile(folder, EPOCH, "h", 0, 3600, 16)
    count(made)
    drain.step(valkey, KEYS, "h", 0)
    (first,) = reports(valkey)
    count(made)
    made.seal()
    acknowledge(valkey, first)
    drain.step(valkey, KEYS, "h", 1)
    assert made.path.exists()
    (second,) = reports(valkey)
    assert (second["sealed"], second["cells"][0][-1]) == (True, 2)
    acknowledge(valkey, second)
    assert drain.step(valkey, KEYS, "h", 2).removed == 1
    assert not made.path.exists()
    assert reports(valkey) == []


def test_an_acknowledged_file_that_may_still_grow_stays(valkey: Any, folder: Path) -> None:
    """While its owner has it mapped, a file is never removed, however well it is acknowledged."""
    drain = CounterDrain(folder)
    made = CounterFile(folder, EPOCH, "h", 0, 3600, 16)
    count(made)
    drain.step(valkey, KEYS, "h", 0)
    acknowledge(valkey, reports(valkey)[0])
    status = drain.step(valkey, KEYS, "h", 1)
    assert (status.waiting, status.removed) == (0, 0)
    assert made.path.exists()


def test_a_killed_workers_file_is_reported_to_the_last_cell_and_then_removed(
    valkey: Any, folder: Path
) -> None:
    """kill -9 leaves an unsealed file; with nobody left to raise a cell it is as good as sealed."""
    drain = CounterDrain(folder)
    with subprocess.Popen(
        [sys.executable, "-c", _OWNER, str(folder)], stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        path = Path(owner.stdout.readline().strip())
        assert Owners().has_owner(path)
        drain.step(valkey, KEYS, "h", 0)
        (report,) = reports(valkey)
        acknowledge(valkey, report)
        assert drain.step(valkey, KEYS, "h", 1).removed == 0
        owner.kill()
        owner.wait()
    assert not Owners().has_owner(path)
    assert report["cells"] == [[0, 7, 1, 0, 3600, 3]]
    assert drain.step(valkey, KEYS, "h", 2).removed == 1
    assert not path.exists()


def test_one_report_at_a_time_and_again_when_it_is_lost(valkey: Any, folder: Path) -> None:
    """Valkey is not filled with reports nobody reads; a report that Valkey lost is told again."""
    drain = CounterDrain(folder)
    made = CounterFile(folder, EPOCH, "h", 0, 3600, 16)
    for at in range(5):
        count(made)
        drain.step(valkey, KEYS, "h", at * 0.1)
    assert [report["cells"][0][-1] for report in reports(valkey)] == [1]
    valkey.flushall()
    drain.step(valkey, KEYS, "h", REPEAT_S + 0.01)
    assert [report["cells"][0][-1] for report in reports(valkey)] == [5]


def test_an_acknowledgement_that_is_no_text_acknowledges_nothing(valkey: Any, folder: Path) -> None:
    """Whatever stands there: the file stays, and is told of again."""
    drain = CounterDrain(folder)
    made = CounterFile(folder, EPOCH, "h", 0, 3600, 16)
    count(made)
    drain.step(valkey, KEYS, "h", 0)
    valkey.hset(KEYS.provisions_done("h"), made.path.stem, b"\xff\xfe")
    assert drain.step(valkey, KEYS, "h", REPEAT_S + 0.01).waiting == 1
    assert len(reports(valkey)) == 2
    assert made.path.exists()


def test_growth_after_an_acknowledgement_is_reported_at_once(valkey: Any, folder: Path) -> None:
    """An acknowledged report makes room for the next."""
    drain = CounterDrain(folder)
    made = CounterFile(folder, EPOCH, "h", 0, 3600, 16)
    count(made)
    drain.step(valkey, KEYS, "h", 0)
    acknowledge(valkey, reports(valkey)[0])
    count(made)
    drain.step(valkey, KEYS, "h", 0.1)
    assert [report["cells"][0][-1] for report in reports(valkey)] == [2]


def test_a_file_of_an_older_epoch_goes_out_under_the_present_one(valkey: Any, folder: Path) -> None:
    """What was provided before a restore was provided."""
    made = CounterFile(folder, b"\x01" * 16, "h", 0, 3600, 16)
    count(made)
    CounterDrain(folder).step(valkey, KEYS, "h", 0)
    assert [report["uuid"] for report in reports(valkey)] == [made.path.stem]


def test_a_restarted_agent_begins_where_the_store_is(valkey: Any, folder: Path) -> None:
    """An agent that knows nothing of earlier reports neither loses nor repeats what was acknowledged."""
    made = CounterFile(folder, EPOCH, "h", 0, 3600, 16)
    count(made)
    CounterDrain(folder).step(valkey, KEYS, "h", 0)
    acknowledge(valkey, reports(valkey)[0])
    made.seal()
    assert CounterDrain(folder).step(valkey, KEYS, "h", 0).removed == 1
    assert reports(valkey) == []


def test_an_empty_file_of_a_dead_owner_just_goes(valkey: Any, folder: Path) -> None:
    """There is nothing to acknowledge in it."""
    made = CounterFile(folder, EPOCH, "h", 0, 3600, 16)
    made.seal()
    assert CounterDrain(folder).step(valkey, KEYS, "h", 0).removed == 1
    assert reports(valkey) == []


def test_a_file_that_is_no_counter_file_is_kept_and_told_of(valkey: Any, folder: Path) -> None:
    """Damage is an alarm, never a reason to delete or to stop."""
    (folder / "00000000-0000-0000-0000-000000000000.counters").write_bytes(b"CSC1 but torn")
    made = CounterFile(folder, EPOCH, "h", 0, 3600, 16)
    count(made)
    status = CounterDrain(folder).step(valkey, KEYS, "h", 0)
    assert (status.unreadable, status.waiting) == (1, 1)
    assert len(list(folder.glob("*.counters"))) == 2
