"""Importing a CA: what the register has afterwards, whoever killed it, however often."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.name import _ASN1Type
from import_cases import (
    END_S,
    NOW_MS,
    NOW_S,
    PEM,
    REVOKED_S,
    OldCA,
    dump,
    moment,
    name,
    revoked_line,
    run,
    states,
    valid_line,
)
from store_cases import INDEX_KEY, START_MS

from certstatus.changes import fingerprint, unpack_change
from certstatus.errors import ImportRefused, PolicyViolation
from certstatus.snapshot import apply_change
from issuance import schema
from issuance.ca_keys import CAKeyFolder
from issuance.import_records import UNKNOWN_END_S
from issuance.import_run import follow_crl
from issuance.issue import Issuing
from issuance.issuers import issuer_of, issuer_table
from issuance.revoke import FoundCertificate, find_certificate, hold, revoke
from issuance.store import Store

VALID, REVOKED, HELD = 1, 2, 3
HOLD = x509.ReasonFlags.certificate_hold
KEY = x509.ReasonFlags.key_compromise


@pytest.fixture
def old(tmp_path: Path) -> OldCA:
    """A CA that somebody else had."""
    return OldCA(tmp_path / "old")


def shown(store: Store) -> list[str]:
    """The services that the responders are told of."""
    with store.reading() as connection:
        return [item.service for item in issuer_table(connection)]


def test_a_taken_over_ca_is_here_with_all_it_said(store: Store, keys: CAKeyFolder, old: OldCA) -> None:
    """Certificates, revocations with the old dates, and the CRL number that ours go on from."""
    order = old.order(
        certificates=(old.write_certificates(1, 2),),
        index_txt=old.write_index(valid_line(1), revoked_line(2, ",superseded"), valid_line(3)),
        crl_paths=(old.write_crl({2: KEY, 4: None}, 41),),
    )
    report = run(store, keys, order)
    assert states(store) == {
        "01": (VALID, None, None),
        "02": (REVOKED, 1, REVOKED_S),
        "03": (VALID, None, None),
        "04": (REVOKED, None, REVOKED_S),
    }
    assert report.is_new
    assert report.issuer.revokes_here
    assert shown(store) == ["OLD"]
    with store.reading() as connection:
        assert connection.execute(sa.select(schema.crl_scope.c.last_number)).scalar_one() == 41
        ders = connection.execute(sa.select(schema.issue_record.c.certificate_der)).scalars().all()
        ends = connection.execute(
            sa.select(schema.certificate.c.not_after_s).where(schema.certificate.c.serial == "04")
        ).scalar_one()
    assert len(ders) == 2
    # Of this one nothing but its revocation is known, so it never leaves.
    assert ends == UNKNOWN_END_S
    assert keys.private_key(report.issuer.issuer_id).public_key() == old.key.public_key()
    revoke(store, find_certificate(store, b"\x01", "OLD"), NOW_MS, reason=1)
    assert states(store)["01"] == (REVOKED, 1, NOW_S)


def test_an_imported_revocation_keeps_its_date_everywhere(
    store: Store, keys: CAKeyFolder, old: OldCA
) -> None:
    """Rows, change log, feed and CRL entries all show the old CA's date; the time of recording goes on."""
    run(store, keys, old.order(index_txt=old.write_index(revoked_line(2), valid_line(3)), crl_number=1))
    issuer_id = issuer_of(store, "OLD").issuer_id
    mark = fingerprint(b"\x02", INDEX_KEY)
    upto = store.state().seq
    (row,) = [item for item in store.issued_rows(issuer_id, upto) if item.fingerprint == mark]
    assert row.revoked_at_s == REVOKED_S
    (change,) = store.revocation_changes(issuer_id, 0, upto)
    assert change.recorded_ms == REVOKED_S * 1000
    changes = [unpack_change(item.packed) for item in store.changes_after(0, upto, 100)]
    about = [item for item in changes if item.fingerprint == mark]
    index_row = apply_change(about[1], apply_change(about[0], None))
    assert (index_row.state, index_row.revoked_at_s) == (1, REVOKED_S)
    assert [store.recorded_ms(item.seq) for item in changes] == sorted(
        store.recorded_ms(item.seq) for item in changes
    )
    assert store.recorded_ms(about[1].seq) >= NOW_MS > START_MS - 1
    # Played back, too: another change on top makes the past be built again from the log.
    revoke(store, FoundCertificate(issuer_id, "OLD", b"\x03"), NOW_MS)
    (again,) = [item for item in store.issued_rows(issuer_id, upto) if item.fingerprint == mark]
    assert again == row


def test_the_same_again_changes_nothing_and_more_adds_only_that(
    store: Store, keys: CAKeyFolder, old: OldCA
) -> None:
    """A second run with the same files leaves the store as it was; with more, it records the difference."""
    order = old.order(certificates=(old.write_certificates(1, 2),), crl_paths=(old.write_crl({2: None}, 7),))
    run(store, keys, order)
    before = dump(store)
    assert run(store, keys, order).recorded is None
    assert dump(store) == before
    seq = store.state().seq
    order = old.order(
        certificates=(old.write_certificates(1, 2, 3),),
        crl_paths=(old.write_crl({1: KEY, 2: None}, 8, NOW_S - 500),),
    )
    report = run(store, keys, order)
    assert (report.difference.issued, report.difference.revoked, report.difference.total) == (1, 1, 2)
    # Issued, revoked, and the end of the import.
    assert store.state().seq == seq + 3
    with store.reading() as connection:
        assert connection.execute(sa.select(schema.crl_scope.c.last_number)).scalar_one() == 8


def test_without_its_last_crl_number_no_ca_is_taken_over(store: Store, keys: CAKeyFolder, old: OldCA) -> None:
    """A CRL without a number, or none, is refused; a number given by hand, or as well, is taken."""
    folder = old.write_certificates(1)
    before = dump(store)
    for order in (
        old.order(certificates=(folder,)),
        old.order(certificates=(folder,), crl_paths=(old.write_crl({}, None),)),
    ):
        with pytest.raises(PolicyViolation, match="--crl-number"):
            run(store, keys, order)
    with pytest.raises(PolicyViolation, match="lies before 9"):
        run(store, keys, old.order(certificates=(folder,), crl_paths=(old.write_crl({}, 9),), crl_number=8))
    with pytest.raises(PolicyViolation, match="can count on"):
        run(store, keys, old.order(certificates=(folder,), crl_number=1 << 64))
    assert dump(store) == before
    run(store, keys, old.order(certificates=(folder,), crl_paths=(old.write_crl({}, None),), crl_number=300))
    with store.reading() as connection:
        assert connection.execute(sa.select(schema.crl_scope.c.last_number)).scalar_one() == 300


def test_a_followed_ca_is_obeyed_and_not_commanded(store: Store, keys: CAKeyFolder, old: OldCA) -> None:
    """Its newer CRL revokes, holds, releases and corrects; what is gone from it stays revoked."""
    everything = {1: HOLD, 2: KEY, 3: None, 4: HOLD}
    order = old.order(
        key_path=None,
        certificates=(old.write_certificates(1, 2, 3, 4, 5),),
        crl_paths=(old.write_crl(everything, 7, NOW_S - 5000),),
    )
    issuer = run(store, keys, order).issuer
    with store.reading() as connection:
        (told,) = issuer_table(connection)
    assert told.foreign_crl == (NOW_S - 5000, NOW_S - 5000 + 100_000)
    newer = old.crl_der({3: KEY, 4: KEY, 5: None}, 8, NOW_S - 4000)
    difference = follow_crl(store, issuer, INDEX_KEY, newer, "x.crl", keys.folder, NOW_MS)
    assert difference is not None
    assert (difference.released, difference.revoked, difference.reasons) == (1, 2, 1)
    assert states(store) == {
        "01": (VALID, None, None),
        "02": (REVOKED, 1, REVOKED_S),
        "03": (REVOKED, 1, REVOKED_S),
        "04": (REVOKED, 1, REVOKED_S),
        "05": (REVOKED, None, REVOKED_S),
    }
    issuer = issuer_of(store, "OLD")
    assert follow_crl(store, issuer, INDEX_KEY, newer, "x.crl", keys.folder, NOW_MS) is None
    with store.reading() as connection:
        (told,) = issuer_table(connection)
    assert told.foreign_crl == (NOW_S - 4000, NOW_S - 4000 + 100_000)
    before = dump(store)
    with pytest.raises(ImportRefused, match="older than the CRL"):
        follow_crl(store, issuer, INDEX_KEY, old.crl_der({}, 9, NOW_S - 4500), "x", keys.folder, NOW_MS)
    with pytest.raises(ImportRefused, match="8 was taken over already"):
        follow_crl(store, issuer, INDEX_KEY, old.crl_der({}, 6, NOW_S - 3000), "x", keys.folder, NOW_MS)
    found = find_certificate(store, b"\x01", "OLD")
    with pytest.raises(PolicyViolation, match="revokes elsewhere"):
        revoke(store, found, NOW_MS)
    with pytest.raises(PolicyViolation, match="revokes elsewhere"):
        hold(store, found, NOW_MS)
    with pytest.raises(PolicyViolation, match="issues and revokes elsewhere"):
        Issuing.of(issuer, old.key)
    assert dump(store) == before


def test_a_followed_ca_can_be_taken_over_later(store: Store, keys: CAKeyFolder, old: OldCA) -> None:
    """With the key it revokes here from then on, numbered on from the CRL that was followed."""
    folder = old.write_certificates(1)
    run(store, keys, old.order(key_path=None, certificates=(folder,), crl_paths=(old.write_crl({}, 12),)))
    with store.reading() as connection:
        assert connection.execute(sa.select(schema.crl_scope)).all() == []
    issuer = run(store, keys, old.order(certificates=(folder,))).issuer
    assert issuer.revokes_here
    with store.reading() as connection:
        assert connection.execute(sa.select(schema.crl_scope.c.last_number)).scalar_one() == 12
        assert issuer_table(connection)[0].foreign_crl is None
    revoke(store, find_certificate(store, b"\x01", "OLD"), NOW_MS)


def test_a_hold_whose_certificate_ended_is_not_released_by_leaving_the_list(
    sqlite_store: Store, keys: CAKeyFolder, old: OldCA
) -> None:
    """An entry leaves a CRL after its certificate's end: on hold to the last, it never became good again."""
    folder = old.folder / "certificates"
    folder.mkdir()
    for serial, end_s in ((1, NOW_S - 4001), (2, NOW_S - 4000)):
        (folder / f"{serial}.pem").write_bytes(old.issue(serial, end_s=end_s).public_bytes(PEM))
    first = old.write_crl({1: HOLD, 2: HOLD}, 7, NOW_S - 5000)
    issuer = run(
        sqlite_store, keys, old.order(key_path=None, certificates=(folder,), crl_paths=(first,))
    ).issuer
    newer = old.crl_der({}, 8, NOW_S - 4000)
    follow_crl(sqlite_store, issuer, INDEX_KEY, newer, "x.crl", keys.folder, NOW_MS)
    assert {serial: state for serial, (state, _, _) in states(sqlite_store).items()} == {
        "01": HELD,
        "02": VALID,
    }


def test_only_a_hold_that_was_imported_ends_with_the_ca_s_crl(
    store: Store, keys: CAKeyFolder, old: OldCA
) -> None:
    """A hold that this installation recorded is not released because the old CA's CRL lacks it."""
    order = old.order(
        certificates=(old.write_certificates(1, 2),),
        crl_paths=(old.write_crl({1: HOLD}, 7),),
        changes={"hold": True},
    )
    run(store, keys, order)
    hold(store, find_certificate(store, b"\x02", "OLD"), NOW_MS)
    run(store, keys, dataclasses.replace(order, crl_paths=(old.write_crl({}, 8, NOW_S - 10),)))
    assert {serial: state for serial, (state, _, _) in states(store).items()} == {"01": VALID, "02": HELD}


def test_nobody_is_told_of_half_an_import(sqlite_store: Store, keys: CAKeyFolder, old: OldCA) -> None:
    """While certificates are recorded the issuer is in no table; interrupted there, the next run ends it."""
    from issuance.import_run import import_ca

    order = old.order(index_txt=old.write_index(*(valid_line(n) for n in range(1, 1201))), crl_number=1)
    seen: list[list[str]] = []

    def told(what: str, _done: int) -> None:
        if what == "recording":
            seen.append(shown(sqlite_store))
            if len(seen) == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_ca(sqlite_store, keys, INDEX_KEY, order, keys.folder, NOW_MS, told)
    assert seen == [[], []]
    assert 0 < len(states(sqlite_store)) < 1200
    assert shown(sqlite_store) == []
    issuer = issuer_of(sqlite_store, "OLD")
    with pytest.raises(PolicyViolation, match="its import has not ended"):
        Issuing.of(issuer, old.key)
    report = run(sqlite_store, keys, order)
    assert not report.is_new
    assert len(states(sqlite_store)) == 1200
    assert shown(sqlite_store) == ["OLD"]


_KILLED = """
import sys, json
from pathlib import Path
sys.path[:0] = json.loads(sys.argv[1])
from import_cases import OldCA, NOW_MS
from store_cases import INDEX_KEY
from issuance.import_run import ImportOrder, import_ca
from issuance.issuers import IssuerPolicy
from issuance.ca_keys import CAKeyFolder
from issuance.store import Store
from certstatus.config import IssuerConfig
folder = Path(sys.argv[2])
policy = IssuerPolicy.from_config(IssuerConfig(service="OLD", hold=True))
order = ImportOrder("OLD", folder / "old/ca.pem", policy, key_path=folder / "old/ca.key",
                    index_txt=folder / "old/index.txt", crl_paths=(folder / "old/ca.crl",))
def told(what, done):
    print(what, done, flush=True)
with Store.open(f"sqlite:///{folder / 'store.db'}") as store:
    import_ca(store, CAKeyFolder(folder / "ca", environment={}), INDEX_KEY, order, folder, NOW_MS, told)
"""


def test_killed_at_any_piece_the_next_run_ends_it(sqlite_store: Store, keys: CAKeyFolder, old: OldCA) -> None:
    """kill -9 at random places of several runs, and one run to the end: as if nothing had happened."""
    rng = random.Random(20261124)
    lines = [
        revoked_line(n, rng.choice(["", ",keyCompromise", ",certificateHold"]))
        if n % 3 == 0
        else valid_line(n)
        for n in range(1, 6001)
    ]
    old.write_index(*lines)
    old.write_crl({6: KEY, 7000: None}, 5)
    folder = keys.folder.parent
    paths = json.dumps([str(Path(__file__).parent)])
    killed = 0
    for _ in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", _KILLED, paths, str(folder)],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
        assert process.stdout is not None
        left = rng.randrange(1, 4)
        for line in process.stdout:
            left -= line.startswith("recording")
            if left == 0:
                break
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        process.stdout.close()
    assert killed >= 3
    order = old.order(
        index_txt=old.folder / "index.txt", crl_paths=(old.folder / "ca.crl",), changes={"hold": True}
    )
    run(sqlite_store, keys, order)
    found = states(sqlite_store)
    assert len(found) == 6001
    reasons = {"keyCompromise": 1, "certificateHold": 6, "": None}
    for line in lines:
        status, _, revocation, serial, *_ = line.split("\t")
        number = bytes.fromhex(serial)
        text = (number if number[0] < 0x80 else b"\0" + number).hex()
        expected: tuple[int, int | None, int | None] = (VALID, None, None)
        if status == "R":
            reason = reasons[revocation.partition(",")[2]]
            expected = (HELD if reason == 6 else REVOKED, reason, REVOKED_S)
        if text == "06":
            expected = (REVOKED, 1, REVOKED_S)
        assert found[text] == expected, line
    assert run(sqlite_store, keys, order).recorded is None
    assert sorted(path.name for path in keys.folder.glob("*.key")) == ["1.key"]
    assert not list(folder.glob(".import-*"))


def test_old_and_odd_things_are_taken_as_they_are(store: Store, keys: CAKeyFolder, tmp_path: Path) -> None:
    """No SKI, 20-octet, zero and negative numbers, an end in 9999, and a name in several string types."""
    old = OldCA(tmp_path / "old", rsa.generate_private_key(65537, 2048), with_ski=False)
    great = (1 << 158) + 5
    bundle = tmp_path / "bundle.pem"
    parts = [old.issue(great).public_bytes(PEM), old.issue(2, _ASN1Type.PrintableString).public_bytes(PEM)]
    parts.append(old.issue(3, _ASN1Type.T61String, 253_402_300_799).public_bytes(PEM))
    bundle.write_bytes(b"some text\n" + b"".join(parts))
    lines = [f"V\t99991231235959Z\t\t{serial}\tunknown\t/CN=odd" for serial in ("00", "-05")]
    order = old.order(certificates=(bundle,), index_txt=old.write_index(*lines), crl_number=1)
    issuer = run(store, keys, order).issuer
    point = old.key.public_key()
    assert issuer.key_id == x509.SubjectKeyIdentifier.from_public_key(point).digest
    assert set(states(store)) == {great.to_bytes(20, "big").hex(), "02", "03", "00", "fb"}
    kinds = (_ASN1Type.UTF8String, _ASN1Type.PrintableString, _ASN1Type.T61String)
    assert set(issuer.names_der) == {name("Old CA", kind).public_bytes() for kind in kinds}
    with store.reading() as connection:
        days = connection.execute(
            sa.select(schema.certificate.c.not_after_day).where(schema.certificate.c.serial == "03")
        ).scalar_one()
    assert days == 0xFFFF


def test_the_list_of_what_was_issued_may_be_absent(store: Store, keys: CAKeyFolder, old: OldCA) -> None:
    """Without certificates the list must be said to be absent; then `unlisted` is as asked for."""
    crl_path = old.write_crl({9: None})
    with pytest.raises(PolicyViolation, match="issued_list = complete needs the list"):
        run(store, keys, old.order(key_path=None, crl_paths=(crl_path,)))
    changes = {"issued_list": "absent", "unlisted": "good"}
    run(store, keys, old.order(key_path=None, crl_paths=(crl_path,), changes=changes))
    with store.reading() as connection:
        (told,) = issuer_table(connection)
    assert (told.issued_list, told.unlisted) == ("absent", "good")
    assert states(store) == {"09": (REVOKED, None, REVOKED_S)}


def test_a_certificate_known_by_its_number_gets_its_record(
    store: Store, keys: CAKeyFolder, old: OldCA
) -> None:
    """What a CRL listed first and a folder brought later is one certificate, still revoked."""
    run(store, keys, old.order(crl_paths=(old.write_crl({9: None}),), changes={"issued_list": "absent"}))
    report = run(store, keys, old.order(certificates=(old.write_certificates(9),)))
    assert report.difference.total == report.difference.records == 1
    assert states(store) == {"09": (REVOKED, None, REVOKED_S)}
    with store.reading() as connection:
        der = connection.execute(sa.select(schema.issue_record.c.certificate_der)).scalar_one()
    assert hashlib.sha256(der).digest()
    assert x509.load_der_x509_certificate(der).not_valid_after_utc == moment(END_S)
