"""CRLs written and read block by block: octet for octet what is written and read at once."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from hypothesis import given, settings
from hypothesis import strategies as st
from row_cases import ENTRIES, ordered, usual_entries

from certstatus import crl_stream_encode, der, oid
from certstatus.crl import (
    CRLFields,
    encode_certificate_list,
    encode_tbs_cert_list,
    frame_certificate_list,
    frame_tbs_cert_list,
    parse_certificate_list,
)
from certstatus.crl_entry import CRLEntry, encode_entry, read_entries
from certstatus.crl_row_decode import RowDecoder
from certstatus.crl_row_encode import RowEncoder
from certstatus.crl_row_facts import RowFacts
from certstatus.crl_rows import SECONDS_MAX, Rows, empty_rows, entries_of, rows_of
from certstatus.crl_rows_file import RowsFile, RowsHead, write_rows
from certstatus.crl_rows_merge import same_rows
from certstatus.crl_stream_decode import CRLFile, is_signed_by
from certstatus.crl_stream_encode import write_crl
from certstatus.errors import CRLCheckFailed, DERError
from certstatus.extension import encode_extension

_KEY = rsa.generate_private_key(65537, 2048)
_EC_KEY = ec.generate_private_key(ec.SECP256R1())
_NAME = der.sequence(der.set_of(der.sequence(der.oid("2.5.4.3"), der.tlv(0x0C, b"CA"))))
_FIELDS = CRLFields(_NAME, oid.SHA256_WITH_RSA_DER, 1_760_000_000, 1_760_086_400, 7, b"key")
_HEAD = RowsHead(bytes(16), 3, 4, 5)


def _spki(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.DER, form)


def _sign(digest: bytes) -> bytes:
    return _KEY.sign(digest, padding.PKCS1v15(), Prehashed(hashes.SHA256()))


def _write(
    path: Path,
    rows: Rows | RowsFile,
    fields: CRLFields = _FIELDS,
    sign: Callable[[bytes], bytes] = _sign,
    lint: Callable[[RowFacts], list[str]] = lambda _: [],
) -> bytes:
    written = write_crl(path, fields, rows, sign=sign, hash_name="sha256", lint=lint)
    content = path.read_bytes()
    assert written.size == len(content)
    return content


def _at_once(
    entries: list[CRLEntry], fields: CRLFields = _FIELDS, sign: Callable[[bytes], bytes] = _sign
) -> bytes:
    """The twin: the CRL made in memory."""
    tbs = encode_tbs_cert_list(**fields._asdict(), entries=entries)
    return encode_certificate_list(tbs, fields.signature_algorithm_der, sign(hashlib.sha256(tbs).digest()))


# Blocks -------------------------------------------------------------------------------------------------


def _encoded(rows: Rows) -> bytes:
    encoder = RowEncoder()
    step = encoder.rows_at_once
    return b"".join(
        encoder.encode(rows[start : start + step]).tobytes() for start in range(0, len(rows), step)
    )


@given(ENTRIES, st.integers(1, 31))
def test_rows_are_written_as_entries_are(entries: list[CRLEntry], size: int) -> None:
    """Of every shape, in blocks of every size, with memory that was used before."""
    rows = rows_of(entries)
    expected = b"".join(map(encode_entry, ordered(entries)))
    encoder = RowEncoder(size)
    blocks = [encoder.encode(rows[start : start + size]).tobytes() for start in range(0, len(rows), size)]
    assert b"".join(blocks) == _encoded(rows) == expected


@pytest.mark.parametrize("mixed", [False, True])
def test_many_rows_are_written_as_entries_are(mixed: bool) -> None:
    """More than a block of them, of one shape and of several."""
    entries = usual_entries(20_000, mixed=mixed)
    assert _encoded(rows_of(entries)) == b"".join(map(encode_entry, entries))


@pytest.mark.parametrize("field", ["der_len", "serial_octets", "reason", "invalidity", "revoked_at"])
def test_a_row_whose_length_is_wrong_is_not_written(field: str) -> None:
    """Or the header before it would say another length."""
    other = {"reason": 0xFF, "revoked_at": SECONDS_MAX, "serial_octets": 0}
    for count in (1, 5):
        rows = rows_of(usual_entries(count))
        rows[field][count // 2] = other.get(field, 50)
        with pytest.raises(CRLCheckFailed):
            _encoded(rows)


def _decode(octets: bytes, at_once: int = 1 << 20) -> tuple[list[CRLEntry], bool]:
    """All entries in *octets*, taken in pieces of at most so many octets."""
    decoder, found, pos = RowDecoder(), [], 0
    buffer = np.frombuffer(octets, np.uint8)
    while pos < len(octets):
        rows, used = decoder.decode(buffer[pos : pos + at_once])
        if not used:
            raise DERError("no entry")
        found += entries_of(rows)
        pos += used
    return found, decoder.critical


@given(ENTRIES, st.integers(81, 400))
def test_rows_are_read_as_entries_are(entries: list[CRLEntry], at_once: int) -> None:
    """Pieces may end inside an entry."""
    octets = b"".join(map(encode_entry, ordered(entries)))
    assert _decode(octets, at_once) == (ordered(entries), False)


@pytest.mark.parametrize("mixed", [False, True])
def test_many_rows_are_read_as_entries_are(mixed: bool) -> None:
    """In pieces that end anywhere."""
    entries = usual_entries(5000, mixed=mixed)
    octets = b"".join(map(encode_entry, entries))
    for at_once in (97, 1000, 49_000, 50_001):
        assert _decode(octets, at_once) == (entries, False)


def _fits(entry: CRLEntry) -> bool:
    """Whether a row has room for it."""
    return (
        len(entry.serial) <= 20
        and 0 <= entry.revoked_at_s <= SECONDS_MAX
        and (entry.invalidity_at_s is None or 0 < entry.invalidity_at_s <= SECONDS_MAX)
        and (entry.reason is None or 0 <= entry.reason < 255)
    )


def _check_twin(octets: bytes, at_once: int = 1 << 20) -> None:
    """Both read the same, or both refuse; but what has no room in a row is refused by one of them."""
    try:
        expected = read_entries(octets, 0, len(octets))
    except DERError:
        with pytest.raises(DERError):
            _decode(octets, at_once)
        return
    if all(map(_fits, expected[0])):
        assert _decode(octets, at_once) == expected
    else:
        with pytest.raises(DERError):
            _decode(octets, at_once)


def test_each_octet_changed_is_read_alike() -> None:
    """Every octet of a few entries of one shape, and of several, to many another value."""
    for entries in (
        usual_entries(3),
        usual_entries(3, 2, mixed=True),
        [CRLEntry(b"\x05", 1), CRLEntry(b"\x06", 1)],
    ):
        octets = b"".join(map(encode_entry, entries))
        for position in range(len(octets)):
            for octet in {*range(0, 256, 5), 0x02, 0x17, 0x18, 0x30, 0x31, 0x3A, octets[position] ^ 1}:
                _check_twin(octets[:position] + bytes((octet,)) + octets[position + 1 :])


@settings(max_examples=300)
@given(ENTRIES.filter(bool), st.data())
def test_entries_changed_at_random_are_read_alike(entries: list[CRLEntry], data: st.DataObject) -> None:
    """Octets changed, taken out, put in, entries cut."""
    octets = bytearray(b"".join(map(encode_entry, ordered(entries))))
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(octets) - 1))
        match data.draw(st.sampled_from(["change", "change", "delete", "insert", "cut"])):
            case "change":
                octets[position] = data.draw(st.integers(0, 255))
            case "delete" if len(octets) > 1:
                del octets[position]
            case "insert":
                octets.insert(position, data.draw(st.sampled_from(b"\x00\x30\x02\x17\x18\xff\x80")))
            case "cut":
                del octets[position + 1 :]
    _check_twin(bytes(octets))


def _entry(serial: bytes, *extensions: bytes) -> bytes:
    wrapped = der.sequence(*extensions) if extensions else b""
    return der.sequence(der.tlv(der.INTEGER, serial), der.utc_or_generalized_time(0), wrapped)


def _reason(number: int, *, critical: bool = False) -> bytes:
    return encode_extension(oid.REASON_CODE, der.enumerated(number), critical=critical)


_UNKNOWN = encode_extension("1.2.3", bytes(200))
_DATE = encode_extension(oid.INVALIDITY_DATE, der.generalized_time(5))
_UNUSUAL = {
    "reason unspecified": _entry(b"\x06", _reason(0)),
    "reason unknown": _entry(b"\x06", _reason(7)),
    "reason 200": _entry(b"\x06", _reason(200)),
    "reason 255, which means none in a row": _entry(b"\x06", _reason(255)),
    "reason negative": _entry(b"\x06", _reason(-1)),
    "reason critical": _entry(b"\x06", _reason(1, critical=True)),
    "date before reason": _entry(b"\x06", _DATE, _reason(1)),
    "unknown extension, and so a long length": _entry(b"\x06", _UNKNOWN, _reason(1)),
    "serial number too long": _entry(b"\x06" * 21, _reason(1)),
    "serial number not minimal": _entry(b"\x00\x06", _reason(1)),
    "looks like a header inside": _entry(b"\x10\x30\x10\x02\x03ABC\x17" + bytes(6), _reason(1)),
    "no entry": b"\x31\x00",
    "empty": b"\x30\x00",
    "end of contents": b"\x00\x00",
}


@pytest.mark.parametrize("name", _UNUSUAL)
def test_unusual_entries_are_read_alike(name: str) -> None:
    """First, last, and among many usual ones of the same length or of another."""
    unusual, usual = _UNUSUAL[name], [_entry(bytes((octet,)), _reason(1)) for octet in range(8, 100)]
    for octets in (
        unusual,
        unusual + b"".join(usual),
        b"".join(usual) + unusual,
        b"".join(usual[:50]) + unusual + b"".join(usual[50:]),
        b"".join(usual[:50]) + encode_entry(CRLEntry(b"\x33", 5)) + unusual + b"".join(usual[50:]),
    ):
        for at_once in (300, 1000, 1 << 20):
            _check_twin(octets, at_once)


@given(st.binary(max_size=200))
def test_any_octets_are_read_alike(octets: bytes) -> None:
    """A value or the one error."""
    _check_twin(octets)


# Files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 3, 40_000])
@pytest.mark.parametrize("mixed", [False, True])
def test_the_file_is_the_crl_made_in_memory(tmp_path: Path, count: int, mixed: bool) -> None:
    """From rows and from a file of rows; what is read back is what was written."""
    entries = usual_entries(count, mixed=mixed)
    rows = rows_of(entries)
    expected = _at_once(entries)
    assert _write(tmp_path / "one.crl", rows) == expected
    write_rows(tmp_path / "rows", _HEAD, [rows] if count else [])
    with RowsFile(tmp_path / "rows") as file:
        assert _write(tmp_path / "two.crl", file) == expected
    parsed = parse_certificate_list(expected)
    with CRLFile(tmp_path / "one.crl") as crl:
        facts = RowFacts()
        reading = crl.reading()
        assert same_rows(reading.rows(facts), [rows])
        digests = reading.digests()
        assert digests == crl.digests()
        assert is_signed_by(crl.head, digests.signed, _spki(_KEY))
        for name in crl.head.__dataclass_fields__:
            assert getattr(crl.head, name) == getattr(parsed, name), name
    assert digests.whole == hashlib.sha256(expected).digest()
    assert digests.signed == hashlib.sha256(parsed.tbs_der).digest()
    assert facts.count == count
    assert len(x509.load_der_x509_crl(expected)) == count


def test_openssl_reads_and_verifies_the_file(tmp_path: Path) -> None:
    """Some megabytes, of several shapes, signed with P-256 by way of a digest."""

    def sign(digest: bytes) -> bytes:
        return _EC_KEY.sign(digest, ec.ECDSA(Prehashed(hashes.SHA256())))

    entries = usual_entries(50_000, mixed=True)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "CA")])
    fields = _FIELDS._replace(
        signature_algorithm_der=oid.ECDSA_WITH_SHA256_DER,
        issuer_name_der=name.public_bytes(),
        aki_key_id=x509.SubjectKeyIdentifier.from_public_key(_EC_KEY.public_key()).digest,
    )
    content = _write(tmp_path / "all.crl", rows_of(entries), fields, sign)
    theirs = x509.load_der_x509_crl(content)
    assert theirs.is_signature_valid(_EC_KEY.public_key())
    assert _is_signed(tmp_path / "all.crl", _spki(_EC_KEY))
    (tmp_path / "key.pem").write_bytes(
        _EC_KEY.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    for command in (
        "openssl req -x509 -new -key key.pem -subj /CN=CA -days 10 -out ca.pem",
        "openssl crl -inform DER -in all.crl -CAfile ca.pem -noout -text -out all.txt",
    ):
        done = subprocess.run(command.split(), cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "verify OK" in done.stderr
    printed = (tmp_path / "all.txt").read_text()
    assert printed.count("Serial Number: ") == len(entries)
    assert f"Serial Number: {entries[-1].serial.hex().upper()}" in printed


@pytest.mark.parametrize("signature_octets", [8, 60, 70, 72, 73, 90, 300])
def test_the_header_fits_whatever_the_signature_is_long(tmp_path: Path, signature_octets: int) -> None:
    """Around the lengths where it has an octet more: what is written behind it moves."""

    def sign(_digest: bytes) -> bytes:
        return b"s" * signature_octets

    for name_octets in range(20):
        # Around 128 and 256 octets.
        fields = _FIELDS._replace(
            issuer_name_der=der.sequence(_NAME[2:] + der.octet_string(bytes(name_octets)))
        )
        expected = _at_once([], fields, sign)
        assert _write(tmp_path / "a.crl", empty_rows(), fields, sign) == expected
    seen = set()
    for count in range(1290, 1345):
        # Around 65,536 octets.
        entries = usual_entries(count)
        expected = _at_once(entries, _FIELDS, sign)
        seen.add(expected[1])
        if abs(len(expected) - 65_536) < 400:
            assert _write(tmp_path / "a.crl", rows_of(entries), _FIELDS, sign) == expected
    assert seen == {0x82, 0x83}


def test_what_is_behind_the_header_moves_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Either way, however long it is."""
    monkeypatch.setattr(crl_stream_encode, "_MOVED_AT_ONCE", 7)
    content = bytes(range(200))
    for by in (-1, -2, 1, 2):
        path = tmp_path / "file"
        path.write_bytes(content)
        with path.open("r+b") as file:
            crl_stream_encode._move(file.fileno(), 5, 200, by)
        assert path.read_bytes()[5 + by : 200 + by] == content[5:]


@pytest.mark.parametrize("fault", ["lint", "sign", "row", "head", "disk", "fields"])
def test_nothing_is_left_of_a_crl_that_fails(
    tmp_path: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever fails, there is no file afterwards; and lint is asked before anything is signed."""
    signed = []

    def sign(digest: bytes) -> bytes:
        signed.append(digest)
        if fault == "sign":
            raise RuntimeError("the token is gone")
        return _sign(digest)

    rows, fields = rows_of(usual_entries(10)), _FIELDS
    expected: type[Exception] = CRLCheckFailed
    if fault == "row":
        rows["der_len"][5] = 50
    elif fault == "fields":
        fields = _FIELDS._replace(next_update_s=0)
    elif fault == "sign":
        expected = RuntimeError
    elif fault == "disk":
        expected = OSError

        def full(*_: object) -> int:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "pwrite", full)
    source: Rows | RowsFile = rows
    if fault == "head":
        write_rows(tmp_path / "rows", _HEAD, [rows])
        source = RowsFile(tmp_path / "rows")
        source.head = source.head._replace(der_octets=source.head.der_octets + 1)
    with pytest.raises(expected):
        _write(tmp_path / "a.crl", source, fields, sign, lambda _: ["found"] if fault == "lint" else [])
    assert not (tmp_path / "a.crl").exists()
    assert bool(signed) == (fault == "sign")


def test_each_octet_of_head_and_end_changed_is_read_alike(tmp_path: Path) -> None:
    """The head and the end are read as by the reader of whole CRLs, or refused by both."""
    fields = _FIELDS._replace(issuing_distribution_point_der=b"\x30\x03\x81\x01\xff")
    path = tmp_path / "a.crl"

    def sign(_digest: bytes) -> bytes:
        return b"signature"

    for entries in ([], [CRLEntry(b"\x05", 1, 1)]):
        content = _at_once(entries, fields, sign)
        for position in range(len(content)):
            for octet in (0x00, 0x30, 0x17, 0x80, 0xFF, content[position] ^ 1, content[position] + 1 & 0xFF):
                _check_file_twin(path, content[:position] + bytes((octet,)) + content[position + 1 :])
        for cut in range(len(content)):
            _check_file_twin(path, content[:cut])
        _check_file_twin(path, content + b"\x00")


def test_a_second_list_or_an_empty_one_is_seen(tmp_path: Path) -> None:
    """A second list is refused, an empty one is noted, as by the reader of whole CRLs."""
    times = der.utc_or_generalized_time(1) + der.utc_or_generalized_time(2)
    entry = encode_entry(CRLEntry(b"\x05", 1))
    algorithm = oid.ED25519_DER
    for lists in (b"", der.sequence(), der.sequence(entry), der.sequence(entry) * 2, der.sequence() * 2):
        tbs = der.sequence(der.integer(1), algorithm, _NAME, times, lists)
        _check_file_twin(tmp_path / "a.crl", der.sequence(tbs, algorithm, der.bit_string(b"s")))


def _check_file_twin(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    try:
        expected = parse_certificate_list(content)
    except DERError:
        with pytest.raises(DERError), CRLFile(path) as crl:
            list(crl.rows())
        return
    if not all(map(_fits, expected.entries)):
        return
    with CRLFile(path) as crl:
        facts = RowFacts()
        found = [entry for block in crl.rows(facts) for entry in entries_of(block)]
        assert found == expected.entries
        assert facts.critical == expected.entries_critical
        assert crl.head.entries_empty == expected.entries_empty
        for name in crl.head.__dataclass_fields__:
            assert getattr(crl.head, name) == getattr(expected, name), name


@given(ENTRIES)
@settings(max_examples=20)
def test_reading_in_pieces_of_any_size(entries: list[CRLEntry]) -> None:
    """Pieces end inside entries, and digests are the same."""
    path = Path(f"/tmp/pieces-{os.getpid()}.crl")
    try:
        content = _write(path, rows_of(entries))
        with CRLFile(path) as crl:
            for octets in (81, 100, 163, 1000):
                reading = crl.reading(octets)
                assert [entry for block in reading.rows() for entry in entries_of(block)] == ordered(entries)
                assert reading.digests().whole == hashlib.sha256(content).digest()
            if entries and len(encode_entry(ordered(entries)[0])) > 30:
                with pytest.raises(DERError):
                    list(crl.rows(octets_at_once=30))
    finally:
        path.unlink()


def test_a_list_of_more_than_four_gigabytes_has_its_places(tmp_path: Path) -> None:
    """Five length octets, and offsets beyond 32 bits: head and end are read, the entries are a hole."""
    octets = 5 << 30
    before, after = frame_tbs_cert_list(**_FIELDS._asdict(), entries_octets=octets)
    header, end = frame_certificate_list(
        len(before) + octets + len(after), oid.SHA256_WITH_RSA_DER, b"s" * 256
    )
    path = tmp_path / "large.crl"
    with path.open("wb") as file:
        file.write(header + before + encode_entry(CRLEntry(b"\x05", 1)))
        file.seek(len(header) + len(before) + octets)
        file.write(after + end)
    with CRLFile(path) as crl:
        assert (crl.head.number, crl.head.signature) == (7, b"s" * 256)
        assert crl.size == path.stat().st_size > 5 << 30
        with pytest.raises(DERError):
            list(crl.rows(octets_at_once=1 << 16))


def _is_signed(path: Path, spki_der: bytes) -> bool:
    with CRLFile(path) as crl:
        return is_signed_by(crl.head, crl.digests().signed, spki_der)


def test_another_signature_is_noticed(tmp_path: Path) -> None:
    """Of another key, another kind of key, over other octets, by an algorithm that is none of ours."""
    path = tmp_path / "a.crl"
    content = bytearray(_write(path, rows_of(usual_entries(3))))
    assert _is_signed(path, _spki(_KEY))
    assert not _is_signed(path, _spki(rsa.generate_private_key(65537, 2048)))
    assert not _is_signed(path, _spki(_EC_KEY))
    place = content.index(usual_entries(3)[1].serial)
    content[place + 5] ^= 1
    path.write_bytes(content)
    assert not _is_signed(path, _spki(_KEY))
    path.write_bytes(_at_once([], _FIELDS._replace(signature_algorithm_der=oid.ED25519_DER)))
    assert not _is_signed(path, _spki(_KEY))


_PEAK = """
import sys, resource
from pathlib import Path
import numpy as np
from certstatus import crl_rows, crl_rows_merge, oid
from certstatus.crl import CRLFields
from certstatus.crl_row_facts import RowFacts
from certstatus.crl_rows_file import RowsFile, RowsHead, write_rows
from certstatus.crl_stream_decode import CRLFile
from certstatus.crl_stream_encode import write_crl
folder, count = Path(sys.argv[1]), int(sys.argv[2])
def blocks():
    for start in range(0, count, 10_000):
        rows = crl_rows.empty_rows(10_000)
        octets = rows.view(np.uint8).reshape(-1, 32)
        octets[:, 0], octets[:, 4] = 0x80, 0x10
        octets[:, 12:20] = np.arange(start, start + 10_000, dtype=">u8").view(np.uint8).reshape(-1, 8)
        rows["revoked_at"], rows["reason"], rows["serial_octets"], rows["der_len"] = 1, 1, 16, 49
        yield rows
write_rows(folder / "rows", RowsHead(bytes(16), 1, 1, 1), blocks())
fields = CRLFields(b"\\x30\\x00", oid.ED25519_DER, 1, 2, 1, b"key")
with RowsFile(folder / "rows") as rows:
    write_crl(folder / "crl", fields, rows, sign=lambda _: b"s", hash_name="sha256", lint=lambda _: [])
    with CRLFile(folder / "crl") as crl:
        changes = crl_rows.empty_rows(1)
        same = crl_rows_merge.same_rows(crl.rows(RowFacts()), rows.checked_blocks())
assert same
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_list(tmp_path: Path) -> None:
    """Twenty times as many entries take as much memory, from writing rows to comparing them with the CRL."""
    peaks = []
    for count in (100_000, 2_000_000):
        done = subprocess.run(
            [sys.executable, "-c", _PEAK, str(tmp_path), str(count)],
            capture_output=True,
            text=True,
            check=True,
        )
        peaks.append(int(done.stdout) / 1000)
    assert peaks[1] < peaks[0] + 10, peaks


def test_random_lists_survive_the_whole_way(tmp_path: Path) -> None:
    """Rows, file of rows, CRL, rows again, for lists of many sizes around those of blocks."""
    numbers = random.Random(5)
    for count in (16_383, 16_384, 16_385, numbers.randrange(40_000)):
        rows = rows_of(usual_entries(count, count, mixed=bool(count % 2)))
        write_rows(tmp_path / "rows", _HEAD, [rows])
        with RowsFile(tmp_path / "rows") as file:
            _write(tmp_path / "a.crl", file)
            with CRLFile(tmp_path / "a.crl") as crl:
                assert same_rows(crl.rows(), file.checked_blocks())
    assert len(empty_rows()) == 0
