"""Files that are not what they must be: the message names file, line and field, and nothing is recorded."""

from __future__ import annotations

import base64
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from import_cases import (
    DER,
    EDI_PARTY_NAME,
    END_S,
    NOW_S,
    PEM,
    OldCA,
    dump,
    revoked_line,
    run,
    utc_time,
    valid_line,
)

from certstatus.der import sequence, tlv
from certstatus.errors import CertStatusError, ImportRefused, PolicyViolation
from issuance.ca_keys import CAKeyFolder
from issuance.import_files import FilesRead, _files
from issuance.import_run import ImportOrder
from issuance.store import Store

Spoil = Callable[[OldCA], ImportOrder]
ENDS = utc_time(END_S)


def good(old: OldCA, **changes: object) -> ImportOrder:
    """An order that would be imported, were it not for *changes*."""
    # What is given was written already, perhaps under the same name.
    usual: dict[str, Callable[[], object]] = {
        "certificates": lambda: (old.write_certificates(1),),
        "index_txt": lambda: old.write_index(valid_line(1), revoked_line(2)),
        "crl_paths": lambda: (old.write_crl({2: None}),),
    }
    return old.order(**({key: make() for key, make in usual.items() if key not in changes} | changes))


def written(old: OldCA, name: str, content: bytes) -> Path:
    """A file with this content."""
    path = old.folder / name
    path.write_bytes(content)
    return path


def with_line(line: str) -> Spoil:
    """An index.txt whose third line is *line*."""
    return lambda old: good(old, index_txt=old.write_index(valid_line(1), revoked_line(2), line))


def other_ca(old: OldCA) -> OldCA:
    """Another CA of the same name."""
    return OldCA(old.folder / "other")


def encrypted(old: OldCA, passphrase: bytes) -> Path:
    """The CA's key under a passphrase."""
    protection = serialization.BestAvailableEncryption(passphrase)
    return written(old, "enc.key", old.key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, protection))


def ed25519_key(old: OldCA) -> Path:
    """A key of a kind that no imported CA has."""
    key = ed25519.Ed25519PrivateKey.generate()
    plain = serialization.NoEncryption()
    return written(old, "ed.key", key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, plain))


def folder_with(old: OldCA, name: str, content: bytes) -> ImportOrder:
    """A folder of certificates with one more file in it."""
    folder = old.write_certificates(1)
    (folder / name).write_bytes(content)
    return good(old, certificates=(folder,))


def empty_folder(old: OldCA) -> Path:
    """A folder with nothing in it."""
    path = old.folder / "empty"
    path.mkdir()
    return path


def broken_link(old: OldCA) -> Path:
    """A folder of certificates, one of them a link to what is not there."""
    folder = old.write_certificates(1)
    (folder / "0009.pem").symlink_to(folder / "gone")
    return folder


def der(old: OldCA, serial: int = 1) -> bytes:
    """A certificate's octets."""
    return old.issue(serial).public_bytes(DER)


def long_serial(old: OldCA) -> bytes:
    """A certificate whose serial number has 21 octets, as its only octets: nobody signs such a one."""
    certificate = der(old)
    tbs = certificate[4:]
    return certificate[:4] + tbs.replace(b"\x02\x01\x01", b"\x02\x15" + bytes([1] * 21), 1)


def with_edi_party_name(old: OldCA) -> bytes:
    """The CA's certificate, were there such a name in it."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(old.certificate.subject)
        .issuer_name(old.certificate.subject)
        .public_key(old.key.public_key())
        .serial_number(78)
        .not_valid_before(old.certificate.not_valid_before_utc)
        .not_valid_after(old.certificate.not_valid_after_utc)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(EDI_PARTY_NAME, critical=False)
    )
    return builder.sign(old.key, hashes.SHA256()).public_bytes(DER)


def idp(**flags: bool) -> x509.IssuingDistributionPoint:
    """The scope of a CRL that is not a complete one."""
    values = {
        "only_contains_user_certs": False,
        "only_contains_ca_certs": False,
        "indirect_crl": False,
        "only_contains_attribute_certs": False,
    } | flags
    return x509.IssuingDistributionPoint(full_name=None, relative_name=None, only_some_reasons=None, **values)


CASES: dict[str, tuple[Spoil, str]] = {
    "certificate absent": (
        lambda old: good(old, ca_path=old.folder / "nothing.pem"),
        r"nothing\.pem: file: No such file",
    ),
    "CA file empty": (lambda old: good(old, ca_path=written(old, "x.pem", b"")), r"x\.pem: content: .*empty"),
    "CA file is text": (
        lambda old: good(old, ca_path=written(old, "x.pem", b"hello\n")),
        r"x\.pem: content: neither PEM nor DER",
    ),
    "CA file is a CSR's PEM": (
        lambda old: good(
            old,
            ca_path=written(
                old,
                "x.pem",
                b"\n-----BEGIN CERTIFICATE REQUEST-----\nMAA=\n-----END CERTIFICATE REQUEST-----\n",
            ),
        ),
        r"x\.pem, line 2: PEM: CERTIFICATE REQUEST, expected CERTIFICATE",
    ),
    "CA certificate truncated": (
        lambda old: good(old, ca_path=written(old, "x.der", old.certificate.public_bytes(DER)[:-9])),
        r"x\.der: certificate: not DER",
    ),
    "PEM cut off": (
        lambda old: good(old, ca_path=written(old, "x.pem", old.certificate.public_bytes(PEM)[:-40])),
        r"x\.pem, line 1: PEM: cut off",
    ),
    "PEM not base64": (
        lambda old: good(
            old, ca_path=written(old, "x.pem", old.certificate.public_bytes(PEM).replace(b"MII", b"M*I", 1))
        ),
        r"x\.pem, line 1: PEM: not base64",
    ),
    "not a CA's certificate": (
        lambda old: good(old, ca_path=old.write_certificates(1) / "0001.pem"),
        r"0001\.pem, line 1: basic constraints: not a CA's",
    ),
    "a CA with a name of a kind that nobody reads": (
        lambda old: good(old, ca_path=written(old, "x.der", with_edi_party_name(old))),
        r"x\.der: certificate: not one that can be read: x400Address/EDIPartyName",
    ),
    "two CAs in one file": (
        lambda old: good(
            old,
            ca_path=written(old, "x.pem", old.ca_path.read_bytes() + other_ca(old).ca_path.read_bytes()),
        ),
        r"x\.pem, line \d+: public key: of another CA",
    ),
    "key of another CA": (
        lambda old: good(old, key_path=other_ca(old).key_path),
        r"other/ca\.key: key: not the key of the certificate",
    ),
    "key of another kind": (
        lambda old: good(old, key_path=ed25519_key(old)),
        r"ed\.key: key: ed25519, expected RSA or EC",
    ),
    "key without its passphrase": (
        lambda old: good(old, key_path=encrypted(old, b"right")),
        r"enc\.key: key: encrypted, and no passphrase",
    ),
    "key with another passphrase": (
        lambda old: good(old, key_path=encrypted(old, b"right"), passphrase=b"wrong"),
        r"enc\.key: key: the passphrase does not open it",
    ),
    "key is none": (
        lambda old: good(old, key_path=old.ca_path),
        r"ca\.pem: key: not a private key",
    ),
    "certificate of another CA of the same name": (
        lambda old: folder_with(old, "stray.pem", other_ca(old).issue(9).public_bytes(PEM)),
        r"stray\.pem, line 1: signature: certificate 09 was not issued by",
    ),
    "junk that calls itself a certificate": (
        lambda old: folder_with(old, "junk.crt", b"\x30\x03abc"),
        r"junk\.crt: certificate: not DER",
    ),
    "a key among the certificates": (
        lambda old: folder_with(old, "mine.pem", old.key_path.read_bytes()),
        r"mine\.pem, line 1: PEM: PRIVATE KEY, expected CERTIFICATE",
    ),
    "a certificate cut short": (
        lambda old: folder_with(old, "short.der", der(old, 5)[:-1]),
        r"short\.der: certificate: not DER",
    ),
    "a second certificate in a bundle": (
        lambda old: folder_with(
            old,
            "two.pem",
            old.issue(5).public_bytes(PEM)
            + b"-----BEGIN CERTIFICATE-----\n"
            + base64.encodebytes(b"\x30\x00")
            + b"-----END CERTIFICATE-----\n",
        ),
        r"two\.pem, line \d+: certificate: not DER",
    ),
    "two certificates of one number": (
        lambda old: folder_with(old, "again.pem", old.issue(1, end_s=END_S + 60).public_bytes(PEM)),
        r"again\.pem, line 1: serial number: 01 is another certificate's in .*0001\.pem",
    ),
    "folder without certificates": (
        lambda old: good(old, certificates=(empty_folder(old),)),
        r"empty: content: no certificate in it",
    ),
    "a link that leads nowhere": (
        lambda old: good(old, certificates=(broken_link(old),)),
        r"0009\.pem: file: No such file",
    ),
    "PEM that has lost a BEGIN line": (
        lambda old: good(old, certificates=(written(old, "x.pem", b"MIIB\n-----END CERTIFICATE-----\n"),)),
        r"x\.pem, line 2: PEM: BEGIN or END where none can be",
    ),
    "BEGIN within a line": (
        lambda old: good(old, certificates=(written(old, "x.pem", b"x -----BEGIN CERTIFICATE-----\n"),)),
        r"x\.pem, line 1: PEM: BEGIN or END where none can be",
    ),
    "no lines at all": (
        lambda old: good(old, certificates=(written(old, "x.pem", bytes(2 << 20)),)),
        r"x\.pem, line 1: line: over 1048575 octets",
    ),
    "index.txt empty": (
        lambda old: good(old, index_txt=old.write_index()),
        r"index\.txt: content: no certificate",
    ),
    "index.txt is binary": (
        lambda old: good(old, index_txt=written(old, "index.txt", bytes(range(256)))),
        r"index\.txt, line 1: columns: ",
    ),
    "too few columns": (with_line("V\t301231235959Z\t\t03"), r"line 3: columns: 6 .* expected, 4 found"),
    "too many columns": (with_line(f"{valid_line(3)}\tx"), r"line 3: columns: 6 .* expected, 7 found"),
    "an empty line": (with_line(""), r"line 3: columns: .* 1 found"),
    "unknown status": (with_line(f"S\t{ENDS}\t\t03\tunknown\t/CN=x"), r"line 3: status: V, R or E"),
    "no such day": (
        with_line("V\t301331235959Z\t\t03\tunknown\t/CN=x"),
        r"line 3: expiry date: 301331235959Z is no moment",
    ),
    "not a date": (with_line("V\tnever\t\t03\tunknown\t/CN=x"), r"line 3: expiry date: .* 'never' found"),
    "revoked without a date": (
        with_line(f"R\t{ENDS}\t\t03\tunknown\t/CN=x"),
        r"line 3: revocation date: missing",
    ),
    "valid with a revocation date": (
        with_line(f"V\t{ENDS}\t{ENDS}\t03\tunknown\t/CN=x"),
        r"line 3: revocation date: .* with status V",
    ),
    "bad revocation date": (
        with_line(f"R\t{ENDS}\t2501\t03\tunknown\t/CN=x"),
        r"line 3: revocation date: .* '2501' found",
    ),
    "unknown reason": (
        with_line(f"R\t{ENDS}\t250101000000Z,boredom\t03\tunknown\t/CN=x"),
        r"line 3: revocation reason: 'boredom'",
    ),
    "removeFromCRL as a reason": (
        with_line(f"R\t{ENDS}\t250101000000Z,removeFromCRL\t03\tunknown\t/CN=x"),
        r"line 3: revocation reason: 'removeFromCRL'",
    ),
    "key time without a time": (
        with_line(f"R\t{ENDS}\t250101000000Z,keyTime\t03\tunknown\t/CN=x"),
        r"line 3: invalidity date: missing",
    ),
    "serial number not hexadecimal": (
        with_line(f"V\t{ENDS}\t\t0x3\tunknown\t/CN=x"),
        r"line 3: serial number: hexadecimal",
    ),
    "half an octet": (with_line(f"V\t{ENDS}\t\t123\tunknown\t/CN=x"), r"line 3: serial number: hexadecimal"),
    "serial number of 21 octets": (
        with_line(f"V\t{ENDS}\t\t{'11' * 21}\tunknown\t/CN=x"),
        r"line 3: serial number: 21 octets, at most 20",
    ),
    "one number in two lines": (
        with_line(valid_line(1)),
        r"line 3: serial number: 01 stands in line 1 already",
    ),
    "ends at another time than the certificate": (
        lambda old: good(old, index_txt=old.write_index(valid_line(1, END_S + 1))),
        r"index\.txt, line 1: expiry date: the certificate in .*0001\.pem, line 1 ends at another time",
    ),
    "on hold, and the policy has none": (
        with_line(revoked_line(3, ",certificateHold")),
        r"line 3: revocation reason: 03 is on hold: --hold",
    ),
    "CRL of another CA": (
        lambda old: good(old, crl_paths=(other_ca(old).write_crl({}),)),
        r"other/ca\.crl: signature: not one of this CA's key",
    ),
    "CRL of another name under the same key": (
        lambda old: good(
            old, crl_paths=(OldCA(old.folder / "renamed", old.key, common="New name").write_crl({}),)
        ),
        r"renamed/ca\.crl: issuer: another name than the CA's",
    ),
    "CRL is none": (
        lambda old: good(old, crl_paths=(written(old, "x.crl", b"\x30\x03abc"),)),
        r"x\.crl: CRL: cannot be read",
    ),
    "CRL of a version that nobody knows": (
        lambda old: good(
            old,
            crl_paths=(
                written(old, "x.crl", old.crl_der({2: None}).replace(b"\x02\x01\x01", b"\x02\x01\x2e", 1)),
            ),
        ),
        r"x\.crl: CRL: cannot be read: 46 is not a valid CRL version",
    ),
    "CRL of a version of thousands of digits": (
        lambda old: good(old, crl_paths=(written(old, "x.crl", sequence(sequence(tlv(2, b"\x7f" * 3000)))),)),
        r"x\.crl: CRL: cannot be read",
    ),
    "CRL altered": (
        lambda old: good(old, crl_paths=(written(old, "x.crl", old.crl_der({2: None})[:-1] + b"\0"),)),
        r"x\.crl: (signature|CRL)",
    ),
    "delta CRL": (
        lambda old: good(old, crl_paths=(old.write_crl({}, 7, NOW_S - 10, x509.DeltaCRLIndicator(6)),)),
        r"ca\.crl: delta CRL indicator",
    ),
    "indirect CRL": (
        lambda old: good(old, crl_paths=(old.write_crl({}, 7, NOW_S - 10, idp(indirect_crl=True)),)),
        r"ca\.crl: issuing distribution point: an indirect CRL",
    ),
    "CRL for CA certificates": (
        lambda old: good(
            old, crl_paths=(old.write_crl({}, 7, NOW_S - 10, idp(only_contains_ca_certs=True)),)
        ),
        r"ca\.crl: issuing distribution point: only for CA certificates",
    ),
    "CRL from the future": (
        lambda old: good(old, crl_paths=(old.write_crl({}, 7, NOW_S + 4000),)),
        r"ca\.crl: thisUpdate: lies in the future",
    ),
}


@pytest.fixture
def old(tmp_path: Path) -> OldCA:
    """A CA that somebody else had."""
    return OldCA(tmp_path / "old")


@pytest.mark.parametrize(("spoil", "message"), CASES.values(), ids=CASES.keys())
def test_a_wrong_file_is_named_and_nothing_is_imported(
    sqlite_store: Store, keys: CAKeyFolder, old: OldCA, spoil: Spoil, message: str
) -> None:
    """File, line and field stand in the message; no table and no key file has changed."""
    before = dump(sqlite_store)
    order = spoil(old)
    with pytest.raises(ImportRefused, match=message):
        run(sqlite_store, keys, order)
    assert dump(sqlite_store) == before
    assert not list(keys.folder.glob("*.key"))
    # What was spoilt is all that was wrong.
    run(sqlite_store, keys, good(old, certificates=(OldCA(old.folder / "2", old.key).write_certificates(1),)))


def test_a_number_of_21_octets_in_a_certificate_is_refused(old: OldCA) -> None:
    """The field is named before the signature is looked at, which can only be wrong, too."""
    from issuance.import_certificate import FieldError, read_certificate

    content = long_serial(old)
    head = content[:4], content[4:]
    # Both lengths around the number grow by its twenty octets.
    outer = len(head[1]).to_bytes(2, "big")
    body = bytearray(head[1])
    if body[1] == 0x81:
        body[2] += 20
    else:
        body[2:4] = (int.from_bytes(body[2:4], "big") + 20).to_bytes(2, "big")
    with pytest.raises(FieldError, match="21 octets, at most 20"):
        read_certificate(b"\x30\x82" + outer + bytes(body))


@pytest.mark.parametrize("service", ["SIGN", "AUTH"])
def test_the_services_of_the_act_are_not_imported(
    sqlite_store: Store, keys: CAKeyFolder, old: OldCA, service: str
) -> None:
    """SIGN and AUTH are refused as names."""
    with pytest.raises(PolicyViolation, match="of the Act"):
        run(sqlite_store, keys, good(old, service=service))


def test_one_key_is_one_issuer_and_one_name_one_service(
    sqlite_store: Store, keys: CAKeyFolder, old: OldCA
) -> None:
    """The same CA under another service, another CA under the same name, and a wrong word are refused."""
    run(sqlite_store, keys, good(old))
    before = dump(sqlite_store)
    refused: list[tuple[ImportOrder, str]] = [
        (good(old, service="NEW"), "was imported as OLD generation 1 already"),
        (good(OldCA(old.folder / "b"), service="NEW"), "name is already that of OLD"),
        (good(OldCA(old.folder / "c", common="Else")), "this service has another"),
        (good(old, service="low"), "upper-case"),
        (good(old, service="A" * 33), "up to 32"),
        (good(old, service="ARCHIVE"), "other than ARCHIVE"),
    ]
    for order, message in refused:
        with pytest.raises(PolicyViolation, match=message):
            run(sqlite_store, keys, order)
    assert dump(sqlite_store) == before
    # A second key under the same name is the next generation.
    second = run(
        sqlite_store, keys, OldCA(old.folder / "d").order(crl_number=3, changes={"issued_list": "absent"})
    )
    assert (second.issuer.service, second.issuer.generation) == ("OLD", 2)


def test_what_the_register_has_under_a_number_is_not_overwritten(
    sqlite_store: Store, keys: CAKeyFolder, old: OldCA
) -> None:
    """Another certificate under a known number is refused, with the store as it was."""
    run(sqlite_store, keys, good(old))
    before = dump(sqlite_store)
    (old.folder / "certificates" / "0001.pem").unlink()
    with pytest.raises(ImportRefused, match="serial number: 01 is another certificate in the register"):
        run(sqlite_store, keys, good(old))
    with pytest.raises(ImportRefused, match="line 1: serial number: 02 ends at another time in the register"):
        run(sqlite_store, keys, old.order(index_txt=old.write_index(valid_line(2, END_S + 9)), crl_number=9))
    assert dump(sqlite_store) == before


def test_a_windows_file_and_foreign_characters_are_taken(
    sqlite_store: Store, keys: CAKeyFolder, old: OldCA
) -> None:
    """Lines may end in CR LF, names may be in any character set, tabs in them behind a backslash."""
    lines = b"# made elsewhere\r\n" + valid_line(1).encode() + b"\r\n"
    lines += b"E\t200101000000Z\t\t03\tunknown\t/CN=\xff\xfe \\\t\x80\r\n"
    order = old.order(index_txt=written(old, "index.txt", lines), crl_number=1)
    assert run(sqlite_store, keys, order).read.index_lines == 2


def test_every_refusal_is_an_error_with_an_exit_code_of_bad_data() -> None:
    """As sysexits has it."""
    assert issubclass(ImportRefused, CertStatusError)
    assert ImportRefused("f", 3, "status", "x").exit_code == 65
    assert str(ImportRefused("f", 3, "status", "x")) == "f, line 3: status: x"


def test_file_names_in_any_octets_are_read_and_said(
    sqlite_store: Store, keys: CAKeyFolder, old: OldCA
) -> None:
    """A name that is no UTF-8 is one like others; where it is wrong, the message can be written."""
    folder = old.write_certificates(1)
    odd = os.fsencode(folder) + b"/\xff\xe9.pem"
    os.rename(folder / "0001.pem", odd)
    order = good(old, certificates=(folder,))
    run(sqlite_store, keys, order)
    with open(odd, "ab") as file:
        file.write(b"-----BEGIN CERTIFICATE-----\n")
    with pytest.raises(ImportRefused, match=r"\\xff\\xe9\.pem, line ") as caught:
        run(sqlite_store, keys, order)
    assert str(caught.value).encode("ascii", "strict")


def test_a_folder_that_cannot_be_read_is_not_passed_over() -> None:
    """What lies in it would otherwise be missing without a word."""
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        top.chmod(0o755)
        (top / "shut").mkdir(mode=0)
        is_root = os.geteuid() == 0
        if is_root:
            os.seteuid(65534)
        try:
            with pytest.raises(ImportRefused, match="shut: folder: Permission denied"):
                list(_files(top, FilesRead()))
        finally:
            if is_root:
                os.seteuid(0)


def test_a_mark_of_the_octet_order_hides_no_certificate(
    sqlite_store: Store, keys: CAKeyFolder, old: OldCA
) -> None:
    """Text editors put it there; the first of a bundle is read like the second."""
    bundle = b"".join(old.issue(serial).public_bytes(PEM) for serial in (1, 2))
    path = written(old, "bundle.pem", b"\xef\xbb\xbf" + bundle)
    assert run(sqlite_store, keys, good(old, certificates=(path,))).difference.issued == 2
