"""A SIGN issuer with real partitions, whose CRLs are made lot by lot under a clock that tests move."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from crl_cases import published_entries, short_periods
from issuer_cases import PublishedIssuer
from publisher_cases import Clock

from certstatus.config import IssuerConfig
from certstatus.crl_catalogue import CatalogueEntry
from issuance.crl_register import CRLRecord, Fence
from issuance.store import Store
from publisher.crl_lot import Order, PublishedCRL
from publisher.crl_plan import Due
from publisher.crl_scopes import CRLScope
from publisher.crl_write import CRLWork, WrittenCRL


class Partitioned(PublishedIssuer):
    """One issuer with so many partitions and ``all``; two certificates in each partition."""

    def __init__(
        self, store: Store, state: Path, clock: Clock, count: int, config: IssuerConfig | None = None
    ) -> None:
        super().__init__(store, state, clock, config or short_periods("SIGN"))
        self.names = [f"m1/{13101 + number}" for number in range(count)]
        self.serials: dict[str, list[bytes]] = {name: [] for name in self.names}
        for name in self.names * 2:
            self.issue(name)
        self.fence: Fence = store.acquire_publisher("crl", 1 << 40, clock.now_ms, "test")

    def issue(self, name: str, life_s: int = 10_000_000) -> bytes:
        """Issue a certificate into a partition."""
        serial = self.issue_one(life_s, name)
        self.serials.setdefault(name, []).append(serial)
        return serial

    # --- CRLs ------------------------------------------------------------------------------------------

    def orders(self, want: Due) -> list[Order]:
        """The same for every scope."""
        return [(scope, want) for scope in self.publisher.scopes()]

    def make(self, want: Due) -> dict[str, list[PublishedCRL] | Exception]:
        """Make one lot of all scopes, and move the pointer."""
        outcomes = self.publisher.make_lot(self.orders(want), self.fence)
        self.publisher.finish([scope for scope, _ in self.orders(want)], self.fence)
        return outcomes

    def take_over(self) -> None:
        """Let another publisher have the lease, and then this one again."""
        self.fence = self.store.acquire_publisher("crl", 1 << 40, self.clock.now_ms, "test", take_over=True)

    def records(self, scope: CRLScope) -> list[CRLRecord]:
        """The register's lines of a scope."""
        return self.store.crls(*scope.key)

    def catalogue(self) -> list[CatalogueEntry]:
        """What is out; nothing before the first catalogue."""
        found = self.store.publication("crls")
        if found is None or found.body is None:
            return []
        return published_entries(self.store)

    def files(self) -> list[str]:
        """Every file below the CRL folder, without the archive's."""
        folder = self.state / "crl"
        names = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
        return sorted(name for name in names if not name.startswith("archive/"))


class Statements:
    """Counts the statements that a store executes within the block, but for those of making files."""

    def __init__(self, line: Partitioned) -> None:
        self._engine = line.store.engine
        self._writer = line.publisher.writer
        self._write = self._writer.write
        self._is_on = True
        self.count = 0

    def _note(self, *_arguments: object) -> None:
        self.count += self._is_on

    def _written(self, work: CRLWork, fence: Fence, *, synced: bool = True) -> list[WrittenCRL]:
        self._is_on = False
        try:
            return self._write(work, fence, synced=synced)
        finally:
            self._is_on = True

    def __enter__(self) -> Statements:
        sa.event.listen(self._engine, "before_cursor_execute", self._note)
        self._writer.write = self._written  # type: ignore[method-assign]
        return self

    def __exit__(self, *_exc: object) -> None:
        self._writer.write = self._write  # type: ignore[method-assign]
        sa.event.remove(self._engine, "before_cursor_execute", self._note)
