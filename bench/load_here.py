"""Loads the installation that runs on this machine: writes its population anew, then starts locust.

    python -m bench.load_here --state var/dev [--service AUTH] [words for locust]

Knows: where such an installation says who it is.  Does not know: the load test, whose words it passes on.
"""

from __future__ import annotations

import argparse
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path

from bench.write_population import write_population
from certstatus.cli.context import Installation
from certstatus.config import load_config
from certstatus.errors import CertStatusError
from issuance.issuers import issuers, services

_EXIT_NOT_BEGUN = 2
_LOCUSTFILE = Path(__file__).with_name("locustfile.py")
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}


def public_url(state: Path) -> str:
    """Return under which URL the installation in *state* answers.

    Raises: ConfigError — no such installation; OSError — it does not answer.
    """
    # What ``serve`` was started with, its options included.
    serving = state / "run" / "serve.toml"
    responder = load_config(serving if serving.exists() else state / "certstatus.toml").responder
    host = _ANY_ADDRESS.get(
        responder.bind, f"[{responder.bind}]" if ":" in responder.bind else responder.bind
    )
    url = f"http://{host}:{responder.port}"
    with urllib.request.urlopen(f"{url}/readyz", timeout=5):
        return url


def locust_words(state: Path, service: str, url: str, more: list[str]) -> list[str]:
    """Return the command line; *more* comes last, and so decides."""
    folder = state / "bench"
    return [
        *(sys.executable, "-m", "locust", "-f", str(_LOCUSTFILE), "--headless", "--only-summary"),
        *("--host", url, "--population", str(folder / service.lower())),
        *("--users", "64", "--spawn-rate", "64", "--run-time", "30s"),
        *("--html", str(folder / "report.html"), "--summary", str(folder / "summary.json")),
        *more,
    ]


def main() -> None:
    """Write the population and become locust."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0] if __doc__ else None,
        epilog="Everything else goes to locust: a scenario's name, --users 64, --run-time 5m, ...",
    )
    parser.add_argument("--state", type=Path, default=Path("var/dev"))
    parser.add_argument("--service", default="", help="[AUTH, or the only one]")
    arguments, more = parser.parse_known_args()
    try:
        url = public_url(arguments.state)
        store = Installation(arguments.state / "certstatus.toml", as_json=True).store
        names = services(issuers(store))
        service = arguments.service or ("AUTH" if "AUTH" in names else names[0])
        written = write_population(store, service, arguments.state / "bench" / service.lower())
    except CertStatusError as exc:
        print(f"not begun: {exc}")
        sys.exit(_EXIT_NOT_BEGUN)
    except urllib.error.HTTPError as exc:
        print(f"not begun: {exc.url}: HTTP {exc.code}: it is not ready")
        sys.exit(_EXIT_NOT_BEGUN)
    except OSError as exc:
        print(f"not begun: nobody answers ({exc}); in another terminal: make run STATE={arguments.state}")
        sys.exit(_EXIT_NOT_BEGUN)
    print(f"{url}, {written} certificates of {service}", flush=True)
    words = locust_words(arguments.state, service, url, more)
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, (str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")))
    )
    os.execv(words[0], words)


if __name__ == "__main__":
    main()
