"""Whether a CA's CRL is of all its certificates, or of those alone that name its distribution point.

A CA with partitions has a CRL for each; taken for the whole list, one of them would leave whoever is
revoked in another one good.
Knows: the points that a CRL and the certificates name, and comparing them octet by octet.
Does not know: files, or what is recorded.
Source: RFC 5280 §4.2.1.13, §5.2.5, §6.3.3 (b)(2)(i).
"""

from __future__ import annotations

from certstatus import oid
from certstatus.distribution_point import (
    names_of_points,
    parse_issuing_distribution_point,
    point_names,
    read_point_name,
)
from certstatus.errors import DERError
from certstatus.extension import parse_extensions
from issuance.import_certificate import CertificateFields, FieldError

FIELD = "issuing distribution point"


def crl_points(idp_der: bytes | None) -> frozenset[bytes]:
    """Return the names of the point that a CRL is of; empty for one that is of all there is."""
    name_der = None if idp_der is None else parse_issuing_distribution_point(idp_der).name_der
    return frozenset() if name_der is None else point_names(name_der)


def certificate_points(fields: CertificateFields) -> frozenset[bytes]:
    """Return the names of all points in a certificate; empty if it has none.

    Raises: FieldError — its extensions cannot be read.
    """
    if not fields.extensions_der:
        return frozenset()
    try:
        for extension in parse_extensions(fields.extensions_der, 0, len(fields.extensions_der)):
            if extension.oid == oid.CRL_DISTRIBUTION_POINTS:
                return names_of_points(extension.value)
    except DERError as exc:
        raise FieldError("CRL distribution points", f"cannot be read: {exc}") from exc
    return frozenset()


def points_text(idp_der: bytes | None) -> str:
    """Return the name of a CRL's point as it may stand in a message."""
    name_der = None if idp_der is None else parse_issuing_distribution_point(idp_der).name_der
    if name_der is None:
        return "no point"
    _, uris = read_point_name(name_der)
    return f"the point {uris[0]:.200}" if uris else "a point that has a name but no URI"
