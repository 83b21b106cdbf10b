"""``certstatus init``: a new installation in the folder of its configuration file."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import click

from certstatus.cli.context import Installation, pass_installation
from certstatus.errors import ConfigError

if TYPE_CHECKING:
    from certstatus.config import Config


@click.command
@click.option(
    "--from",
    "template_path",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Begin with this configuration instead of the demo's.",
)
@click.option("--port", type=click.IntRange(1, 65_534), help="Public port; operators' pages on the next one.")
@pass_installation
def init(installation: Installation, template_path: Path | None, port: int | None) -> None:
    """Make a new installation: store, keys, issuers, this machine as responder host.

    Where --config names a file, that is the configuration.  Otherwise one is written there (--from,
    or the demo's), as the last thing.  What exists is left as it is, so an interrupted init is gone on
    with by the same command.
    """
    from certstatus.durable import write_durable

    path = installation.config_path
    if path.exists():
        if template_path is not None or port is not None:
            raise ConfigError(str(path), "(file)", "no file there, if --from or --port is given", "a file")
        installation.emit(*_initialise(installation.config, path))
        return
    text = template_path.read_text(encoding="utf-8") if template_path else demo_text()
    if port is not None:
        text = with_port(text, port)
    values, lines = _initialise(_parsed(text, path), path)
    write_durable(path, text.encode())
    installation.emit(values, lines)


def demo_text() -> str:
    """Return the demo's configuration."""
    return files("certstatus.cli").joinpath("demo.toml").read_text(encoding="utf-8")


def with_port(text: str, port: int) -> str:
    """Return the configuration *text* with its public port, the next one and the URLs changed.

    On the text, so that its comments stay.
    """
    text = re.sub(r"(?m)^(port\s*=\s*)\d+", rf"\g<1>{port}", text)
    text = re.sub(r"(?m)^(admin_port\s*=\s*)\d+", rf"\g<1>{port + 1}", text)
    return re.sub(r'(?m)^(base_url\s*=\s*"http://localhost:)\d+', rf"\g<1>{port}", text)


def _parsed(text: str, path: Path) -> Config:
    import tomllib

    from certstatus.config import parse_config

    try:
        return parse_config(tomllib.loads(text), str(path))
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError(str(path), "(file)", "TOML", str(exc)) from exc


def _initialise(config: Config, path: Path) -> tuple[dict[str, object], str]:
    from certstatus import clock
    from certstatus.responder_host import copy_shared_keys, make_host
    from issuance.ca_keys import CAKeyFolder
    from issuance.issuers import create_issuer, issuers
    from issuance.responder_certs import enroll_host
    from issuance.store import Store

    if not config.issuer:
        raise ConfigError(str(path), "issuer", "at least one [[issuer]]", "none")
    state = config.state
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    is_new_store = not Store.exists(config.store_url)
    _make_secrets(state / "secrets", may_make=is_new_store)
    keys = CAKeyFolder(state / "ca")
    keys.make_passphrase()
    store = Store.create(config.store_url, clock.now_ms()) if is_new_store else Store.open(config.store_url)
    with store:
        there = {record.service for record in issuers(store)}
        for item in config.issuer:
            if item.service not in there:
                create_issuer(store, keys, item, clock.now_ms)
        host_key = make_host(state / "host", config.responder.host)
        copy_shared_keys(state / "secrets", state / "host")
        enroll_host(store, config.responder.host, host_key, clock.now_ms)
        made = [
            {"service": record.service, "generation": record.generation, "issuer_id": record.issuer_id}
            for record in issuers(store)
        ]
    lines = [f"installation in {state}, configuration {path}"]
    lines += [
        f"issuer {item['issuer_id']}: {item['service']} generation {item['generation']}" for item in made
    ]
    lines.append(f"responder host {config.responder.host} enrolled")
    values: dict[str, object] = {
        "config": str(path),
        "state": str(state),
        "issuers": made,
        "host": config.responder.host,
    }
    return values, "\n".join(lines)


def _make_secrets(folder: Path, *, may_make: bool) -> None:
    """Make publisher's key and index key; with a store already there they must exist.

    Raises: KeyFileError — the store is there and a key is not: a new one would fit nothing in it.
    """
    from certstatus.errors import KeyFileError
    from certstatus.publisher_key import make_ed25519, make_index_key

    folder.mkdir(mode=0o700, exist_ok=True)
    missing = [name for name in ("publisher.key", "index.key") if not (folder / name).exists()]
    if missing and not may_make:
        raise KeyFileError(f"{folder / missing[0]}: not there, but the store is; restore it from a backup")
    if "publisher.key" in missing:
        make_ed25519(folder / "publisher.key", folder / "publisher.pub")
    if "index.key" in missing:
        make_index_key(folder / "index.key")
