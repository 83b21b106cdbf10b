"""The request reader beside the one of `cryptography`.

Oracles: nothing but RequestError and its children is raised; what we take, `cryptography` takes and
reads the same fields; what it takes and we refuse, we refuse for a reason of the list below.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.x509 import ocsp

from certstatus import oid
from certstatus.cert_id import SHA1, SHA256, SHA384, SHA512, UNKNOWN_HASH, encode_cert_id
from certstatus.der import bit_string, explicit, integer, octet_string, sequence, tlv
from certstatus.der import oid as encode_oid
from certstatus.errors import RequestError
from certstatus.extension import encode_extension
from certstatus.ocsp_request import OCSPRequest, parse_request

_CERTIFICATES_MAX = 20
_PREFERRED = encode_oid(oid.OCSP_PREF_SIG_ALGS)
_NONCE = encode_oid(oid.OCSP_NONCE)

# Why we refuse what `cryptography` takes.
_STRICTER = re.compile(
    r"^nonce: 1\.\.128 octets"
    r"|critical and not known$"
    r"|^acceptable responses: basic is not among them$"
    r"|^serial number: \d+ octets, at most 64$"
    # Single extensions are not looked at by `cryptography` unless asked for.
    r"|^extension [0-9.]+: present twice$"
)

WORDS = (
    _NONCE,
    _PREFERRED,
    encode_oid(oid.OCSP_RESPONSE),
    encode_oid(oid.OCSP_BASIC),
    encode_oid(oid.OCSP_SERVICE_LOCATOR),
    encode_oid(oid.SHA1),
    encode_oid(oid.SHA256),
    b"\x01\x01\xff",
    b"\xa0\x00",
    b"\xa1\x00",
    b"\xa2\x00",
)


def seeds() -> Iterator[tuple[str, bytes]]:
    """Requests of every form that is read."""
    sizes = {SHA1: 20, SHA256: 32, SHA384: 48, SHA512: 64}
    ids = [encode_cert_id(alg, b"n" * size, b"k" * size, b"\x01\x02") for alg, size in sizes.items()]
    asks = [sequence(cert_id) for cert_id in ids]
    one = sequence(asks[0])

    def request(*parts: bytes, after: bytes = b"") -> bytes:
        return sequence(sequence(*parts), after)

    def extensions(*parts: bytes) -> bytes:
        return explicit(2, sequence(*parts))

    nonce = encode_extension(oid.OCSP_NONCE, octet_string(b"0123456789abcdef"))
    basic = encode_extension(oid.OCSP_RESPONSE, sequence(encode_oid(oid.OCSP_BASIC)))
    algorithm = sequence(encode_oid("1.2.840.10045.4.3.2"))
    preferred = encode_extension(oid.OCSP_PREF_SIG_ALGS, sequence(sequence(algorithm)))
    signature = explicit(0, sequence(algorithm, bit_string(b"signature"), explicit(0, sequence(algorithm))))
    name = sequence(tlv(0x31, sequence(encode_oid("2.5.4.3"), tlv(0x0C, b"client"))))
    locator = encode_extension(oid.OCSP_SERVICE_LOCATOR, sequence(name))
    yield from ((f"hash-{alg}", request(sequence(ask))) for alg, ask in zip(sizes, asks, strict=True))
    yield "many", request(sequence(*asks))
    yield "too-many", request(sequence(*asks * 6))
    yield "nonce", request(one, extensions(nonce))
    yield "extensions", request(one, extensions(nonce, basic, preferred))
    yield "no-extensions", request(one, extensions())
    yield "critical", request(one, extensions(encode_extension("1.2.3", b"", critical=True)))
    yield "signed", request(explicit(1, tlv(0xA4, name)), one, extensions(nonce), after=signature)
    yield "requestor-dns", request(explicit(1, tlv(0x82, b"example")), one)
    yield "single", request(sequence(sequence(ids[0], explicit(0, sequence(locator)))))
    yield "version", request(explicit(0, integer(0)), one)
    yield "negative", request(sequence(sequence(encode_cert_id(SHA1, b"n" * 20, b"k" * 20, b"\xff"))))
    yield "empty", request(sequence())


def one_input(data: bytes) -> None:
    """Read *data* with both."""
    try:
        ours: OCSPRequest | str = parse_request(data, _CERTIFICATES_MAX)
    except RequestError as refused:
        ours = str(refused)
    theirs = _cryptography_takes(data)
    if isinstance(theirs, ocsp.OCSPRequest):
        _compare(data, ours, theirs)
    elif theirs is not None and isinstance(ours, OCSPRequest):
        _excused(data, ours, theirs)
    if isinstance(ours, OCSPRequest):
        assert 1 <= len(ours.cert_ids) <= _CERTIFICATES_MAX
        assert ours.nonce is None or 1 <= len(ours.nonce) <= 128
        for cert_id in ours.cert_ids:
            if cert_id.hash_alg != UNKNOWN_HASH:
                # The certificate that is asked about stands in the request as we would write it.
                assert sequence_content(encode_cert_id(*cert_id)) in data


def sequence_content(cert_id_der: bytes) -> bytes:
    """Return what follows the AlgorithmIdentifier, whose parameters may be written in two ways."""
    hash_der_end = 2 + 2 + cert_id_der[3]
    return cert_id_der[hash_der_end:] if cert_id_der[1] < 0x80 else cert_id_der[hash_der_end + 1 :]


def _cryptography_takes(data: bytes) -> ocsp.OCSPRequest | Exception | None:
    """Its value, its refusal, or None where it cannot say (several Requests, or none)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            request = ocsp.load_der_ocsp_request(data)
            _ = request.serial_number, list(request.extensions)
        except NotImplementedError:
            return None
        except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as refused:
            return refused
    return request


def _compare(data: bytes, ours: OCSPRequest | str, theirs: ocsp.OCSPRequest) -> None:
    values = [extension.value for extension in theirs.extensions]
    nonce = next((value.nonce for value in values if isinstance(value, x509.OCSPNonce)), None)
    if isinstance(ours, str):
        # `cryptography` does not look into some values: it hands out a nonce that is not wrapped
        # as it stands, and reads neither a signature, nor the algorithms a client prefers, nor the
        # parameters of one that it does not know.
        unwrapped = nonce is not None and octet_string(octet_string(nonce)) not in data
        looked_into = unwrapped or _PREFERRED in data or _has_more(data) or _hash_octets(theirs) < 0
        assert _STRICTER.search(ours) or looked_into, ours
        return
    (cert_id,) = ours.cert_ids
    assert int.from_bytes(cert_id.serial, "big", signed=True) == theirs.serial_number
    assert cert_id.issuer_name_hash == theirs.issuer_name_hash
    assert cert_id.issuer_key_hash == theirs.issuer_key_hash
    assert ours.nonce == nonce
    if cert_id.hash_alg != UNKNOWN_HASH:
        assert len(cert_id.issuer_key_hash) == _hash_octets(theirs)


def _hash_octets(theirs: ocsp.OCSPRequest) -> int:
    try:
        return theirs.hash_algorithm.digest_size
    except UnsupportedAlgorithm:
        return -1


def _has_more(data: bytes) -> bool:
    """Say whether there may be a signature, requestor or single extensions, looked into here only."""
    return any(octet in data for octet in (b"\xa0", b"\xa1", b"\xa4"))


def _excused(data: bytes, ours: OCSPRequest, theirs: Exception) -> None:
    """Check that what `cryptography` refuses and we take is something it reads and we need not."""
    # It reads the parameters of algorithms that are no hash functions, and the strings in a name.
    unknown = any(cert_id.hash_alg == UNKNOWN_HASH for cert_id in ours.cert_ids)
    assert unknown or _has_more(data) or ours.signed, theirs
