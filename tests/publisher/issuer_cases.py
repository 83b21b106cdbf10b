"""An issuer in a store and a publisher of its CRLs, under a clock that tests move."""

from __future__ import annotations

from pathlib import Path

from publisher_cases import INDEX_KEY, Clock

from certstatus.changes import ChangeKind, fingerprint
from certstatus.config import IssuerConfig
from issuance.act import ISSUED
from issuance.ca_keys import CAKeyFolder
from issuance.crl_scopes import ensure_scope, new_names
from issuance.issuers import IssuerRecord, create_issuer, issuer_by_id
from issuance.store import Store
from publisher.crl_publish import CRLPublisher


class PublishedIssuer:
    """The issuer, and what is done to its certificates; ``pauses`` are those that the publisher has made."""

    def __init__(self, store: Store, state: Path, clock: Clock, config: IssuerConfig) -> None:
        self.store, self.state, self.clock = store, state, clock
        self.keys = CAKeyFolder(state / "ca")
        self.keys.make_passphrase()
        self.issuer_id = create_issuer(store, self.keys, config, clock.now_ms).issuer_id
        self.pauses: list[float] = []
        self.publisher = self.another()

    @property
    def issuer(self) -> IssuerRecord:
        return issuer_by_id(self.store, self.issuer_id)

    def another(self, store: Store | None = None) -> CRLPublisher:
        """Return a publisher that knows nothing yet, with a store of its own if there is one."""
        return CRLPublisher(
            store or self.store,
            self.keys,
            self.state,
            now_ms=self.clock.now_ms,
            monotonic_s=self.clock.monotonic_s,
            pause=self._pause,
        )

    def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.clock.pass_s(seconds)

    def issue_one(
        self,
        life_s: int = 10_000_000,
        partition: str | None = None,
        *,
        scope_id: int | None = None,
        origin: str = ISSUED,
    ) -> bytes:
        """Record a certificate as issued, into a partition if there is one, which may be given by its
        *scope_id* if it is there; return its serial number."""
        serial = b"\x01" + self.store.state().seq.to_bytes(7, "big")
        with self.store.writing(self.clock.now_ms) as act:
            if partition is not None:
                names = new_names(self.issuer, partition)
                scope_id = ensure_scope(act, self.issuer_id, partition, names).scope_id
            act.record(
                ChangeKind.ISSUED,
                issuer_id=self.issuer_id,
                serial=serial,
                fingerprint=fingerprint(serial, INDEX_KEY),
                not_after_s=self.clock.ms // 1000 + life_s,
                origin=origin,
                scope_id=scope_id,
            )
        return serial

    def record(
        self, kind: ChangeKind, serial: bytes = b"", reason: int | None = None, invalidity_s: int = 0
    ) -> int:
        """Record a change of a certificate, or of the issuer; return its number."""
        with self.store.writing(self.clock.now_ms) as act:
            return act.record(
                kind, issuer_id=self.issuer_id, serial=serial, reason=reason, invalidity_s=invalidity_s
            ).seq
