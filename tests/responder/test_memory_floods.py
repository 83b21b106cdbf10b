"""Whatever clients send, memory stays within what the configuration gives the caches."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from memory_cases import CACHE_BYTES, FLOODS

# The table of addresses, which holds 65,536 of them at most.
_ADDRESSES_BYTES = 12_000_000
# What an allocator keeps for itself.
_SLACK_BYTES = 4_000_000


def test_floods_of_what_never_repeats_fill_no_memory(tmp_path: Path) -> None:
    """Nonces, headers, numbers, encodings, preferences, addresses, some 500,000 in all: what the caches say
    they hold is within their bound, and what the process has taken is what they say."""
    script = Path(__file__).with_name("memory_cases.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], capture_output=True, text=True, timeout=300, check=True
    )
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["flood"] for one in said] == [flood.__name__ for flood in FLOODS]
    for one in said:
        assert one["said"] <= CACHE_BYTES, said
        addresses = _ADDRESSES_BYTES if one["flood"] == "distinct_addresses" else 0
        assert one["grown"] <= CACHE_BYTES + addresses + _SLACK_BYTES, said
    nonces, _, serials, names, *_ = said
    assert nonces["said"] < 2_000_000
    assert nonces["grown"] < _SLACK_BYTES, said
    for filled in (serials, names):
        assert filled["said"] > CACHE_BYTES / 2, said
        assert 1 / 1.5 < filled["grown"] / filled["said"] < 1.5, said
