"""Documents: small canonical JSON texts that a beat vouches for by generation and hash.

Three kinds travel so: ``entitlements`` (who may ask), ``issuers`` (for whom we answer and
how), ``crls`` (which CRL files are current).  Canonical: UTF-8, sorted keys, no spaces, so
that the same content has the same SHA-256.
Knows: encoding, and checking against the beat.  Does not know: what the documents mean.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from certstatus.beat import Pointer
from certstatus.errors import FeedError

KINDS = ("entitlements", "issuers", "crls")


def encode_document(content: dict[str, Any]) -> bytes:
    """Return the canonical bytes of *content*, which must hold an int ``generation``."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def document_pointer(document: bytes) -> Pointer:
    """Return what a beat says of *document*: its generation and SHA-256."""
    return Pointer(json.loads(document)["generation"], hashlib.sha256(document).digest())


def open_document(document: bytes, pointer: Pointer) -> dict[str, Any]:
    """Return the content of *document* if it is the one *pointer* names.

    Raises: FeedError — another hash, not JSON, or another generation inside.
    """
    if hashlib.sha256(document).digest() != pointer.sha256:
        raise FeedError(f"document generation {pointer.generation} differs from the hash in the beat")
    try:
        content = json.loads(document)
    except (ValueError, RecursionError) as exc:
        raise FeedError("a document is not JSON") from exc
    if not isinstance(content, dict) or content.get("generation") != pointer.generation:
        raise FeedError(f"a document says another generation than {pointer.generation}")
    return content
