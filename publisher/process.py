"""What the publisher's two processes share: one log line per event to stderr, stopping on signals."""

from __future__ import annotations

import logging
import signal
import socket
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
    """Return an event that SIGTERM and SIGINT set; call from the main thread.

    A thread of its own sets it, told through a socket: set by a handler, it would wait for its own
    lock whenever the handler interrupts somebody who holds it; and blocking the signals for
    ``sigwait`` does not reach the threads that numerical libraries start on being imported.
    """
    stop = threading.Event()
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: None)
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)

    def wait() -> None:
        # The writing end lives as long as this thread waits for it.
        with reader, writer:
            reader.recv(1)
            stop.set()
            while reader.recv(64):
                pass

    threading.Thread(target=wait, name="signals", daemon=True).start()
    return stop
