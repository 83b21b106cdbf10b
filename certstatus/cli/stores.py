"""``certstatus store``: the store of record itself."""

from __future__ import annotations

import click

from certstatus.cli.context import Installation, pass_installation


@click.group
def store() -> None:
    """The store of record."""


@store.command
@pass_installation
def upgrade(installation: Installation) -> None:
    """Bring the tables up to this version; back up first."""
    from issuance.database import make_engine, parse_url
    from issuance.schema import SCHEMA_REVISION
    from issuance.store import Store

    # Not Store.open, which refuses tables of another version.
    with Store(make_engine(parse_url(installation.config.store_url))) as found:
        found.upgrade()
        place = found.place
    installation.emit({"store": place, "revision": SCHEMA_REVISION}, f"{place}: revision {SCHEMA_REVISION}")


@store.command
@pass_installation
def state(installation: Installation) -> None:
    """Print epoch, sequence number and time of the last change or cut."""
    from certstatus import clock

    found = installation.store.state()
    values = {
        "store": installation.store.place,
        "epoch": found.epoch.hex(),
        "base_seq": found.base_seq,
        "seq": found.seq,
        "time": clock.utc_text(found.time_ms // 1000),
    }
    installation.emit(values, "\n".join(f"{name:<10}{value}" for name, value in values.items()))
