"""Asking every client about every case of every CA, and the table of what they said."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from interop_ca import CA, CASES
from interop_clients import Answer, Client, Question
from interop_world import World

NOT_ENTITLED = "not entitled"
STALE = "stale server"
COLUMNS = (*CASES, NOT_ENTITLED, STALE)
# (client, CA, column) to what was said.
Matrix = dict[tuple[str, str, str], Answer]


def columns_of(ca: CA) -> tuple[str, ...]:
    """Return the columns that a CA has: who answers everybody refuses nobody."""
    return (*ca.cases, *([NOT_ENTITLED] if ca.registered else []), STALE)


def ask_while_well(world: World, clients: Sequence[Client]) -> Matrix:
    """Ask all; then ask again as somebody without a right."""
    fresh = [Question(ca, case) for ca in world.cas.values() for case in ca.cases]
    said = _ask(world, clients, {question: question.case for question in fresh})
    registered = [ca for ca in world.cas.values() if ca.registered]
    world.end_entitlement()
    try:
        return said | _ask(world, clients, {Question(ca, "good"): NOT_ENTITLED for ca in registered})
    finally:
        world.entitle()


def ask_out_of_touch(world: World, clients: Sequence[Client]) -> Matrix:
    """Ask what is good, of a server that has lost touch with its publisher."""
    return _ask(world, clients, {Question(ca, "good"): STALE for ca in world.cas.values()})


def _ask(world: World, clients: Sequence[Client], columns: dict[Question, str]) -> Matrix:
    questions = list(columns)
    with ThreadPoolExecutor(3) as pool:
        all_said = list(pool.map(lambda client: client.ask(world, questions), clients))
    return {
        (client.name, question.ca.name, columns[question]): answer
        for client, answers in zip(clients, all_said, strict=True)
        for question, answer in zip(questions, answers, strict=True)
    }
