"""``certstatus verifier``: who may ask, by network and legal days."""

from __future__ import annotations

from collections.abc import Sequence

import click

from certstatus.cli.context import Installation, pass_installation, table
from certstatus.cli.waiting import report_change, wait_options

_KINDS = ("ocsp", "crl")


def legal_day(text: str) -> int:
    """Return the legal day YYYY-MM-DD (Japan) as days since 1970-01-01."""
    from datetime import date

    try:
        return (date.fromisoformat(text) - date(1970, 1, 1)).days
    except ValueError as exc:
        raise click.BadParameter(f"{text!r} is not a date, expected YYYY-MM-DD") from exc


@click.group
def verifier() -> None:
    """Registered verifiers and their agreements."""


@verifier.command
@click.argument("name")
@click.option(
    "--network", "networks", multiple=True, required=True, help="192.0.2.0/24, 2001:db8::/32; repeatable."
)
@click.option(
    "--grant",
    "grants",
    multiple=True,
    required=True,
    metavar="SERVICE[:KIND,...]",
    help="What it may have, e.g. SIGN:ocsp or AUTH:ocsp,crl; both kinds if none is named.",
)
@click.option(
    "--from", "from_day", type=legal_day, metavar="YYYY-MM-DD", help="First legal day of the agreement."
)
@click.option(
    "--until", "until_day", type=legal_day, metavar="YYYY-MM-DD", help="Last legal day of the agreement."
)
@wait_options
@pass_installation
def add(
    installation: Installation,
    name: str,
    networks: Sequence[str],
    grants: Sequence[str],
    from_day: int | None,
    until_day: int | None,
    no_wait: bool,
    timeout: float | None,
) -> None:
    """Register the verifier NAME."""
    from certstatus import clock
    from issuance.verifiers import add_verifier

    scope: dict[str, list[str]] = {}
    for grant in grants:
        service, _, kinds = grant.partition(":")
        scope[service] = kinds.split(",") if kinds else list(_KINDS)
    made = add_verifier(
        installation.store, name, list(networks), scope, clock.now_ms, from_day=from_day, until_day=until_day
    )
    report_change(installation, f"verifier {made.verifier_id} registered", made.change, no_wait, timeout)


@verifier.command
@click.argument("verifier_id", type=int)
@click.option(
    "--until", "until_day", type=legal_day, metavar="YYYY-MM-DD", help="With the end of this legal day [now]."
)
@wait_options
@pass_installation
def end(
    installation: Installation, verifier_id: int, until_day: int | None, no_wait: bool, timeout: float | None
) -> None:
    """End the right of verifier VERIFIER_ID; its next request is refused."""
    from certstatus import clock
    from issuance.verifiers import end_verifier

    recorded = end_verifier(installation.store, verifier_id, clock.now_ms, until_day=until_day)
    report_change(installation, f"verifier {verifier_id} ended", recorded, no_wait, timeout)


@verifier.command("list")
@click.option("--all", "with_ended", is_flag=True, help="Also those that have ended.")
@pass_installation
def list_verifiers(installation: Installation, with_ended: bool) -> None:
    """List the verifiers."""
    from issuance.verifiers import verifiers

    found = verifiers(installation.store, ended=with_ended)
    values = [
        {**item.verifier.as_json(), "registered_seq": item.registered_seq, "ended_seq": item.ended_seq}
        for item in found
    ]
    rows: list[list[object]] = [
        [
            item.verifier.verifier_id,
            item.verifier.name,
            " ".join(str(network) for network in item.verifier.networks),
            " ".join(f"{service}:{','.join(kinds)}" for service, kinds in item.verifier.grants.items()),
            _day(item.verifier.from_day),
            _day(item.verifier.until_day),
            "ended" if item.ended_seq else "",
        ]
        for item in found
    ]
    installation.emit(values, table(["id", "name", "networks", "may have", "from", "until", ""], rows))


def _day(number: int | None) -> str | None:
    from certstatus import clock

    return None if number is None else clock.jst_day(clock.jst_day_end_s(number)).isoformat()
