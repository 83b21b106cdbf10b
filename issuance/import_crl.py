"""A CRL of the CA's own, checked before anything of it is believed.

Knows: that it must be complete (no delta, not indirect, not of some reasons or some kinds only), signed
by the CA's key, numbered, of now or the past, and what each entry may say.
Does not know: what the register makes of it (``import_records``), nor how it was fetched.
Source: RFC 5280 §5.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from certstatus import oid
from certstatus.crl import NUMBER_OCTETS_MAX, ParsedCRL, parse_certificate_list
from certstatus.crl_entry import CRLEntry
from certstatus.crl_lint import SERIAL_OCTETS_MAX
from certstatus.crl_reason import CRLReason
from certstatus.distribution_point import parse_issuing_distribution_point
from certstatus.errors import DERError, ImportRefused
from certstatus.x509_reading import load_crl
from issuance.import_certificate import read_certificate
from issuance.import_pem import read_pieces

# Clocks differ; a CRL from further ahead is wrong, or ours is.
AHEAD_MAX_S = 300
_ENTRY_REASONS = frozenset(CRLReason) - {CRLReason.REMOVE_FROM_CRL}


class ForeignCRL(NamedTuple):
    """A checked CRL of the CA's own; ``sha256`` over its DER; ``number`` None if it has none."""

    number: int | None
    this_update_s: int
    next_update_s: int | None
    idp_der: bytes | None
    sha256: bytes
    entries: list[CRLEntry]


def read_crl(path: Path, ca: Sequence[x509.Certificate], now_s: int) -> ForeignCRL:
    """Return the CRL in *path*, PEM or DER.  Raises: ImportRefused, as ``check_crl``."""
    pieces = list(read_pieces(path))
    if len(pieces) != 1 or pieces[0].label not in ("", "X509 CRL"):
        label = next((piece.label for piece in pieces if piece.label not in ("", "X509 CRL")), "several CRLs")
        raise ImportRefused(path, pieces[0].line, "content", f"one CRL expected, {label} found")
    return check_crl(pieces[0].der, ca, now_s, path)


def check_crl(crl_der: bytes, ca: Sequence[x509.Certificate], now_s: int, source: object) -> ForeignCRL:
    """Return what a CRL says, having checked all that makes it this CA's whole list.

    Takes:  the CA's certificates, of one key; *source*: file or URL, for messages.
    Raises: ImportRefused — not DER, another CA's, a delta or a part, from the future, or an entry that
            no complete CRL can have.
    """
    # The signature before everything else: what another CA says is none of this one's fields, and what
    # anybody may have sent is not taken apart, which needs many times its size.
    if not _is_signed_by(crl_der, ca, source):
        raise ImportRefused(source, 0, "signature", "not one of this CA's key")
    try:
        parsed = parse_certificate_list(crl_der)
    except DERError as exc:
        raise ImportRefused(source, 0, "CRL", f"not DER: {exc}") from exc
    _check_issuer(crl_der, parsed, ca, source)
    if parsed.base_number is not None or parsed.extension(oid.DELTA_CRL_INDICATOR) is not None:
        raise ImportRefused(source, 0, "delta CRL indicator", "a delta, a complete CRL is needed")
    _check_scope(parsed, source)
    if parsed.number is not None and not 0 <= parsed.number < 1 << (8 * NUMBER_OCTETS_MAX - 1):
        raise ImportRefused(source, 0, "CRL number", "negative, or over 20 octets")
    if parsed.this_update_s > now_s + AHEAD_MAX_S:
        raise ImportRefused(source, 0, "thisUpdate", "lies in the future")
    if parsed.next_update_s is not None and parsed.next_update_s <= parsed.this_update_s:
        raise ImportRefused(source, 0, "nextUpdate", "not after thisUpdate")
    _check_entries(parsed.entries, source)
    return ForeignCRL(
        parsed.number,
        parsed.this_update_s,
        parsed.next_update_s,
        parsed.idp_der,
        hashlib.sha256(crl_der).digest(),
        parsed.entries,
    )


def _is_signed_by(crl_der: bytes, ca: Sequence[x509.Certificate], source: object) -> bool:
    key = ca[0].public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey)
    try:
        crl = load_crl(crl_der)
    except ValueError as exc:
        raise ImportRefused(source, 0, "CRL", f"cannot be read: {exc}") from exc
    try:
        return crl.is_signature_valid(key)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False


def _check_issuer(crl_der: bytes, parsed: ParsedCRL, ca: Sequence[x509.Certificate], source: object) -> None:
    """Refuse another name's CRL: one key under two names has two lists (RFC 5280 §6.3.3 (b))."""
    if any(read_certificate(item.public_bytes(Encoding.DER)).subject_der == parsed.issuer_der for item in ca):
        return
    # The same name in other string types is the same; one that cannot be read was compared as it stands.
    with suppress(ValueError):
        issuer = load_crl(crl_der).issuer
        if any(issuer == item.subject for item in ca):
            return
    raise ImportRefused(source, 0, "issuer", "another name than the CA's")


def _check_scope(parsed: ParsedCRL, source: object) -> None:
    for extension in parsed.extensions:
        if extension.critical and extension.oid != oid.ISSUING_DISTRIBUTION_POINT:
            raise ImportRefused(source, 0, f"extension {extension.oid}", "critical and not known")
    if parsed.idp_der is None:
        return
    scope = parse_issuing_distribution_point(parsed.idp_der)
    for present, what in (
        (scope.indirect_crl, "an indirect CRL, which may list other CAs' certificates"),
        (scope.only_some_reasons, "only for some reasons"),
        (scope.only_ca_certs, "only for CA certificates"),
        (scope.only_attribute_certs, "only for attribute certificates"),
    ):
        if present:
            raise ImportRefused(source, 0, "issuing distribution point", f"{what}; a complete CRL is needed")


def _check_entries(entries: list[CRLEntry], source: object) -> None:
    seen: set[bytes] = set()
    for place, entry in enumerate(entries, 1):
        field = f"entry {place}, serial {entry.serial.hex()}"
        if len(entry.serial) > SERIAL_OCTETS_MAX:
            raise ImportRefused(source, 0, field, f"{len(entry.serial)} octets, at most {SERIAL_OCTETS_MAX}")
        if entry.serial in seen:
            raise ImportRefused(source, 0, field, "listed twice")
        seen.add(entry.serial)
        if entry.reason is not None and entry.reason not in _ENTRY_REASONS:
            raise ImportRefused(source, 0, field, f"reason {entry.reason}, which no complete CRL can have")
        for value, name in (
            (entry.revoked_at_s, "revocation date"),
            (entry.invalidity_at_s or 0, "invalidity date"),
        ):
            if not 0 <= value < 1 << 32:
                raise ImportRefused(source, 0, field, f"{name} lies outside of 1970 to 2106")
