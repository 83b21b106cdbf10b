"""The time by which packs leave the archive: a clock that is wrong for a while takes hardly any."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from crl_cases import COMPLETE, CRLLine, short_periods
from hypothesis import given
from hypothesis import strategies as st
from publisher_cases import START_MS, Clock

from certstatus.clock import DAY_S
from certstatus.crl_archive import CRLArchive
from issuance.store import Store
from publisher.crl_archive import ArchiveWriter
from publisher.crl_retention import FILE, GAIN, RetentionTime

YEARS_S = 11 * 365 * DAY_S


def test_a_clock_years_ahead_takes_no_pack_and_back_again_all_is_there(tmp_path: Path, clock: Clock) -> None:
    """Ahead for hours, through a restart of the builder, over CRLs made meanwhile: every complete CRL that
    was out is found, then and afterwards; and what is over by a clock that is right still goes."""
    from dataclasses import replace

    config = replace(short_periods("SIGN"), crl_archive_days=3, crl_period_s=40_000, crl_validity_s=90_000)
    with Store.create(f"sqlite:///{tmp_path / 'store.db'}", START_MS) as store:
        line = CRLLine(store, tmp_path, clock, config)
        for _ in range(20):
            clock.pass_s(20_000)
            line.issue_due()
        there = {number for number in line.numbers(COMPLETE) if line.archived(number) is not None}
        assert len(there) > 6
        assert len(there) < len(line.numbers(COMPLETE))
        clock.ms += YEARS_S * 1000
        for hour in range(6):
            if hour == 3:
                line.publisher = line.another()
            line.issue_due()
            assert {number for number in there if line.archived(number) is None} == set()
            clock.pass_s(3600)
        clock.ms -= YEARS_S * 1000
        line.issue_due()
        assert {number for number in there if line.archived(number) is None} == set()
        # Right again, it goes on as ever.
        for _ in range(40):
            clock.pass_s(20_000)
            line.issue_due()
        assert {number for number in there if line.archived(number) is not None} == set()


def test_what_missed_the_archive_gets_there_also_when_the_clock_is_ahead(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file goes because it looks long over, and only then."""
    with Store.create(f"sqlite:///{tmp_path / 'store.db'}", START_MS) as store:
        line = CRLLine(store, tmp_path, clock, short_periods("SIGN"))
        with monkeypatch.context() as killed:
            killed.setattr(ArchiveWriter, "add_all", lambda _writer, crls: [None for _ in crls])
            line.issue(True)
        assert line.archived(1) is None
        line.publisher = line.another()
        line.publisher.publish_catalogue(line.fence)
        clock.ms += YEARS_S * 1000
        line.issue_due()
        clock.pass_s(10)
        line.publisher.tidy(line.fence)
        assert line.archived(1) == line.seen[1, COMPLETE][1]


@given(
    steps=st.lists(
        st.tuples(st.integers(-50 * DAY_S, 50 * DAY_S), st.integers(0, 5 * DAY_S), st.booleans()), max_size=30
    )
)
def test_it_never_leads_and_gains_a_day_a_day_at_most(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, int, bool]]
) -> None:
    """However the clock is set and whenever the process begins anew."""
    folder = tmp_path_factory.mktemp("archive")
    clock = Clock()
    made = RetentionTime(CRLArchive(folder), clock.monotonic_s)
    before_s = made.limit(clock.ms // 1000)
    for set_by_s, passed_s, is_restarted in steps:
        clock.ms += set_by_s * 1000
        clock.pass_s(passed_s)
        if is_restarted:
            clock.steady_s = 7.0
            made = RetentionTime(CRLArchive(folder), clock.monotonic_s)
        time_s = made.limit(clock.ms // 1000)
        assert time_s <= clock.ms // 1000
        if (folder / FILE).exists():
            assert time_s <= before_s + (3601 if is_restarted else GAIN * passed_s + 1)
        before_s = time_s


def test_another_process_goes_on_until_the_machine_is_restarted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has passed between two of them counts as within one; after a restart nobody knows what has."""
    clock = Clock()
    archive = CRLArchive(tmp_path)
    first_s = clock.ms // 1000

    def limit() -> int:
        return RetentionTime(archive, clock.monotonic_s).limit(clock.ms // 1000)

    assert limit() == first_s
    # Short ones too, of which none is worth a note.
    for _ in range(5):
        clock.pass_s(1800)
        assert limit() == clock.ms // 1000
    clock.ms += YEARS_S * 1000
    clock.pass_s(DAY_S)
    ahead_s = limit()
    # Between two notes what has passed may count twice.
    assert 0 <= ahead_s - (first_s + 5 * 1800 + GAIN * DAY_S) <= 3600
    monkeypatch.setattr("certstatus.processes.boot_id", lambda: "another")
    clock.pass_s(DAY_S)
    assert limit() == ahead_s
    clock.pass_s(1)
    assert limit() == ahead_s + GAIN


def test_without_a_note_it_begins_with_the_newest_pack(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As after an update, or where the note cannot be read; and it is said that clock and packs disagree."""
    clock = Clock()
    archive = CRLArchive(tmp_path)
    for name in ("2026-01-01", "1999-12-31.2"):
        archive.folder.joinpath(f"{name}.idx").touch()
    # 23:59:59 in Japan.
    newest_s = 1_767_279_599
    clock.ms = (newest_s + 40 * DAY_S) * 1000
    with caplog.at_level(logging.WARNING):
        assert RetentionTime(archive, clock.monotonic_s).limit(clock.ms // 1000) == newest_s
    assert "40 days beyond" in caplog.text
    (tmp_path / FILE).write_text("yesterday")
    assert RetentionTime(archive, clock.monotonic_s).limit(clock.ms // 1000) == newest_s
    (tmp_path / FILE).write_text(str(newest_s + 5 * DAY_S))
    assert RetentionTime(archive, clock.monotonic_s).limit(clock.ms // 1000) == newest_s + 5 * DAY_S
