"""What a CRL says, told by four readers in one form, so that they can be compared field by field.

Knows: our reader, cryptography, asn1crypto and the text that ``openssl crl`` prints.
Does not know: which of them is right.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, NamedTuple

from asn1crypto import crl as asn1_crl
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.hazmat._oid import ObjectIdentifier

from certstatus import oid
from certstatus.crl import parse_certificate_list
from certstatus.der import explicit, sequence
from certstatus.distribution_point import parse_distribution_points, parse_issuing_distribution_point

REASONS = {
    1: ("keyCompromise", "key_compromise", "Key Compromise"),
    2: ("cACompromise", "ca_compromise", "CA Compromise"),
    3: ("affiliationChanged", "affiliation_changed", "Affiliation Changed"),
    4: ("superseded", "superseded", "Superseded"),
    5: ("cessationOfOperation", "cessation_of_operation", "Cessation Of Operation"),
    6: ("certificateHold", "certificate_hold", "Certificate Hold"),
    8: ("removeFromCRL", "remove_from_crl", "Remove From CRL"),
    9: ("privilegeWithdrawn", "privilege_withdrawn", "Privilege Withdrawn"),
    10: ("aACompromise", "aa_compromise", "AA Compromise"),
}
_BY_WORD = {word: number for number, words in REASONS.items() for word in words}
_TEXT_NAMES = {
    "X509v3 Authority Key Identifier": oid.AUTHORITY_KEY_IDENTIFIER,
    "X509v3 CRL Number": oid.CRL_NUMBER,
    "X509v3 Delta CRL Indicator": oid.DELTA_CRL_INDICATOR,
    "X509v3 Issuing Distribution Point": oid.ISSUING_DISTRIBUTION_POINT,
    "X509v3 Freshest CRL": oid.FRESHEST_CRL,
}
TEXT_ALGORITHMS = {
    "sha256WithRSAEncryption": oid.SHA256_WITH_RSA,
    "ecdsa-with-SHA256": oid.ECDSA_WITH_SHA256,
    "ecdsa-with-SHA384": oid.ECDSA_WITH_SHA384,
}
_HEADER = re.compile(
    r"^            (X509v3 [^:]+): ?(critical)?\n((?:                .*\n|\n)*)", re.MULTILINE
)


class EntryFacts(NamedTuple):
    """One entry; times in POSIX seconds."""

    serial: int
    revoked_at_s: int
    reason: int | None
    invalidity_at_s: int | None


class CRLFacts(NamedTuple):
    """A CRL.

    extensions   (dotted identifier, critical), in order
    scope        URIs, whether user certificates only, whether CA certificates only
    """

    issuer: tuple[tuple[str, str], ...]
    this_update_s: int
    next_update_s: int
    number: int | None
    base: int | None
    key_id: bytes | None
    scope: tuple[tuple[str, ...], bool, bool] | None
    freshest: tuple[str, ...] | None
    extensions: tuple[tuple[str, bool], ...]
    algorithm: str
    signature: bytes
    entries: tuple[EntryFacts, ...]


# --- our own reader ----------------------------------------------------------------------------------


def by_us(crl_der: bytes) -> CRLFacts:
    """As certstatus reads it."""
    parsed = parse_certificate_list(crl_der)
    scope = None
    if parsed.idp_der is not None:
        point = parse_issuing_distribution_point(parsed.idp_der)
        # The name is a fullName like that of a distribution point.
        names = () if point.name_der is None else _uris(parse_distribution_points(_wrapped(point.name_der)))
        scope = (names, point.only_user_certs, point.only_ca_certs)
    freshest = None if parsed.freshest_der is None else _uris(parse_distribution_points(parsed.freshest_der))
    name = asn1_x509.Name.load(parsed.issuer_der, strict=True)
    assert parsed.next_update_s is not None
    return CRLFacts(
        _asn1_name(name),
        parsed.this_update_s,
        parsed.next_update_s,
        parsed.number,
        parsed.base_number,
        parsed.aki_key_id,
        scope,
        freshest,
        tuple((extension.oid, extension.critical) for extension in parsed.extensions),
        parsed.signature_algorithm,
        parsed.signature,
        tuple(
            EntryFacts(
                int.from_bytes(entry.serial, "big", signed=True),
                entry.revoked_at_s,
                entry.reason,
                entry.invalidity_at_s,
            )
            for entry in parsed.entries
        ),
    )


def _wrapped(name_der: bytes) -> bytes:
    return sequence(sequence(explicit(0, name_der)))


def _uris(points: Iterable[tuple[bytes | None, Iterable[str]]]) -> tuple[str, ...]:
    return tuple(uri for _, uris in points for uri in uris)


# --- cryptography ------------------------------------------------------------------------------------


def by_cryptography(crl_der: bytes) -> CRLFacts:
    """As ``cryptography`` reads it."""
    crl = x509.load_der_x509_crl(crl_der)
    found: dict[str, Any] = {item.oid.dotted_string: item.value for item in crl.extensions}
    idp, freshest = found.get(oid.ISSUING_DISTRIBUTION_POINT), found.get(oid.FRESHEST_CRL)
    number, base = found.get(oid.CRL_NUMBER), found.get(oid.DELTA_CRL_INDICATOR)
    key = found.get(oid.AUTHORITY_KEY_IDENTIFIER)
    assert crl.next_update_utc is not None
    return CRLFacts(
        tuple((item.oid.dotted_string, str(item.value)) for item in crl.issuer),
        int(crl.last_update_utc.timestamp()),
        int(crl.next_update_utc.timestamp()),
        None if number is None else number.crl_number,
        None if base is None else base.crl_number,
        None if key is None else key.key_identifier,
        None
        if idp is None
        else (_general_uris(idp.full_name or ()), idp.only_contains_user_certs, idp.only_contains_ca_certs),
        None
        if freshest is None
        else tuple(uri for p in freshest for uri in _general_uris(p.full_name or ())),
        tuple((item.oid.dotted_string, item.critical) for item in crl.extensions),
        crl.signature_algorithm_oid.dotted_string,
        crl.signature,
        tuple(map(_cryptography_entry, crl)),
    )


def _general_uris(names: Iterable[x509.GeneralName]) -> tuple[str, ...]:
    return tuple(name.value for name in names if isinstance(name, x509.UniformResourceIdentifier))


def _cryptography_entry(entry: x509.RevokedCertificate) -> EntryFacts:
    found: dict[ObjectIdentifier, Any] = {item.oid: item.value for item in entry.extensions}
    reason = found.get(x509.CRLReason.oid)
    invalidity = found.get(x509.InvalidityDate.oid)
    return EntryFacts(
        entry.serial_number,
        int(entry.revocation_date_utc.timestamp()),
        None if reason is None else _BY_WORD[reason.reason.value],
        None if invalidity is None else int(invalidity.invalidity_date_utc.timestamp()),
    )


# --- asn1crypto --------------------------------------------------------------------------------------


def by_asn1crypto(crl_der: bytes) -> CRLFacts:
    """As asn1crypto reads it."""
    crl: Any = asn1_crl.CertificateList.load(crl_der, strict=True)
    tbs = crl["tbs_cert_list"]
    found = {item["extn_id"].dotted: item["extn_value"].parsed for item in tbs["crl_extensions"]}
    idp, freshest = found.get(oid.ISSUING_DISTRIBUTION_POINT), found.get(oid.FRESHEST_CRL)
    number, base = found.get(oid.CRL_NUMBER), found.get(oid.DELTA_CRL_INDICATOR)
    key = found.get(oid.AUTHORITY_KEY_IDENTIFIER)
    return CRLFacts(
        _asn1_name(tbs["issuer"]),
        int(tbs["this_update"].native.timestamp()),
        int(tbs["next_update"].native.timestamp()),
        None if number is None else number.native,
        None if base is None else base.native,
        None if key is None else key["key_identifier"].native,
        None
        if idp is None
        else (
            _asn1_uris(idp["distribution_point"]),
            bool(idp["only_contains_user_certs"].native),
            bool(idp["only_contains_ca_certs"].native),
        ),
        None if freshest is None else tuple(u for p in freshest for u in _asn1_uris(p["distribution_point"])),
        tuple((item["extn_id"].dotted, bool(item["critical"].native)) for item in tbs["crl_extensions"]),
        crl["signature_algorithm"]["algorithm"].dotted,
        crl["signature"].native,
        tuple(map(_asn1_entry, tbs["revoked_certificates"] or ())),
    )


def _asn1_name(name: Any) -> tuple[tuple[str, str], ...]:
    return tuple((item["type"].dotted, item["value"].native) for rdn in name.chosen for item in rdn)


def _asn1_uris(point: Any) -> tuple[str, ...]:
    if point.native is None:
        return ()
    return tuple(name.chosen.native for name in point.chosen if name.name == "uniform_resource_identifier")


def _asn1_entry(item: Any) -> EntryFacts:
    found = {one["extn_id"].dotted: one["extn_value"].parsed for one in item["crl_entry_extensions"] or ()}
    reason, invalidity = found.get(oid.REASON_CODE), found.get(oid.INVALIDITY_DATE)
    return EntryFacts(
        item["user_certificate"].native,
        int(item["revocation_date"].native.timestamp()),
        None if reason is None else _BY_WORD[reason.native],
        None if invalidity is None else int(invalidity.native.timestamp()),
    )


# --- openssl -----------------------------------------------------------------------------------------


def by_openssl(crl_der: bytes) -> CRLFacts:
    """As ``openssl crl -text`` prints it."""
    words = ["openssl", "crl", "-inform", "DER", "-noout", "-text", "-nameopt", "sep_comma_plus,oid,utf8"]
    text = subprocess.run(words, input=crl_der, capture_output=True, check=True, timeout=60).stdout.decode()
    head, _, tail = text.partition("\nRevoked Certificates:\n")
    if not tail:
        head, _, tail = text.partition("\nNo Revoked Certificates.\n")
    listed, _, signed = tail.rpartition("    Signature Algorithm: ")
    # A name is printed without a line end after it.
    head = head.replace("                Only ", "\n                Only ") + "\n"
    found = {name: (bool(critical), value) for name, critical, value in _HEADER.findall(head)}

    def value(name: str) -> str | None:
        return found[name][1] if name in found else None

    key, idp, freshest = (
        value(f"X509v3 {name}")
        for name in ("Authority Key Identifier", "Issuing Distribution Point", "Freshest CRL")
    )
    return CRLFacts(
        tuple((name, text) for name, text in re.findall(r"([0-9.]+)=([^,\n]*)", _after(head, "Issuer"))),
        openssl_time_s(_after(head, "Last Update")),
        openssl_time_s(_after(head, "Next Update")),
        _text_number(value("X509v3 CRL Number")),
        _text_number(value("X509v3 Delta CRL Indicator")),
        None if key is None else bytes.fromhex(key.strip().removeprefix("keyid:").replace(":", "")),
        None if idp is None else (_text_uris(idp), "Only User" in idp, "Only CA" in idp),
        None if freshest is None else _text_uris(freshest),
        tuple((_TEXT_NAMES[name], critical) for name, (critical, _) in found.items()),
        TEXT_ALGORITHMS[_after(head, "Signature Algorithm")],
        bytes.fromhex(re.sub(r"[\s:]", "", signed.partition("Signature Value:")[2])),
        tuple(_text_entry(piece) for piece in listed.split("    Serial Number: ")[1:]),
    )


def _after(text: str, label: str) -> str:
    found = re.search(rf"^ +{label}: (.*)$", text, re.MULTILINE)
    assert found is not None, label
    return found[1].strip()


def openssl_time_s(text: str) -> int:
    """A time as openssl prints it, ``Jul  1 12:00:00 2026 GMT``, as POSIX seconds."""
    return int(datetime.strptime(text.strip(), "%b %d %H:%M:%S %Y GMT").replace(tzinfo=UTC).timestamp())


def _text_number(text: str | None) -> int | None:
    return None if text is None else int(text.strip(), 0)


def _text_uris(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"URI:(\S+)", text))


def _text_entry(text: str) -> EntryFacts:
    serial, _, rest = text.partition("\n")
    reason = re.search(r"CRL Reason Code: *\n *(.+)", rest)
    invalidity = re.search(r"Invalidity Date: *\n *(.+)", rest)
    return EntryFacts(
        int(serial, 16),
        openssl_time_s(_after(rest, "Revocation Date")),
        None if reason is None else _BY_WORD[reason[1].strip()],
        None if invalidity is None else openssl_time_s(invalidity[1]),
    )


READERS = {"us": by_us, "cryptography": by_cryptography, "asn1crypto": by_asn1crypto, "openssl": by_openssl}


def agreed(crl_der: bytes) -> CRLFacts:
    """What all readers say; an AssertionError names the first field on which one of them differs."""
    mine = by_us(crl_der)
    for name, reader in READERS.items():
        theirs = reader(crl_der)
        for field, ours, other in zip(CRLFacts._fields, mine, theirs, strict=True):
            assert ours == other, f"{field}: we read {ours!r}, {name} {other!r}"
    return mine
