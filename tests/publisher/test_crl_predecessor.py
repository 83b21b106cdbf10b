"""A complete CRL against its predecessor: what the register has lost or altered is not published."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from crl_cases import COMPLETE, DELTA, CRLLine, short_periods
from hypothesis import given
from hypothesis import strategies as st
from publisher_cases import START_MS, Clock

from certstatus.changes import ChangeKind, first_chain
from certstatus.crl_entry import CRLEntry
from certstatus.crl_rows import Rows, rows_of
from certstatus.crl_rows_file import RowsFile, write_rows
from certstatus.errors import CertStatusError, CRLCheckFailed, IntegrityError, UnknownCertificate
from issuance import schema
from issuance.store import Store, make_epoch
from publisher.crl_change_rows import Changes
from publisher.crl_compare import compare, differences
from publisher.crl_lists import LISTS_FOLDER
from publisher.crl_predecessor import FINDING, check_against, predecessor
from publisher.crl_publish import CRLPublisher


@pytest.fixture
def line(tmp_path: Path, clock: Clock) -> Iterator[CRLLine]:
    """A SIGN issuer, three of whose certificates are on a published complete CRL."""
    with Store.create(f"sqlite:///{tmp_path / 'store.db'}", START_MS) as store:
        made = CRLLine(store, tmp_path, clock, short_periods("SIGN"))
        for serial in [made.issue_certificate() for _ in range(4)][:3]:
            made.record(ChangeKind.REVOKED, serial, 1)
            clock.pass_s(1)
        made.issue(True)
        clock.pass_s(5)
        yield made


def _execute(line: CRLLine, statement: sa.Executable) -> None:
    with line.store.engine.connect() as connection:
        connection.execute(statement)
        connection.commit()


_REVOKED = schema.change.c.kind == int(ChangeKind.REVOKED)


@pytest.mark.parametrize(
    "damage",
    [
        sa.delete(schema.change).where(_REVOKED, schema.change.c.reason == 1),
        sa.update(schema.change).where(_REVOKED).values(recorded_ms=START_MS + 1_500),
        sa.update(schema.change).where(_REVOKED).values(reason=4),
        sa.update(schema.change).where(_REVOKED).values(invalidity_s=START_MS // 1000 - 50),
    ],
    ids=["lost", "another date", "another reason", "another invalidity date"],
)
def test_what_the_register_lost_or_altered_is_not_published(
    line: CRLLine, clock: Clock, damage: sa.Executable
) -> None:
    """A list built anew that its predecessor and the changes since do not give stays unpublished, the old one
    stays up, and its number is used."""
    with line.store.engine.connect() as connection:
        kept = connection.execute(sa.select(schema.change).where(_REVOKED)).mappings().all()
    _execute(line, damage)
    shutil.rmtree(line.state / LISTS_FOLDER)
    line.record(ChangeKind.REVOKED, line.serials[3], 5)
    with pytest.raises(CRLCheckFailed) as caught:
        line.issue(True)
    assert caught.value.findings == [FINDING]
    assert [(entry.number, entry.kind) for entry in line.catalogue()] == [(1, COMPLETE)]
    files = [path.name for path in (line.state / "crl" / "sign/g1/all").iterdir()]
    assert files == ["1.crl"]
    # Once the register is as it was, the next one is published, under another number.
    for row in kept:
        _execute(line, sa.delete(schema.change).where(schema.change.c.seq == row["seq"]))
        _execute(line, sa.insert(schema.change).values(**row))
    clock.pass_s(5)
    complete, _ = line.issue(True)
    assert (complete.number, complete.entries) == (3, 4)


@pytest.mark.parametrize("is_restarted", [False, True])
def test_what_the_register_lost_stays_on_the_kept_list(line: CRLLine, is_restarted: bool) -> None:
    """Nobody is taken off a list because a row of the past is gone."""
    _execute(line, sa.delete(schema.change).where(_REVOKED))
    if is_restarted:
        line.publisher = CRLPublisher(line.store, line.keys, line.state, now_ms=line.clock.now_ms)
    line.record(ChangeKind.REVOKED, line.serials[3], 5)
    complete, _ = line.issue(True)
    assert complete.entries == 4


def test_a_kept_list_that_went_wrong_is_not_published(line: CRLLine, clock: Clock) -> None:
    """Another list in its file, whole and by its own digest right, does not fit to the predecessor; it is
    given up, and the next CRL goes by the register."""
    (path,) = (line.state / LISTS_FOLDER).rglob("*.rows")
    with RowsFile(path) as file:
        head, rows = file.head, np.concatenate([*file.blocks()])
    rows["revoked_at"][1] -= 1
    write_rows(path, head, [rows])
    with pytest.raises(CRLCheckFailed) as caught:
        line.issue(True)
    assert caught.value.findings == [FINDING]
    assert list((line.state / LISTS_FOLDER).rglob("*.rows")) == []
    clock.pass_s(5)
    complete, _ = line.issue(True)
    assert {entry.serial: entry for entry in line.parsed(complete.number, COMPLETE).entries} == line.list_at(
        line.seq_of(complete.number)
    )


def test_a_predecessor_known_to_be_wrong_is_done_without(line: CRLLine, clock: Clock) -> None:
    """Its file moved away, a complete CRL is made alone, and deltas go on from that."""
    _execute(line, sa.update(schema.change).where(_REVOKED).values(reason=4))
    shutil.rmtree(line.state / LISTS_FOLDER)
    with pytest.raises(CRLCheckFailed):
        line.issue(True)
    line.seen[1, COMPLETE][0].file.rename(line.state / "wrong.crl")
    (alone,) = line.issue(True)
    assert (alone.kind, alone.entries) == (COMPLETE, 3)
    clock.pass_s(5)
    (delta,) = line.issue(False)
    assert (delta.kind, delta.base_number) == (DELTA, alone.number)


def test_a_damaged_predecessor_says_nothing(line: CRLLine, clock: Clock) -> None:
    """Bytes that are not those registered are no evidence: put aside, and the next attempt does without."""
    (second, _) = line.issue(True)
    clock.pass_s(5)
    second.file.write_bytes(second.file.read_bytes()[:-1] + b"\x00")
    with pytest.raises(IntegrityError):
        line.issue(True)
    assert [item.kind for item in line.issue(True)] == [COMPLETE, DELTA]


@pytest.mark.parametrize("place", ["serial", "date", "signature"])
def test_what_a_disk_lost_of_a_predecessor_holds_nothing_up_for_good(
    line: CRLLine, clock: Clock, place: str
) -> None:
    """Octets that change under a file that looks the same: it is read whole again and put aside, by the same
    process, and CRLs go on."""
    path = line.state / "crl" / "sign/g1/all/1.crl"
    found, content = path.stat(), bytearray(path.read_bytes())
    serial_at = content.find(line.serials[1])
    content[{"serial": serial_at, "date": serial_at + 8 + 2 + 11, "signature": -1}[place]] ^= 2
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    line.record(ChangeKind.REVOKED, line.serials[3], 5)
    made = []
    for _ in range(4):
        with suppress(CertStatusError):
            made += line.issue(True)
        clock.pass_s(5)
    complete = max(item.number for item in made if item.kind == COMPLETE)
    entries = {entry.serial: entry for entry in line.parsed(complete, COMPLETE).entries}
    assert entries == line.list_at(line.seq_of(complete))


def test_what_differs_is_said_and_nothing_is_changed_by_asking(line: CRLLine, clock: Clock) -> None:
    """Lost, altered and added ones by number, with what each side says; a damaged file stays where it is."""
    path = line.scope.path
    same = compare(line.store, line.state, path, clock.ms // 1000)
    assert (same.differences, same.entries) == ([], 3)
    first, second = line.serials[:2]
    one = schema.change.c.seq
    with line.store.engine.connect() as connection:
        seqs = list(connection.execute(sa.select(one).where(_REVOKED).order_by(one)).scalars())
    _execute(line, sa.delete(schema.change).where(one == seqs[0]))
    _execute(line, sa.update(schema.change).where(one == seqs[1]).values(reason=4))
    line.record(ChangeKind.REVOKED, line.serials[3], 5)
    before = line.store.state(), sorted((line.state / "crl").rglob("*"))
    found = compare(line.store, line.state, path, clock.ms // 1000)
    assert found.predecessor is not None
    assert (found.predecessor.number, found.entries) == (1, 3)
    published = line.list_at(line.seq_of(1))
    assert [item.serial for item in found.differences] == [first, second]
    assert (found.differences[0].published, found.differences[0].register) == (
        CRLEntry(first, START_MS // 1000, 1),
        None,
    )
    assert found.differences[1].published == found.differences[1].register._replace(reason=1)  # type: ignore[union-attr]
    assert second in published
    assert (line.store.state(), sorted((line.state / "crl").rglob("*"))) == before
    file = line.seen[1, COMPLETE][0].file
    file.write_bytes(file.read_bytes()[:-1] + b"\x00")
    with pytest.raises(IntegrityError):
        compare(line.store, line.state, path, clock.ms // 1000)
    assert file.exists()
    file.rename(line.state / "away.crl")
    alone = compare(line.store, line.state, path, clock.ms // 1000)
    assert (alone.predecessor, alone.differences) == (None, [])
    with pytest.raises(UnknownCertificate):
        compare(line.store, line.state, "sign/g2/all", clock.ms // 1000)


def test_before_a_restore_nothing_is_a_predecessor(line: CRLLine, clock: Clock) -> None:
    """What was lost with a store is not missed by the first list of the new epoch."""
    state = line.store.state()
    epoch = make_epoch(clock.ms)
    _execute(line, sa.delete(schema.change).where(_REVOKED))
    _execute(
        line,
        sa.update(schema.store_state).values(
            epoch=epoch, base_seq=state.seq + 100, seq=state.seq + 100, chain=first_chain(epoch)
        ),
    )
    records = line.store.crls(line.issuer_id, "all")
    assert predecessor(records, 0) == records[0]
    assert predecessor(records, state.seq + 100) is None
    (alone,) = line.issue(True)
    assert (alone.kind, alone.entries) == (COMPLETE, 0)


def test_the_changes_since_are_what_may_differ(line: CRLLine) -> None:
    """With the changes between them two lists fit together, and without them they do not."""
    line.record(ChangeKind.REASON_CHANGED, line.serials[0], 3)
    line.record(ChangeKind.REVOKED, line.serials[3], 4)
    line.issue(True)
    before, after = ([rows_of(line.list_at(line.seq_of(number)).values())] for number in (1, 2))
    changes = list(line.store.revocation_changes(line.issuer_id, line.seq_of(1), line.seq_of(2)))
    assert len(changes) == 2
    check_against(before, Changes.of(changes), after)
    for part in (changes[:1], changes[1:], []):
        with pytest.raises(CRLCheckFailed):
            check_against(before, Changes.of(part), after)


def _blocks(serials: dict[int, int], size: int) -> Iterator[Rows]:
    rows = rows_of(CRLEntry(serial.to_bytes(2, "big"), at) for serial, at in serials.items())
    return iter([rows[start : start + size] for start in range(0, len(rows), size)])


_LISTS = st.dictionaries(st.integers(0x100, 0x11F), st.integers(1, 2), max_size=24)


@given(_LISTS, _LISTS, st.integers(1, 9), st.integers(1, 9))
def test_two_lists_differ_where_they_do(
    one: dict[int, int], other: dict[int, int], size: int, other_size: int
) -> None:
    """However they are divided into blocks, and whichever ends first; each certificate once, in order."""
    found = list(differences(_blocks(one, size), _blocks(other, other_size)))
    told = [
        (
            int.from_bytes(item.serial, "big"),
            item.published and item.published.revoked_at_s,
            item.register and item.register.revoked_at_s,
        )
        for item in found
    ]
    assert told == [
        (serial, one.get(serial), other.get(serial))
        for serial in sorted(one.keys() | other.keys())
        if one.get(serial) != other.get(serial)
    ]
