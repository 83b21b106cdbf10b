"""Python start-up hook of the fault harness: the wall clock, stepped by what a file says.

On the path of every process of a mistreated installation, so that all of them see the same
step at the same moment, as they would if somebody set the machine's clock.  Monotonic time is
left alone, as a real step leaves it.  The file CERTSTATUS_TEST_CLOCK holds the offset: 8 octets,
little-endian, signed milliseconds.
"""

from __future__ import annotations

import mmap
import os
import struct
import time

with open(os.environ["CERTSTATUS_TEST_CLOCK"], "rb") as _file:
    _offset = mmap.mmap(_file.fileno(), 8, prot=mmap.PROT_READ)
_time, _time_ns = time.time, time.time_ns


def _offset_ms() -> int:
    milliseconds: int = struct.unpack("<q", _offset[:8])[0]
    return milliseconds


time.time = lambda: _time() + _offset_ms() / 1000
time.time_ns = lambda: _time_ns() + _offset_ms() * 1_000_000
