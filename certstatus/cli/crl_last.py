"""``certstatus crl prepare-last`` and ``publish-last``: a CA key's last CRL, made ahead or at the event."""

from __future__ import annotations

import click

from certstatus import clock
from certstatus.cli.context import Installation, exit_code_of, pass_installation, table


@click.command("prepare-last")
@click.option("--service", help="Only this service [all].")
@click.option("--generation", type=click.IntRange(1), help="Only this CA key generation [all].")
@pass_installation
def prepare_last(installation: Installation, service: str | None, generation: int | None) -> None:
    """Sign the last CRL of every list of every CA key as of now and keep it back, for when the key is lost.

    It lies in STATE/crl-last, replaces the one prepared before, and is part of a backup.  Treat it like
    the key: whoever publishes it ends the belief in all later CRLs.
    """
    from certstatus.store_use import using_store
    from publisher.publish_last import prepare_last_now

    with using_store(installation.config.state):
        made = prepare_last_now(installation.config, service=service, generation=generation)
    values = [
        {
            "scope": item.scope,
            "number": item.number,
            "this_update": clock.utc_text(item.this_update_s),
            "entries": item.entries,
            "sha256": item.sha256.hex(),
            "file": str(item.file),
        }
        for item in made
    ]
    rows: list[list[object]] = [
        [item["scope"], item["number"], item["this_update"], item["entries"], item["file"]] for item in values
    ]
    installation.emit(values, table(["scope", "number", "this update", "entries", "file"], rows))


@click.command("publish-last")
@click.option("--service", required=True, help="SIGN, AUTH or another service's name.")
@click.option("--generation", type=click.IntRange(1), required=True, help="The CA key generation that ends.")
@click.option("--sign-now", is_flag=True, help="Sign it now, with the list as it is: the key is still there.")
@click.option(
    "--although-older",
    is_flag=True,
    help="Publish what was prepared although certificates were revoked since: it does not list them.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_installation
def publish_last(
    installation: Installation,
    service: str,
    generation: int,
    sign_now: bool,
    although_older: bool,
    yes: bool,
) -> None:
    """Publish the last CRLs of a CA key, of all its lists: they have no end, and no others follow.

    Where the key is in other hands, run `issuer key-event` first and give --sign-now: all certificates are
    then on them.  Where the key is lost, what was prepared ahead is all there is; a list of which nothing was
    prepared is named, and does not hold up the others.
    """
    from certstatus.store_use import using_store
    from publisher.publish_last import publish_last_now

    if not yes:
        click.confirm(f"publish no more CRLs of {service} generation {generation} after this?", abort=True)
    with using_store(installation.config.state):
        report = publish_last_now(
            installation.config,
            service=service,
            generation=generation,
            sign_now=sign_now,
            although_older=although_older,
        )
    values = [
        {
            "scope": made.scope,
            "number": made.number,
            "this_update": clock.utc_text(made.this_update_s),
            "next_update": clock.utc_text(made.next_update_s),
            "entries": made.entries,
            "file": str(made.file),
        }
        for made in report.published
    ]
    lines = [
        f"{made['scope']}: CRL {made['number']} is the last one, as of {made['this_update']},"
        f" {made['entries']} entries"
        for made in values
    ]
    failed = [
        {"scope": path, "kind": type(exc).__name__, "error": str(exc)} for path, exc in report.failed.items()
    ]
    installation.emit({"published": values, "failed": failed}, "\n".join(lines))
    for item in failed:
        installation.say(f"{item['scope']}: {item['kind']}: {item['error']}")
    if report.failed:
        raise click.exceptions.Exit(exit_code_of(next(iter(report.failed.values()))))
