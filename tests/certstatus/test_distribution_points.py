"""The names of distribution points: what two points have in common, and writing one by a name that stays."""

from __future__ import annotations

import pytest

from certstatus.der import explicit, sequence, tlv
from certstatus.distribution_point import (
    encode_distribution_points,
    encode_named_point,
    names_of_points,
    parse_distribution_points,
    point_names,
)
from certstatus.errors import DERError

NAME = sequence()
URI = "http://old.example/ca.crl"
OURS = "http://new.example/complete.crl"
URI_DER = tlv(0x86, URI.encode())
DIRECTORY_DER = tlv(0xA4, NAME)
OTHER_DER = tlv(0x82, b"old.example")
FULL = tlv(0xA0, DIRECTORY_DER + URI_DER + OTHER_DER)
RELATIVE = tlv(0xA1, b"\x30\x00")


def test_a_point_is_matched_by_each_of_its_names() -> None:
    """Of every kind, octet for octet; a relative name as a whole."""
    assert point_names(FULL) == {DIRECTORY_DER, URI_DER, OTHER_DER}
    assert point_names(RELATIVE) == {RELATIVE}
    several = sequence(sequence(explicit(0, FULL)), sequence(explicit(0, RELATIVE)), sequence())
    assert names_of_points(several) == {DIRECTORY_DER, URI_DER, OTHER_DER, RELATIVE}
    assert names_of_points(encode_distribution_points([(NAME, (URI,))])) == {DIRECTORY_DER, URI_DER}


def test_a_point_keeps_its_names_and_gets_further_ways() -> None:
    """The names as they stand, ours behind them, none twice; a relative name stands alone."""
    written = encode_named_point(FULL, (OURS, URI))
    assert names_of_points(written) == point_names(FULL) | {tlv(0x86, OURS.encode())}
    assert parse_distribution_points(written) == [(NAME, (URI, OURS))]
    assert encode_named_point(FULL) == sequence(sequence(explicit(0, FULL)))
    assert encode_named_point(RELATIVE, (OURS,)) == sequence(sequence(explicit(0, RELATIVE)))


@pytest.mark.parametrize(
    "name_der", [b"", b"\xa0\x00", FULL + b"\x00", FULL[:-1], tlv(0x30, b""), tlv(0xA0, b"\x86\x05x")]
)
def test_what_is_no_name_is_an_error(name_der: bytes) -> None:
    """Whichever of them reads it."""
    for read in (
        point_names,
        encode_named_point,
        lambda der: names_of_points(sequence(sequence(explicit(0, der)))),
    ):
        with pytest.raises(DERError):
            read(name_der)
