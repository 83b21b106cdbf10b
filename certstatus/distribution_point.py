"""Distribution points: the names under which CRLs are to be had, and what one CRL covers.

Knows: IssuingDistributionPoint (in a CRL), and cRLDistributionPoints and freshestCRL (in
certificates and complete CRLs), with full names of two kinds: directory names and URIs.
Does not know: which name a certificate or a CRL gets.
Source: RFC 5280 §4.2.1.13, §4.2.1.15, §5.2.5, §5.2.6.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from certstatus.der import (
    CONTEXT,
    CONTEXT_CONSTRUCTED,
    SEQUENCE,
    check_element,
    expect,
    expect_last,
    explicit,
    read_boolean,
    read_tlv,
    sequence,
    tlv,
)
from certstatus.errors import CRLCheckFailed, DERError

_TAG_0 = CONTEXT_CONSTRUCTED | 0
_FULL_NAME = CONTEXT_CONSTRUCTED | 0
_DIRECTORY_NAME = CONTEXT_CONSTRUCTED | 4
_URI = CONTEXT | 6

# The name of a distribution point: DER of a directory name or None, and URIs in order.
# A certificate's distribution point and the CRL's must carry the identical one (§5.2.5).
PointName = tuple[bytes | None, Sequence[str]]


class IssuingDistributionPoint(NamedTuple):
    """The parts of an IssuingDistributionPoint; *name_der* is its DistributionPointName."""

    name_der: bytes | None
    only_user_certs: bool
    only_ca_certs: bool
    only_some_reasons: bool
    indirect_crl: bool
    only_attribute_certs: bool


def encode_issuing_distribution_point(
    name: PointName | None, *, only_user_certs: bool = False, only_ca_certs: bool = False
) -> bytes:
    """Return the value of IssuingDistributionPoint (the extension itself is critical).

    Raises:  CRLCheckFailed — nothing to say, or both kinds of certificates exclusively.
    Source:  RFC 5280 §5.2.5.
    """
    if only_user_certs and only_ca_certs:
        raise CRLCheckFailed(["pkix.crl_idp_scopes_conflict"])
    parts = b"" if name is None else explicit(0, _encode_point_name(name))
    parts += tlv(CONTEXT | 1, b"\xff") if only_user_certs else b""
    parts += tlv(CONTEXT | 2, b"\xff") if only_ca_certs else b""
    if not parts:
        raise CRLCheckFailed(["pkix.crl_idp_empty"])
    return sequence(parts)


def encode_distribution_points(points: Iterable[PointName]) -> bytes:
    """Return the value of cRLDistributionPoints or freshestCRL: one DistributionPoint for each name.

    Raises:  DERError — no point at all, or as ``_encode_point_name``.
    Source:  RFC 5280 §4.2.1.13, §4.2.1.15, §5.2.6.
    """
    encoded = [sequence(explicit(0, _encode_point_name(point))) for point in points]
    if not encoded:
        raise DERError("distribution points: none given")
    return sequence(*encoded)


def encode_named_point(name_der: bytes, more_uris: Iterable[str] = ()) -> bytes:
    """Return the value of cRLDistributionPoints with one point, by the name as it stands in a CRL.

    Takes:   *more_uris*: further ways to the same CRL; left out beside a relative name, which stands alone.
    Raises:  DERError — *name_der* is no DistributionPointName.
    Source:  RFC 5280 §4.2.1.13; §5.2.5: the identical encoding in certificate and CRL.
    """
    names = point_names(name_der)
    if name_der[0] == _FULL_NAME:
        _, pos, end = read_tlv(name_der, 0, len(name_der))
        more = [tlv(_URI, uri.encode("ascii")) for uri in more_uris]
        name_der = tlv(_FULL_NAME, name_der[pos:end] + b"".join(uri for uri in more if uri not in names))
    return sequence(sequence(explicit(0, name_der)))


def _encode_point_name(name: PointName) -> bytes:
    """Return DistributionPointName ``fullName``: the directory name first, then the URIs.

    [4] is explicit because Name is a CHOICE; so is the [0] around this value, for the same reason.
    """
    directory_name_der, uris = name
    parts = b"" if directory_name_der is None else tlv(_DIRECTORY_NAME, directory_name_der)
    for uri in uris:
        if not uri or not uri.isascii():
            raise DERError(f"distribution point: URI empty or not ASCII: {uri!r}")
        parts += tlv(_URI, uri.encode("ascii"))
    if not parts:
        raise DERError("distribution point: neither directory name nor URI")
    return tlv(_FULL_NAME, parts)


def parse_issuing_distribution_point(value_der: bytes) -> IssuingDistributionPoint:
    """Return the parts of an IssuingDistributionPoint value, which may be none at all.

    Raises:  DERError — not DER, fields out of order, FALSE written out.
    Source:  RFC 5280 §5.2.5.
    """
    pos, end = expect_last(value_der, 0, len(value_der), SEQUENCE)
    name_der: bytes | None = None
    if pos < end and value_der[pos] == _TAG_0:
        start, pos = expect(value_der, pos, end, _TAG_0)
        read_point_name(value_der[start:pos])
        name_der = value_der[start:pos]
    flags = [False] * 6
    for number in range(1, 6):
        if pos < end and value_der[pos] == CONTEXT | number:
            start, pos = expect(value_der, pos, end, CONTEXT | number)
            # onlySomeReasons (3) is a set of bits; that it is there is all that matters here.
            if number != 3 and not read_boolean(value_der, start, pos):
                raise DERError(f"issuing distribution point: FALSE written out in [{number}]")
            flags[number] = True
    if pos != end:
        raise DERError("issuing distribution point: unknown field, or fields out of order")
    return IssuingDistributionPoint(name_der, flags[1], flags[2], flags[3], flags[4], flags[5])


def parse_distribution_points(value_der: bytes) -> list[PointName]:
    """Return the names in a cRLDistributionPoints or freshestCRL value, in order.

    A point with a cRLIssuer alone gives ``(None, ())``.
    Raises:  DERError — not DER, or no point.
    Source:  RFC 5280 §4.2.1.13.
    """
    pos, end = expect_last(value_der, 0, len(value_der), SEQUENCE)
    if pos == end:
        raise DERError("distribution points: none present")
    points: list[PointName] = []
    while pos < end:
        start, _ = expect(value_der, pos, end, SEQUENCE)
        pos = check_element(value_der, pos, end)
        point: PointName = (None, ())
        if start < pos and value_der[start] == _TAG_0:
            start, stop = expect(value_der, start, pos, _TAG_0)
            point = read_point_name(value_der[start:stop])
        points.append(point)
    return points


def point_names(name_der: bytes) -> frozenset[bytes]:
    """Return what a point is matched by, of every kind: its GeneralNames as DER, or a relative name whole.

    A CRL covers a certificate's point if the two have one of these in common.
    Raises:  DERError — not a DistributionPointName.
    Source:  RFC 5280 §6.3.3 (b)(2)(i).
    """
    read_point_name(name_der)
    tag, pos, end = read_tlv(name_der, 0, len(name_der))
    if tag != _FULL_NAME:
        return frozenset({name_der})
    names = set()
    while pos < end:
        stop = read_tlv(name_der, pos, end)[2]
        names.add(name_der[pos:stop])
        pos = stop
    return frozenset(names)


def names_of_points(value_der: bytes) -> frozenset[bytes]:
    """Return ``point_names`` of all points in a cRLDistributionPoints value together.

    Raises:  DERError — as ``parse_distribution_points``.
    """
    parse_distribution_points(value_der)
    pos, end = expect_last(value_der, 0, len(value_der), SEQUENCE)
    names: frozenset[bytes] = frozenset()
    while pos < end:
        start, pos = expect(value_der, pos, end, SEQUENCE)
        if start < pos and value_der[start] == _TAG_0:
            start, stop = expect(value_der, start, pos, _TAG_0)
            names |= point_names(value_der[start:stop])
    return names


def are_names_only(value_der: bytes) -> bool:
    """Say whether every point of a freshestCRL value has its name and nothing beside it.

    Raises:  DERError — not DER.
    Source:  RFC 5280 §5.2.6: in a CRL, neither reasons nor cRLIssuer.
    """
    pos, end = expect_last(value_der, 0, len(value_der), SEQUENCE)
    while pos < end:
        start, pos = expect(value_der, pos, end, SEQUENCE)
        if start == pos or value_der[start] != _TAG_0 or expect(value_der, start, pos, _TAG_0)[1] != pos:
            return False
    return True


def read_point_name(name_der: bytes) -> PointName:
    """Return the directory name and the URIs of a DistributionPointName; other kinds of names are left out.

    Raises:  DERError — not DER, or a fullName without names.
    """
    tag, pos, end = read_tlv(name_der, 0, len(name_der))
    if check_element(name_der, 0, len(name_der)) != len(name_der):
        raise DERError("distribution point name: octets after it")
    if tag == CONTEXT_CONSTRUCTED | 1:
        # nameRelativeToCRLIssuer, which we neither write nor match.
        return None, ()
    if tag != _FULL_NAME or pos == end:
        raise DERError(f"distribution point name: tag 0x{tag:02X}, or no names in it")
    directory_name_der: bytes | None = None
    uris: list[str] = []
    while pos < end:
        tag, start, pos = read_tlv(name_der, pos, end)
        if tag == _DIRECTORY_NAME and directory_name_der is None:
            expect_last(name_der, start, pos, SEQUENCE)
            directory_name_der = name_der[start:pos]
        elif tag == _URI:
            if not name_der[start:pos].isascii():
                raise DERError("distribution point name: URI not ASCII")
            uris.append(name_der[start:pos].decode("ascii"))
    return directory_name_der, tuple(uris)
