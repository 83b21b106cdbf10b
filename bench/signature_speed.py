"""What one signature costs in OpenSSL's own loop, which is the least it can cost here.

Knows: asking ``openssl speed``, which counts user CPU time.
Does not know: keys, and that the library in Python's ``cryptography`` may be another version.
Source: openssl-speed(1), -mr.
"""

from __future__ import annotations

import re
import subprocess

# Algorithms as the configuration names them: (openssl's name, kind of line with -mr, bits).
_NAMES = {
    "p256": ("ecdsap256", "F4", 256),
    "p384": ("ecdsap384", "F4", 384),
    "rsa2048": ("rsa2048", "F2", 2048),
    "rsa3072": ("rsa3072", "F2", 3072),
}


def signature_us(algorithm: str, processor: int, seconds: int = 1) -> float:
    """Return the microseconds of one signature on *processor*; takes twice *seconds*.

    Raises: RuntimeError — openssl did not say.
    """
    command = ["taskset", "-c", str(processor), "openssl", "speed", "-mr", "-seconds", str(seconds)]
    said = subprocess.run([*command, _NAMES[algorithm][0]], capture_output=True, text=True, check=True).stdout
    return read_speed(said, algorithm)


def read_speed(said: str, algorithm: str) -> float:
    """Return the microseconds of one signature from what ``openssl speed -mr`` printed.

    Raises: RuntimeError — it is not in there.
    """
    name, kind, bits = _NAMES[algorithm]
    found = re.search(rf"^\+{kind}:\d+:{bits}:([\d.]+):", said, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"openssl speed said nothing about {name}:\n{said}")
    return 1e6 / float(found[1])
