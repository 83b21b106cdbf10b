"""What a worker does leaves nothing that only a collection of old objects would find: it makes none."""

from __future__ import annotations

import gc
import time

import pytest
from worker_cases import Client, Host

_TIMES = 50
# What the test itself may leave; one for each request would be _TIMES.
_FEW = 20


@pytest.mark.parametrize(
    ("message", "is_answer_read"),
    [
        (b"GET /readyz HTTP/1.1\r\nHost: x\r\nX-A: 1\r\n\r\n", True),
        (b"GET /crl/sign/g1/none.crl HTTP/1.1\r\nHost: x\r\n\r\n", True),
        (b"GET /crl/sign/g1/none.crl HTTP/1.1\r\nHost: x\r\n\r\n", False),
        (b"FOO\r\n\r\n", True),
        (b"POST /ocsp HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 30\r\n\r\n", False),
    ],
    ids=["answered", "not found", "gone before the answer", "no HTTP", "gone amid the body"],
)
def test_no_request_leaves_old_cycles(host: Host, message: bytes, is_answer_read: bool) -> None:
    """The watch over the turns collects what is young, all the time; nothing is left for a later look."""
    # The watch's own collections, which run on, are what is relied upon.
    gc.disable()
    try:
        for is_measured in (False, True):
            gc.collect()
            for _ in range(_TIMES):
                with Client(host.slow_port) as client:
                    client.send(message)
                    if is_answer_read:
                        client.read_answer()
            time.sleep(0.2)
            # Some of these requests' objects have been looked at before they became garbage.
            left = gc.collect()
            if is_measured:
                assert left < _FEW
    finally:
        gc.enable()
