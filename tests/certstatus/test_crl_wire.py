"""CRLs on the wire: read by `cryptography`, asn1crypto, OpenSSL and pkilint; combined; and linted."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from asn1crypto import crl as asn1_crl
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from hypothesis import given
from hypothesis import strategies as st
from pkilint.bin import lint_crl as pkilint_crl

from certstatus import crl, crl_entry, crl_lint, der, distribution_point, oid
from certstatus.crl import ParsedCRL, parse_certificate_list
from certstatus.crl_combine import combine
from certstatus.crl_entry import CRLEntry
from certstatus.crl_lint import lint
from certstatus.crl_reason import CRLReason
from certstatus.errors import CertStatusError, CRLCheckFailed, DERError
from certstatus.extension import encode_extension

_Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
_THIS_S = int(datetime(2026, 7, 1, 12, 0, tzinfo=UTC).timestamp())
_NEXT_S = _THIS_S + 2 * 86_400
_2050_S = int(datetime(2050, 1, 1, tzinfo=UTC).timestamp())
_POINT: distribution_point.PointName = (
    x509.Name(
        [
            x509.NameAttribute(x509.NameOID.COUNTRY_NAME, "JP"),
            x509.NameAttribute(x509.NameOID.COMMON_NAME, "g2/all CRLDP"),
        ]
    ).public_bytes(),
    ("http://crl.example.jp/crl/SIGN/g2/all.crl",),
)
_DELTA_POINT: distribution_point.PointName = (None, ("http://crl.example.jp/crl/SIGN/g2/all.delta.crl",))


@dataclass(frozen=True)
class Authority:
    """A CA: key, certificate, and the algorithm it signs CRLs with."""

    key: _Key
    certificate: x509.Certificate
    algorithm_der: bytes
    algorithm: str

    @property
    def name_der(self) -> bytes:
        return self.certificate.subject.public_bytes()

    @property
    def key_id(self) -> bytes:
        return x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()).digest

    def sign(self, tbs: bytes) -> bytes:
        if isinstance(self.key, rsa.RSAPrivateKey):
            return self.key.sign(tbs, padding.PKCS1v15(), hashes.SHA256())
        p256 = isinstance(self.key.curve, ec.SECP256R1)
        return self.key.sign(tbs, ec.ECDSA(hashes.SHA256() if p256 else hashes.SHA384()))

    def tbs(
        self,
        entries: Sequence[CRLEntry] = (),
        *,
        number: int = 5,
        base: int | None = None,
        idp: bytes | None = None,
        freshest: bytes | None = None,
        expired_from_s: int | None = None,
        this_update_s: int = _THIS_S,
        next_update_s: int = _NEXT_S,
    ) -> bytes:
        return crl.encode_tbs_cert_list(
            issuer_name_der=self.name_der,
            signature_algorithm_der=self.algorithm_der,
            this_update_s=this_update_s,
            next_update_s=next_update_s,
            entries=entries,
            crl_number=number,
            aki_key_id=self.key_id,
            base_crl_number=base,
            issuing_distribution_point_der=idp,
            freshest_crl_der=freshest,
            expired_certs_from_s=expired_from_s,
        )

    def issue(self, tbs: bytes) -> bytes:
        return crl.encode_certificate_list(tbs, self.algorithm_der, self.sign(tbs))


def _authority(kind: str) -> Authority:
    key: _Key
    if kind == "RSA-2048":
        key, algorithm = rsa.generate_private_key(65537, 2048), (oid.SHA256_WITH_RSA_DER, oid.SHA256_WITH_RSA)
    elif kind == "P-256":
        key = ec.generate_private_key(ec.SECP256R1())
        algorithm = (oid.ECDSA_WITH_SHA256_DER, oid.ECDSA_WITH_SHA256)
    else:
        key = ec.generate_private_key(ec.SECP384R1())
        algorithm = (oid.ECDSA_WITH_SHA384_DER, oid.ECDSA_WITH_SHA384)
    name = x509.Name(
        [
            x509.NameAttribute(x509.NameOID.COUNTRY_NAME, "JP"),
            x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "試験 TEST"),
        ]
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime(2026, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2036, 1, 1, tzinfo=UTC))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Authority(key, certificate, *algorithm)


@pytest.fixture(scope="module", params=["P-256", "P-384", "RSA-2048"])
def authority(request: pytest.FixtureRequest) -> Authority:
    """A CA, once for each kind of key."""
    return _authority(request.param)


@pytest.fixture(scope="module")
def p256() -> Authority:
    """The CA with the usual kind of key."""
    return _authority("P-256")


_ENTRIES = [
    CRLEntry(b"\x00\xff", _THIS_S - 10, 1, _THIS_S - 86_400),
    CRLEntry(b"\x05", _THIS_S - 20),
    CRLEntry(b"\x7f" * 20, _THIS_S - 30, 0),
    CRLEntry(b"\x01\x00", _2050_S, 6),
    *[CRLEntry(bytes((0x10 + reason,)), _THIS_S, reason) for reason in (2, 3, 4, 5, 9, 10)],
    CRLEntry(b"\x06", 0, None, 0),
]


def _value(serial: bytes) -> int:
    return int.from_bytes(serial, "big", signed=True)


def _ordered(entries: Sequence[CRLEntry]) -> list[CRLEntry]:
    """As they read back: ascending, and unspecified left out."""
    return [
        entry._replace(reason=entry.reason or None)
        for entry in sorted(entries, key=lambda entry: _value(entry.serial))
    ]


def _utc(posix_s: int) -> datetime:
    return datetime.fromtimestamp(posix_s, UTC)


_IDP = distribution_point.encode_issuing_distribution_point(_POINT, only_user_certs=True)
_FRESHEST = distribution_point.encode_distribution_points([_DELTA_POINT])
_FOREIGN_REASONS = {
    1: x509.ReasonFlags.key_compromise,
    2: x509.ReasonFlags.ca_compromise,
    3: x509.ReasonFlags.affiliation_changed,
    4: x509.ReasonFlags.superseded,
    5: x509.ReasonFlags.cessation_of_operation,
    6: x509.ReasonFlags.certificate_hold,
    8: x509.ReasonFlags.remove_from_crl,
    9: x509.ReasonFlags.privilege_withdrawn,
    10: x509.ReasonFlags.aa_compromise,
}
_ASN1_REASONS = {
    1: "key_compromise",
    2: "ca_compromise",
    3: "affiliation_changed",
    4: "superseded",
    5: "cessation_of_operation",
    6: "certificate_hold",
    8: "remove_from_crl",
    9: "privilege_withdrawn",
    10: "aa_compromise",
}


def _dates_findings(entries: Sequence[CRLEntry], this_update_s: int) -> list[str]:
    """What lint says of dates drawn at random."""
    late = any(entry.revoked_at_s > this_update_s for entry in entries)
    doubtful = any((entry.invalidity_at_s or 0) > entry.revoked_at_s for entry in entries)
    return ["certstatus.crl_entry_after_this_update"] * late + [
        "certstatus.crl_invalidity_after_revocation"
    ] * doubtful


def _check_everywhere(authority: Authority, crl_der: bytes, entries: Sequence[CRLEntry]) -> ParsedCRL:
    """Verify the signature and compare times and entries in all three readers; return ours."""
    expected = _ordered(entries)

    theirs = x509.load_der_x509_crl(crl_der)
    assert theirs.is_signature_valid(authority.certificate.public_key())  # type: ignore[arg-type]
    assert theirs.issuer == authority.certificate.subject
    assert theirs.signature_algorithm_oid.dotted_string == authority.algorithm
    assert (theirs.last_update_utc, theirs.next_update_utc) == (_utc(_THIS_S), _utc(_NEXT_S))
    assert [entry.serial_number for entry in theirs] == [_value(entry.serial) for entry in expected]
    for foreign, entry in zip(theirs, expected, strict=True):
        assert foreign.revocation_date_utc == _utc(entry.revoked_at_s)
        extensions: list[object] = [extension.value for extension in foreign.extensions]
        wanted: list[object] = (
            [] if entry.reason is None else [x509.CRLReason(_FOREIGN_REASONS[entry.reason])]
        )
        if entry.invalidity_at_s is not None:
            wanted.append(x509.InvalidityDate(_utc(entry.invalidity_at_s).replace(tzinfo=None)))
        assert extensions == wanted
        assert not any(extension.critical for extension in foreign.extensions)

    other = asn1_crl.CertificateList.load(crl_der, strict=True)
    listed = other["tbs_cert_list"]["revoked_certificates"]
    if not expected:
        assert listed.native is None
    else:
        assert len(listed) == len(expected)
    for foreign_entry, entry in zip(listed if expected else [], expected, strict=True):
        assert foreign_entry["user_certificate"].native == _value(entry.serial)
        assert foreign_entry["revocation_date"].native == _utc(entry.revoked_at_s)
        reason = foreign_entry.crl_reason_value
        assert (None if reason is None else reason.native) == _ASN1_REASONS.get(entry.reason or 0)
        invalidity = foreign_entry.invalidity_date_value
        assert (None if invalidity is None else int(invalidity.native.timestamp())) == entry.invalidity_at_s

    ours = parse_certificate_list(crl_der)
    assert ours.version == 2
    assert ours.issuer_der == authority.name_der
    assert (ours.this_update_s, ours.next_update_s) == (_THIS_S, _NEXT_S)
    assert ours.aki_key_id == authority.key_id
    assert ours.entries == expected
    assert ours.tbs_der == theirs.tbs_certlist_bytes
    assert ours.signature == theirs.signature
    assert ours.signature_algorithm == authority.algorithm
    assert ours.signature_algorithm_der == ours.outer_algorithm_der == authority.algorithm_der
    return ours


def _extensions(crl_der: bytes) -> dict[str, tuple[bool, object]]:
    return {
        extension.oid.dotted_string: (extension.critical, extension.value)
        for extension in x509.load_der_x509_crl(crl_der).extensions
    }


def _foreign_point(name: distribution_point.PointName) -> list[x509.GeneralName]:
    directory_name_der, uris = name
    names: list[x509.GeneralName] = []
    if directory_name_der is not None:
        names.append(
            x509.DirectoryName(
                x509.Name(
                    [
                        x509.NameAttribute(x509.NameOID.COUNTRY_NAME, "JP"),
                        x509.NameAttribute(x509.NameOID.COMMON_NAME, "g2/all CRLDP"),
                    ]
                )
            )
        )
    return names + [x509.UniformResourceIdentifier(uri) for uri in uris]


@pytest.mark.parametrize("entries", [_ENTRIES, _ENTRIES[:1], []], ids=["many", "one", "none"])
def test_complete_crl_is_read_alike_by_all(authority: Authority, entries: list[CRLEntry]) -> None:
    """A complete CRL with its distribution point and its pointer to deltas, field by field in each reader."""
    crl_der = authority.issue(authority.tbs(entries, number=300, idp=_IDP, freshest=_FRESHEST))
    ours = _check_everywhere(authority, crl_der, entries)
    assert (ours.number, ours.base_number) == (300, None)
    assert (ours.idp_der, ours.freshest_der) == (_IDP, _FRESHEST)
    assert _extensions(crl_der) == {
        oid.AUTHORITY_KEY_IDENTIFIER: (False, x509.AuthorityKeyIdentifier(authority.key_id, None, None)),
        oid.CRL_NUMBER: (False, x509.CRLNumber(300)),
        oid.ISSUING_DISTRIBUTION_POINT: (
            True,
            x509.IssuingDistributionPoint(_foreign_point(_POINT), None, True, False, None, False, False),
        ),
        oid.FRESHEST_CRL: (
            False,
            x509.FreshestCRL([x509.DistributionPoint(_foreign_point(_DELTA_POINT), None, None, None)]),
        ),
    }
    assert lint(ours, hold_allowed=True) == _dates_findings(entries, _THIS_S)


def test_delta_crl_is_read_alike_by_all(authority: Authority) -> None:
    """A delta CRL has its critical indicator, may remove entries, and points to no further delta."""
    entries = [*_ENTRIES, CRLEntry(b"\x44", _THIS_S, 8)]
    crl_der = authority.issue(authority.tbs(entries, number=1 << 158, base=299, idp=_IDP))
    ours = _check_everywhere(authority, crl_der, entries)
    assert (ours.number, ours.base_number) == (1 << 158, 299)
    extensions = _extensions(crl_der)
    assert extensions[oid.DELTA_CRL_INDICATOR] == (True, x509.DeltaCRLIndicator(299))
    assert oid.FRESHEST_CRL not in extensions
    assert lint(ours, hold_allowed=True) == _dates_findings(entries, _THIS_S)


def test_empty_crl_has_no_list(p256: Authority) -> None:
    """Without entries, extensions follow nextUpdate directly: an empty list is forbidden."""
    tbs = p256.tbs()
    assert der.utc_or_generalized_time(_NEXT_S) + b"\xa0" in tbs
    assert not parse_certificate_list(p256.issue(tbs)).entries_empty


def test_times_change_their_type_with_2050(p256: Authority) -> None:
    """UTCTime through 2049, GeneralizedTime from 2050, in header and entries; invalidity never UTCTime."""
    entries = [CRLEntry(b"\x01", _2050_S - 1, None, 0), CRLEntry(b"\x02", _2050_S)]
    crl_der = p256.issue(p256.tbs(entries, this_update_s=_2050_S - 1, next_update_s=_2050_S))
    for written in (b"\x17\x0d491231235959Z", b"\x18\x0f20500101000000Z"):
        assert crl_der.count(written) == 2
    assert crl_der.count(b"\x18\x0f19700101000000Z") == 1
    theirs = x509.load_der_x509_crl(crl_der)
    assert (theirs.last_update_utc, theirs.next_update_utc) == (_utc(_2050_S - 1), _utc(_2050_S))
    assert parse_certificate_list(crl_der).entries == entries


@pytest.mark.parametrize("delta", [False, True])
def test_openssl_verifies_and_prints_the_crl(tmp_path: Path, authority: Authority, delta: bool) -> None:
    """`openssl crl` accepts the signature and shows numbers, serial numbers and reasons."""
    pem, file = tmp_path / "ca.pem", tmp_path / "all.crl"
    pem.write_bytes(authority.certificate.public_bytes(serialization.Encoding.PEM))
    tbs = (
        authority.tbs(_ENTRIES, number=7, base=6, idp=_IDP)
        if delta
        else authority.tbs(_ENTRIES, number=7, freshest=_FRESHEST)
    )
    file.write_bytes(authority.issue(tbs))
    command: list[str | Path] = [
        "openssl",
        "crl",
        "-inform",
        "DER",
        "-in",
        file,
        "-CAfile",
        pem,
        "-noout",
        "-text",
    ]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "verify OK" in done.stderr
    printed = done.stdout
    assert printed.count("Serial Number:") == len(_ENTRIES)
    assert "Key Compromise" in printed
    assert "Certificate Hold" in printed
    assert ("X509v3 Delta CRL Indicator: critical\n                6" in printed) == delta
    assert ("X509v3 Freshest CRL" in printed) != delta


def _pkilint(crl_der: bytes, folder: Path, capsys: pytest.CaptureFixture[str]) -> list[object]:
    file = folder / "linted.crl"
    file.write_bytes(crl_der)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pkilint_crl.main(["lint", "-t", "CRL", "-p", "PKIX", "-f", "JSON", "-s", "WARNING", str(file)])
    results = json.loads(capsys.readouterr().out)["results"]
    assert isinstance(results, list)
    return results


@pytest.mark.parametrize("delta", [False, True])
def test_pkilint_finds_nothing(
    tmp_path: Path, p256: Authority, capsys: pytest.CaptureFixture[str], delta: bool
) -> None:
    """A linter of another house finds no error or warning in a complete and in a delta CRL."""
    entries = [CRLEntry(b"\x05", _THIS_S - 20, 1), CRLEntry(b"\x06", _THIS_S)]
    tbs = (
        p256.tbs(entries, number=7, base=6, idp=_IDP, expired_from_s=_2050_S)
        if delta
        else p256.tbs(entries, idp=_IDP, freshest=_FRESHEST, expired_from_s=_THIS_S - 9000)
    )
    assert _pkilint(p256.issue(tbs), tmp_path, capsys) == []
    # It would have said so otherwise: this one has no number.
    assert _pkilint(_built(_AKI), tmp_path, capsys) != []


def test_since_when_a_crl_keeps_who_has_expired(p256: Authority) -> None:
    """In GeneralizedTime whatever the year, not critical, read back; nothing of it where it keeps nobody."""
    for from_s, text in ((_THIS_S, b"20260701120000Z"), (_2050_S, b"20500101000000Z")):
        parsed = parse_certificate_list(p256.issue(p256.tbs([], expired_from_s=from_s)))
        found = parsed.extension(oid.EXPIRED_CERTS_ON_CRL)
        assert found == ("2.5.29.60", False, b"\x18\x0f" + text)
        assert parsed.expired_certs_from_s == from_s
        assert lint(parsed, hold_allowed=False) == []
    parsed = parse_certificate_list(p256.issue(p256.tbs([])))
    assert parsed.extension(oid.EXPIRED_CERTS_ON_CRL) is None
    assert parsed.expired_certs_from_s is None


def test_frames_and_entries_make_the_same_crl(p256: Authority) -> None:
    """Written piece by piece, a CRL is octet for octet the one written at once."""
    entries = [
        CRLEntry(number.to_bytes(3, "big"), _THIS_S + number, 1) for number in range(0x10000, 0x10000 + 3000)
    ]
    whole = p256.tbs(entries)
    pieces = b"".join(map(crl_entry.encode_entry, entries))
    before, after = crl.frame_tbs_cert_list(
        issuer_name_der=p256.name_der,
        signature_algorithm_der=p256.algorithm_der,
        this_update_s=_THIS_S,
        next_update_s=_NEXT_S,
        entries_octets=len(pieces),
        crl_number=5,
        aki_key_id=p256.key_id,
    )
    assert before + pieces + after == whole
    signature = p256.sign(whole)
    outer_before, outer_after = crl.frame_certificate_list(len(whole), p256.algorithm_der, signature)
    assert outer_before + whole + outer_after == crl.encode_certificate_list(
        whole, p256.algorithm_der, signature
    )


def test_hundred_thousand_entries_come_back(p256: Authority) -> None:
    """A CRL as large as a city's is encoded, signed, read and checked as a whole."""
    entries = [
        CRLEntry(
            b"\x01" + (number * 2_654_435_761 % (1 << 32)).to_bytes(4, "big"),
            _THIS_S - number,
            number % 6 or None,
        )
        for number in range(100_000)
    ]
    parsed = parse_certificate_list(p256.issue(p256.tbs(entries)))
    assert parsed.entries == sorted(entries)
    assert lint(parsed, hold_allowed=False) == []


# Distribution points ------------------------------------------------------------------------------------


def test_certificate_and_crl_carry_the_identical_point_name() -> None:
    """The name in a certificate's distribution point is octet for octet the one in the CRL's."""
    name_der = distribution_point.parse_issuing_distribution_point(_IDP).name_der
    assert name_der is not None
    points_der = distribution_point.encode_distribution_points([_POINT, _DELTA_POINT])
    assert der.explicit(0, name_der) in points_der
    assert distribution_point.read_point_name(name_der) == _POINT
    assert distribution_point.parse_distribution_points(points_der) == [_POINT, _DELTA_POINT]


@pytest.mark.parametrize("point", [_POINT, _DELTA_POINT, (_POINT[0], ()), (None, ("http://a/", "http://b/"))])
def test_distribution_points_are_those_of_others(point: distribution_point.PointName) -> None:
    """cryptography writes the same octets for the same names, and asn1crypto reads them."""
    points_der = distribution_point.encode_distribution_points([point])
    theirs = x509.CRLDistributionPoints([x509.DistributionPoint(_foreign_point(point), None, None, None)])
    assert points_der == theirs.public_bytes()
    (read,) = asn1_x509.CRLDistributionPoints.load(points_der, strict=True)
    assert len(read["distribution_point"].chosen) == len(point[1]) + (point[0] is not None)
    scope = distribution_point.encode_issuing_distribution_point(point, only_ca_certs=True)
    foreign = x509.IssuingDistributionPoint(_foreign_point(point), None, False, True, None, False, False)
    assert scope == foreign.public_bytes()
    assert distribution_point.parse_issuing_distribution_point(scope)[1:] == (
        False,
        True,
        False,
        False,
        False,
    )


def test_distribution_point_without_name_may_limit_the_kind() -> None:
    """An unpartitioned scope of user certificates needs no name."""
    scope = distribution_point.encode_issuing_distribution_point(None, only_user_certs=True)
    assert scope.hex() == "30038101ff"
    assert distribution_point.parse_issuing_distribution_point(scope) == (
        None,
        True,
        False,
        False,
        False,
        False,
    )


@pytest.mark.parametrize("arguments", [{}, {"only_user_certs": True, "only_ca_certs": True}])
def test_meaningless_distribution_point_is_not_written(arguments: dict[str, bool]) -> None:
    """Neither an empty scope nor one that excludes everything can be written."""
    with pytest.raises(CRLCheckFailed, match=r"pkix\.crl_idp_"):
        distribution_point.encode_issuing_distribution_point(None, **arguments)


@pytest.mark.parametrize("point", [(None, ()), (None, ("",)), (None, ("http://日本/",))])
def test_distribution_point_without_usable_name_is_not_written(point: distribution_point.PointName) -> None:
    """A name must be there, and a URI must be ASCII."""
    with pytest.raises(CertStatusError):
        distribution_point.encode_distribution_points([point])


def test_no_distribution_point_is_not_written() -> None:
    """The list of distribution points is never empty."""
    with pytest.raises(DERError):
        distribution_point.encode_distribution_points([])
    with pytest.raises(DERError):
        distribution_point.parse_distribution_points(der.sequence())


def test_foreign_distribution_points_are_read() -> None:
    """Relative names, other kinds of names, reasons and issuers of other CAs' points do no harm."""
    relative = der.explicit(0, der.explicit(1, der.sequence(der.oid("2.5.4.3"), der.tlv(0x0C, b"x"))))
    mixed = der.explicit(0, der.explicit(0, der.tlv(0x82, b"dns") + der.tlv(0x86, b"ldap://x")))
    issuer = der.tlv(0xA2, der.tlv(0xA4, der.sequence()))
    points_der = der.sequence(
        der.sequence(relative), der.sequence(mixed, b"\x81\x02\x01\x06"), der.sequence(issuer)
    )
    assert distribution_point.parse_distribution_points(points_der) == [
        (None, ()),
        (None, ("ldap://x",)),
        (None, ()),
    ]


# What must not be written -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("finding", "entries", "arguments"),
    [
        ("pkix.crl_remove_in_complete", [CRLEntry(b"\x05", _THIS_S, 8)], {}),
        ("pkix.crl_reason_unknown", [CRLEntry(b"\x05", _THIS_S, 7)], {}),
        ("pkix.crl_reason_unknown", [CRLEntry(b"\x05", _THIS_S, 11)], {}),
        ("pkix.crl_serial_duplicate", [CRLEntry(b"\x05", _THIS_S), CRLEntry(b"\x05", _THIS_S, 1)], {}),
        ("pkix.crl_serial_not_minimal", [CRLEntry(b"", _THIS_S)], {}),
        ("pkix.crl_serial_not_minimal", [CRLEntry(b"\x00\x05", _THIS_S)], {}),
        ("pkix.crl_serial_not_minimal", [CRLEntry(b"\xff\x85", _THIS_S)], {}),
        ("pkix.crl_next_update_not_after_this_update", [], {"next_update_s": _THIS_S}),
        ("pkix.crl_number_negative", [], {"number": -1}),
        ("pkix.crl_number_too_long", [], {"number": 1 << 159}),
        ("pkix.crl_base_number_not_below_number", [], {"number": 5, "base": 5}),
        ("pkix.crl_base_number_negative", [], {"number": 5, "base": -1}),
        ("pkix.crl_freshest_in_delta", [], {"number": 5, "base": 4, "freshest": _FRESHEST}),
        ("pkix.crl_idp_empty", [], {"idp": b"\x30\x00"}),
    ],
)
def test_wrong_crl_is_not_written(
    p256: Authority, finding: str, entries: list[CRLEntry], arguments: dict[str, object]
) -> None:
    """What a CRL must not say is refused with the name of the finding."""
    with pytest.raises(CRLCheckFailed) as refused:
        p256.tbs(entries, **arguments)  # type: ignore[arg-type]
    assert refused.value.findings == [finding]


# Lint ---------------------------------------------------------------------------------------------------

_AKI = encode_extension(oid.AUTHORITY_KEY_IDENTIFIER, der.sequence(der.tlv(0x80, b"k" * 20)))
_NUMBER = encode_extension(oid.CRL_NUMBER, der.integer(5))
_DELTA = encode_extension(oid.DELTA_CRL_INDICATOR, der.integer(4), critical=True)
_NAME = der.sequence(der.set_of(der.sequence(der.oid("2.5.4.3"), der.tlv(0x0C, b"CA"))))
_TIMES = der.utc_or_generalized_time(_THIS_S) + der.utc_or_generalized_time(_NEXT_S)


def _entry(serial: bytes, *extensions: bytes) -> bytes:
    wrapped = der.sequence(*extensions) if extensions else b""
    return der.sequence(der.tlv(der.INTEGER, serial), der.utc_or_generalized_time(_THIS_S), wrapped)


def _reason(number: int, *, critical: bool = False) -> bytes:
    return encode_extension(oid.REASON_CODE, der.enumerated(number), critical=critical)


def _idp(*fields: bytes, critical: bool = True) -> bytes:
    return encode_extension(oid.ISSUING_DISTRIBUTION_POINT, der.sequence(*fields), critical=critical)


def _access(*methods: str, critical: bool = False) -> bytes:
    each = [der.sequence(der.oid(method), b"\x86\x08http://x") for method in methods]
    return encode_extension(oid.AUTHORITY_INFO_ACCESS, der.sequence(*each), critical=critical)


def _built(
    *extensions: bytes,
    version: bytes = b"\x02\x01\x01",
    algorithm: bytes = oid.ED25519_DER,
    outer: bytes = oid.ED25519_DER,
    name: bytes = _NAME,
    times: bytes = _TIMES,
    entries: tuple[bytes, ...] | None = (_entry(b"\x05"),),
    signature: bytes = der.bit_string(b"signature"),
) -> bytes:
    listed = b"" if entries is None else der.sequence(*entries)
    wrapped = der.explicit(0, der.sequence(*extensions)) if extensions else b""
    return der.sequence(der.sequence(version, algorithm, name, times, listed, wrapped), outer, signature)


_FINDINGS: dict[str, bytes] = {
    "pkix.crl_issuer_empty": _built(_AKI, _NUMBER, name=der.sequence()),
    "pkix.crl_algorithms_differ": _built(_AKI, _NUMBER, outer=oid.SHA256_WITH_RSA_DER),
    "pkix.crl_next_update_missing": _built(_AKI, _NUMBER, times=der.utc_or_generalized_time(_THIS_S)),
    "pkix.crl_next_update_not_after_this_update": _built(
        _AKI, _NUMBER, times=der.utc_or_generalized_time(_THIS_S) * 2
    ),
    "pkix.crl_aki_missing": _built(_NUMBER),
    "pkix.crl_aki_critical": _built(
        encode_extension(oid.AUTHORITY_KEY_IDENTIFIER, der.sequence(der.tlv(0x80, b"k")), critical=True),
        _NUMBER,
    ),
    "pkix.crl_number_missing": _built(_AKI),
    "pkix.crl_number_negative": _built(_AKI, encode_extension(oid.CRL_NUMBER, der.integer(-1))),
    "pkix.crl_number_too_long": _built(_AKI, encode_extension(oid.CRL_NUMBER, der.integer(1 << 159))),
    "pkix.crl_number_critical": _built(_AKI, encode_extension(oid.CRL_NUMBER, der.integer(5), critical=True)),
    "pkix.crl_base_number_not_below_number": _built(
        _AKI, encode_extension(oid.CRL_NUMBER, der.integer(4)), _DELTA
    ),
    "pkix.crl_base_number_negative": _built(
        _AKI, _NUMBER, encode_extension(oid.DELTA_CRL_INDICATOR, der.integer(-1), critical=True)
    ),
    "pkix.crl_delta_indicator_not_critical": _built(
        _AKI, _NUMBER, encode_extension(oid.DELTA_CRL_INDICATOR, der.integer(4))
    ),
    "pkix.crl_idp_empty": _built(_AKI, _NUMBER, _idp()),
    "pkix.crl_idp_not_critical": _built(_AKI, _NUMBER, _idp(b"\x81\x01\xff", critical=False)),
    "pkix.crl_idp_scopes_conflict": _built(_AKI, _NUMBER, _idp(b"\x81\x01\xff", b"\x82\x01\xff")),
    "pkix.crl_idp_attribute_certs": _built(_AKI, _NUMBER, _idp(b"\x85\x01\xff")),
    "pkix.crl_idp_some_reasons": _built(_AKI, _NUMBER, _idp(b"\x83\x02\x01\x06")),
    "pkix.crl_idp_indirect": _built(_AKI, _NUMBER, _idp(b"\x84\x01\xff")),
    "pkix.crl_freshest_in_delta": _built(
        _AKI, _NUMBER, _DELTA, encode_extension(oid.FRESHEST_CRL, _FRESHEST)
    ),
    "pkix.crl_freshest_critical": _built(
        _AKI, _NUMBER, encode_extension(oid.FRESHEST_CRL, _FRESHEST, critical=True)
    ),
    "pkix.crl_freshest_not_only_names": _built(
        _AKI,
        _NUMBER,
        encode_extension(oid.FRESHEST_CRL, der.sequence(der.sequence(_FRESHEST[4:], b"\x81\x02\x01\x06"))),
    ),
    "pkix.crl_issuer_alt_name_critical": _built(
        _AKI, _NUMBER, encode_extension(oid.ISSUER_ALT_NAME, der.sequence(b"\x82\x01x"), critical=True)
    ),
    "pkix.crl_expired_certs_critical": _built(
        _AKI,
        _NUMBER,
        encode_extension(oid.EXPIRED_CERTS_ON_CRL, der.generalized_time(_THIS_S), critical=True),
    ),
    "pkix.crl_expired_certs_malformed": _built(
        _AKI, _NUMBER, encode_extension(oid.EXPIRED_CERTS_ON_CRL, der.utc_or_generalized_time(_THIS_S))
    ),
    "certstatus.crl_entry_after_this_update": _built(
        _AKI, _NUMBER, entries=(der.sequence(der.integer(5), der.utc_or_generalized_time(_THIS_S + 1)),)
    ),
    "certstatus.crl_invalidity_after_revocation": _built(
        _AKI,
        _NUMBER,
        entries=(_entry(b"\x05", encode_extension(oid.INVALIDITY_DATE, der.generalized_time(_THIS_S + 1))),),
    ),
    "pkix.crl_aia_critical": _built(_AKI, _NUMBER, _access(oid.CA_ISSUERS, critical=True)),
    "pkix.crl_aia_not_only_ca_issuers": _built(_AKI, _NUMBER, _access(oid.CA_ISSUERS, "1.3.6.1.5.5.7.48.1")),
    "pkix.crl_extension_critical_unknown": _built(
        _AKI, _NUMBER, encode_extension("1.2.3", b"", critical=True)
    ),
    "pkix.crl_entry_extension_critical": _built(
        _AKI, _NUMBER, entries=(_entry(b"\x05", _reason(1, critical=True)),)
    ),
    "pkix.crl_entries_empty": _built(_AKI, _NUMBER, entries=()),
    "pkix.crl_serial_duplicate": _built(_AKI, _NUMBER, entries=(_entry(b"\x05"), _entry(b"\x05"))),
    "pkix.crl_entries_unsorted": _built(_AKI, _NUMBER, entries=(_entry(b"\x00\xff"), _entry(b"\x05"))),
    "pkix.crl_serial_not_positive": _built(_AKI, _NUMBER, entries=(_entry(b"\x00"),)),
    "pkix.crl_serial_too_long": _built(_AKI, _NUMBER, entries=(_entry(b"\x01" * 21),)),
    "pkix.crl_reason_unspecified": _built(_AKI, _NUMBER, entries=(_entry(b"\x05", _reason(0)),)),
    "pkix.crl_reason_unknown": _built(_AKI, _NUMBER, entries=(_entry(b"\x05", _reason(7)),)),
    "pkix.crl_remove_in_complete": _built(_AKI, _NUMBER, entries=(_entry(b"\x05", _reason(8)),)),
}


@pytest.mark.parametrize("finding", _FINDINGS)
def test_lint_names_the_one_thing_wrong(finding: str) -> None:
    """A CRL wrong in one respect has exactly that finding."""
    assert lint(parse_certificate_list(_FINDINGS[finding]), hold_allowed=True) == [finding]


def test_every_rule_of_lint_has_a_crl_that_breaks_it() -> None:
    """No finding stands in the code that no CRL of these tests brings out."""
    elsewhere = {
        "pkix.crl_version_not_2",
        "pkix.crl_remove_without_hold",
        "pkix.crl_base_number_too_long",
        "certstatus.crl_hold_without_hold",
        "certstatus.crl_freshest_of_other_scope",
    }
    known = set(_FINDINGS) | elsewhere
    source = Path(crl_lint.__file__).read_text() + inspect.getsource(crl.number_findings)
    for code in re.findall(r'"((?:pkix|certstatus)\.[^"]+)"', source):
        pattern = re.compile(re.sub(r"\\\{[^}]*\\\}", ".+", re.escape(code)))
        assert any(pattern.fullmatch(name) for name in known), code
    criticality = inspect.getsource(crl_lint._criticality_findings)
    for _name, word in re.findall(r'oid\.([A-Z_]+): "(\w+)"', criticality):
        assert {f"pkix.crl_{word}_not_critical", f"pkix.crl_{word}_critical"} & known, word


def test_lint_finds_nothing_in_what_the_findings_are_made_from() -> None:
    """The CRLs of the table are right but for their one fault."""
    for crl_der in (
        _built(_AKI, _NUMBER),
        _built(_AKI, _NUMBER, _DELTA),
        _built(_AKI, _NUMBER, entries=None),
        _built(_AKI, _NUMBER, _access(oid.CA_ISSUERS), encode_extension(oid.FRESHEST_CRL, _FRESHEST)),
    ):
        assert lint(parse_certificate_list(crl_der), hold_allowed=False) == []


def test_lint_refuses_removal_where_there_is_no_hold() -> None:
    """removeFromCRL in a delta is right only for an issuer whose policy has hold."""
    parsed = parse_certificate_list(_built(_AKI, _NUMBER, _DELTA, entries=(_entry(b"\x05", _reason(8)),)))
    assert lint(parsed, hold_allowed=True) == []
    assert lint(parsed, hold_allowed=False) == ["pkix.crl_remove_without_hold"]


def test_lint_refuses_a_hold_where_there_is_no_hold() -> None:
    """certificateHold is right only for an issuer whose policy has it."""
    parsed = parse_certificate_list(_built(_AKI, _NUMBER, entries=(_entry(b"\x05", _reason(6)),)))
    assert lint(parsed, hold_allowed=True) == []
    assert lint(parsed, hold_allowed=False) == ["certstatus.crl_hold_without_hold"]


def test_lint_knows_the_freshest_crl_of_the_scope() -> None:
    """A complete CRL that points to the deltas of another scope, where it is known which is its own."""
    parsed = parse_certificate_list(_built(_AKI, _NUMBER, encode_extension(oid.FRESHEST_CRL, _FRESHEST)))
    assert crl_lint.lint_head(parsed, freshest_der=_FRESHEST) == []
    other = distribution_point.encode_distribution_points([_POINT])
    assert crl_lint.lint_head(parsed, freshest_der=other) == ["certstatus.crl_freshest_of_other_scope"]
    assert crl_lint.lint_head(parse_certificate_list(_built(_AKI, _NUMBER)), freshest_der=other) == []


def test_lint_finds_a_base_number_that_is_too_long() -> None:
    """Then the number above it is too long as well."""
    number = encode_extension(oid.CRL_NUMBER, der.integer((1 << 159) + 1))
    base = encode_extension(oid.DELTA_CRL_INDICATOR, der.integer(1 << 159), critical=True)
    findings = lint(parse_certificate_list(_built(_AKI, number, base)), hold_allowed=True)
    assert findings == ["pkix.crl_number_too_long", "pkix.crl_base_number_too_long"]


def test_lint_finds_an_old_version() -> None:
    """A version 1 CRL lacks everything that extensions say."""
    assert lint(parse_certificate_list(_built(version=b"")), hold_allowed=True) == [
        "pkix.crl_version_not_2",
        "pkix.crl_aki_missing",
        "pkix.crl_number_missing",
    ]


def test_lint_wants_the_key_identifier_form() -> None:
    """An authority key identifier by issuer and serial number alone does not identify the key."""
    other_form = der.sequence(der.tlv(0xA1, der.tlv(0xA4, _NAME)), der.tlv(0x82, b"\x01"))
    parsed = parse_certificate_list(
        _built(encode_extension(oid.AUTHORITY_KEY_IDENTIFIER, other_form), _NUMBER)
    )
    assert lint(parsed, hold_allowed=True) == ["pkix.crl_aki_missing"]


# Reading ------------------------------------------------------------------------------------------------

_WRONG: dict[str, tuple[bytes, str]] = {
    "version 3": (_built(version=b"\x02\x01\x02"), "version"),
    "version 1 written out": (_built(version=b"\x02\x01\x00"), "version"),
    "trailing octets": (_built(_AKI) + b"\x00", "follow"),
    "octets after the signature": (
        _built(_AKI, signature=der.bit_string(b"s") + der.NULL_DER),
        "after the signature",
    ),
    "signature of broken octets": (_built(_AKI, signature=b"\x03\x02\x04\xf0"), "whole octets"),
    "no thisUpdate": (_built(_AKI, times=b""), "0x18 expected"),
    "three times": (_built(_AKI, times=_TIMES + der.utc_or_generalized_time(_NEXT_S)), "0xA0 expected"),
    "GeneralizedTime before 2050": (_built(_AKI, times=der.generalized_time(_THIS_S)), "UTCTime can say"),
    "extension twice": (_built(_AKI, _AKI), "present twice"),
    "number of another type": (_built(encode_extension(oid.CRL_NUMBER, b"\x04\x01\x05")), "0x02 expected"),
    "number with octets after it": (
        _built(encode_extension(oid.CRL_NUMBER, b"\x02\x01\x05\x05\x00")),
        "after it",
    ),
    "key identifier with octets after it": (
        _built(encode_extension(oid.AUTHORITY_KEY_IDENTIFIER, der.sequence(der.NULL_DER))),
        "after its fields",
    ),
    "distribution point with FALSE": (_built(_idp(b"\x81\x01\x00")), "FALSE written out"),
    "distribution point out of order": (_built(_idp(b"\x82\x01\xff", b"\x81\x01\xff")), "out of order"),
    "distribution point without names": (_built(_idp(der.explicit(0, der.explicit(0, b"")))), "no names"),
    "distribution point by no name": (_built(_idp(der.explicit(0, der.explicit(2, der.NULL_DER)))), "0xA2"),
    "freshestCRL without points": (
        _built(encode_extension(oid.FRESHEST_CRL, der.sequence())),
        "none present",
    ),
    "serial number not minimal": (_built(entries=(_entry(b"\x00\x05"),)), "not minimal"),
    "entry without date": (_built(entries=(der.sequence(der.integer(5)),)), "header cut off"),
    "entry extensions empty": (_built(entries=(der.sequence(_entry(b"\x05")[2:], der.sequence()),)), "empty"),
    "reason of another type": (
        _built(entries=(_entry(b"\x05", encode_extension(oid.REASON_CODE, der.integer(1))),)),
        "0x0A expected",
    ),
    "reason with octets after it": (
        _built(
            entries=(_entry(b"\x05", encode_extension(oid.REASON_CODE, der.enumerated(1) + der.NULL_DER)),)
        ),
        "after its value",
    ),
    "invalidityDate UTCTime": (
        _built(
            entries=(
                _entry(b"\x05", encode_extension(oid.INVALIDITY_DATE, der.utc_or_generalized_time(_THIS_S))),
            )
        ),
        "0x18 expected",
    ),
    "entry of another issuer": (
        _built(
            entries=(
                _entry(b"\x05", encode_extension(oid.CERTIFICATE_ISSUER, der.sequence(), critical=True)),
            )
        ),
        "critical and not known",
    ),
}


@pytest.mark.parametrize("name", _WRONG)
def test_wrong_crl_is_not_read(name: str) -> None:
    """What is no DER CertificateList, or has an entry we cannot understand, is refused for its own reason."""
    crl_der, reason = _WRONG[name]
    with pytest.raises(DERError, match=reason):
        parse_certificate_list(crl_der)


def test_unknown_entry_extension_is_passed_over() -> None:
    """An entry extension that is not critical does not hide the reason beside it."""
    crl_der = _built(_AKI, _NUMBER, entries=(_entry(b"\x05", encode_extension("1.2.3", b""), _reason(4)),))
    assert parse_certificate_list(crl_der).entries == [CRLEntry(b"\x05", _THIS_S, 4)]


def test_beginning_or_prolongation_of_a_crl_is_not_read(p256: Authority) -> None:
    """A CRL is read to its last octet, neither less nor more."""
    crl_der = p256.issue(p256.tbs(_ENTRIES, number=7, base=6, idp=_IDP))
    for cut in range(len(crl_der)):
        with pytest.raises(DERError):
            parse_certificate_list(crl_der[:cut])
    for octet in range(256):
        with pytest.raises(DERError):
            parse_certificate_list(crl_der + bytes((octet,)))


def test_mutated_crl_is_read_or_refused(p256: Authority) -> None:
    """Change any octet to any other: a value or the one error, and lint always has an answer."""
    original = p256.issue(p256.tbs(_ENTRIES[:2], number=7, idp=_IDP, freshest=_FRESHEST))
    for position in range(len(original)):
        for octet in range(0, 256, 5):
            mutated = original[:position] + bytes((octet,)) + original[position + 1 :]
            try:
                lint(parse_certificate_list(mutated), hold_allowed=False)
            except DERError:
                continue


@given(st.binary(max_size=120))
def test_any_octets_raise_only_the_one_error(octets: bytes) -> None:
    """Any octets, anywhere in a CRL, give a value or DERError."""
    for candidate in (
        octets,
        der.sequence(octets),
        _built(octets),
        _built(times=octets),
        _built(entries=(octets,)),
        _built(_idp(octets)),
        _built(encode_extension(oid.FRESHEST_CRL, octets)),
        _built(encode_extension(oid.AUTHORITY_KEY_IDENTIFIER, octets)),
    ):
        try:
            lint(parse_certificate_list(candidate), hold_allowed=True)
        except DERError:
            continue


_SECONDS = st.integers(-631_152_000, 253_402_300_799)
_CRL_ENTRIES = st.lists(
    st.builds(
        CRLEntry,
        st.integers(1, (1 << 159) - 1).map(der.integer_content),
        _SECONDS,
        st.sampled_from([None, 1, 2, 3, 4, 5, 6, 9, 10]),
        st.none() | _SECONDS,
    ),
    max_size=8,
    unique_by=lambda entry: entry.serial,
)


@given(
    entries=_CRL_ENTRIES,
    times=st.lists(_SECONDS, min_size=2, max_size=2, unique=True).map(sorted),
    number=st.integers(1, (1 << 159) - 1),
    delta=st.booleans(),
    idp=st.sampled_from([None, _IDP, b"\x30\x03\x81\x01\xff"]),
)
def test_crls_round_trip(
    entries: list[CRLEntry], times: list[int], number: int, delta: bool, idp: bytes | None
) -> None:
    """Whatever is encoded is read back, has no finding, and encodes to the same octets again."""

    def encode(entries: Sequence[CRLEntry]) -> bytes:
        tbs = crl.encode_tbs_cert_list(
            issuer_name_der=_NAME,
            signature_algorithm_der=oid.ED25519_DER,
            this_update_s=times[0],
            next_update_s=times[1],
            entries=entries,
            crl_number=number,
            aki_key_id=b"key",
            base_crl_number=number - 1 if delta else None,
            issuing_distribution_point_der=idp,
            freshest_crl_der=None if delta else _FRESHEST,
        )
        return crl.encode_certificate_list(tbs, oid.ED25519_DER, b"signature")

    crl_der = encode(entries)
    parsed = parse_certificate_list(crl_der)
    assert [parsed.this_update_s, parsed.next_update_s] == times
    assert (parsed.number, parsed.base_number) == (number, number - 1 if delta else None)
    assert parsed.entries == _ordered(entries)
    assert lint(parsed, hold_allowed=True) == _dates_findings(entries, times[0])
    assert encode(parsed.entries) == crl_der
    assert len(x509.load_der_x509_crl(crl_der)) == len(entries)


# Combining ----------------------------------------------------------------------------------------------


def _parsed(entries: Sequence[CRLEntry], number: int, base: int | None = None, **other: bytes) -> ParsedCRL:
    tbs = crl.encode_tbs_cert_list(
        issuer_name_der=other.get("name", _NAME),
        signature_algorithm_der=oid.ED25519_DER,
        this_update_s=_THIS_S + number,
        next_update_s=_NEXT_S + number,
        entries=entries,
        crl_number=number,
        aki_key_id=other.get("key", b"key"),
        base_crl_number=base,
        issuing_distribution_point_der=other.get("idp"),
    )
    return parse_certificate_list(crl.encode_certificate_list(tbs, oid.ED25519_DER, b"signature"))


_BASE = _parsed([CRLEntry(b"\x05", 1, 6), CRLEntry(b"\x06", 2)], 10)


def test_delta_adds_changes_and_removes() -> None:
    """A delta's entry replaces the base's, removeFromCRL takes it away, or does nothing if there is none."""
    delta = _parsed(
        [CRLEntry(b"\x05", 3, 8), CRLEntry(b"\x06", 4, 1), CRLEntry(b"\x07", 5), CRLEntry(b"\x08", 6, 8)],
        12,
        9,
    )
    assert combine(_BASE, delta) == [CRLEntry(b"\x06", 4, 1), CRLEntry(b"\x07", 5)]


@pytest.mark.parametrize(
    ("base", "delta", "findings"),
    [
        (_BASE, _parsed([], 12), ["pkix.combine_delta_is_complete"]),
        (_parsed([], 10, 9), _parsed([], 12, 9), ["pkix.combine_base_is_delta"]),
        (_BASE, _parsed([], 12, 10, name=der.sequence()), ["pkix.combine_issuer_differs"]),
        (_BASE, _parsed([], 12, 10, key=b"other"), ["pkix.combine_key_differs"]),
        (_BASE, _parsed([], 12, 10, idp=_IDP), ["pkix.combine_scope_differs"]),
        (_BASE, _parsed([], 12, 11), ["pkix.combine_base_too_old"]),
        (_BASE, _parsed([], 10, 9), ["pkix.combine_base_not_older"]),
        (
            parse_certificate_list(_built(_AKI)),
            parse_certificate_list(_built(_AKI, _NUMBER, _DELTA)),
            ["pkix.crl_number_missing"],
        ),
        (
            parse_certificate_list(_built(_NUMBER)),
            parse_certificate_list(_built(encode_extension(oid.CRL_NUMBER, der.integer(6)), _DELTA)),
            ["pkix.combine_key_differs"],
        ),
    ],
)
def test_unfit_crls_are_not_combined(base: ParsedCRL, delta: ParsedCRL, findings: list[str]) -> None:
    """Each condition of the standard, broken alone, is named."""
    with pytest.raises(CRLCheckFailed) as refused:
        combine(base, delta)
    assert refused.value.findings == findings


_EVENTS = st.one_of(
    st.tuples(st.just("revoke"), st.integers(1, 9), st.sampled_from([None, 1, 3, 4, 5])),
    st.tuples(st.just("hold"), st.integers(1, 9), st.just(6)),
    st.tuples(st.just("release"), st.integers(1, 9), st.none()),
    st.tuples(st.just("publish"), st.just(0), st.none()),
)


@given(st.lists(_EVENTS, max_size=40))
def test_base_and_delta_are_the_complete_crl(events: list[tuple[str, int, int | None]]) -> None:
    """Over random histories with hold and release, each base a delta allows makes the complete CRL.

    The model is a dictionary of what is revoked; its copies at each publication are the complete
    CRLs, and a delta lists what differs from its base, or was on any CRL since and no longer is.
    """
    state: dict[bytes, CRLEntry] = {}
    published: list[dict[bytes, CRLEntry]] = [{}]
    for time_s, (act, number, reason) in enumerate([*events, ("publish", 0, None)]):
        serial = der.integer_content(number * 50)
        held = serial in state and state[serial].reason == 6
        if act == "publish":
            published.append(dict(state))
        elif act == "release":
            if held:
                del state[serial]
        elif serial not in state or (held and act == "revoke"):
            state[serial] = CRLEntry(serial, time_s, reason)
    numbered = dict(enumerate(published, start=1))
    last = len(published)
    for base_number in range(1, last):
        # Changed since the base, or changed and changed back so that an intermediate CRL differs.
        listed = {
            serial: entry
            for number in range(base_number, last)
            for serial, entry in numbered[last].items()
            if numbered[number].get(serial) != entry
        }
        seen = {serial for number in range(base_number, last) for serial in numbered[number]}
        for serial in seen - numbered[last].keys():
            listed[serial] = CRLEntry(serial, last, CRLReason.REMOVE_FROM_CRL)
        delta = _parsed(list(listed.values()), last, base_number)
        for complete_number in range(base_number, last):
            complete = _parsed(list(numbered[complete_number].values()), complete_number)
            combined = combine(complete, delta)
            assert {entry.serial: entry for entry in combined} == numbered[last]
            assert combined == sorted(combined, key=lambda entry: _value(entry.serial))
