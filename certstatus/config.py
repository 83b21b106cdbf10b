"""Configuration: one TOML file into frozen dataclasses.

Knows: every key, its type, range, default and unit.  An error names the file, the key,
what is expected and what was found; an unknown key is an error, never ignored.
Does not know: what the values do.  ``config/certstatus.toml`` explains each key in prose.
"""

from __future__ import annotations

import dataclasses
import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar, get_type_hints

from certstatus.errors import ConfigError

_T = TypeVar("_T")

KEY_ALGORITHMS = ("p256", "p384", "rsa2048", "rsa3072", "rsa4096")


def _number(default: int, low: int, high: int) -> int:
    """Declare an integer key with its range, both ends included."""
    value: int = field(default=default, metadata={"low": low, "high": high})
    return value


def _choice(default: str, *choices: str) -> str:
    """Declare a string key that must be one of *choices*."""
    value: str = field(default=default, metadata={"choices": choices})
    return value


def _choices(*choices: str) -> tuple[str, ...]:
    """Declare a key that lists any of *choices*, each once; the default is none."""
    value: tuple[str, ...] = field(default=(), metadata={"each": choices})
    return value


@dataclass(frozen=True, slots=True)
class InstallationConfig:
    """Where this installation keeps its state: "." is the folder that the file is in."""

    state: str = "."


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """The store of record; an empty URL means SQLite in the state folder."""

    url: str = ""


@dataclass(frozen=True, slots=True)
class ValkeyConfig:
    """Valkey or Redis; an empty URL means a private server started by ``serve``."""

    url: str = ""
    namespace: str = "certstatus"
    memory_mb_max: int = _number(1024, 16, 1_048_576)


@dataclass(frozen=True, slots=True)
class IndexConfig:
    """How old the index may be and how it travels."""

    age_max_s: int = _number(60, 2, 3600)
    ahead_max_s: int = _number(5, 1, 60)
    beat_period_ms: int = _number(1000, 50, 10_000)
    snapshot_period_s: int = _number(300, 1, 86_400)
    snapshot_changes_max: int = _number(50_000, 100, 10_000_000)
    stream_changes_max: int = _number(200_000, 1000, 10_000_000)
    append_changes_max: int = _number(2000, 1, 100_000)


@dataclass(frozen=True, slots=True)
class ResponderConfig:
    """One responder host: listeners, workers, and a limit on everything."""

    host: str = "localhost"
    bind: str = "127.0.0.1"
    port: int = _number(8080, 0, 65_535)
    tls_port: int = _number(0, 0, 65_535)
    tls_certificate: str = ""
    tls_key: str = ""
    tls_client_ca: str = ""
    admin_bind: str = "127.0.0.1"
    admin_port: int = _number(8081, 0, 65_535)
    workers: int = _number(0, 0, 256)
    key: str = _choice("p256", *KEY_ALGORITHMS)
    more_keys: tuple[str, ...] = _choices(*KEY_ALGORITHMS)
    key_uri: str = ""
    certificate_life_s: int = _number(7 * 86_400, 600, 30 * 86_400)
    request_bytes_max: int = _number(16_384, 256, 1_048_576)
    header_bytes_max: int = _number(8_192, 1024, 65_536)
    certificates_per_request_max: int = _number(20, 1, 1000)
    connections_max: int = _number(20_000, 16, 1_000_000)
    header_time_s: int = _number(10, 1, 300)
    body_time_s: int = _number(10, 1, 300)
    idle_time_s: int = _number(75, 1, 3600)
    write_time_s: int = _number(30, 1, 600)
    cache_bytes_max: int = _number(268_435_456, 1_048_576, 1 << 40)
    signing_queue_max: int = _number(2000, 1, 1_000_000)
    signing_budget_us: int = _number(5000, 100, 100_000)
    signing_threads: int = _number(2, 1, 64)
    nonce_signatures_per_s: int = _number(0, 0, 1_000_000)
    nonce_beyond: str = _choice("ignore", "ignore", "try_later")
    crl_files: str = _choice("shared", "shared", "fetched")
    counter_rows_max: int = _number(1024, 16, 65_536)
    drain_period_ms: int = _number(1000, 50, 60_000)
    shutdown_s: int = _number(10, 1, 300)


@dataclass(frozen=True, slots=True)
class IssuerConfig:
    """One issuer to create at ``init`` and its policy."""

    service: str = ""
    key: str = _choice("p256", *KEY_ALGORITHMS)
    key_uri: str = ""
    organization: str = "certstatus TEST"
    organizational_unit: str = ""
    access: str = _choice("registered", "public", "registered")
    hold: bool = False
    expired: str = _choice("unknown", "unknown", "unauthorized", "last")
    archive_cutoff_days: int = _number(0, 0, 36_525)
    not_issued: str = _choice("unknown", "unknown", "unauthorized", "revoked")
    issued_list: str = _choice("complete", "complete", "absent")
    unlisted: str = _choice("unknown", "unknown", "good")
    invalidity_date: bool = False
    crl_id: bool = False
    cert_hash: bool = False
    both_hashes: bool = False
    validity_good_s: int = _number(900, 10, 864_000)
    validity_revoked_s: int = _number(3600, 10, 864_000)
    validity_unknown_s: int = _number(120, 10, 86_400)
    certificate_life_days: int = _number(1826, 1, 7305)
    base_url: str = "http://localhost:8080"
    freshest_crl: bool = True
    crl_period_s: int = _number(86_400, 2, 31_536_000)
    crl_validity_s: int = _number(172_800, 4, 31_536_000)
    delta_period_s: int = _number(900, 1, 86_400)
    delta_validity_s: int = _number(3600, 2, 604_800)
    delta_unchanged: str = _choice("half_life", "half_life", "period")
    lapse_period_s: int = _number(604_800, 2, 31_536_000)
    expired_entries: str = _choice("lapse", "lapse", "keep")
    crl_archive_days: int = _number(3653, 0, 36_525)
    last_crl_days: int = _number(0, 0, 3650)
    partition: str = _choice("by_service", "by_service", "none", "municipality", "hash")
    partition_buckets: int = _number(64, 1, 4096)


@dataclass(frozen=True, slots=True)
class Config:
    """A whole configuration file; ``file`` is where it came from."""

    file: str
    installation: InstallationConfig = field(default_factory=InstallationConfig)
    store: StoreConfig = field(default_factory=StoreConfig)
    valkey: ValkeyConfig = field(default_factory=ValkeyConfig)
    index: IndexConfig = field(default_factory=IndexConfig)
    responder: ResponderConfig = field(default_factory=ResponderConfig)
    issuer: tuple[IssuerConfig, ...] = ()

    @property
    def state(self) -> Path:
        """The state folder; a relative one counts from the folder of the configuration file."""
        return Path(self.file).parent / self.installation.state

    @property
    def store_url(self) -> str:
        """The SQLAlchemy URL of the store of record."""
        return self.store.url or f"sqlite:///{self.state.resolve() / 'store.db'}"

    @property
    def worker_count(self) -> int:
        """Workers to run: as configured, or one per processor this process may use."""
        return self.responder.workers or len(os.sched_getaffinity(0))


def load_config(file: Path) -> Config:
    """Read, check and freeze *file*.

    Raises: ConfigError — unreadable, not TOML, unknown or missing key, wrong type, out of range,
            or two keys that contradict each other.
    """
    try:
        with file.open("rb") as stream:
            table = tomllib.load(stream)
    except OSError as exc:
        raise ConfigError(str(file), "(file)", "a readable file", exc.strerror) from exc
    except (ValueError, RecursionError) as exc:
        # Also numbers of thousands of digits, and brackets nested as deep.
        raise ConfigError(str(file), "(file)", "TOML", str(exc)) from exc
    return parse_config(table, str(file))


def parse_config(table: dict[str, Any], file: str) -> Config:
    """Turn a parsed TOML *table* into a Config; *file* is only named in errors."""
    sections: dict[str, Any] = {}
    kinds = get_type_hints(Config)
    for name, value in table.items():
        if name == "issuer":
            if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
                raise ConfigError(file, "issuer", "tables written [[issuer]]", value)
            sections["issuer"] = tuple(
                _read(IssuerConfig, item, file, f"issuer[{number}]") for number, item in enumerate(value)
            )
        elif name in kinds and dataclasses.is_dataclass(kinds[name]):
            if not isinstance(value, dict):
                raise ConfigError(file, name, "a table", value)
            sections[name] = _read(kinds[name], value, file, name)
        else:
            raise ConfigError(file, name, "one of " + ", ".join(_section_names()), name)
    config = Config(file=file, **sections)
    _check_together(config)
    return config


def format_config(config: Config) -> str:
    """Return the TOML text that reads back as *config*: every key, also those at their default."""
    blocks = []
    for item in dataclasses.fields(Config):
        value = getattr(config, item.name)
        if item.name == "issuer":
            blocks += [_format_table("[[issuer]]", dataclasses.asdict(issuer)) for issuer in value]
        elif item.name != "file":
            blocks.append(_format_table(f"[{item.name}]", dataclasses.asdict(value)))
    return "\n".join(blocks)


def _format_table(heading: str, values: dict[str, Any]) -> str:
    # JSON's strings, numbers, true and false are TOML's too; only DEL would have to be escaped.
    lines = [
        f"{key} = {json.dumps(value, ensure_ascii=False)}".replace("\x7f", "\\u007f")
        for key, value in values.items()
    ]
    return "\n".join([heading, *lines, ""])


def _section_names() -> list[str]:
    return [item.name for item in dataclasses.fields(Config) if item.name != "file"]


def _read(kind: type[_T], table: dict[str, Any], file: str, prefix: str) -> _T:
    hints = get_type_hints(kind)
    fields = {item.name: item for item in dataclasses.fields(kind)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for name, value in table.items():
        key = f"{prefix}.{name}"
        if name not in fields:
            raise ConfigError(file, key, "one of " + ", ".join(fields), name)
        values[name] = _check_value(value, hints[name], fields[name].metadata, file, key)
    return kind(**values)


def _check_value(value: Any, kind: type, limits: Mapping[str, Any], file: str, key: str) -> object:  # noqa: ANN401
    if "each" in limits:
        each = limits["each"]
        if (
            type(value) is not list
            or not all(type(item) is str and item in each for item in value)
            or len(set(value)) != len(value)
        ):
            raise ConfigError(file, key, "a list of any of " + ", ".join(each) + ", each once", value)
        return tuple(value)
    # bool is an int in Python, so the exact type decides.
    if type(value) is not kind:
        words = {int: "a whole number", str: "a string", bool: "true or false"}
        raise ConfigError(file, key, words[kind], value)
    if "low" in limits and not limits["low"] <= value <= limits["high"]:
        raise ConfigError(file, key, f"{limits['low']}..{limits['high']}", value)
    if "choices" in limits and value not in limits["choices"]:
        raise ConfigError(file, key, "one of " + ", ".join(limits["choices"]), value)
    return value


STATUTORY_SERVICES = ("SIGN", "AUTH")
# A service's name is that of its folder of CRLs, beside which the archive lies.
_SERVICE_OCTETS_MAX = 32
_ARCHIVE = "ARCHIVE"
SERVICE_EXPECTED = f"up to {_SERVICE_OCTETS_MAX} upper-case letters and digits, other than {_ARCHIVE}"


class AnsweringPolicy(Protocol):
    """The keys of an issuer's policy that can contradict each other, or the Act."""

    @property
    def hold(self) -> bool: ...

    @property
    def not_issued(self) -> str: ...

    @property
    def issued_list(self) -> str: ...

    @property
    def unlisted(self) -> str: ...


def illegal_policy(service: str, policy: AnsweringPolicy) -> list[tuple[str, str]]:
    """Return what in *policy* its service or its records do not allow: (key, what is expected).

    A number that no complete list of issued certificates vouches for can be called neither
    "revoked because never issued" nor, with such a list, "good because not revoked".
    Source: Act arts. 14, 33 (no hold); RFC 6960 §2.2 (never issued).
    """
    found = []
    statutory = service in STATUTORY_SERVICES
    if statutory and policy.hold:
        found.append(("hold", "false for SIGN and AUTH: the Act knows no hold"))
    if statutory and policy.not_issued == "revoked":
        found.append(
            ("not_issued", "unknown or unauthorized for SIGN and AUTH: the Act revokes what was issued")
        )
    if statutory and policy.issued_list != "complete":
        found.append(("issued_list", "complete for SIGN and AUTH: their register lists every certificate"))
    if policy.issued_list != "complete" and policy.not_issued == "revoked":
        found.append(("not_issued", "unknown or unauthorized: without a complete list of what was issued"))
    if policy.issued_list == "complete" and policy.unlisted == "good":
        found.append(("unlisted", 'unknown: with issued_list = "complete" only what is listed can be good'))
    return found


def _check_together(config: Config) -> None:
    """Refuse values that are each in range but wrong together."""
    file = config.file
    responder = config.responder
    if bool(responder.tls_port) != bool(responder.tls_certificate and responder.tls_key):
        raise ConfigError(
            file, "responder.tls_port", "tls_port, tls_certificate and tls_key together", responder.tls_port
        )
    if responder.tls_client_ca and not responder.tls_port:
        raise ConfigError(
            file, "responder.tls_client_ca", "empty where there is no tls_port", responder.tls_client_ca
        )
    if responder.key in responder.more_keys:
        raise ConfigError(file, "responder.more_keys", "algorithms beside responder.key", responder.key)
    if config.index.beat_period_ms * 2 > config.index.age_max_s * 1000:
        raise ConfigError(file, "index.age_max_s", "at least two beat periods", config.index.age_max_s)
    if config.index.snapshot_changes_max > config.index.stream_changes_max:
        raise ConfigError(
            file,
            "index.snapshot_changes_max",
            f"at most stream_changes_max ({config.index.stream_changes_max}): later changes need a snapshot",
            config.index.snapshot_changes_max,
        )
    services = [issuer.service for issuer in config.issuer]
    for number, issuer in enumerate(config.issuer):
        key = f"issuer[{number}]"
        if not is_service_name(issuer.service):
            raise ConfigError(file, f"{key}.service", SERVICE_EXPECTED, issuer.service)
        if services.count(issuer.service) > 1:
            raise ConfigError(file, f"{key}.service", "each service once", issuer.service)
        for name, expected in illegal_policy(issuer.service, issuer):
            raise ConfigError(file, f"{key}.{name}", expected, getattr(issuer, name))
        shortest = min(issuer.validity_good_s, issuer.validity_revoked_s, issuer.validity_unknown_s)
        if config.index.age_max_s * 2 > shortest:
            raise ConfigError(
                file,
                "index.age_max_s",
                f"at most half of the shortest answer validity ({shortest} s, {key})",
                config.index.age_max_s,
            )
        if issuer.crl_validity_s <= issuer.crl_period_s:
            raise ConfigError(file, f"{key}.crl_validity_s", "more than crl_period_s", issuer.crl_validity_s)
        if issuer.delta_validity_s <= issuer.delta_period_s:
            raise ConfigError(
                file, f"{key}.delta_validity_s", "more than delta_period_s", issuer.delta_validity_s
            )


def is_service_name(name: str) -> bool:
    """Say whether a service can be called *name*: see ``SERVICE_EXPECTED``."""
    return (
        name.isascii()
        and name.isalnum()
        and name.isupper()
        and len(name) <= _SERVICE_OCTETS_MAX
        and name != _ARCHIVE
    )
