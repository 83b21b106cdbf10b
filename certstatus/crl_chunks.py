"""CRL files on their way to a host: which pieces there are of one, and how a host asks for them.

::

    host ── RPUSH request:crls [host, [[sha256, n], ...]] ──▶ publisher
    host ◀── GET crls:file:<sha256>:<n>: SHA-256 of the piece 32, the piece ── publisher, for a minute

A file is asked for by its hash and by nothing else: what can be asked for is what the catalogue names.
Pieces lie in Valkey for whoever wants them: hosts that fetch the same file share them.  A snapshot's pieces
all lie there for as long as it is current; all CRLs of a nation would be too much of its memory.
A piece's own hash tells a torn one at once; that the file is right only the hash over all of it says.
Knows: sizes and the request's form.  Does not know: Valkey, files, catalogues.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from certstatus.errors import FeedError
from certstatus.snapshot import CHUNK_BYTES as VALUE_BYTES_MAX

# What lies before a piece in Valkey: its hash.
SEAL_BYTES = 32
# Of the file; with its hash a piece is as long as one of a snapshot: 1 MiB.
CHUNK_BYTES = VALUE_BYTES_MAX - SEAL_BYTES
# In one request: pieces, and octets of them.
ASKED_MAX = 64
ASKED_BYTES_MAX = 4 * CHUNK_BYTES
# A request is longer than this only by mistake.
REQUEST_BYTES_MAX = 16_384
_HOST_MAX = 256
_SHA256 = re.compile(r"[0-9a-f]{64}")


class ChunkName(NamedTuple):
    """One piece of a file: the file's SHA-256 in hex, and the piece's number from 0."""

    sha256: str
    number: int


class ChunkRequest(NamedTuple):
    """What a host asks for; with it the host says that it waits for no other pieces any more.

    A piece that it asks for once more is one that it could not use; no pieces: it waits for none.
    """

    host: str
    chunks: tuple[ChunkName, ...]

    def encode(self) -> bytes:
        """Return the octets of the request."""
        return json.dumps([self.host, self.chunks], separators=(",", ":")).encode()


def read_chunk_request(octets: bytes) -> ChunkRequest:
    """Return the request.  Raises: FeedError — it has not its form, or asks for too much."""
    if len(octets) > REQUEST_BYTES_MAX:
        raise FeedError(f"a request for CRL files of {len(octets)} bytes")
    try:
        host, asked = json.loads(octets)
        chunks = tuple(ChunkName(sha256, number) for sha256, number in asked)
    except (ValueError, TypeError, RecursionError) as exc:
        raise FeedError(f"a request for CRL files: {exc!r:.200}") from exc
    if (
        not isinstance(host, str)
        or not 0 < len(host) <= _HOST_MAX
        or len(chunks) > ASKED_MAX
        or not all(
            isinstance(sha256, str)
            and _SHA256.fullmatch(sha256)
            and type(number) is int
            and 0 <= number < 1 << 32
            for sha256, number in chunks
        )
    ):
        raise FeedError(f"a request for CRL files: {octets[:200]!r}")
    return ChunkRequest(host, chunks)


def seal_chunk(content: bytes) -> bytes:
    """Return a piece as it lies in Valkey."""
    return hashlib.sha256(content).digest() + content


def open_chunk(value: bytes) -> bytes | None:
    """Return the piece, None if it is torn."""
    content = value[SEAL_BYTES:]
    return content if hashlib.sha256(content).digest() == value[:SEAL_BYTES] else None


def chunk_size(size: int, number: int) -> int:
    """Return how many octets piece *number* has of a file of *size*; 0 or less: it has no such piece."""
    return min(CHUNK_BYTES, size - number * CHUNK_BYTES)


def chunks_of(size: int, have: int = 0) -> range:
    """Return the numbers of the pieces of a file of *size* that begin at octet *have* or later."""
    return range(-(-have // CHUNK_BYTES), -(-size // CHUNK_BYTES))


def at_once(chunks: Iterable[ChunkName], sizes: Sequence[int]) -> int:
    """Return how many of *chunks*, whose octets are *sizes*, one request may ask for: at least one."""
    octets = count = 0
    for _, size in zip(chunks, sizes, strict=True):
        octets += size
        if count and (octets > ASKED_BYTES_MAX or count == ASKED_MAX):
            break
        count += 1
    return count
