"""``certstatus import``: an existing CA, taken over or followed."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from certstatus.cli.context import Installation, pass_installation
from certstatus.cli.waiting import report_change, wait_options

if TYPE_CHECKING:
    from certstatus.config import IssuerConfig
    from issuance.import_run import ImportReport

PASSPHRASE_VARIABLE = "CERTSTATUS_IMPORT_PASSPHRASE"
_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command("import")
@click.argument("service")
@click.option("--ca", "ca_path", type=_FILE, required=True, help="The CA's certificate(s), all of one key.")
@click.option("--key", "key_path", type=_FILE, help="The CA's key: take over. Without: follow its CRLs.")
@click.option(
    "--passphrase-file", type=_FILE, help=f"Opens the key [{PASSPHRASE_VARIABLE}; asks on a terminal]."
)
@click.option(
    "--certificates",
    type=click.Path(path_type=Path),
    multiple=True,
    help="A folder of certificates, or a PEM bundle; may be given again.",
)
@click.option("--index", "index_txt", type=_FILE, help="The index.txt of `openssl ca`.")
@click.option(
    "--crl",
    "crl_paths",
    type=_FILE,
    multiple=True,
    help="The CA's newest complete CRL; of a CA that has one for each distribution point, each of them.",
)
@click.option("--crl-url", help="Fetch that CRL from here (http or https).")
@click.option("--poll", is_flag=True, help="Go on fetching it from there while serving.")
@click.option(
    "--poll-period", type=click.IntRange(10, 86_400), default=300, show_default=True, help="Seconds between."
)
@click.option(
    "--crl-number", type=click.IntRange(0), help="The number of the CA's last CRL, where no CRL says it."
)
@click.option(
    "--issued-list",
    type=click.Choice(["complete", "absent"]),
    help="Whether the files list everything the CA issued.",
)
@click.option(
    "--unlisted",
    type=click.Choice(["unknown", "good"]),
    help="What is said of a number that is on no list, with --issued-list absent.",
)
@click.option("--access", type=click.Choice(["public", "registered"]), help="Who may ask.")
@click.option("--hold", is_flag=True, help="Allow holds; without it, one in the files is refused.")
@wait_options
@pass_installation
def import_(
    installation: Installation,
    service: str,
    ca_path: Path,
    key_path: Path | None,
    passphrase_file: Path | None,
    certificates: tuple[Path, ...],
    index_txt: Path | None,
    crl_paths: tuple[Path, ...],
    crl_url: str | None,
    poll: bool,
    poll_period: int,
    crl_number: int | None,
    issued_list: str | None,
    unlisted: str | None,
    access: str | None,
    hold: bool,
    no_wait: bool,
    timeout: float | None,
) -> None:
    """Import an existing CA as SERVICE, a new upper-case name.

    With --key this installation takes the CA over: it revokes and publishes CRLs from now on, numbered on
    from the CA's last.  Without, the CA goes on by itself and its CRLs are followed: run the command again
    with a newer one, or give --crl-url and --poll.

    Of a CA whose certificates name several distribution points, give with --crl the CRL of each; each goes
    on here, of the same certificates and numbered on from the last.

    All files are read and checked before anything is recorded.  Run again it goes on where it was
    killed, or records what is new.  The rest of the policy is that of the [[issuer]] of this service in
    the configuration, if there is one.
    """
    if crl_paths and crl_url is not None:
        raise click.UsageError("--crl and --crl-url exclude each other")
    if poll and crl_url is None:
        raise click.UsageError("--poll needs --crl-url")
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from certstatus import clock
    from issuance.import_run import ImportOrder, import_ca
    from issuance.issuers import IssuerPolicy

    changes: dict[str, Any] = {
        name: value
        for name, value in (
            ("issued_list", issued_list),
            ("unlisted", unlisted),
            ("access", access),
            ("hold", hold or None),
        )
        if value is not None
    }
    order = ImportOrder(
        service=service,
        ca_path=ca_path,
        policy=IssuerPolicy.from_config(_configured(installation, service)),
        changes=changes,
        key_path=key_path,
        passphrase=None if key_path is None else _passphrase(key_path, passphrase_file),
        certificates=certificates,
        index_txt=index_txt,
        crl_paths=crl_paths,
        crl_der=None if crl_url is None else _fetched(crl_url),
        crl_url=crl_url,
        crl_number=crl_number,
        poll_period_s=poll_period if poll else None,
    )
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    tasks: dict[str, Any] = {}
    with Progress(*columns, console=Console(stderr=True), disable=installation.as_json) as shown:

        def told(what: str, done: int) -> None:
            if what not in tasks:
                tasks[what] = shown.add_task(what, total=None)
            shown.update(tasks[what], completed=done)

        report = import_ca(
            installation.store,
            installation.ca_keys,
            installation.index_key,
            order,
            installation.config.state,
            clock.now_ms,
            told,
        )
    _say(installation, report, no_wait, timeout)


def _say(installation: Installation, report: ImportReport, no_wait: bool, timeout: float | None) -> None:
    issuer, read, new = report.issuer, report.read, report.difference
    assert issuer.imported is not None
    which = f"issuer {issuer.issuer_id}: {issuer.service} generation {issuer.generation}"
    if read.passed_over:
        installation.say(f"{read.passed_over} other files passed over")
    if report.recorded is None:
        values = {"issuer_id": issuer.issuer_id, "service": issuer.service, "changed": False}
        installation.emit(
            values, f"{which}: nothing new, {read.certificates + read.index_lines} certificates read"
        )
        return
    how = "taken over" if issuer.revokes_here else "followed"
    counts = ", ".join(
        f"{count} {name}"
        for count, name in (
            (new.issued, "certificates"),
            (new.revoked, "revoked"),
            (new.held, "on hold"),
            (new.released, "released"),
            (new.reasons, "reasons changed"),
            (new.records, "certificates to known numbers"),
        )
        if count or name == "certificates"
    )
    for scope in report.scopes:
        place = f"{issuer.service.lower()}/g{issuer.generation}/{scope.name}"
        before = scope.title or "a point without an address"
        installation.say(f"/crl/{place}/complete.crl goes on from {before}")
    report_change(installation, f"{which} {how}: {counts}", report.recorded, no_wait, timeout)


def _configured(installation: Installation, service: str) -> IssuerConfig:
    """Return the configuration's [[issuer]] of this service, or defaults at this installation's address."""
    from dataclasses import replace

    from certstatus.config import IssuerConfig

    for item in installation.config.issuer:
        if item.service == service:
            return item
    made = IssuerConfig(service=service)
    place = next((item.base_url for item in installation.config.issuer), made.base_url)
    return replace(made, base_url=place)


def _passphrase(key_path: Path, file: Path | None) -> bytes | None:
    if file is not None:
        return file.read_bytes().rstrip(b"\r\n")
    if given := os.environ.get(PASSPHRASE_VARIABLE):
        return given.encode()
    try:
        encrypted = b"ENCRYPTED" in key_path.read_bytes()
    except OSError:
        # Said with the rest of what is wrong with the file.
        return None
    if encrypted and sys.stdin.isatty():
        return str(click.prompt(f"passphrase of {key_path}", hide_input=True, err=True)).encode()
    return None


def _fetched(url: str) -> bytes:
    from issuance.import_fetch import fetch_crl

    fetched = fetch_crl(url)
    assert fetched is not None
    return fetched.content
