"""The sheet: all that the files of an import say, side by side, before any of it is recorded.

A SQLite file of its own, thrown away afterwards, so that a million certificates need no memory and a
contradiction between files is found before the register is touched.
Knows: one row a serial number, and which of two statements about one certificate stands: a revocation
before validity, for good before on hold; dates and certificates must agree.
Does not know: the register.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from certstatus.crl_entry import CRLEntry
from certstatus.crl_reason import CRLReason
from certstatus.errors import ImportRefused
from issuance.import_certificate import CertificateFields
from issuance.import_index_txt import IndexLine

_ROWS = """
CREATE TABLE sheet (
    serial BLOB PRIMARY KEY, not_before_s INTEGER, not_after_s INTEGER, der BLOB,
    revoked_at_s INTEGER, reason INTEGER, invalidity_s INTEGER NOT NULL DEFAULT 0,
    told_by TEXT NOT NULL, line INTEGER NOT NULL, index_line INTEGER, part INTEGER
)"""
# Which parts of a divided CA a certificate names, and on which part's CRL a number stands.
_POINTS = "CREATE TABLE point (serial BLOB, part INTEGER, PRIMARY KEY (serial, part)) WITHOUT ROWID"
_LISTINGS = "CREATE TABLE listing (serial BLOB PRIMARY KEY, part INTEGER) WITHOUT ROWID"
_COLUMNS = "serial, not_before_s, not_after_s, der, revoked_at_s, reason, invalidity_s, told_by, line, part"


class SheetRow(NamedTuple):
    """One certificate; None for what no file says; ``told_by``, ``line``: where it stood first.

    ``revoked_at_s`` None: nothing says that it is revoked; ``reason`` certificateHold: on hold.
    ``part``: of a divided CA, the one that the certificate is in (``import_parts``), None for none.
    """

    serial: bytes
    not_before_s: int | None
    not_after_s: int | None
    der: bytes | None
    revoked_at_s: int | None
    reason: int | None
    invalidity_s: int
    told_by: str
    line: int
    part: int | None = None

    @property
    def is_held(self) -> bool:
        """Say whether it is on hold."""
        return self.revoked_at_s is not None and self.reason == CRLReason.CERTIFICATE_HOLD


class Sheet:
    """One import's sheet, in a file at *path* that is made anew."""

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(path, isolation_level=None)
        # Nothing here outlives the process, so nothing needs to be safe.
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.execute("PRAGMA cache_size = -32768")
        for table in (_ROWS, _POINTS, _LISTINGS):
            self._database.execute(table)
        self._database.execute("BEGIN")

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    # --- writing -------------------------------------------------------------------------------------

    def add_certificate(self, fields: CertificateFields, der: bytes, file: str, line: int) -> None:
        """Take in a certificate.  Raises: ImportRefused — its number is another certificate's already."""
        try:
            self._database.execute(
                "INSERT INTO sheet (serial, not_before_s, not_after_s, der, told_by, line)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (fields.serial, fields.not_before_s, fields.not_after_s, der, file, line),
            )
        except sqlite3.IntegrityError:
            there = self.get(fields.serial)
            assert there is not None
            if there.der != der:
                raise ImportRefused(
                    file,
                    line,
                    "serial number",
                    f"{fields.serial.hex()} is another certificate's in {_place(there)}",
                ) from None

    def add_index_line(self, item: IndexLine, file: str) -> None:
        """Take in a line of an index.txt.

        Raises: ImportRefused — its number stood in another line, or its certificate ends at another time.
        """
        revoked = (item.revoked_at_s, item.reason, item.invalidity_s)
        try:
            self._database.execute(
                "INSERT INTO sheet (serial, not_after_s, revoked_at_s, reason, invalidity_s, told_by, line,"
                " index_line) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (item.serial, item.not_after_s, *revoked, file, item.line, item.line),
            )
        except sqlite3.IntegrityError:
            there = self.get(item.serial)
            assert there is not None
            (before,) = self._database.execute(
                "SELECT index_line FROM sheet WHERE serial = ?", (item.serial,)
            ).fetchone()
            if before is not None:
                raise ImportRefused(
                    file, item.line, "serial number", f"{item.serial.hex()} stands in line {before} already"
                ) from None
            if there.not_after_s != item.not_after_s:
                raise ImportRefused(
                    file, item.line, "expiry date", f"the certificate in {_place(there)} ends at another time"
                ) from None
            self._database.execute(
                "UPDATE sheet SET revoked_at_s = ?, reason = ?, invalidity_s = ?, index_line = ?"
                " WHERE serial = ?",
                (*revoked, item.line, item.serial),
            )

    def add_crl_entry(self, entry: CRLEntry, file: str) -> None:
        """Take in a CRL's entry; it goes before what an index.txt says, but takes no revocation back."""
        reason = None if entry.reason == CRLReason.UNSPECIFIED else entry.reason
        there = self.get(entry.serial)
        if there is None:
            self._database.execute(
                "INSERT INTO sheet (serial, revoked_at_s, reason, invalidity_s, told_by, line)"
                " VALUES (?, ?, ?, ?, ?, 0)",
                (entry.serial, entry.revoked_at_s, reason, entry.invalidity_at_s or 0, file),
            )
            return
        is_hold = reason == CRLReason.CERTIFICATE_HOLD
        if there.revoked_at_s is not None and is_hold and not there.is_held:
            return
        self._database.execute(
            "UPDATE sheet SET revoked_at_s = ?, reason = ?, invalidity_s = ? WHERE serial = ?",
            (entry.revoked_at_s, reason, entry.invalidity_at_s or there.invalidity_s, entry.serial),
        )

    def add_points(self, serial: bytes, parts: Iterable[int]) -> None:
        """Note which parts a certificate names."""
        self._database.executemany(
            "INSERT OR IGNORE INTO point (serial, part) VALUES (?, ?)", ((serial, part) for part in parts)
        )

    def add_listing(self, serial: bytes, part: int) -> int:
        """Note on which part's CRL a number stands; return the part on whose CRL it was found first."""
        self._database.execute("INSERT OR IGNORE INTO listing (serial, part) VALUES (?, ?)", (serial, part))
        found = self._database.execute("SELECT part FROM listing WHERE serial = ?", (serial,)).fetchone()
        return int(found[0])

    # --- reading -------------------------------------------------------------------------------------

    def query(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Run a statement of somebody who knows the tables (``import_parts``); return its rows."""
        return self._database.execute(statement, values).fetchall()

    def __len__(self) -> int:
        """Return how many certificates are on the sheet."""
        return int(self._database.execute("SELECT count(*) FROM sheet").fetchone()[0])

    def get(self, serial: bytes) -> SheetRow | None:
        """Return one certificate's row, or None."""
        row = self._database.execute(
            f"SELECT {_COLUMNS} FROM sheet WHERE serial = ?",
            (serial,),
        ).fetchone()
        return None if row is None else SheetRow(*row)

    def pages(self, rows: int) -> Iterator[list[SheetRow]]:
        """Yield all rows by rising serial number, at most *rows* at a time."""
        last = b""
        while True:
            page = self._database.execute(
                f"SELECT {_COLUMNS} FROM sheet WHERE serial > ? ORDER BY serial LIMIT ?",
                (last, rows),
            ).fetchall()
            if not page:
                return
            yield [SheetRow(*row) for row in page]
            last = page[-1][0]


def _place(row: SheetRow) -> str:
    return f"{row.told_by}, line {row.line}" if row.line else row.told_by
