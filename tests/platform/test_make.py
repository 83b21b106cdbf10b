"""The Makefile and its scripts as a newcomer meets them, on machines that lack this or that."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OPTIONAL = {
    "bench": "bench/paths.py",
    "bench-compare": "bench/paths.py",
    "bench-load": "bench/paths.py",
    "bench-profile": "bench/paths.py",
    "bench-results": "bench/paths.py",
    "fault-runs": "tests/faults",
    "fuzz": "tests/fuzz",
    "interop": "tests/interop",
    "test-faults": "tests/faults",
}


def make(*words: str, cwd: Path = ROOT) -> str:
    """Run make and return what it prints."""
    environment = {
        name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL")
    }
    done = subprocess.run(
        ["make", *words], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def listed(text: str) -> set[str]:
    """The targets in a listing."""
    return set(re.findall(r"^make ([a-z-]+)  +\S", text, re.MULTILINE))


def test_make_alone_lists_what_there_is_and_every_target_exists() -> None:
    """Nothing is listed that cannot be made, and nothing is built by typing make."""
    targets = listed(make())
    assert {"run", "test", "check", "clean", "lock"} <= targets
    for target in targets:
        make("-n", target)
    for target, needs in OPTIONAL.items():
        assert (target in targets) == (ROOT / needs).exists(), target


def test_what_is_absent_is_not_offered(tmp_path: Path) -> None:
    """In a checkout without suites of their own, their targets are neither listed nor there."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    targets = listed(make(cwd=tmp_path))
    assert not targets & set(OPTIONAL)
    done = subprocess.run(
        ["make", "-n", "interop"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0


def test_run_passes_on_what_it_is_given() -> None:
    """PORT, STATE and WORKERS reach the commands; without them the configuration decides."""
    given = make("-n", "run", "PORT=9000", "STATE=/x", "WORKERS=3")
    assert "--config /x/certstatus.toml init --port 9000" in given
    assert re.search(r"serve \\?\s*--port 9000 --workers 3", given)
    plain = make("-n", "run")
    assert "--port" not in plain
    assert "var/dev/certstatus.toml" in plain


def fake_python(folder: Path, *missing: str) -> Path:
    """An interpreter whose modules *missing* are not installed, as on a bare Debian."""
    path = folder / "python3"
    cases = "|".join(f'"-m {name}"' for name in missing)
    path.write_text(
        f'#!/bin/bash\ncase "$1 $2" in {cases}) echo "No module named $2" >&2; exit 1;; esac\n'
        f'exec "{sys.executable}" "$@"\n'
    )
    path.chmod(0o755)
    return path


def venv(folder: Path, python: Path | str, search: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run scripts/venv as nobody special."""
    environment = {**os.environ, "PATH": search or os.environ["PATH"]}
    return subprocess.run(
        [ROOT / "scripts" / "venv", folder, str(python)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )


def test_an_environment_is_made_by_venv(tmp_path: Path) -> None:
    """Where venv works, that is all."""
    done = venv(tmp_path / "env", sys.executable)
    assert done.returncode == 0, done.stderr
    assert done.stdout + done.stderr == ""
    assert (tmp_path / "env" / "bin" / "python").exists()


@pytest.fixture
def bare_path(tmp_path: Path) -> str:
    """A search path without apt-get and id saying that we are not root."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("bash", "env", "cat", "rm", "mktemp", "dirname"):
        (folder / name).symlink_to(shutil.which(name) or "")
    (folder / "id").write_text("#!/bin/bash\necho 1000\n")
    (folder / "id").chmod(0o755)
    return str(folder)


def test_without_any_way_to_make_one_it_says_what_to_install(tmp_path: Path, bare_path: str) -> None:
    """No venv, no virtualenv, no pip, not root: one line says what to do, and nothing half-made is left."""
    done = venv(tmp_path / "env", fake_python(tmp_path, "venv", "virtualenv", "pip"), bare_path)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].endswith("On Debian or Ubuntu: apt install python3-venv")
    assert not (tmp_path / "env").exists()


def test_an_interpreter_that_is_absent_or_too_old_is_named(tmp_path: Path, bare_path: str) -> None:
    """The message names the interpreter and how to give another."""
    done = venv(tmp_path / "env", "/nowhere/python3", bare_path)
    assert (done.returncode, "no /nowhere/python3 here" in done.stderr) == (1, True)
    old = tmp_path / "python3"
    old.write_text('#!/bin/bash\n[ "$1" = -V ] && echo "Python 3.9.2" && exit 0\nexit 1\n')
    old.chmod(0o755)
    done = venv(tmp_path / "env", old, bare_path)
    assert (done.returncode, "Python 3.9.2 is too old" in done.stderr) == (1, True)


def test_a_missing_program_is_named_with_its_package(bare_path: str) -> None:
    """Where apt cannot be used, the message says which package brings the program."""
    done = subprocess.run(
        [ROOT / "scripts" / "debian", "openssl", "openssl"],
        capture_output=True,
        text=True,
        env={"PATH": bare_path},
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == "openssl is missing.  On Debian or Ubuntu: apt install openssl\n"


def test_all_that_is_missing_is_named_at_once(bare_path: str, tmp_path: Path) -> None:
    """Commands and files that are there are passed over; the others are asked for in one go."""
    words = ["bash", "bash", "openssl", "openssl", str(tmp_path), "here", "/nowhere/x.jar", "libx-java"]
    done = subprocess.run(
        [ROOT / "scripts" / "debian", *words],
        capture_output=True,
        text=True,
        env={"PATH": bare_path},
        check=False,
    )
    assert done.returncode == 1
    wanted = "openssl /nowhere/x.jar are missing.  On Debian or Ubuntu: apt install openssl libx-java\n"
    assert done.stderr == wanted


def test_scripts_are_sound() -> None:
    """Every shell script parses and stops at the first error."""
    scripts = [*(ROOT / "scripts").iterdir(), *(ROOT / ".ci").iterdir()]
    assert len(scripts) >= 4
    for script in scripts:
        subprocess.run(["bash", "-n", script], check=True)
        assert "set -euo pipefail" in script.read_text()
        assert os.access(script, os.X_OK)
