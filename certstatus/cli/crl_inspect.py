"""``certstatus crl inspect``: what a CRL file says, and what is wrong with it.

Entries are printed as they are read, so a list of ten million lines takes no more memory than one of ten.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from certstatus import clock
from certstatus.cli.context import Installation, pass_installation
from certstatus.crl_reason import reason_text

if TYPE_CHECKING:
    from certstatus.crl_entry import CRLEntry
    from certstatus.crl_inspect import InspectedCRL, Tally

_SIGNATURE_WRONG = "pkix.signature_does_not_verify"
_LINES_AT_ONCE = 4096


@click.command
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--ca", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Verify with this CA (PEM)."
)
@click.option(
    "--base",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="For a delta CRL: combine with this complete one.",
)
@click.option("--entries", "with_entries", is_flag=True, help="List the entries.")
@pass_installation
def inspect(
    installation: Installation, file: Path, ca: Path | None, base: Path | None, with_entries: bool
) -> None:
    """Say what the CRL in FILE (DER or PEM) says, and what is wrong with it.

    Exits with 65 if its form or, with --ca, its signature is wrong.
    """
    from certstatus.crl_inspect import InspectedCRL, JoinedCRLs, opened
    from certstatus.crl_lint import WARNINGS
    from certstatus.errors import CRLCheckFailed

    with ExitStack() as stack:
        crl = InspectedCRL(stack.enter_context(opened(file)))
        findings = crl.findings()
        values = _values(file, crl)
        if ca is not None and not _is_signed_by(crl, ca):
            findings.append(_SIGNATURE_WRONG)
        listed: InspectedCRL | JoinedCRLs = crl
        if base is not None:
            complete = InspectedCRL(stack.enter_context(opened(base)))
            try:
                listed = JoinedCRLs(complete, crl)
            except CRLCheckFailed as exc:
                if exc.findings != ["pkix.combine_base_not_older"]:
                    raise
                # Fetched before the next delta was out: a complete CRL as new holds all that it says.
                listed = complete
                values["note"] = (
                    f"complete CRL {complete.file.head.number} is no older, so its entries stand as they are"
                )
        reasons: Counter[str] = Counter()
        for reason, count in listed.tally.reasons.items():
            reasons[reason_text(reason)] += count
        values |= {
            "entry_count": listed.tally.count,
            "reasons": dict(sorted(reasons.items())),
            "findings": findings,
        }
        if ca is not None:
            values["signature"] = "verified" if _SIGNATURE_WRONG not in findings else "wrong"
        if not with_entries:
            installation.emit(values, lambda: _text(values))
        elif installation.as_json:
            _print_in_lots(_json_lines(values, listed.entries))
        else:
            _print_in_lots(_text_lines(values, listed.tally, listed.entries))
    wrong = [code for code in findings if code not in WARNINGS]
    if wrong:
        raise CRLCheckFailed(wrong)


def _is_signed_by(crl: InspectedCRL, ca: Path) -> bool:
    from certstatus.crl_signature import CAPublicKey, is_signed
    from certstatus.errors import KeyFileError
    from certstatus.x509_reading import load_certificate

    try:
        certificate = load_certificate(ca.read_bytes())
    except ValueError as exc:
        raise KeyFileError(f"{ca}: not a certificate") from exc
    key = certificate.public_key()
    return (
        isinstance(key, CAPublicKey)
        and crl.issuer == certificate.subject
        and is_signed(crl.file, crl.digests, key)
    )


def _values(file: Path, crl: InspectedCRL) -> dict[str, Any]:
    head = crl.file.head
    return {
        "file": str(file),
        "kind": "complete" if head.base_number is None else "delta",
        "issuer": crl.issuer.rfc4514_string(),
        "number": head.number,
        "base_number": head.base_number,
        "this_update": clock.utc_text(head.this_update_s),
        "next_update": None if head.next_update_s is None else clock.utc_text(head.next_update_s),
    }


def _text(values: dict[str, Any]) -> str:
    kind = values["kind"]
    number = f"{values['number']}" + (
        f" on {values['base_number']}" if values["base_number"] is not None else ""
    )
    reasons = ", ".join(f"{name} {count}" for name, count in values["reasons"].items())
    lines = [
        f"{kind} CRL {number} of {values['issuer']}",
        f"valid     {values['this_update']} to {values['next_update']}",
        f"entries   {values['entry_count']}" + (f" ({reasons})" if reasons else ""),
    ]
    if "signature" in values:
        lines.append(f"signature {values['signature']}")
    if "note" in values:
        lines.append(f"note      {values['note']}")
    return "\n".join(lines)


def _text_lines(
    values: dict[str, Any], tally: Tally, entries: Callable[[], Iterator[CRLEntry]]
) -> Iterator[str]:
    """Yield the text with the entries in columns, whose widths are known by what was counted."""
    yield from _text(values).split("\n")
    if not tally.count:
        return
    headings = ["serial", "revoked at", "reason", "invalid since"]
    longest = [2 * tally.serial_octets, len(clock.utc_text(0)), max(map(len, values["reasons"]), default=0)]
    widths = [max(len(heading), most) for heading, most in zip(headings, [*longest, 0], strict=True)]
    yield ""
    for cells in ([headings], (list(_entry(entry).values()) for entry in entries())):
        for line in cells:
            texts = (f"{cell or '':{width}}" for cell, width in zip(line, widths, strict=True))
            yield "  ".join(texts).rstrip()


def _json_lines(values: dict[str, Any], entries: Callable[[], Iterator[CRLEntry]]) -> Iterator[str]:
    """Yield the lines of *values*, indented by two as all our JSON, with the entries as their last member."""
    *before, last, end = json.dumps(values, ensure_ascii=False, indent=2).split("\n")
    yield from before
    yield f"{last},"
    held = '  "entries": ['
    for entry in entries():
        yield held if held.endswith("[") else f"{held},"
        held = "    " + json.dumps(_entry(entry), ensure_ascii=False, indent=2).replace("\n", "\n    ")
    yield f"{held}]" if held.endswith("[") else f"{held}\n  ]"
    yield end


def _print_in_lots(lines: Iterator[str]) -> None:
    lot: list[str] = []
    for line in lines:
        lot.append(line)
        if len(lot) == _LINES_AT_ONCE:
            click.echo("\n".join(lot))
            lot.clear()
    if lot:
        click.echo("\n".join(lot))


def _entry(entry: CRLEntry) -> dict[str, Any]:
    return {
        "serial": entry.serial.hex(),
        "revoked_at": clock.utc_text(entry.revoked_at_s),
        "reason": None if not entry.reason else reason_text(entry.reason),
        "invalid_since": None if entry.invalidity_at_s is None else clock.utc_text(entry.invalidity_at_s),
    }
