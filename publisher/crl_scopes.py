"""CRL scopes: what one series of CRLs covers, what it is called, and where its files lie.

Knows: the unpartitioned scope ``all`` of an issuer key, its extensions and its paths.  Every name
carries service, key generation and scope, because generations share the issuer's name.
Does not know: numbers, entries, keys.
Source: RFC 5280 §5.2.5 (scope by IssuingDistributionPoint), §5.2.6 (freshest CRL).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from certstatus.crl_catalogue import COMPLETE, DELTA
from certstatus.distribution_point import encode_distribution_points, encode_issuing_distribution_point
from issuance.issuers import IssuerRecord

ALL = "all"


@dataclass(frozen=True, slots=True)
class CRLScope:
    """One scope of one issuer key; the only one so far is ``all``."""

    issuer: IssuerRecord
    name: str = ALL

    @property
    def path(self) -> str:
        """The scope's folder below the CRL folder, and below ``/crl/`` in URLs: ``sign/g1/all``."""
        return f"{self.issuer.service.lower()}/g{self.issuer.generation}/{self.name}"

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
        """
        if self.issuer.imported is not None:
            return self.issuer.imported.crl_idp_der
        directory_name, _ = self.issuer.crl_names.complete
        return encode_issuing_distribution_point((directory_name, ()), only_user_certs=True)

    @property
    def freshest_der(self) -> bytes | None:
        """The freshestCRL of its complete CRLs, if the policy wants it there."""
        if not self.issuer.policy.freshest_crl:
            return None
        return encode_distribution_points([self.issuer.crl_names.freshest])


@dataclass(frozen=True, slots=True)
class CRLFolders:
    """Where CRL files are: ``crl`` what is served, below it ``archive`` every complete one for good, so
    that a backup of the one folder has both."""

    state: Path

    @property
    def crl(self) -> Path:
        """The folder whose files the responders serve."""
        return self.state / "crl"

    @property
    def archive(self) -> Path:
        """The folder that keeps complete CRLs: the revocation information files (Act arts. 16, 35)."""
        return self.crl / "archive"


KINDS = (COMPLETE, DELTA)
