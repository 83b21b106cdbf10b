"""The command line: ``certstatus COMMAND``.

Each command is a few lines over a function of ``issuance``, ``publisher`` or ``responder``.
Knows: which commands there are, and turning errors into one line and an exit code (``errors``).
Does not know: any rule.  Modules are imported when their command runs, so that ``--help`` and
short commands are quick.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from certstatus import __version__
from certstatus.cli.context import Installation, find_config
from certstatus.errors import EXIT_UNAVAILABLE, EXIT_USAGE, CertStatusError

# Command -> (module, object in it, what --help says).
_COMMANDS = {
    "init": ("certstatus.cli.initialise", "init", "Make a new installation."),
    "demo": ("certstatus.cli.demo", "demo", "Issue demo certificates for SIGN and AUTH."),
    "serve": ("certstatus.cli.serve", "serve", "Run everything: Valkey, feed, builder, agent, workers."),
    "issue": ("certstatus.cli.certificates", "issue", "Issue a certificate for a CSR or public key."),
    "revoke": (
        "certstatus.cli.certificates",
        "revoke",
        "Revoke a certificate; returns when all workers know.",
    ),
    "change-reason": (
        "certstatus.cli.certificates",
        "change_reason",
        "Correct the reason of a revocation.",
    ),
    "hold": (
        "certstatus.cli.certificates",
        "hold",
        "Suspend a certificate, where its issuer's policy has that.",
    ),
    "release": ("certstatus.cli.certificates", "release", "Give a held certificate its effect back."),
    "show": (
        "certstatus.cli.certificates",
        "show",
        "Show a certificate, its changes and what OCSP answers now.",
    ),
    "backup": ("certstatus.cli.backups", "backup", "Write a backup while everything runs."),
    "restore": ("certstatus.cli.backups", "restore", "Restore a backup, as a new epoch."),
    "issuer": ("certstatus.cli.issuers", "issuer", "Issuers: CA keys, generations, policies."),
    "import": (
        "certstatus.cli.imports",
        "import_",
        "Import an existing CA, to take it over or follow its CRLs.",
    ),
    "host": ("certstatus.cli.hosts", "host", "Responder hosts and their enrolment."),
    "responder-cert": ("certstatus.cli.responder_certs", "responder_cert", "Certificates of OCSP keys."),
    "verifier": ("certstatus.cli.verifiers", "verifier", "Registered verifiers and their agreements."),
    "provisions": ("certstatus.cli.provisions", "provisions", "How much was provided to whom."),
    "probe": ("certstatus.cli.probe", "probe", "Measure how soon a revocation is answered everywhere."),
    "publish": ("certstatus.cli.publishing", "publish", "CRLs: publish now."),
    "crl": (
        "certstatus.cli.publishing",
        "crl",
        "CRLs: mirror them, check by them, look into them; what was published when; the last.",
    ),
    "store": ("certstatus.cli.stores", "store", "The store of record: state, upgrade."),
}


class _LazyGroup(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, name, _ = _COMMANDS[cmd_name]
        command = getattr(importlib.import_module(module), name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in _COMMANDS.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    "config_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Configuration file [CERTSTATUS_CONFIG; ./certstatus.toml; var/dev/certstatus.toml].",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON value instead of text.")
@click.version_option(__version__, prog_name="certstatus")
@click.pass_context
def cli(context: click.Context, config_path: Path | None, as_json: bool) -> None:
    """Certificate status service: OCSP responder, CRL publisher, issuance core."""
    installation = Installation(find_config(config_path), as_json)
    context.obj = installation
    context.call_on_close(installation.close)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0, or the code of the error (sysexits), 130 when interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    # Wherever it is typed: people put it last.
    as_json = "--json" in words
    words = ["--json"] * as_json + [word for word in words if word != "--json"]
    try:
        code = cli.main(words, prog_name="certstatus", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.Exit as exc:
        sys.exit(exc.exit_code)
    except click.UsageError as exc:
        exc.show()
        sys.exit(EXIT_USAGE)
    except click.ClickException as exc:
        _say_error(exc.format_message(), type(exc).__name__, exc.exit_code, as_json)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except CertStatusError as exc:
        _say_error(str(exc), type(exc).__name__, exc.exit_code, as_json)
    except BrokenPipeError:
        # Whoever read our output has enough of it.
        sys.stderr.close()
        sys.exit(0)
    except OSError as exc:
        what = f"{exc.filename}: {exc.strerror}" if exc.filename else str(exc)
        _say_error(what, type(exc).__name__, EXIT_UNAVAILABLE, as_json)


def _say_error(message: str, kind: str, code: int, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"error": message, "kind": kind, "exit_code": code}), err=True)
    else:
        click.echo(f"certstatus: {message}", err=True)
    sys.exit(code)
