"""The CRL reader beside those of `cryptography` and asn1crypto.

Oracles: the only error is DERError, and ``lint`` has an answer for whatever is read; what we take
and `cryptography` takes has the same issuer, times, numbers and entries in both; the reader of files that
goes block by block says the same as the one that reads all at once.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from asn1crypto import crl as asn1_crl
from cryptography import x509

from certstatus import crl, der, oid
from certstatus.crl_entry import CRLEntry
from certstatus.crl_lint import lint
from certstatus.crl_reason import CRLReason
from certstatus.crl_rows import SECONDS_MAX, entries_of
from certstatus.crl_stream_decode import CRLFile
from certstatus.distribution_point import encode_distribution_points, encode_issuing_distribution_point
from certstatus.errors import DERError
from certstatus.extension import encode_extension
from certstatus.x509_reading import load_crl

_THIS_S, _NEXT_S = 1_900_000_000, 1_900_086_400
_NAME = der.sequence(der.set_of(der.sequence(der.oid("2.5.4.3"), der.tlv(0x0C, b"TEST CA"))))
_URI = "http://localhost/crl/sign/g1/all/complete.crl"
_REASONS = {
    x509.ReasonFlags.unspecified: 0,
    x509.ReasonFlags.key_compromise: 1,
    x509.ReasonFlags.ca_compromise: 2,
    x509.ReasonFlags.affiliation_changed: 3,
    x509.ReasonFlags.superseded: 4,
    x509.ReasonFlags.cessation_of_operation: 5,
    x509.ReasonFlags.certificate_hold: 6,
    x509.ReasonFlags.remove_from_crl: 8,
    x509.ReasonFlags.privilege_withdrawn: 9,
    x509.ReasonFlags.aa_compromise: 10,
}

WORDS = (
    der.oid(oid.REASON_CODE),
    der.oid(oid.INVALIDITY_DATE),
    der.oid(oid.CRL_NUMBER),
    der.oid(oid.DELTA_CRL_INDICATOR),
    der.oid(oid.ISSUING_DISTRIBUTION_POINT),
    der.oid(oid.FRESHEST_CRL),
    der.oid(oid.AUTHORITY_KEY_IDENTIFIER),
    der.enumerated(1),
    der.utc_or_generalized_time(_THIS_S),
    der.generalized_time(2_600_000_000),
    der.boolean(True),
)


def seeds() -> Iterator[tuple[str, bytes]]:
    """Complete and delta CRLs, with and without entries."""
    entries = [
        CRLEntry(b"\x01", _THIS_S - 10),
        CRLEntry(b"\x02", _THIS_S - 20, 1, _THIS_S - 100),
        CRLEntry(b"\x01\x00\x00", _THIS_S - 30, 4),
    ]
    idp = encode_issuing_distribution_point((_NAME, [_URI]), only_user_certs=True)
    freshest = encode_distribution_points([(None, [_URI])])
    yield "complete", _signed(entries, 7, idp=idp, freshest=freshest)
    yield "empty", _signed([], 8)
    removed = CRLEntry(b"\x03", _THIS_S, CRLReason.REMOVE_FROM_CRL)
    yield "delta", _signed([*entries, removed], 9, base=7, idp=idp)
    yield "late", _signed([CRLEntry(b"\x05", 2_600_000_000, 1)], 10)
    yield (
        "version-1",
        der.sequence(
            der.sequence(
                oid.ED25519_DER,
                _NAME,
                der.utc_or_generalized_time(_THIS_S),
                der.sequence(der.sequence(der.integer(5), der.utc_or_generalized_time(_THIS_S))),
            ),
            oid.ED25519_DER,
            der.bit_string(b"signature"),
        ),
    )
    unknown = der.sequence(encode_extension("1.2.3", b"\x05\x00"))
    entry = der.sequence(der.integer(5), der.utc_or_generalized_time(_THIS_S), unknown)
    yield (
        "unknown-entry-extension",
        der.sequence(
            der.sequence(
                der.integer(1),
                oid.ED25519_DER,
                _NAME,
                der.utc_or_generalized_time(_THIS_S),
                der.sequence(entry),
                der.explicit(0, der.sequence(encode_extension(oid.CRL_NUMBER, der.integer(3)))),
            ),
            oid.ED25519_DER,
            der.bit_string(b"signature"),
        ),
    )


def _signed(
    entries: list[CRLEntry],
    number: int,
    base: int | None = None,
    idp: bytes | None = None,
    freshest: bytes | None = None,
) -> bytes:
    tbs = crl.encode_tbs_cert_list(
        issuer_name_der=_NAME,
        signature_algorithm_der=oid.ED25519_DER,
        this_update_s=_THIS_S,
        next_update_s=_NEXT_S,
        entries=entries,
        crl_number=number,
        aki_key_id=b"key",
        base_crl_number=base,
        issuing_distribution_point_der=idp,
        freshest_crl_der=freshest,
    )
    return crl.encode_certificate_list(tbs, oid.ED25519_DER, b"signature")


def one_input(data: bytes) -> None:
    """Read *data* with all that can read it."""
    try:
        ours = crl.parse_certificate_list(data)
    except DERError:
        try:
            _streamed(data)
        except DERError:
            return
        raise AssertionError("read block by block, and not at once") from None
    if all(map(_fits_in_a_row, ours.entries)) and len(data) < 1 << 16:
        assert _streamed(data) == (ours.entries, ours.entries_empty, ours.number, ours.signature)
    lint(ours, hold_allowed=True)
    lint(ours, hold_allowed=False)
    other = asn1_crl.CertificateList.load(data, strict=True)
    assert other["tbs_cert_list"].dump() == ours.tbs_der
    assert other["tbs_cert_list"]["issuer"].dump() == ours.issuer_der
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            theirs = load_crl(data)
        except ValueError:
            # It insists on one algorithm inside and outside, and on a version; ``lint`` finds those.
            return
        _compare(ours, theirs)


@cache
def _file() -> int:
    return os.memfd_create("fuzz_crl")


def _streamed(data: bytes) -> tuple[list[CRLEntry], bool, int | None, bytes]:
    os.ftruncate(_file(), 0)
    os.pwrite(_file(), data, 0)
    with CRLFile(Path(f"/proc/self/fd/{_file()}")) as file:
        entries = [entry for rows in file.rows() for entry in entries_of(rows)]
        return entries, file.head.entries_empty, file.head.number, file.head.signature


def _fits_in_a_row(entry: CRLEntry) -> bool:
    return (
        len(entry.serial) <= 20
        and 0 <= entry.revoked_at_s <= SECONDS_MAX
        and (entry.invalidity_at_s is None or 0 < entry.invalidity_at_s <= SECONDS_MAX)
        and (entry.reason is None or 0 <= entry.reason < 255)
    )


def _compare(ours: crl.ParsedCRL, theirs: x509.CertificateRevocationList) -> None:
    assert ours.tbs_der == theirs.tbs_certlist_bytes
    assert ours.signature == theirs.signature
    assert ours.signature_algorithm == theirs.signature_algorithm_oid.dotted_string
    assert _moment(ours.this_update_s) == theirs.last_update_utc
    next_update = theirs.next_update_utc
    assert (None if ours.next_update_s is None else _moment(ours.next_update_s)) == next_update
    try:
        extensions = {extension.oid.dotted_string: extension.value for extension in theirs.extensions}
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        # It looks into extensions that we pass over, and takes fewer kinds of names.
        extensions = None
    if extensions is not None:
        number = extensions.get(oid.CRL_NUMBER)
        assert (None if number is None else number.crl_number) == ours.number
        base = extensions.get(oid.DELTA_CRL_INDICATOR)
        assert (None if base is None else base.crl_number) == ours.base_number
    entries = list(theirs)
    assert len(entries) == len(ours.entries)
    for mine, foreign in zip(ours.entries, entries, strict=True):
        assert int.from_bytes(mine.serial, "big", signed=True) == foreign.serial_number
        assert _moment(mine.revoked_at_s) == foreign.revocation_date_utc
        _compare_extensions(mine, foreign)


def _compare_extensions(mine: CRLEntry, foreign: x509.RevokedCertificate) -> None:
    try:
        values = [extension.value for extension in foreign.extensions]
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        # A reason that does not exist (``lint`` finds it), or an extension we pass over.
        return
    reason = next((value.reason for value in values if isinstance(value, x509.CRLReason)), None)
    assert mine.reason == (None if reason is None else _REASONS[reason])
    since = next((value for value in values if isinstance(value, x509.InvalidityDate)), None)
    expected = None if since is None else since.invalidity_date_utc
    assert (None if mine.invalidity_at_s is None else _moment(mine.invalidity_at_s)) == expected


def _moment(posix_s: int) -> datetime:
    return datetime.fromtimestamp(posix_s, UTC)
