"""A responder host without the publisher's folder, whole: its CRLs come through Valkey."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from served_installation import Served

from certstatus.private_valkey import socket_path

CONFIG = """
[installation]
state = "."

[[issuer]]
service = "CORP"
access = "public"
"""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A publisher with a CA of its own, and a demo's certificates."""
    made = Served(tmp_path / "kiyose")
    try:
        made.state.mkdir(parents=True)
        made.config.write_text(CONFIG)
        made.run("init")
        yield made.serve("--only", "publisher")
    finally:
        made.clean_up()


@pytest.fixture
def other(served: Served, tmp_path: Path) -> Iterator[Served]:
    """A host that meets it in Valkey alone."""
    made = Served(tmp_path / "osaka")
    made.state.mkdir(parents=True)
    made.config.write_text(
        f'[valkey]\nurl = "unix://{socket_path(served.state)}"\n'
        '[responder]\nhost = "osaka-1"\ncrl_files = "fetched"\n'
    )
    key = made.run("host", "make", "osaka-1", "--shared", str(served.state / "secrets")).stdout
    (tmp_path / "host.pub").write_text(key)
    served.run("host", "enroll", "osaka-1", str(tmp_path / "host.pub"))
    try:
        yield made.serve("--only", "responder", workers=1)
    finally:
        made.clean_up()


def _list(served: Served) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(served.get("/crl/corp/"))["scopes"][0]
    return found


def _until(holds: Callable[[], object], what: Callable[[], object] = str) -> None:
    until = time.monotonic() + 30
    while True:
        try:
            if holds():
                return
        except (urllib.error.URLError, IndexError, TypeError):
            pass
        assert time.monotonic() < until, what()
        time.sleep(0.05)


def test_a_host_serves_crls_that_came_through_valkey(served: Served, other: Served) -> None:
    """The octets of the publisher, with ranges, after a kill of either side; a new one when it is here."""
    _until(lambda: _list(other)["complete"], other.logs)
    assert not (other.state / "crl").exists()
    line = _list(other)["complete"]
    published = (served.state / line["url"].strip("/")).parent / f"{line['number']}.crl"
    content = published.read_bytes()
    assert other.get(line["url"]) == other.get(line["by_number"]) == content
    asked = urllib.request.Request(
        f"{other.url}{line['by_number']}",
        headers={"Range": "bytes=10-19", "If-Range": f'"{line["sha256"]}"'},
    )
    with urllib.request.urlopen(asked, timeout=10) as answer:
        assert (answer.status, answer.read()) == (206, content[10:20])
    for side, role in ((served, "builder"), (other, "agent")):
        before = _list(other)["complete"]["number"]
        side.kill(role)
        made = served.json("publish", "now", "--all")
        assert made
        _until(partial(_is_beyond, other, before), other.logs)
        line = _list(other)
        for kind in ("complete", "delta"):
            number, ending = line[kind]["number"], "crl" if kind == "complete" else "delta.crl"
            file = served.state / "crl" / "corp" / "g1" / "all" / f"{number}.{ending}"
            assert other.get(line[kind]["url"]) == file.read_bytes()
    # Files that are written about once a second.
    _until(lambda: _said(other, "agent")["crl_files"]["awaited"] == 0)
    _until(lambda: _said(other, "worker-0")["crls"]["awaited"] == 0)
    assert _said(other, "worker-0")["crls"]["trouble"] == ""


def _is_beyond(served: Served, number: int) -> bool:
    return int(_list(served)["complete"]["number"]) > number


def _said(served: Served, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((served.state / "run" / f"{name}.json").read_text())
    return found
