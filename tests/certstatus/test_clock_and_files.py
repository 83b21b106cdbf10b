"""Legal days, and files that are there whole or not at all."""

from __future__ import annotations

import os
import resource
import stat
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certstatus import clock, publisher_key
from certstatus.durable import sync_all, write_durable
from certstatus.errors import ConfigError, KeyFileError
from certstatus.valkey import connect


@pytest.mark.parametrize(
    ("moment", "day"),
    [
        (datetime(2026, 3, 31, 14, 59, 59, tzinfo=UTC), date(2026, 3, 31)),
        (datetime(2026, 3, 31, 15, 0, 0, tzinfo=UTC), date(2026, 4, 1)),
        (datetime(1970, 1, 1, tzinfo=UTC), date(1970, 1, 1)),
    ],
)
def test_the_legal_day_is_the_date_in_japan(moment: datetime, day: date) -> None:
    """A JST day ends at 14:59:59 UTC, not a second earlier or later."""
    assert clock.jst_day(int(moment.timestamp())) == day


@given(posix_s=st.integers(0, 4_000_000_000))
def test_a_day_ends_one_second_before_the_next_begins(posix_s: int) -> None:
    """jst_day_end_s names the last second that has the same day number."""
    day = clock.jst_day_number(posix_s)
    end = clock.jst_day_end_s(day)
    assert posix_s <= end < posix_s + clock.DAY_S
    assert clock.jst_day_number(end) == day
    assert clock.jst_day_number(end + 1) == day + 1


def test_times_on_the_wire_have_seconds_and_no_fraction() -> None:
    """GeneralizedTime is YYYYMMDDHHMMSSZ, also past 2050."""
    assert clock.generalized_time(0) == b"19700101000000Z"
    assert clock.generalized_time(2_840_140_799) == b"20591231235959Z"


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    """The new content and mode stand under the name, and nothing else is left in the folder."""
    path = tmp_path / "a"
    write_durable(path, b"old")
    write_durable(path, b"new", 0o600)
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["a"]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    """When the new content does not fit, the old one stays and no half file is left."""
    path = tmp_path / "a"
    write_durable(path, b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError):
            write_durable(path, bytes(5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_many_are_synced_and_those_that_cannot_be_are_told(tmp_path: Path) -> None:
    """Files and folders; one that is missing keeps no other from it."""
    paths = [tmp_path / str(number) for number in range(40)]
    for path in paths:
        path.write_bytes(b"content")
    missing = tmp_path / "missing"
    troubles = sync_all([*paths[:20], missing, tmp_path, *paths[20:]])
    assert {path: type(trouble) for path, trouble in troubles.items()} == {missing: FileNotFoundError}
    assert sync_all([]) == {}


def test_secrets_that_others_can_read_are_refused(tmp_path: Path) -> None:
    """A private key or index key with a loose mode, or of another kind, is a KeyFileError."""
    private, public = tmp_path / "k", tmp_path / "k.pub"
    key = publisher_key.make_ed25519(private, public)
    assert publisher_key.load_ed25519_private(private).public_key() == key.public_key()
    assert publisher_key.load_ed25519_public(public) == key.public_key()
    index_key = publisher_key.make_index_key(tmp_path / "i")
    assert publisher_key.load_index_key(tmp_path / "i") == index_key
    private.chmod(0o640)
    with pytest.raises(KeyFileError, match="640"):
        publisher_key.load_ed25519_private(private)
    with pytest.raises(KeyFileError):
        publisher_key.load_ed25519_private(tmp_path / "i")
    with pytest.raises(KeyFileError):
        publisher_key.load_ed25519_public(tmp_path / "absent")
    (tmp_path / "i").write_bytes(b"short")
    with pytest.raises(KeyFileError, match="32"):
        publisher_key.load_index_key(tmp_path / "i")


def test_a_url_of_no_known_form_is_a_config_error() -> None:
    """The message names the key and the URL found."""
    with pytest.raises(ConfigError, match=r"valkey\.url"):
        connect("http://localhost")
    with pytest.raises(ConfigError, match=r"valkey\.url"):
        connect("sentinel://no-port/name")
