"""Publishing CRLs over a real store: files, pointers, numbers, crashes, and what openssl says of them."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from crl_cases import COMPLETE, DELTA, CRLLine, short_periods
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from publisher_cases import INDEX_KEY, START_MS, Clock

from certstatus import clock as wall_clock
from certstatus import oid
from certstatus.changes import ChangeKind, first_chain
from certstatus.crl_combine import combine
from certstatus.crl_reason import CRLReason
from certstatus.crl_rows_file import RowsFile
from certstatus.crl_stream_decode import CRLReading
from certstatus.distribution_point import (
    encode_issuing_distribution_point,
    parse_issuing_distribution_point,
    read_point_name,
)
from certstatus.errors import (
    CRLCheckFailed,
    FencedOff,
    IntegrityError,
    KeyFileError,
)
from issuance import schema
from issuance.ca_keys import CAKeyFolder
from issuance.issue import Issuing, issue
from issuance.issuers import create_issuer, issuers, set_policy
from issuance.revoke import find_certificate, hold, release, revoke
from issuance.store import Store, make_epoch
from publisher.crl_lists import LISTS_FOLDER
from publisher.crl_plan import Due
from publisher.crl_publish import CRLPublisher
from publisher.crl_scopes import CRLScope


@pytest.fixture
def bare_store(tmp_path: Path) -> Iterator[Store]:
    """A new SQLite store without issuers."""
    with Store.create(f"sqlite:///{tmp_path / 'store.db'}", START_MS) as store:
        yield store


@pytest.fixture
def sign(bare_store: Store, tmp_path: Path, clock: Clock) -> CRLLine:
    """A SIGN issuer whose CRLs nobody has published yet."""
    return CRLLine(bare_store, tmp_path, clock, short_periods("SIGN"))


@pytest.fixture
def partner(bare_store: Store, tmp_path: Path, clock: Clock) -> CRLLine:
    """An issuer whose policy has hold."""
    return CRLLine(bare_store, tmp_path, clock, short_periods("PARTNER", hold=True))


def _files(folder: Path) -> list[str]:
    """Every file below *folder*, without the archive's."""
    names = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    return sorted(name for name in names if not name.startswith("archive/"))


# --- what is published ---------------------------------------------------------------------------------


def test_first_crl_is_complete_and_the_delta_follows_on_it(sign: CRLLine, clock: Clock) -> None:
    """There is no base at first; a second later there is, and both names can be served."""
    (first,) = sign.issue_due()
    assert (first.kind, first.number, first.entries) == (COMPLETE, 1, 0)
    clock.pass_s(1)
    (second,) = sign.issue_due()
    assert (second.kind, second.number, second.base_number) == (DELTA, 2, 1)
    assert sign.issue_due() == []
    assert _files(sign.state / "crl") == ["sign/g1/all/1.crl", "sign/g1/all/2.delta.crl"]
    assert {entry.name for entry in sign.catalogue()} == {"sign/g1/all/complete.crl", "sign/g1/all/delta.crl"}


def test_complete_and_delta_made_together_share_number_and_cut(sign: CRLLine, clock: Clock) -> None:
    """Made at one cut, both carry the same number, thisUpdate and information (RFC 5280 §5.2.3)."""
    serials = [sign.issue_certificate() for _ in range(4)]
    sign.issue(True)
    clock.pass_s(5)
    sign.record(ChangeKind.REVOKED, serials[0], 1)
    complete, delta = sign.issue(True)
    assert (complete.kind, delta.kind) == (COMPLETE, DELTA)
    assert (complete.number, complete.this_update_s) == (delta.number, delta.this_update_s)
    assert sign.parsed(2, COMPLETE).entries == sign.parsed(2, DELTA).entries


def test_extensions_of_both_kinds(sign: CRLLine, clock: Clock) -> None:
    """IDP critical, with the certificates' directory name, user certificates only, the same in both;
    freshestCRL only in the complete CRL; AKI is the CA's SKI and the issuer's name byte for byte the CA's."""
    sign.issue(True)
    clock.pass_s(1)
    sign.issue(False)
    complete, delta = sign.parsed(1, COMPLETE), sign.parsed(2, DELTA)
    for crl in (complete, delta):
        idp = crl.extension(oid.ISSUING_DISTRIBUTION_POINT)
        assert idp is not None
        assert idp.critical
        scope = parse_issuing_distribution_point(idp.value)
        assert scope.name_der is not None
        assert read_point_name(scope.name_der) == (sign.issuer.crl_names.complete[0], ())
        assert (scope.only_user_certs, scope.only_ca_certs) == (True, False)
        assert crl.aki_key_id == sign.issuer.key_id
        assert crl.issuer_der == sign.issuer.ca_certificate.subject.public_bytes()
    assert complete.idp_der == delta.idp_der
    assert complete.freshest_der is not None
    assert delta.freshest_der is None


def test_generations_of_one_name_have_scopes_of_their_own(sign: CRLLine) -> None:
    """A verifier that goes by issuer name and distribution point alone cannot take one for the other."""
    create_issuer(sign.store, sign.keys, short_periods("SIGN"), sign.clock.now_ms)
    first, second = (CRLScope(record) for record in issuers(sign.store))
    assert first.issuer.name_der == second.issuer.name_der
    assert first.idp_der != second.idp_der


def test_a_changed_base_url_leaves_the_scope_as_it_is(sign: CRLLine, clock: Clock) -> None:
    """A delta made after the URLs have changed goes with the complete CRL from before."""
    sign.issue(True)
    clock.pass_s(1)
    moved = replace(sign.issuer.policy, base_url="http://elsewhere.example")
    set_policy(sign.store, sign.issuer_id, moved, clock.now_ms)
    (delta,) = sign.issue(False)
    assert (delta.kind, delta.base_number) == (DELTA, 1)


def test_policy_may_leave_freshest_crl_off(bare_store: Store, tmp_path: Path, clock: Clock) -> None:
    """Without freshest_crl in the policy the complete CRL names no delta."""
    line = CRLLine(bare_store, tmp_path, clock, replace(short_periods("SIGN"), freshest_crl=False))
    line.issue(True)
    assert line.parsed(1, COMPLETE).freshest_der is None


def test_catalogue_vouches_for_every_file(sign: CRLLine, clock: Clock) -> None:
    """Each line has its file's size and hash and the cut it was made at; one of each kind is current."""
    serials = [sign.issue_certificate() for _ in range(3)]
    for serial in serials:
        sign.issue_due()
        clock.pass_s(101)
        sign.record(ChangeKind.REVOKED, serial, 4)
    sign.issue_due()
    lines = sign.catalogue()
    assert len(lines) > 3
    for line in lines:
        content = (sign.state / "crl" / line.file).read_bytes()
        assert (line.size, line.sha256) == (len(content), hashlib.sha256(content).hexdigest())
        assert line.seq == sign.seq_of(line.number)
        assert line.next_update_s > clock.ms // 1000
    for kind in (COMPLETE, DELTA):
        current = [line.number for line in lines if line.kind == kind and line.current]
        assert current == [max(sign.numbers(kind))]
    publication = sign.store.publication("crls")
    assert publication is not None
    assert publication.generation > max(line.this_update_s for line in lines) * 1000


def test_a_crl_is_out_from_the_moment_the_catalogue_names_it(
    sign: CRLLine, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither its thisUpdate nor when its file was there counts, and no later catalogue moves the time."""

    def late(*_arguments: object) -> None:
        clock.pass_s(7)

    monkeypatch.setattr(sign.publisher, "publish_catalogue", late)
    sign.issue(True)
    (record,) = sign.store.crls(sign.issuer_id, "all")
    assert (record.state, record.published_ms) == ("published", None)
    monkeypatch.undo()
    sign.publisher.tidy(sign.fence)
    assert [item.published_ms for item in sign.store.crls(sign.issuer_id, "all")] == [clock.ms]
    first_ms = clock.ms
    clock.pass_s(5)
    sign.issue(False)
    # Set back, so that the store's time stands still.
    later_ms, clock.ms = clock.ms, clock.ms - 3_600_000
    sign.issue(False)
    times = [item.published_ms or 0 for item in sign.store.crls(sign.issuer_id, "all")]
    assert times[0] == first_ms
    # Each cut is a millisecond later than the one before, whatever the clock says.
    assert later_ms <= times[1] < times[2] < later_ms + 10


def test_base_stays_while_a_delta_names_it_and_old_files_go(sign: CRLLine, clock: Clock) -> None:
    """What the catalogue names is on disk, expired files go after a while, the archive keeps every
    complete CRL."""
    for _ in range(80):
        clock.pass_s(100)
        sign.issue_due()
        lines = sign.catalogue()
        listed = {line.file for line in lines}
        on_disk = set(_files(sign.state / "crl"))
        assert listed <= on_disk
        numbers = {line.number for line in lines if line.kind == COMPLETE}
        assert {line.base_number for line in lines if line.kind == DELTA} <= numbers
    assert len(on_disk) < 60
    assert "sign/g1/all/1.crl" not in on_disk
    for number in range(1, 100):
        expected = sign.seen.get((number, COMPLETE))
        assert sign.archived(number) == (None if expected is None else expected[1])


def test_deltas_stay_on_disk_as_long_as_their_base_is_served(sign: CRLLine, clock: Clock) -> None:
    """Not only as long as they are listed, for what was published is asked after; and no longer."""
    gone = 0
    for _ in range(80):
        clock.pass_s(100)
        sign.issue_due()
        served = {line.number for line in sign.catalogue() if line.kind == COMPLETE}
        on_disk = set(_files(sign.state / "crl"))
        for number in sign.numbers(DELTA):
            is_there = f"sign/g1/all/{number}.delta.crl" in on_disk
            assert is_there or sign.parsed(number, DELTA).base_number not in served
            gone += not is_there
    assert gone


# --- entries that leave --------------------------------------------------------------------------------


def test_statutory_entries_leave_with_a_complete_crl_alone(sign: CRLLine, clock: Clock) -> None:
    """A lapse is followed by a complete CRL that no delta of an older base accompanies; the next delta
    starts from it, and removeFromCRL appears nowhere."""
    short, long = sign.issue_certificate(life_s=500), sign.issue_certificate()
    sign.record(ChangeKind.REVOKED, short, 1)
    sign.record(ChangeKind.REVOKED, long, 1)
    sign.issue(True)
    clock.pass_s(600)
    complete, delta = sign.issue(True)
    assert {entry.serial for entry in sign.parsed(complete.number, COMPLETE).entries} == {short, long}
    assert delta.base_number == 1
    clock.pass_s(600)
    (alone,) = sign.issue(True)
    assert alone.kind == COMPLETE
    assert {entry.serial for entry in sign.parsed(alone.number, COMPLETE).entries} == {long}
    clock.pass_s(1)
    (following,) = sign.issue_due()
    assert (following.kind, following.base_number) == (DELTA, alone.number)
    for number in sign.numbers(DELTA):
        assert all(entry.reason != CRLReason.REMOVE_FROM_CRL for entry in sign.parsed(number, DELTA).entries)


def test_entries_leave_by_remove_from_crl_where_the_policy_has_hold(partner: CRLLine, clock: Clock) -> None:
    """With hold in the policy a lapse is told by the delta, over the old base."""
    short = partner.issue_certificate(life_s=500)
    partner.record(ChangeKind.REVOKED, short, 1)
    partner.issue(True)
    clock.pass_s(600)
    partner.issue(True)
    clock.pass_s(600)
    complete, delta = partner.issue(True)
    assert complete.entries == 0
    assert delta.base_number == 1
    says = {entry.serial: entry.reason for entry in partner.parsed(delta.number, DELTA).entries}
    assert says == {short: CRLReason.REMOVE_FROM_CRL}


def test_revoked_after_its_end_still_appears_once(sign: CRLLine, clock: Clock) -> None:
    """A certificate revoked after it had expired is on a complete CRL before it may leave."""
    late = sign.issue_certificate(life_s=100)
    sign.issue(True)
    clock.pass_s(700)
    sign.record(ChangeKind.REVOKED, late, 1)
    (complete, _) = sign.issue(True)
    assert complete.entries == 1
    clock.pass_s(10)
    (alone,) = sign.issue(True)
    assert (alone.kind, alone.entries) == (COMPLETE, 0)


def test_held_and_released_between_two_crls(partner: CRLLine, clock: Clock) -> None:
    """Seen on an intermediate CRL: removeFromCRL; seen on none: not a word (RFC 5280 §5.2.4)."""
    seen, unseen = partner.issue_certificate(), partner.issue_certificate()
    partner.issue(True)
    clock.pass_s(5)
    partner.record(ChangeKind.HELD, seen)
    clock.pass_s(1)
    partner.issue(False)
    partner.record(ChangeKind.RELEASED, seen)
    partner.record(ChangeKind.HELD, unseen)
    partner.record(ChangeKind.RELEASED, unseen)
    clock.pass_s(5)
    (delta,) = partner.issue(False)
    says = {entry.serial: entry.reason for entry in partner.parsed(delta.number, DELTA).entries}
    assert says == {seen: CRLReason.REMOVE_FROM_CRL}


def test_policy_that_loses_hold_starts_a_new_base(partner: CRLLine, clock: Clock) -> None:
    """Once the policy has no hold, a release of before cuts off the bases that would need removeFromCRL."""
    serial = partner.issue_certificate()
    partner.record(ChangeKind.HELD, serial)
    partner.issue(True)
    clock.pass_s(5)
    partner.record(ChangeKind.RELEASED, serial)
    set_policy(partner.store, partner.issuer_id, replace(partner.issuer.policy, hold=False), clock.now_ms)
    (alone,) = partner.issue(False)
    assert (alone.kind, alone.entries) == (COMPLETE, 0)
    clock.pass_s(1)
    (delta,) = partner.issue(False)
    assert (delta.base_number, delta.entries) == (alone.number, 0)


def test_ca_key_event_lists_every_unexpired_certificate(sign: CRLLine, clock: Clock) -> None:
    """After the issuer-wide event the delta and the next complete CRL list all that had not ended."""
    expired = sign.issue_certificate(life_s=10)
    live = [sign.issue_certificate() for _ in range(20)]
    sign.issue(True)
    clock.pass_s(60)
    sign.record(ChangeKind.CA_KEY_EVENT, reason=2)
    complete, delta = sign.issue(True)
    for item in (complete, delta):
        says = {entry.serial: entry.reason for entry in sign.parsed(item.number, item.kind).entries}
        assert says == dict.fromkeys(live, 2)
        assert expired not in says


def test_after_a_restore_nothing_before_it_is_a_base(sign: CRLLine, clock: Clock) -> None:
    """CRLs of before a restore may be lost to the store; the first one after it is complete and alone."""
    sign.issue(True)
    clock.pass_s(10)
    state = sign.store.state()
    epoch = make_epoch(clock.ms)
    with sign.store.engine.connect() as connection:
        connection.execute(
            sa.update(schema.store_state).values(
                epoch=epoch, base_seq=state.seq + 100, seq=state.seq + 100, chain=first_chain(epoch)
            )
        )
        connection.commit()
    (alone,) = sign.issue(False)
    assert alone.kind == COMPLETE
    clock.pass_s(1)
    (delta,) = sign.issue(False)
    assert delta.base_number == alone.number


# --- when something goes wrong -------------------------------------------------------------------------


def test_missing_key_uses_up_no_number(sign: CRLLine) -> None:
    """Without the CA key nothing is allocated."""
    (sign.state / "ca" / f"{sign.issuer_id}.key").unlink()
    publisher = CRLPublisher(sign.store, CAKeyFolder(sign.state / "ca"), sign.state)
    with pytest.raises(KeyFileError):
        publisher.issue(sign.scope, Due(True, True), sign.fence)
    assert sign.store.crls(sign.issuer_id, "all") == []


def test_crl_that_fails_its_check_stays_unpublished(sign: CRLLine, clock: Clock) -> None:
    """Signed with another key, a CRL is found out from its bytes; the one before stays current and the
    number is not used again."""
    sign.issue(True)
    clock.pass_s(5)
    right = sign.keys._loaded[sign.issuer_id]
    sign.keys._loaded[sign.issuer_id] = ec.generate_private_key(ec.SECP256R1())
    with pytest.raises(CRLCheckFailed) as caught:
        sign.issue(True)
    assert "certstatus.crl_signature_wrong" in caught.value.findings
    assert _files(sign.state / "crl") == ["sign/g1/all/1.crl"]
    assert [line.number for line in sign.catalogue()] == [1]
    sign.keys._loaded[sign.issuer_id] = right
    complete, delta = sign.issue(True)
    assert (complete.number, delta.base_number) == (3, 1)


def test_damaged_base_is_not_used(sign: CRLLine, clock: Clock) -> None:
    """A base whose file was changed is refused and put aside; the next attempt makes a complete CRL."""
    sign.issue(True)
    path = sign.seen[1, COMPLETE][0].file
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    clock.pass_s(5)
    with pytest.raises(IntegrityError):
        sign.issue(False)
    (alone,) = sign.issue_due()
    assert alone.kind == COMPLETE
    assert sign.archived(1) == sign.seen[1, COMPLETE][1]


def test_a_delta_reads_neither_its_base_nor_a_list(
    sign: CRLLine, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long they are: of both only heads and single rows, once the publisher has made the base."""
    serials = [sign.issue_certificate() for _ in range(20)]
    for serial in serials[:10]:
        sign.record(ChangeKind.REVOKED, serial, 1)
    sign.issue(True)
    clock.pass_s(5)
    read: list[str] = []
    octets, blocks = CRLReading.octets, RowsFile.blocks

    def octets_noted(reading: CRLReading) -> Iterator[Any]:
        read.append(reading._file.path.name)
        return octets(reading)

    def blocks_noted(file: RowsFile, rows_at_once: int = 1) -> Iterator[Any]:
        read.append(file.path.name)
        return blocks(file, rows_at_once)

    monkeypatch.setattr(CRLReading, "octets", octets_noted)
    monkeypatch.setattr(RowsFile, "blocks", blocks_noted)
    for serial in serials[10:14]:
        sign.record(ChangeKind.REVOKED, serial, 4)
        sign.record(ChangeKind.REASON_CHANGED, serials[0], 3)
        (delta,) = sign.issue(False)
        assert [name.rsplit(".", 2)[0] for name in read] == [f".{delta.number}.delta.crl"]
        read.clear()
        clock.pass_s(5)
    says = {entry.serial: entry.reason for entry in sign.parsed(delta.number, DELTA).entries}
    assert says == {serials[0]: 3} | dict.fromkeys(serials[10:14], 4)


@pytest.mark.parametrize("is_restarted", [False, True])
def test_without_its_kept_lists_the_publisher_makes_the_same(
    partner: CRLLine, clock: Clock, is_restarted: bool
) -> None:
    """Deleted at any time, they are built again; what a base said is then read from the base."""
    numbers = random.Random(4)
    for step in range(12):
        for _ in range(8):
            partner.random_act(numbers, hold=True)
        if step:
            shutil.rmtree(partner.state / LISTS_FOLDER)
        if is_restarted:
            partner.publisher = CRLPublisher(
                partner.store, partner.keys, partner.state, now_ms=clock.now_ms, pause=clock.pass_s
            )
        made = partner.issue(step % 4 == 0)
        for item in made:
            expected = partner.list_at(partner.seq_of(item.number))
            parsed = partner.parsed(item.number, item.kind)
            if item.base_number is not None:
                listed = combine(partner.parsed(item.base_number, COMPLETE), parsed)
            else:
                listed = list(parsed.entries)
            assert {entry.serial: entry for entry in listed} == expected
        clock.pass_s(30)
    assert len(partner.numbers(DELTA)) > 8


class _NamelessScope(CRLScope):
    """A scope as it was before it was named."""

    @property
    def idp_der(self) -> bytes:
        return encode_issuing_distribution_point(None, only_user_certs=True)


def test_base_of_another_scope_is_not_used(sign: CRLLine, clock: Clock) -> None:
    """A complete CRL whose scope had no name yet is no base; a new one takes its place, and deltas go on."""
    sign.publisher.issue(_NamelessScope(sign.issuer), Due(True, True), sign.fence)
    clock.pass_s(5)
    with pytest.raises(IntegrityError):
        sign.issue(False)
    (alone,) = sign.issue_due()
    assert alone.kind == COMPLETE
    clock.pass_s(5)
    (delta,) = sign.issue(False)
    assert (delta.kind, delta.base_number) == (DELTA, alone.number)


def test_lost_files_are_replaced_by_new_crls(sign: CRLLine, clock: Clock) -> None:
    """When the files are gone, complete and delta are due at once."""
    sign.issue(True)
    clock.pass_s(2)
    sign.issue_due()
    for item, _ in sign.seen.values():
        item.file.unlink()
    (alone,) = sign.issue_due()
    assert alone.kind == COMPLETE
    assert [line.number for line in sign.catalogue()] == [alone.number]


def test_full_disk_leaves_what_is_published(sign: CRLLine, clock: Clock) -> None:
    """When nothing can be written, the error is reported and the published CRL stays current."""
    sign.issue(True)
    clock.pass_s(1200)
    folder = sign.state / "crl" / "sign/g1/all"
    # A folder where the hidden file is to be: as good as a full disk, also for root.
    hidden = folder / f".2.crl.{os.getpid()}.new"
    hidden.mkdir()
    with pytest.raises(OSError):
        sign.issue(True)
    assert [line.number for line in sign.catalogue()] == [1]
    hidden.rmdir()
    assert [item.number for item in sign.issue_due()] == [3, 3]


_KILLED = """
import os, signal, sys
from pathlib import Path
from certstatus.clock import now_ms
from issuance.ca_keys import CAKeyFolder
from issuance.store import Store
from publisher import crl_lot, crl_publish
from publisher.crl_plan import Due
state, where = Path(sys.argv[1]), sys.argv[2]
store = Store.open(f"sqlite:///{state / 'store.db'}")
fence = store.acquire_publisher("crl", 1000, now_ms, "killed", take_over=True)
publisher = crl_publish.CRLPublisher(store, CAKeyFolder(state / "ca"), state)
def die(*_arguments, **_named):
    os.kill(os.getpid(), signal.SIGKILL)
owner, name = {
    "allocated": (publisher.writer, "write"),
    "written": (crl_lot, "_renamed"),
    "renamed": (store, "record_crls"),
    "registered": (store, "publish_crls"),
}[where]
setattr(owner, name, die)
publisher.issue(publisher.scopes()[0], Due(True, True), fence)
"""


@pytest.mark.parametrize("where", ["allocated", "written", "renamed", "registered"])
def test_killed_publisher_reuses_no_number(tmp_path: Path, where: str) -> None:
    """Killed at any point after a number was given out, the next publisher goes on with another number,
    leaves nothing half-done in sight, and combining still holds."""
    now = wall_clock.now_ms
    with Store.create(f"sqlite:///{tmp_path / 'store.db'}", now() - 10_000) as store:
        keys = CAKeyFolder(tmp_path / "ca")
        keys.make_passphrase()
        issuer_id = create_issuer(store, keys, short_periods("SIGN"), now).issuer_id
        publisher = CRLPublisher(store, keys, tmp_path)
        fence = store.acquire_publisher("crl", 60_000, now, "test")
        publisher.issue(publisher.scopes()[0], Due(True, True), fence)
        killed = subprocess.run(
            [sys.executable, "-c", _KILLED, str(tmp_path), where], capture_output=True, check=False
        )
        assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
        with pytest.raises(FencedOff):
            publisher.issue(publisher.scopes()[0], Due(True, True), fence)
        fence = store.acquire_publisher("crl", 60_000, now, "test", take_over=True)
        publisher.tidy(fence)
        # Registered is published: only its pointer was missing, and tidying moved it.
        numbers = {record.number for record in store.crls(issuer_id, "all", state="published")}
        assert numbers == ({1, 2} if where == "registered" else {1})
        scope = publisher.scopes()[0]
        published = publisher.issue(scope, Due(True, True), fence)
        assert {item.number for item in published} == {3}
        assert {item.kind for item in published} == {COMPLETE, DELTA}
        publisher.tidy(fence)
        states = {(record.number, record.state) for record in store.crls(issuer_id, "all")}
        expected = "published" if where == "registered" else "withdrawn"
        assert states == {(1, "published"), (2, expected), (3, "published")}
        files = _files(tmp_path / "crl")
        assert all(not Path(name).name.startswith(".") for name in files)
        assert ("sign/g1/all/2.crl" in files) == (where == "registered")


# --- openssl -------------------------------------------------------------------------------------------


def _pem(der: bytes, label: str) -> bytes:
    return subprocess.run(
        ["openssl", label, "-inform", "DER", "-outform", "PEM"], input=der, capture_output=True, check=True
    ).stdout


@pytest.mark.parametrize(
    ("service", "key"), [("SIGN", "p256"), ("AUTH", "p384"), ("SIGN", "rsa2048"), ("PARTNER", "p256")]
)
def test_openssl_verifies_with_crl_and_with_base_and_delta(tmp_path: Path, service: str, key: str) -> None:
    """`openssl verify` accepts a good certificate, refuses one on the complete CRL, one that only the
    delta knows, and accepts again what a delta released."""
    now = wall_clock.now_ms
    has_hold = service == "PARTNER"
    with Store.create(f"sqlite:///{tmp_path / 'store.db'}", now() - 5000) as store:
        keys = CAKeyFolder(tmp_path / "ca")
        keys.make_passphrase()
        record = create_issuer(store, keys, short_periods(service, has_hold, key), now)
        issuing = Issuing.of(record, keys.private_key(record.issuer_id))
        certificates = {}
        for name in ("good", "on_base", "on_delta", "held"):
            public_key = ec.generate_private_key(ec.SECP256R1()).public_key()
            certificates[name] = issue(store, issuing, INDEX_KEY, public_key, now)
            (tmp_path / f"{name}.pem").write_bytes(_pem(certificates[name].certificate_der, "x509"))
        found = {name: find_certificate(store, item.serial) for name, item in certificates.items()}
        revoke(store, found["on_base"], now, reason=1)
        if has_hold:
            hold(store, found["held"], now)
        publisher = CRLPublisher(store, keys, tmp_path)
        fence = store.acquire_publisher("crl", 60_000, now, "test")
        scope = publisher.scopes()[0]
        (complete,) = publisher.issue(scope, Due(True, True), fence)
        revoke(store, found["on_delta"], now, reason=4)
        if has_hold:
            release(store, found["held"], now)
        (delta,) = publisher.issue(scope, Due(False, True), fence)
        assert (complete.kind, delta.kind) == (COMPLETE, DELTA)
    ca_pem = record.ca_certificate.public_bytes(serialization.Encoding.PEM)
    (tmp_path / "ca.pem").write_bytes(ca_pem)
    (tmp_path / "base.pem").write_bytes(_pem(complete.file.read_bytes(), "crl"))
    both = _pem(complete.file.read_bytes(), "crl") + _pem(delta.file.read_bytes(), "crl")
    (tmp_path / "both.pem").write_bytes(both)

    def verify(name: str, crls: str, *options: str) -> str:
        done = subprocess.run(
            [
                "openssl",
                "verify",
                "-crl_check",
                *options,
                "-CAfile",
                "ca.pem",
                "-CRLfile",
                crls,
                f"{name}.pem",
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        text = done.stdout + done.stderr
        return "ok" if done.returncode == 0 else "revoked" if "certificate revoked" in text else text

    alone = {name: verify(name, "base.pem") for name in certificates}
    assert alone == {
        "good": "ok",
        "on_base": "revoked",
        "on_delta": "ok",
        "held": "revoked" if has_hold else "ok",
    }
    joined = {name: verify(name, "both.pem", "-extended_crl", "-use_deltas") for name in certificates}
    assert joined == {"good": "ok", "on_base": "revoked", "on_delta": "revoked", "held": "ok"}


def test_combine_from_published_files(sign: CRLLine, clock: Clock) -> None:
    """The files as a client gets them make the list as it stands."""
    serials = [sign.issue_certificate() for _ in range(5)]
    sign.record(ChangeKind.REVOKED, serials[0], 1)
    sign.issue(True)
    clock.pass_s(1)
    sign.record(ChangeKind.REVOKED, serials[1], 3)
    sign.record(ChangeKind.REASON_CHANGED, serials[0], 4)
    sign.issue(False)
    combined = combine(sign.parsed(1, COMPLETE), sign.parsed(2, DELTA))
    assert {entry.serial: entry.reason for entry in combined} == {serials[0]: 4, serials[1]: 3}
