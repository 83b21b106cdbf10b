"""What was published at a time: against an oracle that kept every catalogue and every file of then.

The oracle reads the files with ``cryptography``; of the register it knows the change log alone.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
import sqlalchemy as sa
from crl_cases import COMPLETE, DELTA, CRLLine, short_periods
from cryptography import x509
from publisher_cases import START_MS, Clock

from certstatus.changes import ChangeKind
from certstatus.clock import DAY_S
from certstatus.crl_catalogue import CatalogueEntry
from certstatus.crl_entry import CRLEntry
from certstatus.errors import ArchiveDamaged, PastUnavailable
from issuance import schema
from issuance.crl_register import Fence
from issuance.revoke import FoundCertificate, find_certificate
from issuance.store import Store
from publisher.crl_past import ARCHIVE, FILE, SEQUENCE, Listing, PastAnswer, PastCRL, published_at
from publisher.crl_scopes import CRLScope

_NAMES = {"keyCompromise": 1, "cACompromise": 2, "affiliationChanged": 3, "superseded": 4}
_NAMES |= {"cessationOfOperation": 5, "certificateHold": 6, "removeFromCRL": 8}

Entries = dict[bytes, tuple[int, int | None]]


class _Shown(NamedTuple):
    """A catalogue, and since when it is out."""

    since_ms: int
    lines: list[CatalogueEntry]


class Replay:
    """A line of CRLs whose every catalogue is kept, and between whose files and pointers time passes."""

    def __init__(self, line: CRLLine, numbers: random.Random) -> None:
        self.line = line
        self.shown: list[_Shown] = []
        self.instants: list[int] = []
        self._read: dict[tuple[int, str], Entries] = {}
        # In the order in which they came out, of so many of those shown.
        self._names: dict[tuple[int, str], None] = {}
        self._ordered = 0
        publish = line.publisher.publish_catalogue

        def late(fence: Fence, scopes: Sequence[CRLScope] | None = None) -> None:
            line.clock.pass_s(numbers.choice((0, 0.4, 3)))
            # Recorded, and not out yet.
            self.instants.append(line.clock.ms)
            line.clock.pass_s(0.05)
            publish(fence, scopes)
            lines = line.catalogue()
            if not self.shown or self.shown[-1].lines != lines:
                since_ms = line.store.state().time_ms
                self.shown.append(_Shown(since_ms, lines))
                self.instants += [since_ms - 1, since_ms, since_ms + 1]

        line.publisher.publish_catalogue = late  # type: ignore[method-assign]

    def entries(self, number: int, kind: str) -> Entries:
        """What a published file says, read by another library."""
        if (number, kind) not in self._read:
            found: Entries = {}
            for entry in x509.load_der_x509_crl(self.line.seen[number, kind][1]):
                octets = entry.serial_number.to_bytes(8, "big")
                found[octets] = (int(entry.revocation_date_utc.timestamp()), _reason(entry))
            self._read[number, kind] = found
        return self._read[number, kind]

    def out_at(self, kind: str, at_ms: int) -> CatalogueEntry | None:
        """The newest CRL of a kind in the catalogue of then."""
        lines = next((shown.lines for shown in reversed(self.shown) if shown.since_ms <= at_ms), [])
        return next((line for line in lines if line.kind == kind and line.current), None)

    def first_and_last(self, serial: bytes) -> tuple[tuple[str, int] | None, tuple[str, int] | None]:
        """The CRLs that listed a certificate first and last, in the order in which they came out."""
        listing = [
            (kind, number)
            for number, kind in self._in_order()
            if self.entries(number, kind).get(serial, (0, 8))[1] != 8
        ]
        # Of one cut, complete and delta say the same: the complete one counts.
        last = listing[-1] if listing else None
        if last is not None and (COMPLETE, last[1]) in listing:
            last = COMPLETE, last[1]
        return (listing[0] if listing else None), last

    def _in_order(self) -> list[tuple[int, str]]:
        for shown in self.shown[self._ordered :]:
            for line in sorted(shown.lines, key=lambda item: (item.number, item.kind)):
                self._names[line.number, line.kind] = None
        self._ordered = len(self.shown)
        return list(self._names)

    def state_at(self, serial: bytes, at_ms: int) -> int | None:
        """The state by the change log: 1 valid, 2 revoked, 3 held, None not issued."""
        table, certificates = schema.change, schema.certificate
        with self.line.store.reading() as connection:
            kinds = connection.execute(
                sa.select(table.c.kind)
                .join(certificates, certificates.c.issued_seq == table.c.certificate_seq)
                .where(
                    certificates.c.serial == serial.hex(),
                    table.c.recorded_ms <= at_ms,
                    table.c.kind.in_((1, 2, 3, 4)),
                )
                .order_by(table.c.seq)
            ).scalars()
            state = None
            for kind in kinds:
                state = 1 if kind == 4 else kind
        return state

    def ask(self, serial: bytes, at_ms: int) -> PastAnswer:
        """What the installation says."""
        line = self.line
        found = find_certificate(line.store, serial)
        return published_at(line.store, line.state, found, at_ms, line.clock.ms)


def _reason(entry: x509.RevokedCertificate) -> int | None:
    try:
        return _NAMES[entry.extensions.get_extension_for_class(x509.CRLReason).value.reason.value]
    except x509.ExtensionNotFound:
        return None


def _said(entry: CRLEntry | None) -> tuple[int, int | None] | None:
    return None if entry is None else (entry.revoked_at_s, entry.reason)


def _named(listing: Listing | None) -> tuple[str, int] | None:
    return None if listing is None else (listing.kind, listing.number)


def _check(replay: Replay, answer: PastAnswer, sources: set[tuple[str, str]]) -> None:
    serial, at_ms = answer.serial, answer.at_ms
    expected: dict[str, tuple[int, int | None] | None] = {}
    for kind, crl in ((COMPLETE, answer.complete), (DELTA, answer.delta)):
        line = replay.out_at(kind, at_ms)
        if line is None:
            assert crl is None
            continue
        assert crl is not None
        assert (crl.number, crl.base_number, crl.this_update_s, crl.next_update_s, crl.sha256.hex()) == (
            line.number,
            line.base_number,
            line.this_update_s,
            line.next_update_s,
            line.sha256,
        )
        since_ms = next(
            shown.since_ms
            for shown in replay.shown
            if any((item.number, item.kind) == (crl.number, kind) for item in shown.lines)
        )
        assert crl.published_ms == since_ms
        expected[kind] = replay.entries(crl.number, kind).get(serial)
        assert _said(crl.entry) == expected[kind]
        sources.add((kind, crl.source))
    complete, delta = answer.complete, answer.delta
    listed = expected.get(COMPLETE)
    if complete is not None and delta is not None and delta.number > complete.number:
        assert delta.base_number is not None
        assert delta.base_number <= complete.number
        listed = expected[DELTA] or listed
        if listed is not None and listed[1] == 8:
            listed = None
    assert _said(answer.listed) == listed
    state = replay.state_at(serial, at_ms)
    assert (None if answer.standing is None else int(answer.standing.state)) == state
    first, last = replay.first_and_last(serial)
    assert (_named(answer.first), _named(answer.last)) == (first, last)


@pytest.mark.parametrize(("service", "hold", "seed"), [("SIGN", False, 1), ("PARTNER", True, 2)])
def test_at_every_instant_it_is_what_was_published_then(
    tmp_path: Path, clock: Clock, service: str, hold: bool, seed: int
) -> None:
    """Random histories, asked about at random and around every pointer that moved, also between record
    and pointer: number, dates, hash, time of publication and words of both CRLs, the register's state,
    and the CRLs that listed the certificate first and last."""
    numbers = random.Random(seed)
    with Store.create(f"sqlite:///{tmp_path / 'store.db'}", START_MS) as store:
        line = CRLLine(store, tmp_path, clock, short_periods(service, hold))
        replay = Replay(line, numbers)
        sources: set[tuple[str, str]] = set()
        for _ in range(200):
            for _ in range(numbers.randrange(3)):
                line.random_act(numbers, hold)
            clock.pass_s(numbers.choice((0.3, 20, 60, 130, 400)))
            if numbers.random() < 0.1:
                line.issue(complete=numbers.random() < 0.5)
            line.issue_due()
        begun_ms = replay.shown[0].since_ms - 100
        instants = [at_ms for at_ms in replay.instants if at_ms >= START_MS]
        asked = numbers.sample(instants, 150) + [numbers.randrange(begun_ms, clock.ms) for _ in range(100)]
        for at_ms in asked:
            answer = replay.ask(numbers.choice(line.serials), min(at_ms, clock.ms))
            _check(replay, answer, sources)
        assert sources == {(COMPLETE, FILE), (COMPLETE, ARCHIVE), (DELTA, FILE), (DELTA, SEQUENCE)}
        listed = [replay.first_and_last(serial)[0] for serial in line.serials]
        assert any(item is not None and item[0] == DELTA for item in listed)
        assert None in listed


@pytest.fixture
def line(tmp_path: Path, clock: Clock) -> Iterator[CRLLine]:
    """SIGN, with an archive of four days."""
    with Store.create(f"sqlite:///{tmp_path / 'store.db'}", START_MS) as store:
        clock.pass_s(100)
        yield CRLLine(store, tmp_path, clock, replace(short_periods("SIGN"), crl_archive_days=4))


def _ask(line: CRLLine, serial: bytes, at_ms: int) -> PastAnswer:
    found = FoundCertificate(line.issuer_id, "SIGN", serial)
    return published_at(line.store, line.state, found, at_ms, line.clock.ms)


def _complete(answer: PastAnswer) -> PastCRL:
    assert answer.complete is not None
    return answer.complete


def test_what_cannot_be_said_is_said_so(line: CRLLine, clock: Clock) -> None:
    """Before the issuer, in the future, before any CRL, before the certificate, and retained no longer."""
    made_ms = clock.ms
    clock.pass_s(10)
    serial = line.issue_certificate()
    with pytest.raises(PastUnavailable, match=r"SIGN generation 1 was not there before 2027-01-15T08:01:40Z"):
        _ask(line, serial, made_ms - 1)
    with pytest.raises(PastUnavailable, match="is yet to come"):
        _ask(line, serial, clock.ms + 1)
    answer = _ask(line, serial, made_ms)
    assert (answer.standing, answer.complete, answer.delta, answer.listed) == (None, None, None, None)
    line.record(ChangeKind.REVOKED, serial, 1)
    line.issue(True)
    old_ms = line.store.state().time_ms
    for _ in range(60):
        clock.pass_s(9000)
        line.issue_due()
    assert _complete(_ask(line, serial, clock.ms)).number > 50
    with pytest.raises(PastUnavailable, match="complete CRL 1 of sign/g1/all was out then, and is retained"):
        _ask(line, serial, old_ms)
    shutil.rmtree(line.state / "crl")
    with pytest.raises(PastUnavailable, match="retained no longer"):
        _ask(line, serial, clock.ms)


def test_a_damaged_archive_is_no_answer(line: CRLLine) -> None:
    """What was kept and is not what it was is an error, and no other CRL stands in for it."""
    serial = line.issue_certificate()
    line.issue(True)
    at_ms = line.store.state().time_ms
    (line.state / "crl/sign/g1/all/1.crl").unlink()
    assert _complete(_ask(line, serial, at_ms)).source == ARCHIVE
    pack = next((line.state / "crl" / "archive").glob("*.pack"))
    pack.write_bytes(pack.read_bytes()[:-1] + b"!")
    with pytest.raises(ArchiveDamaged):
        _ask(line, serial, at_ms)


def test_a_ca_key_event_was_published_too(line: CRLLine, clock: Clock) -> None:
    """Of a certificate without a change of its own; one that had expired was on no list."""
    short, serial = line.issue_certificate(life_s=5), line.issue_certificate()
    line.issue(True)
    clock.pass_s(100)
    line.record(ChangeKind.CA_KEY_EVENT, reason=2)
    before_ms = clock.ms
    clock.pass_s(1)
    line.issue(True)
    answer = _ask(line, serial, before_ms)
    assert answer.standing is not None
    assert answer.standing.reason == 2
    assert answer.listed is None
    assert _named(answer.first) == _named(answer.last) == (COMPLETE, 2)
    clock.pass_s(1)
    answer = _ask(line, serial, clock.ms)
    assert _said(answer.listed) == (before_ms // 1000, 2)
    assert answer.is_listed_now
    answer = _ask(line, short, clock.ms)
    assert (answer.listed, answer.first, answer.is_listed_now) == (None, None, False)


def test_what_an_earlier_version_published_counts_from_its_date(line: CRLLine, clock: Clock) -> None:
    """Nobody wrote down when it came out, and it may lie in a file of its own."""
    serial = line.issue_certificate()
    clock.pass_s(5)
    line.issue(True)
    archive = line.state / "crl" / "archive"
    with line.store.engine.begin() as connection:
        connection.execute(sa.update(schema.crl).values(published_ms=0))
    shutil.rmtree(archive)
    single = archive / "sign/g1/all/1.crl"
    single.parent.mkdir(parents=True)
    (line.state / "crl/sign/g1/all/1.crl").rename(single)
    complete = _complete(_ask(line, serial, clock.ms))
    assert (complete.number, complete.published_ms, complete.source) == (1, None, ARCHIVE)
    assert _ask(line, serial, complete.this_update_s * 1000 - 1).complete is None


def test_what_was_published_after_a_backup_is_found_in_the_archive(line: CRLLine, clock: Clock) -> None:
    """The register that came back knows nothing of it; the archive does."""
    serial = line.issue_certificate()
    line.issue(True)
    clock.pass_s(2 * DAY_S)
    line.record(ChangeKind.REVOKED, serial, 1)
    revoked_s = clock.ms // 1000
    clock.pass_s(5)
    line.issue(True)
    clock.pass_s(5)
    with line.store.engine.begin() as connection:
        connection.execute(schema.crl.delete().where(schema.crl.c.number > 1))
    complete = _complete(_ask(line, serial, clock.ms))
    assert (complete.number, complete.source, _said(complete.entry)) == (2, ARCHIVE, (revoked_s, 1))
