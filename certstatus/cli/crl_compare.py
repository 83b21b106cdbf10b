"""``certstatus crl compare``: why a scope's next complete CRL is withheld."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from certstatus import clock
from certstatus.cli.context import Installation, pass_installation, table
from certstatus.crl_reason import reason_text

if TYPE_CHECKING:
    from certstatus.crl_entry import CRLEntry

# More rows than that nobody reads; --json has them all.
_ROWS_SHOWN = 50


@click.command
@click.argument("scope")
@pass_installation
def compare(installation: Installation, scope: str) -> int:
    """Say in what the register's list of SCOPE (sign/g1/all) differs from the one published last.

    The published complete CRL and the changes since must give the list that the register gives from its
    beginning; a complete CRL made from the register is withheld where they do not
    (certstatus.crl_predecessor_differs).  Asking changes nothing.

    Exits with 0: no difference; 65: these certificates differ.
    """
    from certstatus.errors import EXIT_DATA
    from publisher.crl_compare import compare as compare_lists

    found = compare_lists(installation.store, installation.config.state, scope, clock.now_s())
    differences = [
        {
            "serial": item.serial.hex(),
            "published": _entry(item.published),
            "register": _entry(item.register),
        }
        for item in found.differences
    ]
    values = {
        "scope": found.scope,
        "predecessor": None if found.predecessor is None else found.predecessor.number,
        "file": None if found.file is None else str(found.file),
        "entries": found.entries,
        "differences": differences,
    }
    installation.emit(values, lambda: _text(values))
    return EXIT_DATA if differences else 0


def _entry(entry: CRLEntry | None) -> dict[str, Any] | None:
    if entry is None:
        return None
    return {
        "revoked_at": clock.utc_text(entry.revoked_at_s),
        "reason": reason_text(entry.reason or 0),
        "invalid_since": None if entry.invalidity_at_s is None else clock.utc_text(entry.invalidity_at_s),
    }


def _text(values: dict[str, Any]) -> str:
    scope, number = values["scope"], values["predecessor"]
    if number is None:
        return (
            f"{scope}: no published complete CRL of this epoch to compare with, {values['entries']} entries"
        )
    differences = values["differences"]
    if not differences:
        return f"{scope}: CRL {number} and the changes since give the register's {values['entries']} entries"
    rows: list[list[object]] = [
        [item["serial"], _words(item["published"]), _words(item["register"])]
        for item in differences[:_ROWS_SHOWN]
    ]
    lines = [
        f"{scope}: CRL {number} ({values['file']}) and the changes since give another list than the register",
        table(["serial", f"by CRL {number} and what came since", "by the register"], rows),
    ]
    if len(differences) > len(rows):
        lines.append(f"and {len(differences) - len(rows)} more")
    lines.append(
        "no complete CRL is made from the register until they agree: see the manual, When a CRL is withheld"
    )
    return "\n".join(lines)


def _words(entry: dict[str, Any] | None) -> str:
    if entry is None:
        return "not listed"
    since = "" if entry["invalid_since"] is None else f", invalid since {entry['invalid_since']}"
    return f"{entry['reason']}, {entry['revoked_at']}{since}"
