"""What the publisher's two processes share: how they start, stop and log.

Knows: opening the store of record and Valkey, and which exit code an error is.
Does not know: what either process does.
"""

from __future__ import annotations

import logging
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import redis

from certstatus.config import Config, load_config
from certstatus.errors import CertStatusError
from certstatus.private_valkey import valkey_url
from certstatus.store_use import using_store
from certstatus.valkey import connect
from issuance.store import Store

log = logging.getLogger(__name__)

Work = Callable[[Store, redis.Redis, Config, threading.Event], None]


def run_process(name: str, config_path: Path, valkey_answer_s: float, work: Work) -> int:
    """Do *work*, which is to end at the event it is given, set by SIGTERM or SIGINT; return the exit code.

    *valkey_answer_s*: a server that does not answer for so long is treated as gone.
    """
    log_to_stderr(name)
    stop = stop_on_signals()
    try:
        config = load_config(config_path)
        with using_store(config.state), Store.open(config.store_url) as store:
            valkey = connect(valkey_url(config), valkey_answer_s)
            try:
                work(store, valkey, config, stop)
            finally:
                valkey.close()
    except CertStatusError as exc:
        log.error("%s", exc)
        return exc.exit_code
    return 0


def log_to_stderr(name: str) -> None:
    """Send log lines of level INFO and above to stderr, marked with the process's *name*."""
    handler = logging.StreamHandler(sys.stderr)
    formatter = logging.Formatter(
        f"%(asctime)s.%(msecs)03dZ {name} %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S"
    )
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)


def stop_on_signals() -> threading.Event:
    """Return an event that SIGTERM and SIGINT set; call from the main thread.

    A thread of its own sets it, told through a socket: set by a handler, it would wait for its own
    lock whenever the handler interrupts somebody who holds it; and blocking the signals for
    ``sigwait`` does not reach the threads that numerical libraries start on being imported.
    """
    stop = threading.Event()
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    # Before the handlers: between the two a signal would be neither heard nor end anything.
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: None)

    def wait() -> None:
        # The writing end lives as long as this thread waits for it.
        with reader, writer:
            reader.recv(1)
            stop.set()
            while reader.recv(64):
                pass

    threading.Thread(target=wait, name="signals", daemon=True).start()
    return stop
