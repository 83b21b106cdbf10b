"""Reading all the files of an import onto the sheet, each checked on the way.

Knows: which files of a folder are taken for certificates, that each certificate must be signed by the
CA's key, and in which order the files go onto the sheet.
Does not know: what is recorded of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from certstatus.errors import ImportRefused, printable
from issuance.import_ca import CAToImport
from issuance.import_certificate import FieldError, is_issued_by, read_certificate
from issuance.import_crl import ForeignCRL
from issuance.import_index_txt import read_index_txt
from issuance.import_parts import recognise_whole
from issuance.import_pem import read_pieces
from issuance.import_points import FIELD, certificate_points, crl_points, points_text
from issuance.import_scopes import Division
from issuance.import_sheet import Sheet

# What a CA calls its certificates' files; others in a folder are passed over, and counted.
SUFFIXES = (".pem", ".crt", ".cer", ".der")
_LABELS = ("", "CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE")
_TOLD_EVERY = 1000

# Called with (what is being done, how much of it is done).
Progress = Callable[[str, int], None]


@dataclass(frozen=True, slots=True)
class Sources:
    """The files of an import; the CRL is read and checked already, ``crl_name`` says where it was.

    ``division``: of a CA that divides its certificates, in place of the one CRL.
    """

    certificates: tuple[Path, ...] = ()
    index_txt: Path | None = None
    crl: ForeignCRL | None = None
    crl_name: str = ""
    division: Division | None = None


@dataclass(slots=True)
class FilesRead:
    """What was read: counts, and every encoding of the issuer's name in the certificates.

    ``division``: that of the sources, with the CRL of all certificates recognised by these.
    """

    certificates: int = 0
    index_lines: int = 0
    crl_entries: int = 0
    passed_over: int = 0
    names_der: set[bytes] = field(default_factory=set)
    division: Division | None = None


def read_sources(sheet: Sheet, ca: CAToImport, sources: Sources, progress: Progress) -> FilesRead:
    """Put everything in *sources* onto *sheet*.

    Raises: ImportRefused — the first file that is not what it must be, with line and field.
    """
    read = FilesRead()
    for path in sources.certificates:
        _read_certificates(sheet, ca, path, sources, read, progress)
    if sources.index_txt is not None:
        for item in read_index_txt(sources.index_txt):
            sheet.add_index_line(item, printable(sources.index_txt))
            read.index_lines += 1
            if read.index_lines % _TOLD_EVERY == 0:
                progress("reading index.txt", read.index_lines)
        progress("reading index.txt", read.index_lines)
    if sources.crl is not None:
        for entry in sources.crl.entries:
            sheet.add_crl_entry(entry, printable(sources.crl_name))
            read.crl_entries += 1
    if sources.division is not None:
        read.division = recognise_whole(sheet, sources.division)
        _read_divided(sheet, read.division, read)
    return read


def _read_divided(sheet: Sheet, division: Division, read: FilesRead) -> None:
    """Put the entries of all CRLs of a divided CA onto the sheet, and on which part's CRL each stands."""
    for crl, source in division.given:
        part = division.place_of(crl.idp_der)
        for entry in crl.entries:
            sheet.add_crl_entry(entry, printable(source))
            read.crl_entries += 1
            if part is None:
                continue
            first = sheet.add_listing(entry.serial, part)
            if first != part:
                other = next(item for item in division.parts if item.place == first)
                raise ImportRefused(
                    source,
                    0,
                    f"serial {entry.serial.hex()}",
                    f"stands on the CRL of {points_text(other.idp_der)} as well, and nobody is in two parts",
                )


def _read_certificates(
    sheet: Sheet, ca: CAToImport, given: Path, sources: Sources, read: FilesRead, progress: Progress
) -> None:
    before = read.certificates
    points = frozenset() if sources.crl is None else crl_points(sources.crl.idp_der)
    for path in _files(given, read):
        for piece in read_pieces(path):
            if piece.label not in _LABELS:
                raise ImportRefused(path, piece.line, "PEM", f"{piece.label}, expected CERTIFICATE")
            try:
                fields = read_certificate(piece.der)
                ours = is_issued_by(fields, piece.der, ca.public_key)
                is_parted = bool(points) or sources.division is not None
                named = certificate_points(fields) if is_parted else frozenset()
                is_covered = not points or not points.isdisjoint(named)
            except FieldError as exc:
                raise ImportRefused(path, piece.line, exc.field, str(exc)) from exc
            if not ours:
                raise ImportRefused(
                    path,
                    piece.line,
                    "signature",
                    f"certificate {fields.serial.hex()} was not issued by the CA in {ca.path}",
                )
            if not is_covered:
                assert sources.crl is not None
                raise ImportRefused(
                    sources.crl_name,
                    0,
                    FIELD,
                    f"the CRL is of {points_text(sources.crl.idp_der)} alone, which certificate"
                    f" {fields.serial.hex()} in {printable(path)} does not name; a CRL that covers every"
                    " certificate is needed",
                )
            read.names_der.add(fields.issuer_der)
            sheet.add_certificate(fields, piece.der, printable(path), piece.line)
            if sources.division is not None:
                sheet.add_points(fields.serial, sources.division.places_of(named))
            read.certificates += 1
            if read.certificates % _TOLD_EVERY == 0:
                progress("reading certificates", read.certificates)
    if read.certificates == before:
        raise ImportRefused(given, 0, "content", f"no certificate in it ({', '.join(SUFFIXES)})")
    progress("reading certificates", read.certificates)


def _files(given: Path, read: FilesRead) -> Iterator[Path]:
    """Yield the certificates' files below *given*, or itself.

    Raises: ImportRefused — a folder in it cannot be read: what is not read must not be taken for not there.
    """
    if not given.is_dir():
        yield given
        return
    for folder, folders, names in os.walk(given, onerror=_refuse):
        folders.sort()
        for name in sorted(names):
            path = Path(folder, name)
            # A link that leads nowhere is opened as well, to say so.
            is_file = path.is_file() or path.is_symlink()
            if is_file and path.suffix.lower() in SUFFIXES and not name.startswith("."):
                yield path
            else:
                read.passed_over += 1
        for name in folders:
            if Path(folder, name).is_symlink():
                # Not followed, for it may lead back.
                read.passed_over += 1


def _refuse(error: OSError) -> None:
    raise ImportRefused(error.filename, 0, "folder", error.strerror or str(error)) from error
