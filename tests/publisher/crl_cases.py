"""CRL publishing with a clock that tests move, and an oracle that knows only the change log."""

from __future__ import annotations

import random
from pathlib import Path

from publisher_cases import INDEX_KEY, Clock

from certstatus.beat import Pointer
from certstatus.changes import ChangeKind, fingerprint
from certstatus.config import IssuerConfig
from certstatus.crl import ParsedCRL, parse_certificate_list
from certstatus.crl_catalogue import COMPLETE, DELTA, CatalogueEntry, read_catalogue
from certstatus.crl_entry import CRLEntry
from certstatus.documents import open_document
from certstatus.errors import IllegalTransition
from issuance.ca_keys import CAKeyFolder
from issuance.crl_register import Fence
from issuance.issuers import IssuerRecord, create_issuer, issuer_by_id
from issuance.store import Store
from publisher.crl_plan import Due
from publisher.crl_publish import CRLPublisher, PublishedCRL
from publisher.crl_scopes import CRLScope


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


class CRLLine:
    """An issuer, its publisher, and everything that was ever published for it."""

    def __init__(self, store: Store, state: Path, clock: Clock, config: IssuerConfig) -> None:
        self.store, self.state, self.clock = store, state, clock
        self.keys = CAKeyFolder(state / "ca")
        self.keys.make_passphrase()
        self.issuer_id = create_issuer(store, self.keys, config, clock.now_ms).issuer_id
        self.publisher = CRLPublisher(store, self.keys, state, now_ms=clock.now_ms, pause=clock.pass_s)
        self.fence: Fence = store.acquire_publisher("crl", 1 << 40, clock.now_ms, "test")
        # (number, kind) -> (what was published, its bytes)
        self.seen: dict[tuple[int, str], tuple[PublishedCRL, bytes]] = {}
        self.serials: list[bytes] = []

    @property
    def issuer(self) -> IssuerRecord:
        return issuer_by_id(self.store, self.issuer_id)

    @property
    def scope(self) -> CRLScope:
        return CRLScope(self.issuer)

    def issue_due(self) -> list[PublishedCRL]:
        published = self.publisher.issue_due(self.scope, self.fence)
        self.publisher.tidy(self.fence)
        return self._note(published)

    def issue(self, complete: bool, delta: bool = True) -> list[PublishedCRL]:
        return self._note(self.publisher.issue(self.scope, Due(complete, delta), self.fence))

    def _note(self, published: list[PublishedCRL]) -> list[PublishedCRL]:
        for item in published:
            assert (item.number, item.kind) not in self.seen, "a number was used twice"
            self.seen[item.number, item.kind] = item, item.file.read_bytes()
        return published

    def parsed(self, number: int, kind: str) -> ParsedCRL:
        return parse_certificate_list(self.seen[number, kind][1])

    def numbers(self, kind: str) -> list[int]:
        return sorted(number for number, found in self.seen if found == kind)

    def catalogue(self) -> list[CatalogueEntry]:
        found = self.store.publication("crls")
        assert found is not None
        assert found.body is not None
        return read_catalogue(open_document(found.body, Pointer(found.generation, found.sha256)))

    # --- acts ------------------------------------------------------------------------------------------

    def issue_certificate(self, life_s: int = 10_000_000) -> bytes:
        serial = b"\x01" + len(self.serials).to_bytes(7, "big")
        with self.store.writing(self.clock.now_ms) as act:
            act.record(
                ChangeKind.ISSUED,
                issuer_id=self.issuer_id,
                serial=serial,
                fingerprint=fingerprint(serial, INDEX_KEY),
                not_after_s=self.clock.ms // 1000 + life_s,
            )
        self.serials.append(serial)
        return serial

    def record(
        self, kind: ChangeKind, serial: bytes = b"", reason: int | None = None, invalidity_s: int = 0
    ) -> None:
        with self.store.writing(self.clock.now_ms) as act:
            act.record(
                kind, issuer_id=self.issuer_id, serial=serial, reason=reason, invalidity_s=invalidity_s
            )

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
        records = self.store.crls(self.issuer_id, "all")
        return next(record.seq for record in records if record.number == number)


__all__ = ["COMPLETE", "DELTA", "CRLLine", "short_periods"]
