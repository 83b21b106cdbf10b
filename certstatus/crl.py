"""Complete and delta CRLs on the wire: encoding, and reading back.

Knows: CertificateList version 2 with the extensions we publish.
Does not know: keys, numbers already used, schedules, files; entries (``crl_entry``), distribution
points (``distribution_point``), what may be wrong with a CRL (``crl_lint``), or how a delta joins
its base (``crl_combine``).  Long CRLs are written and read piece by piece (``crl_stream_encode``,
``crl_stream_decode``).
Source: RFC 5280 §5.1, §5.2.

    CertificateList  SEQUENCE { TBSCertList, AlgorithmIdentifier, BIT STRING }
    TBSCertList      SEQUENCE { 1, AlgorithmIdentifier, issuer, thisUpdate, nextUpdate,
                                SEQUENCE OF entry   absent when there is none,
                                [0] Extensions }
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from certstatus import oid
from certstatus.crl_entry import CRLEntry, encode_entries, read_entries
from certstatus.der import (
    CONTEXT,
    CONTEXT_CONSTRUCTED,
    GENERALIZED_TIME,
    INTEGER,
    SEQUENCE,
    UTC_TIME,
    bit_string,
    check_element,
    expect,
    expect_last,
    explicit,
    header,
    integer,
    read_algorithm,
    read_integer,
    read_signature_bits,
    read_time,
    sequence,
    tlv,
    utc_or_generalized_time,
)
from certstatus.distribution_point import parse_distribution_points, parse_issuing_distribution_point
from certstatus.errors import CRLCheckFailed, DERError
from certstatus.expired_certs import encode_expired_certs, expired_certs_of
from certstatus.extension import Extension, encode_extension, parse_extensions

NUMBER_OCTETS_MAX = 20
# 9999-12-31T23:59:59Z, POSIX seconds: a nextUpdate that says that no end is known (RFC 5280 §4.1.2.5).
NO_END_S = 253_402_300_799

_TAG_0 = CONTEXT_CONSTRUCTED | 0
_V2_DER = integer(1)
_EMPTY_SEQUENCE = b"\x30\x00"


def encode_tbs_cert_list(
    *,
    issuer_name_der: bytes,
    signature_algorithm_der: bytes,
    this_update_s: int,
    next_update_s: int,
    entries: Iterable[CRLEntry],
    crl_number: int,
    aki_key_id: bytes,
    base_crl_number: int | None = None,
    issuing_distribution_point_der: bytes | None = None,
    freshest_crl_der: bytes | None = None,
    expired_certs_from_s: int | None = None,
) -> bytes:
    """Return TBSCertList, the octets that are signed; a delta CRL if *base_crl_number* is given.

    Takes:   entries in any order; the rest as ``frame_tbs_cert_list``.
    Raises:  CRLCheckFailed — as ``encode_entries`` and ``frame_tbs_cert_list``.
    """
    entries_der = encode_entries(entries, delta=base_crl_number is not None)
    before, after = frame_tbs_cert_list(
        issuer_name_der=issuer_name_der,
        signature_algorithm_der=signature_algorithm_der,
        this_update_s=this_update_s,
        next_update_s=next_update_s,
        entries_octets=len(entries_der),
        crl_number=crl_number,
        aki_key_id=aki_key_id,
        base_crl_number=base_crl_number,
        issuing_distribution_point_der=issuing_distribution_point_der,
        freshest_crl_der=freshest_crl_der,
        expired_certs_from_s=expired_certs_from_s,
    )
    return b"".join((before, entries_der, after))


def frame_tbs_cert_list(
    *,
    issuer_name_der: bytes,
    signature_algorithm_der: bytes,
    this_update_s: int,
    next_update_s: int,
    entries_octets: int,
    crl_number: int,
    aki_key_id: bytes,
    base_crl_number: int | None = None,
    issuing_distribution_point_der: bytes | None = None,
    freshest_crl_der: bytes | None = None,
    expired_certs_from_s: int | None = None,
) -> tuple[bytes, bytes]:
    """Return what stands before and after *entries_octets* octets of entries in a TBSCertList.

    So a long CRL can be hashed and written without ever being whole in memory.
    Takes:   the issuer's Name as in its certificate; times in POSIX seconds; aki_key_id, the
             keyIdentifier; issuing_distribution_point_der (made critical) and freshest_crl_der
             as the encoders below give them; expired_certs_from_s, since when the list keeps the
             entries of certificates that have ended (POSIX), None: it does not.
    Raises:  CRLCheckFailed — nextUpdate not after thisUpdate, number negative or over 20 octets,
             base number not below the number, freshestCRL in a delta, empty distribution point.
    Source:  RFC 5280 §5.1.2, §5.2.
    """
    delta = base_crl_number is not None
    findings = number_findings(crl_number, base_crl_number)
    if next_update_s <= this_update_s:
        findings.append("pkix.crl_next_update_not_after_this_update")
    if delta and freshest_crl_der is not None:
        findings.append("pkix.crl_freshest_in_delta")
    if issuing_distribution_point_der == _EMPTY_SEQUENCE:
        findings.append("pkix.crl_idp_empty")
    if findings:
        raise CRLCheckFailed(findings)
    extensions = encode_extension(oid.AUTHORITY_KEY_IDENTIFIER, sequence(tlv(CONTEXT | 0, aki_key_id)))
    extensions += encode_extension(oid.CRL_NUMBER, integer(crl_number))
    if base_crl_number is not None:
        extensions += encode_extension(oid.DELTA_CRL_INDICATOR, integer(base_crl_number), critical=True)
    if issuing_distribution_point_der is not None:
        extensions += encode_extension(
            oid.ISSUING_DISTRIBUTION_POINT, issuing_distribution_point_der, critical=True
        )
    if freshest_crl_der is not None:
        extensions += encode_extension(oid.FRESHEST_CRL, freshest_crl_der)
    if expired_certs_from_s is not None:
        extensions += encode_expired_certs(expired_certs_from_s)
    head = (
        _V2_DER
        + signature_algorithm_der
        + issuer_name_der
        + utc_or_generalized_time(this_update_s)
        + utc_or_generalized_time(next_update_s)
        # No entries means no list: an empty SEQUENCE is not allowed here (§5.1.2.6).
        + (header(SEQUENCE, entries_octets) if entries_octets else b"")
    )
    tail = explicit(0, sequence(extensions))
    return header(SEQUENCE, len(head) + entries_octets + len(tail)) + head, tail


def encode_certificate_list(tbs_der: bytes, signature_algorithm_der: bytes, signature: bytes) -> bytes:
    """Return the CertificateList of *tbs_der* and its *signature*."""
    before, after = frame_certificate_list(len(tbs_der), signature_algorithm_der, signature)
    return b"".join((before, tbs_der, after))


def frame_certificate_list(
    tbs_octets: int, signature_algorithm_der: bytes, signature: bytes
) -> tuple[bytes, bytes]:
    """Return what stands before and after a TBSCertList of *tbs_octets* octets in a CertificateList."""
    after = signature_algorithm_der + bit_string(signature)
    return header(SEQUENCE, tbs_octets + len(after)), after


def number_findings(number: int | None, base_number: int | None) -> list[str]:
    """Return what is wrong with CRLNumber and BaseCRLNumber, by themselves and together (§5.2.3, §5.2.4)."""
    findings: list[str] = []
    for value, name in ((number, "number"), (base_number, "base_number")):
        if value is not None and value < 0:
            findings.append(f"pkix.crl_{name}_negative")
        # The octets are those of the INTEGER, sign bit included.
        if value is not None and value >= 1 << (8 * NUMBER_OCTETS_MAX - 1):
            findings.append(f"pkix.crl_{name}_too_long")
    if number is not None and base_number is not None and base_number >= number:
        findings.append("pkix.crl_base_number_not_below_number")
    return findings


class CRLFields(NamedTuple):
    """What a CRL says besides its entries: as ``frame_tbs_cert_list`` takes it."""

    issuer_name_der: bytes
    signature_algorithm_der: bytes
    this_update_s: int
    next_update_s: int
    crl_number: int
    aki_key_id: bytes
    base_crl_number: int | None = None
    issuing_distribution_point_der: bytes | None = None
    freshest_crl_der: bytes | None = None
    expired_certs_from_s: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedHead:
    """All of a CertificateList but its entries; nothing in it is verified, only its form.

    number, base_number    CRLNumber and BaseCRLNumber; a delta CRL has the latter
    aki_key_id             keyIdentifier of the authority key identifier
    idp_der, freshest_der  values of these two extensions
    entries_empty          revokedCertificates was there, and empty
    signature_algorithm_der, outer_algorithm_der   inside and outside the signed part
    """

    version: int
    issuer_der: bytes
    this_update_s: int
    next_update_s: int | None
    number: int | None
    base_number: int | None
    aki_key_id: bytes | None
    idp_der: bytes | None
    freshest_der: bytes | None
    entries_empty: bool
    extensions: tuple[Extension, ...]
    signature_algorithm: str
    signature_algorithm_der: bytes
    outer_algorithm_der: bytes
    signature: bytes

    @property
    def expired_certs_from_s(self) -> int | None:
        """Since when the list keeps who has ended, POSIX seconds; None: it does not (``expired_certs``)."""
        return expired_certs_of(self.extensions)

    def extension(self, name: str) -> Extension | None:
        """Return the CRL extension with the dotted identifier *name*."""
        return next((extension for extension in self.extensions if extension.oid == name), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedCRL(ParsedHead):
    """A whole CertificateList read back.

    entries_critical       some reasonCode or invalidityDate was critical
    tbs_der                the signed part
    """

    entries: list[CRLEntry]
    entries_critical: bool
    tbs_der: bytes


def parse_certificate_list(crl_der: bytes) -> ParsedCRL:
    """Return what *crl_der* says, without verifying its signature.

    Raises:  DERError — not one DER CertificateList to the last octet; a version other than 1 or 2;
             an entry extension that is critical and not ours, so that the entry cannot be understood.
    Cost:    about 4.5 µs an entry.
    Source:  RFC 5280 §5.1.
    """
    pos, end = expect_last(crl_der, 0, len(crl_der), SEQUENCE)
    tbs_start = pos
    pos, tbs_end = expect(crl_der, pos, end, SEQUENCE)
    version = 1
    if pos < tbs_end and crl_der[pos] == INTEGER:
        number, pos = read_integer(crl_der, pos, tbs_end)
        if number != 1:
            # Not its value: a number of thousands of digits cannot be written.
            raise DERError("CRL version: another one than 2")
        version = 2
    start = pos
    algorithm, pos = read_algorithm(crl_der, pos, tbs_end)
    inner_algorithm_der = crl_der[start:pos]
    start = pos
    expect(crl_der, pos, tbs_end, SEQUENCE)
    pos = check_element(crl_der, pos, tbs_end)
    issuer_der = crl_der[start:pos]
    this_update_s, pos = read_time(crl_der, pos, tbs_end)
    next_update_s: int | None = None
    if pos < tbs_end and crl_der[pos] in (UTC_TIME, GENERALIZED_TIME):
        next_update_s, pos = read_time(crl_der, pos, tbs_end)
    entries: list[CRLEntry] = []
    entries_empty = entries_critical = False
    if pos < tbs_end and crl_der[pos] == SEQUENCE:
        start, pos = expect(crl_der, pos, tbs_end, SEQUENCE)
        entries_empty = start == pos
        entries, entries_critical = read_entries(crl_der, start, pos)
    extensions: list[Extension] = []
    if pos < tbs_end:
        start, stop = expect_last(crl_der, pos, tbs_end, _TAG_0)
        extensions = parse_extensions(crl_der, start, stop)
    values = {name: value for name, _, value in extensions}
    idp_der = values.get(oid.ISSUING_DISTRIBUTION_POINT)
    if idp_der is not None:
        parse_issuing_distribution_point(idp_der)
    freshest_der = values.get(oid.FRESHEST_CRL)
    if freshest_der is not None:
        parse_distribution_points(freshest_der)
    start = tbs_end
    _, pos = read_algorithm(crl_der, tbs_end, end)
    outer_algorithm_der = crl_der[start:pos]
    start, pos = read_signature_bits(crl_der, pos, end)
    if pos != end:
        raise DERError(f"CertificateList: {end - pos} octets after the signature")
    return ParsedCRL(
        version=version,
        issuer_der=issuer_der,
        this_update_s=this_update_s,
        next_update_s=next_update_s,
        number=_read_number(values.get(oid.CRL_NUMBER)),
        base_number=_read_number(values.get(oid.DELTA_CRL_INDICATOR)),
        aki_key_id=_read_key_id(values.get(oid.AUTHORITY_KEY_IDENTIFIER)),
        idp_der=idp_der,
        freshest_der=freshest_der,
        entries=entries,
        entries_empty=entries_empty,
        entries_critical=entries_critical,
        extensions=tuple(extensions),
        tbs_der=crl_der[tbs_start:tbs_end],
        signature_algorithm=algorithm,
        signature_algorithm_der=inner_algorithm_der,
        outer_algorithm_der=outer_algorithm_der,
        signature=crl_der[start:pos],
    )


def _read_number(value: bytes | None) -> int | None:
    if value is None:
        return None
    number, stop = read_integer(value, 0, len(value))
    if stop != len(value):
        raise DERError("CRL number: octets after it")
    return number


def _read_key_id(value: bytes | None) -> bytes | None:
    """Return keyIdentifier of an AuthorityKeyIdentifier value; the other form (§4.2.1.1) gives None."""
    if value is None:
        return None
    pos, end = expect_last(value, 0, len(value), SEQUENCE)
    key_id: bytes | None = None
    if pos < end and value[pos] == CONTEXT | 0:
        start, pos = expect(value, pos, end, CONTEXT | 0)
        key_id = value[start:pos]
    for tag in (CONTEXT_CONSTRUCTED | 1, CONTEXT | 2):
        if pos < end and value[pos] == tag:
            pos = check_element(value, pos, end)
    if pos != end:
        raise DERError("authority key identifier: octets after its fields")
    return key_id
