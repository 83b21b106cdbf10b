"""``certstatus publish now`` and ``certstatus crl ...``: making CRLs, looking into them, relying on them."""

from __future__ import annotations

from typing import Any

import click

from certstatus import clock
from certstatus.cli.context import Installation, exit_code_of, pass_installation, table
from certstatus.cli.crl_compare import compare
from certstatus.cli.crl_inspect import inspect
from certstatus.cli.crl_last import prepare_last, publish_last
from certstatus.cli.crl_past import at
from certstatus.cli.relying import check, mirror

# More rows than that nobody reads; --json has them all.
_ROWS_SHOWN = 50


@click.group
def publish() -> None:
    """CRLs."""


@publish.command
@click.option("--service", help="Only this service [every one].")
@click.option(
    "--scope", "paths", multiple=True, help="Only this scope, e.g. sign/g1/all; may be given again."
)
@click.option(
    "--all", "everything", is_flag=True, help="A complete and a delta CRL of each, also of the unchanged."
)
@pass_installation
def now(installation: Installation, service: str | None, paths: tuple[str, ...], everything: bool) -> None:
    """Publish CRLs at once: a delta where something has changed, and what is due.

    Also while `serve` runs.  Unless --scope says of what, old files and the archive are looked after as well.
    A scope that fails keeps no other back; the exit code is then that of the first failure (66: a CA key is
    not at hand, 65: a CRL is not what it must be, 69: a file cannot be written), also of that looking after,
    and 75 if another publisher was at it for too long.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from certstatus.store_use import using_store
    from publisher.publish_now import publish_now

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with (
        using_store(installation.config.state),
        Progress(*columns, console=console, disable=installation.as_json) as shown,
    ):
        task = shown.add_task("CRLs", total=None, visible=False)

        def told(done: int, total: int, path: str) -> None:
            # One or two are over before anybody could read it.
            shown.update(task, completed=done, total=total, description=path, visible=total > 2)

        report = publish_now(
            installation.config, service=service, paths=paths, everything=everything, told=told
        )
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
        for item in report.published
    ]
    failed = [
        {"scope": path, "kind": type(exc).__name__, "error": str(exc)} for path, exc in report.failed.items()
    ]
    summary = {
        "scopes": report.scopes,
        "unchanged": report.unchanged,
        "published": values,
        "failed": failed,
        "untidy": None if report.untidy is None else str(report.untidy),
    }
    installation.emit(summary, lambda: _made(report.scopes, values))
    for item in failed:
        installation.say(f"{item['scope']}: {item['kind']}: {item['error']}")
    if report.untidy is not None:
        installation.say(f"tidying: {type(report.untidy).__name__}: {report.untidy}")
    first = next(iter([*report.failed.values(), report.untidy]))
    if first is not None:
        raise click.exceptions.Exit(exit_code_of(first))


def _made(scopes: int, values: list[dict[str, Any]]) -> str:
    if not values:
        return f"nothing is new or due in {scopes} scope{'s' * (scopes != 1)}; --all publishes all the same"
    columns = ["scope", "kind", "number", "base_number", "entries", "next_update"]
    rows: list[list[object]] = [[item[name] for name in columns] for item in values[:_ROWS_SHOWN]]
    text = table(["scope", "kind", "number", "base", "entries", "next update"], rows)
    if len(values) > len(rows):
        text += f"\nand {len(values) - len(rows)} more, in {scopes} scopes"
    return text


@click.group
def crl() -> None:
    """CRLs: files, what was published when, and the side that relies on them."""


crl.add_command(at)
crl.add_command(mirror)
crl.add_command(check)
crl.add_command(compare)
crl.add_command(prepare_last)
crl.add_command(publish_last)
crl.add_command(inspect)
