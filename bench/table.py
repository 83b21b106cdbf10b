"""The cost table: its stations, and the rows that each can give, with what must be reached.

Knows: rows, yardsticks, bounds.  Does not know: how anything is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

from bench.national_mix import CRL_PULLS, STATUS_REQUESTS
from bench.neighbour import INTERPRETER, MEMORY
from bench.results import Row
from bench.rows import RowPlan
from bench.stations import (
    FEW,
    MANY,
    ONE_AT_A_TIME,
    TWINS,
    Legs,
    Scene,
    beside_openssl,
    nation,
    over_tls,
    signed_by,
    two_workers,
)

_FILE = "nginx, static file"
_PULLS = sum(pull.share for pull in CRL_PULLS)


class Station(NamedTuple):
    """Servers that run together, and the rows that are measured with them."""

    name: str
    open: Callable[[Scene], AbstractContextManager[Legs]]
    rows: tuple[RowPlan, ...]


def _repeated(path: str, must: float, aim: float, yardstick: str = _FILE) -> list[RowPlan]:
    return [
        RowPlan(
            f"{path}{form}",
            connections,
            yardstick,
            f"repeated {form} {connections}",
            {f"nginx {form} {connections}": 1.0},
            must=must,
            aim=aim,
        )
        for form in ("GET", "POST")
        for connections in (FEW, MANY)
    ]


def _one_connection(form: str, connections: int) -> RowPlan:
    parts = {f"nginx {form} {connections}": 1.0}
    path = f"one connection per request: {form}"
    return RowPlan(path, connections, _FILE, f"repeated {form} {connections}", parts, must=1.5, aim=1.2)


def _unseen(connections: int) -> RowPlan:
    parts = {f"repeated GET {connections}": 1.0}
    subject = f"unseen GET {connections}"
    return RowPlan(
        "known certificate, bytes never seen", connections, "repeated GET", subject, parts, must=1.8, aim=1.4
    )


def _signed(
    path: str, shape: str, connections: int, algorithm: str, must: float | None, aim: float | None
) -> RowPlan:
    return RowPlan(
        f"{path}, {_KEYS[algorithm]}",
        connections,
        "nginx + 1 signature by openssl speed",
        f"cold {shape} {connections}",
        {f"nginx {TWINS.get(shape, shape)} {connections if connections == FEW else MANY}": 1.0},
        signature=f"signature {algorithm}",
        must=must,
        aim=aim,
    )


_KEYS = {"p256": "P-256", "p384": "P-384", "rsa2048": "RSA-2048"}


def _mix() -> list[RowPlan]:
    """The mix to its parts: the same requests by themselves, and what nginx and openssl would take."""
    alone = {f"cold {shape.name} {FEW}": shape.share for shape in STATUS_REQUESTS}
    alone[f"CRL pulls {FEW}"] = _PULLS
    yardsticks: dict[str, float] = {}
    for shape in STATUS_REQUESTS:
        name = f"nginx {TWINS.get(shape.name, shape.name)} {FEW}"
        yardsticks[name] = yardsticks.get(name, 0.0) + shape.share
    yardsticks[f"nginx GET {FEW}"] += _PULLS
    return [
        RowPlan("national mix", FEW, "its parts, each by itself", f"mix {FEW}", alone, must=1.1, aim=1.0),
        RowPlan(
            "national mix",
            FEW,
            "nginx + its signatures by openssl speed",
            f"mix {FEW}",
            yardsticks,
            signature="signature p256",
        ),
    ]


def _two_workers(path: str, leg: str, connections: int) -> RowPlan:
    parts = {f"one worker, {leg}": 1.0}
    return RowPlan(
        f"two workers on one processor: {path}",
        connections,
        "one worker",
        f"two workers, {leg}",
        parts,
        must=1.1,
        aim=1.0,
    )


def _beside(what: str, kind: str) -> RowPlan:
    return RowPlan(
        f"one worker beside {what}: never asked before",
        FEW,
        "one worker",
        f"beside {kind}",
        {f"one worker, cold GET {FEW}": 1.0},
    )


STATIONS = (
    Station(
        "nation",
        nation,
        (
            *_mix(),
            *_repeated("repeated ", 1.15, 1.0),
            _one_connection("GET, HTTP/1.0", FEW),
            _one_connection("GET, HTTP/1.0", MANY),
            _one_connection("GET, Connection: close", FEW),
            _one_connection("POST, HTTP/1.0, close", FEW),
            _unseen(FEW),
            _unseen(MANY),
            _signed("never asked before, GET", "GET", FEW, "p256", 2.0, 1.6),
            _signed("never asked before, GET", "GET", MANY, "p256", 2.0, 1.6),
            _signed("never asked before, POST", "POST", FEW, "p256", 2.0, 1.6),
            _signed("nonce", "nonce", FEW, "p256", 2.0, 1.6),
            _signed("nonce", "nonce", MANY, "p256", 2.0, 1.6),
            _signed("5 certificates never asked before", "5 certificates", FEW, "p256", None, None),
            RowPlan(
                "repeated GET",
                FEW,
                "aiohttp on uvloop, fixed bytes",
                f"repeated GET {FEW}",
                {f"aiohttp GET {FEW}": 1.0},
            ),
        ),
    ),
    Station("TLS", over_tls(False), tuple(_repeated("TLS 1.3, repeated ", 1.2, 1.0, "nginx, TLS 1.3"))),
    Station(
        "client certificates",
        over_tls(True),
        tuple(_repeated("client certificate, repeated ", 1.2, 1.0, "nginx, client certificates")),
    ),
    *(
        Station(
            _KEYS[algorithm],
            signed_by(algorithm),
            (
                _signed("never asked before, GET", "GET", FEW, algorithm, 1.3, 1.1),
                _signed("nonce", "nonce", FEW, algorithm, 1.3, 1.1),
            ),
        )
        for algorithm in ("rsa2048", "p384")
    ),
    Station(
        "two workers",
        two_workers,
        (
            _two_workers("repeated GET", f"repeated GET {FEW}", FEW),
            _two_workers("repeated GET", f"repeated GET {MANY}", MANY),
            _two_workers("never asked before", f"cold GET {FEW}", FEW),
            _beside("another process that overwrites 2 MB", MEMORY),
            _beside("another process that runs other Python", INTERPRETER),
        ),
    ),
    Station(
        "openssl",
        beside_openssl,
        (
            RowPlan(
                "never asked before, GET, HTTP/1.0",
                ONE_AT_A_TIME,
                "openssl ocsp",
                f"cold GET, HTTP/1.0 {ONE_AT_A_TIME}",
                {f"openssl {ONE_AT_A_TIME}": 1.0},
            ),
        ),
    ),
)


def chosen(words: Sequence[str]) -> list[Station]:
    """Return the stations with those rows whose name holds one of *words*; all, without words."""
    found = []
    for station in STATIONS:
        rows = tuple(
            row
            for row in station.rows
            if not words or any(word in f"{station.name}: {row.path} / {row.yardstick}" for word in words)
        )
        if rows:
            found.append(station._replace(rows=rows))
    return found


def as_markdown(rows: Sequence[Row]) -> str:
    """Return the table: a line for each row, "aim", "must" or "missed" in the end."""
    lines = [
        "| path | connections | µs | yardstick | µs | ratio (min-max) | must | aim | reached |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        ratio = row.ratio
        must, aim = ("" if bound is None else f"{bound:g}" for bound in (row.must, row.aim))
        hits = f", {row.more['hit_rate']:.1%} hits" if "hit_rate" in row.more else ""
        lines.append(
            f"| {row.path}{hits} | {row.connections} | {row.subject_us.median:.1f} | {row.yardstick} "
            f"| {row.yardstick_us.median:.1f} | {ratio.median:.2f} ({ratio.min:.2f}-{ratio.max:.2f}) "
            f"| {must} | {aim} | {row.verdict} |"
        )
    return "\n".join(lines)
