"""Kept lists against their plain twin, the fold of the register's past; whatever became of the files."""

from __future__ import annotations

import errno
import os
import random
import resource
import shutil
import signal
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from crl_cases import short_periods
from hypothesis import given
from hypothesis import strategies as st
from publisher_cases import INDEX_KEY, START_MS, Clock

from certstatus import crl_rows_file
from certstatus.changes import ChangeKind, fingerprint, first_chain
from certstatus.crl_rows import Rows, digest_of, empty_rows, entries_of, keys_of, rows_of
from certstatus.crl_rows_file import RowsFile
from certstatus.errors import CRLCheckFailed, IllegalTransition, IntegrityError
from issuance import schema
from issuance.ca_keys import CAKeyFolder
from issuance.crl_scopes import ensure_scope, new_names
from issuance.history import RevocationChange
from issuance.issuers import create_issuer, issuer_by_id
from issuance.store import Store, make_epoch
from publisher import crl_change_rows, crl_changes, crl_list_build
from publisher.crl_change_rows import Changes
from publisher.crl_entries import delta_entries, fold
from publisher.crl_list_changes import MovedList, brought_forward, delta_rows, rows_at
from publisher.crl_lists import LISTS_FOLDER, CRLLists, ScopeNeed
from publisher.crl_scopes import CRLScope, scopes_of

_PARTS = ("n64/b00", "n64/b17", "n64/b40")


# --- one list from another -------------------------------------------------------------------------------

_KINDS = (
    ChangeKind.REVOKED,
    ChangeKind.HELD,
    ChangeKind.RELEASED,
    ChangeKind.LAPSED,
    ChangeKind.REASON_CHANGED,
)
_SERIALS = (b"\x01", b"\x05", b"\x7f\x00", b"\x00\x80", b"\xff", b"\x01" * 20, b"\x02\x00\x00")
_CHANGES = st.lists(
    st.tuples(st.sampled_from(_KINDS), st.sampled_from(_SERIALS), st.sampled_from((None, 0, 1, 4))),
    max_size=24,
)


def _changes(drawn: list[tuple[ChangeKind, bytes, int | None]]) -> list[RevocationChange]:
    return [
        RevocationChange(seq, kind, serial, reason, START_MS + seq * 5000, 0, 77 if reason == 1 else 0)
        for seq, (kind, serial, reason) in enumerate(drawn, 1)
    ]


def _folded(changes: Sequence[RevocationChange]) -> Rows:
    return rows_of(fold(changes).values())


def _joined(blocks: Iterator[Rows]) -> bytes:
    return np.concatenate([empty_rows(), *blocks]).tobytes()


@given(drawn=_CHANGES, cuts=st.tuples(st.integers(0, 24), st.integers(0, 24)), size=st.integers(1, 4))
def test_both_ways_lead_to_the_fold(
    drawn: list[tuple[ChangeKind, bytes, int | None]], cuts: tuple[int, int], size: int
) -> None:
    """From any list of before, in any pieces, whatever blocks the old list comes in."""
    changes = _changes(drawn)
    first, second = sorted(cuts)
    old, new = _folded(changes[:first]), _folded(changes)
    blocks = [old[at : at + size] for at in range(0, len(old), size)]
    assert _joined(brought_forward(blocks, Changes.of(changes[first:]))) == new.tobytes()
    moved = MovedList(lambda wanted: rows_at(old, wanted), digest_of(old))
    for piece in (changes[first:second], changes[max(first, second) :]):
        moved.apply(Changes.of(piece))
    assert _joined(moved.blocks(blocks)) == new.tobytes()
    assert moved.digest == digest_of(new)
    wanted = keys_of(change.serial for change in changes)
    assert np.sort(moved.look_up(wanted), order="key").tobytes() == new.tobytes()


# --- a register and its lists ----------------------------------------------------------------------------


class _Register:
    """An issuer with hold and three partitions, and the lists kept of it."""

    def __init__(self, url: str, state: Path, clock: Clock) -> None:
        self.url, self.state, self.clock = url, state, clock
        self.store = Store.create(url, START_MS)
        keys = CAKeyFolder(state / "ca")
        keys.make_passphrase()
        config = short_periods("PARTNER", hold=True)
        self.issuer_id = create_issuer(self.store, keys, config, clock.now_ms).issuer_id
        self.serials: list[bytes] = []
        for name in _PARTS:
            self.issue(name)
        self.lists = CRLLists(self.store, state)

    def issue(self, part: str | None) -> bytes:
        # Of several lengths, and so that neither order of issue nor length is that of the list.
        at = len(self.serials)
        serial = bytes((1 + at * 37 % 120,)) * (1 + at % 3) + at.to_bytes(2, "big")
        issuer = issuer_by_id(self.store, self.issuer_id)
        with self.store.writing(self.clock.now_ms) as act:
            scope_id = None
            if part is not None:
                scope_id = ensure_scope(act, self.issuer_id, part, new_names(issuer, part)).scope_id
            act.record(
                ChangeKind.ISSUED,
                issuer_id=self.issuer_id,
                serial=serial,
                fingerprint=fingerprint(serial, INDEX_KEY),
                not_after_s=self.clock.ms // 1000 + 10_000_000,
                scope_id=scope_id,
            )
        self.serials.append(serial)
        return serial

    def record(self, kind: ChangeKind, serial: bytes = b"", reason: int | None = None) -> None:
        self.clock.pass_s(1)
        with self.store.writing(self.clock.now_ms) as act:
            act.record(kind, issuer_id=self.issuer_id, serial=serial, reason=reason)

    def random_acts(self, numbers: random.Random, count: int) -> None:
        kinds = [*_KINDS, ChangeKind.REVOKED, ChangeKind.HELD]
        for _ in range(count):
            kind = numbers.choice(kinds)
            reason = numbers.choice((None, 1, 4)) if kind in (_KINDS[0], _KINDS[4]) else None
            try:
                if numbers.random() < 0.4:
                    self.issue(numbers.choice((None, *_PARTS)))
                else:
                    self.record(kind, numbers.choice(self.serials[-30:]), reason)
            except IllegalTransition:
                # Nothing is issued any more after a CA-key event, and states have their order.
                continue

    @property
    def scopes(self) -> list[CRLScope]:
        return scopes_of(self.store)

    def prepare(self, scopes: Sequence[CRLScope], after_seq: int | None = None) -> int:
        state = self.store.state()
        seq = state.seq
        self.lists.prepare(
            [ScopeNeed(scope, seq if after_seq is None else after_seq, seq) for scope in scopes], state
        )
        return seq

    def twin(self, scope: CRLScope, seq: int) -> Rows:
        return rows_of(fold(scope.changes(self.store, 0, seq)).values())

    def check(self, scopes: Sequence[CRLScope], *, written: bool) -> None:
        """The lists at this moment are their twins', as files or as digests."""
        seq = self.prepare(scopes)
        for scope in scopes:
            expected = self.twin(scope, seq)
            assert self.lists.digest_at(scope, seq) == digest_of(expected)
            if written:
                with self.lists.file_at(scope, seq) as file:
                    assert _joined(file.checked_blocks()) == expected.tobytes()

    def files(self, scope: CRLScope | None = None) -> list[Path]:
        folder = self.state / LISTS_FOLDER
        return sorted((folder if scope is None else folder / scope.path).rglob("*.rows"))


@pytest.fixture
def register(store_url: str, tmp_path: Path, clock: Clock) -> Iterator[_Register]:
    """On each database."""
    made = _Register(store_url, tmp_path, clock)
    yield made
    made.store.close()


def _damage(path: Path, numbers: random.Random, others: list[Path]) -> None:
    """Do to a kept file what must not be noticed but by the time it takes."""
    content = path.read_bytes()
    what = numbers.randrange(6)
    if what == 0:
        path.unlink()
    elif what == 1:
        path.write_bytes(content[: numbers.randrange(len(content))])
    elif what == 2:
        at = numbers.randrange(len(content))
        path.write_bytes(content[:at] + bytes((content[at] ^ 1 << numbers.randrange(8),)) + content[at + 1 :])
    elif what == 3:
        path.write_bytes(content + bytes(32))
    elif what == 4:
        path.write_bytes(bytes(len(content)))
    else:
        path.write_bytes(numbers.choice(others).read_bytes())


@pytest.mark.parametrize("seed", [1, 2])
def test_kept_lists_are_what_the_register_says(register: _Register, seed: int) -> None:
    """After random histories, with restarts, files that go missing or wrong, and restores in between."""
    numbers = random.Random(seed)
    for step in range(70):
        register.random_acts(numbers, numbers.randrange(6))
        chance = numbers.random()
        if chance < 0.15:
            register.lists = CRLLists(register.store, register.state)
        elif chance < 0.35 and register.files():
            paths = register.files()
            _damage(numbers.choice(paths), numbers, paths)
        elif chance < 0.4:
            shutil.rmtree(register.state / LISTS_FOLDER, ignore_errors=True)
        elif step in (25, 50):
            _restore(register)
        elif step == 60:
            register.record(ChangeKind.CA_KEY_EVENT, reason=2)
        some = numbers.sample(register.scopes, numbers.randrange(1, 5))
        register.check(some, written=numbers.random() < 0.5)
        if numbers.random() < 0.3:
            register.lists.tidy(some[0], register.store.state().seq)
    register.check(register.scopes, written=True)
    assert len(register.twin(register.scopes[0], register.store.state().seq)) > 20


def _restore(register: _Register) -> None:
    """Lose the newest changes, and begin an epoch, as a restore from a backup does."""
    state = register.store.state()
    epoch = make_epoch(register.clock.ms)
    with register.store.engine.connect() as connection:
        lost = sa.and_(schema.change.c.seq > state.seq - 5, schema.IS_REVOCATION)
        connection.execute(sa.delete(schema.change).where(lost))
        connection.execute(
            sa.update(schema.store_state).values(
                epoch=epoch, base_seq=state.seq + 100, seq=state.seq + 100, chain=first_chain(epoch)
            )
        )
        connection.commit()


def test_a_row_that_no_list_can_hold_is_named(register: _Register) -> None:
    """An older version may have recorded it: the lists it is on say which certificate that is, others are
    made."""
    late, other = register.issue(_PARTS[1]), register.issue(_PARTS[2])
    for serial in (late, other):
        register.record(ChangeKind.REVOKED, serial, 1)
    certificates = schema.certificate
    which = sa.select(certificates.c.issued_seq).where(certificates.c.serial == late.hex()).scalar_subquery()
    with register.store.engine.connect() as connection:
        connection.execute(
            sa.update(schema.change)
            .where(schema.change.c.certificate_seq == which, schema.IS_REVOCATION)
            .values(recorded_ms=(1 << 32) * 1000)
        )
        connection.commit()
    by_part = {scope.name: scope for scope in register.scopes}
    for name in ("all", _PARTS[1]):
        with pytest.raises(CRLCheckFailed, match=f"certificate {late.hex()}$"):
            register.prepare([by_part[name]])
    register.check([by_part[_PARTS[2]]], written=True)


# --- crashes ---------------------------------------------------------------------------------------------


def _killed_at(register: _Register, step: int, do: Callable[[CRLLists, Store], None]) -> bool:
    """Do it in a process of its own that ends by SIGKILL at its *step*-th act on files; say whether it was
    killed."""
    child = os.fork()
    if child == 0:
        left = step

        def counted(real: Callable[..., object]) -> Callable[..., object]:
            def act(*arguments: object, **named: object) -> object:
                nonlocal left
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                done = real(*arguments, **named)
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return done

            return act

        try:
            # ``digest_of`` is called for each block that is written.
            steps = ((Path, "rename"), (Path, "unlink"), (Path, "mkdir"), (crl_rows_file, "digest_of"))
            for owner, name in steps:
                setattr(owner, name, counted(getattr(owner, name)))
            with Store.open(register.url) as store:
                do(CRLLists(store, register.state), store)
            os._exit(0)
        except BaseException:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize("is_new", [False, True])
def test_killed_anywhere_the_next_one_goes_on(
    register: _Register, monkeypatch: pytest.MonkeyPatch, is_new: bool
) -> None:
    """Between the writing of a list and its name, before the old one goes, while lists are built anew."""
    monkeypatch.setattr(crl_list_build, "_CHANGES_AT_ONCE", 5)
    monkeypatch.setattr(crl_list_build, "_PENDING_ROWS_MAX", 4)
    numbers = random.Random(7)
    register.random_acts(numbers, 60)
    scopes = register.scopes

    def do(lists: CRLLists, store: Store) -> None:
        state = store.state()
        lists.prepare([ScopeNeed(scope, state.seq, state.seq) for scope in scopes], state)
        for scope in scopes:
            lists.file_at(scope, state.seq).close()
            lists.tidy(scope, state.seq)

    register.store.engine.dispose()
    killed = 0
    # A list that is built anew takes a hundred steps; every fifth of them does.
    for step in range(1, 400, 5 if is_new else 1):
        if is_new:
            shutil.rmtree(register.state / LISTS_FOLDER, ignore_errors=True)
        else:
            register.random_acts(numbers, 3)
            register.store.engine.dispose()
        if not _killed_at(register, step, do):
            break
        killed += 1
        register.lists = CRLLists(register.store, register.state)
        register.check(scopes, written=step % 2 == 0)
        register.store.engine.dispose()
    assert killed > 12
    seq = register.prepare(scopes)
    for scope in scopes:
        register.lists.tidy(scope, seq)
    assert list((register.state / LISTS_FOLDER).rglob(".*")) == []


def test_a_full_disk_leaves_the_old_list(register: _Register) -> None:
    """It is said, nothing torn is left, and with room the next attempt goes on."""
    numbers = random.Random(3)
    register.random_acts(numbers, 200)
    scope = register.scopes[0]
    register.check([scope], written=True)
    before = register.files(scope)
    register.random_acts(numbers, 40)
    seq = register.prepare([scope])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match="too large") as full:
            register.lists.file_at(scope, seq)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert full.value.errno == errno.EFBIG
    folder = register.state / LISTS_FOLDER / scope.path
    assert [path for path in folder.iterdir() if path.is_file()] == before
    register.check([scope], written=True)


def test_a_list_that_cannot_be_built_keeps_no_other_from_being(register: _Register) -> None:
    """In one reading of the past: an entry that no list has room for, and a place that cannot be written."""
    serial, scopes = register.issue(_PARTS[0]), register.scopes
    register.record(ChangeKind.REVOKED, serial, 1)
    register.record(ChangeKind.REVOKED, register.issue(_PARTS[1]), 1)
    # Long before any row's time.
    with register.store.engine.connect() as connection:
        connection.execute(
            sa.update(schema.change)
            .where(
                schema.change.c.kind == int(ChangeKind.REVOKED),
                schema.change.c.certificate_seq.in_(
                    sa.select(schema.certificate.c.issued_seq).where(
                        schema.certificate.c.serial == serial.hex()
                    )
                ),
            )
            .values(revoked_ms=-5_000_000)
        )
        connection.commit()
    whole, poisoned, blocked, good = scopes
    place = register.state / LISTS_FOLDER / blocked.path
    place.parent.mkdir(parents=True)
    place.write_bytes(b"")
    for scope, error in ((whole, CRLCheckFailed), (poisoned, CRLCheckFailed), (blocked, OSError)):
        with pytest.raises(error):
            register.prepare([scope])
    # Built with the first of them, for nobody asked for it before.
    assert register.files(good)
    register.check([good], written=True)
    place.unlink()
    register.check([blocked, good], written=True)


# --- what is kept ----------------------------------------------------------------------------------------


def test_an_unchanged_list_is_not_written_again(register: _Register) -> None:
    """What concerns other partitions alone gives its file another name, no other content; what comes and goes
    between two cuts changes nothing."""
    scopes = {scope.name: scope for scope in register.scopes}
    mine, other = scopes[_PARTS[0]], scopes[_PARTS[1]]
    register.record(ChangeKind.REVOKED, register.serials[0], 1)
    register.check([mine, other], written=True)
    (path,) = register.files(mine)
    inode, first = path.stat().st_ino, register.store.state().seq
    register.record(ChangeKind.REVOKED, register.serials[1], 1)
    register.record(ChangeKind.HELD, register.issue(_PARTS[0]))
    register.record(ChangeKind.RELEASED, register.serials[-1])
    register.check([mine, other], written=True)
    (path,) = register.files(mine)
    assert path.stat().st_ino == inode
    assert path.name == f"{first}-{register.store.state().seq}.rows"
    assert len(register.files(other)) == 2


def test_what_a_base_says_is_looked_up_in_its_list(register: _Register) -> None:
    """By the digest of what it says, as long as the list is kept; after that nothing is found."""
    scope = register.scopes[0]
    register.random_acts(random.Random(5), 80)
    register.check([scope], written=True)
    base_seq = register.store.state().seq
    base = register.twin(scope, base_seq)
    register.random_acts(random.Random(6), 40)
    register.check([scope], written=True)
    wanted = keys_of(set(register.serials))
    found = register.lists.rows_of_list(scope, digest_of(base), wanted)
    assert found is not None
    assert found.tobytes() == base.tobytes()
    assert register.lists.rows_of_list(scope, digest_of(base) + 1, wanted) is None
    register.lists.tidy(scope, base_seq)
    assert len(register.files(scope)) == 2
    register.lists.tidy(scope, base_seq + 1)
    assert register.lists.rows_of_list(scope, digest_of(base), wanted) is None
    register.check([scope], written=True)


def test_changes_are_read_once_for_all_scopes(register: _Register, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many scopes are asked for, and what was read before is not read again."""
    register.random_acts(random.Random(5), 40)
    register.check(register.scopes, written=True)
    asked: list[tuple[int, int]] = []
    real = Store.revocation_changes

    def noted(
        store: Store, issuer_id: int, after_seq: int, upto_seq: int, page_rows: int = 2000
    ) -> Iterator[RevocationChange]:
        asked.append((after_seq, upto_seq))
        return real(store, issuer_id, after_seq, upto_seq, page_rows)

    monkeypatch.setattr(Store, "revocation_changes", noted)
    expected = []
    for _ in range(3):
        before = register.store.state().seq
        register.random_acts(random.Random(8), 10)
        seq = register.prepare(register.scopes)
        expected.append((before, seq))
    assert asked == expected


def test_a_change_held_takes_64_bytes() -> None:
    """Also while they come, of all partitions together: a CA-key event is a change of every certificate."""

    def event(count: int) -> Iterator[RevocationChange]:
        for n in range(count):
            serial = b"\x01" + n.to_bytes(4, "big") * 3
            yield RevocationChange(7, ChangeKind.REVOKED, serial, 2, START_MS, 0, 0, 1 + n % 2000)

    held: list[tuple[int, int]] = []
    for count in (100_000, 300_000):
        tracemalloc.start()
        try:
            window = crl_changes._Window(0)
            window.add(event(count), 7)
            held.append((len(window), tracemalloc.get_traced_memory()[0]))
        finally:
            tracemalloc.stop()
    (few, few_bytes), (many, many_bytes) = held
    # Beside them room for those to come.
    assert (many_bytes - few_bytes) / (many - few) < 64 * 1.5
    rows = window.between(1999, 0, 7)
    assert len(rows) == 150
    assert rows.itemsize < 64


@given(drawn=_CHANGES, size=st.integers(1, 5))
def test_piece_by_piece_changes_make_what_they_make_at_once(
    drawn: list[tuple[ChangeKind, bytes, int | None]], size: int
) -> None:
    """Divided between certificates, in no other order, and nothing of them is lost."""
    changes = [change._replace(not_after_s=0) for change in _changes(drawn)]
    base, shown_at = _folded(changes[:6]), [4, 9, 11, 20]
    entries = {entry.serial: entry for entry in entries_of(base)}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(crl_change_rows, "_AT_ONCE", size)
        made = Changes.of(changes)
        assert list(made) == changes
        pieces = [list(piece) for piece in made.by_certificate().pieces()]
        serials = [{change.serial for change in piece} for piece in pieces]
        assert sum(map(len, serials)) == len(set().union(*serials)) == len(made.keys())
        after = [change for change in made if change.seq > 6]
        said = delta_rows(base, Changes.of(after), shown_at)
    assert said.tobytes() == rows_of(delta_entries(entries, after, shown_at)).tobytes()


def test_a_window_of_many_changes_is_let_go_of(register: _Register, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that nobody asks for any more; and what lies further back is read when it is asked for."""
    monkeypatch.setattr(crl_changes, "_KEPT_MAX", 10)
    scope = register.scopes[0]
    for _ in range(8):
        register.random_acts(random.Random(5), 30)
        register.check([scope], written=True)
        seq = register.store.state().seq
        assert len(register.lists.changes._windows[register.issuer_id]) < 60
    register.prepare([scope], after_seq=0)
    expected = [change._replace(not_after_s=0) for change in scope.changes(register.store, 0, seq)]
    assert list(register.lists.changes.of(scope, 0, seq)) == expected
    with pytest.raises(ValueError, match="not read"):
        register.lists.changes.of(scope, 0, seq + 1)


def test_merged_and_looked_up_must_be_the_same(register: _Register, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look-up that misses a row makes no list, and those that there were are given up."""
    scope = register.scopes[0]
    register.random_acts(random.Random(5), 60)
    held = register.issue(None)
    register.record(ChangeKind.HELD, held)
    register.check([scope], written=True)
    register.record(ChangeKind.REVOKED, held, 1)
    seq = register.prepare([scope])
    monkeypatch.setattr(register.lists, "_look_up", lambda _kept, _wanted: empty_rows())
    with pytest.raises(IntegrityError, match="not the same"):
        register.lists.file_at(scope, seq)
    assert register.files(scope) == []
    register.lists = CRLLists(register.store, register.state)
    register.check([scope], written=True)


def test_a_file_is_one_of_its_scope(register: _Register) -> None:
    """Under another scope's name it is not believed."""
    mine, other = register.scopes[1:3]
    register.random_acts(random.Random(5), 60)
    register.check([mine, other], written=True)
    (path,), (theirs,) = register.files(mine), register.files(other)
    shutil.copy(theirs, path)
    with RowsFile(path) as file:
        assert file.head.rows
    register.check([mine], written=True)
