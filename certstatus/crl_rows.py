"""A list of revoked certificates as rows of fixed width, many at a time in an array.

A row holds what a ``CRLEntry`` holds, and how many octets its DER has, so that the length of a CRL is
known before its first octet is written.  Rows ascend strictly by their key, whose octets compare as the
serial numbers do as numbers.
Knows: the row, to and from entries, order, and the digest of a set of rows.
Does not know: files (``crl_rows_file``), DER (``crl_row_encode``, ``crl_row_decode``), or who belongs
on a list.
Source: RFC 5280 §5.1.2.6, §5.3; §4.1.2.2 for the 20 octets of a serial number.

    row, 32 bytes, little-endian
      20  key            serial number in two's complement, sign-extended to 20 octets, first bit flipped
       4  revoked_at     POSIX seconds
       4  invalidity     POSIX seconds, 0 for none
       1  reason         CRLReason; NO_REASON for none, which is also how unspecified is written
       1  serial_octets  of the INTEGER
       1  der_len        octets of the whole entry in DER, tag and length included: 19..81
       1  zero
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certstatus.crl_entry import CRLEntry
from certstatus.crl_reason import CRLReason
from certstatus.errors import CRLCheckFailed

KEY_OCTETS = 20
ROW_BYTES = 32
NO_REASON = 0xFF
SECONDS_MAX = (1 << 32) - 1
YEAR_2050_S = 2_524_608_000

ROW = np.dtype(
    [
        ("key", f"V{KEY_OCTETS}"),
        ("revoked_at", "<u4"),
        ("invalidity", "<u4"),
        ("reason", "u1"),
        ("serial_octets", "u1"),
        ("der_len", "u1"),
        ("zero", "u1"),
    ]
)
# Arrays of ROW, and of keys (20 octets each, ``S20`` so that they can be sorted and searched).  numpy takes
# NUL octets at the end of an S for filling; among keys, all of one width, that changes neither order nor
# equality, but a key taken out as `bytes` has lost them.
Rows = NDArray[np.void]
Keys = NDArray[np.bytes_]

# Octets of the parts of an entry: header and INTEGER header, Time, crlEntryExtensions by what is in them.
_HEADERS = 4
_UTC_TIME = 15
_GENERALIZED_TIME = 17
_REASON = 14
_INVALIDITY = 28
_BOTH = 40

# Those that an entry may say: unspecified is said by nothing.
KNOWN_REASONS = frozenset(int(reason) for reason in CRLReason if reason)

DIGEST_END = 1 << 128
# Which of a row's 32 bytes the digest is of: not the length of its DER, which follows from the rest.
_LAST_WORD_MASK = np.uint64(0x0000_FFFF_FFFF_FFFF)
_MIXED_AT_ONCE = 8192
_LANES = (
    (0x9E37_79B9_7F4A_7C15, 0xBF58_476D_1CE4_E5B9, 0x94D0_49BB_1331_11EB, 0xD6E8_FEB8_6659_FD93),
    (0xC2B2_AE3D_27D4_EB4F, 0x1656_67B1_9E37_79F9, 0x27D4_EB2F_1656_67C5, 0xFF51_AFD7_ED55_8CCD),
)


def empty_rows(count: int = 0) -> Rows:
    """Return *count* rows of zeros."""
    return np.zeros(count, ROW)


def joined(blocks: Iterable[Rows]) -> Rows:
    """Return blocks of rows as one array, of no rows where there are none."""
    return np.concatenate([empty_rows(), *blocks])


def key_of(serial: bytes) -> bytes:
    """Return the key of a serial number given as INTEGER content octets.

    Raises: CRLCheckFailed — empty, not minimal, or of more than 20 octets.
    """
    first = serial[:2]
    if not first or (len(first) == 2 and first[0] in (0x00, 0xFF) and (first[0] ^ first[1]) < 0x80):
        raise CRLCheckFailed(["pkix.crl_serial_not_minimal"])
    if len(serial) > KEY_OCTETS:
        raise CRLCheckFailed(["pkix.crl_serial_too_long"])
    wide = serial.rjust(KEY_OCTETS, b"\xff" if serial[0] & 0x80 else b"\x00")
    return bytes((wide[0] ^ 0x80,)) + wide[1:]


def serial_of(key: bytes, octets: int) -> bytes:
    """Return the INTEGER content of the serial number that has *key* and so many octets."""
    return (bytes((key[0] ^ 0x80,)) + key[1:])[KEY_OCTETS - octets :]


def keys_of(serials: Iterable[bytes]) -> Keys:
    """Return the keys of serial numbers, ascending, each once; raises as ``key_of``."""
    given = list(serials)
    rows = empty_rows(len(given))
    put_keys(rows, given)
    return np.unique(keys(rows))


def keys(rows: Rows) -> Keys:
    """Return the keys of rows, not copied, to be sorted and searched."""
    return rows["key"].view(f"S{KEY_OCTETS}")


def rows_of(entries: Iterable[CRLEntry]) -> Rows:
    """Return the rows of entries in any order, ascending.

    Raises: CRLCheckFailed — a serial number twice, empty, not minimal or of more than 20 octets; a reason
            that does not exist; a time that a row has no room for (before 1970 or after 2106, and an
            invalidity date of the first second of 1970).
    Cost:   about 0.6 µs an entry.
    """
    given = list(entries)
    rows = empty_rows(len(given))
    if not given:
        return rows
    serials, revoked_at, reasons, invalidity = zip(*given, strict=True)
    put_keys(rows, serials)
    try:
        rows["revoked_at"] = np.array(revoked_at, np.uint32)
        rows["invalidity"] = np.array([0 if at is None else at for at in invalidity], np.uint32)
        rows["reason"] = np.array([reason or NO_REASON for reason in reasons], np.uint8)
    except OverflowError:
        raise _out_of_range(given) from None
    if 0 in invalidity:
        raise _out_of_range(given)
    rows["der_len"] = der_lengths(rows)
    if not ascend(rows):
        rows = rows[np.argsort(keys(rows), kind="stable")]
    findings = [] if {*reasons} <= KNOWN_REASONS | {None, 0} else ["pkix.crl_reason_unknown"]
    if not ascend(rows):
        findings.append("pkix.crl_serial_duplicate")
    if findings:
        raise CRLCheckFailed(findings)
    return rows


def put_keys(rows: Rows, serials: Sequence[bytes]) -> None:
    """Put the keys and lengths of serial numbers into *rows*, as ``key_of`` gives them; raises as it.

    Takes: *rows*: of any kind that has the fields ``key`` and ``serial_octets``.
    """
    lengths = np.fromiter(map(len, serials), np.int64, len(serials))
    for length in np.unique(lengths).tolist():
        at = np.flatnonzero(lengths == length)
        # Raises where no number has this length.
        key_of((b"\x01" * length)[: KEY_OCTETS + 1])
        some = serials if len(at) == len(serials) else [serials[place] for place in at.tolist()]
        octets = np.frombuffer(b"".join(some), np.uint8).reshape(-1, length)
        first, second = octets[:, 0], octets[:, min(1, length - 1)]
        if length > 1 and (((first == 0) & (second < 0x80)) | ((first == 0xFF) & (second >= 0x80))).any():
            raise CRLCheckFailed(["pkix.crl_serial_not_minimal"])
        key = np.empty((len(at), KEY_OCTETS), np.uint8)
        key[:, : KEY_OCTETS - length] = np.where(first >= 0x80, 0xFF, 0).astype(np.uint8)[:, None]
        key[:, KEY_OCTETS - length :] = octets
        key[:, 0] ^= np.uint8(0x80)
        rows["key"][at] = key.view(f"V{KEY_OCTETS}").reshape(-1)
        rows["serial_octets"][at] = length


def _out_of_range(entries: list[CRLEntry]) -> CRLCheckFailed:
    """Return what is wrong with entries that no row can be, and with which: they block their whole list."""
    finding = "pkix.crl_reason_unknown"
    wrong = [entry for entry in entries if entry.reason is not None and not 0 <= entry.reason <= 0xFF]
    if not wrong:
        finding = "certstatus.crl_row_time_out_of_range"
        wrong = [entry for entry in entries if not _has_room(entry)]
    return CRLCheckFailed([finding], [entry.serial for entry in wrong])


def _has_room(entry: CRLEntry) -> bool:
    invalidity_s = 1 if entry.invalidity_at_s is None else entry.invalidity_at_s
    return 0 <= entry.revoked_at_s <= SECONDS_MAX and 0 < invalidity_s <= SECONDS_MAX


def entries_of(rows: Rows) -> list[CRLEntry]:
    """Return the entries of rows; ``rows_of`` of them gives the rows back."""
    raw = rows.tobytes()
    return [
        CRLEntry(
            serial_of(raw[at : at + KEY_OCTETS], octets),
            revoked_at,
            None if reason == NO_REASON else reason,
            invalidity or None,
        )
        for at, revoked_at, invalidity, reason, octets in zip(
            range(0, len(raw), ROW_BYTES),
            rows["revoked_at"].tolist(),
            rows["invalidity"].tolist(),
            rows["reason"].tolist(),
            rows["serial_octets"].tolist(),
            strict=True,
        )
    ]


def der_lengths(rows: Rows) -> NDArray[np.uint8]:
    """Return how many octets each row has in DER, from all but its field ``der_len``."""
    # Unspecified is written as nothing.
    has_reason = (rows["reason"] != NO_REASON) & (rows["reason"] != 0)
    has_date = rows["invalidity"] != 0
    extensions = np.where(
        has_date, np.where(has_reason, _BOTH, _INVALIDITY), np.where(has_reason, _REASON, 0)
    )
    times = np.where(rows["revoked_at"] < YEAR_2050_S, _UTC_TIME, _GENERALIZED_TIME)
    return (_HEADERS + rows["serial_octets"] + times + extensions).astype(np.uint8)


def ascend(rows: Rows, after: bytes | None = None) -> bool:
    """Say whether rows ascend strictly by key, the first of them beyond the key *after*."""
    if not len(rows):
        return True
    rows = np.ascontiguousarray(rows)
    if after is not None and rows["key"][0].tobytes() <= after:
        return False
    # Mostly the eight octets in the middle of the key tell, and comparing strings costs four times as much.
    words = _middle(rows)
    rises = words[1:] > words[:-1]
    if rises.all() and (rows["key"][0].tobytes()[:4] == rows["key"][-1].tobytes()[:4]):
        first = _first(rows)
        if (first == first[0]).all():
            return True
    found = keys(rows)
    return bool((found[1:] > found[:-1]).all())


def _first(rows: Rows) -> NDArray[np.uint32]:
    return np.ndarray(len(rows), "<u4", rows, 0, rows.strides)


def _middle(rows: Rows) -> NDArray[np.uint64]:
    return np.ndarray(len(rows), ">u8", rows, 4, rows.strides).astype(np.uint64)


def last_key(rows: Rows) -> bytes:
    """Return the 20 octets of the last row's key."""
    key: bytes = rows["key"][-1].tobytes()
    return key


def digest_of(rows: Rows) -> int:
    """Return the sum mod 2^128 of a fixed mix of each row's first 30 octets.

    Independent of order, so that a row can be added to a set's digest, or taken away.  It finds mistakes,
    it is no security hash: whoever can choose rows can make two sets of one digest.
    Cost:   about 15 ns a row.
    """
    words = np.ascontiguousarray(rows).view("<u8").reshape(-1, ROW_BYTES // 8)
    total = 0
    for start in range(0, len(words), _MIXED_AT_ONCE):
        columns = [words[start : start + _MIXED_AT_ONCE, at].copy() for at in range(4)]
        columns[3] &= _LAST_WORD_MASK
        low, high = (_mixed(columns, factors) for factors in _LANES)
        total += int(high.sum(dtype=np.uint64)) << 64
        # In halves, so that what goes beyond 64 bits is not lost.
        total += int((low >> np.uint64(32)).sum(dtype=np.uint64)) << 32
        total += int((low & np.uint64(0xFFFF_FFFF)).sum(dtype=np.uint64))
    return total % DIGEST_END


def _mixed(columns: list[NDArray[np.uint64]], factors: tuple[int, ...]) -> NDArray[np.uint64]:
    """Return 64 bits a row, each of which depends on every bit of the row.

    Multiplying carries a difference upwards, shifting brings it down again, after each word, so that no
    two words of a row can be changed to make up for each other but by chance.
    """
    mixed: NDArray[np.uint64] = columns[0] * np.uint64(factors[0])
    shifted: NDArray[Any] = mixed >> np.uint64(32)
    mixed ^= shifted
    for column, factor in zip(columns[1:], factors[1:], strict=True):
        mixed += column
        mixed *= np.uint64(factor)
        np.right_shift(mixed, np.uint64(29), out=shifted)
        mixed ^= shifted
    mixed *= np.uint64(factors[0])
    np.right_shift(mixed, np.uint64(32), out=shifted)
    mixed ^= shifted
    return mixed
