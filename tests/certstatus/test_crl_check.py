"""What a folder of CRLs says of a certificate, offline: good, revoked, held, and when nothing can be said."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from mirror_cases import DAY_S, NOW_S, MirrorCA, directory_name, listed_entry

from certstatus.crl_check import CheckedStatus, check_certificate
from certstatus.crl_entry import CRLEntry
from certstatus.crl_folder import CRLFolder
from certstatus.crl_reason import CRLReason
from certstatus.crl_trust import read_trusted_ca
from certstatus.errors import CRLRefused

SCOPE = "test/g1/all"


class Folder:
    """A folder of CRLs as a mirror leaves it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ca = MirrorCA()
        self.trust(self.ca)

    def trust(self, ca: MirrorCA) -> None:
        """Trust a CA."""
        folder = CRLFolder(self.path)
        with folder.locked():
            folder.trust(read_trusted_ca(ca.pem, "ca"))

    def put(self, complete: bytes | None, delta: bytes | None = None, scope: str = SCOPE) -> None:
        """Write CRLs of a scope."""
        (self.path / scope).mkdir(parents=True, exist_ok=True)
        for kind, crl in (("complete", complete), ("delta", delta)):
            if crl is not None:
                (self.path / scope / f"{kind}.crl").write_bytes(crl)

    def check(self, certificate: bytes, now_s: int = NOW_S) -> CheckedStatus:
        """Check a certificate."""
        return check_certificate(CRLFolder(self.path), certificate, "member.pem", now_s)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_who_is_on_no_list_is_good(folder: Folder) -> None:
    """With the CRL that says so, and until when."""
    folder.put(folder.ca.crl(7, listed_entry(0x99, 1)))
    found = folder.check(folder.ca.member(0x1001))
    assert (found.status, found.serial, found.why) == ("good", "1001", "")
    assert (found.scope, found.complete, found.delta) == (SCOPE, 7, None)
    assert (found.this_update_s, found.next_update_s) == (NOW_S - 100, NOW_S + DAY_S)


def test_who_is_on_the_list_is_revoked_with_date_and_reason(folder: Folder) -> None:
    """And since when it is invalid, where the entry says that."""
    folder.put(folder.ca.crl(7, listed_entry(0x1001, 1, invalid_s=NOW_S - 9000), listed_entry(0x1002)))
    found = folder.check(folder.ca.member(0x1001))
    assert (found.status, found.reason) == ("revoked", CRLReason.KEY_COMPROMISE)
    assert (found.revoked_at_s, found.invalid_since_s) == (NOW_S - 500, NOW_S - 9000)
    found = folder.check(folder.ca.member(0x1002))
    assert (found.status, found.reason, found.invalid_since_s) == ("revoked", CRLReason.UNSPECIFIED, None)


@pytest.mark.parametrize(
    ("complete", "delta", "status", "reason"),
    [
        ([], [listed_entry(5, 4)], "revoked", CRLReason.SUPERSEDED),
        ([listed_entry(5, 6)], [listed_entry(5, 1)], "revoked", CRLReason.KEY_COMPROMISE),
        ([listed_entry(5, 6)], [], "held", CRLReason.CERTIFICATE_HOLD),
        ([], [listed_entry(5, 6)], "held", CRLReason.CERTIFICATE_HOLD),
        ([listed_entry(5, 6)], [listed_entry(5, 8)], "good", None),
        ([listed_entry(5, 1)], [listed_entry(6, 8)], "revoked", CRLReason.KEY_COMPROMISE),
    ],
)
def test_a_delta_has_the_last_word(
    folder: Folder, complete: list[CRLEntry], delta: list[CRLEntry], status: str, reason: CRLReason | None
) -> None:
    """Revoked, changed, held or released since the complete CRL."""
    folder.put(folder.ca.crl(7, *complete), folder.ca.crl(9, *delta, base=6))
    found = folder.check(folder.ca.member(5))
    assert (found.status, found.reason, found.complete, found.delta) == (status, reason, 7, 9)


def test_a_delta_that_does_not_fit_is_left_aside(folder: Folder) -> None:
    """A base that is newer than what is here, a number that is not, another scope, another key."""
    ca, entry = folder.ca, listed_entry(5, 1)
    other = directory_name(1, "other")
    for delta in (
        ca.crl(9, entry, base=8),
        ca.crl(7, entry, base=6),
        ca.crl(9, entry, base=6, point=other),
        MirrorCA().crl(9, entry, base=6, key_id=ca.key_id),
        ca.crl(9, entry),
        b"x",
    ):
        folder.put(ca.crl(7), delta)
        found = folder.check(ca.member(5))
        assert (found.status, found.delta) == ("good", None)
    folder.put(ca.crl(7), ca.crl(9, entry, base=7))
    assert folder.check(ca.member(5)).status == "revoked"


def test_an_old_complete_crl_is_good_for_as_long_as_the_delta_on_it_is(folder: Folder) -> None:
    """The two together say what was so at the delta's date."""
    later = NOW_S + DAY_S + 1
    folder.put(folder.ca.crl(7, listed_entry(5, 1)), folder.ca.crl(9, base=7, next_s=NOW_S + 2 * DAY_S))
    found = folder.check(folder.ca.member(6), later)
    assert (found.status, found.next_update_s) == ("good", NOW_S + 2 * DAY_S)
    assert folder.check(folder.ca.member(5), later).status == "revoked"


def test_nothing_is_said_by_what_has_expired_or_is_not_there(folder: Folder) -> None:
    """Unknown, never good; it says why."""
    member = folder.ca.member(5)
    assert folder.check(member) == CheckedStatus("unknown", "05", "no CRL here covers it")
    folder.put(folder.ca.crl(7))
    folder.put(None, folder.ca.crl(9, base=7), "test/g1/other")
    assert folder.check(member).status == "good"
    found = folder.check(member, NOW_S + DAY_S)
    assert found.status == "unknown"
    assert "test/g1/all: expired at" in found.why
    assert folder.check(member, NOW_S - 500).status == "unknown"


def test_only_the_cas_own_crl_says_anything(folder: Folder) -> None:
    """Another CA, another generation of the same name, the key's name on a foreign signature."""
    folder.put(folder.ca.crl(7))
    second = MirrorCA(2)
    for other in (MirrorCA(name="Another"), second):
        found = folder.check(other.member(5))
        assert (found.status, found.why) == ("unknown", "its CA is none of those in the folder")
    folder.trust(second)
    assert folder.check(second.member(5)).status == "unknown"
    # By the point's name it would be taken; by the key it is not.
    folder.put(folder.ca.crl(8, point=directory_name(2, "all")), scope="test/g2/all")
    assert folder.check(second.member(5)).status == "unknown"
    folder.put(MirrorCA(2).crl(8, key_id=second.key_id), scope="test/g2/all")
    assert folder.check(second.member(5)).status == "unknown"
    folder.put(second.crl(8), scope="test/g2/all")
    assert folder.check(second.member(5)).scope == "test/g2/all"
    assert folder.check(folder.ca.member(5)).scope == SCOPE
    forged = MirrorCA()
    forged.key_id = folder.ca.key_id
    assert folder.check(forged.member(5)).why == "its CA is none of those in the folder"


def test_the_scope_is_the_one_the_certificate_names(folder: Folder) -> None:
    """A partition's CRL speaks for its partition; one of several points is enough; none: only the whole."""
    for code, entry in (("13101", listed_entry(5, 1)), ("13102", listed_entry(6, 1))):
        folder.put(folder.ca.crl(7, entry, point=directory_name(1, f"m1/{code}")), scope=f"test/g1/m1/{code}")
    member = folder.ca.member
    assert folder.check(member(5, "m1/13101")).status == "revoked"
    assert folder.check(member(5, "m1/13102")).status == "good"
    assert folder.check(member(5)).why == "no CRL here covers it"
    assert folder.check(member(5, "m1/13103")).status == "unknown"
    # The newer of two that cover it.
    point = directory_name(1, "all")
    folder.put(folder.ca.crl(9, listed_entry(7, 1), this_s=NOW_S - 50, point=point))
    found = folder.check(member(7, "m1/13101", "all"))
    assert (found.status, found.scope) == ("revoked", SCOPE)
    assert folder.check(member(5, "m1/13101")).scope == "test/g1/m1/13101"
    # Without a point of its own a CRL is of all that its key issued; but not if it is of CAs only.
    folder.put(folder.ca.crl(10, point=None, this_s=NOW_S - 10), scope="test/g1/whole")
    assert folder.check(member(8, "m1/13103")).scope == "test/g1/whole"
    folder.put(folder.ca.crl(10, point=directory_name(1, "cas"), only_ca_certs=True), scope="test/g1/cas")
    assert folder.check(member(8, "cas")).scope == "test/g1/whole"


def test_files_noted_to_be_of_other_scopes_are_not_read(folder: Folder) -> None:
    """With thousands of partitions a check reads one; notes that are wrong make nothing good."""
    for code in ("13101", "13102"):
        point = directory_name(1, f"m1/{code}")
        folder.put(folder.ca.crl(7, listed_entry(5, 1), point=point), scope=f"test/g1/m1/{code}")
    notes = CRLFolder(folder.path)
    ca = read_trusted_ca(folder.ca.pem, "ca")
    for code in ("13101", "13102"):
        assert notes.kept(f"test/g1/m1/{code}", "complete", ca) is not None
    notes.save()
    # Whoever opens this one fails, and says so.
    unread = folder.path / "test/g1/m1/13102/complete.crl"
    unread.unlink()
    unread.mkdir()
    assert folder.check(folder.ca.member(5, "m1/13101")).scope == "test/g1/m1/13101"
    assert "13102" in folder.check(folder.ca.member(5, "m1/13102")).why
    assert folder.check(folder.ca.member(5, "m1/13103")).why == "no CRL here covers it"
    text = (folder.path / "mirror.json").read_text()
    (folder.path / "mirror.json").write_text(text.replace(ca.key_id.hex(), "00"))
    assert folder.check(folder.ca.member(5, "m1/13101")).status == "unknown"


def test_after_its_end_a_certificate_is_not_called_good(folder: Folder) -> None:
    """Lists need not name it any more; what they name is revoked."""
    folder.put(folder.ca.crl(7, listed_entry(6, 1)))
    found = folder.check(folder.ca.member(5, until_s=NOW_S - 1))
    assert (found.status, found.why) == ("unknown", "it expired on 2027-01-15")
    assert folder.check(folder.ca.member(6, until_s=NOW_S - 1)).status == "revoked"


def test_a_list_that_keeps_who_has_expired_says_that_one_was_not_revoked(folder: Folder) -> None:
    """From its date on, that day included, and only if complete CRL and delta both say so."""
    ended_s = NOW_S - 500
    folder.put(folder.ca.crl(7, listed_entry(6, 1), expired_from_s=ended_s))
    found = folder.check(folder.ca.member(5, until_s=ended_s))
    assert (found.status, found.why) == ("good", "it expired on 2027-01-15, and was not revoked by then")
    assert folder.check(folder.ca.member(5, until_s=ended_s - 1)).status == "unknown"
    assert folder.check(folder.ca.member(6, until_s=ended_s - 1)).status == "revoked"
    folder.put(None, folder.ca.crl(9, base=7))
    assert folder.check(folder.ca.member(5, until_s=ended_s)).status == "unknown"
    folder.put(None, folder.ca.crl(9, base=7, expired_from_s=ended_s + 1))
    assert folder.check(folder.ca.member(5, until_s=ended_s)).status == "unknown"
    assert folder.check(folder.ca.member(5, until_s=ended_s + 1)).status == "good"


def test_openssl_takes_a_list_that_keeps_who_has_expired(folder: Folder, tmp_path: Path) -> None:
    """It is not critical, so whoever does not know it goes by the entries as ever."""
    files = {name: tmp_path / f"{name}.pem" for name in ("ca", "good", "bad", "crl")}
    files["ca"].write_bytes(folder.ca.pem)
    files["good"].write_bytes(folder.ca.member(5))
    files["bad"].write_bytes(folder.ca.member(6))
    crl_der = folder.ca.crl(7, listed_entry(6, 1), expired_from_s=NOW_S - 500)
    files["crl"].write_bytes(x509.load_der_x509_crl(crl_der).public_bytes(Encoding.PEM))
    options: list[str | Path] = ["-crl_check", "-attime", str(NOW_S)]
    options += ["-CAfile", files["ca"], "-CRLfile", files["crl"]]
    for name, word in (("good", "good.pem: OK"), ("bad", "certificate revoked")):
        said = subprocess.run(
            ["openssl", "verify", *options, files[name]], capture_output=True, text=True, check=False
        )
        assert word in said.stdout + said.stderr


def test_a_certificate_without_a_key_identifier_is_found_by_its_signature(folder: Folder) -> None:
    """Old certificates name no key."""
    folder.trust(MirrorCA(2))
    folder.put(folder.ca.crl(7, listed_entry(5, 1)))
    assert folder.check(folder.ca.member(5, with_aki=False)).status == "revoked"


def test_a_damaged_file_says_nothing(folder: Folder) -> None:
    """One octet of the list: it is not believed, though it lies in the folder."""
    crl = bytearray(folder.ca.crl(7, listed_entry(5, 1)))
    crl[crl.index(b"\x02\x01\x05") + 2] = 6
    folder.put(bytes(crl))
    found = folder.check(folder.ca.member(5))
    assert found.status == "unknown"


def test_what_is_no_certificate_is_an_error(folder: Folder) -> None:
    """Named by its file."""
    with pytest.raises(CRLRefused, match=r"member\.pem: not a certificate"):
        folder.check(b"x")
    with pytest.raises(CRLRefused, match="not the certificate of a CA"):
        read_trusted_ca(folder.ca.member(5), "x")
    with pytest.raises(CRLRefused, match="not a certificate"):
        read_trusted_ca(b"x", "x")


@pytest.mark.parametrize(("reason", "status"), [(1, "revoked"), (6, "held")])
def test_who_a_delta_revoked_is_not_good_once_the_delta_is_over(
    folder: Folder, reason: int, status: str
) -> None:
    """The complete CRL is in force and older than the delta, which is known to be signed by the CA."""
    folder.put(folder.ca.crl(7), folder.ca.crl(9, listed_entry(5, reason), base=6, next_s=NOW_S - 1))
    found = folder.check(folder.ca.member(5))
    assert (found.status, found.complete, found.delta) == (status, 7, 9)
    # Until when it is so is for the complete CRL to say.
    assert found.next_update_s == NOW_S + DAY_S
    assert folder.check(folder.ca.member(6)).status == "good"
    assert folder.check(folder.ca.member(5), NOW_S + DAY_S).status == "unknown"


def test_of_two_lists_of_one_second_the_worse_one_counts(folder: Folder) -> None:
    """A certificate that is held by one of its CRLs is not good by the other."""
    folder.put(folder.ca.crl(7), scope="test/g1/a")
    folder.put(folder.ca.crl(7, listed_entry(5, 6)), scope="test/g1/b")
    assert folder.check(folder.ca.member(5)).status == "held"


def test_who_is_revoked_by_one_list_is_revoked(folder: Folder) -> None:
    """Also where a newer one of another scope does not name it; a hold ends by a newer list."""
    for reason, status in ((1, "revoked"), (6, "good")):
        folder.put(folder.ca.crl(7, this_s=NOW_S - 50), scope="test/g1/a")
        folder.put(folder.ca.crl(7, listed_entry(5, reason)), scope="test/g1/b")
        assert folder.check(folder.ca.member(5)).status == status
