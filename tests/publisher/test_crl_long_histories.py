"""A thousand steps with two writers, kills, new CA keys and restores: every delta joins every base.

For every published complete CRL k and delta n with base(n) <= k < n, joining them gives the list at n, as
our parser reads it and as `cryptography` does; OpenSSL reads a sample.  `make test` runs a shorter history
on each database; `make histories HISTORIES=20` so many of a thousand steps on each.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from crl_long_history import LongHistory

FIRST = int(os.environ.get("FIRST_HISTORY", "1"))
COUNT = int(os.environ.get("HISTORIES", "1"))
STEPS = int(os.environ.get("HISTORY_STEPS", "100"))


@pytest.mark.parametrize("seed", range(FIRST, FIRST + COUNT))
def test_every_delta_joins_every_base(tmp_path: Path, store_url: str, seed: int) -> None:
    """Whatever happened in between, and nothing that was recorded is missing from any cut."""
    folder = tmp_path / "history"
    folder.mkdir()
    is_sqlite = store_url.startswith("sqlite")
    url = f"sqlite:///{folder / 'state' / 'store.db'}" if is_sqlite else store_url
    history = LongHistory(folder, url, seed)
    try:
        history.run(STEPS)
    finally:
        history.close()
    tally = history.tally
    print(f"seed {seed}: {tally}")
    kinds = ("ISSUED", "REVOKED", "HELD", "RELEASED", "REASON_CHANGED", "LAPSED")
    assert min(tally.acts[name] for name in (*kinds, "crash", "restore", "new key")) >= 1, tally
    assert tally.crls > STEPS
    assert tally.pairs > STEPS
    assert tally.removed_by_delta > 0
    assert tally.by_openssl >= 6
