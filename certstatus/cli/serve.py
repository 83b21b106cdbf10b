"""``certstatus serve``: everything on this machine, under one supervisor."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from certstatus.cli.context import Installation, pass_installation

if TYPE_CHECKING:
    from certstatus.config import Config


@click.command
@click.option("--port", type=click.IntRange(0, 65_534), help="Public port; operators' pages on the next one.")
@click.option("--workers", type=click.IntRange(1, 256), help="Number of workers [one per processor].")
@click.option(
    "--verbose", "-v", is_flag=True, help="Show what every process logs, instead of STATE/log/*.log."
)
@click.option(
    "--only",
    "part",
    type=click.Choice(["publisher", "responder"]),
    help="Only this side, where the two are on different machines.",
)
@pass_installation
def serve(
    installation: Installation, port: int | None, workers: int | None, verbose: bool, part: str | None
) -> None:
    """Run until Ctrl-C or SIGTERM; SIGHUP takes over a changed configuration."""
    from certstatus.supervisor import ALL, PUBLISHER, Supervisor

    def load() -> Config:
        from certstatus.config import load_config

        return _with_options(load_config(installation.config_path), port, workers)

    def ready(config: Config) -> None:
        if part == PUBLISHER:
            click.echo("ready")
            return
        click.echo(f"ready http://{_authority(config)}")
        click.echo(paste_able(config, installation.config_path))
        sys.stdout.flush()

    def say(text: str) -> None:
        click.echo(text, err=True)

    Supervisor(load, say, ready, verbose, part or ALL).run()


def _with_options(config: Config, port: int | None, workers: int | None) -> Config:
    responder = config.responder
    if port is not None:
        responder = replace(responder, port=port, admin_port=port + 1 if port else 0)
    if workers is not None:
        responder = replace(responder, workers=workers)
    return replace(config, responder=responder)


def _authority(config: Config) -> str:
    from certstatus.supervisor import local_address

    address = local_address(config.responder.bind)
    return f"[{address}]:{config.responder.port}" if ":" in address else f"{address}:{config.responder.port}"


def paste_able(config: Config, config_path: Path) -> str:
    """Return commands that work as pasted, for what is there: the demo, else the listeners only."""
    url = f"http://{_authority(config)}"
    lines = ["", f"operators' pages: http://{_admin_authority(config)}/   stop with Ctrl-C", ""]
    demo = config.state / "demo" / "auth"
    if (demo / "population.csv").exists():
        folder = _shortest(demo)
        command = _own_command(config_path)
        files = f"-issuer {folder}/ca.pem -CAfile {folder}/ca.pem -cert {folder}"
        ocsp = f"openssl ocsp {files}/%s.pem -url {url}/ocsp"
        lines += [
            "# is it good, is it revoked?",
            ocsp % "good",
            ocsp % "revoked",
            "# the complete CRL of AUTH",
            f"curl -s {url}/crl/auth/g1/all/complete.crl | openssl crl -inform DER -noout -text | head -20",
            "# revoke, and ask again",
            f"{command} revoke $(openssl x509 -in {folder}/good.pem -noout -serial | cut -d= -f2)"
            " --cause key-leaked",
            ocsp % "good",
        ]
    return "\n".join(lines)


def _admin_authority(config: Config) -> str:
    from certstatus.supervisor import local_address

    return f"{local_address(config.responder.admin_bind)}:{config.responder.admin_port}"


def _own_command(config_path: Path) -> str:
    script = Path(sys.argv[0])
    if script.name == "__main__.py":
        words = [sys.executable, "-m", "certstatus.cli"]
    else:
        words = [_shortest(script) if "/" in sys.argv[0] else sys.argv[0]]
    if not config_path.samefile("certstatus.toml") if Path("certstatus.toml").exists() else True:
        words += ["--config", _shortest(config_path)]
    return shlex.join(words)


def _shortest(path: Path) -> str:
    """Return *path* as one would type it here."""
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(path.absolute())
