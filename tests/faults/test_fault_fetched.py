"""CRLs on their way to a host through Valkey, broken off in the middle: nothing wrong is ever served, and the
host is current again by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pytest
from fault_crls import check_crls
from fault_fetching import Fetching
from fault_scene import Prepared, new_folder

from certstatus.crl_chunks import open_chunk, seal_chunk


@pytest.fixture(scope="module")
def fetching(prepared: Prepared) -> Iterator[Fetching]:
    """A publisher, and a host that meets it in Valkey alone."""
    with new_folder() as folder:
        made = Fetching(folder, prepared)
        try:
            yield made
            assert made.host.stop() == 0
            assert made.publisher.stop() == 0
        finally:
            made.end()
            for name in ("kiyose", "osaka"):
                print((folder / name / "serve.log").read_text(errors="replace")[-3000:])


def _flush(fetching: Fetching, _pieces: list[str]) -> None:
    with fetching.valkey.client() as client:
        client.flushall()


def _restart_empty(fetching: Fetching, _pieces: list[str]) -> None:
    fetching.valkey.kill()
    fetching.valkey.start()


def _replace(change: Callable[[bytes], bytes], fetching: Fetching, pieces: list[str]) -> None:
    with fetching.valkey.client() as client:
        for key in pieces:
            value = client.get(key)
            assert isinstance(value, bytes)
            # For a moment: the host must not take them again and again.
            client.set(key, change(value), ex=3)


def _shortened(value: bytes) -> bytes:
    return value[:-7]


def _of_another_file(value: bytes) -> bytes:
    content = open_chunk(value)
    assert content is not None
    return seal_chunk(content[::-1])


def _kill(side: str, *roles: str) -> Callable[[Fetching, list[str]], None]:
    def do(fetching: Fetching, _pieces: list[str]) -> None:
        for role in roles:
            getattr(fetching, side).kill(role)

    return do


def _start_anew(side: str) -> Callable[[Fetching, list[str]], None]:
    def do(fetching: Fetching, _pieces: list[str]) -> None:
        getattr(fetching, side).kill_supervisor()

    return do


_FAULTS: dict[str, Callable[[Fetching, list[str]], None]] = {
    "Valkey flushed": _flush,
    "Valkey killed, empty again": _restart_empty,
    "link cut": lambda fetching, _pieces: fetching.link.cut(),
    "pieces torn": partial(_replace, _shortened),
    "pieces of another file": partial(_replace, _of_another_file),
    "agent killed": _kill("host", "agent"),
    "all of the host killed": _start_anew("host"),
    "builder and feed killed": _kill("publisher", "builder", "feed"),
    "all of the publisher killed": _start_anew("publisher"),
}


@pytest.mark.xdist_group("fetched")
@pytest.mark.parametrize("fault", _FAULTS)
def test_a_transfer_is_broken_off(fetching: Fetching, fault: str) -> None:
    """What was on its way comes whole or not at all; the next test asks for what comes after it."""
    with fetching.in_mid_transfer() as pieces:
        _FAULTS[fault](fetching, pieces)
    fetching.wait_current()
    assert fetching.wrong() == []


@pytest.mark.xdist_group("fetched")
def test_a_link_that_is_held_up_keeps_no_crl_from_being_served(fetching: Fetching) -> None:
    """While nothing comes, what is here is served as long as it is current."""
    with fetching.in_mid_transfer():
        fetching.link.is_frozen = True
        before = fetching.reader.statuses.copy()
        fetching.wait_for_answers(50)
        assert set(fetching.reader.statuses - before) == {200}
    fetching.wait_current()
    assert fetching.wrong() == []


@pytest.mark.xdist_group("fetched")
def test_all_that_was_published_meanwhile_is_right(fetching: Fetching) -> None:
    """By the oracle of the CRLs: it is the publisher's octets that the host served."""
    crls = fetching.publisher.state / "crl"
    count, wrong = check_crls(crls, fetching.authorities(), [(0, fetching.histories())])
    assert count > 2
    assert wrong == []
