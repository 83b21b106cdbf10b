"""The register of CRL scopes: which partitions there are, what each is called, and which are closed.

Knows: that a partition is opened with its first certificate, in the same act, and that its names stay as
they were then: its certificates carry them for as long as they live, its deltas must be of the scope of
their base, and neither may change with a policy.  A closed one is that of a merged municipality: nothing is
issued into it, and its CRLs go on until nothing in it needs one (retired).
Does not know: which scope a certificate belongs in (``partition``), or numbers given out (``crl_register``).
Source: RFC 5280 §4.2.1.13, §5.2.4 (one scope for base and delta), §5.2.5 (identical names).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import sqlalchemy as sa

from certstatus.changes import ChangeKind
from certstatus.distribution_point import (
    encode_distribution_points,
    encode_issuing_distribution_point,
    parse_issuing_distribution_point,
    read_point_name,
)
from certstatus.errors import IllegalTransition, PolicyViolation, UnknownCertificate
from issuance import schema
from issuance.act import Act, RecordedChange
from issuance.crl_register import next_scope_id
from issuance.issuers import IssuerRecord, publish_issuers
from issuance.partition import title_of
from issuance.profiles import CertificatePoints
from issuance.store import Now, Store


class ScopeNames(NamedTuple):
    """A partition's names as extension values, DER: IssuingDistributionPoint of its complete and delta CRLs,
    cRLDistributionPoints of its certificates, and freshestCRL of both."""

    idp_der: bytes
    crldp_der: bytes
    freshest_der: bytes

    @property
    def in_certificate(self) -> CertificatePoints:
        """What the partition's certificates say."""
        return CertificatePoints(self.crldp_der, self.freshest_der)


@dataclass(frozen=True, slots=True)
class ScopeRecord:
    """One partition as the register holds it.

    ``name``: ``m1/13104``, the way to it below the issuer's; ``opened_seq``: the change that opened it, its
    first certificate's issuing; ``closed_seq``: the one since which nothing is issued into it.
    ``taken_this_update_s``: of one that another installation had, when the CRL was made that was read last.
    ``last_end_s``: when its last certificate ends, if it is closed and that is known; ``retired_seq``: the
    change since which it needs no CRLs.  Times in POSIX seconds.
    """

    scope_id: int
    issuer_id: int
    name: str
    title: str
    names: ScopeNames
    opened_seq: int
    closed_seq: int | None
    taken_this_update_s: int | None = None
    last_end_s: int | None = None
    retired_seq: int | None = None


@lru_cache(maxsize=4096)
def new_names(issuer: IssuerRecord, scope: str) -> ScopeNames:
    """Return the names of a partition that is opened under the issuer's policy of now."""
    names = issuer.partition_names(scope)
    return ScopeNames(
        # Unlike that of ``all`` with the URI, as the certificates have it: it never changes.
        encode_issuing_distribution_point(names.complete, only_user_certs=True),
        issuer.crl_names.points_of(names),
        names.freshest_der,
    )


def names_as_published(issuer: IssuerRecord, scope: str, idp_der: bytes) -> ScopeNames:
    """Return the names of a partition of which nothing is left but its CRLs.

    The rest is as the issuer's policy has it now; the point by the name that the CRLs have.
    """
    names = new_names(issuer, scope)
    name_der = parse_issuing_distribution_point(idp_der).name_der
    if name_der is None:
        return names
    return names._replace(
        idp_der=idp_der,
        crldp_der=encode_distribution_points([read_point_name(name_der), (issuer.crl_names.complete[0], ())]),
    )


def known_names(store: Store, issuer_id: int, scope: str) -> ScopeNames | None:
    """Return the names of a partition that has been opened, None if it has not."""
    with store.reading() as connection:
        found = _find(connection, issuer_id, scope)
    return None if found is None else found.names


def ensure_scope(act: Act, issuer_id: int, scope: str, names: ScopeNames) -> ScopeRecord:
    """Return the partition for the certificate that *act* records next; open it if it is the first.

    Raises: PolicyViolation — it is closed, or was opened under other names than *names*.
    """
    found = act.scopes.get((issuer_id, scope)) or _find(act.connection, issuer_id, scope)
    if found is None:
        found = _open(act, issuer_id, scope, names)
    if found.closed_seq is not None:
        raise PolicyViolation(
            f"CRL partition {scope} of issuer {issuer_id} is closed since change {found.closed_seq}"
        )
    if found.names != names:
        raise PolicyViolation(
            f"CRL partition {scope} of issuer {issuer_id} was opened under other names than the certificate"
            " has; sign it again"
        )
    act.scopes[issuer_id, scope] = found
    return found


def _open(act: Act, issuer_id: int, scope: str, names: ScopeNames) -> ScopeRecord:
    table = schema.crl_scope
    opened_seq, title = act.seq + 1, title_of(scope)
    scope_id = act.connection.execute(
        sa.insert(table)
        .values(
            issuer_id=issuer_id,
            scope=scope,
            last_number=0,
            scope_id=next_scope_id(),
            title=title,
            opened_seq=opened_seq,
            **names._asdict(),
        )
        .returning(table.c.scope_id)
    ).scalar_one()
    return ScopeRecord(scope_id, issuer_id, scope, title, names, opened_seq, None)


def close_scope(store: Store, issuer_id: int, scope: str, now: Now) -> RecordedChange:
    """Issue nothing into a partition any more, because its municipality is now part of another.

    Raises: UnknownCertificate — the issuer has no such partition; IllegalTransition — it is closed already.
    """
    table = schema.crl_scope
    with store.writing(now) as act:
        found = _find(act.connection, issuer_id, scope)
        if found is None:
            raise UnknownCertificate(f"issuer {issuer_id} has no CRL partition {scope}")
        if found.closed_seq is not None:
            raise IllegalTransition(
                f"CRL partition {scope} of issuer {issuer_id} is closed since change {found.closed_seq}"
            )
        detail = json.dumps({"scope": scope}, sort_keys=True)
        recorded = act.record(
            ChangeKind.ISSUERS, issuer_id=issuer_id, ground="CRL partition closed", detail=detail
        )
        act.connection.execute(
            sa.update(table).where(table.c.scope_id == found.scope_id).values(closed_seq=recorded.seq)
        )
        publish_issuers(act)
        return recorded


def partitions(connection: sa.Connection) -> dict[int, list[ScopeRecord]]:
    """Return all partitions, closed ones too, by issuer_id and in the order in which they were opened."""
    found: dict[int, list[ScopeRecord]] = {}
    for row in connection.execute(_OPENED.order_by(schema.crl_scope.c.scope_id)):
        found.setdefault(row.issuer_id, []).append(_record(row))
    return found


def partitions_mark(connection: sa.Connection) -> tuple[object, ...]:
    """Return what is another whenever ``partitions`` says something else: names stay as they were opened."""
    table = schema.crl_scope
    columns = (
        sa.select(schema.store_state.c.epoch).scalar_subquery(),
        sa.func.count(),
        sa.func.max(table.c.scope_id),
        sa.func.count(table.c.closed_seq),
        sa.func.max(table.c.closed_seq),
        # These come and go: of which partition each is must show too.
        sa.func.sum(table.c.last_end_s * table.c.scope_id),
        sa.func.sum(table.c.retired_seq * table.c.scope_id),
        sa.func.sum(table.c.taken_this_update_s * table.c.scope_id),
    )
    return tuple(connection.execute(sa.select(*columns).where(table.c.idp_der.is_not(None))).one())


# A row without names is that of ``all``.
_OPENED = sa.select(schema.crl_scope).where(schema.crl_scope.c.idp_der.is_not(None))


def _find(connection: sa.Connection, issuer_id: int, scope: str) -> ScopeRecord | None:
    table = schema.crl_scope
    row = connection.execute(
        _OPENED.where(table.c.issuer_id == issuer_id, table.c.scope == scope)
    ).one_or_none()
    return None if row is None else _record(row)


def _record(row: sa.Row[tuple[object, ...]]) -> ScopeRecord:
    return ScopeRecord(
        row.scope_id,
        row.issuer_id,
        row.scope,
        row.title,
        ScopeNames(row.idp_der, row.crldp_der, row.freshest_der),
        row.opened_seq,
        row.closed_seq,
        row.taken_this_update_s,
        row.last_end_s,
        row.retired_seq,
    )
