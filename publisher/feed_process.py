"""The feed as a process: ``python -m publisher.feed_process CONFIG``.

Knows: the key that a feed needs beside store and Valkey.  Told to stop, it sends one last beat.
Does not know: how a process starts and stops (``process``).
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import redis

from certstatus.config import Config
from certstatus.publisher_key import load_ed25519_private
from issuance.store import Store
from publisher.feed import Feed
from publisher.process import run_process

# A beat is due every second.
VALKEY_ANSWER_S = 2.0


def main(config_path: Path) -> int:
    """Run the feed until a signal; return the exit code."""
    return run_process("feed", config_path, VALKEY_ANSWER_S, _work)


def _work(store: Store, valkey: redis.Redis, config: Config, stop: threading.Event) -> None:
    publisher_key = load_ed25519_private(config.state / "secrets" / "publisher.key")
    Feed(store, valkey, publisher_key, config).run(stop)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
