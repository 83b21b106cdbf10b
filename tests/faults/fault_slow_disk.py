"""A disk whose every sync takes as long as the harness says; see ``slow_disk.c``.

Why not a slow block device: the kernel's (dm-delay) needs a module and root, and is not there in most
places where tests run; what a slow disk does to a program is that its syncs take long.
"""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

_SOURCE = Path(__file__).with_name("slow_disk.c")


class SlowDisk:
    """``environment`` makes a process use it; quick until told otherwise."""

    def __init__(self, folder: Path) -> None:
        library = folder / "slow_disk.so"
        self._file = folder / "disk-delay"
        self._file.write_bytes(bytes(8))
        command = [
            "cc",
            "-O2",
            "-Wall",
            "-Werror",
            "-shared",
            "-fPIC",
            "-o",
            str(library),
            str(_SOURCE),
            "-ldl",
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        self.environment = {"LD_PRELOAD": str(library), "CERTSTATUS_TEST_DISK": str(self._file)}

    def take(self, seconds: float) -> None:
        """Let every sync from now on take *seconds* longer."""
        with self._file.open("r+b") as file:
            file.write(struct.pack("<q", int(seconds * 1_000_000)))
