"""CRL publishing with a clock that tests move, and an oracle that knows only the change log."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from archived_octets import read_archived
from issuer_cases import PublishedIssuer
from publisher_cases import START_MS, Clock

from certstatus.changes import ChangeKind
from certstatus.config import IssuerConfig
from certstatus.crl import ParsedCRL, parse_certificate_list
from certstatus.crl_archive import CRLArchive
from certstatus.crl_catalogue import COMPLETE, DELTA, CatalogueEntry
from certstatus.crl_entry import CRLEntry
from certstatus.crl_pack import issuer_mark
from certstatus.errors import IllegalTransition
from issuance.crl_register import Fence
from issuance.store import Store
from publisher.crl_catalogue import read_published
from publisher.crl_lot import PublishedCRL
from publisher.crl_plan import Due
from publisher.crl_publish import CRLPublisher, crl_lease
from publisher.crl_run import CRLRun
from publisher.crl_scopes import CRLScope

_Line = TypeVar("_Line")


def short_periods(service: str, hold: bool = False, key: str = "p256") -> IssuerConfig:
    """An issuer whose complete CRLs follow each other in 1000 s and its deltas in 100 s."""
    return IssuerConfig(
        service=service,
        hold=hold,
        key=key,
        crl_period_s=1000,
        crl_validity_s=2500,
        delta_period_s=100,
        delta_validity_s=300,
        lapse_period_s=1500,
    )


@contextmanager
def line_maker(folder: Path, make: Callable[[Store, Path, int], _Line]) -> Iterator[Callable[[int], _Line]]:
    """Give what makes lines of so many scopes by *make*, each on a store and in a folder of its own."""
    stores: list[Store] = []

    def made(count: int) -> _Line:
        state = folder / str(len(stores))
        state.mkdir()
        stores.append(Store.create(f"sqlite:///{state / 'store.db'}", START_MS))
        return make(stores[-1], state, count)

    yield made
    for store in stores:
        store.close()


def published_entries(store: Store) -> list[CatalogueEntry]:
    """What the published catalogue names."""
    found = store.publication("crls")
    assert found is not None
    return [entry for scope in read_published(store, found).scopes for entry in scope.entries]


class CRLLine(PublishedIssuer):
    """An issuer, its publisher, and everything that was ever published for it."""

    def __init__(self, store: Store, state: Path, clock: Clock, config: IssuerConfig) -> None:
        super().__init__(store, state, clock, config)
        self.fence: Fence = store.acquire_publisher("crl", 1 << 40, clock.now_ms, "test")
        # (number, kind) -> (what was published, its bytes)
        self.seen: dict[tuple[int, str], tuple[PublishedCRL, bytes]] = {}
        self.serials: list[bytes] = []
        self.path = self.scope.path
        self._mark = issuer_mark(self.issuer.spki_der)
        self._parsed: dict[tuple[int, str], ParsedCRL] = {}
        self._seqs: dict[int, int] = {}
        self._run: tuple[CRLPublisher, CRLRun] | None = None

    @property
    def scope(self) -> CRLScope:
        return CRLScope(self.issuer)

    def issue_due(self) -> list[PublishedCRL]:
        want = self._due()
        published = self.publisher.issue(self.scope, want, self.fence) if any(want) else []
        self.publisher.tidy(self.fence)
        return self._note(published)

    def _due(self) -> Due:
        """What the builder's run finds due of this scope; it remembers what it saw, as long as the publisher
        is the same."""
        publisher, run = self._run or (None, None)
        if run is None or publisher is not self.publisher:
            lease = crl_lease(self.store, self.clock.now_ms)
            run = CRLRun(self.publisher, lease, now_ms=self.clock.now_ms, monotonic_s=self.clock.monotonic_s)
            self._run = self.publisher, run
        due = {item.path: item.want for item in run.look()}
        return due.get(self.path, Due(False, False))

    def issue(self, complete: bool, delta: bool = True) -> list[PublishedCRL]:
        return self._note(self.publisher.issue(self.scope, Due(complete, delta), self.fence))

    def _note(self, published: list[PublishedCRL]) -> list[PublishedCRL]:
        for item in published:
            assert (item.number, item.kind) not in self.seen, "a number was used twice"
            self.seen[item.number, item.kind] = item, item.file.read_bytes()
        return published

    def parsed(self, number: int, kind: str) -> ParsedCRL:
        if (number, kind) not in self._parsed:
            self._parsed[number, kind] = parse_certificate_list(self.seen[number, kind][1])
        return self._parsed[number, kind]

    def numbers(self, kind: str) -> list[int]:
        return sorted(number for number, found in self.seen if found == kind)

    def archived(self, number: int) -> bytes | None:
        """What the archive gives for a complete CRL."""
        found = CRLArchive(self.state / "crl" / "archive").find(self.path, self._mark, number)
        return None if found is None else read_archived(found)

    def catalogue(self) -> list[CatalogueEntry]:
        return published_entries(self.store)

    # --- acts ------------------------------------------------------------------------------------------

    def issue_certificate(self, life_s: int = 10_000_000) -> bytes:
        self.serials.append(self.issue_one(life_s))
        return self.serials[-1]

    def random_act(self, numbers: random.Random, hold: bool) -> None:
        """Do something to a certificate at random, or issue one; what its state forbids does nothing."""
        kinds = [ChangeKind.REVOKED, ChangeKind.REVOKED, ChangeKind.REASON_CHANGED]
        if hold:
            kinds += [ChangeKind.HELD, ChangeKind.HELD, ChangeKind.RELEASED, ChangeKind.RELEASED]
        kind = numbers.choice([ChangeKind.ISSUED, *kinds])
        if kind is ChangeKind.ISSUED or not self.serials:
            self.issue_certificate(numbers.choice((300, 1200, 3000, 10_000_000)))
            return
        reason = numbers.choice((None, 1, 3, 4, 5))
        if kind in (ChangeKind.HELD, ChangeKind.RELEASED):
            reason = None
        invalidity_s = self.clock.ms // 1000 - 50 if kind is ChangeKind.REVOKED and reason == 1 else 0
        try:
            self.record(kind, numbers.choice(self.serials[-40:]), reason, invalidity_s)
        except IllegalTransition:
            return

    # --- the oracle ------------------------------------------------------------------------------------

    def list_at(self, seq: int) -> dict[bytes, CRLEntry]:
        """The list at *seq*, told from the change log by rules of its own."""
        entries: dict[bytes, CRLEntry] = {}
        for change in self.store.revocation_changes(self.issuer_id, 0, seq):
            at_s = change.recorded_ms // 1000
            if change.kind == 2:
                entries[change.serial] = CRLEntry(
                    change.serial, at_s, change.reason, change.invalidity_s or None
                )
            elif change.kind == 3:
                entries[change.serial] = CRLEntry(change.serial, at_s, 6, None)
            elif change.kind == 6 and change.serial in entries:
                old = entries[change.serial]
                entries[change.serial] = CRLEntry(
                    old.serial, old.revoked_at_s, change.reason, old.invalidity_at_s
                )
            elif change.kind in (4, 5):
                entries.pop(change.serial, None)
        return entries

    def seq_of(self, number: int) -> int:
        if number not in self._seqs:
            self._seqs |= {record.number: record.seq for record in self.store.crls(self.issuer_id, "all")}
        return self._seqs[number]


__all__ = ["COMPLETE", "DELTA", "CRLLine", "short_periods"]
