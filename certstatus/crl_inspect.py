"""What a CRL file says and what is wrong with it, for a person who looks: read in blocks, however long it is.

::

    DER, or PEM ─▶ its DER beside ─▶ one pass: facts for lint, reasons counted, digests for the signature
                                       └▶ once more for who wants the entries, joined with a base if need be

A list of another CA may have entries that no row has room for: such a one is read as a whole, as strictly.
Memory: some blocks; with a base the rows of the delta; of a list that does not ascend its serial numbers, 20
octets each, among which those that are there twice are looked for.
Knows: that.  Does not know: the command line, or which CRL it should be.
Source: RFC 5280 §5.1-5.3, §5.2.4 (joining); RFC 7468 §6 (PEM of a CRL).
"""

from __future__ import annotations

import base64
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from certstatus.crl import parse_certificate_list
from certstatus.crl_combine import combine_findings
from certstatus.crl_entry import CRLEntry, serial_value
from certstatus.crl_lint import lint_facts, lint_head
from certstatus.crl_reason import CRLReason
from certstatus.crl_row_facts import RowFacts, facts_of
from certstatus.crl_rows import NO_REASON, Rows, entries_of, joined, keys
from certstatus.crl_rows_merge import merged
from certstatus.crl_stream_decode import CRLDigests, CRLFile
from certstatus.errors import CRLCheckFailed, DERError
from certstatus.x509_reading import load_crl

_BEGIN, _END = b"-----BEGIN X509 CRL-----", b"-----END X509 CRL-----"
_PEM_OCTETS_AT_ONCE = 1 << 18
_NOT_BASE64 = re.compile(rb"[^A-Za-z0-9+/=]+")


@dataclass(slots=True)
class Tally:
    """How many entries there are, of which reasons (0: none), and octets of the longest serial number."""

    count: int = 0
    reasons: Counter[int] = field(default_factory=Counter)
    serial_octets: int = 0

    def add_rows(self, rows: Rows) -> None:
        """Count the next rows."""
        if len(rows):
            for reason, count in enumerate(np.bincount(rows["reason"]).tolist()):
                if count:
                    self.reasons[0 if reason == NO_REASON else reason] += count
            self.count += len(rows)
            self.serial_octets = max(self.serial_octets, int(rows["serial_octets"].max()))

    def add_entries(self, entries: Iterable[CRLEntry]) -> None:
        """Count the next entries."""
        for entry in entries:
            self.count += 1
            self.reasons[entry.reason or 0] += 1
            self.serial_octets = max(self.serial_octets, len(entry.serial))


class InspectedCRL:
    """A CRL that was looked through.

    issuer     its name
    digests    of all of it
    facts      of its entries, for lint
    tally      of its entries
    """

    def __init__(self, file: CRLFile) -> None:
        """Look through an open file.  Raises: DERError — something in it cannot be read; OSError."""
        self.file = file
        try:
            self.issuer = load_crl(file.head_der).issuer
        except ValueError as exc:
            raise DERError(f"{file.path}: cannot be read: {exc}") from exc
        self.facts, self.tally = RowFacts(), Tally()
        # Where they are no rows.
        self._entries: list[CRLEntry] | None = None
        reading = file.reading()
        try:
            for rows in reading.rows(self.facts):
                self.tally.add_rows(rows)
            self.digests: CRLDigests = reading.digests()
            if self.facts.unsorted:
                self.facts.duplicate |= _has_twice(file)
        except DERError:
            self._read_whole()

    def _read_whole(self) -> None:
        parsed = parse_certificate_list(self.file.read())
        self._entries, self.tally = parsed.entries, Tally()
        self.facts = facts_of(parsed.entries, critical=parsed.entries_critical)
        self.tally.add_entries(parsed.entries)
        self.digests = self.file.digests()

    def findings(self) -> list[str]:
        """Return what is wrong with it by itself; certificateHold is taken for allowed."""
        head = self.file.head
        return lint_head(head) + lint_facts(
            self.facts,
            delta=head.base_number is not None,
            hold_allowed=True,
            this_update_s=head.this_update_s,
        )

    @property
    def are_rows_in_order(self) -> bool:
        """Say whether the entries can be had as rows, ascending strictly."""
        return self._entries is None and not self.facts.unsorted and not self.facts.duplicate

    def rows(self) -> Iterator[Rows]:
        """Yield the entries as rows, of one that has them."""
        return self.file.rows()

    def entries(self) -> Iterator[CRLEntry]:
        """Yield the entries in the order of the file."""
        if self._entries is not None:
            yield from self._entries
        else:
            for rows in self.rows():
                yield from entries_of(rows)


class JoinedCRLs:
    """A delta CRL over a base: the entries of the complete CRL that both are together."""

    def __init__(self, base: InspectedCRL, delta: InspectedCRL) -> None:
        """Raises: CRLCheckFailed — the two cannot be joined, every condition that is not met being named."""
        if findings := combine_findings(base.file.head, delta.file.head):
            raise CRLCheckFailed(findings)
        self._base, self._delta = base, delta
        self.tally = Tally()
        if base.are_rows_in_order and delta.are_rows_in_order:
            for rows in self._rows():
                self.tally.add_rows(rows)
        else:
            self.tally.add_entries(self.entries())

    def _rows(self) -> Iterator[Rows]:
        changes = joined(self._delta.rows())
        removes = changes["reason"] == CRLReason.REMOVE_FROM_CRL
        return merged(self._base.rows(), changes[~removes], keys(changes[removes]))

    def entries(self) -> Iterator[CRLEntry]:
        """Yield the entries, ascending by serial number."""
        if self._base.are_rows_in_order and self._delta.are_rows_in_order:
            for rows in self._rows():
                yield from entries_of(rows)
            return
        found = {entry.serial: entry for entry in self._base.entries()}
        for entry in self._delta.entries():
            if entry.reason == CRLReason.REMOVE_FROM_CRL:
                found.pop(entry.serial, None)
            else:
                found[entry.serial] = entry
        yield from sorted(found.values(), key=serial_value)


def _has_twice(file: CRLFile) -> bool:
    """Say whether a serial number is there twice, wherever."""
    found = np.concatenate([np.ascontiguousarray(keys(rows)) for rows in file.rows()])
    found.sort()
    return bool((found[1:] == found[:-1]).any())


@contextmanager
def opened(path: Path) -> Iterator[CRLFile]:
    """Open a CRL file, DER or PEM, whose DER is then in a file of its own for as long.

    Raises: DERError — no CRL, as far as that is seen without its entries; OSError.
    """
    with path.open("rb") as file:
        is_pem = file.read(5) == b"-----"
        if is_pem:
            file.seek(0)
            with tempfile.NamedTemporaryFile(prefix="certstatus-", suffix=".crl") as plain:
                for octets in _pem_octets(file, path):
                    plain.write(octets)
                plain.flush()
                with CRLFile(Path(plain.name)) as crl:
                    yield crl
            return
    with CRLFile(path) as crl:
        yield crl


def _pem_octets(file: BinaryIO, name: Path) -> Iterator[bytes]:
    """Yield the DER in the first PEM block of a CRL."""
    text, is_inside = b"", False
    while True:
        block = file.read(_PEM_OCTETS_AT_ONCE)
        text += block
        if not is_inside:
            _, is_inside, rest = _partition(text, _BEGIN)
            text = rest
        if is_inside:
            inside, has_ended, text = _partition(text, _END)
            digits = _NOT_BASE64.sub(b"", inside)
            whole = len(digits) if has_ended else len(digits) // 4 * 4
            try:
                yield base64.b64decode(digits[:whole])
            except ValueError as exc:
                raise DERError(f"{name}: PEM, but not base64: {exc}") from exc
            if has_ended:
                return
            text = digits[whole:] + text
        if not block:
            raise DERError(f"{name}: PEM, but not of a CRL")


def _partition(text: bytes, mark: bytes) -> tuple[bytes, bool, bytes]:
    """Return what stands before a mark, whether it is there, and what follows, or may be its beginning."""
    before, found, after = text.partition(mark)
    if found:
        return before, True, after
    at = max(0, len(text) - len(mark) + 1)
    return text[:at], False, text[at:]
