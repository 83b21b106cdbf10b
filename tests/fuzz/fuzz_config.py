"""The configuration: any file gives a Config or ConfigError, and what is read is written back equal."""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator
from pathlib import Path

from certstatus.config import Config, IssuerConfig, format_config, load_config
from certstatus.errors import ConfigError

# A file in memory: the reader opens it by name like any other.
_DESCRIPTOR = os.memfd_create("config")
atexit.register(os.close, _DESCRIPTOR)
_FILE = Path(f"/proc/self/fd/{_DESCRIPTOR}")

WORDS = tuple(
    word.encode()
    for word in (
        *("[installation]", "[store]", "[valkey]", "[index]", "[responder]", "[[issuer]]"),
        *("state = ", "url = ", "port = ", "hold = true", 'service = "SIGN"', "age_max_s = ", '"""', "'''"),
        *("\\u0000", "\\ud800", "\\U0010FFFF", "inf", "1979-05-27T07:32:00Z", "0x", "{}", "[]", "\n"),
    )
)


def seeds() -> Iterator[tuple[str, bytes]]:
    """Whole files, and some that are wrong in one place."""
    yield "empty", b""
    yield "default", format_config(Config("x")).encode()
    issuers = (IssuerConfig(service="SIGN"), IssuerConfig(service="AUTH", base_url="http://例/"))
    yield "issuers", format_config(Config("x", issuer=issuers)).encode()
    yield "strings", b'[store]\nurl = "a\\u007f\\n\\"b\\\\"\n[responder]\nhost = \'c\\\'\nbind = """d\n"""\n'
    yield "numbers", b"[responder]\nport = 0x1F90\nworkers = 1_0\nrequest_bytes_max = +512\n"
    yield "wrong-type", b"[responder]\nport = true\n"
    yield "wrong-range", b"[responder]\nport = 70000\n"
    yield "unknown-key", b"[responder]\nno = 1\n"
    yield "dotted", b"responder.port = 80\nresponder.workers = 2\n"
    yield "together", b"[index]\nage_max_s = 2\nbeat_period_ms = 5000\n"
    yield "hold", b'[[issuer]]\nservice = "SIGN"\nhold = true\n'
    yield "deep", b"a = " + b"[" * 2000
    yield "long-number", b"[responder]\nport = " + b"9" * 5000
    yield "long-hex", b"[responder]\nport = 0x" + b"f" * 5000


def one_input(data: bytes) -> None:
    """Load *data*; write what was read; load that."""
    try:
        config = _load(data)
    except ConfigError:
        return
    text = format_config(config).encode()
    assert _load(text) == config
    assert format_config(_load(text)).encode() == text


def _load(data: bytes) -> Config:
    os.ftruncate(_DESCRIPTOR, 0)
    os.pwrite(_DESCRIPTOR, data, 0)
    return load_config(_FILE)
