"""The entries of a CRL: one revoked certificate each, written and read back.

Knows: serial number, revocationDate and the entry extensions reasonCode and invalidityDate; the
order entries are written in.
Does not know: the list around them (``crl``), or who belongs on it.
Source: RFC 5280 §5.1.2.6, §5.3.

    entry  SEQUENCE { serial, revocationDate, Extensions absent when there is none }
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from certstatus import oid
from certstatus.crl_reason import CRLReason
from certstatus.der import (
    ENUMERATED,
    INTEGER,
    SEQUENCE,
    enumerated,
    expect,
    expect_integer,
    generalized_time,
    read_generalized_time,
    read_integer,
    read_time,
    read_tlv,
    tlv,
    utc_or_generalized_time,
)
from certstatus.errors import CRLCheckFailed, DERError
from certstatus.extension import encode_extension, parse_extensions

_REASONS = frozenset(CRLReason)


class CRLEntry(NamedTuple):
    """One line of a CRL.

    serial           INTEGER content octets, minimal
    revoked_at_s     revocationDate, POSIX seconds
    reason           CRLReason number; None and 0 both mean unspecified and are written as nothing
    invalidity_at_s  invalidityDate, POSIX seconds, or None
    """

    serial: bytes
    revoked_at_s: int
    reason: int | None = None
    invalidity_at_s: int | None = None


@lru_cache(maxsize=1024)
def encode_entry_extensions(reason: int | None, invalidity_at_s: int | None) -> bytes:
    """Return crlEntryExtensions, empty if there is nothing to say.

    Raises:  CRLCheckFailed — a reason that does not exist.
    Source:  RFC 5280 §5.3.1, §5.3.2.
    """
    extensions = b""
    if reason:
        if reason not in _REASONS:
            raise CRLCheckFailed(["pkix.crl_reason_unknown"])
        extensions += encode_extension(oid.REASON_CODE, enumerated(reason))
    if invalidity_at_s is not None:
        extensions += encode_extension(oid.INVALIDITY_DATE, generalized_time(invalidity_at_s))
    return tlv(SEQUENCE, extensions) if extensions else b""


def encode_entry(entry: CRLEntry) -> bytes:
    """Return the DER of one entry.

    Raises:  CRLCheckFailed — reason that does not exist, serial number empty or not minimal.
    Cost:    about 1.3 µs.
    Source:  RFC 5280 §5.1.2.6.
    """
    serial, revoked_at_s, reason, invalidity_at_s = entry
    first = serial[:2]
    if not first or (len(first) == 2 and first[0] in (0x00, 0xFF) and (first[0] ^ first[1]) < 0x80):
        raise CRLCheckFailed(["pkix.crl_serial_not_minimal"])
    return tlv(
        SEQUENCE,
        tlv(INTEGER, serial)
        + utc_or_generalized_time(revoked_at_s)
        + encode_entry_extensions(reason, invalidity_at_s),
    )


def encode_entries(entries: Iterable[CRLEntry], *, delta: bool) -> bytes:
    """Return the entries one after another, ascending by the value of their serial numbers.

    Raises:  CRLCheckFailed — a serial number twice, removeFromCRL outside a delta, or as ``encode_entry``.
    Cost:    about 0.25 s for 100,000.
    """
    ordered = sorted(entries, key=serial_value)
    previous: bytes | None = None
    for entry in ordered:
        if entry.serial == previous:
            raise CRLCheckFailed(["pkix.crl_serial_duplicate"])
        if entry.reason == CRLReason.REMOVE_FROM_CRL and not delta:
            raise CRLCheckFailed(["pkix.crl_remove_in_complete"])
        previous = entry.serial
    return b"".join(map(encode_entry, ordered))


def serial_value(entry: CRLEntry) -> int:
    """Return the serial number as a number, by which entries are ordered."""
    return int.from_bytes(entry.serial, "big", signed=True)


def read_entries(buf: bytes, pos: int, end: int) -> tuple[list[CRLEntry], bool]:
    """Return the entries, and whether any entry extension of ours was critical.

    Times and extension blocks repeat, so each distinct encoding is read once.
    """
    entries: list[CRLEntry] = []
    times: dict[bytes, int] = {}
    blocks: dict[bytes, tuple[int | None, int | None, bool]] = {b"": (None, None, False)}
    while pos < end:
        start, stop = expect(buf, pos, end, SEQUENCE)
        start, pos = expect_integer(buf, start, stop)
        serial = buf[start:pos]
        _, _, after = read_tlv(buf, pos, stop)
        time_der = buf[pos:after]
        revoked_at_s = times.get(time_der)
        if revoked_at_s is None:
            revoked_at_s, _ = read_time(buf, pos, after)
            times[time_der] = revoked_at_s
        block_der = buf[after:stop]
        block = blocks.get(block_der)
        if block is None:
            block = blocks[block_der] = _read_entry_extensions(block_der)
        entries.append(CRLEntry(serial, revoked_at_s, block[0], block[1]))
        pos = stop
    return entries, any(critical for _, _, critical in blocks.values())


def _read_entry_extensions(block_der: bytes) -> tuple[int | None, int | None, bool]:
    """Return (reason, invalidity_at_s, whether one of the two was critical)."""
    reason: int | None = None
    invalidity_at_s: int | None = None
    ours_critical = False
    extensions = parse_extensions(block_der, 0, len(block_der))
    if not extensions:
        raise DERError("crlEntryExtensions: present and empty")
    for name, critical, value in extensions:
        if name == oid.REASON_CODE:
            reason, after = read_integer(value, 0, len(value), ENUMERATED)
        elif name == oid.INVALIDITY_DATE:
            invalidity_at_s, after = read_generalized_time(value, 0, len(value))
        elif critical:
            raise DERError(f"CRL entry extension {name}: critical and not known")
        else:
            continue
        if after != len(value):
            raise DERError(f"CRL entry extension {name}: octets after its value")
        ours_critical = ours_critical or critical
    return reason, invalidity_at_s, ours_critical
