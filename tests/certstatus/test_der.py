"""The DER reader takes exactly DER and raises exactly one error; the encoders are its inverse."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from asn1crypto import core, parser
from hypothesis import given
from hypothesis import strategies as st

from certstatus import der, extension, oid
from certstatus.errors import MALFORMED_REQUEST, DERError, RequestError


def _integer(buf: bytes) -> object:
    value, stop = der.read_integer(buf, 0, len(buf))
    return _whole(buf, value, stop)


def _enumerated(buf: bytes) -> object:
    value, stop = der.read_integer(buf, 0, len(buf), der.ENUMERATED)
    return _whole(buf, value, stop)


def _boolean(buf: bytes) -> object:
    start, stop = der.expect_last(buf, 0, len(buf), der.BOOLEAN)
    return der.read_boolean(buf, start, stop)


def _oid(buf: bytes) -> object:
    value, stop = der.read_oid(buf, 0, len(buf))
    return _whole(buf, value, stop)


def _octets(buf: bytes) -> object:
    start, stop = der.expect_last(buf, 0, len(buf), der.OCTET_STRING)
    return buf[start:stop]


def _bits(buf: bytes) -> object:
    start, stop = der.read_signature_bits(buf, 0, len(buf))
    return _whole(buf, buf[start:stop], stop)


def _bits_any(buf: bytes) -> object:
    unused, start, stop = der.read_bit_string(buf, 0, len(buf))
    return _whole(buf, (unused, buf[start:stop]), stop)


def _generalized(buf: bytes) -> object:
    value, stop = der.read_generalized_time(buf, 0, len(buf))
    return _whole(buf, value, stop)


def _time(buf: bytes) -> object:
    value, stop = der.read_time(buf, 0, len(buf))
    return _whole(buf, value, stop)


def _algorithm(buf: bytes) -> object:
    value, stop = der.read_algorithm(buf, 0, len(buf))
    return _whole(buf, value, stop)


def _element(buf: bytes) -> object:
    return _whole(buf, "element", der.check_element(buf, 0, len(buf)))


def _extensions(buf: bytes) -> object:
    return [tuple(found) for found in extension.parse_extensions(buf, 0, len(buf))]


def _whole(buf: bytes, value: object, stop: int) -> object:
    if stop != len(buf):
        raise DERError("octets left over")
    return value


def _s(year: int, *rest: int) -> int:
    return int(datetime(year, *rest, tzinfo=UTC).timestamp())  # type: ignore[arg-type, misc]


_READERS: list[Callable[[bytes], object]] = [
    _integer,
    _enumerated,
    _boolean,
    _oid,
    _octets,
    _bits,
    _bits_any,
    _generalized,
    _time,
    _algorithm,
    _element,
    _extensions,
]

# One table for both directions: what the encoder writes, and what the reader must make of it.
_PAIRS = [
    (_integer, 0, der.integer(0), "020100"),
    (_integer, 127, der.integer(127), "02017f"),
    (_integer, 128, der.integer(128), "02020080"),
    (_integer, -1, der.integer(-1), "0201ff"),
    (_integer, -128, der.integer(-128), "020180"),
    (_integer, -129, der.integer(-129), "0202ff7f"),
    (_integer, 1 << 159, der.integer(1 << 159), "02150080" + "00" * 19),
    (_enumerated, 6, der.enumerated(6), "0a0106"),
    (_boolean, True, der.boolean(True), "0101ff"),
    (_boolean, False, der.boolean(False), "010100"),
    (_oid, "1.3.6.1.5.5.7.48.1.2", der.oid("1.3.6.1.5.5.7.48.1.2"), "06092b0601050507300102"),
    (_oid, "2.999.3", der.oid("2.999.3"), "0603883703"),
    (_oid, "0.0", der.oid("0.0"), "060100"),
    (_oid, "1.39", der.oid("1.39"), "06014f"),
    (_oid, "2.0", der.oid("2.0"), "060150"),
    (_octets, b"", der.octet_string(b""), "0400"),
    (_octets, b"a" * 127, der.octet_string(b"a" * 127), "047f" + "61" * 127),
    (_octets, b"a" * 128, der.octet_string(b"a" * 128), "048180" + "61" * 128),
    (_octets, b"a" * 256, der.octet_string(b"a" * 256), "04820100" + "61" * 256),
    (_octets, b"a" * 65536, der.octet_string(b"a" * 65536), "0483010000" + "61" * 65536),
    (_bits, b"key", der.bit_string(b"key"), "0304006b6579"),
    (_bits, b"", der.bit_string(b""), "030100"),
    (_bits_any, (4, b"\xf0"), bytes.fromhex("030204f0"), "030204f0"),
    (_generalized, _s(2026, 7, 1, 12, 34, 56), der.generalized_time(_s(2026, 7, 1, 12, 34, 56)), None),
    (_time, _s(1950, 1, 1), der.utc_or_generalized_time(_s(1950, 1, 1)), "170d3530303130313030303030305a"),
    (_time, 0, der.utc_or_generalized_time(0), "170d3730303130313030303030305a"),
    (
        _time,
        _s(2049, 12, 31, 23, 59, 59),
        der.utc_or_generalized_time(_s(2049, 12, 31, 23, 59, 59)),
        "170d3439313233313233353935395a",
    ),
    (
        _time,
        _s(2050, 1, 1),
        der.utc_or_generalized_time(_s(2050, 1, 1)),
        "180f32303530303130313030303030305a",
    ),
    (_algorithm, oid.SHA256_WITH_RSA, oid.SHA256_WITH_RSA_DER, "300d06092a864886f70d01010b0500"),
    (_algorithm, oid.ED25519, oid.ED25519_DER, "300506032b6570"),
    (_element, "element", der.explicit(0, der.sequence(der.set_of(der.NULL_DER))), "a006300431020500"),
    (
        _extensions,
        [("2.5.29.20", True, b"\x02\x01\x05")],
        der.sequence(extension.encode_extension("2.5.29.20", der.integer(5), critical=True)),
        "300f300d0603551d140101ff0403020105",
    ),
    (_extensions, [], der.sequence(), "3000"),
]


@pytest.mark.parametrize(("read", "value", "encoded", "expected_hex"), _PAIRS)
def test_value_is_written_and_read_alike(
    read: Callable[[bytes], object], value: object, encoded: bytes, expected_hex: str | None
) -> None:
    """A value is written as X.690 has it and read back from the whole, but from no other length of it."""
    if expected_hex is not None:
        assert encoded.hex() == expected_hex
    assert read(encoded) == value
    cuts = range(len(encoded)) if len(encoded) < 300 else (0, 1, 2, 3, 100, len(encoded) - 1)
    for cut in cuts:
        with pytest.raises(DERError):
            read(encoded[:cut])
    for tail in (b"\x00", b"\x05\x00", encoded):
        with pytest.raises(DERError):
            read(encoded + tail)


# Each is refused for the reason named last; without it a slip in the octets would pass unseen.
_REFUSED = {
    "indefinite length": (_element, "30800000", "indefinite"),
    "indefinite length inside": (_element, "300430800000", "indefinite"),
    "long form for a short length": (_octets, "04810161", "not minimal"),
    "leading zero in the length": (_octets, "0482008061" + "61" * 127, "not minimal"),
    "length of two gigabytes": (_octets, "048480000000", "2147483648 octets announced, 0 present"),
    "length of 2^63": (_octets, "04888000000000000000", "8 octets, at most 4"),
    "reserved length FF": (_octets, "04ff", "127 octets, at most 4"),
    "length octets cut off": (_octets, "048201", "cut off"),
    "tag of two octets": (_element, "1f0100", "tag of more than one octet"),
    "private tag of two octets": (_element, "ff0100", "tag of more than one octet"),
    "end-of-contents": (_element, "0000", "primitive or not in use"),
    "integer without octets": (_integer, "0200", "no octets"),
    "integer with a zero too many": (_integer, "0202007f", "not minimal"),
    "integer with ones too many": (_integer, "0202ff80", "not minimal"),
    "boolean 01": (_boolean, "010101", "neither 00 nor FF"),
    "boolean of two octets": (_boolean, "0102ffff", "neither 00 nor FF"),
    "boolean without octets": (_boolean, "0100", "neither 00 nor FF"),
    "object identifier without octets": (_oid, "0600", "empty or cut off"),
    "object identifier cut off in an arc": (_oid, "06028688", "empty or cut off"),
    "object identifier with a padded arc": (_oid, "06032a8001", "arc not minimal"),
    "object identifier with a padded first arc": (_oid, "06028001", "arc not minimal"),
    "object identifier of 64 octets": (_oid, "0640" + "01" * 64, "at most 63"),
    "bit string without octets": (_bits_any, "0300", "no octets"),
    "bit string with 8 unused bits": (_bits_any, "03020800", "unused bits 8"),
    "bit string with unused bits of nothing": (_bits_any, "030101", "unused bits 1"),
    "bit string with unused bits set": (_bits_any, "030204ff", "unused bits 4"),
    "key or signature of broken octets": (_bits, "030204f0", "whole octets expected"),
    "null with content": (_element, "050100", "null"),
    "constructed octet string": (_element, "2403040161", "0x24 is constructed"),
    "constructed bit string": (_element, "2304030200ff", "0x23 is constructed"),
    "constructed integer": (_element, "2203020101", "0x22 is constructed"),
    "primitive sequence": (_element, "1000", "primitive or not in use"),
    "primitive set": (_element, "1100", "primitive or not in use"),
    "wrong integer inside": (_element, "300402020001", "integer at 4: not minimal"),
    "wrong boolean inside": (_element, "3003010101", "neither 00 nor FF"),
    "wrong object identifier inside": (_element, "300406022a80", "empty or cut off"),
    "wrong bit string inside": (_element, "300403020801", "unused bits 8"),
    "element longer than its parent": (_element, "30030403616263", "3 octets announced, 1 present"),
    "UTCTime without seconds": (_time, "170b323630373031313233345a", "digits"),
    "UTCTime with an offset": (_time, "17113236303730313132333435362b30393030", "digits"),
    "UTCTime of 30 February": (_time, "170d3236303233303132333435365a", "no such moment"),
    "UTCTime with a leap second": (_time, "170d3136313233313233353936305a", "no such moment"),
    "UTCTime with a blank for a digit": (_time, "170d3236303730312031323334355a", "digits"),
    "GeneralizedTime that UTCTime can say": (_time, "180f32303236303730313132333435365a", "UTCTime can say"),
    "GeneralizedTime with a fraction": (_generalized, "181132303236303730313132333435362e355a", "digits"),
    "GeneralizedTime without Z": (_generalized, "180e3230323630373031313233343536", "digits"),
    "GeneralizedTime of the year 0": (_generalized, "180f30303030303130313030303030305a", "no such moment"),
    "time of another type": (_time, "0c0d3236303730313132333435365a", "0x18 expected, 0x0C found"),
    "algorithm without identifier": (_algorithm, "3000", "0x06 expected"),
    "algorithm with two parameters": (_algorithm, "300706012a05000500", "octets after its parameters"),
    "FALSE written out": (_extensions, "300f300d0603551d140101000403020105", "FALSE written out"),
    "critical of 01": (_extensions, "300f300d0603551d140101010403020105", "neither 00 nor FF"),
    "extension without value": (_extensions, "300730050603551d14", "0x04 expected"),
    "extension that goes on": (_extensions, "300d300b0603551d14040205000500", "2 octets follow"),
    "extensions that are no sequence": (_extensions, "3100", "0x30 expected"),
}


@pytest.mark.parametrize("name", _REFUSED)
def test_ber_and_nonsense_are_refused(name: str) -> None:
    """What BER allows, or nobody, is refused with the one error."""
    read, encoded_hex, reason = _REFUSED[name]
    with pytest.raises(DERError, match=reason):
        read(bytes.fromhex(encoded_hex))


def test_extension_may_not_occur_twice() -> None:
    """The same identifier twice in one list is refused, whatever the two values are."""
    one = extension.encode_extension("1.2.3", b"\x05\x00")
    two = extension.encode_extension("1.2.3", b"\x01\x01\xff", critical=True)
    other = extension.encode_extension("1.2.4", b"\x05\x00")
    assert len(extension.parse_extensions(der.sequence(one, other), 0, 2 + len(one + other))) == 2
    listed = der.sequence(one, other, two)
    with pytest.raises(DERError, match="twice"):
        extension.parse_extensions(listed, 0, len(listed))


def test_error_answers_malformed_request() -> None:
    """The reader's error carries the OCSP answer for a request that cannot be read."""
    assert issubclass(DERError, RequestError)
    assert DERError.ocsp_status == MALFORMED_REQUEST


@pytest.mark.parametrize("depth", [der.DEPTH_MAX + 1, 300, 20_000])
def test_deep_nesting_is_refused_without_recursion(depth: int) -> None:
    """Nesting beyond the limit is an error, not a stack overflow; the limit itself is readable."""

    def nested(levels: int) -> bytes:
        element = b"\x05\x00"
        for _ in range(levels):
            element = der.sequence(element)
        return element

    limit = nested(der.DEPTH_MAX)
    assert der.check_element(limit, 0, len(limit)) == len(limit)
    deep = nested(depth)
    with pytest.raises(DERError, match="nested deeper"):
        der.check_element(deep, 0, len(deep))


def test_reader_stays_within_its_bounds() -> None:
    """An element that ends after *end* is refused even if the buffer goes on."""
    buf = der.octet_string(b"abcdef") + b"more"
    with pytest.raises(DERError):
        der.expect(buf, 0, 7, der.OCTET_STRING)
    with pytest.raises(DERError):
        der.read_tlv(buf, 0, 7)
    with pytest.raises(DERError):
        der.expect(buf, 8, 8, der.OCTET_STRING)
    assert der.expect(buf, 0, 8, der.OCTET_STRING) == (2, 8)


@pytest.mark.parametrize(
    "name", ["", "1", "1.2.", "1.40", "3.1", "1.2.-3", "1.2.x", "a.b", "1.²", "1." + "9" * 5000]
)
def test_malformed_dotted_identifier_is_refused(name: str) -> None:
    """What is no dotted object identifier cannot be encoded."""
    with pytest.raises(DERError):
        der.oid(name)


@pytest.mark.parametrize("posix_s", [-631_152_001, 253_402_300_800])
def test_time_outside_the_years_is_refused(posix_s: int) -> None:
    """Times before 1950 or after 9999 cannot be written."""
    with pytest.raises(DERError):
        der.generalized_time(posix_s)
    with pytest.raises(DERError):
        der.utc_or_generalized_time(posix_s)


def test_set_of_is_sorted() -> None:
    """A SET OF is written in ascending order whatever the order given."""
    assert der.set_of(der.integer(2), der.integer(1)).hex() == "3106020101020102"


@given(st.integers(min_value=-(1 << 200), max_value=1 << 200))
def test_integers_round_trip(value: int) -> None:
    """Every integer reads back, and is encoded as asn1crypto encodes it."""
    encoded = der.integer(value)
    assert encoded == core.Integer(value).dump()
    assert _integer(encoded) == value


@given(
    st.integers(0, 2).flatmap(
        lambda first: st.tuples(
            st.just(first),
            st.integers(0, 39 if first < 2 else 1 << 40),
            st.lists(st.integers(0, 1 << 40), max_size=5),
        )
    )
)
def test_object_identifiers_round_trip(arcs: tuple[int, int, list[int]]) -> None:
    """Every object identifier reads back, and is encoded as asn1crypto encodes it."""
    name = ".".join(map(str, [arcs[0], arcs[1], *arcs[2]]))
    encoded = der.oid(name)
    # asn1crypto writes the first two arcs as one octet, so it is no oracle for a large second arc.
    if arcs[1] < 48:
        assert encoded == core.ObjectIdentifier(name).dump()
    assert _oid(encoded) == name


@given(st.integers(-631_152_000, 253_402_300_799))
def test_times_round_trip(posix_s: int) -> None:
    """Every second from 1950 to 9999 reads back in both forms and says what datetime says."""
    moment = datetime.fromtimestamp(posix_s, UTC)
    written = der.generalized_time(posix_s)
    assert written[2:] == moment.strftime("%Y%m%d%H%M%SZ").encode()
    assert _generalized(written) == posix_s
    either = der.utc_or_generalized_time(posix_s)
    assert (either[0] == der.UTC_TIME) == (moment.year < 2050)
    assert _time(either) == posix_s


@given(st.binary(max_size=400), st.integers(0, 0x1E))
def test_element_round_trips(content: bytes, tag: int) -> None:
    """Any content under any single-octet tag comes back with the offsets of exactly that content."""
    encoded = b"xx" + der.tlv(tag, content) + b"yy"
    assert der.header(tag, len(content)) + content == encoded[2:-2]
    found, start, stop = der.read_tlv(encoded, 2, len(encoded) - 2)
    assert (found, encoded[start:stop], stop) == (tag, content, len(encoded) - 2)


_LEAVES = st.one_of(
    st.integers(-(1 << 80), 1 << 80).map(der.integer),
    st.binary(max_size=200).map(der.octet_string),
    st.binary(max_size=40).map(der.bit_string),
    st.booleans().map(der.boolean),
    st.just(der.NULL_DER),
    st.sampled_from([oid.SHA1, oid.OCSP_NONCE, "2.999.1"]).map(der.oid),
)
_TREES = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(lambda parts: der.sequence(*parts)),
        st.lists(inner, max_size=4).map(lambda parts: der.set_of(*parts)),
        st.tuples(st.integers(0, 30), inner).map(lambda pair: der.explicit(*pair)),
    ),
    max_leaves=12,
)


@given(_TREES, _TREES)
def test_element_of_any_type_is_walked_to_its_end(first: bytes, second: bytes) -> None:
    """The walk ends where the element does, and asn1crypto sees the same end."""
    both = first + second
    assert der.check_element(both, 0, len(both)) == len(first)
    _, _, _, head, content, trailer = parser.parse(first, strict=True)
    assert len(head) + len(content) + len(trailer) == len(first)


@given(_TREES, st.data())
def test_mutated_elements_raise_only_the_one_error(tree: bytes, data: st.DataObject) -> None:
    """Whatever is done to an element, every reader answers with a value or with DERError."""
    octets = bytearray(tree)
    for _ in range(data.draw(st.integers(1, 3))):
        octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    _read_with_all(bytes(octets[: data.draw(st.integers(0, len(octets)))]))


@given(st.binary(max_size=60))
def test_any_octets_raise_only_the_one_error(octets: bytes) -> None:
    """On any octets, every reader answers with a value or with DERError."""
    _read_with_all(octets)


def _read_with_all(octets: bytes) -> None:
    for read in _READERS:
        try:
            read(octets)
        except DERError:
            continue
