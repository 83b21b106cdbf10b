r"""``index.txt``, the database of ``openssl ca``: one line a certificate, read and checked line by line.

::

    V  261231235959Z                                01A4  unknown  /C=JP/CN=x
    R  261231235959Z  250102030405Z,keyCompromise   01A5  unknown  /C=JP/CN=y
    E  200101000000Z                                01A6  unknown  /C=JP/CN=z

    status, end, revocation, serial number, file, subject; tabs between; ``\`` before one that is not.

Knows: the six columns, the forms of a revocation with its reason, and that E (expired) is a V whose time
is over.
Does not know: the certificates themselves.
Source: openssl-ca(1), TXT_DB and the revocation strings of apps/ca.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from certstatus.crl_lint import SERIAL_OCTETS_MAX
from certstatus.crl_reason import CRLReason
from certstatus.der import integer_content
from certstatus.errors import ImportRefused

_COLUMNS = 6
_TAB = re.compile(r"(?<!\\)\t")
_SERIAL = re.compile(r"-?[0-9A-Fa-f]+")
_LINE_OCTETS_MAX = 65_536
# The words are compared as openssl does, whatever their case.
_REASONS = {
    reason.label.lower(): reason
    for reason in CRLReason
    if reason not in (CRLReason.CERTIFICATE_HOLD, CRLReason.REMOVE_FROM_CRL)
}
_HOLDS = ("certificatehold", "holdinstruction")
# Since when the key is known to be bad: date as the third part.
_KEY_TIMES = {"keytime": CRLReason.KEY_COMPROMISE, "cakeytime": CRLReason.CA_COMPROMISE}


class IndexLine(NamedTuple):
    """One line: ``revoked_at_s`` None while valid; ``reason`` a CRLReason or None; times POSIX s."""

    line: int
    serial: bytes
    not_after_s: int
    revoked_at_s: int | None
    reason: int | None
    invalidity_s: int


def read_index_txt(path: Path) -> Iterator[IndexLine]:
    """Yield the lines of an index.txt; memory: one line.

    Raises: ImportRefused — cannot be read, nothing in it, or a line that is not as above.
    """
    found = False
    try:
        with path.open("rb") as file:
            for number, octets in enumerate(iter(lambda: file.readline(_LINE_OCTETS_MAX), b""), 1):
                if len(octets) == _LINE_OCTETS_MAX:
                    raise ImportRefused(path, number, "line", f"over {_LINE_OCTETS_MAX - 1} octets")
                # Names may be in any character set; nothing here depends on them.
                text = octets.decode("latin-1").rstrip("\r\n")
                if text.startswith("#"):
                    continue
                yield _read_line(path, number, text)
                found = True
    except OSError as exc:
        raise ImportRefused(path, 0, "file", exc.strerror or str(exc)) from exc
    if not found:
        raise ImportRefused(path, 0, "content", "no certificate in it")


def _read_line(path: Path, line: int, text: str) -> IndexLine:
    columns = _TAB.split(text)
    if len(columns) != _COLUMNS:
        raise ImportRefused(
            path, line, "columns", f"{_COLUMNS} with tabs between expected, {len(columns)} found"
        )
    status, ends, revocation, serial, _file, subject = columns
    if status not in ("V", "R", "E"):
        raise ImportRefused(path, line, "status", f"V, R or E expected, {status!r} found")
    not_after_s = _time(path, line, "expiry date", ends)
    if (status == "R") != bool(revocation):
        what = "missing of a revoked certificate" if status == "R" else f"{revocation!r} with status {status}"
        raise ImportRefused(path, line, "revocation date", what)
    if not subject.startswith("/") and "=" not in subject and subject:
        raise ImportRefused(path, line, "subject", f"a distinguished name expected, {subject[:40]!r} found")
    octets = _serial(path, line, serial)
    if status != "R":
        return IndexLine(line, octets, not_after_s, None, None, 0)
    revoked_at_s, reason, invalidity_s = _revocation(path, line, revocation)
    return IndexLine(line, octets, not_after_s, revoked_at_s, reason, invalidity_s)


def _serial(path: Path, line: int, text: str) -> bytes:
    if not _SERIAL.fullmatch(text) or len(text.removeprefix("-")) % 2:
        raise ImportRefused(path, line, "serial number", f"hexadecimal octets expected, {text[:50]!r} found")
    octets = integer_content(int(text, 16))
    if len(octets) > SERIAL_OCTETS_MAX:
        raise ImportRefused(path, line, "serial number", f"{len(octets)} octets, at most {SERIAL_OCTETS_MAX}")
    return octets


def _revocation(path: Path, line: int, text: str) -> tuple[int, int | None, int]:
    """Return (when, CRLReason or None, invalidity date or 0)."""
    date, *more = text.split(",")
    revoked_at_s = _time(path, line, "revocation date", date)
    if not 0 <= revoked_at_s < 1 << 32:
        raise ImportRefused(path, line, "revocation date", f"{date} lies outside of 1970 to 2106")
    if not more:
        return revoked_at_s, None, 0
    word, *extra = more
    name = word.lower()
    if len(extra) > 1 or (extra and name not in ("holdinstruction", *_KEY_TIMES)):
        raise ImportRefused(path, line, "revocation reason", f"nothing expected after {word}")
    if name in _HOLDS:
        # What a hold instruction said is of no use since RFC 5280 knows none.
        return revoked_at_s, CRLReason.CERTIFICATE_HOLD, 0
    if name in _KEY_TIMES:
        if not extra:
            raise ImportRefused(path, line, "invalidity date", f"missing after {word}")
        invalidity_s = _time(path, line, "invalidity date", extra[0])
        if not 0 <= invalidity_s < 1 << 32:
            raise ImportRefused(path, line, "invalidity date", f"{extra[0]} lies outside of 1970 to 2106")
        return revoked_at_s, _KEY_TIMES[name], invalidity_s
    reason = _REASONS.get(name)
    if reason is None:
        raise ImportRefused(path, line, "revocation reason", f"{word!r} is none that a certificate can have")
    return revoked_at_s, None if reason is CRLReason.UNSPECIFIED else reason, 0


def _time(path: Path, line: int, field: str, text: str) -> int:
    """Return POSIX seconds of ``YYMMDDHHMMSSZ`` or ``YYYYMMDDHHMMSSZ``."""
    digits = text.removesuffix("Z")
    if not (text.endswith("Z") and digits.isascii() and digits.isdigit() and len(digits) in (12, 14)):
        raise ImportRefused(
            path, line, field, f"YYMMDDHHMMSSZ or YYYYMMDDHHMMSSZ expected, {text[:30]!r} found"
        )
    if len(digits) == 12:
        # RFC 5280 §4.1.2.5.1: 50 to 99 are of the last century.
        digits = ("19" if digits >= "5" else "20") + digits
    try:
        numbers = [int(digits[:4]), *(int(digits[at : at + 2]) for at in range(4, 14, 2))]
        moment = datetime(numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], numbers[5], tzinfo=UTC)
    except ValueError as exc:
        raise ImportRefused(path, line, field, f"{text} is no moment: {exc}") from exc
    return int(moment.timestamp())
