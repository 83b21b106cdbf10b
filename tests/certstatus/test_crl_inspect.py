"""``certstatus crl inspect``: of a CRL in blocks what is said of one in memory, and no more memory for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from big_crls import MORE_MB_MAX, peak_mb, write_big
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from mirror_cases import NOW_S, MirrorCA, listed_entry

from certstatus.cli import cli
from certstatus.crl import parse_certificate_list
from certstatus.crl_combine import combine
from certstatus.crl_entry import CRLEntry, encode_entry
from certstatus.crl_inspect import _PEM_OCTETS_AT_ONCE, InspectedCRL, opened
from certstatus.crl_lint import lint
from certstatus.crl_reason import CRLReason
from certstatus.errors import DERError

REMOVED = int(CRLReason.REMOVE_FROM_CRL)
CA = MirrorCA()
MANY = [listed_entry(5 + 3 * number, number % 5, at_s=NOW_S - number) for number in range(30_000)]


def run(*words: object) -> Result:
    return CliRunner().invoke(cli, ["crl", "inspect", *map(str, words)])


def run_json(*words: object) -> dict[str, Any]:
    done = CliRunner().invoke(cli, ["--json", "crl", "inspect", *map(str, words)])
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def put(folder: Path, crl: bytes, name: str = "x.crl") -> Path:
    (folder / name).write_bytes(crl)
    return folder / name


def told(entries: list[CRLEntry]) -> list[tuple[str, str | None]]:
    labels = {None: None, 0: None} | {int(reason): reason.label for reason in CRLReason if reason}
    return [(entry.serial.hex(), labels[entry.reason]) for entry in entries]


def said(values: dict[str, Any]) -> list[tuple[str, str | None]]:
    return [(item["serial"], item["reason"]) for item in values["entries"]]


LISTS: dict[str, list[CRLEntry]] = {
    "none": [],
    "one": [listed_entry(5, 1, invalid_s=NOW_S - 900)],
    "many": MANY,
    "out of order": [listed_entry(9), listed_entry(5)],
    "twice": [listed_entry(5), listed_entry(9), listed_entry(9)],
    "twice and apart": [listed_entry(5), listed_entry(9), listed_entry(5)],
    "negative": [listed_entry(-3), listed_entry(5)],
    "too long for a row": [listed_entry(5), listed_entry(1 << 200)],
    "later than the CRL": [listed_entry(5, at_s=NOW_S)],
}


@pytest.mark.parametrize("name", LISTS)
def test_in_blocks_it_says_what_is_said_of_a_crl_in_memory(tmp_path: Path, name: str) -> None:
    """Findings, reasons and entries, in the order in which they stand there."""
    crl = CA.crl_of(b"".join(map(encode_entry, LISTS[name])), 5)
    path, ca = put(tmp_path, crl), put(tmp_path, CA.pem, "ca.pem")
    parsed = parse_certificate_list(crl)
    values = run_json(path, "--entries", "--ca", ca)
    assert values["findings"] == lint(parsed, hold_allowed=True)
    assert values["signature"] == "verified"
    assert values["entry_count"] == len(parsed.entries)
    assert sum(values["reasons"].values()) == len(parsed.entries)
    assert said(values) == told(parsed.entries)


def test_entries_are_printed_in_columns(tmp_path: Path) -> None:
    """Under headings, as wide as the longest."""
    entries = [listed_entry(5), listed_entry(0x1234567890, 4, invalid_s=NOW_S - 900)]
    done = run(put(tmp_path, CA.crl(5, *entries)), "--entries")
    assert done.stdout.splitlines()[3:] == [
        "",
        "serial      revoked at            reason       invalid since",
        "05          2027-01-15T07:51:40Z",
        "1234567890  2027-01-15T07:51:40Z  superseded   2027-01-15T07:45:00Z",
    ]
    assert done.exit_code == 0
    assert len(run(put(tmp_path, CA.crl(5)), "--entries").stdout.splitlines()) == 3


@pytest.mark.parametrize("turned", [False, True], ids=["in order", "out of order"])
def test_a_delta_joined_with_its_base_is_the_complete_list(tmp_path: Path, turned: bool) -> None:
    """As rows, or one by one where one of the two does not ascend."""
    base = CA.crl_of(b"".join(map(encode_entry, reversed(MANY) if turned else MANY)), 5)
    changes = [listed_entry(5, REMOVED), listed_entry(6, 1), listed_entry(8, 4), listed_entry(10**6, 1)]
    delta = CA.crl(6, *changes, base=5)
    values = run_json(put(tmp_path, delta), "--base", put(tmp_path, base, "base.crl"), "--entries")
    combined = combine(parse_certificate_list(base), parse_certificate_list(delta))
    assert said(values) == told(combined)
    assert values["entry_count"] == len(combined) == len(MANY) + 1
    assert values["kind"] == "delta"
    done = run(put(tmp_path, base, "base.crl"), "--base", tmp_path / "base.crl")
    assert "combine_base_not_older" in str(done.exception)


PEM: dict[str, Callable[[bytes], bytes]] = {
    "lines": lambda pem: pem,
    "DOS lines": lambda pem: pem.replace(b"\n", b"\r\n"),
    "one line": lambda pem: pem.replace(b"\n", b""),
    "something before and after": lambda pem: b"-----BEGIN X-----\nAA==\n-----END X-----\n" + pem + b"text",
    "marks across a block": lambda pem: b"-----" + b" " * (_PEM_OCTETS_AT_ONCE - 15) + pem,
}


@pytest.mark.parametrize("name", PEM)
def test_pem_is_what_its_der_is(tmp_path: Path, name: str) -> None:
    """However its lines are broken."""
    crl = CA.crl(5, *MANY)
    pem = x509.load_der_x509_crl(crl).public_bytes(Encoding.PEM)
    assert len(pem) > 2 * _PEM_OCTETS_AT_ONCE
    with opened(put(tmp_path, PEM[name](pem))) as file:
        assert file.read() == crl
        assert InspectedCRL(file).tally.count == len(MANY)
    assert not file.path.exists()


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", ""),
        (b"no CRL", ""),
        (b"-----BEGIN X509 CRL-----", "PEM, but not of a CRL"),
        (b"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n", "PEM, but not of a CRL"),
        (b"-----BEGIN X509 CRL-----\nA\n-----END X509 CRL-----\n", "PEM, but not base64"),
        (b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n", ""),
        (CA.crl(5, *MANY)[:-1], ""),
        (CA.crl(5, *MANY).replace(b"\x02\x01\x05", b"\x04\x01\x05", 1), ""),
    ],
)
def test_what_is_no_crl_is_refused(tmp_path: Path, content: bytes, what: str) -> None:
    """By one error of ours, whichever octets are wrong."""
    done = run(put(tmp_path, content))
    assert isinstance(done.exception, DERError)
    assert what in str(done.exception)


_INSPECT = """
import contextlib, io, sys
from certstatus.cli import cli
class Count(io.TextIOBase):
    lines = 0
    def write(self, text):
        self.lines += text.count("\\n")
        return len(text)
counted = Count()
with contextlib.redirect_stdout(counted):
    cli.main(["crl", "inspect", *sys.argv[1:]], standalone_mode=False)
print(counted.lines)
"""


def test_more_entries_take_no_more_memory(tmp_path: Path) -> None:
    """To look through them, to list them either way, from PEM, and joined with a base."""
    peaks: dict[int, list[float]] = {}
    lines: dict[int, list[int]] = {}
    for count in (1, 700_000):
        place = tmp_path / str(count)
        place.mkdir()
        crl, ca = place / "big.crl", put(place, CA.pem, "ca.pem")
        last = write_big(crl, CA, count)
        pem = put(place, x509.load_der_x509_crl(crl.read_bytes()).public_bytes(Encoding.PEM), "big.pem")
        delta = put(place, CA.crl(2, listed_entry(last, 5), base=1), "delta.crl")
        runs = [
            peak_mb(_INSPECT, str(crl), "--ca", str(ca)),
            peak_mb(_INSPECT, str(crl), "--entries"),
            peak_mb(_INSPECT, str(pem), "--ca", str(ca)),
            peak_mb(_INSPECT, str(delta), "--base", str(crl), "--entries"),
        ]
        lines[count] = [int(text) for text, _ in runs]
        peaks[count] = [mb for _, mb in runs]
    assert [more - few for few, more in zip(lines[1], lines[700_000], strict=True)] == [
        0,
        699_999,
        0,
        699_999,
    ]
    assert max(more - few for few, more in zip(peaks[1], peaks[700_000], strict=True)) < MORE_MB_MAX, peaks
