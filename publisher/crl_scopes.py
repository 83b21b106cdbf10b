"""CRL scopes: what one series of CRLs covers, what it is called, and where its files lie.

Knows: the unpartitioned scope ``all`` of an issuer key and its partitions, their extensions, their paths,
and which changes concern them.  Every name carries service, key generation and scope, because
generations share the issuer's name.
Does not know: numbers, entries, keys; which certificate is in which partition (the register does).
Source: RFC 5280 §5.2.5 (scope by IssuingDistributionPoint), §5.2.6 (freshest CRL).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from certstatus.crl_catalogue import COMPLETE, UNPARTITIONED
from certstatus.distribution_point import encode_issuing_distribution_point
from issuance.crl_register import ScopeKey
from issuance.crl_scopes import ScopeRecord, partitions, partitions_mark
from issuance.history import RevocationChange
from issuance.issuers import IssuerRecord, read_issuers
from issuance.store import Store


@dataclass(frozen=True, slots=True)
class CRLScope:
    """One scope of one issuer key: ``all``, or the *partition* given."""

    issuer: IssuerRecord
    partition: ScopeRecord | None = None

    @property
    def name(self) -> str:
        """What it is called below its issuer: ``all``, ``m1/13104``."""
        return UNPARTITIONED if self.partition is None else self.partition.name

    @property
    def title(self) -> str:
        """What people call it, "" if no more than its name."""
        return "" if self.partition is None else self.partition.title

    @property
    def key(self) -> ScopeKey:
        """What the register knows it by."""
        return self.issuer.issuer_id, self.name

    @property
    def partition_id(self) -> int | None:
        """The number under which certificates name the partition; None of ``all``."""
        return None if self.partition is None else self.partition.scope_id

    @property
    def path(self) -> str:
        """The scope's folder below the CRL folder, and below ``/crl/`` in URLs: ``sign/g1/all``."""
        return f"{self.issuer.service.lower()}/g{self.issuer.generation}/{self.name}"

    @property
    def is_retired(self) -> bool:
        """Say whether no CRL of it follows, for all in it has ended (``crl_retire``)."""
        return self.partition is not None and self.partition.retired_seq is not None

    def is_at_rest(self, now_s: int) -> bool:
        """Say whether no CRL of it is due: retired, and the clock is not set back before its last end."""
        if self.partition is None or self.partition.retired_seq is None:
            return False
        return self.partition.last_end_s is not None and self.partition.last_end_s < now_s

    def file(self, kind: str, number: int) -> str:
        """The file of one CRL, below the CRL folder."""
        return f"{self.path}/{number}.crl" if kind == COMPLETE else f"{self.path}/{number}.delta.crl"

    def url_name(self, kind: str) -> str:
        """The name under which the newest CRL of a kind is served."""
        return f"{self.path}/{'complete' if kind == COMPLETE else 'delta'}.crl"

    @property
    def idp_der(self) -> bytes | None:
        """The IssuingDistributionPoint of its complete and delta CRLs alike (§5.2.4), or None.

        It names the point, as the certificates do, because the name alone has the key's generation in it:
        Java takes a CRL without one for all that the issuer's name ever issued, whichever key signed it.
        By directory name only, since URIs may change between a delta and its base.

        A CA that was taken over keeps the one (or none) of its last CRL: numbers go on rising per scope,
        so the scope must stay the same (§5.2.3).

        A partition has what it was opened with, its URI too.
        """
        if self.partition is not None:
            return self.partition.names.idp_der
        if self.issuer.imported is not None:
            return self.issuer.imported.crl_idp_der
        directory_name, _ = self.issuer.crl_names.complete
        return encode_issuing_distribution_point((directory_name, ()), only_user_certs=True)

    @property
    def freshest_der(self) -> bytes | None:
        """The freshestCRL of its complete CRLs, if the policy wants it there."""
        if not self.issuer.policy.freshest_crl:
            return None
        if self.partition is not None:
            return self.partition.names.freshest_der
        return self.issuer.crl_names.freshest_der

    def changes(self, store: Store, after_seq: int, upto_seq: int) -> Iterator[RevocationChange]:
        """Yield the changes in (after_seq, upto_seq] that its list must take over, in order."""
        return store.revocation_changes(
            self.issuer.issuer_id, after_seq, upto_seq, scope_id=self.partition_id
        )


class ScopeList:
    """The scopes of one installation, made anew only where an issuer or a partition is not as before."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._mark: tuple[object, ...] = ()
        self._opened: dict[int, list[ScopeRecord]] = {}
        self._issuers: list[IssuerRecord] | None = None
        self._scopes: list[CRLScope] = []

    def read(self) -> list[CRLScope]:
        """Return the scopes of the issuers that revoke here, each once its import (if any) has ended.

        ``all`` of an issuer comes first.  A closed partition is one like the others.
        """
        with self._store.reading(repeatable=True) as connection:
            records, mark = read_issuers(connection), partitions_mark(connection)
            if mark != self._mark:
                self._opened, self._mark, self._issuers = partitions(connection), mark, None
        if records != self._issuers:
            self._issuers = records
            self._scopes = [
                CRLScope(record, partition)
                for record in records
                # Half an import would make a CRL that lacks the other half.
                if record.revokes_here and record.is_ready
                for partition in (None, *self._opened.get(record.issuer_id, ()))
            ]
        return list(self._scopes)


def scopes_of(store: Store) -> list[CRLScope]:
    """Return the scopes as ``ScopeList`` reads them, once."""
    return ScopeList(store).read()


@dataclass(frozen=True, slots=True)
class CRLFolders:
    """Where CRL files are: ``crl`` what is served, below it ``archive`` every complete one that was out, for
    as long as it is retained."""

    state: Path

    @property
    def crl(self) -> Path:
        """The folder whose files the responders serve."""
        return self.state / "crl"

    @property
    def archive(self) -> Path:
        """The folder that keeps complete CRLs: the revocation information files (Act arts. 16, 35)."""
        return self.crl / "archive"
