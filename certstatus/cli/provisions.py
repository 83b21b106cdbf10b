"""``certstatus provisions``: what was provided to whom, as the store of record has it."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from certstatus.cli.context import Installation, pass_installation, table


@click.command
@click.option("--from", "since", type=click.DateTime(["%Y-%m-%d"]), help="First legal day (Japan).")
@click.option("--until", type=click.DateTime(["%Y-%m-%d"]), help="Last legal day (Japan).")
@pass_installation
def provisions(installation: Installation, since: datetime | None, until: datetime | None) -> None:
    """Print the counts of answers and CRLs by verifier, service and kind.

    Counts reach the store about a second after the answer; nothing is ever counted twice.
    """
    from certstatus import clock
    from issuance.issuers import read_issuers
    from issuance.provisions import sums
    from issuance.verifiers import verifiers

    def hour_s(day: datetime | None, days_more: int) -> int | None:
        if day is None:
            return None
        return int(day.replace(tzinfo=UTC).timestamp()) + days_more * clock.DAY_S - clock.JST_OFFSET_S

    names = {
        item.verifier.verifier_id: item.verifier.name for item in verifiers(installation.store, ended=True)
    }
    with installation.store.reading() as connection:
        issuers = {item.issuer_id: item for item in read_issuers(connection)}
        found = sums(connection, hour_s(since, 0), hour_s(until, 1))
    values = [
        {
            "verifier_id": item.verifier_id,
            "verifier": names.get(item.verifier_id, "(anybody)"),
            "service": issuers[item.issuer_id].service if item.issuer_id in issuers else "-",
            "generation": issuers[item.issuer_id].generation if item.issuer_id in issuers else None,
            "kind": item.kind,
            "count": item.total,
        }
        for item in found
    ]
    rows: list[list[object]] = [
        [item["verifier"], item["service"], item["generation"], item["kind"], item["count"]]
        for item in values
    ]
    installation.emit(values, table(["verifier", "service", "generation", "kind", "count"], rows))
