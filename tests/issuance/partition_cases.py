"""Certificates in CRL partitions, read back from their octets."""

from __future__ import annotations

from typing import NamedTuple

import sqlalchemy as sa
from ca_cases import new_key
from cryptography import x509
from store_cases import INDEX_KEY, START_MS

from certstatus import oid
from certstatus.distribution_point import PointName, parse_distribution_points
from issuance import schema
from issuance.crl_scopes import ScopeRecord, partitions
from issuance.issue import IssuedCertificate, Issuing, issue
from issuance.store import Now, Store


class Points(NamedTuple):
    """What a certificate says of its CRLs."""

    points: list[PointName]
    freshest: list[PointName]


def issue_into(
    store: Store, issuing: Issuing, partition: str | None = None, now: Now = START_MS
) -> IssuedCertificate:
    """Issue a certificate over a fresh key for a municipality."""
    return issue(store, issuing, INDEX_KEY, new_key(), now, partition=partition)


def points_of(issued: IssuedCertificate) -> Points:
    """Return the names in a certificate."""
    found = x509.load_der_x509_certificate(issued.certificate_der).extensions
    values = [
        found.get_extension_for_oid(x509.ObjectIdentifier(which)).value.public_bytes()
        for which in (oid.CRL_DISTRIBUTION_POINTS, oid.FRESHEST_CRL)
    ]
    return Points(*(parse_distribution_points(value) for value in values))


def opened(store: Store, issuing: Issuing) -> dict[str, ScopeRecord]:
    """Return the partitions of an issuer by name."""
    with store.reading() as connection:
        return {item.name: item for item in partitions(connection).get(issuing.issuer.issuer_id, [])}


def stored_scope(store: Store, issued: IssuedCertificate) -> int | None:
    """Return the partition that the register has a certificate in."""
    table = schema.certificate
    with store.reading() as connection:
        found: int | None = connection.execute(
            sa.select(table.c.scope_id).where(table.c.serial == issued.serial.hex())
        ).scalar_one()
        return found
