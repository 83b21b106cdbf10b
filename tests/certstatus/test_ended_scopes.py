"""Scopes that have ended: what a client of CRLs is told, how it ends, and what it says by their last CRLs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from mirror_cases import DAY_S, NOW_S, CRLSite, MirrorCA, directory_name, listed_entry

from certstatus import clock
from certstatus.cli import cli
from certstatus.crl_check import CheckedStatus, check_certificate
from certstatus.crl_folder import CRLFolder
from certstatus.crl_listing import read_ended
from certstatus.crl_mirror import MirrorReport, mirror_round
from certstatus.crl_server import CRLServer
from certstatus.crl_trust import read_trusted_ca
from certstatus.errors import CRLRefused

PART, ALL = "test/g1/m1/13101", "test/g1/all"
POINT = "m1/13101"
END_S = NOW_S - 1000
ENDED = {PART: "2027-01-15T07:43:20Z"}


class Scene:
    """A site with a partition that will end, and a folder that has its last CRL."""

    def __init__(self, folder: Path) -> None:
        self.site, self.ca, self.path = CRLSite(), MirrorCA(), folder
        kept = CRLFolder(folder)
        with kept.locked():
            kept.trust(read_trusted_ca(self.ca.pem, "ca"))
        point = directory_name(1, POINT)
        self.last = self.ca.crl(41, listed_entry(5, 1), point=point, expired_from_s=NOW_S - 900 * DAY_S)
        self.site.publish(self.ca, self.last, scope=PART)
        self.site.publish(self.ca, self.ca.crl(1, next_s=NOW_S + 90 * DAY_S))

    def round(self, *patterns: str, now_s: int = NOW_S) -> MirrorReport:
        folder, server = CRLFolder(self.path), CRLServer(self.site.url)
        try:
            with folder.locked():
                return mirror_round(server, folder, now_s, patterns)
        finally:
            server.close()

    def end(self) -> None:
        """Let the scope end, as its server says."""
        del self.site.scopes[PART]
        self.site.generation += 1
        self.site.ended = dict(ENDED)

    def check(self, serial: int, *, until_s: int = END_S, now_s: int = NOW_S + 2 * DAY_S) -> CheckedStatus:
        certificate = self.ca.member(serial, POINT, until_s=until_s)
        return check_certificate(CRLFolder(self.path), certificate, "member.pem", now_s)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path / "dir")
    yield made
    made.site.stop()


@pytest.mark.parametrize("says_since", [False, True])
def test_what_has_ended_is_said_and_final(scene: Scene, says_since: bool) -> None:
    """By name: exit 66, each time; among others: said once, and all is well; what is here stays."""
    scene.site.says_since = says_since
    for scope in (PART, ALL):
        scene.site.scopes[scope] |= {"changed": 1} if says_since else {}
    assert scene.round(now_s=NOW_S).exit_code == 0
    scene.end()
    for _ in range(2):
        report = scene.round(PART, now_s=NOW_S + DAY_S)
        assert (report.exit_code, report.is_final, report.missed) == (66, True, [])
        assert report.ended == [
            f"{PART}: all certificates in it had ended by 2027-01-15T07:43:20Z, no CRL follows;"
            f" CRL 41, its last, was over at {clock.utc_text(NOW_S + DAY_S)} and stays here"
        ]
    report = scene.round(PART, ALL, now_s=NOW_S + DAY_S)
    assert (report.exit_code, report.is_final, report.current) == (66, False, 1)
    assert (scene.path / PART / "complete.crl").read_bytes() == scene.last
    # The server says it for some hundred days only.
    scene.site.ended.clear()
    assert scene.round(PART, now_s=NOW_S + DAY_S + 4000).exit_code == 66


def test_among_others_it_is_said_once(scene: Scene) -> None:
    """And is nothing that is wrong."""
    scene.round()
    scene.end()
    report = scene.round(now_s=NOW_S + DAY_S)
    assert (report.exit_code, len(report.ended), report.current) == (0, 1, 1)
    assert scene.round(now_s=NOW_S + DAY_S).ended == []
    assert scene.round("test/*", now_s=NOW_S + DAY_S).exit_code == 0


def test_of_what_was_never_here_it_is_said_too(scene: Scene) -> None:
    """Who comes too late; and a name that there never was is missed, and may come."""
    scene.end()
    report = scene.round(PART)
    assert report.exit_code == 66
    assert report.ended[0].endswith("no CRL of it is here")
    assert scene.round("test/g1/m1/none").exit_code == 75
    assert scene.round("test/g1/m1/none", PART).exit_code == 75


def test_while_its_crl_is_in_force_nobody_is_believed_that_it_has_ended(scene: Scene) -> None:
    """It would be listed still; so somebody is wrong, and may be right another time."""
    scene.round()
    scene.end()
    report = scene.round(PART)
    assert (report.exit_code, report.ended) == (75, [])
    assert "CRL 41, which is here, is in force" in report.missed[0]


def test_one_that_comes_back_is_one_like_others(scene: Scene) -> None:
    """A restore has brought a certificate into it."""
    scene.round()
    scene.end()
    scene.round(now_s=NOW_S + DAY_S)
    newer = scene.ca.crl(42, point=directory_name(1, POINT), next_s=NOW_S + 9 * DAY_S)
    scene.site.publish(scene.ca, newer, scope=PART)
    scene.site.ended.clear()
    assert scene.round(PART, now_s=NOW_S + DAY_S + 4000).exit_code == 0
    assert CRLFolder(scene.path).ended == {}


@pytest.mark.parametrize(
    "ended",
    [
        5,
        [5],
        [{}],
        [{"scope": "../x", "ended": "2027-01-15T07:43:20Z"}],
        [{"scope": PART, "ended": 5}],
        [{"scope": PART, "ended": "soon\x1b[1m"}],
    ],
)
def test_what_names_no_scopes_is_refused(ended: Any) -> None:
    """Names become keys of notes, and are printed."""
    with pytest.raises(CRLRefused, match="have ended"):
        read_ended(json.dumps({"format": 1, "scopes": [], "ended": ended}).encode())


# --- what is said by its last CRL ----------------------------------------------------------------------


def test_its_last_crl_says_what_it_says_of_those_who_had_ended(scene: Scene) -> None:
    """Long after it was over, with a word that the scope has ended."""
    scene.round()
    scene.end()
    scene.round(now_s=NOW_S + DAY_S)
    word = f"scope {PART} has ended"
    found = scene.check(5)
    assert (found.status, found.complete) == ("revoked", 41)
    assert word in found.why
    found = scene.check(6)
    assert found.status == "good"
    assert word in found.why
    assert "was not revoked by then" in found.why


def test_a_crl_that_is_over_says_nothing_of_who_had_not_ended(scene: Scene) -> None:
    """Whoever says that the scope has ended: the certificate may have been revoked since."""
    scene.round()
    scene.end()
    scene.round(now_s=NOW_S + DAY_S)
    for until_s in (NOW_S, NOW_S + 9 * DAY_S):
        for serial in (5, 6):
            assert scene.check(serial, until_s=until_s).status == "unknown"


def test_a_list_that_drops_who_has_expired_says_that_of_those_whom_it_lists(scene: Scene) -> None:
    """Of the others nothing can be said."""
    crl = scene.ca.crl(42, listed_entry(5, 1), point=directory_name(1, POINT))
    scene.site.publish(scene.ca, crl, scope=PART)
    scene.round()
    scene.end()
    scene.round(now_s=NOW_S + DAY_S)
    assert scene.check(5).status == "revoked"
    found = scene.check(6)
    assert found.status == "unknown"
    assert "it expired on" in found.why
    assert "has ended" in found.why


# --- the command ---------------------------------------------------------------------------------------


def test_the_command_ends_where_nothing_is_left(scene: Scene) -> None:
    """Also one that goes on for ever otherwise."""
    scene.end()

    def run(*words: str) -> Result:
        given = ["crl", "mirror", scene.site.url, str(scene.path), "--scope", PART, *words]
        return CliRunner().invoke(cli, ["--json", *given], standalone_mode=False)

    for words in ([], ["--every", "3600"]):
        done = run(*words)
        assert done.return_value == 66
        assert json.loads(done.stdout)["ended"][0].startswith(f"{PART}: ")
