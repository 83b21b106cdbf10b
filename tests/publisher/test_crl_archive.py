"""The archive of complete CRLs: found while retained, gone after, and whole whatever killed its writer."""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import resource
import shutil
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from archived_octets import read_archived
from crl_cases import COMPLETE, CRLLine, short_periods
from publisher_cases import START_MS, Clock

from certstatus import clock as wall_clock
from certstatus.clock import DAY_S, jst_day_number
from certstatus.crl_archive import CRLArchive, VouchedArchive
from certstatus.crl_pack import HEADER_BYTES, PackedCRL, PackName, issuer_mark
from certstatus.errors import ArchiveDamaged, IntegrityError
from issuance.store import Store
from publisher.crl_archive import ArchiveWriter
from publisher.crl_catalogue import CataloguePublisher
from publisher.crl_publish import CRLPublisher

_ISSUER = b"i" * 16
_DAY = jst_day_number(START_MS // 1000)
# Noon in Japan of that day, and of the n-th after it.
_NOON_S = _DAY * DAY_S + 3 * 3600


def make(
    folder: Path, number: int, day: int = 0, path: str = "sign/g1/all", size: int = 500
) -> tuple[PackedCRL, Path]:
    """A row for some octets, and the file that has them."""
    content = random.Random(f"{path}{number}").randbytes(size)
    source = folder / f"{path.replace('/', '-')}-{number}.crl"
    source.write_bytes(content)
    at_s = _NOON_S + day * DAY_S
    digest = hashlib.sha256(content).digest()
    return (
        PackedCRL(path, _ISSUER, number, 9, 0, size, at_s, at_s + 100, at_s * 1000 + 5, digest),
        source,
    )


def found(folder: Path, row: PackedCRL) -> bytes | None:
    """What a reader that knows nothing yet gets for a row."""
    item = CRLArchive(folder).find(row.path, row.issuer, row.number)
    if item is None:
        return None
    assert item.crl._replace(offset=0) == row
    return read_archived(item)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where an archive may be made."""
    return tmp_path / "archive"


# --- packs ---------------------------------------------------------------------------------------------


def test_what_is_added_is_found_day_by_day_and_part_by_part(tmp_path: Path, folder: Path) -> None:
    """Against a dictionary: scopes that have no CRL on many days, numbers with gaps, days sealed and
    added to again; and what was never added is not found."""
    numbers = random.Random(5)
    writer = ArchiveWriter(folder)
    there: dict[tuple[str, int], bytes] = {}
    last = {"sign/g1/all": 0, "auth/g1/all": 10, "sign/g2/all": 7}
    for day in range(30):
        for path in list(last):
            for _ in range(numbers.choice((0, 0, 1, 3))):
                last[path] += numbers.choice((1, 1, 1000))
                row, source = make(tmp_path, last[path], day, path)
                assert writer.add(row, source)
                assert not writer.add(row, source)
                there[path, row.number] = source.read_bytes()
                if numbers.random() < 0.3:
                    # A clock that was wrong for a while: the day is taken for over, and goes on.
                    writer.seal(_NOON_S + (day + 2) * DAY_S)
        assert all(name.day == _DAY + day for name in writer.seal(_NOON_S + (day + 1) * DAY_S))
    archive = CRLArchive(folder)
    assert any(name.part > 1 for name in archive.names())
    assert len(there) > 30
    for path in (*last, "sign/g3/all"):
        # Those that are there with their neighbours, and some of the gaps.
        near = {number + step for _, number in there for step in (-1, 0, 1)}
        for number in near | set(range(0, last.get(path, 5) + 3, 17)):
            item = archive.find(path, _ISSUER, number)
            assert (None if item is None else read_archived(item)) == there.get((path, number))
    assert archive.find("sign/g1/all", b"j" * 16, last["sign/g1/all"]) is None
    everything = {(item.crl.path, item.crl.number): read_archived(item) for item in archive.everything()}
    assert everything == there


def test_the_newest_one_that_was_out(tmp_path: Path, folder: Path) -> None:
    """By the time of publication, to the millisecond; one whose time nobody wrote down is passed over."""
    writer = ArchiveWriter(folder)
    rows = [make(tmp_path, number, day) for number, day in ((1, 0), (2, 0), (5, 3), (6, 9))]
    for at, (row, source) in enumerate(rows):
        rows[at] = row._replace(published_ms=row.published_ms + row.number), source
        writer.add(*rows[at])
    unknown, source = make(tmp_path, 4, 1)
    writer.add(unknown._replace(published_ms=0), source)
    archive = CRLArchive(folder)
    for row, _ in rows:
        for late_ms in (0, -1):
            at_ms = row.published_ms + late_ms
            out = [item.number for item, _ in rows if item.published_ms <= at_ms]
            item = archive.newest_out(row.path, _ISSUER, at_ms, 0)
            assert (None if item is None else item.crl.number) == max(out, default=None)
    assert archive.newest_out("sign/g1/all", _ISSUER, rows[2][0].published_ms, _DAY + 4) is None


def test_a_sealed_pack_says_what_it_must_be(tmp_path: Path, folder: Path) -> None:
    """Rows in order; hashes of both files; the last nextUpdate.  Before its day is over it stays open."""
    writer = ArchiveWriter(folder)
    for number in (3, 1, 2):
        writer.add(*make(tmp_path, number))
    end_s = wall_clock.jst_day_end_s(_DAY)
    assert writer.seal(end_s) == []
    assert writer.seal(end_s - 10 * DAY_S) == []
    assert writer.seal(end_s + 3600) == [PackName(_DAY)]
    assert writer.seal(end_s + 3600) == []
    head = writer.header(PackName(_DAY))
    pack, index = writer.pack_path(PackName(_DAY)), writer.index_path(PackName(_DAY))
    assert head.sealed
    assert [row.number for row in writer.rows(PackName(_DAY))] == [1, 2, 3]
    assert (head.rows, head.pack_bytes) == (3, pack.stat().st_size)
    assert head.pack_sha256 == hashlib.sha256(pack.read_bytes()).digest()
    assert head.rows_sha256 == hashlib.sha256(index.read_bytes()[HEADER_BYTES:]).digest()
    assert head.last_next_update_s == _NOON_S + 100


def test_a_file_that_is_not_what_the_register_names_is_not_archived(tmp_path: Path, folder: Path) -> None:
    """Other octets, more or fewer of them, or no file: the archive is as it was, and the next one fits."""
    writer = ArchiveWriter(folder)
    first, second = make(tmp_path, 1), make(tmp_path, 2)
    writer.add(*first)
    before = writer.pack_path(PackName(_DAY)).read_bytes()
    row, source = second
    content = source.read_bytes()
    for wrong in (content[:-1] + b"!", content[:-1], content + b"!", b""):
        source.write_bytes(wrong)
        with pytest.raises(IntegrityError):
            writer.add(row, source)
        assert writer.pack_path(PackName(_DAY)).read_bytes() == before
    source.unlink()
    with pytest.raises(FileNotFoundError):
        writer.add(row, source)
    source.write_bytes(content)
    assert writer.add(row, source)
    assert found(folder, row) == content
    assert found(folder, first[0]) == before


def test_a_damaged_pack_is_damaged_there_alone(tmp_path: Path, folder: Path) -> None:
    """A flipped octet, a pack cut short, a row or an index overwritten: never other octets than were
    archived, and whatever is whole is still found."""
    rows = [make(tmp_path, number, day) for number, day in ((1, 0), (2, 0), (3, 0), (4, 1))]
    writer = ArchiveWriter(folder)
    for row, source in rows:
        writer.add(row, source)
    one, two, three, four = (row for row, _ in rows)
    pack, index = writer.pack_path(PackName(_DAY)), writer.index_path(PackName(_DAY))
    kept = tmp_path / "kept"
    shutil.copytree(folder, kept)

    def states() -> list[str]:
        said = []
        for row, source in rows:
            try:
                content = found(folder, row)
            except ArchiveDamaged:
                said.append("damaged")
                continue
            assert content in (None, source.read_bytes())
            said.append("absent" if content is None else "there")
        return said

    def overwrite(path: Path, at: int, octets: bytes) -> None:
        with path.open("r+b") as file:
            file.seek(at)
            file.write(octets)

    assert states() == ["there"] * 4
    overwrite(pack, one.size + 3, b"\0\0\0\0")
    assert states() == ["there", "damaged", "there", "there"]
    pack.write_bytes((kept / pack.name).read_bytes()[: 2 * one.size + 1])
    assert states() == ["there", "there", "damaged", "there"]
    pack.unlink()
    assert states() == ["damaged", "damaged", "damaged", "there"]
    shutil.copy(kept / pack.name, pack)
    overwrite(index, HEADER_BYTES + 5, b"xx")
    assert states() == ["absent", "there", "there", "there"]
    # What is added goes behind what is there, damaged or not.
    later = make(tmp_path, 5, path="auth/g1/all")
    ArchiveWriter(folder).add(*later)
    assert found(folder, later[0]) == later[1].read_bytes()
    assert states() == ["absent", "there", "there", "there"]
    index.write_bytes(b"nothing like an index")
    assert states() == ["absent", "absent", "absent", "there"]
    # Such a pack is nobody's to write into: the next goes into another part.
    ArchiveWriter(folder).add(two, rows[1][1])
    assert states() == ["absent", "there", "absent", "there"]
    assert pack.read_bytes()[: 3 * one.size] == (kept / pack.name).read_bytes()
    assert (three, four) == (rows[2][0], rows[3][0])


# --- killed, and full ------------------------------------------------------------------------------------

_CALLS = ("fsync", "pwrite", "ftruncate", "rename", "open", "write", "unlink")


def _do(
    what: str, rows: dict[int, tuple[PackedCRL, Path]], writer: ArchiveWriter, names: list[PackName]
) -> None:
    """What a writer is killed in; *names*: the packs there were before."""
    if what in ("first", "next"):
        writer.add(*rows[1 if what == "first" else 3])
    elif what == "seal":
        writer.seal(_NOON_S + 2 * DAY_S)
    elif what == "mark":
        writer.mark()
    else:
        writer.remove(names)


def _killed_at(step: int, archive: Path, do: Callable[[ArchiveWriter, list[PackName]], object]) -> bool:
    """Do it in a process of its own that ends by SIGKILL before its *step*-th system call that writes (from
    0), or in the middle of that; say whether it was killed."""
    child = os.fork()
    if child == 0:
        left = step
        os_pwrite = os.pwrite

        def counted(real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **named: Any) -> Any:
                nonlocal left
                if left == 0:
                    if real is os_pwrite:
                        # Half of it reaches the disk.
                        os_pwrite(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2], arguments[2])
                    os.kill(os.getpid(), signal.SIGKILL)
                left -= 1
                return real(*arguments, **named)

            return call

        try:
            writer = ArchiveWriter(archive)
            names = writer.names()
            for name in _CALLS:
                setattr(os, name, counted(getattr(os, name)))
            do(writer, names)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize("what", ["first", "next", "seal", "mark", "remove"])
def test_killed_at_any_step_nothing_is_lost_and_the_next_one_goes_on(tmp_path: Path, what: str) -> None:
    """`kill -9` before each system call that writes, and in the middle of one: what was archived before
    is, what was being archived is whole or absent, and the same again ends it."""
    after, was_killed = 0, True
    while was_killed:
        place = tmp_path / f"{what}{after}"
        place.mkdir()
        archive = place / "archive"
        rows = {number: make(place, number) for number in (1, 2, 3)}
        before = [] if what == "first" else [1, 2]
        for number in before:
            ArchiveWriter(archive).add(*rows[number])
        if what == "remove":
            assert ArchiveWriter(archive).seal(_NOON_S + 2 * DAY_S)
        was_killed = _killed_at(after, archive, partial(_do, what, rows))
        after += 1
        writer = ArchiveWriter(archive)
        if what == "remove":
            # Either all of it is still to be found, or none.
            assert {found(archive, rows[number][0]) is None for number in before} in ({True}, {False})
            writer.remove(writer.names())
            assert [path.name for path in archive.iterdir()] == [".lock"]
            continue
        for number, (row, source) in rows.items():
            content = found(archive, row)
            assert (
                content == source.read_bytes()
                if number in before
                else content
                in (
                    None,
                    source.read_bytes(),
                )
            )
        for number in (1, 2, 3):
            writer.add(*rows[number])
        writer.seal(_NOON_S + 2 * DAY_S)
        mark = writer.mark()
        assert mark.growing == ()
        for row, source in rows.values():
            assert found(archive, row) == source.read_bytes()
            item = VouchedArchive(archive, mark).find(row.path, row.issuer, row.number)
            assert item is not None
            assert read_archived(item) == source.read_bytes()
    assert after > 3


@contextmanager
def full_at(octets: int) -> Iterator[None]:
    """Let no file grow beyond so many octets, as a disk that is full does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (octets, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [20, 500])
def test_a_full_disk_leaves_the_archive_as_it_was(tmp_path: Path, folder: Path, size: int) -> None:
    """Wherever the room ends, in the pack (large CRLs) or in its index (small ones)."""
    writer = ArchiveWriter(folder)
    first, second = make(tmp_path, 1, size=size), make(tmp_path, 2, size=size)
    writer.add(*first)
    pack, index = writer.pack_path(PackName(_DAY)), writer.index_path(PackName(_DAY))
    before = pack.read_bytes(), index.read_bytes()
    needed = max(2 * size, len(before[1]) + 192)
    for octets in range(0, needed, 37):
        with full_at(octets), pytest.raises(OSError):
            writer.add(*second)
        assert (pack.read_bytes(), index.read_bytes()) == before
    with full_at(needed):
        assert writer.add(*second)
    for row, source in (first, second):
        assert found(folder, row) == source.read_bytes()
    with full_at(100), pytest.raises(OSError):
        writer.seal(_NOON_S + 2 * DAY_S)
    assert found(folder, second[0]) == second[1].read_bytes()
    assert writer.seal(_NOON_S + 2 * DAY_S) == [PackName(_DAY)]


# --- what a catalogue vouches for ------------------------------------------------------------------------


def test_only_what_the_catalogue_names_counts(tmp_path: Path, folder: Path) -> None:
    """Sealed packs by their list, open ones by their first rows; rows that came since, or other rows, not."""
    writer = ArchiveWriter(folder)
    writer.add(*make(tmp_path, 1))
    writer.seal(_NOON_S + DAY_S)
    writer.add(*make(tmp_path, 2, day=1))
    mark = writer.mark()
    writer.add(*make(tmp_path, 3, day=1))

    def numbers() -> list[int]:
        archive = VouchedArchive(folder, mark)
        return [n for n in range(5) if archive.find("sign/g1/all", _ISSUER, n) is not None]

    assert numbers() == [1, 2]
    again = writer.mark()
    assert again.contents == mark.contents
    assert len(VouchedArchive(folder, again).rows(PackName(_DAY + 1))) == 2
    other = ArchiveWriter(tmp_path / "other")
    row, source = make(tmp_path, 1)
    source.write_bytes(b"forged")
    forged = row._replace(size=6, sha256=hashlib.sha256(b"forged").digest())
    other.add(forged, source)
    other.seal(_NOON_S + DAY_S)
    shutil.copy(other.index_path(PackName(_DAY)), folder)
    # What is elsewhere is still found; of what may have been there nobody is told that it never was.
    assert VouchedArchive(folder, mark).find("sign/g1/all", _ISSUER, 2) is not None
    for number in (0, 1):
        with pytest.raises(ArchiveDamaged):
            VouchedArchive(folder, mark).find("sign/g1/all", _ISSUER, number)
    (folder / f"contents-{mark.contents[:16]}.json").write_bytes(b"{}")
    with pytest.raises(ArchiveDamaged):
        numbers()
    with pytest.raises(FileNotFoundError):
        VouchedArchive(tmp_path / "elsewhere", mark)


# --- for how long ----------------------------------------------------------------------------------------


def test_a_pack_goes_when_the_last_of_it_is_over(tmp_path: Path, folder: Path) -> None:
    """By the day after the last nextUpdate and the period of its own issuer; open packs stay; other
    periods count from then on."""
    # Years pass between two looks.
    writer = ArchiveWriter(folder, itertools.count(0, 1 << 30).__next__)
    mine, other = make(tmp_path, 1), make(tmp_path, 1, path="auth/g1/all")
    writer.add(*mine)
    writer.add(other[0]._replace(issuer=b"j" * 16), other[1])
    writer.add(*make(tmp_path, 2, day=1))
    last_s = _NOON_S + 100
    assert writer.over(last_s + 500 * DAY_S, {}, 3) == []
    writer.seal(_NOON_S + DAY_S)
    days = {_ISSUER: 3, b"j" * 16: 5}
    assert writer.over(last_s + 5 * DAY_S, days, 9) == []
    assert writer.over(last_s + 5 * DAY_S + 1, days, 9) == [PackName(_DAY)]
    assert writer.over(last_s + 5 * DAY_S + 1, {_ISSUER: 3}, 9) == []
    assert writer.over(last_s + 9 * DAY_S + 1, {_ISSUER: 3}, 9) == [PackName(_DAY)]
    assert writer.over(last_s + 3 * DAY_S + 1, dict.fromkeys(days, 3), 9) == [PackName(_DAY)]


def _mark(line: CRLLine) -> VouchedArchive:
    mark = CataloguePublisher(line.store).archive()
    assert mark is not None
    return VouchedArchive(line.state / "crl" / "archive", mark)


def test_every_published_complete_crl_is_found_until_its_day_and_gone_after(
    tmp_path: Path, clock: Clock
) -> None:
    """Over weeks, with the clock set back over midnight now and then: in the catalogue's archive while it
    is retained, on disk never longer than a day more."""
    from dataclasses import replace

    config = replace(
        short_periods("SIGN"),
        crl_archive_days=4,
        crl_period_s=20_000,
        crl_validity_s=50_000,
        delta_period_s=5_000,
        delta_validity_s=9_000,
    )
    with Store.create(f"sqlite:///{tmp_path / 'store.db'}", START_MS) as store:
        line = CRLLine(store, tmp_path, clock, config)
        mark = issuer_mark(line.issuer.spki_der)
        numbers = random.Random(3)
        found_old = gone = latest_s = 0
        for _ in range(230):
            clock.pass_s(numbers.choice((100, 7000, 16_000)))
            if numbers.random() < 0.04:
                clock.pass_s(-30_000)
            latest_s = max(latest_s, clock.ms // 1000)
            line.issue_due()
            vouched = _mark(line)
            listed = {item.number for item in line.catalogue()}
            for number in line.numbers(COMPLETE)[-40:]:
                published, content = line.seen[number, COMPLETE]
                item = vouched.find(line.path, mark, number)
                until_s = published.next_update_s + 4 * DAY_S
                if item is not None:
                    assert read_archived(item) == content
                    found_old += number not in listed
                # What was given up stays so when the clock is set back.
                if number not in listed and latest_s <= until_s:
                    assert item is not None
                if clock.ms // 1000 > until_s + 2 * DAY_S + 40_000:
                    assert item is None
                    gone += 1
        assert found_old > 100
        assert gone > 10
        days = [name.day for name in CRLArchive(tmp_path / "crl" / "archive").names()]
        assert len(days) < 10
        assert len(list((tmp_path / "crl" / "archive").glob("contents-*"))) <= 2


def test_a_crl_whose_publisher_died_is_archived_however_late(tmp_path: Path, clock: Clock) -> None:
    """Out, not archived, and expired long since when somebody comes back: archived before its file goes."""
    with Store.create(f"sqlite:///{tmp_path / 'store.db'}", START_MS) as store:
        line = CRLLine(store, tmp_path, clock, short_periods("SIGN"))
        line.issue_due()
        shutil.rmtree(tmp_path / "crl" / "archive")
        clock.pass_s(100_000)
        line.issue(True)
        clock.pass_s(100_000)
        line.issue_due()
        assert not (tmp_path / "crl/sign/g1/all/1.crl").exists()
        assert line.archived(1) == line.seen[1, COMPLETE][1]


def test_a_disk_full_for_the_archive_does_not_keep_a_crl_back(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """It is published, the failure is said, tidying fails until there is room, and then all is archived."""
    with Store.create(f"sqlite:///{tmp_path / 'store.db'}", START_MS) as store:
        line = CRLLine(store, tmp_path, clock, short_periods("SIGN"))
        line.issue_due()
        day = jst_day_number(clock.ms // 1000)
        writer = ArchiveWriter(tmp_path / "crl" / "archive")
        pack = writer.pack_path(PackName(day))
        kept = pack.read_bytes()
        pack.unlink()
        # A folder where the pack should be: as good as a full disk, also for root.
        pack.mkdir()
        clock.pass_s(10)
        line.issue(True)
        assert "not archived yet" in caplog.text
        assert max(item.number for item in line.catalogue()) == 2
        with pytest.raises(OSError):
            line.publisher.tidy(line.fence)
        pack.rmdir()
        pack.write_bytes(kept)
        line.publisher.tidy(line.fence)
        assert [line.archived(n) for n in (1, 2)] == [line.seen[n, COMPLETE][1] for n in (1, 2)]


def test_without_its_archive_a_publisher_goes_on(tmp_path: Path, clock: Clock) -> None:
    """A disk of its own that is gone: CRLs come out, the catalogue names what it named, and all is caught
    up with when it is back."""
    with Store.create(f"sqlite:///{tmp_path / 'store.db'}", START_MS) as store:
        line = CRLLine(store, tmp_path, clock, short_periods("SIGN"))
        line.issue_due()
        clock.pass_s(10)
        line.issue_due()
        archive, away = tmp_path / "crl" / "archive", tmp_path / "away"
        before = CataloguePublisher(store).archive()
        assert before is not None
        archive.rename(away)
        archive.write_bytes(b"not a folder")
        for number in (3, 4):
            clock.pass_s(1200)
            assert line.issue(True)[0].number == number
            assert CataloguePublisher(store).archive() == before
            with pytest.raises(OSError):
                line.publisher.tidy(line.fence)
        archive.unlink()
        away.rename(archive)
        line.publisher.tidy(line.fence)
        assert [line.archived(n) for n in (1, 3, 4)] == [line.seen[n, COMPLETE][1] for n in (1, 3, 4)]


# --- an earlier version's archive ------------------------------------------------------------------------


def test_single_files_of_an_earlier_version_are_packed(tmp_path: Path, clock: Clock) -> None:
    """Also one that the register does not know, by its signature; one that is damaged, or another's,
    stays where it is; one that is retained no longer goes."""
    with Store.create(f"sqlite:///{tmp_path / 'store.db'}", START_MS) as store:
        line = CRLLine(store, tmp_path, clock, short_periods("SIGN"))
        for _ in range(6):
            line.issue(True)
            clock.pass_s(3000)
        line.publisher.tidy(line.fence)
        archive = tmp_path / "crl" / "archive"
        shutil.rmtree(archive)
        singles = archive / "sign/g1/all"
        singles.mkdir(parents=True)
        for number in line.numbers(COMPLETE):
            (singles / f"{number}.crl").write_bytes(line.seen[number, COMPLETE][1])
        # Unknown to the register; damaged; another number's.
        from issuance import schema

        with store.engine.begin() as connection:
            connection.execute(schema.crl.delete().where(schema.crl.c.number.in_((2, 9))))
        (singles / "3.crl").write_bytes(line.seen[3, COMPLETE][1] + b"!")
        (singles / "9.crl").write_bytes(line.seen[2, COMPLETE][1])
        # As after an upgrade.
        upgraded = CRLPublisher(store, line.keys, tmp_path, now_ms=clock.now_ms)
        for _ in range(2):
            upgraded.tidy(line.fence)
        assert sorted(path.name for path in singles.iterdir()) == ["3.crl", "9.crl"]
        for number in line.numbers(COMPLETE):
            assert line.archived(number) == (None if number == 3 else line.seen[number, COMPLETE][1])
        item = CRLArchive(archive).find(line.scope.path, issuer_mark(line.issuer.spki_der), 2)
        assert item is not None
        assert (item.crl.published_ms, item.crl.seq) == (0, 0)
        # Another publisher, which has not refused anything yet.
        other = CRLPublisher(store, line.keys, tmp_path, now_ms=clock.now_ms, monotonic_s=clock.monotonic_s)
        other.publish_catalogue(line.fence)
        (singles / "3.crl").write_bytes(line.seen[3, COMPLETE][1])
        clock.pass_s(4000 * DAY_S)
        other.tidy(line.fence)
        assert [path.name for path in singles.iterdir()] == ["9.crl"]
        assert line.archived(3) is None
