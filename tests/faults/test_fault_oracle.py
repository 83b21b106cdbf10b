"""The oracle itself: what is wrong it must call wrong."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from fault_crls import check_crls
from fault_oracle import HELD, ISSUED, RELEASED, REVOKED, Checker, Histories, epochs_at

_AT_S = 1_800_000_000
_KEY = ec.generate_private_key(ec.SECP256R1())
_NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "CA")])


def _authority(*extensions: x509.ExtensionType) -> x509.Certificate:
    at = datetime.fromtimestamp(_AT_S, UTC)
    # Answers state when they were made: today.
    years = timedelta(days=3650)
    builder = x509.CertificateBuilder(_NAME, _NAME, _KEY.public_key(), 1, at - years, at + years)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(_KEY, hashes.SHA256())


def _answer(serial: int, at_s: int, revoked_s: int | None = None) -> bytes:
    """An answer at the second *at_s*: good, or revoked with the reason keyCompromise."""
    at = datetime.fromtimestamp(_AT_S + at_s, UTC)
    delegate = _authority(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING]))
    builder = ocsp.OCSPResponseBuilder().add_response_by_hash(
        bytes(20),
        bytes(20),
        serial,
        hashes.SHA1(),
        ocsp.OCSPCertStatus.GOOD if revoked_s is None else ocsp.OCSPCertStatus.REVOKED,
        at,
        at + timedelta(seconds=30),
        None if revoked_s is None else datetime.fromtimestamp(_AT_S + revoked_s, UTC),
        None if revoked_s is None else x509.ReasonFlags.key_compromise,
    )
    builder = builder.responder_id(ocsp.OCSPResponderEncoding.NAME, delegate).certificates([delegate])
    return builder.sign(_KEY, hashes.SHA256()).public_bytes(Encoding.DER)


class _Asker:
    """What an asker writes down, one line at a time."""

    def __init__(self, folder: Path) -> None:
        self._answers, self._bodies = folder / "answers-0.log", folder / "bodies-0.log"
        self._answers.touch()
        self._bodies.touch()
        self._count = 0

    def told(self, sent_ns: int, serial: int, body: bytes, end: str = "\n") -> None:
        """Append an answer, and its body, which came a nanosecond after the question."""
        self._count += 1
        with self._bodies.open("a") as file:
            file.write(f"{self._count} {body.hex()}\n")
        self.wrote(f"{sent_ns} {sent_ns + 1} 7 {serial:x} {self._count} -{end}")

    def wrote(self, text: str) -> None:
        """Append to the answers as it is."""
        with self._answers.open("a") as file:
            file.write(text)


def _write_crl(folder: Path, number: int, base: int | None, entries: dict[int, tuple[int, str]]) -> None:
    at = datetime.fromtimestamp(_AT_S + number, UTC)
    builder = x509.CertificateRevocationListBuilder(_NAME, at, at + timedelta(days=1))
    builder = builder.add_extension(x509.CRLNumber(number), critical=False)
    if base is not None:
        builder = builder.add_extension(x509.DeltaCRLIndicator(base), critical=True)
    for serial, (revoked_s, reason) in entries.items():
        entry = x509.RevokedCertificateBuilder(serial, datetime.fromtimestamp(_AT_S + revoked_s, UTC))
        reason_flag = x509.CRLReason(x509.ReasonFlags(reason))
        builder = builder.add_revoked_certificate(entry.add_extension(reason_flag, critical=False).build())
    crl = builder.sign(_KEY, hashes.SHA256())

    (folder / f"{number}{'' if base is None else '.delta'}.crl").write_bytes(crl.public_bytes(Encoding.DER))


def _histories() -> Histories:
    """Certificate 1 revoked at 5 s, 2 held at 6 s and released at 15 s, 3 never anything but good."""
    found = Histories()
    for serial in (1, 2, 3):
        found.note(7, serial, ISSUED, None, _AT_S * 1000)
    found.note(7, 1, REVOKED, 1, (_AT_S + 5) * 1000)
    found.note(7, 2, HELD, 6, (_AT_S + 6) * 1000)
    found.note(7, 2, RELEASED, None, (_AT_S + 15) * 1000)
    return found


def _wrong(folder: Path) -> list[str]:
    count, wrong = check_crls(folder, {7: _authority()}, [(0, _histories())])
    assert count == len(list(folder.glob("*.crl")))
    return wrong


def test_right_crls_are_right(tmp_path: Path) -> None:
    """A complete CRL, and a delta that takes a released certificate off again."""
    _write_crl(tmp_path, 10, None, {1: (5, "keyCompromise"), 2: (6, "certificateHold")})
    _write_crl(tmp_path, 20, 10, {2: (15, "removeFromCRL")})
    assert _wrong(tmp_path) == []


def test_a_partitions_crl_has_its_own_alone(tmp_path: Path) -> None:
    """Two revoked, one in each partition, both on the whole list; on the other one they are wrong."""
    histories = _histories()
    histories.note(7, 3, REVOKED, 1, (_AT_S + 5) * 1000)
    histories.partitions |= {(7, 1): "n2/b0", (7, 2): "n2/b0", (7, 3): "n2/b1"}
    one, two = {1: (5, "keyCompromise")}, {3: (5, "keyCompromise")}
    for scope, right, wrong in (("all", one | two, one), ("n2/b0", one, two), ("n2/b1", two, one | two)):
        for entries, is_right in ((right, True), (wrong, False)):
            folder = tmp_path / str(is_right) / "corp" / "g1" / scope
            folder.mkdir(parents=True)
            _write_crl(folder, 20, None, entries)
            assert (check_crls(folder, {7: _authority()}, [(0, histories)])[1] == []) is is_right


def test_wrong_crls_are_wrong(tmp_path: Path) -> None:
    """One missing, one too many, another time, another reason, one not taken off: each is told."""
    right = {1: (5, "keyCompromise"), 2: (6, "certificateHold")}
    cases = [
        {2: right[2]},
        right | {3: (5, "keyCompromise")},
        right | {4: (5, "keyCompromise")},
        right | {1: (6, "keyCompromise")},
        right | {1: (5, "superseded")},
    ]
    for number, entries in enumerate(cases):
        folder = tmp_path / str(number)
        folder.mkdir()
        _write_crl(folder, 10, None, entries)
        assert len(_wrong(folder)) == 1, number
    folder = tmp_path / "delta"
    folder.mkdir()
    _write_crl(folder, 10, None, right)
    _write_crl(folder, 20, 10, {})
    (text,) = _wrong(folder)
    assert text.startswith("20.delta.crl: 2: says")


def test_each_answer_is_checked_once_and_when_it_is_whole(tmp_path: Path) -> None:
    """Those that have come since, up to the moment asked for; half a line and later ones wait."""
    asker, checker = _Asker(tmp_path), Checker(tmp_path, {7: _authority()})
    epochs = [(0, _histories())]
    asker.told(1000, 3, _answer(3, 20))
    asker.told(5000, 1, _answer(1, 20, revoked_s=5))
    asker.told(6000, 1, _answer(1, 20, revoked_s=5), end="")
    counts = []
    for upto_ns in (1000, 2000, 9000, 9000):
        report = checker.check(epochs, {}, upto_ns)
        counts.append(report.checked)
        assert report.wrong == []
    asker.wrote("\n7000 7001 7 3 LOST -\n")
    report = checker.check(epochs, {})
    assert counts == [0, 1, 1, 0]
    assert (report.checked, report.lost, report.wrong) == (1, 1, [])


def test_wrong_answers_are_wrong(tmp_path: Path) -> None:
    """Another state than at that second, another certificate, another signer, octets changed on the way."""
    changed = bytearray(_answer(3, 20))
    changed[-1] ^= 1
    cases = [
        (1, _answer(1, 20)),
        (1, _answer(1, 20, revoked_s=6)),
        (3, _answer(3, 20, revoked_s=5)),
        (3, _answer(4, 20)),
        (3, bytes(changed)),
        (3, _answer(3, 20)[:-1]),
    ]
    for number, (serial, body) in enumerate(cases):
        folder = tmp_path / str(number)
        folder.mkdir()
        _Asker(folder).told(1000, serial, body)
        report = Checker(folder, {7: _authority()}).check([(0, _histories())], {})
        assert len(report.wrong) == 1, (number, report.wrong)


def test_good_after_revoke_is_wrong_whenever_its_return_is_heard_of(tmp_path: Path) -> None:
    """Before the answer or after it was checked; a question sent before the return may be told good."""
    asker, checker = _Asker(tmp_path), Checker(tmp_path, {7: _authority()})
    epochs = [(0, _histories())]
    asker.told(1000, 1, _answer(1, 4))
    asker.told(2000, 3, _answer(3, 4))
    assert checker.check(epochs, {(7, 1): 1000}).wrong == []
    assert checker.check(epochs, {(7, 1): 1000, (7, 3): 2000}).wrong == []
    (text,) = checker.check(epochs, {(7, 1): 999, (7, 3): 2000}).wrong
    assert "after revoke had returned" in text
    asker.told(3000, 3, _answer(3, 4))
    (text,) = checker.check(epochs, {(7, 3): 2500}).wrong
    assert text.startswith("3000 3001 7 3 ")


def test_a_second_may_belong_to_two_epochs() -> None:
    """The one in which one epoch ended and the next began, and no other."""
    before, after = _histories(), _histories()
    epochs = [(0, before), (100, after)]
    assert [epochs_at(epochs, second) for second in (99, 100, 101)] == [[before], [before, after], [after]]
