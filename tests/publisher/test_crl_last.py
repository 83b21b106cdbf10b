"""A scope's last CRL: made ahead, kept back, and nothing after it."""

from __future__ import annotations

import os
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
from crl_steps_by_one import allocate_crl_number
from cryptography import x509
from lot_cases import Partitioned
from publisher_cases import INDEX_KEY, START_MS, Clock

from certstatus import clock as wall_clock
from certstatus.changes import ChangeKind
from certstatus.clock import DAY_S
from certstatus.config import parse_config
from certstatus.crl import NO_END_S, parse_certificate_list
from certstatus.crl_lint import lint
from certstatus.errors import (
    CertStatusError,
    CRLCheckFailed,
    FencedOff,
    IntegrityError,
    KeyFileError,
    PolicyViolation,
    UnknownCertificate,
)
from issuance import schema
from issuance.backup import backup
from issuance.ca_keys import CAKeyFolder
from issuance.crl_register import LAST_NUMBER_MIN
from issuance.issuers import create_issuer, set_policy
from issuance.restore import restore
from issuance.revoke import FoundCertificate
from issuance.store import Store
from publisher import crl_last, crl_lot, crl_make
from publisher.crl_catalogue import read_published
from publisher.crl_last import PreparedCRL
from publisher.crl_lists import LISTS_FOLDER
from publisher.crl_past import published_at
from publisher.crl_plan import Due
from publisher.crl_predecessor import FINDING
from publisher.crl_publish import CRLPublisher, crl_lease
from publisher.crl_run import CRLRun
from publisher.crl_scopes import scopes_of
from publisher.fenced_key import fenced
from publisher.publish_last import publish_last_now
from publisher.publish_now import publish_now


@pytest.fixture
def line(tmp_path: Path, clock: Clock) -> Iterator[CRLLine]:
    """SIGN, with three certificates of which one is revoked and published as such."""
    state = tmp_path / "state"
    (state / "secrets").mkdir(mode=0o700, parents=True)
    (state / "secrets" / "index.key").write_bytes(INDEX_KEY)
    (state / "secrets" / "index.key").chmod(0o600)
    with Store.create(f"sqlite:///{state / 'store.db'}", START_MS) as store:
        made = CRLLine(store, state, clock, short_periods("SIGN"))
        for _ in range(3):
            made.issue_certificate()
        made.record(ChangeKind.REVOKED, made.serials[0], 1)
        clock.pass_s(1)
        made.issue_due()
        clock.pass_s(1)
        yield made


def _files(line: CRLLine) -> list[Path]:
    return sorted((line.state / "crl-last").rglob("*.crl"))


def _states(line: CRLLine) -> dict[int, str]:
    """The state of every CRL that has the number of a last one."""
    records = line.store.crls(line.issuer_id, "all")
    return {record.number: record.state for record in records if record.number >= LAST_NUMBER_MIN}


# --- prepared --------------------------------------------------------------------------------------------


def test_it_says_what_is_so_without_end_and_nobody_sees_it(line: CRLLine, clock: Clock) -> None:
    """Complete, by the scope's rules but for nextUpdate, number and freshestCRL; for its owner only; in
    no catalogue, and what is published goes on as before, with lower numbers."""
    prepared = line.publisher.prepare_last(line.scope, line.fence)
    content = prepared.file.read_bytes()
    parsed = parse_certificate_list(content)
    assert {entry.serial: entry for entry in parsed.entries} == line.list_at(prepared.seq or 0)
    assert (parsed.number, parsed.base_number, parsed.next_update_s) == (prepared.number, None, NO_END_S)
    assert lint(parsed, hold_allowed=False) == []
    assert parsed.idp_der == line.scope.idp_der
    assert parsed.freshest_der is None
    assert b"99991231235959Z" in content
    loaded = x509.load_der_x509_crl(content)
    assert loaded.is_signature_valid(line.issuer.ca_certificate.public_key())  # type: ignore[arg-type]
    assert prepared.file.stat().st_mode & 0o777 == 0o600
    assert (line.state / "crl-last").stat().st_mode & 0o777 == 0o700
    before = line.catalogue()
    line.publisher.tidy(line.fence)
    assert line.catalogue() == before
    clock.pass_s(2000)
    complete, delta = line.issue_due()
    assert (complete.number, delta.number, delta.base_number) == (2, 2, 1)
    assert prepared.number >= LAST_NUMBER_MIN
    assert _files(line) == [prepared.file]


def test_who_loses_the_lease_over_one_leaves_the_next_one_there(
    line: CRLLine, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped when it was prepared and others were about to go; another is prepared meanwhile."""
    record = Store.record_prepared_crl
    made: list[PreparedCRL] = []

    def recorded(store: Store, *given: Any, **named: Any) -> None:
        record(store, *given, **named)
        if not made:
            monkeypatch.undo()
            clock.pass_s(1)
            fence = store.acquire_publisher("crl", 1 << 40, clock.now_ms, "second", take_over=True)
            made.append(line.another().prepare_last(line.scope, fence))

    monkeypatch.setattr(Store, "record_prepared_crl", recorded)
    line.publisher.prepare_last(line.scope, line.fence)
    assert _files(line) == [made[0].file]


def test_openssl_reads_it(line: CRLLine) -> None:
    """Another reader takes the date without end."""
    prepared = line.publisher.prepare_last(line.scope, line.fence)
    done = subprocess.run(
        ["openssl", "crl", "-inform", "DER", "-in", str(prepared.file), "-noout", "-text"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Next Update: Dec 31 23:59:59 9999 GMT" in done.stdout


def test_another_one_replaces_it_and_no_number_comes_twice(line: CRLLine, clock: Clock) -> None:
    """Also within a millisecond, and with the clock set back."""
    numbers = []
    for back_s in (0, 0, 3600):
        clock.pass_s(-back_s)
        prepared = line.publisher.prepare_last(line.scope, line.fence)
        numbers.append(prepared.number)
        assert _files(line) == [prepared.file]
        assert _states(line) == {
            number: "prepared" if number == prepared.number else "withdrawn" for number in numbers
        }
    assert numbers == sorted(set(numbers))


def test_the_policy_has_it_prepared_again_and_again(line: CRLLine, clock: Clock) -> None:
    """By tidying, so many days after the one before; not while the policy says nothing; a missing key is
    said after all else is done, and what was prepared stays."""
    line.publisher.tidy(line.fence)
    assert _files(line) == []
    set_policy(line.store, line.issuer_id, replace(line.issuer.policy, last_crl_days=3), clock.now_ms)
    line.publisher.tidy(line.fence)
    (first,) = _files(line)
    clock.pass_s(3 * DAY_S - 2)
    line.publisher.tidy(line.fence)
    assert _files(line) == [first]
    clock.pass_s(2)
    right = line.keys._loaded.pop(line.issuer_id)
    key_file = line.state / "ca" / f"{line.issuer_id}.key"
    key_file.rename(key_file.with_suffix(".away"))
    with pytest.raises(KeyFileError):
        line.publisher.tidy(line.fence)
    assert _files(line) == [first]
    line.keys._loaded[line.issuer_id] = right
    line.publisher.tidy(line.fence)
    (second,) = _files(line)
    assert second != first


# --- published -------------------------------------------------------------------------------------------


def test_after_it_there_is_no_other(line: CRLLine, clock: Clock) -> None:
    """Current, archived and found as what was published; nothing is due, made or prepared any more; the
    delta goes when its time is over."""
    line.issue(False)
    prepared = line.publisher.prepare_last(line.scope, line.fence)
    clock.pass_s(50)
    line.issue(True)
    published = line.publisher.publish_last(line.scope, line.fence)
    assert published.number == prepared.number
    current = {entry.kind: entry.number for entry in line.catalogue() if entry.current}
    assert current == {COMPLETE: prepared.number, DELTA: max(line.numbers(DELTA))}
    entry = next(entry for entry in line.catalogue() if entry.number == prepared.number)
    assert entry.next_issue_s == entry.next_update_s == NO_END_S
    assert line.archived(prepared.number) == published.file.read_bytes()
    found = FoundCertificate(line.issuer_id, "SIGN", line.serials[0])
    clock.pass_s(1)
    answer = published_at(line.store, line.state, found, clock.ms, clock.ms)
    assert answer.complete is not None
    assert (answer.complete.number, answer.is_listed_now) == (prepared.number, True)
    assert _files(line) == []
    for _ in range(3):
        clock.pass_s(2000)
        assert line.issue_due() == []
    assert [entry.number for entry in line.catalogue()] == [prepared.number]
    for act in (
        lambda: line.issue(True),
        lambda: line.issue(False),
        lambda: line.publisher.prepare_last(line.scope, line.fence),
        lambda: line.publisher.publish_last(line.scope, line.fence),
        lambda: allocate_crl_number(line.store, 1, "all", [COMPLETE], line.fence, clock.now_ms),
    ):
        with pytest.raises(PolicyViolation, match="last CRL is out"):
            act()
    assert published.file.exists()


def test_what_it_lacks_is_said_and_not_published_unasked(line: CRLLine, clock: Clock) -> None:
    """Revoked since, or for another reason: refused, unless somebody wants just that."""
    prepared = line.publisher.prepare_last(line.scope, line.fence)
    clock.pass_s(50)
    line.record(ChangeKind.REVOKED, line.serials[1], 4)
    line.record(ChangeKind.REASON_CHANGED, line.serials[0], 3)
    with pytest.raises(PolicyViolation, match="lacks 1 certificates revoked since, and says otherwise of 1"):
        line.publisher.publish_last(line.scope, line.fence)
    assert not any(entry.number == prepared.number for entry in line.catalogue())
    line.issue(True)
    published = line.publisher.publish_last(line.scope, line.fence, although_older=True)
    assert (published.number, published.entries) == (prepared.number, 1)


def test_at_a_compromise_the_key_still_signs_that_all_is_revoked(line: CRLLine, clock: Clock) -> None:
    """After the CA-key event, one signed now lists every certificate, and what was prepared is withdrawn."""
    prepared = line.publisher.prepare_last(line.scope, line.fence)
    line.record(ChangeKind.CA_KEY_EVENT, reason=2)
    line.store.renew_publisher(line.fence, 0, clock.now_ms)
    config = parse_config(
        {"installation": {"state": str(line.state)}, "valkey": {"url": "unix:///nowhere"}}, "test"
    )
    # Their own clock, ahead of the test's.
    report = publish_last_now(config, service="SIGN", generation=1, sign_now=True, now_ms=clock.now_ms)
    (made,) = report.published
    assert made.entries == 3
    assert _states(line) == {prepared.number: "withdrawn", made.number: "published"}
    with pytest.raises(PolicyViolation, match="no other follows"):
        publish_now(config, now_ms=clock.now_ms)
    create_issuer(line.store, line.keys, short_periods("AUTH"), clock.now_ms)
    assert {item.scope for item in publish_now(config, now_ms=clock.now_ms).published} == {"auth/g1/all"}
    with pytest.raises(UnknownCertificate):
        publish_last_now(config, service="SIGN", generation=2, now_ms=clock.now_ms)


def test_of_a_parted_key_all_last_crls_are_published(clock: Clock, tmp_path: Path) -> None:
    """The whole list's and each partition's; of one opened since then there is none, which holds up no other;
    once a list has changed, none is published unless that is wanted."""
    with Store.create(f"sqlite:///{tmp_path / 'store.db'}", START_MS) as store:
        parted = Partitioned(store, tmp_path, clock, 2)
        config = parse_config(
            {"installation": {"state": str(tmp_path)}, "valkey": {"url": "unix:///nowhere"}}, "test"
        )
        parted.publisher.finish([], parted.fence)
        prepared = [parted.publisher.prepare_last(scope, parted.fence) for scope in scopes_of(store)]
        assert [item.scope for item in prepared] == ["sign/g1/all", "sign/g1/m1/13101", "sign/g1/m1/13102"]
        clock.pass_s(5)
        parted.issue("m1/13103")
        with store.writing(clock.now_ms) as act:
            serial = parted.serials["m1/13101"][0]
            act.record(ChangeKind.REVOKED, issuer_id=parted.issuer_id, serial=serial, reason=1)
        store.renew_publisher(parted.fence, 0, clock.now_ms)
        with pytest.raises(PolicyViolation, match="lacks 1"):
            publish_last_now(config, service="SIGN", generation=1, now_ms=clock.now_ms)
        assert not any(
            record.number >= LAST_NUMBER_MIN for record in store.crls(1, "m1/13102", state="published")
        )
        report = publish_last_now(
            config, service="SIGN", generation=1, although_older=True, now_ms=clock.now_ms
        )
        assert [(item.scope, item.number) for item in report.published] == [
            (item.scope, item.number) for item in prepared
        ]
        assert {path: type(exc) for path, exc in report.failed.items()} == {
            "sign/g1/m1/13103": UnknownCertificate
        }


def _moves(store: Store) -> list[set[str]]:
    """Of scopes whose last CRL is out: those that each move of the catalogue brought, in order."""
    found = store.publication("crls")
    assert found is not None
    moves: dict[int, set[str]] = {}
    for scope in read_published(store, found).scopes:
        if any(entry.number >= LAST_NUMBER_MIN for entry in scope.entries):
            moves.setdefault(scope.changed, set()).add(scope.scope)
    return [scopes for _, scopes in sorted(moves.items())]


def test_the_catalogue_moves_once_for_a_lot_of_last_crls(
    clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A nation has thousands; a scope that fails is told, and keeps no other back."""
    monkeypatch.setattr(crl_lot, "SCOPES_MAX", 3)
    with Store.create(f"sqlite:///{tmp_path / 'store.db'}", START_MS) as store:
        parted = Partitioned(store, tmp_path, clock, 4)
        config = parse_config(
            {"installation": {"state": str(tmp_path)}, "valkey": {"url": "unix:///nowhere"}}, "test"
        )
        parted.publisher.finish([], parted.fence)
        prepared = [parted.publisher.prepare_last(scope, parted.fence) for scope in scopes_of(store)]
        store.renew_publisher(parted.fence, 0, clock.now_ms)
        in_the_way = tmp_path / "crl" / f"{prepared[2].scope}/{prepared[2].number}.crl"
        (in_the_way / "x").mkdir(parents=True)
        clock.pass_s(5)
        report = publish_last_now(config, service="SIGN", generation=1, now_ms=clock.now_ms)
        shutil.rmtree(in_the_way)
        assert list(report.failed) == [prepared[2].scope]
        assert isinstance(report.failed[prepared[2].scope], OSError)
        assert len(report.published) == 4
        assert _moves(store) == [{"all", "m1/13101"}, {"m1/13103", "m1/13104"}]
        # The one that failed is prepared as before.
        assert len(list((tmp_path / "crl-last").rglob("*.crl"))) == 1
        clock.pass_s(5)
        report = publish_last_now(config, service="SIGN", generation=1, now_ms=clock.now_ms)
        assert [item.scope for item in report.published] == [prepared[2].scope]
        assert _moves(store)[2:] == [{"m1/13102"}]
        assert not list((tmp_path / "crl-last").rglob("*.crl"))


def test_of_all_crls_that_a_scope_has_had_one_line_is_read(line: CRLLine) -> None:
    """For years of deltas there are a hundred thousand."""
    line.publisher.prepare_last(line.scope, line.fence)
    asked: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        asked.append(statement)

    sa.event.listen(line.store.engine, "before_cursor_execute", note)
    assert line.publisher._last._newest_file(line.scope)[2] is not None
    sa.event.remove(line.store.engine, "before_cursor_execute", note)
    of_crls = [statement for statement in asked if "FROM crl " in statement]
    assert len(of_crls) == 1
    assert "crl.number = " in of_crls[0]


def test_what_is_over_is_never_due_again_even_without_its_file(line: CRLLine, clock: Clock) -> None:
    """Whatever has changed since, however late it is: the builder tries nothing and reports no failure."""
    run = CRLRun(
        line.publisher,
        crl_lease(line.store, clock.now_ms),
        now_ms=clock.now_ms,
        monotonic_s=clock.monotonic_s,
    )
    line.publisher.prepare_last(line.scope, line.fence)
    assert run.look_for_news() != {}
    published = line.publisher.publish_last(line.scope, line.fence)
    line.record(ChangeKind.REVOKED, line.serials[1], 1)
    for _ in range(2):
        clock.pass_s(10_000)
        assert run.look_for_news() == {}
        assert run.look() == []
        assert run.status()["issuers"][0]["due"] == 0
        published.file.unlink(missing_ok=True)


def test_whoever_lost_the_lease_signs_no_last_crl(
    line: CRLLine, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lost between number and signature, there is no signature that could ever get out."""
    signed: list[int] = []
    line.keys._loaded[line.issuer_id] = fenced(
        line.keys.private_key(line.issuer_id), lambda: signed.append(1)
    )
    make = crl_make.make_crl

    def late(*arguments: Any) -> Any:
        line.store.acquire_publisher("crl", 1 << 40, clock.now_ms, "other", take_over=True)
        return make(*arguments)

    monkeypatch.setattr(crl_last, "make_crl", late)
    with pytest.raises(FencedOff):
        line.publisher.prepare_last(line.scope, line.fence)
    assert (signed, _files(line)) == ([], [])


def test_without_one_or_with_another_file_nothing_is_published(line: CRLLine) -> None:
    """None prepared; a flipped octet; another's CRL under its name; a regular CRL laid there."""
    with pytest.raises(UnknownCertificate, match="no last CRL is prepared for sign/g1/all"):
        line.publisher.publish_last(line.scope, line.fence)
    prepared = line.publisher.prepare_last(line.scope, line.fence)
    right = prepared.file.read_bytes()
    regular = line.seen[1, COMPLETE][1]

    def refused(*kinds: type[CertStatusError]) -> None:
        before = line.catalogue()
        with pytest.raises(kinds):
            line.publisher.publish_last(line.scope, line.fence)
        assert line.catalogue() == before
        assert not (line.state / "crl" / line.scope.file(COMPLETE, prepared.number)).exists()

    prepared.file.write_bytes(right[:-1] + bytes([right[-1] ^ 1]))
    refused(IntegrityError)
    prepared.file.write_bytes(regular)
    refused(IntegrityError)
    later = prepared.file.with_name(f"{prepared.number + 1}.crl")
    prepared.file.write_bytes(right)
    # Unknown to the register, so that only its own octets speak for it.
    later.write_bytes(right)
    refused(CRLCheckFailed)
    later.rename(later.with_name(f"{10**19 - 1}.crl"))
    refused(CRLCheckFailed)
    later.with_name(f"{10**19 - 1}.crl").unlink()
    prepared.file.rename(prepared.file.with_name("5.crl"))
    refused(IntegrityError)
    prepared.file.with_name("5.crl").rename(prepared.file)
    assert line.publisher.publish_last(line.scope, line.fence).number == prepared.number


_CHANGED = schema.change.update().where(schema.change.c.kind == int(ChangeKind.REVOKED))


def test_a_last_crl_fits_what_is_published_when_it_is_prepared_and_when_it_goes_out(
    line: CRLLine, clock: Clock
) -> None:
    """What was altered in the register before it was made, or between it and a later CRL, is found; what was
    prepared before stays, and once the wrong one of the two is away, the other is published."""
    first = line.publisher.prepare_last(line.scope, line.fence)
    with line.store.engine.begin() as connection:
        connection.execute(_CHANGED.values(reason=4))
    # Or the list is brought forward from what it was, and never sees the register's past.
    shutil.rmtree(line.state / LISTS_FOLDER)
    with pytest.raises(CRLCheckFailed) as caught:
        line.publisher.prepare_last(line.scope, line.fence)
    assert caught.value.findings == [FINDING]
    assert _files(line) == [first.file]
    with line.store.engine.begin() as connection:
        connection.execute(_CHANGED.values(reason=1))
    clock.pass_s(5)
    line.record(ChangeKind.REVOKED, line.serials[1], 1)
    seq = line.store.state().seq
    line.issue(True)
    clock.pass_s(5)
    # Cut before that CRL, it lacks what was revoked in between and nothing else.
    with pytest.raises(PolicyViolation, match="lacks 1"):
        line.publisher.publish_last(line.scope, line.fence)
    # Another list by the same key, as it would be after the register had been altered twice.
    wrong = line.seen[2, COMPLETE][0].file
    with line.store.engine.begin() as connection:
        connection.execute(schema.change.delete().where(schema.change.c.seq == seq))
    shutil.rmtree(line.state / LISTS_FOLDER)
    # One that has not read what was there before.
    line.publisher = CRLPublisher(
        line.store, line.keys, line.state, now_ms=clock.now_ms, monotonic_s=clock.monotonic_s
    )
    with pytest.raises(CRLCheckFailed) as caught:
        line.publisher.publish_last(line.scope, line.fence, although_older=True)
    assert caught.value.findings == [FINDING]
    assert _states(line)[first.number] == "prepared"
    wrong.rename(line.state / "wrong.crl")
    # The kept list still has the one whose change is gone.
    published = line.publisher.publish_last(line.scope, line.fence, although_older=True)
    assert published.number == first.number


def test_a_register_that_lost_it_takes_it_by_its_signature(line: CRLLine, clock: Clock) -> None:
    """The file is all there is after a restore from before it was prepared."""
    prepared = line.publisher.prepare_last(line.scope, line.fence)
    with line.store.engine.begin() as connection:
        connection.execute(schema.crl.delete().where(schema.crl.c.number == prepared.number))
    clock.pass_s(5)
    assert line.publisher.publish_last(line.scope, line.fence).number == prepared.number
    (record,) = (item for item in line.store.crls(1, "all") if item.number == prepared.number)
    assert (record.state, record.this_update_s, record.next_update_s) == (
        "published",
        prepared.this_update_s,
        NO_END_S,
    )
    assert record.published_ms == line.store.state().time_ms


# --- killed ----------------------------------------------------------------------------------------------

_KILLED = """
import os, signal, sys
from pathlib import Path
from certstatus.clock import now_ms
from issuance.ca_keys import CAKeyFolder
from issuance.store import Store
from publisher.crl_publish import CRLPublisher
state, what, after = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
store = Store.open(f"sqlite:///{state / 'store.db'}")
fence = store.acquire_publisher("crl", 1000, now_ms, "killed", take_over=True)
publisher = CRLPublisher(store, CAKeyFolder(state / "ca"), state)
(scope,) = publisher.scopes()
left = [after]
def counted(call):
    def wrapped(*arguments, **named):
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        return call(*arguments, **named)
    return wrapped
for owner, names in (
    (os, ("fsync", "rename", "unlink", "pwrite")),
    (store, ("allocate_last_crl", "record_prepared_crl", "publish_last_crl", "publish_crls", "cut")),
):
    for name in names:
        setattr(owner, name, counted(getattr(owner, name)))
if what == "prepare":
    publisher.prepare_last(scope, fence)
else:
    publisher.publish_last(scope, fence)
"""


@pytest.mark.parametrize("what", ["prepare", "publish"])
def test_killed_at_any_step_no_number_is_used_twice_and_the_next_one_ends_it(
    tmp_path: Path, what: str
) -> None:
    """`kill -9` before each step: what was prepared before can still be published, or is the last one
    already; never two last ones, and never half of one in sight."""
    now = wall_clock.now_ms
    after, was_killed = 0, True
    while was_killed:
        state = tmp_path / f"{what}{after}"
        state.mkdir()
        with Store.create(f"sqlite:///{state / 'store.db'}", now() - 10_000) as store:
            keys = CAKeyFolder(state / "ca")
            keys.make_passphrase()
            create_issuer(store, keys, short_periods("SIGN"), now)
            publisher = CRLPublisher(store, keys, state)
            fence = store.acquire_publisher("crl", 60_000, now, "test")
            (scope,) = publisher.scopes()
            publisher.issue(scope, Due(True, False), fence)
            first = publisher.prepare_last(scope, fence)
            done = subprocess.run(
                [sys.executable, "-c", _KILLED, str(state), what, str(after)],
                capture_output=True,
                check=False,
            )
            assert done.returncode in (0, -signal.SIGKILL), done.stderr.decode()
            was_killed = done.returncode != 0
            after += 1
            fence = store.acquire_publisher("crl", 60_000, now, "test", take_over=True)
            publisher.tidy(fence)
            over = publisher.is_over(scope)
            if what == "prepare":
                assert not over
                known = {item.number for item in store.crls(1, "all", state="prepared")}
                assert len(known) == 1
                if after % 2:
                    newer = publisher.prepare_last(scope, fence).number
                    numbers = [item.number for item in store.crls(1, "all")]
                    assert newer == max(numbers)
                    assert len(numbers) == len(set(numbers))
                    known = {newer}
                assert {publisher.publish_last(scope, fence).number} == known
            elif not over:
                assert publisher.publish_last(scope, fence).number == first.number
            publisher.tidy(fence)
            served = sorted(path.name for path in (state / "crl" / scope.path).iterdir())
            published = store.crls(1, "all", state="published")
            last = [item for item in published if item.number >= LAST_NUMBER_MIN]
            assert len(last) == 1
            assert last[0].published_ms is not None
            assert served == ["1.crl", f"{last[0].number}.crl"]
            assert not list((state / "crl-last").rglob("*.crl"))
    assert after > 5


# --- restored --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", ["file", "pack"])
def test_a_restore_from_before_it_puts_no_crl_after_it(line: CRLLine, clock: Clock, kept: str) -> None:
    """Out after the backup: found as a file or in the archive alone, it is back in its place, with its
    time of publication where that is known, and the scope is over; regular numbers had stayed below."""
    backup(line.store, line.state, line.state.parent / "early.tar", clock.ms)
    clock.pass_s(5)
    prepared = line.publisher.prepare_last(line.scope, line.fence)
    published = line.publisher.publish_last(line.scope, line.fence)
    content = published.file.read_bytes()
    published_ms = line.store.state().time_ms
    line.store.close()
    for path in line.state.glob("store.db*"):
        path.unlink()
    if kept == "pack":
        published.file.unlink()
    else:
        shutil.rmtree(line.state / "crl" / "archive")
    url = f"sqlite:///{line.state / 'store.db'}"
    for _ in range(2):
        restore(line.state.parent / "early.tar", line.state, url, clock.ms + 60_000)
    clock.pass_s(120)
    with Store.open(url) as store:
        publisher = CRLPublisher(store, line.keys, line.state, now_ms=clock.now_ms)
        fence = store.acquire_publisher("crl", 1 << 40, clock.now_ms, "after")
        (scope,) = publisher.scopes()
        publisher.tidy(fence)
        assert publisher.is_over(scope)
        assert published.file.read_bytes() == content
        (record,) = (item for item in store.crls(1, "all") if item.number == prepared.number)
        assert record.state == "published"
        assert record.published_ms == (published_ms if kept == "pack" else 0)
        with pytest.raises(PolicyViolation):
            publisher.issue(scope, Due(True, True), fence)


def test_what_is_only_prepared_is_never_taken_for_published(line: CRLLine, clock: Clock) -> None:
    """Neither by a restore, whatever folders it reads, nor by its numbers; it comes back with the backup."""
    prepared = line.publisher.prepare_last(line.scope, line.fence)
    path = line.state.parent / "backup.tar"
    backup(line.store, line.state, path, clock.ms)
    target = line.state.parent / "target"
    url = f"sqlite:///{target / 'store.db'}"
    restore(path, target, url, clock.ms + 60_000, crl_folders=[line.state])
    clock.pass_s(120)
    with Store.open(url) as store:
        publisher = CRLPublisher(store, CAKeyFolder(target / "ca"), target, now_ms=clock.now_ms)
        fence = store.acquire_publisher("crl", 1 << 40, clock.now_ms, "after")
        (scope,) = publisher.scopes()
        assert not publisher.is_over(scope)
        (made,) = publisher.issue(scope, Due(True, False), fence)
        assert 1 < made.number < LAST_NUMBER_MIN
        with store.reading() as connection:
            states = connection.execute(
                sa.select(schema.crl.c.state).where(schema.crl.c.number == prepared.number)
            ).scalars()
            assert list(states) == ["prepared"]
        copy = target / "crl-last" / scope.file(COMPLETE, prepared.number)
        assert copy.read_bytes() == prepared.file.read_bytes()
        assert os.stat(target / "crl-last").st_mode & 0o777 == 0o700
        assert publisher.publish_last(scope, fence).number == prepared.number
