"""Every client, every CA, every case: what it says is what the table says, and RESULTS.md too."""

from __future__ import annotations

import interop_results
import pytest
from conftest import CLIENTS
from interop_expected import expected
from interop_matrix import Matrix, columns_of
from interop_wire import fetch_response, status_of
from interop_world import World


@pytest.mark.parametrize("client", [client.name for client in CLIENTS])
def test_a_client_says_what_is_expected(matrix: Matrix, world: World, client: str) -> None:
    """Of every case of every CA the client says what the table says; no cell is empty."""
    wrong = []
    for ca in world.cas.values():
        for column in columns_of(ca):
            found, said = matrix[client, ca.name, column]
            wanted = expected(client, ca.name, column)
            if found != wanted:
                wrong.append(f"{ca.name}, {column}: {found}, expected {wanted}\n{said}")
    assert not wrong, "\n".join(wrong)


def test_an_address_that_is_not_registered_is_told_nothing(world: World) -> None:
    """The same request gets its answer from one address and `unauthorized` from the next."""
    for name, address, said in (
        ("SIGN", "127.0.0.1", "good"),
        ("SIGN", "127.0.0.2", "unauthorized"),
        ("CORP", "127.0.0.2", "good"),
    ):
        ca = world.cas[name]
        assert status_of(fetch_response(world, ca, ca.leaf("good"), address=address)) == said


def test_results_are_written_down(matrix: Matrix, world: World, request: pytest.FixtureRequest) -> None:
    """RESULTS.md shows the tables of this run; with --write-results it is written."""
    text = interop_results.render(world, matrix)
    if request.config.getoption("--write-results"):
        interop_results.RESULTS.write_text(text)
    assert interop_results.tables(interop_results.RESULTS.read_text()) == interop_results.tables(text)
