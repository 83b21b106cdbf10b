"""Where and with what a record is made: machine, commit, versions.

Knows: asking the machine and the programs.  Does not know: what was measured.
"""

from __future__ import annotations

import os
import platform
import subprocess
import time
from importlib import metadata
from pathlib import Path

from cryptography.hazmat.backends.openssl import backend

from bench.results import What
from bench.yardstick import Nginx

_UNIT = "CPU microseconds of the server's processes per request"


def what(command: str, response_bytes: int) -> What:
    """Return the head of a record that is made here and now."""
    described = _said("git", "describe", "--always", "--dirty", "--exclude=*")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30
    return What(
        command=command.strip(),
        commit=described,
        date=time.strftime("%Y-%m-%d", time.gmtime()),
        machine=f"{os.cpu_count()} processors, {memory} GiB, {_virtual()}",
        cpu=_cpu(),
        kernel=f"{platform.system()} {platform.release()}",
        versions=_versions(),
        response_bytes=response_bytes,
        unit=_UNIT,
    )


def _versions() -> dict[str, str]:
    packages = ("uvloop", "aiohttp", "httptools", "cryptography")
    found = {"python": platform.python_version()}
    found |= {name: metadata.version(name) for name in packages if _is_there(name)}
    found["openssl in cryptography"] = backend.openssl_version_text()
    found["openssl"] = _said("openssl", "version")
    found["nginx"] = Nginx.version()
    found["wrk"] = _said("wrk", "-v").split("\n")[0].removeprefix("wrk ").partition(" [")[0]
    return found


def _is_there(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def _said(*command: str) -> str:
    # wrk ends with an error after it has told its version.
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")


def _virtual() -> str:
    return _said("systemd-detect-virt") if Path("/usr/bin/systemd-detect-virt").exists() else "unknown host"
