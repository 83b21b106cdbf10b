"""Counter files: exact whatever happens to the process that writes them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from certstatus.counters import KINDS_PER_ROW, CounterFile, Provision, read_counters
from certstatus.errors import CountersUnavailable, IntegrityError


def _new(folder: Path, rows_max: int = 16) -> CounterFile:
    return CounterFile(folder, b"e" * 16, "host-a", 3, 7200, rows_max)


def test_what_is_counted_is_read_back(tmp_path: Path) -> None:
    """Rows carry verifier and issuer, cells their kind; zero cells are left out."""
    counters = _new(tmp_path)
    counters.cells[counters.row(7, 1) + Provision.GOOD] += 2
    counters.cells[counters.row(7, 2) + Provision.REVOKED] += 1
    counters.cells[counters.row(7, 1) + Provision.GOOD] += 1
    reading = read_counters(counters.path)
    assert (reading.host, reading.slot, reading.hour_s, reading.sealed) == ("host-a", 3, 7200, False)
    assert [(cell.verifier_id, cell.issuer_id, cell.kind, cell.value) for cell in reading.cells] == [
        (7, 1, Provision.GOOD, 3),
        (7, 2, Provision.REVOKED, 1),
    ]
    assert reading.cells[1].cell == KINDS_PER_ROW + Provision.REVOKED
    counters.seal()
    assert read_counters(counters.path).sealed


def test_two_files_never_share_an_identity(tmp_path: Path) -> None:
    """Each incarnation has its own UUID, so that cells of two files never fall together."""
    names = {read_counters(_new(tmp_path).path).file_uuid for _ in range(20)}
    assert len(names) == 20


def test_a_full_file_refuses_instead_of_losing(tmp_path: Path) -> None:
    """When all rows are taken the next name is refused; known names still count."""
    counters = _new(tmp_path, rows_max=16)
    for verifier_id in range(16):
        counters.row(verifier_id, 1)
    with pytest.raises(CountersUnavailable):
        counters.row(99, 1)
    assert counters.row(15, 1) == 15 * KINDS_PER_ROW


def test_no_folder_no_counting(tmp_path: Path) -> None:
    """Where no file can be made the error says so at once and leaves nothing behind."""
    with pytest.raises(CountersUnavailable):
        _new(tmp_path / "absent")
    (tmp_path / "file").touch()
    with pytest.raises(CountersUnavailable):
        _new(tmp_path / "file")


def test_torn_and_foreign_files_are_refused(tmp_path: Path) -> None:
    """A cut or foreign file is an IntegrityError."""
    counters = _new(tmp_path)
    whole = counters.path.read_bytes()
    for content in (b"", whole[:50], whole[:-1], b"X" + whole[1:]):
        wrong = tmp_path / "wrong.counters"
        wrong.write_bytes(content)
        with pytest.raises(IntegrityError):
            read_counters(wrong)


def test_a_killed_process_loses_nothing(tmp_path: Path) -> None:
    """Every cell raised before ``kill -9`` is in the file afterwards."""
    script = (
        "import os,signal,sys\n"
        "from pathlib import Path\n"
        "from certstatus.counters import CounterFile, Provision\n"
        "c = CounterFile(Path(sys.argv[1]), b'e'*16, 'h', 0, 0, 16)\n"
        "at = c.row(1, 1) + Provision.GOOD\n"
        "for _ in range(12345): c.cells[at] += 1\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False, env=os.environ)
    assert done.returncode == -signal.SIGKILL
    (path,) = tmp_path.glob("*.counters")
    assert [cell.value for cell in read_counters(path).cells] == [12345]
