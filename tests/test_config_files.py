"""The shipped configuration files, and what is said of a wrong one.

Every key stands in config/certstatus.toml at its real default with a comment above it; every other
shipped file loads.  An error names file, key, what was expected and what was found.
"""

from __future__ import annotations

import dataclasses
import re
import tomllib
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certstatus.config import (
    KEY_ALGORITHMS,
    SERVICE_EXPECTED,
    Config,
    IssuerConfig,
    format_config,
    load_config,
    parse_config,
)
from certstatus.errors import EXIT_CONFIG, ConfigError
from certstatus.key_kinds import CURVES, RSA_BITS

FOLDER = Path(__file__).parents[1] / "config"
EXPLAINED = FOLDER / "certstatus.toml"
# Keys whose default makes no issuer, so that the explained file must say something else.
NOT_AT_DEFAULT = {"issuer.service": "SIGN"}


def _sections() -> dict[str, type[Any]]:
    """Return section name -> dataclass, of the whole configuration."""
    found = {
        item.name: kind
        for item, kind in zip(dataclasses.fields(Config), get_type_hints(Config).values(), strict=True)
        if dataclasses.is_dataclass(kind)
    }
    return {**found, "issuer": IssuerConfig}  # type: ignore[dict-item]


@pytest.mark.parametrize("path", sorted(FOLDER.iterdir()), ids=lambda path: path.name)
def test_every_shipped_file_loads(path: Path) -> None:
    """There is nothing in config/ but TOML, and each file is a configuration."""
    assert path.suffix == ".toml"
    assert load_config(path).file == str(path)


def test_every_key_stands_in_the_explained_file_at_its_default() -> None:
    """No key is left out, none is stated with another value than it really has by default."""
    table = tomllib.loads(EXPLAINED.read_text(encoding="utf-8"))
    for name, kind in _sections().items():
        section = table[name][0] if name == "issuer" else table[name]
        stated = {
            f"{name}.{key}": tuple(value) if isinstance(value, list) else value
            for key, value in section.items()
        }
        real = {f"{name}.{item.name}": item.default for item in dataclasses.fields(kind)} | {
            key: value for key, value in NOT_AT_DEFAULT.items() if key.startswith(f"{name}.")
        }
        assert stated == real


def test_every_key_is_explained_by_a_comment_right_above_it() -> None:
    """A key without a comment on the line before it is undocumented."""
    lines = EXPLAINED.read_text(encoding="utf-8").splitlines()
    keys = [at for at, line in enumerate(lines) if re.match(r"[a-z_]+ = ", line)]
    assert len(keys) > 50
    assert not [lines[at] for at in keys if not lines[at - 1].startswith("# ")]


def test_ranges_in_comments_are_the_real_ones() -> None:
    """Where a comment states a range such as (2..3600), that is what is enforced."""
    lines = EXPLAINED.read_text(encoding="utf-8").splitlines()
    stated: dict[str, dict[str, int]] = {}
    section = comment = ""
    for line in lines:
        if heading := re.fullmatch(r"\[+([a-z]+)\]+", line):
            section = heading[1]
        elif line.startswith("#"):
            comment += line
        elif key := re.match(r"([a-z_]+) = ", line):
            if ranges := re.search(r"\((\d+)\.\.(\d+)\)", comment):
                stated[f"{section}.{key[1]}"] = {"low": int(ranges[1]), "high": int(ranges[2])}
            comment = ""
    real = {
        f"{name}.{item.name}": dict(item.metadata)
        for name, kind in _sections().items()
        for item in dataclasses.fields(kind)
        if "low" in item.metadata
    }
    ports = {key for key in real if key.endswith("port")}
    workers = {"responder.workers"}
    assert stated.keys() >= real.keys() - ports - workers
    for name in real.keys() - ports - workers:
        assert stated[name] == real[name], name


def test_every_kind_of_key_that_can_be_configured_can_be_made() -> None:
    """The configuration names them itself: reading it must not wait for the cryptographic library."""
    assert (*CURVES, *RSA_BITS) == KEY_ALGORITHMS


def test_the_demos_file_is_the_one_that_init_uses() -> None:
    """config/demo.toml and what ships in the wheel are one file."""
    from certstatus.cli.initialise import demo_text

    assert (FOLDER / "demo.toml").read_text(encoding="utf-8") == demo_text()


@pytest.mark.parametrize(
    ("text", "key", "expected", "found"),
    [
        ("[responder]\nport = 70000", "responder.port", "0..65535", 70000),
        ("[responder]\nport = '80'", "responder.port", "a whole number", "80"),
        ("[responder]\nport = true", "responder.port", "a whole number", True),
        ("[responder]\nhost = 5", "responder.host", "a string", 5),
        (
            "[responder]\nkey = 'ed25519'",
            "responder.key",
            "one of p256, p384, rsa2048, rsa3072, rsa4096",
            "ed25519",
        ),
        (
            "[responder]\ntls_port = 443",
            "responder.tls_port",
            "tls_port, tls_certificate and tls_key together",
            443,
        ),
        ("[index]\nage_max_s = 1", "index.age_max_s", "2..3600", 1),
        (
            "[index]\nage_max_s = 10\nbeat_period_ms = 9000",
            "index.age_max_s",
            "at least two beat periods",
            10,
        ),
        (
            "[index]\nage_max_s = 61\n[[issuer]]\nservice = 'SIGN'",
            "index.age_max_s",
            "at most half of the shortest answer validity (120 s, issuer[0])",
            61,
        ),
        ("[[issuer]]\nservice = 'sign'", "issuer[0].service", SERVICE_EXPECTED, "sign"),
        ("[[issuer]]", "issuer[0].service", SERVICE_EXPECTED, ""),
        ("[[issuer]]\nservice = 'ARCHIVE'", "issuer[0].service", SERVICE_EXPECTED, "ARCHIVE"),
        ("[[issuer]]\nservice='A'\n[[issuer]]\nservice='A'", "issuer[0].service", "each service once", "A"),
        (
            "[responder]\ntls_client_ca='ca.pem'",
            "responder.tls_client_ca",
            "empty where there is no tls_port",
            "ca.pem",
        ),
        (
            "[[issuer]]\nservice='SIGN'\nhold=true",
            "issuer[0].hold",
            "false for SIGN and AUTH: the Act knows no hold",
            True,
        ),
        (
            "[[issuer]]\nservice='AUTH'\nnot_issued='revoked'",
            "issuer[0].not_issued",
            "unknown or unauthorized for SIGN and AUTH: the Act revokes what was issued",
            "revoked",
        ),
        (
            "[[issuer]]\nservice='AUTH'\nissued_list='absent'",
            "issuer[0].issued_list",
            "complete for SIGN and AUTH: their register lists every certificate",
            "absent",
        ),
        (
            "[[issuer]]\nservice='A'\nissued_list='absent'\nnot_issued='revoked'",
            "issuer[0].not_issued",
            "unknown or unauthorized: without a complete list of what was issued",
            "revoked",
        ),
        (
            "[[issuer]]\nservice='A'\nunlisted='good'",
            "issuer[0].unlisted",
            'unknown: with issued_list = "complete" only what is listed can be good',
            "good",
        ),
        (
            "[[issuer]]\nservice='A'\ncrl_validity_s=86400",
            "issuer[0].crl_validity_s",
            "more than crl_period_s",
            86400,
        ),
        (
            "[[issuer]]\nservice='A'\ndelta_validity_s=900",
            "issuer[0].delta_validity_s",
            "more than delta_period_s",
            900,
        ),
        ("[issuer]\nservice='A'", "issuer", "tables written [[issuer]]", {"service": "A"}),
        ("responder = 5", "responder", "a table", 5),
        ("[store]\nuri = ''", "store.uri", "one of url", "uri"),
        ("[stores]", "stores", "one of installation, store, valkey, index, responder, issuer", "stores"),
    ],
)
def test_a_wrong_value_is_named_with_file_key_expected_and_found(
    tmp_path: Path, text: str, key: str, expected: str, found: object
) -> None:
    """Each mistake gives the one line that its author needs."""
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    error = caught.value
    assert (error.file, error.key, error.expected, error.found) == (str(path), key, expected, found)
    assert str(error) == f"{path}: {key}: expected {expected}, found {found!r}"
    assert error.exit_code == EXIT_CONFIG


def test_a_file_that_is_absent_or_not_toml_is_named(tmp_path: Path) -> None:
    """Also what comes before any key: no file, not TOML, not UTF-8."""
    path = tmp_path / "x.toml"
    with pytest.raises(ConfigError, match="expected a readable file, found 'No such file or directory'"):
        load_config(path)
    for content in (b"[responder", b"\xff\xfe"):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match="expected TOML"):
            load_config(path)


def test_the_state_folder_counts_from_the_file(tmp_path: Path) -> None:
    """A state folder can be moved with the file in it, and commands work from anywhere."""
    path = tmp_path / "certstatus.toml"
    path.write_text("")
    assert load_config(path).state == tmp_path
    path.write_text('[installation]\nstate = "data"')
    assert load_config(path).state == tmp_path / "data"
    path.write_text('[installation]\nstate = "/srv/certstatus"')
    assert load_config(path).state == Path("/srv/certstatus")


@given(
    host=st.text(max_size=40),
    port=st.integers(0, 65535),
    hold=st.booleans(),
)
def test_a_formatted_configuration_reads_back_as_itself(host: str, port: int, hold: bool) -> None:
    """What the supervisor writes for its children is what it has, whatever stands in the strings."""
    config = parse_config(
        {"responder": {"host": host, "port": port}, "issuer": [{"service": "CORP", "hold": hold}]}, "test"
    )
    assert parse_config(tomllib.loads(format_config(config)), "test") == config


@pytest.mark.parametrize(
    "text",
    [
        b"a = " + b"[" * 5000,
        b"[responder]\nport = " + b"9" * 5000,
        b"[responder]\nport = 0x" + b"f" * 5000,
        b'[responder]\nkey = "' + b"x" * 5000 + b'"',
        b"[responder]\nport = \xff",
    ],
    ids=["nested deep", "too many digits", "too many hexadecimal digits", "long text", "no UTF-8"],
)
def test_a_file_made_to_upset_a_reader_is_a_wrong_file(tmp_path: Path, text: bytes) -> None:
    """Whatever is in it, the one error says which file it is, in a message that can be read."""
    file = tmp_path / "certstatus.toml"
    file.write_bytes(text)
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert str(file) in str(caught.value)
    assert len(str(caught.value)) < len(str(file)) + 400
