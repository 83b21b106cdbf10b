"""Distinguished Encoding Rules: a strict reader over offsets, and encoders.

Knows: single-octet tags, definite minimal lengths, and the primitive types that OCSP
and CRLs use.  A reader takes ``(buf, pos, end)``, looks only at ``buf[pos:end]`` and
returns offsets; nothing is copied, nothing recurses with the depth of the input, and
the work is bounded by the number of octets present, never by a length they claim.
``end`` must not exceed ``len(buf)``.  The only error is ``DERError``.
Does not know: any structure of RFC 5280 or RFC 6960; tags above 30; BER.
Source: X.690 §8, §10 and §11; RFC 5280 §4.1.2.5 for times.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache

from certstatus import clock
from certstatus.errors import DERError

BOOLEAN = 0x01
INTEGER = 0x02
BIT_STRING = 0x03
OCTET_STRING = 0x04
NULL = 0x05
OBJECT_IDENTIFIER = 0x06
ENUMERATED = 0x0A
UTC_TIME = 0x17
GENERALIZED_TIME = 0x18
SEQUENCE = 0x30
SET = 0x31
CONTEXT = 0x80
CONSTRUCTED = 0x20
CONTEXT_CONSTRUCTED = CONTEXT | CONSTRUCTED

NULL_DER = b"\x05\x00"

# Real certificates nest to about 12; what nests deeper than this is an attack.
DEPTH_MAX = 32
# Enough for any identifier in use, and the same as in `cryptography`; keeps the caches below small.
OID_OCTETS_MAX = 63
# Four length octets reach 4 GiB, far above any request or CRL that is read into memory.
LENGTH_OCTETS_MAX = 4

_HIGH_TAG = 0x1F
# The universal types that are constructed in DER; every string type is primitive (X.690 §10.2).
_CONSTRUCTED_UNIVERSAL = frozenset({SEQUENCE, SET, 0x28, 0x2B, 0x3D})
_NEVER_PRIMITIVE = frozenset({0x00, 0x08, 0x0B, 0x0F, 0x10, 0x11, 0x1D})
_YEAR_1950_S = -631_152_000
_YEAR_2050_S = 2_524_608_000
_YEAR_10000_S = 253_402_300_800
_DAY_S = clock.DAY_S


# Reading ---------------------------------------------------------------------------------------


def read_tlv(buf: bytes, pos: int, end: int) -> tuple[int, int, int]:
    """Return (tag, content_start, content_end) of the element at *pos*, whatever its type.

    Raises:  DERError — truncated, tag of more than one octet, length indefinite or not minimal.
    Source:  X.690 §8.1, §10.1.
    """
    start = pos + 2
    if start > end:
        raise DERError(f"element at {pos}: header cut off at {end}")
    tag = buf[pos]
    length = buf[pos + 1]
    if length >= 0x80:
        start, length = _long_length(buf, start, end)
    stop = start + length
    if stop > end:
        raise DERError(f"element at {pos}: {length} octets announced, {end - start} present")
    if tag & _HIGH_TAG == _HIGH_TAG:
        raise DERError(f"element at {pos}: tag of more than one octet")
    return tag, start, stop


def expect(buf: bytes, pos: int, end: int, tag: int) -> tuple[int, int]:
    """Return (content_start, content_end) of the element at *pos*, whose tag must be *tag*.

    Raises:  DERError — another tag, or as ``read_tlv``.
    Cost:    about 0.15 µs; the workhorse of the hot path, so the header code is repeated here.
    """
    start = pos + 2
    if start > end or buf[pos] != tag:
        raise _unexpected(buf, pos, end, tag)
    length = buf[pos + 1]
    if length >= 0x80:
        start, length = _long_length(buf, start, end)
    stop = start + length
    if stop > end:
        raise DERError(f"element at {pos}: {length} octets announced, {end - start} present")
    return start, stop


def expect_last(buf: bytes, pos: int, end: int, tag: int) -> tuple[int, int]:
    """Like ``expect``, and the element must fill *pos*..*end* to the last octet."""
    start, stop = expect(buf, pos, end, tag)
    if stop != end:
        raise DERError(f"element at {pos}: {end - stop} octets follow it")
    return start, stop


def _long_length(buf: bytes, start: int, end: int) -> tuple[int, int]:
    """Return (content_start, length) for a length in the long form whose first octet is before *start*."""
    octets = buf[start - 1] & 0x7F
    if octets == 0:
        raise DERError(f"length at {start - 1}: indefinite")
    if octets > LENGTH_OCTETS_MAX:
        raise DERError(f"length at {start - 1}: {octets} octets, at most {LENGTH_OCTETS_MAX}")
    stop = start + octets
    if stop > end:
        raise DERError(f"length at {start - 1}: cut off at {end}")
    length = int.from_bytes(buf[start:stop], "big")
    if length < 0x80 or buf[start] == 0:
        raise DERError(f"length at {start - 1}: not minimal")
    return stop, length


def _unexpected(buf: bytes, pos: int, end: int, tag: int) -> DERError:
    if pos + 2 > end:
        return DERError(f"element at {pos}: tag 0x{tag:02X} expected, data end at {end}")
    return DERError(f"element at {pos}: tag 0x{tag:02X} expected, 0x{buf[pos]:02X} found")


def expect_integer(buf: bytes, pos: int, end: int, tag: int = INTEGER) -> tuple[int, int]:
    """Return (content_start, content_end) of the INTEGER at *pos*: at least one octet, minimal.

    Source:  X.690 §8.3.2: the first nine bits are neither all 0 nor all 1.
    """
    start, stop = expect(buf, pos, end, tag)
    _check_integer(buf, start, stop)
    return start, stop


def _check_integer(buf: bytes, start: int, stop: int) -> None:
    if stop - start < 2:
        if stop == start:
            raise DERError(f"integer at {start}: no octets")
        return
    first = buf[start]
    if (first == 0x00 and buf[start + 1] < 0x80) or (first == 0xFF and buf[start + 1] >= 0x80):
        raise DERError(f"integer at {start}: not minimal")


def read_integer(buf: bytes, pos: int, end: int, tag: int = INTEGER) -> tuple[int, int]:
    """Return (value, element_end) of the INTEGER (or ENUMERATED, by *tag*) at *pos*."""
    start, stop = expect_integer(buf, pos, end, tag)
    return int.from_bytes(buf[start:stop], "big", signed=True), stop


def read_boolean(buf: bytes, start: int, stop: int) -> bool:
    """Return the BOOLEAN whose content is *start*..*stop*: 0x00 or 0xFF, nothing else (X.690 §11.1)."""
    if stop - start != 1 or buf[start] not in (0x00, 0xFF):
        raise DERError(f"boolean at {start}: neither 00 nor FF")
    return buf[start] == 0xFF


def read_bit_string(buf: bytes, pos: int, end: int, tag: int = BIT_STRING) -> tuple[int, int, int]:
    """Return (unused_bits, first_octet, element_end) of the BIT STRING at *pos*.

    Raises:  DERError — no initial octet, more than 7 unused bits, unused bits not zero.
    Source:  X.690 §8.6, §11.2.1.
    """
    start, stop = expect(buf, pos, end, tag)
    _check_bit_string(buf, start, stop)
    return buf[start], start + 1, stop


def _check_bit_string(buf: bytes, start: int, stop: int) -> None:
    if start == stop:
        raise DERError(f"bit string at {start}: no octets")
    unused = buf[start]
    if unused > 7 or (unused and (stop - start == 1 or buf[stop - 1] & ((1 << unused) - 1))):
        raise DERError(f"bit string at {start}: unused bits {unused}")


def read_signature_bits(buf: bytes, pos: int, end: int) -> tuple[int, int]:
    """Return (first_octet, element_end) of a BIT STRING that holds whole octets (keys, signatures)."""
    unused, start, stop = read_bit_string(buf, pos, end)
    if unused:
        raise DERError(f"bit string at {pos}: {unused} unused bits, whole octets expected")
    return start, stop


def read_oid(buf: bytes, pos: int, end: int) -> tuple[str, int]:
    """Return (dotted, element_end) of the OBJECT IDENTIFIER at *pos*."""
    start, stop = expect(buf, pos, end, OBJECT_IDENTIFIER)
    return dotted(buf[start:stop]), stop


@lru_cache(maxsize=512)
def dotted(content: bytes) -> str:
    """Return the dotted form of an OBJECT IDENTIFIER's content octets.

    Raises:  DERError — no octets or too many, an arc with leading zeros, or cut off inside an arc.
    Source:  X.690 §8.19.
    """
    _check_oid(content, 0, len(content))
    arcs: list[int] = []
    arc = 0
    for octet in content:
        arc = arc << 7 | octet & 0x7F
        if octet < 0x80:
            if not arcs:
                arcs.append(min(arc // 40, 2))
                arc -= 40 * arcs[0]
            arcs.append(arc)
            arc = 0
    return ".".join(map(str, arcs))


def _check_oid(buf: bytes, start: int, stop: int) -> None:
    if start == stop or buf[stop - 1] >= 0x80:
        raise DERError(f"object identifier at {start}: empty or cut off")
    if stop - start > OID_OCTETS_MAX:
        raise DERError(f"object identifier at {start}: {stop - start} octets, at most {OID_OCTETS_MAX}")
    arc_begins = True
    for octet in buf[start:stop]:
        if arc_begins and octet == 0x80:
            raise DERError(f"object identifier at {start}: arc not minimal")
        arc_begins = octet < 0x80


def read_generalized_time(buf: bytes, pos: int, end: int) -> tuple[int, int]:
    """Return (POSIX seconds, element_end) of ``YYYYMMDDHHMMSSZ`` at *pos*; no fraction, no offset."""
    start, stop = expect(buf, pos, end, GENERALIZED_TIME)
    return _time_s(buf[start:stop]), stop


def read_time(buf: bytes, pos: int, end: int) -> tuple[int, int]:
    """Return (POSIX seconds, element_end) of the Time at *pos*.

    Raises:  DERError — neither UTCTime nor GeneralizedTime, or the wrong one of the two for its year.
    Source:  RFC 5280 §5.1.2.4: UTCTime through 2049, GeneralizedTime from 2050.
    """
    if pos < end and buf[pos] == UTC_TIME:
        start, stop = expect(buf, pos, end, UTC_TIME)
        digits = buf[start:stop]
        century = b"19" if digits[:1] >= b"5" else b"20"
        return _time_s(century + digits), stop
    posix_s, stop = read_generalized_time(buf, pos, end)
    if _YEAR_1950_S <= posix_s < _YEAR_2050_S:
        raise DERError(f"time at {pos}: GeneralizedTime for a year that UTCTime can say")
    return posix_s, stop


def _time_s(text: bytes) -> int:
    """Return POSIX seconds of ``YYYYMMDDHHMMSSZ``; a leap second (60) is no moment here."""
    if len(text) != 15 or text[14] != 0x5A or not text[:14].isdigit():
        raise DERError("time: not digits for year to second and Z")
    try:
        moment = datetime(
            int(text[:4]),
            int(text[4:6]),
            int(text[6:8]),
            int(text[8:10]),
            int(text[10:12]),
            int(text[12:14]),
            tzinfo=UTC,
        )
    except ValueError as error:
        raise DERError(f"time: no such moment: {error}") from error
    return int(moment.timestamp())


def check_element(buf: bytes, pos: int, end: int) -> int:
    """Return the end of the element at *pos* after checking all of it, for fields of any type.

    Every element inside must be DER as far as its universal tag tells: lengths, constructed
    or primitive, booleans, integers, bit strings, object identifiers.  Contents of octet
    strings and of primitive context tags are not looked at.
    Raises:  DERError — anything else, or elements nested deeper than ``DEPTH_MAX``.
    Cost:    one pass with an explicit stack.
    """
    ends: list[int] = []
    limit = end
    while True:
        tag, start, stop = read_tlv(buf, pos, limit)
        if tag & CONSTRUCTED:
            if tag < 0x40 and tag not in _CONSTRUCTED_UNIVERSAL:
                raise DERError(f"element at {pos}: tag 0x{tag:02X} is constructed")
            if start < stop:
                if len(ends) == DEPTH_MAX:
                    raise DERError(f"element at {pos}: nested deeper than {DEPTH_MAX}")
                ends.append(limit)
                pos, limit = start, stop
                continue
        elif tag < 0x40:
            _check_primitive(buf, tag, start, stop)
        pos = stop
        while ends and pos == limit:
            limit = ends.pop()
        if not ends:
            return pos


def _check_primitive(buf: bytes, tag: int, start: int, stop: int) -> None:
    if tag in (INTEGER, ENUMERATED):
        _check_integer(buf, start, stop)
    elif tag == OBJECT_IDENTIFIER:
        _check_oid(buf, start, stop)
    elif tag == BOOLEAN:
        read_boolean(buf, start, stop)
    elif tag == BIT_STRING:
        _check_bit_string(buf, start, stop)
    elif tag == NULL and start != stop:
        raise DERError(f"null at {start}: {stop - start} octets")
    elif tag in _NEVER_PRIMITIVE:
        raise DERError(f"element before {start}: tag 0x{tag:02X} is primitive or not in use")


def read_algorithm(buf: bytes, pos: int, end: int) -> tuple[str, int]:
    """Return (dotted, element_end) of the AlgorithmIdentifier at *pos*; parameters are only checked.

    Source:  RFC 5280 §4.1.1.2.
    """
    start, stop = expect(buf, pos, end, SEQUENCE)
    algorithm, after = read_oid(buf, start, stop)
    if after != stop and check_element(buf, after, stop) != stop:
        raise DERError(f"algorithm identifier at {pos}: octets after its parameters")
    return algorithm, stop


# Encoding --------------------------------------------------------------------------------------

_SHORT_LENGTHS = tuple(bytes((length,)) for length in range(0x80))
_TAGS = tuple(bytes((tag,)) for tag in range(0x100))
_ANSWER_OCTETS_MAX = 2000
_TWO_DIGITS = tuple(b"%02d" % number for number in range(100))


def header(tag: int, content_octets: int) -> bytes:
    """Return tag and length of an element whose content has *content_octets* octets."""
    if content_octets < 0x80:
        return _TAGS[tag] + _SHORT_LENGTHS[content_octets]
    if content_octets <= _ANSWER_OCTETS_MAX:
        return _answer_header(tag, content_octets)
    return _long_header(tag, content_octets)


def _long_header(tag: int, content_octets: int) -> bytes:
    octets = (content_octets.bit_length() + 7) // 8
    return bytes((tag, 0x80 | octets)) + content_octets.to_bytes(octets, "big")


# Answers are made of the same few lengths; a CRL's, which are all different, must not drive them out.
_answer_header = lru_cache(maxsize=None)(_long_header)


def tlv(tag: int, content: bytes) -> bytes:
    """Return the element with this *tag* (one octet) and *content*."""
    size = len(content)
    if size < 0x80:
        return _TAGS[tag] + _SHORT_LENGTHS[size] + content
    return header(tag, size) + content


def sequence(*parts: bytes) -> bytes:
    """Return the SEQUENCE of *parts*, each already encoded."""
    return tlv(SEQUENCE, b"".join(parts))


def set_of(*parts: bytes) -> bytes:
    """Return the SET OF *parts* in ascending order of their octets (X.690 §11.6)."""
    return tlv(SET, b"".join(sorted(parts)))


def explicit(number: int, content: bytes) -> bytes:
    """Return *content*, one encoded element, inside the context tag [*number*] (0..30)."""
    return tlv(CONTEXT_CONSTRUCTED | number, content)


def integer_content(value: int) -> bytes:
    """Return the minimal content octets of INTEGER *value*, any size, either sign."""
    octets = (value.bit_length() if value >= 0 else (value + 1).bit_length()) // 8 + 1
    return value.to_bytes(octets, "big", signed=True)


def integer(value: int) -> bytes:
    """Return INTEGER *value*."""
    return tlv(INTEGER, integer_content(value))


def enumerated(value: int) -> bytes:
    """Return ENUMERATED *value*."""
    return tlv(ENUMERATED, integer_content(value))


def boolean(value: bool) -> bytes:
    """Return BOOLEAN *value*: FF is true (X.690 §11.1)."""
    return b"\x01\x01\xff" if value else b"\x01\x01\x00"


def octet_string(content: bytes) -> bytes:
    """Return OCTET STRING *content*."""
    return tlv(OCTET_STRING, content)


def bit_string(content: bytes) -> bytes:
    """Return the BIT STRING of the whole octets *content* (no unused bits)."""
    return tlv(BIT_STRING, b"\x00" + content)


@lru_cache(maxsize=512)
def oid(name: str) -> bytes:
    """Return OBJECT IDENTIFIER *name*, given dotted.

    Raises:  DERError — fewer than two arcs, an arc that is not a decimal number, or out of range.
    """
    try:
        arcs = [int(arc) if arc.isascii() and arc.isdigit() else -1 for arc in name.split(".")]
    except ValueError as error:
        raise DERError("object identifier: arc too long") from error
    if len(arcs) < 2 or min(arcs) < 0 or arcs[0] > 2 or (arcs[0] < 2 and arcs[1] >= 40):
        raise DERError("object identifier: not dotted decimal, or its first two arcs out of range")
    return tlv(OBJECT_IDENTIFIER, b"".join(map(_arc, [40 * arcs[0] + arcs[1], *arcs[2:]])))


def _arc(value: int) -> bytes:
    octets = [value & 0x7F]
    while value := value >> 7:
        octets.append(0x80 | value & 0x7F)
    return bytes(reversed(octets))


@lru_cache(maxsize=4096)
def _day_digits(day: int) -> bytes:
    return clock.generalized_time(day * _DAY_S)[:8]


def _time_digits(posix_s: int) -> bytes:
    """Return ``YYYYMMDDHHMMSSZ``; the day comes from a cache, which halves the cost of a long CRL."""
    day, second = divmod(posix_s, _DAY_S)
    minute, second = divmod(second, 60)
    hour, minute = divmod(minute, 60)
    return _day_digits(day) + _TWO_DIGITS[hour] + _TWO_DIGITS[minute] + _TWO_DIGITS[second] + b"Z"


@lru_cache(maxsize=4096)
def generalized_time(posix_s: int) -> bytes:
    """Return GeneralizedTime ``YYYYMMDDHHMMSSZ`` of *posix_s* (years 1950..9999).

    Raises:  DERError — outside these years.
    Cost:    0.06 µs when the same second was asked before, as in answers it mostly was.
    Source:  RFC 5280 §4.1.2.5.2.
    """
    if not _YEAR_1950_S <= posix_s < _YEAR_10000_S:
        raise DERError(f"time {posix_s} s: outside the years 1950..9999")
    return b"\x18\x0f" + _time_digits(posix_s)


def utc_or_generalized_time(posix_s: int) -> bytes:
    """Return the Time of *posix_s* as certificates and CRLs write it.

    Raises:  DERError — outside the years 1950..9999.
    Source:  RFC 5280 §4.1.2.5: UTCTime through 2049, GeneralizedTime from 2050.
    """
    if _YEAR_1950_S <= posix_s < _YEAR_2050_S:
        return b"\x17\x0d" + _time_digits(posix_s)[2:]
    return generalized_time(posix_s)
