"""What the publisher's two processes share: one log line per event to stderr, stopping on signals."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time


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
    """Return an event that SIGTERM and SIGINT set; call before any thread is started.

    A thread waits for the signals, because an event set from a handler waits for its own lock when
    the handler interrupts somebody who holds it.
    """
    stop = threading.Event()
    numbers = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)

    def wait() -> None:
        signal.sigwait(numbers)
        stop.set()

    threading.Thread(target=wait, name="signals", daemon=True).start()
    return stop
