"""The oracle itself: what is wrong it must call wrong."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from fault_crls import check_crls
from fault_oracle import HELD, ISSUED, RELEASED, REVOKED, Histories, epochs_at

_AT_S = 1_800_000_000
_KEY = ec.generate_private_key(ec.SECP256R1())
_NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "CA")])


def _authority() -> x509.Certificate:
    at = datetime.fromtimestamp(_AT_S, UTC)
    builder = x509.CertificateBuilder(_NAME, _NAME, _KEY.public_key(), 1, at, at + timedelta(days=1))
    return builder.sign(_KEY, hashes.SHA256())


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


def test_a_second_may_belong_to_two_epochs() -> None:
    """The one in which one epoch ended and the next began, and no other."""
    before, after = _histories(), _histories()
    epochs = [(0, before), (100, after)]
    assert [epochs_at(epochs, second) for second in (99, 100, 101)] == [[before], [before, after], [after]]
