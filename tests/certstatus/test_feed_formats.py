"""Changes, beats and documents: what they hold, and that nothing forged gets through."""

from __future__ import annotations

import hashlib
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from certstatus import beat as beats
from certstatus import changes, documents
from certstatus.certificate_request import CertificateRequest, read_request
from certstatus.errors import FeedError, MalformedRequest, SnapshotError
from certstatus.issuer_table import Issuer, issuer_table_content, read_issuer_table
from certstatus.leases import WorkerAck, encode_seen, read_ack, read_seen
from certstatus.snapshot import read_manifest

KEY = Ed25519PrivateKey.generate()
# Whether a change of a kind tells a hash; all others never do.
_HASHED = {changes.ChangeKind.ISSUED: (False, True), changes.ChangeKind.CERTIFICATE_HASH: (True,)}
POINTER = beats.Pointer(7, bytes(range(32)))
BEAT = beats.Beat(bytes(16), 41, 1_700_000_000_123, b"c" * 32, POINTER, POINTER, beats.NOTHING, POINTER)


@given(
    kind=st.sampled_from(changes.ChangeKind),
    issuer_id=st.integers(1, 65_535),
    mark=st.binary(min_size=12, max_size=12),
    day=st.integers(0, 65_535),
    reason=st.none() | st.integers(0, 10),
    recorded_ms=st.integers(0, 2**63),
    seq=st.integers(1, 2**63),
    invalidity_s=st.integers(0, 2**32 - 1),
    sha256=st.just(b"") | st.binary(min_size=32, max_size=32),
)
def test_a_packed_change_gives_back_what_went_in(
    kind: changes.ChangeKind,
    issuer_id: int,
    mark: bytes,
    day: int,
    reason: int | None,
    recorded_ms: int,
    seq: int,
    invalidity_s: int,
    sha256: bytes,
) -> None:
    """unpack(pack(x)) is x for every kind and the whole range of every field; a misplaced hash is refused."""
    packed = changes.pack_change(kind, issuer_id, mark, day, reason, recorded_ms, seq, invalidity_s, sha256)
    assert len(packed) == 40 + len(sha256)
    if bool(sha256) not in _HASHED.get(kind, (False,)):
        with pytest.raises(FeedError):
            changes.unpack_change(packed)
        return
    wanted = changes.NO_REASON if reason is None else reason
    assert changes.unpack_change(packed) == (
        kind,
        wanted,
        issuer_id,
        day,
        mark,
        invalidity_s,
        recorded_ms,
        seq,
        sha256,
    )


@pytest.mark.parametrize(
    "packed",
    [b"", bytes(39), bytes(41), bytes(40), b"\x0b" + bytes(39), b"\x0b" + bytes(71), b"\x01" + bytes(70)],
)
def test_a_change_of_wrong_length_or_kind_is_refused(packed: bytes) -> None:
    """Anything but 40 bytes, or 72 with a hash, of a known kind is a FeedError."""
    with pytest.raises(FeedError):
        changes.unpack_change(packed)


def test_the_fingerprint_depends_on_the_key() -> None:
    """The same serial under another key gives another fingerprint, of 96 bits."""
    first = changes.fingerprint(b"\x01\x02", b"a" * 32)
    assert len(first) == 12
    assert first == changes.fingerprint(b"\x01\x02", b"a" * 32)
    assert first != changes.fingerprint(b"\x01\x02", b"b" * 32)


@given(st.lists(st.binary(max_size=64), min_size=2, max_size=4), st.binary(min_size=32, max_size=32))
def test_a_fingerprinter_is_the_fingerprint_under_its_key(serials: list[bytes], index_key: bytes) -> None:
    """One after another, each by itself."""
    fingerprinter = changes.Fingerprinter(index_key)
    assert [fingerprinter(serial) for serial in serials] == [
        changes.fingerprint(serial, index_key) for serial in serials
    ]


def test_the_chain_is_a_plain_running_hash() -> None:
    """The chain starts at SHA-256(epoch) and takes each packed change in turn."""
    chain = changes.first_chain(b"e" * 16)
    assert chain == hashlib.sha256(b"e" * 16).digest()
    assert changes.next_chain(chain, b"x" * 40) == hashlib.sha256(chain + b"x" * 40).digest()


def test_a_signed_beat_verifies_and_gives_back_what_went_in() -> None:
    """A beat round-trips through its 292 bytes, and its ID is the cut it speaks of."""
    signed = beats.sign_beat(BEAT, KEY)
    assert len(signed) == beats.BEAT_BYTES == 292
    assert beats.verify_beat(signed, KEY.public_key()) == BEAT
    assert BEAT.entry_id == "41-1700000000123"


def test_every_flipped_bit_of_a_beat_is_found() -> None:
    """No single changed byte, truncation or extension of a beat verifies."""
    signed = beats.sign_beat(BEAT, KEY)
    public = KEY.public_key()
    for at in range(len(signed)):
        torn = bytearray(signed)
        torn[at] ^= 1
        with pytest.raises(FeedError):
            beats.verify_beat(bytes(torn), public)
    for wrong in (signed[:-1], signed + b"\0", b""):
        with pytest.raises(FeedError):
            beats.verify_beat(wrong, public)
    with pytest.raises(FeedError):
        beats.verify_beat(signed, Ed25519PrivateKey.generate().public_key())


def test_a_document_opens_only_under_the_pointer_that_names_it() -> None:
    """Another hash, another generation inside, or something that is not JSON is refused."""
    document = documents.encode_document({"generation": 3, "b": 1, "a": "証"})
    pointer = documents.document_pointer(document)
    assert documents.open_document(document, pointer) == {"generation": 3, "b": 1, "a": "証"}
    with pytest.raises(FeedError):
        documents.open_document(document + b" ", pointer)
    with pytest.raises(FeedError):
        documents.open_document(document, beats.Pointer(4, pointer.sha256))
    for text in (b"{", b"[]", b"{}"):
        with pytest.raises(FeedError):
            documents.open_document(text, beats.Pointer(3, hashlib.sha256(text).digest()))


def test_a_document_has_one_encoding() -> None:
    """The order in which members were put in does not change the bytes."""
    assert documents.encode_document({"a": 1, "generation": 2}) == documents.encode_document(
        {"generation": 2, "a": 1}
    )


def test_the_issuer_table_round_trips() -> None:
    """Issuers come back from the document as they went in, ordered by issuer_id."""
    issuers = [
        Issuer(2, "AUTH", 1, (b"n2",), b"s2", b"k2", (b"c2",), ca_key_event_ms=5, dropped=("0a",)),
        Issuer(1, "SIGN", 1, (b"n1", b"n1b"), b"s1", b"k1", (b"c1",), access="public", hold=True),
    ]
    content = issuer_table_content(9, issuers)
    assert read_issuer_table(content) == [issuers[1], issuers[0]]
    assert issuers[0].path == "auth/g1"


@pytest.mark.parametrize(
    "change", [{"format": 2}, {"issuers": [{}]}, {"issuers": None}, {"issuers": [{"names": ["zz"]}]}]
)
def test_an_issuer_table_of_another_form_is_refused(change: dict[str, object]) -> None:
    """A missing member, bad hex or another format is a FeedError, not a crash."""
    content = issuer_table_content(1, []) | change
    with pytest.raises(FeedError):
        read_issuer_table(content)


ACK = WorkerAck("host.example", 3, "inc-1", 41, 60)


def test_an_acknowledgement_gives_back_what_went_in() -> None:
    """What a worker says, and what it says when it leaves."""
    for ack in (ACK, ACK._replace(incarnation=""), ACK._replace(host="役所", applied_seq=2**63 - 1)):
        assert read_ack(ack.encode()) == ack


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{}",
        b'["h", 0, "i", 1]',
        b"[" * 100_000,
        ACK._replace(host="\ud800").encode(),
        ACK._replace(incarnation="\ud800").encode(),
        ACK._replace(incarnation="a\0b").encode(),
        ACK._replace(slot=2**31).encode(),
        ACK._replace(slot=True).encode(),
        ACK._replace(applied_seq=2**63).encode(),
        ACK._replace(applied_seq=-1).encode(),
        ACK._replace(age_max_s=10**9).encode(),
        b'["h", 0, "i", 1.5, 60]',
        b'["h", 0, "i", %b, 60]' % (b"9" * 5000),
    ],
)
def test_an_acknowledgement_that_cannot_be_kept_is_refused(text: bytes) -> None:
    """What a host may write into Valkey never stops the feed that reads it."""
    with pytest.raises(FeedError):
        read_ack(text)


def test_who_is_seen_is_read_whatever_stands_there() -> None:
    """Incarnation and cut come back; anything else names nobody."""
    assert read_seen(encode_seen("inc-1", 41).encode()) == ("inc-1", 41)
    for text in (None, b"", b"inc-1", b"inc-1 ", b" 5", b"inc-1 x", b"\xff", b"inc-1 " + b"9" * 5000):
        assert read_seen(text) == ("", 0)


REQUEST = CertificateRequest("host.example", 7, "-----BEGIN", 1_700_000_000_123)


def test_a_certificate_request_gives_back_what_went_in() -> None:
    """Signed by a host and read again."""
    text = REQUEST.sign(KEY)
    request, signature = read_request(text)
    assert request == REQUEST
    request.verify(signature, KEY.public_key())


@pytest.mark.parametrize(
    "change",
    [
        {"host": "\ud800"},
        {"host": "a\0b"},
        {"csr": "\ud800"},
        {"issuer_id": 1 << 16},
        {"issuer_id": True},
        {"time_ms": 1 << 63},
        {"time_ms": -1},
        {"time_ms": 1.5},
        {"signature": "zz"},
    ],
)
def test_a_certificate_request_that_cannot_be_meant_is_malformed(change: dict[str, object]) -> None:
    """What anybody may write into Valkey never stops the builder that reads it."""
    content = json.loads(REQUEST.sign(KEY)) | change
    with pytest.raises(MalformedRequest):
        read_request(json.dumps(content).encode())
    with pytest.raises(MalformedRequest):
        read_request(b"[" * 16_000)


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b"[" * 100_000, b'{"format":1,"chunk_bytes":1048576}'])
def test_a_document_or_manifest_of_another_form_is_refused(text: bytes) -> None:
    """Even under the hash that a beat names, it is its reader's own error."""
    sha256 = hashlib.sha256(text).digest()
    with pytest.raises(FeedError):
        documents.open_document(text, beats.Pointer(1, sha256))
    with pytest.raises(SnapshotError):
        read_manifest(text, sha256)
