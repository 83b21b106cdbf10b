"""From ``publish now`` to a worker that serves it: by a beat of its own, not by the next one that is due."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography import x509
from served_installation import Served, demo_served

from certstatus.cli.initialise import demo_text

BEAT_PERIOD_S = 10
SCOPE = "auth/g1/all"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A small demo whose regular beats are ten seconds apart."""
    config = demo_text() + f"\n[index]\nbeat_period_ms = {BEAT_PERIOD_S * 1000}\n"
    with demo_served(tmp_path_factory.mktemp("beats"), config) as made:
        yield made


def served_number(served: Served) -> int:
    """The number of the newest delta of AUTH's unpartitioned scope, as a worker lists it."""
    listed: dict[str, Any] = json.loads(served.get("/crl/auth/"))
    (scope,) = [scope for scope in listed["scopes"] if scope["scope"] == SCOPE]
    return int(scope["delta"]["number"]) if scope["delta"] else 0


def beats(served: Served) -> int:
    """How many beats the feed has sent."""
    return int(json.loads((served.state / "run" / "feed.json").read_text())["beats"])


def test_what_is_published_on_request_is_served_before_the_next_beat_is_due(served: Served) -> None:
    """A worker serves the delta with the revocation soon after the command has ended, each time."""
    served.run("publish", "now", "--all", "--service", "AUTH")
    serials = population(served)
    for serial in serials[:3]:
        served.run("revoke", serial, "--cause", "key-leaked")
        before = beats(served)
        made = served.json("publish", "now", "--all", "--service", "AUTH")["published"]
        number = next(item["number"] for item in made if (item["kind"], item["scope"]) == ("delta", SCOPE))
        until_s = time.monotonic() + BEAT_PERIOD_S / 2
        while served_number(served) != number:
            assert time.monotonic() < until_s
        delta = x509.load_der_x509_crl(served.get(f"/crl/{SCOPE}/delta.crl"))
        assert delta.get_revoked_certificate_by_serial_number(int(serial, 16)) is not None
        # One of each publication of the catalogue, and the regular ones.
        assert beats(served) - before <= 2 * len(made) + 2


def population(served: Served) -> list[str]:
    """Serial numbers of AUTH certificates that are good."""
    rows = csv.DictReader((served.state / "demo" / "auth" / "population.csv").read_text().splitlines())
    return [row["serial"] for row in rows if row["status"] == "good"]
