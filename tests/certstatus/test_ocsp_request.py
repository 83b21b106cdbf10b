"""OCSP requests: one pinned outcome for each hostile or unusual input, and agreement with `cryptography`.

The rows of the table are numbered so that a test over HTTP can speak of the same inputs.
Inputs are built by the small encoders below, never by the code under test.
"""

from __future__ import annotations

import base64
import json
import random
import re
import subprocess
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ocsp
from hypothesis import given
from hypothesis import strategies as st

from certstatus.cert_id import SHA1, UNKNOWN_HASH, CertID, encode_cert_id
from certstatus.der import explicit, integer_content, octet_string, sequence
from certstatus.der import oid as encode_oid
from certstatus.errors import (
    UNAUTHORIZED,
    MalformedRequest,
    RequestError,
    TooManyCertificates,
)
from certstatus.ocsp_request import (
    OCSPRequest,
    PreferredAlgorithm,
    encode_request,
    parse_request,
    read_usual_request,
)
from certstatus.oid import OCSP_NONCE

_CERTIFICATES_MAX = 20

# Encoders ------------------------------------------------------------------------------------------


def _tlv(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(octets))) + octets + content


def _seq(*parts: bytes) -> bytes:
    return _tlv(0x30, *parts)


def _oid(content_hex: str) -> bytes:
    return _tlv(0x06, bytes.fromhex(content_hex))


_NULL = b"\x05\x00"
_TRUE = b"\x01\x01\xff"
_SHA1 = _oid("2b0e03021a")
_SHA256 = _oid("608648016503040201")
_SHA384 = _oid("608648016503040202")
_SHA512 = _oid("608648016503040203")
_MD5 = _oid("2a864886f70d0205")
_UNKNOWN = _oid("2a030405")
_BASIC = _oid("2b0601050507300101")
_NONCE = _oid("2b0601050507300102")
_RESPONSE = _oid("2b0601050507300104")
_SERVICE_LOCATOR = _oid("2b0601050507300107")
_PREFERRED = _oid("2b0601050507300108")
_ECDSA_SHA256 = _seq(_oid("2a8648ce3d040302"))
_ECDSA_SHA1 = _seq(_oid("2a8648ce3d0401"))
_RSA_SHA256 = _seq(_oid("2a864886f70d01010b"), _NULL)
_RSA_MD5 = _seq(_oid("2a864886f70d010104"), _NULL)
_EC_KEY = _oid("2a8648ce3d0201")
_P384 = _oid("2b81040022")
_WANTS_RSA_SHA256 = PreferredAlgorithm("1.2.840.113549.1.1.11")
_WANTS_ECDSA_SHA256 = PreferredAlgorithm("1.2.840.10045.4.3.2")

_NAME_HASH, _KEY_HASH = b"n" * 20, b"k" * 20
_SERIAL = bytes.fromhex("1a2b3c4d5e6f708192a3b4c5d6e7f809")


def _cert_id(
    algorithm: bytes | None = None,
    name_hash: bytes = _NAME_HASH,
    key_hash: bytes = _KEY_HASH,
    serial: bytes = _SERIAL,
    *,
    serial_der: bytes | None = None,
) -> bytes:
    return _seq(
        _seq(_SHA1, _NULL) if algorithm is None else algorithm,
        _tlv(0x04, name_hash),
        _tlv(0x04, key_hash),
        _tlv(0x02, serial) if serial_der is None else serial_der,
    )


def _ask(cert_id: bytes | None = None, *single_extensions: bytes) -> bytes:
    wrapped = _tlv(0xA0, _seq(*single_extensions)) if single_extensions else b""
    return _seq(_cert_id() if cert_id is None else cert_id, wrapped)


def _tbs(
    *asks: bytes, before: bytes = b"", extensions: tuple[bytes, ...] | None = None, after: bytes = b""
) -> bytes:
    wrapped = b"" if extensions is None else _tlv(0xA2, _seq(*extensions))
    return _seq(before, _seq(*(asks or (_ask(),))), wrapped, after)


def _request(*asks: bytes, before: bytes = b"", extensions: tuple[bytes, ...] | None = None) -> bytes:
    return _seq(_tbs(*asks, before=before, extensions=extensions))


def _extension(oid: bytes, value: bytes, critical: bytes = b"") -> bytes:
    return _seq(oid, critical, _tlv(0x04, value))


def _nonce(octets: int, critical: bytes = b"") -> bytes:
    return _extension(
        _NONCE, _tlv(0x04, bytes(range(256))[:octets] if octets <= 256 else bytes(octets)), critical
    )


def _nested(depth: int) -> bytes:
    lengths: list[int] = []
    size = 0
    for _ in range(depth):
        lengths.append(size)
        size += len(_tlv(0x30, b"")) + (0 if size < 0x80 else (size.bit_length() + 7) // 8)
    return b"".join(_tlv_head(length) for length in reversed(lengths))


def _tlv_head(size: int) -> bytes:
    return _tlv(0x30, bytes(size))[: -size or None]


# Inputs made of real parts -----------------------------------------------------------------------------

_KEY = ec.derive_private_key(0x1234567, ec.SECP256R1())
_AUTHORITY = (
    x509.CertificateBuilder()
    .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Test CA")]))
    .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Test CA")]))
    .public_key(_KEY.public_key())
    .serial_number(int.from_bytes(_SERIAL, "big"))
    .not_valid_before(datetime(2026, 1, 1, tzinfo=UTC))
    .not_valid_after(datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=3650))
    .sign(_KEY, hashes.SHA256())
)
_CERTIFICATE = _AUTHORITY.public_bytes(serialization.Encoding.DER)
_NAME = _AUTHORITY.subject.public_bytes()
_REQUESTOR = _tlv(0xA1, _tlv(0xA4, _NAME))


def _signed(
    before: bytes = _REQUESTOR,
    algorithm: bytes = _ECDSA_SHA256,
    *,
    broken: bool = False,
    certs: bytes | None = None,
    signature: bytes | None = None,
) -> bytes:
    tbs = _tbs(before=before)
    if signature is None:
        octets = bytearray(_KEY.sign(tbs, ec.ECDSA(hashes.SHA256())))
        octets[-1] ^= broken
        listed = _tlv(0xA0, _seq(_CERTIFICATE)) if certs is None else certs
        signature = _seq(algorithm, _tlv(0x03, b"\x00", bytes(octets)), listed)
    return _seq(tbs, _tlv(0xA0, signature))


_PLAIN = _request()
_RESPONSE_TRY_LATER = bytes.fromhex("30030a0103")

# The table ---------------------------------------------------------------------------------------------

_OTHER_SERIAL = b"\x05"
_FOREIGN = _cert_id(name_hash=b"f" * 20, key_hash=b"g" * 20)


def _of(
    serial: bytes = _SERIAL, *, hash_alg: int = 1, name_hash: bytes = _NAME_HASH, key_hash: bytes = _KEY_HASH
) -> CertID:
    return CertID(hash_alg, name_hash, key_hash, serial)


def _asks(*cert_ids: CertID, **fields: object) -> OCSPRequest:
    return OCSPRequest(cert_ids or (_of(),), **fields)  # type: ignore[arg-type]


_KNOWN = _asks()
_Outcome = OCSPRequest | type[RequestError]


def _with(*extensions: bytes) -> bytes:
    return _request(extensions=extensions)


def _nonce_case(octets: int) -> tuple[bytes, _Outcome]:
    return _with(_nonce(octets)), _asks(nonce=bytes(range(octets)))


_CASES: dict[str, tuple[bytes, _Outcome]] = {
    "D01 hash parameters absent": (_request(_ask(_cert_id(_seq(_SHA1)))), _KNOWN),
    "D02 SHA-1 with NULL": (_PLAIN, _KNOWN),
    "D03 SHA-256": (
        _request(_ask(_cert_id(_seq(_SHA256, _NULL), b"n" * 32, b"k" * 32))),
        _asks(_of(hash_alg=2, name_hash=b"n" * 32, key_hash=b"k" * 32)),
    ),
    "D04.1 SHA-384": (
        _request(_ask(_cert_id(_seq(_SHA384, _NULL), b"n" * 48, b"k" * 48))),
        _asks(_of(hash_alg=3, name_hash=b"n" * 48, key_hash=b"k" * 48)),
    ),
    "D04.2 SHA-512, parameters absent": (
        _request(_ask(_cert_id(_seq(_SHA512), b"n" * 64, b"k" * 64))),
        _asks(_of(hash_alg=4, name_hash=b"n" * 64, key_hash=b"k" * 64)),
    ),
    "D05 empty": (b"", MalformedRequest),
    "D06 one octet": (b"\x30", MalformedRequest),
    "D07 a quarter": (_PLAIN[: len(_PLAIN) // 4], MalformedRequest),
    "D08 without the last octet": (_PLAIN[:-1], MalformedRequest),
    "D09 trailing NUL": (_PLAIN + b"\x00", MalformedRequest),
    "D10 two requests": (_PLAIN * 2, MalformedRequest),
    "D11.1 junk after the request list": (_seq(_tbs(after=b"\x0c\x01x")), MalformedRequest),
    "D11.2 junk before the request list": (_request(before=b"\x0c\x01x"), MalformedRequest),
    "D11.3 junk after the extensions": (_seq(_tbs(extensions=(), after=_NULL)), MalformedRequest),
    "D11.4 junk in a Request": (_request(_seq(_cert_id(), _NULL)), MalformedRequest),
    "D11.5 junk after TBSRequest": (_seq(_tbs(), _NULL), MalformedRequest),
    "D12.1 indefinite length outside": (b"\x30\x80" + _tbs() + b"\x00\x00", MalformedRequest),
    "D12.2 indefinite length inside": (
        _request(_ask(_cert_id(b"\x30\x80" + _SHA1 + _NULL + b"\x00\x00"))),
        MalformedRequest,
    ),
    "D13 length 81 xx where one octet does": (b"\x30\x81" + _PLAIN[1:], MalformedRequest),
    "D14 length 82 00 xx": (b"\x30\x82\x00" + _PLAIN[1:], MalformedRequest),
    "D15 length of 2 GiB": (b"\x30\x84\x80\x00\x00\x00" + _tbs(), MalformedRequest),
    "D16 length of 2^63": (b"\x30\x88\x80" + bytes(7) + _tbs(), MalformedRequest),
    "D17 length FF": (b"\x30\xff" + _tbs(), MalformedRequest),
    "D18 nested 300 times": (_nested(300), MalformedRequest),
    "D19.1 nested 20,000 times": (_nested(20_000), MalformedRequest),
    "D19.2 nested 20,000 times in hash parameters": (
        _request(_ask(_cert_id(_seq(_UNKNOWN, _nested(20_000))))),
        MalformedRequest,
    ),
    "D19.3 nested 20,000 times in the requestor name": (
        _request(before=_tlv(0xA1, _tlv(0xA0, _UNKNOWN, _tlv(0xA0, _nested(20_000))))),
        MalformedRequest,
    ),
    "D20 SET for SEQUENCE": (b"\x31" + _PLAIN[1:], MalformedRequest),
    "D21 high tag": (b"\x3f\x81\x00" + _PLAIN[1:], MalformedRequest),
    "D22 empty request list": (_seq(_seq(_seq())), MalformedRequest),
    "D23 known and unknown serial number": (
        _request(_ask(), _ask(_cert_id(serial=_OTHER_SERIAL))),
        _asks(_of(), _of(_OTHER_SERIAL)),
    ),
    "D24 the same CertID twice": (_request(_ask(), _ask()), _asks(_of(), _of())),
    "D25 known and foreign issuer": (
        _request(_ask(), _ask(_FOREIGN)),
        _asks(_of(), _of(name_hash=b"f" * 20, key_hash=b"g" * 20)),
    ),
    "D26.1 as many as allowed": (
        _request(*[_ask()] * _CERTIFICATES_MAX),
        _asks(*[_of()] * _CERTIFICATES_MAX),
    ),
    "D26.2 one more than allowed": (_request(*[_ask()] * (_CERTIFICATES_MAX + 1)), TooManyCertificates),
    "D26.3 100": (_request(*[_ask()] * 100), TooManyCertificates),
    "D27 10,000": (_request(*[_ask()] * 10_000), TooManyCertificates),
    "D28 serial 0": (_request(_ask(_cert_id(serial=b"\x00"))), _asks(_of(b"\x00"))),
    "D29 serial -1": (_request(_ask(_cert_id(serial=b"\xff"))), _asks(_of(b"\xff"))),
    "D30 serial of 20 octets": (_request(_ask(_cert_id(serial=b"\x7f" * 20))), _asks(_of(b"\x7f" * 20))),
    "D31 serial of 21 octets": (_request(_ask(_cert_id(serial=b"\x7f" * 21))), _asks(_of(b"\x7f" * 21))),
    "D32 serial of 64 KiB": (_request(_ask(_cert_id(serial=b"\x7f" * 65_536))), MalformedRequest),
    "D33 serial not minimal": (_request(_ask(_cert_id(serial=b"\x00\x01"))), MalformedRequest),
    "D34 serial without octets": (_request(_ask(_cert_id(serial=b""))), MalformedRequest),
    "D35 serial as OCTET STRING": (
        _request(_ask(_cert_id(serial_der=_tlv(0x04, _SERIAL)))),
        MalformedRequest,
    ),
    "D36 unknown hash function": (
        _request(_ask(_cert_id(_seq(_UNKNOWN, _NULL)))),
        _asks(_of(hash_alg=UNKNOWN_HASH)),
    ),
    "D37 MD5": (
        _request(_ask(_cert_id(_seq(_MD5, _NULL), b"n" * 16, b"k" * 16))),
        _asks(_of(hash_alg=UNKNOWN_HASH, name_hash=b"n" * 16, key_hash=b"k" * 16)),
    ),
    "D38 hash of 19 octets": (
        _request(_ask(_cert_id(name_hash=b"n" * 19))),
        _asks(_of(hash_alg=UNKNOWN_HASH, name_hash=b"n" * 19)),
    ),
    "D39 hash of 32 octets": (
        _request(_ask(_cert_id(key_hash=b"k" * 32))),
        _asks(_of(hash_alg=UNKNOWN_HASH, key_hash=b"k" * 32)),
    ),
    "D40 hash of 0 octets": (
        _request(_ask(_cert_id(name_hash=b"", key_hash=b""))),
        _asks(_of(hash_alg=UNKNOWN_HASH, name_hash=b"", key_hash=b"")),
    ),
    "D41 only the name hash right": (
        _request(_ask(_cert_id(key_hash=b"g" * 20))),
        _asks(_of(key_hash=b"g" * 20)),
    ),
    "D42 only the key hash right": (
        _request(_ask(_cert_id(name_hash=b"f" * 20))),
        _asks(_of(name_hash=b"f" * 20)),
    ),
    "D43 hash parameters INTEGER": (_request(_ask(_cert_id(_seq(_SHA1, b"\x02\x01\x00")))), MalformedRequest),
    "D44 constructed OCTET STRING": (
        _request(
            _ask(
                _seq(
                    _seq(_SHA1, _NULL),
                    _tlv(0x24, _tlv(0x04, _NAME_HASH)),
                    _tlv(0x04, _KEY_HASH),
                    b"\x02\x01\x05",
                )
            )
        ),
        MalformedRequest,
    ),
    "D45 version v1 written out": (_request(before=_tlv(0xA0, b"\x02\x01\x00")), MalformedRequest),
    "D46 version 1": (_request(before=_tlv(0xA0, b"\x02\x01\x01")), MalformedRequest),
    "D47 version -1": (_request(before=_tlv(0xA0, b"\x02\x01\xff")), MalformedRequest),
    "D48 version 2^64": (_request(before=_tlv(0xA0, b"\x02\x09\x01" + bytes(8))), MalformedRequest),
    "D49 requestor is a directory name": (_request(before=_REQUESTOR), _KNOWN),
    "D50.1 requestor is an e-mail address": (
        _request(before=_tlv(0xA1, _tlv(0x81, b"a@example.jp"))),
        _KNOWN,
    ),
    "D50.2 requestor is a DNS name": (_request(before=_tlv(0xA1, _tlv(0x82, b"example.jp"))), _KNOWN),
    "D50.3 requestor is a URI": (_request(before=_tlv(0xA1, _tlv(0x86, b"urn:x"))), _KNOWN),
    "D50.4 requestor is an address": (_request(before=_tlv(0xA1, _tlv(0x87, b"\x7f\x00\x00\x01"))), _KNOWN),
    "D50.5 requestor is a registered ID": (_request(before=_tlv(0xA1, _tlv(0x88, b"\x2a\x03"))), _KNOWN),
    "D50.6 requestor is another name": (
        _request(before=_tlv(0xA1, _tlv(0xA0, _UNKNOWN, _tlv(0xA0, _tlv(0x0C, b"x"))))),
        _KNOWN,
    ),
    "D50.7 requestor is the empty name": (_request(before=_tlv(0xA1, _tlv(0xA4, _seq()))), _KNOWN),
    "D51.1 requestor has no such tag": (_request(before=_tlv(0xA1, _tlv(0x89, b"x"))), MalformedRequest),
    "D51.2 requestor is primitive where constructed": (
        _request(before=_tlv(0xA1, _tlv(0x84, b"x"))),
        MalformedRequest,
    ),
    "D51.3 requestor is empty": (_request(before=_tlv(0xA1)), MalformedRequest),
    "D51.4 requestor twice": (
        _request(before=_tlv(0xA1, _tlv(0x81, b"a"), _tlv(0x81, b"b"))),
        MalformedRequest,
    ),
    "D51.5 requestor e-mail not ASCII": (_request(before=_tlv(0xA1, _tlv(0x81, b"\xe5"))), MalformedRequest),
    "D51.6 requestor name is no name": (
        _request(before=_tlv(0xA1, _tlv(0xA4, _seq(_NULL)))),
        MalformedRequest,
    ),
    "D51.7 requestor name with an empty set": (
        _request(before=_tlv(0xA1, _tlv(0xA4, _seq(_tlv(0x31))))),
        MalformedRequest,
    ),
    "D51.8 requestor name with two values": (
        _request(before=_tlv(0xA1, _tlv(0xA4, _seq(_tlv(0x31, _seq(_UNKNOWN, _NULL, _NULL)))))),
        MalformedRequest,
    ),
    "D51.9 requestor registered ID cut off": (
        _request(before=_tlv(0xA1, _tlv(0x88, b"\x2a\x83"))),
        MalformedRequest,
    ),
    "D52.1 signed": (_signed(), _asks(signed=True)),
    "D52.2 signed, no certificates": (_signed(certs=b""), _asks(signed=True)),
    "D53 signed, broken": (_signed(broken=True), _asks(signed=True)),
    "D54 signed, no requestor": (_signed(before=b""), _asks(signed=True)),
    "D55 signed, unknown algorithm": (_signed(algorithm=_seq(_UNKNOWN, _NULL)), _asks(signed=True)),
    "D56.1 Signature empty": (_signed(signature=_seq()), MalformedRequest),
    "D56.2 Signature absent inside its tag": (_signed(signature=b""), MalformedRequest),
    "D56.3 Signature without bits": (_signed(signature=_seq(_ECDSA_SHA256)), MalformedRequest),
    "D56.4 Signature with an octet string": (
        _signed(signature=_seq(_ECDSA_SHA256, _tlv(0x04, b"\x00s"))),
        MalformedRequest,
    ),
    "D56.5 Signature with junk": (_signed(certs=_tlv(0xA1, _seq())), MalformedRequest),
    "D56.6 certificate is BER": (
        _signed(certs=_tlv(0xA0, _seq(b"\x30\x80\x00\x00"))),
        MalformedRequest,
    ),
    "D56.7 certificate is no sequence": (_signed(certs=_tlv(0xA0, _seq(_NULL))), MalformedRequest),
    "D56.8 Signature twice": (
        _seq(_tbs(), *[_tlv(0xA0, _seq(_ECDSA_SHA256, _tlv(0x03, b"\x00s")))] * 2),
        MalformedRequest,
    ),
    "D57.0 nonce of 0 octets": (_with(_nonce(0)), MalformedRequest),
    "D57.1 nonce of 1 octet": _nonce_case(1),
    "D57.15 nonce of 15 octets": _nonce_case(15),
    "D57.16 nonce of 16 octets": _nonce_case(16),
    "D57.23 nonce of 23 octets": _nonce_case(23),
    "D57.32 nonce of 32 octets": _nonce_case(32),
    "D57.33 nonce of 33 octets": _nonce_case(33),
    "D57.128 nonce of 128 octets": _nonce_case(128),
    "D57.129 nonce of 129 octets": (_with(_nonce(129)), MalformedRequest),
    "D57.4096 nonce of 4096 octets": (_with(_nonce(4096)), MalformedRequest),
    "D58.1 nonce not wrapped": (_with(_extension(_NONCE, b"n" * 16)), MalformedRequest),
    "D58.2 nonce with octets after it": (_with(_extension(_NONCE, b"\x04\x01nn")), MalformedRequest),
    "D59 nonce twice": (_with(_nonce(16), _nonce(16)), MalformedRequest),
    "D60 nonce critical": (_with(_nonce(16, _TRUE)), _asks(nonce=bytes(range(16)))),
    "D61 nonce as single extension": (_request(_ask(None, _nonce(16))), _KNOWN),
    "D62.1 unknown extension": (_with(_extension(_UNKNOWN, b"junk")), _KNOWN),
    "D62.2 unknown single extension": (_request(_ask(None, _extension(_UNKNOWN, b"junk"))), _KNOWN),
    "D63 unknown critical extension": (_with(_extension(_UNKNOWN, b"", _TRUE)), MalformedRequest),
    "D64.1 unknown critical single extension": (
        _request(_ask(None, _extension(_UNKNOWN, b"", _TRUE))),
        MalformedRequest,
    ),
    "D64.2 critical nonce as single extension": (_request(_ask(None, _nonce(16, _TRUE))), MalformedRequest),
    "D65.1 no extension in the list": (_with(), _KNOWN),
    "D65.2 no single extension in the list": (_request(_seq(_cert_id(), _tlv(0xA0, _seq()))), _KNOWN),
    "D65.3 no list of extensions in its tag": (_seq(_seq(_seq(_ask()), _tlv(0xA2))), MalformedRequest),
    "D66.1 unknown extension twice": (
        _with(_extension(_UNKNOWN, b""), _extension(_UNKNOWN, b"")),
        MalformedRequest,
    ),
    "D66.2 single extension twice": (
        _request(_ask(None, _extension(_UNKNOWN, b""), _extension(_UNKNOWN, b"x"))),
        MalformedRequest,
    ),
    "D67 critical is 01": (_with(_nonce(16, b"\x01\x01\x01")), MalformedRequest),
    "D68 critical is FALSE, written out": (_with(_nonce(16, b"\x01\x01\x00")), MalformedRequest),
    "D69.1 acceptable responses: basic": (_with(_extension(_RESPONSE, _seq(_BASIC))), _KNOWN),
    "D69.2 acceptable responses: another, basic": (
        _with(_extension(_RESPONSE, _seq(_UNKNOWN, _BASIC))),
        _KNOWN,
    ),
    "D70.1 acceptable responses: another": (_with(_extension(_RESPONSE, _seq(_UNKNOWN))), _KNOWN),
    "D70.2 acceptable responses: none": (_with(_extension(_RESPONSE, _seq())), _KNOWN),
    "D70.3 acceptable responses: another, critical": (
        _with(_extension(_RESPONSE, _seq(_UNKNOWN), _TRUE)),
        _KNOWN,
    ),
    "D70.4 acceptable responses: junk": (_with(_extension(_RESPONSE, _seq(_NULL))), MalformedRequest),
    "D70.5 acceptable responses: another, then a malformed nonce": (
        _with(_extension(_RESPONSE, _seq(_UNKNOWN)), _nonce(0)),
        MalformedRequest,
    ),
    "D71 preferred algorithm unknown": (
        _with(_extension(_PREFERRED, _seq(_seq(_seq(_UNKNOWN))))),
        _asks(preferred=()),
    ),
    "D72.1 preferred algorithms SHA-1 and MD5": (
        _with(_extension(_PREFERRED, _seq(_seq(_ECDSA_SHA1), _seq(_RSA_MD5)))),
        _asks(preferred=()),
    ),
    "D72.2 preferred algorithm with its key's": (
        _with(
            _extension(_PREFERRED, _seq(_seq(_RSA_SHA256, _seq(_oid("2a864886f70d010101"), _NULL))), _TRUE)
        ),
        _asks(preferred=(_WANTS_RSA_SHA256,)),
    ),
    "D72.3 preferred algorithms: none": (_with(_extension(_PREFERRED, _seq())), _asks(preferred=())),
    "D72.4 preferred algorithms: junk": (_with(_extension(_PREFERRED, _seq(_RSA_SHA256))), MalformedRequest),
    "D72.6 preferred algorithms, weak and twice": (
        _with(
            _extension(
                _PREFERRED,
                _seq(
                    _seq(_ECDSA_SHA1),
                    _seq(_ECDSA_SHA256),
                    _seq(_RSA_SHA256),
                    _seq(_ECDSA_SHA256),
                    _seq(_RSA_MD5),
                    _seq(_seq(_oid("2a864886f70d01010b"))),
                ),
            )
        ),
        _asks(preferred=(_WANTS_ECDSA_SHA256, _WANTS_RSA_SHA256)),
    ),
    "D72.7 preferred curve": (
        _with(_extension(_PREFERRED, _seq(_seq(_ECDSA_SHA256, _seq(_EC_KEY, _P384))))),
        _asks(preferred=(PreferredAlgorithm("1.2.840.10045.4.3.2", "1.3.132.0.34"),)),
    ),
    "D72.8 preferred curve unknown": (
        _with(_extension(_PREFERRED, _seq(_seq(_ECDSA_SHA256, _seq(_EC_KEY, _UNKNOWN))))),
        _asks(preferred=()),
    ),
    "D72.9 preferred curve by its equation": (
        _with(_extension(_PREFERRED, _seq(_seq(_ECDSA_SHA256, _seq(_EC_KEY, _seq(_NULL)))))),
        _asks(preferred=()),
    ),
    "D72.10 preferred EC signature, any curve": (
        _with(_extension(_PREFERRED, _seq(_seq(_ECDSA_SHA256, _seq(_EC_KEY))))),
        _asks(preferred=(_WANTS_ECDSA_SHA256,)),
    ),
    "D72.11 preferred EC signature by an RSA key": (
        _with(_extension(_PREFERRED, _seq(_seq(_ECDSA_SHA256, _seq(_oid("2a864886f70d010101"), _NULL))))),
        _asks(preferred=()),
    ),
    "D72.12 preferred algorithm's key: two parameters": (
        _with(_extension(_PREFERRED, _seq(_seq(_ECDSA_SHA256, _seq(_EC_KEY, _P384, _NULL))))),
        MalformedRequest,
    ),
    "D72.5 preferred algorithm with a third field": (
        _with(_extension(_PREFERRED, _seq(_seq(_RSA_SHA256, _RSA_SHA256, _NULL)))),
        MalformedRequest,
    ),
    "D73.1 service locator": (
        _request(
            _ask(
                None,
                _extension(
                    _SERVICE_LOCATOR,
                    _seq(_NAME, _seq(_seq(_oid("2b06010505073001"), _tlv(0x86, b"http://169.254.169.254/")))),
                ),
            )
        ),
        _KNOWN,
    ),
    "D73.2 service locator, critical": (
        _request(_ask(None, _extension(_SERVICE_LOCATOR, _seq(_NAME), _TRUE))),
        _KNOWN,
    ),
    "D74.1 extensions before the list": (
        _seq(_seq(_tlv(0xA2, _seq(_nonce(16))), _seq(_ask()))),
        MalformedRequest,
    ),
    "D74.2 requestor after the list": (_seq(_seq(_seq(_ask()), _REQUESTOR)), MalformedRequest),
    "D74.3 hashes before the algorithm": (
        _request(
            _ask(_seq(_tlv(0x04, _NAME_HASH), _tlv(0x04, _KEY_HASH), _seq(_SHA1, _NULL), b"\x02\x01\x05"))
        ),
        MalformedRequest,
    ),
    "D74.4 single extensions before the CertID": (
        _request(_seq(_tlv(0xA0, _seq(_nonce(16))), _cert_id())),
        MalformedRequest,
    ),
    "D75 a response": (_RESPONSE_TRY_LATER, MalformedRequest),
    "D76 a certificate": (_CERTIFICATE, MalformedRequest),
    "D77 PEM": (_AUTHORITY.public_bytes(serialization.Encoding.PEM), MalformedRequest),
    "D78 base64": (base64.b64encode(_PLAIN), MalformedRequest),
    "D79 JSON": (json.dumps({"serial": "05"}).encode(), MalformedRequest),
    "D80 random": (random.Random(80).randbytes(512), MalformedRequest),
    "D81 zeros": (bytes(512), MalformedRequest),
}


def test_table_has_every_row() -> None:
    """No row between D01 and D81 is missing."""
    rows = {int(name[1:3]) for name in _CASES}
    assert rows == set(range(1, 82))


@pytest.mark.parametrize("name", _CASES)
def test_input_has_its_one_outcome(name: str) -> None:
    """Each input is read as exactly this request, or refused with exactly this answer."""
    request_der, outcome = _CASES[name]
    if isinstance(outcome, OCSPRequest):
        assert parse_request(request_der, _CERTIFICATES_MAX) == outcome
    else:
        with pytest.raises(outcome) as refused:
            parse_request(request_der, _CERTIFICATES_MAX)
        assert refused.value.ocsp_status == outcome.ocsp_status
        # A subclass of the expected error must not stand for another answer.
        assert isinstance(refused.value, MalformedRequest) == (outcome is MalformedRequest)


@pytest.mark.parametrize("name", [name for name, case in _CASES.items() if isinstance(case[1], OCSPRequest)])
def test_truncated_or_prolonged_request_is_malformed(name: str) -> None:
    """Every beginning of a good request, and every prolongation of it, is malformed."""
    request_der, _ = _CASES[name]
    for cut in range(len(request_der)):
        with pytest.raises(MalformedRequest):
            parse_request(request_der[:cut], _CERTIFICATES_MAX)
    for octet in range(256):
        with pytest.raises(MalformedRequest):
            parse_request(request_der + bytes((octet,)), _CERTIFICATES_MAX)


def test_only_shareable_requests_are_cacheable() -> None:
    """A nonce or a signature makes an answer unfit for others; anything else does not."""
    for name, (request_der, outcome) in _CASES.items():
        if isinstance(outcome, OCSPRequest):
            asks = parse_request(request_der, _CERTIFICATES_MAX)
            assert asks.cacheable == (asks.nonce is None and not asks.signed), name
    assert parse_request(_PLAIN, 1).cacheable
    assert not parse_request(_with(_nonce(16)), 1).cacheable
    assert not parse_request(_signed(), 1).cacheable


def test_too_many_certificates_are_unauthorized_at_little_cost() -> None:
    """The limit is the caller's, and nothing behind it is read."""
    assert TooManyCertificates.ocsp_status == UNAUTHORIZED
    two = _request(_ask(), b"\x30\x00")
    with pytest.raises(TooManyCertificates):
        parse_request(two, 1)
    with pytest.raises(MalformedRequest):
        parse_request(two, 2)


def test_request_of_openssl_is_read(tmp_path: Path) -> None:
    """`openssl ocsp` asks about two certificates with a nonce and its own hash function."""
    pem = tmp_path / "ca.pem"
    pem.write_bytes(_AUTHORITY.public_bytes(serialization.Encoding.PEM))
    out = tmp_path / "request.der"
    command: list[str | Path] = [
        "openssl",
        "ocsp",
        "-issuer",
        pem,
        "-serial",
        "5",
        "-sha256",
        "-serial",
        "0x0102",
        "-reqout",
        out,
    ]
    subprocess.run(command, check=True, capture_output=True)
    asks = parse_request(out.read_bytes(), 2)
    assert [(cert_id.hash_alg, cert_id.serial) for cert_id in asks.cert_ids] == [
        (1, b"\x05"),
        (2, b"\x01\x02"),
    ]
    assert asks.nonce is not None
    assert len(asks.nonce) == 16


def test_signed_request_of_openssl_is_read(tmp_path: Path) -> None:
    """`openssl ocsp -signer` sends requestor name, signature and certificates; all are passed over."""
    pem, key, out = tmp_path / "ca.pem", tmp_path / "key.pem", tmp_path / "request.der"
    pem.write_bytes(_AUTHORITY.public_bytes(serialization.Encoding.PEM))
    key.write_bytes(
        _KEY.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    command: list[str | Path] = [
        "openssl",
        "ocsp",
        "-issuer",
        pem,
        "-serial",
        "5",
        "-no_nonce",
        "-signer",
        pem,
        "-signkey",
        key,
    ]
    subprocess.run([*command, "-reqout", out], check=True, capture_output=True)
    asks = parse_request(out.read_bytes(), 1)
    assert asks.signed
    assert asks.nonce is None
    assert asks.cert_ids[0].serial == b"\x05"


# Agreement with `cryptography` ---------------------------------------------------------------------------

# What `cryptography` takes and we refuse, each on purpose, by the message of the refusal.
_STRICTER = {
    "nonce out of bounds (RFC 9654 §2)": r"^nonce: 1\.\.128 octets",
    "unknown critical extension (RFC 6960 §4.1.2)": r"critical and not known$",
    "a client that takes no basic response": r"^acceptable responses: basic is not among them$",
    "serial number beyond any bound": r"^serial number: \d+ octets, at most 64$",
    "single extension twice (never read there)": r"^extension [0-9.]+: present twice$",
}


def _cryptography_takes(request_der: bytes) -> ocsp.OCSPRequest | bool | None:
    """Its value, False if it refuses, None where it cannot say (0 or several Requests)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            request = ocsp.load_der_ocsp_request(request_der)
            _ = request.serial_number, list(request.extensions)
        except NotImplementedError:
            return None
        except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
            return False
    return request


def _we_take(request_der: bytes) -> OCSPRequest | str:
    """The value, or the message of our refusal."""
    try:
        return parse_request(request_der, _CERTIFICATES_MAX)
    except RequestError as refused:
        return str(refused)


def _compare(request_der: bytes) -> None:
    """Hold both readers' verdicts, and all fields both can show, against each other."""
    theirs = _cryptography_takes(request_der)
    ours = _we_take(request_der)
    if isinstance(theirs, ocsp.OCSPRequest):
        nonce = _foreign_nonce(theirs)
        if isinstance(ours, str):
            named = any(re.search(pattern, ours) for pattern in _STRICTER.values())
            # `cryptography` hands out a nonce as it stands when it is not wrapped properly.
            unwrapped = nonce is not None and _tlv(0x04, _tlv(0x04, nonce)) not in request_der
            # It does not read the value of this extension.
            unread = _PREFERRED in request_der
            assert named or unwrapped or unread, (request_der.hex(), ours)
            return
        (cert_id,) = ours.cert_ids
        assert int.from_bytes(cert_id.serial, "big", signed=True) == theirs.serial_number
        assert cert_id.issuer_name_hash == theirs.issuer_name_hash
        assert cert_id.issuer_key_hash == theirs.issuer_key_hash
        assert ours.nonce == nonce
        try:
            octets = theirs.hash_algorithm.digest_size
        except UnsupportedAlgorithm:
            octets = -1
        if cert_id.hash_alg != UNKNOWN_HASH:
            assert len(cert_id.issuer_key_hash) == octets
    elif theirs is False and isinstance(ours, OCSPRequest):
        # It reads the parameters of algorithms that are no hash functions at all, where we only
        # see that the hash is unknown.
        assert ours.cert_ids[0].hash_alg == UNKNOWN_HASH, request_der.hex()


def _foreign_nonce(request: ocsp.OCSPRequest) -> bytes | None:
    for extension in request.extensions:
        if isinstance(extension.value, x509.OCSPNonce):
            return extension.value.nonce
    return None


# All of these are read to the last octet by both.
_COMPARED = ["D01", "D03", "D31", "D57.16", "D62.1", "D65.1", "D65.2", "D69.1"]
# In these `cryptography` does not read a signature, a name of another kind, a parameter of any type.
_READ_ONLY_HERE = ["D36", "D50.1", "D50.6", "D52.2", "D72.2", "D73.1"]


def _case(row: str) -> bytes:
    return next(case[0] for name, case in _CASES.items() if name.split()[0] == row)


def _mutations(request_der: bytes) -> Iterator[bytes]:
    for position, octet in enumerate(request_der):
        for other in range(256):
            if other != octet:
                yield request_der[:position] + bytes((other,)) + request_der[position + 1 :]


@pytest.mark.parametrize("row", _COMPARED)
def test_every_single_octet_mutation_is_read_as_cryptography_does(row: str) -> None:
    """Change any one octet to any other: both read the same, or both refuse, but for named exceptions."""
    for mutation in _mutations(_case(row)):
        _compare(mutation)


@pytest.mark.parametrize("row", _READ_ONLY_HERE)
def test_nothing_is_read_that_cryptography_refuses(row: str) -> None:
    """Where we look deeper, we still read nothing that `cryptography` refuses."""
    for mutation in _mutations(_case(row)):
        if isinstance(_we_take(mutation), OCSPRequest):
            theirs = _cryptography_takes(mutation)
            # A UniversalString or BMPString of broken characters, in a name that nobody looks at.
            assert (
                theirs is not False
                or b"\x06\x03\x55\x04\x03\x1c" in mutation
                or b"\x55\x04\x03\x1e" in mutation
            )


_ALGORITHMS = st.sampled_from(
    [
        _seq(_SHA1, _NULL),
        _seq(_SHA1),
        _seq(_SHA256, _NULL),
        _seq(_SHA512),
        _seq(_SHA1, b"\x02\x01\x05"),
        _seq(_SHA1, b"\x05\x81\x00"),
    ]
)
_SERIALS = st.one_of(
    st.integers(-(1 << 170), 1 << 170).map(
        lambda value: value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)
    ),
    st.binary(max_size=70),
)
_OIDS = st.sampled_from(
    [_NONCE, _RESPONSE, _PREFERRED, _UNKNOWN, _SERVICE_LOCATOR, _oid("2a8001"), _tlv(0x06)]
)
_VALUES = st.one_of(
    st.integers(0, 130).map(lambda octets: _tlv(0x04, bytes(octets))),
    st.just(_seq(_BASIC)),
    st.just(_seq(_seq(_ECDSA_SHA256))),
    st.binary(max_size=12),
)
_CRITICALS = st.sampled_from([b"", b"", b"", _TRUE, b"\x01\x01\x00", b"\x01\x01\x01"])
_EXTENSIONS = st.lists(st.builds(_extension, _OIDS, _VALUES, _CRITICALS), max_size=3)
_ASKS = st.builds(
    lambda cert_id, extensions, wrapped: _seq(cert_id, _tlv(0xA0, _seq(*extensions)) if wrapped else b""),
    st.builds(_cert_id, _ALGORITHMS, st.binary(max_size=40), st.binary(max_size=40), _SERIALS),
    _EXTENSIONS,
    st.booleans(),
)
_REQUESTS = st.builds(
    lambda asks, before, extensions, wrapped: _seq(
        _seq(before, _seq(*asks), _tlv(0xA2, _seq(*extensions)) if wrapped else b"")
    ),
    st.lists(_ASKS, min_size=1, max_size=2),
    st.sampled_from([b"", b"", _REQUESTOR, _tlv(0xA0, b"\x02\x01\x00")]),
    _EXTENSIONS,
    st.booleans(),
)


@given(_REQUESTS)
def test_requests_are_read_as_cryptography_reads_them(request_der: bytes) -> None:
    """Requests with any mixture of usual and unusual parts have the same verdict and the same fields."""
    _compare(request_der)


@given(_REQUESTS, st.data())
def test_mutated_requests_raise_only_request_errors(request_der: bytes, data: st.DataObject) -> None:
    """Whatever is done to a request, the outcome is a value or an error that carries its answer."""
    octets = bytearray(request_der)
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(octets) - 1))
        if data.draw(st.booleans()):
            octets[position] = data.draw(st.integers(0, 255))
        else:
            octets[position : position + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
            if not octets:
                return
    _we_take(bytes(octets))


@given(st.binary(max_size=200))
def test_any_octets_raise_only_request_errors(octets: bytes) -> None:
    """Any octets at all give a value or an error that carries its answer."""
    for candidate in (
        octets,
        _seq(octets),
        _seq(_seq(octets)),
        _seq(_seq(_seq(octets))),
        _seq(_tbs(), octets),
    ):
        _we_take(candidate)


@given(
    st.lists(
        st.sampled_from([1, 2, 3, 4]).flatmap(
            lambda alg: st.builds(
                CertID,
                st.just(alg),
                *[st.binary(min_size=(0, 20, 32, 48, 64)[alg], max_size=(0, 20, 32, 48, 64)[alg])] * 2,
                st.integers(1, 1 << 150).map(integer_content),
            )
        ),
        min_size=1,
        max_size=4,
    )
)
def test_what_is_written_is_read_back(cert_ids: list[CertID]) -> None:
    """A request we write asks for the certificates it was made of, and nothing else."""
    assert parse_request(encode_request(cert_ids), 4) == OCSPRequest(tuple(cert_ids))


def _usual(serial: bytes, nonce: bytes) -> bytes:
    cert_id = encode_cert_id(SHA1, b"n" * 20, b"k" * 20, serial)
    extension = sequence(encode_oid(OCSP_NONCE), octet_string(octet_string(nonce)))
    return sequence(sequence(sequence(sequence(cert_id)), explicit(2, sequence(extension)) if nonce else b""))


@pytest.mark.parametrize("nonce_octets", [0, 8, 16, 20, 32, 64])
@pytest.mark.parametrize("serial_octets", range(1, 21))
def test_the_usual_request_is_read_the_short_way(serial_octets: int, nonce_octets: int) -> None:
    """What nearly every client sends is recognised by its shape, and means what the reader says."""
    der = _usual(b"\x5a" * serial_octets, b"\xa5" * nonce_octets)
    found = read_usual_request(der)
    assert found is not None
    assert found == _read_in_full(der)
    assert (encode_request(found.cert_ids) == der) is (nonce_octets == 0)


@given(
    st.integers(1, 21),
    st.sampled_from([0, 1, 8, 15, 16, 20, 32, 33, 64]),
    st.sampled_from([0x00, 0x01, 0x7F, 0x80, 0xFF]),
    st.lists(st.tuples(st.integers(0, 220), st.integers(0, 255)), max_size=2),
    st.binary(max_size=2),
)
def test_the_short_way_never_says_anything_else(
    serial_octets: int, nonce_octets: int, first: int, changes: list[tuple[int, int]], after: bytes
) -> None:
    """Any octet of a usual request changed, or more behind it: the same as the reader, or left to it."""
    der = bytearray(_usual(bytes([first]) + b"\x5a" * (serial_octets - 1), b"\xa5" * nonce_octets) + after)
    for at, octet in changes:
        der[at % len(der)] = octet
    found = read_usual_request(bytes(der))
    if found is not None:
        assert found == _read_in_full(bytes(der))


def _read_in_full(der: bytes) -> OCSPRequest:
    """What the short way has to say, which reads off the CertID as well."""
    request = parse_request(der, 1)
    return request._replace(cert_id_der=encode_cert_id(*request.cert_ids[0]))
