"""The DER reader against a second reading of X.690, written from the other end: slices and recursion.

Oracles: both take the same octets as one element and end it at the same place; what a typed reader
makes of an element, its encoder turns back into the same octets; the only error is DERError.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from asn1crypto import parser

from certstatus import der
from certstatus.errors import DERError

WORDS = (b"\x30\x80", b"\x30\x81\x80", b"\x02\x01", b"\x06\x03", b"\x03\x02\x00", b"\x18\x0f", b"\x17\x0d")

_CONSTRUCTED = {0x30, 0x31, 0x28, 0x2B, 0x3D}
_NOT_PRIMITIVE = {0x00, 0x08, 0x0B, 0x0F, 0x10, 0x11, 0x1D}


class _NotDER(Exception):
    """The second reading refuses."""


def seeds() -> Iterator[tuple[str, bytes]]:
    """Elements of every type that is read, alone and nested."""
    algorithm = der.sequence(der.oid("1.2.840.113549.1.1.11"), der.NULL_DER)
    single = {
        "integer": der.integer(128),
        "integer-negative": der.integer(-129),
        "integer-long": der.integer(1 << 159),
        "enumerated": der.enumerated(10),
        "true": der.boolean(True),
        "null": der.NULL_DER,
        "oid": der.oid("2.999.3"),
        "octets": der.octet_string(bytes(200)),
        "bits": der.bit_string(b"\x01\x02"),
        "bits-unused": bytes.fromhex("03020780"),
        "utc": der.utc_or_generalized_time(1_900_000_000),
        "generalized": der.generalized_time(2_600_000_000),
        "generalized-leap": b"\x18\x0f20240229235959Z",
        "algorithm": algorithm,
        "set": der.set_of(der.integer(1), der.integer(2)),
        "context": der.explicit(3, der.octet_string(b"x")),
        "utf8": b"\x0c\x03abc",
        "long": der.octet_string(bytes(300)),
    }
    yield from single.items()
    yield "all", der.sequence(*single.values())
    nested = b"\x05\x00"
    for depth in range(1, 36):
        nested = der.sequence(nested)
        if depth in (31, 32, 33, 34):
            yield f"nested-{depth}", nested


def one_input(data: bytes) -> None:
    """Read *data* as one element with whatever may follow it."""
    end = len(data)
    try:
        stop: int | None = der.check_element(data, 0, end)
    except DERError:
        stop = None
    try:
        expected: int | None = _second_reading(data, 0)
    except _NotDER:
        expected = None
    assert stop == expected, (stop, expected)
    if stop is not None and data[0] & 0x1F != 0x1F:
        assert parser.peek(data) == stop
    _typed(data, end)


def _second_reading(data: bytes, depth: int) -> int:
    """Return the octets of the element that *data* begins with."""
    if len(data) < 2:
        raise _NotDER
    tag, length, at = data[0], data[1], 2
    if length & 0x80:
        more = length & 0x7F
        octets = data[2 : 2 + more]
        if not 1 <= more <= 4 or len(octets) < more or octets[0] == 0:
            raise _NotDER
        length = int(octets.hex(), 16)
        at += more
        if length < 128:
            raise _NotDER
    content = data[at : at + length]
    if len(content) < length or tag & 0x1F == 0x1F:
        raise _NotDER
    if tag & 0x20:
        if tag < 0x40 and tag not in _CONSTRUCTED:
            raise _NotDER
        if content and depth == der.DEPTH_MAX:
            raise _NotDER
        inside = 0
        while inside < len(content):
            inside += _second_reading(content[inside:], depth + 1)
    elif tag < 0x40 and not _is_primitive_right(tag, content):
        raise _NotDER
    return at + length


def _is_primitive_right(tag: int, content: bytes) -> bool:
    if tag in (0x02, 0x0A):
        value = int.from_bytes(content, "big", signed=True)
        return content != b"" and value.to_bytes(len(content), "big", signed=True) == content == _least(value)
    if tag == 0x06:
        arcs = b"\x00" + content
        begins_with_zeros = any(octet == 0x80 and before < 0x80 for before, octet in pairwise(arcs))
        return 0 < len(content) <= der.OID_OCTETS_MAX and content[-1] < 0x80 and not begins_with_zeros
    if tag == 0x01:
        return content in (b"\x00", b"\xff")
    if tag == 0x03:
        if not content or content[0] > 7:
            return False
        return not content[0] or (len(content) > 1 and content[-1] % (1 << content[0]) == 0)
    if tag == 0x05:
        return content == b""
    return tag not in _NOT_PRIMITIVE


def _least(value: int) -> bytes:
    octets = 1
    while not -(1 << 8 * octets - 1) <= value < 1 << 8 * octets - 1:
        octets += 1
    return value.to_bytes(octets, "big", signed=True)


def _typed(data: bytes, end: int) -> None:
    """Read *data* with the reader of its type; what is read is written again."""
    tag = data[0] if data else -1
    try:
        if tag in (der.INTEGER, der.ENUMERATED):
            value, stop = der.read_integer(data, 0, end, tag)
            assert der.tlv(tag, der.integer_content(value)) == data[:stop]
        elif tag == der.OBJECT_IDENTIFIER:
            name, stop = der.read_oid(data, 0, end)
            assert der.oid(name) == data[:stop]
        elif tag == der.BIT_STRING:
            unused, start, stop = der.read_bit_string(data, 0, end)
            assert der.tlv(tag, bytes((unused,)) + data[start:stop]) == data[:stop]
        elif tag == der.SEQUENCE:
            _, stop = der.read_algorithm(data, 0, end)
            assert der.check_element(data, 0, end) == stop
        elif tag in (der.GENERALIZED_TIME, der.UTC_TIME):
            _time(data, end)
        else:
            tag, start, stop = der.read_tlv(data, 0, end)
            assert der.tlv(tag, data[start:stop]) == data[:stop]
    except DERError:
        return


def _time(data: bytes, end: int) -> None:
    if data[0] == der.GENERALIZED_TIME:
        posix_s, stop = der.read_generalized_time(data, 0, end)
        if data[2:6] >= b"1950":
            assert der.generalized_time(posix_s) == data[:stop]
    posix_s, stop = der.read_time(data, 0, end)
    if data[0] == der.UTC_TIME or data[2:6] >= b"1950":
        assert der.utc_or_generalized_time(posix_s) == data[:stop]
