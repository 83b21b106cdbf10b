"""The documentation is true: its commands run, its links lead somewhere, its names exist."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("bench/*.md"), *ROOT.glob("tests/*/*.md")])

sys.path.insert(0, str(ROOT / "tests" / "certstatus"))

from served_installation import Served  # noqa: E402 — it lies in another test folder


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """What `make run` leaves one with: a demo in var/dev, being served."""
    made = Served(tmp_path)
    made.state = tmp_path / "var" / "dev"
    made.config = made.state / "certstatus.toml"
    made.run("init")
    made.run("demo", "--population", "40")
    made.serve()
    yield made
    made.stop()
    made.clean_up()


def marked_blocks() -> list[str]:
    """The command blocks of the README that are marked as tested."""
    return re.findall(r"<!-- tested -->\n```\n(.*?)```", README, re.DOTALL)


def test_every_marked_command_of_the_readme_works_as_pasted(served: Served, tmp_path: Path) -> None:
    """In order, in one folder, with nothing changed but ports and where the programs are."""
    blocks = marked_blocks()
    assert sum(block.count("\n") for block in blocks) >= 13
    said = ""
    for line in "".join(blocks).splitlines():
        words = line.replace(".venv/bin/certstatus", f"{sys.executable} -m certstatus.cli")
        words = words.replace("http://127.0.0.1:8080", served.url).replace(
            "http://127.0.0.1:8081", served.admin_url
        )
        if "delta.crl http" in words or "-issuer old-ca.pem" in words:
            # The catalogue with the new CRLs comes with a beat, a new issuer's signer within seconds.
            words = f"for i in 1 2 3 4 5 6 7 8 9 10; do {words} && break; sleep 0.5; done"
        done = subprocess.run(
            ["bash", "-c", words], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        said += done.stdout + done.stderr
    for expected in ("good.pem: good", "revoked.pem: revoked", "good.pem: revoked", "applied by worker 0"):
        assert expected in said
    for expected in ("OCSP answers  revoked", "signature verified", "this machine (demo)", "certstatus_beat"):
        assert expected in said


def test_what_the_readme_shows_of_the_start_is_what_is_printed(served: Served) -> None:
    """The line with `ready` and the one after it have the form that the README shows."""
    shown = re.search(r"^ready http://127\.0\.0\.1:8080\n\n(operators' pages: .*)$", README, re.MULTILINE)
    assert shown is not None
    port = served.admin_url.rpartition(":")[2]
    assert shown[1].replace("8081", port) in served.output


def test_every_relative_link_leads_to_a_file() -> None:
    """No page points to what is not there."""
    links = [
        (page, target)
        for page in PAGES
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text(encoding="utf-8"))
    ]
    assert links
    assert not [(str(page), target) for page, target in links if not (page.parent / target).exists()]


def test_every_command_named_in_the_readme_exists() -> None:
    """`certstatus X` in the README is a command."""
    from certstatus.cli import cli

    known = set(cli.list_commands(None))  # type: ignore[arg-type]
    named = set(re.findall(r"`certstatus (?:--config \S+ )?([a-z][a-z-]+)", README))
    assert named
    assert named <= known


def test_every_make_target_named_in_the_readme_exists() -> None:
    """`make X` in the README is a target."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"(?:`|^)make ([a-z][a-z-]+)", README, re.MULTILINE))
    assert len(targets) >= 8
    assert not [name for name in targets if not re.search(rf"^{name}:", makefile, re.MULTILINE)]


def test_every_metric_named_in_the_readme_is_exposed() -> None:
    """Whoever sets an alarm on a name from the README gets one that rings."""
    source = (ROOT / "responder" / "metrics.py").read_text(encoding="utf-8")
    names = set(re.findall(r"`(certstatus_[a-z_]+)`", README))
    assert len(names) >= 4
    assert not [name for name in names if f'"{name}"' not in source]


def test_every_test_named_in_the_architecture_exists() -> None:
    """An invariant that names a test is held by a test of that name, or by a file that is there."""
    text = ARCHITECTURE
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    named = set(re.findall(r"`(test_\w+)`", text))
    assert len(named) > 20
    assert [name for name in sorted(named) if f"def {name}(" not in tests] == []
    files = re.findall(r"`((?:tests|certstatus|issuance|publisher|responder)/[a-z_0-9/]+\.py)`", text)
    assert len(files) > 20
    assert [name for name in files if not (ROOT / name).exists()] == []


def test_the_architecture_names_every_key_in_valkey() -> None:
    """Whoever looks into Valkey, or writes an ACL for it, finds each key explained."""
    source = (ROOT / "certstatus" / "feed_keys.py").read_text(encoding="utf-8")
    words = set(re.findall(r"self\._prefix\}:([a-z-]+(?::[a-z-]+)?)", source))
    assert {"stream", "arrivals", "request:crls", "provisions-done"} <= words
    assert not [word for word in words if f"`{{ns}}:<epoch>:{word}" not in ARCHITECTURE]
    assert "`{ns}:epoch`" in ARCHITECTURE


def test_the_architecture_names_every_member_of_a_document() -> None:
    """Whoever reads what lies in Valkey finds each member explained, and none that is not there."""
    from certstatus.crl_catalogue import CatalogueEntry
    from certstatus.issuer_table import Issuer

    issuer = Issuer(1, "SIGN", 1, (), b"", b"", ())
    # What stands above the lines of a scope is named there.
    line = set(CatalogueEntry.__annotations__) - {"issuer_id", "scope"}
    for kind, members in (("issuers", issuer.as_json()), ("crls", line)):
        said = re.search(rf"{kind}: \[\{{(.*?)\}}\]", ARCHITECTURE, re.DOTALL)
        assert said is not None
        named = set(re.findall(r"[a-z_0-9*]+", said[1].replace("(hex)", "")))
        if "validity_*_s" in named:
            named ^= {"validity_*_s", "validity_good_s", "validity_revoked_s", "validity_unknown_s"}
        assert named == set(members)
