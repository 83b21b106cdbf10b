"""Closed partitions: CRLs go on while anything in them needs one, and not for ever."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from crl_cases import COMPLETE, published_entries, short_periods
from issuer_cases import PublishedIssuer
from publisher_cases import START_MS, Clock

from certstatus.changes import ChangeKind
from certstatus.crl_archive import CRLArchive
from certstatus.crl_catalogue import CatalogueEntry
from certstatus.crl_pack import issuer_mark
from certstatus.errors import PolicyViolation
from issuance import schema
from issuance.act import RECOVERED
from issuance.crl_scopes import ScopeRecord, close_scope, partitions
from issuance.issuers import issuer_by_id
from issuance.restore_scopes import lift_scopes, read_scopes
from issuance.store import Store
from publisher.catalogue_lines import ENDED_TOLD_S
from publisher.crl_catalogue import read_published
from publisher.crl_plan import Due, IssuedCRL, is_over
from publisher.crl_publish import crl_lease
from publisher.crl_retire import GROUND
from publisher.crl_run import CRLRun
from publisher.crl_scopes import CRLScope
from publisher.lease import held

PART, OTHER = "m1/13104", "m1/13113"
PATH = f"sign/g1/{PART}"
STEP_S = 500


class Line(PublishedIssuer):
    """An issuer with two partitions, and the builder's run."""

    def __init__(self, store: Store, state: Path, clock: Clock) -> None:
        config = replace(short_periods("SIGN"), delta_period_s=1000, delta_validity_s=2500)
        super().__init__(store, state, clock, config)
        self.lease = crl_lease(store, clock.now_ms)
        self.run = CRLRun(self.publisher, self.lease, now_ms=clock.now_ms, monotonic_s=clock.monotonic_s)

    def issue(self, scope: str, life_s: int, *, revoked: bool = False) -> bytes:
        serial = self.issue_one(life_s, scope)
        if revoked:
            self.record(ChangeKind.REVOKED, serial, 1)
        return serial

    def recover(self, scope: str, life_s: int) -> None:
        """Record a certificate as a restore does that knows it by its revocation alone."""
        self.issue_one(life_s, scope_id=self.scope(scope).scope_id, origin=RECOVERED)

    def close(self, scope: str = PART) -> None:
        close_scope(self.store, self.issuer_id, scope, self.clock.now_ms)

    def work(self, seconds: int) -> None:
        """Let the builder work for so long, a look every five hundred seconds, and tidy in the end."""
        for _ in range(seconds // STEP_S):
            self.clock.pass_s(STEP_S)
            while self.run.step():
                pass
        with held(self.lease, 0) as fence:
            self.publisher.tidy(fence)

    def scope(self, name: str = PART) -> ScopeRecord:
        with self.store.reading() as connection:
            return next(item for item in partitions(connection)[self.issuer_id] if item.name == name)

    def number(self, name: str = PART) -> int:
        with self.store.reading() as connection:
            return int(read_scopes(connection).rows[self.issuer_id, name]["last_number"])

    def served(self, name: str = PART) -> list[CatalogueEntry]:
        lines = published_entries(self.store)
        return [line for line in lines if line.scope == name]


@pytest.fixture
def line(tmp_path: Path, clock: Clock) -> Iterator[Line]:
    """Two partitions, the first of which is closed at once by most tests."""
    with Store.create(f"sqlite:///{tmp_path / 'store.db'}", START_MS) as store:
        made = Line(store, tmp_path, clock)
        made.issue(PART, 1200)
        made.issue(OTHER, 1200)
        yield made


def test_when_all_has_ended_no_crl_follows(line: Line) -> None:
    """On record; what is out stays until its nextUpdate, then only the archive has it; others go on."""
    line.close()
    line.work(1000)
    assert line.scope().retired_seq is None
    assert [entry.current for entry in line.served() if entry.kind == COMPLETE].count(True) == 1
    for _ in range(6):
        line.work(STEP_S)
        scope = line.scope()
        if scope.retired_seq is not None:
            break
    assert scope.retired_seq is not None
    with line.store.reading() as connection:
        ground = connection.execute(
            sa.select(schema.change.c.ground, schema.change.c.detail).where(
                schema.change.c.seq == scope.retired_seq
            )
        ).one()
    assert tuple(ground) == (GROUND, f'{{"scope": "{PART}"}}')
    number, served = line.number(), line.served()
    (newest,) = [entry for entry in served if entry.kind == COMPLETE and entry.current]
    assert newest.this_update_s > START_MS // 1000 + 1200
    # Nothing is promised beyond it.
    assert newest.next_issue_s == newest.next_update_s
    others = line.number(OTHER)
    line.work(newest.next_update_s - line.clock.ms // 1000 + STEP_S)
    assert line.served() == []
    assert line.served(OTHER)
    line.work(4000)
    assert line.number() == number
    assert line.number(OTHER) > others
    assert not list((line.state / "crl" / PATH).glob("*.crl"))
    issuer = line.issuer
    archive = CRLArchive(line.state / "crl" / "archive")
    assert archive.find(PATH, issuer_mark(issuer.spki_der), newest.number) is not None


def test_a_crl_that_was_never_published_ends_nothing(line: Line) -> None:
    """Its publisher was killed before the pointer moved; once a catalogue has named it, it counts."""
    line.close()
    line.work(1000)
    line.clock.pass_s(1000)
    scope = CRLScope(issuer_by_id(line.store, line.issuer_id), line.scope())
    with held(line.lease, 0) as fence:
        line.publisher.make(scope, Due(True, False), fence)
        assert not line.publisher.retire_if_over(scope, fence)
        line.publisher.publish_catalogue(fence)
        assert line.publisher.retire_if_over(scope, fence)


def _ended(line: Line) -> list[tuple[str, int]]:
    found = line.store.publication("crls")
    assert found is not None
    return [(scope.path, scope.ended_s) for scope in read_published(line.store, found).root.ended]


def test_what_has_ended_is_told_once_its_crls_are_over(line: Line) -> None:
    """By the catalogue, for a while; not while one of them is out, nor of one that goes on."""
    end_s = line.clock.ms // 1000 + 1200
    line.close()
    while line.scope().retired_seq is None:
        line.work(STEP_S)
    assert line.served()
    assert _ended(line) == []
    while line.served():
        line.work(STEP_S)
    assert _ended(line) == [(PATH, end_s)]
    # By a publisher that has just begun, too, and it is no news to it.
    generation = line.store.publication("crls").generation  # type: ignore[union-attr]
    listing = line.another()
    with held(line.lease, 0) as fence:
        listing.publish_catalogue(fence)
    assert line.store.publication("crls").generation == generation  # type: ignore[union-attr]
    line.recover(PART, 100_000)
    line.work(STEP_S)
    assert _ended(line) == []


def test_that_a_scope_has_ended_is_not_told_for_ever(line: Line) -> None:
    """Or the catalogue would grow with the years."""
    line.close()
    line.work(6000)
    assert [path for path, _ in _ended(line)] == [PATH]
    line.clock.pass_s(ENDED_TOLD_S)
    line.work(STEP_S)
    assert _ended(line) == []


def test_on_each_database(store_url: str, tmp_path: Path, clock: Clock) -> None:
    """The end of one is looked for with the ends of all that are closed."""
    with Store.create(store_url, START_MS) as store:
        line = Line(store, tmp_path, clock)
        line.issue(PART, 500, revoked=True)
        line.issue(OTHER, 7000)
        for name in (PART, OTHER):
            line.close(name)
        line.work(4500)
        assert line.scope().retired_seq is not None
        assert line.scope(OTHER).retired_seq is None
        assert line.scope(OTHER).last_end_s == START_MS // 1000 + 7000


def test_asked_for_it_says_that_none_follows(line: Line) -> None:
    """By hand as by the schedule; of the rest CRLs are made."""
    line.close()
    line.work(4500)
    scope = CRLScope(line.issuer, line.scope())
    with held(line.lease, 0) as fence, pytest.raises(PolicyViolation, match="no other follows"):
        line.publisher.make(scope, Due(True, False), fence)
    assert PATH not in {each.path for each in line.publisher.not_over(line.publisher.scopes())}


def test_an_open_partition_goes_on_although_all_in_it_has_ended(line: Line) -> None:
    """Somebody may be issued into it tomorrow."""
    line.work(4500)
    assert line.scope().retired_seq is None
    assert line.served()


def test_while_one_certificate_has_not_ended_it_goes_on(line: Line) -> None:
    """The last of several counts."""
    line.issue(PART, 20_000)
    line.close()
    line.work(4500)
    assert line.scope().retired_seq is None
    assert line.scope().last_end_s == START_MS // 1000 + 20_000


def test_an_entry_leaves_first(line: Line) -> None:
    """As long as it is on the list, so is the list; then the other scopes' entries lapse as ever."""
    line.issue(PART, 500, revoked=True)
    kept = line.issue(OTHER, 6500, revoked=True)
    line.close()
    line.work(6000)
    table = schema.certificate
    scope = line.scope()
    with line.store.reading() as connection:
        lapsed = connection.execute(
            sa.select(table.c.lapsed_seq).where(table.c.scope_id == scope.scope_id, table.c.state != 1)
        ).scalar_one()
    assert lapsed is not None
    assert scope.retired_seq is not None
    assert lapsed < scope.retired_seq
    # That one partition has no new CRL keeps nothing on the others' lists.
    line.work(5000)
    with line.store.reading() as connection:
        assert connection.execute(
            sa.select(table.c.lapsed_seq).where(table.c.serial == kept.hex())
        ).scalar_one()


def test_where_entries_are_kept_the_list_is(tmp_path: Path, clock: Clock) -> None:
    """expired_entries = keep: an entry that never leaves needs its CRL."""
    with Store.create(f"sqlite:///{tmp_path / 'store.db'}", START_MS) as store:
        line = Line(store, tmp_path, clock)
        with store.writing(clock.now_ms) as act:
            act.connection.execute(
                sa.update(schema.issuer).values(
                    policy=issuer_by_id(store, 1).policy.as_json().replace('"lapse"', '"keep"')
                )
            )
        line.issue(PART, 500, revoked=True)
        line.close()
        line.work(4500)
        assert line.scope().retired_seq is None
        assert line.served()


def test_a_clock_far_ahead_for_a_while_retires_nothing(line: Line) -> None:
    """A CRL past the end must have been out for its period, by a clock that says so all the while."""
    line.issue(PART, 1_000_000)
    line.close()
    line.work(2000)
    line.clock.ms += 10**10
    line.work(500)
    assert line.scope().retired_seq is None
    line.clock.ms -= 10**10
    before = line.number()
    line.work(2500)
    assert line.scope().retired_seq is None
    assert line.number() > before


def test_a_clock_that_was_ahead_for_long_and_is_set_back_brings_crls_back(line: Line) -> None:
    """Whatever the record says: while the last certificate has not ended, there are CRLs."""
    line.issue(PART, 1_000_000)
    line.close()
    line.work(2000)
    line.clock.ms += 10**10
    line.work(3500)
    assert line.scope().retired_seq is not None
    line.clock.ms -= 10**10
    before = line.number()
    line.work(2500)
    assert line.number() > before
    assert line.served()


def test_what_comes_back_into_a_retired_partition_brings_its_crls_back(line: Line) -> None:
    """A restore may find that somebody was revoked in it, of whom the backup knows nothing."""
    line.close()
    line.work(4500)
    assert line.scope().retired_seq is not None
    line.recover(PART, 2000)
    assert (line.scope().retired_seq, line.scope().last_end_s) == (None, None)
    before = line.number()
    line.work(2000)
    assert line.number() > before
    assert line.served()
    line.work(4500)
    assert line.scope().retired_seq is not None


def test_after_a_restore_it_is_judged_anew(line: Line) -> None:
    """By what the restored register holds: here nothing came back, so it is retired again."""
    line.close()
    line.work(4500)
    number, retired_seq = line.number(), line.scope().retired_seq
    with line.store.writing(line.clock.now_ms) as act:
        issuers = [line.issuer]
        lift_scopes(act.connection, issuers, read_scopes(act.connection), {}, 1000)
    assert (line.scope().retired_seq, line.scope().last_end_s) == (None, None)
    assert line.number() == number + 1000
    line.work(2500)
    assert (line.scope().retired_seq or 0) > (retired_seq or 0)


def test_the_decision() -> None:
    """Both the CRL's date and the clock on the wall lie after the last end, which must be known."""
    complete = IssuedCRL(7, 70, 1001, 2000)
    assert is_over(1000, complete, 1001)
    assert not is_over(1000, complete, 1000)
    assert not is_over(1001, complete, 5000)
    assert not is_over(None, complete, 5000)
    assert not is_over(1000, None, 5000)
