"""Who may import whom, read from the source.

The table of ARCHITECTURE.md: certstatus imports nothing of ours (its command line and supervisor,
which sit on top, everything), issuance imports certstatus, publisher both, responder certstatus only.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = ("certstatus", "issuance", "publisher", "responder")
OUTSIDE_THE_WHEEL = ("bench", "tests", "config")
MAY_IMPORT = {
    "certstatus": {"certstatus"},
    "issuance": {"certstatus", "issuance"},
    "publisher": {"certstatus", "issuance", "publisher"},
    "responder": {"certstatus", "responder"},
}
ON_TOP = ("certstatus/cli/", "certstatus/supervisor.py")
# Bytes in, bytes out: what reads and writes the formats touches no network, database or event loop.
CODECS = [
    *(
        "beat",
        "cert_id",
        "changes",
        "counters",
        "crl",
        "crl_catalogue",
        "crl_chunks",
        "crl_combine",
        "crl_entry",
        "crl_lint",
        "crl_pack",
    ),
    *(
        "crl_row_decode",
        "crl_row_encode",
        "crl_row_facts",
        "crl_row_find",
        "crl_row_times",
        "crl_rows",
        "crl_rows_file",
        "crl_rows_merge",
        "crl_signature",
        "crl_stream_decode",
        "crl_stream_encode",
    ),
    *(
        "crl_reason",
        "der",
        "distribution_point",
        "documents",
        "entitlements",
        "extension",
        "index",
        "issuer_table",
        "leases",
        "ocsp_request",
        "ocsp_response",
    ),
    *("oid", "snapshot", "snapshot_writer"),
]
NOT_IN_CODECS = {"aiohttp", "asyncio", "redis", "socket", "sqlalchemy", "uvloop"}
MODULE_LINES_MAX = 800


def _modules() -> list[Path]:
    return sorted(path for package in OURS for path in (ROOT / package).rglob("*.py"))


def _imports(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, dotted module) of every import in a file, also of those inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            # A relative import would hide where it leads.
            assert node.level == 0, f"{path.relative_to(ROOT)}:{node.lineno}: relative import"
            assert node.module is not None
            yield node.lineno, node.module


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_there_is_something_to_read() -> None:
    """All four packages are there, so that no rule below passes on an empty list."""
    assert {_name(path).split("/")[0] for path in _modules()} == set(OURS)


def test_packages_import_only_what_lies_below_them() -> None:
    """The table at the top, module by module."""
    wrong = [
        f"{_name(path)}:{line}: {module}"
        for path in _modules()
        if not _name(path).startswith(ON_TOP)
        for line, module in _imports(path)
        if (top := module.split(".")[0]) in (*OURS, *OUTSIDE_THE_WHEEL)
        and top not in MAY_IMPORT[_name(path).split("/")[0]]
    ]
    assert not wrong, "\n".join(wrong)


def test_nothing_below_imports_the_command_line_or_the_supervisor() -> None:
    """What sits on top is imported by nobody but itself and the tests."""
    wrong = [
        f"{_name(path)}:{line}: {module}"
        for path in _modules()
        if not _name(path).startswith(ON_TOP)
        for line, module in _imports(path)
        if module.startswith(("certstatus.cli", "certstatus.supervisor"))
    ]
    assert not wrong, "\n".join(wrong)


def test_nothing_shipped_imports_what_is_not() -> None:
    """Packages of the wheel import neither tests nor benchmarks."""
    wrong = [
        f"{_name(path)}:{line}: {module}"
        for path in _modules()
        for line, module in _imports(path)
        if module.split(".")[0] in OUTSIDE_THE_WHEEL
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", CODECS)
def test_codecs_touch_neither_network_nor_database(name: str) -> None:
    """Formats can be read, tested and fuzzed without anything running."""
    path = ROOT / "certstatus" / f"{name}.py"
    wrong = {module for _, module in _imports(path) if module.split(".")[0] in NOT_IN_CODECS}
    assert not wrong


def test_only_issuance_and_publisher_reach_the_database() -> None:
    """Responders hold status in memory and never ask SQL."""
    wrong = [
        f"{_name(path)}:{line}: {module}"
        for path in _modules()
        if not _name(path).startswith(("issuance/", "publisher/", "certstatus/cli/"))
        for line, module in _imports(path)
        if module.split(".")[0] in ("sqlalchemy", "alembic", "sqlite3", "psycopg")
    ]
    assert not wrong, "\n".join(wrong)


def test_only_the_clock_asks_for_the_time() -> None:
    """Whatever depends on the time gets it as a parameter or from certstatus.clock.

    Measuring how long something took (time.monotonic, perf_counter) is no question of what time it is.
    """
    asking = ("time.time(", "time.time_ns(", "datetime.now(", "datetime.utcnow(", "date.today(")
    wrong = [
        f"{_name(path)}:{number}: {line.strip()}"
        for path in _modules()
        if _name(path) != "certstatus/clock.py"
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if any(call in line for call in asking)
    ]
    assert not wrong, "\n".join(wrong)


def test_modules_have_a_docstring_and_stay_small() -> None:
    """Every module says what it knows; none grows beyond what can be read in one go."""
    for path in _modules():
        text = path.read_text(encoding="utf-8")
        assert ast.get_docstring(ast.parse(text)) or not text.strip(), f"{_name(path)}: no docstring"
        assert text.count("\n") <= MODULE_LINES_MAX, f"{_name(path)}: {text.count(chr(10))} lines"


def test_no_module_hides_behind_a_name_that_says_nothing() -> None:
    """No utils, helpers, common, manager, misc: a module is named after its one idea."""
    vague = {"utils", "util", "helpers", "helper", "common", "manager", "misc", "tools"}
    assert not [path for path in _modules() if path.stem in vague]


def test_every_dependency_that_is_imported_is_declared() -> None:
    """A package imported anywhere in the wheel stands in pyproject.toml."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    declared = {
        requirement.split(">")[0].split("[")[0].replace("-", "_").lower()
        for requirements in lists
        for requirement in requirements
    } | {"pkcs11"}
    imported = {module.split(".")[0] for path in _modules() for _, module in _imports(path)}
    outside = imported - set(sys.stdlib_module_names) - set(OURS)
    assert {name.lower() for name in outside} <= declared
