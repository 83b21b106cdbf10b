"""One entry looked for in a CRL of any length, and what that costs in memory."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from big_crls import MORE_MB_MAX, peak_mb, write_big
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st
from mirror_cases import DAY_S, NOW_S, CRLSite, MirrorCA

from certstatus import clock
from certstatus.crl_check import check_certificate
from certstatus.crl_entry import CRLEntry
from certstatus.crl_folder import CRLFolder
from certstatus.crl_stream_decode import find_in
from certstatus.crl_trust import read_signed_crl, read_trusted_ca
from certstatus.der import integer_content, sequence
from certstatus.errors import CRLRefused, DERError
from certstatus.extension import encode_extension

CA = MirrorCA()
_TIME_DER = bytes.fromhex("170d") + b"260101000000Z"


def _entry_der(serial: int, extra: int) -> bytes:
    """An entry; *extra*: octets of an extension that nobody knows (beyond 100 its length takes two)."""
    content = integer_content(serial)
    extension = encode_extension("1.2.3.4", bytes(extra)) if extra else b""
    parts = bytes((2, len(content))) + content + _TIME_DER
    return sequence(parts + (sequence(extension) if extra else b""))


@given(
    listed=st.lists(
        st.tuples(
            st.sampled_from([5, 6, 0x7F, 0x80, 0x0205, 0x020105, (1 << 159) - 1, (1 << 200) + 7, -1, -129]),
            st.sampled_from([0, 0, 0, 3, 120, 300]),
        ),
        max_size=40,
    ),
    serial=st.sampled_from([5, 6, 0x80, 0x0205, 0x020105, (1 << 200) + 7, -129, 77]),
    at=st.integers(0, 50),
)
def test_what_is_found_is_what_another_reader_finds(
    tmp_path_factory: pytest.TempPathFactory, listed: list[tuple[int, int]], serial: int, at: int
) -> None:
    """The first entry of that number, wherever its octets stand besides, and where in a file the CRL is."""
    crl_der = CA.crl_of(b"".join(_entry_der(*item) for item in listed))
    path = tmp_path_factory.mktemp("crl") / "pack"
    path.write_bytes(bytes(at) + crl_der + b"behind it")
    found = find_in(path, integer_content(serial), at, len(crl_der))
    assert found.sha256 == hashlib.sha256(crl_der).digest()
    theirs = [entry.serial_number for entry in x509.load_der_x509_crl(crl_der)]
    assert theirs == [number for number, _ in listed]
    expected = CRLEntry(integer_content(serial), 1_767_225_600) if serial in theirs else None
    assert found.entry == expected


def test_numbers_inside_of_other_entries_are_not_found(tmp_path: Path) -> None:
    """An extension may hold the very octets of an INTEGER."""
    wanted = bytes((2, 3)) + integer_content(0x123456)
    inner = sequence(bytes((2, 1, 9)) + _TIME_DER + sequence(encode_extension("1.2.3.4", wanted)))
    path = tmp_path / "a.crl"
    path.write_bytes(CA.crl_of(inner))
    assert find_in(path, integer_content(0x123456)).entry is None
    path.write_bytes(CA.crl_of(inner + _entry_der(0x123456, 0)))
    assert find_in(path, integer_content(0x123456)).entry is not None


@pytest.mark.parametrize("entries_der", [b"\x30", b"\x04\x00", _entry_der(5, 0) + b"\x02\x01\x05"])
def test_what_is_no_list_of_entries_says_nothing(tmp_path: Path, entries_der: bytes) -> None:
    """Not even that a number is not on it."""
    path = tmp_path / "a.crl"
    path.write_bytes(CA.crl_of(entries_der))
    with pytest.raises(DERError):
        find_in(path, b"\x06")
    with pytest.raises(CRLRefused, match="not a CRL that can be read"):
        read_signed_crl(path, read_trusted_ca(CA.pem, "ca"), b"\x06")


def test_an_entry_that_cannot_be_read_keeps_no_other_from_being_found(tmp_path: Path) -> None:
    """It makes nobody good: of its own number nothing is said."""
    strange = sequence(
        bytes((2, 1, 5)) + _TIME_DER + sequence(encode_extension("1.2.3.4", b"", critical=True))
    )
    folder = CRLFolder(tmp_path)
    with folder.locked():
        folder.trust(read_trusted_ca(CA.pem, "ca"))
    folder.file("test/g1/all", "complete").parent.mkdir(parents=True)
    folder.file("test/g1/all", "complete").write_bytes(CA.crl_of(strange + _entry_der(6, 0)))
    found = {n: check_certificate(folder, CA.member(n), "member", NOW_S) for n in (5, 6, 7)}
    assert {n: item.status for n, item in found.items()} == {5: "unknown", 6: "revoked", 7: "good"}
    assert "critical" in found[5].why


def test_an_algorithm_that_needs_the_octets_is_verified_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ed25519: by all of the file, which then must not be long; one octet changed is noticed."""
    key = ed25519.Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Ed CA")])
    key_id = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1)
        .not_valid_before(clock.utc(NOW_S - DAY_S))
        .not_valid_after(clock.utc(NOW_S + DAY_S))
        .add_extension(x509.BasicConstraints(True, None), critical=True)
        .add_extension(key_id, critical=False)
        .sign(key, None)
    )
    ca = read_trusted_ca(certificate.public_bytes(Encoding.DER), "ca")
    entry = x509.RevokedCertificateBuilder(5, clock.utc(NOW_S - 60)).build()
    crl = (
        x509.CertificateRevocationListBuilder(name, clock.utc(NOW_S), clock.utc(NOW_S + 60), [], [entry])
        .add_extension(x509.CRLNumber(3), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier(key_id.digest, None, None), critical=False)
        .sign(key, None)
        .public_bytes(Encoding.DER)
    )
    path = tmp_path / "ed.crl"
    path.write_bytes(crl)
    assert read_signed_crl(path, ca, b"\x05").entry_der is not None
    path.write_bytes(crl.replace(b"\x02\x01\x05", b"\x02\x01\x06"))
    with pytest.raises(CRLRefused, match="does not verify"):
        read_signed_crl(path, ca, b"\x05")
    path.write_bytes(crl)
    monkeypatch.setattr("certstatus.crl_signature.WHOLE_OCTETS_MAX", len(crl) - 1)
    with pytest.raises(CRLRefused, match="too long to be verified"):
        read_signed_crl(path, ca)


# --- a CRL of a million entries ------------------------------------------------------------------------

ENTRIES = 1_000_000


_MIRROR = """
import sys
from pathlib import Path
from certstatus.crl_folder import CRLFolder
from certstatus.crl_mirror import mirror_round
from certstatus.crl_server import CRLServer
url, folder, now_s = sys.argv[1:]
kept = CRLFolder(Path(folder))
with kept.locked():
    report = mirror_round(CRLServer(url), kept, int(now_s))
assert report.exit_code == 0, report
"""
_CHECK = """
import sys
from pathlib import Path
from certstatus.crl_check import check_certificate
from certstatus.crl_folder import CRLFolder
folder, member, now_s = sys.argv[1:]
print(check_certificate(CRLFolder(Path(folder)), Path(member).read_bytes(), member, int(now_s)).status)
"""
_FIND = """
import sys
from pathlib import Path
from certstatus.crl_stream_decode import find_in
pack, offset, size, serial = sys.argv[1:]
print(find_in(Path(pack), bytes.fromhex(serial), int(offset), int(size)).entry)
"""


def test_a_million_entries_take_no_more_memory_than_one(tmp_path: Path) -> None:
    """To mirror them, to look one up in the folder, and in a pack of the archive."""
    ca = MirrorCA()
    peaks: dict[int, list[float]] = {}
    for count in (1, ENTRIES):
        place = tmp_path / str(count)
        place.mkdir()
        last = write_big(place / "big.crl", ca, count)
        crl_der = (place / "big.crl").read_bytes()
        member, other = place / "member.pem", place / "other.pem"
        member.write_bytes(ca.member(last))
        other.write_bytes(ca.member(last + 1))
        folder = CRLFolder(place / "kept")
        with folder.locked():
            folder.trust(read_trusted_ca(ca.pem, "ca"))
        site = CRLSite()
        try:
            site.publish(ca, crl_der)
            mirrored = peak_mb(_MIRROR, site.url, str(place / "kept"), str(NOW_S))
        finally:
            site.stop()
        checked = [peak_mb(_CHECK, str(place / "kept"), str(path), str(NOW_S)) for path in (member, other)]
        assert [said for said, _ in checked] == ["revoked", "good"]
        (place / "pack").write_bytes(bytes(1000) + crl_der)
        serial = integer_content(last).hex()
        found = peak_mb(_FIND, str(place / "pack"), "1000", str(len(crl_der)), serial)
        assert "CRLEntry" in found[0]
        peaks[count] = [mirrored[1], checked[0][1], checked[1][1], found[1]]
    more = [large - small for small, large in zip(peaks[1], peaks[ENTRIES], strict=True)]
    assert max(more) < MORE_MB_MAX, peaks
