"""A folder kept current from a list of CRLs: what is fetched, what is refused, and what stays."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mirror_cases import DAY_S, NOW_S, Asked, CRLSite, MirrorCA, directory_name, listed_entry

from certstatus.crl_folder import CRLFolder
from certstatus.crl_listing import join_listing, next_since, scopes_sha256
from certstatus.crl_mirror import WHOLE_LIST_S, MirrorReport, mirror_round
from certstatus.crl_server import CRLServer
from certstatus.crl_trust import read_trusted_ca
from certstatus.errors import CRLRefused, FetchFailed, FolderBusy, NotEntitled

SCOPE = "test/g1/all"
COMPLETE = f"{SCOPE}/complete.crl"
DELTA = f"{SCOPE}/delta.crl"
REVOKED = listed_entry(0x1001, 1)
# Some hundred kilobytes: several blocks.
MANY = [listed_entry(0x5000_0000_0000_0000 + at, 4) for at in range(12_000)]


POINTS = {code: directory_name(1, f"m1/{code}") for code in ("13101", "13102")}


def _name(code: str) -> str:
    return f"test/g1/m1/{code}"


class Mirror:
    """A site, a CA, and a folder that is kept current from it."""

    def __init__(self, folder: Path) -> None:
        self.site = CRLSite()
        self.ca = MirrorCA()
        self.path = folder
        self.trust(self.ca)

    def trust(self, ca: MirrorCA) -> None:
        """Trust a CA."""
        folder = CRLFolder(self.path)
        with folder.locked():
            folder.trust(read_trusted_ca(ca.pem, "ca"))

    def round(self, *patterns: str, now_s: int = NOW_S, bytes_max: int = 1 << 30) -> MirrorReport:
        """One round by a process of its own, as far as memory goes."""
        folder, server = CRLFolder(self.path), CRLServer(self.site.url)
        try:
            with folder.locked():
                return mirror_round(server, folder, now_s, patterns, bytes_max)
        finally:
            server.close()

    def crls(self) -> dict[str, bytes]:
        """All CRLs in the folder."""
        return {
            path.relative_to(self.path).as_posix(): path.read_bytes() for path in self.path.rglob("*.crl")
        }

    def parts(self) -> list[int]:
        """Octets of each transfer that has not ended."""
        return [path.stat().st_size for path in (self.path / ".parts").glob("*")]


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[Mirror]:
    made = Mirror(tmp_path / "dir")
    yield made
    made.site.stop()


# --- what is fetched ---------------------------------------------------------------------------------


def test_the_first_round_fetches_all_and_the_next_nothing(mirror: Mirror) -> None:
    """Complete before delta; then one conditional question for the list, and the folder as it was."""
    complete, delta = mirror.ca.crl(5, REVOKED), mirror.ca.crl(6, base=5)
    mirror.site.publish(mirror.ca, complete, delta)
    report = mirror.round()
    assert (report.exit_code, report.current) == (0, 1)
    assert report.fetched == [f"{SCOPE} complete 5", f"{SCOPE} delta 6"]
    assert report.octets == len(complete) + len(delta)
    assert mirror.crls() == {COMPLETE: complete, DELTA: delta}
    assert mirror.site.paths() == ["/crl/", f"/crl/{SCOPE}/5.crl", f"/crl/{SCOPE}/6.delta.crl"]
    before = {path: path.stat().st_mtime_ns for path in mirror.path.rglob("*.crl")}
    report = mirror.round()
    assert (report.exit_code, report.current, report.fetched) == (0, 1, [])
    (asked,) = mirror.site.asked
    assert asked.path == "/crl/"
    assert asked.condition is not None
    assert {path: path.stat().st_mtime_ns for path in mirror.path.rglob("*.crl")} == before
    assert mirror.parts() == []


def test_a_delta_does_where_its_base_is_not_newer_than_what_is_here(mirror: Mirror) -> None:
    """A complete CRL comes only once in its own time: when no delta fits it any more."""
    mirror.site.publish(mirror.ca, mirror.ca.crl(5), mirror.ca.crl(6, base=5))
    mirror.round()
    mirror.site.paths()
    # A newer complete CRL is out, and the delta says all that it says.
    delta = mirror.ca.crl(9, REVOKED, base=4)
    mirror.site.publish(mirror.ca, mirror.ca.crl(8, REVOKED), delta)
    assert mirror.round().fetched == [f"{SCOPE} delta 9"]
    assert mirror.site.paths() == ["/crl/", f"/crl/{SCOPE}/9.delta.crl"]
    assert mirror.round().fetched == []
    # Its base is newer than what is here.
    mirror.site.publish(mirror.ca, mirror.ca.crl(12), mirror.ca.crl(13, base=8))
    assert mirror.round().fetched == [f"{SCOPE} complete 12", f"{SCOPE} delta 13"]
    # A delta that says less than the newer complete CRL does not do in its place.
    mirror.site.publish(mirror.ca, mirror.ca.crl(15), mirror.ca.crl(14, base=12))
    assert mirror.round().fetched == [f"{SCOPE} complete 15"]
    # The two of one cut say the same; whoever has the older base takes the delta.
    mirror.site.publish(mirror.ca, mirror.ca.crl(16), mirror.ca.crl(16, base=15))
    assert mirror.round().fetched == [f"{SCOPE} delta 16"]
    assert mirror.round().exit_code == 0


def test_without_a_delta_the_complete_crl_is_replaced(mirror: Mirror) -> None:
    """A service that publishes no deltas."""
    mirror.site.publish(mirror.ca, mirror.ca.crl(1))
    mirror.round()
    newer = mirror.ca.crl(2, REVOKED)
    mirror.site.publish(mirror.ca, newer)
    assert mirror.round().fetched == [f"{SCOPE} complete 2"]
    assert mirror.crls() == {COMPLETE: newer}


def test_only_scopes_that_were_asked_for(mirror: Mirror) -> None:
    """By pattern; one that matches nothing is no success."""
    for code in ("13101", "13102"):
        point = directory_name(1, code)
        mirror.site.publish(mirror.ca, mirror.ca.crl(1, point=point), scope=f"test/g1/m1/{code}")
    assert mirror.round("test/*/13102").fetched == ["test/g1/m1/13102 complete 1"]
    report = mirror.round("other/*", "test/*")
    assert report.fetched == ["test/g1/m1/13101 complete 1"]
    assert (report.exit_code, report.missed) == (75, ["other/*: no scope in the list matches"])


def _one_changed_of(mirror: Mirror, count: int) -> MirrorReport:
    """Have so many scopes mirrored, then one of them changed: what the second round reports."""
    for code in range(count):
        point = directory_name(1, str(code))
        mirror.site.publish(mirror.ca, mirror.ca.crl(1, point=point), scope=f"test/g1/n64/b{code}")
    assert mirror.round().current == count
    mirror.site.paths()
    changed = mirror.ca.crl(2, REVOKED, point=directory_name(1, "7"))
    mirror.site.publish(mirror.ca, changed, scope="test/g1/n64/b7")
    return mirror.round()


def test_many_scopes_take_one_connection_and_one_list(mirror: Mirror) -> None:
    """A change of one scope of two hundred is one file."""
    report = _one_changed_of(mirror, 200)
    assert (report.current, report.fetched) == (200, ["test/g1/n64/b7 complete 2"])
    assert mirror.site.paths() == ["/crl/", "/crl/test/g1/n64/b7/2.crl"]


# --- transfers that end early ------------------------------------------------------------------------


def test_a_torn_transfer_goes_on_where_it_ended(mirror: Mirror) -> None:
    """Within a round, and in the next one after that: no octet twice, nothing served half."""
    crl = mirror.ca.crl(1, *MANY)
    mirror.site.publish(mirror.ca, crl)
    place = f"/crl/{SCOPE}/1.crl"
    mirror.site.cut_after[place] = 100_000
    report = mirror.round()
    assert report.exit_code == 75
    assert "300000 of" in report.missed[0]
    assert mirror.crls() == {}
    assert mirror.parts() == [300_000]
    asked = [item for item in mirror.site.asked if item.path == place]
    assert [item.range for item in asked] == [None, "bytes=100000-", "bytes=200000-"]
    assert {item.condition for item in asked[1:]} == {f'"{hashlib.sha256(crl).hexdigest()}"'}
    mirror.site.asked.clear()
    del mirror.site.cut_after[place]
    assert mirror.round().exit_code == 0
    assert mirror.site.asked[-1].range == "bytes=300000-"
    assert mirror.crls() == {COMPLETE: crl}
    assert mirror.parts() == []


def test_a_server_without_ranges_sends_the_whole(mirror: Mirror) -> None:
    """200 in answer to a range: from the beginning, not behind what is there."""
    crl = mirror.ca.crl(1, *MANY)
    mirror.site.publish(mirror.ca, crl)
    mirror.site.has_ranges = False
    mirror.site.cut_after[f"/crl/{SCOPE}/1.crl"] = 100_000
    assert mirror.round().exit_code == 75
    assert mirror.parts() == [100_000]
    mirror.site.cut_after.clear()
    assert mirror.round().exit_code == 0
    assert mirror.crls() == {COMPLETE: crl}


def test_a_part_of_something_else_is_found_out(mirror: Mirror) -> None:
    """Octets that are not the file's beginning: the hash says so, and the next round starts anew."""
    crl = mirror.ca.crl(1, *MANY)
    mirror.site.publish(mirror.ca, crl)
    folder = CRLFolder(mirror.path)
    folder.part(hashlib.sha256(crl).hexdigest()).write_bytes(b"x" * 1000)
    report = mirror.round()
    assert report.exit_code == 65
    assert "SHA-256" in report.refused[0]
    assert mirror.crls() == {}
    assert mirror.round().exit_code == 0


def test_parts_that_nobody_wants_any_more_go(mirror: Mirror) -> None:
    """The next CRL is out before the transfer of the last one ended."""
    mirror.site.publish(mirror.ca, mirror.ca.crl(1, *MANY))
    mirror.site.cut_after[f"/crl/{SCOPE}/1.crl"] = 1000
    mirror.round()
    assert mirror.parts() == [3000]
    mirror.site.publish(mirror.ca, mirror.ca.crl(2))
    assert mirror.round().exit_code == 0
    assert mirror.parts() == []


@pytest.mark.parametrize("status", [404, 500, 503, 301, 403])
def test_what_cannot_be_had_now_leaves_the_rest_as_it_is(mirror: Mirror, status: int) -> None:
    """One file fails: exit 75, the others come, and the old one stays."""
    other = directory_name(1, "other")
    old = mirror.ca.crl(1)
    mirror.site.publish(mirror.ca, old)
    mirror.round()
    mirror.site.publish(mirror.ca, mirror.ca.crl(2))
    mirror.site.publish(mirror.ca, mirror.ca.crl(2, point=other), scope="test/g1/other")
    mirror.site.status[f"/crl/{SCOPE}/2.crl"] = status
    report = mirror.round()
    assert (report.exit_code, report.fetched) == (75, ["test/g1/other complete 2"])
    assert str(status) in report.missed[0]
    assert mirror.crls()[COMPLETE] == old


def test_without_a_list_there_is_nothing_to_go_by(mirror: Mirror) -> None:
    """Refused, or no server at all: an error of the whole round."""
    mirror.site.status["/crl/"] = 403
    with pytest.raises(NotEntitled, match="not registered"):
        mirror.round()
    mirror.site.status["/crl/"] = 503
    with pytest.raises(FetchFailed, match="503"):
        mirror.round()
    mirror.site.stop()
    with pytest.raises(FetchFailed, match="refused"):
        mirror.round()


@pytest.mark.parametrize(
    "url", ["ftp://x/crl/", "http://", "http://x:y/", "http://x/crl/?a", "http://x/ä", "x", "http://x/a b"]
)
def test_only_urls_that_can_be_asked_for(url: str) -> None:
    """http or https, and a place."""
    with pytest.raises(CRLRefused):
        CRLServer(url)


# --- what is refused ---------------------------------------------------------------------------------


def _line(kind: str, member: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(line: dict[str, Any]) -> None:
        line[kind][member] = value

    return change


OLD = 20


def _same_number(site: CRLSite, ca: MirrorCA) -> None:
    site.publish(ca, ca.crl(OLD, REVOKED))


def _rolled_back(site: CRLSite, ca: MirrorCA) -> None:
    site.publish(ca, ca.crl(OLD - 1))


def _dated_before(site: CRLSite, ca: MirrorCA) -> None:
    site.publish(ca, ca.crl(OLD + 1, this_s=NOW_S - 200))


def _expired(site: CRLSite, ca: MirrorCA) -> None:
    site.publish(ca, ca.crl(OLD + 1, next_s=NOW_S))


def _from_the_future(site: CRLSite, ca: MirrorCA) -> None:
    site.publish(ca, ca.crl(OLD + 1, this_s=NOW_S + 301))


def _other_generation(site: CRLSite, ca: MirrorCA) -> None:
    site.publish(ca, MirrorCA(2).crl(OLD + 1))


def _other_key_under_its_name(site: CRLSite, ca: MirrorCA) -> None:
    site.publish(ca, MirrorCA().crl(OLD + 1, key_id=ca.key_id))


def _other_ca(site: CRLSite, ca: MirrorCA) -> None:
    site.publish(ca, MirrorCA(name="Another").crl(OLD + 1, key_id=ca.key_id))


def _other_number(site: CRLSite, ca: MirrorCA) -> None:
    site.publish(ca, ca.crl(OLD + 1), change=_line("complete", "number", OLD + 2))


def _other_scope(site: CRLSite, ca: MirrorCA) -> None:
    site.publish(ca, ca.crl(OLD + 1, point=directory_name(1, "m1/13101")))


def _without_point(site: CRLSite, ca: MirrorCA) -> None:
    site.publish(ca, ca.crl(OLD + 1, point=None))


def _a_delta_for_a_complete_one(site: CRLSite, ca: MirrorCA) -> None:
    site.publish(ca, ca.crl(OLD + 1, base=OLD))


def _flipped(site: CRLSite, ca: MirrorCA) -> None:
    site.publish(ca, ca.crl(OLD + 1))
    place = f"/crl/{SCOPE}/{OLD + 1}.crl"
    crl = bytearray(site.files[place])
    crl[-1] ^= 1
    site.files[place] = bytes(crl)


def _flipped_and_listed_so(site: CRLSite, ca: MirrorCA) -> None:
    _flipped(site, ca)
    sha256 = hashlib.sha256(site.files[f"/crl/{SCOPE}/{OLD + 1}.crl"]).hexdigest()
    site.scopes[SCOPE]["complete"]["sha256"] = sha256


def _longer(site: CRLSite, ca: MirrorCA) -> None:
    site.publish(ca, ca.crl(OLD + 1))
    site.files[f"/crl/{SCOPE}/{OLD + 1}.crl"] += b"x"


def _no_crl(site: CRLSite, ca: MirrorCA) -> None:
    site.publish(ca, ca.crl(OLD + 1))
    site.files[f"/crl/{SCOPE}/{OLD + 1}.crl"] = b"<html>"
    site.scopes[SCOPE]["complete"] |= {"size": 6, "sha256": hashlib.sha256(b"<html>").hexdigest()}


def _huge(site: CRLSite, ca: MirrorCA) -> None:
    site.publish(ca, ca.crl(OLD + 1, *MANY))


def _delta_of_other_scope(site: CRLSite, ca: MirrorCA) -> None:
    delta = ca.crl(OLD + 1, base=OLD, point=directory_name(1, "m1/13101"))
    site.publish(ca, site.files[f"/crl/{SCOPE}/{OLD}.crl"], delta)


def _untrusted(site: CRLSite, _ca: MirrorCA) -> None:
    other = MirrorCA()
    site.publish(other, other.crl(OLD + 1))


WRONG = [
    (_same_number, "another one than it was before"),
    (_rolled_back, "rolled back"),
    (_dated_before, "dated before"),
    (_expired, "expired at 2027-01-15T08:00:00Z"),
    (_from_the_future, "dated 2027-01-15T08:05:01Z"),
    (_other_generation, "not of key"),
    (_other_key_under_its_name, "signature does not verify"),
    (_other_ca, "of CN=Another, not of CN=Test CA"),
    (_other_number, "not what the list says"),
    (_other_scope, "distribution point"),
    (_without_point, "distribution point"),
    (_a_delta_for_a_complete_one, "not what the list says"),
    (_flipped, "SHA-256"),
    (_flipped_and_listed_so, "signature does not verify"),
    (_longer, "more than the"),
    (_no_crl, "not a CRL"),
    (_huge, "at most 300000 are taken"),
    (_delta_of_other_scope, "distribution point"),
    (_untrusted, "no CA certificate for key"),
]


@pytest.mark.parametrize(("make", "said"), WRONG, ids=[make.__name__.strip("_") for make, _ in WRONG])
def test_nothing_wrong_takes_the_place_of_what_is_good(
    mirror: Mirror, make: Callable[[CRLSite, MirrorCA], None], said: str
) -> None:
    """Exit 65, a line that says why, and every file as it was; what is right afterwards is taken."""
    mirror.site.publish(mirror.ca, mirror.ca.crl(OLD))
    assert mirror.round().exit_code == 0
    before = mirror.crls()
    make(mirror.site, mirror.ca)
    try:
        report = mirror.round(bytes_max=300_000)
    except CRLRefused as exc:
        report = MirrorReport(refused=[str(exc)])
    assert report.exit_code == 65
    assert said in report.refused[0]
    assert mirror.crls() == before
    assert mirror.parts() == []
    newer = mirror.ca.crl(OLD + 5)
    mirror.site.publish(mirror.ca, newer)
    assert mirror.round().exit_code == 0
    assert mirror.crls() == {COMPLETE: newer}


def test_two_scopes_cannot_have_one_distribution_point(mirror: Mirror) -> None:
    """A partition's CRL under the name of another: whichever comes second is refused."""
    point = directory_name(1, "m1/13101")
    mirror.site.publish(mirror.ca, mirror.ca.crl(1, point=point), scope="test/g1/m1/13101")
    mirror.site.publish(mirror.ca, mirror.ca.crl(2, point=point), scope="test/g1/m1/13102")
    report = mirror.round()
    assert (report.exit_code, report.fetched) == (65, ["test/g1/m1/13101 complete 1"])
    assert "that of test/g1/m1/13101" in report.refused[0]


@pytest.mark.parametrize("scope", [COMPLETE, f"{COMPLETE}/x", "ca/first.cer", "test/g1/ALL.CRL/x"])
def test_a_scope_cannot_be_called_as_a_file_of_the_folder_is(mirror: Mirror, scope: str) -> None:
    """Though its CRL is right: a folder of that name would be in the way of the file from then on."""
    mirror.site.publish(mirror.ca, mirror.ca.crl(1, point=POINTS["13101"]), scope=scope)
    with pytest.raises(CRLRefused):
        mirror.round()
    mirror.site.scopes.clear()
    mirror.site.publish(mirror.ca, right := mirror.ca.crl(1))
    assert mirror.round().exit_code == 0
    assert mirror.crls() == {COMPLETE: right}


def test_what_is_in_the_way_keeps_no_other_scope_from_coming(mirror: Mirror) -> None:
    """Folders where files belong, from whenever they are: their scopes alone are refused, until they go."""
    (mirror.path / COMPLETE).mkdir(parents=True)
    (mirror.path / "ca" / "first.cer").mkdir()
    (mirror.path / "test/g1/m1").write_bytes(b"")
    right = mirror.ca.crl(1)
    mirror.site.publish(mirror.ca, right)
    mirror.site.publish(mirror.ca, mirror.ca.crl(1, point=POINTS["13101"]), scope=_name("13101"))
    mirror.site.publish(mirror.ca, other := mirror.ca.crl(1, point=POINTS["13102"]), scope="test/g1/other")
    report = mirror.round()
    assert (report.exit_code, report.fetched) == (65, ["test/g1/other complete 1"])
    assert ["in the way" in line for line in report.refused] == [True, True]
    assert (mirror.path / "test/g1/other/complete.crl").read_bytes() == other
    (mirror.path / COMPLETE).rmdir()
    (mirror.path / "test/g1/m1").unlink()
    assert mirror.round().exit_code == 0
    assert (mirror.path / COMPLETE).read_bytes() == right


# --- a server that lied for a while --------------------------------------------------------------------


def _swapped(mirror: Mirror) -> bytes:
    """Under the name of one municipality stands the other's CRL, which its CA signed."""
    crl = mirror.ca.crl(900, point=POINTS["13102"])
    mirror.site.publish(mirror.ca, crl, scope=_name("13101"))
    assert mirror.round().exit_code == 0
    mirror.site.scopes.clear()
    return crl


def _rightly(mirror: Mirror, second: bytes) -> dict[str, bytes]:
    """Both as they are, the first with a low number."""
    crls = {"13101": mirror.ca.crl(12, point=POINTS["13101"]), "13102": second}
    for code, crl in crls.items():
        mirror.site.publish(mirror.ca, crl, scope=_name(code))
    return {f"{_name(code)}/complete.crl": crl for code, crl in crls.items()}


@pytest.mark.parametrize("is_newer", [False, True])
def test_crls_under_wrong_names_give_way_to_those_whose_names_they_are(
    mirror: Mirror, is_newer: bool
) -> None:
    """Though numbers of the one are far above the other's; and all the time each point is there."""
    second = _swapped(mirror)
    right = _rightly(mirror, mirror.ca.crl(901, point=POINTS["13102"]) if is_newer else second)
    first = mirror.round()
    assert "rolled back" in first.refused[0]
    assert mirror.crls()[f"{_name('13102')}/complete.crl"] == right[f"{_name('13102')}/complete.crl"]
    assert mirror.round().exit_code == 0
    assert mirror.crls() == right
    assert mirror.round().exit_code == 0


def test_a_crl_under_a_name_that_is_none_keeps_the_right_name_from_nothing(mirror: Mirror) -> None:
    """The name was invented, and is in no list any more."""
    crl = mirror.ca.crl(5)
    mirror.site.publish(mirror.ca, crl, scope="test/g1/invented")
    mirror.round()
    mirror.site.scopes.clear()
    mirror.site.publish(mirror.ca, crl)
    assert mirror.round().exit_code == 0
    assert mirror.crls()[COMPLETE] == crl


def test_a_wrong_name_lasts_as_long_as_its_crl_at_most(mirror: Mirror) -> None:
    """Where only one of them is mirrored, nobody shows whose the other is."""
    _rightly(mirror, _swapped(mirror))
    later = mirror.ca.crl(13, point=POINTS["13101"], next_s=NOW_S + 9 * DAY_S)
    mirror.site.publish(mirror.ca, later, scope=_name("13101"))
    pattern = _name("13101")
    assert mirror.round(pattern).exit_code == 65
    assert mirror.round(pattern, now_s=NOW_S + DAY_S).exit_code == 0
    assert mirror.crls() == {f"{pattern}/complete.crl": later}


def test_a_crl_without_end_under_a_wrong_name_gives_way_too(mirror: Mirror) -> None:
    """The last CRL of another list: the list has it under its own name."""
    last = mirror.ca.crl(1 << 62, next_s=253_402_300_799, point=POINTS["13102"])
    mirror.site.publish(mirror.ca, last, scope=_name("13101"))
    mirror.round()
    mirror.site.publish(mirror.ca, right := mirror.ca.crl(12, point=POINTS["13101"]), scope=_name("13101"))
    assert "rolled back" in mirror.round(_name("13101")).refused[0]
    mirror.site.publish(mirror.ca, last, scope=_name("13102"))
    assert mirror.round(_name("13101")).exit_code == 0
    assert mirror.crls() == {f"{_name('13101')}/complete.crl": right}


def test_under_a_name_that_gives_way_numbers_of_a_point_rise_all_the_same(mirror: Mirror) -> None:
    """What was here of a point, under whichever name, nothing older of it follows."""
    mirror.site.publish(mirror.ca, mirror.ca.crl(5), scope="test/g1/invented")
    mirror.round()
    mirror.site.scopes.clear()
    mirror.site.publish(mirror.ca, mirror.ca.crl(4))
    assert "5 was here before: rolled back" in mirror.round().refused[0]
    mirror.site.publish(mirror.ca, mirror.ca.crl(6, this_s=NOW_S - 200))
    assert "dated before" in mirror.round().refused[0]
    mirror.site.publish(mirror.ca, mirror.ca.crl(5, REVOKED))
    assert "another one than it was before" in mirror.round().refused[0]
    assert COMPLETE not in mirror.crls()


def test_a_delta_goes_with_the_series_that_it_was_of(mirror: Mirror) -> None:
    """It changes nothing of a list of another point, whatever its numbers."""
    mirror.site.publish(
        mirror.ca,
        mirror.ca.crl(5, point=POINTS["13102"]),
        mirror.ca.crl(40, base=5, point=POINTS["13102"]),
        scope=_name("13101"),
    )
    mirror.round()
    mirror.site.scopes.clear()
    right = _rightly(mirror, mirror.ca.crl(41, point=POINTS["13102"]))
    mirror.round()
    assert mirror.round().exit_code == 0
    assert mirror.crls() == right
    assert mirror.round(now_s=NOW_S + DAY_S).exit_code == 65


def test_another_keys_crl_does_not_take_the_place_of_what_is_good(mirror: Mirror) -> None:
    """Both are trusted, and the list says that the name is now the other's."""
    second = MirrorCA(2)
    mirror.trust(second)
    mirror.site.publish(mirror.ca, good := mirror.ca.crl(5))
    mirror.round()
    mirror.site.publish(second, second.crl(6))
    report = mirror.round()
    assert report.exit_code == 65
    assert "distribution point" in report.refused[0]
    assert mirror.crls() == {COMPLETE: good}


@pytest.mark.parametrize("says_since", [False, True])
def test_what_a_list_said_wrongly_is_asked_for_again(mirror: Mirror, says_since: bool) -> None:
    """A number that there is not, and a generation that lies far ahead: the next list is a whole one."""
    mirror.site.says_since = says_since
    right = mirror.ca.crl(5)
    mirror.site.publish(mirror.ca, right)
    true = dict(mirror.site.scopes[SCOPE])
    mirror.site.publish(mirror.ca, right, change=_line("complete", "by_number", "/crl/none.crl"))
    if says_since:
        mirror.site.generation = 10**15
    assert mirror.round().exit_code == 75
    mirror.site.scopes[SCOPE] = true
    mirror.site.generation = 1
    # Whatever tag or generation was told: nothing is asked on condition of it.
    mirror.site.asked.clear()
    assert mirror.round().exit_code == 0
    assert mirror.site.asked[0] == Asked("/crl/", None, None)
    assert mirror.crls() == {COMPLETE: right}


def test_a_list_is_asked_for_whole_every_hour(mirror: Mirror) -> None:
    """What an old list left out, and no difference to it names, is not missed for longer."""
    mirror.site.says_since = True
    mirror.site.publish(mirror.ca, mirror.ca.crl(5))
    # Somebody replays it, with the generation of days to come.
    mirror.site.generation = 10**15
    assert mirror.round().exit_code == 0
    mirror.site.generation = 1
    newer = mirror.ca.crl(6)
    mirror.site.publish(mirror.ca, newer)
    assert mirror.round(now_s=NOW_S + WHOLE_LIST_S - 1).fetched == []
    assert mirror.round(now_s=NOW_S + WHOLE_LIST_S).fetched == [f"{SCOPE} complete 6"]
    # A clock that was ahead for a while puts nothing off.
    mirror.site.asked.clear()
    mirror.round(now_s=NOW_S)
    assert mirror.site.asked[0] == Asked("/crl/", None, None)


# --- lists that are none -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"scope": "../../etc"},
        {"scope": "/etc/x"},
        {"scope": "test"},
        {"scope": ".parts/x"},
        {"key_id": "../x"},
        {"complete": {"number": 1}},
        {"complete": 5},
        {"complete": {"number": 1, "size": 0, "sha256": "0" * 64, "by_number": "/crl/x"}},
        {"delta": []},
    ],
)
def test_a_list_that_is_none_is_refused_as_a_whole(mirror: Mirror, change: dict[str, Any]) -> None:
    """Names become folders, so they are looked at before anything is done."""
    mirror.site.publish(mirror.ca, mirror.ca.crl(1), change=lambda line: line.update(change))
    with pytest.raises(CRLRefused, match="list of CRLs"):
        mirror.round()
    assert mirror.crls() == {}


@pytest.mark.parametrize("place", ["http://elsewhere/x", "//elsewhere/x", "/crl/../x", "crl/x", 7])
def test_files_are_fetched_from_the_lists_server_only(mirror: Mirror, place: object) -> None:
    """A list does not lead to other hosts."""
    mirror.site.publish(mirror.ca, mirror.ca.crl(1), change=_line("complete", "by_number", place))
    with pytest.raises(CRLRefused, match="list of CRLs"):
        mirror.round()


def test_when_nothing_newer_comes_the_old_one_is_said_to_be_over(mirror: Mirror) -> None:
    """The list stands still: the folder is current as long as what is in it is in force."""
    mirror.site.publish(mirror.ca, mirror.ca.crl(1), mirror.ca.crl(2, base=1, next_s=NOW_S + 2 * DAY_S))
    assert mirror.round().exit_code == 0
    # Joined to the delta, the complete CRL is good for as long as the delta is.
    assert mirror.round(now_s=NOW_S + DAY_S).exit_code == 0
    report = mirror.round(now_s=NOW_S + 2 * DAY_S)
    assert (report.exit_code, report.current) == (65, 0)
    assert "nothing newer is listed" in report.refused[0]


# --- the folder --------------------------------------------------------------------------------------


def test_a_damaged_file_is_fetched_anew(mirror: Mirror) -> None:
    """Also where the list is unchanged; and its number still cannot be rolled back."""
    crl = mirror.ca.crl(7)
    mirror.site.publish(mirror.ca, crl)
    mirror.round()
    (mirror.path / COMPLETE).write_bytes(crl[:-1] + b"\0")
    assert mirror.round().fetched == [f"{SCOPE} complete 7"]
    assert mirror.crls() == {COMPLETE: crl}
    (mirror.path / COMPLETE).unlink()
    mirror.site.publish(mirror.ca, mirror.ca.crl(6))
    assert "rolled back" in mirror.round().refused[0]


def test_lost_notes_are_made_again_from_the_files(mirror: Mirror) -> None:
    """Nothing is fetched twice, and numbers still only rise."""
    mirror.site.publish(mirror.ca, mirror.ca.crl(7), mirror.ca.crl(8, base=7))
    mirror.round()
    for damage in (b"", b"{", b'{"format": 1, "files": {"x": {}}}'):
        (mirror.path / "mirror.json").write_bytes(damage)
        report = mirror.round()
        assert (report.exit_code, report.fetched) == (0, [])
    (mirror.path / "mirror.json").unlink()
    mirror.site.publish(mirror.ca, mirror.ca.crl(6))
    assert "rolled back" in mirror.round().refused[0]


def test_one_folder_has_one_writer(mirror: Mirror) -> None:
    """A second one is told at once; after the first it may."""
    mirror.site.publish(mirror.ca, mirror.ca.crl(1))
    with CRLFolder(mirror.path).locked(), pytest.raises(FolderBusy):
        mirror.round()
    assert mirror.round().exit_code == 0


def test_another_generation_is_mirrored_beside_the_first(mirror: Mirror) -> None:
    """Two keys of one name: each scope by its own, once it is trusted."""
    second = MirrorCA(2)
    mirror.site.publish(mirror.ca, mirror.ca.crl(1))
    mirror.site.publish(second, second.crl(1), scope="test/g2/all")
    report = mirror.round()
    assert (report.exit_code, report.current) == (65, 1)
    assert second.key_id.hex() in report.refused[0]
    mirror.trust(second)
    report = mirror.round()
    assert (report.exit_code, report.current, report.fetched) == (0, 2, ["test/g2/all complete 1"])


# --- what changed in the list ------------------------------------------------------------------------


@given(st.data())
def test_differences_joined_are_the_list(data: st.DataObject) -> None:
    """From any list on, over any changes, scopes that go and come; or the whole list is asked for."""
    names = [f"test/g1/m1/{code}" for code in range(6)]
    changed: dict[str, int] = {}
    kept: bytes | None = None
    for generation in range(1, data.draw(st.integers(2, 8))):
        for name in data.draw(st.sets(st.sampled_from(names))):
            changed[name] = generation
        for name in data.draw(st.sets(st.sampled_from(names), max_size=1)):
            changed.pop(name, None)
        if kept is None or data.draw(st.booleans()):
            whole = _list(changed, generation)
            since = 0 if kept is None else next_since(kept)
            joined = None if kept is None else join_listing(kept, _list(changed, generation, since))
            if joined is not None:
                assert json.loads(joined) == json.loads(whole)
            else:
                # Only where the names are others than those that the differences tell of.
                assert kept is None or not set(_names(kept)) <= changed.keys()
            kept = whole if joined is None else joined


def _list(changed: dict[str, int], generation: int, since: int = 0) -> bytes:
    scopes = [
        {"scope": name, "changed": at, "said": f"{name} at {at}"}
        for name, at in sorted(changed.items())
        if at > since
    ]
    said: dict[str, Any] = {"format": 1, "generation": generation, "since": since, "next": generation}
    said |= {"scopes_sha256": scopes_sha256(sorted(changed)), "scopes": scopes}
    return json.dumps(said).encode()


def _names(listing: bytes) -> list[str]:
    return [item["scope"] for item in json.loads(listing)["scopes"]]


def test_what_is_no_difference_is_not_joined() -> None:
    """Then the whole list is asked for; a server that knows no differences gives it at once."""
    before = _list({"a": 1, "b": 2}, 2)
    assert next_since(before) == 2
    for none in (b"{", b"[]", b'{"next": "2"}', b'{"next": -1}', b'{"next": true}', b"{}"):
        assert next_since(none) == 0
        assert join_listing(before, none) is None
        assert join_listing(none, _list({"a": 1, "b": 3}, 3, 2)) is None
    assert join_listing(before, whole := _list({"a": 3}, 3)) == whole
    assert join_listing(before, _list({"a": 1, "b": 3}, 3, 1)) is None
    assert join_listing(before, _list({"a": 1, "b": 3, "c": 1}, 3, 2)) is None


def test_a_round_asks_for_what_changed(mirror: Mirror) -> None:
    """Of many scopes one line; and for all of them where scopes have gone."""
    mirror.site.says_since = True
    report = _one_changed_of(mirror, 50)
    assert (report.current, report.fetched) == (50, ["test/g1/n64/b7 complete 2"])
    assert mirror.site.paths() == ["/crl/?since=50", "/crl/test/g1/n64/b7/2.crl"]
    noted = (mirror.path / "list.json").stat().st_mtime_ns
    assert mirror.round().current == 50
    assert mirror.site.paths() == ["/crl/?since=51"]
    assert (mirror.path / "list.json").stat().st_mtime_ns == noted
    del mirror.site.scopes["test/g1/n64/b3"]
    assert mirror.round().current == 49
    assert mirror.site.paths() == ["/crl/?since=51", "/crl/"]
