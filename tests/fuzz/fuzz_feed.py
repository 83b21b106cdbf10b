"""What comes out of Valkey: acknowledgements, seen keys, certificate requests, changes, beats, documents,
manifests and the head of a snapshot.

Input: an octet that says which, then its text.  Oracles: each reader raises its own error only, whatever
stands there; what it takes, its writer writes again the same, and a database can keep.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import suppress

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from certstatus import beat, changes
from certstatus.certificate_request import CertificateRequest, read_request
from certstatus.crl_catalogue import (
    CatalogueEntry,
    CatalogueRoot,
    encode_page,
    read_page,
    read_root,
    root_content,
    scopes_of_entries,
)
from certstatus.crl_chunks import ASKED_MAX, ChunkName, ChunkRequest, read_chunk_request
from certstatus.crl_pack import ArchiveMark, PackLine
from certstatus.documents import encode_document, open_document
from certstatus.entitlements import KINDS, Verifier, entitlements_content, parse_network, read_entitlements
from certstatus.errors import FeedError, MalformedRequest, NotEntitled, SnapshotError
from certstatus.issuer_table import Issuer, issuer_table_content, read_issuer_table
from certstatus.leases import WorkerAck, encode_seen, read_ack, read_seen
from certstatus.snapshot import (
    CHUNK_BYTES,
    HASH_ROW_BYTES,
    HEADER,
    HEADER_BYTES,
    ROW_BYTES,
    SECTION,
    Manifest,
    read_head,
    read_manifest,
)

_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
_PUBLIC = _KEY.public_key()
_NOW_S = 1_900_000_000
_BEAT_BODY_BYTES = beat.BEAT_BYTES - 64

WORDS = (
    *(b"CSB1", b"CSX1", b'"host"', b'"issuer_id"', b'"csr"', b'"time_ms"', b'"signature"', b'"format"'),
    *(b'"generation"', b'"issuers"', b'"verifiers"', b'"crls"', b'"networks"', b'"grants"', b'"foreign_crl"'),
    *(b"\\ud800", b"\\u0000", b"Infinity", b"NaN", b"1e999", b"true", b"null", b"[]", b"{}", b"[[[["),
)


def seeds() -> Iterator[tuple[str, bytes]]:
    """One right text for each reader."""
    pointer = beat.Pointer(7, bytes(range(32)))
    signed = beat.sign_beat(
        beat.Beat(bytes(16), 41, _NOW_S * 1000, b"c" * 32, pointer, pointer, beat.NOTHING, pointer), _KEY
    )
    issuer = Issuer(1, "SIGN", 1, (b"0",), b"0", b"k", (b"c",), foreign_crl=(1, 2), dropped=("01",))
    grants: dict[str, tuple[str, ...]] = {"SIGN": KINDS}
    verifier = Verifier(7, "役所", (parse_network("192.0.2.0/24"),), grants, 10, 20)
    entry = CatalogueEntry(1, "all", "delta", "s/1.crl", "s/d.crl", True, 2, 1, 41, 5, 7, 6, 9, "00")
    archive = ArchiveMark("ab" * 32, (PackLine("2026-11-29", 2, "cd" * 32),))
    manifest = Manifest("00" * 16, 41, CHUNK_BYTES + 1, ("aa", "bb"))
    head = HEADER.pack(b"CSX1", 1, bytes(16), 41, _NOW_S * 1000, b"c" * 32)
    section = SECTION.pack(1, 0, 0, 1, 256, 0, 0, 0, 0, 0, 0)
    texts = [
        WorkerAck("host.example", 3, "inc-1", 41, 60).encode(),
        encode_seen("inc-1", 41).encode(),
        CertificateRequest("host.example", 1, "-----BEGIN", _NOW_S * 1000).sign(_KEY),
        changes.pack_change(1, 1, b"f" * 12, 40_000, 1, _NOW_S * 1000, 41, 5, b"h" * 32),
        signed[:_BEAT_BODY_BYTES],
        signed,
        encode_document(issuer_table_content(3, [issuer])),
        encode_document(entitlements_content(3, [verifier])),
        encode_document(root_content(CatalogueRoot(3, ("ef" * 32,), archive))),
        manifest.encode(),
        (head + section).ljust(256, b"\0") + bytes(ROW_BYTES),
        encode_page(tuple(scopes_of_entries([entry], {"s": "清瀬市"}, 3))),
        ChunkRequest("host.example", (ChunkName("ab" * 32, 0), ChunkName("cd" * 32, 7))).encode(),
    ]
    for number, (reader, text) in enumerate(zip(_READERS, texts, strict=True)):
        yield reader.__name__.strip("_"), bytes((number,)) + text
    for number in (0, 2, 6, 9):
        yield f"deep-{number}", bytes((number,)) + b"[" * 3000


def one_input(data: bytes) -> None:
    """Read the text after the first octet of *data*."""
    if data:
        _READERS[data[0] % len(_READERS)](data[1:])


def _ack(text: bytes) -> None:
    try:
        ack = read_ack(text)
    except FeedError:
        return
    assert read_ack(ack.encode()) == ack
    _check_kept(ack.host, ack.incarnation)
    assert 0 <= ack.slot < 1 << 31
    assert 0 <= ack.applied_seq < 1 << 63
    assert (ack.age_max_s * 1000 + (1 << 42)) < 1 << 63


def _check_kept(*texts: str) -> None:
    """Every database takes these texts."""
    for text in texts:
        assert b"\0" not in text.encode()


def _seen(text: bytes) -> None:
    incarnation, noted_seq = read_seen(text)
    assert read_seen(encode_seen(incarnation, noted_seq).encode()) == (incarnation, noted_seq)
    assert read_seen(None) == ("", 0)


def _request(text: bytes) -> None:
    try:
        request, signature = read_request(text)
    except MalformedRequest:
        return
    _check_kept(request.host)
    assert 0 <= request.issuer_id < 1 << 31
    assert 0 <= request.time_ms < 1 << 63
    with suppress(NotEntitled):
        request.verify(signature, _PUBLIC)
    again, _ = read_request(request.sign(_KEY))
    assert again == request


def _change(text: bytes) -> None:
    try:
        change = changes.unpack_change(text)
    except FeedError:
        return
    packed = changes.pack_change(
        change.kind,
        change.issuer_id,
        change.fingerprint,
        change.not_after_day,
        None if change.reason == changes.NO_REASON else change.reason,
        change.recorded_ms,
        change.seq,
        change.invalidity_s,
        change.certificate_sha256,
    )
    assert packed == text


def _signed_beat(body: bytes) -> None:
    """A body of any octets under a good signature."""
    body = body[:_BEAT_BODY_BYTES].ljust(_BEAT_BODY_BYTES, b"\0")
    signed = body + _KEY.sign(body)
    try:
        read = beat.verify_beat(signed, _PUBLIC)
    except FeedError:
        assert not body.startswith(b"CSB1")
        return
    assert beat.sign_beat(read, _KEY) == signed


def _beat(text: bytes) -> None:
    """Octets that the publisher did not sign, unless they are the ones it did."""
    try:
        read = beat.verify_beat(text, _PUBLIC)
    except FeedError:
        return
    assert beat.sign_beat(read, _KEY) == text


def _document(text: bytes) -> tuple[dict[str, object], int] | None:
    """Open *text* as what a beat vouches for."""
    try:
        generation = json.loads(text)["generation"]
    except (ValueError, TypeError, KeyError, IndexError, RecursionError):
        generation = 0
    if type(generation) is not int:
        generation = 0
    try:
        content = open_document(text, beat.Pointer(generation, hashlib.sha256(text).digest()))
    except FeedError:
        return None
    return content, generation


def _issuers(text: bytes) -> None:
    opened = _document(text)
    if opened is not None:
        try:
            issuers = read_issuer_table(opened[0])
        except FeedError:
            return
        assert all(isinstance(issuer.spki_der, bytes) for issuer in issuers)


def _entitlements(text: bytes) -> None:
    opened = _document(text)
    if opened is not None:
        try:
            read = read_entitlements(opened[0], _NOW_S)
        except FeedError:
            return
        assert read.boundary_s > _NOW_S


def _catalogue(text: bytes) -> None:
    opened = _document(text)
    if opened is not None:
        try:
            root = read_root(opened[0])
        except FeedError:
            return
        assert read_root(root_content(root)) == root


def _page(text: bytes) -> None:
    try:
        scopes = read_page(text, hashlib.sha256(text).hexdigest())
    except FeedError:
        return
    if scopes:
        again = encode_page(scopes)
        assert repr(read_page(again, hashlib.sha256(again).hexdigest())) == repr(scopes)


def _chunks(text: bytes) -> None:
    try:
        request = read_chunk_request(text)
    except FeedError:
        return
    assert len(request.chunks) <= ASKED_MAX
    assert read_chunk_request(request.encode()) == request


def _manifest(text: bytes) -> None:
    try:
        manifest = read_manifest(text, hashlib.sha256(text).digest())
    except SnapshotError:
        return
    assert -(-manifest.size // CHUNK_BYTES) == len(manifest.chunks)
    assert read_manifest(manifest.encode(), hashlib.sha256(manifest.encode()).digest()) == manifest


def _head(text: bytes) -> None:
    try:
        head = read_head(memoryview(text))
    except SnapshotError:
        return
    assert len(text) >= HEADER_BYTES
    for place in head.sections:
        for table in (place.issued, place.revoked, place.invalidity):
            assert 0 <= table.offset <= table.offset + table.rows * ROW_BYTES <= len(text)
        assert place.hashes.offset + place.hashes.rows * HASH_ROW_BYTES <= len(text)


_READERS: tuple[Callable[[bytes], None], ...] = (
    *(_ack, _seen, _request, _change, _signed_beat, _beat, _issuers, _entitlements, _catalogue),
    *(_manifest, _head, _page, _chunks),
)
