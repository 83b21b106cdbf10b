"""One installation, asked everything once; the tests then look at what was said."""

from __future__ import annotations

from collections.abc import Iterator

import gnutls_clients
import go_clients
import java_clients
import openssl_clients
import other_clients
import pytest
import stapling_clients
from interop_clients import Client
from interop_matrix import Matrix, ask_out_of_touch, ask_while_well
from interop_world import World

CLIENTS: tuple[Client, ...] = (
    *openssl_clients.CLIENTS,
    *gnutls_clients.CLIENTS,
    *java_clients.CLIENTS,
    *go_clients.CLIENTS,
    *other_clients.CLIENTS,
    *stapling_clients.CLIENTS,
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --write-results, which writes RESULTS.md from this run."""
    parser.addoption("--write-results", action="store_true", help="write tests/interop/RESULTS.md")


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The installation, served, with entitled askers."""
    made = World(tmp_path_factory.mktemp("interop"))
    java_clients.compile_client(made.folder)
    go_clients.compile_client(made.folder)
    try:
        made.begin()
        yield made
    finally:
        made.end()


@pytest.fixture(scope="session")
def matrix(world: World) -> Matrix:
    """What every client says of every case of every CA."""
    said = ask_while_well(world, CLIENTS)
    with world.out_of_touch():
        return said | ask_out_of_touch(world, CLIENTS)
