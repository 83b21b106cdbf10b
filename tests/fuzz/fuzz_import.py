"""What another CA hands over to be imported: index.txt, PEM files, certificates, CRLs.

Input: an octet that says which, then the file; for a CRL its TBSCertList, which is signed here as that CA
would.  Oracles: nothing but ImportRefused (FieldError for a certificate) is raised; a line is read as a
literal reading of openssl-ca(1) reads it; a certificate as `cryptography` and asn1crypto do; what is taken of
a CRL can be recorded.
"""

from __future__ import annotations

import atexit
import base64
import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from certstatus import crl, der, oid
from certstatus.crl_entry import CRLEntry
from certstatus.errors import ImportRefused
from certstatus.x509_reading import load_certificate
from issuance.import_certificate import FieldError, is_issued_by, read_certificate
from issuance.import_crl import AHEAD_MAX_S, check_crl
from issuance.import_index_txt import IndexLine, read_index_txt
from issuance.import_pem import read_pieces

_NOW_S = 1_900_000_000
_KEY = ec.derive_private_key(0x1297, ec.SECP256R1())
_DESCRIPTOR = os.memfd_create("import")
atexit.register(os.close, _DESCRIPTOR)
_FILE = Path(f"/proc/self/fd/{_DESCRIPTOR}")
_SERIAL_OCTETS_MAX = 20

WORDS = (
    *(b"V\t", b"R\t", b"E\t", b"\t", b"\\\t", b"\n", b"\r\n", b"#", b"261231235959Z", b"20261231235959Z"),
    *(b",keyCompromise", b",unspecified", b",holdInstruction,", b",keyTime,", b",CAkeyTime,", b"unknown"),
    *(b"-----BEGIN CERTIFICATE-----\n", b"-----END CERTIFICATE-----\n", b"-----BEGIN ", b"-----", b"=="),
    *(b"\xa0\x03\x02\x01\x02", b"\x18\x0f", b"\x17\x0d", b"\x02\x01\x00", b"/CN=x", b"-01"),
)


def seeds() -> Iterator[tuple[str, bytes]]:
    """One right file of each kind, and some lines that are not."""
    yield (
        "index",
        b"\x00V\t261231235959Z\t\t01A4\tunknown\t/C=JP/CN=x\n"
        b"R\t261231235959Z\t250102030405Z,keyCompromise\t01A5\tunknown\t/CN=y\r\n"
        b"R\t20491231235959Z\t250102030405Z\t01A6\tunknown\t/CN=\\\ty\n"
        b"R\t491231235959Z\t250102030405Z,keyTime,20240102030405Z\t01A7\tunknown\t/CN=y\n"
        b"R\t491231235959Z\t250102030405Z,holdInstruction,holdInstructionNone\t-01\tunknown\t/CN=y\n"
        b"E\t500101000000Z\t\t00\tunknown\t/CN=z\n# comment\n",
    )
    yield "index-short", b"\x00V\t261231235959Z\t\t01A4\tunknown\n"
    yield "index-no-moment", b"\x00V\t260230235959Z\t\t01A4\tunknown\t/CN=x\n"
    certificate = _certificate()
    pem = base64.encodebytes(certificate)
    yield "pem", b"\x01text\n-----BEGIN CERTIFICATE-----\n" + pem + b"-----END CERTIFICATE-----\n"
    yield "pem-end-twice", b"\x01-----BEGIN X-----\nAAAA\n" + b"-----END X-----\n" * 2
    yield "pem-cut", b"\x01-----BEGIN CERTIFICATE-----\n" + pem[:40]
    yield "pem-der", b"\x01" + certificate
    yield "certificate", b"\x02" + certificate
    yield (
        "crl",
        b"\x03" + _tbs([CRLEntry(b"\x05", _NOW_S - 10), CRLEntry(b"\x06", _NOW_S - 9, 1, _NOW_S - 99)]),
    )
    yield "crl-empty", b"\x03" + _tbs([])
    yield "crl-hold", b"\x03" + _tbs([CRLEntry(b"\x05", _NOW_S - 10, 6)])


@cache
def _certificate() -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "TEST CA")])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(_KEY.public_key())
        .serial_number(0x1234)
        .not_valid_before(datetime.fromtimestamp(_NOW_S, UTC))
        .not_valid_after(datetime.fromtimestamp(2_600_000_000, UTC))
        .add_extension(x509.BasicConstraints(True, 0), True)
        .sign(_KEY, hashes.SHA256())
        .public_bytes(serialization.Encoding.DER)
    )


def _tbs(entries: list[CRLEntry]) -> bytes:
    return crl.encode_tbs_cert_list(
        issuer_name_der=der.sequence(der.set_of(der.sequence(der.oid("2.5.4.3"), der.tlv(0x0C, b"TEST CA")))),
        signature_algorithm_der=oid.ECDSA_WITH_SHA256_DER,
        this_update_s=_NOW_S - 5,
        next_update_s=_NOW_S + 86_400,
        entries=entries,
        crl_number=7,
        aki_key_id=b"key",
    )


def one_input(data: bytes) -> None:
    """Read the file after the first octet of *data*."""
    if data:
        _READERS[data[0] % len(_READERS)](data[1:])


def _file(content: bytes) -> Path:
    os.ftruncate(_DESCRIPTOR, 0)
    os.pwrite(_DESCRIPTOR, content, 0)
    return _FILE


def _index(content: bytes) -> None:
    found: list[IndexLine] = []
    # The lines before a wrong one count as read.
    with suppress(ImportRefused):
        found.extend(read_index_txt(_file(content)))
    lines = content.decode("latin-1").split("\n")
    for item in found:
        text = lines[item.line - 1].rstrip("\r")
        # A tab that belongs to a name has a backslash before it.
        status, ends, revocation, serial, _, _ = text.replace("\\\t", "  ").split("\t")
        assert int.from_bytes(item.serial, "big", signed=True) == int(serial, 16)
        assert 1 <= len(item.serial) <= _SERIAL_OCTETS_MAX
        assert item.not_after_s == _moment(ends)
        assert (status == "R") is (item.revoked_at_s is not None)
        if item.revoked_at_s is not None:
            date, *more = revocation.split(",")
            assert item.revoked_at_s == _moment(date)
            assert 0 <= item.revoked_at_s < 1 << 32
            assert item.reason in (None, 1, 2, 3, 4, 5, 6, 9, 10)
            assert item.reason is None or more
            if item.invalidity_s:
                assert item.invalidity_s == _moment(more[1])
        assert 0 <= item.invalidity_s < 1 << 32


def _moment(text: str) -> int:
    assert re.fullmatch(r"(?:[0-9]{12}|[0-9]{14})Z", text), text
    if len(text) == 13:
        text = ("20" if int(text[:2]) < 50 else "19") + text
    return int(datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp())


def _pem(content: bytes) -> None:
    try:
        pieces = list(read_pieces(_file(content)))
    except ImportRefused:
        return
    assert pieces
    if content.startswith(b"\x30"):
        assert [piece.der for piece in pieces] == [content]
        return
    lines = content.split(b"\n")
    for piece in pieces:
        assert lines[piece.line - 1].removeprefix(b"\xef\xbb\xbf").strip().startswith(b"-----BEGIN ")
    joined = b"".join(b"".join(content.split()).split(b"-----"))
    for piece in pieces:
        # Whatever was skipped, what was taken stands there in base64, up to bits that mean nothing.
        assert base64.b64encode(piece.der).rstrip(b"=")[:-1] in joined


def _read_certificate(content: bytes) -> None:
    try:
        fields = read_certificate(content)
    except FieldError:
        return
    assert 1 <= len(fields.serial) <= _SERIAL_OCTETS_MAX
    try:
        is_issued = is_issued_by(fields, content, _KEY.public_key())
    except FieldError:
        is_issued = False
    tbs = asn1_x509.Certificate.load(content, strict=True)["tbs_certificate"]
    assert tbs.dump() == fields.tbs_der
    assert tbs["issuer"].dump() == fields.issuer_der
    assert tbs["subject"].dump() == fields.subject_der
    assert tbs["subject_public_key_info"].dump() == fields.spki_der
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            theirs = load_certificate(content)
        except ValueError:
            # It knows fewer versions, and looks into what an import has no use for.
            return
        assert theirs.serial_number == int.from_bytes(fields.serial, "big", signed=True)
        assert theirs.not_valid_before_utc == datetime.fromtimestamp(fields.not_before_s, UTC)
        assert theirs.not_valid_after_utc == datetime.fromtimestamp(fields.not_after_s, UTC)
    assert theirs.tbs_certificate_bytes == fields.tbs_der
    assert theirs.signature == fields.signature
    assert not is_issued or theirs.signature_algorithm_oid.dotted_string == fields.algorithm


def _crl(content: bytes) -> None:
    signature = _KEY.sign(content, ec.ECDSA(hashes.SHA256()))
    crl_der = crl.encode_certificate_list(content, oid.ECDSA_WITH_SHA256_DER, signature)
    try:
        found = check_crl(crl_der, [x509.load_der_x509_certificate(_certificate())], _NOW_S, "fuzz")
    except ImportRefused:
        return
    assert found.number is None or 0 <= found.number < 1 << 159
    assert found.this_update_s <= _NOW_S + AHEAD_MAX_S
    assert found.next_update_s is None or found.next_update_s > found.this_update_s
    theirs = x509.load_der_x509_crl(crl_der)
    assert [int.from_bytes(entry.serial, "big", signed=True) for entry in found.entries] == [
        entry.serial_number for entry in theirs
    ]
    assert len({entry.serial for entry in found.entries}) == len(found.entries)
    for entry in found.entries:
        assert entry.reason in (None, 0, 1, 2, 3, 4, 5, 6, 9, 10)
        assert 0 <= entry.revoked_at_s < 1 << 32
        assert 0 <= (entry.invalidity_at_s or 0) < 1 << 32


_READERS: tuple[Callable[[bytes], None], ...] = (_index, _pem, _read_certificate, _crl)
