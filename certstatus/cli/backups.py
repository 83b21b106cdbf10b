"""``certstatus backup`` and ``certstatus restore``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from certstatus.cli.context import Installation, pass_installation


@click.command
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--with-archive", is_flag=True, help="Copy the sealed packs of archived CRLs, too.")
@pass_installation
def backup(installation: Installation, file: Path, with_archive: bool) -> None:
    """Write a backup to FILE (a tar) while everything runs: records, CA keys, secrets, CRLs.

    Of archived CRLs it has those of today; packs of days that are over are named with their hashes, for
    they never change: copy STATE/crl/archive beside it.  Whoever has a backup and the CA passphrase can
    sign as the CA.
    """
    from certstatus import clock
    from issuance.backup import backup as write_backup

    report = write_backup(
        installation.store,
        installation.config.state,
        file.absolute(),
        clock.now_ms(),
        lambda table, rows: installation.say(f"{table}: {rows} rows"),
        with_archive=with_archive,
    )
    values = {
        "file": str(report.path),
        "bytes": report.bytes,
        "seq": report.seq,
        "rows": report.rows,
        "packs_named": report.packs_named,
    }
    named = f", {report.packs_named} packs of archived CRLs named" if report.packs_named else ""
    installation.emit(
        values,
        f"{report.path}: {report.bytes} bytes, {sum(report.rows.values())} rows up to change {report.seq},"
        f" {report.files} files{named}",
    )


@click.command
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--store-url", help="Where the store is to be [as configured; else SQLite in STATE].")
@click.option(
    "--crl-folder",
    "crl_folders",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A further place with published CRLs, e.g. a responder host's copies; repeatable.",
)
@click.option("--last-seq", type=int, default=0, help="The highest change number ever seen, if known.")
@pass_installation
def restore(
    installation: Installation, file: Path, store_url: str | None, crl_folders: Sequence[Path], last_seq: int
) -> None:
    """Restore the backup FILE, as a new epoch above everything that was published.

    Revocations found in published CRLs are recorded again.  Stop `serve` first; start it afterwards.
    """
    from certstatus import clock
    from certstatus.leases import LEASE_SLACK_MS
    from certstatus.responder_host import copy_shared_keys, make_host
    from issuance.responder_certs import enroll_host
    from issuance.restore import restore as restore_backup
    from issuance.store import DEFAULT_LEASE_MS

    if installation.config_path.exists():
        state, url = installation.config.state, store_url or installation.config.store_url
    else:
        # A machine that has nothing yet: the configuration comes out of the backup.
        state = installation.config_path.absolute().parent
        url = store_url or f"sqlite:///{state / 'store.db'}"

    def lease_ms() -> int:
        # A backup without a configuration is restored all the same.
        if not installation.config_path.exists():
            return DEFAULT_LEASE_MS
        return installation.config.index.age_max_s * 1000 + LEASE_SLACK_MS

    report = restore_backup(
        file,
        state,
        url,
        clock.now_ms(),
        crl_folders=list(crl_folders),
        last_seq=last_seq,
        lease_ms=lease_ms,
    )
    # Host keys are not in a backup: an existing host keeps its own, a new machine gets one.
    host_key = make_host(state / "host", installation.config.responder.host)
    copy_shared_keys(state / "secrets", state / "host")
    enroll_host(installation.store, installation.config.responder.host, host_key, clock.now_ms)
    values = {
        "epoch": report.epoch.hex(),
        "base_seq": report.base_seq,
        "seq": report.seq,
        "recorded_again": report.recorded_again,
        "without_record": report.without_record,
        "crls_read": report.crls_read,
        "packs_missing": list(report.packs_missing),
    }
    if report.packs_missing:
        installation.say(
            f"{len(report.packs_missing)} packs of archived CRLs are not in {state / 'crl' / 'archive'},"
            f" bring them back: {', '.join(report.packs_missing)}"
        )
    installation.emit(
        values,
        f"restored as epoch {report.epoch.hex()}, sequence at {report.seq}; {report.crls_read} published CRLs"
        f" read, {report.recorded_again} revocations recorded again ({report.without_record} without record)",
    )
