"""Older complete CRLs over HTTP, by number: out of the archive, to who is entitled, while retained."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from responder_cases import CA
from test_crl_files import COMPLETE, CONTENT, FILE, NOW_S, Service

from certstatus.clock import DAY_S
from certstatus.crl_catalogue import Catalogue, EndedScope
from certstatus.crl_pack import ArchiveMark, PackedCRL, issuer_mark
from publisher.crl_archive import ArchiveWriter
from responder.crl_fragments import ListedScopes

_OLD = {number: bytes([number]) * (300_000 + number) for number in (2, 3, 5)}


class Archived:
    """A service beside an archive: two CRLs in a sealed pack, one in an open one."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.ca = CA(1, "SIGN", NOW_S)
        self.service = Service(state, self.ca.issuer)
        self.service.publish(COMPLETE, FILE, CONTENT)
        self.writer = ArchiveWriter(state / "crl" / "archive")
        for number, content in _OLD.items():
            self.add(number, content)
        self.writer.seal(NOW_S - DAY_S)
        self.follow()

    def add(self, number: int, content: bytes, seq: int = 50) -> None:
        """Archive a CRL: number n on the n-th day of the last nine."""
        at_s = NOW_S - (9 - number) * DAY_S
        source = self.state / "source"
        source.write_bytes(content)
        self.writer.add(
            PackedCRL(
                path="sign/g1/all",
                issuer=issuer_mark(self.ca.issuer.spki_der),
                number=number,
                seq=seq,
                offset=0,
                size=len(content),
                this_update_s=at_s,
                next_update_s=at_s + 100,
                published_ms=at_s * 1000,
                sha256=hashlib.sha256(content).digest(),
            ),
            source,
        )

    def follow(self) -> None:
        """Let the worker hear of the archive as it is now."""
        follower = self.service.follower
        follower.standing = replace(follower.standing, archive=self.writer.mark())

    def other_mark(self) -> ArchiveMark:
        """A mark that the worker has not met yet."""
        mark = self.service.follower.standing.archive
        assert mark is not None
        return replace(mark, contents=f"{0:064x}")


@pytest.fixture
def archived(state: Path) -> Iterator[Archived]:
    """The service, stopped at the end."""
    made = Archived(state)
    yield made
    made.service.stop()


def test_an_archived_crl_is_served_by_its_number(archived: Archived) -> None:
    """Whole, from sealed and open packs alike, counted as a complete CRL; no copy outlives its end."""
    for number, content in _OLD.items():
        response, body = archived.service.ask(f"sign/g1/all/{number}.crl")
        assert (response.status, body) == (200, content)
        assert response.headers["ETag"] == f'"{hashlib.sha256(content).hexdigest()}"'
        assert response.headers["Cache-Control"].startswith("max-age=0, private")
        assert response.headers["Content-Type"] == "application/pkix-crl"
    assert archived.service.counted() == {"CRL_COMPLETE": 3}


def test_conditions_and_ranges_are_those_of_every_crl(archived: Archived) -> None:
    """304, HEAD, parts: out of the middle of a pack."""
    path = "sign/g1/all/3.crl"
    tag = archived.service.ask(path, "HEAD")[0].headers["ETag"]
    assert archived.service.ask(path, If_None_Match=tag)[0].status == 304
    response, body = archived.service.ask(path, Range="bytes=299990-")
    assert (response.status, body) == (206, _OLD[3][299_990:])
    assert archived.service.counted() == {"CRL_HEAD": 1, "CRL_NOT_MODIFIED": 1, "CRL_PARTIAL": 1}


@pytest.mark.parametrize(
    "name", ["4.crl", "6.crl", "03.crl", "3.delta.crl", "-3.crl", "3", "9999999999999999999.crl"]
)
def test_what_is_not_in_the_archive_is_not_there(archived: Archived, name: str) -> None:
    """A number never given to a complete CRL, or not written as numbers are."""
    assert archived.service.ask(f"sign/g1/all/{name}")[0].status == 404
    assert archived.service.ask("sign/g2/all/3.crl")[0].status == 404
    assert archived.service.ask("sign/g1/m1/3.crl")[0].status == 404
    assert archived.service.counted() == {}


def test_who_is_not_entitled_learns_nothing_of_the_archive(archived: Archived) -> None:
    """403 for what is there and for what is not."""
    archived.service.address = "192.0.2.1"
    for number in (3, 4):
        assert archived.service.ask(f"sign/g1/all/{number}.crl")[0].status == 403
    assert archived.service.counted() == {"REFUSED_CRL": 2}


def test_a_host_without_the_folder_has_no_older_crls(archived: Archived, tmp_path: Path) -> None:
    """404 there, where the current ones may come from elsewhere; also while no catalogue names an archive."""
    standing = archived.service.follower.standing
    archived.service.follower.standing = replace(standing, archive=None)
    assert archived.service.ask("sign/g1/all/3.crl")[0].status == 404
    archived.service.follower.standing = standing
    folder = archived.writer.folder
    folder.rename(tmp_path / "elsewhere")
    assert archived.service.ask("sign/g1/all/3.crl")[0].status == 404
    assert archived.service.ask(COMPLETE)[0].status == 200


def test_a_host_without_the_folder_calls_nothing_gone_that_others_may_have(
    archived: Archived, tmp_path: Path
) -> None:
    """Of a scope that has ended what its names led to is gone for all; what the archive keeps is not."""
    ended = {"sign/g1/all": EndedScope(1, "sign/g1/all", NOW_S - 60)}
    follower = archived.service.follower
    follower.standing = replace(
        follower.standing, listed=ListedScopes(ended=ended), catalogue=Catalogue(is_known=True)
    )
    assert archived.service.ask("sign/g1/all/3.crl")[1] == _OLD[3]
    assert archived.service.ask("sign/g1/all/4.crl")[0].status == 410
    archived.writer.folder.rename(tmp_path / "elsewhere")
    archived.service.follower.standing = replace(follower.standing, archive=archived.other_mark())
    assert archived.service.ask("sign/g1/all/3.crl")[0].status == 404
    assert archived.service.ask(COMPLETE)[0].status == 410


def test_a_list_of_packs_that_has_just_gone_is_no_reason_to_say_that_there_is_nothing(
    archived: Archived,
) -> None:
    """The publisher has made another, and the worker hears of it in a moment: 503."""
    for path in archived.writer.lists():
        path.unlink()
    assert archived.service.ask("sign/g1/all/3.crl")[0].status == 503
    archived.follow()
    assert archived.service.ask("sign/g1/all/3.crl")[1] == _OLD[3]


def test_what_the_catalogue_does_not_vouch_for_is_not_served(archived: Archived) -> None:
    """Archived since, changed in the pack, or an index of somebody's own: nothing, or 503."""
    archived.add(6, b"later")
    assert archived.service.ask("sign/g1/all/6.crl")[0].status == 404
    archived.follow()
    assert archived.service.ask("sign/g1/all/6.crl")[1] == b"later"
    pack = next(archived.writer.folder.glob("*.pack"))
    pack.write_bytes(b"!" + pack.read_bytes()[1:])
    assert archived.service.ask("sign/g1/all/2.crl")[0].status == 503
    for index in archived.writer.folder.glob("*.idx"):
        index.write_bytes(index.read_bytes()[:-10] + bytes(10))
    assert archived.service.ask("sign/g1/all/3.crl")[0].status == 503


def test_an_archived_crl_cut_beyond_what_is_applied_has_to_wait(archived: Archived) -> None:
    """As for every other: OCSP must not say `good` of what it lists."""
    archived.add(6, b"later", seq=101)
    archived.follow()
    assert archived.service.ask("sign/g1/all/6.crl")[0].status == 503
    follower = archived.service.follower
    follower.standing = replace(follower.standing, seq=101)
    assert archived.service.ask("sign/g1/all/6.crl")[1] == b"later"


def test_what_is_retained_no_longer_is_gone(archived: Archived) -> None:
    """Once the catalogue leaves its pack out, whether or not the files have gone yet."""
    names = archived.writer.names()
    follower = archived.service.follower
    follower.standing = replace(follower.standing, archive=archived.writer.mark(names[:1]))
    assert archived.service.ask("sign/g1/all/2.crl")[0].status == 404
    assert archived.service.ask("sign/g1/all/3.crl")[1] == _OLD[3]
