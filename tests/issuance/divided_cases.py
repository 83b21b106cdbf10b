"""A CA of somebody else's that has a CRL for each distribution point, and what becomes of it here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from cryptography import x509
from import_cases import NOW_MS, NOW_S, OldCA, point_of, scope_of

from certstatus.crl import ParsedCRL, parse_certificate_list
from issuance import schema
from issuance.ca_keys import CAKeyFolder
from issuance.crl_scopes import ScopeRecord
from issuance.import_run import ImportOrder
from issuance.issuers import issuer_of
from issuance.store import Store
from issuance.taken_scopes import taken_scopes
from publisher.crl_plan import Due
from publisher.crl_publish import CRLPublisher, crl_lease
from publisher.lease import held

KEY = x509.ReasonFlags.key_compromise
_COMPLETE = Due(True, False)


def uri(part: int) -> x509.UniformResourceIdentifier:
    """The name of a part's point."""
    return x509.UniformResourceIdentifier(f"http://old.example/{part}.crl")


@dataclass
class DividedCA(OldCA):
    """Its certificates name the points of parts 1, 2, ...; part 0: no point at all."""

    def certificates_of(self, part: int, *serials: int, more: Iterable[x509.GeneralName] = ()) -> Path:
        """Write certificates of a part, each with a point for each further name; return their folder."""
        names = [*([uri(part)] if part else []), *more]
        return self.write_certificates(*serials, points=[point_of(name) for name in names])

    def crl_of(
        self,
        part: int,
        revoked: Iterable[int] = (),
        number: int | None = 7,
        this_update_s: int = NOW_S - 1000,
    ) -> Path:
        """Write a part's CRL, or with part 0 that of all; return where."""
        scope = [scope_of(uri(part))] if part else []
        path = self.folder / f"part{part}-{number}-{this_update_s}.crl"
        path.write_bytes(self.crl_der(dict.fromkeys(revoked, KEY), number, this_update_s, *scope))
        return path

    def divided_order(self, *crls: Path, **changes: object) -> ImportOrder:
        """An order to take it over with these CRLs and the certificates written so far."""
        folder = self.folder / "certificates"
        certificates = {"certificates": (folder,)} if folder.is_dir() else {}
        return self.order(**({"crl_paths": crls} | certificates | changes))


def scopes_here(store: Store) -> dict[str, ScopeRecord]:
    """The scopes that the import has opened, by the address of their point."""
    return {record.title: record for record in taken_scopes(store, issuer_of(store, "OLD"))}


def stored(store: Store) -> dict[int, str]:
    """In which scope the register has each certificate, by serial number: ``dp/1``, or ``all`` alone."""
    table, scopes = schema.certificate, schema.crl_scope
    with store.reading() as connection:
        rows = connection.execute(
            sa.select(table.c.serial, scopes.c.scope).select_from(
                table.outerjoin(scopes, scopes.c.scope_id == table.c.scope_id)
            )
        ).all()
    return {int(row.serial, 16): row.scope or "all" for row in rows}


def published(
    store: Store, keys: CAKeyFolder, now_ms: int = NOW_MS + 10_000, want: Due = _COMPLETE
) -> dict[str, tuple[ParsedCRL, Path]]:
    """Publish all scopes; return by name what was made last, and its file."""
    times = iter(range(now_ms, now_ms + 10_000_000, 10))
    publisher = CRLPublisher(
        store, keys, keys.folder.parent, now_ms=lambda: next(times), pause=lambda _s: None
    )
    made = {}
    with held(crl_lease(store, lambda: next(times)), 0) as fence:
        for scope in publisher.scopes():
            for item in publisher.issue(scope, want, fence):
                made[scope.name] = (parse_certificate_list(item.file.read_bytes()), item.file)
    return made


def listed(crl: ParsedCRL) -> set[int]:
    """The serial numbers on a CRL."""
    return {int.from_bytes(entry.serial, "big") for entry in crl.entries}
