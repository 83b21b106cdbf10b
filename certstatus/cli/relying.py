"""``certstatus crl mirror`` and ``crl check``: for those who rely on CRLs; they need no installation."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from certstatus import clock
from certstatus.cli.context import Installation, pass_installation

if TYPE_CHECKING:
    from certstatus.crl_check import CheckedStatus
    from certstatus.crl_folder import CRLFolder
    from certstatus.crl_mirror import MirrorReport
    from certstatus.crl_server import CRLServer

_EXIT_CODES = {"good": 0, "revoked": 1, "held": 1, "unknown": 2}


@click.command
@click.argument("url")
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--ca",
    "ca_files",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Trust this CA (PEM or DER) from now on; kept in DIR/ca.",
)
@click.option(
    "--tls-ca",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="For https: trust TLS certificates of these CAs (PEM) [those of the system].",
)
@click.option("--scope", "patterns", multiple=True, help="Only scopes like this: 'auth/*' [all].")
@click.option("--every", "every_s", type=click.IntRange(1), help="Go on, a round each so many seconds.")
@click.option("--max-mb", type=click.IntRange(1), default=1024, show_default=True, help="Take no larger CRL.")
@pass_installation
def mirror(
    installation: Installation,
    url: str,
    folder: Path,
    ca_files: tuple[Path, ...],
    tls_ca: Path | None,
    patterns: tuple[str, ...],
    every_s: int | None,
    max_mb: int,
) -> int:
    """Keep a folder of CRLs current from the list at URL.

    Fetches what changed: deltas where they fit what is in DIR, complete CRLs otherwise.  Each CRL is
    verified with the CAs in DIR/ca before it takes the place of an older one.

    Exits with 0: all current; 65: something was wrong and refused; 75: something could not be fetched, and
    may be another time, or another process keeps DIR; 66: all certificates in what --scope names have ended,
    so no CRL follows, and with --every nothing is left to go on for; 69: DIR cannot be written; 77: the
    server refuses this address any list.  What is in DIR stays, for `crl check`.
    """
    from certstatus.crl_folder import CRLFolder
    from certstatus.crl_server import CRLServer
    from certstatus.crl_trust import read_trusted_ca
    from certstatus.errors import CertStatusError

    trusted = [read_trusted_ca(path.read_bytes(), path) for path in ca_files]
    kept, server = CRLFolder(folder), CRLServer(url, tls_ca)
    with closing(server), kept.locked():
        for ca in trusted:
            kept.trust(ca)
        while True:
            try:
                report = _round(installation, server, kept, patterns, max_mb << 20)
            except (CertStatusError, OSError) as exc:
                # A server that is away, or a full disk, is what going on is for.
                if every_s is None:
                    raise
                time_text = clock.utc_text(clock.now_s())
                installation.emit({"time": time_text, "error": str(exc)}, f"{time_text} {exc}")
            else:
                if every_s is None or report.is_final:
                    return report.exit_code
            # A server would have to keep it open meanwhile.
            server.close()
            time.sleep(every_s)


def _round(
    installation: Installation,
    server: CRLServer,
    kept: CRLFolder,
    patterns: tuple[str, ...],
    bytes_max: int,
) -> MirrorReport:
    from certstatus.crl_mirror import mirror_round

    report = mirror_round(server, kept, clock.now_s(), patterns, bytes_max)
    values = {
        "time": clock.utc_text(clock.now_s()),
        "current": report.current,
        "fetched": report.fetched,
        "octets": report.octets,
        "refused": report.refused,
        "missed": report.missed,
        "ended": report.ended,
    }
    installation.emit(values, lambda: _round_text(report))
    return report


def _round_text(report: MirrorReport) -> str:
    lines = [f"fetched  {item}" for item in report.fetched]
    lines += [f"refused  {item}" for item in report.refused]
    lines += [f"missed   {item}" for item in report.missed]
    lines += [f"ended    {item}" for item in report.ended]
    scopes = f"{report.current} scope{'' if report.current == 1 else 's'} current"
    return "\n".join([*lines, f"{clock.utc_text(clock.now_s())} {scopes}, {report.octets} bytes fetched"])


@click.command
@click.argument("folder", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("certificate", metavar="CERT", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@pass_installation
def check(installation: Installation, folder: Path, certificate: Path) -> int:
    """Say what the CRLs in DIR say of the certificate in CERT (PEM or DER); asks nobody.

    Exits with 0: good; 1: revoked or held; 2: unknown, for instance because the CRLs have expired; 65: CERT,
    or a file in DIR/ca, is no certificate.
    """
    from certstatus.crl_check import check_certificate
    from certstatus.crl_folder import CRLFolder

    found = check_certificate(CRLFolder(folder), certificate.read_bytes(), certificate, clock.now_s())
    installation.emit(_values(found), lambda: _text(found))
    return _EXIT_CODES[found.status]


def _values(found: CheckedStatus) -> dict[str, Any]:
    return {
        "status": found.status,
        "serial": found.serial,
        "why": found.why or None,
        "scope": found.scope or None,
        "complete": found.complete,
        "delta": found.delta,
        "this_update": _time(found.this_update_s),
        "next_update": _time(found.next_update_s),
        "revoked_at": _time(found.revoked_at_s),
        "reason": None if found.reason is None else found.reason.label,
        "invalid_since": _time(found.invalid_since_s),
    }


def _text(found: CheckedStatus) -> str:
    line = f"{found.serial}: {found.status}"
    if found.revoked_at_s is not None:
        line += f" since {clock.utc_text(found.revoked_at_s)}"
        if found.reason:
            line += f", {found.reason.label}"
    if found.invalid_since_s is not None:
        line += f", invalid since {clock.utc_text(found.invalid_since_s)}"
    if found.why:
        line += f": {found.why}"
    if found.complete is None:
        return line
    delta = "" if found.delta is None else f" with delta {found.delta}"
    return (
        f"{line}\nas of {_time(found.this_update_s)}, until {_time(found.next_update_s)}: "
        f"CRL {found.complete}{delta} of {found.scope}"
    )


def _time(posix_s: int | None) -> str | None:
    return None if posix_s is None else clock.utc_text(posix_s)
