"""PEM and DER files of an import, read piece by piece, each piece with the line it begins on.

Knows: PEM's lines, and that a file which begins with a SEQUENCE is DER.
Does not know: what is inside.
Source: RFC 7468.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from certstatus.errors import ImportRefused

_BEGIN = b"-----BEGIN "
_END = b"-----END "
_DASHES = b"-----"
# Some editors put it before text in UTF-8.
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# Far above any certificate, and what keeps a damaged bundle from being read whole into memory.
_PIECE_OCTETS_MAX = 1 << 30
# PEM has 64 characters a line; what is no PEM may have no lines at all.
_LINE_OCTETS_MAX = 1 << 20


class Piece(NamedTuple):
    """One object of a file: its PEM label ("" for DER), its octets, and its first line (0 for DER)."""

    label: str
    der: bytes
    line: int


def read_pieces(path: Path) -> Iterator[Piece]:
    """Yield the objects in *path*, memory: one at a time.

    Raises: ImportRefused — cannot be read, empty, or neither PEM nor DER.
    """
    try:
        with path.open("rb") as file:
            first = file.read(1)
            if not first:
                raise ImportRefused(path, 0, "content", "the file is empty")
            file.seek(0)
            if first == b"\x30":
                content = file.read(_PIECE_OCTETS_MAX + 1)
                if len(content) > _PIECE_OCTETS_MAX:
                    raise ImportRefused(path, 0, "content", f"over {_PIECE_OCTETS_MAX} octets")
                yield Piece("", content, 0)
                return
            found = False
            for piece in _read_pem(path, _lines(path, file)):
                found = True
                yield piece
    except OSError as exc:
        raise ImportRefused(path, 0, "file", exc.strerror or str(exc)) from exc
    if not found:
        raise ImportRefused(path, 0, "content", "neither PEM nor DER")


def _lines(path: Path, file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    for number, line in enumerate(iter(lambda: file.readline(_LINE_OCTETS_MAX), b""), 1):
        if len(line) == _LINE_OCTETS_MAX:
            raise ImportRefused(path, number, "line", f"over {_LINE_OCTETS_MAX - 1} octets")
        yield number, line


def _read_pem(path: Path, lines: Iterator[tuple[int, bytes]]) -> Iterator[Piece]:
    for number, line in lines:
        text = (line.removeprefix(_BYTE_ORDER_MARK) if number == 1 else line).strip()
        if not text.startswith(_BEGIN):
            # PEM files may have text between what they hold; but what looks like the edge of something that
            # they hold is damage, and must not make it disappear.
            if _BEGIN in text or text.startswith(_END):
                raise ImportRefused(path, number, "PEM", "BEGIN or END where none can be")
            continue
        label = text.removeprefix(_BEGIN).removesuffix(_DASHES)
        if not text.endswith(_DASHES):
            raise ImportRefused(path, number, "PEM", "BEGIN line without its end")
        yield Piece(label.decode("ascii", "replace"), _body(path, lines, label, number), number)


def _body(path: Path, lines: Iterator[tuple[int, bytes]], label: bytes, began: int) -> bytes:
    body: list[bytes] = []
    size = 0
    for number, line in lines:
        text = line.strip()
        if text.startswith(_END):
            if text != _END + label + _DASHES:
                raise ImportRefused(path, number, "PEM", f"END of something else than line {began} began")
            try:
                return base64.b64decode(b"".join(body), validate=True)
            except binascii.Error as exc:
                raise ImportRefused(path, began, "PEM", f"not base64: {exc}") from exc
        size += len(text)
        if size > _PIECE_OCTETS_MAX or text.startswith(_BEGIN):
            raise ImportRefused(path, began, "PEM", f"not ended before line {number}")
        body.append(text)
    raise ImportRefused(path, began, "PEM", "cut off before its END line")
