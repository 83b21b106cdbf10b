"""What every command starts from: the installation that the configuration file describes.

Knows: finding the configuration, opening store, keys and Valkey when a command first asks for
them, and printing a result as text or as JSON.
Does not know: any command.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import redis

    from certstatus.config import Config
    from issuance.ca_keys import CAKeyFolder
    from issuance.store import Store

CONFIG_VARIABLE = "CERTSTATUS_CONFIG"
# In this order; the last is where `make run` puts its demo.
_PLACES = (Path("certstatus.toml"), Path("var/dev/certstatus.toml"))
# Commands only ask Valkey which workers have applied a change, beside the store: an answer that takes longer
# would keep them from looking at the store and at their own time-out.
_VALKEY_ANSWER_S = 1.0


def find_config(given: Path | None) -> Path:
    """Return the configuration file: the one given, or the first that exists of the usual ones."""
    if given is not None:
        return given
    if named := os.environ.get(CONFIG_VARIABLE):
        return Path(named)
    return next((place for place in _PLACES if place.exists()), _PLACES[0])


class Installation:
    """One installation as a command sees it."""

    def __init__(self, config_path: Path, as_json: bool) -> None:
        self.config_path = config_path
        self.as_json = as_json
        self._stack = ExitStack()

    @cached_property
    def config(self) -> Config:
        """The configuration.  Raises: ConfigError."""
        from certstatus.config import load_config

        return load_config(self.config_path)

    @cached_property
    def store(self) -> Store:
        """The store of record; nobody restores another over it meanwhile.  Raises: StoreError."""
        from certstatus.store_use import using_store
        from issuance.store import Store

        self._stack.enter_context(using_store(self.config.state))
        return self._stack.enter_context(Store.open(self.config.store_url))

    @cached_property
    def ca_keys(self) -> CAKeyFolder:
        """The CA keys, opened when used."""
        from issuance.ca_keys import CAKeyFolder

        return CAKeyFolder(self.config.state / "ca")

    @cached_property
    def index_key(self) -> bytes:
        """The key of the fingerprints.  Raises: KeyFileError."""
        from certstatus.publisher_key import load_index_key

        return load_index_key(self.config.state / "secrets" / "index.key")

    @cached_property
    def valkey(self) -> redis.Redis:
        """A connection to Valkey; whether it is there shows at the first call."""
        from certstatus.private_valkey import valkey_url
        from certstatus.valkey import connect

        client = connect(valkey_url(self.config), answer_timeout_s=_VALKEY_ANSWER_S)
        self._stack.callback(client.close)
        return client

    def close(self) -> None:
        """Close what was opened."""
        self._stack.close()

    # --- printing ----------------------------------------------------------------------------------

    def emit(self, values: Any, text: Callable[[], str] | str) -> None:  # noqa: ANN401 — any JSON value
        """Print a result: *values* as JSON, or *text*."""
        if self.as_json:
            click.echo(json.dumps(values, ensure_ascii=False, indent=2))
        else:
            click.echo(text if isinstance(text, str) else text())

    def say(self, text: str) -> None:
        """Tell the person at the terminal how it goes; never part of a result."""
        if not self.as_json:
            click.echo(text, err=True)


def table(headings: list[str], rows: list[list[object]]) -> str:
    """Return *rows* in columns under *headings*; numbers to the right."""
    texts = [["" if cell is None else str(cell) for cell in row] for row in rows]
    widths = [max(len(line[at]) for line in [headings, *texts]) for at in range(len(headings))]
    right = [all(isinstance(row[at], int) for row in rows) and bool(rows) for at in range(len(headings))]
    lines = [
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in [headings, *texts]
    ]
    return "\n".join(lines)


pass_installation = click.make_pass_decorator(Installation)


def exit_code_of(exc: Exception) -> int:
    """Return what a command exits with that goes on after a failure and tells it at its end."""
    from certstatus.errors import EXIT_SOFTWARE, EXIT_UNAVAILABLE, CertStatusError

    if isinstance(exc, CertStatusError):
        return exc.exit_code
    return EXIT_UNAVAILABLE if isinstance(exc, OSError) else EXIT_SOFTWARE
