"""``certstatus publish now`` and ``certstatus crl inspect``: making CRLs, and looking into one."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from certstatus import clock
from certstatus.cli.context import Installation, pass_installation, table
from certstatus.crl_reason import reason_text

if TYPE_CHECKING:
    from cryptography import x509

    from certstatus.crl import ParsedCRL
    from certstatus.crl_entry import CRLEntry


@click.group
def publish() -> None:
    """CRLs."""


@publish.command
@click.option("--service", help="Only this service [all].")
@pass_installation
def now(installation: Installation, service: str | None) -> None:
    """Publish a complete and a delta CRL of every CA key, also while `serve` runs."""
    from certstatus.store_use import using_store
    from publisher.crl_publish import publish_now

    with using_store(installation.config.state):
        made = publish_now(installation.config, service=service)
    values = [
        {
            "scope": item.scope,
            "kind": item.kind,
            "number": item.number,
            "base_number": item.base_number,
            "entries": item.entries,
            "next_update": clock.utc_text(item.next_update_s),
            "file": str(item.file),
        }
        for item in made
    ]
    rows: list[list[object]] = [
        [
            item["scope"],
            item["kind"],
            item["number"],
            item["base_number"],
            item["entries"],
            item["next_update"],
        ]
        for item in values
    ]
    installation.emit(values, table(["scope", "kind", "number", "base", "entries", "next update"], rows))


@click.group
def crl() -> None:
    """CRL files."""


@crl.command
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
    from certstatus.crl import parse_certificate_list
    from certstatus.crl_combine import combine
    from certstatus.crl_lint import lint
    from certstatus.errors import CRLCheckFailed, DERError
    from certstatus.x509_reading import load_crl

    content = _der(file)
    parsed = parse_certificate_list(content)
    try:
        loaded = load_crl(content)
    except ValueError as exc:
        raise DERError(f"{file}: cannot be read: {exc}") from exc
    findings = lint(parsed, hold_allowed=True)
    if ca is not None and not _is_signed_by(loaded, ca):
        findings.append("pkix.signature_does_not_verify")
    entries, note = parsed.entries, ""
    if base is not None:
        complete = parse_certificate_list(_der(base))
        try:
            entries = combine(complete, parsed)
        except CRLCheckFailed as exc:
            if exc.findings != ["pkix.combine_base_not_older"]:
                raise
            # Fetched before the next delta was out: a complete CRL as new holds all that it says.
            entries = complete.entries
            note = f"complete CRL {complete.number} is no older, so its entries stand as they are"
    values = _values(file, loaded, parsed, entries, findings)
    if note:
        values["note"] = note
    if ca is not None:
        values["signature"] = "verified" if "pkix.signature_does_not_verify" not in findings else "wrong"
    if with_entries:
        values["entries"] = [_entry(entry) for entry in entries]
    installation.emit(values, lambda: _text(values))
    if findings:
        raise CRLCheckFailed(findings)


def _der(file: Path) -> bytes:
    import base64
    import re

    from certstatus.errors import DERError

    content = file.read_bytes()
    if not content.startswith(b"-----"):
        return content
    found = re.search(rb"-----BEGIN X509 CRL-----(.*?)-----END X509 CRL-----", content, re.DOTALL)
    if found is None:
        raise DERError(f"{file}: PEM, but not of a CRL")
    try:
        return base64.b64decode(found[1])
    except ValueError as exc:
        raise DERError(f"{file}: PEM, but not base64: {exc}") from exc


def _is_signed_by(crl: x509.CertificateRevocationList, ca: Path) -> bool:
    from certstatus.errors import KeyFileError
    from certstatus.x509_reading import load_certificate

    try:
        certificate = load_certificate(ca.read_bytes())
    except ValueError as exc:
        raise KeyFileError(f"{ca}: not a certificate") from exc
    key: Any = certificate.public_key()
    return crl.issuer == certificate.subject and crl.is_signature_valid(key)


def _values(
    file: Path,
    loaded: x509.CertificateRevocationList,
    parsed: ParsedCRL,
    entries: list[CRLEntry],
    findings: list[str],
) -> dict[str, Any]:
    reasons = Counter(reason_text(entry.reason or 0) for entry in entries)
    return {
        "file": str(file),
        "kind": "complete" if parsed.base_number is None else "delta",
        "issuer": loaded.issuer.rfc4514_string(),
        "number": parsed.number,
        "base_number": parsed.base_number,
        "this_update": clock.utc_text(parsed.this_update_s),
        "next_update": None if parsed.next_update_s is None else clock.utc_text(parsed.next_update_s),
        "entry_count": len(entries),
        "reasons": dict(sorted(reasons.items())),
        "findings": findings,
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
    rows: list[list[object]] = [
        [item["serial"], item["revoked_at"], item["reason"], item["invalid_since"]]
        for item in values.get("entries", [])
    ]
    if rows:
        lines += ["", table(["serial", "revoked at", "reason", "invalid since"], rows)]
    return "\n".join(lines)


def _entry(entry: CRLEntry) -> dict[str, Any]:
    return {
        "serial": entry.serial.hex(),
        "revoked_at": clock.utc_text(entry.revoked_at_s),
        "reason": None if not entry.reason else reason_text(entry.reason),
        "invalid_since": None if entry.invalidity_at_s is None else clock.utc_text(entry.invalidity_at_s),
    }
