"""One CRL file: what lint refuses is not signed, and what is not as it was to be is found out."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from crl_cases import CRLLine, short_periods
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from publisher_cases import START_MS, Clock

from certstatus.crl import parse_certificate_list
from certstatus.crl_entry import CRLEntry
from certstatus.crl_reason import CRLReason
from certstatus.crl_rows import Rows, digest_of, rows_of
from certstatus.crl_rows_file import RowsFile, RowsHead, write_rows
from certstatus.errors import CRLCheckFailed, DERError
from certstatus.key_kinds import signature_hash
from issuance.import_register import HERE, ImportedIssuer
from issuance.store import Store
from publisher.crl_make import CRLHead, Joining, make_crl, read_and_check, sign
from publisher.crl_scopes import CRLScope

_NOW_S = START_MS // 1000
_COMPLETE = CRLHead(7, None, _NOW_S, _NOW_S + 1000)
_DELTA = CRLHead(9, 7, _NOW_S, _NOW_S + 100)
_ENTRIES = [CRLEntry(bytes((1, number)), _NOW_S - number, 1) for number in range(40)]


@pytest.fixture
def line(tmp_path: Path, clock: Clock) -> Iterator[CRLLine]:
    """A SIGN issuer."""
    with Store.create(f"sqlite:///{tmp_path / 'store.db'}", START_MS) as store:
        yield CRLLine(store, tmp_path, clock, short_periods("SIGN"))


def _made(line: CRLLine, head: CRLHead, rows: Rows | RowsFile, scope: CRLScope | None = None) -> Path:
    path = line.state / "crl" / f"{head.number}.crl"
    return make_crl(path, scope or line.scope, head, rows, line.keys.private_key(line.issuer_id))


def _findings(
    line: CRLLine, path: Path, head: CRLHead, says: Rows, joins: Joining | None = None
) -> list[str]:
    try:
        checked = read_and_check(path, line.scope, head, says, joins)
    except CRLCheckFailed as failed:
        return failed.findings
    assert (checked.entries, checked.digest) == (len(says), digest_of(says))
    assert checked.sha256 == hashlib.sha256(path.read_bytes()).digest()
    return []


def test_a_complete_crl_is_the_list(line: CRLLine, tmp_path: Path) -> None:
    """From rows in memory or in a file, and nothing else will do."""
    rows = rows_of(_ENTRIES)
    path = _made(line, _COMPLETE, rows)
    assert _findings(line, path, _COMPLETE, rows) == []
    write_rows(tmp_path / "rows", RowsHead(bytes(16), 1, 1, 1), [rows])
    with RowsFile(tmp_path / "rows") as file:
        again = _made(line, _COMPLETE._replace(number=8), file)
        assert read_and_check(again, line.scope, _COMPLETE._replace(number=8), file).entries == 40
    other = rows.copy()
    other["revoked_at"][20] -= 1
    for wrong in (other, rows[1:], rows[:-1], rows[:0]):
        assert _findings(line, path, _COMPLETE, wrong) == ["certstatus.crl_entries_differ"]


@pytest.mark.parametrize(
    ("head", "finding"),
    [
        (_COMPLETE._replace(number=8), "certstatus.crl_head_differs"),
        (_COMPLETE._replace(this_update_s=_NOW_S - 1), "certstatus.crl_head_differs"),
        (_COMPLETE._replace(next_update_s=_NOW_S + 1), "certstatus.crl_head_differs"),
    ],
)
def test_another_head_is_noticed(line: CRLLine, head: CRLHead, finding: str) -> None:
    """Number and dates are those that were given out."""
    rows = rows_of(_ENTRIES)
    assert _findings(line, _made(line, _COMPLETE, rows), head, rows) == [finding]


def test_each_octet_of_a_file_is_vouched_for(line: CRLLine) -> None:
    """Whatever octet is changed after signing, the file is no more what it was to be."""
    rows = rows_of(_ENTRIES[:3])
    path = _made(line, _COMPLETE, rows)
    content = path.read_bytes()
    for position in range(len(content)):
        path.write_bytes(content[:position] + bytes((content[position] ^ 1,)) + content[position + 1 :])
        with pytest.raises((CRLCheckFailed, DERError)):
            read_and_check(path, line.scope, _COMPLETE, rows)


def test_a_delta_and_its_base_are_the_list(tmp_path: Path, clock: Clock) -> None:
    """What it says is what it was to say, and with what its base says it is the list: nothing else is."""
    with Store.create(f"sqlite:///{tmp_path / 'store.db'}", START_MS) as store:
        _join(CRLLine(store, tmp_path, clock, short_periods("PARTNER", hold=True)))


def _join(line: CRLLine) -> None:
    old = rows_of(_ENTRIES)
    base = _made(line, _COMPLETE, old)
    new, changed = CRLEntry(b"\x05", _NOW_S, 1), _ENTRIES[3]._replace(reason=4)
    gone = CRLEntry(_ENTRIES[7].serial, _NOW_S, CRLReason.REMOVE_FROM_CRL)
    says = rows_of([new, changed, gone])
    listed = rows_of([new, *_ENTRIES[:3], changed, *_ENTRIES[4:7], *_ENTRIES[8:]])
    path = _made(line, _DELTA, says)
    joins = Joining(base, digest_of(old), old, digest_of(listed))
    assert _findings(line, path, _DELTA, says, joins) == []
    # Only of those that it speaks of need it be known what the base said.
    enough = joins._replace(before=rows_of([_ENTRIES[3], _ENTRIES[7]]))
    assert _findings(line, path, _DELTA, says, enough) == []
    differ, missing = ["certstatus.crl_entries_differ"], ["certstatus.crl_base_missing"]
    for wrong in (
        joins._replace(listed_digest=digest_of(old)),
        joins._replace(base_digest=digest_of(old[1:])),
        joins._replace(before=rows_of([_ENTRIES[3]])),
        joins._replace(before=rows_of([_ENTRIES[3], _ENTRIES[7]._replace(reason=5)])),
    ):
        assert _findings(line, path, _DELTA, says, wrong) == differ
    assert _findings(line, path, _DELTA, says[:1], joins) == differ
    assert _findings(line, path, _DELTA, says) == missing
    other = _made(line, _COMPLETE._replace(number=6), old)
    assert _findings(line, path, _DELTA, says, joins._replace(base_path=other)) == missing
    assert _findings(line, path, _DELTA, says, joins._replace(base_path=path)) == missing


class _OtherScope(CRLScope):
    @property
    def idp_der(self) -> bytes:
        return b"\x30\x03\x81\x01\xff"


def test_a_base_of_another_scope_is_no_base(line: CRLLine) -> None:
    """Its distribution point is not the delta's (RFC 5280 §5.2.4)."""
    rows = rows_of(_ENTRIES)
    base = _made(line, _COMPLETE, rows, _OtherScope(line.issuer))
    path = _made(line, _DELTA, rows[:0])
    joins = Joining(base, digest_of(rows), rows[:0], digest_of(rows))
    assert _findings(line, path, _DELTA, rows[:0], joins) == ["pkix.combine_scope_differs"]


def test_another_key_is_noticed(line: CRLLine) -> None:
    """A CRL that the issuer's key has not signed."""
    rows = rows_of(_ENTRIES)
    path = line.state / "crl" / "7.crl"
    hidden = make_crl(path, line.scope, _COMPLETE, rows, ec.generate_private_key(ec.SECP256R1()))
    assert _findings(line, hidden, _COMPLETE, rows) == ["certstatus.crl_signature_wrong"]


@pytest.mark.parametrize(
    ("finding", "entry"),
    [
        ("certstatus.crl_hold_without_hold", CRLEntry(b"\x05", _NOW_S, 6)),
        ("pkix.crl_remove_in_complete", CRLEntry(b"\x05", _NOW_S, 8)),
        ("pkix.crl_serial_not_positive", CRLEntry(b"\xff", _NOW_S, 1)),
        ("certstatus.crl_entry_after_this_update", CRLEntry(b"\x05", _NOW_S + 1, 1)),
        ("certstatus.crl_invalidity_after_revocation", CRLEntry(b"\x05", _NOW_S - 5, 1, _NOW_S)),
    ],
)
def test_what_lint_finds_is_not_signed(
    line: CRLLine, finding: str, entry: CRLEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no file, and the key was not asked."""
    monkeypatch.setattr("publisher.crl_make.sign", lambda *_: pytest.fail("signed"))
    with pytest.raises(CRLCheckFailed) as refused:
        _made(line, _COMPLETE, rows_of([*_ENTRIES, entry]))
    assert finding in refused.value.findings
    assert [path for path in (line.state / "crl").rglob("*") if path.is_file()] == []


def test_a_hold_from_before_the_policy_lost_it_is_listed(tmp_path: Path, clock: Clock) -> None:
    """Where hold is a matter of policy, a change of it must not keep revocations from being published."""
    with Store.create(f"sqlite:///{tmp_path / 'store.db'}", START_MS) as store:
        line = CRLLine(store, tmp_path, clock, short_periods("PARTNER"))
        rows = rows_of([*_ENTRIES, CRLEntry(b"\x05", _NOW_S, 6)])
        assert _findings(line, _made(line, _COMPLETE, rows), _COMPLETE, rows) == []


def test_memory_of_an_old_ca_is_not_held_against_it(line: CRLLine) -> None:
    """What was taken over is listed as it was, under numbers and dates that nobody would give today."""
    old = [
        CRLEntry(b"\x00", _NOW_S - 5, 1),
        CRLEntry(b"\xff", _NOW_S - 5, 1, _NOW_S),
        CRLEntry(b"\x05", _NOW_S + 60, 1),
    ]
    rows = rows_of(old)
    taken_over = dataclasses.replace(line.issuer, imported=ImportedIssuer(HERE, is_ready=True))
    path = _made(line, _COMPLETE, rows, CRLScope(taken_over))
    assert read_and_check(path, CRLScope(taken_over), _COMPLETE, rows).entries == 3
    assert parse_certificate_list(path.read_bytes()).idp_der is None


def test_signatures_are_over_a_digest() -> None:
    """Made by way of a digest, they verify as those over the octets themselves."""
    for curve in (ec.SECP256R1(), ec.SECP384R1()):
        key = ec.generate_private_key(curve)
        hashed = signature_hash(key)
        digest = hashlib.new(hashed.name, b"octets").digest()
        key.public_key().verify(sign(key, digest), b"octets", ec.ECDSA(hashed))
    rsa_key = rsa.generate_private_key(65537, 2048)
    digest = hashlib.sha256(b"octets").digest()
    rsa_key.public_key().verify(sign(rsa_key, digest), b"octets", padding.PKCS1v15(), hashes.SHA256())
