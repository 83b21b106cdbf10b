"""Rows B-H: every message of the HTTP corpus, and what the connection is good for afterwards."""

from __future__ import annotations

import pytest
from demo_service import Service
from http_corpus import CASES, Case
from request_octets import get
from wire_client import Reply, Wire


def in_short(auth: Service, reply: Reply) -> str:
    """What an OCSP answer says, or else the HTTP status."""
    if reply.status == 200 and reply.body:
        return auth.read(reply).word.replace(" ", "+")
    return str(reply.status)


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=pytest.mark.row(case.row), id=f"{case.row} {case.name}") for case in CASES],
)
def test_each_case_has_its_answers(wire: Wire, auth: Service, case: Case) -> None:
    """The pinned answers; then the connection goes on, or is closed and says so."""
    message = case.build(auth)
    replies = wire.talk(message)
    assert " ".join(in_short(auth, reply) for reply in replies) == case.said
    if case.has is not None:
        assert replies[-1].header(case.has[0]) == case.has[1]
    assert (replies[-1].header("Connection") == "close") == case.closes
    if not case.closes:
        # A HEAD has to be read with its own eyes; what follows it is the next answer.
        with wire.connect() as connection:
            connection.send(message, get(auth.request()))
            for _ in replies:
                assert connection.read(head_only=message.startswith(b"HEAD")) is not None
            reply = connection.read()
            assert reply is not None
            assert in_short(auth, reply) == "good"
