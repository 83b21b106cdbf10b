"""What follows /ocsp/ in a GET, turned back into DER, beside a slow and literal reading of RFC 6960 A.1.

Oracles: the only error is MalformedRequest; both take the same paths and get the same octets; and the
octets, written as base64 again, ask the same.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from urllib.parse import quote

from certstatus.errors import MalformedRequest
from responder.plain import decode_path

_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_HEX = b"0123456789abcdefABCDEF"

WORDS = (b"%2F", b"%2B", b"%3D", b"%2f", b"%25", b"%0A", b"==", b"=", b"//", b"%")


def seeds() -> Iterator[tuple[str, bytes]]:
    """Paths as clients write them."""
    for size in (0, 1, 2, 3, 60):
        text = base64.b64encode(b"\x30" + bytes(range(0xF0, 0xF0 + 16)) * 4)[: 4 * size] or b""
        yield f"raw-{size}", text
        yield f"escaped-{size}", quote(text, safe="").encode()
    yield "padded", b"MA=="
    yield "padded-1", b"MAA="
    yield "padded-escaped", b"MA%3d%3D"
    yield "everything-escaped", b"%4D%41%3D%3D"
    yield "slash-before", b"/MAA="
    yield "slash-behind", b"MAAA/"
    yield "line-feed", b"MA%0AAA"
    yield "bad-escape", b"MA%ZZ"
    yield "bits-left", b"MB=="


def one_input(data: bytes) -> None:
    """Decode *data* both ways."""
    try:
        ours: bytes | None = decode_path(data)
    except MalformedRequest:
        ours = None
    theirs = _second_reading(data)
    assert ours == theirs, (ours, theirs)
    # DER begins with 30; what begins with a slash in base64 is never asked for.
    if ours and ours[0] < 0xFC:
        again = base64.b64encode(ours)
        assert decode_path(again) == ours
        assert decode_path(quote(again, safe="").encode()) == ours


def _second_reading(path: bytes) -> bytes | None:
    text = _unescaped(path)
    text = text.removeprefix(b"/")
    if len(text) % 4 == 1:
        text = text.removesuffix(b"/")
    if len(text) % 4:
        return None
    digits = text.rstrip(b"=")
    padding = len(text) - len(digits)
    if padding > 2 or (padding and not digits) or any(octet not in _ALPHABET for octet in digits):
        return None
    bits = "".join(f"{_ALPHABET.index(octet):06b}" for octet in digits)
    return bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits) - 7, 8))


def _unescaped(path: bytes) -> bytes:
    """Return *path* with each % and two hexadecimal digits replaced; any other % stands for itself."""
    out = bytearray()
    at = 0
    while at < len(path):
        digits = path[at + 1 : at + 3]
        if path[at] == 0x25 and len(digits) == 2 and all(octet in _HEX for octet in digits):
            out.append(int(digits, 16))
            at += 3
        else:
            out.append(path[at])
            at += 1
    return bytes(out)
