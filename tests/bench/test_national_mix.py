"""The shares of the national mix."""

from __future__ import annotations

import pytest

from bench.national_mix import CRL_PULLS, STATUS_REQUESTS


def test_the_shares_make_up_the_whole() -> None:
    """Every request is of one kind, and no kind is without requests."""
    shares = [kind.share for kind in (*STATUS_REQUESTS, *CRL_PULLS)]
    assert sum(shares) == pytest.approx(1.0)
    assert min(shares) > 0


def test_each_kind_has_a_name_of_its_own() -> None:
    """Reports keep the kinds apart by name."""
    names = [kind.name for kind in (*STATUS_REQUESTS, *CRL_PULLS)]
    assert len(set(names)) == len(names)
