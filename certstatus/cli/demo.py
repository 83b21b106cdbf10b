"""``certstatus demo``: certificates to try things on, and a verifier that may ask about them."""

from __future__ import annotations

import click

from certstatus.cli.context import Installation, pass_installation

# Who the demo's verifier is: everything on this machine.
_NETWORKS = ("127.0.0.0/8", "::1/128")
_NAME = "this machine (demo)"


@click.command
@click.option(
    "--population", type=click.IntRange(20, 1_000_000), default=1000, show_default=True, help="Per service."
)
@pass_installation
def demo(installation: Installation, population: int) -> None:
    """Issue demo certificates in every service, some revoked on each ground the law knows.

    Writes STATE/demo/SERVICE/{ca,good,revoked}.pem and population.csv, and registers this machine as a
    verifier.  Does nothing where that is done already.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from certstatus import clock
    from issuance.demo import make_demo
    from issuance.issue import Issuing
    from issuance.issuers import issuer_of, issuers, services

    store = installation.store
    folder = installation.config.state / "demo"
    names = services(issuers(store))
    _register_this_machine(installation, names)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), disable=installation.as_json) as progress:
        for service in names:
            issuer = issuer_of(store, service, 1)
            task = progress.add_task(f"{service}: certificates", total=population)

            def advance(done: int, _total: int, task: int = task) -> None:
                progress.update(task, completed=done)  # type: ignore[arg-type]

            make_demo(
                store,
                Issuing.of(issuer, installation.ca_keys.private_key(issuer.issuer_id)),
                installation.index_key,
                folder / service.lower(),
                clock.now_ms,
                population=population,
                progress=advance,
            )
            progress.update(task, completed=population)
    installation.emit({"folder": str(folder), "services": names}, f"demo certificates in {folder}")


def _register_this_machine(installation: Installation, services: list[str]) -> None:
    from certstatus import clock
    from issuance.verifiers import add_verifier, verifiers

    if not any(item.verifier.name == _NAME for item in verifiers(installation.store)):
        grants = {service: ["ocsp", "crl"] for service in services}
        add_verifier(installation.store, _NAME, _NETWORKS, grants, clock.now_ms)
