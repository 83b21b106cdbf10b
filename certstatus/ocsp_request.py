"""OCSPRequest: from any octets to the CertIDs asked about, or to the one error that answers them.

Knows: the whole syntax of a request, signed or not, and the extensions a responder must
recognise: nonce, acceptable responses, preferred signature algorithms, service locator.
Does not know: issuers, limits other than the count of certificates, or whether a
signature is good; a signature is checked for form and otherwise passed over.
Source: RFC 6960 §4.1, §4.4; RFC 9654 §2 (nonce); X.690 for DER.

    OCSPRequest  SEQUENCE
      TBSRequest   SEQUENCE
        version      [0]  never present in DER: v1 is the default
        requestor    [1]  GeneralName, checked and passed over
        requestList  SEQUENCE OF Request, at least one
          CertID
          [0] Extensions
        [2] Extensions
      [0] Signature
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from certstatus import oid
from certstatus.cert_id import SHA1, CertID, encode_cert_id, read_cert_id
from certstatus.der import (
    CONTEXT_CONSTRUCTED,
    OBJECT_IDENTIFIER,
    OCTET_STRING,
    SEQUENCE,
    SET,
    check_element,
    expect,
    expect_last,
    explicit,
    octet_string,
    read_algorithm,
    read_bit_string,
    read_oid,
    read_tlv,
    sequence,
)
from certstatus.der import oid as encode_oid
from certstatus.errors import DERError, MalformedRequest, TooManyCertificates
from certstatus.extension import parse_extensions

# RFC 9654 §2: a nonce outside these bounds is answered malformedRequest; all inside are echoed.
NONCE_OCTETS_MIN = 1
NONCE_OCTETS_MAX = 128

_TAG_0 = CONTEXT_CONSTRUCTED | 0
_TAG_1 = CONTEXT_CONSTRUCTED | 1
_TAG_2 = CONTEXT_CONSTRUCTED | 2
# What the clients that send AcceptableResponses send: a list of the basic type alone.
_BASIC_ONLY = sequence(encode_oid(oid.OCSP_BASIC))

# What an answer may be signed with: nothing weaker, whoever asks for it (RFC 6960 §5.1.2).
_BY_RSA = frozenset({oid.SHA256_WITH_RSA, oid.SHA384_WITH_RSA, oid.SHA512_WITH_RSA})
_BY_EC = frozenset({oid.ECDSA_WITH_SHA256, oid.ECDSA_WITH_SHA384, oid.ECDSA_WITH_SHA512})
_CURVES = frozenset({oid.SECP256R1, oid.SECP384R1, oid.SECP521R1})

_OTHER_NAME, _X400_ADDRESS, _DIRECTORY_NAME, _EDI_PARTY_NAME = 0xA0, 0xA3, 0xA4, 0xA5
_RFC822_NAME, _DNS_NAME, _URI, _IP_ADDRESS, _REGISTERED_ID = 0x81, 0x82, 0x86, 0x87, 0x88


class PreferredAlgorithm(NamedTuple):
    """A signature algorithm a client wants, dotted; ``curve`` of the key, empty for any."""

    signature: str
    curve: str = ""


class OCSPRequest(NamedTuple):
    """What a request asks; cacheable ones that are equal have the same answer.

    cert_ids    at least one, in the order asked, duplicates kept
    nonce       its 1..128 octets, to be echoed; None if there was none
    signed      whether it carried a signature (of correct form, not verified)
    preferred   what an answer may be signed with, in the client's order, each once; None if it named
                nothing, empty if it named only what no answer is signed with
    cert_id_der what ``encode_cert_id`` writes for its one CertID, where it was read off; else empty, so
                requests that ask the same may differ in it
    """

    cert_ids: tuple[CertID, ...]
    nonce: bytes | None = None
    signed: bool = False
    preferred: tuple[PreferredAlgorithm, ...] | None = None
    cert_id_der: bytes = b""

    @property
    def cacheable(self) -> bool:
        """Whether other requests may share its answer."""
        return self.nonce is None and not self.signed


def encode_request(cert_ids: Iterable[CertID]) -> bytes:
    """Return the DER of a request for these certificates, with no extension and no signature.

    Raises:  DERError — a CertID by a hash function that cannot be written.
    Source:  RFC 6960 §4.1.1.
    """
    return sequence(sequence(sequence(*[sequence(encode_cert_id(*cert_id)) for cert_id in cert_ids])))


def parse_request(request_der: bytes, certificates_max: int) -> OCSPRequest:
    """Return what *request_der* asks.

    Takes:   any octets, already bounded in number; certificates_max >= 1.
    Raises:  MalformedRequest (DERError for syntax) — not one DER OCSPRequest to the last octet,
             empty request list, unknown critical extension, nonce out of bounds.
             TooManyCertificates — more than certificates_max; the rest is not read.
    Cost:    about 2.7 µs for one certificate without extensions, 10 headers; 2.8 µs more with a nonce.
    Source:  RFC 6960 §4.1.1, §4.1.2.
    """
    pos, end = expect_last(request_der, 0, len(request_der), SEQUENCE)
    pos, tbs_end = expect(request_der, pos, end, SEQUENCE)
    if pos < tbs_end:
        tag = request_der[pos]
        if tag == _TAG_0:
            raise DERError("version: present, but DER leaves out v1 and there is no other")
        if tag == _TAG_1:
            start, pos = expect(request_der, pos, tbs_end, _TAG_1)
            _check_general_name(request_der, start, pos)
    pos, list_end = expect(request_der, pos, tbs_end, SEQUENCE)
    if pos == list_end:
        raise MalformedRequest("request list: empty")
    cert_ids: list[CertID] = []
    while pos < list_end:
        if len(cert_ids) >= certificates_max:
            raise TooManyCertificates(f"request list: more than {certificates_max} certificates")
        start, pos = expect(request_der, pos, list_end, SEQUENCE)
        cert_id, after = read_cert_id(request_der, start, pos)
        if after != pos:
            _check_single_extensions(request_der, after, pos)
        cert_ids.append(cert_id)
    signed = tbs_end != end
    if list_end == tbs_end and not signed:
        return OCSPRequest(tuple(cert_ids))
    if signed:
        _check_signature(request_der, tbs_end, end)
    if list_end == tbs_end:
        return OCSPRequest(tuple(cert_ids), None, True)
    return _with_extensions(request_der, list_end, tbs_end, tuple(cert_ids), signed)


# --- what nearly every client sends: one CertID by SHA-1, and perhaps a nonce --------------------------


# All lengths of such a request up to the name's stand before here.
_LENGTHS_END = 14


def _usual_form(serial_octets: int, nonce_octets: int) -> tuple[bytes, bytes]:
    """Return the octets that tell the form of a request with so many octets of each, and its pattern.

    The pattern's groups: the CertID, its hashes and its serial number, and the nonce.
    """
    name, key, serial = b"n" * 20, b"k" * 20, b"s" * serial_octets
    cert_id_der = encode_cert_id(SHA1, name, key, serial)
    extension = sequence(encode_oid(oid.OCSP_NONCE), octet_string(octet_string(bytes(nonce_octets))))
    extensions_der = explicit(2, sequence(extension)) if nonce_octets else b""
    der = sequence(sequence(sequence(sequence(cert_id_der)), extensions_der))
    before_cert_id, _, after_cert_id = der.partition(cert_id_der)
    before_name, _, rest = cert_id_der.partition(name)
    before_key, _, rest = rest.partition(key)
    before_serial = rest.removesuffix(serial)
    before_nonce = after_cert_id[: len(after_cert_id) - nonce_octets]
    # A serial number that begins otherwise is zero, negative, or perhaps not minimal.
    pattern = b"".join(
        (
            re.escape(before_cert_id),
            b"(%b(.{20})" % re.escape(before_name),
            b"%b(.{20})" % re.escape(before_key),
            b"%b([\x01-\x7f].{%d}))" % (re.escape(before_serial), serial_octets - 1),
            b"%b(.{%d})" % (re.escape(before_nonce), nonce_octets),
        )
    )
    return der[:_LENGTHS_END], pattern


_USUAL = dict(_usual_form(serial, nonce) for serial in range(1, 21) for nonce in (0, 8, 16, 20, 32, 64))
# Of those, the ones that have come: all of them would cost every command that starts 10 ms.
_compiled: dict[bytes, re.Pattern[bytes]] = {}


def read_usual_request(der: bytes) -> OCSPRequest | None:
    """Return what ``parse_request`` returns, and its CertID's DER.

    None: then ``parse_request`` has to say it.  Without a nonce such a request is what ``encode_request``
    writes for what it asks.
    Cost:    1.1 µs, with or without a nonce, against 2.5 and 5.3.
    """
    lengths = der[:_LENGTHS_END]
    pattern = _compiled.get(lengths)
    if pattern is None:
        text = _USUAL.get(lengths)
        if text is None:
            return None
        pattern = _compiled[lengths] = re.compile(text, re.DOTALL)
    match = pattern.fullmatch(der)
    if match is None:
        return None
    cert_id_der, name_hash, key_hash, serial, nonce = match.groups()
    return OCSPRequest((CertID(SHA1, name_hash, key_hash, serial),), nonce or None, False, None, cert_id_der)


# --- everything else -----------------------------------------------------------------------------------


def _with_extensions(
    buf: bytes, pos: int, end: int, cert_ids: tuple[CertID, ...], signed: bool
) -> OCSPRequest:
    """Return the request with its requestExtensions read; an empty list is one that BouncyCastle sends."""
    start, stop = expect_last(buf, pos, end, _TAG_2)
    nonce: bytes | None = None
    preferred: tuple[PreferredAlgorithm, ...] | None = None
    for name, critical, value in parse_extensions(buf, start, stop):
        if name == oid.OCSP_NONCE:
            nonce = _nonce(value)
        elif name == oid.OCSP_RESPONSE:
            # Basic is always to be had (RFC 6960 §4.4.3), and there is no other; only the form is checked.
            if value != _BASIC_ONLY:
                _check_oids(value)
        elif name == oid.OCSP_PREF_SIG_ALGS:
            preferred = _preferred(value)
        elif critical:
            raise MalformedRequest(f"request extension {name}: critical and not known")
    return OCSPRequest(cert_ids, nonce, signed, preferred)


def _check_single_extensions(buf: bytes, pos: int, end: int) -> None:
    """Check singleRequestExtensions; none of them changes an answer, and no locator is ever followed."""
    start, stop = expect_last(buf, pos, end, _TAG_0)
    for name, critical, _ in parse_extensions(buf, start, stop):
        if critical and name != oid.OCSP_SERVICE_LOCATOR:
            raise MalformedRequest(f"single request extension {name}: critical and not known")


def _nonce(value: bytes) -> bytes:
    start, stop = expect_last(value, 0, len(value), OCTET_STRING)
    if not NONCE_OCTETS_MIN <= stop - start <= NONCE_OCTETS_MAX:
        raise MalformedRequest(f"nonce: {NONCE_OCTETS_MIN}..{NONCE_OCTETS_MAX} octets, {stop - start} found")
    return value[start:stop]


def _check_oids(value: bytes) -> None:
    """Check that *value* is a SEQUENCE OF OBJECT IDENTIFIER (AcceptableResponses, RFC 6960 §4.4.3)."""
    pos, end = expect_last(value, 0, len(value), SEQUENCE)
    while pos < end:
        _, pos = read_oid(value, pos, end)


def _preferred(value: bytes) -> tuple[PreferredAlgorithm, ...]:
    """Return the algorithms of PreferredSignatureAlgorithms that can be had, in order (RFC 6960 §4.4.7.1).

    There are so few of them that no list, however long, makes a request large to remember.
    """
    pos, end = expect_last(value, 0, len(value), SEQUENCE)
    wanted: list[PreferredAlgorithm] = []
    while pos < end:
        start, pos = expect(value, pos, end, SEQUENCE)
        signature, after = read_algorithm(value, start, pos)
        algorithm = _with_key(signature, value, after, pos)
        if algorithm is not None and algorithm not in wanted:
            wanted.append(algorithm)
    return tuple(wanted)


def _with_key(signature: str, buf: bytes, pos: int, end: int) -> PreferredAlgorithm | None:
    """Return *signature* by a key as *pos*..*end* wants it, None if by none of ours.

    pubKeyAlgIdentifier, which may be absent, has the shape of an AlgorithmIdentifier; for EC its
    parameters name the curve.
    """
    key, curve, takes_any = "", "", True
    if pos != end:
        key, after = read_algorithm(buf, pos, end)
        if after != end:
            raise DERError(f"preferred signature algorithm {signature}: {end - after} octets too many")
        pos, _ = expect(buf, pos, end, SEQUENCE)
        _, pos = read_oid(buf, pos, end)
        # Parameters that name no curve stand for one that we have not.
        takes_any = pos == end
        if not takes_any and buf[pos] == OBJECT_IDENTIFIER:
            curve, _ = read_oid(buf, pos, end)
    if signature in _BY_RSA and key in ("", oid.RSA_ENCRYPTION):
        return PreferredAlgorithm(signature)
    if signature in _BY_EC and key in ("", oid.EC_PUBLIC_KEY) and (takes_any or curve in _CURVES):
        return PreferredAlgorithm(signature, curve)
    return None


def _check_general_name(buf: bytes, pos: int, end: int) -> None:
    """Check that *pos*..*end* is one GeneralName (RFC 5280 §4.2.1.6); what it says is passed over."""
    tag, start, stop = read_tlv(buf, pos, end)
    if stop != end:
        raise DERError(f"requestor name: {end - stop} octets after it")
    if tag in (_RFC822_NAME, _DNS_NAME, _URI):
        if not buf[start:stop].isascii():
            raise DERError("requestor name: not ASCII")
    elif tag == _DIRECTORY_NAME:
        _check_name(buf, start, stop)
    elif tag == _REGISTERED_ID:
        read_oid(b"\x06" + buf[pos + 1 : stop], 0, stop - pos)
    elif tag == _OTHER_NAME:
        _, start = read_oid(buf, start, stop)
        start, stop = expect_last(buf, start, stop, _TAG_0)
        if check_element(buf, start, stop) != stop:
            raise DERError("requestor name: octets after the value of another name")
    elif tag in (_X400_ADDRESS, _EDI_PARTY_NAME):
        check_element(buf, pos, end)
    elif tag != _IP_ADDRESS:
        raise DERError(f"requestor name: no GeneralName has tag 0x{tag:02X}")


def _check_name(buf: bytes, pos: int, end: int) -> None:
    """Check that *pos*..*end* is one Name: relative names, each a set of type and value."""
    pos, end = expect_last(buf, pos, end, SEQUENCE)
    while pos < end:
        inner, pos = expect(buf, pos, end, SET)
        if inner == pos:
            raise DERError("requestor name: relative name without attributes")
        while inner < pos:
            start, inner = expect(buf, inner, pos, SEQUENCE)
            _, start = read_oid(buf, start, inner)
            if check_element(buf, start, inner) != inner:
                raise DERError("requestor name: octets after an attribute's value")


def _check_signature(buf: bytes, pos: int, end: int) -> None:
    """Check the form of ``[0] Signature { algorithm, BIT STRING, certs [0] OPTIONAL }``."""
    pos, end = expect_last(buf, pos, end, _TAG_0)
    pos, end = expect_last(buf, pos, end, SEQUENCE)
    _, pos = read_algorithm(buf, pos, end)
    _, _, pos = read_bit_string(buf, pos, end)
    if pos == end:
        return
    pos, end = expect_last(buf, pos, end, _TAG_0)
    pos, end = expect_last(buf, pos, end, SEQUENCE)
    while pos < end:
        expect(buf, pos, end, SEQUENCE)
        pos = check_element(buf, pos, end)
