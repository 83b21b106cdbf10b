"""``crl at`` and older CRLs by their number, over a whole installation that is being served."""

from __future__ import annotations

import hashlib
import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from served_installation import Served

from certstatus import clock
from certstatus.config import load_config
from certstatus.errors import EXIT_NO_INPUT, EXIT_REFUSED, EXIT_USAGE
from issuance.store import Store
from publisher.crl_catalogue import read_published

_CONFIG = """
[installation]
state = "."

[[issuer]]
service = "CORP"
access = "public"
crl_period_s = 2
crl_validity_s = 5
delta_period_s = 1
delta_validity_s = 3
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """An installation whose complete CRLs are over after five seconds."""
    made = Served(tmp_path_factory.mktemp("past"))
    made.state.mkdir()
    made.config.write_text(_CONFIG)
    made.run("init")
    made.serve(workers=1)
    yield made
    made.stop()
    made.clean_up()


def _issue(served: Served, folder: Path, name: str) -> str:
    key = folder / f"{name}.pem"
    subprocess.run(
        ["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", key],
        check=True,
        capture_output=True,
    )
    public = subprocess.run(
        ["openssl", "pkey", "-in", key, "-pubout"], check=True, capture_output=True, text=True
    ).stdout
    done = served.run("issue", "-", "--service", "CORP", "--json", given=public)
    return str(json.loads(done.stdout)["serial"])


def _get(served: Served, path: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(f"{served.url}{path}", timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as exc:
        return exc.code, b""


def _now() -> str:
    """This moment, to the millisecond: what was published in the same second may be after its beginning."""
    now_ms = clock.now_ms()
    return f"{clock.utc_text(now_ms // 1000)[:-1]}.{now_ms % 1000:03d}Z"


def _at(served: Served, serial: str, when: str) -> Any:
    return served.json("crl", "at", serial, when)


def test_what_was_published_is_said_and_served_after_it_is_over(served: Served, tmp_path: Path) -> None:
    """Revoked, listed by a CRL that is over by now and by its number still there, byte for byte that of
    the hash; the same for people."""
    serial = _issue(served, tmp_path, "one")
    served.run("revoke", serial, "--reason", "keyCompromise", "--no-wait")
    (made,) = (
        item for item in served.json("publish", "now", "--all")["published"] if item["kind"] == "complete"
    )
    when = _now()
    answer = _at(served, serial, when)
    # The builder publishes meanwhile, too.
    number = answer["complete"]["number"]
    assert number >= made["number"]
    assert answer["complete"]["says"]["reason"] == "keyCompromise"
    assert answer["register"]["state"] == "revoked"
    assert answer["published"]["listed"]
    assert answer["complete"]["published_at"] <= when
    until_s = time.monotonic() + 60
    while any(line["number"] == number for line in _catalogue(served)):
        assert time.monotonic() < until_s
        time.sleep(0.5)
    later = _at(served, serial, when)
    for name in ("number", "sha256", "published_at", "says"):
        assert later["complete"][name] == answer["complete"][name]
    status, content = _get(served, f"/crl/corp/g1/all/{number}.crl")
    while status == 503 and time.monotonic() < until_s:
        time.sleep(0.2)
        status, content = _get(served, f"/crl/corp/g1/all/{number}.crl")
    assert (status, hashlib.sha256(content).hexdigest()) == (200, answer["complete"]["sha256"])
    assert _get(served, f"/crl/corp/g1/all/{number + 1_000_000}.crl")[0] != 200
    text = served.run("crl", "at", serial, when).stdout
    assert [
        words[:2] for line in text.splitlines() if (words := line.split()) and words[0] == "complete"
    ] == [["complete", str(number)]]
    assert "revoked since" in text
    assert "keyCompromise" in text
    assert answer["complete"]["sha256"] in text
    assert "and still is" in text


def _catalogue(served: Served) -> Any:
    with Store.open(load_config(served.config).store_url) as store:
        publication = store.publication("crls")
        assert publication is not None
        return [
            asdict(entry) for scope in read_published(store, publication).scopes for entry in scope.entries
        ]


def test_errors_are_clear(served: Served, tmp_path: Path) -> None:
    """An unknown number, times of no use, and what is no time."""
    serial = _issue(served, tmp_path, "two")
    now = clock.utc_text(clock.now_s())
    done = served.run("crl", "at", "7f" * 16, now, expect=EXIT_NO_INPUT)
    assert f"no certificate {'7f' * 16}" in done.stderr
    done = served.run("crl", "at", serial, "2020-01-01T00:00:00Z", expect=EXIT_NO_INPUT)
    assert "CORP generation 1 was not there before" in done.stderr
    done = served.run("crl", "at", serial, "2199-01-01T00:00:00Z", expect=EXIT_NO_INPUT)
    assert "2199-01-01T00:00:00Z is yet to come" in done.stderr
    served.run("crl", "at", serial, "yesterday", expect=EXIT_USAGE)


def test_a_last_crl_is_prepared_and_published_and_ends_it(served: Served, tmp_path: Path) -> None:
    """By hand, while the builder goes on: kept back at first, refused while it lacks something, then current
    for good; `publish now` says that there is no other."""
    serial = _issue(served, tmp_path, "three")
    (prepared,) = served.json("crl", "prepare-last", "--service", "CORP")
    assert Path(prepared["file"]).is_relative_to(served.state / "crl-last")
    assert _get(served, f"/crl/corp/g1/all/{prepared['number']}.crl")[0] != 200
    served.run("revoke", serial, "--reason", "superseded", "--no-wait")
    words = ("crl", "publish-last", "--service", "CORP", "--generation", "1")
    assert "lacks 1 certificates" in served.run(*words, "--yes", expect=EXIT_REFUSED).stderr
    served.run(*words, given="n\n", expect=130)
    (made,) = served.json(*words, "--yes", "--sign-now")["published"]
    assert (made["next_update"], made["number"] > prepared["number"]) == ("9999-12-31T23:59:59Z", True)
    until_s = time.monotonic() + 30
    wanted = Path(made["file"]).read_bytes()
    while _get(served, "/crl/corp/g1/all/complete.crl") != (200, wanted):
        assert time.monotonic() < until_s
        time.sleep(0.2)
    assert "no other follows" in served.run("publish", "now", expect=EXIT_REFUSED).stderr
    answer = _at(served, serial, _now())
    assert answer["complete"]["number"] == made["number"]
    assert answer["published"]["reason"] == "superseded"
