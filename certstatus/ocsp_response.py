"""OCSPResponse: encoding what a responder says, and reading it back for our own tools.

Knows: error responses, BasicOCSPResponse with a byKey ResponderID, the three statuses,
nonce, extended-revoke and single extensions; times always in whole seconds, nextUpdate
always there.  Encoders take pieces already encoded and join them: the CertID and the
status of a certificate are encoded once and serve many answers.
Does not know: keys, which status is right, how long an answer lives.
Source: RFC 6960 §4.2, §4.4; RFC 9654 §2.1 (nonce); RFC 5280 §5.3.1 (reasons).

    OCSPResponse       SEQUENCE { status ENUMERATED, [0] { OID basic, OCTET STRING } }
    BasicOCSPResponse  SEQUENCE { ResponseData, AlgorithmIdentifier, BIT STRING, [0] certs }
    ResponseData       SEQUENCE { [2] key hash, producedAt, SEQUENCE OF SingleResponse, [1] Extensions }
    SingleResponse     SEQUENCE { CertID, status, thisUpdate, [0] nextUpdate, [1] Extensions }
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from certstatus import errors, oid
from certstatus.cert_id import CertID, read_cert_id
from certstatus.crl_reason import CRLReason
from certstatus.der import (
    CONTEXT,
    CONTEXT_CONSTRUCTED,
    ENUMERATED,
    OCTET_STRING,
    SEQUENCE,
    bit_string,
    check_element,
    expect,
    expect_last,
    generalized_time,
    octet_string,
    read_algorithm,
    read_generalized_time,
    read_integer,
    read_oid,
    read_signature_bits,
    read_tlv,
    tlv,
)
from certstatus.der import oid as encode_oid
from certstatus.errors import DERError
from certstatus.extension import Extension, encode_extension, parse_extensions

GOOD = 0
REVOKED = 1
UNKNOWN = 2

GOOD_DER = b"\x80\x00"
UNKNOWN_DER = b"\x82\x00"

# Reasons an answer may carry: removeFromCRL belongs to delta CRLs, and unspecified is said by leaving the
# reason out (RFC 5280 §5.3.1).
REASONS = frozenset(CRLReason) - {CRLReason.UNSPECIFIED, CRLReason.REMOVE_FROM_CRL}
_STATUSES = frozenset({0, 1, 2, 3, 5, 6})
_KEY_HASH_OCTETS = 20

_TAG_0 = CONTEXT_CONSTRUCTED | 0
_TAG_1 = CONTEXT_CONSTRUCTED | 1
_TAG_2 = CONTEXT_CONSTRUCTED | 2

_FRAMES_MAX = 4096
_BASIC_OID_DER = encode_oid(oid.OCSP_BASIC)
_EXTENDED_REVOKE_DER = encode_extension(oid.OCSP_EXTENDED_REVOKE, b"\x05\x00")
_ERRORS = {status: bytes((0x30, 0x03, 0x0A, 0x01, status)) for status in _STATUSES if status}


class SingleResponse(NamedTuple):
    """What is said about one certificate, its parts encoded.

    cert_id_der      as ``cert_id.encode_cert_id`` gives it, same hash function as in the request
    cert_status_der  GOOD_DER, UNKNOWN_DER, or ``revoked(...)``
    this_update_s    POSIX seconds: the status was known to be right then
    next_update_s    POSIX seconds: newer information is available at or before
    extensions_der   single extensions, as ``extension.encode_extension`` gives them
    """

    cert_id_der: bytes
    cert_status_der: bytes
    this_update_s: int
    next_update_s: int
    extensions_der: tuple[bytes, ...] = ()


# Encoding --------------------------------------------------------------------------------------


def revoked(revocation_time_s: int, reason: int | None = None) -> bytes:
    """Return the CertStatus ``revoked``; reason 0 (unspecified) and None are both left out.

    Raises:  DERError — a reason that an answer must not carry: 7, removeFromCRL (8), above 10.
    Source:  RFC 6960 §4.2.1 (RevokedInfo); RFC 5280 §5.3.1.
    """
    time_der = generalized_time(revocation_time_s)
    if not reason:
        return tlv(_TAG_1, time_der)
    if reason not in REASONS:
        raise DERError(f"revocation reason {reason}: not one an answer may carry")
    return tlv(_TAG_1, time_der + b"\xa0\x03\x0a\x01" + bytes((reason,)))


def encode_single_response(single: SingleResponse) -> bytes:
    """Return the DER of *single*.

    Cost:    about 0.5 µs.
    Source:  RFC 6960 §4.2.1.
    """
    cert_id_der, cert_status_der, this_update_s, next_update_s, extensions_der = single
    return join_single_response(
        cert_id_der, cert_status_der, encode_updates(this_update_s, next_update_s), extensions_der
    )


def encode_updates(this_update_s: int, next_update_s: int) -> bytes:
    """Return thisUpdate and nextUpdate of a SingleResponse, POSIX seconds."""
    # [0] EXPLICIT around the 17 octets of a GeneralizedTime.
    return generalized_time(this_update_s) + b"\xa0\x11" + generalized_time(next_update_s)


def join_single_response(
    cert_id_der: bytes, cert_status_der: bytes, updates_der: bytes, extensions_der: tuple[bytes, ...]
) -> bytes:
    """Return the DER of a SingleResponse of these parts; *updates_der* is ``encode_updates``'."""
    body = cert_id_der + cert_status_der + updates_der
    if extensions_der:
        body += tlv(_TAG_1, tlv(SEQUENCE, b"".join(extensions_der)))
    return tlv(SEQUENCE, body)


def encode_response_data(
    responder_key_hash: bytes,
    produced_at_s: int,
    singles: Iterable[SingleResponse],
    nonce: bytes | None = None,
    *,
    extended_revoke: bool = False,
) -> bytes:
    """Return the DER of ResponseData, the octets that are signed.

    Takes:   responder_key_hash, 20 octets (``cert_id.responder_key_hash``); produced_at_s, POSIX
             seconds; nonce, the octets of the request; extended_revoke says that `revoked` may
             also mean "never issued".
    Cost:    about 1.6 µs for one certificate, 1 µs more with a nonce.
    Source:  RFC 6960 §4.2.1, §4.4.8; RFC 9654 §2.1.
    """
    start_der = encode_response_start(responder_key_hash, produced_at_s)
    singles_der = b"".join(map(encode_single_response, singles))
    return join_response_data(start_der, singles_der, nonce, extended_revoke=extended_revoke)


def encode_response_start(responder_key_hash: bytes, produced_at_s: int) -> bytes:
    """Return responderID and producedAt, with which ResponseData begins."""
    return tlv(_TAG_2, tlv(OCTET_STRING, responder_key_hash)) + generalized_time(produced_at_s)


def join_response_data(
    start_der: bytes, singles_der: bytes, nonce: bytes | None = None, *, extended_revoke: bool = False
) -> bytes:
    """Return the DER of ResponseData from ``encode_response_start`` and SingleResponses, joined."""
    body = start_der + tlv(SEQUENCE, singles_der)
    if nonce is not None or extended_revoke:
        extensions = _EXTENDED_REVOKE_DER if extended_revoke else b""
        if nonce is not None:
            extensions += encode_extension(oid.OCSP_NONCE, octet_string(nonce))
        body += tlv(_TAG_1, tlv(SEQUENCE, extensions))
    return tlv(SEQUENCE, body)


class ResponseDataFrame:
    """What ResponseData about one certificate stands in: ``frame(cert_id_der, nonce)`` is the whole of it.

    Equal to ``join_response_data`` around ``join_single_response`` without extensions, at a third of the
    cost: all around CertID and nonce depends on their lengths alone.
    Source:  RFC 6960 §4.2.1; RFC 9654 §2.1.
    """

    __slots__ = ("_made", "_start_der", "_status_der", "_updates_der")

    def __init__(self, start_der: bytes, cert_status_der: bytes, updates_der: bytes) -> None:
        """Takes: as ``encode_response_start``, ``revoked`` and ``encode_updates`` give them."""
        self._start_der = start_der
        self._status_der = cert_status_der
        self._updates_der = updates_der
        # (octets of the CertID, octets of the nonce) -> what stands before the CertID, and behind it.
        self._made: dict[tuple[int, int], tuple[bytes, bytes]] = {}

    def __call__(self, cert_id_der: bytes, nonce: bytes | None = None) -> bytes:
        """Return the DER of ResponseData.  Cost: 0.3 µs."""
        lengths = len(cert_id_der), -1 if nonce is None else len(nonce)
        made = self._made.get(lengths)
        if made is None:
            if len(self._made) >= _FRAMES_MAX:
                self._made.clear()
            made = self._made[lengths] = self._make(*lengths)
        before, after = made
        return before + cert_id_der + after if nonce is None else before + cert_id_der + after + nonce

    def _make(self, cert_id_octets: int, nonce_octets: int) -> tuple[bytes, bytes]:
        """Cut CertID and nonce out of one whose two are nothing but zeros; the nonce ends it."""
        single_der = join_single_response(bytes(cert_id_octets), self._status_der, self._updates_der, ())
        nonce = None if nonce_octets < 0 else bytes(nonce_octets)
        whole = join_response_data(self._start_der, single_der, nonce)
        tail_octets = len(self._status_der) + len(self._updates_der)
        cert_id_at = whole.index(single_der) + len(single_der) - tail_octets - cert_id_octets
        nonce_at = len(whole) - max(0, nonce_octets)
        return whole[:cert_id_at], whole[cert_id_at + cert_id_octets : nonce_at]


def encode_basic_response(
    tbs_response_data: bytes,
    signature_algorithm_der: bytes,
    signature: bytes,
    certs_der: Sequence[bytes] = (),
) -> bytes:
    """Return the DER of BasicOCSPResponse.

    Takes:   signature over *tbs_response_data*; the signer's certificate first in *certs_der*,
             which is left out of the response when empty.
    Source:  RFC 6960 §4.2.1.
    """
    return tlv(
        SEQUENCE, tbs_response_data + signature_algorithm_der + bit_string(signature) + _certs(certs_der)
    )


def _certs(certs_der: Sequence[bytes]) -> bytes:
    return tlv(_TAG_0, tlv(SEQUENCE, b"".join(certs_der))) if certs_der else b""


class ResponseFrame:
    """What every answer of one signer stands in: ``frame(tbs, signature)`` is a whole OCSPResponse.

    Equal to ``encode_response(encode_basic_response(...))``, at a sixth of the cost: all around tbs and
    signature depends on their lengths alone.
    Source:  RFC 6960 §4.2.1.
    """

    __slots__ = ("_algorithm_der", "_certificates", "_certs_der", "_made")

    def __init__(self, signature_algorithm_der: bytes, certs_der: Sequence[bytes] = ()) -> None:
        self._algorithm_der = signature_algorithm_der
        self._certificates = tuple(certs_der)
        self._certs_der = _certs(certs_der)
        # (octets of tbs, octets of signature) -> what stands before tbs, and between the two.
        self._made: dict[tuple[int, int], tuple[bytes, bytes]] = {}

    @property
    def end_der(self) -> bytes:
        """What stands behind every signature: the signer's certificates."""
        return self._certs_der

    def __call__(self, tbs_response_data: bytes, signature: bytes) -> bytes:
        """Return the DER of the OCSPResponse."""
        return self.start(tbs_response_data, signature) + self._certs_der

    def start(self, tbs_response_data: bytes, signature: bytes) -> bytes:
        """Return the OCSPResponse up to ``end_der``, which it shares with others.  Cost: 0.4 µs."""
        lengths = len(tbs_response_data), len(signature)
        made = self._made.get(lengths)
        if made is None:
            made = self._make(*lengths)
        before, between = made
        return b"".join((before, tbs_response_data, between, signature))

    def _make(self, tbs_octets: int, signature_octets: int) -> tuple[bytes, bytes]:
        """Cut tbs and signature out of an answer whose two are nothing but zeros."""
        bits = bit_string(bytes(signature_octets))
        between = self._algorithm_der + bits[: len(bits) - signature_octets]
        basic_der = encode_basic_response(
            bytes(tbs_octets), self._algorithm_der, bytes(signature_octets), self._certificates
        )
        whole = encode_response(basic_der)
        after_octets = tbs_octets + len(between) + signature_octets + len(self._certs_der)
        before = whole[: len(whole) - after_octets]
        if len(self._made) >= _FRAMES_MAX:
            # Answers about many certificates come in many lengths.
            self._made.clear()
        self._made[tbs_octets, signature_octets] = before, between
        return before, between


def encode_response(basic_response_der: bytes) -> bytes:
    """Return the OCSPResponse ``successful`` around a BasicOCSPResponse."""
    response_bytes = tlv(SEQUENCE, _BASIC_OID_DER + tlv(OCTET_STRING, basic_response_der))
    return tlv(SEQUENCE, b"\x0a\x01\x00" + tlv(_TAG_0, response_bytes))


def error_response(status: int) -> bytes:
    """Return the five octets ``30 03 0A 01 xx`` of an unsigned error.

    Takes:   OCSPResponseStatus 1, 2, 3, 5 or 6 (RFC 6960 §4.2.1).
    Raises:  DERError — 0, which needs an answer, or 4, which is not used.
    """
    encoded = _ERRORS.get(status)
    if encoded is None:
        raise DERError(f"response status {status}: not an error status")
    return encoded


# Reading ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ParsedSingle:
    """One SingleResponse read back; times in POSIX seconds, reason a CRLReason number."""

    cert_id: CertID
    cert_id_der: bytes
    status: int
    this_update_s: int
    next_update_s: int | None
    revocation_time_s: int | None
    reason: int | None
    extensions: tuple[Extension, ...]


@dataclass(frozen=True, slots=True)
class BasicResponse:
    """A BasicOCSPResponse read back; exactly one of the two responder fields is set."""

    tbs_der: bytes
    responder_key_hash: bytes | None
    responder_name_der: bytes | None
    produced_at_s: int
    singles: tuple[ParsedSingle, ...]
    nonce: bytes | None
    extended_revoke: bool
    extensions: tuple[Extension, ...]
    signature_algorithm: str
    signature: bytes
    certs_der: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class ParsedResponse:
    """An OCSPResponse read back; *basic* is there exactly when *status* is successful (0)."""

    status: int
    basic: BasicResponse | None = None


def parse_response(response_der: bytes) -> ParsedResponse:
    """Return what *response_der* says, without verifying its signature.

    Raises:  DERError — not one DER OCSPResponse to the last octet, a response type other than
             basic, a status that does not exist, response bytes missing or where none belong.
    Source:  RFC 6960 §4.2.1.
    """
    pos, end = expect_last(response_der, 0, len(response_der), SEQUENCE)
    status, pos = read_integer(response_der, pos, end, ENUMERATED)
    if status not in _STATUSES:
        raise DERError(f"response status {status}: does not exist")
    if (status == errors.SUCCESSFUL) == (pos == end):
        raise DERError(f"response status {status}: response bytes {'missing' if pos == end else 'present'}")
    if pos == end:
        return ParsedResponse(status)
    pos, end = expect_last(response_der, pos, end, _TAG_0)
    pos, end = expect_last(response_der, pos, end, SEQUENCE)
    kind, pos = read_oid(response_der, pos, end)
    if kind != oid.OCSP_BASIC:
        raise DERError(f"response type {kind}: not basic")
    start, end = expect_last(response_der, pos, end, OCTET_STRING)
    return ParsedResponse(status, _parse_basic(response_der, start, end))


def _parse_basic(buf: bytes, pos: int, end: int) -> BasicResponse:
    pos, end = expect_last(buf, pos, end, SEQUENCE)
    tbs_start = pos
    pos, tbs_end = expect(buf, pos, end, SEQUENCE)
    tag, start, stop = read_tlv(buf, pos, tbs_end)
    key_hash: bytes | None = None
    name_der: bytes | None = None
    if tag == _TAG_2:
        start, stop = expect_last(buf, start, stop, OCTET_STRING)
        key_hash = buf[start:stop]
        if len(key_hash) != _KEY_HASH_OCTETS:
            raise DERError(f"responder key hash: {_KEY_HASH_OCTETS} octets, {len(key_hash)} found")
    elif tag == _TAG_1:
        expect_last(buf, start, stop, SEQUENCE)
        check_element(buf, start, stop)
        name_der = buf[start:stop]
    else:
        # [0] is the version, which DER leaves out; anything else is no ResponderID.
        raise DERError(f"responder: tag 0x{tag:02X}")
    produced_at_s, pos = read_generalized_time(buf, stop, tbs_end)
    start, pos = expect(buf, pos, tbs_end, SEQUENCE)
    singles: list[ParsedSingle] = []
    while start < pos:
        single, start = _read_single(buf, start, pos)
        singles.append(single)
    extensions: list[Extension] = []
    if pos < tbs_end:
        start, stop = expect_last(buf, pos, tbs_end, _TAG_1)
        extensions = parse_extensions(buf, start, stop)
    nonce: bytes | None = None
    for name, _, value in extensions:
        if name == oid.OCSP_NONCE:
            start, stop = expect_last(value, 0, len(value), OCTET_STRING)
            nonce = value[start:stop]
    signature_algorithm, pos = read_algorithm(buf, tbs_end, end)
    start, pos = read_signature_bits(buf, pos, end)
    signature = buf[start:pos]
    certs: list[bytes] = []
    if pos < end:
        pos, end = expect_last(buf, pos, end, _TAG_0)
        pos, end = expect_last(buf, pos, end, SEQUENCE)
        while pos < end:
            expect(buf, pos, end, SEQUENCE)
            stop = check_element(buf, pos, end)
            certs.append(buf[pos:stop])
            pos = stop
    return BasicResponse(
        tbs_der=buf[tbs_start:tbs_end],
        responder_key_hash=key_hash,
        responder_name_der=name_der,
        produced_at_s=produced_at_s,
        singles=tuple(singles),
        nonce=nonce,
        extended_revoke=any(name == oid.OCSP_EXTENDED_REVOKE for name, _, _ in extensions),
        extensions=tuple(extensions),
        signature_algorithm=signature_algorithm,
        signature=signature,
        certs_der=tuple(certs),
    )


def _read_single(buf: bytes, pos: int, end: int) -> tuple[ParsedSingle, int]:
    pos, end = expect(buf, pos, end, SEQUENCE)
    cert_id_start = pos
    cert_id, pos = read_cert_id(buf, pos, end)
    cert_id_der = buf[cert_id_start:pos]
    tag, start, pos = read_tlv(buf, pos, end)
    revocation_time_s: int | None = None
    reason: int | None = None
    if tag in (CONTEXT | GOOD, CONTEXT | UNKNOWN):
        if start != pos:
            raise DERError(f"certificate status 0x{tag:02X}: {pos - start} octets, none expected")
        status = tag & 0x1F
    elif tag == _TAG_1:
        status = REVOKED
        revocation_time_s, after = read_generalized_time(buf, start, pos)
        if after != pos:
            start, stop = expect_last(buf, after, pos, _TAG_0)
            reason, after = read_integer(buf, start, stop, ENUMERATED)
            if after != stop or not 0 <= reason <= 10 or reason == 7:
                raise DERError(f"revocation reason {reason}: does not exist, or octets follow it")
    else:
        raise DERError(f"certificate status: tag 0x{tag:02X}")
    this_update_s, pos = read_generalized_time(buf, pos, end)
    next_update_s: int | None = None
    if pos < end and buf[pos] == _TAG_0:
        start, pos = expect(buf, pos, end, _TAG_0)
        next_update_s, after = read_generalized_time(buf, start, pos)
        if after != pos:
            raise DERError(f"nextUpdate: {pos - after} octets after it")
    extensions: list[Extension] = []
    if pos < end:
        start, stop = expect_last(buf, pos, end, _TAG_1)
        extensions = parse_extensions(buf, start, stop)
    single = ParsedSingle(
        cert_id,
        cert_id_der,
        status,
        this_update_s,
        next_update_s,
        revocation_time_s,
        reason,
        tuple(extensions),
    )
    return single, end
