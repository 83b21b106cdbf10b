"""The feed as a process: ``python -m publisher.feed_process CONFIG``.

Knows: opening what a feed needs and stopping on SIGTERM or SIGINT after one last beat.
Does not know: who started it.
"""

from __future__ import annotations

import logging
import sys
import threading
from pathlib import Path

from certstatus.config import load_config
from certstatus.errors import CertStatusError
from certstatus.private_valkey import valkey_url
from certstatus.publisher_key import load_ed25519_private
from certstatus.valkey import connect
from issuance.store import Store
from publisher.feed import Feed
from publisher.process import log_to_stderr, stop_on_signals

log = logging.getLogger(__name__)

# A server that does not answer for so long is treated as gone; a beat is due every second.
VALKEY_ANSWER_S = 2.0


def main(config_path: Path, stop: threading.Event | None = None) -> int:
    """Run the feed until *stop* (by default: until a signal); return the exit code."""
    log_to_stderr("feed")
    stop = stop or stop_on_signals()
    try:
        config = load_config(config_path)
        publisher_key = load_ed25519_private(config.state / "secrets" / "publisher.key")
        with Store.open(config.store_url) as store:
            valkey = connect(valkey_url(config), VALKEY_ANSWER_S)
            try:
                Feed(store, valkey, publisher_key, config).run(stop)
            finally:
                valkey.close()
    except CertStatusError as exc:
        log.error("%s", exc)
        return exc.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
