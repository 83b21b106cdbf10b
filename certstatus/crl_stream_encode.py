"""A CRL written to a file block by block, hashed meanwhile, and signed: long lists in little memory.

::

    rows ─▶ entries in DER ─▶ SHA ─▶ file          one pass, behind room for the outermost header
                               └─▶ lint ─▶ signature ─▶ end of the file, then that header ─▶ fsync

Knows: the order of these steps, and that the outermost header, which comes first, is known last.
Does not know: keys (signing is a call), what is wrong with a list (linting is one, too), names of files.
Source: RFC 5280 §5.1.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from certstatus.crl import CRLFields, frame_certificate_list, frame_tbs_cert_list
from certstatus.crl_row_encode import RowEncoder
from certstatus.crl_row_facts import RowFacts
from certstatus.crl_rows import Rows
from certstatus.crl_rows_file import ROWS_AT_ONCE, RowsFile
from certstatus.errors import CRLCheckFailed

# So long the signature is taken to be until it is there; a P-256 one has 70 to 72 octets.
_SIGNATURE_OCTETS = 72
_MOVED_AT_ONCE = 1 << 20


class WrittenCRL(NamedTuple):
    """A file that was written: its octets, and what its entries say."""

    size: int
    facts: RowFacts


def write_crl(
    path: Path,
    fields: CRLFields,
    rows: RowsFile | Rows,
    *,
    sign: Callable[[bytes], bytes],
    hash_name: str,
    lint: Callable[[RowFacts], list[str]],
    synced: bool = True,
) -> WrittenCRL:
    """Write the signed CRL of *rows* to *path*.

    Takes:   *sign*: from the digest by *hash_name* (a name that hashlib knows) of the signed part to the
             signature; *lint*: from what the entries say to what is wrong with them, asked before signing;
             *synced*: whether it is on the disk on return.
    Raises:  CRLCheckFailed — with what *lint* found; as ``frame_tbs_cert_list``; rows that are not what their
             file's head says; OSError; what *sign* raises.  Then there is no file at *path*.
    Cost:    about 20 ns an entry beside hashing and writing its octets.
    Memory:  a few blocks of ``ROWS_AT_ONCE`` rows.
    """
    try:
        with path.open("w+b", buffering=0) as file:
            written = _write(file.fileno(), fields, rows, sign, hash_name, lint)
            if synced:
                os.fsync(file.fileno())
    except BaseException:
        # What a full disk has taken of it must not keep the disk full.
        if path.is_file():
            path.unlink()
        raise
    return written


def _write(
    descriptor: int,
    fields: CRLFields,
    rows: RowsFile | Rows,
    sign: Callable[[bytes], bytes],
    hash_name: str,
    lint: Callable[[RowFacts], list[str]],
) -> WrittenCRL:
    octets = _der_octets(rows)
    before, after = frame_tbs_cert_list(**fields._asdict(), entries_octets=octets)
    tbs_octets = len(before) + octets + len(after)
    room = len(_outer(tbs_octets, fields, bytes(_SIGNATURE_OCTETS))[0])
    at = room
    hashed = hashlib.new(hash_name)
    facts = RowFacts()
    for piece in _pieces(before, rows, after, facts):
        hashed.update(piece)
        at = _put(descriptor, piece, at)
    if facts.der_octets != octets or at != room + tbs_octets:
        raise CRLCheckFailed(["certstatus.crl_rows_differ_from_head"])
    findings = lint(facts)
    if findings:
        raise CRLCheckFailed(findings)
    header, end = _outer(tbs_octets, fields, sign(hashed.digest()))
    if len(header) != room:
        _move(descriptor, room, at, len(header) - room)
        at += len(header) - room
    at = _put(descriptor, end, at)
    _put(descriptor, header, 0)
    os.ftruncate(descriptor, at)
    return WrittenCRL(at, facts)


def _der_octets(rows: RowsFile | Rows) -> int:
    if isinstance(rows, RowsFile):
        return rows.head.der_octets
    return int(rows["der_len"].sum(dtype=np.int64))


def _pieces(
    before: bytes, rows: RowsFile | Rows, after: bytes, facts: RowFacts
) -> Iterator[memoryview | bytes]:
    """Yield the signed part piece by piece, each to be used before the next."""
    encoder = RowEncoder(ROWS_AT_ONCE)
    yield before
    for block in blocks_of(rows):
        facts.add(block)
        yield encoder.encode(block).data
    yield after


def blocks_of(rows: RowsFile | Rows) -> Iterable[Rows]:
    """Return rows, in memory or not, block by block."""
    if isinstance(rows, RowsFile):
        return rows.blocks()
    return (rows[start : start + ROWS_AT_ONCE] for start in range(0, len(rows), ROWS_AT_ONCE))


def _outer(tbs_octets: int, fields: CRLFields, signature: bytes) -> tuple[bytes, bytes]:
    return frame_certificate_list(tbs_octets, fields.signature_algorithm_der, signature)


def _put(descriptor: int, content: bytes | memoryview, at: int) -> int:
    """Write *content* at an offset; return where it ends."""
    view = memoryview(content)
    while view:
        count = os.pwrite(descriptor, view, at)
        view, at = view[count:], at + count
    return at


def _move(descriptor: int, start: int, stop: int, by: int) -> None:
    """Move the octets from *start* to *stop* by a few: the signature was not as long as was thought."""
    offsets = range(start, stop, _MOVED_AT_ONCE)
    for at in offsets if by < 0 else reversed(offsets):
        content = os.pread(descriptor, min(_MOVED_AT_ONCE, stop - at), at)
        _put(descriptor, content, at + by)
